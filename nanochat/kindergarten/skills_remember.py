"""
What users tell about themselves and others: a fact, how it is told, asked for and answered (remember.txt).

A fact is a kind (what sort of thing is told) with a value for every slot of its wordings. Values come from
long lists or are made up, so that looking back is the only way to know them. Typing noise is laid over a
wording before its slots are filled: a value keeps its letters, and whoever writes small writes all of it so.
"""
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from random import Random

from nanochat.kindergarten import tables
from nanochat.kindergarten.checks import says
from nanochat.kindergarten.skill import Check, draw, fact_check
from nanochat.kindergarten.skills_numbers import right_side
from nanochat.kindergarten.skills_reading import THINGS
from nanochat.kindergarten.typist import typed
from nanochat.kindergarten.unlisted import made_up_word, some_name, some_thing
from nanochat.kindergarten.wording import compose, vary

REMEMBER = tables.read("remember.txt")
KINDS = tables.titled("remember.txt", "keep")
AROUND = REMEMBER["around"]
OFTEN = {kind: int(times[0]) for kind, times in REMEMBER["often"].items()}
SUBJECTS = ("k", "r", "n", "s")  # slots that say whom or what a fact is about
REQUEST = re.compile(r"(please |can you )?(tell|say|name|repeat|read|call|remember|count|list)\b")
MINE = re.compile(r"\b(i|me|my|mine|we|our)\b")
_SLOT = re.compile(r"\{(\w)\}")
TRIES = 100  # to find a value that is like no other


def _listed(values: list[str]) -> list[str]:
    text = " ".join(values)
    return [value.strip() for value in text.split(",")]


FAVOURITES = {key: _listed(values) for key, values in REMEMBER["favourites"].items()}
FAVOURITES |= {"food": tables.MEALS, "meal": tables.MEALS, "dish": tables.MEALS, "hobby": tables.PASTIMES,
               "city": tables.CITIES}
POOLS = {key: _listed(values) for key, values in REMEMBER["pools"].items()} | {
    "meal": tables.MEALS, "hobby": tables.PASTIMES, "thing": THINGS, "shade": tables.SHADES + tables.COLOURS,
}
ALIKE = [set(_listed(group)) for group in REMEMBER["alike"].values()]
HE = dict.fromkeys(POOLS["men"], "he") | dict.fromkeys(POOLS["women"], "she")


@dataclass(frozen=True)
class Fact:
    kind: str
    slots: dict[str, str]

    @property
    def family(self) -> str:
        """Kinds of one family can answer the same question, so that only one of them is told."""
        return self.kind.split()[0]


@dataclass(frozen=True)
class Asking:
    """One way to ask for a fact: its wording, the answer's, and the slots that only the answer has."""

    fact: Fact
    wording: str
    answer: str

    @property
    def values(self) -> list[str]:
        asked_with = _SLOT.findall(self.wording)
        said = _SLOT.findall(self.answer)
        wanted = [slot for slot in said if slot not in asked_with] or said
        return [self.fact.slots[slot] for slot in wanted]

    def answered(self, rng: Random) -> str:
        return compose(rng, self.answer, dict(self.fact.slots))


# ---- values
def _nickname(rng: Random) -> str:
    """Two words: "Captain Noodle", "Mira Stone"."""
    last = some_name(rng, POOLS["last names"])
    if rng.random() < 0.5:
        last = some_thing(rng, tables.EVERYDAY).capitalize()
        return f"{rng.choice(POOLS['titles'])} {last}"
    return f"{some_name(rng)} {last}"


def _who(rng: Random) -> str:
    return _nickname(rng) if rng.random() < 0.2 else some_name(rng)


def _date(rng: Random) -> str:
    day = rng.randint(1, 28)
    month = rng.choice(POOLS["month"])
    ending = {1: "st", 2: "nd", 3: "rd", 21: "st", 22: "nd", 23: "rd"}.get(day, "th")
    return rng.choice((f"{month} {day}", f"{day} {month}", f"{month} {day}{ending}",
                       f"the {day}{ending} of {month}"))


