"""
Small talk as strangers make it, and what the model is not, cannot see and cannot do (manners.txt).

skills_social.py holds the older, narrower greetings; here the wordings are composed. What people say to a
chat program first is seldom a question, and a model that has not met "lol", "asdf" or "are you ChatGPT?"
answers with whatever stands nearest: an invented person.
"""
import re
from random import Random

from nanochat.kindergarten.skill import Made, chat, draw
from nanochat.kindergarten.skills_people import UNKNOWN
from nanochat.kindergarten.skills_social import POLITE
from nanochat.kindergarten.typist import typed
from nanochat.kindergarten.unlisted import is_rude, made_up_word, some_name
from nanochat.kindergarten.wording import MANNERS, POOLS, compose
from nanochat.kindergarten.world import World

ASKS = re.compile(r"(^|, |^and |^so )(who|what|what's|whats|where|when|how|hows|why|which|are|do|did|can|"
                  r"could|may|is|am|will|should|would|have|r) ")
INTENTS = {title: table for title, table in MANNERS.items() if title not in ("fill", "written out")}
ABOUT_ITSELF = ("who", "name", "other bots", "maker", "human", "abilities", "size", "smart", "age", "home")
NOBODY_KNOWS = ("unknown", "unknown", "celebrity", "stranger", "strange word", "strange meaning", "nonsense")
SHARES = ((0.18, ABOUT_ITSELF), (0.32, NOBODY_KNOWS))  # the rest: any intent by the number of its wordings
WEIGHTS = [len(table["said"]) ** 0.7 for table in INTENTS.values()]

WRITTEN_OUT = {short: words[0] for short, words in MANNERS["written out"].items()}  # "i'm": "i am"
_CONTRACTION = re.compile(r"\b[A-Za-z]+'[a-z]+\b(?! you\b)")
_JOINED = {short.replace("'", ""): full for short, full in WRITTEN_OUT.items()}  # "im" -> "i am"
_NOT_JOINED = ("ill", "id")  # words of their own
_OPENED = re.compile(r"^(please tell me: |hey, |hi! |i have a question\. )")
KEYBOARD = ("qwertyuiop", "asdfghjkl", "zxcvbnm")


def plain(said: str) -> str:
    """What was said without capitals and marks, and with "is" and "am" written out."""
    bare = re.sub("[^a-z0-9 ]", "", _OPENED.sub("", said.lower())).strip()
    return " ".join(word if word in _NOT_JOINED else _JOINED.get(word, word) for word in bare.split())


def _wordings_of_skills_social(side: str) -> set[str]:
    return {plain(said) for rows in POLITE.values() for row in rows for said in row[side]}


ASKED_OF_UNKNOWN = {plain(question) for question in UNKNOWN["question"]["about"]}
ASKED_IN_TESTS = _wordings_of_skills_social("in tests") | ASKED_OF_UNKNOWN  # not trained here
TRAINED_ELSEWHERE = _wordings_of_skills_social("said") | ASKED_OF_UNKNOWN  # no test of ours


def manners(rng: Random, world: World, test: bool, level: int) -> Made:
    """One remark and a fitting answer."""
    return remark(rng, test)


def remark(rng: Random, test: bool, title: str = "") -> Made:
    """A remark with this intent ("": any) and a fitting answer; the split is by what is typed in the end."""
    elsewhere = TRAINED_ELSEWHERE if test else ASKED_IN_TESTS

    def make() -> tuple[str, str, dict[str, str]]:
        while True:
            meant = title or _title(rng)
            filled = _made_up(rng)
            said = compose(rng, rng.choice(INTENTS[meant]["said"]), filled)
            if rng.random() < 0.4:  # names, too
                said = said.lower()
            said = chatted(rng, said)
            if plain(said) not in elsewhere:
                return meant, said, filled

    meant, said, filled = draw(make, lambda made: ("manners", plain(made[1])), test)
    answer = compose(rng, rng.choice(INTENTS[meant]["answer"]), filled)
    signs = [compose(rng, sign, filled).lower() for sign in INTENTS[meant]["signs"]]
    return chat(said, answer[0].upper() + answer[1:]), {"kind": "any", "signs": signs, "rivals": []}


def _title(rng: Random) -> str:
    chance = rng.random()
    for top, titles in SHARES:
        if chance < top:
            return rng.choice(titles)
    return rng.choices(tuple(INTENTS), WEIGHTS)[0]


# ---- what nobody has ever said
def _made_up(rng: Random) -> dict[str, str]:
    """Values for the slots that no list could fill: a word, a full name, letters mashed, three things."""
    things = rng.sample(POOLS["thing"], 3)
    surname = rng.choice(POOLS["surname"]) if rng.random() < 0.5 else _nonce(rng).capitalize()
    return {"nonce": _nonce(rng), "mash": _mash(rng), "fullname": f"{some_name(rng)} {surname}",
            "thing": things[0], "thing2": things[1], "thing3": things[2]}


def _nonce(rng: Random) -> str:
    """A word that means nothing and needs the article "a"."""
    while True:
        word = made_up_word(rng)
        if 4 <= len(word) <= 10 and word[0] not in "aeiou" and not is_rude(word):
            return word


def _mash(rng: Random) -> str:
    """Letters as fingers on a keyboard, or a cat, produce them."""
    while True:
        chance = rng.random()
        row = rng.choice(KEYBOARD)
        if chance < 0.35:  # neighbours
            start = rng.randrange(len(row) - 2)
            letters = row[start:start + rng.randint(3, 6)] * rng.choice((1, 1, 2))
        elif chance < 0.75:
            letters = "".join(rng.choices(row, k=rng.randint(4, 10)))
        else:
            letters = "".join(rng.choices("bcdfghjklmnpqrstvwxz", k=rng.randint(3, 8)))
        if not is_rude(letters):
            return letters


# ---- how it is typed
def chatted(rng: Random, said: str) -> str:
    """With the capitals, marks and apostrophes of one who writes well, or without."""
    said = _CONTRACTION.sub(lambda found: _contracted(rng, found[0]), said)
    if rng.random() < 0.35:
        return said
    if not said[-1].isalnum():  # it has its marks already
        return said
    if ASKS.search(said):
        said += rng.choice(("?", "?", "?", "?", "", "??"))
    else:
        said += rng.choice((".", "!", "", "", "!!", "..."))
    if rng.random() < 0.6:
        said = re.sub(r"\bi\b", "I", said[0].upper() + said[1:])
    return typed(rng, said) if rng.random() < 0.3 else said


def _contracted(rng: Random, word: str) -> str:
    """ "i'm", "im" or "i am"."""
    chance = rng.random()
    if chance < 0.45:
        return word
    if chance < 0.75 or word not in WRITTEN_OUT:
        return word.replace("'", "")
    return WRITTEN_OUT[word]
