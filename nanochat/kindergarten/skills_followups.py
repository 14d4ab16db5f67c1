"""
What is said next: "and of thin?", "plus 3", "another one", "are you sure?", "say it again" (followups.txt).

Half of such a question stands in the turns before. Asked alone it means nothing, so it is learned only where
it is met in its place: after a fact, a sum, a joke, or when the assistant has asked or offered something.
One wording in six is for tests.
"""
from random import Random

from nanochat.kindergarten import (
    everyday,
    skills_everyday,
    skills_manners,
    skills_numbers,
    skills_tales,
    tables,
)
from nanochat.kindergarten.everyday import Known, Relation
from nanochat.kindergarten.skill import Check, Made, chat, draw, fact_check, weighted
from nanochat.kindergarten.skills_letters import ALPHABET
from nanochat.kindergarten.skills_manners import plain
from nanochat.kindergarten.unlisted import some_thing
from nanochat.kindergarten.wording import POOLS, finished, vary
from nanochat.kindergarten.world import World

ASKED = tables.read("followups.txt")["asked"]
REPLIES = tables.read("followups.txt")["replies"]
GOES_ON = tables.read("followups.txt")["goes on"]
OFFERED = tables.read("followups.txt")["offered"]
SIGNS = {"why": "don't know", "how": "learned", "wrong": "sorry", "spanish": "only speak english",
         "thanks": "welcome", "fine": "else", "wow": "glad", "right": "thank you"}
OPERATORS = {"plus": "+", "minus": "-", "times": "*", "double": "*"}
MAX_TALES = 400  # letters of a request and two tales
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
    make = weighted(rng, MAKERS)
    return make(rng, world, test)


def _asks(rng: Random, kind: str, test: bool) -> str:
    """A wording of this side of the split, its slots not yet filled."""
    return _drawn(rng, kind, ASKED[kind], test)


def _drawn(rng: Random, kind: str, wordings: list[str], test: bool) -> str:
    return draw(lambda: vary(rng, rng.choice(wordings)).strip(),
                lambda made: ("follow", kind, plain(made)), test, percent=15)


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
        return _in_a_row(rng, "after", _row(rng), follows)
    return _along(rng, "after", follows)


def _before(rng: Random, world: World, test: bool) -> Made:
    """The same backwards."""
    follows = _as_written(rng, _asks(rng, "before", test))
    if rng.random() < 0.5:
        return _in_a_row(rng, "before", _row(rng)[::-1], follows)
    return _along(rng, "before", follows)


def _row(rng: Random) -> list[str]:
    return list(ALPHABET) if rng.random() < 0.3 else [str(number) for number in range(1, 100)]


def _in_a_row(rng: Random, where: str, row: list[str], follows: str) -> Made:
    """Asked for what comes "after" or "before" one of the row, then once more."""
    at = rng.randrange(len(row) - 2)
    first, second, third = row[at:at + 3]
    asked = rng.choice(("What comes {} {}?", "what is {} {}?", "What's right {} {}?"))
    said = [f"{where.capitalize()} {one} comes {other}." for one, other in ((first, second), (second, third))]
    check: Check = {"kind": "alone", "answer": third, "given": [second]}
    return chat(asked.format(where, first), said[0], follows, said[1]), check


def _along(rng: Random, name: str, follows: str) -> Made:
    """Two steps along the days, months and times of day."""
    relation, facts = RELATIONS[name]
    by_subject = {fact.own["x"]: fact for fact in facts}
    question = ""
    while not question:
        first = rng.choice(facts)
        if first.other["v"] in by_subject:
            question = _question(rng, relation, first)
    second = by_subject[first.other["v"]]
    check = fact_check(second.values, rivals=everyday.rivals(relation, second))
    return chat(question, first.told[0], follows, second.told[0]), check


# ---- on with the result of a sum
def _further_sum(rng: Random, world: World, test: bool) -> Made:
    while True:
        turns, first = skills_numbers.arithmetic(rng, world, False, 1)
        kind = rng.choice(tuple(OPERATORS))
        y = 2 if kind == "double" else rng.randint(1, 20)
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
    length = MAX_TALES
    while length >= MAX_TALES:
        (asked, told), _ = skills_tales.tale(rng, kind, False)
        (_, another), check = skills_tales.tale(rng, kind, False)
        length = sum(len(said["content"]) for said in (asked, told, another))
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


def _remarked(rng: Random, world: World, test: bool) -> Made:
    """What always gets the same reply: why, who told you, wrong, in Spanish, thanks, I see."""
    kind = rng.choice(tuple(SIGNS))
    before, _ = _doubted(rng, world)
    follows = _asks(rng, kind, test).format(language=rng.choice(POOLS["language"]))
    check = {"kind": "any", "signs": [SIGNS[kind]], "rivals": []}
    return chat(*before, _as_written(rng, follows), rng.choice(REPLIES[kind])), check


def _again(rng: Random, world: World, test: bool) -> Made:
    """The answer once more, as it was, or as what was meant."""
    before, said = _doubted(rng, world)
    kind = rng.choice(("again", "again", "meant"))
    follows = _as_written(rng, _asks(rng, kind, test))
    reply = said if kind == "again" else f"I mean: {said}"
    return chat(*before, follows, reply), {"kind": "copy", "text": said}


# ---- the assistant has asked or offered something
def _small_talk(rng: Random, world: World, test: bool) -> Made:
    """Two or three remarks, each of which may follow the answer to the one before."""
    title = rng.choice(tuple(GOES_ON))
    (said, answered), _ = skills_manners.remark(rng, False, title)
    turns = [said["content"], answered["content"]]
    title = rng.choice(GOES_ON[title])
    if title in GOES_ON and rng.random() < 0.4:
        (said, answered), _ = skills_manners.remark(rng, False, title)
        turns += [said["content"], answered["content"]]
        title = rng.choice(GOES_ON[title])
    (said, answered), check = skills_manners.remark(rng, test, title)
    return chat(*turns, said["content"], answered["content"]), check


def _offered(rng: Random, world: World, test: bool) -> Made:
    """A joke or a story, when it has been offered."""
    kind = rng.choice(tuple(OFFERED))
    (said, offer), _ = skills_manners.remark(rng, False, "not funny" if kind == "yes" else "user is bored")
    (_, told), check = skills_tales.tale(rng, "story" if kind == "story" else "joke", False)
    follows = _as_written(rng, _drawn(rng, f"offered {kind}", OFFERED[kind], test))
    return chat(said["content"], offer["content"], follows, told["content"]), {**check, "about": ""}


def _knock(rng: Random, world: World, test: bool) -> Made:
    """ "Knock knock." "Who is there?" "Lettuce." "Lettuce who?" """
    (said, answered), _ = skills_manners.remark(rng, False, "knock")
    listed = tables.WORDS + tables.NAMES
    there = draw(lambda: some_thing(rng, listed), lambda made: ("knock", made.lower()), test)
    reply = f"{there[0].upper()}{there[1:]} who?"
    check: Check = {"kind": "copy", "text": reply}
    return chat(said["content"], answered["content"], _as_written(rng, there), reply), check


MAKERS = (
    (_same, 40), (_next, 8), (_before, 6), (_further_sum, 16), (_unrelated_sums, 12), (_more, 10), (_sure, 8),
    (_remarked, 34), (_again, 9), (_small_talk, 26), (_offered, 8), (_knock, 3),
)
