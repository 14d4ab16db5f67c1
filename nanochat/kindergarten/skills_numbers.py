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
from nanochat.kindergarten.wording import finished, sentence, some_wording
from nanochat.kindergarten.world import World

PROBLEMS = tuple(WORDINGS["word problems"].values())  # (story, sum, answer)
N_SIMPLE_PROBLEMS = 6  # the first ones, of one step each
SUMS = tables.read("numbers.txt")["sums"]  # {expression: wordings}
SUM_ANSWERS = tables.read("numbers.txt")["sums answers"]
SUMS_RIGHT = tables.read("numbers.txt")["sums right"]["any"]  # "is {x} {o} {y} {z}?"
TWO_SUMS = tables.read("numbers.txt")["sums two"]["any"]  # "what is {a} and {b}?"
SIGNS = tables.read("numbers.txt")["sums signs"]  # {operator: how it is written}
BASIC = ("x+y", "x-y", "x*y", "x/y")
USUAL = ("x+y+z", "x*2", "x/2", "x+1", "x-1", "x*x", "x+x")
BARE = 0.25  # part of the plain sums in training with no word around them: "12x12", "7+5="
COMPARING = tables.read("numbers.txt")["comparing"]
COMPARING_ANSWERS = tables.read("numbers.txt")["comparing answers"]  # {kind: (expression, if true, if false)}
OPPOSITES = {"bigger": ["smaller", "less", "lower"], "smaller": ["bigger", "more", "larger", "greater"]}

ONES = ("zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
        "sixteen seventeen eighteen nineteen").split()
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()


def calculate(code: str) -> str:
    """What the calculator puts out for an expression of the kindergarten's own: "7/2" is 3.5, "6/2" is 3."""
    assert re.fullmatch(r"[\d+*/%<>=()-]+", code), code
    value = eval(code)
    if isinstance(value, float):
        return f"{value:.12g}"
    return str(value)


def in_words(number: int, joint: str = "-") -> str:
    """A number from 0 to 999: "forty-two", "two hundred and five"."""
    if number >= 100:
        hundreds, rest = divmod(number, 100)
        counted = "a" if number == 100 else ONES[hundreds]
        return f"{counted} hundred" + (f" and {in_words(rest, joint)}" if rest else "")
    if number < 20:
        return ONES[number]
    ten, one = divmod(number, 10)
    return TENS[ten - 2] + (joint + ONES[one] if one else "")


def written(rng: Random, numbers: list[int], percent: int = 15) -> list[str]:
    """The numbers in digits, now and then all in words."""
    if max(numbers) > 999 or min(numbers) < 0 or rng.random() * 100 >= percent:
        return [str(number) for number in numbers]
    joint = rng.choice("- ")
    words = [in_words(number, joint) for number in numbers]
    if rng.random() < 0.5:
        words = [re.sub("^a hundred", "one hundred", word) for word in words]
    return words


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
    return re.sub("[xyzq]", lambda variable: str(values[variable[0]]), code)


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
    """Also of three numbers, in words, halves, doubles, neighbours; two at once, and whether one is right."""
    chance = rng.random()
    if chance < 0.09:
        return _is_it_right(rng, test)
    if chance < 0.14 and level > 1:
        return _two_sums(rng, test)
    simple = 3 if level == 1 else 1
    often = dict.fromkeys(USUAL, 4) | dict.fromkeys(BASIC, 15 * simple)
    weights = [often.get(form, 1) for form in SUMS]
    form = rng.choices(tuple(SUMS), weights)[0]
    wording = sentence(rng, some_wording(rng, f"sums {form}", SUMS[form], test))
    if form in BASIC and not test and rng.random() < BARE:
        wording = _bare(rng, form)
    counts = re.search("how (many times|often)", wording)
    values = _fitting(rng, form, test, whole=form not in ("x/y", "x/2") or bool(counts))
    while form == "x-y" and values["x"] < values["y"] and not re.search("-|minus|subtract", wording):
        values = _fitting(rng, form, test)
    code = filled(form, values)
    result = calculate(code)
    has_signs = re.search(r"\}[^ ,]+\{|[-(^%]\{|\}[x^%)(]", wording)  # "{x}+{y}", "-{x}"
    # "Add a hundred and two": is that one number?
    could_be_one = " and " in wording and any(value % 100 == 0 for value in values.values())
    in_digits = has_signs or could_be_one or (len(values) > 2 and max(values.values()) > 100)
    said = dict(zip(values, written(rng, list(values.values()), percent=0 if in_digits else 15)))
    answer = SUM_ANSWERS.get(form, ["{sum} = {r}."])[0]
    check = {"kind": "number", "answer": result, "given": [str(number) for number in numbers_in(code)],
             "tool": True}
    reply = answer.format(sum=spaced(code), r=result, x=values["x"])
    return chat(typed(rng, finished(wording.format(**said))), tool_turn(code, reply)), check


