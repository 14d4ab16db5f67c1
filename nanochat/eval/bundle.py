"""
CORE's evaluation bundle: a folder with the list of the tasks, their examples, and what blind guessing gets.

    core.yaml              the 22 tasks: label, file, kind, few-shot examples, what stands before an answer
    eval_meta_data.csv     per cent right by blind guessing, of each label
    eval_data/**/*.jsonl   one example a line, its keys as in KINDS

This file knows the bundle's format; how a prompt is made of an example stands in prompts.py.
scripts.base_eval fetches it.
"""
import csv
import random
from dataclasses import dataclass
from pathlib import Path

import yaml

from nanochat.common import DataError
from nanochat.eval.records import read_jsonl

# The keys of an example, (what is given, what is scored), by the kind of its task. A list holds options.
KINDS = {
    "multiple_choice": ("query", "choices"),  # several answers after one question
    "schema": ("context_options", "continuation"),  # one ending after several beginnings (Winograd schemas)
    "language_modeling": ("context", "continuation"),  # one answer, which must be given word by word
}


@dataclass(frozen=True)
class CoreTask:
    """One row of core.yaml."""

    label: str
    path: Path  # of its examples
    kind: str  # of KINDS
    shots: int  # solved examples before each question
    delimiter: str  # between question and answer
    chance: float  # what blind guessing gets, a fraction


def load_bundle(folder: Path) -> list[CoreTask]:
    """The tasks, in core.yaml's order. Raises DataError for a bundle that is damaged or not one."""
    folder = Path(folder)
    try:
        listed = yaml.safe_load((folder / "core.yaml").read_text(encoding="utf-8"))
        chance = _chance_levels(folder / "eval_meta_data.csv")
        tasks = []
        for entry in listed["icl_tasks"]:
            task = CoreTask(
                label=entry["label"],
                path=folder / "eval_data" / entry["dataset_uri"],
                kind=entry["icl_task_type"],
                shots=entry["num_fewshot"][0],
                delimiter=entry.get("continuation_delimiter", " "),
                chance=chance[entry["label"]])
            if task.kind not in KINDS:
                raise ValueError(f"{task.label} is of the kind {task.kind!r}, not one of {', '.join(KINDS)}")
            tasks.append(task)
        if not tasks:
            raise ValueError("core.yaml lists no task")
    except (OSError, KeyError, ValueError, IndexError, TypeError, AttributeError, yaml.YAMLError) as e:
        problem = " ".join(f"{type(e).__name__} {e}".split())  # YAML's errors are several lines
        raise DataError(f"the evaluation bundle in {folder} cannot be used: {problem}. "
                        "Delete the folder and fetch it again.") from None
    return tasks


def _chance_levels(path):
    """{label: fraction that blind guessing gets right}."""
    levels = {}
    with open(path, encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            levels[row["Eval Task"]] = float(row["Random baseline"]) / 100
    return levels


def read_examples(path: Path, limit: int = 0) -> list[dict]:
    """The first `limit` (0: all) of a task's examples in a fixed random order: many files are sorted.

    The order is the public evaluator's (see prompts.py). Raises DataError.
    """
    examples = read_jsonl(path, "Delete the evaluation bundle and fetch it again.")
    random.Random(1337).shuffle(examples)
    return examples[:limit or None]


def gpt2() -> dict[str, list[float]]:
    """{label: per cent right, "CORE": CORE} of GPT-2 small, medium, large and XL; gpt2_core.txt has the
    source."""
    scores = {}
    for line in Path(__file__).with_name("gpt2_core.txt").read_text(encoding="utf-8").splitlines():
        name, *figures = line.split()
        if name != "#":
            scores[name] = [float(figure) for figure in figures]
    return scores