def _time(rng: Random) -> str:
    hour = rng.randint(1, 12)
    minutes = rng.choice(("15", "30", "45", "10", "20", "05"))
    return rng.choice((f"{hour}", f"{hour} pm", f"{hour}pm", f"{hour} am", f"{hour}:{minutes}",
                       f"{hour} o'clock", f"half past {hour}", f"quarter past {hour}",
                       f"quarter to {hour}", "noon"))


def _code(rng: Random) -> str:
    """A code of digits, of letters, or a word."""
    chance = rng.random()
    if chance < 0.5:
        return str(rng.randint(10, 99999))
    if chance < 0.65:
        letters = [rng.choice("abcdefghjkmnpqrstuvwxyz") for _ in range(rng.randint(1, 3))]
        return "".join(letters).upper() + str(rng.randint(1, 999))
    return some_thing(rng, tables.EVERYDAY)


def _phone(rng: Random) -> str:
    parts = [str(rng.randint(100, 999)) for _ in range(rng.choice((2, 2, 3)))]
    parts[-1] += str(rng.randint(0, 9))
    return rng.choice(("-", " ", "")).join(parts)


def _password(rng: Random) -> str:
    """A word, two, or a word and a number."""
    word = some_thing(rng, tables.EVERYDAY)
    chance = rng.random()
    if chance < 0.5:
        return word
    if chance < 0.8:
        return f"{rng.choice(POOLS['colour'])} {word}"
    return word + str(rng.randint(1, 99))


def _title_of_book(rng: Random) -> str:
    noun = some_thing(rng, tables.EVERYDAY).capitalize()
    return f"The {rng.choice(POOLS['look']).capitalize()} {noun}"


def _holder(rng: Random) -> str:
    """Where something can be put: "the blue bag"."""
    which = rng.choice(POOLS["colour"] + POOLS["which"])
    return rng.choice((f"the {which} {rng.choice(POOLS['holder'])}", f"the {rng.choice(POOLS['holder'])}"))


MAKERS: dict[str, Callable[[Random], str]] = {
    "name": some_name, "who": _who, "date": _date, "time": _time, "code": _code, "phone": _phone,
    "password": _password, "book": _title_of_book, "holder": _holder,
    "petname": lambda rng: some_name(rng, tables.PETS + tables.NAMES),
    "city": lambda rng: some_name(rng, tables.CITIES),
    "town": lambda rng: some_name(rng, tables.CITIES + POOLS["last names"]),
    "made": lambda rng: made_up_word(rng).capitalize(),
    "goods": lambda rng: some_thing(rng, THINGS + POOLS["goods"]),
    "age": lambda rng: str(rng.choice((rng.randint(3, 19), rng.randint(2, 90)))),
    "few": lambda rng: str(rng.randint(2, 12)) if rng.random() < 0.8 else rng.choice(POOLS["number words"]),
    "some": lambda rng: str(rng.randint(2, 60)),
    "tall": lambda rng: rng.choice((f"{rng.randint(90, 199)} cm", f"1.{rng.randint(10, 95)} m")),
    "house": lambda rng: str(rng.randint(1, 250)),
    "year": lambda rng: str(rng.randint(1940, 2020)),
}


def alike(one: str, other: str) -> bool:
    """Whether two values could be taken for each other: "mum" and "mother", "key" and "spare key"."""
    one, other = one.lower(), other.lower()
    if one.split()[-1] == other.split()[-1]:
        return True
    return any(one in group and other in group for group in ALIKE)


def _is_new(value: str, taken: Iterable[str]) -> bool:
    return not any(other and alike(value, other) for other in taken)


def _value(rng: Random, pool: str, taken: Iterable[str]) -> str:
    """A value of the pool, like none that is taken; where a short pool has no such value, any."""
    value = ""
    for _ in range(TRIES):
        value = MAKERS[pool](rng) if pool in MAKERS else rng.choice(POOLS[pool])
        if _is_new(value, taken):
            break
    return value


