"""
Questions about what is true everywhere (nature.py) and about a story just told (stories.py).
"""
from random import Random
from typing import NamedTuple

from nanochat.common import mix_seed
from nanochat.kindergarten import nature, stories
from nanochat.kindergarten.nature import SIZES, Fact
from nanochat.kindergarten.phrases import WORDINGS, with_article
from nanochat.kindergarten.skill import Made, chat, draw, fact_check, is_test
from nanochat.kindergarten.typist import typed
from nanochat.kindergarten.world import World

TOPIC_WEIGHTS = {
    "animals": 4, "opposites": 2, "plurals": 1, "jobs": 1, "things": 1, "calendar": 2, "capitals": 1.5,
    "planets": 1, "colours": 1, "science": 3,
}


class TwoAnimals(NamedTuple):
    first: str  # as asked
    second: str
    bigger: str
    smaller: str


def some_fact(rng: Random) -> Fact:
    """A fact of the world; weights keep the big tables from drowning the small ones."""
    topic = rng.choices(tuple(TOPIC_WEIGHTS), tuple(TOPIC_WEIGHTS.values()))[0]
    return rng.choice(nature.TOPICS[topic])


def two_animals(rng: Random, test: bool) -> TwoAnimals:
    """Two animals to compare, on the wanted side of the split in whatever order."""
    def make() -> tuple[str, str]:
        while True:
            first, second = rng.sample(tuple(SIZES), 2)
            if abs(SIZES[first] - SIZES[second]) > 1:  # neighbours are a matter of opinion
                return first, second

    first, second = draw(make, lambda made: ("bigger", *sorted(made)), test, percent=15)
    if SIZES[first] > SIZES[second]:
        return TwoAnimals(first, second, bigger=first, smaller=second)
    return TwoAnimals(first, second, bigger=second, smaller=first)


def ways_to_ask(fact: Fact, test: bool) -> list[str]:
    """Its questions on one side of the split: two facts in five keep one, never the first, for tests."""
    kept = None
    if is_test("facts_world", fact.asked[0], percent=40):
        kept = fact.asked[1 + mix_seed("wording", fact.asked[0]) % (len(fact.asked) - 1)]
    if test:
        return [kept] if kept else []
    return [question for question in fact.asked if question != kept]


def facts_world(rng: Random, world: World, test: bool, level: int) -> Made:
    if rng.random() < 0.08:
        return _which_is_bigger(rng, test)
    fact = some_fact(rng)
    wordings = ways_to_ask(fact, test)
    while not wordings:
        fact = some_fact(rng)
        wordings = ways_to_ask(fact, test)
    question = typed(rng, rng.choice(wordings))
    return chat(question, fact.told[0]), fact_check(fact.value, rivals=fact.rivals)


def _which_is_bigger(rng: Random, test: bool) -> Made:
    first, second, bigger, smaller = two_animals(rng, test)
    wording = rng.choice(WORDINGS["bigger"]["asked"])
    question = typed(rng, wording.format(x=with_article(first), y=with_article(second)))
    answer = f"{with_article(bigger).capitalize()} is bigger than {with_article(smaller)}."
    return chat(question, answer), {"kind": "first", "answer": bigger, "rivals": [smaller]}


def story(rng: Random, world: World, test: bool, level: int) -> Made:
    def make() -> tuple[stories.Story, stories.Question]:
        n_moves = rng.randint(1, level + 1)
        n_people = 1 if rng.random() < 0.3 else 2
        n_things = rng.choice((0, 1, 1))
        told = stories.tell(rng, n_people, n_things, n_moves)
        return told, rng.choice(stories.questions(told))

    told, question = draw(make, lambda made: ("story", made[0].text), test)
    asked = f"{told.text} {typed(rng, question.text, lower=False)}"
    return chat(asked, question.answer), fact_check(question.value, rivals=question.rivals)
