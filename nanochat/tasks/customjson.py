"""
Your own conversations, a file with one JSON a line.

{"messages": [...]}, or simply the list of messages, or {"text": "..."}, a document. Opening it names a bad
line.
"""
import json
from pathlib import Path

from nanochat.common import DataError
from nanochat.data.chat_format import validate
from nanochat.tasks.base import Task, TaskUnavailable


class CustomJSON(Task):
    kind = "conversations"

    def __init__(self, path: str | Path) -> None:
        """Read and check all of it. Raises TaskUnavailable for a file that cannot be read, DataError for a
        line."""
        self.path = Path(path)
        self.name = self.path.stem
        try:
            text = self.path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as e:
            raise TaskUnavailable(f"cannot read {path}: {e}.") from None
        self.conversations = []
        for number, line in enumerate(text.split("\n"), start=1):  # splitlines() parts at U+2028 too
            if line.strip():
                self.conversations.append(self._parse(number, line))
        self.n = len(self.conversations)

    def _parse(self, number, line):
        try:
            value = json.loads(line)
            chat = {"messages": value} if isinstance(value, list) else value
            validate(chat)
        except (ValueError, DataError) as e:
            raise DataError(f"{self.path}, line {number}: {e}") from None
        return chat

    def conversation(self, number: int) -> dict:
        return self.conversations[number]
