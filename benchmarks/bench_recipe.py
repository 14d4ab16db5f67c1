"""
Which recipe learns most in the same time? Variants of pretraining beside the base, on the same real text.

    NANOCHAT_BASE_DIR=... python benchmarks/bench_recipe.py --depth=3 --tokens=1e6,4e6 \\
        --variants="small steps: --total_batch_size=2048; warm: --matrix_lr=0.03 --total_batch_size=2048"

The base directory holds a tokenizer and text (scripts.tok_train, nanochat.dataset). A variant is a name and flags of
scripts/base_train.py; `base` is none. Every run is a base_train of its own, in turn with the others, with its
own whole schedule: learning rates that fall make half of what a run learns, so a long run cut short says
nothing. What a token costs is measured first, in turn too, and a dearer variant gets fewer of them. With two
horizons or more the table has the time that a variant needs for what the base has learned at its end, by the
line of bits against log(time) through its last two horizons.

Results are added to --results, one JSON line a run. Stopped and started again it goes on where it was.
"""
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from nanochat import scaling  # noqa: E402
from nanochat.cli import option, parse  # noqa: E402
from nanochat.common import UsageError, append_jsonl, base_dir, run  # noqa: E402

SHARED = ("tokenizer", "tokens", "base_data")  # of the base directory, by all runs
BASE = "base"
PROBE_STEPS = 8


@dataclass
class Config:
    depth: int = option(4, "layers")
    tokens: str = option("1e6,4e6", "horizons of the base, by comma")
    variants: str = option("", "'name: flags; name: flags'")
    seeds: str = option("0", "initial weights, by comma")
    dataset: str = option("climbmix", "as base_train's")
    sequence_len: int = option(512, "tokens a row")
    results: str = option("runs/recipe.jsonl", "file that results are added to")


def variants_of(config: Config) -> dict[str, list[str]]:
    """{name: flags}, the base first. Raises UsageError."""
    found: dict[str, list[str]] = {BASE: []}
    for variant in filter(None, map(str.strip, config.variants.split(";"))):
        name, colon, flags = variant.partition(":")
        if not colon:
            raise UsageError(f"--variants wants 'name: flags; name: flags', got {variant!r}.")
        found[name.strip()] = flags.split()
    return found


def batch_of(config: Config, flags: list[str], tokens: float) -> int:
    """Tokens a step."""
    for flag in flags:
        if flag.startswith("--total_batch_size="):
            return int(flag.partition("=")[2])
    return scaling.total_batch_tokens(config.depth, tokens)


def train(config: Config, flags: list[str], steps: int, name: str, seed: int = 0) -> dict:
    """What base_train's result file says of a run in a folder of its own, which is deleted."""
    folder = base_dir() / "recipe" / name.replace(" ", "_")
    folder.mkdir(parents=True, exist_ok=True)
    for shared in SHARED:
        (base_dir() / shared).mkdir(exist_ok=True)
        if not (folder / shared).is_symlink():
            (folder / shared).symlink_to(base_dir() / shared)
    command = [sys.executable, "-m", "scripts.base_train", f"--dataset={config.dataset}", f"--depth={config.depth}",
               f"--sequence_len={config.sequence_len}", f"--num_iterations={steps}", f"--seed={seed}",
               "--eval_every=0", *flags]
    subprocess.run(command, check=True, cwd=ROOT, env={**os.environ, "NANOCHAT_BASE_DIR": str(folder)})
    metrics = json.loads((folder / "report/results/base_train.json").read_text(encoding="utf-8"))["metrics"]
    shutil.rmtree(folder)
    return metrics


def seconds_of_tokens(config: Config, variants: dict[str, list[str]]) -> dict[str, float]:
    """Each variant's seconds of a token, over those of the base: the median of three runs of some steps."""
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(3):
        for name, flags in variants.items():
            metrics = train(config, flags, PROBE_STEPS, f"probe {turn} {name}")
            seconds[name].append(metrics["train_s"] / metrics["tokens"])
    base = statistics.median(seconds[BASE])
    return {name: statistics.median(measured) / base for name, measured in seconds.items()}


# ---- what it comes to
def time_to(bits: float, runs: list[dict]) -> float | None:
    """Seconds in which a variant has come to so many bits, by its last two horizons; None without two."""
    by_tokens: dict[float, list[dict]] = {}
    for one in runs:
        by_tokens.setdefault(one["horizon"], []).append(one)
    if len(by_tokens) < 2:
        return None
    points = []
    for horizon in sorted(by_tokens)[-2:]:
        found = by_tokens[horizon]
        seconds = statistics.mean(one["train_s"] for one in found)
        points.append((math.log(seconds), statistics.mean(one["val_bpb"] for one in found)))
    (early, at_first), (late, at_last) = points
    return math.exp(late + (bits - at_last) * (late - early) / (at_last - at_first))


def table(runs: list[dict]) -> str:
    """A row for each horizon and variant: bits, and how much less than the base's, for each seed."""
    base = {(one["horizon"], one["seed"]): one for one in runs if one["variant"] == BASE}
    last = max(one["horizon"] for one in runs)
    goal = statistics.mean(one["val_bpb"] for (horizon, _), one in base.items() if horizon == last)
    goal_s = statistics.mean(one["train_s"] for (horizon, _), one in base.items() if horizon == last)
    lines = ["| base's tokens | variant | steps | seconds | bits per byte | less the base's, each seed "
             "| time to the base's last, of its own |", "| ---: | --- | ---: | ---: | ---: | --- | ---: |"]
    for horizon in sorted({one["horizon"] for one in runs}):
        for name in dict.fromkeys(one["variant"] for one in runs):
            mine = [one for one in runs if one["variant"] == name and one["horizon"] == horizon]
            if not mine:
                continue
            less = [f"{one['val_bpb'] - base[horizon, one['seed']]['val_bpb']:+.4f}" for one in mine]
            needed = time_to(goal, [one for one in runs if one["variant"] == name]) if horizon == last else None
            lines.append(
                f"| {horizon:,.0f} | {name} | {mine[0]['steps']:,} | {statistics.mean(one['train_s'] for one in mine):,.0f} "
                f"| {statistics.mean(one['val_bpb'] for one in mine):.4f} | {', '.join(less)} "
                f"| {f'{needed / goal_s:.2f}' if needed else ''} |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    config = parse(Config, argv, __doc__)
    variants = variants_of(config)
    path = Path(config.results)
    settings = {"depth": config.depth, "sequence_len": config.sequence_len, "dataset": config.dataset}

    def there() -> list[dict]:
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        return [one for one in map(json.loads, lines) if one["settings"] == settings and one["variant"] in variants]

    done = {(one["variant"], one["horizon"], one["seed"]) for one in there()}
    cost = seconds_of_tokens(config, variants)
    print("a token costs, of the base's:", ", ".join(f"{name} {ratio:.2f}" for name, ratio in cost.items()), flush=True)
    for tokens in map(float, config.tokens.split(",")):
        for seed in map(int, config.seeds.split(",")):
            for name, flags in variants.items():
                if (name, tokens, seed) in done:
                    continue
                steps = max(1, round(tokens / cost[name] / batch_of(config, flags, tokens)))
                metrics = train(config, flags, steps, f"{name} {tokens:.0f} {seed}", seed)
                append_jsonl(path, {"settings": settings, "variant": name, "flags": flags, "horizon": tokens, "seed": seed,
                                    "steps": steps, **{key: metrics[key] for key in ("tokens", "train_s", "val_bpb")}})
    print(table(there()))


if __name__ == "__main__":
    run(main)
