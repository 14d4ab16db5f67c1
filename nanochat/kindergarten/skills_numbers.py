"""
Numbers: sums and word problems, worked out by the calculator tool and never in the head.

A test's pair of numbers, in either order and under any operator, occurs in no training example.
"""
import operator
import re

from nanochat.kindergarten.phrases import WORDINGS, typed
from nanochat.kindergarten.skill import chat, draw
from nanochat.kindergarten.tables import GOODS, NAMES

PROBLEMS = tuple(WORDINGS["word problems"].values())
OPERATORS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "//": operator.floordiv}


def calculate(code):
    """The value, as text, of whole numbers joined by + - * //, from left to right ("4*3-2", never "2+4*3")."""
    first, *rest = re.split(r"(//|[+*-])", code)
    value = int(first)
    for op, number in zip(rest[::2], rest[1::2]):
        value = OPERATORS[op](value, int(number))
    return str(value)


def tool_turn(code, reply):
    return [{"type": "python", "text": code}, {"type": "python_output", "text": calculate(code)},
            {"type": "text", "text": reply}]


def _pair(rng, op):
    """Two numbers for the operator, mostly from 1 to 99; a division comes out whole."""
    top = 999 if rng.random() < 0.12 else 99
    if op == "//":
        y, quotient = rng.randint(2, 12), rng.randint(1, 99 if top == 999 else 12)
        return y * quotient, y
    x, y = rng.randint(1, top), rng.randint(1, 99 if op == "*" else top)
    return (max(x, y), min(x, y)) if op == "-" and rng.random() < 0.9 else (x, y)


def number_key(pair):
    return ("numbers", *sorted(pair))


def arithmetic(rng, world, test, level):
    op = rng.choices(("+", "-", "*", "//"), (3, 3, 3, 1))[0]
    x, y = draw(lambda: _pair(rng, op), number_key, test)
    code = f"{x}{op}{y}"
    result, sign = calculate(code), "/" if op == "//" else op
    question = typed(rng, rng.choice(WORDINGS["sums"][op]).format(x=x, y=y))
    check = {"kind": "number", "answer": result, "given": [str(x), str(y)], "tool": True}
    return chat(question, tool_turn(code, f"{x} {sign} {y} = {result}.")), check


def word_problem(rng, world, test, level):
    text, code, answer = rng.choice(PROBLEMS[:6] if level == 1 else PROBLEMS)
    op = re.search(r"//|[+*-]", code).group()

    def make():
        while True:
            x, y = _pair(rng, op)
            if min(x, y) > 1 and (level == 2 or x < 100) and (op != "-" or x - y > 1):
                return x, y
    x, y = draw(make, number_key, test)
    first = int(calculate(f"{x}{op}{y}"))
    z = rng.randint(2, max(2, min(99, first - 2)))
    code = code.replace("x", str(x)).replace("y", str(y)).replace("z", str(z))
    result, goods, (n, m) = calculate(code), rng.choice(GOODS), rng.sample(NAMES, 2)
    check = {"kind": "number", "answer": result, "given": [str(x), str(y), str(z)], "tool": True}
    question = text.format(n=n, m=m, x=x, y=y, z=z, g=goods)
    return chat(question, tool_turn(code, answer.format(n=n, g=goods, r=result))), check
