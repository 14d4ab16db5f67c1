"""
Two questions in one message, each of which wants its answer: "What colour is grass, and where does Leo live?"

People who try a chat program do it at once, and a model that has only met single questions answers the last.
One of the two may be a sum, which is worked out first, and a greeting before a question is greeted.
"""
from random import Random

from nanochat.kindergarten import (
    skills_everyday,
    skills_manners,
    skills_numbers,
    skills_orders,
    skills_people,
    skills_world,
)
from nanochat.kindergarten.skill import Made, chat, draw, fact_check
from nanochat.kindergarten.world import World

MAKERS = (skills_world.facts_world, skills_everyday.facts_everyday, skills_everyday.facts_everyday,
          skills_people.facts_seen, skills_manners.manners)
JOINED_BY = (
    " ", " ", " And ", ", and ", " Also, ", "\n", " And another question: ", " and ", " Second question: ",
    " Oh, and ", " Then: ", "; ", " / ", " and also ", "\n\n", " Also tell me: ", " and then ",
    " And by the way, ", " and i also want to know: ", " Next: ", " My second question: ", ". ",
)
GREETINGS = ("hello", "morning", "evening", "meet you", "how are you", "thanks", "love you", "praise")


def two_questions(rng: Random, world: World, test: bool, level: int) -> Made:
    """Both questions, and both answers in their order."""
    chance = rng.random()
    if chance < 0.2:
        return _with_a_sum(rng, world, test)

    def make() -> tuple[str, str, list[list[str]]]:
        first = _greeting(rng, test) if chance < 0.35 else _one(rng, world, test, level)
        first_question, first_answer, first_needed = first
        question, answer, needed = _one(rng, world, test, level)
        return _joined(rng, first_question, question), f"{first_answer} {answer}", first_needed + needed

    question, answer, needed = draw(make, lambda made: ("two", skills_manners.plain(made[0])), test)
    return chat(question, answer), fact_check(*needed)


def _joined(rng: Random, first: str, second: str) -> str:
    joint = rng.choice(JOINED_BY)
    if joint[-1] == " " and second.split()[0].lower() in skills_orders.BEGINNINGS and rng.random() < 0.5:
        second = second[0].lower() + second[1:]
    if not joint.strip() or joint.strip()[0].isupper():
        return first + joint + second
    return first.rstrip("?.! ") + joint + second


def _greeting(rng: Random, test: bool) -> tuple[str, str, list[list[str]]]:
    """A remark with which people begin, in the same form as `_one`."""
    while True:
        (said, answered), check = skills_manners.remark(rng, test, rng.choice(GREETINGS))
        if "?" not in answered["content"]:  # nothing that asks back
            return said["content"], answered["content"], [check["signs"]]


def _with_a_sum(rng: Random, world: World, test: bool) -> Made:
    """The call of the calculator stands first, whatever is asked first."""
    def make() -> tuple[list, list[list[str]]]:
        (asked, worked_out), sum_check = skills_numbers.arithmetic(rng, world, test, 1)
        question, answer, needed = _one(rng, world, test, 1)
        *call, told = worked_out["content"]
        sum_first = rng.random() < 0.5
        questions = (asked["content"], question) if sum_first else (question, asked["content"])
        answers = f"{told['text']} {answer}" if sum_first else f"{answer} {told['text']}"
        message = [*call, {"type": "text", "text": answers}]
        return [_joined(rng, *questions), message], [[sum_check["answer"]], *needed]

    turns, needed = draw(make, lambda made: ("two", skills_manners.plain(made[0][0])), test)
    return chat(*turns), {**fact_check(*needed), "tool": True}


def _one(rng: Random, world: World, test: bool, level: int) -> tuple[str, str, list[list[str]]]:
    """(question, answer, what must be said: lists of acceptable values)"""
    while True:
        make = rng.choice(MAKERS)
        (asked, answered), check = make(rng, world, test, level)
        needed = check.get("need") or [check.get("signs") or [check.get("answer")]]
        answer = answered["content"]
        if len(asked["content"]) > 1 and "don't know" not in answer and " or " not in answer:
            return asked["content"], answer, needed
