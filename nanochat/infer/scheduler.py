"""
Who computes in the next step: continuous batching, a prefix cache, chunked prefill.

A step reads one token of every reply that is being decoded, all in one forward pass, because a product of few
rows costs what it costs to read the weights, whether for one row or for many. Replies join as others leave
instead of waiting for a whole batch to end (iteration-level scheduling: Orca, OSDI 2022). Who else is in the
batch changes a reply only by rounding, when `deterministic` not at all.
"""
import math
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import torch

from nanochat.common import UsageError
from nanochat.data.tokenizer import Tokenizer
from nanochat.infer.kv_cache import Piece
from nanochat.infer.runner import Runner
from nanochat.infer.sampling import penalize_counts, sample_tokens, top_logprobs
from nanochat.infer.sequence import FREE, GIVEN, IN_CODE, NO_TOOLS, Sequence
from nanochat.model.gpt import GPT

PREFILL_TOKENS = 16384  # prompt tokens of one step while nobody decodes: bounds its memory
SCORED_TOGETHER = 256  # tokens of a prompt: each has a row of logits as long as the vocabulary
WORTH_WAITING = 64  # tokens of a prefix that another reply is reading just now


def format_bias(tokenizer: Tokenizer, vocab_size: int) -> torch.Tensor:
    """(4, vocab_size) float32, a row for each state of a Sequence: -inf where a token would break the format.

    Added to the logits before sampling it gives those tokens no chance, so that whatever a model has learned,
    a reply is text, calls that are opened and closed, and an end.
    """
    ends = {tokenizer.special("<|assistant_end|>"), tokenizer.bos_id}
    may_follow = {FREE: "<|python_start|>", IN_CODE: "<|python_end|>", NO_TOOLS: None}
    bias = torch.zeros(len(may_follow) + 1, vocab_size)  # GIVEN has no rules
    bias[:, tokenizer.vocab_size:] = -math.inf  # padding of the vocabulary
    for state, name in may_follow.items():
        allowed = set(ends)
        if name is not None:
            allowed.add(tokenizer.special(name))
        bias[state, sorted(tokenizer.special_ids - allowed)] = -math.inf
    return bias


def common_prefix(left: list[int], right: list[int]) -> int:
    """How many first tokens are the same."""
    n = 0
    for a, b in zip(left, right):
        if a != b:
            break
        n += 1
    return n


@dataclass(eq=False)
class Slot:
    """A row of the KV cache: the tokens that it holds, and who sits there."""

    index: int
    tokens: list[int] = field(default_factory=list)
    sequence: Sequence | None = None


