"""
How fast answers are made on this machine, beside transformers' generate for the same shape, and what each
option costs.

    python benchmarks/bench_infer.py                                d4, V=2048: the kindergarten's shape
    python benchmarks/bench_infer.py --shapes=d6,d12 --peers        others, beside transformers
    python benchmarks/bench_infer.py --shapes=d12 --only=int8
    python benchmarks/bench_infer.py --temperature=1 --peers        sampled among the 50 likeliest

Every candidate runs in a process of its own, one after another, on the same shape, prompts and threads, with
random weights; just before each, a sum over a large array says what memory bandwidth the machine has at that
moment. Decoding is greedy unless a temperature is given, from prompts of 64 tokens, through the whole engine;
its time is that of all tokens but the first, and the share of bandwidth is that of the weights read once a
step (a decoding step multiplies every matrix with few rows, so that reading the matrices is what takes the
time). A figure is the median of the runs. "Second turn" is the time to the first token of a conversation
whose history is in the prefix cache, over that of the same one read anew. The peer is transformers'
NanoChatForCausalLM, the same architecture; `pip install transformers` into the same environment first.
"""

import itertools
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import candidates  # noqa: E402

from nanochat.cli import option, parse  # noqa: E402
from nanochat.common import run  # noqa: E402
from nanochat.infer.engine import Engine
from nanochat.infer.sampling import Sampling
from nanochat.infer.sequence import Sequence  # noqa: E402
from nanochat.model.gpt import GPT  # noqa: E402
from nanochat.train.recipe import architecture  # noqa: E402

SHAPES = {"d4": (4, 256, 2048), "d6": (6, 1280, 4096), "d12": (12, 1280, 32768)}  # depth, sequence_len, vocab
OURS = {  # name: the engine's options; the first word is the dtype
    "fp32": {},
    "bf16": {},
    "int8": {"int8": True},
    "fp32 deterministic": {"deterministic": True},
    "bf16 deterministic": {"deterministic": True},
}
PEERS = ["transformers fp32", "transformers bf16"]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "int8": torch.bfloat16}
PROMPT = 64  # tokens read before decoding
NEW = 64  # tokens decoded
TOP_K = 50


@dataclass
class Config:
    shapes: str = option("d4", f"of {', '.join(SHAPES)}, joined by commas")
    batches: str = option("1,8,32", "rows decoded together, joined by commas")
    runs: int = option(3, "timed runs of each figure")
    peers: bool = option(False, "measure transformers too")
    only: str = option("", "candidates whose name contains this")
    temperature: float = option(0.0, "above 0: sample among the TOP_K likeliest")
    threads: int = option(0, "of torch (default: its own choice)")
    one: str = option("", "measure this candidate in this process and print JSON; for the benchmark itself")


class NoText:
    """In the place of a tokenizer, for a model that says nothing: no token ends a reply."""

    special_ids = frozenset()
    bos_id = -1

    def __init__(self, vocab_size):
        self.vocab_size = vocab_size

    def special(self, name):
        return -1


def read_bandwidth(megabytes=256, seconds=1.0):
    """Bytes/s of a sum over an array, the best of what fits into `seconds`."""
    array = torch.ones(megabytes << 18)  # four bytes each
    best = 0.0
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        array.sum()
        best = max(best, array.numel() * 4 / (time.perf_counter() - start))
    return best


def prompts(n, length, vocab_size, seed):
    return torch.randint(0, vocab_size, (n, length), generator=torch.Generator().manual_seed(seed)).tolist()


# ------------------------------------------------------------------------------------------------- candidates
class Ours:
    """The project's engine. What is measured: prepare(batch_size), generate(rows, new), bytes read a step."""

    sampling = {"temperature": 0.0, "top_k": TOP_K, "use_tools": False}

    def __init__(self, shape, dtype, temperature, options):
        depth, T, V = shape
        self.sampling = {**self.sampling, "temperature": temperature}
        self.vocab_size = V
        self.scheduler = None
        model = GPT(architecture(depth, V, T), dtype)
        model.init_weights()
        self.engine = Engine(model.eval().requires_grad_(False), NoText(V), **options)
        groups = model.parameter_groups()
        self.weights = sum(p.numel() for _, p in groups["matrix"] + groups["unembedding"])
        self.bytes = self.weights * (1 if options.get("int8") else dtype.itemsize)

    def prepare(self, batch_size):
        self.scheduler = self.engine.scheduler(batch_size)

    def generate(self, rows, new):
        for i, row in enumerate(rows):
            self.scheduler.add(Sequence(self.engine.tokenizer, row, Sampling(new, **self.sampling), i))
        while not self.scheduler.idle:
            self.scheduler.step()


