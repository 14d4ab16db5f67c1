"""
What the page shows of a run, from the files that every run leaves: nothing here asks a process.

logs/<stage>_<tag>.jsonl grow by a line a step, report/results/*.json come when a stage has ended, and
speedrun.sh keeps the list of its stages in .done/<tier>/. So a run of yesterday, or one copied from another
machine, is shown like one that goes on beside it. Only what is new is read: a view says with `after` how far
each file was read, and gets the rest by giving that back. Knows no HTTP, and wants no torch.
"""
import contextlib
import math
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nanochat.common import DataError, Unreadable, base_dir, read_json
from nanochat.kindergarten import World
from nanochat.report.markdown import duration, human
from nanochat.report.results import PHASES, TITLES, log_records, report_files, scores, task_title
from nanochat.report.summary import MEAN, skill_mean
from nanochat.train.stages import STAGES

DENSE = 200  # so many steps are shown one by one; then a point stands for half a per cent of the steps before
TAIL_BYTES = 1 << 14  # of a log, for its last steps
NUMBERS = ("step", "of", "loss", "lr", "tok_per_s", "elapsed_s", "reward")  # and validations
SPOKEN = ("step", "answers", "group", "memory_gib")
IDLE_S = 120  # without a new line: a run that no speedrun looks after has stopped


# ---- logs
def read_new(path: Path, seen: list | None) -> tuple[list[dict], list[int]]:
    """(records, place): those after the place `seen`, and where they end, [inode, offset].

    A resumed run writes its log anew, without the steps that it will repeat, and one that starts over writes
    another: both are new files, which are read from their beginning. A last line that is still being written
    waits, and one that was torn by a power cut is passed over.
    """
    with open(path, "rb") as file:
        stat = os.fstat(file.fileno())  # of this file: another may have its name by now
        start = 0
        if seen and seen[0] == stat.st_ino and seen[1] <= stat.st_size:
            start = seen[1]
        file.seek(start)
        data = file.read()
    whole = data[: data.rfind(b"\n") + 1]
    return log_records(whole), [stat.st_ino, start + len(whole)]


def _newest_logs(folder):
    """{stage: its log}: of several tags the one written to last."""
    found = {}
    for path in sorted((folder / "logs").glob("*_*.jsonl"), key=lambda path: path.stat().st_mtime):
        stage = path.name.partition("_")[0]
        if stage in STAGES:
            found[stage] = path
    return found


def thinned(records: list[dict]) -> list[dict]:
    """Their numbers, as points that are closer together where the steps are early: for a logarithmic axis.

    The loss of a point is the mean of its steps'; of other numbers it has the last.
    """
    points: dict[int, list[dict]] = {}
    for record in records:
        step = max(1, record["step"])
        point = step if step <= DENSE else DENSE + 1 + int(DENSE * math.log(step / DENSE))
        points.setdefault(point, []).append(record)
    found = []
    for together in points.values():
        merged: dict[str, Any] = {}
        for record in together:
            for key, value in record.items():
                if key in NUMBERS or key.startswith("val_"):
                    merged[key] = value
        losses = [record["loss"] for record in together if "loss" in record]
        if losses:
            merged["loss"] = round(sum(losses) / len(losses), 5)
        found.append(merged)
    return found


def spoken(records: list[dict]) -> list[dict]:
    """What was said at a few steps: {"step", "answers", "memory_gib"}, and RL's "group"."""
    found = []
    for record in records:
        if "answers" in record and record["answers"]:
            found.append({key: record[key] for key in SPOKEN if key in record})
    return found


