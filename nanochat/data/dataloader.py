"""
Documents or conversations -> packed rows -> the batches of a step, in one global order.

A row has a global number, which depends on the documents' lengths alone, and step s sees the rows s*R to
(s+1)*R, whatever the number of ranks and the size of a micro-batch. So a run can be stopped and resumed
exactly, also on another number of GPUs, and one GPU trains the same model as eight. A loader that reads files
rank by rank has neither.

    rows = text_rows("kindergarten", "train", tokenizer, 512, rt)
    for step, batches in StepBatches(rows, rows_per_step=64, device_batch_size=16): ...
"""
import functools
import hashlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from nanochat import runtime
from nanochat.common import UsageError, log
from nanochat.data.chat_format import render
from nanochat.data.datasets import shards
from nanochat.data.packing import Plan, pack, shuffled
from nanochat.data.token_shards import TokenShard, prepare_tokens, token_dtype
from nanochat.data.tokenizer import Tokenizer
from nanochat.runtime import Runtime
from nanochat.terminal import Progress

FORMAT = 1  # of packing


# ---- rows
class PackedRows:
    """The rows of several packed shards, numbered through. Subclasses set `counts` and `hash`."""
    counts: np.ndarray  # (rows,) float64: each row's sum of weights
    hash: str  # of all that the rows follow from; a resumed run compares it

    def __init__(self, shards: Sequence, plans: list[Plan], sequence_len: int) -> None:
        self.shards = shards
        self.plans = plans
        self.sequence_len = sequence_len
        self.ends = np.cumsum([0, *(len(plan) for plan in plans)])  # shard s has the rows ends[s]:ends[s+1]

    def __len__(self) -> int:
        return int(self.ends[-1])

    def row(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """(tokens int64 (T+1,), weight float32 (T,)): weight[t] is of the target tokens[t+1], 0 of
        padding."""
        shard_number = int(np.searchsorted(self.ends, number, side="right")) - 1
        shard = self.shards[shard_number]
        plan = self.plans[shard_number]
        number_in_shard = number - self.ends[shard_number]

        tokens = np.full(self.sequence_len + 1, shard.bos_id, np.int64)
        weight = np.zeros(self.sequence_len + 1, np.float32)
        filled = 0
        for p in range(plan.first[number_in_shard], plan.first[number_in_shard + 1]):
            start = plan.start[p]
            end = start + plan.length[p]
            here = slice(filled, filled + int(plan.length[p]))
            tokens[here] = shard.tokens[start:end]
            tokens[filled] = shard.bos_id
            weight[here] = self._weight(int(start), int(end))
            filled = here.stop
        return tokens, weight[1:]

    def _weight(self, start: int, end: int) -> np.ndarray | float:
        """Of the tokens start:end as targets."""
        return 1.0


class TextRows(PackedRows):
    """Rows of text, each starting with bos. A target that is bos has weight 1: it teaches where texts end."""

    def __init__(self, shards: Iterable[TokenShard], sequence_len: int) -> None:
        shards = list(shards)
        plans = [pack(shard.offsets, sequence_len + 1, crop=True) for shard in shards]
        super().__init__(shards, plans, sequence_len)
        self.counts = np.concatenate([np.zeros(0), *(plan.row_lengths() - 1.0 for plan in plans)])
        self.hash = _digest(FORMAT, sequence_len, [shard.sha256 for shard in shards])


def text_rows(dataset: str, split: str, tokenizer: Tokenizer, sequence_len: int, rt: Runtime,
              most_shards: int | None = None) -> TextRows:
    """Of a data set's split, or its first shards; rank 0 tokenizes, the others then map the same files.

    Every rank must call.
    """
    name = dataset.rstrip("/").rpartition("/")[2]
    with runtime.rank_zero_first(rt):
        made = prepare_tokens(tokenizer, shards(dataset, split)[:most_shards], name)
    return TextRows(made, sequence_len)


class ChatRows(PackedRows):
    """Rows of whole conversations; weight is 1 on what the assistant must produce, 0 elsewhere.

    One that is longer than a row is cut on the right; `cut` counts those.
    """

    def __init__(self, conversations: Sequence[dict[str, Any]], tokenizer: Tokenizer, sequence_len: int,
                 seed: int = 0) -> None:
        capacity = sequence_len + 1
        dtype = token_dtype(tokenizer)
        self.bos_id = tokenizer.bos_id
        self.cut = 0
        silent = 0  # conversations without a reply to learn
        tokens = [np.zeros(0, dtype)]  # an empty one first: their lengths add up to offsets that begin with 0
        masks = [np.zeros(0, np.uint8)]
        progress = Progress(len(conversations), "rendering conversations")
        for conversation in conversations:
            ids, mask = render(tokenizer, conversation)
            if len(ids) > capacity:
                self.cut += 1
            silent += not any(mask[:capacity])
            tokens.append(np.array(ids[:capacity], dtype))
            masks.append(np.array(mask[:capacity], np.uint8))
            progress.update()
        progress.close()
        if self.cut:
            log.info(f"{self.cut:,} of {len(conversations):,} conversations were cut to {capacity} tokens")
        if silent:
            log.info(f"{silent:,} of {len(conversations):,} conversations have no reply to learn within "
                     f"{capacity} tokens")

        offsets = np.cumsum([len(ids) for ids in tokens], dtype=np.int64)
        self.tokens = np.concatenate(tokens)  # (tokens of all conversations,)
        self.mask = np.concatenate(masks)
        # They lie in memory as the one shard of these rows. None is cut in two: an answer without its
        # question would teach to answer out of nothing.
        super().__init__([self], [pack(offsets, capacity, crop=False, seed=seed)], sequence_len)
        self.counts = np.array([self.row(number)[1].sum(dtype=np.float64) for number in range(len(self))])
        self.hash = _digest(FORMAT, sequence_len, seed, hashlib.sha256(self.tokens).hexdigest(),
                            hashlib.sha256(self.mask).hexdigest())

    def _weight(self, start: int, end: int) -> np.ndarray:
        return self.mask[start:end]


def _digest(*parts: Any) -> str:
    return hashlib.sha256(repr(parts).encode("utf-8")).hexdigest()[:16]


# ---- batches
@dataclass
class Batch:
    """One micro-step of one rank. A step's loss is the sum of weight * nll over all its batches / count.

    Dividing by the count of the whole step, not by each batch's own, makes every token weigh the same however
    the step is split: a mean of means would favour tokens in batches with little to learn.
    """
    inputs: torch.Tensor  # (B, T) int64
    targets: torch.Tensor  # (B, T) int64
    weight: torch.Tensor  # (B, T) float32
    count: float  # sum of weight over the whole step, all ranks; at least 1
    rows: list[int]  # global row numbers

    def to(self, device: torch.device | str) -> "Batch":
        return Batch(self.inputs.to(device, non_blocking=True), self.targets.to(device, non_blocking=True),
                     self.weight.to(device, non_blocking=True), self.count, self.rows)


def collate(rows: PackedRows, numbers: Iterable[int]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(inputs int64, targets int64, weight float32) of these rows, each (B, T): targets are one later."""
    tokens = []
    weights = []
    for number in numbers:
        row_tokens, row_weight = rows.row(int(number))
        tokens.append(row_tokens)
        weights.append(row_weight)
    stacked = torch.from_numpy(np.stack(tokens))  # (B, T+1)
    return stacked[:, :-1].contiguous(), stacked[:, 1:].contiguous(), torch.from_numpy(np.stack(weights))


class StepBatches:
    """Yields (step, this rank's [Batch, ...]) from start_step on, without end.

    Step s sees the rows s*R to (s+1)*R of the endless order, whatever world_size and device_batch_size; with
    `shuffle` every epoch has its own permutation. The next step is read ahead on a thread. Raises UsageError.
    """

    def __init__(self, rows: PackedRows, rows_per_step: int, device_batch_size: int, rank: int = 0,
                 world_size: int = 1, seed: int = 0, shuffle: bool = False, start_step: int = 0) -> None:
        if len(rows) == 0:
            raise UsageError("the data set is empty: no row to train on. Give another --dataset.")
        share = max(1, rows_per_step // world_size)  # a rank's rows of a step
        device_batch_size = min(device_batch_size, share)
        if rows_per_step % (device_batch_size * world_size):
            raise UsageError(f"{rows_per_step} rows a step do not divide by "
                             f"--device_batch_size={device_batch_size} times {world_size} ranks. "
                             f"Choose a --device_batch_size that does.")
        self.rows = rows
        self.rows_per_step = rows_per_step
        self.device_batch_size = device_batch_size
        self.rank = rank
        self.world_size = world_size
        self.start_step = start_step
        self.shuffle = shuffle

        @functools.lru_cache(maxsize=2)  # a step reaches into two epochs at most, unless these are very short
        def order(epoch: int) -> np.ndarray:
            return shuffled(len(rows), "epoch", seed, epoch)

        self._order = order

    def step_rows(self, step: int) -> np.ndarray:
        """The numbers of the rows of a step on all ranks together: int64 (rows_per_step,)."""
        places = step * self.rows_per_step + np.arange(self.rows_per_step)  # in the endless order
        epochs, numbers = np.divmod(places, len(self.rows))
        if self.shuffle:
            for epoch in np.unique(epochs):
                in_epoch = epochs == epoch
                numbers[in_epoch] = self._order(int(epoch))[numbers[in_epoch]]
        return numbers

    def load(self, step: int) -> list[Batch]:
        """This rank's micro-batches of a step."""
        numbers = self.step_rows(step)
        count = max(float(self.rows.counts[numbers].sum()), 1.0)
        # (micro-steps, ranks, B): in each micro-step the ranks take neighbouring rows
        by_rank = numbers.reshape(-1, self.world_size, self.device_batch_size)
        batches = []
        for micro_numbers in by_rank[:, self.rank]:
            inputs, targets, weight = collate(self.rows, micro_numbers)
            batches.append(Batch(inputs, targets, weight, count, micro_numbers.tolist()))
        return batches

    def __iter__(self) -> Iterator[tuple[int, list[Batch]]]:
        with ThreadPoolExecutor(1, "batches") as reader:
            ready = reader.submit(self.load, self.start_step)
            for step in itertools.count(self.start_step):
                batches = ready.result()
                ready = reader.submit(self.load, step + 1)  # while the caller trains on this one
                yield step, batches
