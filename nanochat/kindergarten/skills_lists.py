"""
Lists: "Name three animals", "the days of the week", "something red", "an animal that starts with b".

A small model loses count of what it has said, so answers number their items, and begin with how many they
will be: "4 birds: 1. duck, ..". They follow the order of the table, so that what comes next was never said
before. Split by the wording: whole frames are kept for tests.
"""
from random import Random

from nanochat.kindergarten.categories import (
    ASKING,
    CATEGORIES,
    NARROWER,
    ORDERED,
    STARTING,
    WHOLE,
    Category,
    all_of,
    bare,
    starting_with,
)
from nanochat.kindergarten.checks import COUNTED
from nanochat.kindergarten.everyday import fill
from nanochat.kindergarten.phrases import with_article
from nanochat.kindergarten.skill import Check, Made, chat, on_side
from nanochat.kindergarten.typist import typed
from nanochat.kindergarten.wording import vary
from nanochat.kindergarten.world import World

ASKED_FOR = (2, 3, 3, 3, 4, 5, 5, 6, 7)
USUAL = 12  # so many members are named more often than the rest
UNCOUNTED = 3  # so many are named when "some" are asked for


def numbered(many: str, items: list[str]) -> str:
    """ "2 pets: 1. cat, 2. dog." """
    listed = ", ".join(f"{number}. {bare(item)}" for number, item in enumerate(items, 1))
    return f"{len(items)} {many}: {listed}."


def lists(rng: Random, world: World, test: bool, level: int) -> Made:
    if rng.random() < 0.2:
        return _all(rng, test)
    category = _category(rng)
    chance = rng.random()
    if chance < 0.3 or len(category.members) < 2:
        return _one(rng, category, test)
    many = rng.choice(category.many)
    how_many = min(UNCOUNTED, len(category.members))
    counted = False
    if chance < 0.4:
        question = _ask(rng, "any", test, many=many)
        whole = [key for key in WHOLE if CATEGORIES[key] == category]
        if whole:  # "Which seasons are there?" wants them all
            all_members = _check(category, len(category.members), in_order=whole[0] in ORDERED)
            return chat(question, all_of(whole[0])), all_members
    elif chance < 0.5:
        question = _ask(rng, "some", test, n=rng.choice(("some", "a few")), many=many)
    else:
        how_many = min(rng.choice(ASKED_FOR), len(category.members))
        digits_or_word = rng.choice((str(how_many), COUNTED[how_many]))
        question = _ask(rng, "some", test, n=digits_or_word, many=many)
        counted = True
    answer = numbered(category.many[0], _some(rng, category, how_many))
    return chat(question, answer), _check(category, how_many, counted=counted)


def _all(rng: Random, test: bool) -> Made:
    """All days, months, planets."""
    key = rng.choice(WHOLE[:4] if rng.random() < 0.5 else WHOLE)
    category = CATEGORIES[key]
    question = _ask(rng, "all", test, many=rng.choice(category.many))
    return chat(question, all_of(key)), _check(category, len(category.members), in_order=key in ORDERED)


def _one(rng: Random, category: Category, test: bool) -> Made:
    a_one = rng.choice((with_article(category.one), *category.a_one))
    question = _ask(rng, "one", test, one=category.one, a_one=a_one)
    member, = _some(rng, category, 1)
    if category.article:
        member = with_article(member)
    return chat(question, member[0].upper() + member[1:] + "."), _check(category, 1)


def _category(rng: Random) -> Category:
    """A whole category, or animals that can fly, countries in Europe, fruits that start with a."""
    chance = rng.random()
    if chance < 0.6:
        return rng.choice(list(CATEGORIES.values()))
    if chance < 0.8:
        return rng.choice(NARROWER)
    while True:
        letter = rng.choice("abcdefghijklmnoprstuvwz")
        category = starting_with(rng.choice(STARTING), rng.choice((letter, letter.upper())))
        if category.members:
            return category


def _ask(rng: Random, how: str, test: bool, **words: str) -> str:
    """A question in the frames of ASKING[how]; those with {which} ask which "animals can fly"."""
    asked_for = words.get("many") or words["one"]  # "animals that can fly"
    if " that " in asked_for:
        words["which"] = asked_for.replace(" that ", " ", 1)
    frames = [vary(rng, frame) for frame in on_side(f"lists {how}", ASKING[how], test)]
    questions = fill(frames, words)
    return typed(rng, rng.choice(questions))


def _some(rng: Random, category: Category, how_many: int) -> list[str]:
    """So many members that follow each other in the category, mostly the first ones: what comes next can be
    learned, and nothing is said twice."""
    pool = category.members
    if how_many <= USUAL and rng.random() < 0.7:
        pool = pool[:USUAL]
    last_start = max(0, len(pool) - how_many)
    start = 0 if rng.random() < 0.4 else rng.randint(0, last_start)
    return list(pool[start:start + how_many])


def _check(category: Category, how_many: int, in_order: bool = False, counted: bool = False) -> Check:
    about = " ".join((category.one, *category.many))
    members = [bare(member) for member in category.members]
    most = how_many if counted else len(members)
    return {"kind": "list", "n": how_many, "most": most, "members": members, "about": about,
            "in_order": in_order}