def _bare(rng: Random, form: str) -> str:
    """A plain sum as it is typed in a hurry: "{x}x{y}", "{x} + {y} ="."""
    sign = rng.choice("*xx") if form == "x*y" else form[1]
    blank = rng.choice(("", "", " "))
    return f"{{x}}{blank}{sign}{blank}{{y}}{rng.choice(('', '', '?', '=', '=?', ' ='))}"


def spaced(code: str) -> str:
    """An expression as it stands in a sentence: "(2 + 3) * 4"; a sign stays at its number."""
    return re.sub(r"(?<=[\d)])([+*/%-])", r" \1 ", code)


def _fitting(rng: Random, form: str, test: bool, whole: bool = False) -> dict[str, int]:
    """Numbers of their side of the split for the expression, which comes out whole where that is wanted."""
    while True:
        values = _values(rng, form)
        code = filled(form, values)
        fits = not whole or calculate(code).lstrip("-").isdigit()
        if fits and right_side(numbers_in(code), test):
            return values


def _is_it_right(rng: Random, test: bool) -> Made:
    """ "Is 3 * 4 = 13 right?" """
    form = rng.choice(BASIC)
    values = _fitting(rng, form, test, whole=True)
    right = int(calculate(filled(form, values)))
    values["z"] = right
    if rng.random() < 0.5 or right < 0:
        values["z"] = max(0, right + rng.choice((-2, -1, 1, 1, 2, 10, rng.randint(3, 9))))
    sign = form[1]
    said = dict(zip(values, written(rng, list(values.values()), percent=10)))
    said["o"] = rng.choice(SIGNS[sign])
    if not said["x"].isdigit():
        said["o"] = SIGNS[sign][-1]
    wording = sentence(rng, some_wording(rng, "sums right", SUMS_RIGHT, test))
    code = f"{filled(form, values)}=={values['z']}"
    asked = f"{values['x']} {sign} {values['y']}"
    if values["z"] == right:
        reply = f"Yes, {asked} is {right}."
    else:
        reply = f"No, {asked} is not {values['z']}."
    check: Check = {"kind": "yes_no", "answer": "yes" if values["z"] == right else "no", "tool": True}
    return chat(typed(rng, finished(wording.format(**said))), tool_turn(code, reply)), check


def _two_sums(rng: Random, test: bool) -> Made:
    """Two sums in one message, worked out one after the other."""
    asked: list[str] = []
    turn: list[dict[str, str]] = []
    needed: list[list[str]] = []
    for _ in range(2):
        form = rng.choice(BASIC)
        code = filled(form, _fitting(rng, form, test, whole=True))
        close = rng.random() < 0.4 and form != "x/y"
        first, second = numbers_in(code)
        asked.append(code if close else f"{first} {rng.choice(SIGNS[form[1]])} {second}")
        answer = f"{spaced(code)} = {calculate(code)}"
        turn += tool_turn(code, f" {answer}." if turn else f"{answer}.")
        needed.append([answer])
    wording = sentence(rng, some_wording(rng, "sums two", TWO_SUMS, test))
    check: Check = {"kind": "fact", "need": needed, "rivals": [], "names": [], "tool": True}
    return chat(typed(rng, finished(wording.format(a=asked[0], b=asked[1]))), turn), check


def _some_number(rng: Random) -> int:
    if rng.random() < 0.03:
        return 100 * rng.randint(1, 9)
    top = rng.choices((12, 30, 100, 999, 9999), (40, 20, 28, 9, 3))[0]
    return rng.randint(1, top)


