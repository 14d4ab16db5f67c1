"""
What a skill is: a maker of conversations with checks, and the rule that keeps training and testing apart.

A maker is a function (rng, world, test, level) -> (messages, check); level 1, midtraining, is simple, 2 is not. The
drawn content alone decides on which side of the split it lies, so that no training example can hold a test example.
"""
from dataclasses import dataclass
from typing import Callable

from nanochat.common import mix_seed


@dataclass(frozen=True)
class Skill:
    name: str
    title: str
    chance: float  # score of blind guessing
    # what of a test is in no training conversation: "seen": nothing is new; "people": who is asked about; "pairs": which
    split: str  # two things meet; "paraphrase": the wording; "words"; "stories"
    make: Callable
    mid: float  # weight in the mixture of midtraining
    sft: float  # weight in the mixture of SFT


@dataclass(frozen=True)
class Example:
    conversation: dict  # {"messages": [...]}, the last one the reference answer
    skill: str
    split: str
    check: dict  # plain JSON, for checks.check


def is_test(*content, percent=10):
    return mix_seed("split", *content) % 100 < percent


def draw(make, key, test, percent=10):
    """Call `make()` until `key(made)`, strings and ints, lies on the wanted side."""
    while True:
        made = make()
        if is_test(*key(made), percent=percent) == test:
            return made


def chat(*turns):
    """Messages from alternating user and assistant contents."""
    return [{"role": ("user", "assistant")[i % 2], "content": turn} for i, turn in enumerate(turns)]


def fact_check(*need, rivals=(), names=()):
    """Check that all of `need` (values, or lists of acceptable ones) and none of `rivals` are said.

    With `names`, no other capitalised word may appear but the usual sentence starters."""
    return {"kind": "fact", "need": [[n] if isinstance(n, str) else list(n) for n in need], "rivals": list(rivals)[:24],
            "names": list(names)}
