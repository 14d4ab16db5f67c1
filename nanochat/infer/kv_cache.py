"""
The keys and values of a batch of conversations, and attention over them; who sits in which row is the
scheduler's business.

A token's key and value never change once it is read, so they are kept, and a new token costs one row of every
product instead of the whole text anew. `attend_pieces` and `attend_all` are what a model's `hidden` takes as
its `attend`: plain and general, they are the reference of everything faster.
"""
from typing import NamedTuple

import torch
from torch import Tensor

from nanochat.model.gpt import GPT, Attend


class Piece(NamedTuple):
    """Tokens to be read in `slot` from position `start`."""

    slot: int
    start: int
    tokens: list[int]


class KVCache:
    """Keys and values of `batch_size` slots: k, v (n_layer, slots, S, H_kv, D).

    In memory a head's positions stand together. Offset channels are stored one position on, which is what
    GPT.offset does to a whole text, so there is room for one position more.
    """

    def __init__(self, model: GPT, batch_size: int, capacity: int, dtype: torch.dtype) -> None:
        self.look = model.look  # who sees whom is the model's business
        self.config = model.config
        self.k = self._memory(model, batch_size, capacity + 1, dtype)
        self.v = self._memory(model, batch_size, capacity + 1, dtype)

    @staticmethod
    def _memory(model, batch_size, positions, dtype):
        config = model.config
        shape = (config.n_layer, batch_size, config.n_kv_head, positions, config.head_dim)
        # Zeros, not empty: a masked key counts for nothing, but 0 * NaN from old memory is NaN.
        return torch.zeros(shape, dtype=dtype, device=model.device).transpose(2, 3)

    def copy(self, source: int, target: int, n_tokens: int) -> None:
        """Copy the first n_tokens of one slot to another."""
        for memory in (self.k, self.v):
            memory[:, target, :n_tokens + 1] = memory[:, source, :n_tokens + 1]

    def store(self, layer: int, slots: Tensor, positions: Tensor, k: Tensor, v: Tensor) -> None:
        """Keep k, v (N, H_kv, D) of N tokens, the i-th at positions[i] of slots[i]."""
        for memory, new, moved in ((self.k, k, self.config.offset_channels),
                                   (self.v, v, self.config.offset_values(layer))):
            here = new.size(-1) - moved
            new = new.to(memory.dtype)
            memory[layer, slots, positions, :, :here] = new[..., :here]  # (N, H_kv, here)
            memory[layer, slots, positions + 1, :, here:] = new[..., here:]  # (N, H_kv, moved)

    def attend_pieces(self, pieces: list[Piece]) -> tuple[Tensor, Attend]:
        """(positions (1, N), attend) for the N tokens of all pieces, one after another in a single row.

        Pieces have any length, so one call reads long prompts beside single tokens; each sees its own slot
        alone.
        """
        slot_list: list[int] = []
        position_list: list[int] = []
        for piece in pieces:
            slot_list += [piece.slot] * len(piece.tokens)
            position_list += range(piece.start, piece.start + len(piece.tokens))
        slots = torch.tensor(slot_list, device=self.k.device)
        positions = torch.tensor(position_list, device=self.k.device)

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

    def attend_all(self, positions: Tensor, seen: int) -> Attend:
        """For one token in every slot, at positions (slots,), none beyond the first `seen`: q (slots, 1, H,
        D)."""
        slots = torch.arange(len(positions), device=positions.device)

        def attend(layer, q, k, v):
            self.store(layer, slots, positions, k[:, 0], v[:, 0])
            keys = self.k[layer, :, :seen].to(q.dtype)
            values = self.v[layer, :, :seen].to(q.dtype)
            return self.look(layer, q, keys, values, positions[:, None])
        return attend

    def read(self, layer: int, piece: Piece, q: Tensor) -> Tensor:
        """What the queries q (n, H, D) of a piece find in its slot, (n, H, D)."""
        seen = piece.start + len(q)
        keys = self.k[layer, None, piece.slot, :seen].to(q.dtype)
        values = self.v[layer, None, piece.slot, :seen].to(q.dtype)
        positions = None  # from the beginning on: plain causal attention
        if piece.start:
            positions = torch.arange(piece.start, seen, device=q.device)[None]
        return self.look(layer, q[None], keys, values, positions)[0]
