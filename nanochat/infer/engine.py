"""
Inference: continuous batching, a prefix cache and tools.

Sequences join as others leave, prompts are read in chunks beside the decoding, a free slot keeps its tokens for whoever
begins with the same ones, tools run on threads. Who else is in the batch changes a
reply only by rounding (when `deterministic` not at all).
"""
import math
from collections import deque
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import takewhile
from operator import eq

import torch

from nanochat.common import UsageError
from nanochat.infer import tools
from nanochat.infer.runner import Piece, Runner
from nanochat.infer.sampling import Sampling, likeliest, penalise, sample
from nanochat.infer.sequence import FREE, IN_CODE, NO_TOOLS, Sequence, TextStream

PREFILL_TOKENS = 16384  # prompt tokens of one step while nobody decodes: bounds its memory
TOOL_WAIT_S = 0.02  # of a step when all that is left to do is tools
WORTH_WAITING = 64  # tokens of a prefix that another is reading just now


def banned(tokenizer, vocab_size):
    """(3, vocab_size), a row for each state: -inf where a token would break the format."""
    stops = {tokenizer.special("<|assistant_end|>"), tokenizer.bos_id}
    bias = torch.zeros(3, vocab_size)
    bias[:, tokenizer.vocab_size:] = -math.inf
    for state, more in ((FREE, ["<|python_start|>"]), (IN_CODE, ["<|python_end|>"]), (NO_TOOLS, [])):
        bias[state, sorted(tokenizer.special_ids - stops - set(map(tokenizer.special, more)))] = -math.inf
    return bias


def common_prefix(a, b):
    return sum(takewhile(bool, map(eq, a, b)))


@dataclass(eq=False)
class Slot:
    """A row of the cache, its tokens, and who sits there."""

    index: int
    tokens: list = field(default_factory=list)
    sequence: Sequence | None = None


class Batcher:
    """The slots of one cache, owned by one thread; `beside` bounds the prompt tokens read while others decode."""

    def __init__(self, model, tokenizer, batch_size, capacity, beside=PREFILL_TOKENS, **options):
        self.tokenizer, self.capacity, self.beside = tokenizer, capacity, beside
        bans = banned(tokenizer, model.config.vocab_size).to(model.device)
        self.runner = Runner(model, batch_size, capacity, bans, **options)
        self.free = [Slot(i) for i in range(batch_size)]  # in order of leaving
        self.running, self.waiting = [], deque()
        self._pool, self._calls = ThreadPoolExecutor(4), {}

    @property
    def idle(self):
        return not self.waiting and not self.running

    def add(self, sequence):
        """Queue a sequence. UsageError: the prompt leaves no room for an answer."""
        n = len(sequence.prompt)
        if not 0 < n < self.capacity:
            raise UsageError(f"the prompt has {n} tokens; it must have 1 to {self.capacity - 1} to leave room for an "
                             "answer. Shorten it, or start a new conversation.")
        sequence.room = min(sequence.sampling.max_new_tokens, self.capacity - n)
        self.waiting.append(sequence)

    def remove(self, sequence):
        if sequence in self.waiting:
            self.waiting.remove(sequence)
        self._leave(lambda other: other is sequence)

    @torch.inference_mode()
    def step(self):
        """Let newcomers join, read some prompts, decode. Returns the sequences that gained tokens or ended."""
        touched = self._take_results()
        while self.waiting and self.free and self._join(self.waiting[0]):
            self.waiting.popleft()
        if work := self._plan():
            hidden = self.runner.forward([piece for _, piece in work])
            for slot, piece in work:
                slot.tokens += piece.tokens
            ready = [i for i, (slot, _) in enumerate(work) if len(slot.tokens) == len(slot.sequence)]
            if ready:
                chosen = [work[i][0].sequence for i in ready]
                hidden = hidden if len(ready) == len(work) else hidden[ready]
                self._choose(chosen, self.runner.logits(hidden, [sequence.state for sequence in chosen]))
                touched = list(dict.fromkeys(touched + chosen))
        self._leave(lambda sequence: sequence.finish_reason)
        return touched

    # ---- join and leave
    def _join(self, sequence):
        """Into a slot that knows its beginning; False: another is reading that just now."""
        prompt = sequence.prompt
        known = {slot: common_prefix(slot.tokens, prompt[:-1]) for slot in self.free + self.running}
        target = source = max(known, key=known.get)
        n = known[source]
        if any(common_prefix(slot.sequence.prompt, prompt[:-1]) >= n + WORTH_WAITING for slot in self.running):
            return False
        if source.sequence or 4 * n < 3 * len(source.tokens):  # to share, not to spoil
            target = self.free[0]
        if target is not source:
            self.runner.cache.copy(source.index, target.index, n)
        target.tokens, target.sequence, sequence.cached_tokens = prompt[:n], sequence, n
        self.free.remove(target)
        self.running.append(target)
        return True

    def _leave(self, gone):
        for slot in [slot for slot in self.running if gone(slot.sequence)]:
            self._calls.pop(slot.sequence, None)
            slot.sequence = None
            self.running.remove(slot)
            self.free.append(slot)

    # ---- one step
    def _plan(self):
        """[(slot, Piece)] in order of slots."""
        todo = [(slot, len(slot.sequence) - len(slot.tokens)) for slot in self.running
                if slot.sequence.call is None and not slot.sequence.finish_reason]
        budget, work = self.beside if any(n == 1 for _, n in todo) else PREFILL_TOKENS, []
        for slot, n in todo:
            start = len(slot.tokens)
            if n > 1:
                n = min(n, budget)
                budget -= n
            if n:
                work.append((slot, Piece(slot.index, start, slot.sequence.tokens(start, start + n))))
        return sorted(work, key=lambda pair: pair[0].index)

    def _choose(self, sequences, logits):
        settings, raw = [s.sampling for s in sequences], logits
        if any(s.repetition_penalty for s in settings):
            logits = raw.clone()
        for row, sequence, s in zip(logits, sequences, settings):
            if s.repetition_penalty:  # never of the tokens that end things
                seen = set(sequence.prompt + sequence.ids) - self.tokenizer.special_ids
                penalise(row, sorted(seen), s.repetition_penalty)
        columns = zip(*((s.temperature, s.top_k or 0, s.top_p or 1.0, sequence.uniform() if s.temperature else 0.0,
                         s.min_p or 0.0) for sequence, s in zip(sequences, settings)))
        tokens, found = sample(logits, *columns).tolist(), {}
        if asked := [i for i, s in enumerate(settings) if s.logprobs is not None]:
            counts = [settings[i].logprobs for i in asked]
            found = dict(zip(asked, likeliest(raw[asked], [tokens[i] for i in asked], counts)))
        for i, (sequence, token) in enumerate(zip(sequences, tokens)):
            sequence.accept(token, found.get(i))
            if sequence.call is not None and not sequence.finish_reason:
                self._calls[sequence] = self._pool.submit(tools.run_tool, sequence.call)

    def _take_results(self):
        """Those sequences whose tools have answered."""
        if self._calls and len(self._calls) == len(self.running):
            wait(self._calls.values(), TOOL_WAIT_S, FIRST_COMPLETED)
        done = [sequence for sequence, call in self._calls.items() if call.done()]
        for sequence in done:
            sequence.resume(self._calls.pop(sequence).result())
        return done


