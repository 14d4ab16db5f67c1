"""
What every task's score was after each stage, one row a task: for the table, the chart, and the one number.

A score carries its 95 % interval (eval/statistics.py: Wilson's) and stands beside the chance level.
"""
from dataclasses import dataclass

from nanochat import kindergarten
from nanochat.eval.statistics import mean_centered
from nanochat.report.markdown import percent, table
from nanochat.report.results import BENCHMARKS, NOT_RUN, PHASES, SKILLS, scores, task_title, wanted
from nanochat.tasks import PREFIX

CORE = "CORE, of the base model"
CHATCORE = "ChatCORE"
MEAN = "Kindergarten, the mean"
CENTERED = "a mean of centered scores: 0 is blind guessing, 1 is perfection"
OF_WHAT = {CORE: " tasks", CHATCORE: " tasks", MEAN: " skills"}
STRANGERS = "strangers"
# The last of them that was measured, and is no blind guessing, opens the report: before its own tests what
# people get who meet it.
HEADLINES = {
    CORE: ("CORE {score}", "of the base model over {size}, " + CENTERED + "."),
    CHATCORE: ("ChatCORE {score}", "after {phase} over {size}, " + CENTERED + "."),
    MEAN: ("{score} %", "of the kindergarten's questions answered right after {phase}, the mean of {size}. "
           "Blind guessing gets {chance} %."),
    STRANGERS: ("{score} %", "of the {size} questions of strangers, who did not know what it learns, "
                "answered right after {phase}."),
}
LEGEND = ("Per cent of n answers that are right, ± the longer side of the 95 % interval; n is a range where "
          "stages were asked different numbers of questions. Chance is what blind guessing gets.")
SPLIT = ("Split: what of a test was in no training conversation, be it nothing (seen), the person (people), "
         "which two things meet (pairs), the word, the wording (paraphrase, wordings, templates), the story. "
         "Strangers are questions of people who did not know what it learns.")


@dataclass(frozen=True)
class ScoreRow:
    """The scores of a task or of a mean."""

    name: str
    records: dict[str, dict]  # phase -> {"score", "n", "chance", "ci95"}, at least one

    @property
    def title(self) -> str:
        return task_title(self.name)

    @property
    def split(self) -> str:
        """Which part of its data it is asked from."""
        if self.name in SKILLS:
            return kindergarten.SKILLS[self.name.removeprefix(PREFIX)].split
        return "test" if self.name in BENCHMARKS else ""

    @property
    def size(self) -> str:
        """How many questions, or of what it is the mean: '3', or '3 to 7' where the stages differ."""
        counts = sorted({record["n"] for record in self.records.values()})
        ends = f"{counts[0]:,}"
        if len(counts) > 1:
            ends += f" to {counts[-1]:,}"
        return ends + OF_WHAT.get(self.name, "")

    @property
    def last(self) -> dict:
        """The record of the last model that was asked."""
        return list(self.records.values())[-1]

    @property
    def is_centered(self) -> bool:
        """Whether it is no share of questions."""
        return self.name in (CORE, CHATCORE)

    def written(self, record: dict) -> str:
        """One of its scores with its error."""
        if self.is_centered:
            return percent(record["score"], record["ci95"], whole=1, digits=4)
        return percent(record["score"], record["ci95"])


def score_rows(results: dict[str, dict]) -> list[ScoreRow]:
    """What was measured: the benchmarks and their means, then the kindergarten, its mean first."""
    names = [CORE, CHATCORE, *wanted(results)]
    if SKILLS[0] in names:
        names.insert(names.index(SKILLS[0]), MEAN)
    rows = []
    for name in names:
        records = {}
        for phase in PHASES:
            record = _record(results, phase, name)
            if record:
                records[phase] = record
        if records:
            rows.append(ScoreRow(name, records))
    return rows


def _record(results, phase, name):
    """The score of a task or mean after a phase, or None."""
    tasks = scores(results, phase)
    if name == MEAN:
        return skill_mean(tasks)
    if name == CORE:
        result = "base_eval" if phase == "base" else ""
        return _centered(results, result, "core", "tasks")
    if name == CHATCORE:
        return _centered(results, f"chat_eval_{phase}", "chatcore", "chatcore_tasks")
    return tasks.get(name)


def _centered(results, result, name, of):
    metrics = results.get(result, NOT_RUN)["metrics"]
    if metrics.get(name) is None:
        return None
    return {"score": metrics[name], "ci95": metrics[f"{name}_ci95"], "chance": 0.0, "n": len(metrics[of])}


def skill_mean(tasks: dict[str, dict]) -> dict | None:
    """The mean of the kindergarten's skills, as a record; None where not all of them were measured."""
    if not set(SKILLS) <= set(tasks):
        return None
    raw = []
    chance = 0.0
    for name in SKILLS:
        raw.append({**tasks[name], "centered": tasks[name]["score"], "chance": 0.0})  # on 0 they stay
        chance += tasks[name]["chance"] / len(SKILLS)
    mean, ci95 = mean_centered(raw)
    return {"score": mean, "ci95": ci95, "chance": chance, "n": len(SKILLS)}


def headline(rows: list[ScoreRow]) -> tuple[str, str]:
    """(the one number, what it is), ("", "") where none of them was measured."""
    found = ("", "")
    by_name = {row.name: row for row in rows}
    for name, (number, meaning) in HEADLINES.items():
        row = by_name.get(name)
        if row is None or row.is_centered and row.last["ci95"][0] <= 0:
            continue
        told = {"score": row.written(row.last), "phase": list(row.records)[-1].upper(), "size": row.size,
                "chance": percent(row.last["chance"])}
        found = (number.format(**told), meaning.format(**told))
    return found


def score_table(rows: list[ScoreRow]) -> list[str]:
    """The table and its legend, of what was measured; what was not has a line elsewhere."""
    if not rows:
        return ["No model was asked anything.", ""]
    phases = measured_phases(rows)
    lines = []
    legend = {LEGEND: True}  # as dicts: sets that keep their order
    for row in rows:
        cells = []
        for phase in phases:
            cells.append(row.written(row.records[phase]) if phase in row.records else "-")
        lines.append([row.title, row.split, row.size, percent(row.last["chance"]), *cells])
        if row.name in SKILLS:
            legend[SPLIT] = True
        if row.is_centered:
            legend[f"CORE and ChatCORE: {CENTERED}."] = True
    header = ["task", "split", "n", "chance", *map(str.upper, phases)]
    return [*table(header, lines, left=2), " ".join(legend), ""]


def measured_phases(rows: list[ScoreRow]) -> list[str]:
    """The phases of which there is a score, in order."""
    found = set()
    for row in rows:
        found |= set(row.records)
    return sorted(found, key=PHASES.index)
