"""
How the people's facts are said and asked, and the noise of a hurried typist.

STATEMENTS are read in documents; a statement that equals an answer is told twice as often as the others: from these a
model learns to answer about people it has only read about. No training conversation uses the PARAPHRASES.
"""
from nanochat.kindergarten import tables

WORDINGS = tables.read("phrases.txt")  # {what for: {of what: wordings}}
STATEMENTS, QUESTIONS, PARAPHRASES = WORDINGS["statements"], WORDINGS["questions"], WORDINGS["paraphrases"]
PRONOUN_QUESTIONS, IS_IT = WORDINGS["pronoun questions"], WORDINGS["is it"]

ANSWERS = {**{attribute: told[0] for attribute, told in STATEMENTS.items()}, "who": "{n} is {a_job} from {town}."}
TOLD = {attribute: [w for w in wordings for _ in range(1 + (w in ANSWERS.values()))]
        for attribute, wordings in STATEMENTS.items()}


def a(noun):
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def fill(wording, person, **more):
    return wording.format(n=person.name, his=person.his, a_job=a(person.job), a_species=a(person.species),
                          **vars(person), **more)


def state(rng, person, attribute):
    wording = rng.choice(TOLD[attribute])
    if "goes {hobby}" in wording and person.hobby not in tables.GOES:
        wording = ANSWERS["hobby"]
    return fill(wording, person)


def with_pronoun(sentence, person):
    if sentence.startswith(person.name + "'s "):
        return person.his.capitalize() + sentence[len(person.name) + 2:]
    if sentence.startswith(person.name + " ") and not sentence.startswith(person.name + " and "):
        return person.he.capitalize() + sentence[len(person.name):]
    return sentence


SHORTER = (("What is ", ("What's ", "what's ", "whats ")), ("Who is ", ("Who's ", "who's ", "whos ")),
           ("Where is ", ("Where's ", "where's ")))


def typed(rng, text, lower=True):
    """The text as a hurried user may type it; with `lower` off, no name loses its capital."""
    draw, asks = rng.random(), text.endswith("?")
    uncapped = text if text.startswith("I ") else text[0].lower() + text[1:]
    if draw < 0.5:
        return text
    if draw < 0.56:
        return rng.choice(("Please tell me: ", "Hi! ", "I have a question. ")) + text if asks else "Hey, " + uncapped
    if draw < 0.66 and asks:
        return text[:-1]
    for full, short in SHORTER:
        if draw < 0.8 and text.startswith(full):
            return rng.choice(short) + text[len(full):]
    if draw < 0.92 or not lower:
        return uncapped
    return text.lower() if draw < 0.96 else text.lower().rstrip("?.")
