"""
Wordings with alternatives: "{hi/hello} {there/}" stands for four sentences, "{name}" for whatever name is
drawn.

Strangers ask in their own words, which nobody can list. Parts can be listed, and the ways to join them are
many more: a wording of three alternatives with five branches each holds 125 sentences.
"""
import functools
import re
from collections.abc import Sequence
from itertools import accumulate
from random import Random

from nanochat.kindergarten import tables
from nanochat.kindergarten.skill import Drawn, on_side

_SLOT = re.compile(r"\{(\w+)\}")
_PIECE = r"(?:[^{}]|\{\w+\})*"  # without groups; slots may stand in it
_GROUP = re.compile(rf"\{{({_PIECE}/{_PIECE})\}}")  # the innermost: groups may stand in groups
_ARTICLE = re.compile(r"\b([Aa]) (?=(?!uni|use|one)[aeiouAEIOU])")
_BLANKS = re.compile(r" +(?=[ ,.!?])")
_BEGINNING = re.compile(r"(?:^|(?<=[.!?] ))[a-z]")
_REQUEST = re.compile(r"(please |now |just )?(tell|give|say|name|show|list|find|spell|write|count|calculate|"
                      r"compute|work out)\b")
_QUESTION = re.compile(r"(can|could|will|would|do|does|are|is|what|which|how) ")

MANNERS = tables.read("manners.txt")
POOLS = {
    "name": tables.NAMES,
    "place": tables.CITIES,
    "thing": tables.WORDS,
    **MANNERS["fill"],
}


def vary(rng: Random, wording: str) -> str:
    """The wording with one branch of every {a/b}; {slots} are left to be filled."""
    while _GROUP.search(wording):
        wording = _GROUP.sub(lambda group: rng.choice(group[1].split("/")), wording)
    return wording


def compose(rng: Random, wording: str, filled: dict[str, str] | None = None) -> str:
    """The wording with one branch of every {a/b} and a value for every {slot}.

    `filled` holds the values of slots, and takes up those drawn here from POOLS, so that a question and its
    answer can share them.
    """
    values = {} if filled is None else filled

    def value(slot: re.Match[str]) -> str:
        name = slot[1]
        if name not in values:
            values[name] = rng.choice(POOLS[name])
        return values[name]

    text = vary(rng, wording)
    while _SLOT.search(text):  # a value may have slots itself
        text = _SLOT.sub(value, text)
    return _ARTICLE.sub(r"\1n ", _BLANKS.sub("", text)).strip()


# ---- questions as they are written in a book; typist.py does the rest
def wordings_for(kind: str, wordings: list[Drawn], test: bool) -> list[Drawn]:
    """The wordings of one side of the split: a third of the second half is for tests.

    What most people say stands in the first half. It is always trained: to keep that back would measure
    little and disappoint everybody.
    """
    middle = (len(wordings) + 1) // 2
    others = on_side(kind, wordings[middle:], test, percent=33)
    return others if test else wordings[:middle] + others


def some_wording(rng: Random, kind: str, wordings: list[Drawn], test: bool) -> Drawn:
    """One of those of `wordings_for`, in training as often as people say it."""
    return usual(rng, wordings_for(kind, wordings, test), test)


def usual(rng: Random, ordered: Sequence[Drawn], test: bool) -> Drawn:
    """One of them, in training by Zipf's law: tables begin with what most people say."""
    return rng.choice(ordered) if test else rng.choices(ordered, cum_weights=_zipf(len(ordered)))[0]


@functools.cache
def _zipf(count: int) -> list[float]:
    """Sums of the weights 1/10, 1/11, ..: the first of 70 is eight times as frequent as the last."""
    return list(accumulate(1 / (10 + rank) for rank in range(count)))


def sentence(rng: Random, wording: str) -> str:
    """`vary`, with "I" for i, before the slots are filled: in "how many i are in ice?" it stays small."""
    return re.sub(r"\bi\b", "I", vary(rng, wording))


def finished(text: str) -> str:
    """The text with a capital for every sentence, the mark that fits at its end, and single blanks."""
    text = re.sub(r"(?<![=,]) +([.,?])", r"\1", " ".join(text.split()))
    if text.endswith("?") and _REQUEST.match(text):
        text = text[:-1] + "."
    elif text.endswith(".") and _QUESTION.match(text) and "?" not in text:
        text = text[:-1] + "?"
    return _BEGINNING.sub(lambda letter: letter[0].upper(), text)
