"""
What the user told a few turns ago (remember.txt), and instructions to say something (recall.txt).

skills_social.memory is the older, narrower one. Here anything may be told in everybody's words, and asked for
at once, a few turns later, from another side, together with something else, or without having been told.
"""
import re
from random import Random

from nanochat.kindergarten import (
    skills_manners,
    skills_numbers,
    skills_orders,
    skills_remember,
    skills_tales,
    skills_world,
    tables,
)
from nanochat.kindergarten.skill import Check, Made, chat, draw, fact_check
from nanochat.kindergarten.skills_manners import chatted
from nanochat.kindergarten.skills_numbers import numbers_in, right_side, tool_turn
from nanochat.kindergarten.skills_reading import LONGEST, THINGS
from nanochat.kindergarten.skills_remember import AROUND, KINDS, REMEMBER, Asking, Fact
from nanochat.kindergarten.skills_words import looked_up, said_times
from nanochat.kindergarten.typist import typed
from nanochat.kindergarten.unlisted import some_name, some_thing
from nanochat.kindergarten.wording import compose
from nanochat.kindergarten.world import World

RECALL = tables.read("recall.txt")
NOT_TOLD = "You have not told me."
MAX_CHARS = 430  # of a whole conversation: about 150 tokens
ABOUT_ME = re.compile(r"\b(my|our|mine|i'm|im|we|i (am|come|live|have|feel|was|need|want|like|love|hate))\b")
BETWEEN = (skills_manners.manners, skills_manners.manners, skills_manners.manners, skills_numbers.arithmetic,
           skills_tales.tales, skills_world.facts_world)


# ---- remember what you are told
def recall(rng: Random, world: World, test: bool, level: int) -> Made:
    """Told one thing to three, perhaps something else in between, then asked for one."""
    while True:
        messages, check = _conversation(rng, world, test, level)
        longest = MAX_CHARS if test else LONGEST
        if sum(len(str(message["content"])) for message in messages) <= longest:
            return messages, check


def _conversation(rng: Random, world: World, test: bool, level: int) -> Made:
    small = rng.random() < 0.22
    if not test and rng.random() < 0.03:
        return _asked_of_nothing(rng, small)
    facts = _facts(rng, test, level, small)
    if len(facts) < 3 and rng.random() < 0.14:
        return _at_once(rng, facts, small)
    turns = _told(rng, facts, small)
    old: list[str] = []
    if skills_remember.can_change(facts[-1]) and rng.random() < 0.15:
        facts[-1] = _corrected(rng, facts[-1], turns, old, small)
    for _ in range(rng.choice((0, 0, 0, 0, 1, 1, 2, 3))):
        turns += _something_else(rng, world, level)
    if rng.random() < 0.1:
        other = skills_remember.unlike(rng, facts, test, small)
        asked = skills_remember.question_of_mine(rng, other)
        return chat(*turns, _asked(rng, asked, small), NOT_TOLD), _not_told()
    if rng.random() < (0.15 if test else 0.5):  # something is asked before
        for fact in facts[:1] if test else rng.sample(facts, len(facts)):
            first = skills_remember.question_about(rng, fact)
            turns += [_asked(rng, first, small), first.answered(rng)]
    return _last_question(rng, facts, turns, old, small, test)


def _facts(rng: Random, test: bool, level: int, small: bool) -> list[Fact]:
    """One to three facts that cannot be confused, the second of which may be of the same kind."""
    kinds = skills_remember.draw_kinds(rng, rng.choice((1, 1, 2) if level == 1 else (1, 1, 1, 2, 2, 3)))
    if len(kinds) == 2 and "twice" in KINDS[kinds[0]] and rng.random() < 0.6:
        kinds[1] = kinds[0]
    facts: list[Fact] = []
    for kind in kinds:
        facts.append(skills_remember.draw_fact(rng, kind, test, small, facts))
    return facts


def _clause(rng: Random, fact: Fact, small: bool, begins: bool = True) -> str:
    text = skills_remember.told(rng, fact)
    if begins and not small and rng.random() < 0.5:
        text = skills_remember.capitalised(text)
    return compose(rng, text.lower() if small else text, dict(fact.slots))


