"""
Reading little stories, as people make them up: a queen, her spoon, the raven that stole it (passages.txt).

The scenes of skills_reading.py put independent facts side by side. In a story one thing leads to another:
"it", "she" and "the thief" stand for what was named before, and the question may ask why, or what happened
in the end. The stories are many, and in each of them the names, things and places are drawn anew. Whole
stories are kept for tests, so that a test measures how a story is read that nobody has told before.
"""
import functools
import re
from collections.abc import Iterable
from pathlib import Path
from random import Random
from typing import NamedTuple

from nanochat.common import DataError
from nanochat.kindergarten import tables
from nanochat.kindergarten.checks import says
from nanochat.kindergarten.skill import Check, Made, chat, fact_check, is_test
from nanochat.kindergarten.skills_reading import MORE, POOLS, READING, asked_on, together
from nanochat.kindergarten.typist import typed
from nanochat.kindergarten.unlisted import is_rude, made_up_word, some_name
from nanochat.kindergarten.wording import compose, finished, vary
from nanochat.kindergarten.world import World

FILE = "passages.txt"
DRAWN = ("n", "town", "called", "meal", "number", "ship", "book")  # kinds without a pool, see _drawn
GENDERED = READING["gendered"]  # "he": ["he", "she"]
WOMEN = set(" ".join(READING["names"]["women"]).split())
MEN = set(tables.NAMES) - WOMEN - set(" ".join(READING["names"]["anybody"]).split())
UNKNOWN = 2
OBJECTS = ("thing", "toy", "wear")  # kinds that a word may stand for that means nothing
MADE_UP = 0.15  # part of the objects that are such a word
KEPT_PERCENT = 20  # of the stories, for tests
SHORT = 3  # sentences that a story of midtraining has at most
FRAMED = 0.15  # part of the questions that stand within another sentence
ASKING = ("who ", "whose ", "what ", "where ", "when ", "why ", "how ", "which ")
TURNED = tuple(f"who {verb} " for verb in "did do does is was are were should can must will had has".split())

_SLOT = re.compile(r"\{(\w+)\}")
_BEGINNING = re.compile(r"(?:^|(?<=[.!?] )|(?<=[.!?:] \"))[a-z]")


class Question(NamedTuple):
    wording: str
    answer: str
    need: list[str]  # what the answer has to say: "yes", "no" or wordings; []: the slots that are new in it
    rivals: list[str]  # what it must not say, beside the values of the same kind


class Story(NamedTuple):
    text: str
    choices: dict[tuple[str, ...], list[list[str]]]  # ("took", "take"): [["stole", "steal"], ...]
    questions: list[Question]


# ---- reading the table
def _parse(lines: Iterable[str]) -> list[Story]:
    """Stories: lines that begin with a letter are the text, indented ones what belongs to it."""
    stories: list[Story] = []
    text = ""
    for number, line in _entries(lines):
        if not line.startswith(" "):
            text = f"{text} {line}".strip()
            continue
        if text:
            stories.append(Story(text, {}, []))
            text = ""
        if not stories:
            raise DataError(f"{FILE}, line {number}: expected a story's text first; got {line!r}")
        _add(stories[-1], line.strip(), number)
    return stories


def _entries(lines: Iterable[str]) -> list[tuple[int, str]]:
    """(line number, line) without remarks; a line indented by four goes on with the one before."""
    entries: list[tuple[int, str]] = []
    for number, line in enumerate(lines, 1):
        line = line.rstrip()
        if not line or line.startswith("#"):
            continue
        if line.startswith("    ") and entries:
            begun, before = entries[-1]
            entries[-1] = (begun, f"{before} {line.strip()}")
        else:
            entries.append((number, line))
    return entries