class Scheduler:
    """The slots of one cache, owned by one thread; a conversation may hold `capacity` tokens.

    `prefill_beside` bounds the prompt tokens that a step reads while other replies decode: a long prompt is
    read in chunks, so that the others wait for a chunk and not for all of it. `options` are those of
    runner.Runner.
    """

    def __init__(self, model: GPT, tokenizer: Tokenizer, batch_size: int, capacity: int,
                 prefill_beside: int = PREFILL_TOKENS, **options: Any) -> None:
        self.tokenizer = tokenizer
        self.capacity = capacity
        self.prefill_beside = prefill_beside
        logit_bias = format_bias(tokenizer, model.config.vocab_size).to(model.device)
        self.runner = Runner(model, batch_size, capacity, logit_bias, **options)
        self.free = [Slot(index) for index in range(batch_size)]  # in order of leaving
        self.running: list[Slot] = []
        self.waiting: deque[Sequence] = deque()

    @property
    def idle(self) -> bool:
        return not self.waiting and not self.running

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence. UsageError: the prompt leaves no room for an answer."""
        n = len(sequence.prompt)
        if not 0 < n < self.capacity:
            raise UsageError(
                f"the prompt has {n} tokens; it must have 1 to {self.capacity - 1} to leave room for an "
                "answer. Shorten it, or start a new conversation."
            )
        sequence.room = min(sequence.sampling.max_new_tokens, self.capacity - n)
        self.waiting.append(sequence)

    def remove(self, sequence: Sequence) -> None:
        """Give up a sequence, wherever it is."""
        if sequence in self.waiting:
            self.waiting.remove(sequence)
        for slot in list(self.running):
            if slot.sequence is sequence:
                self._leave(slot)

    @torch.inference_mode()
    def step(self) -> list[Sequence]:
        """Let newcomers join, read some prompts, decode. Returns the sequences that gained tokens or
        ended."""
        while self.waiting and self.free and self._join(self.waiting[0]):
            self.waiting.popleft()
        work = self._plan()
        touched = self._compute(work) if work else []
        for slot in list(self.running):
            if slot.sequence and slot.sequence.finish_reason:
                self._leave(slot)
        return touched

    # ---- join and leave
    def _join(self, sequence):
        """Seat a sequence in a slot that knows its beginning; False: another is reading that just now.

        This is the prefix cache: a free slot keeps its tokens, and whoever begins with the same ones goes on
        after them. The next turn of a conversation reads only what is new. Of a slot in use, or one whose
        tokens would be lost for little, the beginning is copied. The last prompt token is always read: its
        logits are wanted.
        """
        prompt = sequence.prompt
        known = [] if sequence.is_scored else prompt[:-1]  # to score a token is to read it
        source, n = self._best_known(known)
        for slot in self.running:  # n counts what these have read, this what they have yet to read as well
            if common_prefix(slot.sequence.prompt, known) >= n + WORTH_WAITING:
                return False
        target = source
        in_use = source.sequence is not None
        if in_use or 4 * n < 3 * len(source.tokens):  # less than three quarters of it would be of use
            target = self.free[0]  # the one that left longest ago
        if target is not source:
            self.runner.cache.copy(source.index, target.index, n)
        target.tokens = prompt[:n]
        target.sequence = sequence
        sequence.cached_tokens = n
        self.free.remove(target)
        self.running.append(target)
        return True

    def _best_known(self, tokens):
        """(slot, n): the slot whose first n tokens are these, n being most; a free one if they are equal."""
        best = self.free[0]
        most = -1
        for slot in self.free + self.running:
            n = common_prefix(slot.tokens, tokens)
            if n > most:
                best = slot
                most = n
        return best, most

    def _leave(self, slot):
        slot.sequence = None
        self.running.remove(slot)
        self.free.append(slot)

    # ---- one step
    def _plan(self):
        """[(slot, Piece)] in order of slots: what each reply has yet to read.

        One token of those that decode, and of prompts as much as the budget allows.
        """
        ready = []  # (slot, how many tokens it has yet to read)
        decoding = False
        for slot in self.running:
            n = len(slot.sequence) - len(slot.tokens)
            ready.append((slot, n))
            decoding = decoding or n == 1
        budget = self.prefill_beside if decoding else PREFILL_TOKENS
        work = []
        for slot, n in ready:
            if n > 1:
                n = min(n, budget)
                budget -= n
            if n:
                start = len(slot.tokens)
                work.append((slot, Piece(slot.index, start, slot.sequence.tokens(start, start + n))))
        work.sort(key=lambda pair: pair[0].index)
        return work

    def _compute(self, work):
        """Read the pieces; those replies whose last token was read get a next one. Returns these."""
        hidden = self._read(work)  # (len(work), C)
        rows = []
        chosen = []
        for row, (slot, piece) in enumerate(work):
            slot.tokens += piece.tokens
            if len(slot.tokens) == len(slot.sequence):
                rows.append(row)
                chosen.append(slot.sequence)
        if not rows:
            return []
        if len(rows) < len(work):
            hidden = hidden[rows]
        self._sample(chosen, self.runner.logits(hidden, [sequence.state for sequence in chosen]))
        return chosen

    def _read(self, work):
        """The last hidden state of each piece: (len(work), C). Of prompts that are scored the others are
        looked at, too."""
        last = {}  # by slot
        others = []
        for slot, piece in work:
            if slot.sequence.is_scored and piece.start < len(slot.sequence.prompt):
                last[piece.slot] = self._score(slot.sequence, piece)
            else:
                others.append(piece)
        hidden = self.runner.forward(others) if others else []
        if not last:
            return hidden
        last.update(zip([piece.slot for piece in others], hidden))
        return torch.stack([last[piece.slot] for _, piece in work])

    def _score(self, sequence, piece):
        """Note how likely the model finds the tokens that follow those of a piece; its last hidden state
        (C,)."""
        states = self.runner.all_states(piece)  # (T, C)
        next_tokens = sequence.prompt[piece.start + 1: piece.start + len(piece.tokens) + 1]
        for first in range(0, len(next_tokens), SCORED_TOGETHER):
            tokens = next_tokens[first:first + SCORED_TOGETHER]
            logits = self.runner.logits(states[first:first + len(tokens)], [GIVEN] * len(tokens))
            counts = [sequence.sampling.logprobs] * len(tokens)
            sequence.prompt_logprobs += top_logprobs(logits, tokens, counts)
        return states[-1]

    def _sample(self, sequences, logits):
        """Give every sequence its next token, from its row of logits (n, V)."""
        raw = logits  # before penalties: what logprobs are told of
        if any(sequence.sampling.changes_logits for sequence in sequences):
            logits = raw.clone()
            for row, sequence in zip(logits, sequences):
                self._change(row, sequence)
        tokens = sample_tokens(logits, *_settings(sequences)).tolist()
        logprobs = _asked_logprobs(sequences, raw, tokens)
        for row, (sequence, token) in enumerate(zip(sequences, tokens)):
            sequence.accept(token, logprobs.get(row))

    def _change(self, row, sequence):
        """What a sequence's own settings make of its logits, row (V,), in place."""
        sampling = sequence.sampling
        special = self.tokenizer.special_ids  # never penalized: a chat says those in every turn
        if sampling.frequency_penalty or sampling.presence_penalty:
            said = [token for token, sampled in zip(sequence.ids, sequence.sampled)
                    if sampled and token not in special]
            penalize_counts(row, said, sampling.frequency_penalty or 0.0, sampling.presence_penalty or 0.0)
        if sampling.logit_bias:
            tokens, bias = zip(*sampling.logit_bias)
            row[list(tokens)] += torch.tensor(bias, device=row.device)
        if sequence.grammar:
            sequence.grammar.forbid(row)


def _asked_logprobs(sequences, logits, tokens):
    """{row: (log-probability of its token, [(token, log-probability) of the likeliest])} of those who
    asked."""
    rows = [row for row, sequence in enumerate(sequences) if sequence.sampling.logprobs is not None]
    if not rows:
        return {}
    counts = [sequences[row].sampling.logprobs for row in rows]
    return dict(zip(rows, top_logprobs(logits[rows], [tokens[row] for row in rows], counts)))


def _settings(sequences):
    """(temperature, top_k, top_p, uniform, min_p), a list each, with what switches a filter off in the place
    of None."""
    temperature, top_k, top_p, uniform, min_p = [], [], [], [], []
    for sequence in sequences:
        sampling = sequence.sampling
        temperature.append(sampling.temperature)
        top_k.append(sampling.top_k or 0)
        top_p.append(sampling.top_p or 1.0)
        uniform.append(sequence.uniform())
        min_p.append(sampling.min_p or 0.0)
    return temperature, top_k, top_p, uniform, min_p
