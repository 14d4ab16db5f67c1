"""
What a child of five knows, as relations that can be asked from both sides and with yes or no.

everyday.txt and know.txt hold the facts and the frames in which they are asked. A relation is a table
("France: Paris") with its frames ("{v} is the capital of which country?"), so that wordings are composed, not
listed: a frame more is asked about every country, and a country more in every frame. nature.py's facts are
all in here, too.
"""
import functools
import re
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from nanochat.kindergarten import nature, tables
from nanochat.kindergarten.categories import ANIMALS, CATEGORIES, EVERYDAY, bare, merged
from nanochat.kindergarten.checks import COUNTED, says
from nanochat.kindergarten.phrases import with_article

Words = dict[str, str]  # fills a frame: {"x": "a banana", "one": "banana", "many": "bananas", ...}
ASK = tables.titled("everyday.txt", "ask")
WRONG = tables.titled("everyday.txt", "wrong")
FRAMES = EVERYDAY["frames"]
BACKWARDS = "back "  # begins the keys of the frames that ask from the value to the key
PARTS_OF_DAY = ["morning", "noon", "afternoon", "evening", "night"]
OF_A_KIND = ("fruits", "vegetables", "drinks", "colours", "days", "months", "planets", "clothes", "toys",
             "instruments", "sports", "shapes", "furniture", "flowers", "vehicles")
INVERTED = ("continents", "languages", "seasons")  # tables whose lines are "value: key | key"
_FIELD = re.compile(r"{(\w+)}")
_START = re.compile(r"(^|[?!.] )([a-z])")
_PLACE = re.compile(r"^(in|on|at) ")


class Known(NamedTuple):
    """A fact from one side."""

    own: Words  # of what is asked about
    other: Words  # of the answer
    values: tuple[str, ...]  # the answer contains one of these
    told: tuple[str, ...]  # sentences that state it; the first is also the answer
    asked: tuple[str, ...] = ()  # in the wordings of nature.txt


class Relation(NamedTuple):
    name: str
    known: list[Known]
    direct: list[str]  # frames of questions
    composed: list[str]  # frames that were put into other frames: "Do you know what colour {x} is?"
    is_it: list[str]


class Row(NamedTuple):
    key: str
    values: list[str]
    more: Words  # further words for the frames


# ---- words
def plural(noun: str) -> str:
    known = merged("plurals")
    if noun in known:
        return known[noun][0]
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    if noun.endswith(("s", "x", "ch", "sh")):
        return noun + "es"
    return noun + "s"


def _key_words(row: Row) -> Words:
    one = bare(row.key)
    words = {"x": row.key, "one": one, "a_x": with_article(one), "is": "is", "does": "does", "comes": "comes"}
    is_plural = one == row.key and one.islower() and one.endswith("s") and not one.endswith("ss")
    if is_plural:
        words.update({"is": "are", "does": "do", "comes": "come"})
    if row.key.startswith(("a ", "an ")):
        words["many"] = plural(one)
    return words | row.more


def _value_words(value: str) -> Words:
    vs = value if value == "fish" else plural(value)
    return {"v": value, "a_v": with_article(value), "vs": vs}


def _acceptable(values: Iterable[str]) -> tuple[str, ...]:
    """The values as a reply may say them: without article and preposition, numbers as digits or words."""
    said = []
    for value in values:
        said.append(bare(_PLACE.sub("", value)))
        if value.isdigit() and int(value) < len(COUNTED):
            said.append(COUNTED[int(value)])
    return tuple(said)


def fill(frames: Iterable[str], words: Words) -> list[str]:
    """The frames with these words, but for those that need others; sentences begin with a capital."""
    filled = []
    for frame in frames:
        if words.keys() >= set(_FIELD.findall(frame)):
            text = frame.format(**words)
            filled.append(_START.sub(lambda start: start[1] + start[2].upper(), text))
    return filled


# ---- the rows of each relation
def _rows(name: str) -> Iterator[Row]:
    if name in nature.ANIMAL_COLUMNS:
        for animal in ANIMALS:
            value = "no" if animal[name] == "0" else animal[name]
            if value:
                yield Row(animal["name"], [value], {"many": animal["plural"]})
    elif name in INVERTED:
        yield from _inverted(EVERYDAY[name])
    elif name in SPECIAL:
        yield from SPECIAL[name]()
    else:
        for key, values in merged(name).items():
            yield Row(key, values, {})


def _inverted(table: tables.Table) -> Iterator[Row]:
    found: dict[str, list[str]] = {}
    for value, keys in table.items():
        for key in keys:
            found.setdefault(key, []).append(value)
    for key, values in found.items():
        yield Row(key, values, {})


def _is_animal() -> Iterator[Row]:
    for animal in ANIMALS:
        yield Row(animal["name"], ["animal"], {"many": animal["plural"]})


