"""
Word problems as children's books and strangers tell them; the stories are in numbers.txt.

What has to be learned is which calculation a story asks for, so stories are many, and their names, verbs,
goods and questions vary. A tenth of the rarer stories is kept for tests: who only knows stories by heart
fails there.

People often type in the first person and about money, so there is a slot for a price in whatever currency,
and what nobody writes in a book but everybody tries: one apple, and none that is left.
"""
import re
from dataclasses import dataclass
from random import Random
from typing import NamedTuple

from nanochat.kindergarten import tables
from nanochat.kindergarten.skill import Check, Made, chat, on_side
from nanochat.kindergarten.skills_numbers import calculate, filled, numbers_in, right_side, tool_turn, written
from nanochat.kindergarten.typist import typed
from nanochat.kindergarten.wording import finished, sentence
from nanochat.kindergarten.world import World

FILE = tables.read("numbers.txt")
ENDINGS = {title: wordings[0] for title, wordings in FILE["endings"].items()}
NOUNS = {letter: " ".join(lines).split() for letter, lines in FILE["nouns"].items()}
GIRLS = " ".join(FILE["people"]["she"]).split()
BOYS = " ".join(FILE["people"]["he"]).split()
PRICES = FILE["money"]["prices"]  # "{} dollars", "${}"
MORE = FILE["who has more"]

VARIABLES = "xyzq"
NOTES = (5, 10, 20, 50, 100)  # what banknotes there are
ONE_FITS = re.compile(r"\{y\}(?=[.,?]|$|(?: of them| more| away)(?:[.,?]|$))")  # no plural behind it
LEFT = re.compile(r"\b(left|remain)\b")
IRREGULAR = {"children": "child", "people": "person", "geese": "goose", "leaves": "leaf", "buses": "bus",
             "shoes": "shoe", "cookies": "cookie"}


class Problem(NamedTuple):
    story: str
    code: str  # of x, y, z and numbers
    answer: str
    top: int  # the highest number of the story
    kind: str  # the rest of its table's title: "clock" and "years" have numbers of their own


def _problems() -> list[Problem]:
    """Of tables whose lines hold a story or many, the expression and the answer."""
    problems = []
    for title, table in tables.titled("numbers.txt", "problems").items():
        top, _, kind = title.partition(" ")
        for *stories, code, answer in table.values():
            problems += [Problem(story, code, answer, int(top), kind) for story in stories]
    return problems


PROBLEMS = _problems()
RARER = len(PROBLEMS) // 2  # those from here on may be kept for tests
TRAINED_PROBLEMS = PROBLEMS[:RARER] + on_side("sum story", PROBLEMS[RARER:], test=False, percent=10)
TEST_PROBLEMS = on_side("sum story", PROBLEMS[RARER:], test=True, percent=10)


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
    if rng.random() < 0.04:
        return _who_has_more(rng, world, test)
    if level == 1:
        problems = [problem for problem in problems if len(re.findall(r"[+*/-]", problem.code)) == 1]
    problem, wording, values = _problem(rng, problems, test)
    code = filled(problem.code, values)
    result = calculate(code)
    given = [str(number) for number in numbers_in(code)]
    check = {"kind": "number", "answer": result, "given": given, "tool": True}

    slots = _slots(rng, world) | _numbers(rng, wording, values, result)
    question = typed(rng, finished(wording.format(**slots)), lower=rng.random() < 0.6)
    reply = agreeing(finished(problem.answer.format(**slots)))
    return chat(question, tool_turn(code, reply)), check


def _wording(rng: Random, story: str) -> str:
    """The story with one of its endings; slots are left."""
    for title, ending in ENDINGS.items():
        story = story.replace(f"{{{title}}}", ending)
    return sentence(rng, story)


def _slots(rng: Random, world: World) -> dict[str, str]:
    """Who it is about, somebody else, and what they have."""
    actor = _actor(rng, world)
    other = rng.choice(GIRLS + BOYS)
    while other == actor.n:
        other = rng.choice(GIRLS + BOYS)
    slots = {letter: rng.choice(nouns) for letter, nouns in NOUNS.items()}
    third = rng.choice([name for name in GIRLS + BOYS if name not in (other, actor.n)])
    slots["ws"] = slots["w"] + ("es" if re.search("(x|ch)$", slots["w"]) else "s")
    return slots | vars(actor) | {"is": actor.is_, "m": other, "o": third}


