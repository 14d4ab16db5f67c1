"""
How fast a training step is on this machine, where its time goes, and how that compares with others' code.

    python benchmarks/bench_train.py                                ours at two shapes
    python benchmarks/bench_train.py --peers                        beside transformers and litgpt
    python benchmarks/bench_train.py --shapes=d4 --runs=3

Every candidate runs in a process of its own, one after another, on the same shape, the same batch of the same
tokens and the same threads (how many rows it takes at a time is its own business: ours as in training); just
before each, a 2048-cube product in bf16, or in fp32 where that is faster, says what the machine can do at
that moment. A figure is the median of the timed steps, with the quartiles beside it. Peers: transformers'
NanoChatForCausalLM, the same architecture, and litgpt's GPT where it is installed, both with
torch.optim.AdamW (fused), and where they are compiled by torch.compile with its defaults. `pip install
transformers litgpt` into the same environment first.
"""

import resource
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import candidates  # noqa: E402

from nanochat import runtime, scaling
from nanochat.cli import option, parse  # noqa: E402
from nanochat.common import run  # noqa: E402
from nanochat.data.dataloader import StepBatches  # noqa: E402
from nanochat.model.gpt import GPT, GPTConfig  # noqa: E402
from nanochat.train import loop  # noqa: E402

SHAPES = {"d4": (4, 256, 4096), "d8": (8, 512, 8192), "d12": (12, 1024, 32768)}  # depth, sequence_len, vocab
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
OURS = ["nanochat bf16", "nanochat fp32"]
PEERS = [
    f"{peer} {dtype} {how}"
    for peer in ("transformers", "litgpt")
    for dtype in DTYPES
    for how in ("eager", "compiled")
]


@dataclass
class Config:
    shapes: str = option("d4,d8", f"of {', '.join(SHAPES)}, joined by commas")
    tokens: int = option(8192, "in a step")
    runs: int = option(5, "timed steps of each candidate")
    peers: bool = option(False, "measure the peers too: minutes each, most of it compiling")
    only: str = option("", "candidates whose name contains one of these, joined by commas")
    device: str = option("", "cuda or cpu (default: the best there is)")
    one: str = option("", "measure this candidate in this process and print JSON; for the benchmark itself")


class RandomRows:
    """Rows of random tokens with the counts of full rows, read like those of a dataset."""

    def __init__(self, n, sequence_len, vocab_size):
        self.tokens = np.random.RandomState(0).randint(0, vocab_size, (n, sequence_len + 1))
        self.counts = np.full(n, float(sequence_len))

    def __len__(self):
        return len(self.tokens)

    def row(self, i):
        return self.tokens[i].astype(np.int64), np.ones(self.tokens.shape[1] - 1, np.float32)


# ----------------------------------------------------------------------------------------------------- timing
def _sync(device):
    if device.type == "cuda":
        torch.cuda.synchronize()


def matmul_peak(device, dtype=None, n=2048, seconds=1.5):
    """FLOP/s of an n-cube matrix product, the best within `seconds`; the faster dtype if none is given."""
    if dtype is None:
        dtype = max(DTYPES.values(), key=lambda one: matmul_peak(device, one, 256, 0.1))
    left = torch.randn(n, n, device=device).to(dtype)
    right = torch.randn(n, n, device=device).to(dtype)
    best = 0.0
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        _sync(device)
        start = time.perf_counter()
        torch.mm(left, right)
        _sync(device)
        best = max(best, 2 * n**3 / (time.perf_counter() - start))
    return best


class Clock:
    """Adds up the seconds of named parts of a step."""

    def __init__(self, device):
        self.device = device
        self.parts = {}
        self.last = 0.0

    def start(self):
        _sync(self.device)
        self.last = time.perf_counter()

    def lap(self, part):
        _sync(self.device)
        now = time.perf_counter()
        self.parts[part] = self.parts.get(part, 0.0) + now - self.last
        self.last = now


