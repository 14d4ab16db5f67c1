"""
What the report is made of: the stages' results as JSON, the names of stages and tasks, why something is
missing.

Every stage leaves report/results/<name>.json (common.save_result); a chat evaluation's metrics hold {task:
record}.
"""
import contextlib
import json
import re
from datetime import datetime
from pathlib import Path
from typing import Any

from nanochat.common import DataError, MissingArtifact, base_dir, read_json
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


def log_records(data: bytes) -> list[dict]:
    """The records of a training log, each step once, in order.

    A step may have several lines, its loss, a validation, what was said: the last word holds. A line that a
    power cut has torn is passed over.
    """
    found: dict[int, dict] = {}
    for line in data.splitlines():
        with contextlib.suppress(ValueError, TypeError, KeyError):
            record = json.loads(line, parse_constant=_no_number)
            found.setdefault(int(record["step"]), {}).update(record)
    return [found[step] for step in sorted(found)]


def _no_number(name):
    raise ValueError(f"{name} cannot be drawn")


# A folder as it stands in a message or a flag, "/mnt/disk/" of "/mnt/disk/chats.jsonl", but not of an address
# or of a repository's name.
_FOLDERS = re.compile(r"""(?<![\w.:~/\\])(?:[A-Za-z]:)?[/\\](?:[^\s/\\|'":;,()]+[/\\])+""")


def shareable(value: Any) -> Any:
    """A result's value without the folders of this machine: whoever reads a report need not know them."""
    if isinstance(value, dict):
        return {key: shareable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [shareable(item) for item in value]
    if not isinstance(value, str):
        return value
    for folder, name in ((base_dir(), "$NANOCHAT_BASE_DIR"), (Path.home(), "~")):
        value = value.replace(str(folder), name)
    return _FOLDERS.sub("", value)


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


def scores_of(stage: str, meta: dict[str, Any], results: dict[str, dict]) -> dict[str, dict]:
    """{task: its record} of the chat evaluation, if it was of the very weights of this meta.json."""
    metrics = results.get(f"chat_eval_{stage}", NOT_RUN)["metrics"]
    if metrics.get("weights") != meta["files"]["model.safetensors"]:
        return {}
    return metrics["tasks"]


# ---- what is missing
def wanted(results: dict[str, dict]) -> list[str]:
    """The tasks that a reader looks for: benchmarks, whatever was measured, the skills of a model of the
    kindergarten."""
    measured = set()
    for phase in PHASES:
        measured |= set(scores(results, phase))
    tasks = [task for task in BENCHMARKS if task in measured or TASKS[task].source]
    tasks += sorted(measured - set(tasks) - set(SKILLS))
    return tasks + SKILLS if measured & set(SKILLS) else tasks


def skipped(result: dict) -> dict[str, str]:
    """{task, or "" for the whole stage: reason} of the notes "skipped: task: reason", in a command as TASK.

    With TASK for the name, tasks that share a reason share its words too, and are told of in one line.
    """
    found = {}
    for note in result["notes"]:
        match = re.match(r"skipped:? (?:(\w+): )?(.*)", note, re.DOTALL)
        if match:
            found[match[1] or ""] = match[2].replace(f"-a {match[1]}", "-a TASK")
    return found


def missing(results: dict[str, dict]) -> list[str]:
    """A line for each reason, with the stages and tasks that it holds for, and one for all stages not run."""
    stages = {}  # (task, reason) -> titles of the stages
    for name, result in results.items():
        reasons = skipped(result)
        if name.startswith("chat_eval_"):
            found = scores(results, name.removeprefix("chat_eval_"))
            for task in wanted(results):
                if task not in found:
                    reasons.setdefault(task, "not asked for: `python -m scripts.chat_eval -i STAGE -a TASK`")
        for task, reason in reasons.items():
            stages.setdefault((task, reason), []).append(stage_title(name))
    tasks = {}  # (titles of the stages, reason) -> titles of the tasks
    for (task, reason), titles in stages.items():
        tasks.setdefault(("; ".join(titles), reason), []).append(task_title(task))
    every = "; ".join(stage_title(name) for name in results if name.startswith("chat_eval_"))
    lines = []
    for (where, reason), names in tasks.items():
        if where == every:
            where = "Chat evaluation"
        what = ", ".join(sorted(names))  # "" is no task but the whole stage
        lines.append(f"{where}: {what}: {reason}" if what else f"{where}: {reason}")
    not_run = [title for name, title in TITLES.items() if name not in results]
    if not_run:
        lines.append(f"Not run: {'; '.join(not_run)}.")
    return lines
