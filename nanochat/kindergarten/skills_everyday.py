"""
Questions that everybody asks: what a child knows, from both sides and in many frames; yes or no; comparisons.

facts_everyday keeps whole frames for tests ("the capital city of {x}?"), whatever they are asked about, so
that it measures whether a new way of asking is understood. The wordings of nature.txt belong to facts_world,
which keeps some of them for its own tests: here they are neither tested nor, where they are kept, trained.
"""
import functools
import re
from random import Random
from typing import NamedTuple

from nanochat.kindergarten import everyday, nature, tables
from nanochat.kindergarten.categories import EVERYDAY
from nanochat.kindergarten.checks import COUNTED, NUMBER_WORDS
from nanochat.kindergarten.everyday import RELATIONS, SIZES, Known, Relation, fill
from nanochat.kindergarten.phrases import with_article
from nanochat.kindergarten.skill import Made, chat, draw, fact_check, on_side
from nanochat.kindergarten.skills_words import compared
from nanochat.kindergarten.skills_world import ways_to_ask
from nanochat.kindergarten.typist import typed
from nanochat.kindergarten.wording import compose, usual
from nanochat.kindergarten.world import World

ASKED = [relation for relation in RELATIONS if relation.direct]
YES_OR_NO = [relation for relation in RELATIONS if relation.is_it]
TRUTHS = tables.read("know.txt")["truths"]  # {title: [what is so, a question for yes, one for no]}
COMPOSED = 0.35  # part of the questions that stand in a second frame: "Do you know where ..."
TWO_AT_ONCE = 0.05  # part of the questions that ask for two facts of a table
HURRIED = 0.12  # part of the questions without articles: "what is capital of india"
SMALL = 0.15  # part of the others that are typed in small letters, beside those of typist.py
EVENNESS = 0.7  # below 1: what belongs to a small table is met more often than what belongs to a big one


# ---- facts
def facts_everyday(rng: Random, world: World, test: bool, level: int) -> Made:
    if rng.random() < TWO_AT_ONCE:
        return _two_at_once(rng, test)
    questions: list[str] = []
    while not questions:
        relation = _some_relation(rng, ASKED)
        fact = usual(rng, relation.known, test)
        questions = ways_to_ask_widely(relation, fact, test, rng.random() < COMPOSED)
    question = _as_people_write(rng, rng.choice(questions))
    if not test:
        question = _hurried(rng, question)
    check = fact_check(fact.values, rivals=everyday.rivals(relation, fact))
    return chat(_typed(rng, question), fact.told[0]), check


def _typed(rng: Random, question: str) -> str:
    """As by typist.py, and in small letters more often: "capital of france" is asked about France."""
    text = typed(rng, question)
    return text.lower() if rng.random() < SMALL else text


def _hurried(rng: Random, question: str) -> str:
    """Without its articles now and then, unless a test asks just so."""
    if rng.random() > HURRIED:
        return question
    shorter = re.sub(r"\b(the|an?) (?=\w)", "", question, flags=re.IGNORECASE)
    if plain(shorter) in _kept_for_tests():
        return question
    return shorter[0].upper() + shorter[1:]


def _two_at_once(rng: Random, test: bool) -> Made:
    """Two facts of a table in one question, and both answers in their order."""
    relation = rng.choice([relation for relation in ASKED if relation.name in EVERYDAY["pairs"]])
    frames = on_side("two " + relation.name, EVERYDAY["pairs"][relation.name], test)
    questions: list[str] = []
    while not questions:
        first, second = rng.sample(relation.known, 2)
        if first.own.get("unit") != second.own.get("unit"):
            continue
        of_second = {f"{name}2": word for name, word in second.own.items()}
        questions = fill(frames, first.own | of_second)
    answer = f"{first.told[0]} {second.told[0]}"
    question = _as_people_write(rng, rng.choice(questions))
    return chat(_typed(rng, question), answer), fact_check(first.values, second.values)


def _some_relation(rng: Random, relations: list[Relation]) -> Relation:
    return rng.choices(relations, [len(relation.known) ** EVENNESS for relation in relations])[0]


