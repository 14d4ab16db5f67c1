"""
Do additions to the Transformer pay? Each is trained beside the plain model on the same real text for the same
wall clock: what a step of it costs is measured first, step by step in turn with the others, and a dearer
variant gets fewer steps.

    NANOCHAT_BASE_DIR=... python benchmarks/bench_architecture.py --depth=4 --seeds=0,1,2        climbmix, tokenizer trained
    ... --variants=plain,tables --steps=300

plain      the model without any offset     half of a head's channels find a token by the one before
(GPTConfig.key_offset) tables     a vector by token is added to attention's values in every second layer
(GPTConfig.value_tables) rateN      the tables' learning rate is N times the embedding's: rate0.1, rate3
scalars    before each layer x becomes a * x + b * x0, x0 being the embedding, both learned (modded-nanogpt's
U-net lambdas) windows    three layers of four see the last half of the context only (SSSL). By a mask, which
saves no time, so equal steps

Several are joined by a plus: offset+tables. Results are added to --results, one JSON line a training; the
table is made of all lines there with these settings.
"""

import json
import math
import re
import statistics
import sys
import time
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import torch
import torch.nn as nn

sys.path.insert(0, str(Path(__file__).parents[1]))

from nanochat import runtime, scaling
from nanochat.cli import option, parse  # noqa: E402
from nanochat.common import UsageError, append_jsonl, log, run, setup_logging  # noqa: E402
from nanochat.data.dataloader import StepBatches, TextRows, prepare_tokens  # noqa: E402
from nanochat.data.datasets import shards  # noqa: E402
from nanochat.data.tokenizer import Tokenizer  # noqa: E402
from nanochat.eval.bits_per_byte import bits_per_byte  # noqa: E402
from nanochat.model import gpt
from nanochat.model.attention import attention  # noqa: E402
from nanochat.model.gpt import GPT, GPTConfig  # noqa: E402
from nanochat.train import loop  # noqa: E402
from nanochat.train.recipe import weighted_cross_entropy  # noqa: E402

PARTS = r"plain|offset|tables|rate\d+(\.\d+)?|scalars|windows"
gpt_attention = gpt.attention


@dataclass
class Config:
    depth: int = option(4, "layers")
    variants: str = option(
        "plain,offset,tables,offset+tables,scalars,windows", "by comma; each is compared with plain"
    )
    seeds: str = option("0,1,2", "initial weights, by comma")
    steps: int = option(150, "optimizer steps of the plain model")
    sequence_len: int = option(512, "tokens a row")
    total_batch_size: int = option(8192, "tokens a step")
    device_batch_size: int = option(4, "rows at a time")
    rounds: int = option(11, "steps of each variant by which their cost is measured")
    val_rows: int = option(192, "rows of the validation shard")
    dataset: str = option("climbmix", "as base_train's")
    results: str = option("runs/architecture.jsonl", "file that results are added to")


