"""
Stories by simulation: people walk, take, give and put down things; only events that are possible in the story's state
are drawn, so that the text can never contradict itself, and its final state answers the questions.
"""
from dataclasses import dataclass, field

from nanochat.kindergarten import tables

SAID = {"go": ("goes to", "walks to", "runs to"), "take": ("takes", "picks up"), "drop": ("drops", "puts down")}


@dataclass
class Story:
    at: dict = field(default_factory=dict)  # person -> place
    lies: dict = field(default_factory=dict)  # thing -> place, for what nobody holds
    holds: dict = field(default_factory=dict)  # thing -> person
    sentences: list = field(default_factory=list)

    @property
    def text(self):
        return " ".join(self.sentences)


def tell(rng, people, things, moves):
    """A Story with `people` actors, `things` things and `moves` events."""
    story = Story()
    actors, places = rng.sample(tables.NAMES, people), rng.sample(tables.PLACES, 4)
    for who in actors:
        story.at[who] = rng.choice(places)
        story.sentences.append(f"{who} is in the {story.at[who]}.")
    for thing in rng.sample(tables.THINGS, things):
        story.lies[thing] = story.at[rng.choice(actors)] if rng.random() < 0.7 else rng.choice(places)
        story.sentences.append(f"The {thing} is in the {story.lies[thing]}.")
    for _ in range(moves):
        _happen(rng, story, rng.choice(_possible(story, places)))
    return story


def _possible(story, places):
    """("go", who, place), ("take" or "drop", who, thing), ("give", who, thing, other)."""
    events = []
    for who, here in story.at.items():
        events += [("go", who, place) for place in places if place != here]
        events += [("take", who, thing) for thing, place in story.lies.items() if place == here] * 4
        for thing in (t for t, holder in story.holds.items() if holder == who):
            events.append(("drop", who, thing))
            events += [("give", who, thing, other) for other, there in story.at.items()
                       if there == here and other != who] * 4
    return events


def _happen(rng, story, event):
    kind, who, what, *to = event
    if kind == "go":
        story.at[who] = what
    elif kind == "take":
        del story.lies[what]
        story.holds[what] = who
    elif kind == "drop":
        del story.holds[what]
        story.lies[what] = story.at[who]
    else:
        story.holds[what] = to[0]
    said = f"gives the {what} to {to[0]}" if to else f"{rng.choice(SAID[kind])} the {what}"
    story.sentences.append(f"{who} {said}.")


def questions(story):
    """Every (question, answer, value, rivals) with one right answer."""
    asked, places = [], sorted(place for place in tables.PLACES if f" {place}." in story.text)

    def ask(question, answer, value, among):
        asked.append((question, answer, value, [other for other in among if other != value]))
    for who, place in story.at.items():
        ask(f"Where is {who}?", f"{who} is in the {place}.", place, places)
    for thing, place in {**story.lies, **{thing: story.at[who] for thing, who in story.holds.items()}}.items():
        ask(f"Where is the {thing}?", f"The {thing} is in the {place}.", place, places)
    for thing, who in story.holds.items():
        ask(f"Who has the {thing}?", f"{who} has the {thing}.", who, story.at)
    for place in places:
        there = [who for who, p in story.at.items() if p == place]
        if len(there) == 1 and len(story.at) > 1:
            ask(f"Who is in the {place}?", f"{there[0]} is in the {place}.", there[0], story.at)
    return asked
