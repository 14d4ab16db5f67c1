"""
How fast CORE is evaluated on this machine, beside the reference that reads one option of one example at a
time.

    python benchmarks/bench_eval.py                             16 examples of each of the 22 tasks, three times
    python benchmarks/bench_eval.py --items=4 --runs=1          a quick look
    python benchmarks/bench_eval.py --only=hellaswag --dtype=bf16 --sequence_len=1024
    python benchmarks/bench_eval.py --whole                     then time all of CORE at 500 examples a task

Both score the same rendered examples with the same random model, in turns; rendering (tokenizing) is counted
for both. A rate is the median of the runs, between the slowest and the fastest. The tokenizer is trained on
the bundle's own texts, which makes prompts a little shorter than another would. Needs the evaluation bundle.
"""

import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from nanochat import runtime, scaling
from nanochat.cli import option, parse  # noqa: E402
from nanochat.common import MissingArtifact, UsageError, base_dir, run  # noqa: E402
from nanochat.data.tokenizer import Tokenizer  # noqa: E402
from nanochat.eval import bundle, core_eval, prompts, scoring  # noqa: E402
from nanochat.eval import statistics as stats  # noqa: E402
from nanochat.model.gpt import GPT, GPTConfig  # noqa: E402

PER_TASK = 500  # examples a task of the whole that is timed or extrapolated to


@dataclass
class Config:
    items: int = option(16, "examples of each task, a fixed random sample")
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
@torch.inference_mode()
def alone(model, span):
    """(mean log-likelihood, exact greedy match, likeliest tokens) by a plain forward."""
    ids = torch.tensor(span.ids, device=model.device)
    logits, asked = model(ids[None, :-1])[0, span.start - 1 :], ids[span.start :]
    likeliest = logits.argmax(-1)
    return scoring.SpanScore(
        -F.cross_entropy(logits, asked).item(), likeliest.equal(asked), likeliest.tolist()
    )


def timed(task, examples, numbers, tokenizer, model, score):
    """(seconds, items, results) of rendering and scoring the examples of these numbers."""
    start = time.perf_counter()
    items = [
        prompts.render_item(task, examples, i, tokenizer, model.config.sequence_len + 1) for i in numbers
    ]
    results = score(items)
    return time.perf_counter() - start, items, results


def measure(task, config, tokenizer, model):
    """{"kind", "n", "of", "fast", "slow", "worst", "other"}: seconds of each run, and how the results
    differ."""
    examples = bundle.read_examples(task.path)
    numbers = stats.subset(len(examples), config.items, 7)
    fast, slow = [], []
    for i in range(config.runs + 1):  # the first one warms up
        part = numbers[:2] if i == 0 else numbers
        quick = timed(
            task,
            examples,
            part,
            tokenizer,
            model,
            lambda items: scoring.score_items(model, items, config.batch_tokens),
        )
        plain = timed(
            task,
            examples,
            part,
            tokenizer,
            model,
            lambda items: [[alone(model, span) for span in item.spans] for item in items],
        )
        if i:
            fast.append(quick[0])
            slow.append(plain[0])
    pairs = [(task, item, a, b) for item, a, b in zip(quick[1], quick[2], plain[2])]
    return {
        "kind": task.kind,
        "n": len(numbers),
        "of": min(PER_TASK, len(examples)),
        "fast": fast,
        "slow": slow,
        "worst": max(abs(x[0] - y[0]) for _, _, a, b in pairs for x, y in zip(a, b)),
        "other": sum(
            core_eval.is_right(t, item, a) != core_eval.is_right(t, item, b) for t, item, a, b in pairs
        ),
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
        f"{max(f['worst'] for f in found):.0e} | {sum(f['other'] for f in found)} |",
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
    tokenizer = make_tokenizer(tasks, config.vocab_size)
    model = make_model(config, tokenizer.vocab_size, rt.device)
    print(
        f"d{config.depth}, T={config.sequence_len}, V={tokenizer.vocab_size}, {config.dtype}, {rt.device_name}, "
        f"torch {torch.__version__}; {config.runs} runs: median (least to most), examples/s\n"
    )
    print("| task | examples | reference | fast | ratio | largest difference | other verdicts |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |", flush=True)
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
