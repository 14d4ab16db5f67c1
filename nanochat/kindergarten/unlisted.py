"""
Names and words that no list holds, for all that has to be copied: told values, names in passages, heroes.

A model that has only ever copied the words of a list has learned the list: "Tariq likes tea" comes back as
"Tari". Syllables put together at random hold every token of the vocabulary, so the only thing that can be
learned from them is to look where the word stood (induction heads, arXiv 2209.11895).
"""
from random import Random

from nanochat.kindergarten import tables

SYLLABLES = {part: " ".join(lines).split() for part, lines in tables.read("letters.txt")["syllables"].items()}
UNLISTED = 0.35  # part of the names, and of the words that stand for any thing


def made_up_word(rng: Random) -> str:
    """A string of one to three syllables."""
    word = ""
    for _ in range(rng.choice((1, 1, 2, 2, 2, 3))):
        word += rng.choice(SYLLABLES["onsets"]) + rng.choice(SYLLABLES["nuclei"])
        if rng.random() < 0.5:
            word += rng.choice(SYLLABLES["codas"])
    if rng.random() < 0.3:
        word += rng.choice(SYLLABLES["ends"])
    return word


def is_rude(word: str) -> bool:
    return any(rude in word for rude in SYLLABLES["never"])


def _invented(rng: Random, shortest: int) -> str:
    while True:
        word = made_up_word(rng)
        if shortest <= len(word) <= 9 and not is_rude(word):
            return word


def some_name(rng: Random, listed: list[str] = tables.NAMES) -> str:
    """A listed name, or an invented one."""
    return _invented(rng, 3).capitalize() if rng.random() < UNLISTED else rng.choice(listed)


def some_names(rng: Random, count: int) -> list[str]:
    """So many different ones."""
    names: list[str] = []
    while len(names) < count:
        name = some_name(rng)
        if name not in names:
            names.append(name)
    return names


def some_thing(rng: Random, listed: list[str]) -> str:
    """A listed word, an everyday word of any kind, or one that means nothing."""
    chance = rng.random()
    if chance < UNLISTED / 2:
        return rng.choice(tables.EVERYDAY)
    return _invented(rng, 2) if chance < UNLISTED else rng.choice(listed)