def _add(story: Story, line: str, number: int) -> None:
    """Add "question -> answer | needed | rivals" or "slot/slot: value/value, value/value" to the story."""
    wording, arrow, rest = line.partition("->")
    if arrow:
        answer, *said = [part.strip() for part in rest.split("|")]
        columns = [[each.strip() for each in part.split(",") if each.strip()] for part in said]
        need, rivals = (*columns, [], [])[:2]
        story.questions.append(Question(wording.strip(), answer, need, rivals))
        return
    names, colon, values = line.partition(":")
    if not colon or story.questions:
        raise DataError(f"{FILE}, line {number}: expected 'question -> answer' or 'slot: value, value' "
                        f"before the first question; got {line!r}")
    slots = tuple(names.split("/"))
    story.choices[slots] = [[part.strip() for part in value.split("/")] for value in values.split(",")]


@functools.cache
def stories() -> list[Story]:
    """All stories of the table."""
    text = (Path(__file__).parent / FILE).read_text(encoding="utf-8")
    return _parse(text.split("\n"))


@functools.cache
def stories_for(test: bool, longest: int = 9) -> list[Story]:
    """Those of one side of the split that have so many sentences at most."""
    found = []
    for story in stories():
        n_sentences = len(re.findall(r"[.!?]\"?(?: |$)", story.text))
        if is_test("passages", story.text, percent=KEPT_PERCENT) == test and n_sentences <= longest:
            found.append(story)
    return found


# ---- telling
class Telling:
    """One telling of a story: its slots get their values as they are met, no two alike."""

    def __init__(self, rng: Random, story: Story) -> None:
        self.rng = rng
        self.wording = vary(rng, story.text)
        self.values: dict[str, str] = {}
        self.genders: dict[str, int] = {}
        for slots, choices in story.choices.items():
            self.values.update(zip(slots, rng.choice(choices), strict=True))
        self.told = set(_SLOT.findall(self.wording))  # the slots whose values the text says
        self.text = self.sentences(self.wording)

    def fill(self, wording: str) -> str:
        """The wording with values for its slots."""
        wording = vary(self.rng, wording)
        while slots := _SLOT.findall(wording):  # the value of a choice may have slots itself
            for slot in slots:
                wording = wording.replace(f"{{{slot}}}", self.value(slot))
        return compose(self.rng, wording)

    def sentences(self, wording: str) -> str:
        """The same with a capital for every sentence."""
        return _BEGINNING.sub(lambda letter: letter[0].upper(), self.fill(wording))

    def value(self, slot: str) -> str:
        """Of "thing", "thing2", "he2" (the second person's), "He2" (with a capital)."""
        if slot in self.values:
            return self.values[slot]
        kind = pool_of(slot)
        person = slot[len(kind):]
        if kind in GENDERED:
            value = GENDERED[kind][self._gender(person)]
        else:
            value = self._fresh(kind)
            while kind == "n" and gender_of(value) == 1 - self.genders.get(person, UNKNOWN):
                value = self._fresh(kind)
            self.values[slot] = value
        return value[0].upper() + value[1:] if slot[0].isupper() else value

    def _gender(self, person: str) -> int:
        """Of the person of this number, 0 for "he", 1 for "she": by name where that is known."""
        if person not in self.genders:
            gender = gender_of(self.values.get(f"n{person}", ""))
            self.genders[person] = self.rng.randrange(2) if gender == UNKNOWN else gender
        return self.genders[person]

    def _fresh(self, kind: str) -> str:
        """A value that is neither in the story nor part of one that is, nor the other way round."""
        while True:
            value = _drawn(self.rng, kind)
            others = [*self.values.values(), self.wording]
            if not any(says(other, value) or says(value, other) for other in others):
                return value


def pool_of(slot: str) -> str:
    return slot.rstrip("0123456789").lower()


def gender_of(name: str) -> int:
    """0 for a man's name, 1 for a woman's; UNKNOWN of one that anybody may have, or nobody."""
    if name in WOMEN:
        return 1
    return 0 if name in MEN else UNKNOWN


