"""
Stories, poems, jokes, riddles and facts on request (tales.txt).

TinyStories (arXiv 2305.07759) showed how little a model needs to tell a story if the world in it is small.
Here a story is a whole plot of three to five sentences that follow from each other, with slots for whatever
was asked for: who it is about, the name, the place, what the hero fears, wants or lost. All of that has to be
carried from the question into the answer, which is the part that has to be learned.
"""
import re
from collections.abc import Iterable, Sequence
from random import Random
from typing import Any, NamedTuple

from nanochat.common import mix_seed
from nanochat.kindergarten import everyday, nature, tables
from nanochat.kindergarten.phrases import with_article
from nanochat.kindergarten.skill import Check, Made, chat, is_test, weighted
from nanochat.kindergarten.skills_manners import chatted, plain
from nanochat.kindergarten.unlisted import is_rude, made_up_word, some_name
from nanochat.kindergarten.wording import compose
from nanochat.kindergarten.world import World

TALES = tables.read("tales.txt")
ASK_STORY = TALES["ask story"]
PLOTS = {kind: list(table.values()) for kind, table in tables.titled("tales.txt", "plots").items()}
HEROES = {noun: he for he in ("it", "he", "she") for noun in " ".join(TALES["heroes"][he]).split()}
NAMES = {he: " ".join(TALES["names"][he]).split() for he in ("he", "she")}
SHORT_NAMES = " ".join(TALES["names"]["short"]).split()
PRONOUNS = {"it": ("it", "it", "its"), "he": ("he", "him", "his"), "she": ("she", "her", "her")}
MADE_UP = {key: " ".join(values).split() for key, values in TALES["made of"].items()}
PHRASES = TALES["phrases"]
TOPICS = TALES["topics"]
POEM_WORDS = {key: " ".join(values).split() for key, values in TALES["poem about"].items()}
OWN = 4  # plots, places or things of a letter
TRIES = 200  # until a filling counts as one that has no request on a side of the split
INVENTED = 0.1  # part of the subjects, which mean nothing
ADJECTIVES = 0.2  # part of the subjects that are little, brave or blue
NAMED_BY_ITSELF = 0.4  # part of the heroes whose name nobody asked for
LIKE_HER = ("a", "e", "i", "y")  # how a name ends that is told with "she"
CONTINUED = re.compile(r"\bonce upon a time there (was|lived)\b|\b(long ago|once) there lived\b")
_BEGINNING = re.compile(r"(?:^|(?<=[.!?] ))[a-z]")


class _NoneOnThisSideError(Exception):
    """All requests that these wordings and fillings allow lie on the other side of the split."""


class Hero(NamedTuple):
    noun: str  # "fox"
    asked: str  # "a brown fox"
    intro: str  # "a brown fox called Tim"
    short: str  # "the fox", or "Tim"
    he: str  # "he", "she" or "it"

    def slots(self, after: str = "") -> dict[str, str]:
        """What fills a plot; the slots of the second hero end in 2."""
        _, him, his = PRONOUNS[self.he]
        return {"intro" + after: self.intro, "hero" + after: self.short, "he" + after: self.he,
                "him" + after: him, "his" + after: his}


def tales(rng: Random, world: World, test: bool, level: int) -> Made:
    """A request for something to hear or to read, and what was asked for."""
    kind = rng.choices(tuple(KINDS), (11, 4, 4, 1.5, 2, 1.5, 2.5))[0]
    return tale(rng, kind, test)


def tale(rng: Random, kind: str, test: bool) -> Made:
    """A request for a "story", "poem", "joke" or whatever else is in KINDS."""
    while True:
        try:
            return KINDS[kind](rng, test)
        except _NoneOnThisSideError:
            continue


def _request(rng: Random, wordings: list[str], filled: dict[str, str], test: bool) -> str:
    """A composed request on one side of the split, not yet typed."""
    for _ in range(TRIES):
        request = compose(rng, rng.choice(wordings), dict(filled))
        if is_test("tales", plain(request)) == test:
            return request
    raise _NoneOnThisSideError


