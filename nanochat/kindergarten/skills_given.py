"""
Lists that are given: what is third, how many, which is the biggest, in order, which does not belong.

The list is copied into a call of the calculator with a comma between the things, however it was written:
`', apple, hammer, cloud'.split(',')[3]`. It begins with a comma, so that the first thing has the number 1,
and every thing keeps its blank, which makes its tokens those of the question. Split by the wording.
"""
import re
from dataclasses import dataclass
from random import Random

from nanochat.kindergarten import tables
from nanochat.kindergarten.categories import CATEGORIES, Category, bare
from nanochat.kindergarten.phrases import with_article
from nanochat.kindergarten.skill import Made, chat, fact_check
from nanochat.kindergarten.skills_letters import ORDINALS, SHORT_ORDINALS, ask
from nanochat.kindergarten.skills_words import looked_up
from nanochat.kindergarten.tables import WORDS
from nanochat.kindergarten.unlisted import some_name, some_thing
from nanochat.kindergarten.world import World

GIVEN = tables.read("lists.txt")["given"]  # {kind: wordings}
CHANCES = {"nth": 24, "how many": 8, "is in": 7, "after": 6, "before": 4, "sort words": 6, "sort numbers": 9,
           "sort down": 3, "biggest": 11, "smallest": 7, "odd one": 9, "member": 8}
# Kinds of which nothing belongs to two of them; the members that do are left out.
APART = ("animals fruits vegetables colours days months clothes body furniture vehicles instruments jobs "
         "tools family rooms drinks sports").split()
NO_THINGS = {"after", "before", "first", "last", "like", "or", "and", "not", "snow"}  # said around the things


@dataclass
class Asked:
    question: str
    things: list[str]  # in the question's own small and capital letters

    def commas(self) -> str:
        return ", ".join(self.things)

    def column(self) -> str:
        """The calculator's list of the things."""
        return f"' {self.commas()}'.split(',')"


def _listed(rng: Random, things: list[str], last: str = "and") -> str:
    """ "apple, hammer, cloud", or with "and" or blanks"""
    chance = rng.random()
    if chance < 0.7 or len(things) < 2:
        return ", ".join(things)
    if chance < 0.88 or any(" " in thing for thing in things):
        return ", ".join(things[:-1]) + f" {last} {things[-1]}"
    return " ".join(things)


def _ask(rng: Random, kind: str, test: bool, things: list[str], **slots: str) -> Asked:
    """A question that has all the things as they are, none of them misspelled."""
    last = "or" if kind in ("odd one", "member", "biggest", "smallest") else "and"
    while True:
        listed = _listed(rng, things, last)
        question = ask(rng, f"given {kind}", GIVEN[kind], test, {"list": listed, **slots})
        if found := re.search(re.escape(listed), question, re.IGNORECASE):
            return Asked(question, [_as_typed(found.group(), thing) for thing in things])


def _as_typed(text: str, thing: str) -> str:
    if text.isupper():
        return thing.upper()
    return thing.lower() if text.islower() else thing


def given_lists(rng: Random, world: World, test: bool, level: int) -> Made:
    """Something about a list that the question holds."""
    kind = rng.choices(list(CHANCES), list(CHANCES.values()))[0]
    n_things = rng.choice((3, 3, 4, 4) if level == 1 else (3, 4, 4, 5, 5, 6))
    if kind in ("sort numbers", "sort down"):
        return _sorted_numbers(rng, kind, test, n_things)
    if kind in ("biggest", "smallest"):
        return _extreme(rng, kind, test, rng.choice((3, 3, n_things)))
    if kind in ("odd one", "member"):
        return _categories(rng, kind, test, rng.choice((3, 4)))
    things = _things(rng, n_things, words_only=kind == "sort words")
    if kind == "nth":
        return _nth(rng, test, things)
    if kind == "sort words":
        return _sorted_words(rng, test, things[:5])
    if kind in ("after", "before"):
        return _neighbour(rng, kind, test, things)
    if kind == "is in":
        return _is_in(rng, test, things)
    asked = _ask(rng, kind, test, things)
    reply = f"There are {n_things} in the list."
    messages = looked_up(asked.question, f"len({asked.column()})", n_things, reply)
    return messages, {"kind": "number", "answer": str(n_things), "given": [], "tool": False}


def _things(rng: Random, n_things: int, words_only: bool) -> list[str]:
    """So many different words, things of one kind, or names."""
    chance = rng.random()
    category = rng.choice([CATEGORIES[key] for key in APART])
    things: list[str] = []
    while len(things) < n_things:
        if chance < 0.25 and not words_only:
            thing = bare(rng.choice(category.members))
        elif chance < 0.35 and not words_only:
            thing = some_name(rng)
        else:
            thing = some_thing(rng, WORDS)
        if thing not in things and thing.lower() not in NO_THINGS:
            things.append(thing)
    return things


