"""
Questions about the invented people: forward, reversed, yes or no, multiple choice, with pronouns; and about nobody.

Training asks about `world.seen` people only, `facts_new_people` about the others.
"""
from nanochat.kindergarten import nature, tables
from nanochat.kindergarten.phrases import (
    ANSWERS,
    IS_IT,
    PARAPHRASES,
    PRONOUN_QUESTIONS,
    QUESTIONS,
    WORDINGS,
    a,
    fill,
    typed,
)
from nanochat.kindergarten.skill import chat, draw, fact_check
from nanochat.kindergarten.skills_world import two_animals, ways_to_ask

ATTRIBUTES = tuple(QUESTIONS)
ASKED_MORE = ATTRIBUTES + ("friend", "pet", "who")  # in training: the hardest
CLOSED = ("town", "job", "species", "food", "colour", "hobby")
LETTERS = ("A", "B", "C", "D")


def check_of(world, person, attribute):
    if attribute == "who":
        return fact_check(person.job, person.town, rivals=_rivals(world, person, "job"))
    value = getattr(person, attribute)
    if attribute in CLOSED:
        return fact_check(value, rivals=_rivals(world, person, attribute))
    return fact_check(value, names=(person.name, value))


def _rivals(world, person, attribute):
    return [v for v in world.values(attribute) if v != getattr(person, attribute)]


def _ask(rng, world, people, wordings, attributes=ATTRIBUTES, lower=True):
    person, attribute = rng.choice(people), rng.choice(attributes)
    question = typed(rng, fill(rng.choice(wordings[attribute]), person), lower)
    return chat(question, fill(ANSWERS[attribute], person)), check_of(world, person, attribute)


def facts_seen(rng, world, test, level):
    return _ask(rng, world, world.seen, QUESTIONS, ATTRIBUTES if test else ASKED_MORE)


def facts_new_people(rng, world, test, level):
    return _ask(rng, world, world.held_out, QUESTIONS, lower=False)


def facts_paraphrase(rng, world, test, level):
    return _ask(rng, world, world.seen, PARAPHRASES, lower=False)


def reverse(rng, world, test, level):
    def make():
        person = rng.choice(world.seen)
        by = "home" if len(world.by_home[person.town, person.job]) == 1 and rng.random() < 0.5 else "pet"
        return person, by, rng.choice(WORDINGS["reverse"][by])
    person, by, wording = draw(make, lambda m: ("reverse", m[0].name, m[2]), test, percent=20)
    answer = fill(WORDINGS["reverse answers"][by][0], person)
    check = fact_check(person.name, names=(person.name, person.pet, person.town, person.job))
    return chat(typed(rng, fill(wording, person)), answer), check


def _other_value(rng, world, person, attribute):
    if attribute == "friend":
        return rng.choice([p.name for p in rng.sample(world.seen, 3) if p.name not in (person.name, person.friend)])
    return rng.choice(_rivals(world, person, attribute))


def yes_no(rng, world, test, level):
    if rng.random() < 0.15:
        x, y, big, small = two_animals(rng, test)
        bigger = rng.random() < 0.6
        question = f"Is {a(x)} {'bigger' if bigger else 'smaller'} than {a(y)}?"
        return _answered(rng, question, f"{a(big)} is bigger than {a(small)}.", (x == big) == bigger)

    def make():
        person, attribute, yes = rng.choice(world.seen), rng.choice(tuple(IS_IT)), rng.random() < 0.5
        value = getattr(person, attribute) if yes else _other_value(rng, world, person, attribute)
        return person, attribute, yes, value

    person, attribute, yes, value = draw(make, lambda m: ("yes_no", m[0].name, m[1], m[3]), test, percent=15)
    question = fill(rng.choice(IS_IT[attribute]), person, x=value, a_x=a(value))
    return _answered(rng, question, fill(ANSWERS[attribute], person), yes)


def _answered(rng, question, fact, yes):
    """ "Mia has a cat, so no.": a small model cannot weigh what it has not said."""
    word = "yes" if yes else "no"
    answer = f"{fact[0].upper()}{fact[1:].rstrip('.')}, so {word}."
    return chat(typed(rng, question), answer), {"kind": "yes_no", "answer": word}


