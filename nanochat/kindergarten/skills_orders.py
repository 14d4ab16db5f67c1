"""
Doing as told: "answer in one word: ...", "write x five times", "the last word of: ..." (orders.txt).

An order stands before or behind what it is about, and what is learned is to tell the two apart: the order is
obeyed, the rest is answered or copied. Questions and sums are those of training; a third of the
rarer orders is for tests.
"""
from random import Random

from nanochat.kindergarten import everyday, skills_everyday, skills_numbers, tables
from nanochat.kindergarten.everyday import Known, Relation
from nanochat.kindergarten.skill import Check, Made, chat, fact_check, weighted
from nanochat.kindergarten.skills_words import said_times
from nanochat.kindergarten.typist import typed
from nanochat.kindergarten.unlisted import some_name, some_thing
from nanochat.kindergarten.wording import compose, some_wording
from nanochat.kindergarten.world import World

ORDERS = tables.read("orders.txt")
USE = {key: " ".join(ORDERS["use"][key]).split() for key in ("verbs", "adjectives")}
WORDS = [word for word in tables.WORDS if word != "snow"]  # of which no wrong answer is made
IN_ONE_WORD = (
    "sound", "sound back", "food", "kind", "young", "young back", "capitals", "capitals back", "continents",
    "languages", "opposites", "plurals", "plurals back", "jobs back", "things back", "purposes back", "after",
    "before", "nth planet", "planets", "nth", "colours", "mixing", "seasons", "holidays", "properties",
    "most", "tools", "body", "comes", "made", "fruit or vegetable", "legs", "rooms",
)
BEGINNINGS = tuple("what which who where when how is are can do does name tell has in".split())
YES_NO_BEGINNINGS = tuple("is are can do does has have must".split())
REPEATED = ("hello", "hi", "yes", "no", "please", "thank you", "ha", "good morning", "bye", "ok", "good job")
TIMES = ((2, "two"), (3, "three"), (3, "three"), (4, "four"), (5, "five"), (6, "six"))


def orders(rng: Random, world: World, test: bool, level: int) -> Made:
    """One order of any kind, and what obeys it."""
    make = weighted(rng, MAKERS)
    return make(rng, world, test)


def _order(rng: Random, title: str, key: str, test: bool, copied: bool = False, **slots: str) -> str:
    """An order on one side of the split, as somebody types it; nothing that is copied is misspelled."""
    wording = some_wording(rng, f"orders {title} {key}", ORDERS[title][key], test)
    text = compose(rng, wording, {"nl": "\n", **slots})
    begins_with_order = not wording.startswith(("{q}", "{t}", "{w}", "{a}", "{n}", "{x}"))
    if not begins_with_order:
        return text
    if rng.random() < 0.5:
        text = text[0].upper() + text[1:]
    return typed(rng, text, lower=not copied)


# ---- sentences and words
def a_sentence(rng: Random, long: bool, words: dict[str, str] | None = None) -> str:
    """A plain sentence of three to seven words without its mark, some of its words never seen before.

    `words` are the things and names that may stand in it.
    """
    wording = rng.choice(ORDERS["sentences"]["long" if long else "short"])
    return compose(rng, wording, dict(words or _words(rng)))


def _words(rng: Random) -> dict[str, str]:
    first, second = _some_words(rng, 2)
    names = rng.sample(tables.NAMES, 2)
    return {"t1": first, "t2": second, "n1": some_name(rng), "n2": names[0]}


def _some_words(rng: Random, count: int) -> list[str]:
    """So many different things."""
    found: list[str] = []
    while len(found) < count:
        word = some_thing(rng, WORDS)
        if word not in (*found, "snow", "word", "like"):
            found.append(word)
    return found


def _copy(text: str) -> Check:
    return {"kind": "copy", "text": text}


# ---- how to answer
def _trained_question(rng: Random, relation: Relation, fact: Known) -> str:
    """A question about the fact, with a small letter half the time, or "" where none is trained."""
    ways = skills_everyday.ways_to_ask_widely(relation, fact, test=False)
    if not ways:
        return ""
    question = rng.choice(ways)
    if question.split()[0].lower() in BEGINNINGS and rng.random() < 0.7:
        question = question[0].lower() + question[1:]
    return question if question.endswith("?") and rng.random() < 0.6 else question.rstrip("?.")


def _one_word(rng: Random, world: World, test: bool) -> Made:
    """ "Answer in one word: what colour is snow?" "White." """
    relations = [relation for relation in skills_everyday.ASKED if relation.name in IN_ONE_WORD]
    question = ""
    while not question:
        relation = rng.choices(relations, [len(relation.known) ** 0.6 for relation in relations])[0]
        fact = rng.choice(relation.known)
        if fact.values[0].isalnum():
            question = _trained_question(rng, relation, fact)
    check = fact_check(fact.values, rivals=everyday.rivals(relation, fact))
    return chat(_order(rng, "answer", "one word", test, q=question), _alone(fact.values[0])), check


def _alone(word: str) -> str:
    return word[0].upper() + word[1:] + "."


def _yes_or_no(rng: Random, world: World, test: bool) -> Made:
    question = ""
    while question.split(" ")[0] not in YES_NO_BEGINNINGS:  # with nothing before it
        (asked, _), check = skills_everyday.yes_no_world(rng, world, False, 1)
        question = asked["content"][0].lower() + asked["content"][1:]
    return chat(_order(rng, "answer", "yes or no", test, q=question), _alone(check["answer"])), check


