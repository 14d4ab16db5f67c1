"""
Two questions in one message, each of which wants its answer: "What colour is grass, and where does Leo live?"

People who try a chat program do it at once, and a model that has only met single questions answers the last.
"""
from random import Random

from nanochat.kindergarten import skills_everyday, skills_manners, skills_people, skills_world
from nanochat.kindergarten.skill import Made, chat, draw, fact_check
from nanochat.kindergarten.world import World

MAKERS = (skills_world.facts_world, skills_everyday.facts_everyday, skills_people.facts_seen,
          skills_manners.manners)
JOINED_BY = (" ", " ", " And ", ", and ", " Also, ", "\n", " And another question: ", " and ")


def two_questions(rng: Random, world: World, test: bool, level: int) -> Made:
    """Both questions, and both answers in their order."""
    def make() -> tuple[str, str, list[list[str]]]:
        first_question, first_answer, first_needed = _one(rng, world, test, level)
        question, answer, needed = _one(rng, world, test, level)
        joint = rng.choice(JOINED_BY)
        if joint.strip() in ("and", ", and"):
            first_question = first_question.rstrip("?.! ")
        return first_question + joint + question, f"{first_answer} {answer}", first_needed + needed

    question, answer, needed = draw(make, lambda made: ("two", skills_manners.plain(made[0])), test)
    return chat(question, answer), fact_check(*needed)


def _one(rng: Random, world: World, test: bool, level: int) -> tuple[str, str, list[list[str]]]:
    """(question, answer, what must be said: lists of acceptable values)"""
    while True:
        make = rng.choice(MAKERS)
        (asked, answered), check = make(rng, world, test, level)
        needed = check.get("need") or [check.get("signs") or [check.get("answer")]]
        answer = answered["content"]
        if len(asked["content"]) > 1 and "don't know" not in answer and " or " not in answer:
            return asked["content"], answer, needed
