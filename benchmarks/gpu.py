"""
What one GPU reaches: training, each attention kernel, decoding, beside transformers. Tables for dev/LEADERBOARD.md.

    python benchmarks/gpu.py                                        d12, d20, d26: about 25 minutes on an H200
    python benchmarks/gpu.py --quick                                five minutes: d12 alone
    python benchmarks/gpu.py --parts=decode --depths=20             a part of it
    python benchmarks/gpu.py --device=cpu --depths=2 --sequence_len=64 --vocab_size=256 --rows=2 --compiler=aot_eager

Every line is measured in a process of its own and printed at once; one that fails says why and the next goes on. The model
is the recipe's of that depth with the largest device batch that scaling.py plans for this GPU's memory (halved, and said,
where that was too much), random tokens, random weights. A training step is `loop.train_step` with its accumulation, tokens/s
the median of the steps after two that warm up (least to most). MFU counts the FLOPs of GPT.flops_per_token against the data
sheet's peak. Memory is the most that torch held, beside what was planned. Decoding is greedy, through the whole engine, from
prompts of 64 tokens; its share of bandwidth is that of the weights and keys and values it must read, against a sum over a
large array. The peer is transformers' NanoChatForCausalLM of the same shape in bf16, with AdamW (fused), where installed.
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
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import torch

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import bench_infer  # noqa: E402
import bench_train  # noqa: E402

from nanochat import runtime, scaling
from nanochat.cli import option, parse  # noqa: E402
from nanochat.common import NanochatError, run  # noqa: E402
from nanochat.data.dataloader import Batch  # noqa: E402
from nanochat.infer.engine import Engine  # noqa: E402
from nanochat.model import attention, fp8
from nanochat.model.gpt import GPT, GPTConfig  # noqa: E402
from nanochat.train import loop  # noqa: E402
from nanochat.train.recipe import weighted_cross_entropy  # noqa: E402

PROMPT, NEW = 64, 128
PARTS = ("attention", "train", "decode")


@dataclass
class Config:
    parts: str = option(",".join(PARTS), "what to measure")
    depths: str = option("12,20,26", "joined by commas; decoding takes those up to 20, single kernels are trained at the first")
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
        return GPTConfig(self.sequence_len, self.vocab_size, key_offset=0.5, value_tables=True,
                         **asdict(scaling.model_shape(depth)))


# ---------------------------------------------------------------------------------------------------------- the machine
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
    on_gpu = rt.device.type == "cuda"
    versions = f", CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}" if on_gpu else ""
    return {"device": rt.device_name, "torch": torch.__version__ + versions, "dtype": str(rt.dtype).removeprefix("torch."),
            "matmul": bench_train.matmul_peak(rt.device, rt.dtype, n=8192 if on_gpu else 512),
            "bandwidth": read_bandwidth(rt, 4096 if on_gpu else 64), "peak": rt.peak_flops}


def memory_gib(rt):
    return torch.cuda.get_device_properties(rt.device).total_memory / 2**30 if rt.device.type == "cuda" else 1.0


# ------------------------------------------------------------------------------------------------------------ attention
def kernels(config, rt, depth):
    """Milliseconds and FLOP/s of each kernel's forward and backward at a depth's shape: 7 halves of the square's products."""
    c, rows = config.model(depth), planned_rows(config, rt, depth)
    flops = 7 * rows * c.n_head * c.sequence_len ** 2 * c.head_dim
    found = attention.probe(rt.device, rt.dtype, rows, c, {**attention.KERNELS, "sdpa": attention.sdpa})
    return {"shape": [rows, c.sequence_len, c.n_head, c.head_dim],
            "kernels": {name: [s, flops / s] for name, s in found.items() if s < float("inf")},
            "refused": [name for name, s in found.items() if s == float("inf")]}


# ------------------------------------------------------------------------------------------------------------- training
def planned_rows(config, rt, depth):
    return config.rows or scaling.device_batch_size(depth, config.vocab_size, config.sequence_len, memory_gib(rt)) or 1


def random_batches(config, rows):
    tokens = torch.from_numpy(bench_train.RandomRows(config.accumulate * rows, config.sequence_len, config.vocab_size).tokens)
    return [Batch(t[:, :-1].contiguous(), t[:, 1:].contiguous(), torch.ones(rows, config.sequence_len),
                  float(config.accumulate * rows * config.sequence_len), [0]) for t in tokens.split(rows)]


