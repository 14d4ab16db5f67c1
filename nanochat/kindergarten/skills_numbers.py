"""
Numbers: sums and word problems, worked out by the calculator tool and never in the head.

A model of this size cannot multiply, but it can copy two numbers into a call and the result into a sentence;
that is what is taught. A test's pair of numbers, in either order and under any operator, occurs in no
training example.
"""
import operator
import re
from random import Random

from nanochat.kindergarten.phrases import WORDINGS, typed
from nanochat.kindergarten.skill import Made, chat, draw
from nanochat.kindergarten.tables import GOODS, NAMES
from nanochat.kindergarten.world import World

PROBLEMS = tuple(WORDINGS["word problems"].values())  # (story, sum, answer)
N_SIMPLE_PROBLEMS = 6  # the first ones, of one step each
OPERATORS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "//": operator.floordiv}


def calculate(code: str) -> str:
    """The value, as text, of whole numbers joined by + - * //, from left to right ("4*3-2", no "2+4*3")."""
    first, *rest = re.split(r"(//|[+*-])", code)
    value = int(first)
    for symbol, number in zip(rest[::2], rest[1::2]):
        value = OPERATORS[symbol](value, int(number))
    return str(value)


def tool_turn(code: str, reply: str) -> list[dict[str, str]]:
    """The assistant's turn: the call, what the calculator puts out, and what is said then."""
    return [{"type": "python", "text": code}, {"type": "python_output", "text": calculate(code)},
            {"type": "text", "text": reply}]


def number_key(pair: tuple[int, int]) -> tuple[str, int, int]:
    """What decides on which side of the split a pair lies: not the order of the numbers, not the operator."""
    return ("numbers", min(pair), max(pair))


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
    code = f"{x}{symbol}{y}"
    result = calculate(code)
    shown = "/" if symbol == "//" else symbol
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
    code = code.replace("x", str(x)).replace("y", str(y)).replace("z", str(z))
    result = calculate(code)
    goods = rng.choice(GOODS)
    name, other_name = rng.sample(NAMES, 2)
    check = {"kind": "number", "answer": result, "given": [str(x), str(y), str(z)], "tool": True}
    question = text.format(n=name, m=other_name, x=x, y=y, z=z, g=goods)
    return chat(question, tool_turn(code, answer.format(n=name, g=goods, r=result))), check
