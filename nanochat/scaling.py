"""
From one dial to everything: pure functions from depth to width, heads, batch, horizon and learning rates.

No torch, no files, no side effects, so that what a run needs can be said before it is paid for.
"""
import math
from dataclasses import dataclass

ASPECT_RATIO = 64        # model width per layer
HEAD_DIM = 128           # target head size; half of it for narrow models, which want several heads
REFERENCE_WIDTH = 768    # width at which the AdamW learning rates were tuned; others scale as 1/sqrt(width)


@dataclass(frozen=True)
class Shape:
    """The model's shape for a depth; the names are those of GPTConfig."""

    n_layer: int
    n_head: int
    n_kv_head: int
    n_embd: int


def model_shape(depth) -> Shape:
    """Width 64 a layer, rounded up to whole heads, so that every depth (odd ones too) gives an even head size."""
    head_dim = HEAD_DIM if depth >= 8 else HEAD_DIM // 2
    n_head = max(1, math.ceil(depth * ASPECT_RATIO / head_dim))
    return Shape(depth, n_head, n_head, n_head * head_dim)


def matrix_params(depth) -> int:
    """Parameters in attention and MLP: 12 * width^2 a layer."""
    return 12 * depth * model_shape(depth).n_embd ** 2


def num_params(depth, vocab_size) -> int:
    """All parameters: matrices, embedding and head, the vocabulary padded to a multiple of 64."""
    return matrix_params(depth) + 2 * (-(-vocab_size // 64) * 64) * model_shape(depth).n_embd


def total_batch_tokens(depth) -> int:
    """Tokens a step: 8K for a laptop's model, half a million from d12 on."""
    return 8192 if depth <= 4 else 32768 if depth <= 6 else 131072 if depth < 12 else 524288


def horizon_tokens(depth, vocab_size, ratio=20.0) -> int:
    """Training tokens: `ratio` for each parameter (20: Chinchilla, arXiv 2203.15556)."""
    return int(ratio * num_params(depth, vocab_size))


def adam_lr_scale(n_embd) -> float:
    """Factor on AdamW learning rates: 1/sqrt(width), relative to the width they were tuned at."""
    return (n_embd / REFERENCE_WIDTH) ** -0.5


def lr_scale(step, steps, warmup_frac=0.0, warmdown_frac=0.4, final=0.0) -> float:
    """Trapezoid (arXiv 2405.18392): up over the first warmup_frac of the steps, flat, linearly down to `final`."""
    warmup, warmdown = round(warmup_frac * steps), round(warmdown_frac * steps)
    if step < warmup:
        return (step + 1) / warmup
    if step < steps - warmdown:
        return 1.0
    left = (steps - step) / max(warmdown, 1)
    return final + (1 - final) * left


def muon_momentum(step, steps) -> float:
    """0.85 rising to 0.95 over the first 300 steps, or a fifth of a shorter run."""
    ramp = max(1, min(300, steps // 5))
    return 0.85 + 0.10 * min(1.0, step / ramp)
