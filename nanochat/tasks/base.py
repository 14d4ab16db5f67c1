"""
What a task is: numbered conversations, each ending in the assistant's reference answer, and a grader.

Training takes the conversation as it stands; in evaluation all but the last message is the prompt. Tables come from the
hub as parquet files, downloaded on first use and kept under base_dir()/tasks.
"""
import re

import pyarrow
import pyarrow.parquet as pq

from nanochat.common import DataError, NanochatError, base_dir
from nanochat.data import hub
from nanochat.data.chat_format import message_parts, reply_text

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class TaskUnavailable(DataError):
    """The data of a task cannot be had here."""


class Task:
    """Subclasses give n, `conversation` and, where the reference is not simply the text to match, a grader.

    "generative" tasks are answered in free text; "categorical" ones by that of the conversation's "letters" which has
    the highest logit; "conversations" are for training only.
    """

    name = ""
    kind = "generative"
    chance = 0.0  # score of blind guessing
    source = None  # hub repository and folder; None when the data are in the code
    runs_code = unsafe = False  # grading runs the model's code; also where the sandbox has no walls
    max_new_tokens = 256  # room for a reply
    n = 0

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        if not 0 <= i < len(self):
            raise IndexError(i)
        return self.conversation(i)

    def answer(self, chat, parts) -> str:
        """What the grader reads in a reply; "" when there is nothing."""
        return reply_text(parts).strip()

    def evaluate(self, chat, parts) -> bool:
        reference = message_parts(chat["messages"][-1])
        return self.answer(chat, parts) == self.answer(chat, reference)

    def reward(self, chat, parts) -> float:
        """What reinforcement learning pays for the reply."""
        return float(self.evaluate(chat, parts))


def exchange(question, answer, **more):
    """One question and one answer (text or parts), with extra keys."""
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}], **more}


def multiple_choice(question, choices, gold):
    """A question with lettered choices; `gold` is the index of the right one."""
    lines = [f"{letter}. {choice}" for letter, choice in zip(LETTERS, choices)]
    text = "\n".join([question, *lines, "Answer with the letter only."])
    return exchange(text, LETTERS[gold], letters=list(LETTERS[:len(choices)]))


class HubTask(Task):
    """Conversations made of a hub data set's rows; subclasses give source, columns and `read`."""

    columns = None

    def __init__(self, split="test"):
        self.table = HubTable(*self.source, split, self.columns)
        self.n = len(self.table)

    def conversation(self, i):
        return self.read(self.table[i])


class HubTable:
    """Rows of one split, the files <folder>/<split>-00000-of-00004.parquet ..."""

    def __init__(self, repo, folder, split, columns=None):
        paths = local_files(repo, folder, split) or _download(repo, folder, split)
        try:
            self.table = pyarrow.concat_tables([pq.read_table(path, columns=columns) for path in paths])
        except (pyarrow.ArrowException, OSError) as e:
            names = ", ".join(map(str, paths))
            raise TaskUnavailable(f"cannot read {names}: {e}. Delete it to fetch it again.") from None

    def __len__(self):
        return self.table.num_rows

    def __getitem__(self, i):
        return self.table.slice(i, 1).to_pylist()[0]


def _split_files(names, split):
    """Those of `names` that belong to `split`, sorted; [] unless all N of them are there."""
    found = [m for name in names if (m := re.fullmatch(rf"(?:.*/)?{split}-\d+-of-(\d+)\.parquet", name))]
    return sorted(m[0] for m in found) if found and len(found) == int(found[0][1]) else []


def local_files(repo, folder, split):
    """The split's files if all are on this machine, else []."""
    home = base_dir() / "tasks" / repo / folder
    return [home / name for name in _split_files([path.name for path in home.glob("*.parquet")], split)]


def _download(repo, folder, split):
    try:
        wanted = _split_files([name for name in hub.list_files(repo) if name.rpartition("/")[0] == folder], split)
        paths = [hub.fetch(repo, name, dest=base_dir() / "tasks" / repo / name) for name in wanted]
    except NanochatError as e:
        raise TaskUnavailable(f"{repo} ({folder}, {split}) cannot be fetched: {e}") from None
    if not paths:
        raise TaskUnavailable(f"{repo} has no parquet files of the split {folder}/{split}.")
    return paths
