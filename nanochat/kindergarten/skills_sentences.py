"""
Reading sentences that a small grammar makes: who did what, where, when and why (grammar.txt).

skills_reading.py has scenes with wordings of their own; here any subject meets any verb, object, place and
time, so that nothing helps but finding the sentence that the question is about. The answer is that
sentence, said again with the name instead of "he": a small model can copy what it has found, and the reader
sees where it looked.
"""
from collections.abc import Iterable
from dataclasses import dataclass
from random import Random

from nanochat.kindergarten import tables
from nanochat.kindergarten.phrases import with_article
from nanochat.kindergarten.skill import Check, Made, chat, draw, fact_check
from nanochat.kindergarten.skills_reading import MORE, asked_on
from nanochat.kindergarten.typist import typed
from nanochat.kindergarten.unlisted import some_name, some_names, some_thing
from nanochat.kindergarten.world import World

GRAMMAR = tables.read("grammar.txt")
NOUNS = {kind: " ".join(values).split() for kind, values in GRAMMAR["nouns"].items()}
ADJECTIVES = {kind: " ".join(values).split() for kind, values in GRAMMAR["adjectives"].items()}
RELATIVES = GRAMMAR["relatives"]["my"][0].split()
TIMES = GRAMMAR["when"]["time"]
REASONS = GRAMMAR["why"]["reason"]
VERBS = [(base, *values) for base, values in GRAMMAR["verbs"].items()]
READ = GRAMMAR["replies"]["read"]
Asking = tuple[str, str, Check]  # question, answer, check
COUNTS = ("two", "three", "four", "five", "six", "seven", "2", "3", "4", "5", "10", "12")


@dataclass
class Sentence:
    """What one sentence says, part by part; an empty part is not said."""

    subject: str  # "Rosa", "the fox", "my aunt"
    he: str
    verb: str
    past: str
    thing: str = ""  # the object with article and adjectives: "two red balloons"
    noun: str = ""  # its bare noun, in the plural if it is counted
    count: str = ""
    colour: str = ""
    place: str = ""  # "in the kitchen"
    time: str = ""
    reason: str = ""
    first_time: bool = False  # whether the time stands in front
    introduced: str = ""  # "a pig called Hubert": the subject where it is new

    def text(self, subject: str = "", verb: str = "") -> str:
        """The sentence, perhaps about "he" instead."""
        parts = [subject or self.subject, verb or self.past, self.thing, self.place]
        if self.time and not self.first_time:
            parts.append(self.time)
        if self.reason:
            parts.append(f"because {self.reason}")
        if self.time and self.first_time:
            parts.insert(0, self.time)
        line = " ".join(part for part in parts if part)
        return line[0].upper() + line[1:] + "."


def sentences(rng: Random, world: World, test: bool, level: int) -> Made:
    """A passage of one to four sentences and a question about one of them."""
    if rng.random() < 0.15:
        return _states(rng, test)

    def make() -> list[Sentence]:
        return _passage(rng, rng.choice((1, 2, 2, 3, 3, 4)[:2 + 2 * level]))

    passage = draw(make, lambda made: ("sentences", *(each.text() for each in made)), test)
    asked = rng.choice(passage)
    first = _question(rng, asked, passage)
    lines = []
    before = ""
    for each in passage:
        same = each.subject == before and rng.random() < 0.7
        lines.append(each.text(each.he if same else each.introduced))
        before = each.subject
    others = [each for each in passage if each is not asked]
    further = [] if test else rng.sample(others, min(len(others), rng.choice(MORE)))
    return _asked(rng, " ".join(lines), first, (_question(rng, each, passage) for each in further))


def _asked(rng: Random, passage: str, first: Asking, further: Iterable[Asking]) -> Made:
    question, answer, check = first
    chance = rng.random()
    if chance < 0.12:
        passage = passage.lower()
    if chance > 0.9:
        passage = rng.choice(("Read this: ", "Listen. ", "Story: ", "Text: ", "Here is a story. ")) + passage
    question = typed(rng, question, lower=rng.random() < 0.4)
    if rng.random() < 0.15:  # read first, asked then
        messages = chat(passage, rng.choice(READ), question, answer)
    else:
        messages = chat(f"{passage} {question}", answer)
    return asked_on(rng, (messages, check), further)


def _asking(question: str, answer: str, value: str, rivals: list[str]) -> Asking:
    others = [rival for rival in rivals if rival and rival.lower() not in answer.lower()]
    return question, answer, fact_check(value, rivals=others)


def _passage(rng: Random, count: int) -> list[Sentence]:
    """Sentences about one subject or several; no object, place or time comes twice."""
    passage: list[Sentence] = []
    verbs = rng.sample(VERBS, count)
    places = rng.sample(NOUNS["place"], count)
    times = rng.sample(TIMES, count)
    he = ""
    for number, (verb, past, kinds, joins) in enumerate(verbs):
        introduced = ""
        if not passage or rng.random() < 0.6:
            subject, he = _subject(rng, {each.subject for each in passage})
            if " " not in subject and rng.random() < 0.2:
                introduced = _introduced(rng, subject)
        said = Sentence(subject, he, verb.replace(" away", ""), past.replace(" away", ""))
        said.introduced = introduced
        if kinds != "-":
            _add_object(rng, said, rng.choice(kinds.split()), {each.noun for each in passage})
        if joins != "-" and (kinds == "-" or rng.random() < 0.4):
            said.place = f"{joins} the {places[number]}"
        if rng.random() < 0.25:
            said.time = times[number]
            said.first_time = rng.random() < 0.3
        elif rng.random() < 0.12:
            his = "his" if he == "he" else "her"
            said.reason = rng.choice(REASONS).format(he=he, his=his)
        passage.append(said)
    return passage