class Variant(GPT):
    """With scalars or windows by hooks on the blocks; the other parts are the model's own."""

    def __init__(self, config, dtype, parts):
        super().__init__(config, dtype)
        if "scalars" in parts:
            self.scalars = nn.Parameter(torch.empty(config.n_layer, 2))
        for i, block in enumerate(self.blocks):
            if "scalars" in parts:
                block.register_forward_pre_hook(lambda block, args, i=i: self._rescale(i, *args))
            if "windows" in parts:
                attend = (
                    gpt_attention
                    if i % 4 == 3 or i == config.n_layer - 1
                    else windowed(config.sequence_len // 2)
                )
                block.register_forward_pre_hook(lambda *_, attend=attend: setattr(gpt, "attention", attend))

    def _rescale(self, layer, x, *others):
        self.x0 = x if layer == 0 else self.x0
        a, b = self.scalars[layer].to(x.dtype)
        return a * x + b * self.x0, *others

    @torch.no_grad()
    def init_weights(self, seed=0):
        super().init_weights(seed)
        if hasattr(self, "scalars"):
            self.scalars.copy_(torch.tensor([1.0, 0.0]).expand_as(self.scalars))

    def parameter_groups(self):
        groups = super().parameter_groups()
        scalars = [named for named in groups["matrix"] if named[0] == "scalars"]
        groups["matrix"] = groups["matrix"][
            len(scalars) :
        ]  # the model's own parameters come before its layers'
        return {**groups, "unembedding": groups["unembedding"] + scalars}


def windowed(window):
    """Attention to the last `window` keys, by a mask of all of them."""

    def attend(q, k, v, positions=None):
        if positions is not None:
            return attention(q, k, v, positions)
        T, scale = q.size(1), q.size(-1) ** -0.5
        ago = torch.arange(T)[:, None] - torch.arange(T)
        mask = torch.zeros(T, T, dtype=q.dtype).masked_fill_((ago < 0) | (ago >= window), float("-inf"))
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        return (torch.softmax(q * scale @ k.mT + mask, dim=-1) @ v).transpose(1, 2)

    return attend


class Training:
    """A variant, its optimizer and its place in the text."""

    def __init__(self, config, name, seed, steps, rows, vocab_size, rt):
        shape, parts = asdict(scaling.model_shape(config.depth)), name.split("+")
        model_config = GPTConfig(
            config.sequence_len,
            vocab_size,
            key_offset=0.5 if "offset" in parts else 0.0,
            value_tables="tables" in parts,
            **shape,
        )
        self.model = Variant(model_config, rt.dtype, parts)
        self.model.init_weights(seed)
        self.optimizer, self.rt, self.steps = loop.make_optimizer(self.model, rt), rt, steps
        rate = math.prod(float(part[4:]) for part in parts if part.startswith("rate"))
        for bucket in self.optimizer.buckets:
            if bucket.names[0].endswith("table.weight"):
                bucket.group = replace(bucket.group, lr=bucket.group.lr * rate)
        self.batches = iter(
            StepBatches(
                rows,
                config.total_batch_size // config.sequence_len,
                config.device_batch_size,
                seed=seed,
                shuffle=True,
            )
        )

    def step(self):
        """Seconds of the next step."""
        step, batches, *_ = next(self.batches)
        start = time.perf_counter()
        loop.train_step(
            partial(weighted_cross_entropy, self.model),
            self.optimizer,
            batches,
            self.rt,
            scaling.lr_scale(step, self.steps, warmdown_frac=0.4),
            scaling.muon_momentum(step, self.steps),
        )
        return time.perf_counter() - start


def costs(config, names, *given):
    """{name: seconds of a step over those of the plain model, median over rounds in which each takes one
    step}."""
    trainings = {name: Training(config, name, 0, 100, *given) for name in ("plain", *names)}
    times = [{name: t.step() for name, t in trainings.items()} for _ in range(config.rounds)][1:]
    return {name: statistics.median(t[name] / t["plain"] for t in times) for name in trainings}


def table(settings, results):
    found = [r for r in results if r["settings"] == settings]
    bpb = {(r["variant"], r["seed"]): r["val_bpb"] for r in found}
    print(
        f"\n| d{settings['depth']} | seeds | step / plain's | steps | bits per byte | less plain's, each seed |\n"
        "| --- | ---: | ---: | ---: | ---: | --- |"
    )
    for name in dict.fromkeys(r["variant"] for r in found):
        rows = [r for r in found if r["variant"] == name]
        differences = [
            f"{bpb[name, r['seed']] - bpb['plain', r['seed']]:+.4f}"
            for r in rows
            if ("plain", r["seed"]) in bpb
        ]
        print(
            f"| {name} | {len(rows)} | {statistics.mean(r['cost'] for r in rows):.2f} "
            f"| {', '.join(sorted({str(r['steps']) for r in rows}))} "
            f"| {statistics.mean(r['val_bpb'] for r in rows):.4f} | {', '.join(differences)} |",
            flush=True,
        )


def main(argv=None):
    config = parse(Config, argv, __doc__)
    rt = runtime.Runtime(dtype=runtime.init("cpu").dtype)
    setup_logging(0)
    tokenizer = Tokenizer.load()
    rows, val_rows = (
        TextRows(
            prepare_tokens(tokenizer, shards(config.dataset, split), config.dataset), config.sequence_len
        )
        for split in ("train", "val")
    )
    given, names = (rows, tokenizer.vocab_size, rt), config.variants.split(",")
    settings = {
        k: v for k, v in asdict(config).items() if k not in ("variants", "seeds", "rounds", "results")
    }
    if wrong := [part for name in names for part in name.split("+") if not re.fullmatch(PARTS, part)]:
        raise UsageError(
            f"--variants are made of plain, offset, tables, rateN, scalars and windows, got {wrong[0]!r}."
        )
    cost = costs(config, [n for n in names if n != "plain"], *given)
    log.info("a step costs, of the plain model's: " + ", ".join(f"{n} {c:.3f}" for n, c in cost.items()))
    for seed in map(int, config.seeds.split(",")):
        for name in names:
            steps = config.steps if "windows" in name else round(config.steps / cost[name])
            training = Training(config, name, seed, steps, *given)
            seconds = [training.step() for _ in range(steps)]
            bpb = bits_per_byte(
                training.model,
                val_rows,
                tokenizer.token_bytes(),
                config.device_batch_size,
                rt,
                config.val_rows,
            )
            append_jsonl(
                Path(config.results),
                {
                    "settings": settings,
                    "variant": name,
                    "seed": seed,
                    "steps": steps,
                    "cost": cost[name],
                    "seconds": sum(seconds),
                    "val_bpb": bpb,
                },
            )
            log.info(f"seed {seed}, {name}: {steps} steps, {sum(seconds):.0f} s, {bpb:.4f} bits per byte")
    table(
        settings, [json.loads(line) for line in Path(config.results).read_text(encoding="utf-8").splitlines()]
    )


if __name__ == "__main__":
    run(main)
