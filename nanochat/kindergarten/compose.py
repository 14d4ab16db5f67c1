"""
Wordings with alternatives: "{hi/hello} {there/}" stands for four sentences, "{name}" for whatever name is
drawn.

A list of sentences grows with every sentence; a wording of three alternatives with five branches each holds
125 in one line. That is the cheapest way to the many ways in which people say one thing.
"""
import re
from random import Random

from nanochat.kindergarten import tables

BRACES = re.compile(r"\{([^{}]*)\}")  # innermost ones
ARTICLE = re.compile(r"\b([Aa]) (?=(?!uni|use|one)[aeiouAEIOU])")
BLANKS = re.compile(r" +(?=[ ,.!?])")

MANNERS = tables.read("manners.txt")
POOLS = {
    "name": tables.NAMES,
    "place": tables.CITIES,
    "thing": tables.WORDS,
    **MANNERS["fill"],
}


def compose(rng: Random, wording: str, filled: dict[str, str] | None = None) -> str:
    """The wording with one branch of each {a/b} and a value for each {slot}.

    `filled` holds the values of slots, and takes up those drawn here, so that a question and its answer can
    share them.
    """
    values = {} if filled is None else filled

    def one(match: re.Match[str]) -> str:
        inside = match[1]
        if "/" in inside:
            return rng.choice(inside.split("/"))
        if inside not in values:
            values[inside] = rng.choice(POOLS[inside])
        return values[inside]

    while BRACES.search(wording):
        wording = BRACES.sub(one, wording)
    return ARTICLE.sub(r"\1n ", BLANKS.sub("", wording)).strip()