def ours(config, rt, depth, rows, how, extra=""):
    """(step(), attention's name, the optimizer's part of a step alone); extra: fp8, or the kernel that attention must take."""
    kernel = {name: run for name, run in attention.KERNELS.items() if name == extra}
    chosen = attention.choose(rt.device, rt.dtype, rows, config.model(depth), kernel or None)
    if kernel and not chosen.startswith(extra):
        raise NanochatError(f"{extra} attention refuses this shape here")
    model = GPT(config.model(depth), rt.dtype).to(rt.device)
    model.init_weights()
    if extra == "fp8":
        fp8.convert(model)
    optimizer, micro = loop.make_optimizer(model, rt), random_batches(config, rows)
    loop.COMPILED_ON, loop.COMPILE["backend"] = (rt.device.type,), config.compiler
    loss_of = loop.loss_function(SimpleNamespace(compile=how == "compiled", loss=weighted_cross_entropy), model, optimizer, rt, micro[0])
    if how == "compiled" and isinstance(loss_of, partial):
        raise NanochatError("not compiled, for the reason above")

    def update():
        optimizer.reduce()
        optimizer.step(0.0)
    return lambda: loop.train_step(loss_of, optimizer, micro, rt, 1.0, 0.95), chosen.split(" (")[0], update


def transformers(config, rt, depth, rows, how):
    model, loss_of = bench_train._transformers((depth, config.sequence_len, config.vocab_size))
    model = model.to(rt.device, rt.dtype).train()
    model = torch.compile(model, backend=config.compiler) if how == "compiled" else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    tokens = [torch.cat((batch.inputs, batch.targets[:, -1:]), 1).to(rt.device) for batch in random_batches(config, rows)]

    def update():
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def step():
        for x in tokens:
            (loss_of(model, x) / len(tokens)).backward()
        update()
    return step, "sdpa", update


def training(config, rt, depth, name, *how):
    """The figures of one candidate at the planned rows, or where memory runs out at half of them, and so on."""
    make = {"nanochat": ours, "transformers": transformers}[name]
    rows = planned = planned_rows(config, rt, depth)
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
    ready, times = time.perf_counter() - start, [clock(rt, step) for _ in range(config.steps)]
    tokens, held = config.accumulate * rows * config.sequence_len, 0
    if rt.device.type == "cuda":
        held = torch.cuda.max_memory_allocated()
    return {"rows": rows, "kernel": kernel, "ready_s": ready, "tok_per_s": sorted(tokens / t for t in times), "held": held,
            "planned": scaling.memory_bytes(depth, config.vocab_size, config.sequence_len, rows, itemsize=rt.dtype.itemsize),
            "update": clock(rt, update) / statistics.median(times),
            "flops": scaling.flops_per_token(depth, config.vocab_size, config.sequence_len), "peak": rt.peak_flops}


# ------------------------------------------------------------------------------------------------------------- decoding
class Ours(bench_infer.Ours):
    """Answers of the engine on a device."""

    def __init__(self, config, rt, depth):
        model = GPT(config.model(depth), rt.dtype).to(rt.device)
        model.init_weights()
        self.engine = Engine(model.eval().requires_grad_(False), bench_infer.NoText(config.vocab_size))
        groups = model.parameter_groups()
        self.bytes = sum(p.numel() for _, p in groups["matrix"] + groups["unembedding"]) * rt.dtype.itemsize


class Transformers(bench_infer.Transformers):
    def __init__(self, config, rt, depth):
        super().__init__((depth, config.sequence_len, config.vocab_size), rt.dtype)
        self.model, self.device = self.model.to(rt.device), rt.device

    @torch.inference_mode()
    def generate(self, rows, new):
        idx = torch.tensor(rows, device=self.device)
        out = self.model.generate(idx, attention_mask=torch.ones_like(idx), max_new_tokens=new, do_sample=False)
        assert out.shape[1] == idx.shape[1] + new, f"{out.shape[1] - idx.shape[1]} tokens, not {new}"


