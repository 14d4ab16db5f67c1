"""
Runs a model over pieces of many conversations at once and keeps their keys and values. It knows no text and no policy.

A `Piece` is some next tokens of the conversation in one slot. `Reference` says with the model's own forward pass what
any faster runner must say.
"""
from dataclasses import dataclass

import torch

from nanochat.gpt import GPT
from nanochat.kv_cache import KVCache


@dataclass(frozen=True)
class Piece:
    """Tokens to be read in `slot`, whose first `start` positions are in the cache."""

    slot: int
    start: int
    tokens: list


def runs(pieces):
    """The pieces as lists in which single tokens of neighbouring slots stand together; a longer piece stands alone."""
    found = []
    for piece in pieces:
        last = found[-1][-1] if found else None
        if last and piece.slot == last.slot + 1 and len(piece.tokens) == len(last.tokens) == 1:
            found[-1].append(piece)
        else:
            found.append([piece])
    return found


class Reference:
    """Slow and plain: `model.hidden` for each run of pieces, and anything with that method will do."""

    def __init__(self, model, batch_size, capacity):
        self.model, self.cache = model, KVCache.empty(model, batch_size, capacity)
        self.any_start = isinstance(model, GPT)   # a stand-in for a model may want its prompts whole and from the start

    def forward(self, pieces):
        """The last hidden state (len(pieces), C) of each piece, in order of slots."""
        return torch.cat([self._run(run) for run in runs(pieces)])

    def _run(self, run):
        slots = slice(run[0].slot, run[-1].slot + 1)
        self.cache.lengths[slots] = torch.tensor([piece.start for piece in run], device=self.model.device)
        idx = torch.tensor([piece.tokens for piece in run], device=self.model.device)
        return self.model.hidden(idx, self.cache.rows(slots.start, slots.stop))[:, -1]

    def logits(self, hidden):
        return self.model.logits(hidden)
