"""
What a task is: numbered conversations, each ending in the assistant's reference answer, and a grader.

Training takes the conversation as it stands; in evaluation all but the last message is the prompt. Tables
come from the hub as parquet files, downloaded on first use and kept under base_dir()/tasks.
"""
import contextlib
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet as pq

from nanochat.common import DataError, NanochatError, base_dir
from nanochat.data import hub
from nanochat.data.chat_format import message_parts, reply_text, validate
from nanochat.data.sources import reading
from nanochat.tasks.persona import USUAL

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class TaskUnavailable(DataError):
    """The data of a task cannot be had here."""


# ---- tasks
class Task:
    """Subclasses give n, `conversation` and, where the reference is not simply the text to match, a grader.

    "generative" tasks are answered in free text; "categorical" ones by that of the conversation's "letters"
    which has the highest logit; "conversations" are for training only.
    """

    name = ""
    kind = "generative"
    chance = 0.0  # score of blind guessing
    source: tuple[str, str] | None = None  # hub repository and folder; None when the data are in the code
    runs_code = False  # whether grading runs the model's code
    unsafe = False  # whether it does so even where the sandbox has no walls
    max_new_tokens = 256  # room for a reply
    n = 0  # how many conversations there are
    persona = USUAL  # whom generated conversations are with

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, number: int) -> dict:
        if not 0 <= number < len(self):
            raise IndexError(number)
        return self.conversation(number)

    def conversation(self, number: int) -> dict:
        """{"messages": [...], ...}, the same at every call."""
        raise NotImplementedError

    def answer(self, chat: dict, parts: list[dict]) -> str:
        """What the grader reads in a reply; "" when there is nothing."""
        return reply_text(parts).strip()

    def evaluate(self, chat: dict, parts: list[dict]) -> bool:
        """Whether the reply, a list of parts, is right."""
        reference = message_parts(chat["messages"][-1])
        return self.answer(chat, parts) == self.answer(chat, reference)

    def reward(self, chat: dict, parts: list[dict]) -> float:
        """What reinforcement learning pays for the reply, 0 to 1."""
        return float(self.evaluate(chat, parts))


def exchange(question: str, answer: str | list[dict], **more: Any) -> dict:
    """A conversation of one question and one answer (text or parts), with extra keys for the grader."""
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"messages": messages, **more}


def multiple_choice(question: str, choices: list[str], gold: int) -> dict:
    """A question with lettered choices; `gold` is the number of the right one.

    The letter stands before its choice, so that a causal model, reading the choice, already knows what it is
    called.
    """
    lines = [f"{letter}. {choice}" for letter, choice in zip(LETTERS, choices)]
    text = "\n".join([question, *lines, "Answer with the letter only."])
    return exchange(text, LETTERS[gold], letters=list(LETTERS[:len(choices)]))


# ---- tables from the hub
class HubTable:
    """Rows of one split, the files <folder>/<split>-00000-of-00004.parquet ... Raises TaskUnavailable."""

    def __init__(self, repo: str, folder: str, split: str, columns: list[str] | None = None) -> None:
        self.files = local_files(repo, folder, split) or _download(repo, folder, split)
        try:
            self.tables = [_read_table(path, columns) for path in self.files]
        except DataError as e:
            raise TaskUnavailable(str(e)) from None
        self.table = pyarrow.concat_tables(self.tables)

    def __len__(self) -> int:
        return self.table.num_rows

    def __getitem__(self, number: int) -> dict:
        return self.table.slice(number, 1).to_pylist()[0]

    def place(self, number: int) -> str:
        """The file and row that a number means, for messages."""
        for file, table in zip(self.files, self.tables):
            if number < table.num_rows:
                return f"{file}, row {number + 1}"
            number -= table.num_rows
        raise IndexError(number)


def _read_table(path: Path, columns: list[str] | None) -> pyarrow.Table:
    with reading(path, mend="Delete it to fetch it again."):
        has = pq.read_schema(path).names
        missing = [name for name in columns or [] if name not in has]
        if missing:
            raise DataError(f"{path} has no column {', '.join(missing)} (it has {', '.join(has)}).")
        return pq.read_table(path, columns=columns)


class HubTask(Task):
    """Conversations made of a hub data set's rows; subclasses give source, columns and `read`."""

    columns: list[str] | None = None  # those to load; None: all

    def __init__(self, split: str = "test") -> None:
        assert self.source, f"{self.name} names no table"
        repo, folder = self.source
        self.table = HubTable(repo, folder, split, self.columns)
        self.n = len(self.table)

    def conversation(self, number: int) -> dict:
        try:
            chat = self.read(self.table[number])
            validate(chat)
        except (DataError, ValueError, TypeError, LookupError, AttributeError) as e:  # of a row with a hole
            raise DataError(f"{self.name}: {self.table.place(number)}: {e}") from None
        return chat

    def read(self, row: dict) -> dict:
        """The conversation of a row."""
        raise NotImplementedError


def local_files(repo: str, folder: str, split: str) -> list[Path]:
    """The split's files if all are on this machine, else []."""
    home = base_dir() / "tasks" / repo / folder
    names = []
    with reading(home), contextlib.suppress(FileNotFoundError):
        names = os.listdir(home)
    return [home / name for name in _split_files(names, split)]


def _split_files(names: Iterable[str], split: str) -> list[str]:
    """Those of `names` that belong to `split`, sorted; [] unless all N of "-of-N" are there."""
    pattern = re.compile(rf"(?:.*/)?{split}-\d+-of-(\d+)\.parquet")
    found = []
    wanted = 0
    for name in names:
        match = pattern.fullmatch(name)
        if match:
            found.append(name)
            wanted = wanted or int(match[1])
    return sorted(found) if len(found) == wanted else []


def _download(repo, folder, split):
    try:
        in_folder = [name for name in hub.list_files(repo) if name.rpartition("/")[0] == folder]
        paths = []
        for name in _split_files(in_folder, split):
            paths.append(hub.fetch(repo, name, dest=base_dir() / "tasks" / repo / name))
    except NanochatError as e:
        raise TaskUnavailable(f"{repo} ({folder}, {split}) cannot be fetched: {e}") from None
    if not paths:
        raise TaskUnavailable(f"{repo} has no parquet files of the split {folder}/{split}.")
    return paths
