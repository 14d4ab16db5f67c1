"""
The thread that owns a model and serves many conversations at once, between an asyncio event loop and the engine.

The event loop hands over prompts (`submit`) and reads each reply's events from an asyncio queue; the thread drives one
Batcher, in which all running replies are decoded together. Places are bounded, and `cancel` gives one back at any time.
If the thread crashes, every open reply gets an "error" event and `failed` is set; it never goes on half broken.
"""
import asyncio
import contextlib
import threading

from nanochat.common import log
from nanochat.sequence import Event, Sequence, TextStream

BESIDE = 128      # prompt tokens read in one step while others decode: what they wait for at most


class Full(Exception):
    """All places are taken; the text says so."""


class Stopped(Exception):
    """The thread has ended, by a crash or because the server goes down."""


class Job:
    """One request's place in the worker. Its events arrive through `events()` on the event loop that submitted it."""

    def __init__(self, sequence, tokenizer):
        self.sequence, self.text = sequence, TextStream(tokenizer)
        self._loop, self._queue = asyncio.get_running_loop(), asyncio.Queue()

    def post(self, events):
        """Hand events over; called by the worker's thread."""
        with contextlib.suppress(RuntimeError):   # the event loop has closed: nobody is left to read
            self._loop.call_soon_threadsafe(self._queue.put_nowait, events)

    async def events(self):
        """The engine's Events, the last of kind "end" or "error"."""
        while True:
            for event in await self._queue.get():
                yield event
                if event.kind in ("end", "error"):
                    return


class Worker:
    """The thread that owns the model. `slots` requests are decoded together and `max_waiting` more may wait."""

    def __init__(self, engine, slots=8, max_waiting=32):
        self.engine, self.slots, self.places = engine, slots, slots + max_waiting
        self.failed = False
        self._jobs, self._new, self._gone = {}, [], []   # by sequence; news for the thread; all under _changed
        self._changed, self._stopping, self._thread = threading.Condition(), False, None

    @property
    def busy(self):
        """Requests running or waiting."""
        return len(self._jobs)

    @property
    def full(self):
        return self.busy >= self.places

    def start(self):
        self._thread = threading.Thread(target=self._run, name="nanochat-decode", daemon=True)
        self._thread.start()

    def stop(self):
        """Stop after the current step; requests still open get an error event."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join()

    def submit(self, prompt, sampling, index=0) -> Job:
        """Queue a reply to `prompt` (token ids), on the event loop that will read it. Raises Full or Stopped.

        The prompt must leave room in the engine's max_len. `index` tells apart the replies to one prompt and seed.
        """
        job = Job(Sequence(self.engine.tokenizer, prompt, sampling, index), self.engine.tokenizer)
        with self._changed:
            self.check()
            self._jobs[job.sequence] = job
            self._new.append(job)
            self._changed.notify()
        return job

    def check(self):
        """Raise Full or Stopped unless a request would be taken now."""
        if self.failed or self._stopping:
            raise Stopped("The model has stopped. Restart the server.")
        if self.full:
            raise Full(f"The server is busy with {self.busy} requests. Try again in a moment.")

    def cancel(self, job):
        """Give a job's place back, whatever its state. Idempotent."""
        with self._changed:
            if self._jobs.pop(job.sequence, None):
                self._gone.append(job)
                self._changed.notify()

    def _run(self):
        try:
            batcher = self.engine.batcher(self.slots, beside=BESIDE)
            while self._update(batcher):
                self._step(batcher)
        except Exception:
            self.failed = True
            log.exception("the decoding thread crashed")
        finally:
            with self._changed:
                left, self._jobs = self._jobs, {}
            for job in left.values():
                job.post([Event("error", "The model has stopped before the answer was complete.")])

    def _update(self, batcher):
        """Take in what changed since the last step, sleeping while there is nothing to do. False: time to stop."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopping or self._new or self._gone or not batcher.idle)
            new, self._new, gone, self._gone = self._new, [], self._gone, []
        for job in new:
            batcher.add(job.sequence)
        for job in gone:
            batcher.remove(job.sequence)
        return not self._stopping

    def _step(self, batcher):
        for sequence in batcher.step():
            with self._changed:
                job = self._jobs.pop(sequence, None) if sequence.finish_reason else self._jobs.get(sequence)
            if job and (events := job.text.take(sequence)):
                job.post(events)
