"""
What is true outside the invented world: nature.txt as `Fact`s, which documents tell and conversations ask.
"""
import re
from typing import NamedTuple

from nanochat.kindergarten import tables
from nanochat.kindergarten.phrases import a


class Fact(NamedTuple):
    topic: str
    told: tuple  # sentences that state it; the first is also the answer
    asked: tuple  # questions, at least two
    value: tuple  # the answer contains one of these
    rivals: tuple  # other values of the kind, which it must not contain


TABLES = tables.read("nature.txt")
WORDINGS = tables.titled("nature.txt", "wordings")
ANIMALS = [dict(zip("name plural kind legs sound home food size young".split(), (name, *row)))
           for name, row in TABLES["animals"].items()]
SIZES = {animal["name"]: int(animal["size"]) for animal in ANIMALS}
DAYS, MONTHS, PLANETS = (TABLES["in order"][what] for what in ("days", "months", "planets"))
ORDINALS = "first second third fourth fifth sixth seventh eighth".split()


def _pairs(title):
    return [(key, value) for key, (value,) in TABLES[title].items()]


def _fact(topic, wording, value, among=(), **words):
    """A Fact in the words of a table of wordings; its rivals are the other values `among` these."""
    told, asked = (tuple(w.format(v=value, **words) for w in WORDINGS[wording][how]) for how in ("told", "asked"))
    rivals = tuple(v for v in dict.fromkeys(among) if v and v not in (value, words.get("x")))
    return Fact(topic, tuple(re.sub(r"(^|\? )[a-z]", lambda m: m[0].upper(), w) for w in told), asked, (value,), rivals)


def _animal_facts(animal):
    words = {"x": animal["name"], "a_x": a(animal["name"]), "many": animal["plural"]}
    for what in ("legs", "home", "food", "kind", "sound", "young"):
        value, among = animal[what], [other[what] for other in ANIMALS] if what != "food" else ()
        if value:
            fact = _fact("animals", what, value, among, a_v=a(value), vs=value if value == "fish" else value + "s",
                         **words)
            if what == "kind":
                fact = fact._replace(value=(value, value + "s"))
            elif value == "0":
                fact = fact._replace(told=tuple(w.replace("0", "no") for w in fact.told), value=("no",))
            yield fact


def _facts():
    for animal in ANIMALS:
        yield from ANIMAL_FACTS[animal["name"]]
    for x, y in _pairs("opposites"):
        yield _fact("opposites", "opposites", y, x=x)
        yield _fact("opposites", "opposites", x, x=y)
    for x, y in _pairs("plurals"):
        yield _fact("plurals", "plurals", y, x=x)
    for topic in ("jobs", "things"):
        for x, does in _pairs(topic):
            yield _fact(topic, "purposes" if does.startswith("is ") else topic, does, x=a(x))
    for names, unit in ((DAYS, "day"), (MONTHS, "month")):
        for i, x in enumerate(names):
            yield _fact("calendar", "after", names[(i + 1) % len(names)], names, x=x, unit=unit)
            yield _fact("calendar", "before", names[i - 1], names, x=x, unit=unit)
    for x, n in _pairs("units"):
        parts, whole = x.split(" in ")
        yield _fact("calendar", "units", n, parts=parts, whole=whole)
    for topic, wording, pairs in (
            ("capitals", "capitals", _pairs("capitals")), ("planets", "nth planet", zip(ORDINALS, PLANETS)),
            ("planets", "planets", _pairs("planets")), ("colours", "colours", _pairs("colours"))):
        among = PLANETS if topic == "planets" else [v for _, v in pairs]
        yield from (_fact(topic, wording, v, among, x=x) for x, v in pairs)
    for row in tables.titled("nature.txt", "science").values():
        yield Fact("science", tuple(row["answer"]), tuple(row["asked"]), tuple(row["signs"]), ())


ANIMAL_FACTS = {animal["name"]: list(_animal_facts(animal)) for animal in ANIMALS}
FACTS = list(_facts())
TOPICS = {fact.topic: [other for other in FACTS if other.topic == fact.topic] for fact in FACTS}
