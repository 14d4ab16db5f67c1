"""
The thread that owns a model and serves many conversations at once.

Decoding is one long loop of forward passes that keeps the processor busy; a web server's event loop must
never wait for it. So the model lives in a thread of its own, which alone touches it and its cache: the others
put commands into a queue, and the thread carries them out between two steps. It knows nothing of HTTP: who
asks for more than it can take gets Busy or Stopped. If it crashes, every open reply gets an "error" event and
`failed` is set.
"""
import contextlib
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from nanochat.common import log
from nanochat.infer.cpu.compiled import threads_for
from nanochat.infer.engine import Engine
from nanochat.infer.sampling import Sampling
from nanochat.infer.scheduler import Scheduler
from nanochat.infer.sequence import Sequence
from nanochat.infer.text_stream import Event, TextStream
from nanochat.serve.refusals import Busy, Stopped

# Prompt tokens read in one step while others decode. Those others wait for that step, so it bounds how long a
# new and long prompt may make everybody's answers halt.
BESIDE_TOKENS = 128
# Between two posts of a reply: nobody reads faster, and each post costs the event loop a turn.
PAUSE_S = 1 / 30


@dataclass
class OpenReply:
    """A reply that somebody still waits for."""

    text: TextStream
    post: Callable[[list[Event]], None]
    due: float = 0.0  # time.monotonic() from which the next post may be made
    began: float | None = None  # and when its first token came


class Worker(threading.Thread):
    """Decodes up to `slots` replies together; `max_waiting` more may queue, whoever comes then gets Busy.

    A bounded queue is the server's back-pressure. Without a bound, a crowd would fill the memory with
    requests whose clients have long given up; a refusal at the door is cheap, and the client knows at once
    that it must come back.
    """

    def __init__(self, engine: Engine, slots: int = 8, max_waiting: int = 32):
        super().__init__(name="nanochat-decode", daemon=True)
        self.engine = engine
        self.slots = slots
        self.places = slots + max_waiting
        self.failed = False
        self._stopping = False

        # How work gets to the thread that wants the events: here, unless a server's event loop is to do it.
        self.hand_over: Callable[[Callable[[], None]], object] = lambda work: work()

        self._open: dict[Sequence, OpenReply] = {}
        self._lock = threading.Lock()  # so that two submits do not take the same last place
        self._commands: queue.SimpleQueue[Callable[[Scheduler], None]] = queue.SimpleQueue()

    @property
    def busy(self) -> int:
        """Replies that decode or wait."""
        return len(self._open)

    def stop(self) -> None:
        """Stop after the current step, and wait until then."""
        self._stopping = True
        self._commands.put(lambda scheduler: None)  # wakes the thread if it waits for something to do
        self.join()

    def submit(self, prompt: list[int], sampling: Sampling, index: int,
               post: Callable[[list[Event]], None]) -> Sequence:
        """Queue a reply to `prompt` (token ids, fewer than the engine's max_len). Raises as `check`.

        `post` is called with lists of Events, the last of kind "end" or "error", in the thread that
        `hand_over` chooses. `index` tells apart the replies to one prompt: it is mixed into the seed.
        """
        sequence = Sequence(self.engine.tokenizer, prompt, sampling, index)
        with self._lock:
            self.check()
            self._open[sequence] = OpenReply(TextStream(self.engine.tokenizer), post)
        self._commands.put(lambda scheduler: scheduler.add(sequence))
        return sequence

    def check(self, replies: int = 1) -> None:
        """Raise Stopped or Busy unless so many more replies would be taken now."""
        if self.failed or self._stopping:
            raise Stopped("The model has stopped. Restart the server.")
        if self.busy + replies > self.places:
            raise Busy(f"The server is busy with {self.busy} requests. Try again soon.")

    def cancel(self, sequence: Sequence) -> None:
        """Give a reply's place back. Harmless when it has ended."""
        if self._open.pop(sequence, None):
            self._commands.put(lambda scheduler: scheduler.remove(sequence))

    # ---- in the thread
    def run(self) -> None:
        # A small model decodes faster in few threads: what it computes in a step costs less than waking the
        # others.
        torch.set_num_threads(threads_for(self.engine.model))
        try:
            scheduler = self.engine.scheduler(self.slots, prefill_beside=BESIDE_TOKENS)
            while not self._stopping:
                if scheduler.idle or not self._commands.empty():
                    command = self._commands.get()  # sleeps here while there is nothing to do
                    command(scheduler)
                else:
                    self._step(scheduler)
        except Exception:
            self.failed = True
            log.exception("the decoding thread crashed")
        finally:
            self._abandon()

    def _step(self, scheduler: Scheduler) -> None:
        """One token for every running reply, and news to those whose time has come."""
        touched = scheduler.step()
        now = time.monotonic()
        news = []
        for sequence in touched:
            ended = sequence.finish_reason is not None
            reply = self._open.pop(sequence, None) if ended else self._open.get(sequence)
            if reply is None:  # cancelled meanwhile
                continue
            if reply.began is None:
                reply.began = now
            if now < reply.due and not ended:
                continue
            reply.due = now + PAUSE_S
            events = reply.text.take(sequence)
            if ended:
                events[-1] = replace(events[-1], seconds=now - reply.began)
            if events:
                news.append((reply, events))
        if news:
            self._post(news)

    def _abandon(self) -> None:
        """Tell everybody who still waits that nothing more will come."""
        with self._lock:
            left = list(self._open.values())
            self._open = {}
        error = Event("error", "The model has stopped before the answer was complete.")
        self._post([(reply, [error]) for reply in left])

    def _post(self, news: list[tuple[OpenReply, list[Event]]]) -> None:
        """All replies' news in one hand-over: waking the other thread costs more than what is handed over."""
        def deliver() -> None:
            for reply, events in news:
                reply.post(events)

        with contextlib.suppress(RuntimeError):  # the event loop has closed: nobody is left to read
            self.hand_over(deliver)
