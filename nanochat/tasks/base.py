"""
What a task is: a numbered list of conversations, each ending in the assistant's reference answer, and a grader.

The same object serves training (the conversation as it stands) and evaluation (all but the last message is the prompt,
the model's reply is graded). Tables come from the hub as parquet files, downloaded on first use and kept under
base_dir()/tasks. A task whose data cannot be had raises TaskUnavailable; whoever runs tasks says so and goes on.
"""
import abc
import re

import pyarrow
import pyarrow.parquet as pq

from nanochat import hub
from nanochat.chat_format import reply_text
from nanochat.common import DataError, NanochatError, base_dir

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class TaskUnavailable(DataError):
    """The data of a task cannot be had here. The text says which and why."""


class Task(abc.ABC):
    """Subclasses give __len__, __getitem__ and, where the reference is not simply the text to match, a grader.

    "generative" tasks are answered in free text; "categorical" ones by one of the letters that the conversation lists
    under "letters", chosen by comparing the letters' logits; "conversations" are for training only.
    """

    name = ""
    kind = "generative"
    chance = 0.0            # score of blind guessing
    runs_code = unsafe = False    # whether grading runs the model's code; also where the sandbox has no walls
    max_new_tokens = 256    # room for a reply

    @abc.abstractmethod
    def __len__(self):
        """Number of conversations."""

    @abc.abstractmethod
    def __getitem__(self, i):
        """Conversation i, a dict; IndexError past the end."""

    def answer(self, conversation, parts) -> str:
        """What the grader reads in a reply (parts as chat_format.parse_reply gives them); "" when there is nothing."""
        return reply_text(parts).strip()

    def evaluate(self, conversation, parts) -> bool:
        """Whether the reply is right."""
        reference = message_parts(conversation["messages"][-1])
        return self.answer(conversation, parts) == self.answer(conversation, reference)

    def reward(self, conversation, parts) -> float:
        """What reinforcement learning pays for the reply."""
        return float(self.evaluate(conversation, parts))


def message_parts(message):
    """A message's content as a list of parts, whichever of its two forms it has."""
    content = message["content"]
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def exchange(question, answer, **more):
    """A conversation of one question and one answer (text or parts); `more` are extra keys of the conversation."""
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}], **more}


def multiple_choice(question, choices, gold):
    """The one rendering of a question with lettered choices; `gold` is the index of the right one."""
    lines = [f"{letter}. {choice}" for letter, choice in zip(LETTERS, choices)]
    text = "\n".join([question, *lines, "Answer with the letter only."])
    return exchange(text, LETTERS[gold], letters=list(LETTERS[:len(choices)]))


class HubTable:
    """Rows of one split of a hub data set: the files <folder>/<split>-00000-of-00004.parquet and so on."""

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
        if not 0 <= i < len(self):
            raise IndexError(i)
        return {name: self.table[name][i].as_py() for name in self.table.column_names}


def _split_files(names, split):
    """Those of `names` that belong to `split`, sorted; [] unless all of the "-of-N" are there."""
    found = [(re.fullmatch(rf"{split}-\d+-of-(\d+)\.parquet", name.split("/")[-1]), name) for name in names]
    found = [(int(match[1]), name) for match, name in found if match]
    return sorted(name for _, name in found) if found and len(found) == found[0][0] else []


def local_files(repo, folder, split):
    """The split's files if all of them are on this machine, else []."""
    home = base_dir() / "tasks" / repo / folder
    names = [path.name for path in home.glob("*.parquet")] if home.is_dir() else []
    return [home / name for name in _split_files(names, split)]


def _download(repo, folder, split):
    try:
        remote = [name for name in hub.list_files(repo) if name.rpartition("/")[0] == folder]
        wanted = _split_files(remote, split)
        home = base_dir() / "tasks" / repo
        paths = [hub.fetch(repo, name, dest=home / name) for name in wanted]
    except NanochatError as e:
        raise TaskUnavailable(f"{repo} ({folder}, {split}) cannot be fetched: {e}") from None
    if not paths:
        raise TaskUnavailable(f"{repo} has no parquet files of the split {folder}/{split}.")
    return paths
