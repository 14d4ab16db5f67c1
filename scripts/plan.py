"""
What a run needs, before it is paid for: parameters, tokens, disk, memory, hours, dollars, commands.

    python -m scripts.plan    each tier, on the GPUs found here or on 8 x H100
    python -m scripts.plan --depth=26 --gpus=8 --gpu=h100
"""
import shutil
import subprocess
from dataclasses import dataclass, replace

from nanochat import scaling
from nanochat.cli import at_least, option, parse
from nanochat.common import run

TIERS = (20, 26, 32)


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

    def __post_init__(self):
        at_least(self, depth=0, gpus=0, vocab_size=1, sequence_len=1, param_data_ratio=0.01, mfu=0.01)


def devices(config):
    """(how many, name, GPU)."""
    listed = []
    if not config.gpu and shutil.which("nvidia-smi"):
        query = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
        said = subprocess.run(query, capture_output=True, text=True).stdout
        listed = [line.rpartition(",") for line in said.splitlines() if line[-1:].isdigit()]
    if not listed:
        kind = config.gpu or "h100"
        return config.gpus or (1 if kind == "cpu" else 8), kind, scaling.GPUS[kind]
    name, _, mib = min(listed, key=lambda line: float(line[2]))
    known = scaling.GPUS.get(scaling.gpu_named(name), scaling.GPU(0, 0, 0))
    return config.gpus or len(listed), name, replace(known, gib=float(mib) / 1024)


def plan(config, depth):
    """(gpus, rows a device, shards, the plan in words)."""
    gpus, name, gpu = devices(config)
    vocab_size, model = config.vocab_size, (depth, config.vocab_size, config.sequence_len)
    recipe, shape = scaling.pretraining(depth, vocab_size, config.param_data_ratio, world=gpus), scaling.model_shape(depth)
    tokens = recipe.steps * recipe.batch_tokens
    shards, rows = scaling.shards_needed(tokens), scaling.device_batch_size(*model, gpu.gib, gpus)
    memory = ", ".join(f"{n}: {scaling.memory_bytes(*model, n, gpus, 4 if name == 'cpu' else 2) / 2**30:.1f}"
                       for n in scaling.ROWS)
    flops, peak = tokens * scaling.flops_per_token(*model), gpus * gpu.peak_flops
    hours = flops / (peak * config.mfu) / 3600 if peak else float("nan")
    price, in_all = gpu.dollars if config.price is None else config.price, hours * (1 + scaling.LATER_STAGES)
    python, dashes = (f"torchrun --standalone --nproc_per_node={gpus}", " --") if gpus > 1 else ("python", "")
    return gpus, rows, shards, f"""\
d{depth} on {gpus} x {name}
  model   {scaling.num_params(depth, vocab_size):,} parameters: width {shape.n_embd}, {shape.n_head} heads, \
vocabulary {vocab_size:,}
  tokens  {tokens:,} = {recipe.steps:,} steps of {recipe.batch_tokens:,}; learning rates x {recipe.lr_factor:.2f}, \
weight decay {recipe.weight_decay:.4f}
  disk    {scaling.disk_bytes(depth, vocab_size, tokens) / 1e9:,.0f} GB: {shards:,} training shards, checkpoints
  memory  GiB by rows: {memory}; {f"{rows} fit" if rows else "NOT EVEN ONE FITS"} into {gpu.gib:.0f}
  time    {hours:.1f} h, {in_all:.1f} h with all stages ({flops:.2e} FLOPs; assumed: {config.mfu:.0%} of \
{peak / 1e12:,.4g} TFLOP/s)
  price   ${in_all * gpus * price:,.0f} (assumed: ${price:.2f} a device and hour)
  python -m nanochat.dataset -n {shards}
  python -m scripts.tok_train --dataset=climbmix --vocab_size={vocab_size}
  {python} -m scripts.base_train{dashes} --depth={depth} --device_batch_size={max(rows, 1)} \
--sequence_len={config.sequence_len} --param_data_ratio={config.param_data_ratio:g}"""


def main(argv=None):
    config = parse(Config, argv, __doc__)
    for depth in [config.depth] if config.depth else TIERS:
        gpus, rows, shards, words = plan(config, depth)
        print(f"gpus={gpus} rows={rows} shards={shards}" if config.shell else words)


if __name__ == "__main__":
    run(main)
