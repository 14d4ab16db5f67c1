r"""
What one GPU reaches in training, attention and decoding, beside transformers: tables for dev/LEADERBOARD.md.

    python benchmarks/gpu.py                                        d12, d20, d26: about 25 minutes on an H200
    python benchmarks/gpu.py --quick                                five minutes: d12 alone
    python benchmarks/gpu.py --parts=decode --depths=20             a part of it
    python benchmarks/gpu.py --device=cpu --depths=2 --sequence_len=64 --vocab_size=256 --rows=2 \
        --compiler=aot_eager                                        all of it on a CPU, in a toy's size

Every line is measured in a process of its own and printed at once; one that fails says why and the next goes
on. The model is the recipe's of that depth with the largest device batch that scaling.py plans for this GPU's
memory (halved, and said, where that was too much), random tokens, random weights. A training step is
`loop.train_step` with its accumulation, tokens/s the median of the steps after two that warm up (least to
most). MFU counts the FLOPs of GPT.flops_per_token against the data sheet's peak. Memory is the most that
torch held, beside what was planned. Decoding is greedy, through the whole engine, from prompts of 64 tokens;
its share of bandwidth is that of the weights and keys and values it must read, against a sum over a large
array. The peer is transformers' NanoChatForCausalLM of the same shape in bf16, with AdamW (fused), where
installed.
"""
import itertools
import json
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import torch

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import bench_infer  # noqa: E402
import bench_train  # noqa: E402
from gpu_tables import TrainCells, attention_cells, candidates, decode_cells, with_peer  # noqa: E402

from nanochat import runtime, scaling
from nanochat.cli import option, parse  # noqa: E402
from nanochat.common import NanochatError, run  # noqa: E402
from nanochat.data.dataloader import Batch  # noqa: E402
from nanochat.infer.engine import Engine  # noqa: E402
from nanochat.model import attention, fp8
from nanochat.model.gpt import GPT  # noqa: E402
from nanochat.train import loop  # noqa: E402
from nanochat.train.recipe import architecture, weighted_cross_entropy  # noqa: E402

PROMPT = 64  # tokens read before decoding
NEW = 128  # tokens decoded
PARTS = ("attention", "train", "decode")


@dataclass
class Config:
    parts: str = option(",".join(PARTS), "what to measure")
    depths: str = option("12,20,26", "joined by commas; decoding takes those up to 20, kernels the first")
    quick: bool = option(False, "the first depth, fewer candidates")
    sequence_len: int = option(2048, "tokens a row")
    vocab_size: int = option(32768, "tokens")
    rows: int = option(0, "a micro-batch (0: the most that is planned to fit)")
    accumulate: int = option(4, "micro-batches a step")
    steps: int = option(5, "timed, of each candidate")
    batches: str = option("1,8,32", "conversations decoded together, joined by commas")
    only: str = option("", "candidates whose name contains this")
    device: str = option("", "cuda or cpu (default: the best there is)")
    compiler: str = option("inductor", "torch.compile's backend; aot_eager tries all this out without a GPU")
    timeout_s: int = option(400, "after which a line is given up")
    one: str = option("", "measure this line in this process and print JSON; used by the benchmark itself")

    def model(self, depth):
        return architecture(depth, self.vocab_size, self.sequence_len)


# ------------------------------------------------------------------------------------------------ the machine
def _sync(rt):
    torch.get_device_module(rt.device).synchronize()


def clock(rt, work):
    """Seconds of work()."""
    _sync(rt)
    start = time.perf_counter()
    work()
    _sync(rt)
    return time.perf_counter() - start


def read_bandwidth(rt, megabytes):
    """Bytes/s of a sum over an array, the best of ten."""
    array = torch.ones(megabytes << 18, device=rt.device)
    return array.numel() * 4 / min(clock(rt, array.sum) for _ in range(10))


def machine(config, rt):
    """What this device is and what it can do at most: FLOP/s of a large product, bytes/s of reading."""
    on_gpu = rt.device.type == "cuda"
    versions = torch.__version__
    if on_gpu:
        versions += f", CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"
    return {"device": rt.device_name, "torch": versions, "dtype": str(rt.dtype).removeprefix("torch."),
            "matmul": bench_train.matmul_peak(rt.device, rt.dtype, n=8192 if on_gpu else 512),
            "bandwidth": read_bandwidth(rt, 4096 if on_gpu else 64), "peak": rt.peak_flops}


