"""
Pretraining text, most documents 250 to 600 characters long.

Nothing that a test asks (a pair of numbers, a story, a wording) is in any of them.
"""
import random

from nanochat.common import mix_seed
from nanochat.kindergarten import nature, skills_people, skills_social, skills_words, skills_world, stories, tables
from nanochat.kindergarten.phrases import STATEMENTS, WORDINGS, a, state, with_pronoun
from nanochat.kindergarten.skill import draw, is_test
from nanochat.kindergarten.skills_numbers import calculate, number_key
from nanochat.kindergarten.skills_words import spelled, told_count, told_length
from nanochat.kindergarten.world import World

LONG_ENOUGH = 420  # characters of a document made of small pieces
LISTED = 0.1  # part of the biographies and spelled words with one sentence a line
OPENINGS = [*WORDINGS["documents"]["openings"], "", "", ""]


def _biography(rng, world):
    """All facts of two people, in random order: friends, or any two."""
    person, other = rng.sample(world.people, 2)
    if rng.random() < 0.4:
        other = world.people[person.index ^ 1]
    return f"{life(rng, person)}\n{life(rng, other)}"


def life(rng, person):
    """The person's facts, as a paragraph with pronouns or as a list of sentences by name.

    Lists are few: without a blank before it a name is another token, and answers have one (chat_format.py)."""
    told = [state(rng, person, attribute) for attribute in STATEMENTS]
    rng.shuffle(told)
    opening = rng.choice(OPENINGS).format(n=person.name)
    said = [opening] if opening else []
    if rng.random() < LISTED:
        return "\n".join(said + told)
    for sentence in told:
        said.append(with_pronoun(sentence, person) if said and rng.random() < 0.35 else sentence)
    return " ".join(said)


def _group(rng, world):
    attribute = rng.choice(tuple(STATEMENTS))
    return " ".join(state(rng, rng.choice(world.people), attribute) for _ in range(11))


def _animals(rng, world):
    return "\n".join(_animal(rng) for _ in range(2))


def _animal(rng):
    name = rng.choice(tuple(nature.SIZES))
    said = [rng.choice(fact.told) for fact in nature.ANIMAL_FACTS[name]]
    rng.shuffle(said)
    for other in rng.sample(tuple(nature.SIZES), 3):
        big, small = sorted((name, other), key=nature.SIZES.get, reverse=True)
        if nature.SIZES[big] - nature.SIZES[small] > 1:
            said.append(f"{a(big).capitalize()} is bigger than {a(small)}." if rng.random() < 0.6 else
                        f"{a(small).capitalize()} is smaller than {a(big)}.")
    return " ".join(said)


def _nature(rng, world):
    topic = rng.choice((*nature.TOPICS, "science", "all", "all"))

    def one():
        return rng.choice((skills_world.some_fact(rng) if topic == "all" else rng.choice(nature.TOPICS[topic])).told)
    return _gather(one)


def _gather(one, gap=" "):
    """As many small pieces as make a document."""
    said = ""
    while len(said) < LONG_ENOUGH:
        said += gap + one()
    return said[1:]


def _sequence(rng, world):
    n, step = rng.randint(1, 80), rng.choice((1, 1, 1, 2, 5, 10))
    lines = [f"The days of the week are {_listed(nature.DAYS)}.",
             f"The months of the year are {_listed(nature.MONTHS)}.", f"The planets are {_listed(nature.PLANETS)}.",
             "The alphabet is " + " ".join("abcdefghijklmnopqrstuvwxyz") + ".",
             "Count with me: " + ", ".join(str(k) for k in range(n, n + 15 * step, step)) + ".",
             "Count down: " + ", ".join(str(k) for k in range(n + 10, n - 1, -1)) + "."]
    rng.shuffle(lines)
    return " ".join(lines[:3])


def _listed(words):
    return ", ".join(words[:-1]) + " and " + words[-1]


def _sums(rng, world):
    def one():
        op, word = rng.choice((("+", "plus"), ("-", "minus"), ("*", "times")))
        y, x = sorted(draw(lambda: (rng.randint(1, 20), rng.randint(1, 10)), number_key, False))
        return rng.choice(WORDINGS["documents"]["sums"]).format(x=x, y=y, op=op, word=word, r=calculate(f"{x}{op}{y}"))
    return _gather(one)


def _spelling(rng, world):
    def one():
        word = rng.choice(tables.WORDS)
        letter = rng.choice(word)
        if rng.random() < 0.3 and not is_test("counting", word, letter, percent=15):  # what a test asks is not told
            return told_count(word, letter)
        if rng.random() < 0.1:
            return told_length(word)
        return rng.choice((f"{word}: {spelled(word)}.", f"{word} is spelled {spelled(word)}."))
    return _gather(one, "\n" if rng.random() < LISTED else " ")


def _stories(rng, world):
    """Longer stories than are ever asked about, and how things stand at the end."""
    told = []
    while sum(map(len, told)) < 250:
        story = draw(lambda: stories.tell(rng, rng.randint(1, 3), rng.randint(1, 2), rng.randint(2, 7)),
                     lambda m: ("story", m.text), False)
        asked = stories.questions(story)
        known = [answer.replace("The ", "the ", 1) for _, answer, *_ in rng.sample(asked, min(2, len(asked)))]
        told.append(" ".join([story.text, *(f"Now {answer}" for answer in known)]))
    return "\n".join(told)


ASKED = ((skills_people.facts_seen, 5), (skills_people.reverse, 1.5), (skills_people.yes_no, 1),
         (skills_people.follow_up, 1), (skills_world.facts_world, 4), (skills_world.story, 1),
         (skills_words.spelling, 1), (skills_words.counting, 1), (skills_people.choice, 1),
         (skills_social.identity, 0.7), (skills_social.greetings, 0.7), (skills_social.memory, 0.7))
BETWEEN_PEOPLE = 8  # the first so many can also be said between two people


def _weighted(rng, makers):
    return rng.choices(*zip(*makers))[0]


def _dialogue(rng, world):
    n = len(ASKED)
    if rng.random() < 0.6:
        asks, answers = rng.choice((("Question: ", "Answer: "), ("Q: ", "A: "), ("User: ", "nanochat: ")))
    else:
        n, (asks, answers) = BETWEEN_PEOPLE, (f"{name}: " for name in rng.sample(tables.NAMES, 2))
    lines = []
    while sum(map(len, lines)) < 300:
        messages, _ = _weighted(rng, ASKED[:n])(rng, world, False, 1)
        lines += [(asks, answers)[k % 2] + m["content"] for k, m in enumerate(messages)]
    return "\n".join(lines)


KINDS = ((_biography, 36), (_group, 6), (_animals, 6), (_nature, 13), (_sequence, 2), (_sums, 3), (_spelling, 11),
         (_stories, 8), (_dialogue, 15))


def document(world, i, seed=0):
    """The i-th document of a world: depends on (world, seed, i) only."""
    rng = random.Random(mix_seed("document", seed, i))
    return _weighted(rng, KINDS)(rng, world)


def documents(n, seed=0, size=60):
    """Yield `n` documents; `seed` chooses which, never the world."""
    world = World(size)
    for i in range(n):
        yield document(world, i, seed)
