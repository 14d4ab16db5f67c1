"""
Measure what this machine makes of real training steps, from which scripts.plan makes a budget's recipe.

    python -m scripts.probe --hours=8
    torchrun --standalone --nproc_per_node=8 -m scripts.probe --hours=8

A small model first, then that which the recipe would take at the small one's speed; for each the rows that
fit and the time of whole steps (loop.train_step) on random tokens, so that no data need be here. Writes
probe.json into the base directory. Takes under a minute, and on CUDA what compiling takes.
"""
import os
import statistics
import time
from dataclasses import asdict, dataclass, replace
from types import SimpleNamespace
from typing import Any

import torch

from nanochat import budget, memory, runtime, scaling
from nanochat.budget import Machine
from nanochat.cli import at_least, option, parse
from nanochat.common import base_dir, log, run, setup_logging, write_json
from nanochat.data.dataloader import Batch
from nanochat.data.tokenizer import Tokenizer
from nanochat.infer.engine import Engine
from nanochat.model import fp8
from nanochat.model.gpt import GPT
from nanochat.runtime import Runtime
from nanochat.train import loop
from nanochat.train.recipe import architecture, weighted_cross_entropy

SMALL = 2
MOST_MICRO_STEPS = 4  # of a measured step: a longer one only repeats them
PROCESSES = 13  # of a run, each of which starts
CHAT_LEARNED = 0.5  # of a conversation's tokens: what the assistant says
TRAININGS = 3  # that compile: pretraining, midtraining, finetuning


@dataclass
class Config:
    hours: float = option(4.0, "the budget, by which the larger depth is chosen")
    dollars: float = option(0.0, "the same by price")
    seconds: float = option(8.0, "of steps for each depth, and of decoding")
    device: str = option("", "cuda, mps, xpu or cpu (default: the best there is)")

    def __post_init__(self) -> None:
        at_least(self, hours=0.01, dollars=0, seconds=0)


# ---- one depth
@dataclass
class Trial:
    """A new model of some depth, and what a step of it takes."""

    depth: int
    rt: Runtime

    def __post_init__(self) -> None:
        self.vocab_size = budget.vocab_size(self.depth)
        self.context = budget.sequence_len(self.depth)
        config = architecture(self.depth, self.vocab_size, self.context)
        self.model = GPT(config, self.rt.dtype).to(self.rt.device)
        self.model.init_weights(0)
        self.optimizer = loop.make_optimizer(self.model, self.rt)

    def batch(self, rows: int, learned: float = 1.0) -> Batch:
        """Random tokens, of which this share is learned."""
        tokens = torch.randint(0, self.vocab_size, (rows, self.context))
        weight = (torch.rand(rows, self.context) < learned).float()
        return Batch(tokens, tokens, weight, float(weight.numel()), list(range(rows)))

    def rows_that_fit(self, rows: int) -> int:
        """`rows`, halved until no rank's memory runs out in a step; 0 where one row does not fit."""
        while rows:
            fits = True
            try:
                weighted_cross_entropy(self.model, self.batch(rows).to(self.rt.device)).backward()
            except (RuntimeError, MemoryError) as error:
                if not memory.ran_out(error):
                    raise
                fits = False
            self.optimizer.zero_grad()
            if all(runtime.all_gather_object(self.rt, fits)):
                return rows
            rows //= 2
        return 0

    def tokens_per_s(self, rows: int, micro_steps: int, seconds: float, learned: float = 1.0) -> float:
        """Of all devices together, by about so many seconds of whole steps, at least two."""
        batches = [self.batch(rows, learned) for _ in range(micro_steps)]
        stage: Any = SimpleNamespace(loss=weighted_cross_entropy, compile=True)
        loss_of = loop.loss_function(stage, self.model, self.optimizer, self.rt, batches[0])
        taken: list[float] = []  # seconds a step
        going_on = True
        while going_on:
            start = time.monotonic()
            loop.train_step(loss_of, self.optimizer, batches, self.rt, lr_scale=0.0, momentum=0.9)
            taken.append(time.monotonic() - start)
            enough = len(taken) > 2 and sum(taken[1:]) > seconds
            going_on = not runtime.broadcast_object(self.rt, enough)
        # The first also warmed up. The median, since others may compute for a moment.
        tokens = micro_steps * rows * self.context * self.rt.world_size
        return tokens / statistics.median(taken[1:])

    def decoded_per_s(self, seconds: float) -> float:
        """Tokens that one device decodes, 64 replies at a time."""
        engine = Engine(self.model.eval().requires_grad_(False), Tokenizer.train(["a text"], 300))
        prompts = torch.randint(0, 256, (64, 32)).tolist()
        engine.generate(prompts, max_new_tokens=2)  # compiles
        start = time.monotonic()
        n_tokens = 1
        while n_tokens == 1 or time.monotonic() - start < seconds:
            for reply in engine.generate(prompts, max_new_tokens=32):
                n_tokens += 1 + len(reply.ids)
        return n_tokens / (time.monotonic() - start)


