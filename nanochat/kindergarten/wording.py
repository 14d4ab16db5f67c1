"""
Wordings with alternatives: "(what is/what's) {x} (plus/and) {y}?" is four questions in one line.

Strangers ask in their own words, which nobody can list. Parts can be listed, and the ways to join them are
many more than the parts: that is what makes a model understand rather than recognise.
"""
import re
from random import Random

from nanochat.kindergarten.skill import on_side

_GROUP = re.compile(r"\(([^()]*)\)")  # the innermost: groups may stand in groups
_BEGINNING = re.compile(r"(?:^|(?<=[.!?] ))[a-z]")
_REQUEST = re.compile(r"(please |now |just )?(tell|give|say|name|show|list|find|spell|write|count|calculate|"
                      r"compute|work out)\b")
_QUESTION = re.compile(r"(can|could|will|would|do|does|are|is|what|which|how) ")


def wordings_for(kind: str, wordings: list[str], test: bool) -> list[str]:
    """The wordings of one side of the split: a third of the second half is for tests.

    What most people say stands in the first half. It is always trained: to keep that back would measure
    little and disappoint everybody.
    """
    middle = (len(wordings) + 1) // 2
    others = on_side(kind, wordings[middle:], test, percent=33)
    return others if test else wordings[:middle] + others


def vary(rng: Random, wording: str) -> str:
    """The wording with one alternative of every group; {slots} are left to be filled."""
    while "(" in wording:
        wording = _GROUP.sub(lambda group: rng.choice(group[1].split("/")), wording)
    return re.sub(r"\bi\b", "I", wording)


def finished(text: str) -> str:
    """The text with a capital for every sentence, the mark that fits at its end, and single blanks."""
    text = re.sub(r"(?<![=,]) +([.,?])", r"\1", " ".join(text.split()))
    if text.endswith("?") and _REQUEST.match(text):
        text = text[:-1] + "."
    elif text.endswith(".") and _QUESTION.match(text) and "?" not in text:
        text = text[:-1] + "?"
    return _BEGINNING.sub(lambda letter: letter[0].upper(), text)