def _favourite(rng: Random, of: str, taken: Iterable[str]) -> str:
    """A favourite colour, game ...: a usual one, or a thing or a word that nobody would guess."""
    usual = FAVOURITES.get(of, POOLS["thing"])
    if of in ("band", "singer", "song", "book", "movie", "cartoon", "toy"):
        usual = [_who(rng), _title_of_book(rng)]
    value = ""
    for _ in range(TRIES):
        value = some_thing(rng, usual) if rng.random() < 0.5 else rng.choice(usual)
        if _is_new(value, taken):
            break
    return value


# ---- facts
def draw_fact(rng: Random, kind: str, test: bool, small: bool, others: Sequence[Fact] = ()) -> Fact:
    """A fact of this kind on the wanted side of the split; half of the time about the same one as another."""
    declared = dict(slot.split(" ", 1) for slot in KINDS[kind].get("slots", []))
    answers = "".join(answer for _, answer in _pairs(kind))
    keys = sorted({slot for slot in _SLOT.findall(answers) if slot in declared})
    same_kind = any(other.kind == kind for other in others)

    def make() -> dict[str, str]:
        slots: dict[str, str] = {}
        taken = {value for other in others for value in other.slots.values()}
        shared = {} if same_kind or rng.random() < 0.5 else _subjects(others)
        for slot, pool in declared.items():
            others_values = {*taken, *slots.values()}
            if pool == "favourite":
                value = _favourite(rng, slots["f"], others_values)
            else:
                value = shared.get(f"{slot} {pool}") or _value(rng, pool, others_values)
            slots[slot] = value.lower() if small else value
        return slots

    def is_fit(slots: dict[str, str]) -> bool:
        numbers = [int(slots[slot]) for slot in ("x", "y") if slots.get(slot, "").isdigit()]
        return len(numbers) < 2 or right_side(numbers, test)

    while True:
        slots = draw(make, lambda made: ("recall", *(made[key].lower() for key in keys)), test, percent=15)
        if is_fit(slots):
            return Fact(kind, _with_pronouns(slots))


def _subjects(others: Sequence[Fact]) -> dict[str, str]:
    """{"k pet": "dog"}: of whom the other facts are."""
    found = {}
    for other in others:
        for slot in KINDS[other.kind].get("slots", []):
            if slot[0] in SUBJECTS:
                found[slot] = other.slots[slot[0]]
    return found


def _with_pronouns(slots: dict[str, str]) -> dict[str, str]:
    he = HE.get(slots.get("r", ""), "")
    return slots | {"h": he, "o": {"he": "his", "she": "her"}.get(he, "")}


def draw_kinds(rng: Random, count: int) -> list[str]:
    """So many kinds that cannot be confused with each other."""
    kinds: list[str] = []
    names = list(KINDS)
    weights = [OFTEN.get(kind, 1) for kind in names]
    while len(kinds) < count:
        kind = rng.choices(names, weights)[0]
        if kind.split()[0] not in [other.split()[0] for other in kinds]:
            kinds.append(kind)
    return kinds


def unlike(rng: Random, facts: list[Fact], test: bool, small: bool) -> Fact:
    """A fact that none of these can tell: the name of another pet, the age of the same one, anything else."""
    repeatable = [fact.kind for fact in facts if "twice" in KINDS[fact.kind] and _is_mine(fact.kind)]
    if repeatable and rng.random() < 0.3:
        return draw_fact(rng, rng.choice(repeatable), test, small, facts)
    families = {fact.family for fact in facts}
    others = [kind for kind in KINDS if kind.split()[0] not in families and _is_mine(kind)]
    subjects = _subjects(facts)
    related = [kind for kind in others if subjects.keys() & {*KINDS[kind]["slots"]}]
    if related and rng.random() < 0.5:
        others = related
    return draw_fact(rng, rng.choice(others), test, small, facts)


def changed(rng: Random, fact: Fact, small: bool) -> Fact:
    """The fact with another value for {v}: what was told before does not count any more."""
    declared = dict(slot.split(" ", 1) for slot in KINDS[fact.kind]["slots"])
    taken = fact.slots.values()
    if declared["v"] == "favourite":
        value = _favourite(rng, fact.slots["f"], taken)
    else:
        value = _value(rng, declared["v"], taken)
    return replace(fact, slots={**fact.slots, "v": value.lower() if small else value})


