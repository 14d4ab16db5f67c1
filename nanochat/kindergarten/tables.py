"""
The words of the kindergarten, typed in by hand in words.txt: what invented people are made of, and the fillers that are
not theirs.

Not here: who has what (world.py) and what is true of the real world (nature.py). The people's names and the filler
names are disjoint, so that "My name is Kevin" never meets a Kevin with a biography. Values are single words, each list
short enough that every fact is met a hundred times; fillers are many, so that copying them must be learned as copying.
"""
from pathlib import Path


def _lists():
    """{title: words} of words.txt: blocks of a title and its words, parted by commas where a word has blanks."""
    blocks = Path(__file__).with_name("words.txt").read_text(encoding="utf-8").strip().split("\n\n")
    titled = (block.split("\n", 1) for block in blocks)
    return {title: [w.strip() for w in " ".join(words.split("\n")).split("," if "," in words else None)]
            for title, words in titled}


LISTS = _lists()
GIRLS, BOYS = LISTS["GIRLS"], LISTS["BOYS"]     # 60 first names; in a world of 60 a first name identifies its bearer
TOWNS, TOWN_HEADS, TOWN_TAILS = LISTS["TOWNS"], LISTS["TOWN_HEADS"], LISTS["TOWN_TAILS"]
JOBS, SPECIES, PETS, FOODS = LISTS["JOBS"], LISTS["SPECIES"], LISTS["PETS"], LISTS["FOODS"]
COLOURS, HOBBIES, SYLLABLES = LISTS["COLOURS"], LISTS["HOBBIES"], LISTS["SYLLABLES"]
# fillers: names, foods, hobbies of the people who talk to the model or walk through its stories
NAMES, MEALS, PASTIMES = LISTS["NAMES"], LISTS["MEALS"], LISTS["PASTIMES"]
SHADES, CITIES = LISTS["SHADES"], LISTS["CITIES"]
WORDS = LISTS["WORDS"]                          # the closed list that is spelled, counted, copied and reversed
