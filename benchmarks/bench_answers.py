"""
What the faster ways of decoding cost in answers: every skill of the kindergarten, plain, with --int8 and in
float32.

    python benchmarks/bench_answers.py -i rl                wants a trained chat model of the kindergarten; about a minute each

Greedy replies to the same questions; a difference is paired, question by question, with its 95 % interval.
"""

import functools
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from nanochat import runtime
from nanochat.cli import option, parse  # noqa: E402
from nanochat.common import run  # noqa: E402
from nanochat.eval import chat_eval, records  # noqa: E402
from nanochat.infer.engine import Engine  # noqa: E402
from nanochat.tasks import TASKS, in_group  # noqa: E402
from nanochat.train import checkpoint  # noqa: E402


@dataclass
class Config(checkpoint.ModelFlags):
    stage: str = option("rl", "which model", choices=["mid", "sft", "rl"], short="i")
    max_problems: int = option(200, "questions a skill")


def answers(config, rt, int8=False):
    """The records of all skills."""
    model, tokenizer, _ = checkpoint.load_model(config.stage, rt, config.tag, config.step)
    chat_eval.Engine = functools.partial(Engine, int8=int8)
    options = chat_eval.Options(max_problems=config.max_problems)
    tasks = [TASKS[name].make("test") for name in in_group("kindergarten")]
    return [record for task in tasks for record in chat_eval.run_task(task, model, tokenizer, rt, options)[1]]


def main(argv=None):
    config = parse(Config, argv, __doc__)
    rt = runtime.init(config.device)
    whole = answers(config, rt)
    wide = runtime.Runtime(**{**vars(rt), "dtype": torch.float32})
    print(f"{len(whole):,} questions, {config.stage}\n\n| decoding | right | less plain | the same reply |")
    print("| --- | ---: | ---: | ---: |", flush=True)
    for name, found in (
        (f"plain, {rt.dtype}", whole),
        ("float32", answers(config, wide)),
        ("--int8", answers(config, rt, int8=True)),
    ):
        _, before, right, half = records.paired(whole, found)
        same = sum(a["replies"] == b["replies"] for a, b in zip(whole, found)) / len(found)
        print(f"| {name} | {right:.2%} | {right - before:+.2%} +- {half:.2%} | {same:.1%} |", flush=True)


if __name__ == "__main__":
    run(main)