def _pace(path):
    """(last step, of how many, seconds a step lately); of how many is 0 where an older log does not say."""
    with open(path, "rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL_BYTES))
        records = [record for record in log_records(file.read()) if "elapsed_s" in record]
    if len(records) < 2:
        return (records[0]["step"] if records else 0), 0, 0.0
    first = records[0]
    last = records[-1]
    pace_s = (last["elapsed_s"] - first["elapsed_s"]) / (last["step"] - first["step"])
    return last["step"], last.get("of", 0), max(0.0, pace_s)


# ---- results
def _results(folder):
    """{name: result} of those that can be read."""
    found = {}
    for path in sorted((folder / "report" / "results").glob("*.json")):
        with contextlib.suppress(DataError, Unreadable):
            result = read_json(path)
            if isinstance(result, dict) and isinstance(result.get("metrics"), dict):
                found[path.stem] = result
    return found


def _version(folder):
    """Another one when a result has come, or the report."""
    paths = [*(folder / "report" / "results").glob("*.json"), *report_files().values()]
    return str(sum(path.stat().st_mtime_ns for path in paths if path.exists()))


def skills(results: dict[str, dict]) -> list[list]:
    """What was graded: first [stage, ...], then [title, score after each or None, ...], the mean of the
    kindergarten's skills first of all, as in the report; [] where nothing was."""
    by_stage = {phase: scores(results, phase) for phase in PHASES}
    graded = [phase for phase in PHASES if by_stage[phase]]
    tasks: dict[str, bool] = {}
    for phase in graded:
        tasks |= dict.fromkeys(by_stage[phase], True)
    rows = []
    for task in tasks:
        rows.append([task_title(task), *(by_stage[phase].get(task, {}).get("score") for phase in graded)])
    means = [skill_mean(by_stage[phase]) for phase in graded]
    if any(means):
        rows.insert(0, [MEAN, *(mean and mean["score"] for mean in means)])
    return [graded, *rows] if rows else []


def card(results: dict[str, dict]) -> list[list[str]]:
    """Who it is, as [[what, in words], ...]; what an older result does not hold is left out."""
    metrics = {name: result["metrics"] for name, result in results.items()}
    base = metrics.get("base_train", {})
    facts = []
    if "params" in base and "model" in base:
        facts.append(["Size", f"{base['params']:,} parameters in {base['model']['n_layer']} layers"])
    if "tokens" in base:
        data = Path(str(results["base_train"]["config"].get("dataset", "text"))).name
        facts.append(["Read", f"{human(base['tokens'])} tokens of {data}"])
    trained = [metrics[row.script] for row in STAGES.values() if "train_s" in metrics.get(row.script, {})]
    if trained:
        steps = sum(stage["steps"] for stage in trained)
        seconds = sum(stage["train_s"] for stage in trained)
        facts.append(["Learned", f"{steps:,} steps in {duration(seconds)}"])
    if metrics.get("base_eval", {}).get("core") is not None:
        facts.append(["CORE", f"{metrics['base_eval']['core']:.4f}"])
    if base:
        facts.append(["Made on", results["base_train"]["device"]])
    return facts


def people(results: dict[str, dict]) -> list[str]:
    """The names of who lives in the world that it grew up in; [] for a model of other text."""
    base = results.get("base_train")
    if base is None or base["config"].get("dataset") != "kindergarten":
        return []
    return [person.name for person in World().people]


# ---- stages
@dataclass
class Step:
    """A stage of the line, whether it trains or measures."""

    name: str
    title: str
    state: str  # "done", "running", "stopped" or "to come"
    took_s: float | None = None  # once it is done
    made: int = 0  # of its steps, while it trains
    of: int = 0
    left_s: float | None = None  # as far as that can be told

    def note(self) -> str:
        """What stands beside its title."""
        if self.state == "done":
            return "" if self.took_s is None else duration(self.took_s)
        if self.of:
            return f"{self.made / self.of:.0%}"
        return ""


def _speedrun(folder):
    """[(name, command, state)] of the newest speedrun's stages, in order; [] where none was started."""
    tiers = [path for path in (folder / ".done").glob("*") if path.is_dir()]
    if not tiers:
        return []
    tier = max(tiers, key=lambda path: path.stat().st_mtime)
    endings = {}  # {(number, name): what stands behind it}
    for path in tier.glob("[0-9]*-*"):
        number, _, rest = path.name.partition("-")
        name, _, ending = rest.partition(".")
        endings.setdefault((int(number), name), set()).add(ending)
    listed = [(key, "") for key in sorted(endings)]  # all that older code kept
    if (tier / "stages").exists():
        listed = []
        for number, line in enumerate((tier / "stages").read_text(encoding="utf-8").splitlines(), 1):
            name, _, command = line.strip().partition(" ")
            listed.append(((number, name), command))
    stopped = (tier / "stopped").exists()
    found = []
    for key, command in listed:
        state = "to come"
        if "" in endings.get(key, ()):
            state = "done"
        elif "begun" in endings.get(key, ()):
            state = "stopped" if stopped else "running"
        found.append((key[1], command, state))
    return found


def _by_hand(logs, results):
    """The same of stages that were started without speedrun.sh: those that left something."""
    found = []
    for row in STAGES.values():
        log = logs.get(row.name)
        if row.script in results:
            found.append((row.script, "", "done"))
        elif log:
            idle_s = time.time() - log.stat().st_mtime
            found.append((row.script, "", "running" if idle_s < IDLE_S else "stopped"))
    return found


def stage_line(folder: Path, logs: dict[str, Path], results: dict[str, dict]) -> list[Step]:
    """The line of stages, with times; those that are to come are guessed from the pace of the last that
    trained."""
    planned = {}
    with contextlib.suppress(DataError, Unreadable, KeyError, TypeError):
        planned = read_json(folder / "plan.json")["seconds"]
    stage_of = {row.script: row.name for row in STAGES.values()}
    pace_s = 0.0
    line = []
    for name, command, state in _speedrun(folder) or _by_hand(logs, results):
        step = Step(name, TITLES.get(name, name.replace("_", " ").capitalize()), state)
        log = logs.get(stage_of.get(name, ""))
        if log and state != "to come":
            step.made, step.of, pace_s = _pace(log)
            step.left_s = (step.of - step.made) * pace_s
        if state == "done":
            step.took_s = results[name]["wall_s"] if name in results else None
        elif state == "to come":
            steps = re.search(r"--num_iterations=(\d+)", command)
            step.left_s = planned.get(name, int(steps[1]) * pace_s if steps else None)
        line.append(step)
    return line


def _about(seconds):
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} hours"


