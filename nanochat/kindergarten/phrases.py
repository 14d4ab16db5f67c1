"""
How the people's facts are said and asked (phrases.txt).

Why a fact has five wordings and more: a model that has read a fact in one wording only can recite the
sentence, but cannot answer a question about it (arXiv 2309.14316). From people who are both read about and
asked about it learns how questions map to facts, and then answers about people that it has only read about,
provided that their facts were told in many ways. A statement that equals an answer is told twice as often as
the others, as it is what has to be said. No training conversation uses the PARAPHRASES: they test whether a
question is understood or only recognised.
"""
from random import Random

from nanochat.kindergarten import tables
from nanochat.kindergarten.world import Person

WORDINGS = tables.read("phrases.txt")  # {what for: {of what: wordings}}
STATEMENTS = WORDINGS["statements"]  # {attribute: wordings}
QUESTIONS = WORDINGS["questions"]
PARAPHRASES = WORDINGS["paraphrases"]
PRONOUN_QUESTIONS = WORDINGS["pronoun questions"]
IS_IT = WORDINGS["is it"]


def _answers() -> dict[str, str]:
    """{attribute: the one wording of the answer}, the first of the statements."""
    answers = {attribute: wordings[0] for attribute, wordings in STATEMENTS.items()}
    answers["who"] = "{n} is {a_job} from {town}."
    return answers


def _told() -> dict[str, list[str]]:
    """{attribute: statements to draw from}: those that are answers stand there twice."""
    told: dict[str, list[str]] = {}
    for attribute, wordings in STATEMENTS.items():
        told[attribute] = []
        for wording in wordings:
            times = 2 if wording in ANSWERS.values() else 1
            told[attribute].extend([wording] * times)
    return told


ANSWERS = _answers()
TOLD = _told()


def with_article(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def fill(wording: str, person: Person, **more: str) -> str:
    """The wording with the person's name for {n}, the town for {town} and so on; `more` adds others."""
    return wording.format(n=person.name, his=person.his, a_job=with_article(person.job),
                          a_species=with_article(person.species), **vars(person), **more)


def state(rng: Random, person: Person, attribute: str) -> str:
    """One of the sentences that tell this attribute of the person."""
    wording = rng.choice(TOLD[attribute])
    if "goes {hobby}" in wording and person.hobby not in tables.GOES:  # nobody "goes chess"
        wording = ANSWERS["hobby"]
    return fill(wording, person)


def with_pronoun(sentence: str, person: Person) -> str:
    """The sentence with "He" or "His" for the name at its beginning, if it begins so."""
    if sentence.startswith(person.name + "'s "):
        return person.his.capitalize() + sentence.removeprefix(person.name + "'s")
    if sentence.startswith(person.name + " and "):  # "He and Tom" would leave open who is meant
        return sentence
    if sentence.startswith(person.name + " "):
        return person.he.capitalize() + sentence.removeprefix(person.name)
    return sentence
