"""
The little world: who lives where, does what, has which pet and which friend. From a seed.

People come in pairs of best friends; every fifth pair is *held out*: in documents, but never asked about, which is how
transfer from reading to answering is measured. Values are dealt evenly; pets' names, and (town, job) while the world is
small, are unique.
"""
import random
from dataclasses import dataclass

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
    def his(self):
        return "his" if self.he == "he" else "her"


class World:
    """`size` invented people (an even number, at least 20) and their towns."""

    def __init__(self, size=60, seed=0):
        if size < 20 or size % 2:
            raise UsageError(f"the kindergarten's size is an even number of people, at least 20; got {size}")
        rng = random.Random(mix_seed("world", size, seed))
        firsts = [(name, he) for names, he in ((tables.GIRLS, "she"), (tables.BOYS, "he")) for name in names]
        rng.shuffle(firsts)
        names, pets = _unique([name for name, _ in firsts], size), _unique(tables.PETS, size)
        rng.shuffle(pets)
        self.towns = _towns(size, rng)
        jobs, towns = tables.JOBS, self.towns
        homes = [(towns[i % len(towns)], jobs[(i // len(towns) + i) % len(jobs)]) for i in range(size)]
        rng.shuffle(homes)
        species, foods, colours, hobbies = (_deal(values, size, rng) for values in DEALT.values())
        self.people = [
            Person(i, names[i], firsts[i % len(firsts)][1], *homes[i], species[i], pets[i], foods[i], colours[i],
                   hobbies[i], names[i ^ 1], i // 2 % HELD_OUT_EVERY == HELD_OUT_EVERY - 1) for i in range(size)]
        self.seen = [p for p in self.people if not p.held_out]
        self.held_out = [p for p in self.people if p.held_out]
        self.by_home = {}
        for p in self.people:
            self.by_home.setdefault((p.town, p.job), []).append(p)

    def values(self, attribute):
        return {"town": self.towns, "job": tables.JOBS, **DEALT}[attribute]


def _unique(firsts, size):
    """`size` different names, in a big world with surnames ("Mia Balbar")."""
    if size <= len(firsts):
        return firsts[:size]
    syllables, surnames = tables.SYLLABLES, []
    for k in range(-(-size // len(firsts))):
        surname = ""
        while k or len(surname) < 6:  # two syllables at least
            k, surname = k // len(syllables), surname + syllables[k % len(syllables)]
        surnames.append(surname.capitalize())
    return [f"{first} {surname}" for surname in surnames for first in firsts][:size]


def _towns(size, rng):
    """12 towns for 60 people, and one more for every further 50, up to 412."""
    more = [head + tail for head in tables.TOWN_HEADS for tail in tables.TOWN_TAILS]
    rng.shuffle(more)
    return (tables.TOWNS + more)[:len(tables.TOWNS) + max(0, size - 60) // 50]


def _deal(values, n, rng):
    """`n` values in random order, each as often as the others."""
    dealt = [values[i % len(values)] for i in range(n)]
    rng.shuffle(dealt)
    return dealt