class Transformers:
    """transformers' model of the same shape, with its own generate."""

    def __init__(self, shape, dtype, temperature=0.0):
        self.sampling = {"do_sample": False}
        if temperature:
            self.sampling = {"do_sample": True, "temperature": temperature, "top_k": TOP_K}
        model = candidates.transformers_model(shape, bos_token_id=0, eos_token_id=None, pad_token_id=0)
        self.model = model.to(dtype).eval()
        self.vocab_size = shape[2]
        self.bytes = 0
        for name, parameter in self.model.named_parameters():
            if "embed" not in name:  # a few rows of it are read, not all
                self.bytes += parameter.numel() * parameter.element_size()

    def prepare(self, batch_size):
        pass

    @torch.inference_mode()
    def generate(self, rows, new):
        idx = torch.tensor(rows)
        everything = torch.ones_like(idx)
        out = self.model.generate(idx, attention_mask=everything, max_new_tokens=new, **self.sampling)
        assert out.shape[1] == idx.shape[1] + new, f"{out.shape[1] - idx.shape[1]} tokens, not {new}"


def clock(work, *arguments):
    """Seconds of work(*arguments)."""
    start = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - start


def measure(config):
    """What the process of one candidate prints: a dict of its figures."""
    if config.threads:
        torch.set_num_threads(config.threads)
    name, options = config.one.split(" ", 1)
    dtype = DTYPES[options.split()[0]]
    shape = SHAPES[config.shapes]
    _, T, V = shape
    seeds = itertools.count()  # no prompt comes twice: its keys and values would be found in the prefix cache
    bandwidth = read_bandwidth()
    if name == "nanochat":
        candidate = Ours(shape, dtype, config.temperature, OURS[options])
    else:
        candidate = Transformers(shape, dtype, config.temperature)
    found = {"bandwidth": bandwidth, "bytes": candidate.bytes, "decode": {}}

    def timed(n, length, new):
        """Median seconds of reading n prompts of `length` tokens and writing `new` after each."""
        times = []
        for _ in range(config.runs):
            times.append(clock(candidate.generate, prompts(n, length, V, next(seeds)), new))
        return statistics.median(times)

    for n in map(int, config.batches.split(",")):
        candidate.prepare(n)
        timed(n, PROMPT, 3)  # warms up
        # Whatever comes with the first token, above all reading the prompt, is in both times and goes away.
        found["decode"][n] = n * (NEW - 1) / (timed(n, PROMPT, NEW) - timed(n, PROMPT, 1))

    candidate.prepare(2)
    length = min(1000, T - 60)
    found["prefill"] = length / timed(1, length, 1)
    if name == "nanochat":
        found["turns"] = second_turn(candidate, length, config.runs, seeds)
    return found


def second_turn(ours, length, runs, seeds):
    """[cold, cached]: median seconds to the first token after `length` tokens of history and 20 new ones."""
    cold = []
    cached = []
    for _ in range(runs):
        history = prompts(1, length, ours.vocab_size, next(seeds))[0]
        question = prompts(1, 20, ours.vocab_size, next(seeds))[0]
        ours.prepare(2)
        cold.append(clock(ours.generate, [history + question], 1))
        ours.prepare(2)
        ours.generate([history], 1)
        cached.append(clock(ours.generate, [history + question], 1))
    return [statistics.median(cold), statistics.median(cached)]


# ----------------------------------------------------------------------------------------------------- report
def compare(config, shape):
    """Measure every candidate at one shape and print a table with a line for each."""
    depth, T, V = SHAPES[shape]
    batches = config.batches.split(",")
    threads = config.threads or torch.get_num_threads()
    print(
        f"\n{shape}: {depth} layers, V={V}, cache of {T}, {threads} threads, torch {torch.__version__}; "
        f"median of {config.runs} runs\n"
    )
    heads = "".join(f" decode tok/s, batch {n} |" for n in batches)
    print(
        f"| candidate | prefill tok/s |{heads} share of the bandwidth at batch 1 | read GB/s | "
        "first token of a second turn: cold, cached, share |"
    )
    print("| --- |" + " ---: |" * (len(batches) + 4), flush=True)
    names = [f"nanochat {name}" for name in OURS]
    if config.peers:
        names += PEERS
    for name in names:
        if config.only not in name:
            continue
        found = candidates.launch(
            __file__,
            name,
            shapes=shape,
            batches=config.batches,
            runs=config.runs,
            threads=config.threads,
            temperature=config.temperature,
        )
        if found:
            print(line(name, batches, found), flush=True)


def line(name, batches, found):
    """A candidate's line of the table."""
    speeds = "".join(f" {found['decode'][n]:,.0f} |" for n in batches)
    share = ""
    if batches[0] == "1":
        share = f"{found['bytes'] * found['decode']['1'] / found['bandwidth']:.0%}"
    turns = ""
    if "turns" in found:
        cold, cached = found["turns"]
        turns = f"{cold * 1e3:,.0f} ms, {cached * 1e3:,.1f} ms, {cached / cold:.1%}"
    gigabytes = found["bandwidth"] / 1e9
    return f"| {name} | {found['prefill']:,.0f} |{speeds} {share} | {gigabytes:.1f} | {turns} |"


def main(argv=None):
    candidates.main(parse(Config, argv, __doc__), measure, compare)


if __name__ == "__main__":
    run(main)