def _opposites() -> Iterator[Row]:
    for word, (opposite, *_) in merged("opposites").items():
        yield Row(word, [opposite], {})
        yield Row(opposite, [word], {})
    for word, values in EVERYDAY["opposites one way"].items():
        yield Row(word, values, {})


def _rhymes() -> Iterator[Row]:
    """Each word of a line with the others."""
    for words in EVERYDAY["rhymes"].values():
        for word in words:
            yield Row(word, [other for other in words if other != word], {})


def _with_articles(title: str, purposes: bool = False) -> Iterator[Row]:
    """Jobs or things, or of the things those that are "for sleeping"."""
    for noun, values in merged(title).items():
        if values[0].startswith("is ") == purposes:
            yield Row(with_article(noun), values, {"many": plural(noun)})


def _neighbours(step: int) -> Iterator[Row]:
    """What comes after (1) or before (-1) a day, month, season or time of the day."""
    cycles = {"day": nature.DAYS, "month": nature.MONTHS, "season": CATEGORIES["seasons"].members,
              "time of day": PARTS_OF_DAY}
    for unit, names in cycles.items():
        for place, name in enumerate(names):
            yield Row(name, [names[(place + step) % len(names)]], {"unit": unit, unit: name})


def _between() -> Iterator[Row]:
    """The day or month between its neighbours: "Monday and Wednesday"."""
    for unit, names in (("day", nature.DAYS), ("month", nature.MONTHS)):
        for place, name in enumerate(names):
            after = names[(place + 1) % len(names)]
            yield Row(f"{names[place - 1]} and {after}", [name], {"unit": unit})


def _later() -> Iterator[Row]:
    """The day after tomorrow."""
    for place, day in enumerate(nature.DAYS):
        yield Row(day, [nature.DAYS[(place + 2) % len(nature.DAYS)]], {})


def _units() -> Iterator[Row]:
    """ "days in a week"; {w1} is the whole without its article, where that is "a". """
    for row in _of_two_words("units", " in ", "parts", "whole"):
        whole = row.more["whole"]
        more = {"w1": bare(whole)} if whole.startswith(("a ", "an ")) else {}
        yield row._replace(more=row.more | more)


def _taken_apart(title: str, pattern: str) -> Iterator[Row]:
    """Rows with the groups of the pattern as words for more frames, where it fits the key."""
    for key, values in merged(title).items():
        match = re.fullmatch(pattern, key)
        yield Row(key, values, match.groupdict() if match else {})


def _of_two_words(title: str, between: str, first: str, second: str) -> Iterator[Row]:
    """Rows whose keys are two words of the frames: "days in a week", "mother of your mother"."""
    for key, values in merged(title).items():
        before, after = key.split(between)
        yield Row(key, values, {first: before, second: after})


def _properties() -> Iterator[Row]:
    for key, (is_so, is_not) in EVERYDAY["properties"].items():
        yield Row(key, [is_so], {"w": is_not})


def _fruit_or_vegetable() -> Iterator[Row]:
    for key in ("fruits", "vegetables"):
        for member in CATEGORIES[key].members:
            yield Row(with_article(member), [CATEGORIES[key].one], {})


def _kinds() -> Iterator[Row]:
    """What kind of thing each is, but for what is told in other words already."""
    told = {*merged("things"), *merged("jobs"), "star", "heart", "water", "Earth"}
    for key in OF_A_KIND:
        category = CATEGORIES[key]
        for member in category.members:
            if member not in told:
                name = with_article(member) if category.article else member
                yield Row(name, [category.one], {})


SPECIAL: dict[str, Callable[[], Iterator[Row]]] = {
    "animal": _is_animal, "opposites": _opposites, "properties": _properties, "kinds": _kinds,
    "fruit or vegetable": _fruit_or_vegetable, "rhymes": _rhymes,
    "units": _units, "between": _between, "later": _later,
    "most": functools.partial(_taken_apart, "most", r"(?P<sup>\w+est) (?P<noun>\w+)"),
    "nth": functools.partial(_taken_apart, "nth", r"(?P<nth>\w+) (?P<nunit>\w+) of the (?P<nwhole>\w+)"),
    "mixing": functools.partial(_taken_apart, "mixing", r"(?P<c1>\w+) and (?P<c2>\w+)"),
    "family": functools.partial(_of_two_words, "family", " of your ", "a", "b"),
    "jobs": functools.partial(_with_articles, "jobs"),
    "things": functools.partial(_with_articles, "things"),
    "purposes": functools.partial(_with_articles, "things", purposes=True),
    "after": functools.partial(_neighbours, 1), "before": functools.partial(_neighbours, -1),
}