def choice(rng, world, test, level):
    """Four options, the letter behind each, as ARC and MMLU are asked here."""
    if rng.random() < 0.6:
        def make():
            person, attribute = rng.choice(world.seen), rng.choice(CLOSED)
            others = rng.sample(_rivals(world, person, attribute), 3)
            return rng.choice(QUESTIONS[attribute]), person, getattr(person, attribute), others
        wording, person, value, others = draw(make, lambda m: ("choice", m[1].name, *sorted((m[2], *m[3]))), test, 15)
        question = fill(wording, person)
    else:
        def make():
            fact = rng.choice(nature.TOPICS[rng.choice(("animals", "capitals", "planets", "colours", "calendar"))])
            return (fact, rng.sample(fact.rivals, 3)) if len(fact.rivals) > 2 else make()
        fact, others = draw(make, lambda m: ("choice", m[0].asked[0], *sorted(m[1])), test, 15)
        question, value = rng.choice(ways_to_ask(fact, False)), fact.value[0]
    options = [value, *others]
    rng.shuffle(options)
    letter = LETTERS[options.index(value)]
    asked = question + "".join(f"\n- {option}={name}" for option, name in zip(options, LETTERS))
    return chat(asked, f"{value}={letter}."), {"kind": "letter", "answer": letter}


def follow_up(rng, world, test, level):
    def make():
        first = rng.choice(ATTRIBUTES)
        return rng.choice(world.seen), first, rng.choice([k for k in PRONOUN_QUESTIONS if k != first])

    person, first, second = draw(make, lambda m: ("follow_up", m[0].name, m[1], m[2]), test)
    turns = [typed(rng, fill(rng.choice(QUESTIONS[first]), person)), fill(ANSWERS[first], person),
             typed(rng, fill(rng.choice(PRONOUN_QUESTIONS[second]), person)), fill(ANSWERS[second], person)]
    return chat(*turns), check_of(world, person, second)


TAKEN = {word.lower() for word in (*tables.GIRLS, *tables.BOYS, *tables.PETS, *tables.WORDS)}  # known after all
UNKNOWN = tables.titled("talk.txt", "unknown")


def nobody(rng):
    """An invented name or word: "Zandor", "flumbo"."""
    while True:
        word = "".join(map(rng.choice, (tables.ONSETS, tables.NUCLEI, tables.CODAS, tables.ENDS)))
        if word not in TAKEN:
            return word


def unknown(rng, world, test, level):
    kind = rng.random()
    about = draw(lambda: _stranger(rng, kind), lambda m: ("unknown", m.lower()), test, percent=15)
    if kind < 0.6:
        attribute = rng.choice(ATTRIBUTES + ("who",) * 3)
        person = rng.choice(world.seen)  # lends the question its pronoun, its species or its guess
        question = rng.choice(QUESTIONS[attribute]).format(n=about, species=person.species, his=person.his)
        if attribute in IS_IT and rng.random() < 0.2:
            value = getattr(person, attribute)
            question = rng.choice(IS_IT[attribute]).format(n=about, x=value, a_x=a(value))
        answer = rng.choice(UNKNOWN["person"]["answer"])
    elif kind < 0.72:
        question, answer = rng.choice(UNKNOWN["country"]["asked"]), UNKNOWN["country"]["answer"][0]
    elif kind < 0.88:
        question, answer = rng.choice(UNKNOWN["thing"]["asked"]), rng.choice(UNKNOWN["thing"]["answer"])
    else:
        question, answer = "{x}", rng.choice(UNKNOWN["question"]["answer"])
    return chat(typed(rng, question.format(x=about)), answer.format(x=about)), {"kind": "unknown", "about": about}


def _stranger(rng, kind):
    if kind < 0.6:
        return rng.choice(tables.NAMES) if rng.random() < 0.25 else nobody(rng).capitalize()
    if kind < 0.72:
        return rng.choice(UNKNOWN["country"]["about"]) if rng.random() < 0.5 else (nobody(rng) + "ia").capitalize()
    return nobody(rng) if kind < 0.88 else rng.choice(UNKNOWN["question"]["about"])
