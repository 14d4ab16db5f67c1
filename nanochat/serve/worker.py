"""
The thread that owns a model and serves many conversations at once.

If it crashes, every open reply gets an "error" event and `failed` is set.
"""
import contextlib
import queue
import threading
import time
from dataclasses import dataclass

import torch

from nanochat.common import log
from nanochat.infer.cpu.compiled import threads_for
from nanochat.infer.sequence import Sequence
from nanochat.infer.text_stream import Event, TextStream
from nanochat.serve.openai_api import ApiError

BESIDE = 128  # prompt tokens read in one step while others decode: what they wait for at most
PAUSE_S = 1 / 30  # between two posts of a reply: nobody reads faster


@dataclass
class Job:
    text: TextStream
    post: object
    due: float = 0.0  # time.monotonic


class Worker(threading.Thread):
    def __init__(self, engine, slots=8, max_waiting=32):
        super().__init__(name="nanochat-decode", daemon=True)
        self.engine, self.slots, self.places = engine, slots, slots + max_waiting
        self.failed = self._stopping = False
        self.call = lambda work: work()  # or where another thread is to do it
        self._jobs, self._lock = {}, threading.Lock()  # by sequence
        self._news = queue.SimpleQueue()  # what the thread does with its scheduler between two steps

    @property
    def busy(self):
        return len(self._jobs)

    def stop(self):
        """Stop after the current step."""
        self._stopping = True
        self._news.put(lambda scheduler: None)
        self.join()

    def submit(self, prompt, sampling, index, post):
        """Queue a reply to `prompt` (token ids, below the engine's max_len); returns its Sequence. Raises as `check`.

        The thread has `call` call `post` with lists of the engine's Events, the last of kind "end" or "error".
        """
        sequence = Sequence(self.engine.tokenizer, prompt, sampling, index)
        with self._lock:
            self.check()
            self._jobs[sequence] = Job(TextStream(self.engine.tokenizer), post)
        self._news.put(lambda scheduler: scheduler.add(sequence))
        return sequence

    def check(self, n=1):
        """Raise ApiError 429 or 503 unless n requests would be taken now."""
        if self.failed or self._stopping:
            raise ApiError(503, "The model has stopped. Restart the server.", "server_error", code="unavailable")
        if self.busy + n > self.places:
            raise ApiError(429, f"The server is busy with {self.busy} requests. Try again soon.", "rate_limit_error",
                           code="queue_full", headers={"Retry-After": "2"})

    def cancel(self, sequence):
        """Give a reply's place back."""
        if self._jobs.pop(sequence, None):
            self._news.put(lambda scheduler: scheduler.remove(sequence))

    def run(self):
        torch.set_num_threads(threads_for(self.engine.model))
        try:
            scheduler = self.engine.scheduler(self.slots, prefill_beside=BESIDE)
            while not self._stopping:
                if scheduler.idle or not self._news.empty():
                    self._news.get()(scheduler)
                else:
                    self._step(scheduler)
        except Exception:
            self.failed = True
            log.exception("the decoding thread crashed")
        finally:
            with self._lock:
                left, self._jobs = self._jobs, {}
            error = [Event("error", "The model has stopped before the answer was complete.")]
            self._post([(job, error) for job in left.values()])

    def _step(self, scheduler):
        touched, now, news = scheduler.step(), time.monotonic(), []
        for sequence in touched:
            job = self._jobs.pop(sequence, None) if sequence.finish_reason else self._jobs.get(sequence)
            if job and (now >= job.due or sequence.finish_reason or sequence.call is not None):
                job.due = now + PAUSE_S
                news += [(job, events)] if (events := job.text.take(sequence)) else []
        if news:
            self._post(news)

    def _post(self, news):
        with contextlib.suppress(RuntimeError):  # the event loop has closed: nobody is left to read
            self.call(lambda: [job.post(events) for job, events in news])
