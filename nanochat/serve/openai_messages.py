"""
OpenAI's API: the messages of a conversation, and what they are in the chat format. Knows no HTTP.

Clients are freer than the format, in which one system message stands first, then user and assistant in turn.
`developer` is the system, neighbours of one role are one message, null is empty, and what a client's own
tool says is what the assistant's call has put out.
"""
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, field_validator, model_validator

from nanochat.common import DataError


class Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)


# Comments, not docstrings: those would be told to clients in the OpenAPI document.
class Part(Strict):
    type: Literal["text", "python", "python_output"]
    text: str

    @field_validator("type", mode="before")
    @classmethod
    def _read_type(cls, kind: Any) -> Any:
        if kind in ("input_text", "output_text"):
            return "text"
        if kind in ("image_url", "input_image", "file"):
            raise ValueError(f'must be text, not "{kind}": this model reads nothing else')
        return kind


class Function(Strict):
    name: str
    arguments: str = ""


class ToolCall(Strict):
    function: Function


class Message(Strict):
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[Part] | None = None
    tool_calls: list[ToolCall] | None = None
    function_call: Function | None = None  # OpenAI's older name of one

    @model_validator(mode="after")
    def _has_content(self) -> "Message":
        if self.role != "assistant" and "content" not in self.model_fields_set:
            raise ValueError("has no content")
        return self

    def text(self) -> str:
        """What it says. Raises DataError for a call: a user's would be words in the assistant's mouth."""
        if self.content is None or isinstance(self.content, str):
            return self.content or ""
        if any(part.type != "text" for part in self.content):
            raise DataError(f"only the assistant can use tools, not the {self.role}")
        return "".join(part.text for part in self.content)

    def parts(self) -> list[dict[str, str]]:
        """Of the assistant's turn: its words, its calls of the client's tools, their results."""
        if self.role != "assistant":
            return [{"type": "python_output", "text": self.text()}]
        if isinstance(self.content, list):
            said = [part.model_dump() for part in self.content]
        else:
            said = [{"type": "text", "text": self.text()}]
        calls = [call.function for call in self.tool_calls or []]
        if self.function_call:
            calls.append(self.function_call)
        return said + [{"type": "python", "text": f"{call.name}({call.arguments})"} for call in calls]


def conversation(messages: list[Message]) -> list[dict[str, Any]]:
    """The messages in the chat format's order; the last is the assistant's if it is to be continued.

    What the system says goes to the front. An empty message stands where no user is. Raises DataError.
    """
    system: list[str] = []
    turns: list[dict[str, Any]] = []
    for message in messages:
        last = turns[-1]["role"] if turns else None
        if message.role in ("system", "developer"):
            system.append(message.text())
        elif message.role == "user" and last == "user":
            turns[-1]["content"] += "\n\n" + message.text()
        elif message.role == "user":
            turns.append({"role": "user", "content": message.text()})
        else:
            if last is None:
                turns.append({"role": "user", "content": ""})
            if last != "assistant":
                turns.append({"role": "assistant", "content": []})
            turns[-1]["content"] += message.parts()
    to_answer = messages[-1].role in ("system", "developer")
    if not turns or (to_answer and turns[-1]["role"] == "assistant"):
        turns.append({"role": "user", "content": ""})
    if system:
        turns.insert(0, {"role": "system", "content": "\n\n".join(system)})
    return turns
