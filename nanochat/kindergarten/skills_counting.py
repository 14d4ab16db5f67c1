"""
Counting aloud: up, down, by twos, what is between. One list in ten and one wording in six are for tests.

Where to begin and where to end is what has to be understood; the numbers come from the calculator,
`numbers(3, 9)`. Without it small models count on past the end.
"""
from random import Random

from nanochat.kindergarten import tables
from nanochat.kindergarten.skill import Made, is_test
from nanochat.kindergarten.skills_numbers import written
from nanochat.kindergarten.skills_words import looked_up
from nanochat.kindergarten.typist import typed
from nanochat.kindergarten.wording import finished, sentence, some_wording
from nanochat.kindergarten.world import World

ASKED = tables.read("numbers.txt")["counting"]  # {how: wordings}
AT_THE_END = "stop done finished go hello hi hooray cat bye yes end ready start wow thanks ok boo".split()
BY = {2: "twos", 3: "threes", 4: "fours", 5: "fives", 10: "tens", 20: "twenties", 100: "hundreds"}

# What is called, by kind; the letters are slots of the wording.
CALLS = {
    "to": "numbers({a}, {b})", "first": "numbers(1, {b})", "say stop": "numbers({a}, {b})",
    "down": "numbers({a}, {b})", "by": "numbers({a}, {b}, {k})",
    "multiples": "numbers({k}, {b}, {k})", "even": "numbers(2, {b}, 2)", "odd": "numbers(1, {b}, 2)",
    "after": "numbers({c}+1, {c}+{n})", "between": "numbers({c}+1, {d}-1)",
}
# The same where it is asked for so many of them.
CALLS_BY_NUMBER = {
    "multiples": "numbers({k}, {n}*{k}, {k})",
    "even": "numbers(2, {n}*2, 2)",
    "odd": "numbers(1, {n}*2-1, 2)",
}


def counting_numbers(rng: Random, world: World, test: bool, level: int) -> Made:
    while True:
        kind = rng.choices(tuple(ASKED), (34, 4, 22, 14, 5, 5, 5, 5, 5, 7))[0]
        wording = sentence(rng, some_wording(rng, f"counting {kind}", ASKED[kind], test))
        row, slots = _row(rng, kind, wording, longest=10 * level)
        if is_test("count", row[0], row[-1], len(row)) == test:
            break
    names = list(slots)
    said = dict(zip(names, written(rng, [slots[name] for name in names], percent=12)))
    step = slots["k"]
    said["by"] = rng.choice((BY.get(step, f"{step}s"), f"{step}s"))
    items = [str(number) for number in row]
    if kind == "say stop":
        said["w"] = rng.choice(AT_THE_END)
        items.append(said["w"])
    calls = CALLS_BY_NUMBER if "{n}" in wording and kind in CALLS_BY_NUMBER else CALLS
    code = calls[kind].format(**slots)
    output = ", ".join(map(str, row))
    question = typed(rng, finished(wording.format(**said)))
    answer = ", ".join(items) + "." if kind == "say stop" else ""
    return looked_up(question, code, output, answer), {"kind": "copy", "text": " ".join(items)}


def _row(rng: Random, kind: str, wording: str, longest: int) -> tuple[list[int], dict[str, int]]:
    """(the numbers to say, the wording's slots); what the wording leaves out is 1."""
    length = rng.choice((5, 10, rng.randint(3, longest)))
    start = rng.choice((1, rng.randint(1, 30), rng.randint(1, 90)))
    step = 1
    if kind in ("to", "first", "say stop") and "{a}" not in wording:
        start = 1
    elif kind == "down":
        step = -1
        end = start if "{b}" in wording else 1
        start = end + length - 1
    elif kind == "by":
        step = rng.choice((2, 2, 2, 5, 5, 10, 10, 3, 4, 20, 25, 100))
        length = min(length, 12)
        start = step if "{a}" not in wording else step * rng.randint(0, 4)
    elif kind == "multiples":
        step = start = rng.randint(2, 12)
        length = min(length, 10)
    elif kind in ("even", "odd"):
        step = 2
        start = 2 if kind == "even" else 1
    elif kind in ("after", "between"):
        start = rng.choice((start, rng.randint(1, 12))) + 1
        length = rng.randint(2, 5)
    row = [start + i * step for i in range(length)]
    return row, {"a": row[0], "b": row[-1], "c": row[0] - 1, "d": row[-1] + 1, "k": abs(step), "n": length}
