"""
OpenAI's API: how answers are written, whole or as a stream of chunks. Knows no HTTP.

Beyond OpenAI's: `parts` in a message or a delta, the calls of tools and their results; `timings`. A chat's
layout differs from a text's in how the words, the log-probabilities and the object are called; nothing else
does.
"""
import json
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator
from itertools import accumulate
from typing import Any

from nanochat.infer.text_stream import Event, join_texts
from nanochat.serve.errors import server_error
from nanochat.serve.text_requests import AnyRequest

Arrivals = AsyncIterator[tuple[int, list[Event]]]  # (index of an answer, its new events)


def total_usage(usages: list, answers_per_prompt: int) -> dict[str, Any]:
    """Of all answers, those to one prompt one after the other: they have read it once together."""
    prompts = usages[::answers_per_prompt]
    prompt_tokens = sum(usage["prompt_tokens"] for usage in prompts)
    completion_tokens = sum(usage["completion_tokens"] for usage in usages)
    return {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
            "prompt_tokens_details": {"cached_tokens": sum(usage["cached_tokens"] for usage in prompts)}}


def timings(usages: list, seconds: float) -> dict[str, Any]:
    """How fast one answer was decoded, as llama.cpp's server tells it; {} for several, or for one token.

    What the calculator said came at once: only the model's own tokens count."""
    if len(usages) > 1 or not seconds:
        return {}
    later_tokens = usages[0]["decoded_tokens"] - 1  # the first token's time is the prompt's
    return {"timings": {"predicted_per_second": later_tokens / seconds}}


def server_sent(value: dict) -> str:
    """One server-sent event: a line of data and an empty one. JSON has no raw line breaks, so one line is
    enough."""
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n"


class ReplyWriter:
    """Writes the answers to one request."""

    def __init__(self, wanted: AnyRequest, model: str):
        self.wanted = wanted
        self.count = wanted.answers_per_prompt * wanted.n_prompts
        prefix = "chatcmpl" if wanted.is_chat else "cmpl"
        self.head = {
            "id": f"{prefix}-{secrets.token_hex(12)}",
            "object": self._object(),
            "created": int(time.time()),
            "model": model,
        }
        self._written: Counter[int] = Counter()  # characters of each answer's tokens so far

    def _object(self) -> str:
        if not self.wanted.is_chat:
            return "text_completion"
        return "chat.completion.chunk" if self.wanted.stream else "chat.completion"

    # ---- streamed
    async def event_stream(self, arrivals: Arrivals) -> AsyncIterator[str]:
        """Server-sent events: the role first, finish_reason only in each answer's last, then [DONE].

        The status 200 has long been sent when a model fails in the midst of an answer, so that is an event,
        too.
        """
        usages: list[dict | None] = [None] * self.count
        if self.wanted.is_chat:
            yield "".join(self._chunk(index, Event("text"), role="assistant") for index in range(self.count))
        async for index, events in arrivals:
            last = events[-1]
            if last.kind == "error":
                yield server_sent(server_error(last.text).body)
                break
            usages[index] = last.usage
            # A token each, as clients count them.
            yield "".join(self._chunk(index, event) for event in events)
        else:
            if self.wanted.wants_usage:
                counts = {"usage": total_usage(usages, self.wanted.answers_per_prompt)}
                yield server_sent({**self.head, "choices": [], **counts, **timings(usages, last.seconds)})
        yield "data: [DONE]\n\n"

    def _chunk(self, index: int, event: Event, **delta: Any) -> str:
        """One event of an answer: `delta` and what it adds to the message."""
        if event.kind == "text":
            delta["content"] = event.text
        elif event.kind != "end":
            delta["parts"] = [event.part]
        said = {"delta": delta} if self.wanted.is_chat else {"text": event.text}
        choice = self._choice(index, said, event.logprobs, event.finish_reason)
        return server_sent({**self.head, "choices": [choice]})

    # ---- whole
    async def whole(self, arrivals: Arrivals) -> dict[str, Any]:
        """All answers as one JSON value. Raises ApiError 500 if the model fails."""
        answers: list[list[Event]] = [[] for _ in range(self.count)]
        async for index, events in arrivals:
            answers[index].extend(events)
        choices = [self._whole_choice(index, join_texts(events)) for index, events in enumerate(answers)]
        usages = [events[-1].usage for events in answers]
        return {**self.head, "choices": choices, "usage": total_usage(usages, self.wanted.answers_per_prompt)}

    def _whole_choice(self, index: int, events: list[Event]) -> dict[str, Any]:
        *events, end = events
        if end.kind == "error":
            raise server_error(end.text)
        text = ""
        tokens: list[dict] = []
        for event in events:
            tokens += event.logprobs
            if event.kind == "text":
                text += event.text
        message = {"role": "assistant", "content": text, "parts": [event.part for event in events]}
        said = {"message": message} if self.wanted.is_chat else {"text": text}
        return self._choice(index, said, tokens, end.finish_reason)

    # ---- both
    def _choice(self, index: int, said: dict, tokens: list | tuple, reason: str | None) -> dict[str, Any]:
        logprobs = None
        if tokens:
            logprobs = (
                self._chat_logprobs(tokens) if self.wanted.is_chat else self._text_logprobs(index, tokens)
            )
        return {"index": index, **said, "logprobs": logprobs, "finish_reason": reason}

    def _chat_logprobs(self, tokens: list | tuple) -> dict[str, Any]:
        content = []
        for token in tokens:
            content.append({"token": token["token"], "logprob": token["logprob"], "bytes": token["bytes"],
                            "top_logprobs": token["top"]})
        return {"content": content, "refusal": None}

    def _text_logprobs(self, index: int, tokens: list | tuple) -> dict[str, list]:
        """OpenAI's older layout: parallel lists, and where in the text each token begins."""
        lengths = [len(token["token"]) for token in tokens]
        offsets = list(accumulate(lengths, initial=self._written[index]))
        self._written[index] = offsets.pop()  # where the next token will begin
        top_logprobs: list[dict | None] = []
        for token in tokens:
            if token["top"] is None:  # of the first of all: nothing foretells it
                top_logprobs.append(None)
                continue
            # From the least likely on: of two tokens with the same text (halves of characters) the likelier
            # one stays.
            top_logprobs.append({other["token"]: other["logprob"] for other in reversed(token["top"])})
        return {
            "tokens": [token["token"] for token in tokens],
            "token_logprobs": [token["logprob"] for token in tokens],
            "top_logprobs": top_logprobs,
            "text_offset": offsets,
        }
