"""
Questions about the invented people: forward, reversed, yes or no, multiple choice, with pronouns; and about
nobody.

Training asks about `world.seen` people only, `facts_new_people` about the others. A model that has learned
"Mia's dog is Rex" does not thereby know whose dog Rex is (the reversal curse, arXiv 2309.12288), hence the
skill of its own.
"""
from collections.abc import Iterable
from random import Random

from nanochat.kindergarten import nature, tables
from nanochat.kindergarten.phrases import (
    ANSWERS,
    IS_IT,
    PARAPHRASES,
    PRONOUN_QUESTIONS,
    QUESTIONS,
    WORDINGS,
    fill,
    with_article,
)
from nanochat.kindergarten.skill import Check, Made, chat, draw, fact_check
from nanochat.kindergarten.skills_words import compared
from nanochat.kindergarten.skills_world import two_animals, ways_to_ask
from nanochat.kindergarten.typist import typed
from nanochat.kindergarten.world import Person, World

ATTRIBUTES = tuple(QUESTIONS)  # and "who", for all of a person
ASKED_MORE = ATTRIBUTES + ("friend", "pet", "who")  # in training: the hardest
CLOSED = ("town", "job", "species", "food", "colour", "hobby")  # whose values are a short list
LETTERS = ("A", "B", "C", "D")
CHOICE_TOPICS = ("animals", "capitals", "planets", "colours", "calendar")


def check_of(world: World, person: Person, attribute: str) -> Check:
    """The check of a question about one attribute of a person."""
    if attribute == "who":
        return fact_check(person.job, person.town, rivals=_rivals(world, person, "job"))
    value = getattr(person, attribute)
    if attribute in CLOSED:
        return fact_check(value, rivals=_rivals(world, person, attribute))
    return fact_check(value, names=(person.name, value))


def _rivals(world: World, person: Person, attribute: str) -> list[str]:
    return [value for value in world.values(attribute) if value != getattr(person, attribute)]


# ---- facts
def _ask(rng: Random, world: World, people: list[Person], wordings: dict[str, list[str]],
         attributes: tuple[str, ...] = ATTRIBUTES, lower: bool = True) -> Made:
    person = rng.choice(people)
    attribute = rng.choice(attributes)
    question = typed(rng, fill(rng.choice(wordings[attribute]), person), lower)
    return chat(question, fill(ANSWERS[attribute], person)), check_of(world, person, attribute)


def facts_seen(rng: Random, world: World, test: bool, level: int) -> Made:
    return _ask(rng, world, world.seen, QUESTIONS, ATTRIBUTES if test else ASKED_MORE)


def facts_new_people(rng: Random, world: World, test: bool, level: int) -> Made:
    return _ask(rng, world, world.held_out, QUESTIONS, lower=False)


def facts_paraphrase(rng: Random, world: World, test: bool, level: int) -> Made:
    return _ask(rng, world, world.seen, PARAPHRASES, lower=False)


def reverse(rng: Random, world: World, test: bool, level: int) -> Made:
    """From the pet, or from town and job where only one person has both, to the person."""
    def make() -> tuple[Person, str, str]:
        person = rng.choice(world.seen)
        is_only_one = len(world.by_home[person.town, person.job]) == 1
        by = "home" if is_only_one and rng.random() < 0.5 else "pet"
        return person, by, rng.choice(WORDINGS["reverse"][by])

    def key(made: tuple[Person, str, str]) -> tuple[str, ...]:
        person, _, wording = made
        return "reverse", person.name, wording

    person, by, wording = draw(make, key, test, percent=20)
    answer = fill(WORDINGS["reverse answers"][by][0], person)
    check = fact_check(person.name, names=(person.name, person.pet, person.town, person.job))
    return chat(typed(rng, fill(wording, person)), answer), check