def _in_one_breath(rng: Random, facts: list[Fact], small: bool) -> str:
    said = _clause(rng, facts[0], small)
    for fact in facts[1:]:
        joint = rng.choice(AROUND["joint"])
        gap = "" if joint[0] in ".,!" else " "
        said += f"{gap}{joint} {_clause(rng, fact, small, begins=False)}"
    return said


def _told(rng: Random, facts: list[Fact], small: bool) -> list[str]:
    """What the user tells, in one message or in several, and the replies."""
    if len(facts) > 1 and rng.random() < 0.45:
        return [_in_one_breath(rng, facts, small), rng.choice(AROUND["reply"])]
    turns = []
    for fact in facts:
        text = skills_remember.remark(rng, skills_remember.told(rng, fact), small)
        if rng.random() < 0.08:
            text = _with_chatter(rng, text, small)
        turns += [compose(rng, text, dict(fact.slots)), _reply(rng, fact)]
    return turns


def _with_chatter(rng: Random, text: str, small: bool) -> str:
    """With a sentence before or after it that tells nothing."""
    chatter = rng.choice(AROUND["chatter"])
    chatter = chatter.lower() if small else chatter
    if rng.random() < 0.5:
        return f"{chatter} {text}"
    return f"{text if text[-1] in '.!?' else text + '.'} {chatter}"


def _reply(rng: Random, fact: Fact) -> str:
    replies = KINDS[fact.kind].get("reply", AROUND["reply"])
    return compose(rng, rng.choice(replies), dict(fact.slots))


def _corrected(rng: Random, fact: Fact, turns: list[str], old: list[str], small: bool) -> Fact:
    """Tells another value, to which `turns` and `old` are added; the new fact."""
    new = skills_remember.changed(rng, fact, small)
    adds = fact.kind in AROUND["adds"]  # who likes two things likes both
    if rng.random() < 0.3 and not adds:
        text = f"{rng.choice(('no,', 'sorry,', 'wait,', 'actually'))} {skills_remember.told(rng, new)}"
    else:
        piece = skills_remember.short(fact)
        text = rng.choice(REMEMBER["corrected"]["any"]).replace("{p}", piece)
        text = skills_remember.vary(rng, text)
    text = skills_remember.remark(rng, text, small)
    turns += [compose(rng, text, dict(new.slots)), rng.choice(AROUND["again"])]
    old.append(fact.slots["v"])
    return new


def _asked(rng: Random, question: Asking, small: bool) -> str:
    text = skills_remember.inquiry(rng, question.wording, small)
    return compose(rng, text, dict(question.fact.slots))


def _at_once(rng: Random, facts: list[Fact], small: bool) -> Made:
    """Told and asked in one message."""
    question = skills_remember.question_about(rng, rng.choice(facts))
    so = rng.choice(AROUND["so"])
    asked = question.wording
    if so in (".", "!"):
        asked = asked if small else skills_remember.capitalised(asked)
    gap = "" if so[0] in ".!," else " "
    text = f"{_in_one_breath(rng, facts, small)}{gap}{so if not small else so.lower()} "
    text += compose(rng, asked, dict(question.fact.slots)) + rng.choice(("?", "?", "?", ""))
    answer = question.answered(rng)
    return chat(text, answer), skills_remember.check_of([question], facts, answer)


def _last_question(rng: Random, facts: list[Fact], turns: list, old: list[str], small: bool,
                   test: bool) -> Made:
    """The question that counts: for one fact, for two, whether it is so, or how many together."""
    fact = facts[-1] if old else rng.choice(facts)
    table = KINDS[fact.kind]
    if "sum" in table and rng.random() < 0.4 and _can_be_summed(fact, test):
        return _sum(rng, fact, turns, small)
    if "right" in table and rng.random() < 0.15:
        return _right(rng, fact, turns, small)
    named = [one for one in facts if "mine" in KINDS[one.kind]]
    if len(named) == len(facts) and rng.random() < 0.08:
        return _all(rng, facts, turns, old, small)
    if len(named) > 1 and rng.random() < 0.4:
        return _both(rng, named[:2], facts, turns, small)
    question = skills_remember.question_about(rng, fact)
    if old and rng.random() < 0.8:
        question = skills_remember.first_question(rng, fact)
    answer = question.answered(rng)
    check = skills_remember.check_of([question], facts, answer, old)
    return chat(*turns, _asked(rng, question, small), answer), check


