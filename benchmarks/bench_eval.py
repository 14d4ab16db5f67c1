"""
How fast CORE is evaluated on this machine, beside the reference that asks one option of one example at a time
(tests/core_reference.py), and on how many verdicts the two agree.

    python benchmarks/bench_eval.py                             16 examples of each of the 22 tasks, three times
    python benchmarks/bench_eval.py --items=4 --runs=1          a quick look
    python benchmarks/bench_eval.py --trained --items=40 --runs=1    verdicts of the newest base model
    python benchmarks/bench_eval.py --only=hellaswag --dtype=bf16 --sequence_len=1024
    python benchmarks/bench_eval.py --whole                     then time all of CORE at 500 examples a task

Both ask the same model the same questions, in turns. By default it is a random one, with a tokenizer trained on
the bundle's own texts, which makes prompts a little shorter than another would. A rate is the median of the
runs, between the slowest and the fastest. Needs the evaluation bundle.
"""

import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import core_reference  # noqa: E402

from nanochat import runtime, scaling
from nanochat.cli import option, parse  # noqa: E402
from nanochat.common import MissingArtifact, UsageError, base_dir, run  # noqa: E402
from nanochat.data.tokenizer import Tokenizer  # noqa: E402
from nanochat.eval import bundle, core_eval, prompts, scoring  # noqa: E402
from nanochat.model.gpt import GPT, GPTConfig  # noqa: E402
from nanochat.train.checkpoint import load_model  # noqa: E402

PER_TASK = 500  # examples a task of the whole that is timed or extrapolated to


@dataclass
class Config:
    items: int = option(16, "examples of each task, a fixed random sample")
    trained: bool = option(False, "ask the newest base model; depth, context, vocabulary, dtype are its own")
    runs: int = option(3, "timed runs")
    depth: int = option(4, "layers of the model")
    sequence_len: int = option(512, "tokens of its context")
    vocab_size: int = option(4096, "tokens of its vocabulary")
    dtype: str = option("fp32", "to compute in", choices=list(runtime.DTYPES))
    batch_tokens: int = option(0, "computed in a batch of the fast path; 0 as scripts.base_eval has it")
    only: str = option("", "tasks whose label contains this")
    whole: bool = option(
        False, f"time all tasks at {PER_TASK} examples each instead of extrapolating to them"
    )
    device: str = option("", "cuda or cpu; empty: the best there is")

    def __post_init__(self):
        if min(self.items, self.runs, self.batch_tokens + 1) < 1:
            raise UsageError("--items and --runs want 1 or more, --batch_tokens 0 or more.")


# ------------------------------------------------------------------------------------------------- the models
def make_tokenizer(tasks, vocab_size):
    """A tokenizer trained on the first texts of each task."""
    texts = [
        " ".join(map(str, example.values()))
        for task in tasks
        for example in bundle.read_examples(task.path)[:300]
    ]
    return Tokenizer.train(texts, vocab_size)


def make_model(config, vocab_size, device):
    """A random model, none of its matrices zero, so that equal results mean something."""
    shape = GPTConfig(
        config.sequence_len, vocab_size, **vars(scaling.model_shape(config.depth)), key_offset=0.5
    )
    model, generator = GPT(shape, runtime.DTYPES[config.dtype]), torch.Generator().manual_seed(1)
    model.init_weights()
    with torch.no_grad():
        for p in model.parameters():
            p.add_((torch.randn(p.shape, generator=generator) * 0.02).to(p.dtype))
    return model.to(device).requires_grad_(False).eval()


# ----------------------------------------------------------------------------------------------------- timing
def quick_verdicts(task, examples, tokenizer, model, batch_tokens):
    """Whether the model answers each example rightly, as scripts.base_eval asks."""
    room = model.config.sequence_len
    items = [prompts.render_item(task, examples, i, tokenizer, room) for i in range(len(examples))]
    scores = scoring.score_items(model, items, batch_tokens)
    return [core_eval.is_right(task, item, found) for item, found in zip(items, scores)]


def plain_verdicts(task, examples, tokenizer, model):
    """The same by the reference."""
    return [core_reference.verdict(task, examples, i, tokenizer, model) for i in range(len(examples))]