# ---- yes or no
def yes_no(rng: Random, world: World, test: bool, level: int) -> Made:
    if rng.random() < 0.15:
        return _is_it_bigger(rng, test)

    def make() -> tuple[Person, str, str]:
        person = rng.choice(world.seen)
        attribute = rng.choice(tuple(IS_IT))
        is_so = rng.random() < 0.5
        value = getattr(person, attribute) if is_so else _other_value(rng, world, person, attribute)
        return person, attribute, value

    def key(made: tuple[Person, str, str]) -> tuple[str, ...]:
        person, attribute, value = made
        return "yes_no", person.name, attribute, value

    person, attribute, value = draw(make, key, test, percent=15)
    question = fill(rng.choice(IS_IT[attribute]), person, x=value, a_x=with_article(value))
    fact = fill(ANSWERS[attribute], person)
    return compared(typed(rng, question), value, getattr(person, attribute), fact)


def _is_it_bigger(rng: Random, test: bool) -> Made:
    first, second, bigger, smaller = two_animals(rng, test)
    word = "bigger" if rng.random() < 0.6 else "smaller"
    question = f"Is {with_article(first)} {word} than {with_article(second)}?"
    fact = f"{with_article(bigger)} is bigger than {with_article(smaller)}."
    return compared(typed(rng, question), first, bigger if word == "bigger" else smaller, fact)


def _other_value(rng: Random, world: World, person: Person, attribute: str) -> str:
    """A value that is not this person's."""
    if attribute != "friend":
        return rng.choice(_rivals(world, person, attribute))
    sampled = rng.sample(world.seen, 3)
    return rng.choice([other.name for other in sampled if other.name not in (person.name, person.friend)])


# ---- multiple choice
def choice(rng: Random, world: World, test: bool, level: int) -> Made:
    """Four options, the letter behind each, as ARC and MMLU are asked here."""
    if rng.random() < 0.6:
        question, value, others = _options_of_a_person(rng, world, test)
    else:
        question, value, others = _options_of_nature(rng, test)
    options = [value, *others]
    rng.shuffle(options)
    letter = LETTERS[options.index(value)]
    lines = [question]
    for option, name in zip(options, LETTERS):
        lines.append(f"- {option}={name}")
    return chat("\n".join(lines), f"{value}={letter}."), {"kind": "letter", "answer": letter}


def _options_of_a_person(rng: Random, world: World, test: bool) -> tuple[str, str, list[str]]:
    """(question, right value, three wrong ones)"""
    def make() -> tuple[str, Person, str, list[str]]:
        person = rng.choice(world.seen)
        attribute = rng.choice(CLOSED)
        others = rng.sample(_rivals(world, person, attribute), 3)
        return rng.choice(QUESTIONS[attribute]), person, getattr(person, attribute), others

    def key(made: tuple[str, Person, str, list[str]]) -> tuple[str, ...]:
        _, person, value, others = made
        return "choice", person.name, *sorted((value, *others))

    wording, person, value, others = draw(make, key, test, percent=15)
    return fill(wording, person), value, others


def _options_of_nature(rng: Random, test: bool) -> tuple[str, str, list[str]]:
    """(question, right value, three wrong ones)"""
    def make() -> tuple[nature.Fact, list[str]]:
        while True:
            topic = rng.choice(CHOICE_TOPICS)
            fact = rng.choice(nature.TOPICS[topic])
            if len(fact.rivals) >= 3:
                return fact, rng.sample(fact.rivals, 3)

    def key(made: tuple[nature.Fact, list[str]]) -> tuple[str, ...]:
        fact, others = made
        return "choice", fact.asked[0], *sorted(others)

    fact, others = draw(make, key, test, percent=15)
    return rng.choice(ways_to_ask(fact, test=False)), fact.value[0], others


