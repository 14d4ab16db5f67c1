"""
Decoding steps as CUDA graphs: the launches of a step, recorded once and replayed as one.

A step for single tokens is some hundred small kernels, and launching them from Python takes longer than
running them.
"""
from collections.abc import Callable
from weakref import WeakMethod

import torch
from torch import Tensor

from nanochat.infer.kv_cache import Piece

SHORTEST = 64  # keys; a graph is made for each of 64, 128, 256, ...


class DecodeGraphs:
    """Steps of one token for all slots; `decode(ids, positions, seen)` is what is recorded, once for each
    number of keys.

    A graph has fixed shapes, so a slot that sits out computes too, and stores at position `idle`, which
    nobody reads. Elsewhere than on CUDA `decode` is called as it is. It is a method and is held weakly: a
    cycle would keep the cache until the garbage collector comes, which training switches off.
    """

    def __init__(self, decode: Callable[[Tensor, Tensor, int], Tensor], batch_size: int, idle: int,
                 device: torch.device) -> None:
        self.decode = WeakMethod(decode)
        self.idle = idle
        self.made: dict[int, Callable[[], Tensor]] = {}  # by the number of keys
        self.ids = torch.zeros(batch_size, dtype=torch.long, device=device)
        self.positions = torch.zeros(batch_size, dtype=torch.long, device=device)

    def __call__(self, pieces: list[Piece]) -> Tensor:
        """The hidden states (len(pieces), C) of pieces of one token each."""
        ids = [0] * len(self.ids)
        positions = [self.idle] * len(self.ids)
        for slot, start, (token,) in pieces:
            ids[slot] = token
            positions[slot] = start
        self.ids.copy_(torch.tensor(ids))
        self.positions.copy_(torch.tensor(positions))
        furthest = max(piece.start for piece in pieces)
        seen = min(max(SHORTEST, 1 << furthest.bit_length()), self.idle)
        if seen not in self.made:
            self.made[seen] = self._capture(seen)
        return self.made[seen]()[[piece.slot for piece in pieces]]

    def _capture(self, seen):
        def step():
            return self.decode()(self.ids, self.positions, seen)
        if self.ids.device.type != "cuda":
            return step
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # libraries set themselves up outside of the graph
            step()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            out = step()

        def replay():
            graph.replay()
            return out
        return replay
