"""
How fast answers are made on this machine, beside transformers' generate for the same shape, and what each option costs.

    python benchmarks/bench_infer.py                                d4, V=2048: the kindergarten's shape
    python benchmarks/bench_infer.py --shapes=d6,d12 --peers        others, beside transformers
    python benchmarks/bench_infer.py --shapes=d12 --only=int8
    python benchmarks/bench_infer.py --temperature=1 --peers        sampled among the 50 likeliest, as chats are

Every candidate runs in a process of its own, one after another, on the same shape, prompts and threads, with random
weights; just before each, a sum over a large array says what memory bandwidth the machine has at that moment. Decoding
is greedy unless a temperature is given, from prompts of 64 tokens, through the whole engine; its time is that of all
tokens but the first, and the share of bandwidth is that of the weights read once a step. A figure is the median of the
runs. "Second turn" is the time to the first token of a conversation whose history is in the prefix cache, over that of
the same one read anew. The peer is transformers' NanoChatForCausalLM, the same architecture; `pip install transformers`
into the same environment first.
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

from nanochat import scaling  # noqa: E402
from nanochat.cli import option, parse  # noqa: E402
from nanochat.common import run  # noqa: E402
from nanochat.infer.engine import Engine, Sampling, Sequence  # noqa: E402
from nanochat.model.gpt import GPT, GPTConfig  # noqa: E402

SHAPES = {"d4": (4, 256, 2048), "d6": (6, 1280, 4096), "d12": (12, 1280, 32768)}     # depth, sequence_len, vocab_size
OURS = {"fp32": {}, "bf16": {}, "int8": {"int8": True}, "fp32 deterministic": {"deterministic": True},
        "bf16 deterministic": {"deterministic": True}}
PEERS = ["transformers fp32", "transformers bf16"]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "int8": torch.bfloat16}
PROMPT, NEW, TOP_K = 64, 64, 50


@dataclass
class Config:
    shapes: str = option("d4", f"of {', '.join(SHAPES)}, joined by commas")
    batches: str = option("1,8,32", "rows decoded together, joined by commas")
    runs: int = option(3, "timed runs of each figure")
    peers: bool = option(False, "measure transformers too")
    only: str = option("", "candidates whose name contains this")
    temperature: float = option(0.0, "above 0: sample among the TOP_K likeliest")
    threads: int = option(0, "of torch (default: its own choice)")
    one: str = option("", "measure this candidate in this process and print JSON; used by the benchmark itself")


class NoText:
    """In the place of a tokenizer, for a model that says nothing: no token ends a reply."""

    special_ids, bos_id = frozenset(), -1

    def __init__(self, vocab_size):
        self.vocab_size = vocab_size

    def special(self, name):
        return -1


def read_bandwidth(megabytes=256, seconds=1.0):
    """Bytes/s of a sum over an array, the best of what fits into `seconds`."""
    array, best, end = torch.ones(megabytes << 18), 0.0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        array.sum()
        best = max(best, array.numel() * 4 / (time.perf_counter() - start))
    return best


def prompts(n, length, vocab_size, seed):
    return torch.randint(0, vocab_size, (n, length), generator=torch.Generator().manual_seed(seed)).tolist()


# ---------------------------------------------------------------------------------------------------------- candidates
class Ours:
    sampling = {"temperature": 0.0, "top_k": TOP_K, "use_tools": False}

    def __init__(self, shape, dtype, temperature, options):
        depth, T, V = shape
        self.sampling = {**self.sampling, "temperature": temperature}
        self.vocab_size, self.batcher = V, None
        model = GPT(GPTConfig(T, V, **vars(scaling.model_shape(depth)), key_offset=0.5, value_tables=True), dtype)
        model.init_weights()
        self.engine = Engine(model.eval().requires_grad_(False), NoText(V), **options)
        groups = model.parameter_groups()
        self.weights = sum(p.numel() for _, p in groups["matrix"] + groups["unembedding"])
        self.bytes = self.weights * (1 if options.get("int8") else dtype.itemsize)

    def prepare(self, batch_size):
        self.batcher = self.engine.batcher(batch_size)

    def generate(self, rows, new):
        for i, row in enumerate(rows):
            self.batcher.add(Sequence(self.engine.tokenizer, row, Sampling(new, **self.sampling), i))
        while not self.batcher.idle:
            self.batcher.step()


class Transformers:
    def __init__(self, shape, dtype, temperature=0.0):
        self.sampling = {"do_sample": bool(temperature)} | ({"temperature": temperature, "top_k": TOP_K} if temperature else {})
        model = candidates.transformers_model(shape, bos_token_id=0, eos_token_id=None, pad_token_id=0)
        self.model, self.vocab_size = model.to(dtype).eval(), shape[2]
        self.bytes = sum(p.numel() * p.element_size() for n, p in self.model.named_parameters() if "embed" not in n)

    def prepare(self, batch_size):
        pass

    @torch.inference_mode()
    def generate(self, rows, new):
        idx = torch.tensor(rows)
        out = self.model.generate(idx, attention_mask=torch.ones_like(idx), max_new_tokens=new, **self.sampling)
        assert out.shape[1] == idx.shape[1] + new, f"{out.shape[1] - idx.shape[1]} tokens, not {new}"


def clock(work):
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def measure(config):
    """What the process of one candidate prints: a dict of its figures."""
    if config.threads:
        torch.set_num_threads(config.threads)
    name, dtype, *_ = config.one.split()
    shape, seeds = SHAPES[config.shapes], itertools.count()
    depth, T, V = shape
    bandwidth = read_bandwidth()
    candidate = Ours(shape, DTYPES[dtype], config.temperature, OURS[config.one.split(" ", 1)[1]]) \
        if name == "nanochat" else Transformers(shape, DTYPES[dtype], config.temperature)
    found = {"bandwidth": bandwidth, "bytes": candidate.bytes, "decode": {}}

    def timed(n, length, new):
        return statistics.median(clock(lambda: candidate.generate(prompts(n, length, V, next(seeds)), new))
                                 for _ in range(config.runs))
    for n in map(int, config.batches.split(",")):
        candidate.prepare(n)
        timed(n, PROMPT, 3)
        found["decode"][n] = n * (NEW - 1) / (timed(n, PROMPT, NEW) - timed(n, PROMPT, 1))
    candidate.prepare(2)
    length = min(1000, T - 60)
    found["prefill"] = length / timed(1, length, 1)
    if name == "nanochat":
        found["turns"] = second_turn(candidate, length, config.runs, seeds)
    return found


def second_turn(ours, length, runs, seeds):
    """(cold, cached): median seconds to the first token after a history of `length` tokens and 20 new ones."""
    times = []
    for _ in range(runs):
        ours.prepare(2)
        history, question = (prompts(1, n, ours.vocab_size, next(seeds))[0] for n in (length, 20))
        cold = clock(lambda: ours.generate([history + question], 1))
        ours.prepare(2)
        ours.generate([history], 1)
        times.append((cold, clock(lambda: ours.generate([history + question], 1))))
    return [statistics.median(part) for part in zip(*times)]


# -------------------------------------------------------------------------------------------------------------- report
def compare(config, shape):
    """Measure every candidate at one shape and print a table with a line for each."""
    depth, T, V = SHAPES[shape]
    batches = config.batches.split(",")
    print(f"\n{shape}: {depth} layers, V={V}, cache of {T}, {config.threads or torch.get_num_threads()} threads, "
          f"torch {torch.__version__}; median of {config.runs} runs\n")
    print(f"| candidate | prefill tok/s |{''.join(f' decode tok/s, batch {n} |' for n in batches)} share of the bandwidth "
          "at batch 1 | read GB/s | first token of a second turn: cold, cached, share |")
    print("| --- |" + " ---: |" * (len(batches) + 4), flush=True)
    for candidate in [f"nanochat {name}" for name in OURS] + PEERS * config.peers:
        if config.only not in candidate:
            continue
        found = candidates.launch(__file__, candidate, shapes=shape, batches=config.batches, runs=config.runs,
                                  threads=config.threads, temperature=config.temperature)
        if not found:
            continue
        speeds = "".join(f" {found['decode'][n]:,.0f} |" for n in batches)
        share = f"{found['bytes'] * found['decode'][batches[0]] / found['bandwidth']:.0%}" if batches[0] == "1" else ""
        cold, cached = found.get("turns", (0, 0))
        turns = f"{cold * 1e3:,.0f} ms, {cached * 1e3:,.1f} ms, {cached / cold:.1%}" if cold else ""
        print(f"| {candidate} | {found['prefill']:,.0f} |{speeds} {share} | {found['bandwidth'] / 1e9:.1f} | {turns} |",
              flush=True)


def main(argv=None):
    candidates.main(parse(Config, argv, __doc__), measure, compare)


if __name__ == "__main__":
    run(main)
