"""
The one place where a conversation becomes tokens and tokens a reply, so that a model is asked as it was
taught.

    <|bos|> [<|system_start|> .. <|system_end|>]
    <|user_start|> .. <|user_end|> <|assistant_start|> .. <|assistant_end|>  and so on

Inside the assistant's turn: text, <|python_start|> code <|python_end|>, <|output_start|> result
<|output_end|>. The mask is 1 on what the assistant itself must produce (text, code and its marks,
assistant_end), 0 on all else: a model that learned to predict the user would go on asking, and one that
learned the calculator's output would guess results. assistant_end is supervised, or no reply would ever end.

Each part is encoded alone: no text can become a special token, and a prompt is a prefix of the whole. Text
begins with a blank that reading takes off (as in SentencePiece, arXiv 1808.06226): its first word is the
token it is in a sentence.
"""
from collections.abc import Iterable
from typing import Any, NoReturn

from nanochat.common import DataError
from nanochat.data.tokenizer import Tokenizer

Chat = dict[str, Any]  # {"messages": [...]}, or a document: {"text": str}
Message = dict[str, Any]  # {"role": str, "content": str | [Part, ...]}, "weight": 0 if not to be learned
Part = dict[str, str]  # {"type": "text" | "python" | "python_output", "text": str}

ROLES = ("system", "user", "assistant")
PARTS = {  # type of part -> the marks around it
    "python": ("<|python_start|>", "<|python_end|>"),
    "python_output": ("<|output_start|>", "<|output_end|>"),
}


# ---- validate
def validate(chat: Chat) -> None:
    """Raise DataError, saying which message is wrong, unless `chat` can be rendered.

    Allowed: {"text": str}, a document; else an optional system message, then user and assistant in turn, user
    first. The assistant's content may be a list of {"type": "text" | "python" | "python_output", "text":
    str}.
    """
    if not isinstance(chat, dict):
        chat = {}
    if "messages" not in chat and isinstance(chat.get("text"), str):
        return
    messages = chat.get("messages")
    if not isinstance(messages, list) or not messages:
        raise DataError("a conversation wants a list of at least one message under 'messages'")
    for i, message in enumerate(messages):
        _validate_message(i, message)

    first = 1 if messages[0]["role"] == "system" else 0
    expected = "user"
    for i, message in enumerate(messages[first:], first):
        role = message["role"]
        if role != expected:
            raise DataError(f"message {i} of a conversation: expected the {expected}, got the {role}")
        expected = "assistant" if role == "user" else "user"
    if len(messages) == first:
        raise DataError("a conversation wants a user message")


def _validate_message(number: int, message: Any) -> None:
    def wrong(what: str) -> NoReturn:
        raise DataError(f"message {number} of a conversation: {what}")

    role = message.get("role") if isinstance(message, dict) else None
    if role not in ROLES:
        wrong(f"role must be system, user or assistant, got {role!r}")
    content = message.get("content")
    if isinstance(content, str):
        return
    if not isinstance(content, list) or role != "assistant":
        wrong(f"the {role}'s content must be a string, got {type(content).__name__}")
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind not in ("text", *PARTS):
            wrong(f"a part's type must be text, python or python_output, got {kind!r}")
        if not isinstance(part.get("text"), str):
            wrong(f"a part's text must be a string, got {type(part.get('text')).__name__}")


# ---- conversation -> ids
def render(tokenizer: Tokenizer, chat: Chat) -> tuple[list[int], list[int]]:
    """(ids, mask), equally long. Of a document, which only replays what was read, all but bos is 1."""
    validate(chat)
    ids = [tokenizer.bos_id]
    mask = [0]
    if "messages" not in chat:
        text_ids = tokenizer.encode(chat["text"])
        return ids + text_ids, mask + [1] * len(text_ids)
    for message in chat["messages"]:
        message_ids, message_mask = _render_message(tokenizer, message)
        ids += message_ids
        mask += message_mask
    return ids, mask


def render_prompt(tokenizer: Tokenizer, messages: list[Message], max_tokens: int | None = None) -> list[int]:
    """The ids after which the assistant's reply to `messages` begins.

    A closing assistant message (a task's answer) is left out. With `max_tokens` the oldest exchanges go until
    the rest fits, never the system message; the last question is cut on its left if it must be. Raises
    DataError.
    """
    validate({"messages": messages})
    if messages[-1]["role"] == "assistant":
        messages = messages[:-1]
    turns = [_render_message(tokenizer, message)[0] for message in messages]
    prompt = [tokenizer.bos_id]
    if messages[0]["role"] == "system":
        prompt += turns.pop(0)
    if max_tokens is not None:
        room = max_tokens - len(prompt) - 1  # 1: assistant_start
        turns = _newest(turns, room)
    for turn in turns:
        prompt += turn
    return prompt + [tokenizer.special("<|assistant_start|>")]


