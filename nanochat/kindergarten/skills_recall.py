"""
What the user told a few turns ago, in everybody's words (recall.txt), and instructions to say something.

skills_social.memory is the older, narrower one. Values are drawn from long lists, or made up, so that looking
back is the only way to know them; between telling and asking other things are said.
"""
from random import Random

from nanochat.kindergarten import skills_manners, skills_numbers, skills_tales, tables
from nanochat.kindergarten.phrases import with_article
from nanochat.kindergarten.skill import Check, Made, chat, draw, fact_check
from nanochat.kindergarten.skills_manners import chatted
from nanochat.kindergarten.skills_reading import THINGS
from nanochat.kindergarten.typist import typed
from nanochat.kindergarten.unlisted import some_name, some_thing
from nanochat.kindergarten.wording import compose
from nanochat.kindergarten.world import World

RECALL = tables.read("recall.txt")
KINDS = tables.titled("recall.txt", "tell")
LISTS = {key: values[0].split() for key, values in RECALL["values"].items()}
MORE_JOBS = "cook waiter sailor dancer clown judge lawyer student plumber soldier barber butcher".split()
JOBS = tables.JOBS + MORE_JOBS


def _drawn(rng: Random, kind: str, test: bool) -> dict[str, str]:
    """The slots of one thing told, its value {v} on the wanted side of the split."""
    def make() -> dict[str, str]:
        slots = {key: rng.choice(LISTS[key]) for key in ("f", "r", "k", "s")}
        slots["n"] = some_name(rng)
        slots["v"] = _value(rng, kind, slots["f"])
        if rng.random() < 0.2:  # "my name is nora"
            slots["v"] = slots["v"].lower()
        slots["a_v"] = with_article(slots["v"])
        return slots

    return draw(make, lambda made: ("recall", kind, made["v"].lower()), test, percent=15)


def _value(rng: Random, kind: str, favourite: str) -> str:
    if kind in ("name", "pet", "relative"):
        return some_name(rng, tables.NAMES + tables.PETS)
    if kind == "favourite":
        listed = tables.MEALS if favourite == "food" else LISTS[favourite]
        return some_thing(rng, listed) if rng.random() < 0.5 else rng.choice(listed)
    if kind in ("age", "have"):
        return str(rng.randint(2, 90))
    if kind == "code":
        return str(rng.randint(10, 9999)) if rng.random() < 0.7 else rng.choice(tables.WORDS)
    if kind == "job":
        return rng.choice(JOBS)
    if kind == "bought":
        return some_thing(rng, THINGS + tables.WORDS)
    if kind == "friend likes":
        return rng.choice(tables.MEALS)
    return some_name(rng, tables.CITIES)


def recall(rng: Random, world: World, test: bool, level: int) -> Made:
    """Told one thing to three, perhaps something else in between, then asked for one."""
    if not test and rng.random() < 0.05:
        return _never_told(rng)
    count = rng.choice((1, 1, 2) if level == 1 else (1, 1, 2, 2, 3))
    kinds = rng.sample(tuple(KINDS), count)
    if rng.random() < 0.4 and "name" not in kinds:
        kinds[0] = "name"
    told = {kind: _drawn(rng, kind, test) for kind in kinds}
    turns: list = []
    if count == 2 and rng.random() < 0.3:  # both in one message
        both = " and ".join(_told(rng, kind, told[kind]) for kind in kinds)
        turns += [chatted(rng, both), compose(rng, RECALL["replies"]["any"][0])]
    else:
        for kind, slots in told.items():
            turns += _tell(rng, kind, slots)
    asked = rng.choice(kinds)
    if asked == "name" and rng.random() < 0.12:
        told["name"] = _drawn(rng, "name", test)
        turns += [chatted(rng, compose(rng, RECALL["corrected"]["name"][0], dict(told["name"]))),
                  compose(rng, KINDS["name"]["reply"][0], dict(told["name"]))]
    for _ in range(rng.choice((0, 0, 0, 1, 1, 2))):
        turns += _something_else(rng, world, level)
    turns.append(chatted(rng, compose(rng, rng.choice(KINDS[asked]["asked"]), dict(told[asked]))))
    turns.append(compose(rng, KINDS[asked]["answer"][0], dict(told[asked])))
    rivals = [slots["v"] for kind, slots in told.items() if kind != asked]
    value = told[asked]["v"]
    return chat(*turns), fact_check(value, rivals=[rival for rival in rivals if rival != value])


def _told(rng: Random, kind: str, slots: dict[str, str]) -> str:
    return compose(rng, rng.choice(KINDS[kind]["told"]), dict(slots))


def _tell(rng: Random, kind: str, slots: dict[str, str]) -> list[str]:
    """The user's remark and the reply to it."""
    said = _told(rng, kind, slots)
    if rng.random() < 0.5:
        said = chatted(rng, said)
    replies = KINDS[kind].get("reply", RECALL["replies"]["any"])
    return [said, compose(rng, rng.choice(replies), dict(slots))]


def _never_told(rng: Random) -> Made:
    kind = rng.choice(tuple(KINDS))
    asked = compose(rng, rng.choice(KINDS[kind]["asked"]), _drawn(rng, kind, test=False))
    check: Check = {"kind": "any", "signs": ["not told me"], "rivals": []}
    return chat(chatted(rng, asked), RECALL["not told"]["any"][0]), check


def _something_else(rng: Random, world: World, level: int) -> list:
    """What is said in between: a remark, a sum, a joke."""
    make = rng.choice((skills_manners.manners, skills_manners.manners, skills_numbers.arithmetic,
                       skills_tales.tales))
    messages, _ = make(rng, world, False, level)
    return [message["content"] for message in messages]


# ---- say what you are told
SAY = [(wording, how) for how, wordings in RECALL["say"].items() for wording in wordings]


def instructions(rng: Random, world: World, test: bool, level: int) -> Made:
    """To say, copy, repeat or write in capitals some words that may never have been seen."""
    def make() -> str:
        pool = rng.choice((tables.WORDS, tables.NAMES, THINGS, tables.MEALS))
        said = [some_thing(rng, pool) for _ in range(rng.choice((1, 1, 1, 2, 3)))]
        return " ".join(said)

    text = draw(make, lambda made: ("copying", made.lower()), test)
    wording, how = rng.choice(SAY)
    if how == "hello":
        text = some_name(rng)
    filled = {"t": text}
    question = compose(rng, wording, filled)
    if how == "hello":
        return chat(chatted(rng, question), f"Hello {text}!"), fact_check("hello", text)
    if how in ("upper", "lower"):
        changed = text.upper() if how == "upper" else text.lower()
        return chat(typed(rng, question, lower=how == "upper"), changed), {"kind": "exactly", "text": changed}
    times = 1 if how == "as it is" else int(how)
    answer = " ".join([text] * times)
    shown = question if rng.random() < 0.5 else question[0].upper() + question[1:]
    return chat(shown, answer), {"kind": "copy", "text": answer}