# ---- the machine
def unmeasured(rt: Runtime) -> Machine:
    """What can be known without a step: name, memory, price."""
    kind = scaling.GPUS.get(scaling.gpu_named(rt.device_name) or rt.device.type, scaling.GPU(0, 0, 0))
    name = rt.device_name if rt.device.type == "cuda" else rt.device.type
    kind = replace(kind, gib=runtime.memory_gib(rt))
    return Machine(name, rt.world_size, kind, speeds=[], decoding=0.5, starting_s=0.0,
                   cores=os.cpu_count() or 1, known_by="measured here")


def measured(machine: Machine, depth: int, config: Config, rt: Runtime) -> Machine:
    """The machine, with its speed at this depth; with less memory where fewer rows fit than planned.

    Every rank must call; rank 0's word counts, or clocks that differ would make them choose other depths.
    """
    wanted = budget.of_depth(replace(machine, speeds=machine.speeds or [(1.0, 1e12)]), 100.0, depth)
    trial = Trial(depth, rt)
    if wanted.fp8:
        fp8.convert(trial.model)
    rows = trial.rows_that_fit(max(1, wanted.rows))
    kind = machine.kind
    if rows < wanted.rows:
        needed = scaling.memory_bytes(depth, trial.vocab_size, trial.context, max(1, rows), rt.world_size)
        kind = replace(kind, gib=min(kind.gib, needed / 0.89 / 2**30))
    micro_steps = wanted.batch_tokens // (max(1, rows) * trial.context * rt.world_size)
    begun = time.monotonic()
    rate = trial.tokens_per_s(max(1, rows), min(max(1, micro_steps), MOST_MICRO_STEPS), config.seconds)
    compiling_s = max(0.0, time.monotonic() - begun - config.seconds) if rt.device.type == "cuda" else 0.0
    flops = scaling.flops_per_token(depth, trial.vocab_size, trial.context)
    short_step = 1.0
    if depth < scaling.SMALL:
        short_rows = max(1, budget.SHORT_BATCH // (trial.context * rt.world_size))
        each = min(short_rows, max(1, rows))
        short_step = rate / trial.tokens_per_s(each, short_rows // each, config.seconds / 2, CHAT_LEARNED)
    decoding = trial.decoded_per_s(config.seconds / 2) * rt.world_size / rate
    log.info(f"d{depth} trains on {rate:,.0f} tokens/s, {rows} rows at a time; a token of a short step takes "
             f"{short_step:.2f} of that; decodes {decoding:.2f} times")
    found = replace(machine, kind=kind, speeds=sorted([*machine.speeds, (flops, flops * rate)]),
                    decoding=decoding, short_step=short_step, starting_s=TRAININGS * compiling_s)
    return runtime.broadcast_object(rt, found)


def main(argv: list[str] | None = None) -> None:
    import psutil  # here, as on Linux it cannot be imported everywhere

    config = parse(Config, argv, __doc__)
    rt = runtime.init(config.device)
    setup_logging(rt.rank)
    begun = psutil.Process().create_time()
    start_s = time.time() - begun
    machine = measured(runtime.broadcast_object(rt, unmeasured(rt)), SMALL, config, rt)
    hours = budget.hours_for(config.dollars, machine) if config.dollars else config.hours
    larger = budget.recipe(machine, hours).depth
    if larger != SMALL:
        machine = measured(machine, larger, config, rt)
    starting_s = machine.starting_s + PROCESSES * start_s + time.time() - begun
    machine = replace(machine, starting_s=starting_s)
    if rt.rank == 0:
        write_json(base_dir() / "probe.json", asdict(machine))
        log.info(f"all stages take about {starting_s:.0f} s to start; in {base_dir() / 'probe.json'}")
    runtime.close(rt)


if __name__ == "__main__":
    run(main)
