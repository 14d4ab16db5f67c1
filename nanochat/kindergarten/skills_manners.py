"""
Small talk as strangers make it, and what the model is not, cannot see and cannot do (manners.txt).

skills_social.py holds the older, narrower greetings; here the wordings are composed. What people say to a
chat program first is seldom a question, and a model that has not met "lol", "asdf" or "are you ChatGPT?"
answers with whatever stands nearest: an invented person.
"""
import re
from random import Random

from nanochat.kindergarten.skill import Made, chat, draw
from nanochat.kindergarten.skills_people import UNKNOWN
from nanochat.kindergarten.skills_social import POLITE
from nanochat.kindergarten.typist import typed
from nanochat.kindergarten.wording import MANNERS, compose
from nanochat.kindergarten.world import World

ASKS = re.compile(r"(^|, |^and |^so )(who|what|what's|whats|where|when|how|hows|why|which|are|do|did|can|"
                  r"could|may|is|am|will|should|would|have|r) ")
INTENTS = {title: table for title, table in MANNERS.items() if title != "fill"}
ABOUT_ITSELF = ("who", "name", "other bots", "maker", "human", "abilities", "size", "age", "home",
                "favourites")
CANNOT = ("weather", "time", "news", "private", "cannot", "languages", "advice",
          "unknown", "unknown", "unknown")  # the widest


def plain(said: str) -> str:
    """What was said without capitals and marks, and with "is" written out."""
    bare = re.sub("[^a-z0-9 ]", "", said.lower()).strip()
    return re.sub(r"\b(what|who|where|how|when|wat)s\b", r"\1 is", bare)


def _wordings_of_skills_social(side: str) -> set[str]:
    return {plain(said) for rows in POLITE.values() for row in rows for said in row[side]}


ASKED_OF_UNKNOWN = {plain(question) for question in UNKNOWN["question"]["about"]}
ASKED_IN_TESTS = _wordings_of_skills_social("in tests") | ASKED_OF_UNKNOWN  # not trained here
TRAINED_ELSEWHERE = _wordings_of_skills_social("said") | ASKED_OF_UNKNOWN  # no test of ours


def manners(rng: Random, world: World, test: bool, level: int) -> Made:
    """One remark and a fitting answer."""
    def make() -> tuple[str, str, dict[str, str]]:
        title = _title(rng)
        filled: dict[str, str] = {}
        return title, compose(rng, rng.choice(INTENTS[title]["said"]), filled), filled

    title, said, filled = draw(make, lambda made: ("manners", plain(made[1])), test)
    elsewhere = TRAINED_ELSEWHERE if test else ASKED_IN_TESTS
    while plain(said) in elsewhere:
        title, said, filled = draw(make, lambda made: ("manners", plain(made[1])), test)
    answer = compose(rng, rng.choice(INTENTS[title]["answer"]), filled)
    check = {"kind": "any", "signs": INTENTS[title]["signs"], "rivals": []}
    return chat(chatted(rng, said), answer), check


def _title(rng: Random) -> str:
    chance = rng.random()
    if chance < 0.3:
        return rng.choice(ABOUT_ITSELF)
    if chance < 0.55:
        return rng.choice(CANNOT)
    return rng.choice(tuple(INTENTS))


def chatted(rng: Random, said: str) -> str:
    """With the capitals and marks of one who writes well, or without."""
    if rng.random() < 0.35:
        return said
    if not said[-1].isalnum():  # it has its marks already
        return said
    if ASKS.search(said):
        said += rng.choice(("?", "?", "?", "?", "", "??"))
    else:
        said += rng.choice((".", "!", "", "", "!!", "..."))
    if rng.random() < 0.6:
        said = re.sub(r"\bi\b", "I", said[0].upper() + said[1:])
    return typed(rng, said) if rng.random() < 0.3 else said
