"""
Curves of a training run: logs/<run>.jsonl in, one PNG out.
"""
import itertools
import json
from pathlib import Path

from nanochat.common import DataError, atomic_file

UNITS = {"loss": "training loss (nats a token)", "reward": "reward", "val_bpb": "validation (bits a byte)",
         "val_loss": "validation loss (nats a token)"}
DENSE = ("loss", "reward")  # known at every step, and noisy


def load_log(path: Path) -> list[dict]:
    """A log's records by step, each step once; a torn last line is left out. [] without a log, else
    DataError."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    records = {}
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
            records.setdefault(record["step"], {}).update(record)  # a validation has a line of its own
        except (ValueError, KeyError, TypeError):
            if number < len(lines):
                raise DataError(f"{path}, line {number}: not a record of a training step.") from None
    return [records[step] for step in sorted(records)]


def _smooth(values):
    """Running mean over the neighbours on both sides, so that it does not lag."""
    half = max(1, len(values) // 50)
    sums = [0.0, *itertools.accumulate(values)]
    means = []
    for i in range(len(values)):
        reach = min(i, len(values) - 1 - i, half)  # as far to both sides, fewer at the ends
        means.append((sums[i + reach + 1] - sums[i - reach]) / (2 * reach + 1))
    return means


def _chosen(records):
    """Which curves to draw: the reward where there is one, else the loss and what was measured more than
    once."""
    counts = {}
    for key in UNITS:
        counts[key] = sum(record.get(key) is not None for record in records)
    if counts["reward"]:
        return ["reward"]
    return [key for key in UNITS if counts[key] > 1 or key == "loss"]


def draw(records: list[dict], path: Path) -> None:
    """Write a run's curves as a PNG: reward, or training loss beside what was measured on validation text."""
    from matplotlib.figure import Figure  # here: it takes a second
    keys = _chosen(records)
    figure = Figure((max(7.2, 4.8 * len(keys)), 3.0), layout="tight")
    for axis, key in zip(figure.subplots(1, len(keys), squeeze=False)[0], keys):
        known = [record for record in records if record.get(key) is not None]
        steps = [record["step"] for record in known]
        values = [record[key] for record in known]
        if key in DENSE and len(steps) > 20:
            axis.plot(steps, values, color="#9ab8d8", linewidth=0.8)
            axis.plot(steps, _smooth(values), color="#1f4e79")
        else:
            axis.plot(steps, values, color="#1f4e79", marker="o", markersize=3)
        axis.set(xlabel="optimizer step", ylabel=UNITS[key])
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    with atomic_file(path) as tmp:
        figure.savefig(tmp, format="png", dpi=120)