def decoding(config, rt, depth, name):
    """Tokens/s read and written, and the share of bandwidth, by batch size."""
    bandwidth, seeds = read_bandwidth(rt, 4096 if rt.device.type == "cuda" else 64), itertools.count()
    candidate = {"nanochat": Ours, "transformers": Transformers}[name](config, rt, depth)
    c, found = config.model(depth), {"prefill": {}, "decode": {}, "share": {}}
    prompt, new = min(PROMPT, c.sequence_len // 4), min(NEW, c.sequence_len // 2)

    def timed(n, length, new):
        return statistics.median(clock(rt, lambda: candidate.generate(
            bench_infer.prompts(n, length, c.vocab_size, next(seeds)), new)) for _ in range(3))
    for n in map(int, config.batches.split(",")):
        candidate.prepare(n)
        timed(n, prompt, 3)
        step = (timed(n, prompt, new) - timed(n, prompt, 1)) / (new - 1)
        cache = 2 * c.n_layer * c.n_kv_head * c.head_dim * n * (prompt + new / 2) * rt.dtype.itemsize
        found["decode"][n], found["share"][n] = n / step, (candidate.bytes + cache) / step / bandwidth
    for n in (1, 8):
        candidate.prepare(n)
        length = c.sequence_len - 8
        found["prefill"][n] = n * length / timed(n, length, 1)
    return found


# --------------------------------------------------------------------------------------------------------------- report
MEASURES = {"machine": machine, "attention": kernels, "train": training, "decode": decoding}


def measure(config):
    """What the process of one line prints: a dict of its figures."""
    part, *words = config.one.split()
    return MEASURES[part](config, runtime.init(config.device), *(int(w) if w.isdigit() else w for w in words))


def launch(config, words):
    """The figures of one line from a process of its own, or why there are none."""
    flags = [f"--{name}={value}" for name, value in asdict(config).items() if name not in ("one", "quick", "parts", "only")]
    try:
        done = subprocess.run([sys.executable, __file__, f"--one={words}", *flags], capture_output=True, text=True,
                              timeout=config.timeout_s)
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
            made = [f"failed: {found}".replace("|", "/")] if isinstance(found, str) else cells(name, found)
            print(f"| {' | '.join([name, *made])} |", flush=True)


def attention_cells(name, found):
    each = ", ".join(f"{kernel} {s * 1e3:.2f} ms ({flops / 1e12:.3g} TFLOP/s)" for kernel, (s, flops) in
                     sorted(found["kernels"].items(), key=lambda pair: pair[1][0]))
    return [" x ".join(map(str, found["shape"])), each, ", ".join(found["refused"]) or "none"]


class TrainCells:
    """Text of a candidate's figures; the first of a depth is what others are compared with."""

    def __init__(self):
        self.first = {}

    def __call__(self, name, f):
        middle, (low, high) = statistics.median(f["tok_per_s"]), (f["tok_per_s"][0], f["tok_per_s"][-1])
        base = self.first.setdefault(name.split()[0], middle)
        mfu = f"{f['flops'] * middle / f['peak']:.1%}" if f["peak"] else "unknown peak"
        rows = f"{f['rows']}" if f["rows"] == f["planned_rows"] else f"{f['rows']} (planned: {f['planned_rows']})"
        held = f"{f['held'] / 2**30:.1f}" if f["held"] else "not counted"
        return [rows, f["kernel"], f"{middle:,.0f} ({low:,.0f} to {high:,.0f})", f"{base / middle:.2f}", mfu,
                f"{held} / {f['planned'] / 2**30:.1f}", f"{f['update']:.1%}", f"{f['ready_s']:.0f}"]


def decode_cells(name, f):
    return [", ".join(f"{x:,.0f}" for x in f["prefill"].values()), ", ".join(f"{x:,.0f}" for x in f["decode"].values()),
            ", ".join(f"{x:.0%}" for x in f["share"].values())]


def candidates(depths, config):
    peers = find_spec("transformers") is not None
    for depth in depths:
        yield from (f"{depth} nanochat {how}" for how in ("compiled", "eager", "compiled fp8"))
        if depth == depths[0] and not config.quick:
            yield from (f"{depth} nanochat compiled {kernel}" for kernel in attention.KERNELS)
        if peers:
            yield from (f"{depth} transformers {how}" for how in ("eager", "compiled")[:1 if config.quick else 2])


def report(config):
    depths = [int(depth) for depth in config.depths.split(",")][:1 if config.quick else None]
    found, now = launch(config, "machine"), datetime.now().strftime("%Y-%m-%d %H:%M")
    if isinstance(found, str):
        raise NanochatError(f"this device cannot be measured: {found}")
    peak = f"{found['peak'] / 1e12:.0f} TFLOP/s by its data sheet" if found["peak"] else "unknown peak"
    print(f"{now}, {found['device']} ({peak}), torch {found['torch']}: a large product makes {found['matmul'] / 1e12:.3g} "
          f"TFLOP/s in {found['dtype']}, memory reads {found['bandwidth'] / 1e9:,.0f} GB/s")
    if "attention" in config.parts:
        table(config, "Attention, forward and backward", ["depth", "B x T x H x D", "kernels", "refused"], map(str, depths),
              "attention", attention_cells)
    if "train" in config.parts:
        table(config, f"Training: rows of {config.sequence_len}, vocabulary {config.vocab_size:,}, {config.accumulate} "
              f"micro-batches a step, median of {config.steps} steps",
              ["depth, candidate", "rows", "attention", "tokens/s", "first line / this", "MFU", "GiB held / planned",
               "optimizer", "ready after s"], candidates(depths, config), "train", TrainCells())
    if "decode" in config.parts:
        names = ["nanochat"] + ["transformers"] * (find_spec("transformers") is not None and not config.quick)
        table(config, f"Decoding {NEW} tokens after {PROMPT}, conversations together: {config.batches}; prefill of 1 and of 8 "
              "prompts", ["depth, candidate", "prefill tokens/s", "decode tokens/s", "share of bandwidth"],
              [f"{depth} {name}" for depth in depths if depth <= 20 for name in names], "decode", decode_cells)


def main(argv=None):
    config = parse(Config, argv, __doc__)
    if config.one:
        print(json.dumps(measure(config)))
    else:
        report(config)


if __name__ == "__main__":
    run(main)
