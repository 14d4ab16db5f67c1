"""
What a run needs, before it is paid for: parameters, tokens, disk, memory, hours, dollars, commands.

    python -m scripts.plan    each tier, on the GPUs found here or on 8 x H100
    python -m scripts.plan --depth=26 --gpus=8 --gpu=h100
    python -m scripts.plan --hours=8 --gpu=4090    the best for a budget; --dollars=48,100,300: a row for each

The numbers are those of nanochat/scaling.py and budget.py, with which training itself works, so a plan cannot
disagree with the run. What is assumed (the share of the peak that is reached, prices) is said beside what
follows from it. A budget on this machine goes by scripts.probe's measurements, where they are here. Needs no
torch.
"""
import shutil
import subprocess
from dataclasses import asdict, dataclass, replace

from nanochat import budget, scaling
from nanochat.budget import Machine, Recipe
from nanochat.cli import at_least, option, parse
from nanochat.common import UsageError, base_dir, is_there, read_json, run, write_json

TIERS = (20, 26, 32)
UNKNOWN = scaling.GPU(gib=0, peak_flops=0, dollars=0)


@dataclass
class Config:
    hours: str = option("", "what is to be planned for: hours of this machine, or of --gpu; several: 1,8,24")
    dollars: str = option("", "the same by price")
    depth: int = option(0, "layers (0: each of the tiers, or the best for the budget)")
    gpus: int = option(0, "devices over all nodes (0: those of this machine, else 8)")
    gpu: str = option("", "kind of device (default: this machine's, else h100)", choices=("", *scaling.GPUS))
    vocab_size: int = option(32768, "tokens in the vocabulary")
    sequence_len: int = option(2048, "context in tokens")
    param_data_ratio: float = option(20.0, "training tokens for each parameter")
    mfu: float = option(0.4, "assumed share of the devices' bf16 peak that is reached")
    price: float | None = option(None, "dollars an hour for one device (default: see scaling.GPUS)")
    shell: bool = option(False, "print variables for a shell; of a budget, those that --keep has kept")
    keep: bool = option(False, "keep the budget's recipe in the base directory, of text that can be had here")

    def __post_init__(self) -> None:
        if self.hours and self.dollars:
            raise UsageError("name --hours or --dollars, not both.")
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
        usual = 1 if config.hours or kind in scaling.FLOAT32 else 8
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
    itemsize = 4 if name in scaling.FLOAT32 else 2
    rows = scaling.device_batch_size(*model, gpu.gib, gpus, itemsize=itemsize)

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
  memory  GiB by rows: {_memory_by_rows(model, gpus, itemsize)}; \
{f"{rows} fit" if rows else "NOT EVEN ONE FITS"} into {gpu.gib:.0f}
  time    {hours:.1f} h, {hours_of_all_stages:.1f} h with all stages ({flops:.2e} FLOPs; assumed: \
{config.mfu:.0%} of {peak_flops / 1e12:,.4g} TFLOP/s)
  price   ${dollars:,.0f} (assumed: ${price:.2f} a device and hour)
{_commands(config, depth, gpus, rows, shards)}"""
    return Plan(gpus, rows, shards, words)


def _memory_by_rows(model: tuple[int, int, int], gpus: int, itemsize: int) -> str:
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


# ---- budgets
HEAD = "| hours | machine | dollars | depth | parameters | tokens |"


def machine_of(config: Config) -> Machine:
    """That which the flags name, else this one as it was measured, else as far as it is known."""
    measured = base_dir() / "probe.json"
    if not config.gpu and not config.gpus and is_there(measured):
        machine = budget.machine_from(read_json(measured))
    else:
        if config.hours and not config.gpu and not _listed_by_nvidia_smi():
            config = replace(config, gpu="cpu")
        gpus, name, kind = devices(config)
        machine = budget.assumed(name, gpus, kind, config.mfu)
    if config.price is None:
        return machine
    return replace(machine, kind=replace(machine.kind, dollars=config.price))


def hours_of(config: Config, machine: Machine) -> list[float]:
    """The budgets, in hours. Raises UsageError."""
    try:
        found = [float(amount) for amount in (config.hours or config.dollars).split(",")]
    except ValueError:
        found = []
    if not found or not all(0 < amount < 1e6 for amount in found):
        raise UsageError(f"--hours and --dollars want a number, got {config.hours or config.dollars}.")
    return [budget.hours_for(amount, machine) for amount in found] if config.dollars else found


def make_recipe(config: Config, machine: Machine, hours: float, dataset: str = "climbmix") -> Recipe:
    """The best, or the best of --depth."""
    if config.depth:
        return budget.of_depth(machine, hours, config.depth, dataset)
    return budget.recipe(machine, hours, dataset)


def headline(found: Recipe, machine: Machine) -> str:
    """A budget and what it buys, as a row of a table."""
    tokens = found.base_steps * found.batch_tokens
    dollars = found.hours * machine.gpus * machine.kind.dollars
    return (f"| {found.hours:.3g} h | {machine.gpus} x {machine.name} | ${dollars:,.0f} | d{found.depth} | "
            f"{scaling.num_params(found.depth, found.vocab_size) / 1e6:,.0f}M | {tokens / 1e6:,.0f}M |")


def describe(found: Recipe, machine: Machine) -> str:
    """All of a recipe on one screen: its own fields, and each stage's minutes."""
    tokens = found.base_steps * found.batch_tokens
    disk = scaling.disk_bytes(found.depth, found.vocab_size, tokens)
    rows = f"{found.rows} rows at a time in" if found.rows else "NOT EVEN ONE ROW FITS into"
    bits = budget.predicted_bits(found)
    learns = f"\n  learns   about {bits:.2f} bits per byte" if bits else ""
    return f"""{HEAD}
{headline(found, machine)}
  speed    {machine.known_by}; ${machine.kind.dollars:.2f} a device and hour
  model    width {scaling.model_shape(found.depth).n_embd}, vocabulary {found.vocab_size:,}, context \
{found.sequence_len:,}{", fp8" if found.fp8 else ""}
  text     {found.dataset}: {scaling.shards_needed(tokens)} shards of web text or as much; disk \
{disk / 1e9:,.1f} GB with checkpoints
  base     {found.base_steps:,} steps of {found.batch_tokens:,} tokens: {found.ratio:.1f} for each parameter \
of matrices and head; {rows} {machine.kind.gib:.0f} GiB{learns}
  chat     {found.mid_steps:,}, then {found.sft_steps:,} steps on {found.mid_conversations:,} and \
{found.sft_conversations:,} conversations; {found.rl_steps} of reinforcement
  asked    {found.questions or "all"} questions a task four times, {found.core_questions} of CORE
  minutes  {", ".join(f"{stage} {seconds / 60:,.1f}" for stage, seconds in found.seconds.items())}"""


