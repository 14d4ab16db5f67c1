"""
From one dial to everything: pure functions from depth to shape, recipe, shards and memory.
"""
import math
from dataclasses import dataclass

ASPECT_RATIO = 64  # model width per layer
HEAD_DIM = 128  # half of it for narrow models
REFERENCE_WIDTH = 768  # at which AdamW's learning rates were tuned; they go as 1/sqrt(width)
REFERENCE_BATCH = 2**19  # tokens a step, of learning rates (first public d20 run)
DEEP = 12  # from here on the recipe follows published laws; below, what was measured here
TOKENS_PER_SHARD = 52e6  # of web text: 250M characters, 4.8 a token (vocabulary 65,536)
LATER_STAGES = 0.12  # of pretraining's hours: with MFU 0.4 the first d20 run's 3h51m
ROWS = (1, 2, 4, 8, 16, 32, 64)  # a device at a time


@dataclass(frozen=True)
class Shape:
    """In the names of GPTConfig."""

    n_layer: int
    n_head: int
    n_kv_head: int
    n_embd: int


@dataclass(frozen=True)
class Pretraining:
    """lr_factor is on all learning rates, final_lr a share of their peak."""

    steps: int
    batch_tokens: int
    lr_factor: float
    weight_decay: float
    warmdown_frac: float
    final_lr: float


@dataclass(frozen=True)
class GPU:
    """GiB of memory, dense bf16 peak (data sheets), dollars an hour."""

    gib: float
    peak_flops: float
    dollars: float


# $24 an hour for 8 x H100 names the tiers, $14.32 for 8 x A100-80 was paid for d20 runs; others are guesses.
GPUS = {"b200": GPU(179, 2250e12, 5.0), "h200": GPU(140, 989e12, 3.5), "h100-pcie": GPU(79, 756e12, 2.5),
        "h100": GPU(79, 989e12, 3.0), "a100-80": GPU(79, 312e12, 1.79), "a100-40": GPU(39, 312e12, 1.29),
        "l40s": GPU(44, 362e12, 0.9), "a6000": GPU(47, 155e12, 0.5), "4090": GPU(23.5, 165e12, 0.4),
        "3090": GPU(23.5, 71e12, 0.25), "3060": GPU(11.6, 25.6e12, 0.1), "cpu": GPU(8, 0.41e12, 0.0)}


def gpu_named(device_name):
    """The first of GPUS whose words are in a name such as 'NVIDIA A100-SXM4-80GB', or None."""
    return next((key for key in GPUS if all(word in device_name.lower() for word in key.split("-"))), None)


def model_shape(depth) -> Shape:
    """Width is rounded up to whole heads, so that odd depths too give an even head size."""
    head_dim = HEAD_DIM if depth >= 8 else HEAD_DIM // 2
    n_head = max(1, math.ceil(depth * ASPECT_RATIO / head_dim))
    return Shape(depth, n_head, n_head, n_head * head_dim)


def matrix_params(depth) -> int:
    return 12 * depth * model_shape(depth).n_embd ** 2