def _both(rng: Random, two: list[Fact], facts: list[Fact], turns: list, small: bool) -> Made:
    """ "Say my name and my age." """
    if rng.random() < 0.5:
        two = two[::-1]
    questions = [skills_remember.first_question(rng, fact) for fact in two]
    if rng.random() < 0.5:
        pieces = [rng.choice(KINDS[fact.kind]["mine"]) for fact in two]
        frame = skills_remember.vary(rng, rng.choice(REMEMBER["both"]["any"]))
        wordings = [compose(rng, piece, dict(fact.slots)) for piece, fact in zip(pieces, two)]
        text = frame.replace("{a}", wordings[0]).replace("{b}", wordings[1])
    else:
        wordings = [compose(rng, question.wording, dict(question.fact.slots)) for question in questions]
        text = " and ".join(wordings) + "?"
    if not small and rng.random() < 0.5:
        text = skills_remember.capitalised(text)
    answers = [question.answered(rng) for question in questions]
    answer = f"{answers[0].rstrip('.')} and {answers[1][0].lower()}{answers[1][1:]}"
    check = skills_remember.check_of(questions, facts, answer)
    return chat(*turns, text.lower() if small else text, answer), check


def _all(rng: Random, facts: list[Fact], turns: list, old: list[str], small: bool) -> Made:
    """ "What do you know about me?" """
    asked = skills_remember.vary(rng, rng.choice(REMEMBER["all"]["asked"]))
    questions = [skills_remember.first_question(rng, fact) for fact in facts]
    answer = " ".join(question.answered(rng) for question in questions)
    check = skills_remember.check_of(questions, facts, answer, old)
    return chat(*turns, skills_remember.inquiry(rng, asked, small), answer), check


def _right(rng: Random, fact: Fact, turns: list, small: bool) -> Made:
    """ "Is my name Zoe?", "Is my name Zoe or Mia?" """
    right = fact.slots["v"]
    wrong = skills_remember.changed(rng, fact, small).slots["v"]
    wording = skills_remember.vary(rng, rng.choice(KINDS[fact.kind]["right"]))
    answer = skills_remember.first_question(rng, fact).answered(rng)
    if rng.random() < 0.3:
        both = " or ".join(rng.sample((right, wrong), 2))
        asked = compose(rng, skills_remember.inquiry(rng, wording, small), {**fact.slots, "x": both})
        return chat(*turns, asked, answer), fact_check(right, rivals=[wrong])
    is_so = rng.random() < 0.5
    asked = compose(rng, skills_remember.inquiry(rng, wording, small),
                    {**fact.slots, "x": right if is_so else wrong})
    if answer.split()[0] in ("Your", "You", "The", "It"):
        answer = answer[0].lower() + answer[1:]
    said = "Yes" if is_so else "No"
    return chat(*turns, asked, f"{said}, {answer}"), {"kind": "yes_no", "answer": said.lower()}


def _sum_of(fact: Fact) -> str:
    """What is to be calculated: "v+1" with the values of the fact."""
    code = KINDS[fact.kind].get("code", ["x+y"])[0]
    return re.sub("[a-z]", lambda slot: fact.slots[slot[0]], code)


def _can_be_summed(fact: Fact, test: bool) -> bool:
    code = _sum_of(fact)
    return code.replace("+", "").isdigit() and right_side(numbers_in(code), test)