# ------------------------------------------------------------------------------------------------- candidates
def ours(shape, tokens, dtype, rt):
    """(step, FLOPs a token): step(clock) is one whole training step of this project, its parts timed."""
    depth, T, V = shape
    model = GPT(GPTConfig(T, V, **vars(scaling.model_shape(depth))), dtype).to(rt.device)
    model.init_weights()
    optimizer = loop.make_optimizer(model, rt)
    at_a_time = scaling.rows_at_a_time(rt.device.type, T, tokens // T)
    batches = iter(StepBatches(RandomRows(4 * tokens // T, T, V), tokens // T, at_a_time))

    def step(clock):
        clock.start()
        _, micro = next(batches)
        clock.lap("data")
        for batch in micro:
            batch = batch.to(rt.device)
            loss = model.loss(batch.inputs, batch.targets, batch.weight) / batch.count
            clock.lap("forward")
            loss.backward()
            clock.lap("backward")
        optimizer.reduce()
        optimizer.step(1.0, 0.95)
        clock.lap("optimizer")

    return step, model.flops_per_token()


def peer(name, how, shape, tokens, dtype, device):
    """step(clock): one whole training step of a peer's model with torch's AdamW."""
    model, loss_of = {"transformers": transformers_peer, "litgpt": litgpt_peer}[name](shape)
    model = model.to(device=device, dtype=dtype).train()
    if how == "compiled":
        model = torch.compile(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    _, T, V = shape
    x = torch.from_numpy(RandomRows(tokens // T, T, V).tokens).to(device)

    def step(clock):
        clock.start()
        loss = loss_of(model, x)
        clock.lap("forward")
        loss.backward()
        clock.lap("backward")
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        clock.lap("optimizer")

    return step


def transformers_peer(shape):
    """(model, loss of tokens (B, T + 1))."""

    def loss_of(model, x):
        return model(x[:, :-1], labels=x[:, :-1], shift_labels=x[:, 1:].contiguous()).loss

    return candidates.transformers_model(shape, use_cache=False), loss_of


def litgpt_peer(shape):
    """(model, loss of tokens (B, T + 1))."""
    from litgpt import GPT as LitGPT
    from litgpt import Config as LitConfig

    depth, T, V = shape
    size = scaling.model_shape(depth)
    config = LitConfig(
        block_size=T,
        vocab_size=V,
        padded_vocab_size=V,
        n_layer=depth,
        n_head=size.n_head,
        n_embd=size.n_embd,
        n_query_groups=size.n_kv_head,
        rotary_percentage=1.0,
        parallel_residual=False,
        bias=False,
        norm_class_name="RMSNorm",
        mlp_class_name="GptNeoxMLP",
        intermediate_size=4 * size.n_embd,
    )

    def loss_of(model, x):
        logits = model(x[:, :-1]).float()
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1), x[:, 1:].flatten())

    return LitGPT(config), loss_of


def measure(config):
    """What the process of one candidate prints: a dict of its figures."""
    name, dtype_name, *how = config.one.split()
    shape = SHAPES[config.shapes]
    dtype = DTYPES[dtype_name]
    flops = None
    if name == "nanochat":
        rt = runtime.init(config.device)
    else:
        rt = runtime.Runtime(device=torch.device(config.device or "cpu"))
    peak = matmul_peak(rt.device)
    before = _memory(rt.device)
    if name == "nanochat":
        step, flops = ours(shape, config.tokens, dtype, rt)
    else:
        step = peer(name, how[0], shape, config.tokens, dtype, rt.device)

    start = time.perf_counter()
    for _ in range(2):  # compiled, and every buffer there
        step(Clock(rt.device))
    ready = time.perf_counter() - start

    clocks = []
    for _ in range(config.runs):
        clock = Clock(rt.device)
        step(clock)
        clocks.append(clock)
    times = [sum(clock.parts.values()) for clock in clocks]
    parts = {}
    for part in clocks[0].parts:
        parts[part] = sum(clock.parts[part] for clock in clocks) / sum(times)
    speeds = sorted(config.tokens / seconds for seconds in times)
    return {
        "tok_per_s": speeds,
        "ready_s": ready,
        "peak": peak,
        "parts": parts,
        "flops_per_token": flops,
        "memory": _memory(rt.device) - before,
    }


def _memory(device):
    """The most bytes held so far: of the device, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


# ----------------------------------------------------------------------------------------------------- report
def quartiles(values):
    """(median, lower, upper)."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4)
    return middle, low, high


def compare(config, shape):
    """Measure every candidate at one shape and print a table with a line for each."""
    depth, T, V = SHAPES[shape]
    print(
        f"\n{shape}: {depth} layers, T={T}, V={V}, {config.tokens:,} tokens a step, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}; "
        f"median of {config.runs} steps (quartiles)\n"
    )
    print("| candidate | tokens/s | of ours | memory above imports | 2048-cube | parts of a step |")
    print("| --- | ---: | ---: | ---: | ---: | --- |", flush=True)
    base = None
    for candidate in OURS + (PEERS if config.peers else []):
        if not any(name in candidate for name in config.only.split(",")):
            continue
        found = candidates.launch(
            __file__, candidate, shapes=shape, tokens=config.tokens, runs=config.runs, device=config.device
        )
        if found:
            base = base or statistics.median(found["tok_per_s"])
            print(line(candidate, found, base), flush=True)


def line(candidate, found, base):
    """A candidate's line of the table; `base` are the tokens/s of the first."""
    middle, low, high = quartiles(found["tok_per_s"])
    parts = ", ".join(f"{part} {share:.1%}" for part, share in found["parts"].items())
    cube = f"{found['peak'] / 1e9:,.0f} GFLOP/s"
    if found["flops_per_token"]:
        cube += f"; {found['flops_per_token'] * middle / found['peak']:.1%} of the peak"
    return (
        f"| {candidate} | {middle:,.0f} ({low:,.0f} to {high:,.0f}) | {middle / base:.2f} | "
        f"{found['memory'] / 2**20:,.0f} MiB | {cube} | {parts}; ready after {found['ready_s']:.0f} s |"
    )


def main(argv=None):
    candidates.main(parse(Config, argv, __doc__), measure, compare)


if __name__ == "__main__":
    run(main)
