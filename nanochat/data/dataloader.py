"""
Documents or conversations -> packed rows -> the batches of a step, in one global order.

Packing depends on the documents' lengths alone, so step s sees the same rows whatever the ranks and the micro-batch:
hence exact resume, also on another number of GPUs.
"""
import functools
import hashlib
import itertools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from nanochat.common import Progress, UsageError, log, mix_seed
from nanochat.data.chat_format import render
from nanochat.data.token_shards import TokenShard, prepare_tokens  # noqa: F401 (for whoever wants rows)

FORMAT = 1  # of packing


# ---- packing
@dataclass(frozen=True)
class Plan:
    """Row i is the pieces first[i]:first[i+1]; piece p is tokens[start[p]:start[p]+length[p]] with bos for its first.

    Where a piece continues a document, that first token is the last of another row too.
    """
    first: np.ndarray  # (rows + 1,) int64
    start: np.ndarray  # (pieces,) int64
    length: np.ndarray  # (pieces,) int32

    def __len__(self):
        return len(self.first) - 1

    def row_lengths(self):
        """Without padding: (rows,) int64."""
        return np.add.reduceat(self.length, self.first[:-1], dtype=np.int64) if len(self) else np.zeros(0, np.int64)


def pack(offsets, capacity, crop, seed=0) -> Plan:
    """Pack the documents offsets[d]:offsets[d+1] into rows of `capacity` tokens, best fit (arXiv 2404.10830).

    Longer ones are cut into full rows first. When nothing fits the rest of a row, that is padding, or with `crop` the
    longest waiting piece is cut: its head fills the row, bos + tail waits on. The order of rows is mixed by `seed`.
    """
    starts, lengths = offsets[:-1], np.diff(offsets)
    step = capacity - 1  # a continued piece begins with a bos of its own
    full = np.maximum(0, -(-(lengths - capacity) // step)) if crop else np.zeros_like(lengths)
    assert crop or lengths.max(initial=0) <= capacity, f"{lengths.max()} tokens do not fit {capacity}"
    turn = np.arange(full.sum()) - np.repeat(np.cumsum(full) - full, full)
    rows = [[(start, capacity)] for start in (np.repeat(starts, full) + turn * step).tolist()]
    rows += _best_fit((starts + full * step).tolist(), (lengths - full * step).tolist(), capacity, crop)
    rows = [rows[i] for i in _shuffled(len(rows), "pack", seed)]
    pieces = np.array([piece for row in rows for piece in row], np.int64).reshape(-1, 2)
    first = np.cumsum([0, *map(len, rows)], dtype=np.int64)
    return Plan(first, pieces[:, 0].copy(), pieces[:, 1].astype(np.int32))


def _shuffled(n, *seed):
    """0 to n-1 in an order fixed by `seed`: numpy froze this stream."""
    return np.random.RandomState(mix_seed(*seed) % 2**32).permutation(n)


def _best_fit(starts, lengths, capacity, crop):
    """Rows of (start, length) pieces. One bit a length says whether such a piece waits: the best is one mask away."""
    waiting = [[] for _ in range(capacity + 1)]
    for start, length in zip(reversed(starts), reversed(lengths)):  # equals leave in their order
        waiting[length].append(start)
    there = sum(1 << length for length in range(1, capacity + 1) if waiting[length])
    rows = []
    while there:
        row, gap = [], capacity
        while gap and there:
            fits = there & ((2 << gap) - 1)
            if not fits and not crop:
                break
            length = (fits or there).bit_length() - 1
            start = waiting[length].pop()
            if not waiting[length]:
                there ^= 1 << length
            if not fits:  # a gap of 1 takes only bos
                tail = length - gap + 1
                waiting[tail].append(start + gap - 1)
                there |= 1 << tail
                length = gap
            row.append((start, length))
            gap -= length
        rows.append(row)
    return rows


# ---- rows
class _Rows:
    """Subclasses set `counts`, each row's sum of weights, and `hash`."""

    def __init__(self, shards, plans, sequence_len):
        self.shards, self.plans, self.sequence_len = shards, plans, sequence_len
        self.ends = np.cumsum([0, *map(len, plans)])

    def __len__(self):
        return int(self.ends[-1])

    def row(self, i):
        """(tokens int64 (T+1,), weight float32 (T,)); weight[t] belongs to the target tokens[t+1], padding has 0."""
        s = int(np.searchsorted(self.ends, i, side="right")) - 1
        shard, plan, at = self.shards[s], self.plans[s], 0
        ids, keep = np.full(self.sequence_len + 1, shard.bos_id, np.int64), np.zeros(self.sequence_len + 1, np.float32)
        for p in range(plan.first[i - self.ends[s]], plan.first[i - self.ends[s] + 1]):
            start, n = plan.start[p], int(plan.length[p])
            ids[at:at + n] = shard.tokens[start:start + n]
            ids[at] = shard.bos_id
            keep[at:at + n] = shard.mask[start:start + n] if isinstance(shard, ChatRows) else 1
            at += n
        return ids, keep[1:]


class TextRows(_Rows):
    """Rows of text, each starting with bos. A target that is bos has weight 1: it teaches where texts end."""

    def __init__(self, shards, sequence_len):
        shards = list(shards)
        super().__init__(shards, [pack(s.offsets, sequence_len + 1, crop=True) for s in shards], sequence_len)
        self.counts = np.concatenate([np.zeros(0), *(plan.row_lengths() - 1.0 for plan in self.plans)])
        self.hash = _digest(FORMAT, sequence_len, [shard.sha256 for shard in shards])


def _digest(*parts):
    return hashlib.sha256(repr(parts).encode("utf-8")).hexdigest()[:16]


class ChatRows(_Rows):
    """Rows of whole conversations; weight is 1 on what the assistant must produce, 0 elsewhere.

    One longer than a row is cut on the right; `cut` counts those.
    """

    def __init__(self, conversations, tokenizer, sequence_len, seed=0):
        capacity, dtype = sequence_len + 1, np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.uint32
        tokens, masks, self.cut, self.bos_id = [np.zeros(0, dtype)], [np.zeros(0, np.uint8)], 0, tokenizer.bos_id
        progress = Progress(len(conversations), "rendering conversations")
        for conversation in conversations:
            ids, mask = render(tokenizer, conversation)
            self.cut += len(ids) > capacity
            tokens.append(np.array(ids[:capacity], dtype))
            masks.append(np.array(mask[:capacity], np.uint8))
            progress.update()
        progress.close()
        if self.cut:
            log.info(f"{self.cut:,} of {len(conversations):,} conversations were cut to {capacity} tokens")
        offsets = np.cumsum([len(ids) for ids in tokens], dtype=np.int64)
        self.tokens, self.mask = np.concatenate(tokens), np.concatenate(masks)
        super().__init__([self], [pack(offsets, capacity, crop=False, seed=seed)], sequence_len)
        self.counts = np.array([self.row(i)[1].sum(dtype=np.float64) for i in range(len(self))])
        self.hash = _digest(FORMAT, sequence_len, seed, hashlib.sha256(self.tokens).hexdigest())


# ---- batches
@dataclass
class Batch:
    """One micro-step of one rank. A step's loss is the sum of weight * nll over all its batches / count."""
    inputs: torch.Tensor  # (B, T) int64
    targets: torch.Tensor  # (B, T) int64
    weight: torch.Tensor  # (B, T) float32
    count: float  # sum of weight over the whole step, all ranks; at least 1
    rows: list  # global row numbers

    def to(self, device):
        return Batch(*(tensor.to(device, non_blocking=True) for tensor in (self.inputs, self.targets, self.weight)),
                     self.count, self.rows)


def collate(rows, numbers):
    """(inputs int64, targets int64, weight float32), each (B, T), of these rows."""
    tokens, weight = (torch.from_numpy(np.stack(part)) for part in zip(*(rows.row(int(i)) for i in numbers)))
    return tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous(), weight


class StepBatches:
    """Yields (step, this rank's [Batch, ...]) from start_step on, without end.

    Step s sees the rows s*R to (s+1)*R of the endless order, whatever world_size and device_batch_size; with `shuffle`
    every epoch has its own permutation. The next step is read ahead on a thread. Raises UsageError.
    """

    def __init__(self, rows, rows_per_step, device_batch_size, rank=0, world_size=1, seed=0, shuffle=False,
                 start_step=0):
        if len(rows) == 0:
            raise UsageError("the data set is empty: no row to train on. Give another --dataset.")
        device_batch_size = min(device_batch_size, max(1, rows_per_step // world_size))  # a rank's whole share
        if rows_per_step % (device_batch_size * world_size):
            raise UsageError(f"{rows_per_step} rows a step do not divide by --device_batch_size={device_batch_size} "
                             f"times {world_size} ranks. Choose a --device_batch_size that does.")
        self.rows, self.rows_per_step, self.device_batch_size = rows, rows_per_step, device_batch_size
        self.rank, self.world_size, self.start_step, self.shuffle = rank, world_size, start_step, shuffle
        self._order = functools.lru_cache(maxsize=2)(lambda epoch: _shuffled(len(rows), "epoch", seed, epoch))

    def step_rows(self, step):
        """On all ranks: int64 (rows_per_step,)."""
        epoch, row = np.divmod(step * self.rows_per_step + np.arange(self.rows_per_step), len(self.rows))
        if self.shuffle:
            for e in np.unique(epoch):
                row[epoch == e] = self._order(int(e))[row[epoch == e]]
        return row

    def load(self, step) -> list[Batch]:
        numbers = self.step_rows(step)
        count = max(float(self.rows.counts[numbers].sum()), 1.0)
        mine = numbers.reshape(-1, self.world_size, self.device_batch_size)[:, self.rank]
        return [Batch(*collate(self.rows, micro), count, micro.tolist()) for micro in mine]

    def __iter__(self):
        with ThreadPoolExecutor(1, "batches") as reader:
            ready = reader.submit(self.load, self.start_step)
            for step in itertools.count(self.start_step):
                batches, ready = ready.result(), reader.submit(self.load, step + 1)
                yield step, batches
