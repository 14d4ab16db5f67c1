"""
Packing: which pieces of which documents make which row of a batch. Arithmetic on lengths, no token is
touched.

A batch is a rectangle, documents are not. Padding every document to the same length wastes most of the
rectangle; cutting one long stream of documents every T tokens, as is usual, begins most rows in the middle of
a text whose beginning the model cannot see. Best-fit packing (arXiv 2404.10830) lays whole documents beside
each other so that few are cut and hardly anything is padded, and every row begins with bos, as prompts do.

The plan depends on lengths and seed alone, so that the same rows come out on every machine and in every
resumed run.
"""
from dataclasses import dataclass

import numpy as np

from nanochat.common import mix_seed

Piece = tuple[int, int]  # (start, length) in the tokens of a shard


@dataclass(frozen=True)
class Plan:
    """Row i is the pieces first[i]:first[i+1]; piece p is tokens[start[p]:start[p]+length[p]] with bos for
    its first.

    For a whole document that first token is bos already. Where a piece continues a document, it is the last
    token of the piece before, which has been learned there as a target and here gives its place to bos.
    """
    first: np.ndarray  # (rows + 1,) int64
    start: np.ndarray  # (pieces,) int64
    length: np.ndarray  # (pieces,) int32

    def __len__(self) -> int:
        return len(self.first) - 1

    def row_lengths(self) -> np.ndarray:
        """Tokens of each row without padding: (rows,) int64."""
        if len(self) == 0:
            return np.zeros(0, np.int64)
        return np.add.reduceat(self.length, self.first[:-1], dtype=np.int64)


def pack(offsets: np.ndarray, capacity: int, crop: bool, seed: int = 0) -> Plan:
    """Pack the documents offsets[d]:offsets[d+1] into rows of `capacity` tokens, each piece where it fits
    best.

    Documents that are longer are cut into full rows first. When nothing fits the rest of a row, that is
    padding, or with `crop` the longest waiting piece is cut: its head fills the row, bos + tail waits on.
    `seed` mixes the rows.
    """
    starts = offsets[:-1]
    lengths = np.diff(offsets)
    step = capacity - 1  # new tokens in a full row: a continued piece begins with a bos of its own
    if crop:
        n_full = np.maximum(0, -(-(lengths - capacity) // step))  # of each document; the rest fits one row
    else:
        assert lengths.max(initial=0) <= capacity, f"{lengths.max()} tokens do not fit {capacity}"
        n_full = np.zeros_like(lengths)

    # A full row's number within its document is its number among all, less those of the documents before.
    rows_before = np.cumsum(n_full) - n_full
    number = np.arange(n_full.sum()) - np.repeat(rows_before, n_full)
    full_starts = np.repeat(starts, n_full) + number * step
    rows = [[(start, capacity)] for start in full_starts.tolist()]
    rest_starts = starts + n_full * step
    rest_lengths = lengths - n_full * step
    rows += _best_fit(rest_starts.tolist(), rest_lengths.tolist(), capacity, crop)

    # Mixed, or the full rows of one long document would make whole batches.
    rows = [rows[i] for i in shuffled(len(rows), "pack", seed)]
    pieces = np.array([piece for row in rows for piece in row], np.int64).reshape(-1, 2)
    first = np.cumsum([0, *(len(row) for row in rows)], dtype=np.int64)
    return Plan(first, start=pieces[:, 0].copy(), length=pieces[:, 1].astype(np.int32))


def shuffled(size: int, *seed: str | int) -> np.ndarray:
    """0 to size-1 in an order set by `seed`: numpy has frozen the stream of RandomState, no other."""
    return np.random.RandomState(mix_seed(*seed) % 2**32).permutation(size)


def _best_fit(starts: list[int], lengths: list[int], capacity: int, crop: bool) -> list[list[Piece]]:
    """Fill one row after the other, always with the longest waiting piece that fits.

    Searching for it is what makes best fit slow. Here `there` is one big integer whose bit n says whether a
    piece of n tokens waits: the longest that fits is the highest bit of those up to the gap, found by one
    mask.
    """
    waiting: list[list[int]] = [[] for _ in range(capacity + 1)]  # starts by length
    for start, length in zip(reversed(starts), reversed(lengths)):  # pop() takes equals in their order
        waiting[length].append(start)
    there = 0
    for length in range(1, capacity + 1):
        if waiting[length]:
            there |= 1 << length

    rows = []
    while there:
        row: list[Piece] = []
        gap = capacity
        while gap and there:
            fits = there & ((2 << gap) - 1)
            if not fits and not crop:
                break
            length = (fits or there).bit_length() - 1
            start = waiting[length].pop()
            if not waiting[length]:
                there ^= 1 << length
            if not fits:
                # The head fills the gap; the tail keeps the head's last token as the place for its bos.
                tail = length - gap + 1
                waiting[tail].append(start + gap - 1)
                there |= 1 << tail
                length = gap
            row.append((start, length))
            gap -= length
        rows.append(row)
    return rows