def ways_to_ask_widely(relation: Relation, fact: Known, test: bool, composed: bool = False) -> list[str]:
    """The questions about a fact of a relation on one side of the split, direct or composed ones."""
    questions = fill(_frames(test, composed)[relation.name], fact.own | fact.other)
    if test:
        return [question for question in questions if plain(question) not in _asked_by_facts_world()]
    if not composed:
        questions += fact.asked
    return [question for question in questions if plain(question) not in _kept_for_tests()]


@functools.cache
def _frames(test: bool, composed: bool) -> dict[str, list[str]]:
    """{relation: its frames on one side of the split}"""
    frames = {}
    for relation in ASKED:
        templates = relation.composed if composed else relation.direct
        frames[relation.name] = on_side(relation.name, templates, test) if templates else []
    return frames


def plain(question: str) -> str:
    """The question without what tells two ways of typing it apart."""
    return re.sub("[^a-z0-9 ]", "", question.lower())


@functools.cache
def _asked_by_facts_world() -> set[str]:
    """All questions in the wordings of nature.txt."""
    asked: set[str] = set()
    for relation in RELATIONS:
        for known in relation.known:
            asked.update(map(plain, known.asked))
    for fact in nature.FACTS:
        asked.update(map(plain, fact.asked))
    return asked


@functools.cache
def _kept_for_tests() -> set[str]:
    """What facts_world tests, and what the test of any relation asks: another may ask the same by chance."""
    kept: set[str] = set()
    for fact in nature.FACTS:
        kept.update(map(plain, ways_to_ask(fact, True)))
    for relation in ASKED:
        for known in relation.known:
            for composed in (False, True):
                kept.update(map(plain, ways_to_ask_widely(relation, known, True, composed)))
    return kept


def _as_people_write(rng: Random, question: str) -> str:
    """With numbers as words and American spelling now and then."""
    if rng.random() < 0.3:
        question = question.replace("olour", "olor")
    if rng.random() < 0.5:
        question = re.sub(r"\b(\d|10)\b", lambda number: COUNTED[int(number[0])], question)
    return question


# ---- yes or no
def yes_no_world(rng: Random, world: World, test: bool, level: int) -> Made:
    chance = rng.random()
    if chance < 0.12:
        return _can_it(rng, test)
    if chance < 0.27:
        return _truth(rng, test)

    def make() -> tuple[Relation, Known, dict[str, str]]:
        relation = _some_relation(rng, YES_OR_NO)
        fact = rng.choice(relation.known)
        wrong = everyday.wrong_words(relation, fact)
        says_no_itself = fact.other.get("v") == "no"  # "A snake has no legs, so yes."
        if rng.random() < 0.5 and not says_no_itself:
            return relation, fact, fact.other
        return relation, fact, rng.choice(wrong)

    def key(made: tuple[Relation, Known, dict[str, str]]) -> tuple[str, ...]:
        relation, fact, words = made
        return "yes_no_world", relation.name, *_plain_words(fact.own), *_plain_words(words)

    relation, fact, words = draw(make, key, test, percent=15)
    question = typed(rng, _as_people_write(rng, rng.choice(fill(relation.is_it, fact.own | words))))
    asked = " ".join(_plain_words(words))
    known = " ".join(_plain_words(fact.other))
    return compared(question, asked, known, fact.told[0])


def _plain_words(words: dict[str, str]) -> list[str]:
    return [words[name] for name in ("x", "v") if name in words]


def _can_it(rng: Random, test: bool) -> Made:
    def make() -> tuple[str, str, bool]:
        ability = rng.choice(tuple(EVERYDAY["can"]))
        is_so = rng.random() < 0.5
        return rng.choice(EVERYDAY["can" if is_so else "cannot"][ability]), ability, is_so

    animal, ability, is_so = draw(make, lambda made: ("can", made[0], made[1]), test, percent=15)
    words = {"a_x": with_article(animal), "many": everyday.PLURALS[animal], "v": ability}
    can = "can" if is_so else "cannot"
    question = rng.choice(fill(EVERYDAY["able"]["is it"], words))
    return _yes_or_no(rng, question, f"{words['a_x']} {can} {ability}.", is_so)


