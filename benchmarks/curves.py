"""
The arithmetic behind runs/miniseries.sh and runs/scaling.sh: what a series of pretraining runs says about
scale.

    python benchmarks/curves.py series runs/series          a table and series.png: bits a byte against FLOPs, and a power law
    python benchmarks/curves.py horizon runs/scaling        a table and horizon.png: the best size of each budget of FLOPs
    python benchmarks/curves.py steps 1e18 12 [FLAGS...]    steps of base_train that spend so many FLOPs at this depth

Reads the result files that base_train writes. The power law is bpb = a * FLOPs^-b, by least squares on
logarithms; there are too few runs here for an irreducible loss. Budgets are fitted as in approach 2 of
Chinchilla (arXiv 2203.15556).
"""

import json
import math
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from nanochat import scaling  # noqa: E402
from nanochat.cli import parse  # noqa: E402
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


def best_size(runs):
    """(parameters, tokens, bits a byte) at the bottom of a parabola over log(parameters), or None where it
    has none inside."""
    x, y = np.log([r[1] for r in runs]), np.array([r[4] for r in runs])
    if len(runs) < 3:
        return None
    a, b, c = np.polyfit(x, y, 2)
    bottom = -b / (2 * a)
    if a <= 0 or not x.min() <= bottom <= x.max():
        return None
    tokens = np.exp(np.interp(bottom, np.sort(x), np.log([r[2] for r in runs])[np.argsort(x)]))
    return math.exp(bottom), float(tokens), float(a * bottom**2 + b * bottom + c)


def draw(groups, path, x, label):
    """A PNG with one line a group of runs; x is the column that goes along."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(6, 4))
    for name, runs in groups.items():
        runs = sorted(runs, key=lambda run: run[x])
        axis.plot([r[x] for r in runs], [r[4] for r in runs], marker="o", label=name)
        for r in runs:
            axis.annotate(f"d{r[0]}", (r[x], r[4]), textcoords="offset points", xytext=(4, 4), fontsize=8)
    axis.set(xscale="log", xlabel=label, ylabel="validation (bits a byte)")
    axis.grid(alpha=0.25)
    if len(groups) > 1:
        axis.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def series(folder):
    runs = load(folder)
    print("\n".join(table(runs)))
    if law := power_law(runs):
        print(f"bits a byte = {law[0]:.3g} * FLOPs^-{law[1]:.4f}")
    draw({"": runs}, Path(folder) / "series.png", 3, "training FLOPs")


def horizon(folder):
    groups = {p.name: load(p) for p in sorted(Path(folder).iterdir(), key=lambda p: p.name) if p.is_dir()}
    groups = dict(sorted(groups.items(), key=lambda item: float(item[0])))
    ratios = []
    for budget, runs in groups.items():
        print(f"budget {budget}:", *table(sorted(runs)), sep="\n")
        best = best_size(runs)
        if best:
            ratios.append(best[1] / best[0])
            print(
                f"best: {best[0]:,.0f} parameters (matrices and head), {best[1]:,.0f} tokens, ratio {ratios[-1]:.1f}, "
                f"{best[2]:.4f} bits a byte"
            )
        else:
            print("best: not inside these depths")
    if ratios:
        print(
            f"tokens for each parameter: {np.exp(np.mean(np.log(ratios))):.1f}, mean of {len(ratios)} budgets "
            f"({min(ratios):.1f} to {max(ratios):.1f})"
        )
    draw(groups, Path(folder) / "horizon.png", 1, "parameters (matrices and head)")


def steps(budget, depth, *flags):
    """Print the steps with which base_train, given these flags, spends `budget` FLOPs."""
    from nanochat.data.tokenizer import Tokenizer
    from scripts.base_train import Config

    config = parse(Config, [f"--depth={depth}", *flags])
    vocab_size = Tokenizer.load().vocab_size
    tokens = float(budget) / scaling.flops_per_token(config.depth, vocab_size, config.sequence_len)
    print(
        max(1, round(tokens / (config.total_batch_size or scaling.total_batch_tokens(config.depth, tokens))))
    )


def main():
    verbs = {"series": series, "horizon": horizon, "steps": steps}
    if len(sys.argv) < 3 or sys.argv[1] not in verbs:
        raise UsageError(__doc__)
    verbs[sys.argv[1]](*sys.argv[2:])


if __name__ == "__main__":
    run(main)
