"""
What is true outside the invented world: animals, capitals, opposites, days, planets and why the sky is blue.

The tables of nature.txt become one flat list of `Fact`s, which the documents tell and the conversations ask.
"""
from typing import NamedTuple

from nanochat.kindergarten import tables
from nanochat.kindergarten.phrases import a


class Fact(NamedTuple):
    topic: str
    told: tuple         # sentences that state it; the first is also the answer
    asked: tuple        # questions, at least two
    value: tuple        # what the answer must contain: one of these
    rivals: tuple       # other values of the same kind, which it must not contain


TABLES = tables.read("nature.txt")
ANIMALS = [(name, *row) for name, row in TABLES["animals"].items()]
DAYS, MONTHS, PLANETS = (TABLES["in order"][what] for what in ("days", "months", "planets"))
ORDINALS = "first second third fourth fifth sixth seventh eighth".split()


def _pairs(title):
    """[(key, value)] of a table with one column."""
    return [(key, value) for key, (value,) in TABLES[title].items()]


def _others(values, *own):
    return tuple(v for v in dict.fromkeys(values) if v and v not in own)


def _animal_facts(name, plural, kind, legs, sound, home, food, _, young):
    kinds, legs_, sounds, homes, young_ = ([row[k] for row in ANIMALS] for k in (2, 3, 4, 5, 8))
    one, cap, many = a(name), a(name).capitalize(), plural.capitalize()
    count = "no legs" if legs == "0" else f"{legs} legs"
    yield Fact("animals", (f"{cap} has {count}.", f"{many} have {count}."),
               (f"How many legs does {one} have?", f"How many legs do {plural} have?",
                f"What number of legs does {one} have?"), (count.removesuffix(" legs"),), _others(legs_, legs))
    yield Fact("animals", (f"{cap} lives {home}.", f"{many} live {home}."),
               (f"Where does {one} live?", f"Where do {plural} live?", f"What is the home of {one}?"), (home,),
               _others(homes, home))
    yield Fact("animals", (f"{cap} eats {food}.", f"{many} like to eat {food}."),
               (f"What does {one} eat?", f"What do {plural} eat?", f"What food does {one} eat?"), (food,), ())
    if kind:
        yield Fact("animals", (f"{cap} is {a(kind)}.", f"{many} are {kind if kind == 'fish' else kind + 's'}."),
                   (f"What kind of animal is {one}?", f"What is {one}?", f"What are {plural}?"), (kind, kind + "s"),
                   _others(kinds, kind))
    if sound:
        yield Fact("animals", (f"{cap} says {sound}.", f"The sound of {one} is {sound}."),
                   (f"What does {one} say?", f"What sound does {one} make?", f"What do {plural} say?"), (sound,),
                   _others(sounds, sound))
    if young:
        yield Fact("animals", (f"A young {name} is called {a(young)}.", f"A baby {name} is {a(young)}."),
                   (f"What is a young {name} called?", f"What is a baby {name} called?",
                    f"What do we call a young {name}?"), (young,), _others(young_, young))


def _word_facts():
    for x, y in _pairs("opposites"):
        for one, other in ((x, y), (y, x)):
            yield Fact("opposites", (f"The opposite of {one} is {other}.",
                                     f"{one.capitalize()} is the opposite of {other}."),
                       (f"What is the opposite of {one}?", f"What is the opposite of the word {one}?",
                        f"Which word is the opposite of {one}?", f"Tell me the opposite of {one}."), (other,), ())
    for one, many in _pairs("plurals"):
        yield Fact("plurals", (f"The plural of {one} is {many}.", f"One {one}, two {many}."),
                   (f"What is the plural of {one}?", f"What is the plural of the word {one}?",
                    f"How do you say more than one {one}?", f"One {one}, two what?"), (many,), ())
    for job, does in _pairs("jobs"):
        one = a(job)
        yield Fact("jobs", (f"{one.capitalize()} {does}.", f"What is {one}? {one.capitalize()} {does}."),
                   (f"What does {one} do?", f"What is {one}?", f"What is the work of {one}?"), (does,), ())
    for thing, does in _pairs("things"):
        one = a(thing)
        second = f"What is {one} for?" if does.startswith("is ") else f"What does {one} do?"
        yield Fact("things", (f"{one.capitalize()} {does}.", f"What is {one}? {one.capitalize()} {does}."),
                   (f"What is {one}?", second, f"Tell me what {one} is."), (does,), ())


def _calendar_facts():
    for names, one in ((DAYS, "day"), (MONTHS, "month")):
        for i, name in enumerate(names):
            after, before = names[(i + 1) % len(names)], names[i - 1]
            yield Fact("calendar", (f"{after} comes after {name}.", f"The {one} after {name} is {after}."),
                       (f"What {one} comes after {name}?", f"Which {one} is after {name}?",
                        f"Which {one} follows {name}?"), (after,), _others(names, after, name))
            yield Fact("calendar", (f"{before} comes before {name}.", f"The {one} before {name} is {before}."),
                       (f"What {one} comes before {name}?", f"Which {one} is before {name}?",
                        f"Which {one} comes just before {name}?"), (before,), _others(names, before, name))
    for unit, n in _pairs("units"):
        what, whole = unit.split(" in ")
        yield Fact("calendar", (f"{whole.capitalize()} has {n} {what}.", f"There are {n} {what} in {whole}."),
                   (f"How many {what} does {whole} have?", f"How many {what} are in {whole}?",
                    f"How many {what} are there in {whole}?"), (n,), ())


def _place_facts():
    capitals, colours = _pairs("capitals"), _pairs("colours")
    for country, capital in capitals:
        yield Fact("capitals", (f"The capital of {country} is {capital}.", f"{capital} is the capital of {country}."),
                   (f"What is the capital of {country}?", f"Which city is the capital of {country}?",
                    f"Tell me the capital of {country}.", f"What is {country}'s capital?"), (capital,),
                   _others((city for _, city in capitals), capital))
    for planet, nth in zip(PLANETS, ORDINALS):
        yield Fact("planets", (f"The {nth} planet from the sun is {planet}.",
                               f"{planet} is the {nth} planet from the sun."),
                   (f"Which planet is {nth} from the sun?", f"What is the {nth} planet from the sun?",
                    f"What is the {nth} planet?"), (planet,), _others(PLANETS, planet))
    for planet, what in (("Jupiter", "biggest"), ("Mercury", "smallest"), ("Mars", "red")):
        yield Fact("planets", (f"The {what} planet is {planet}.", f"{planet} is the {what} planet."),
                   (f"Which planet is the {what} planet?", f"What is the {what} planet?",
                    f"What is the {what} planet called?"), (planet,), _others(PLANETS, planet))
    for one, colour in colours:
        yield Fact("colours", (f"{one.capitalize()} is {colour}.", f"The colour of {one} is {colour}."),
                   (f"What colour is {one}?", f"What is the colour of {one}?", f"Which colour is {one}?"), (colour,),
                   _others((other for _, other in colours), colour))


ANIMAL_FACTS = {row[0]: list(_animal_facts(*row)) for row in ANIMALS}
FACTS = [*(fact for facts in ANIMAL_FACTS.values() for fact in facts),
         *_word_facts(), *_calendar_facts(), *_place_facts(),
         *(Fact("science", tuple(row["answer"]), tuple(row["asked"]), tuple(row["signs"]), ())
           for row in tables.titled("nature.txt", "science").values())]
TOPICS = {topic: [f for f in FACTS if f.topic == topic] for topic in dict.fromkeys(f.topic for f in FACTS)}
SIZES = {row[0]: int(row[7]) for row in ANIMALS}