def _truth(rng: Random, test: bool) -> Made:
    """ "Does the sun rise in the west?": single things that everybody tries and no table holds (know.txt)."""
    def make() -> tuple[str, bool, str]:
        while True:
            title = rng.choice(tuple(TRUTHS))
            is_so = rng.random() < 0.5
            asked = compose(rng, TRUTHS[title][1 if is_so else 2])
            if _with_digits(asked) not in _asked_of_tables():
                return title, is_so, asked[0].upper() + asked[1:] + "?"

    title, is_so, question = draw(make, lambda made: ("truth", plain(made[2])), test, percent=15)
    if rng.random() < 0.15:
        question = f"Yes or no: {question[0].lower()}{question[1:]}"
    return _yes_or_no(rng, question, TRUTHS[title][0], is_so)


@functools.cache
def _asked_of_tables() -> set[str]:
    """All questions of yes or no about a relation, each of which lies on a side of the split already."""
    asked: set[str] = set()
    for relation in YES_OR_NO:
        for fact in relation.known:
            for words in (fact.other, *everyday.wrong_words(relation, fact)):
                asked.update(map(_with_digits, fill(relation.is_it, fact.own | words)))
    return asked


def _with_digits(question: str) -> str:
    return " ".join(NUMBER_WORDS.get(word, word) for word in plain(question).split())


def _yes_or_no(rng: Random, question: str, fact: str, is_so: bool) -> Made:
    """ "Grass is green, so no.": the fact first, as a small model cannot weigh what it has not said."""
    word = "yes" if is_so else "no"
    answer = f"{fact[0].upper()}{fact[1:].rstrip('.')}, so {word}."
    return chat(typed(rng, _as_people_write(rng, question)), answer), {"kind": "yes_no", "answer": word}


# ---- comparisons
class Compared(NamedTuple):
    """ "An elephant is bigger than a mouse." """

    first: str
    word: str
    second: str
    opposite: str  # of the word

    def turned(self) -> "Compared":
        """ "A mouse is smaller than an elephant." """
        return Compared(self.second, self.opposite, self.first, self.word)


def comparing(rng: Random, world: World, test: bool, level: int) -> Made:
    """Which of two is bigger, faster, hotter: as a choice, or with yes or no."""
    pair = _two_things(rng, test)
    if rng.random() < 0.3:
        pair = pair.turned()
    fact = f"{pair.first} is {pair.word} than {pair.second}."
    asked = [pair.first, pair.second]
    rng.shuffle(asked)
    words = {"more": pair.word, "x": asked[0], "y": asked[1]}
    if rng.random() < 0.3:
        question = rng.choice(fill(EVERYDAY["compared"]["is it"], words))
        return compared(typed(rng, _as_people_write(rng, question)), asked[0], pair.first, fact)

    question = rng.choice(fill(EVERYDAY["compared"]["which"], words))
    check = {"kind": "first", "answer": _last_word(pair.first), "rivals": [_last_word(pair.second)],
             "opposite": pair.opposite}
    return chat(typed(rng, question), fact[0].upper() + fact[1:]), check


def _last_word(name: str) -> str:
    return name.split()[-1].lower()


def _two_things(rng: Random, test: bool) -> Compared:
    if rng.random() < 0.5:
        return _two_animals(rng, test)
    words = rng.choice(tuple(EVERYDAY["ranks"]))
    more, less = words.split()
    ranked = EVERYDAY["ranks"][words]

    def make() -> list[int]:
        return sorted(rng.sample(range(len(ranked)), 2))

    low, high = draw(make, lambda made: ("compared", words, *made), test, percent=15)
    return Compared(ranked[high], more, ranked[low], less)


def _two_animals(rng: Random, test: bool) -> Compared:
    def make() -> list[str]:
        while True:
            first, second = rng.sample(tuple(SIZES), 2)
            if SIZES[first] - SIZES[second] > 1:  # neighbours are a matter of opinion
                return [first, second]

    bigger, smaller = draw(make, lambda made: ("bigger", *sorted(made)), test, percent=15)
    return Compared(with_article(bigger), "bigger", with_article(smaller), "smaller")