def keep(config: Config, machine: Machine, hours: float) -> Recipe:
    """Write plan.json: the recipe for text of the web, or where no hub is reached for generated text."""
    from nanochat.data import hub  # with pyarrow: only a run needs them
    from nanochat.data.datasets import DATASETS, download
    dataset = "climbmix"
    try:
        download(DATASETS[dataset], 0)
    except hub.HubError as error:
        dataset = "kindergarten"
        why = str(error).partition(". ")[0]
        print(f"no text of the web: {why}. So the kindergarten, grown to the budget; when that is mended, "
              "--fresh starts over with text of the web.")
    found = make_recipe(config, machine, hours, dataset)
    if not found.rows:
        raise UsageError(f"not even a d{found.depth} fits into {machine.kind.gib:.1f} GiB.")
    write_json(base_dir() / "plan.json", asdict(found))
    return found


def plan_budgets(config: Config) -> None:
    """Print what the flags ask for."""
    if config.shell:
        for name, value in read_json(base_dir() / "plan.json").items():
            if not isinstance(value, dict):
                print(f"{name}={str(value).lower()}")
        return
    machine = machine_of(config)
    hours = hours_of(config, machine)
    if config.keep:
        print(describe(keep(config, machine, hours[0]), machine))
    elif len(hours) == 1:
        print(describe(make_recipe(config, machine, hours[0]), machine))
    else:
        print(f"{HEAD}\n|---|---|---|---|---|---|")
        for amount in hours:
            print(headline(make_recipe(config, machine, amount), machine))


def main(argv: list[str] | None = None) -> None:
    config = parse(Config, argv, __doc__)
    if config.hours or config.dollars:
        plan_budgets(config)
        return
    for depth in [config.depth] if config.depth else TIERS:
        planned = plan(config, depth)
        if config.shell:
            print(f"gpus={planned.gpus} rows={planned.rows} shards={planned.shards}")
        else:
            print(planned.words)


if __name__ == "__main__":
    run(main)