def _numbers(rng: Random, wording: str, values: dict[str, int], result: str) -> dict[str, str]:
    """The numbers as they are written, and as prices: {x} is "5" or "five", {px} "$5" or "five dollars"."""
    price = rng.choice(PRICES)
    has_sign = "${" in wording or re.search(r"\{p[xyzq]\}", wording) and not price[-1].isalpha()
    in_digits = has_sign or max(values.values()) >= 100
    said = dict(zip(values, written(rng, list(values.values()), percent=0 if in_digits else 15)))
    said["r"] = result
    return said | {f"p{variable}": price.format(number) for variable, number in said.items()}


def agreeing(answer: str) -> str:
    """The answer with a singular behind a 1: "You have 1 apple left."; other answers stay."""
    one = re.search(r"\b1 (?:more |fewer )?(\w{3,})", answer)
    if not one:
        return answer
    answer = answer.replace(one[0], f"{one[0].removesuffix(one[1])}{_singular(one[1])}")
    answer = re.sub(r"\bThere are 1\b", "There is 1", answer)
    return re.sub(r"(\b1(?: \w+)?) are\b", r"\1 is", answer)


def _singular(plural: str) -> str:
    if plural in IRREGULAR:
        return IRREGULAR[plural]
    if plural.endswith("ies"):
        return plural.removesuffix("ies") + "y"
    if re.search("(x|ch|sh|ss|o)es$", plural):
        return plural.removesuffix("es")
    return re.sub("(?<=[^s])s$", "", plural)


def _problem(rng: Random, problems: list[Problem], test: bool) -> tuple[Problem, str, dict[str, int]]:
    """A problem, its wording, and numbers of their side of the split that come out whole."""
    while True:
        problem = rng.choice(problems)
        wording = _wording(rng, problem.story)
        for _ in range(30):
            values = _values(rng, problem, wording)
            code = filled(problem.code, values)
            if right_side(numbers_in(code), test) and _comes_out(code, problem):
                return problem, wording, values


def _values(rng: Random, problem: Problem, wording: str) -> dict[str, int]:
    code = problem.code
    if problem.kind == "years":
        return _years(rng, code)
    top = rng.choice((10, 20, problem.top, problem.top))
    top = min(top, problem.top)
    if problem.top == 99 and rng.random() < 0.06:
        top = 999
    values = {variable: rng.randint(2, top) for variable in VARIABLES
              if variable in code or f"{{{variable}}}" in wording}
    if re.search(r"\b(bill|note)\b", wording):
        values["x"] = rng.choice(NOTES)
    divides = re.search("/([xyz])", code)
    if divides:
        values[divides[1]] = rng.randint(2, 12)
    if "x*y" in code and top > 20:
        values["y"] = rng.randint(2, 12)
    plain = "y" in code and not re.search("[*/]", code)
    if plain and rng.random() < 0.25 and len(ONE_FITS.findall(wording)) == wording.count("y}"):
        values["y"] = 1
    return values


def _years(rng: Random, code: str) -> dict[str, int]:
    """A year, and a later one or an age."""
    year = rng.randint(1930, 2015)
    if code == "y-x":
        return {"x": year, "y": rng.randint(year + 2, 2035)}
    return {"x": year, "y": rng.randint(3, 90)}


def _comes_out(code: str, problem: Problem) -> bool:
    """Whether every step is a whole number from 1 on; nothing may be left, too."""
    inner = re.findall(r"\((.*?)\)", code)
    steps = [match.start() for match in re.finditer("[+-]", code) if not inner] + [len(code)]
    results = [calculate(part) for part in inner] + [calculate(code[:end]) for end in steps]
    if not all(result.isdigit() for result in results) or "0" in results[:-1]:
        return False
    last = int(results[-1])
    if last == 0 and not LEFT.search(problem.answer) or last < 2 and "/" in code:
        return False
    return problem.kind != "clock" or last <= 12


# ---- who has more
def _who_has_more(rng: Random, world: World, test: bool) -> Made:
    """Two amounts are told; whose is more?"""
    *stories, asked, if_so, if_not, answer = rng.choice(list(MORE.values()))
    wording = sentence(rng, rng.choice(stories))
    top = 12 if "*" in asked else 60
    while True:
        values = {variable: rng.randint(2, top) for variable in VARIABLES if variable in asked}
        code = filled(asked, values)
        sides = [calculate(side) for side in code.split(">")]
        if right_side(numbers_in(code), test) and sides[0] != sides[1]:
            break
    result = calculate(code)
    slots = _slots(rng, world) | _numbers(rng, wording, values, result)
    both = [side.format(**slots) for side in (if_so, if_not)]
    if result == "False":
        both.reverse()
    check: Check = {"kind": "any", "signs": both[:1], "rivals": both[1:], "tool": True}
    question = typed(rng, finished(wording.format(**slots)))
    return chat(question, tool_turn(code, finished(answer.format(side=both[0], **slots)))), check
