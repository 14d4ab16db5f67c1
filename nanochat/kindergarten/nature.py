"""
What is true outside the invented world: nature.txt as `Fact`s, which documents tell and conversations ask.

A table of nature.txt gives the keys and values ("France: Paris"), a table of wordings the sentences around
them. So a new country is one line, and is told and asked in as many ways as the others.
"""
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from nanochat.kindergarten import tables
from nanochat.kindergarten.phrases import with_article


class Fact(NamedTuple):
    topic: str
    told: tuple[str, ...]  # sentences that state it; the first is also the answer
    asked: tuple[str, ...]  # questions, at least two
    value: tuple[str, ...]  # the answer contains one of these
    rivals: tuple[str, ...]  # other values of the kind, which it must not contain


TABLES = tables.read("nature.txt")
WORDINGS = tables.titled("nature.txt", "wordings")
ANIMAL_COLUMNS = ("plural", "kind", "legs", "sound", "home", "food", "size", "young")
DAYS = TABLES["in order"]["days"]
MONTHS = TABLES["in order"]["months"]
PLANETS = TABLES["in order"]["planets"]
ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")
_SENTENCE_START = re.compile(r"(^|\? )[a-z]")


def _animals() -> list[dict[str, str]]:
    animals = []
    for name, values in TABLES["animals"].items():
        animals.append({"name": name, **dict(zip(ANIMAL_COLUMNS, values))})
    return animals


def _pairs(title: str) -> list[tuple[str, str]]:
    """(key, value) of a table of one column."""
    return [(key, values[0]) for key, values in TABLES[title].items()]


def _fact(topic: str, wording: str, value: str, among: Iterable[str] = (), **words: str) -> Fact:
    """A Fact in the words of a table of wordings, in which {v} is the value and `words` are {x} and others.

    Its rivals are the other values `among` these, but for the one that the question itself says."""
    told = []
    for sentence in WORDINGS[wording]["told"]:
        sentence = sentence.format(v=value, **words)
        told.append(_SENTENCE_START.sub(lambda match: match[0].upper(), sentence))
    asked = [question.format(v=value, **words) for question in WORDINGS[wording]["asked"]]

    rivals = []
    for other in dict.fromkeys(among):  # each once, in order
        if other and other not in (value, words.get("x")):
            rivals.append(other)
    return Fact(topic, tuple(told), tuple(asked), (value,), tuple(rivals))


def _animal_facts(animal: dict[str, str]) -> Iterator[Fact]:
    for what in ("legs", "home", "food", "kind", "sound", "young"):
        value = animal[what]
        if not value:
            continue
        # An animal may well eat what another eats: a food has no rivals.
        among = [other[what] for other in ANIMALS] if what != "food" else []
        plural = value if value == "fish" else value + "s"
        fact = _fact("animals", what, value, among, x=animal["name"], a_x=with_article(animal["name"]),
                     many=animal["plural"], a_v=with_article(value), vs=plural)
        if what == "kind":
            fact = fact._replace(value=(value, value + "s"))
        elif value == "0":
            told = tuple(sentence.replace("0", "no") for sentence in fact.told)
            fact = fact._replace(told=told, value=("no",))
        yield fact


def _facts() -> Iterator[Fact]:
    for animal in ANIMALS:
        yield from ANIMAL_FACTS[animal["name"]]

    for word, opposite in _pairs("opposites"):
        yield _fact("opposites", "opposites", opposite, x=word)
        yield _fact("opposites", "opposites", word, x=opposite)
    for word, plural in _pairs("plurals"):
        yield _fact("plurals", "plurals", plural, x=word)

    for topic in ("jobs", "things"):
        for noun, does in _pairs(topic):
            wording = "purposes" if does.startswith("is ") else topic
            yield _fact(topic, wording, does, x=with_article(noun))

    yield from _calendar_facts()

    # one value for one key, and the other values of the table for rivals
    capitals = _pairs("capitals")
    cities = [city for _, city in capitals]
    for country, city in capitals:
        yield _fact("capitals", "capitals", city, cities, x=country)
    for ordinal, planet in zip(ORDINALS, PLANETS):
        yield _fact("planets", "nth planet", planet, PLANETS, x=ordinal)
    for which, planet in _pairs("planets"):
        yield _fact("planets", "planets", planet, PLANETS, x=which)
    coloured = _pairs("colours")
    colours = [colour for _, colour in coloured]
    for thing, colour in coloured:
        yield _fact("colours", "colours", colour, colours, x=thing)

    for row in tables.titled("nature.txt", "science").values():
        yield Fact("science", tuple(row["answer"]), tuple(row["asked"]), tuple(row["signs"]), ())


def _calendar_facts() -> Iterator[Fact]:
    for names, unit in ((DAYS, "day"), (MONTHS, "month")):
        for i, name in enumerate(names):
            following = names[(i + 1) % len(names)]
            yield _fact("calendar", "after", following, names, x=name, unit=unit)
            yield _fact("calendar", "before", names[i - 1], names, x=name, unit=unit)
    for what, number in _pairs("units"):
        parts, whole = what.split(" in ")  # days in a week
        yield _fact("calendar", "units", number, parts=parts, whole=whole)


def _topics() -> dict[str, list[Fact]]:
    topics: dict[str, list[Fact]] = {}
    for fact in FACTS:
        topics.setdefault(fact.topic, []).append(fact)
    return topics


ANIMALS = _animals()
SIZES = {animal["name"]: int(animal["size"]) for animal in ANIMALS}  # from 0, a bee, to 10, a whale
ANIMAL_FACTS = {animal["name"]: list(_animal_facts(animal)) for animal in ANIMALS}
FACTS = list(_facts())
TOPICS = _topics()
