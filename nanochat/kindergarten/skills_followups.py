"""
What is said next: "and of thin?", "plus 3", "another one", "are you sure?", "why?" (followups.txt).

Half of such a question stands in the turns before. Asked alone it means nothing, so it is learned only where
it is met in its place: after a fact, a sum, a joke. One wording in six is for tests.
"""
from random import Random

from nanochat.kindergarten import everyday, skills_everyday, skills_numbers, skills_tales, tables
from nanochat.kindergarten.everyday import Known, Relation
from nanochat.kindergarten.skill import Check, Made, chat, draw, fact_check
from nanochat.kindergarten.skills_letters import ALPHABET
from nanochat.kindergarten.wording import finished, vary
from nanochat.kindergarten.world import World

ASKED = tables.read("followups.txt")["asked"]
REPLIES = tables.read("followups.txt")["replies"]
OPERATORS = {"plus": "+", "minus": "-", "times": "*"}
WITH_OF = ("opposites", "capitals", "plurals")  # "and of thin?" can be said


def _with_subjects() -> dict[str, tuple[Relation, list[Known]]]:
    """{name: (relation, its facts about something that can be exchanged for something else)}"""
    found = {}
    for relation in skills_everyday.ASKED:
        facts = [fact for fact in relation.known if "x" in fact.own]
        if len(facts) > 1:
            found[relation.name] = relation, facts
    return found


RELATIONS = _with_subjects()


def follow_ups(rng: Random, world: World, test: bool, level: int) -> Made:
    makers = [maker for maker, _ in MAKERS]
    make = rng.choices(makers, [weight for _, weight in MAKERS])[0]
    return make(rng, world, test)


def _asks(rng: Random, kind: str, test: bool) -> str:
    """A wording of this side of the split, its slots not yet filled."""
    def make() -> str:
        return vary(rng, rng.choice(ASKED[kind]))

    return draw(make, lambda made: ("follow", kind, made), test, percent=15)


def _as_written(rng: Random, text: str) -> str:
    return finished(text) if rng.random() < 0.5 else text


def _question(rng: Random, relation: Relation, fact: Known) -> str:
    """A question that is trained, or "" where a fact has none."""
    ways = skills_everyday.ways_to_ask_widely(relation, fact, test=False)
    return rng.choice(ways) if ways else ""


# ---- the same of something else, the next in a row
def _same(rng: Random, world: World, test: bool) -> Made:
    relation, facts = _some(rng)
    question = ""
    while not question:
        first, second = rng.sample(facts, 2)
        question = _question(rng, relation, first)
    follows = _asks(rng, "same", test).format(x=second.own["x"])
    if relation.name in WITH_OF and rng.random() < 0.4:
        follows = follows.replace("and ", "and of ", 1)
    check = fact_check(second.values, rivals=everyday.rivals(relation, second))
    return chat(question, first.told[0], _as_written(rng, follows), second.told[0]), check


def _some(rng: Random) -> tuple[Relation, list[Known]]:
    """A relation; one with few facts is met more often than its share."""
    rows = list(RELATIONS.values())
    return rng.choices(rows, [len(facts) ** skills_everyday.EVENNESS for _, facts in rows])[0]


def _next(rng: Random, world: World, test: bool) -> Made:
    """Days, months, numbers and letters in their order."""
    follows = _as_written(rng, _asks(rng, "next", test))
    if rng.random() < 0.5:
        row = ALPHABET if rng.random() < 0.3 else range(1, 100)
        at = rng.randrange(len(row) - 2)
        asked = rng.choice(("What comes after {}?", "what is after {}?", "What's next after {}?"))
        said = [f"After {row[at + step]} comes {row[at + step + 1]}." for step in range(2)]
        check: Check = {"kind": "alone", "answer": str(row[at + 2]), "given": [str(row[at + 1])]}
        return chat(asked.format(row[at]), said[0], follows, said[1]), check
    relation, facts = RELATIONS["after"]
    by_subject = {fact.own["x"]: fact for fact in facts}
    question = ""
    while not question:
        first = rng.choice(facts)
        question = _question(rng, relation, first)
    second = by_subject[first.other["v"]]
    check = fact_check(second.values, rivals=everyday.rivals(relation, second))
    return chat(question, first.told[0], follows, second.told[0]), check


# ---- on with the result of a sum
def _further_sum(rng: Random, world: World, test: bool) -> Made:
    while True:
        turns, first = skills_numbers.arithmetic(rng, world, False, 1)
        kind = rng.choice(tuple(OPERATORS))
        y = rng.randint(1, 20)
        if not first["answer"].isdigit() or len(first["answer"]) > 3:
            continue
        x = int(first["answer"])
        if skills_numbers.right_side([x, y], test=False) and (kind != "minus" or x >= y):
            break
    code = f"{x}{OPERATORS[kind]}{y}"
    result = skills_numbers.calculate(code)
    follows = _as_written(rng, _asks(rng, kind, test).format(y=y))
    reply = skills_numbers.tool_turn(code, f"{x} {OPERATORS[kind]} {y} = {result}.")
    check = {"kind": "number", "answer": result, "given": [str(x), str(y)], "tool": True}
    before = [turn["content"] for turn in turns]
    return chat(*before, follows, reply), check


def _unrelated_sums(rng: Random, world: World, test: bool) -> Made:
    """Two or three sums in a row that have nothing to do with each other: not every sum goes on."""
    before = []
    for _ in range(rng.randint(1, 2)):
        make = rng.choice((skills_numbers.arithmetic, skills_numbers.sums_any))
        turns, _ = make(rng, world, False, 1)
        before += turns
    make = rng.choice((skills_numbers.arithmetic, skills_numbers.sums_any))
    turns, check = make(rng, world, test, 1)
    return before + turns, check


# ---- one more, and doubts
def _more(rng: Random, world: World, test: bool) -> Made:
    kind = rng.choice(("story", "poem", "joke", "joke"))
    (asked, told), _ = skills_tales.tale(rng, kind, False)
    (_, another), check = skills_tales.tale(rng, kind, False)
    check = {**check, "about": ""}
    follows = _as_written(rng, _asks(rng, "more", test))
    return chat(asked["content"], told["content"], follows, another["content"]), check


def _doubted(rng: Random, world: World) -> tuple[list, str]:
    """(a question and its answer, what the answer says)"""
    if rng.random() < 0.4:
        turns, _ = skills_numbers.arithmetic(rng, world, False, 1)
        answer = turns[-1]["content"]
        return [turns[0]["content"], answer], answer[-1]["text"]
    turns, _ = skills_everyday.facts_everyday(rng, world, False, 1)
    answer = turns[-1]["content"]
    return [turns[0]["content"], answer], answer


def _sure(rng: Random, world: World, test: bool) -> Made:
    before, said = _doubted(rng, world)
    follows = _as_written(rng, _asks(rng, "sure", test))
    return chat(*before, follows, f"Yes. {said}"), {"kind": "any", "signs": ["yes"], "rivals": []}


def _why(rng: Random, world: World, test: bool) -> Made:
    before, _ = _doubted(rng, world)
    follows = _as_written(rng, _asks(rng, "why", test))
    check = {"kind": "any", "signs": ["don't know"], "rivals": []}
    return chat(*before, follows, rng.choice(REPLIES["why"])), check


MAKERS = (
    (_same, 42), (_next, 10), (_further_sum, 16), (_unrelated_sums, 14), (_more, 12), (_sure, 10), (_why, 8),
)