def _number_only(rng: Random, world: World, test: bool) -> Made:
    """The result of a sum, by the calculator, and nothing around it."""
    while True:
        x = rng.randint(1, 60)
        y = rng.randint(1, 30)
        symbol, name = rng.choice((("+", "plus"), ("+", "plus"), ("-", "minus"), ("*", "times")))
        if skills_numbers.right_side([x, y], test=False) and (symbol != "-" or x >= y):
            break
    shown = rng.choice((f"{x} {symbol} {y}", f"{x}{symbol}{y}", f"{x} {name} {y}",
                        f"what is {x} {symbol} {y}?", f"how much is {x} {name} {y}?",
                        f"what is {x} {name} {y}"))
    code = f"{x}{symbol}{y}"
    result = skills_numbers.calculate(code)
    check = {"kind": "number", "answer": result, "given": [str(x), str(y)], "tool": True}
    reply = skills_numbers.tool_turn(code, f"{result}.")
    return chat(_order(rng, "answer", "number", test, q=shown), reply), check


def _known_pair(rng: Random, world: World, test: bool) -> Made:
    """The opposite of a word, or what a young animal is called, and nothing else."""
    kind = rng.choice(("opposite", "opposite", "young"))
    wanted = "opposites" if kind == "opposite" else "young"
    relation, = (relation for relation in skills_everyday.ASKED if relation.name == wanted)
    fact = rng.choice(relation.known)
    asked = fact.own["x"] if kind == "opposite" else fact.own["one"]
    check = fact_check(fact.values, rivals=everyday.rivals(relation, fact))
    return chat(_order(rng, "answer", kind, test, w=asked), _alone(fact.values[0])), check


# ---- things to do with words
def _times(rng: Random, world: World, test: bool) -> Made:
    number, name = rng.choice(TIMES)
    chance = rng.random()
    word = rng.choice("abcdefghklmnoprstuvwxyz") if chance < 0.25 else some_thing(rng, WORDS)
    if chance > 0.85:
        word = rng.choice(REPEATED)
    while True:
        shown = rng.choice((name, str(number)))
        order = _order(rng, "words", "times", test, copied=True, w=word, n=shown)
        if len(word) == 1 or "the letter" not in order:
            break
    if word[0].isalpha() and len(word) == 1 and "the word" in order:
        order = order.replace("the word", "the letter")
    return said_times(order, word, number)


def _one_of_them(rng: Random, world: World, test: bool) -> Made:
    """The first, the second or the last word of a sentence."""
    kind = rng.choice(("first", "last", "last", "second"))
    text = a_sentence(rng, rng.random() < 0.6)
    word = text.split()[{"first": 0, "second": 1, "last": -1}[kind]]
    return chat(_order(rng, "words", kind, test, copied=True, t=text), word), _copy(word)


def _choice(rng: Random, world: World, test: bool) -> Made:
    first, second = _some_words(rng, 2)
    order = _order(rng, "words", "choose", test, copied=True, a=first, b=second)
    return chat(order, first), fact_check([first, second])


# ---- sentences, compliments, greetings
def _used(rng: Random, world: World, test: bool) -> Made:
    """A sentence with a word in it."""
    chance = rng.random()
    if chance < 0.2:
        word = rng.choice(USE["verbs"])
        answer = f"I like to {word}."
    elif chance < 0.4:
        word = rng.choice(USE["adjectives"])
        answer = f"The house is {word}."
    else:
        word, = _some_words(rng, 1)
        answer = f"I can see the {word}."
    shown = f'"{word}"' if rng.random() < 0.15 else word
    return chat(_order(rng, "use", "noun", test, copied=True, w=shown), answer), fact_check(word)


def _nice(rng: Random, world: World, test: bool) -> Made:
    """A kind word about the user, or about anything."""
    check: Check = {"kind": "any", "signs": ["wonderful"], "rivals": []}
    chance = rng.random()
    if chance < 0.25:
        return chat(_order(rng, "nice", "me", test), "You are wonderful! I like to talk with you."), check
    if chance < 0.65:
        asked, about = _of_yours(rng)
    elif chance < 0.85:
        asked = rng.choice(ORDERS["nice"]["things"])
        about = f"{asked} {'are' if asked.endswith('s') or asked in ('children', 'mice') else 'is'}"
    else:
        asked = some_name(rng)
        about = f"{asked} is"
    about = about[0].upper() + about[1:]
    return chat(_order(rng, "nice", "asked", test, copied=True, x=asked), f"{about} wonderful!"), check


def _of_yours(rng: Random) -> tuple[str, str]:
    """("my hair", "your hair is")"""
    kind = rng.choice(("yours one", "yours one", "yours more"))
    mine = rng.choice(ORDERS["nice"][kind])
    return f"my {mine}", f"your {mine} {'is' if kind == 'yours one' else 'are'}"


def _greeted(rng: Random, world: World, test: bool) -> Made:
    """Said to somebody: "wish Tom a good night" "Good night, Tom!" """
    said = rng.choice(tuple(ORDERS["greet"]))
    name = some_name(rng)
    wording = some_wording(rng, "orders greet", ORDERS["greet"][said], test)
    order = typed(rng, compose(rng, wording, {"x": name}), lower=False)
    return chat(order, said.format(x=name)), fact_check(said.partition(",")[0], name)


MAKERS = (
    (_one_word, 20), (_yes_or_no, 12), (_number_only, 7), (_known_pair, 6), (_times, 8), (_one_of_them, 7),
    (_choice, 4), (_used, 8), (_nice, 7), (_greeted, 5),
)
