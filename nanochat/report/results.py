"""
What the report is made of: the stages' results as JSON, the names of stages and tasks, reasons for what is
missing.

Every stage leaves report/results/<name>.json (common.save_result); a chat evaluation's metrics hold {task:
record}.
"""
import re
from datetime import datetime
from pathlib import Path

from nanochat.common import DataError, MissingArtifact, base_dir, read_json
from nanochat.report.plots import draw, load_log
from nanochat.tasks import TASKS, in_group
from nanochat.train.stages import STAGES

PHASES = tuple(STAGES)  # the models that are asked, in order of training


def _titles():
    """{name of a result: title of its section} in the order of a run: a stage, then what is measured after
    it."""
    titles = {"tok_train": "Tokenizer training", "tok_eval": "Tokenizer evaluation"}
    for phase, row in STAGES.items():
        titles[row.script] = row.title
        if phase == "base":
            titles["base_loss"] = "Bits per byte and samples"
            titles["base_eval"] = "CORE"
        short = phase.upper() if phase in ("sft", "rl") else phase  # the two that are abbreviations
        titles[f"chat_eval_{phase}"] = f"Chat evaluation, {short}"
    return titles


TITLES = _titles()
BENCHMARKS = sorted(in_group("core"))
SKILLS = in_group("kindergarten")
NOT_RUN: dict = {"metrics": {}, "notes": []}  # stands for the result of a stage that was not run


# ---- files
def load_results() -> dict[str, dict]:
    """{name: result} of every file. Raises DataError for one that cannot be used, MissingArtifact for
    none."""
    folder = base_dir() / "report" / "results"
    found = {}
    for path in sorted(folder.glob("*.json")):
        result = read_json(path)
        if not isinstance(result, dict) or not isinstance(result.get("metrics"), dict):
            raise DataError(f"{path} is not a stage's result. Delete it and run that stage again.")
        found[path.stem] = result
    if not found:
        raise MissingArtifact("any stage's result", folder, "bash speedrun.sh")
    in_order = {}
    for name in [*TITLES, *found]:
        if name in found:
            in_order[name] = found[name]
    return in_order


def report_files() -> dict[str, Path]:
    """{name: path} of the report that was written, as a page and as a text, then of its pictures."""
    folder = base_dir() / "report"
    found = {}
    for path in [folder / "report.html", folder / "report.md", *sorted(folder.glob("report_files/*.png"))]:
        if path.is_file():
            found[path.relative_to(folder).as_posix()] = path
    return found


def draw_all(results: dict[str, dict], folder: Path) -> dict[str, str]:
    """{stage: file name} of the curves drawn into `folder`, of those stages that keep a log."""
    pictures = {}
    for name, result in results.items():
        path = result["metrics"].get("log")
        records = load_log(base_dir() / path) if path else []
        if any("loss" in record for record in records):
            pictures[name] = f"{name}.png"
            draw(records, folder / pictures[name])
    return pictures


def since_reset(results: dict[str, dict]) -> float | None:
    """Seconds from reset to the last result; None without a reset."""
    path = base_dir() / "report" / "start.json"
    if not path.exists():
        return None
    last = 0.0
    for result in results.values():
        end = datetime.strptime(result["time"], "%Y-%m-%dT%H:%M:%S%z").timestamp()
        last = max(last, end)
    return last - read_json(path)["start"]


# ---- names
def stage_title(name: str) -> str:
    """A stage's title, or its own name where there is none."""
    return TITLES.get(name, name)


def task_title(task: str) -> str:
    """A task's title, or its own name where there is none."""
    return TASKS[task].title if task in TASKS else task


# ---- scores
def scores(results: dict[str, dict], phase: str) -> dict[str, dict]:
    """{task: its record} of the chat evaluation after `phase`."""
    result = results.get(f"chat_eval_{phase}", NOT_RUN)
    return result["metrics"].get("tasks") or {}


def skipped(result: dict) -> list[tuple[str, str]]:
    """[(task, or "" for the whole stage, reason)] of the notes "skipped: task: reason", in a command as TASK.

    With TASK for the name, tasks that share a reason share its words too, and are told of in one line.
    """
    found = []
    for note in result["notes"]:
        match = re.match(r"skipped:? (?:(\w+): )?(.*)", note, re.DOTALL)
        if match:
            task = match[1] or ""
            reason = match[2].replace(f"-a {match[1]}", "-a TASK")
            found.append((task, reason))
    return found


def why_missing(results: dict[str, dict], phase: str, task: str) -> str:
    """Why there is no score of a task after `phase`."""
    name = f"chat_eval_{phase}"
    command = f"python -m scripts.chat_eval -i {phase}"
    if name not in results:
        return f"Not run: `{command}`."
    reasons = dict(skipped(results[name]))
    return reasons.get(task, f"Not asked for: `{command} -a TASK`.")