def _subject(rng: Random, taken: set[str]) -> tuple[str, str]:
    """(who, the pronoun): somebody who has not been spoken of."""
    while True:
        chance = rng.random()
        if chance < 0.55:
            subject = some_name(rng)
        elif chance < 0.7:
            subject = f"the {rng.choice(NOUNS['animal'])}"
        elif chance < 0.85:
            subject = f"the {rng.choice(NOUNS['person'])}"
        else:
            subject = f"my {rng.choice(RELATIVES)}"
        if subject not in taken:
            return subject, rng.choice(("he", "she"))


def _introduced(rng: Random, name: str) -> str:
    """ "a little pig called Hubert" """
    kind = rng.choice(NOUNS[rng.choice(("animal", "person"))])
    adjective = rng.choice(ADJECTIVES["nature"]) if rng.random() < 0.4 else ""
    return f"{with_article(f'{adjective} {kind}'.strip())} {rng.choice(('called', 'named'))} {name}"


def _add_object(rng: Random, said: Sentence, kind: str, taken: set[str]) -> None:
    noun = rng.choice([noun for noun in NOUNS[kind] if noun not in taken])
    if kind in ("thing", "food") and rng.random() < 0.5:
        noun = some_thing(rng, [noun])
    adjective = ""
    if rng.random() < 0.3:
        said.colour = rng.choice(ADJECTIVES["colour"]) if kind in ("thing", "clothes") else ""
        adjective = said.colour or rng.choice(ADJECTIVES["size"])
    whole = f"{adjective} {noun}".strip()
    countable = kind in ("thing", "food", "animal") and not noun.endswith(("s", "fish", "soup", "knife"))
    if countable and rng.random() < 0.2:
        said.count = rng.choice(COUNTS)
        ending = "es" if noun.endswith(("x", "ch", "sh", "to")) else "s"
        said.noun = noun[:-1] + "ies" if noun.endswith("rry") else noun + ending
        said.thing = f"{said.count} {adjective} {said.noun}".replace("  ", " ")
        return
    said.noun = noun
    said.thing = f"the {whole}" if rng.random() < 0.3 else with_article(whole)


def _question(rng: Random, asked: Sentence, passage: list[Sentence]) -> Asking:
    """One about a part of the sentence `asked`: wrong is the same part of the other sentences."""
    def others(part: str) -> list[str]:
        return [getattr(each, part) for each in passage if each is not asked]

    about = asked.subject
    did = f"{about} {asked.verb}"
    rest = " ".join(part for part in (asked.thing, asked.place) if part)
    bare = f"the {asked.noun}" if asked.noun and not asked.count else asked.thing
    choices = [(f"Who {asked.past} {rest}?", asked.subject, others("subject"))]
    if asked.noun:
        choices.append((f"Who {asked.past} {bare}?", asked.subject, others("subject")))
        what = (f"What did {did}?", asked.noun, others("noun"))
        choices += [what, what]
    done = f"{did} {bare}".strip()
    if asked.place:
        where = (f"Where did {done}?", asked.place.split()[-1], others("place"))
        choices += [where, where]
    if asked.time:
        choices.append((f"When did {done}?", asked.time, others("time")))
    if asked.reason:
        choices.append((f"Why did {done}?", asked.reason, []))
    if asked.count:
        choices.append((f"How many {asked.noun} did {did}?", asked.count, []))
    if asked.colour:
        choices.append((f"What colour was the {asked.noun}?", asked.colour, others("colour")))
    question, value, rivals = rng.choice(choices)
    return _asking(question, asked.text(), value, rivals)


def _states(rng: Random, test: bool) -> Made:
    """ "Lucy's coat is warm. Mary's coat is wet." Which coat is wet? Whose coat is warm?"""
    def make() -> tuple[str, list[str], list[str]]:
        count = rng.choice((2, 2, 3))
        noun = rng.choice(NOUNS["clothes"] + NOUNS["thing"] + NOUNS["animal"])
        states = rng.sample(ADJECTIVES["state"] + ADJECTIVES["colour"], count)
        return noun, some_names(rng, count), states

    noun, names, states = draw(make, lambda made: ("states", made[0], *made[1]), test)
    is_or_was = rng.choice(("is", "is", "was"))
    told = []
    for name, state in zip(names, states):
        told.append(f"{name}'s {noun} {is_or_was} {state}.")

    def asking(chosen: int) -> Asking:
        name = names[chosen]
        state = states[chosen]
        question, value = rng.choice((
            (f"Which {noun} {is_or_was} {state}?", name), (f"Whose {noun} {is_or_was} {state}?", name),
            (f"How {is_or_was} {name}'s {noun}?", state), (f"What {is_or_was} {name}'s {noun} like?", state),
        ))
        rivals = [other for other in names + states if other not in (name, state)]
        return _asking(question, told[chosen], value, rivals)

    first, *others = rng.sample(range(len(names)), 1 if test else len(names))
    return _asked(rng, " ".join(told), asking(first), map(asking, others))
