"""
OpenAI's API: what a request may say, how answers, chunks and errors are written. Knows no HTTP.

Beyond OpenAI's: `top_k`, `min_p`, `repetition_penalty`, and `parts` (tool calls) in a reply. Unknown fields are ignored,
`tools` and `echo` refused when they would change the answer.
"""
import json
import secrets
import time
from collections import Counter
from dataclasses import replace
from itertools import accumulate
from typing import Annotated, ClassVar, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.json_schema import models_json_schema

from nanochat.common import DataError
from nanochat.data.chat_format import render_prompt
from nanochat.infer.text_stream import Event

MAX_MESSAGES = 1000


# ---- errors
class ApiError(Exception):
    def __init__(self, status, message, type="invalid_request_error", param=None, code=None, headers=None):
        super().__init__(message)
        self.status, self.headers = status, headers
        self.body = {"error": {"message": message, "type": type, "param": param, "code": code}}


def invalid(message, param):
    return ApiError(400, message, param=param, code="invalid_value")


def server_error(message):
    return ApiError(500, message, "server_error", code="engine_failed")


# ---- requests
class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)


class Part(_Strict):
    type: Literal["text", "python", "python_output"]
    text: str


class Message(_Strict):
    role: Literal["system", "user", "assistant"]
    content: str | list[Part]

    def plain(self):
        if isinstance(self.content, str) or self.role == "assistant":
            return self.model_dump()
        if any(part.type != "text" for part in self.content):
            raise DataError(f"only the assistant can use tools, not the {self.role}")
        return {"role": self.role, "content": "".join(part.text for part in self.content)}


def whole(low, high=None):
    """An integer of JSON, where 12.0 is one, too."""
    return Annotated[int, Field(ge=low, le=high),
                     BeforeValidator(lambda x: int(x) if isinstance(x, float) and x.is_integer() else x)]


No = Annotated[Literal[False], BeforeValidator(lambda x: x if isinstance(x, bool) else "")]
Ids = Annotated[list[whole(0)], Field(min_length=1)]
Many = Annotated[list[TypeVar("T")], Field(min_length=1, max_length=128)]


class StreamOptions(_Strict):
    include_usage: bool = False