def head_params(depth, vocab_size) -> int:
    """Of the head, and as many in the embedding; as padded by GPTConfig."""
    return -(-vocab_size // 64) * 64 * model_shape(depth).n_embd


def table_params(depth, vocab_size) -> int:
    """Of the value tables, one in every second layer."""
    return -(-depth // 2) * head_params(depth, vocab_size)


def num_params(depth, vocab_size, tables=True) -> int:
    return matrix_params(depth) + 2 * head_params(depth, vocab_size) + tables * table_params(depth, vocab_size)


def flops_per_token(depth, vocab_size, sequence_len) -> int:
    weights = matrix_params(depth) + head_params(depth, vocab_size)
    return 6 * weights + 12 * depth * model_shape(depth).n_embd * sequence_len


def pretraining(depth, vocab_size, ratio=20.0, batch_tokens=0, steps=0, lr=0.02, world=1) -> Pretraining:
    """The recipe of a depth; `batch_tokens` and `steps` count where not 0, `lr` is Muon's.

    From DEEP on, not yet measured here: warm-down over 0.65 of the steps to 5 %, as in nanochat's public d24 record.
    """
    tokens = horizon_tokens(depth, vocab_size, ratio)
    batch_tokens = batch_tokens or total_batch_tokens(depth, tokens, world)
    steps = steps or max(1, tokens // batch_tokens)
    if depth < DEEP:
        return Pretraining(steps, batch_tokens, 1.0, 0.0, 0.4, 0.0)
    factor, ratio = lr_factor(depth, batch_tokens), steps * batch_tokens / horizon_tokens(depth, vocab_size, 1)
    return Pretraining(steps, batch_tokens, factor, weight_decay(steps, lr * factor, ratio), 0.65, 0.05)


def horizon_tokens(depth, vocab_size, ratio=20.0) -> int:
    """`ratio` for each parameter (20: Chinchilla, arXiv 2203.15556) but the tables', from DEEP on the embedding's."""
    return int(ratio * (num_params(depth, vocab_size, False) - (depth >= DEEP) * head_params(depth, vocab_size)))


def total_batch_tokens(depth, tokens, world=1) -> int:
    """Tokens a step: below DEEP by depth, then ~ horizon^0.383 (arXiv 2505.13738); a power of two, times 3 for 6 GPUs.

    The law goes through 2^20 at the 5.84 billion tokens of the public d24 record.
    """
    wanted = 20 + 0.383 * math.log2(tokens / 5.84e9) if depth >= DEEP else 13 if depth <= 4 else 15 if depth <= 6 else 17
    odd = world // (world & -world)
    return odd * 2 ** round(wanted - math.log2(odd))


def lr_factor(depth, batch_tokens) -> float:
    """On all learning rates: from DEEP on ~ sqrt(batch) (arXiv 2205.10287)."""
    return (batch_tokens / REFERENCE_BATCH) ** 0.5 if depth >= DEEP else 1.0


def weight_decay(steps, lr, ratio) -> float:
    """A weight averages over 1.084 * ratio^-0.527 of the run (AdamW's in arXiv 2505.13738)."""
    return 1 / (1.084 * ratio ** -0.527 * lr * steps) if lr else 0.0


def adam_lr_scale(n_embd) -> float:
    return (n_embd / REFERENCE_WIDTH) ** -0.5


def lr_scale(step, steps, warmup_frac=0.0, warmdown_frac=0.4, final=0.0) -> float:
    """Trapezoid (arXiv 2405.18392): linearly up, flat, linearly down to `final`."""
    warmup, warmdown = round(warmup_frac * steps), round(warmdown_frac * steps)
    if step < warmup:
        return (step + 1) / warmup
    if step < steps - warmdown:
        return 1.0
    return final + (1 - final) * ((steps - step) / max(warmdown, 1))


def muon_momentum(step, steps) -> float:
    """0.85 rising to 0.95 over the first 300 steps, or a fifth of a shorter run."""
    return 0.85 + 0.10 * min(1.0, step / max(1, min(300, steps // 5)))


def shards_needed(tokens) -> int:
    """That hold `tokens`, and one to spare."""
    return math.ceil(tokens / TOKENS_PER_SHARD) + 1


def disk_bytes(depth, vocab_size, tokens) -> float:
    """Shards, two bytes a token, three checkpoints of each stage."""
    checkpoint = 8 * matrix_params(depth) + 24 * head_params(depth, vocab_size) + 12 * table_params(depth, vocab_size)
    return (shards_needed(tokens) + 1) * 100e6 + 2 * tokens + 12 * checkpoint


def memory_bytes(depth, vocab_size, sequence_len, rows, world=1, itemsize=2, tables=True) -> float:
    """What a device holds at the fullest moment of a step (fused attention and RMSNorm, not compiled).

    Weights of `itemsize` bytes (embedding and tables 4), float32 gradients; masters and optimizer state shared by
    `world` devices. A layer keeps 18 numbers a token and channel.
    """
    head, matrix, width = head_params(depth, vocab_size), matrix_params(depth), model_shape(depth).n_embd
    embedding = head + tables * table_params(depth, vocab_size)
    held = (itemsize + 4) * (matrix + head) + 8 * embedding + (8 * matrix + 12 * (head + embedding)) / world
    held += (world > 1) * 4 * (matrix + head + embedding) / world
    backward = (18 * depth + 13) * rows * sequence_len * width * itemsize + (8 + itemsize) * head
    return held + max(backward, (8 + 3 * itemsize) * matrix / 3 / world)


def device_batch_size(depth, vocab_size, sequence_len, gib, world=1, tables=True) -> int:
    """The most of ROWS that leave a tenth of `gib` free, or 0."""
    return max((rows for rows in ROWS if memory_bytes(depth, vocab_size, sequence_len, rows, world, tables=tables)
                < 0.9 * gib * 2**30), default=0)


def rows_at_a_time(device_type, sequence_len, rows) -> int:
    """A divisor of a device's `rows` a step: up to 32, on a CPU 2,048 tokens (dev/LOG.md)."""
    most = max(1, 2048 // sequence_len) if device_type == "cpu" else 32
    return max(n for n in range(1, max(1, min(rows, most)) + 1) if max(rows, 1) % n == 0)
