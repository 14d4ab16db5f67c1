"""
The forms in which people keep conversations -> the one of chat_format.py.

Messages as OpenAI and ShareGPT write them, pairs such as Alpaca's, documents. Neighbours of one role become
one message, as the model knows only turns. What says nothing is passed over: other keys, content that is
null. What would change the meaning is refused: a call of a tool, an image, a role that nobody here plays.
"""
from typing import Any

from nanochat.common import DataError
from nanochat.data.chat_format import PARTS, Chat, Message, validate

FORMS = ('{"messages": [{"role": "user", "content": ".."}, {"role": "assistant", "content": ".."}]}, '
         '{"conversations": [{"from": "human", "value": ".."}, {"from": "gpt", "value": ".."}]}, '
         '{"instruction": "..", "input": "..", "output": ".."}, {"prompt": "..", "completion": ".."}, '
         '{"question": "..", "answer": ".."}, {"text": ".."}')
LISTS = ("messages", "conversations", "conversation")
QUESTIONS = ("instruction", "prompt", "question", "query", "input")
ANSWERS = ("output", "completion", "response", "answer")
MATERIAL = ("input", "context")  # what a question is about
BEYOND = ("history", "image", "images")
ROLES = {"human": "user", "gpt": "assistant", "chatgpt": "assistant", "bot": "assistant",
         "model": "assistant", "ai": "assistant", "developer": "system"}


def to_chat(value: Any) -> Chat:
    """The conversation in a row of any of FORMS. Raises DataError."""
    if isinstance(value, list):
        value = {"messages": value}
    row = {}
    if isinstance(value, dict):
        row = {str(key).lower(): content for key, content in value.items() if content is not None}
    found = _messages(row)
    if found is None:
        if isinstance(row.get("text"), str):
            for key in ("role", *QUESTIONS, *ANSWERS):
                if key in row:
                    raise DataError(f"a text beside {key!r}: give the text alone, or one of: {FORMS}")
            return {"text": row["text"]}
        has = ", ".join(row) or type(value).__name__
        raise DataError(f"this is no conversation (it has {has}). Understood are: {FORMS}")
    for key in BEYOND:
        if row.get(key):
            raise DataError(f"its {key!r} would be lost: put its words into the messages, or drop it")
    if isinstance(row.get("system"), str):
        found = [{"role": "system", "content": row["system"]}, *found]
    messages: list[Message] = []
    for number, message in enumerate(found):
        made = _to_message(number, message)
        if made["content"] is not None:
            _append(messages, made)
    chat = {"messages": messages}
    validate(chat)
    return chat


def _messages(row: dict[str, Any]) -> list | None:
    """As they stand in the row, None where it has none."""
    for key in LISTS:
        if key in row:
            if not isinstance(row[key], list):
                raise DataError(f"{key!r} holds {type(row[key]).__name__}, not a list of messages")
            return row[key]
    for question in QUESTIONS:
        for answer in ANSWERS:
            if question in row and answer in row:
                return _asked(row, question) + _said("assistant", row[answer])
    return None


def _asked(row: dict[str, Any], question: str) -> list:
    found = _said("user", row[question])
    for key in MATERIAL:
        if row.get(key) and key != question:
            found += _said("user", row[key])
    return found


def _said(role: str, content: Any) -> list:
    return content if isinstance(content, list) else [{"role": role, "content": content}]


def _to_message(number: int, message: Any) -> Message:
    if not isinstance(message, dict):
        raise DataError(f"message {number} is no object with a role and content")
    role = message.get("role") or message.get("from")
    if isinstance(role, str):
        role = ROLES.get(role.lower(), role.lower())
    if message.get("tool_calls") or message.get("function_call"):
        raise DataError(f"message {number} calls a tool, which nanochat does not have")
    if "content" not in message and "value" not in message:
        raise DataError(f"message {number} has no content (it has {', '.join(message)})")
    content = message.get("value") if message.get("content") is None else message["content"]
    made = {"role": role, "content": _content(number, role, content)}
    weight = message.get("weight")
    if weight not in (None, 0, 1):
        raise DataError(f"message {number}: weight must be 0 or 1, got {weight!r}")
    if weight == 0 or role == "assistant" and False in (message.get("train"), message.get("loss")):
        made["weight"] = 0
    return made


def _content(number: int, role: Any, content: Any) -> Any:
    """Text, or an assistant's parts."""
    if not isinstance(content, list):
        return content
    parts = []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else type(part).__name__
        if kind in ("input_text", "output_text"):
            kind = "text"
        if kind != "text" and (role != "assistant" or kind not in PARTS):
            raise DataError(f"message {number}, of the {role}, has a part of type {kind!r}, not text")
        if not isinstance(part.get("text"), str):
            raise DataError(f"message {number}, of the {role}, has a part without a text")
        parts.append({"type": kind, "text": part["text"]})
    return parts if role == "assistant" else "".join(part["text"] for part in parts)


def _append(messages: list[Message], message: Message) -> None:
    """Add a message, or its words to the one before if that is of the same role and weight."""
    before = messages[-1] if messages else {}
    same = all(before.get(key) == message.get(key) for key in ("role", "weight"))
    if same and isinstance(before["content"], str) and isinstance(message["content"], str):
        before["content"] = f"{before['content']}\n\n{message['content']}"
    else:
        messages.append(message)
