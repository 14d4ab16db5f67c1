"""
What strangers typed, with a check for each: the one gauge that the generator of the training data cannot
please.

The kindergarten's own tests vary what its generator varies; people vary everything else. These questions
were written down by people who had not seen the generator. One list (strangers_open.txt) may be looked at
while one works on the data; the other (strangers_held.txt) is the row in the report, and nobody reads it or
generates from it. A file is a list of blocks:

    # kind
    > what the user types              one line a turn; the model answers each turn itself
    = a pattern                        that the last answer must match (re.search, case ignored)
    ! a pattern                        that it must not match; may be missing
"""
import functools
import re
from dataclasses import dataclass, field
from pathlib import Path

from nanochat.common import DataError
from nanochat.data.chat_format import reply_text
from nanochat.tasks.base import Task

LISTS = ("held", "open")


@dataclass
class Block:
    """One conversation of a stranger's."""

    kind: str
    turns: list[str] = field(default_factory=list)
    right: str = ""
    wrong: str = ""


@functools.cache
def read(which: str) -> list[Block]:
    """The blocks of a list. Raises DataError for a line that is none of the four."""
    path = Path(__file__).parent / f"strangers_{which}.txt"
    blocks: list[Block] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        mark, _, text = line.partition(" ")
        if mark == "#":
            blocks.append(Block(text))
        elif mark == ">":
            blocks[-1].turns.append(text)
        elif mark == "=":
            blocks[-1].right = text
        elif mark == "!":
            blocks[-1].wrong = text
        elif line and mark != "##":
            raise DataError(f"{path.name}, line {number}: expected '# ', '> ', '= ' or '! ', got {line!r}")
    return blocks


class Strangers(Task):
    """The questions of one list; there is nothing to train on, so every split is the same."""

    max_new_tokens = 128

    def __init__(self, split: str = "test", which: str = "held") -> None:
        self.name = "strangers" if which == "held" else f"strangers_{which}"
        self.blocks = read(which)
        self.n = len(self.blocks)

    def conversation(self, number: int) -> dict:
        """The user's turns; an answer in between, None, is for the model to give."""
        block = self.blocks[number]
        messages: list[dict] = []
        for turn in block.turns:
            messages.append({"role": "user", "content": turn})
            messages.append({"role": "assistant", "content": None})
        messages[-1]["content"] = block.right  # what a reader of the record compares with
        return {"messages": messages, "right": block.right, "wrong": block.wrong}

    def evaluate(self, chat: dict, parts: list[dict]) -> bool:
        said = reply_text(parts).replace("’", "'")
        if chat["wrong"] and re.search(chat["wrong"], said, re.IGNORECASE):
            return False
        return re.search(chat["right"], said, re.IGNORECASE) is not None
