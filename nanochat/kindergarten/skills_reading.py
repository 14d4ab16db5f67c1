"""
Reading a few sentences and answering a question about them (reading.txt).

A passage holds two to four facts of one kind or two, about different people and things, so that the answer
is not just the only name or colour there is: the right sentence has to be found. People's names, things and
values are drawn anew for each passage; nothing of it can be known beforehand.
"""
from collections.abc import Iterable
from dataclasses import dataclass
from random import Random

from nanochat.kindergarten import tables
from nanochat.kindergarten.skill import Check, Made, chat, draw, fact_check, on_side
from nanochat.kindergarten.typist import typed
from nanochat.kindergarten.unlisted import some_names
from nanochat.kindergarten.wording import compose
from nanochat.kindergarten.world import World

READING = tables.read("reading.txt")
SCENES = tables.titled("reading.txt", "scene")
COMPARED = {word: opposite for word, (opposite,) in READING["compared"].items()}


def _values(key: str) -> list[str]:
    text = " ".join(READING["values"][key])
    return [value.strip() for value in text.split(",")] if "," in text else text.split()


THINGS = _values("things")
PLACES = _values("places")
COLOURS = _values("colours")
ANIMALS = _values("animals")
FEELINGS = _values("feelings")
POOLS = {kind: [value.strip() for value in " ".join(lines).split(",")]
         for kind, lines in READING["pools"].items()}  # of passages.txt, too
NUMBERS = [str(number) for number in range(2, 40)]
MORE = (0, 1, 1, 2, 2, 3)  # questions that follow the first one in training
LONGEST = 560  # letters of a conversation with more than one question

# scene -> (what {k} can be, what {v} can be)
SLOTS = {
    "colour": (THINGS, COLOURS), "thing colour": (THINGS, COLOURS), "who has": ([""], THINGS + ANIMALS),
    "where thing": (THINGS, _values("under")), "where person": ([""], PLACES), "likes": ([""], tables.MEALS),
    "eats": ([""], tables.MEALS), "when": ([""], _values("days")), "goes by": ([""], _values("vehicles")),
    "pet": (ANIMALS, tables.PETS + tables.NAMES), "job": ([""], _values("jobs")), "age": ([""], NUMBERS),
    "many": (THINGS, NUMBERS), "why": (FEELINGS, _values("reasons")), "gave": ([""], THINGS),
    "comes from": ([""], tables.CITIES), "plays": ([""], POOLS["music"]), "speaks": ([""], POOLS["language"]),
    "costs": (THINGS, POOLS["price"]), "made of": (THINGS, POOLS["material"]),
    "drinks": ([""], POOLS["drink"]), "hobby": ([""], POOLS["hobby"]), "state": ([""], POOLS["state"]),
    "wears": ([""], POOLS["wear"]), "open": (POOLS["building"], POOLS["hour"]),
    "teaches": ([""], POOLS["subject"]), "born": ([""], POOLS["year"]), "plays sport": ([""], POOLS["sport"]),
    "broke": ([""], THINGS), "meets": ([""], ANIMALS),
}


@dataclass
class Told:
    """One sentence of a passage, and what can be asked about it."""

    sentence: str
    slots: dict[str, str]  # n, m, k, v, p, he, his
    scene: str


def reading(rng: Random, world: World, test: bool, level: int) -> Made:
    """A passage and a question about one of its sentences."""
    if rng.random() < 0.12:
        return _comparison(rng, test)

    def make() -> list[Told]:
        return _passage(rng, level)

    passage = draw(make, lambda made: ("reading", " ".join(told.sentence for told in made)), test)
    told = rng.choice(passage)
    question, answer, check = _question(rng, passage, told, test)
    text = " ".join(each.sentence for each in passage)
    made = chat(together(rng, text, question), answer), check
    others = [each for each in passage if each is not told]
    further = [] if test else rng.sample(others, min(len(others), rng.choice(MORE)))
    return asked_on(rng, made, (_question(rng, passage, each, test) for each in further))


def asked_on(rng: Random, made: Made, questions: Iterable[tuple[str, str, Check]]) -> Made:
    """The conversation with more (question, answer, check) about the same passage, as many as have room.

    Reading is learned from the answers, and most of what there is to read stands before the first one. So
    training asks several times; a test counts each passage once.
    """
    messages, check = made
    n_letters = sum(len(message["content"]) for message in messages)
    for question, answer, next_check in questions:
        question = typed(rng, question)
        n_letters += len(question) + len(answer)
        if n_letters > LONGEST:
            break
        messages = messages + chat(question, answer)
        check = next_check
    return messages, check