def _check(about: str = "") -> Check:
    return {"kind": "tale", "about": about}


def _with_article(noun: str) -> str:
    return f"a {noun}" if noun.startswith("uni") else with_article(noun)


def _with_capitals(text: str) -> str:
    return _BEGINNING.sub(lambda letter: letter[0].upper(), text)


# ---- who a story is about
def _subject(rng: Random, unlike: str = "") -> str:
    """A noun of the list, or one that means nothing."""
    while True:
        if rng.random() < INVENTED:
            noun = made_up_word(rng)
            if 3 <= len(noun) <= 9 and not is_rude(noun):
                return noun
        else:
            noun = rng.choice(tuple(HEROES))
            if noun != unlike:
                return noun


def _hero(rng: Random, noun: str, name: str = "", own_name: bool = True) -> Hero:
    """Somebody or something, with an adjective now and then; the name is one that was asked for, or none."""
    he = HEROES.get(noun, "it")
    described = noun
    if rng.random() < ADJECTIVES:
        described = f"{rng.choice(MADE_UP['adjective'])} {noun}"
    asked = _with_article(described)
    if own_name and not name and noun in HEROES and rng.random() < NAMED_BY_ITSELF:
        names = SHORT_NAMES if he == "it" else [one for one in NAMES[he] if len(one) < 6]
        name = rng.choice(own(names, noun))
    if not name:
        return Hero(noun, asked, asked, f"the {noun}", he)
    return Hero(noun, asked, f"{asked} called {name}", name, he)


def _person(name: str, he: str) -> Hero:
    noun = "girl" if he == "she" else "boy"
    return Hero(noun, name, f"a {noun} called {name}", name, he)


def _named_person(rng: Random, he: str = "") -> Hero:
    """A girl or boy with a listed name, or with an invented one, whose end says which."""
    he = he or rng.choice(("he", "she"))
    name = some_name(rng, NAMES[he])
    if name not in NAMES[he]:
        he = "she" if name.endswith(LIKE_HER) else "he"
    return _person(name, he)


# ---- stories
def story_about(rng: Random, test: bool) -> Made:
    """A story about whatever is asked for, or about something of its own choice."""
    make = weighted(rng, STORIES)
    return make(rng, test)


def _of_its_own_choice(rng: Random, test: bool) -> Made:
    request = _request(rng, ASK_STORY["any"], {}, test)
    hero = _hero(rng, rng.choice(own(tuple(HEROES), "story")))
    kind = rng.choice(("any", "any", "any", "fear", "learn", "go", "lost", "alone", "awake", "found"))
    return _story(rng, request, kind, hero.slots() | _fillers(rng, hero), test)


def _about_something(rng: Random, test: bool) -> Made:
    """About a thing, an animal or a person of the list, or about what means nothing."""
    hero = _hero(rng, _subject(rng))
    wordings = ASK_STORY["plain"] if rng.random() < 0.15 and hero.asked == hero.intro else ASK_STORY["about"]
    described = hero.asked.split(" ", 1)[1]
    request = _request(rng, wordings, {"a_x": hero.asked, "x": described}, test)
    return _story(rng, request, "any", hero.slots() | _fillers(rng, hero), test, hero.noun)


def _about_two(rng: Random, test: bool) -> Made:
    if rng.random() < 0.25:
        he = rng.choice(("he", "she"))
        other_he = rng.choice(("he", "she"))
        first = _person(rng.choice(NAMES[he]), he)
        second = _person(rng.choice(NAMES[other_he]), other_he)
        while second.short == first.short:
            second = _person(rng.choice(NAMES[other_he]), other_he)
        wordings = [wording for wording in ASK_STORY["and"] if "{x}" not in wording]
        asked = {"a_x": first.short, "a_y": second.short}
    else:
        noun = _subject(rng)
        first = _hero(rng, noun, own_name=False)
        second = _hero(rng, _subject(rng, unlike=noun), own_name=False)
        wordings = ASK_STORY["and"]
        asked = {"a_x": first.asked, "a_y": second.asked, "x": first.noun, "y": second.noun}
    request = _request(rng, wordings, asked, test)
    slots = first.slots() | second.slots("2") | {"other": second.short} | _fillers(rng, first, second)
    about = first.short if first.asked == first.short else first.noun
    return _story(rng, request, "two", slots, test, about)


