"""
What a skill is: a maker of conversations with checks, and the rule that keeps training and testing apart.

A maker is a function (rng, world, test, level) -> (messages, check). `test` says for which side of the split;
level 1, of midtraining, is simple, level 2 is not. A check is what tells a right reply from a wrong one, as
plain JSON that checks.py can read: a reference answer would not do, as right replies differ in wording.

Why the split is by content: examples are drawn at random from small spaces, so that two lists with different
seeds would share many of them, and a test would reward what was learned by heart. Here the content itself
(the two numbers, the word, the story), hashed, decides on which side it lies. No training example can hold a
test example, however many of either are drawn.
"""
import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, TypeVar

from nanochat.common import mix_seed
from nanochat.kindergarten.world import World

Message = dict[str, Any]  # {"role", "content"}
Check = dict[str, Any]  # {"kind", ...}: plain JSON, for checks.check
Made = tuple[list[Message], Check]
Maker = Callable[[Random, World, bool, int], Made]
Drawn = TypeVar("Drawn")


@dataclass(frozen=True)
class Skill:
    name: str
    title: str
    chance: float  # score of blind guessing
    # What of a test is in no training conversation: "seen": nothing is new; "people": who is asked about;
    # "pairs": which two things meet; "paraphrase": the wording; "words": the word or value; "stories": the
    # story.
    split: str
    make: Maker
    mid: float  # weight in the mixture of midtraining; 0: never trained
    sft: float  # weight in the mixture of SFT


@dataclass(frozen=True)
class Example:
    conversation: dict[str, Any]  # {"messages": [...]}, the last one the reference answer
    skill: str
    split: str
    check: Check


@functools.lru_cache(maxsize=2**16)  # the same words and wordings are drawn again and again
def is_test(*content: str | int, percent: int = 10) -> bool:
    """Whether this content is for tests, as `percent` of all contents are. The same in every process."""
    return mix_seed("split", *content) % 100 < percent


def draw(make: Callable[[], Drawn], key: Callable[[Drawn], Iterable[str | int]], test: bool,
         percent: int = 10) -> Drawn:
    """Call `make()` until what it makes, by its `key`, lies on the wanted side of the split."""
    while True:
        made = make()
        if is_test(*key(made), percent=percent) == test:
            return made


def weighted(rng: Random, choices: Sequence[tuple[Drawn, float]]) -> Drawn:
    """One of the choices, each as often as the weight beside it says."""
    values = [value for value, _ in choices]
    weights = [weight for _, weight in choices]
    return rng.choices(values, weights)[0]


def on_side(kind: str, templates: Sequence[Drawn], test: bool, percent: int = 20) -> list[Drawn]:
    """The templates that tests keep for themselves, or those that training uses: at least one of either (a
    single one serves both).

    A template is a wording, or a tuple that begins with one. Where wordings are many, whether an unseen one
    is understood says more than an unseen number in a wording that was seen a hundred times.
    """
    if len(templates) < 2:
        return list(templates)
    kept = [template for template in templates if is_test(kind, _wording(template), percent=percent)]
    if not kept:
        kept = [templates[-1]]
    others = [template for template in templates if template not in kept]
    if test:
        return kept
    return others or list(templates[:1])


def _wording(template: Any) -> str:
    return template if isinstance(template, str) else template[0]


def chat(*turns: str | list[dict[str, str]]) -> list[Message]:
    """Messages from contents that the user and the assistant say in turn."""
    messages = []
    for i, turn in enumerate(turns):
        role = "assistant" if i % 2 else "user"
        messages.append({"role": role, "content": turn})
    return messages


def fact_check(*need: str | Iterable[str], rivals: Iterable[str] = (), names: Iterable[str] = ()) -> Check:
    """Check that all of `need` (values, or lists of acceptable ones) and none of `rivals` are said.

    With `names`, no other capitalised word may appear but the usual sentence starters: a reply may not name
    all people.
    """
    acceptable = [[value] if isinstance(value, str) else list(value) for value in need]
    return {"kind": "fact", "need": acceptable, "rivals": list(rivals)[:24], "names": list(names)}
