"""
Does the fast path learn as well as the plain one? The same model, data and steps, once as in training (bf16
where the machine has it, attention in blocks, normalisation by hand, fused loss, stacked Muon, our AdamW) and
once written out with torch alone (float32, scaled_dot_product_attention, cross-entropy over all logits,
torch.optim.Muon with its neurons evened out, and torch.optim.AdamW).

    python benchmarks/bench_reference.py                     d4, 3 seeds, 40 steps

Prints the mean loss of the last quarter of the steps for each seed and both paths: the difference between the
paths has to be small beside the spread between the seeds.
"""

import statistics
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).parents[1]))

from nanochat import runtime, scaling
from nanochat.cli import option, parse  # noqa: E402
from nanochat.common import run  # noqa: E402
from nanochat.data.dataloader import Batch  # noqa: E402
from nanochat.data.tokenizer import Tokenizer  # noqa: E402
from nanochat.kindergarten import documents  # noqa: E402
from nanochat.model import attention, elementwise, gpt
from nanochat.model.gpt import GPT, GPTConfig  # noqa: E402
from nanochat.train import loop  # noqa: E402
from nanochat.train.recipe import weighted_cross_entropy  # noqa: E402

MOMENTUM = 0.95


@dataclass
class Config:
    depth: int = option(4, "layers")
    sequence_len: int = option(256, "tokens a row")
    rows: int = option(16, "rows a step")
    steps: int = option(40, "steps of each run")
    seeds: int = option(3, "runs of each path")
    vocab_size: int = option(2048, "tokens")


def token_stream(config):
    """The tokens of all runs, enough for every step of every seed to be new."""
    texts = list(documents(6000))
    tokenizer, ids = Tokenizer.train(texts[:2000], config.vocab_size), []
    for text in texts:
        ids += [tokenizer.bos_id, *tokenizer.encode(text)]
    return np.array(ids), tokenizer.vocab_size


def batch(stream, config, seed, step):
    """(inputs, targets) (B, T) of one step; a seed draws its own rows."""
    starts = np.random.RandomState(1000 * seed + step).randint(
        0, len(stream) - config.sequence_len - 1, config.rows
    )
    rows = torch.from_numpy(np.stack([stream[s : s + config.sequence_len + 1] for s in starts]))
    return rows[:, :-1].contiguous(), rows[:, 1:].contiguous()


def fast(model, dtype):
    """step(inputs, targets, lr factor) -> loss, as training does it."""
    rt = runtime.Runtime(dtype=dtype)
    optimizer = loop.make_optimizer(model, rt)

    def step(inputs, targets, factor):
        micro = Batch(inputs, targets, torch.ones(inputs.shape), float(inputs.numel()), [0])
        return loop.train_step(partial(weighted_cross_entropy, model), optimizer, [micro], rt, factor, MOMENTUM)[0]

    return step


class EvenMuon(torch.optim.Muon):
    """torch's Muon, each of whose updates is evened out over the neurons (NorMuon, arXiv 2510.05491)."""

    @torch.no_grad()
    def step(self):
        [group] = self.param_groups
        before = [p.clone() for p in group["params"]]
        super().step()
        for p, old in zip(group["params"], before):
            update = (old - p) / group["lr"]
            inputs = 1 if p.size(0) >= p.size(1) else 0
            squares = self.state[p].setdefault("squares", torch.zeros(()))
            self.state[p]["squares"] = squares = squares.lerp(update.square().mean(inputs, keepdim=True), 0.05)
            even = update / (squares + 1e-10).sqrt()
            p.copy_(old - group["lr"] * even * update.norm() / (even.norm() + 1e-20))


def plain(model):
    """The same step in torch's own words."""
    groups, adam = model.parameter_groups(), scaling.adam_lr_scale(model.config.n_embd)
    only = {kind: [p for _, p in named] for kind, named in groups.items()}
    muon = EvenMuon(only["matrix"], lr=0.02, momentum=MOMENTUM, weight_decay=0.0, nesterov=True)
    rest = [
        {"params": only["embedding"], "lr": 0.3 * adam},
        {"params": only["unembedding"], "lr": 0.004 * adam},
    ]
    adamw = torch.optim.AdamW(rest, betas=(0.8, 0.95), eps=1e-10, weight_decay=0.0)
    bases = [(group, group["lr"]) for optimizer in (muon, adamw) for group in optimizer.param_groups]

    def step(inputs, targets, factor):
        value = F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())
        value.backward()
        for group, lr in bases:
            group["lr"] = lr * factor
        for optimizer in (muon, adamw):
            optimizer.step()
            optimizer.zero_grad()
        return value.item()

    return step


def _choose(path):
    """Let the model's layers take the fast operations, or the references beside them."""
    quick = path == "fast"
    gpt.attention = attention.attention if quick else attention.sdpa
    gpt.norm = elementwise.norm if quick else elementwise.plain_norm
    gpt.rotate_norm = elementwise.rotate_norm if quick else elementwise.plain_rotate_norm


def last_quarter(config, stream, vocab_size, seed, path, dtype):
    """Mean loss over the last quarter of a run."""
    shape = vars(scaling.model_shape(config.depth))
    model = GPT(
        GPTConfig(config.sequence_len, vocab_size, **shape), dtype if path == "fast" else torch.float32
    )
    model.init_weights(seed)
    _choose(path)
    step, losses = fast(model, dtype) if path == "fast" else plain(model), []
    for at in range(config.steps):
        losses.append(step(*batch(stream, config, seed, at), scaling.lr_scale(at, config.steps)))
    return statistics.mean(losses[-(config.steps // 4) :])


def main(argv=None):
    config = parse(Config, argv, __doc__)
    dtype = runtime.init("cpu").dtype
    stream, vocab_size = token_stream(config)
    print(
        f"d{config.depth}, T={config.sequence_len}, V={vocab_size}, {config.steps} steps of "
        f"{config.rows * config.sequence_len:,} tokens; fast in {str(dtype).removeprefix('torch.')}, plain in float32\n"
    )
    print("| seed | fast | plain | difference |\n| --- | ---: | ---: | ---: |")
    pairs = []
    for seed in range(config.seeds):
        pairs.append(
            [last_quarter(config, stream, vocab_size, seed, path, dtype) for path in ("fast", "plain")]
        )
        print(
            f"| {seed} | {pairs[-1][0]:.4f} | {pairs[-1][1]:.4f} | {pairs[-1][0] - pairs[-1][1]:+.4f} |",
            flush=True,
        )
    differences = [a - b for a, b in pairs]
    spread = statistics.stdev(b for _, b in pairs) if len(pairs) > 1 else 0.0
    print(
        f"\nmean difference {statistics.mean(differences):+.4f}; between seeds of the plain path: {spread:.4f}"
    )


if __name__ == "__main__":
    run(main)
