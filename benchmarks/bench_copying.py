"""
Does a small model learn to copy from its context, and how soon? Words of random tokens, said twice: the
second time is predictable by whoever finds the first one. Nothing else in this text can be learned.

    python benchmarks/bench_copying.py                       d4 with and without offset keys, about four minutes
    python benchmarks/bench_copying.py --depth=6 --steps=60

Prints the loss on the repeated halves in nats a token (guessing costs ln(vocabulary)), after every 15 steps
of 4,096 tokens with the optimizer and the learning rates of pretraining. Lists have 5 to 20 tokens, so the
distance varies: what is learned is content, not position.
"""

import math
import random
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from nanochat import runtime, scaling
from nanochat.cli import option, parse  # noqa: E402
from nanochat.common import run  # noqa: E402
from nanochat.data.dataloader import Batch  # noqa: E402
from nanochat.model.gpt import GPT, Attention, GPTConfig  # noqa: E402
from nanochat.train import loop  # noqa: E402
from nanochat.train.recipe import weighted_cross_entropy  # noqa: E402

OPEN, REPEAT = 0, 1  # the tokens before a list and before its repetition
EVERY = 15


@dataclass
class Config:
    depth: int = option(4, "layers")
    vocab_size: int = option(2048, "different tokens")
    sequence_len: int = option(256, "tokens a row; lists fill it")
    rows: int = option(16, "rows a step")
    steps: int = option(60, "training steps of each variant")
    seeds: int = option(1, "runs of each variant")


def lists(rng, config):
    """(tokens (B, T+1) int64, repeated (B, T+1) float32, 1 where a token can be copied)."""
    tokens, repeated = [], []
    for _ in range(config.rows):
        row, marks = [], []
        while len(row) <= config.sequence_len:
            words = [rng.randrange(2, config.vocab_size) for _ in range(rng.randint(5, 20))]
            row += [OPEN, *words, REPEAT, *words]
            marks += [0] * (len(words) + 3) + [1] * (len(words) - 1)  # the first repeated word can't be known
        tokens.append(row[: config.sequence_len + 1])
        repeated.append(marks[: config.sequence_len + 1])
    return torch.tensor(tokens), torch.tensor(repeated, dtype=torch.float32)


def curve(config, key_offset, match, seed):
    """Nats a copied token after every EVERY steps."""
    rt, keep = runtime.Runtime(dtype=runtime.init("cpu").dtype), Attention.match_keys
    shape = vars(scaling.model_shape(config.depth))
    model = GPT(GPTConfig(config.sequence_len, config.vocab_size, key_offset=key_offset, **shape), rt.dtype)
    if not match:
        Attention.match_keys = lambda self: None
    model.init_weights(seed)
    Attention.match_keys = keep
    optimizer, rng, losses = loop.make_optimizer(model, rt), random.Random(seed), []
    for step in range(config.steps):
        tokens, repeated = lists(rng, config)
        inputs, targets = tokens[:, :-1], tokens[:, 1:]
        weight = torch.ones(inputs.shape)
        loop.train_step(
            partial(weighted_cross_entropy, model),
            optimizer,
            [Batch(inputs, targets, weight, float(weight.sum()), [0])],
            rt,
            1.0,
            scaling.muon_momentum(step, config.steps),
        )
        if (step + 1) % EVERY == 0:
            nll = model.token_nll(inputs, targets) * repeated[:, 1:]
            losses.append((nll.sum() / repeated[:, 1:].sum()).item())
    return losses


def main(argv=None):
    config = parse(Config, argv, __doc__)
    print(
        f"d{config.depth}, vocabulary {config.vocab_size:,} (guessing: {math.log(config.vocab_size):.2f} nats), "
        f"{config.rows} rows of {config.sequence_len} a step, {config.seeds} seed(s)\n"
    )
    steps = range(EVERY, config.steps + 1, EVERY)
    print(
        "| keys | " + " | ".join(f"step {step}" for step in steps) + " |\n| --- |" + " ---: |" * len(steps),
        flush=True,
    )
    for name, key_offset, match in (
        ("rotary, as by default", 0.0, True),
        ("half of them offset, random at first", 0.5, False),
        ("half of them offset, at first equal to the queries", 0.5, True),
    ):
        runs = [curve(config, key_offset, match, seed) for seed in range(config.seeds)]
        print(f"| {name} | " + " | ".join(f"{sum(at) / len(at):.2f}" for at in zip(*runs)) + " |", flush=True)


if __name__ == "__main__":
    run(main)
