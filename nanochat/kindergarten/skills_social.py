"""
Manners, who the model is, and what the user told a few turns ago; the words are in talk.txt.

Many wordings, else greetings collapse to one string; many fillers, else remembering is learned as a table of
names instead of as looking back, which is what attention is for.
"""
import re
from random import Random

from nanochat.kindergarten import tables
from nanochat.kindergarten.skill import Made, chat, draw, fact_check
from nanochat.kindergarten.typist import typed
from nanochat.kindergarten.world import World

QUESTION = re.compile(r"(^|, |^and )(who|what|where|when|how|are|do|can|may|am|which|is) ", re.IGNORECASE)

POLITE = {
    "greeting": list(tables.titled("talk.txt", "greeting").values()),
    "identity": list(tables.titled("talk.txt", "identity").values()),
}
TELL = tables.titled("talk.txt", "memory")
FILLERS = {
    "name": tables.NAMES,
    "food": tables.MEALS + tables.FOODS,
    "colour": tables.SHADES + tables.COLOURS,
    "hobby": tables.PASTIMES + tables.HOBBIES,
    "city": tables.CITIES,
    "dog": tables.NAMES,
}


# ---- greetings and identity
def _casual(rng: Random, text: str) -> str:
    """With the marks and the capitals that people leave out when they chat."""
    if QUESTION.search(text):
        text += rng.choice(("?", "?", "?", ""))
    else:
        text += rng.choice(("!", ".", "", "!"))
    if rng.random() < 0.7:
        return text
    if rng.random() < 0.5:
        return text.lower()
    return text[0].lower() + text[1:]


def _polite(rng: Random, test: bool, kind: str) -> Made:
    row = rng.choice(POLITE[kind])
    said = _casual(rng, rng.choice(row["in tests" if test else "said"]))
    answer = rng.choice(row["answer"])
    return chat(said, answer), {"kind": "any", "signs": row["signs"], "rivals": ["don't know"]}


def greetings(rng: Random, world: World, test: bool, level: int) -> Made:
    return _polite(rng, test, "greeting")


def identity(rng: Random, world: World, test: bool, level: int) -> Made:
    return _polite(rng, test, "identity")


# ---- memory
def memory(rng: Random, world: World, test: bool, level: int) -> Made:
    """Told something, then zero to two other turns, then asked for it; at level 2 two things may be told."""
    if not test and rng.random() < 0.06:
        return _never_told(rng)
    if level == 2 and rng.random() < 0.35:
        kinds = rng.sample(tuple(TELL), 2)
    elif rng.random() < 0.4:
        kinds = ["name"]
    else:
        kinds = [rng.choice(tuple(TELL))]
    return _recall(rng, world, test, level, kinds)


def memory_names(rng: Random, world: World, test: bool, level: int) -> Made:
    return _recall(rng, world, test, level, ["name"])


def _never_told(rng: Random) -> Made:
    """Asked for what was never said: without these the model would invent a name."""
    kind = rng.choice(tuple(TELL))
    question = typed(rng, rng.choice(TELL[kind]["asked"]))
    check = {"kind": "any", "signs": ["not told me"], "rivals": []}
    return chat(question, TELL[kind]["not told"][0]), check


def _recall(rng: Random, world: World, test: bool, level: int, kinds: list[str]) -> Made:
    turns = []
    values = {}
    for kind in kinds:
        fillers = FILLERS[kind]
        value = draw(lambda: rng.choice(fillers),  # noqa: B023    called at once
                     lambda made: ("memory", made.lower()), test, percent=15)
        values[kind] = value
        turns.append(typed(rng, rng.choice(TELL[kind]["told"]).format(x=value), lower=False))
        turns.append(rng.choice(TELL[kind]["reply"]).format(x=value))

    n_between = rng.choice((0, 0, 0, 1, 1, 2) if level == 2 else (0, 0, 1))
    for _ in range(n_between):
        other_skill = rng.choice((greetings, identity))
        messages, _ = other_skill(rng, world, False, level)
        turns += [message["content"] for message in messages]

    kind = rng.choice(kinds)
    turns.append(typed(rng, rng.choice(TELL[kind]["asked"])))
    turns.append(TELL[kind]["answer"][0].format(x=values[kind]))
    other_values = [value for other, value in values.items() if other != kind]
    return chat(*turns), fact_check(values[kind], rivals=other_values)
