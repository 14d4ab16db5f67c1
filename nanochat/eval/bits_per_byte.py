"""
Bits that a model needs for a byte of text it has not seen.

Unlike the loss a token it can be compared between tokenizers. Special tokens, which stand for no text, are left out.
"""
import math

import torch

from nanochat import runtime
from nanochat.data.dataloader import collate


def bits_per_byte(model, rows, token_bytes, device_batch_size, rt, max_rows=0) -> float:
    """On the first `max_rows` (0: all) of `rows` (TextRows); nan when they hold no text.

    token_bytes: (vocab_size,) ints, 0 for special tokens. Every rank must call.
    """
    token_bytes = torch.as_tensor(token_bytes, dtype=torch.int64)
    n = min(len(rows), max_rows) if max_rows > 0 else len(rows)
    mine = range(rt.rank, n, rt.world_size)
    nats, size = 0.0, 0
    for start in range(0, len(mine), device_batch_size):
        inputs, targets, weight = collate(rows, mine[start:start + device_batch_size])
        counted = token_bytes[targets] * (weight > 0)  # (B, T): bytes of each counted target
        nll = model.token_nll(inputs.to(model.device), targets.to(model.device)).cpu()
        nats += nll.double()[counted > 0].sum().item()
        size += counted.sum().item()
    nats, size = (sum(parts) for parts in zip(*runtime.all_gather_object(rt, (nats, size))))
    return nats / math.log(2) / size if size else math.nan
