"""
Rhymes: "What rhymes with cat?" The families of words that rhyme are in letters.txt.

How a word sounds cannot be worked out from its letters ("blue", "shoe", "two"), so it is learned by heart:
an answer is always the family's first word that was not asked for. Split by the wording.
"""
from random import Random

from nanochat.kindergarten import tables
from nanochat.kindergarten.skill import Check, Made, chat
from nanochat.kindergarten.skills_letters import COUNTED, ask, written
from nanochat.kindergarten.world import World

RHYMING = tables.read("letters.txt")["rhyming"]  # {kind: wordings}
FAMILIES = list(tables.read("letters.txt")["families"].values())
NO_RHYME = tables.read("letters.txt")["no rhyme"]["words"]


def rhymes(rng: Random, world: World, test: bool, level: int) -> Made:
    """A word that rhymes, several, whether two do, which of three does."""
    kind = rng.choices(("one", "several", "pair", "choice", "none"), (60, 14, 15, 8, 3))[0]
    family = rng.choice(FAMILIES)
    asked = rng.choice(family)
    others = [word for word in family if word != asked]
    if kind == "several":
        n_words = min(rng.choice((2, 3, 3, 4, 5)), len(others))
        return _several(rng, asked, others, n_words, test) if n_words > 1 else rhymes(rng, world, test, level)
    if kind == "pair":
        return _pair(rng, asked, others, test)
    if kind == "choice":
        return _choice(rng, asked, others, test)
    if kind == "none":
        asked = rng.choice(NO_RHYME)
        check: Check = {"kind": "any", "signs": ["nothing", "no word"], "rivals": []}
        return chat(_question(rng, "one", test, asked), f"Nothing really rhymes with {asked}."), check
    return chat(_question(rng, "one", test, asked), _said(others[0], asked)), _check(asked, others, 1)


def _question(rng: Random, kind: str, test: bool, asked: str, **slots: str) -> str:
    return ask(rng, f"rhyming {kind}", RHYMING[kind], test, {"w": written(rng, asked), **slots})


def _said(word: str, asked: str) -> str:
    return f"{word.capitalize()} rhymes with {asked}."


def _check(asked: str, rhyming: list[str], n_words: int) -> Check:
    about = f"rhymes rhyme with words that {asked}"
    return {"kind": "list", "n": n_words, "members": rhyming, "about": about, "in_order": False}


def _strangers(rng: Random, asked: str, others: list[str], n_words: int) -> list[str]:
    """Words of other families, each of another one."""
    alike = {asked, *others}
    strange = [family for family in FAMILIES if not alike & {*family}]
    return [rng.choice(family) for family in rng.sample(strange, n_words)]


def _several(rng: Random, asked: str, others: list[str], n_words: int, test: bool) -> Made:
    question = _question(rng, "several", test, asked, k=rng.choice((str(n_words), COUNTED[n_words])))
    answer = ", ".join(others[:n_words]).capitalize() + "."
    return chat(question, answer), _check(asked, others, n_words)


def _pair(rng: Random, asked: str, others: list[str], test: bool) -> Made:
    is_so = rng.random() < 0.5
    other = rng.choice(others) if is_so else _strangers(rng, asked, others, 1)[0]
    question = _question(rng, "pair", test, asked, v=written(rng, other))
    pair = f"{asked} and {other}"
    answer = f"Yes, {pair} rhyme." if is_so else f"No, {pair} do not rhyme."
    return chat(question, answer), {"kind": "yes_no", "answer": "yes" if is_so else "no"}


def _choice(rng: Random, asked: str, others: list[str], test: bool) -> Made:
    right = rng.choice(others)
    words = [right, *_strangers(rng, asked, others, 2)]
    rng.shuffle(words)
    question = _question(rng, "choice", test, asked, list=f"{words[0]}, {words[1]} or {words[2]}")
    return chat(question, _said(right, asked)), _check(asked, [right], 1)
