"""
Your own conversations, a file with one JSON a line.

{"messages": [...]}, or simply the list of messages, or {"text": "..."}, a document. Opening it names a bad line.
"""
import json
from pathlib import Path

from nanochat.common import DataError
from nanochat.data.chat_format import validate
from nanochat.tasks.base import Task, TaskUnavailable


class CustomJSON(Task):
    kind = "conversations"

    def __init__(self, path):
        self.name, self.path = Path(path).stem, Path(path)
        try:
            lines = self.path.read_text(encoding="utf-8").split("\n")  # splitlines() parts at U+2028 too
        except (OSError, UnicodeDecodeError) as e:
            raise TaskUnavailable(f"cannot read {path}: {e}.") from None
        self.conversations = [self._parse(n, line) for n, line in enumerate(lines, start=1) if line.strip()]
        self.n = len(self.conversations)

    def _parse(self, number, line):
        try:
            value = json.loads(line)
            chat = {"messages": value} if isinstance(value, list) else value
            validate(chat)
        except (ValueError, DataError) as e:
            raise DataError(f"{self.path}, line {number}: {e}") from None
        return chat

    def conversation(self, i):
        return self.conversations[i]