def measure(task, config, tokenizer, model):
    """{"kind", "n", "of", "fast", "slow", "other"}: seconds of each run, and how many verdicts differ."""
    examples = bundle.read_examples(task.path, config.items)
    assert examples == core_reference.questions(task.path, config.items)
    quick_verdicts(task, examples[:2], tokenizer, model, config.batch_tokens)  # warms up
    fast, slow = [], []
    for _ in range(config.runs):
        start = time.perf_counter()
        quick = quick_verdicts(task, examples, tokenizer, model, config.batch_tokens)
        middle = time.perf_counter()
        plain = plain_verdicts(task, examples, tokenizer, model)
        fast.append(middle - start)
        slow.append(time.perf_counter() - middle)
    return {
        "kind": task.kind,
        "n": len(examples),
        "of": min(PER_TASK, len(bundle.read_examples(task.path))),
        "fast": fast,
        "slow": slow,
        "other": sum(a != b for a, b in zip(quick, plain)),
    }


def time_whole(tasks, config, tokenizer, model, rt):
    """Seconds that CORE takes at `PER_TASK` examples a task."""
    start = time.perf_counter()
    for task in tasks:
        core_eval.run_core_task(
            task, model, tokenizer, rt, max_items=PER_TASK, batch_tokens=config.batch_tokens
        )
    return time.perf_counter() - start


# ----------------------------------------------------------------------------------------------------- report
def rate(found, key):
    """'12.3 (11.9 to 12.6)': examples a second over these tasks together."""
    rates = [sum(f["n"] for f in found) / sum(seconds) for seconds in zip(*(f[key] for f in found))]
    return f"{statistics.median(rates):,.1f} ({min(rates):,.1f} to {max(rates):,.1f})"


def line(name, found):
    """One row of the table: these tasks together."""
    slow, fast = ([sum(seconds) for seconds in zip(*(f[key] for f in found))] for key in ("slow", "fast"))
    ratios = [s / f for s, f in zip(slow, fast)]
    print(
        f"| {name} | {sum(f['n'] for f in found)} | {rate(found, 'slow')} | {rate(found, 'fast')} | "
        f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) | "
        f"{sum(f['other'] for f in found)} |",
        flush=True,
    )


def main(argv=None):
    config = parse(Config, argv, __doc__)
    folder = base_dir() / "eval_bundle"
    if not folder.exists():
        raise MissingArtifact("the evaluation bundle", folder, "python -m scripts.base_eval --download")
    rt = runtime.init(config.device)
    tasks = [task for task in bundle.load_bundle(folder) if config.only in task.label]
    if not tasks:
        raise UsageError(f"--only={config.only}: no task is called so.")
    if config.trained:
        model, tokenizer, _ = load_model("base", rt)
    else:
        tokenizer = make_tokenizer(tasks, config.vocab_size)
        model = make_model(config, tokenizer.vocab_size, rt.device)
    shape = model.config
    print(
        f"d{shape.n_layer}, T={shape.sequence_len}, V={tokenizer.vocab_size}, {model.dtype}, {rt.device_name}, "
        f"torch {torch.__version__}; {config.runs} runs: median (least to most), examples/s\n"
    )
    print("| task | examples | reference | fast | ratio | other verdicts |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |", flush=True)
    found = []
    for task in tasks:
        found.append(measure(task, config, tokenizer, model))
        line(task.label, found[-1:])
    for kind in sorted({f["kind"] for f in found}):
        line(f"**{kind}**", [f for f in found if f["kind"] == kind])
    line(f"**all {len(found)}**", found)
    guess = {
        key: sum(statistics.median(f[key]) / f["n"] * f["of"] for f in found) for key in ("slow", "fast")
    }
    print(
        f"\nat {PER_TASK} examples a task ({sum(f['of'] for f in found):,} in all), extrapolated from these: "
        f"{guess['fast']:,.0f} s, the reference {guess['slow']:,.0f} s",
        flush=True,
    )
    if config.whole:
        print(f"timed: {time_whole(tasks, config, tokenizer, model, rt):,.0f} s")


if __name__ == "__main__":
    run(main)
