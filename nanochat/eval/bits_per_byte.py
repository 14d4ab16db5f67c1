"""
Bits that a model needs for a byte of text it has not seen: the measure that base models are compared by.

The training loss is in nats a token, and a token is what the tokenizer makes it: with longer tokens there are
fewer of them, each harder to guess, so losses of different tokenizers say nothing of each other. All the nats
of a text together, divided by its bytes, can be compared. It is also what a compressor that asks the model
would need: 8 bits without a model, about 1 with a good one.

Special tokens, which stand for no text, are left out on both sides.
"""
import math
from collections.abc import Sequence

import torch

from nanochat import runtime
from nanochat.data.dataloader import TextRows, collate
from nanochat.model.gpt import GPT
from nanochat.runtime import Runtime


def bits_per_byte(model: GPT, rows: TextRows, token_bytes: Sequence[int], device_batch_size: int, rt: Runtime,
                  max_rows: int = 0) -> float:
    """On the first `max_rows` (0: all) of `rows`; nan when they hold no text. Every rank must call.

    token_bytes: (vocab_size,) ints, how many bytes of text each token stands for, 0 for special tokens.
    """
    bytes_of = torch.as_tensor(token_bytes, dtype=torch.int64)
    total_rows = len(rows)
    if max_rows > 0:
        total_rows = min(total_rows, max_rows)
    mine = range(rt.rank, total_rows, rt.world_size)
    nats = 0.0
    size = 0
    for first in range(0, len(mine), device_batch_size):
        inputs, targets, weight = collate(rows, mine[first:first + device_batch_size])
        counted = bytes_of[targets] * (weight > 0)  # (B, T): bytes of each target, 0 where it does not count
        nll = model.token_nll(inputs.to(model.device), targets.to(model.device)).cpu()  # (B, T) float32, nats
        nats += nll.double()[counted > 0].sum().item()
        size += counted.sum().item()

    # Sums travel, not means: a rank with fewer bytes must count for less.
    shares = runtime.all_gather_object(rt, (nats, size))
    total_nats = 0.0
    total_bytes = 0
    for nats, size in shares:
        total_nats += nats
        total_bytes += size
    if total_bytes == 0:
        return math.nan
    return total_nats / math.log(2) / total_bytes
