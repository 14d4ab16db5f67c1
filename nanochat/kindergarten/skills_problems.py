"""
Word problems as children's books and strangers tell them; the stories are in numbers.txt.

What has to be learned is which calculation a story asks for, so stories are many, and their names, verbs,
goods and questions vary. A third of the rarer stories is kept for tests: who only knows stories by heart
fails there.
"""
import re
from dataclasses import dataclass
from random import Random
from typing import NamedTuple

from nanochat.kindergarten import tables
from nanochat.kindergarten.skill import Made, chat
from nanochat.kindergarten.skills_numbers import calculate, filled, numbers_in, right_side, tool_turn, written
from nanochat.kindergarten.typist import typed
from nanochat.kindergarten.wording import finished, sentence, wordings_for
from nanochat.kindergarten.world import World

FILE = tables.read("numbers.txt")
ENDINGS = {title: wordings[0] for title, wordings in FILE["endings"].items()}
NOUNS = {letter: " ".join(lines).split() for letter, lines in FILE["nouns"].items()}
GIRLS = " ".join(FILE["people"]["she"]).split()
BOYS = " ".join(FILE["people"]["he"]).split()


class Problem(NamedTuple):
    story: str
    code: str  # of x, y, z and numbers
    answer: str
    top: int  # the highest number of the story


def _problems() -> list[Problem]:
    problems = []
    for top, table in tables.titled("numbers.txt", "problems").items():
        problems += [Problem(story, code, answer, int(top)) for story, code, answer in table.values()]
    return problems


PROBLEMS = _problems()
TRAINED_PROBLEMS = wordings_for("sum story", PROBLEMS, test=False)
TEST_PROBLEMS = wordings_for("sum story", PROBLEMS, test=True)


# ---- who it is about
@dataclass(frozen=True)
class Actor:
    n: str  # as named first
    again: str  # as named later
    who: str  # as the answer says
    he: str
    his: str
    him: str
    has: str = "has"
    does: str = "does"
    is_: str = "is"
    s: str = "s"
    es: str = "es"
    they: str = "they"
    have: str = "has"  # the answer's forms: "You have", "Lisa has"
    are: str = "is"


PRONOUNS = {"she": ("she", "her", "her"), "he": ("he", "his", "him")}
ME = Actor("I", "I", "you", "I", "my", "me", "have", "do", "am", "", "", "we", "have", "are")
YOU = Actor("you", "you", "you", "you", "your", "you", "have", "do", "are", "", "", "they", "have", "are")


def _actor(rng: Random, world: World) -> Actor:
    chance = rng.random()
    if chance < 0.2:
        return ME
    if chance < 0.24:
        return YOU
    gender = rng.choice(("she", "he"))
    if chance < 0.4:
        described = sentence(rng, rng.choice(FILE["people"]["woman" if gender == "she" else "man"]))
        again = re.sub("^a ", "the ", described)
        return Actor(described, again, re.sub("^my ", "your ", again), *PRONOUNS[gender])
    name = rng.choice(GIRLS if gender == "she" else BOYS)
    if chance < 0.6:
        name, gender = _known_name(rng, world)
    return Actor(name, name, name, *PRONOUNS[gender])


def _known_name(rng: Random, world: World) -> tuple[str, str]:
    """The first name of somebody of the world, that not every question with it should be for facts."""
    person = rng.choice(world.seen)
    return person.name.split()[0], person.he


# ---- skills
def word_problem_wide(rng: Random, world: World, test: bool, level: int) -> Made:
    """Stories that training has; a test's numbers are new."""
    return _told(rng, world, test, level, TRAINED_PROBLEMS)


def word_problem_new(rng: Random, world: World, test: bool, level: int) -> Made:
    """Stories that training does not have."""
    return _told(rng, world, False, level, TEST_PROBLEMS)


def _told(rng: Random, world: World, test: bool, level: int, problems: list[Problem]) -> Made:
    if level == 1:
        problems = [problem for problem in problems if len(re.findall(r"[+*/-]", problem.code)) == 1]
    problem, values = _problem(rng, problems, test)
    code = filled(problem.code, values)
    given = [str(number) for number in numbers_in(code)]
    check = {"kind": "number", "answer": calculate(code), "given": given, "tool": True}

    actor = _actor(rng, world)
    other = rng.choice(GIRLS + BOYS)
    while other == actor.n:
        other = rng.choice(GIRLS + BOYS)
    slots = {letter: rng.choice(nouns) for letter, nouns in NOUNS.items()}
    slots |= vars(actor) | {"is": actor.is_, "m": other, "r": calculate(code)}
    slots |= dict(zip(values, written(rng, list(values.values()))))

    story = problem.story
    for title, ending in ENDINGS.items():
        story = story.replace(f"{{{title}}}", ending)
    question = typed(rng, finished(sentence(rng, story).format(**slots)), lower=rng.random() < 0.5)
    return chat(question, tool_turn(code, finished(problem.answer.format(**slots)))), check


def _problem(rng: Random, problems: list[Problem], test: bool) -> tuple[Problem, dict[str, int]]:
    """A problem, and numbers for it on their side of the split with which every step comes out whole."""
    while True:
        problem = rng.choice(problems)
        for _ in range(30):
            values = _values(rng, problem)
            code = filled(problem.code, values)
            if right_side(numbers_in(code), test) and _comes_out(code):
                return problem, values


def _values(rng: Random, problem: Problem) -> dict[str, int]:
    top = rng.choice((10, 20, problem.top, problem.top))
    if problem.top == 99 and rng.random() < 0.06:
        top = 999
    values = {variable: rng.randint(2, top) for variable in "xyz" if variable in problem.code}
    if "/y" in problem.code:
        values["y"] = rng.randint(2, 12)
    return values


def _comes_out(code: str) -> bool:
    steps = [match.start() for match in re.finditer("[+-]", code)] + [len(code)]
    results = [calculate(code[:end]) for end in steps]
    return all(result.isdigit() and result != "0" for result in results) and results[-1] != "1"