def memory_gib(rt):
    if rt.device.type == "cuda":
        return torch.cuda.get_device_properties(rt.device).total_memory / 2**30
    return 1.0


# -------------------------------------------------------------------------------------------------- attention
def kernels(config, rt, depth):
    """Seconds and FLOP/s of each attention kernel's forward and backward at a depth's shape."""
    shape = config.model(depth)
    rows = planned_rows(config, rt, depth)
    # Seven products of T x T x D a head, two forward and five backward (the scores are made anew), of 2 FLOPs
    # a multiplication and addition; the causal half of each.
    flops = 7 * rows * shape.n_head * shape.sequence_len ** 2 * shape.head_dim
    tried = {**attention.CUDA_KERNELS, "sdpa": attention.sdpa}
    works = {}
    refused = []
    for name, seconds in attention.measure(rt.device, rt.dtype, rows, shape, tried).items():
        if seconds == float("inf"):
            refused.append(name)
        else:
            works[name] = [seconds, flops / seconds]
    sizes = [rows, shape.sequence_len, shape.n_head, shape.head_dim]
    return {"shape": sizes, "kernels": works, "refused": refused}


# --------------------------------------------------------------------------------------------------- training
def planned_rows(config, rt, depth):
    """Rows of a micro-batch: the flag's, or the most that scaling.py plans for this device's memory."""
    planned = scaling.device_batch_size(depth, config.vocab_size, config.sequence_len, memory_gib(rt))
    return config.rows or planned or 1


def random_batches(config, rows):
    """The micro-batches of a step, of random tokens that all count."""
    T = config.sequence_len
    rows_of_step = config.accumulate * rows
    tokens = torch.from_numpy(bench_train.RandomRows(rows_of_step, T, config.vocab_size).tokens)
    batches = []
    for part in tokens.split(rows):
        inputs = part[:, :-1].contiguous()
        targets = part[:, 1:].contiguous()
        batches.append(Batch(inputs, targets, torch.ones(rows, T), float(rows_of_step * T), [0]))
    return batches


def ours(config, rt, depth, rows, how, extra=""):
    """
    (step(), attention's name, the optimizer's part of a step alone).
    extra: fp8, or the kernel that attention must take.
    """
    kernel = {name: run for name, run in attention.CUDA_KERNELS.items() if name == extra}
    chosen = attention.pick_fastest(rt.device, rt.dtype, rows, config.model(depth), kernel or None)
    if kernel and not chosen.startswith(extra):
        raise NanochatError(f"{extra} attention refuses this shape here")
    model = GPT(config.model(depth), rt.dtype).to(rt.device)
    model.init_weights()
    if extra == "fp8":
        fp8.convert(model)
    optimizer = loop.make_optimizer(model, rt)
    micro = random_batches(config, rows)
    loop.COMPILED_ON = (rt.device.type,)
    loop.COMPILE["backend"] = config.compiler
    loss_of = loop.loss_function(SimpleNamespace(compile=how == "compiled", loss=weighted_cross_entropy), model, optimizer, rt, micro[0])
    if how == "compiled" and isinstance(loss_of, partial):
        raise NanochatError("not compiled, for the reason above")

    def update():
        optimizer.reduce()
        optimizer.step(0.0)

    def step():
        loop.train_step(loss_of, optimizer, micro, rt, 1.0, 0.95)
    return step, chosen.split(" (")[0], update


def transformers(config, rt, depth, rows, how):
    """The same of transformers' model, with torch's AdamW."""
    model, loss_of = bench_train.transformers_peer((depth, config.sequence_len, config.vocab_size))
    model = model.to(rt.device, rt.dtype).train()
    if how == "compiled":
        model = torch.compile(model, backend=config.compiler)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    tokens = []
    for batch in random_batches(config, rows):
        tokens.append(torch.cat((batch.inputs, batch.targets[:, -1:]), 1).to(rt.device))

    def update():
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def step():
        for x in tokens:
            (loss_of(model, x) / len(tokens)).backward()
        update()
    return step, "sdpa", update


