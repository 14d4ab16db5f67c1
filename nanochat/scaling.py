"""
From one dial to everything: pure functions from --depth to shape, recipe, data, memory.

A model's quality follows from its parameters N and its training tokens D, and its cost from their product:
about 6 N D FLOPs. So one number, the depth, can stand for the whole run, if width, horizon, batch, learning
rates and weight decay grow with it as they should. What "as they should" means stands here, each law with its
paper:

    depth -> width, heads         a fixed ratio of width to depth
          -> tokens               a fixed ratio of tokens to parameters (Chinchilla)
          -> tokens a step        the critical batch grows with the tokens
          -> learning rates       grow with the root of the batch
          -> weight decay         set so that a weight remembers a fixed part of the run
          -> shards, disk, GiB    what that takes

Nothing here asks the machine or imports torch: scripts/plan.py answers before anything is paid for, and
training uses the same functions. tests/test_scaling.py holds them against the real model and against known
public runs.
"""
import math
from dataclasses import dataclass

ASPECT_RATIO = 64  # model width per layer
HEAD_DIM = 128  # channels of a head, at most
REFERENCE_WIDTH = 768  # at which AdamW's learning rates were tuned
REFERENCE_BATCH = 2**19  # tokens a step, at which all learning rates were tuned (first public d20 run)
SQUARES_HALF_LIFE = 140_000  # tokens
SMALL = 8  # with fewer layers a model follows short texts only, and is taught what it can answer
DEEP = 12  # from here on the recipe follows published laws; below, what was measured here
TOKENS_PER_SHARD = 52e6  # of web text: 250M characters, 4.8 a token (vocabulary 65,536)
LATER_STAGES = 0.12  # of pretraining's hours: with MFU 0.4 the first d20 run's 3h51m
ROWS = (1, 2, 4, 8, 16, 32, 64)  # a device at a time


@dataclass(frozen=True)
class Shape:
    """What depth decides about the Transformer, in the names of GPTConfig."""

    n_layer: int
    n_head: int
    n_kv_head: int
    n_embd: int


@dataclass(frozen=True)
class Pretraining:
    """The recipe of a pretraining run."""

    steps: int
    batch_tokens: int  # a step, over all devices
    lr_factor: float  # on all learning rates
    weight_decay: float
    warmdown_frac: float  # of the steps, the last ones
    final_lr: float  # at the end, as a share of the peak


@dataclass(frozen=True)
class GPU:
    """A kind of device: GiB of memory, dense bf16 peak in FLOP/s (data sheets), dollars an hour."""

    gib: float
    peak_flops: float
    dollars: float
    fp8: bool = False  # whether it multiplies 8-bit floats


# $24 an hour for 8 x H100 names the tiers, $14.32 for 8 x A100-80 was paid for d20 runs; others are guesses.
# A key is the words that must all be in a device's name; the more particular kind comes first.
GPUS = {
    "b200": GPU(179, 2250e12, 5.0, fp8=True),
    "h200": GPU(140, 989e12, 3.5, fp8=True),
    "h100-pcie": GPU(79, 756e12, 2.5, fp8=True),
    "h100": GPU(79, 989e12, 3.0, fp8=True),
    "a100-80": GPU(79, 312e12, 1.79),
    "a100-40": GPU(39, 312e12, 1.29),
    "l40s": GPU(44, 362e12, 0.9, fp8=True),
    "a6000": GPU(47, 155e12, 0.5),
    "4090": GPU(23.5, 165e12, 0.4, fp8=True),
    "3090": GPU(23.5, 71e12, 0.25),
    "3060": GPU(11.6, 25.6e12, 0.1),
    "mps": GPU(10.6, 2.6e12, 0.0),  # an M1 with 16 GiB, of which Metal gives two thirds
    "cpu": GPU(8, 0.41e12, 0.0),  # two cores
}
FLOAT32 = ("mps", "xpu", "cpu")  # what computes in 32 bits


def gpu_named(device_name: str) -> str | None:
    """The key of GPUS for a name such as 'NVIDIA A100-SXM4-80GB', or None for an unknown device."""
    for key in GPUS:
        if all(word in device_name.lower() for word in key.split("-")):
            return key
    return None