def _nth(rng: Random, test: bool, things: list[str]) -> Made:
    place = rng.choice((0, 1, 1, 2, 2, -1, -1, rng.randrange(len(things))))
    name = "last" if place == -1 else rng.choice((ORDINALS, ORDINALS, SHORT_ORDINALS))[place]
    asked = _ask(rng, "nth", test, things, th=name)
    thing = asked.things[place]
    number = -1 if place == -1 else place + 1
    code = f"', {asked.commas()}'.split(',')[{number}]"
    nth = "last" if place == -1 else ORDINALS[place]
    messages = looked_up(asked.question, code, f" {thing}", f"The {nth} is {thing}.")
    others = [other for other in asked.things if other != thing]
    return messages, fact_check(thing, rivals=others)


def _is_in(rng: Random, test: bool, things: list[str]) -> Made:
    others = [thing for thing in _things(rng, 8, words_only=True) if thing not in things]
    one = rng.choice(things if rng.random() < 0.5 else others)
    asked = _ask(rng, "is in", test, things, one=one)
    said = _as_typed(asked.question, one)
    is_so = said in asked.things
    reply = f"Yes, {said} is in the list." if is_so else f"No, {said} is not in the list."
    messages = looked_up(asked.question, f"' {said}' in {asked.column()}", str(is_so), reply)
    return messages, {"kind": "yes_no", "answer": "yes" if is_so else "no"}


def _neighbour(rng: Random, kind: str, test: bool, things: list[str]) -> Made:
    place = rng.randrange(len(things) - 1)
    pair = things[place:place + 2]
    if kind == "before":
        pair.reverse()
    one, neighbour = pair
    asked = _ask(rng, kind, test, things, one=one)
    others = [thing for thing in things if thing not in pair]
    said = [_as_typed(asked.question, thing) for thing in (one, neighbour)]
    answer = f"{kind.capitalize()} {said[0]} comes {said[1]}."
    return chat(asked.question, answer), fact_check(neighbour, rivals=others)


# ---- in order
def _sorted_words(rng: Random, test: bool, things: list[str]) -> Made:
    asked = _ask(rng, "sort words", test, things)
    in_order = ", ".join(sorted(asked.things))
    code = f"','.join(sorted({asked.column()}))"
    messages = looked_up(asked.question, code, f" {in_order}", f"{in_order}.")
    return messages, {"kind": "copy", "text": in_order}


def _numbers(rng: Random, n_numbers: int) -> list[str]:
    top = rng.choice((10, 20, 30, 100, 100, 999))
    return [str(number) for number in rng.sample(range(1, top + 1), n_numbers)]


def _sorted_numbers(rng: Random, kind: str, test: bool, n_numbers: int) -> Made:
    asked = _ask(rng, kind, test, _numbers(rng, n_numbers))
    down = kind == "sort down"
    in_order = ", ".join(sorted(asked.things, key=int, reverse=down))
    code = f"sorted([{asked.commas()}])" + ("[::-1]" if down else "")
    return looked_up(asked.question, code, in_order, f"{in_order}."), {"kind": "copy", "text": in_order}


def _extreme(rng: Random, kind: str, test: bool, n_numbers: int) -> Made:
    asked = _ask(rng, kind, test, _numbers(rng, n_numbers))
    function = max if kind == "biggest" else min
    number = function(asked.things, key=int)
    code = f"{function.__name__}({asked.commas()})"
    rivals = [other for other in asked.things if other != number]
    check = {"kind": "picked", "answer": number, "rivals": rivals, "unlike": []}
    return looked_up(asked.question, code, number, f"{number} is the {kind}."), check


# ---- kinds of things
def _alone(rng: Random, category: Category, others: Category, n_things: int) -> list[str]:
    """Things of the category that are in no way of the other one."""
    members = [bare(member) for member in category.members[:12] if member not in others.members]
    return rng.sample(members, n_things)


def _categories(rng: Random, kind: str, test: bool, n_things: int) -> Made:
    """One thing of a kind among others of another kind."""
    keys = rng.sample(APART, 2)
    category, others = (CATEGORIES[key] for key in keys)
    n_others = n_things - 1
    thing = _alone(rng, category, others, 1)[0]
    different = _alone(rng, others, category, n_others)
    things = [*different, thing]
    rng.shuffle(things)
    a_one = with_article(category.one)
    asked = _ask(rng, kind, test, things, a_one=a_one, sort=category.one)
    answer = f"{thing} is {a_one}."
    if kind == "odd one":
        answer = f"{thing} does not belong. The others are {others.many[0]}."
    return chat(asked.question, answer[0].upper() + answer[1:]), fact_check(thing, rivals=different)
