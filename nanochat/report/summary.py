"""
The report's first table: what every task's score was after each stage of training, one row a task.

A score carries its interval and the chance level; a dash carries a footnote that says why there is nothing.
"""

from nanochat import kindergarten
from nanochat.report.markdown import Footnotes, percent, table
from nanochat.report.results import (
    BENCHMARKS,
    NOT_RUN,
    PHASES,
    SKILLS,
    scores,
    skipped,
    task_title,
    why_missing,
)
from nanochat.tasks import PREFIX, TASKS

HEADER = ["", "split", "n", "chance", *(phase.upper() for phase in PHASES)]
LEGEND = ("Per cent of n answers that are right, ± the longer side of the 95 % interval; chance is what "
          "blind guessing gets. CORE and ChatCORE are means of centered scores: 0 is blind guessing, 1 is "
          "perfection.")


def summary(results: dict[str, dict]) -> list[str]:
    """The lines of the table and of its footnotes."""
    notes = Footnotes()
    measured = set()
    for phase in PHASES:
        measured |= set(scores(results, phase))

    rows = [_core_row(results, notes)]
    for task in BENCHMARKS:
        if task in measured or TASKS[task].source:  # SpellingBee only where measured
            rows.append(_task_row(results, task, "test", notes))
    rows.append(_chatcore_row(results, notes))
    if measured & set(SKILLS):
        rows.append(["**Kindergarten**"] + [""] * (len(HEADER) - 1))
        for name, skill in kindergarten.SKILLS.items():
            rows.append(_task_row(results, PREFIX + name, skill.split, notes))
        rows.append([f"mean of the {len(SKILLS)} skills", "", "", "", *skill_means(results)])
    for task in sorted(measured - set(BENCHMARKS) - set(SKILLS)):
        rows.append(_task_row(results, task, "", notes))
    return [*table(HEADER, rows, left=2), LEGEND, "", *notes.lines()]


def skill_means(results: dict[str, dict]) -> list[str]:
    """The skills' mean after each phase, per cent; "" where one was not measured."""
    means = []
    for phase in PHASES:
        found = scores(results, phase)
        if all(task in found for task in SKILLS):
            total = sum(found[task]["score"] for task in SKILLS)
            means.append(percent(total / len(SKILLS)))
        else:
            means.append("")
    return means


def _centered(result, name, notes, reason):
    """A mean of centred scores with its error, or a dash with the reason."""
    value = result["metrics"].get(name)
    if value is None:
        return notes.dash(reason)
    return percent(value, result["metrics"].get(f"{name}_ci95"), whole=1, digits=4)


def _core_row(results, notes):
    result = results.get("base_eval", NOT_RUN)
    tasks = result["metrics"].get("tasks")
    size = f"{len(tasks)} tasks" if tasks else ""
    reason = dict(skipped(result)).get("", "Not run: `python -m scripts.base_eval`.")
    cells = [_centered(result, "core", notes, reason)]
    for _ in PHASES[1:]:
        cells.append(notes.dash("CORE measures the base model only."))
    return ["CORE", "", size, "0", *cells]


def _chatcore_row(results, notes):
    counts = []
    for phase in PHASES:
        records = scores(results, phase).values()
        counts.append(sum(record["group"] == "core" for record in records))
    tasks = _sizes(counts)
    cells = []
    for phase in PHASES:
        result = results.get(f"chat_eval_{phase}", NOT_RUN)
        reason = "The mean of the benchmarks above, which are missing."
        cells.append(_centered(result, "chatcore", notes, reason))
    return ["ChatCORE", "", f"{tasks} tasks" if tasks else "", "0", *cells]


def _task_row(results, task, split, notes):
    found = []
    cells = []
    for phase in PHASES:
        record = scores(results, phase).get(task)
        if record:
            found.append(record)
            cells.append(percent(record["score"], record.get("ci95")))
        else:
            cells.append(notes.dash(why_missing(results, phase, task)))
    size = _sizes(record["n"] for record in found)
    chance = percent(found[0]["chance"]) if found else ""
    return [task_title(task), split, size, chance, *cells]


def _sizes(counts):
    """'3', or '3 to 7' where the stages differ."""
    measured = sorted({count for count in counts if count})
    if not measured:
        return ""
    if len(measured) == 1:
        return f"{measured[0]:,}"
    return f"{measured[0]:,} to {measured[-1]:,}"