def headline(line: list[Step]) -> str:
    """How the run gets on, in a sentence."""
    if not line:
        return "Nothing has been trained here yet. To begin: bash speedrun.sh"
    all_s = sum(step.left_s or 0 for step in line if step.state != "done")
    for step in line:
        if step.state not in ("running", "stopped"):
            continue
        text = step.title
        if step.of:
            text += f": step {step.made:,} of {step.of:,}"
        if step.state == "stopped":
            return f"{text}. Stopped; the same command goes on from there."
        if step.of and step.left_s:
            text += f", about {_about(step.left_s)} left"
        if all_s and _about(all_s) != _about(step.left_s or 0):
            text += f" ({_about(all_s)} for all of it)"
        return text + "."
    if all(step.state == "done" for step in line):
        return f"All {len(line)} stages are done."
    return f"{sum(step.state == 'done' for step in line)} of {len(line)} stages are done."


# ---- all of it
def view(after: dict[str, Any]) -> dict[str, Any]:
    """What is new since `after`, which is an earlier view's (at first {}).

    {"headline", "stages": [[title, state, note], ...], "after", "logs": [{"stage", "points", "said", "anew"},
    ...]}, and "card", "skills", "people" and "report" when a result has come. "anew": these points
    take the place of all before.
    """
    folder = base_dir()
    results = _results(folder)
    logs = _newest_logs(folder)
    line = stage_line(folder, logs, results)
    waiting = {step.name for step in line if step.state == "to come"}
    places = {"results": _version(folder)}
    told = []
    for stage, row in STAGES.items():
        path = logs.get(stage)
        if path is None or row.script in waiting:  # what an earlier run has left there
            continue
        seen = after.get(path.name)
        records, place = read_new(path, seen)
        places[path.name] = place
        told.append({"stage": stage, "points": thinned(records), "said": spoken(records),
                     "anew": not seen or place[0] != seen[0] or place[1] < seen[1]})
    found: dict[str, Any] = {"headline": headline(line), "logs": told, "after": places}
    found["stages"] = [[step.title, step.state, step.note()] for step in line]
    if after.get("results") != places["results"]:
        found["card"] = card(results)
        found["skills"] = skills(results)
        found["people"] = people(results)
        found["report"] = next(iter(report_files()), "")
    return found
