"""
Numbers: sums, comparisons and word problems, worked out by the calculator tool and never in the head.

A model of this size cannot multiply, but it can copy two numbers into a call and the result into a sentence;
that is what is taught. A test's pair of numbers, in either order and under any operator, occurs in no
training example. One wording in six of numbers.txt is for tests, too.
"""
import re
from itertools import combinations
from random import Random

from nanochat.kindergarten import tables
from nanochat.kindergarten.phrases import WORDINGS
from nanochat.kindergarten.skill import Check, Made, chat, draw, is_test
from nanochat.kindergarten.tables import GOODS, NAMES
from nanochat.kindergarten.typist import typed
from nanochat.kindergarten.wording import finished, sentence, wordings_for
from nanochat.kindergarten.world import World

PROBLEMS = tuple(WORDINGS["word problems"].values())  # (story, sum, answer)
N_SIMPLE_PROBLEMS = 6  # the first ones, of one step each
SUMS = tables.read("numbers.txt")["sums"]  # {expression: wordings}
SUM_ANSWERS = tables.read("numbers.txt")["sums answers"]
COMPARING = tables.read("numbers.txt")["comparing"]
COMPARING_ANSWERS = tables.read("numbers.txt")["comparing answers"]  # {kind: (expression, if true, if false)}
OPPOSITES = {"bigger": ["smaller", "less", "lower"], "smaller": ["bigger", "more", "larger", "greater"]}

ONES = ("zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
        "sixteen seventeen eighteen nineteen").split()
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()


def calculate(code: str) -> str:
    """What the calculator puts out for an expression of the kindergarten's own: "7/2" is 3.5, "6/2" is 3."""
    assert re.fullmatch(r"[\d+*/%<>=-]+", code), code
    value = eval(code)
    if isinstance(value, float):
        return f"{value:.12g}"
    return str(value)


def in_words(number: int, joint: str = "-") -> str:
    """A number from 0 to 100: "forty-two"."""
    if number == 100:
        return "a hundred"
    if number < 20:
        return ONES[number]
    ten, one = divmod(number, 10)
    return TENS[ten - 2] + (joint + ONES[one] if one else "")


def written(rng: Random, numbers: list[int], percent: int = 15) -> list[str]:
    """The numbers in digits, now and then all in words."""
    if max(numbers) > 100 or min(numbers) < 0 or rng.random() * 100 >= percent:
        return [str(number) for number in numbers]
    joint = rng.choice("- ")
    return [in_words(number, joint) for number in numbers]


def tool_turn(code: str, reply: str) -> list[dict[str, str]]:
    """The assistant's turn: the call, what the calculator puts out, and what is said then."""
    return [{"type": "python", "text": code}, {"type": "python_output", "text": calculate(code)},
            {"type": "text", "text": reply}]


def number_key(pair: tuple[int, int]) -> tuple[str, int, int]:
    """What decides on which side of the split a pair lies: not the order of the numbers, not the operator."""
    return ("numbers", min(pair), max(pair))


def right_side(numbers: list[int], test: bool) -> bool:
    """Whether an expression's numbers may stand in a test, or none of their pairs is kept from training."""
    if test:
        return is_test(*number_key((numbers[0], numbers[1])))
    return not any(is_test(*number_key(pair)) for pair in combinations(numbers, 2))


def filled(code: str, values: dict[str, int]) -> str:
    """ "x*4+y", {"x": 3, "y": 5} -> "3*4+5" """
    return re.sub("[xyz]", lambda variable: str(values[variable[0]]), code)


