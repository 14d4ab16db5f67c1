"""
Curves of a training run: logs/<run>.jsonl in, one PNG out.
"""
import itertools
import json
from pathlib import Path

from nanochat.common import DataError, atomic_file

UNITS = {"loss": "training loss (nats a token)", "reward": "reward", "val_bpb": "validation (bits a byte)",
         "val_loss": "validation loss (nats a token)"}


def load_log(path):
    """A log's records by step, each step once; a torn last line is left out."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    records = {}
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
            records[record["step"]] = record
        except (ValueError, KeyError, TypeError):
            if number < len(lines):
                raise DataError(f"{path}, line {number}: not a record of a training step.") from None
    return [records[step] for step in sorted(records)]


def _smooth(values):
    """Running mean over the neighbours on both sides, so that it does not lag."""
    half, sums = max(1, len(values) // 50), [0.0, *itertools.accumulate(values)]
    reach = [min(i, len(values) - 1 - i, half) for i in range(len(values))]
    return [(sums[i + r + 1] - sums[i - r]) / (2 * r + 1) for i, r in enumerate(reach)]


def draw(records, path):
    """Write a run's curves as a PNG: reward, or training loss beside what was measured on validation text."""
    from matplotlib.figure import Figure  # here: it takes a second
    counts = {key: sum(record.get(key) is not None for record in records) for key in UNITS}
    keys = ["reward"] if counts["reward"] else [k for k in UNITS if counts[k] > (k != "loss")]
    figure = Figure((max(7.2, 4.8 * len(keys)), 3.0), layout="tight")
    for axis, key in zip(figure.subplots(1, len(keys), squeeze=False)[0], keys):
        steps, values = zip(*[(r["step"], r[key]) for r in records if r.get(key) is not None])
        dense = key in ("loss", "reward") and len(steps) > 20
        if dense:
            axis.plot(steps, values, color="#9ab8d8", linewidth=0.8)
        smooth, marker = (_smooth(values), None) if dense else (values, "o")
        axis.plot(steps, smooth, color="#1f4e79", marker=marker, markersize=3)
        axis.set(xlabel="optimizer step", ylabel=UNITS[key])
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    with atomic_file(path) as tmp:
        figure.savefig(tmp, format="png", dpi=120)
