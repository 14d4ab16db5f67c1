"""
Curves of training and scores by stage: what to draw, out of logs/<run>.jsonl and results, and their PNGs.

report.html draws the same curves and scores itself, so what is drawn is worked out apart from the drawing.
"""
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nanochat.common import atomic_file, base_dir
from nanochat.report.results import NOT_RUN, PHASES, log_records
from nanochat.report.summary import MEAN, ScoreRow, measured_phases
from nanochat.train.stages import STAGES

# what a log's line may hold -> (what it is, its unit)
KINDS = {"loss": ("training loss", "nats a token"), "val_loss": ("validation loss", "nats a token"),
         "val_bpb": ("validation", "bits a byte"), "reward": ("reward", "mean reward, 0 to 1")}
DENSE = 20  # from so many points on a curve is a noisy one, and drawn smoothed
COLORS = {"base": "#8a8f98", "mid": "#e69f00", "sft": "#009e73", "rl": "#0072b2"}  # told apart by everybody


@dataclass(frozen=True)
class Curve:
    """What one stage's log holds of one kind."""

    phase: str
    what: str
    unit: str
    points: list[tuple[int, float]]  # (step, value)

    @property
    def smooth(self) -> list[tuple[int, float]]:
        """The points' running mean, [] of few points."""
        if len(self.points) < DENSE:
            return []
        steps, values = zip(*self.points)
        return list(zip(steps, smoothed(values)))

    @property
    def told(self) -> str:
        """Where it ends: 'validation loss 0.4012'."""
        _, last = (self.smooth or self.points)[-1]
        return f"{self.what} {last:.4f}"


# ---- what to draw
def load_curves(results: dict[str, dict]) -> list[Curve]:
    """Every stage's curves, in the order of training. A stage that is paid in rewards has no other."""
    curves = []
    for phase in PHASES:
        path = results.get(STAGES[phase].script, NOT_RUN)["metrics"].get("log")
        log = base_dir() / path if path else None
        records = log_records(log.read_bytes()) if log and log.is_file() else []
        is_paid = any("reward" in record for record in records)
        for key, (what, unit) in KINDS.items():
            points = [(record["step"], record[key]) for record in records if record.get(key) is not None]
            if points and is_paid == (key == "reward"):
                curves.append(Curve(phase, what, unit, points))
    return curves


def smoothed(values: Sequence[float]) -> list[float]:
    """The mean of each value's neighbours, as many on both sides, so that it does not lag behind.

    At the beginning, where a loss falls fast, there are fewer of them. At the end a line is fitted to the
    last ones: a mean of fewer and fewer would end in noise.
    """
    known = np.asarray(values, dtype=float)
    half = max(2, len(known) // 50)
    place = np.arange(len(known))
    reach = np.minimum(np.minimum(place, place[::-1]), half)
    sums = np.concatenate([[0.0], np.cumsum(known)])
    means = (sums[place + reach + 1] - sums[place - reach]) / (2 * reach + 1)
    last = place[-2 * half - 1:]
    line = np.polyfit(last, known[last], 1)
    means[-half:] = np.polyval(line, place[-half:])
    return means.tolist()


def chart_rows(rows: list[ScoreRow]) -> list[ScoreRow]:
    """Shares of questions: the skills' mean, then what the last model is best at, down to its worst."""
    shares = [row for row in rows if not row.is_centered]
    return sorted(shares, key=lambda row: (row.name != MEAN, -row.last["score"]))


# ---- pictures
def draw_curves(curves: list[Curve], path: Path) -> None:
    """Write a PNG, a panel for each stage and unit; a single value in bits is told in the stage's legend."""
    from matplotlib.figure import Figure  # here: it takes a second
    panels = {}  # (phase, unit) -> curves
    for curve in curves:
        has_no_length = curve.unit == "bits a byte" and len(curve.points) < 2
        unit = "nats a token" if has_no_length else curve.unit
        panels.setdefault((curve.phase, unit), []).append(curve)
    figure = Figure((9.6, 2.9 * -(-len(panels) // 2)), layout="constrained")
    for place, ((phase, unit), its_curves) in enumerate(panels.items(), 1):
        axis = figure.add_subplot(-(-len(panels) // 2), 2, place)
        for curve in its_curves:
            _draw_curve(axis, curve, unit)
        axis.set_title(STAGES[phase].title, fontsize=10)
        axis.set(xlabel="optimizer step", ylabel=unit)
        axis.legend(frameon=False, fontsize=8)
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    _save(figure, path)


def _draw_curve(axis, curve, unit):
    steps, values = zip(*curve.points)
    color = "black" if "validation" in curve.what else COLORS[curve.phase]
    if curve.unit != unit:
        axis.plot([], [], " ", label=f"{curve.told} {curve.unit}")
    elif curve.smooth:
        axis.plot(steps, values, color=color, alpha=0.35, linewidth=0.7)
        axis.plot(*zip(*curve.smooth), color=color, label=curve.told)
    else:
        axis.plot(steps, values, color=color, marker="o", markersize=4, label=curve.told)


def draw_skills(rows: list[ScoreRow], path: Path) -> None:
    """Write a PNG with a line a task: its score after each stage, chance, and the last score's interval."""
    from matplotlib.figure import Figure  # here: it takes a second
    columns = 1 if len(rows) < DENSE else 2
    each = -(-len(rows) // columns)
    figure = Figure((4.8 * columns + 0.6, 0.2 * each + 1.1), layout="constrained")
    for column in range(columns):
        axis = figure.add_subplot(1, columns, column + 1)
        part = rows[column * each:(column + 1) * each]
        _draw_rows(axis, part)
        axis.set_yticks(range(len(part)), [row.title for row in part], fontsize=7.5)
        axis.set(xlim=(-2, 102), ylim=(each - 0.5, -0.5), xlabel="answered right, %")
        axis.grid(alpha=0.25, axis="x")
        axis.spines[["top", "right", "left"]].set_visible(False)
        axis.tick_params(length=0)
    figure.suptitle("Skills by stage (the line: 95 % interval; grey tick: blind guessing)", fontsize=10)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False, fontsize=8)
    _save(figure, path)


def _draw_rows(axis, rows):
    lows, highs = np.transpose([row.last["ci95"] for row in rows]) * 100
    chances = [100 * row.last["chance"] for row in rows]
    last = list(rows[0].records)[-1]
    axis.hlines(range(len(rows)), lows, highs, color=COLORS[last], alpha=0.6)
    axis.scatter(chances, range(len(rows)), marker="|", color="#999999")
    for phase in measured_phases(rows):
        asked = [(100 * row.records[phase]["score"], i) for i, row in enumerate(rows) if phase in row.records]
        axis.scatter(*zip(*asked), s=22, color=COLORS[phase], label=phase.upper(), zorder=3)


def _save(figure, path):
    with atomic_file(path) as tmp:
        figure.savefig(tmp, format="png", dpi=120)


# ---- in words, for who cannot see them
def skills_told(rows: list[ScoreRow]) -> str:
    """What the chart of these rows shows."""
    first = rows[0]
    scores = [f"{phase.upper()} {first.written(record)} %" for phase, record in first.records.items()]
    return f"Skills by stage. {first.title}: {', '.join(scores)}. The table has every score."


def curves_told(curves: list[Curve]) -> str:
    """Where every curve ends."""
    ends = ", ".join(f"{curve.phase.upper()} {curve.told} ({curve.unit})" for curve in curves)
    return f"Curves of training, at the end: {ends}."
