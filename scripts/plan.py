"""
What a run needs, before it is paid for: parameters, tokens, disk, memory, hours, dollars, commands.

    python -m scripts.plan    each tier, on the GPUs found here or on 8 x H100
    python -m scripts.plan --depth=26 --gpus=8 --gpu=h100

The numbers are those of nanochat/scaling.py, with which training itself works, so a plan cannot disagree with
the run. What is assumed (the share of the peak that is reached, prices) is said beside what follows from it.
Needs no torch.
"""
import shutil
import subprocess
from dataclasses import dataclass, replace

from nanochat import scaling
from nanochat.cli import at_least, option, parse
from nanochat.common import run

TIERS = (20, 26, 32)
UNKNOWN = scaling.GPU(gib=0, peak_flops=0, dollars=0)


@dataclass
class Config:
    depth: int = option(0, "layers (0: each of the tiers)")
    gpus: int = option(0, "devices over all nodes (0: those of this machine, else 8)")
    gpu: str = option("", "kind of device (default: this machine's, else h100)", choices=("", *scaling.GPUS))
    vocab_size: int = option(32768, "tokens in the vocabulary")
    sequence_len: int = option(2048, "context in tokens")
    param_data_ratio: float = option(20.0, "training tokens for each parameter")
    mfu: float = option(0.4, "assumed share of the devices' bf16 peak that is reached")
    price: float | None = option(None, "dollars an hour for one device (default: see scaling.GPUS)")
    shell: bool = option(False, "print gpus=, rows= and shards= for a shell")

    def __post_init__(self) -> None:
        at_least(self, depth=0, gpus=0, vocab_size=1, sequence_len=1, param_data_ratio=0.01, mfu=0.01)


@dataclass(frozen=True)
class Plan:
    """What a shell asks for, and all of it in words."""

    gpus: int
    rows: int  # at a time on a device; 0 where not even one fits
    shards: int
    words: str


def devices(config: Config) -> tuple[int, str, scaling.GPU]:
    """(how many, name, GPU): as the flags say, else those of this machine, else 8 x H100."""
    listed = [] if config.gpu else _listed_by_nvidia_smi()
    if not listed:
        kind = config.gpu or "h100"
        usual = 1 if kind == "cpu" else 8
        return config.gpus or usual, kind, scaling.GPUS[kind]
    name, mib = min(listed, key=lambda device: device[1])  # where they differ, the one that is full first
    known = scaling.GPUS.get(scaling.gpu_named(name) or "", UNKNOWN)
    return config.gpus or len(listed), name, replace(known, gib=mib / 1024)


def _listed_by_nvidia_smi() -> list[tuple[str, float]]:
    """(name, MiB) of each GPU. A line without a digit last is an error, or a device without own memory."""
    if not shutil.which("nvidia-smi"):
        return []
    query = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    found = []
    for line in subprocess.run(query, capture_output=True, text=True).stdout.splitlines():
        if line[-1:].isdigit():
            name, _, mib = line.rpartition(",")
            found.append((name, float(mib)))
    return found


def plan(config: Config, depth: int) -> Plan:
    """What a pretraining run of `depth` needs on the devices of `config`."""
    gpus, name, gpu = devices(config)
    vocab_size = config.vocab_size
    model = (depth, vocab_size, config.sequence_len)
    shape = scaling.model_shape(depth)
    recipe = scaling.pretraining(depth, vocab_size, config.param_data_ratio, world=gpus)
    tokens = recipe.steps * recipe.batch_tokens
    shards = scaling.shards_needed(tokens)
    rows = scaling.device_batch_size(*model, gpu.gib, gpus)

    flops = tokens * scaling.flops_per_token(*model)
    peak_flops = gpus * gpu.peak_flops
    hours = flops / (peak_flops * config.mfu) / 3600 if peak_flops else float("nan")
    hours_of_all_stages = hours * (1 + scaling.LATER_STAGES)
    price = gpu.dollars if config.price is None else config.price
    dollars = hours_of_all_stages * gpus * price

    words = f"""\
d{depth} on {gpus} x {name}
  model   {scaling.num_params(depth, vocab_size):,} parameters: width {shape.n_embd}, {shape.n_head} heads, \
vocabulary {vocab_size:,}
  tokens  {tokens:,} = {recipe.steps:,} steps of {recipe.batch_tokens:,}; learning rates x \
{recipe.lr_factor:.2f}, weight decay {recipe.weight_decay:.4f}
  disk    {scaling.disk_bytes(depth, vocab_size, tokens) / 1e9:,.0f} GB: {shards:,} \
training shards, checkpoints
  memory  GiB by rows: {_memory_by_rows(model, gpus, name)}; \
{f"{rows} fit" if rows else "NOT EVEN ONE FITS"} into {gpu.gib:.0f}
  time    {hours:.1f} h, {hours_of_all_stages:.1f} h with all stages ({flops:.2e} FLOPs; assumed: \
{config.mfu:.0%} of {peak_flops / 1e12:,.4g} TFLOP/s)
  price   ${dollars:,.0f} (assumed: ${price:.2f} a device and hour)
{_commands(config, depth, gpus, rows, shards)}"""
    return Plan(gpus, rows, shards, words)


def _memory_by_rows(model: tuple[int, int, int], gpus: int, name: str) -> str:
    itemsize = 4 if name == "cpu" else 2
    shown = []
    for rows in scaling.ROWS:
        gib = scaling.memory_bytes(*model, rows, gpus, itemsize) / 2**30
        shown.append(f"{rows}: {gib:.1f}")
    return ", ".join(shown)


def _commands(config: Config, depth: int, gpus: int, rows: int, shards: int) -> str:
    """To copy into a shell, up to the base model."""
    launcher = "python -m scripts.base_train"
    if gpus > 1:
        launcher = f"torchrun --standalone --nproc_per_node={gpus} -m scripts.base_train --"
    return f"""\
  python -m nanochat.dataset -n {shards}
  python -m scripts.tok_train --dataset=climbmix --vocab_size={config.vocab_size}
  {launcher} --depth={depth} --device_batch_size={max(rows, 1)} \
--sequence_len={config.sequence_len} --param_data_ratio={config.param_data_ratio:g}"""


def main(argv: list[str] | None = None) -> None:
    config = parse(Config, argv, __doc__)
    for depth in [config.depth] if config.depth else TIERS:
        planned = plan(config, depth)
        if config.shell:
            print(f"gpus={planned.gpus} rows={planned.rows} shards={planned.shards}")
        else:
            print(planned.words)


if __name__ == "__main__":
    run(main)