class Engine:
    """Generates with `model` (eval mode, on its device). A conversation may hold `max_len` tokens.

    More than in training is allowed, at falling quality. `options` are those of `runner.Runner`.
    """

    def __init__(self, model, tokenizer, max_len=None, **options):
        self.model, self.tokenizer, self.options = model, tokenizer, options
        self.max_len, self._chat = max_len or model.config.sequence_len, None

    def batcher(self, batch_size, capacity=None, **settings):
        return Batcher(self.model, self.tokenizer, batch_size, capacity or self.max_len, **settings, **self.options)

    def generate(self, prompts, *, batch_size=64, **sampling) -> list[Sequence]:
        """One ended Sequence a prompt (a list of token ids), in order; keywords as in `Sampling`.

        Raises UsageError before any work when a prompt leaves no room below max_len.
        """
        if not prompts:
            return []
        sampling = Sampling(**sampling)
        longest = max(map(len, prompts)) + sampling.max_new_tokens
        batcher = self.batcher(min(batch_size, len(prompts)), min(self.max_len, longest))
        sequences = [Sequence(self.tokenizer, list(p), sampling, i) for i, p in enumerate(prompts)]
        for sequence in sequences:
            batcher.add(sequence)
        while not batcher.idle:
            batcher.step()
        return sequences

    def stream(self, prompt, **sampling):
        """The Events of one reply as they come. Closing the iterator stops the work.

        All streams share a slot: the next turn reads only what is new, with the weights as they were at the first.
        """
        sampling = Sampling(**sampling)
        self._chat = self._chat or self.batcher(1)
        sequence, text = Sequence(self.tokenizer, list(prompt), sampling), TextStream(self.tokenizer)
        self._chat.add(sequence)
        try:
            while not sequence.finish_reason:
                self._chat.step()
                yield from text.take(sequence)
        finally:
            self._chat.remove(sequence)