# ---- the model
def model_shape(depth: int) -> Shape:
    """Width and heads of a depth.

    Depth and width grow together: much deeper or wider than 1:64 trains worse at equal size (arXiv 2001.08361
    finds a broad optimum). Few wide heads are better than many narrow ones: a d3 with heads of 32, 64, 96 and
    192 channels came to 0.662, 0.642, 0.631 and 0.634 bits per byte (dev/LOG.md). From 8 layers on the width
    is rounded up to whole heads; below, the heads are as wide as the width allows. Rotary embeddings turn
    channels in pairs, so both come out even.
    """
    width = depth * ASPECT_RATIO
    n_head = math.ceil(width / HEAD_DIM)
    if depth >= 8:
        return Shape(n_layer=depth, n_head=n_head, n_kv_head=n_head, n_embd=n_head * HEAD_DIM)
    while width % n_head:
        n_head += 1
    return Shape(n_layer=depth, n_head=n_head, n_kv_head=n_head, n_embd=width)


def matrix_params(depth: int) -> int:
    """Of all blocks. With width C: C x C for each of q, k, v and the output, C x 4C and 4C x C in the MLP: 12
    C^2."""
    return 12 * depth * model_shape(depth).n_embd ** 2


def head_params(depth: int, vocab_size: int) -> int:
    """Of the output head, and as many in the embedding; GPTConfig pads the vocabulary to whole 64s."""
    padded = math.ceil(vocab_size / 64) * 64
    return padded * model_shape(depth).n_embd


def table_params(depth: int, vocab_size: int) -> int:
    """Of the value tables, embeddings of the vocabulary in every second layer."""
    tables = math.ceil(depth / 2)
    return tables * head_params(depth, vocab_size)


def num_params(depth: int, vocab_size: int, tables: bool = True, skips: bool = True) -> int:
    """All parameters: blocks, embedding and head, and where the model has them value tables and skips, two
    numbers a layer.
    """
    total = matrix_params(depth) + 2 * head_params(depth, vocab_size)
    if tables:
        total += table_params(depth, vocab_size)
    if skips:
        total += 2 * depth
    return total


def flops_per_token(depth: int, vocab_size: int, sequence_len: int) -> int:
    """Of training: forward and backward pass (arXiv 2204.02311, appendix B).

    A weight takes part in one multiplication and one addition forwards, and in twice as many backwards: 6
    FLOPs. The embedding and the value tables are looked up, not multiplied. Attention's two products of T x T
    (queries with keys, weights with values) have no parameters; they cost 12 C T for a layer and token.
    """
    weights = matrix_params(depth) + head_params(depth, vocab_size)
    return 6 * weights + 12 * depth * model_shape(depth).n_embd * sequence_len