def _question(rng: Random, passage: list[Told], told: Told, test: bool) -> tuple[str, str, Check]:
    """(question, answer, check) about one of the sentences."""
    table = SCENES[told.scene]
    backwards = "back" in table and rng.random() < 0.4
    question = rng.choice(on_side("reading", table["back" if backwards else "asked"], test, percent=15))
    answer = table["back answer" if backwards else "answer"][0]
    asked_slot = "v"
    if backwards:
        asked_slot = "n" if "{n}" in answer else "k"
    asked = compose(rng, question, dict(told.slots))
    answer = compose(rng, answer, dict(told.slots))
    rivals = [each.slots[asked_slot] for each in passage if each is not told]
    rivals = [rival for rival in rivals if rival and rival not in answer]
    return asked, answer, fact_check(told.slots[asked_slot], rivals=rivals)


def plural(noun: str) -> str:
    """Of a regular noun."""
    return noun + ("es" if noun.endswith(("s", "x", "ch", "sh")) else "s")


def together(rng: Random, text: str, question: str) -> str:
    """The passage and its question, as people put them."""
    around = READING["around"]
    before = f"{rng.choice(around['before'])} " if rng.random() < 0.2 else ""
    gap = "\n" if rng.random() < 0.12 else " "
    if rng.random() < 0.12:
        question = f"{rng.choice(around['between'])} {question}"
    else:
        question = typed(rng, question, lower=rng.random() < 0.4)
    if rng.random() < 0.12:
        text = text.lower()
    if rng.random() < 0.07 and question.endswith("?"):  # what is asked comes first
        return f"{question}{gap}{text}"
    return f"{before}{text}{gap}{question}"


def _passage(rng: Random, level: int) -> list[Told]:
    """Two to four sentences of one scene or two, no value of which is told twice."""
    count = rng.choice((1, 2, 2, 3, 3, 4)[:2 + 2 * level])
    scenes = rng.sample(tuple(SCENES), 1 if rng.random() < 0.6 else 2)
    passage: list[Told] = []
    used: set[str] = set()
    names = some_names(rng, 2 * count)
    for number in range(count):
        scene = scenes[number % len(scenes)]
        keys, values = SLOTS[scene]
        value = rng.choice([value for value in values if value not in used])
        key = rng.choice([key for key in keys if not key or key not in used])
        used.update((value, key))
        he, his = rng.choice((("he", "his"), ("she", "her")))
        slots = {"n": names[2 * number], "m": names[2 * number + 1], "k": key, "ks": plural(key), "v": value,
                 "p": rng.choice(_values("at")), "he": he, "his": his}
        slots["v"] = value.format(he=he)
        sentence = compose(rng, rng.choice(SCENES[scene]["told"]), dict(slots))
        passage.append(Told(sentence, slots, scene))
    return passage


def _comparison(rng: Random, test: bool) -> Made:
    """"Ann is older than Bob." Who is older, who is younger? With a third one in between at times."""
    def make() -> tuple[str, list[str]]:
        return rng.choice(tuple(COMPARED)), some_names(rng, rng.choice((2, 2, 3)))

    word, names = draw(make, lambda made: ("compared", made[0], *sorted(made[1])), test)
    sentences = []
    for more, less in zip(names, names[1:]):
        if rng.random() < 0.6:
            sentences.append(f"{more} is {word} than {less}.")
        else:
            sentences.append(f"{less} is {COMPARED[word]} than {more}.")
    if len(names) == 3:
        superlative = {"er": "est"}
        asked = word if rng.random() < 0.6 else COMPARED[word]
        question = f"Who is the {asked.removesuffix('er') + superlative['er']}?"
        answer = f"{names[0] if asked == word else names[2]} is the {asked.removesuffix('er')}est."
    else:
        asked = rng.choice((word, COMPARED[word]))
        question = rng.choice((f"Who is {asked}?", f"Which one is {asked}?", f"Who is the {asked} one?"))
        more = names[0] if asked == word else names[1]
        less = names[1] if asked == word else names[0]
        answer = f"{more} is {asked} than {less}."
    right = answer.split(" ")[0]
    others = [name.lower() for name in names if name != right]
    check = {"kind": "first", "answer": right.lower(), "rivals": others}
    return chat(together(rng, " ".join(sentences), question), answer), check