def _sum(rng: Random, fact: Fact, turns: list, small: bool) -> Made:
    """How many cats and dogs together, how old next year: for the calculator."""
    code = _sum_of(fact)
    total = skills_numbers.calculate(code)
    wording = skills_remember.vary(rng, rng.choice(KINDS[fact.kind]["sum"]))
    asked = compose(rng, skills_remember.inquiry(rng, wording, small), dict(fact.slots))
    reply = compose(rng, KINDS[fact.kind]["total"][0], {**fact.slots, "z": total})
    given = [str(number) for number in numbers_in(code)]
    check = {"kind": "number", "answer": total, "given": given, "tool": True}
    return chat(*turns, asked, tool_turn(code, reply)), check


def _not_told() -> Check:
    return {"kind": "any", "signs": ["not told me"], "rivals": []}


def _asked_of_nothing(rng: Random, small: bool) -> Made:
    """Asked without any telling before."""
    fact = skills_remember.unlike(rng, [], False, small)
    return chat(_asked(rng, skills_remember.question_of_mine(rng, fact), small), NOT_TOLD), _not_told()


def _something_else(rng: Random, world: World, level: int) -> list:
    """What is said in between: a remark, a sum, a joke, a fact; nothing that tells about the user."""
    while True:
        make = rng.choice(BETWEEN)
        messages, _ = make(rng, world, False, level)
        if not ABOUT_ME.search(str(messages[0]["content"]).lower()):
            return [message["content"] for message in messages]


# ---- say what you are told
SAY = RECALL["say"]
SHORT_REPLIES = ("ok", "yes", "no", "hello", "done", "hi", "ready", "okay", "good morning", "I am here",
                 "bye", "thank you", "hooray", "sure", "42", "7", "yes sir", "all good", "no problem")
SAY_WEIGHTS = [{"as it is": 60, "upper": 14, "hello": 5}.get(how, 4) for how in SAY]


def instructions(rng: Random, world: World, test: bool, level: int) -> Made:
    """To say, copy, repeat or write in capitals some words that may never have been seen."""
    def make() -> str:
        pool = rng.choice((tables.WORDS, tables.NAMES, THINGS, tables.MEALS))
        if rng.random() < 0.35:
            said = skills_orders.a_sentence(rng, rng.random() < 0.7)
            said = said[0].upper() + said[1:] if rng.random() < 0.4 else said
            return said + rng.choice(("", "", ".", "!"))
        if rng.random() < 0.12:
            return rng.choice(SHORT_REPLIES)
        return " ".join(some_thing(rng, pool) for _ in range(rng.choice((1, 1, 1, 2, 3))))

    text = draw(make, lambda made: ("copying", made.lower().rstrip(".!")), test)
    how = rng.choices(tuple(SAY), SAY_WEIGHTS)[0]
    if how.isdigit() and len(text.split()) > 3:  # too long to be said five times
        how = "as it is"
    wording = rng.choice(SAY[how])
    if how != "as it is" or not wording.rstrip("\"'").endswith("{t}"):
        text = text.rstrip(".!")
    if how == "hello":
        text = draw(lambda: some_name(rng), lambda made: ("copying", made.lower()), test)
    shown = rng.choice((text, text.upper(), text.title())) if how == "lower" else text
    question = compose(rng, wording, {"t": shown, "nl": "\n"})
    if how == "hello":
        return chat(chatted(rng, question), f"Hello {text}!"), fact_check("hello", text)
    if how in ("upper", "lower"):
        changed = text.upper() if how == "upper" else text.lower()
        check = {"kind": "exactly", "text": changed}
        asked = typed(rng, question, lower=False)
        if "'" in shown or shown not in asked:  # what the calculator could not be given
            return chat(asked, changed), check
        return looked_up(asked, f"' {shown}'.{how}()", f" {changed}"), check
    if rng.random() < 0.5 and not wording.startswith("{t}"):
        question = question[0].upper() + question[1:]
    if how.isdigit() and "'" not in text:
        return said_times(question, text, int(how))
    times = 1 if how == "as it is" else int(how)
    answer = " ".join([text] * times)
    return chat(question, answer), {"kind": "copy", "text": answer}
