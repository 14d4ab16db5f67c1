"""
Questions about what is true everywhere (nature.py) and about a story just told (stories.py).
"""
from nanochat.common import mix_seed
from nanochat.kindergarten import nature, stories
from nanochat.kindergarten.phrases import WORDINGS, a, typed
from nanochat.kindergarten.skill import chat, draw, fact_check, is_test

TOPIC_WEIGHTS = {"animals": 4, "opposites": 2, "plurals": 1, "jobs": 1, "things": 1, "calendar": 2, "capitals": 1.5,
                 "planets": 1, "colours": 1, "science": 3}


def some_fact(rng):
    """A fact of the world; weights keep the big tables from drowning the small ones."""
    topic = rng.choices(tuple(TOPIC_WEIGHTS), tuple(TOPIC_WEIGHTS.values()))[0]
    return rng.choice(nature.TOPICS[topic])


def two_animals(rng, test):
    """(x, y, the bigger, the smaller) on the wanted side of the split."""
    def make():
        while True:
            x, y = rng.sample(tuple(nature.SIZES), 2)
            if abs(nature.SIZES[x] - nature.SIZES[y]) > 1:  # neighbours are a matter of opinion
                return x, y
    x, y = draw(make, lambda m: ("bigger", *sorted(m)), test, percent=15)
    return (x, y, *((x, y) if nature.SIZES[x] > nature.SIZES[y] else (y, x)))


def facts_world(rng, world, test, level):
    if rng.random() < 0.08:
        x, y, big, small = two_animals(rng, test)
        question = typed(rng, rng.choice(WORDINGS["bigger"]["asked"]).format(x=a(x), y=a(y)))
        answer = f"{a(big).capitalize()} is bigger than {a(small)}."
        return chat(question, answer), {"kind": "first", "answer": big, "rivals": [small]}
    fact = some_fact(rng)
    while not (wordings := ways_to_ask(fact, test)):
        fact = some_fact(rng)
    return chat(typed(rng, rng.choice(wordings)), fact.told[0]), fact_check(fact.value, rivals=fact.rivals)


def ways_to_ask(fact, test):
    """Its questions on one side of the split: two facts in five keep one, never the first, for tests."""
    held_out = ()
    if is_test("facts_world", fact.asked[0], percent=40):
        held_out = (fact.asked[1 + mix_seed("wording", fact.asked[0]) % (len(fact.asked) - 1)],)
    return held_out if test else [q for q in fact.asked if q not in held_out]


def story(rng, world, test, level):
    def make():
        moves = rng.randint(1, level + 1)
        told = stories.tell(rng, 1 if rng.random() < 0.3 else 2, rng.choice((0, 1, 1)), moves)
        return told, rng.choice(stories.questions(told))
    told, (question, answer, value, rivals) = draw(make, lambda m: ("story", m[0].text), test)
    return chat(f"{told.text} {typed(rng, question, lower=False)}", answer), fact_check(value, rivals=rivals)
