"""
The arithmetic behind benchmarks/series.sh: what a series of pretraining runs says about scale.

    python benchmarks/curves.py series runs/series          a table and series.png: bits a byte against FLOPs, and a power law

Reads the result files that base_train writes. The power law is bpb = a * FLOPs^-b, by least squares on
logarithms; there are too few runs here for an irreducible loss.
"""

import json
import math
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from nanochat import scaling  # noqa: E402
from nanochat.common import UsageError, run  # noqa: E402


def load(folder):
    """The runs in a folder's JSON files by compute: (depth, counted parameters, tokens, FLOPs, bits a
    byte)."""
    runs = []
    for path in Path(folder).glob("*.json"):
        m = json.loads(path.read_text(encoding="utf-8"))["metrics"]
        depth, vocab_size = m["model"]["n_layer"], m["model"]["vocab_size"]
        counted = scaling.matrix_params(depth) + scaling.head_params(depth, vocab_size)
        runs.append((depth, counted, m["tokens"], m["total_flops"], m["val_bpb"]))
    if not runs:
        raise UsageError(f"{folder} holds no results (*.json).")
    return sorted(runs, key=lambda run: run[3])


def table(runs):
    """Lines with one run each."""
    head = f"{'depth':>6} {'parameters':>14} {'tokens':>16} {'FLOPs':>10} {'bits a byte':>12}"
    return [
        head,
        *(f"{'d' + str(d):>6} {n:>14,} {t:>16,} {f:>10.3g} {bpb:>12.4f}" for d, n, t, f, bpb in runs),
    ]


def power_law(runs):
    """(a, b) of bpb = a * FLOPs^-b, or None for runs of nearly the same FLOPs."""
    if runs[-1][3] < 1.5 * runs[0][3]:
        return None
    slope, intercept = np.polyfit([math.log(r[3]) for r in runs], [math.log(r[4]) for r in runs], 1)
    return math.exp(intercept), -slope


def draw(runs, path):
    """A PNG of the bits a byte over the FLOPs."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(6, 4))
    axis.plot([r[3] for r in runs], [r[4] for r in runs], marker="o")
    for r in runs:
        axis.annotate(f"d{r[0]}", (r[3], r[4]), textcoords="offset points", xytext=(4, 4), fontsize=8)
    axis.set(xscale="log", xlabel="training FLOPs", ylabel="validation (bits a byte)")
    axis.grid(alpha=0.25)
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def series(folder):
    runs = load(folder)
    print("\n".join(table(runs)))
    if law := power_law(runs):
        print(f"bits a byte = {law[0]:.3g} * FLOPs^-{law[1]:.4f}")
    draw(runs, Path(folder) / "series.png")


def main():
    if len(sys.argv) != 3 or sys.argv[1] != "series":
        raise UsageError(__doc__)
    series(sys.argv[2])


if __name__ == "__main__":
    run(main)
