"""
What there is of each kind: animals, countries in Europe, red things, months.

For lists (skills_lists.py), and to say what kind of thing something is (everyday.py).
"""
import re
from collections.abc import Iterator
from typing import NamedTuple

from nanochat.kindergarten import nature, tables
from nanochat.kindergarten.phrases import with_article

ASKING = tables.read("lists.txt")["asking"]
CONDITIONS = tables.read("lists.txt")["conditions"]
EVERYDAY = tables.read("everyday.txt")
# Of these one can say all; in this order, where they have one.
ORDERED = ("days", "months", "seasons", "planets", "rainbow", "meals")
WHOLE = (*ORDERED, "continents", "oceans", "senses")
STARTING = ("animals", "fruits", "vegetables", "countries", "cities", "clothes", "colours", "jobs", "toys")
_ARTICLE = re.compile(r"^(a|an|the) ")


class Category(NamedTuple):
    one: str  # "animal that can fly"
    many: tuple[str, ...]  # "animals that can fly", and other names of it
    article: bool  # whether one says "a cat", or "Monday"; "a banana" has its own already
    members: tuple[str, ...]  # the usual ones first
    a_one: tuple[str, ...] = ()  # "something red", beside "a red thing"


def bare(noun: str) -> str:
    """ "the sun" -> "sun" """
    return _ARTICLE.sub("", noun)


def all_animals() -> list[dict[str, str]]:
    animals = list(nature.ANIMALS)
    for name, values in EVERYDAY["animals"].items():
        animals.append({"name": name, **dict(zip(nature.ANIMAL_COLUMNS, values))})
    return animals


def merged(title: str) -> tables.Table:
    """The rows of a table of nature.txt and of the one of this title in everyday.txt."""
    return {**nature.TABLES.get(title, {}), **EVERYDAY.get(title, {})}


def _categories() -> dict[str, Category]:
    members = dict(tables.read("lists.txt")["members"])
    members["animals"] = [animal["name"] for animal in ANIMALS]
    members["countries"] = _countries()
    members["capitals"] = [cities[0] for cities in merged("capitals").values()]
    members.update(nature.TABLES["in order"])

    categories = {}
    for key, (one, many, article, also) in tables.read("lists.txt")["categories"].items():
        names = tuple(name for name in (many, also) if name)
        categories[key] = Category(one, names, article == "a", tuple(dict.fromkeys(members[key])))
    return categories


def _countries() -> list[str]:
    """Each once: "America" has the capital of "the USA", and is left out."""
    by_capital: dict[str, str] = {}
    for country, cities in merged("capitals").items():
        by_capital.setdefault(cities[0], country)
    return list(by_capital.values())


def _narrower() -> Iterator[Category]:
    """Countries of a continent, things of a colour, animals that can fly."""
    for continent, countries in EVERYDAY["continents"].items():
        many = (f"countries in {continent}", f"countries that are in {continent}")
        yield Category(f"country in {continent}", many, False, tuple(countries))

    things: dict[str, list[str]] = {}
    for thing, colours in merged("colours").items():
        for colour in colours:
            things.setdefault(colour, []).append(thing)
    for colour, coloured in things.items():
        if len(coloured) > 1 and " " not in colour:
            things_so = (f"{colour} things", f"things that are {colour}")
            a_one = (f"something {colour}", f"something that is {colour}", f"{with_article(colour)} thing")
            yield Category(f"thing that is {colour}", things_so, False, tuple(coloured), a_one)

    for condition, (one, several) in CONDITIONS.items():
        members = tuple(animal["name"] for animal in ANIMALS if _fits(animal, condition))
        yield Category(f"animal {one}", (f"animals {several}",), True, members)


def _fits(animal: dict[str, str], condition: str) -> bool:
    if condition in EVERYDAY["can"]:
        return animal["name"] in EVERYDAY["can"][condition]
    if condition == "big":
        return int(animal["size"]) >= 8
    if condition == "small":
        return int(animal["size"]) <= 1
    known = [animal["legs"], animal["food"], animal["home"].split()[-1]]
    return condition in known


def starting_with(key: str, letter: str) -> Category:
    """The members of the category that begin with this letter; there may be none."""
    category = CATEGORIES[key]
    one = f"{category.one} that starts with {letter}"
    many = tuple(f"{name} that {verb} with {letter}" for name in category.many for verb in ("start", "begin"))
    members = tuple(member for member in category.members if member[0].lower() == letter.lower())
    article_and_name = with_article(category.one)
    a_one = (f"{article_and_name} that begins with {letter}", f"{article_and_name} with {letter}")
    return category._replace(one=one, many=many, members=members, a_one=a_one)


def enumerated(members: tuple[str, ...]) -> str:
    return ", ".join(members[:-1]) + " and " + members[-1]


def all_of(key: str) -> str:
    """ "The seasons are spring, summer, autumn and winter." """
    category = CATEGORIES[key]
    return f"The {category.many[0]} are {enumerated(category.members)}."


ANIMALS = all_animals()
CATEGORIES = _categories()
NARROWER = list(_narrower())