class _Request(_Strict):
    model: str | None = None
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: whole(0, 1 << 20) | None = None
    min_p: float | None = Field(None, ge=0, le=1)
    repetition_penalty: float | None = Field(None, gt=0, le=10)
    max_tokens: whole(1) | None = None
    seed: whole(-(1 << 63), (1 << 63) - 1) | None = None
    n: whole(1, 128) | None = None
    stop: str | Annotated[list[str], Field(max_length=4)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    @property
    def stops(self):
        return tuple(text for text in ([self.stop] if isinstance(self.stop, str) else self.stop or []) if text)


class ChatRequest(_Request):
    """The next message of a conversation."""

    chat: ClassVar = True
    n_prompts: ClassVar = 1
    messages: list[Message] = Field(min_length=1, max_length=MAX_MESSAGES)
    max_completion_tokens: whole(1) | None = None
    logprobs: bool | None = None
    top_logprobs: whole(0, 20) | None = None
    tools: Annotated[list, Field(max_length=0)] | None = None

    @property
    def limit(self):
        """Tokens of the longest answer; None: what the context has room for."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def alternatives(self):
        """How many likeliest tokens to tell with each."""
        return (self.top_logprobs or 0) if self.logprobs else None

    def prompts(self, tokenizer):
        try:
            return [render_prompt(tokenizer, [message.plain() for message in self.messages])]
        except DataError as e:
            raise invalid(str(e), "messages") from None


class TextRequest(_Request):
    """The continuation of a document that begins with a text, or with token ids."""

    chat: ClassVar = False
    prompt: str | Many[str] | Ids | Many[Ids]
    logprobs: whole(0, 20) | None = None
    echo: No | None = None

    @property
    def limit(self):
        return self.max_tokens or 16  # OpenAI's default here

    @property
    def alternatives(self):
        return self.logprobs

    @property
    def _prompts(self):
        return [self.prompt] if isinstance(self.prompt, str) or isinstance(self.prompt[0], int) else self.prompt

    @property
    def n_prompts(self):
        return len(self._prompts)

    def prompts(self, tokenizer):
        ids = [tokenizer.encode(prompt) if isinstance(prompt, str) else prompt for prompt in self._prompts]
        limit = len(tokenizer.tokens)  # the special tokens, which begin here, are no text
        if any(i >= limit for prompt in ids for i in prompt):
            raise invalid(f"Token ids must be below {limit}.", "prompt")
        return [[tokenizer.bos_id, *prompt] for prompt in ids]


def _no_constant(name):
    raise ValueError(f"{name} is not JSON")


def parse(kind, body):
    """Raises ApiError 400 with the field."""
    try:
        return kind.model_validate(json.loads(body.decode("utf-8"), parse_constant=_no_constant))
    except ValidationError as e:
        first = e.errors(include_url=False, include_context=False)[0]
        param = ".".join(str(x) for x in first["loc"]) or None
        raise invalid(f"{param or 'the body'}: {first['msg']}", param) from None
    except (ValueError, RecursionError):
        raise ApiError(400, "The body is not valid JSON in UTF-8.", code="invalid_json") from None


def schemas():
    kinds = [(ChatRequest, "validation"), (TextRequest, "validation")]
    return models_json_schema(kinds, ref_template="#/components/schemas/{model}")[1]["$defs"]


# ---- replies
def usage(usages, n):
    """Of all answers; the n to one prompt have read it once."""
    prompt, new = sum(u["prompt_tokens"] for u in usages[::n]), sum(u["completion_tokens"] for u in usages)
    return {"prompt_tokens": prompt, "completion_tokens": new, "total_tokens": prompt + new,
            "prompt_tokens_details": {"cached_tokens": sum(u["cached_tokens"] for u in usages[::n])}}


def part(event):
    return {"type": event.kind, "text": event.text}


def joined(events):
    """Neighbouring texts made one."""
    out = []
    for event in events:
        if event.kind == "text" and out and out[-1].kind == "text":
            last = out.pop()
            event = replace(event, text=last.text + event.text, logprobs=last.logprobs + event.logprobs)
        out.append(event)
    return out


class Writer:
    """One request's answers in OpenAI's layout; `arrivals` yields (index, events)."""

    def __init__(self, wanted, model):
        self.wanted, self.chat, self.n = wanted, wanted.chat, wanted.n or 1
        self.count = self.n * wanted.n_prompts
        kind = "text_completion" if not self.chat else "chat.completion.chunk" if wanted.stream else "chat.completion"
        self.head = {"id": f"{'chatcmpl' if self.chat else 'cmpl'}-{secrets.token_hex(12)}", "object": kind,
                     "created": int(time.time()), "model": model}
        self._lengths = Counter()  # characters of each answer's tokens so far

    def _logprobs(self, index, tokens):
        if self.chat:
            return {"content": [{**{k: t[k] for k in ("token", "logprob", "bytes")}, "top_logprobs": t["top"]}
                                for t in tokens], "refusal": None}
        offsets = list(accumulate((len(t["token"]) for t in tokens), initial=self._lengths[index]))
        self._lengths[index] = offsets.pop()
        return {"tokens": [t["token"] for t in tokens], "token_logprobs": [t["logprob"] for t in tokens],
                "top_logprobs": [{x["token"]: x["logprob"] for x in t["top"][::-1]} for t in tokens], "text_offset": offsets}

    def _choice(self, index, said, tokens, reason):
        return {"index": index, **said, "logprobs": self._logprobs(index, tokens) if tokens else None,
                "finish_reason": reason}

    def _chunk(self, index, event, **delta):
        if event.kind == "text":
            delta["content"] = event.text
        elif event.kind != "end":
            delta["parts"] = [part(event)]
        said = {"delta": delta} if self.chat else {"text": event.text}
        return sse({**self.head, "choices": [self._choice(index, said, event.logprobs, event.finish_reason)]})

    async def chunks(self, arrivals):
        """Server-sent events: the role first, finish_reason only in the last, [DONE]."""
        usages = [None] * self.count
        if self.chat:
            yield "".join(self._chunk(index, Event("text"), role="assistant") for index in range(self.count))
        async for index, events in arrivals:
            if events[-1].kind == "error":
                yield sse(server_error(events[-1].text).body)
                break
            usages[index] = events[-1].usage
            yield "".join(self._chunk(index, event) for event in events)  # a token each, as clients count them
        else:
            if self.wanted.stream_options and self.wanted.stream_options.include_usage:
                yield sse({**self.head, "choices": [], "usage": usage(usages, self.n)})
        yield "data: [DONE]\n\n"

    async def finished(self, arrivals):
        """All answers as one JSON value. Raises ApiError 500 if the model fails."""
        answers = [[] for _ in range(self.count)]
        async for index, events in arrivals:
            answers[index] += events
        return {**self.head, "choices": [self._answer(i, joined(events)) for i, events in enumerate(answers)],
                "usage": usage([events[-1].usage for events in answers], self.n)}

    def _answer(self, index, events):
        *events, end = events
        if end.kind == "error":
            raise server_error(end.text)
        text = "".join(event.text for event in events if event.kind == "text")
        message = {"role": "assistant", "content": text, "parts": [part(event) for event in events]}
        said = {"message": message} if self.chat else {"text": text}
        return self._choice(index, said, [token for event in events for token in event.logprobs], end.finish_reason)


def sse(value):
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n"
