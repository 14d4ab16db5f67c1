"""
The keys and values of a batch of conversations, and attention over them; who sits in which row is the scheduler's business.

A token's key and value never change once it is read, so they are kept, and a new token costs one row of every product instead
of the whole text anew. `attend_pieces` and `attend_all` are what a model's `hidden` takes as its `attend`: plain and
general, they are the reference of everything faster.
"""
from typing import NamedTuple

import torch
import torch.nn.functional as F

from nanochat.model.gpt import GPT, Attend


class Piece(NamedTuple):
    """Tokens to be read in `slot` from position `start`."""

    slot: int
    start: int
    tokens: list[int]


class KVCache:
    """Keys and values of `batch_size` slots: k, v (n_layer, slots, S, H_kv, D).

    In memory a head's positions stand together. The last `offset` channels of a key are stored one position on, which is
    what gpt.offset_keys does to a whole text, so k has room for one position more.
    """

    def __init__(self, model: GPT, batch_size: int, capacity: int, dtype: torch.dtype) -> None:
        self.offset = model.config.offset_channels
        self.k = self._memory(model, batch_size, capacity + 1, dtype)
        self.v = self._memory(model, batch_size, capacity, dtype)

    @staticmethod
    def _memory(model, batch_size, positions, dtype):
        config = model.config
        shape = (config.n_layer, batch_size, config.n_kv_head, positions, config.head_dim)
        # Zeros, not empty: a masked key counts for nothing, but 0 * NaN from old memory is NaN.
        return torch.zeros(shape, dtype=dtype, device=model.device).transpose(2, 3)

    def copy(self, source: int, target: int, n: int) -> None:
        """Copy the first n tokens of one slot to another."""
        for memory in (self.k, self.v):
            memory[:, target, :n + 1] = memory[:, source, :n + 1]

    def store(self, layer: int, slots: torch.Tensor, positions: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> None:
        """Keep k, v (N, H_kv, D) of N tokens, the i-th at positions[i] of slots[i]."""
        here = k.size(-1) - self.offset
        k = k.to(self.k.dtype)
        self.k[layer, slots, positions, :, :here] = k[..., :here]
        self.k[layer, slots, positions + 1, :, here:] = k[..., here:]
        self.v[layer, slots, positions] = v.to(self.v.dtype)

    def attend_pieces(self, pieces: list[Piece]) -> tuple[torch.Tensor, Attend]:
        """(positions (1, N), attend) for the N tokens of all pieces, one after another in a single row.

        Pieces have any length, so one call reads long prompts beside single tokens; each sees its own slot alone.
        """
        slots = []
        positions = []
        for piece in pieces:
            slots += [piece.slot] * len(piece.tokens)
            positions += range(piece.start, piece.start + len(piece.tokens))
        slots = torch.tensor(slots, device=self.k.device)
        positions = torch.tensor(positions, device=self.k.device)

        def attend(layer, q, k, v):
            self.store(layer, slots, positions, k[0], v[0])
            found = []
            first = 0
            for piece in pieces:
                end = first + len(piece.tokens)
                found.append(self.read(layer, piece, q[0, first:end]))
                first = end
            return torch.cat(found)[None]  # (1, N, H, D)
        return positions[None], attend

    def attend_all(self, positions: torch.Tensor, seen: int) -> Attend:
        """For one token in every slot, at positions (slots,), none beyond the first `seen`: q (slots, 1, H, D)."""
        slots = torch.arange(len(positions), device=positions.device)
        future = torch.arange(seen, device=positions.device) > positions[:, None]  # (slots, seen)

        def attend(layer, q, k, v):
            self.store(layer, slots, positions, k[:, 0], v[:, 0])
            keys = self.k[layer, :, :seen]
            values = self.v[layer, :, :seen]
            mask = torch.zeros(future.shape, dtype=q.dtype, device=q.device).masked_fill_(future, -torch.inf)
            return _attention(q, keys, values, mask[:, None, None])
        return attend

    def read(self, layer: int, piece: Piece, q: torch.Tensor, scale: float | None = None) -> torch.Tensor:
        """What the queries q (n, H, D) of a piece find in its slot, (n, H, D)."""
        seen = piece.start + len(q)
        keys = self.k[layer, None, piece.slot, :seen]
        values = self.v[layer, None, piece.slot, :seen]
        shown = None  # from the beginning on: plain causal attention
        if piece.start:
            shown = torch.ones(len(q), seen, dtype=torch.bool, device=q.device).tril_(piece.start)
        return _attention(q[None], keys, values, shown, scale)[0]


def _attention(q, keys, values, mask, scale=None):
    """q (B, n, H, D), keys and values (B, seen, H_kv, D) of any float type -> (B, n, H, D); mask None: causal."""
    grouped = q.size(2) != keys.size(2)
    q, keys, values = q.transpose(1, 2), keys.transpose(1, 2), values.transpose(1, 2)
    y = F.scaled_dot_product_attention(q, keys.to(q.dtype), values.to(q.dtype), mask, is_causal=mask is None,
                                       scale=scale, enable_gqa=grouped)
    return y.transpose(1, 2)