def _about_named(rng: Random, test: bool) -> Made:
    """About an animal or a thing that has a name, or about a girl or boy."""
    if rng.random() < 0.5:
        hero = _named_person(rng)
        request = _request(rng, ASK_STORY["person"], {"name": hero.short}, test)
        return _story(rng, request, "any", hero.slots() | _fillers(rng, hero), test, hero.short)
    noun = _subject(rng)
    listed = NAMES[HEROES[noun]] if HEROES.get(noun) in NAMES else [*SHORT_NAMES, *POEM_WORDS["name"]]
    hero = _hero(rng, noun, some_name(rng, listed))
    asked = {"a_x": hero.asked, "x": hero.noun, "name": hero.short}
    request = _request(rng, ASK_STORY["named"], asked, test)
    return _story(rng, request, "any", hero.slots() | _fillers(rng, hero), test, hero.short)


def _about_family(rng: Random, test: bool) -> Made:
    """ "A bedtime story for my daughter Amelie": it is told of her."""
    he = rng.choice(("he", "she"))
    name = some_name(rng, NAMES[he])
    hero = _person(name, he)
    slot = {"he": "his_name", "she": "her_name"}[he]
    wordings = [wording for wording in ASK_STORY["family"] if slot in wording]
    request = _request(rng, wordings, {slot: name}, test)
    return _story(rng, request, "any", hero.slots() | _fillers(rng, hero), test, name)


def _about_somewhere(rng: Random, test: bool) -> Made:
    """With the place where it lives, which is told as it was asked."""
    hero = _hero(rng, _subject(rng))
    at = rng.choice(PHRASES["where"])
    request = _request(rng, ASK_STORY["lived"], {"a_x": hero.asked, "at": at}, test)
    hero = hero._replace(intro=f"{hero.intro} who lived {at}")
    slots = hero.slots() | _fillers(rng, hero)
    return _story(rng, request, "any", slots, test, hero.noun, whole=True)


def _about_trait(rng: Random, test: bool) -> Made:
    """About one who fears, wants, lost, likes or found something."""
    kind = rng.choices(tuple(TALES["traits"]), (3, 3, 3, 3, 1.5, 1.5, 1, 2, 2))[0]
    hero = _hero(rng, _subject(rng)) if rng.random() < 0.85 else _named_person(rng)
    fillers = _fillers(rng, hero, asked=True)
    trait = compose(rng, rng.choice(TALES["traits"][kind]),
                    fillers | {"his": rng.choice((PRONOUNS[hero.he][2], "its" if hero.he == "it" else "their",
                                                  "his" if hero.he == "it" else PRONOUNS[hero.he][2]))})
    asked = hero.intro if rng.random() < 0.3 or hero.asked == hero.short else hero.asked
    about = hero.short if asked == hero.intro and asked.endswith(hero.short) else hero.noun
    request = _request(rng, ASK_STORY["about"], {"a_x": f"{asked} {trait}"}, test)
    return _story(rng, request, kind, hero.slots() | fillers, test, about, whole=True)


def _about_topic(rng: Random, test: bool) -> Made:
    topic = rng.choice(tuple(TOPICS))
    wordings = ASK_STORY["plain"] if " " not in topic else ASK_STORY["about"]
    request = _request(rng, wordings, {"x": topic, "a_x": topic}, test)
    return chat(chatted(rng, request), " ".join(TOPICS[topic])), _check()


STORIES = (
    (_of_its_own_choice, 3), (_about_something, 4), (_about_two, 2.5), (_about_named, 2.5),
    (_about_family, 2), (_about_somewhere, 1.5), (_about_trait, 5), (_about_topic, 0.7),
)


