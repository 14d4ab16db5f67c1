"""
The little world: who lives where, does what, has which pet and which friend. From a seed.

People come in pairs of best friends, and every fifth pair is *held out*: documents tell about them, but no
conversation of training asks about them. Questions about them measure what matters in pretraining: whether
what was only read can be answered. Values are dealt evenly, so that guessing the most frequent one gains
nothing. Pets' names and the pair of town and job are unique, so that they lead back to one person.
"""
from dataclasses import dataclass
from random import Random

from nanochat.common import DataError, mix_seed
from nanochat.kindergarten import tables

DEALT = {"species": tables.SPECIES, "food": tables.FOODS, "colour": tables.COLOURS, "hobby": tables.HOBBIES}
PEOPLE = 60  # an even number: they come in pairs
HELD_OUT_EVERY = 5  # pairs of friends: 12 of 60 people


@dataclass(frozen=True)
class Person:
    index: int
    name: str
    he: str  # "he" or "she"
    town: str
    job: str
    species: str
    pet: str  # the pet's name
    food: str
    colour: str
    hobby: str
    friend: str  # the best friend's name
    held_out: bool

    @property
    def his(self) -> str:
        return "his" if self.he == "he" else "her"


class World:
    """PEOPLE invented people. Raises DataError where words.txt has not names enough for them."""

    def __init__(self, seed: int = 0) -> None:
        # The order of draws from this generator is what makes a world: a draw more or less makes another one.
        rng = Random(mix_seed("world", PEOPLE, seed))
        names = [(name, "she") for name in tables.GIRLS] + [(name, "he") for name in tables.BOYS]
        pets = tables.PETS[:PEOPLE]
        if min(len(names), len(pets)) < PEOPLE:
            raise DataError(f"words.txt has {len(names)} girls and boys and {len(pets)} pets; it wants "
                            f"{PEOPLE} of both.")
        rng.shuffle(names)
        rng.shuffle(pets)
        rng.shuffle(list(range(400)))  # of towns that only bigger worlds had
        homes = _homes(rng)
        dealt = {attribute: _deal(values, rng) for attribute, values in DEALT.items()}

        self.people = []
        for i in range(PEOPLE):
            town, job = homes[i]
            friend = i ^ 1  # 0 and 1, 2 and 3, ... are each other's best friends
            pair = i // 2
            name, he = names[i]
            self.people.append(Person(
                index=i, name=name, he=he, town=town, job=job,
                species=dealt["species"][i], pet=pets[i], food=dealt["food"][i], colour=dealt["colour"][i],
                hobby=dealt["hobby"][i], friend=names[friend][0],
                held_out=pair % HELD_OUT_EVERY == HELD_OUT_EVERY - 1))

        self.seen = [person for person in self.people if not person.held_out]
        self.held_out = [person for person in self.people if person.held_out]
        self.by_home: dict[tuple[str, str], list[Person]] = {}  # {(town, job): who}
        for person in self.people:
            self.by_home.setdefault((person.town, person.job), []).append(person)

    def values(self, attribute: str) -> list[str]:
        """All that somebody's town, job, species, food, colour or hobby can be."""
        if attribute == "town":
            return tables.TOWNS
        if attribute == "job":
            return tables.JOBS
        return DEALT[attribute]


def _homes(rng: Random) -> list[tuple[str, str]]:
    """(town, job) of everybody: round after round through the towns, the jobs moved on by one in each."""
    n_towns = len(tables.TOWNS)
    homes = []
    for i in range(PEOPLE):
        job = (i // n_towns + i) % len(tables.JOBS)
        homes.append((tables.TOWNS[i % n_towns], tables.JOBS[job]))
    rng.shuffle(homes)
    return homes


def _deal(values: list[str], rng: Random) -> list[str]:
    """A value for everybody in random order, each as often as the others."""
    dealt = [values[i % len(values)] for i in range(PEOPLE)]
    rng.shuffle(dealt)
    return dealt