# ---- the recipe
def pretraining(depth: int, vocab_size: int, ratio: float = 20.0, batch_tokens: int = 0, steps: int = 0,
                lr: float = 0.02, world: int = 1) -> Pretraining:
    """The recipe of a depth.

    ratio: training tokens for each parameter. batch_tokens and steps replace what follows from depth, where
    not 0. lr: Muon's. world: how many devices must be able to share a step. From DEEP on, not yet measured
    here: warm-down over 0.65 of the steps to 5 %, as in nanochat's public d24 record.
    """
    tokens = horizon_tokens(depth, vocab_size, ratio)
    batch_tokens = batch_tokens or total_batch_tokens(depth, tokens, world)
    steps = steps or max(1, tokens // batch_tokens)
    if depth < DEEP:
        return Pretraining(
            steps, batch_tokens, lr_factor=1.0, weight_decay=0.0, warmdown_frac=0.4, final_lr=0.0
        )

    factor = lr_factor(depth, batch_tokens)
    real_ratio = steps * batch_tokens / horizon_tokens(depth, vocab_size, 1)
    decay = weight_decay(steps, lr * factor, real_ratio)
    return Pretraining(steps, batch_tokens, factor, decay, warmdown_frac=0.65, final_lr=0.05)


def horizon_tokens(depth: int, vocab_size: int, ratio: float = 20.0) -> int:
    """How many tokens to train on: `ratio` for each parameter.

    Chinchilla (arXiv 2203.15556): for a given compute, parameters and tokens should grow in step, about 20
    tokens for each parameter. Fewer and the model is too big for what it read, more and a bigger one would
    have been better for the same money (but dearer to use). Value tables are not counted, being looked up,
    and from DEEP on neither is the embedding.
    """
    counted = num_params(depth, vocab_size, tables=False, skips=False)
    if depth >= DEEP:
        counted -= head_params(depth, vocab_size)
    return int(ratio * counted)


def total_batch_tokens(depth: int, tokens: float, world: int = 1) -> int:
    """Tokens a step for a run over `tokens`: a power of two, times the odd part of `world` (3 for 6 GPUs).

    Below a critical batch size two steps of B tokens teach as much as one of 2 B with a higher learning rate;
    above it the gradient is already good and the rest is wasted. So B should be near it: as many tokens as
    can be used at once.
    """
    log2_wanted = _log2_critical_batch(tokens) if depth >= DEEP else _log2_small_batch(depth, tokens)
    odd_part = world // (world & -world)  # world & -world is the greatest power of two that divides it
    return odd_part * 2 ** round(log2_wanted - math.log2(odd_part))


def _log2_critical_batch(tokens: float) -> float:
    """The critical batch grows as tokens^0.383 (arXiv 2505.13738).

    The law goes through 2^20 at the 5.84 billion tokens of the public d24 record.
    """
    return 20 + 0.383 * math.log2(tokens / 5.84e9)


def _log2_small_batch(depth: int, tokens: float) -> int:
    """Below DEEP, as measured here: toy models want many small steps, and few tokens want them smaller still.

    A d3 that read 1.2 million tokens of web text was better by 0.066 bits per byte with steps of 2,048 than
    of 8,192, a d4 of 4.2 million by 0.017 with 4,096 (dev/LOG.md). The root is a guess.
    """
    if depth >= SMALL:
        return 17
    most = 13 if depth <= 4 else 15
    return min(most, 11 + max(0, round(0.5 * math.log2(tokens / 1.2e6))))


def lr_factor(depth: int, batch_tokens: int) -> float:
    """The factor on all learning rates: from DEEP on the root of the batch (arXiv 2205.10287).

    A batch of four times the size has a gradient of half the noise, which bears twice the step.
    """
    if depth < DEEP:
        return 1.0
    return (batch_tokens / REFERENCE_BATCH) ** 0.5


def weight_decay(steps: int, lr: float, ratio: float) -> float:
    """The decay with which a weight averages over the right part of the run (arXiv 2505.13738, AdamW's law).

    A step shrinks each weight by lr * decay, so an update is forgotten after about 1 / (lr * decay) steps. As
    a share of all steps that memory should be 1.084 * ratio^-0.527, `ratio` being tokens for each parameter:
    the longer a run, the smaller the part it may remember.
    """
    if lr == 0:
        return 0.0
    memory = 1.084 * ratio ** -0.527
    return 1 / (memory * lr * steps)


def adam_lr_scale(n_embd: int) -> float:
    """AdamW's learning rates go as 1 / sqrt(width): a wider layer sums more changes into each output."""
    return (n_embd / REFERENCE_WIDTH) ** -0.5


def adam_betas(depth: int, batch_tokens: int) -> tuple[float, float]:
    """How much AdamW's two averages keep in a step: of gradients, and of their squares.

    A word's row of the embedding gets a gradient only when the word occurs, so its history is measured in
    tokens, not in steps: half of it is forgotten after SQUARES_HALF_LIFE of them (arXiv 2507.07101), however
    few make a step. In steps of 2,048 tokens 0.95 would forget a rare word between two of its occurrences,
    and each would move it by a full step. Large batches keep 0.95, about 20 steps. Small models learn in few
    steps, and what an average of gradients recalls is soon out of date: dev/LOG.md has what was measured.
    """
    beta2 = max(0.95, 0.5 ** (batch_tokens / SQUARES_HALF_LIFE)) if batch_tokens else 0.95
    return (0.8 if depth >= DEEP else 0.6), beta2


# ---- schedules
def lr_scale(step: int, steps: int, warmdown_frac: float = 0.4, final: float = 0.0) -> float:
    """The factor on the learning rate in a step: flat, then linearly down to `final`.

    The flat part finds the valley, the way down settles into it. Unlike with a cosine the end need not be
    known until the warm-down begins (arXiv 2405.18392).
    """
    warmdown = round(warmdown_frac * steps)
    if step < steps - warmdown:
        return 1.0
    return final + (1 - final) * ((steps - step) / max(warmdown, 1))


def muon_momentum(step: int, steps: int) -> float:
    """0.85 rising to 0.95 over the first 300 steps, or a fifth of a shorter run: early gradients soon are out
    of date."""
    rise = max(1, min(300, steps // 5))
    return 0.85 + 0.10 * min(1.0, step / rise)


# ---- what it takes
def shards_needed(tokens: float) -> int:
    """How many shards of web text hold `tokens`, and one to spare."""
    return math.ceil(tokens / TOKENS_PER_SHARD) + 1


def disk_bytes(depth: int, vocab_size: int, tokens: float) -> float:
    """What a run puts on disk: shards as downloaded, the same as tokens of two bytes, checkpoints.

    There are four stages, each keeps three checkpoints, and one more is being written.
    """
    shards = (shards_needed(tokens) + 1) * 100e6  # the one for validation, too
    token_shards = 2 * tokens
    return shards + token_shards + (4 * 3 + 1) * checkpoint_bytes(depth, vocab_size)


def checkpoint_bytes(depth: int, vocab_size: int) -> int:
    """Of weights and optimizer state in float32, on disk and, until written, in the first rank's main memory.

    A matrix has one moment (Muon), embedding and head two each (AdamW), a table two as well.
    """
    matrices = 8 * matrix_params(depth)
    embedding_and_head = 24 * head_params(depth, vocab_size)
    tables = 12 * table_params(depth, vocab_size)
    return matrices + embedding_and_head + tables


def memory_bytes(depth: int, vocab_size: int, sequence_len: int, rows: int, world: int = 1, itemsize: int = 2,
                 tables: bool = True, recompute: bool = False) -> float:
    """What a device holds at the fullest moment of a step (fused attention and RMSNorm, not compiled).

    rows: sequences at a time on this device. itemsize: bytes of a weight and of an activation; embedding and
    tables have 4 always. Masters and optimizer state are shared by `world` devices, the rest each device has
    whole.
    """
    head = head_params(depth, vocab_size)
    matrices = matrix_params(depth)
    embedding = head
    if tables:
        embedding += table_params(depth, vocab_size)

    # All through the step: weights with their float32 gradients; float32 masters with one moment (Muon) or
    # two (AdamW).
    held = 0.0 + (itemsize + 4) * (matrices + head) + 8 * embedding
    held += (8 * matrices + 12 * (head + embedding)) / world
    if world > 1:  # this device's part of the summed gradient
        held += 4 * (matrices + head + embedding) / world

    # Then the fullest of three moments. At the start of the backward pass each layer has kept 18 numbers for
    # a token and channel, the ends of the model 13, and the head's gradient is computed. In the optimizer
    # Muon orthogonalises the largest group of matrices, a third of them, in some copies. A checkpoint is
    # gathered by such groups. With `recompute` layers have kept their input, and one has its numbers.
    kept = depth + 18 if recompute else 18 * depth
    activations = (kept + 13) * rows * sequence_len * model_shape(depth).n_embd * itemsize
    backward = activations + (8 + itemsize) * head
    optimizer = (8 + 3 * itemsize) * matrices / 3 / world
    saving = 4 * max(matrices / 3, head) if world > 1 else 0
    return held + max(backward, optimizer, saving)


def device_batch_size(depth: int, vocab_size: int, sequence_len: int, gib: float, world: int = 1,
                      tables: bool = True, itemsize: int = 2) -> int:
    """The most of ROWS that leave a tenth of a device's `gib` free; 0 where not even one fits."""
    most = 0
    for rows in ROWS:
        if memory_bytes(depth, vocab_size, sequence_len, rows, world, itemsize, tables) < 0.9 * gib * 2**30:
            most = rows
    return most


def rows_at_a_time(device_type: str, sequence_len: int, rows: int, asked: int = 0) -> int:
    """How many of a device's `rows` a step go through the model together: `asked`, else (0) equal parts.

    Up to 32 rows, on a CPU 2,048 tokens, where more was no faster (dev/LOG.md).
    """
    most = max(1, 2048 // sequence_len) if device_type == "cpu" else 32
    rows = max(rows, 1)
    return min(asked, rows) or equal_part(rows, most)


def equal_part(whole: int, most: int) -> int:
    """The largest number up to `most` that divides `whole`."""
    for part in range(min(whole, most), 1, -1):
        if whole % part == 0:
            return part
    return 1
