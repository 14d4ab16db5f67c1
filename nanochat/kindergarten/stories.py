"""
Stories by simulation: people walk, take, give and put down things, and the text can never contradict itself.

A `Story` draws only events that are possible in its state (one takes what lies where one is, one gives to whom is
there), says each in a sentence, and keeps the final state, from which questions are answered.
"""
from dataclasses import dataclass, field

from nanochat.kindergarten import tables

GOES = ("goes to", "walks to", "runs to")
TAKES = ("takes", "picks up")
DROPS = ("drops", "puts down")


@dataclass
class Story:
    at: dict = field(default_factory=dict)          # person -> place
    lies: dict = field(default_factory=dict)        # thing -> place, for what nobody holds
    holds: dict = field(default_factory=dict)       # thing -> person
    events: list = field(default_factory=list)      # ("go", who, place) | ("take"|"drop", who, thing) | ("give", ...)
    sentences: list = field(default_factory=list)

    @property
    def text(self):
        return " ".join(self.sentences)

    def where(self, thing):
        """The place where a thing is, in a hand or on the floor."""
        return self.at[self.holds[thing]] if thing in self.holds else self.lies[thing]


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
    """Every event that the state allows; walking is always among them."""
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
    """Change the state and say so."""
    kind, who, what = event[:3]
    if kind == "go":
        story.at[who] = what
        said = f"{who} {rng.choice(GOES)} the {what}."
    elif kind == "take":
        del story.lies[what]
        story.holds[what] = who
        said = f"{who} {rng.choice(TAKES)} the {what}."
    elif kind == "drop":
        del story.holds[what]
        story.lies[what] = story.at[who]
        said = f"{who} {rng.choice(DROPS)} the {what}."
    else:
        story.holds[what] = event[3]
        said = f"{who} gives the {what} to {event[3]}."
    story.events.append(event)
    story.sentences.append(said)


def questions(story):
    """All (question, answer, value, rivals) the story decides, each with one right answer."""
    asked = []
    been = {what for kind, _, what, *_ in story.events if kind == "go"}
    places = sorted({*story.at.values(), *story.lies.values(), *been})

    def ask(question, answer, value, among):
        asked.append((question, answer, value, [other for other in among if other != value]))
    for who, place in story.at.items():
        ask(f"Where is {who}?", f"{who} is in the {place}.", place, places)
    for thing in (*story.lies, *story.holds):
        place = story.where(thing)
        ask(f"Where is the {thing}?", f"The {thing} is in the {place}.", place, places)
    for thing, who in story.holds.items():
        ask(f"Who has the {thing}?", f"{who} has the {thing}.", who, story.at)
    for place in places:
        there = [who for who, p in story.at.items() if p == place]
        if len(there) == 1 and len(story.at) > 1:
            ask(f"Who is in the {place}?", f"{there[0]} is in the {place}.", there[0], story.at)
    return asked


def sized(rng, level):
    """A story as long as the level allows."""
    moves = rng.randint(1, level + 1)
    people = 1 if rng.random() < 0.3 else 2
    return tell(rng, people, rng.choice((0, 1, 1)), moves)