def numbers_in(code: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", code)]


def _pair(rng: Random, symbol: str) -> tuple[int, int]:
    """Two numbers for the operator, mostly from 1 to 99; a division comes out whole."""
    top = 999 if rng.random() < 0.12 else 99
    if symbol == "//":
        divisor = rng.randint(2, 12)
        quotient = rng.randint(1, 99 if top == 999 else 12)
        return divisor * quotient, divisor
    x = rng.randint(1, top)
    y = rng.randint(1, 99 if symbol == "*" else top)
    if symbol == "-" and rng.random() < 0.9:  # seldom below zero
        return max(x, y), min(x, y)
    return x, y


def arithmetic(rng: Random, world: World, test: bool, level: int) -> Made:
    symbol = rng.choices(("+", "-", "*", "//"), (3, 3, 3, 1))[0]
    x, y = draw(lambda: _pair(rng, symbol), number_key, test)
    shown = "/" if symbol == "//" else symbol
    code = f"{x}{shown}{y}"
    result = calculate(code)
    question = typed(rng, rng.choice(WORDINGS["sums"][symbol]).format(x=x, y=y))
    check = {"kind": "number", "answer": result, "given": [str(x), str(y)], "tool": True}
    return chat(question, tool_turn(code, f"{x} {shown} {y} = {result}.")), check


def word_problem(rng: Random, world: World, test: bool, level: int) -> Made:
    text, code, answer = rng.choice(PROBLEMS[:N_SIMPLE_PROBLEMS] if level == 1 else PROBLEMS)
    symbol = re.findall(r"//|[+*-]", code)[0]  # the first operator, between x and y

    def make() -> tuple[int, int]:
        while True:
            x, y = _pair(rng, symbol)
            too_hard = level == 1 and x >= 100
            leaves_too_little = symbol == "-" and x - y <= 1
            if min(x, y) > 1 and not too_hard and not leaves_too_little:
                return x, y

    x, y = draw(make, number_key, test)
    after_first_step = int(calculate(f"{x}{symbol}{y}"))
    z = rng.randint(2, max(2, min(99, after_first_step - 2)))
    code = filled(code.replace("//", "/"), {"x": x, "y": y, "z": z})
    result = calculate(code)
    goods = rng.choice(GOODS)
    name, other_name = rng.sample(NAMES, 2)
    check = {"kind": "number", "answer": result, "given": [str(x), str(y), str(z)], "tool": True}
    question = text.format(n=name, m=other_name, x=x, y=y, z=z, g=goods)
    return chat(question, tool_turn(code, answer.format(n=name, g=goods, r=result))), check


# ---- sums in all wordings
def sums_any(rng: Random, world: World, test: bool, level: int) -> Made:
    """Also of three numbers, in words, halves, doubles, neighbours."""
    simple = 3 if level == 1 else 1
    weights = [6 * simple if form in ("x+y", "x-y", "x*y", "x/y") else 1 for form in SUMS]
    form = rng.choices(tuple(SUMS), weights)[0]

    def draw_values() -> dict[str, int]:
        while True:
            values = _values(rng, form)
            if right_side(numbers_in(filled(form, values)), test):
                return values

    values = draw_values()
    code = filled(form, values)
    result = calculate(code)
    wording = sentence(rng, rng.choice(wordings_for(f"sums {form}", SUMS[form], test)))
    stand_close = re.search(r"\}[^ ,]+\{", wording)  # "{x}+{y}": in digits
    said = dict(zip(values, written(rng, list(values.values()), percent=0 if stand_close else 15)))
    answer = SUM_ANSWERS.get(form, ["{sum} = {r}."])[0]
    spaced = " ".join(re.findall(r"\d+|\D", code))
    check = {"kind": "number", "answer": result, "given": [str(number) for number in numbers_in(code)],
             "tool": True}
    reply = answer.format(sum=spaced, r=result, x=values["x"])
    return chat(typed(rng, finished(wording.format(**said))), tool_turn(code, reply)), check


def _some_number(rng: Random) -> int:
    top = rng.choices((12, 30, 100, 999, 9999), (40, 20, 28, 9, 3))[0]
    return rng.randint(1, top)


def _values(rng: Random, form: str) -> dict[str, int]:
    """Numbers for the expression's variables; it seldom comes out below zero, never with many digits."""
    x = _some_number(rng)
    y = _some_number(rng)
    z = rng.randint(1, 30)
    if "*" in form or form in ("x/3", "x/4"):
        x = rng.choice((rng.randint(2, 12), rng.randint(2, 100)))
        y = rng.choice((rng.randint(1, 12), rng.randint(1, 12), rng.randint(1, 100)))
    if form in ("x/3", "x/4"):
        x *= int(form[-1])
    elif form == "x/y":
        y = rng.randint(2, 12)
        x = y * rng.randint(1, 20)
        if rng.random() < 0.2:  # not whole
            y = rng.choice((2, 4, 5, 10))
            x = rng.randint(1, 99)
    elif form == "x-y" and rng.random() < 0.85:
        larger = max(x, y)
        y = min(x, y)
        x = larger
    elif form == "x-y-z" and rng.random() < 0.9:
        x += y + z
    used = {"x": x, "y": y, "z": z}
    return {variable: used[variable] for variable in "xyz" if variable in form}


# ---- comparing
def number_sense(rng: Random, world: World, test: bool, level: int) -> Made:
    """Which is bigger, odd or even, is a sum right, how a row goes on."""
    kind = rng.choices(tuple(COMPARING), (20, 10, 14, 7, 14, 7, 7, 12, 10))[0]
    wording = sentence(rng, rng.choice(wordings_for(f"comparing {kind}", COMPARING[kind], test)))
    if kind == "next":
        return _goes_on(rng, wording, test)
    while True:
        x = _some_number(rng)
        y = rng.choice((_some_number(rng), x + rng.randint(1, 9)))
        pair = [x, 2] if "odd" in kind or "even" in kind else [x, y]
        if x != y and right_side(pair, test):
            break
    z = x + y
    if rng.random() < 0.5:
        z += rng.choice((-2, -1, 1, 2, 10, rng.randint(3, 9)))
    values = {"x": x, "y": y, "z": z}
    asked = [name for name in values if f"{{{name}}}" in wording]
    said = dict(zip(asked, written(rng, [values[name] for name in asked], percent=10)))
    code, if_so, if_not = (text.format(**values) for text in COMPARING_ANSWERS[kind])
    answer = if_so if calculate(code) == "True" else if_not
    question = typed(rng, finished(wording.format(**said)))
    return chat(question, tool_turn(code, answer)), _comparison_check(kind, answer, x, y)


def _comparison_check(kind: str, answer: str, x: int, y: int) -> Check:
    first_word = answer.split()[0].strip(",").lower()
    if kind.startswith("is "):
        return {"kind": "yes_no", "answer": first_word}
    if kind == "odd or even":
        signs = ["even", "odd"] if x % 2 == 0 else ["odd", "even"]
        return {"kind": "any", "signs": signs[:1], "rivals": signs[1:]}
    rival = str(y) if first_word == str(x) else str(x)
    return {"kind": "picked", "answer": first_word, "rivals": [rival], "unlike": OPPOSITES[kind]}


def _goes_on(rng: Random, wording: str, test: bool) -> Made:
    step = rng.choice((1, 1, 2, 2, 3, 4, 5, 5, 10, 10, 100, -1, -1, -2, -5, -10))
    length = rng.randint(3, 5)
    while True:
        start = rng.choice((abs(step), rng.randint(1, 60)))
        row = [start + i * step for i in range(length)]
        if row[-1] + step > 0 and right_side([row[-1], abs(step)], test):
            break
    code = f"{row[-1]}{step:+d}"
    given = [str(number) for number in [*row, abs(step)]]
    check = {"kind": "number", "answer": calculate(code), "given": given, "tool": False}
    question = finished(wording.format(x=", ".join(str(number) for number in row)))
    return chat(typed(rng, question), tool_turn(code, f"The next number is {calculate(code)}.")), check
