"""
The slow and plain way to run a model over a cache, by its own forward pass: what nanochat/runner.py must agree with.

`StandIn` makes the engine give it to models that tests write in place of a GPT: anything with `hidden` and `logits` will do.
"""
import copy

import torch

from nanochat import engine
from nanochat.common import UsageError
from nanochat.kv_cache import KVCache
from nanochat.runner import Piece, runs


class PlainCache(KVCache):
    """A cache for `GPT.hidden`, which calls `update` once a layer; its owner calls `advance` once a step."""

    def __init__(self, model, batch_size, capacity):
        super().__init__(model, batch_size, capacity, model.dtype)
        self.capacity = self.v.size(2)
        self.lengths = torch.zeros(batch_size, dtype=torch.int64, device=model.device)

    def rows(self, start, stop):
        """The slots start..stop-1 over the same memory."""
        part = copy.copy(self)
        part.k, part.v, part.lengths = self.k[:, start:stop], self.v[:, start:stop], self.lengths[start:stop]
        return part

    def update(self, layer, k, v):
        """Store k, v (B, T, n_kv_head, head_dim) at each row's positions lengths[b]..lengths[b]+T-1.

        Returns that layer's k, v (B, max(lengths)+T, n_kv_head, head_dim). Raises UsageError past the capacity.
        """
        end = int(self.lengths.max()) + k.size(1)
        if end > self.capacity:
            raise UsageError(f"{end} tokens do not fit a KV cache of {self.capacity}. Shorten prompt or answer.")
        row, here = torch.arange(len(self.lengths))[:, None], k.size(-1) - self.offset
        at = self.lengths[:, None] + torch.arange(k.size(1))
        self.k[layer][row, at, :, :here] = k[..., :here]
        self.k[layer][row, at + 1, :, here:] = k[..., here:]
        self.v[layer][row, at] = v
        return self.k[layer][:, :end], self.v[layer][:, :end]

    def advance(self, n):
        """Count n more tokens a row as stored; n is an int or (B,) int64."""
        self.lengths += n


class Reference:
    """A runner like `runner.Fast`, with the model's own `hidden` for each run of pieces."""

    def __init__(self, model, batch_size, capacity):
        self.model, self.cache, self.logits = model, PlainCache(model, batch_size, capacity), model.logits

    def forward(self, pieces):
        return torch.cat([self._run(run) for run in runs(pieces)])

    def _run(self, run):
        slots = slice(run[0].slot, run[-1].slot + 1)
        self.cache.lengths[slots] = torch.tensor([piece.start for piece in run])
        idx = torch.tensor([piece.tokens for piece in run])
        return self.model.hidden(idx, self.cache.rows(slots.start, slots.stop))[:, -1]


class WholePrompts(Reference):
    """The runner of a stand-in that wants to see prompts whole, as if nothing were cached, and all else one by one."""

    def __init__(self, model, batch_size, capacity):
        super().__init__(model, batch_size, capacity)
        self.read, self.begin = [[] for _ in range(batch_size)], model.tokenizer.special("<|assistant_start|>")
        self.cache.copy = lambda source, target, n: self.read.__setitem__(target, self.read[source][:n])

    def forward(self, pieces):
        return torch.cat([self._read(piece) for piece in pieces])

    def _read(self, piece):
        tokens = self.read[piece.slot] = self.read[piece.slot][:piece.start] + piece.tokens
        if tokens[-1] == self.begin:
            return self._run([Piece(piece.slot, 0, tokens)])
        return [self._run([Piece(piece.slot, piece.start + i, [token])]) for i, token in enumerate(piece.tokens)][-1]


class StandIn:
    """Makes the engine run a model by its own `hidden` and `logits`."""

    runner = Reference

    def num_params(self):
        return 0


def _runner(model, *args, fast=engine.Fast, **options):
    return model.runner(model, *args) if isinstance(model, StandIn) else fast(model, *args, **options)


engine.Fast = _runner
