"""
Stories, poems and jokes on request (tales.txt).

TinyStories (arXiv 2305.07759) showed how little a model needs to tell a story if the world in it is small.
Here a story is four sentences, each drawn from its own list, about whatever was asked for: the subject has
to be carried from the question into the answer, which is the part that has to be learned.
"""
from random import Random

from nanochat.kindergarten import nature, tables
from nanochat.kindergarten.phrases import with_article
from nanochat.kindergarten.skill import Check, Made, chat, draw
from nanochat.kindergarten.skills_manners import chatted, plain
from nanochat.kindergarten.unlisted import some_name, some_thing
from nanochat.kindergarten.wording import compose
from nanochat.kindergarten.world import World

TALES = tables.read("tales.txt")
SUBJECTS = TALES["things"]["x"][0].split()
PLACES = TALES["things"]["place"][0].split()
THINGS = TALES["things"]["thing"][0].split()
NAMED = 0.2  # part of the stories about somebody by name


def tales(rng: Random, world: World, test: bool, level: int) -> Made:
    """A request for a story, a poem, a joke or a fact, and what was asked for."""
    kind = rng.choices(("story", "poem", "joke", "fact"), (10, 4, 4, 1.5))[0]
    return tale(rng, kind, test)


def tale(rng: Random, kind: str, test: bool) -> Made:
    """A request for a "story", "poem", "joke" or "fact"."""
    if kind == "story":
        return story_about(rng, test)
    if kind == "poem":
        return _poem(rng, test)
    if kind == "joke":
        joke = rng.choice(TALES["joke"]["whole"])
        return chat(_asked(rng, "ask joke", "any", test), joke), _check()
    fact = rng.choice(nature.FACTS)
    return chat(_asked(rng, "ask fact", "any", test), f"Did you know? {fact.told[0]}"), _check()


def _asked(rng: Random, title: str, key: str, test: bool, filled: dict[str, str] | None = None) -> str:
    """A composed request on one side of the split."""
    wordings = TALES[title][key]
    request = draw(lambda: compose(rng, rng.choice(wordings), filled),
                   lambda made: ("tales", plain(made)), test)
    return chatted(rng, request)


def _check(about: str = "") -> Check:
    return {"kind": "tale", "about": about}


def story_about(rng: Random, test: bool) -> Made:
    """Four sentences about the thing, animal or person asked for, or about one of its own choice."""
    filled = {"place": rng.choice(PLACES), "thing": rng.choice(THINGS), "name": some_name(rng)}
    subject = some_thing(rng, SUBJECTS)
    filled.update(x=subject, a_x=with_article(subject))
    if rng.random() < 0.3:
        question = _asked(rng, "ask story", "any", test)
        return chat(question, _story(rng, filled)), _check()
    about = subject
    if rng.random() < NAMED:
        about = filled["name"]
        question = _asked(rng, "ask story", "animal", test, {**filled, "x": about, "a_x": about})
    else:
        question = _asked(rng, "ask story", "animal", test, dict(filled))
    return chat(question, _story(rng, filled)), _check(about)


def _story(rng: Random, filled: dict[str, str]) -> str:
    told = []
    for part in ("begin", "wish", "try", "end"):
        told.append(compose(rng, rng.choice(TALES["story"][part]), filled))
    return " ".join(told)


def _poem(rng: Random, test: bool) -> Made:
    subject = some_thing(rng, SUBJECTS)
    filled = {"x": subject, "a_x": with_article(subject)}
    poem = compose(rng, rng.choice(TALES["poem"]["whole"]), filled)
    poem = poem[0].upper() + poem[1:]
    if rng.random() < 0.3:
        return chat(_asked(rng, "ask poem", "any", test), poem), _check()
    return chat(_asked(rng, "ask poem", "about", test, filled), poem), _check(subject)