# ---- relations
def _composed(ask: tables.Table, side: str = "") -> list[str]:
    """The clauses and nouns of a relation in their frames; `side` is "" or BACKWARDS."""
    frames = []
    for kind in ("clause", "noun"):
        for content in ask.get(side + kind, []):
            frames += [frame.replace("{c}", content) for frame in FRAMES[kind]]
            if content.startswith("why "):
                frames.append("How come " + content.removeprefix("why ") + "?")
    return frames


def _without(frames: list[str], others: Iterable[str]) -> list[str]:
    """Each of the frames once, but for these others."""
    return [frame for frame in dict.fromkeys(frames) if frame not in others]


def _relations() -> Iterator[Relation]:
    for name, ask in ASK.items():
        of_nature = nature.WORDINGS.get(name, {"asked": []})
        told_as = of_nature.get("told") or ask["told"]
        known = []
        for row in _rows(name):
            own = _key_words(row)
            other = _value_words(row.values[0])
            told = fill(told_as, own | other)
            asked = fill(of_nature["asked"], own | other)
            known.append(Known(own, other, _acceptable(row.values), tuple(told), tuple(asked)))
        direct = _without(ask.get("asked", []), of_nature["asked"])
        composed = _without(_composed(ask), [*of_nature["asked"], *direct])
        yield Relation(name, known, direct, composed, ask.get("is it", []))
        if "back" in ask:
            yield _backwards(name, ask, known)
    yield from _single_things()


def _backwards(name: str, ask: tables.Table, known: list[Known]) -> Relation:
    """From the value to the key. Where keys share a value, each is right and the first is the answer."""
    by_value: dict[str, list[Known]] = {}
    for fact in known:
        by_value.setdefault(fact.other["v"], []).append(fact)
    turned = []
    for facts in by_value.values():
        first = facts[0]
        told = fill(ask["back answer"], first.own | first.other)
        keys = _acceptable(fact.own["x"] for fact in facts)
        turned.append(Known(first.other, first.own, keys, tuple(told)))
    composed = _without(_composed(ask, BACKWARDS), ask["back"])
    return Relation(name + " back", turned, ask["back"], composed, ask.get("back is it", []))


def _single_things() -> Iterator[Relation]:
    """know.txt: a relation for each of its lines."""
    science = tables.titled("nature.txt", "science")
    for key, values in tables.read("know.txt")["know"].items():
        asked = [value for value in values if value.endswith("?")]
        answer_at = next((place for place, value in enumerate(values) if value.endswith(".")), len(values))
        clauses = values[len(asked):answer_at]
        answer, *signs = values[answer_at:] or (*science[key]["answer"], *science[key]["signs"])
        classic = science.get(key, {}).get("asked", [])
        known = Known({}, {}, tuple(signs), (answer,), tuple(classic))
        composed = _without(_composed({"clause": clauses}), [*asked, *classic])
        yield Relation("know " + key, [known], _without(asked, classic), composed, [])


# ---- what skills need
def rivals(relation: Relation, fact: Known) -> list[str]:
    """The other values of the relation that a right answer does not say."""
    others = dict.fromkeys(other.values[0] for other in relation.known)
    return [value for value in others if value not in fact.values and not says(fact.told[0], value)]


def wrong_words(relation: Relation, fact: Known) -> list[Words]:
    """What may stand in a question of yes or no for the right answer to be no."""
    table = WRONG.get(relation.name)
    if "w" in fact.own:
        return [_value_words(fact.own["w"])]
    if table:
        named = table.get(fact.other["v"], table["*"])
        return [_value_words(value) for value in named if bare(_PLACE.sub("", value)) not in fact.values]
    wrong = []
    for other in relation.known:
        overlap = [value for value in other.values if says(" ".join(fact.values), value)]
        if not overlap:
            wrong.append(other.other)
    return wrong


def _told() -> dict[str, list[tuple[str, ...]]]:
    """{table: the sentences of each fact}, each from one side only, and not what ANIMALS_TOLD has."""
    told_elsewhere = (*nature.ANIMAL_COLUMNS, "animal", "fruit or vegetable")
    told: dict[str, list[tuple[str, ...]]] = {}
    for relation in RELATIONS:
        if relation.name not in told_elsewhere and not relation.name.endswith(" back"):
            table = "know" if relation.name.startswith("know ") else relation.name
            told.setdefault(table, []).extend(fact.told for fact in relation.known)
    return told


def _told_of(animal: str) -> list[tuple[str, ...]]:
    """The sentences of each fact of this animal."""
    found = []
    for relation in RELATIONS:
        if relation.name in nature.ANIMAL_COLUMNS:
            found += [fact.told for fact in relation.known if fact.own["x"] == animal]
    return found


RELATIONS = list(_relations())
TOLD = _told()
SIZES = {animal["name"]: int(animal["size"]) for animal in ANIMALS}  # from 0, a bee, to 10, a whale
PLURALS = {animal["name"]: animal["plural"] for animal in ANIMALS}
ANIMALS_TOLD = {name: _told_of(name) for name in SIZES}