def own(values: Sequence[Any], hero: str) -> list[Any]:
    """A few of the values, which ones the hero's first letter says.

    Who always takes the likeliest word would tell of a fox, a robot and a queen what happens to most, and
    where hundreds of things are as likely, would begin one and end another. So each has a few of its own.
    """
    letter = hero.removeprefix("the ")[0].lower()
    return sorted(values, key=lambda value: mix_seed("own", letter, value))[:OWN]


def _fillers(rng: Random, *heroes: Hero, asked: bool = False) -> dict[str, str]:
    """A place, a thing and a helper that are none of the heroes, and what may be feared, wanted and eaten.

    `asked`: whoever asks names some of it, so it may be anything.
    """
    nouns = {hero.noun for hero in heroes}

    def one(values: Iterable[str]) -> str:
        fitting = [value for value in values if nouns.isdisjoint(re.findall("[a-z]+", value))]
        return rng.choice(fitting if asked else own(fitting, heroes[0].short))

    return {
        "place": one(MADE_UP["place"]), "thing": one(MADE_UP["thing"]), "helper": one(MADE_UP["helper"]),
        "at": one(PHRASES["near"]), "fear": one(PHRASES["fear"]), "learn": one(PHRASES["learn"]),
        "go": one(PHRASES["go"]), "food": one(PHRASES["food"]),
    }


def _story(rng: Random, request: str, kind: str, slots: dict[str, str], test: bool, about: str = "",
           whole: bool = False) -> Made:
    """A plot of this kind as the answer; `whole`: with its first sentence, even if the request began it."""
    goes_on = bool(CONTINUED.search(request)) and kind == "any" and not whole
    plots = [plot for plot in PLOTS[kind] if _fits(plot, slots)]
    asked = ""
    if goes_on:
        if about not in slots["hero"]:  # it was not called Tim in the sentence that the story goes on from
            slots = {**slots, "hero": f"the {about}"}
        plots = [plot for plot in plots if len(plot) > 3 and "{hero}" in plot[1]]
    elif rng.random() < 0.2 and "." not in request and not CONTINUED.search(request):
        asked = rng.choice([number for number in TALES["in sentences"]
                            if number == "any" or any(len(plot) == int(number) for plot in plots)])
        request = compose(rng, request + " " + rng.choice(TALES["in sentences"][asked]), {})
    if asked.isdigit():
        plots = [plot for plot in plots if len(plot) == int(asked)]
    plot = rng.choice(own(plots, slots["hero"]))
    told = compose(rng, " ".join(plot[1:] if goes_on else plot), dict(slots))
    return chat(chatted(rng, request), _with_capitals(told)), _check(about)


def _fits(plot: list[str], slots: dict[str, str]) -> bool:
    """Whether nobody in the plot is called as its heroes are: a king who gives the king his crown."""
    said = set(re.findall("[a-z]+", re.sub(r"{\w+}", "", " ".join(plot)).lower()))
    heroes = re.findall("[a-z]+", f"{slots['hero']} {slots.get('other', '')}".replace("the ", ""))
    return said.isdisjoint(heroes)


# ---- poems and lines
def _forms(noun: str) -> dict[str, str]:
    """{x}, {xs} and {a_x} of a wording."""
    several = noun.removesuffix("man") + "men" if noun.endswith("man") else everyday.plural(noun)
    return {"x": noun, "xs": several, "a_x": _with_article(noun)}


