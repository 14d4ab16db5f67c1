"""
The one place where a conversation becomes tokens and tokens a reply, so that a model is asked as it was taught.

    <|bos|> [<|system_start|> .. <|system_end|>]
    <|user_start|> .. <|user_end|> <|assistant_start|> .. <|assistant_end|>  and so on

Inside the assistant's turn: text, <|python_start|> code <|python_end|>, <|output_start|> result <|output_end|>.
The mask is 1 on what the assistant itself must produce (text, code and its marks, assistant_end), 0 on all else.
Each part is encoded alone: no text can become a special token, and a prompt is a prefix of the whole. Text begins with
a blank that reading takes off (as in SentencePiece, arXiv 1808.06226): its first word is the token it is in a sentence.
"""
from nanochat.common import DataError

ROLES = ("system", "user", "assistant")
PARTS = {"python": ("<|python_start|>", "<|python_end|>"), "python_output": ("<|output_start|>", "<|output_end|>")}


# ---- validate
def validate(chat):
    """Raise DataError, saying which message is wrong, unless `chat` can be rendered.

    Allowed: {"text": str}, a document; else an optional system message, then user and assistant in turn, user first.
    The assistant's content may be a list of {"type": "text" | "python" | "python_output", "text": str}.
    """
    chat = chat if isinstance(chat, dict) else {}
    if "messages" not in chat and isinstance(chat.get("text"), str):
        return
    messages = chat.get("messages")
    if not isinstance(messages, list) or not messages:
        raise DataError("a conversation wants a list of at least one message under 'messages'")
    for i, message in enumerate(messages):
        _validate_message(i, message)
    first = int(messages[0]["role"] == "system")
    for i, message in enumerate(messages[first:]):
        role, expected = message["role"], "assistant" if i % 2 else "user"
        if role != expected:
            raise DataError(f"message {first + i} of a conversation: expected the {expected}, got the {role}")
    if len(messages) == first:
        raise DataError("a conversation wants a user message")


def _validate_message(i, message):
    def wrong(what):
        raise DataError(f"message {i} of a conversation: {what}")
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
def render(tokenizer, chat):
    """(ids, mask), lists of int. Of a document, read again so that it is not forgotten, all is supervised."""
    validate(chat)
    if "messages" not in chat:
        ids = tokenizer.encode(chat["text"])
        return [tokenizer.bos_id, *ids], [0, *[1] * len(ids)]
    ids, mask = [tokenizer.bos_id], [0]
    for message in chat["messages"]:
        message_ids, message_mask = _render_message(tokenizer, message)
        ids += message_ids
        mask += message_mask
    return ids, mask


def render_prompt(tokenizer, messages, max_tokens=None) -> list[int]:
    """The ids after which the assistant's reply to `messages` begins.

    A closing assistant message (a task's answer) is left out. With `max_tokens` the oldest exchanges go until the rest
    fits, never the system message; the last question is cut on its left if it must be. Raises DataError.
    """
    validate({"messages": messages})
    messages = messages[:-1] if messages[-1]["role"] == "assistant" else messages
    turns = [_render_message(tokenizer, message)[0] for message in messages]
    head, tail = [tokenizer.bos_id], [tokenizer.special("<|assistant_start|>")]
    if messages[0]["role"] == "system":
        head += turns.pop(0)
    if max_tokens is not None:
        turns = _newest(turns, max_tokens - len(head) - len(tail))
    return head + [i for turn in turns for i in turn] + tail


def _newest(turns, room):
    """The newest of `turns` (user, assistant, ..., user) that fit into `room` tokens, a user's first."""
    if room < 3:
        raise DataError("the system message fills the whole context; send a shorter one")
    while len(turns) > 1 and sum(map(len, turns)) > room:
        turns = turns[2:]
    if len(turns[0]) > room:
        start, *text, end = turns[0]
        turns = [[start, *text[len(text) - (room - 2):], end]]
    return turns


def encode_text(tokenizer, text) -> list[int]:
    """The ids of a text part, its leading blank included."""
    return tokenizer.encode(" " + text) if text else []


def message_parts(message):
    """A message's content as a list of parts."""
    content = message["content"]
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _render_message(tokenizer, message):
    role, spoken = message["role"], int(message["role"] == "assistant")
    start, end = tokenizer.special(f"<|{role}_start|>"), tokenizer.special(f"<|{role}_end|>")
    ids, mask = [start], [0]
    for part in message_parts(message):
        part_ids = encode_text(tokenizer, part["text"]) if part["type"] == "text" else tokenizer.encode(part["text"])
        if part["type"] in PARTS:
            opening, closing = PARTS[part["type"]]
            part_ids = [tokenizer.special(opening), *part_ids, tokenizer.special(closing)]
        ids += part_ids
        mask += [spoken if part["type"] != "python_output" else 0] * len(part_ids)
    return ids + [end], mask + [spoken]


# ---- ids -> reply
def parse_reply(tokenizer, ids) -> list[dict]:
    """The parts {"type", "text"} of the ids that follow assistant_start; never raises.

    It ends at any mark of a turn. A mark that closes nothing is ignored, an open part is kept, empty text is dropped.
    """
    opens = {tokenizer.special(opening): kind for kind, (opening, _) in PARTS.items()}
    closes = {tokenizer.special(closing): kind for kind, (_, closing) in PARTS.items()}
    turn_marks = {tokenizer.special(f"<|{role}_{edge}|>") for role in ROLES for edge in ("start", "end")}
    found = [("text", [])]
    for i in map(int, ids):
        if i in turn_marks or i == tokenizer.bos_id:
            break
        if i in opens:
            found.append((opens[i], []))
        elif i not in closes:
            found[-1][1].append(i)
        elif found[-1][0] == closes[i]:
            found.append(("text", []))
    texts = [(kind, tokenizer.decode(part).removeprefix(" " * (kind == "text"))) for kind, part in found]
    return [{"type": kind, "text": text} for kind, text in texts if text or kind != "text"]


def reply_text(parts) -> str:
    return "".join(part["text"] for part in parts if part["type"] == "text")