def _drawn(rng: Random, kind: str) -> str:
    """Any value of this kind."""
    if kind == "n":
        return some_name(rng)
    if kind == "town":
        return some_name(rng, tables.CITIES)
    if kind == "called":  # an animal
        return some_name(rng, tables.PETS)
    if kind == "meal":
        return rng.choice(tables.MEALS)
    if kind == "number":
        return str(rng.randint(2, 60))
    if kind in ("ship", "book"):
        words = f"{rng.choice(POOLS['titled'])} {rng.choice(POOLS['titles'])}"
        return words if kind == "ship" else f"The {words}"
    if kind in OBJECTS and rng.random() < MADE_UP:
        return _made_up(rng)
    return rng.choice(POOLS[kind])


def _made_up(rng: Random) -> str:
    while True:
        word = made_up_word(rng)
        if 3 <= len(word) <= 8 and not is_rude(word):
            return word


# ---- asking
def passages(rng: Random, world: World, test: bool, level: int) -> Made:
    """A little story and a question about it, or more after the first."""
    story = rng.choice(stories_for(test, SHORT if level == 1 else 9))
    telling = Telling(rng, story)
    first, second = rng.sample(story.questions, 2)
    question, answer, check = _asked(telling, first)
    chance = rng.random()
    if chance < 0.08:  # read first, asked then
        messages = chat(telling.text, rng.choice(READING["around"]["read"]), typed(rng, question), answer)
    else:
        messages = chat(together(rng, telling.text, question), answer)
    if test:
        further = [second] if 0.08 <= chance <= 0.22 else []
    else:
        others = [each for each in story.questions if each is not first]
        further = rng.sample(others, min(len(others), rng.choice(MORE)))
    return asked_on(rng, (messages, check), (_asked(telling, each) for each in further))


def _asked(telling: Telling, question: Question) -> tuple[str, str, Check]:
    """(question, answer, check)"""
    answer = telling.sentences(question.answer)
    asked = _framed(telling.rng, telling.sentences(question.wording))
    if question.need and question.need[0] in ("yes", "no"):
        return asked, answer, {"kind": "yes_no", "answer": question.need[0]}
    slots = [slot for need in question.need for slot in _SLOT.findall(need)]
    need = [telling.fill(need) for need in question.need]
    if not need:
        slots = new_slots(question.wording, question.answer)
        need = [telling.fill(f"{{{slot}}}") for slot in slots]
    rivals = [telling.fill(rival) for rival in question.rivals]
    kinds = {pool_of(slot) for slot in slots}
    for slot in sorted(telling.told):
        if pool_of(slot) in kinds and pool_of(slot) not in GENDERED:
            rivals.append(telling.fill(f"{{{slot}}}"))
    rivals = [rival for rival in dict.fromkeys(rivals) if not says(answer, rival)]
    return asked, answer, fact_check(*need, rivals=rivals)


def _framed(rng: Random, question: str) -> str:
    """Now and then "Tell me who ..." or "In the story, where ...?" instead."""
    bare = question[0].lower() + question[1:].rstrip("?")
    if rng.random() > FRAMED or not bare.startswith(ASKING):
        return question
    whole = bare.startswith("who ") and not bare.startswith(TURNED)  # "tell me where is Ann" would be wrong
    frame = rng.choice(READING["around"]["who" if whole else "also"])
    return finished(frame.replace("{q}", bare))


def new_slots(question: str, answer: str) -> list[str]:
    """The slots of an answer that say what was asked: those that the question has not, pronouns apart."""
    asked = {slot.lower() for slot in _SLOT.findall(question)}
    new = [slot for slot in _SLOT.findall(answer) if slot.lower() not in asked]
    facts = [slot for slot in new if pool_of(slot) not in GENDERED]
    common = [slot for slot in facts if pool_of(slot) in POOLS or pool_of(slot) in DRAWN]
    return common or facts or new
