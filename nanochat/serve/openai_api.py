"""
OpenAI's endpoints: from a request's bytes over the worker to a response.

A place in the worker is reserved before any work is done for a request; what takes long by itself
(tokenizing) runs in another thread. So neither a crowd nor a huge prompt can hold up the answers that are on
their way.
"""
import asyncio
import secrets
from dataclasses import replace
from typing import Any

from fastapi import Request, Response

from nanochat.common import UsageError
from nanochat.infer.json_grammar import compile_schema
from nanochat.infer.sampling import Sampling
from nanochat.serve.answers import EventStream, RunningAnswers, unless_gone
from nanochat.serve.errors import ApiError, invalid, reply_json
from nanochat.serve.metrics import Metrics
from nanochat.serve.openai_replies import ReplyWriter
from nanochat.serve.text_requests import AnyRequest
from nanochat.serve.worker import Worker

# Fields that Sampling has, too.
SETTINGS = {"temperature", "top_k", "top_p", "min_p", "seed", "frequency_penalty", "presence_penalty"}


class OpenAIApi:
    """A loaded model as OpenAI's API shows it; `defaults` are for requests that name none."""

    def __init__(self, worker: Worker, model_id: str, defaults: dict[str, Any], metrics: Metrics):
        self.worker = worker
        self.engine = worker.engine
        self.model_id = model_id
        self.metrics = metrics
        self.defaults = defaults
        self._reserved = 0  # places of requests that are being tokenized

    @property
    def idle(self) -> bool:
        """Whether nobody waits for an answer."""
        return not self.worker.busy and not self._reserved

    def sampling(self, wanted: AnyRequest, prompts: list[list[int]]) -> Sampling:
        """How to choose the tokens. Raises ApiError 400 when prompt and answer are too long for the model's
        context, for a token that is none and a schema that no answer can be held to."""
        longest = max(len(prompt) for prompt in prompts)
        context = self.engine.max_len
        answer = wanted.answer_limit or 1
        over = longest + answer - context
        if over > 0:
            what = wanted.prompt_field
            raise ApiError(
                400,
                f"The model's context is {context} tokens; the {what} take {longest} and the answer may "
                f"have {answer}, which is {over} too many.",
                param=what,
                code="context_length_exceeded",
            )
        # A fresh seed, so that asking again brings variety.
        settings: dict[str, Any] = {"seed": secrets.randbits(62), **self.defaults}
        settings.update(wanted.model_dump(include=SETTINGS, exclude_none=True))
        limit = context - longest if wanted.answer_limit is None else wanted.answer_limit
        return Sampling(max_new_tokens=limit, use_tools=wanted.is_chat,
                        stop=wanted.stop_strings, logprobs=wanted.alternatives,
                        json_schema=self._json_schema(wanted), logit_bias=self._logit_bias(wanted),
                        **settings)

    def _logit_bias(self, wanted: AnyRequest) -> tuple[tuple[int, float], ...]:
        n_tokens = self.engine.tokenizer.vocab_size
        bias = [(int(token), added) for token, added in (wanted.logit_bias or {}).items()]
        if any(token >= n_tokens for token, _ in bias):
            raise invalid(f"The tokens in logit_bias must be below {n_tokens}.", "logit_bias")
        return tuple(bias)

    def _json_schema(self, wanted: AnyRequest) -> str | None:
        if wanted.json_schema is not None:
            try:
                compile_schema(self.engine.tokenizer, wanted.json_schema)
            except UsageError as error:
                raise invalid(f"response_format: {error}", "response_format") from None
        return wanted.json_schema

    async def start(self, wanted: AnyRequest, count: int) -> RunningAnswers:
        """Have the worker decode the request's `count` answers. Raises ApiError 400, Busy or Stopped."""
        if count > self.worker.places:
            raise invalid(
                f"This server has places for {self.worker.places} answers, the request wants {count}.", "n"
            )
        self.worker.check(self._reserved + count)
        self._reserved += count
        answers = RunningAnswers(self.worker, self.metrics)
        try:
            prompts = await asyncio.to_thread(wanted.prompts, self.engine.tokenizer)
            sampling = await asyncio.to_thread(self.sampling, wanted, prompts)  # compiles a schema
            for number, prompt in enumerate(prompts):
                told = replace(sampling, echo=wanted.echoed(number, prompt))
                for index in range(wanted.answers_per_prompt):
                    answers.submit(prompt, told, index)
        finally:
            self._reserved -= count
        return answers

    async def answer(self, wanted: AnyRequest, request: Request) -> Response:
        """The response to what a request wants, whole or streamed."""
        writer = ReplyWriter(wanted, self.model_id)
        answers = await self.start(wanted, writer.count)
        if wanted.stream:
            return EventStream(writer.event_stream(answers.arrivals()), on_close=answers.cancel)
        try:
            return reply_json(await unless_gone(request, writer.whole(answers.arrivals())))
        finally:
            answers.cancel()
