"""Plain ways to the same: a model over a cache, by its own forward pass; a loss by autograd; an option's score, alone."""
import copy

import torch
import torch.nn.functional as F

from nanochat.common import UsageError
from nanochat.infer.kv_cache import KVCache
from nanochat.model.loss import softcapped_logits


def cross_entropy(hidden, head, targets, weight, softcap):
    """What `loss.linear_cross_entropy` computes."""
    logits = softcapped_logits(hidden, head, softcap)
    return (F.cross_entropy(logits.flatten(0, -2), targets.flatten(), reduction="none") * weight.flatten()).sum()


@torch.inference_mode()
def score(model, span):
    """What `core_eval.score_items` finds for a span."""
    ids = torch.tensor(span.ids, device=model.device)
    logits, asked = model(ids[None, :-1])[0, span.start - 1:], ids[span.start:]
    likeliest = logits.argmax(-1)
    return -F.cross_entropy(logits, asked).item(), likeliest.equal(asked), likeliest.tolist()


def runs(pieces):
    """Single tokens of neighbouring slots together, longer pieces alone."""
    found = []
    for piece in pieces:
        last = found and found[-1][-1]
        if last and piece.slot == last.slot + 1 and len(piece.tokens) == len(last.tokens) == 1:
            found[-1].append(piece)
        else:
            found.append([piece])
    return found


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
