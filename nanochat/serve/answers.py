"""
Answers on their way: from the worker's thread into the event loop, and out to a client that may leave at any
time.

An event loop serves all connections in one thread by switching between them wherever one has to wait
(`await`). Whatever runs long without an `await`, a forward pass above all, would stop everybody's answers and
even /health; that is why the worker decodes in another thread and only hands finished events over.
"""
import asyncio
import functools
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from fastapi import Request
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from nanochat.infer.sampling import Sampling
from nanochat.infer.sequence import Sequence
from nanochat.infer.text_stream import Event
from nanochat.serve.metrics import Metrics
from nanochat.serve.worker import Worker


class RunningAnswers:
    """The answers to one request while they are decoded. Used in the event loop only."""

    def __init__(self, worker: Worker, metrics: Metrics):
        self.worker = worker
        self.metrics = metrics
        self.sequences: list[Sequence] = []
        self._began = time.monotonic()
        self._first_token_at: dict[int, float] = {}  # by index of the answer

        # The worker posts however slowly the client reads: what has not been taken yet is kept here, by
        # index. It cannot grow beyond the answers, whose lengths are bounded.
        self._new: dict[int, list[Event]] = {}
        self._has_new = asyncio.Event()

    def submit(self, prompt: list[int], sampling: Sampling, index: int) -> None:
        """Have the worker decode one more answer, number `index` to its prompt. Raises Busy or Stopped."""
        place = len(self.sequences)
        post = functools.partial(self._take, place)
        self.sequences.append(self.worker.submit(prompt, sampling, index, post))

    def _take(self, place: int, events: list[Event]) -> None:
        self._new.setdefault(place, []).extend(events)
        self._has_new.set()

    async def arrivals(self) -> AsyncIterator[tuple[int, list[Event]]]:
        """(index among this request's answers, its new events) as they come, until each has ended."""
        running = len(self.sequences)
        while running:
            await self._has_new.wait()
            self._has_new.clear()
            new = self._new
            self._new = {}
            for place, events in new.items():
                last = events[-1]
                if last.kind in ("end", "error"):
                    running -= 1
                self._measure(place, last)
                yield place, events

    def _measure(self, place: int, last: Event) -> None:
        now = time.monotonic()
        if place not in self._first_token_at:
            self._first_token_at[place] = now
            self.metrics.first_token_seconds.observe(now - self._began)
        if last.usage is not None:  # it has ended well
            for kind, count in last.usage.items():
                self.metrics.tokens.labels(kind).inc(count)
            later_tokens = max(last.usage["decoded_tokens"] - 1, 1)
            self.metrics.per_token_seconds.observe((now - self._first_token_at[place]) / later_tokens)

    def cancel(self) -> None:
        """Give their places back to others. Harmless when they have ended."""
        for sequence in self.sequences:
            self.worker.cancel(sequence)


class EventStream(StreamingResponse):
    """Server-sent events: one response that stays open, into which the server writes "data: ...\\n\\n" as
    there is news.

    It is plain HTTP, so it passes proxies; the header tells nginx not to collect it first. `on_close` runs
    however the stream ends, also when the client has left before the first byte: otherwise its answer would
    be decoded for nobody.
    """

    def __init__(self, chunks: AsyncIterator[str], on_close: Callable[[], None]):
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(chunks, 200, headers, "text/event-stream")
        self.on_close = on_close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.on_close()


async def unless_gone(request: Request, work: Coroutine[Any, Any, Any]) -> Any:
    """The result of `work`, or None as soon as the client has disconnected.

    A stream notices by itself, as it writes; who waits for a whole answer has to listen beside.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        working.cancel()
        leaving.cancel()


async def _disconnected(request: Request) -> None:
    message = await request.receive()
    while message["type"] != "http.disconnect":
        message = await request.receive()
