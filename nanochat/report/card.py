"""
The report card: report/results/*.json and logs/*.jsonl in, report.md with curves out.

    python -m nanochat.report reset       forget earlier results and start the clock
    python -m nanochat.report generate    write report/report.md, and a copy into --out

Errors are 95 % intervals (eval/statistics.py): Wilson's for one score, Newcombe's for the difference of two.
"""
import contextlib
import shutil
import time
from pathlib import Path

from nanochat.common import atomic_write, base_dir, git_commit, is_there, log, read_json, write_json
from nanochat.report.inventory import code_size, dependencies, hardware
from nanochat.report.markdown import duration, human, table, wall_clock
from nanochat.report.results import (
    PHASES,
    TITLES,
    draw_all,
    load_results,
    since_reset,
    skipped,
    stage_title,
    task_title,
)
from nanochat.report.sections import PICTURES, section
from nanochat.report.summary import skill_means, summary


# ---- commands
def reset() -> None:
    """Forget earlier results, and start the clock."""
    folder = base_dir() / "report"
    for name in ("results", PICTURES):
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(folder / name)
    (folder / "report.md").unlink(missing_ok=True)
    write_json(folder / "start.json", {"start": time.time(), "commit": git_commit()})
    log.info(f"report: earlier results removed, the clock is running ({folder})")


def generate(out: str) -> None:
    """Write report/report.md with its pictures, and a copy of both into the folder `out` ("": none)."""
    results = load_results()
    folder = base_dir() / "report"
    pictures = draw_all(results, folder / PICTURES)
    path = folder / "report.md"
    atomic_write(path, render(results, pictures))
    log.info(f"report: {path}")
    if out and Path(out).resolve() != folder.resolve():
        try:
            for picture in pictures.values():
                _copy(f"{PICTURES}/{picture}", folder, Path(out))
            _copy("report.md", folder, Path(out))
            log.info(f"  copy: {Path(out) / 'report.md'}")
        except OSError as error:
            if out != ".":  # asked for by name
                raise
            log.info(f"  no copy in this folder: {error.strerror}")


def _copy(name, source, target):
    atomic_write(target / name, (source / name).read_bytes())


# ---- the page
def render(results: dict[str, dict], pictures: dict[str, str]) -> str:
    """The whole of report.md."""
    stages_s = sum(result["wall_s"] for result in results.values())
    lines = ["# nanochat report card", "", *_headline(results, stages_s)]
    lines += ["## Summary", "", *summary(results), ""]
    lines += ["## Stages", ""]
    for name in results:
        lines += section(name, results, pictures)
    lines += ["## Where the time went", "", *_time_table(results, stages_s)]
    lines += ["## What was skipped", "", *_skipped(results)]
    lines += ["## Where it ran", "", *_where(results)]
    lines += ["## The code", "", *_code()]
    return "\n".join(lines)


def _headline(results, stages_s):
    """What was trained, what it can do, how long it took."""
    what = ""
    trained = results.get("base_train")
    if trained:
        metrics = trained["metrics"]
        data = Path(str(trained["config"].get("dataset", "text"))).name
        what = (f"A language model of {human(metrics['params'])} parameters, trained from nothing on "
                f"{human(metrics['tokens'])} tokens of {data}.")
    measured = [(phase, mean) for phase, mean in zip(PHASES, skill_means(results)) if mean]
    if measured:
        phase, mean = measured[-1]
        what += f" After {phase.upper()} it answers {mean} % of the kindergarten's questions."
    total = since_reset(results)
    clock = "not known (`python -m nanochat.report reset` starts the clock)"
    if total is not None:
        clock = wall_clock(total)
    return [what, "", f"**Total wall clock time: {clock}** (the stages themselves: {duration(stages_s)})", ""]


def _time_table(results, stages_s):
    """Beside what was planned, where a budget was."""
    path = base_dir() / "plan.json"
    planned = read_json(path)["seconds"] if is_there(path) else {}
    if "chat_eval" in planned:
        evaluations = [name for name in results if name.startswith("chat_eval_")]
        planned |= dict.fromkeys(evaluations, planned["chat_eval"] / 4)
    rows = []
    for name, result in results.items():
        share = result["wall_s"] / max(stages_s, 1e-9)
        row = [stage_title(name), duration(result["wall_s"]), f"{share:.0%}"]
        if planned:
            row.append(duration(planned[name]) if name in planned else "")
        rows.append(row)
    head = ["stage", "time", "share"]
    if planned:
        head.append("planned")
    lines = table(head, rows)
    if planned:
        whole = sum(seconds for name, seconds in planned.items() if not name.startswith("chat_eval_"))
        lines += [f"Planned in all: {duration(whole)}, {duration(planned['starting'])} of it to measure the "
                  "machine and to start the stages.", ""]
    return lines


def _skipped(results):
    """A line for each reason, with all the stages and tasks that it holds for, and one for each stage not
    run."""
    reasons = {}  # reason -> (stages, tasks), both as dicts: sets that keep their order
    for name, result in results.items():
        for task, reason in skipped(result):
            stages, tasks = reasons.setdefault(reason, ({}, {}))
            stages[stage_title(name)] = True
            tasks[task_title(task)] = True
    lines = []
    for reason, (stages, tasks) in reasons.items():
        where = "; ".join(stages)
        what = ", ".join(tasks)
        colon = ": " if any(tasks) else ""  # "" is no task but the whole stage
        lines.append(f"- {where}: {what}{colon}{reason}")
    for name, title in TITLES.items():
        if name not in results:
            lines.append(f"- {title}: the stage was not run.")
    return [*(lines or ["Nothing."]), ""]


def _where(results):
    """The machine, the commit, the versions."""
    versions = {}
    devices = set()
    commits = set()
    for result in results.values():
        versions |= result["versions"]
        devices.add(str(result["device"]))
        commits.add(result["commit"])
    devices.discard("cpu")
    latest = max(result["time"] for result in results.values())
    rows = [("date", latest[:16].replace("T", " ")),
            ("commit", ", ".join(sorted(commits))),
            ("machine", hardware()),
            ("computed on", "; ".join(sorted(devices)) or "CPU"),
            ("versions", ", ".join(f"{name} {version}" for name, version in sorted(versions.items())))]
    return table(["", ""], rows, left=2)


def _code():
    """How much there is to read. A token is about four characters, so it says whether a language model
    can."""
    totals = [0, 0, 0]
    rows = []
    for what, *counts in code_size():
        totals = [total + count for total, count in zip(totals, counts)]
        rows.append(_size_row(what, counts))
    rows.append(_size_row("all", totals))
    names = dependencies()
    return [*table(["", "files", "lines", "characters", "tokens (characters / 4)"], rows),
            f"{len(names)} direct dependencies: {', '.join(names)}.", ""]


def _size_row(what, counts):
    files, lines, characters = counts
    return [what, f"{files:,}", f"{lines:,}", f"{characters:,}", f"{characters // 4:,}"]
