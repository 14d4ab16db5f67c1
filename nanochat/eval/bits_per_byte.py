"""
Bits that a model needs for a byte of text it has not seen: the measure that base models are compared by.

The training loss is in nats a token, and a token is what the tokenizer makes it: with longer tokens there are
fewer of them, each harder to guess, so losses of different tokenizers say nothing of each other. All the nats
of a text together, divided by its bytes, can be compared. It is also what a compressor that asks the model
would need: 8 bits without a model, about 1 with a good one.

Special tokens, which stand for no text, are left out on both sides.
"""
import math
from collections.abc import Callable, Sequence

import numpy as np
import torch

from nanochat import memory, runtime
from nanochat.data.dataloader import PackedRows, TextRows, collate
from nanochat.model.gpt import GPT
from nanochat.runtime import Runtime


def sum_over_rows(measure: Callable[..., tuple[float, float]], model: GPT, rows: PackedRows,
                  device_batch_size: int, rt: Runtime, max_rows: int = 0) -> list[float]:
    """What measure(inputs, targets, weight) gives, added up over the first `max_rows` (0: all) of `rows`.

    Every rank must call.
    """
    mine = range(rt.rank, min(len(rows), max_rows or len(rows)), rt.world_size)

    def summed(at_a_time):
        pairs = np.zeros(2)
        for first in range(0, len(mine), at_a_time):
            pairs += measure(*collate(rows, mine[first:first + at_a_time]))
        return pairs

    share = memory.fitted(model, "validation rows", device_batch_size, summed)
    return np.sum(runtime.all_gather_object(rt, share), axis=0).tolist()


def bits_per_byte(model: GPT, rows: TextRows, token_bytes: Sequence[int], device_batch_size: int, rt: Runtime,
                  max_rows: int = 0) -> float:
    """On the first `max_rows` (0: all) of `rows`; nan when they hold no text. Every rank must call.

    token_bytes: (vocab_size,) ints, how many bytes of text each token stands for, 0 for special tokens.
    """
    bytes_of = torch.as_tensor(token_bytes, dtype=torch.int64)

    def measure(inputs, targets, weight):
        counted = bytes_of[targets] * (weight > 0)  # (B, T): bytes of each target, 0 where it does not count
        nll = model.token_nll(inputs.to(model.device), targets.to(model.device)).cpu()  # (B, T) float32, nats
        return nll.double()[counted > 0].sum().item(), counted.sum().item()

    # Sums, not means: what has fewer bytes must count for less.
    nats, size = sum_over_rows(measure, model, rows, device_batch_size, rt, max_rows)
    return nats / math.log(2) / size if size else math.nan