def _values(rng: Random, form: str) -> dict[str, int]:
    """Numbers for the expression's variables; it seldom comes out below zero, never with many digits."""
    x = _some_number(rng)
    y = _some_number(rng)
    z = rng.randint(1, 30)
    q = rng.randint(1, 30)
    if re.search(r"/z|\+z\+q", form):
        z = rng.randint(2, 10)
    if "*" in form or form in ("x/3", "x/4"):
        x = rng.choice((rng.randint(2, 12), rng.randint(2, 100)))
        y = rng.choice((rng.randint(1, 12), rng.randint(1, 12), rng.randint(1, 100)))
    if form in ("x/3", "x/4"):
        x *= int(form[-1])
    elif form in ("x/y", "x/y+z", "x%y"):
        y = rng.randint(2, 12)
        x = y * rng.randint(1, 20) + (rng.randint(1, y - 1) if "%" in form else 0)
        if form == "x/y" and rng.random() < 0.2:  # not whole
            y = rng.choice((2, 4, 5, 10))
            x = rng.randint(1, 99)
    elif form == "x-y" and rng.random() < 0.85:
        larger = max(x, y)
        y = min(x, y)
        x = larger
    elif form in ("x-y-z", "x-y+z", "x-(y+z)", "(x-y)*z", "(x-y)/z") and rng.random() < 0.9:
        x += y + z
    elif form == "x-y*z" and rng.random() < 0.9:
        x += y * z
    elif "(y-z)" in form:
        y += z
    used = {"x": x, "y": y, "z": z, "q": q}
    return {variable: used[variable] for variable in used if variable in form}


# ---- comparing
def number_sense(rng: Random, world: World, test: bool, level: int) -> Made:
    """Which is bigger, odd or even, is a sum right, how a row goes on, what is beside a number."""
    kind = rng.choices(tuple(COMPARING), (20, 10, 14, 7, 14, 7, 7, 10, 16, 5, 5, 5))[0]
    wording = sentence(rng, some_wording(rng, f"comparing {kind}", COMPARING[kind], test))
    if kind in ("next", "missing"):
        return _goes_on(rng, wording, test, missing=kind == "missing")
    if kind in ("one before", "one after"):
        return _beside(rng, wording, test, kind)
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


def _goes_on(rng: Random, wording: str, test: bool, missing: bool = False) -> Made:
    """The next number of a row, or the one in its middle that was left out.

    From two that stand there, as they are: a step is a difference, which a small model cannot see."""
    step = rng.choice((1, 1, 2, 2, 3, 4, 5, 5, 10, 10, 100, -1, -1, -2, -5, -10))
    length = rng.randint(3, 5)
    gap = rng.randint(1, length - 1) if missing else length
    while True:
        start = rng.choice((abs(step), rng.randint(1, 60)))
        row = [start + i * step for i in range(length)]
        if row[-1] + step > 0 and right_side([row[gap - 1], abs(step)], test):
            shown_pair = [row[gap - 1], row[gap - 1] + 2 * step] if missing else row[-2:]
            if test or right_side(shown_pair, test):
                break
    shown = [str(number) for number in row]
    given = [*shown, str(abs(step))]
    name = "next"
    code = f"{row[-1]}+({row[-1]}-{row[-2]})"
    joint = rng.choice((", ", ", ", ", ", " "))
    if missing:
        name = "missing"
        shown.append(str(row[-1] + step))
        code = f"({shown[gap - 1]}+{shown[gap + 1]})/2"
        shown[gap] = rng.choice(("_", "_", "?", "__", "...") if joint == ", " else ("_", "__"))
    check: Check = {"kind": "number", "answer": calculate(code), "given": given, "tool": False}
    question = finished(wording.format(row=joint.join(shown)))
    return chat(typed(rng, question), tool_turn(code, f"The {name} number is {calculate(code)}.")), check


def _beside(rng: Random, wording: str, test: bool, kind: str) -> Made:
    """The number before or after another one."""
    while True:
        x = 1 + _some_number(rng)
        if right_side([x, 1], test):
            break
    code = f"{x}+1" if kind == "one after" else f"{x}-1"
    where = kind.removeprefix("one ")
    check: Check = {"kind": "number", "answer": calculate(code), "given": [str(x), "1"], "tool": False}
    question = finished(wording.format(x=written(rng, [x], percent=10)[0]))
    reply = f"The number {where} {x} is {calculate(code)}."
    return chat(typed(rng, question), tool_turn(code, reply)), check