# ---- wordings
def _pairs(kind: str) -> list[tuple[list[str], str]]:
    """(wordings of a question, the answer to it): a kind may be asked for from two sides and more."""
    table = KINDS[kind]
    pairs = []
    for key, wordings in table.items():
        if key.startswith("asked"):
            pairs.append((wordings, table[key.replace("asked", "answer")][0]))
    return pairs


def question_about(rng: Random, fact: Fact) -> Asking:
    """Any question about a fact; a side with more wordings is asked for more often."""
    asked = [(wording, answer) for wordings, answer in _pairs(fact.kind) for wording in wordings]
    wording, answer = rng.choice(asked)
    return Asking(fact, vary(rng, wording), answer)


def question_of_mine(rng: Random, fact: Fact) -> Asking:
    """One that speaks of the user: "who is Zoe?" might be asked about anybody."""
    wordings, answer = _pairs(fact.kind)[0]
    mine = [wording for wording in wordings if MINE.search(wording)]
    return Asking(fact, vary(rng, rng.choice(mine)), answer)


def _is_mine(kind: str) -> bool:
    return any(MINE.search(wording) for wording in _pairs(kind)[0][0])


def first_question(rng: Random, fact: Fact) -> Asking:
    """One that asks for {v}, the value that can be corrected."""
    wordings, answer = _pairs(fact.kind)[0]
    return Asking(fact, vary(rng, rng.choice(wordings)), answer)


def can_change(fact: Fact) -> bool:
    """Whether it is clear what "no, 16" would correct: the only value told, and the one asked for first."""
    values = [slot for slot in fact.slots if slot not in (*SUBJECTS, "f", "h", "o")]
    return values == ["v"] and "{v}" in _pairs(fact.kind)[0][1]


def short(fact: Fact) -> str:
    """The value as a piece of a sentence: "in {v}", "16"."""
    return KINDS[fact.kind].get("short", ["{v}"])[0]


def capitalised(text: str) -> str:
    """A wording as a sentence begins; a slot at its beginning stays as it is."""
    return re.sub(r"\bi\b", "I", text[0].upper() + text[1:])


def told(rng: Random, fact: Fact) -> str:
    """The fact as a clause without noise, its slots not yet filled."""
    return vary(rng, rng.choice(KINDS[fact.kind]["told"]))


def remark(rng: Random, text: str, small: bool) -> str:
    """A wording as somebody types it who tells something: what stands before it, capitals, marks."""
    if small:
        text = text.lower()
    elif rng.random() < 0.55:
        text = capitalised(text)
    if rng.random() < 0.2:
        before = rng.choice(AROUND["before"])
        if before[-1] not in ".!" and not text.startswith("I"):
            text = text[0].lower() + text[1:]
        text = f"{before} {text}"
        text = text.lower() if small else text
    if text[-1] in ".!?)":
        return text
    after = rng.choice(("", "", ".", ".", "!") if rng.random() < 0.85 else AROUND["after"])
    return text + (after if after[:1] in ("", *".!,") else f" {after}")


def inquiry(rng: Random, text: str, small: bool) -> str:
    """A wording as somebody types it who asks: with its mark or without, with the typist's noise at times."""
    mark = "." if REQUEST.match(text) else "?"
    if rng.random() < 0.12:
        before = rng.choice(AROUND["ask"])
        text = f"{before} {text}"
    if small:
        return text.lower() + rng.choice(("", mark, ""))
    if rng.random() < 0.25:
        return text
    text = capitalised(text) + mark
    noisy = typed(rng, text) if rng.random() < 0.4 else text
    return text if noisy == noisy.upper() else noisy  # slots have small letters


# ---- checks
def check_of(questions: list[Asking], facts: list[Fact], answer: str, old: Iterable[str] = ()) -> Check:
    """All values asked for are said, and nothing else that was told."""
    wanted = [value for question in questions for value in question.values]
    others = [value for fact in facts for slot, value in fact.slots.items() if slot not in ("h", "o")]
    rivals = [value for value in [*others, *old] if value and not says(answer, value)]
    return fact_check(*dict.fromkeys(wanted), rivals=dict.fromkeys(rivals))
