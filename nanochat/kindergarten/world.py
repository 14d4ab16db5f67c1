"""
The little world: who lives where, does what, has which pet and which friend. From a seed.

People come in pairs of best friends, and every fifth pair is *held out*: documents tell about them, but no
conversation of training asks about them. Questions about them measure what matters in pretraining: whether
what was only read can be answered. Values are dealt evenly, so that guessing the most frequent one gains
nothing. Pets' names, and the pair of town and job while the world is small, are unique, so that they lead
back to one person.
"""
from dataclasses import dataclass
from random import Random

from nanochat.common import UsageError, mix_seed
from nanochat.kindergarten import tables

DEALT = {"species": tables.SPECIES, "food": tables.FOODS, "colour": tables.COLOURS, "hobby": tables.HOBBIES}
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
    """`size` invented people (an even number, at least 20) and their towns."""

    def __init__(self, size: int = 60, seed: int = 0) -> None:
        if size < 20 or size % 2:
            raise UsageError(f"the kindergarten's size is an even number of people, at least 20; got {size}")
        # The order of draws from this generator is what makes a world: a draw more or less makes another one.
        rng = Random(mix_seed("world", size, seed))
        first_names = [(name, "she") for name in tables.GIRLS] + [(name, "he") for name in tables.BOYS]
        rng.shuffle(first_names)
        names = _unique([name for name, _ in first_names], size)
        pets = _unique(tables.PETS, size)
        rng.shuffle(pets)
        self.towns = _towns(size, rng)
        homes = _homes(self.towns, size, rng)
        dealt = {attribute: _deal(values, size, rng) for attribute, values in DEALT.items()}

        self.people = []
        for i in range(size):
            town, job = homes[i]
            friend = i ^ 1  # 0 and 1, 2 and 3, ... are each other's best friends
            pair = i // 2
            self.people.append(Person(
                index=i, name=names[i], he=first_names[i % len(first_names)][1], town=town, job=job,
                species=dealt["species"][i], pet=pets[i], food=dealt["food"][i], colour=dealt["colour"][i],
                hobby=dealt["hobby"][i], friend=names[friend],
                held_out=pair % HELD_OUT_EVERY == HELD_OUT_EVERY - 1))

        self.seen = [person for person in self.people if not person.held_out]
        self.held_out = [person for person in self.people if person.held_out]
        self.by_home: dict[tuple[str, str], list[Person]] = {}  # {(town, job): who}
        for person in self.people:
            self.by_home.setdefault((person.town, person.job), []).append(person)

    def values(self, attribute: str) -> list[str]:
        """All that somebody's town, job, species, food, colour or hobby can be."""
        if attribute == "town":
            return self.towns
        if attribute == "job":
            return tables.JOBS
        return DEALT[attribute]


def _unique(first_names: list[str], size: int) -> list[str]:
    """`size` different names: the first names, in a big world with surnames ("Mia Balbar")."""
    if size <= len(first_names):
        return first_names[:size]
    n_surnames = -(-size // len(first_names))  # rounded up
    names = []
    for number in range(n_surnames):
        surname = _surname(number)
        names += [f"{first_name} {surname}" for first_name in first_names]
    return names[:size]


def _surname(number: int) -> str:
    """The number written with syllables for digits, two of them at least."""
    surname = ""
    while number or len(surname) < 6:
        number, digit = divmod(number, len(tables.SYLLABLES))
        surname += tables.SYLLABLES[digit]
    return surname.capitalize()


def _towns(size: int, rng: Random) -> list[str]:
    """12 towns for 60 people, and one more for every further 50, up to 412."""
    invented = [head + tail for head in tables.TOWN_HEADS for tail in tables.TOWN_TAILS]
    rng.shuffle(invented)
    n_invented = max(0, size - 60) // 50
    return tables.TOWNS + invented[:n_invented]


def _homes(towns: list[str], size: int, rng: Random) -> list[tuple[str, str]]:
    """(town, job) of everybody: round after round through the towns, the jobs moved on by one in each."""
    homes = []
    for i in range(size):
        job = (i // len(towns) + i) % len(tables.JOBS)
        homes.append((towns[i % len(towns)], tables.JOBS[job]))
    rng.shuffle(homes)
    return homes


def _deal(values: list[str], size: int, rng: Random) -> list[str]:
    """`size` values in random order, each as often as the others."""
    dealt = [values[i % len(values)] for i in range(size)]
    rng.shuffle(dealt)
    return dealt