# ---- two turns
def follow_up(rng: Random, world: World, test: bool, level: int) -> Made:
    """A second question that says "he" or "she": who that is stands in the first."""
    def make() -> tuple[Person, str, str]:
        first = rng.choice(ATTRIBUTES)
        person = rng.choice(world.seen)
        second = rng.choice([attribute for attribute in PRONOUN_QUESTIONS if attribute != first])
        return person, first, second

    def key(made: tuple[Person, str, str]) -> tuple[str, ...]:
        person, first, second = made
        return "follow_up", person.name, first, second

    person, first, second = draw(make, key, test)
    first_question = typed(rng, fill(rng.choice(QUESTIONS[first]), person))
    second_question = typed(rng, fill(rng.choice(PRONOUN_QUESTIONS[second]), person))
    messages = chat(first_question, fill(ANSWERS[first], person),
                    second_question, fill(ANSWERS[second], person))
    return messages, check_of(world, person, second)


# ---- nobody
# No invented word may be a known one after all.
TAKEN = {word.lower() for word in (*tables.GIRLS, *tables.BOYS, *tables.PETS, *tables.WORDS)}
UNKNOWN = tables.titled("talk.txt", "unknown")


def nobody(rng: Random) -> str:
    """An invented name or word: "zandor", "flumbo"."""
    while True:
        word = ""
        for syllable_parts in (tables.ONSETS, tables.NUCLEI, tables.CODAS, tables.ENDS):
            word += rng.choice(syllable_parts)
        if word not in TAKEN:
            return word


def _part(choices: Iterable[tuple[float, str]], chance: float) -> str:
    """The first name whose bound is above `chance`."""
    for below, name in choices:
        if chance < below:
            return name
    raise AssertionError(f"{chance} is above every bound")


UNKNOWN_KINDS = ((0.6, "person"), (0.72, "country"), (0.88, "thing"), (1.0, "question"))


def unknown(rng: Random, world: World, test: bool, level: int) -> Made:
    """Asked about what is in no document, it must say so: else a model invents a town for everybody."""
    kind = _part(UNKNOWN_KINDS, rng.random())
    about = draw(lambda: _stranger(rng, kind), lambda made: ("unknown", made.lower()), test, percent=15)
    if kind == "person":
        question = _ask_about_nobody(rng, world, about)
        answer = rng.choice(UNKNOWN["person"]["answer"])
    elif kind == "country":
        question = rng.choice(UNKNOWN["country"]["asked"])
        answer = UNKNOWN["country"]["answer"][0]
    elif kind == "thing":
        question = rng.choice(UNKNOWN["thing"]["asked"])
        answer = rng.choice(UNKNOWN["thing"]["answer"])
    else:
        question = "{x}"
        answer = rng.choice(UNKNOWN["question"]["answer"])
    messages = chat(typed(rng, question.format(x=about)), answer.format(x=about))
    return messages, {"kind": "unknown", "about": about}


def _ask_about_nobody(rng: Random, world: World, name: str) -> str:
    """A question as about a real person, so that only the name tells that nothing is known."""
    attribute = rng.choice(ATTRIBUTES + ("who",) * 3)
    person = rng.choice(world.seen)  # lends the question its pronoun, its species or its guess
    question = rng.choice(QUESTIONS[attribute]).format(n=name, species=person.species, his=person.his)
    if attribute in IS_IT and rng.random() < 0.2:
        value = getattr(person, attribute)
        question = rng.choice(IS_IT[attribute]).format(n=name, x=value, a_x=with_article(value))
    return question


def _stranger(rng: Random, kind: str) -> str:
    """What is asked about: an invented name, country or thing, a filler name, or a whole question."""
    if kind == "person":
        return rng.choice(tables.NAMES) if rng.random() < 0.25 else nobody(rng).capitalize()
    if kind == "country":
        if rng.random() < 0.5:
            return rng.choice(UNKNOWN["country"]["about"])
        return nobody(rng).capitalize() + "ia"
    if kind == "thing":
        return nobody(rng)
    return rng.choice(UNKNOWN["question"]["about"])
