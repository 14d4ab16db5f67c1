"""
Your own conversations: a file of rows, or a folder of them, in any of the forms of conversation_forms.py.

One JSON a line, a JSON list or a parquet table. Opening it names a bad row.
"""
from pathlib import Path

from nanochat.common import DataError, UsageError, log
from nanochat.data.conversation_forms import FORMS, to_chat
from nanochat.data.sources import Files, find_files, kind_of, rows
from nanochat.tasks.base import Task, TaskUnavailable


class CustomJSON(Task):
    kind = "conversations"

    def __init__(self, path: str | Path) -> None:
        """Read and check all of it. Raises DataError, which names file and row, and UsageError."""
        self.name = Path(path).stem
        try:
            found = find_files(path)
        except DataError as e:
            raise TaskUnavailable(str(e)) from None
        if kind_of(found.train[0]) == "txt":
            raise UsageError(f"{path} is text, for base_train's --dataset. Conversations are: {FORMS}")
        files = Files(found.train, [], found.val + found.unused)
        if len(files.train + files.unused) > 1:
            log.info(f"{path}: {files}")
        self.conversations = []
        for file in files.train:
            for place, value in rows(file):
                try:
                    self.conversations.append(to_chat(value))
                except DataError as e:
                    raise DataError(f"{place}: {e}") from None
        self.n = len(self.conversations)
        if not self.n:
            raise TaskUnavailable(f"{path} holds no conversation: it is empty.")

    def conversation(self, number: int) -> dict:
        return self.conversations[number]
