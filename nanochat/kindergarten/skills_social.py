"""
Manners, who the model is, and what the user told a few turns ago; the words are in talk.txt.

Many wordings, else greetings collapse to one string; many fillers, else remembering is learned as a table of names.
"""
import re

from nanochat.kindergarten import tables
from nanochat.kindergarten.phrases import typed
from nanochat.kindergarten.skill import chat, draw, fact_check

QUESTION = re.compile(r"(^|, |^and )(who|what|where|when|how|are|do|can|may|am|which|is) ", re.IGNORECASE)


def _casual(rng, text):
    text += rng.choice(("?", "?", "?", "") if QUESTION.search(text) else ("!", ".", "", "!"))
    return text if rng.random() < 0.7 else text.lower() if rng.random() < 0.5 else text[0].lower() + text[1:]


POLITE = {kind: list(tables.titled("talk.txt", kind).values()) for kind in ("greeting", "identity")}


def _polite(rng, test, kind):
    row = rng.choice(POLITE[kind])
    check = {"kind": "any", "signs": row["signs"], "rivals": ["don't know"]}
    return chat(_casual(rng, rng.choice(row["in tests" if test else "said"])), rng.choice(row["answer"])), check


def greetings(rng, world, test, level):
    return _polite(rng, test, "greeting")


def identity(rng, world, test, level):
    return _polite(rng, test, "identity")


TELL = tables.titled("talk.txt", "memory")
FILLERS = {"name": tables.NAMES, "food": tables.MEALS + tables.FOODS, "colour": tables.SHADES + tables.COLOURS,
           "hobby": tables.PASTIMES + tables.HOBBIES, "city": tables.CITIES, "dog": tables.NAMES}


def memory(rng, world, test, level):
    """Told something, then zero to two other turns, then asked for it; at level 2 two things may be told."""
    if not test and rng.random() < 0.06:
        kind = rng.choice(tuple(TELL))
        check = {"kind": "any", "signs": ["not told me"], "rivals": []}
        return chat(typed(rng, rng.choice(TELL[kind]["asked"])), TELL[kind]["not told"][0]), check
    if level == 2 and rng.random() < 0.35:
        kinds = rng.sample(tuple(TELL), 2)
    else:
        kinds = ["name" if rng.random() < 0.4 else rng.choice(tuple(TELL))]
    return _recall(rng, world, test, level, kinds)


def memory_names(rng, world, test, level):
    return _recall(rng, world, test, level, ["name"])


def _recall(rng, world, test, level, kinds):
    turns, values = [], {}
    for kind in kinds:
        value = draw(lambda: rng.choice(FILLERS[kind]), lambda m: ("memory", m.lower()), test, percent=15)
        values[kind] = value
        turns += [typed(rng, rng.choice(TELL[kind]["told"]).format(x=value), lower=False),
                  rng.choice(TELL[kind]["reply"]).format(x=value)]
    for _ in range(rng.choice((0, 0, 0, 1, 1, 2)) if level == 2 else rng.choice((0, 0, 1))):
        between, _ = rng.choice((greetings, identity))(rng, world, False, level)
        turns += [m["content"] for m in between]
    kind = rng.choice(kinds)
    turns += [typed(rng, rng.choice(TELL[kind]["asked"])), TELL[kind]["answer"][0].format(x=values[kind])]
    return chat(*turns), fact_check(values[kind], rivals=[v for k, v in values.items() if k != kind])
