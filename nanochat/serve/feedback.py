"""
What people think of answers: thumbs from the page, kept as conversations that finetuning takes.

    python -m scripts.chat_sft --data="kindergarten|~/.cache/nanochat/feedback.jsonl*20"

A line is a conversation up to the answer that was judged. Only an answer that was liked is learned: all
others have weight 0. So what was disliked is there to be read, or mended by hand, and teaches nothing.
"""
import asyncio
import json
import threading
from pathlib import Path
from typing import Any, Literal

from fastapi import Request
from pydantic import Field

from nanochat.common import DataError, atomic_write
from nanochat.serve.errors import ApiError, invalid
from nanochat.serve.limits import read_body
from nanochat.serve.openai_messages import Message, Strict, conversation
from nanochat.serve.openai_requests import MAX_MESSAGES, parse

MAX_FILE_BYTES = 16 << 20


class Rating(Strict):
    """An opinion of the last of `messages`; null takes back what was said of the same `id`."""

    id: str = Field(min_length=1, max_length=64)
    rating: Literal["up", "down"] | None
    messages: list[Message] = Field(min_length=2, max_length=MAX_MESSAGES)


class Feedback:
    """A JSONL file of judged conversations, a line for each answer."""

    def __init__(self, path: Path):
        self.path = path
        self._lock = threading.Lock()  # two at once would each write without the other's

    async def take(self, request: Request) -> dict[str, Any]:
        """The response to POST /v1/feedback. Raises ApiError 400, or 507 when the file is full."""
        rating = parse(Rating, await read_body(request))
        try:
            turns = conversation(rating.messages)
        except DataError as error:
            raise invalid(f"{error}.", "messages") from None
        if turns[-1]["role"] != "assistant":
            raise invalid("The last message must be the assistant's.", "messages")
        await asyncio.to_thread(self._keep, rating, turns)
        return {"rating": rating.rating}

    def _keep(self, rating, turns):
        for turn in turns[:-1]:
            if turn["role"] == "assistant":
                turn["weight"] = 0
        turns[-1]["weight"] = 1 if rating.rating == "up" else 0
        record = {"id": rating.id, "rating": rating.rating, "messages": turns}
        with self._lock:
            lines = self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else []
            own = json.dumps({"id": rating.id})[:-1]  # how the line of the same answer begins
            lines = [line for line in lines if not line.startswith(own)]
            if rating.rating:
                lines.append(json.dumps(record))
            text = "".join(line + "\n" for line in lines)
            if len(text) > MAX_FILE_BYTES:
                raise ApiError(507, f"{self.path.name} is full. Who runs this server may move it away.",
                               "server_error", code="feedback_full")
            atomic_write(self.path, text)