def _poem(rng: Random, test: bool) -> Made:
    """About a thing, a topic or a named pet, or about something of its own choice."""
    kind = rng.choices(("about", "topic", "named", "any"), (4, 2.5, 2.5, 3))[0]
    noun = _subject(rng) if kind != "any" else rng.choice(own(tuple(HEROES), "poem"))
    pet = rng.choice(POEM_WORDS["pet"])
    filled = {**_forms(noun), "t": rng.choice(POEM_WORDS["topic"]), "pet": pet,
              "name": some_name(rng, POEM_WORDS["name"])}
    poems = {"about": "x", "topic": "t", "named": "named"}.get(kind, "x")
    about = {"about": noun, "topic": filled["t"], "named": filled["name"]}.get(kind, "")
    request = _request(rng, TALES["ask poem"][kind], filled, test)
    poem = compose(rng, rng.choice(TALES["poem"][poems]), dict(filled))
    return chat(chatted(rng, request), _with_capitals(poem)), _check(about)


def _line(rng: Random, test: bool) -> Made:
    """The beginning of a rhyme or saying that everybody knows, and how it goes on."""
    if rng.random() < 0.2:
        title = rng.choice(tuple(TALES["songs"]))
        request = _request(rng, TALES["ask line"]["sing"], {"title": title}, test)
        answer = TALES["songs"][title][0]
    else:
        line = rng.choice(tuple(TALES["lines"]))
        request = _request(rng, TALES["ask line"]["frames"], {"line": line}, test)
        answer = TALES["lines"][line][0]
    return chat(chatted(rng, request), answer), {"kind": "any", "signs": [answer], "rivals": []}


# ---- jokes, riddles and facts
def _jokes_about() -> dict[str, list[str]]:
    """{noun: the jokes that speak of it}"""
    found: dict[str, list[str]] = {}
    for joke in TALES["joke"]["whole"]:
        for noun in HEROES:
            if re.search(rf"\b{noun}s?\b", joke):
                found.setdefault(noun, []).append(joke)
    return found


JOKES_ABOUT = _jokes_about()


def _joke(rng: Random, test: bool) -> Made:
    kind = rng.choices(("any", "about", "knock"), (6, 2, 1))[0]
    if kind == "about":
        noun = rng.choice(tuple(JOKES_ABOUT))
        request = _request(rng, TALES["ask joke"]["about"], _forms(noun), test)
        return chat(chatted(rng, request), rng.choice(JOKES_ABOUT[noun])), _check(noun)
    request = _request(rng, TALES["ask joke"][kind], {}, test)
    joke = rng.choice(TALES["joke"]["knock" if kind == "knock" else "whole"])
    return chat(chatted(rng, request), joke), _check()


def _riddle(rng: Random, test: bool) -> Made:
    request = _request(rng, TALES["ask riddle"]["any"], {}, test)
    return chat(chatted(rng, request), rng.choice(TALES["riddle"]["whole"])), _check()


def _fact(rng: Random, test: bool) -> Made:
    """ "Did you know?" and something that is true, of anything or of what was asked for."""
    if rng.random() < 0.5:
        request = _request(rng, TALES["ask fact"]["any"], {}, test)
        fact = rng.choice(TALES["fact"]["whole"])
        if rng.random() < 0.3:
            fact = rng.choice(nature.FACTS).told[0]
        return chat(chatted(rng, request), f"Did you know? {fact}"), _check()
    subject = rng.choice(tuple(TALES["sentences"]))
    request = _request(rng, TALES["ask fact"]["about"], {"s": subject}, test)
    fact = TALES["sentences"][subject][0]
    return chat(chatted(rng, request), f"Did you know? {fact}"), _said(fact)


def _sentences(rng: Random, test: bool) -> Made:
    """One to three sentences about winter, dogs, the sea."""
    subject = rng.choice(tuple(TALES["sentences"]))
    number = rng.choice(("1", "2", "2", "3", "3"))
    request = _request(rng, TALES["ask sentences"][number], {"s": subject}, test)
    told = TALES["sentences"][subject][:int(number)]
    return chat(chatted(rng, request), " ".join(told)), _said(told[0])


def _said(sentence: str) -> Check:
    return {"kind": "any", "signs": [sentence], "rivals": []}


KINDS = {"story": story_about, "poem": _poem, "joke": _joke, "fact": _fact, "riddle": _riddle, "line": _line,
         "sentences": _sentences}