def render_continued(tokenizer: Tokenizer, messages: list[Message]) -> list[int]:
    """As `render_prompt`, but the reply goes on where a closing assistant message ends. Raises DataError."""
    prompt = render_prompt(tokenizer, messages)
    if messages[-1]["role"] == "assistant":
        begun, _ = _render_message(tokenizer, messages[-1])
        prompt += begun[1:-1]  # without its marks: assistant_start is there already
    return prompt


def _newest(turns: list[list[int]], room: int) -> list[list[int]]:
    """The newest of `turns` (user, assistant, ..., user) that fit into `room` tokens, a user's first."""
    if room < 3:
        raise DataError("the system message fills the whole context; send a shorter one")
    while len(turns) > 1 and sum(len(turn) for turn in turns) > room:
        turns = turns[2:]
    if len(turns[0]) > room:
        start, *text, end = turns[0]
        kept = text[len(text) - (room - 2):]
        turns = [[start, *kept, end]]
    return turns


def encode_text(tokenizer: Tokenizer, text: str) -> list[int]:
    """The ids of a text part, its leading blank included."""
    return tokenizer.encode(" " + text) if text else []


def message_parts(message: Message) -> list[Part]:
    """A message's content as a list of parts."""
    content = message["content"]
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return content


def _render_message(tokenizer: Tokenizer, message: Message) -> tuple[list[int], list[int]]:
    """(ids, mask) of one turn with its marks."""
    role = message["role"]
    supervised = 1 if role == "assistant" and message.get("weight", 1) else 0
    ids = [tokenizer.special(f"<|{role}_start|>")]
    mask = [0]  # the prompt ends with assistant_start: the model is never asked to produce it
    parts = message_parts(message)
    if len(parts) > 2 and reply_text(parts[:-1]) == parts[-1]["text"]:
        parts = parts[:-1]  # what a stream has said for a result: the model did not write it
    for part in parts:
        if part["type"] == "text":
            part_ids = encode_text(tokenizer, part["text"])
        else:
            opening, closing = PARTS[part["type"]]
            code_ids = tokenizer.encode(part["text"])
            part_ids = [tokenizer.special(opening), *code_ids, tokenizer.special(closing)]
        part_mask = 0 if part["type"] == "python_output" else supervised
        ids += part_ids
        mask += [part_mask] * len(part_ids)
    ids.append(tokenizer.special(f"<|{role}_end|>"))
    mask.append(supervised)
    return ids, mask


# ---- ids -> reply
def parse_reply(tokenizer: Tokenizer, ids: Iterable[int]) -> list[Part]:
    """The parts {"type", "text"} of the ids that follow assistant_start; never raises.

    It ends at any mark of a turn. A mark that closes nothing is ignored, an open part is kept, empty text is
    dropped.
    """
    opens = {tokenizer.special(opening): kind for kind, (opening, _) in PARTS.items()}
    closes = {tokenizer.special(closing): kind for kind, (_, closing) in PARTS.items()}
    ends = {tokenizer.bos_id}
    for role in ROLES:
        ends.add(tokenizer.special(f"<|{role}_start|>"))
        ends.add(tokenizer.special(f"<|{role}_end|>"))

    found: list[tuple[str, list[int]]] = [("text", [])]  # (type, ids) of each part
    for i in map(int, ids):
        open_kind, open_ids = found[-1]
        if i in ends:
            break
        if i in opens:
            found.append((opens[i], []))
        elif i not in closes:
            open_ids.append(i)
        elif closes[i] == open_kind:
            found.append(("text", []))

    parts = []
    for kind, part_ids in found:
        text = tokenizer.decode(part_ids)
        if kind == "text":
            text = text.removeprefix(" ")
        if text or kind != "text":
            parts.append({"type": kind, "text": text})
    return parts


def plain_text(parts: list[Part]) -> str:
    """A reply as one text, what a tool was asked and said in brackets."""
    texts = []
    for part in parts:
        texts.append(part["text"] if part["type"] == "text" else f"[{part['text']}] ")
    return "".join(texts)


def reply_text(parts: list[Part]) -> str:
    """What is said: the text without code and results, or where a call's result is all, that result."""
    said = "".join(part["text"] for part in parts if part["type"] == "text")
    if not said and [part["type"] for part in parts[-2:]] == ["python", "python_output"]:
        said = parts[-1]["text"].strip()
    return said