def training(config, rt, depth, name, *how):
    """The figures of one candidate at the planned rows, or where memory runs out at half as many."""
    make = {"nanochat": ours, "transformers": transformers}[name]
    planned = planned_rows(config, rt, depth)
    rows = planned
    while rows:
        try:
            return {**_training(config, rt, depth, make, rows, how), "planned_rows": planned}
        except torch.OutOfMemoryError:
            rows //= 2
        torch.cuda.empty_cache()
    raise NanochatError("not even one row fits")


def _training(config, rt, depth, make, rows, how):
    if rt.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    step, kernel, update = make(config, rt, depth, rows, *how)
    clock(rt, step)
    clock(rt, step)
    ready = time.perf_counter() - start
    times = [clock(rt, step) for _ in range(config.steps)]
    held = 0
    if rt.device.type == "cuda":
        held = torch.cuda.max_memory_allocated()
    tokens = config.accumulate * rows * config.sequence_len
    shape = (depth, config.vocab_size, config.sequence_len)
    return {"rows": rows, "kernel": kernel, "ready_s": ready, "held": held, "peak": rt.peak_flops,
            "tok_per_s": sorted(tokens / seconds for seconds in times),
            "planned": scaling.memory_bytes(*shape, rows, itemsize=rt.dtype.itemsize),
            "update": clock(rt, update) / statistics.median(times),
            "flops": scaling.flops_per_token(*shape)}


# --------------------------------------------------------------------------------------------------- decoding
class Ours(bench_infer.Ours):
    """Answers of the engine on a device."""

    def __init__(self, config, rt, depth):
        model = GPT(config.model(depth), rt.dtype).to(rt.device)
        model.init_weights()
        self.engine = Engine(model.eval().requires_grad_(False), bench_infer.NoText(config.vocab_size))
        groups = model.parameter_groups()
        self.bytes = sum(p.numel() for _, p in groups["matrix"] + groups["unembedding"]) * rt.dtype.itemsize


class Transformers(bench_infer.Transformers):
    """Answers of transformers' generate on a device."""

    def __init__(self, config, rt, depth):
        super().__init__((depth, config.sequence_len, config.vocab_size), rt.dtype)
        self.model = self.model.to(rt.device)
        self.device = rt.device

    @torch.inference_mode()
    def generate(self, rows, new):
        idx = torch.tensor(rows, device=self.device)
        everything = torch.ones_like(idx)
        out = self.model.generate(idx, attention_mask=everything, max_new_tokens=new, do_sample=False)
        assert out.shape[1] == idx.shape[1] + new, f"{out.shape[1] - idx.shape[1]} tokens, not {new}"


