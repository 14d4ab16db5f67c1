"""
Stories by simulation, as in bAbI (arXiv 1502.05698): people walk, take, give and put down things.

Only events that are possible in the story's state are drawn, so the text can never contradict itself, and the
final state answers the questions. Such a question cannot be answered by what usually comes next: the model
must keep track.
"""
from collections.abc import Iterable
from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple

from nanochat.kindergarten import tables

SAID = {
    "go": ("goes to", "walks to", "runs to"),
    "take": ("takes", "picks up"),
    "drop": ("drops", "puts down"),
}
LIKELIER = 4  # times that taking and giving are drawn rather than one of the many walks


class Event(NamedTuple):
    kind: str  # "go", "take", "drop" or "give"
    who: str
    what: str  # the place to go to, else the thing
    receiver: str = ""  # of what is given


class Question(NamedTuple):
    text: str
    answer: str  # as a sentence
    value: str  # what is asked for
    rivals: list[str]  # the other values that the story names


@dataclass
class Story:
    """What has been told, and how things stand after it."""

    at: dict[str, str] = field(default_factory=dict)  # person -> place
    lies: dict[str, str] = field(default_factory=dict)  # thing -> place, for what nobody holds
    holds: dict[str, str] = field(default_factory=dict)  # thing -> person
    sentences: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return " ".join(self.sentences)


def tell(rng: Random, n_people: int, n_things: int, n_moves: int) -> Story:
    """A Story with so many actors, things and events."""
    story = Story()
    actors = rng.sample(tables.NAMES, n_people)
    places = rng.sample(tables.PLACES, 4)
    for who in actors:
        story.at[who] = rng.choice(places)
        story.sentences.append(f"{who} is in the {story.at[who]}.")
    for thing in rng.sample(tables.THINGS, n_things):
        if rng.random() < 0.7:  # within somebody's reach, or little would ever be taken
            story.lies[thing] = story.at[rng.choice(actors)]
        else:
            story.lies[thing] = rng.choice(places)
        story.sentences.append(f"The {thing} is in the {story.lies[thing]}.")
    for _ in range(n_moves):
        _happen(rng, story, rng.choice(_possible(story, places)))
    return story


def _possible(story: Story, places: list[str]) -> list[Event]:
    """All that can happen next, in a fixed order; what is likelier stands there several times."""
    events = []
    for who, here in story.at.items():
        events += [Event("go", who, place) for place in places if place != here]
        within_reach = [thing for thing, place in story.lies.items() if place == here]
        events += [Event("take", who, thing) for thing in within_reach] * LIKELIER
        company = [other for other, place in story.at.items() if place == here and other != who]
        for thing, holder in story.holds.items():
            if holder == who:
                events.append(Event("drop", who, thing))
                events += [Event("give", who, thing, other) for other in company] * LIKELIER
    return events


def _happen(rng: Random, story: Story, event: Event) -> None:
    """Change the story's state and tell of it."""
    kind, who, what, receiver = event
    if kind == "go":
        story.at[who] = what
    elif kind == "take":
        del story.lies[what]
        story.holds[what] = who
    elif kind == "drop":
        del story.holds[what]
        story.lies[what] = story.at[who]
    else:
        story.holds[what] = receiver
    said = f"gives the {what} to {receiver}" if receiver else f"{rng.choice(SAID[kind])} the {what}"
    story.sentences.append(f"{who} {said}.")


def questions(story: Story) -> list[Question]:
    """Every question that has one right answer."""
    asked: list[Question] = []
    places = sorted(place for place in tables.PLACES if f" {place}." in story.text)
    where_things_are = dict(story.lies)
    for thing, who in story.holds.items():
        where_things_are[thing] = story.at[who]

    def ask(question: str, answer: str, value: str, among: Iterable[str]) -> None:
        rivals = [other for other in among if other != value]
        asked.append(Question(question, answer, value, rivals))

    for who, place in story.at.items():
        ask(f"Where is {who}?", f"{who} is in the {place}.", place, places)
    for thing, place in where_things_are.items():
        ask(f"Where is the {thing}?", f"The {thing} is in the {place}.", place, places)
    for thing, who in story.holds.items():
        ask(f"Who has the {thing}?", f"{who} has the {thing}.", who, story.at)
    for place in places:
        there = [who for who, where in story.at.items() if where == place]
        if len(there) == 1 and len(story.at) > 1:  # "Who is in the park?" needs somebody who is not
            ask(f"Who is in the {place}?", f"{there[0]} is in the {place}.", there[0], story.at)
    return asked
