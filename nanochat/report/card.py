"""
The report card: report/results/*.json, report/items and logs/*.jsonl in, report.md and report.html out.

    python -m nanochat.report reset       forget earlier results and start the clock
    python -m nanochat.report generate    write report/report.md and report.html, and a copy into --out

What it opens with is for everybody; how it was made, in numbers, stands below.
"""
import contextlib
import shutil
import time
from pathlib import Path

from nanochat.common import atomic_write, base_dir, git_commit, is_there, log, read_json, write_json
from nanochat.report import sections, webpage
from nanochat.report.dialogue import dialogue
from nanochat.report.inventory import code_size, dependencies, hardware
from nanochat.report.markdown import duration, human, table, wall_clock
from nanochat.report.plots import (
    Curve,
    chart_rows,
    curves_told,
    draw_curves,
    draw_skills,
    load_curves,
    skills_told,
)
from nanochat.report.results import load_results, missing, shareable, since_reset, stage_title
from nanochat.report.summary import headline, score_rows, score_table
from nanochat.train.stages import STAGES

PICTURES = "report_files"  # beside report.md and its copy, so that the links hold in both
SKILLS = f"{PICTURES}/skills.png"
CURVES = f"{PICTURES}/curves.png"


# ---- commands
def reset() -> None:
    """Forget earlier results, and start the clock."""
    folder = base_dir() / "report"
    for name in ("results", PICTURES):
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(folder / name)
    for name in ("report.md", "report.html"):
        (folder / name).unlink(missing_ok=True)
    write_json(folder / "start.json", {"start": time.time(), "commit": git_commit()})
    log.info(f"report: earlier results removed, the clock is running ({folder})")


def generate(out: str) -> None:
    """Write report/report.md with its pictures and report.html, and a copy of all into `out` ("": none)."""
    results = shareable(load_results())
    curves = load_curves(results)
    skills = chart_rows(score_rows(results))
    folder = base_dir() / "report"
    files = ["report.md", "report.html"]
    if curves:
        draw_curves(curves, folder / CURVES)
        files.append(CURVES)
    if skills:
        draw_skills(skills, folder / SKILLS)
        files.append(SKILLS)
    text = render(results, curves)
    atomic_write(folder / "report.md", text)
    atomic_write(folder / "report.html", webpage.write(text, skills, curves))
    log.info(f"report: {folder / 'report.html'}")
    if out and Path(out).resolve() != folder.resolve():
        try:
            for name in files:
                _copy(name, folder, Path(out))
            log.info(f"  copy: {Path(out) / 'report.html'}, report.md")
        except OSError as error:
            if out != ".":  # asked for by name
                raise
            log.info(f"  no copy in this folder: {error.strerror}")


def _copy(name, source, target):
    atomic_write(target / name, (source / name).read_bytes())


# ---- the page
def render(results: dict[str, dict], curves: list[Curve]) -> str:
    """The whole of report.md."""
    rows = score_rows(results)
    parts = {
        "": _opening(results, rows),
        "A talk with it": dialogue(results),
        "Scores": score_table(rows),
        "How it learned": _picture(CURVES, curves_told(curves)) if curves else [],
        "Training": sections.training(results),
        "Where the time went": _time_table(results),
        "The base model": sections.base_model(results),
        "The tokenizer": sections.tokenizer(results),
        "What to know of these numbers": _points(sections.notes(results)),
        "What was skipped": _points(missing(results) or ["Nothing."]),
        "Where it ran": _where(results),
        "What was run": sections.commands(results),
        "The code": _code(),
    }
    lines = ["# nanochat report card", ""]
    for title, part in parts.items():
        if part and title:
            lines += [f"## {title}", ""]
        lines += part
    return "\n".join(lines)


def _opening(results, rows):
    """The one number, what was trained, a chart."""
    number, meaning = headline(rows)
    lines = []
    if number:
        lines += [f"## {number}", "", meaning, ""]
    lines += [_trained(results), ""]
    skills = chart_rows(rows)
    if skills:
        lines += _picture(SKILLS, skills_told(skills))
    return lines


def _trained(results):
    """What was trained on what, where and how long."""
    what = ""
    if "base_train" in results:
        result = results["base_train"]
        metrics = result["metrics"]
        data = Path(str(result["config"].get("dataset", "text"))).name
        what = (f"A language model of {human(metrics['params'])} parameters, trained from nothing on "
                f"{human(metrics['tokens'])} tokens of {data}")
        later = [results[row.script] for row in STAGES.values() if row.chats and row.script in results]
        if later:
            tokens = sum(stage["metrics"]["tokens"] for stage in later)
            what += f" and {human(tokens)} tokens of conversations"
        what += f", on {result['device']}. "
    total = since_reset(results)
    clock = "not known (`python -m nanochat.report reset` starts the clock)"
    if total is not None:
        clock = wall_clock(total)
    stages_s = sum(result["wall_s"] for result in results.values())
    return f"{what}Total wall clock time: **{clock}** (the stages themselves: {duration(stages_s)})."


def _picture(name, told):
    return [f"![{told}]({name})", ""]


def _points(items):
    lines = [f"- {item}" for item in items]
    return [*lines, ""] if lines else []


def _time_table(results):
    """Beside what was planned, where a budget was."""
    stages_s = sum(result["wall_s"] for result in results.values())
    path = base_dir() / "plan.json"
    planned = read_json(path)["seconds"] if is_there(path) else {}
    if "chat_eval" in planned:
        evaluations = [name for name in results if name.startswith("chat_eval_")]
        planned |= dict.fromkeys(evaluations, planned["chat_eval"] / 4)
    rows = []
    for name, result in results.items():
        share = result["wall_s"] / max(stages_s, 1e-9)
        row = [stage_title(name), duration(result["wall_s"]), f"{share:.1%}"]
        if planned:
            row.append(duration(planned[name]) if name in planned else "")
        rows.append(row)
    rows.append(["all", duration(stages_s), "100.0%", *[""] * bool(planned)])
    head = ["stage", "time", "share"]
    if planned:
        head.append("planned")
    lines = table(head, rows)
    if planned:
        whole = sum(seconds for name, seconds in planned.items() if not name.startswith("chat_eval_"))
        lines += [f"Planned in all: {duration(whole)}, {duration(planned['starting'])} of it to measure the "
                  "machine and to start the stages.", ""]
    return lines


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
    return _points([f"{latest[:16].replace('T', ' ')}, commit {', '.join(sorted(commits))}",
                    f"{hardware()}; computed on {'; '.join(sorted(devices)) or 'CPU'}",
                    ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))])


def _code():
    """How much there is to read. A token is about four characters, so it says whether a language model
    can."""
    rows = []
    for what, files, lines, characters in code_size():
        rows.append([what, f"{files:,}", f"{lines:,}", f"{characters:,}", f"{characters // 4:,}"])
    names = dependencies()
    return [*table(["what", "files", "lines", "characters", "tokens (characters / 4)"], rows),
            f"{len(names)} direct dependencies: {', '.join(names)}.", ""]