def decoding(config, rt, depth, name):
    """Tokens/s read and written, and the share of bandwidth, by batch size."""
    bandwidth = read_bandwidth(rt, 4096 if rt.device.type == "cuda" else 64)
    candidate = {"nanochat": Ours, "transformers": Transformers}[name](config, rt, depth)
    shape = config.model(depth)
    prompt = min(PROMPT, shape.sequence_len // 4)
    new = min(NEW, shape.sequence_len // 2)
    seeds = itertools.count()  # no prompt comes twice: its keys and values would be found in the prefix cache

    def timed(n, length, new):
        """Median seconds of reading n prompts of `length` tokens and writing `new` after each."""
        times = []
        for _ in range(3):
            rows = bench_infer.prompts(n, length, shape.vocab_size, next(seeds))
            times.append(clock(rt, partial(candidate.generate, rows, new)))
        return statistics.median(times)

    found = {"prefill": {}, "decode": {}, "share": {}}
    for n in map(int, config.batches.split(",")):
        candidate.prepare(n)
        timed(n, prompt, 3)  # warms up
        step = (timed(n, prompt, new) - timed(n, prompt, 1)) / (new - 1)
        # Keys and values of all layers, at the mean length of these conversations; the weights once for all.
        positions = n * (prompt + new / 2)
        cache = 2 * shape.n_layer * shape.n_kv_head * shape.head_dim * positions * rt.dtype.itemsize
        found["decode"][n] = n / step
        found["share"][n] = (candidate.bytes + cache) / step / bandwidth
    for n in (1, 8):
        candidate.prepare(n)
        length = shape.sequence_len - 8
        found["prefill"][n] = n * length / timed(n, length, 1)
    return found


# ----------------------------------------------------------------------------------------------------- report
MEASURES = {"machine": machine, "attention": kernels, "train": training, "decode": decoding}


def measure(config):
    """What the process of one line prints: a dict of its figures. A line is `part depth words...`."""
    part, *words = config.one.split()
    arguments = [int(word) if word.isdigit() else word for word in words]
    return MEASURES[part](config, runtime.init(config.device), *arguments)


def launch(config, words):
    """The figures of one line from a process of its own, or why there are none."""
    flags = []
    for name, value in asdict(config).items():
        if name not in ("one", "quick", "parts", "only"):
            flags.append(f"--{name}={value}")
    command = [sys.executable, __file__, f"--one={words}", *flags]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=config.timeout_s)
    except subprocess.TimeoutExpired:
        return f"took more than {config.timeout_s} s"
    if done.returncode:
        return " / ".join(done.stderr.strip().splitlines()[-2:])[-300:] or f"ended with {done.returncode}"
    return json.loads(done.stdout.strip().splitlines()[-1])


def table(config, title, heads, names, part, cells):
    """Print a line for each of `names` whose figures `cells` turns into text."""
    print(f"\n{title}\n\n| {' | '.join(heads)} |\n|{' --- |' * len(heads)}", flush=True)
    for name in names:
        if config.only in name:
            found = launch(config, f"{part} {name}")
            if isinstance(found, str):
                made = [f"failed: {found}".replace("|", "/")]
            else:
                made = cells(name, found)
            print(f"| {' | '.join([name, *made])} |", flush=True)


def report(config):
    """Measure what the flags ask for and print a table for each part."""
    depths = [int(depth) for depth in config.depths.split(",")]
    if config.quick:
        depths = depths[:1]
    found = launch(config, "machine")
    if isinstance(found, str):
        raise NanochatError(f"this device cannot be measured: {found}")
    now = datetime.now().strftime("%Y-%m-%d %H:%M")
    peak = f"{found['peak'] / 1e12:.0f} TFLOP/s by its data sheet" if found["peak"] else "unknown peak"
    print(f"{now}, {found['device']} ({peak}), torch {found['torch']}: a large product makes "
          f"{found['matmul'] / 1e12:.3g} TFLOP/s in {found['dtype']}, memory reads "
          f"{found['bandwidth'] / 1e9:,.0f} GB/s")
    if "attention" in config.parts:
        table(config, "Attention, forward and backward", ["depth", "B x T x H x D", "kernels", "refused"],
              map(str, depths), "attention", attention_cells)
    if "train" in config.parts:
        title = (f"Training: rows of {config.sequence_len}, vocabulary {config.vocab_size:,}, "
                 f"{config.accumulate} micro-batches a step, median of {config.steps} steps")
        heads = ["depth, candidate", "rows", "attention", "tokens/s", "first line / this", "MFU",
                 "GiB held / planned", "optimizer", "ready after s"]
        table(config, title, heads, candidates(depths, config), "train", TrainCells())
    if "decode" in config.parts:
        title = (f"Decoding {NEW} tokens after {PROMPT}, conversations together: {config.batches}; "
                 "prefill of 1 and of 8 prompts")
        heads = ["depth, candidate", "prefill tokens/s", "decode tokens/s", "share of bandwidth"]
        lines = []
        for depth in depths:
            if depth <= 20:
                lines.append(f"{depth} nanochat")
                if with_peer() and not config.quick:
                    lines.append(f"{depth} transformers")
        table(config, title, heads, lines, "decode", decode_cells)


def main(argv=None):
    config = parse(Config, argv, __doc__)
    if config.one:
        print(json.dumps(measure(config)))
    else:
        report(config)


if __name__ == "__main__":
    run(main)
