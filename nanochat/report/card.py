"""
The report card: report/results/*.json and logs/*.jsonl in, report.md with curves out.

    python -m nanochat.report reset       forget earlier results and start the clock
    python -m nanochat.report generate    write report/report.md, and a copy into --out

Errors are 95 % intervals: Wilson's for one score, Newcombe's for the difference of two (1998, method 10).
"""
import itertools
import math
import re
import shlex
import shutil
import time
from datetime import datetime
from pathlib import Path

from nanochat import kindergarten
from nanochat.common import (
    DataError,
    MissingArtifact,
    atomic_write,
    base_dir,
    git_commit,
    log,
    read_json,
    write_json,
)
from nanochat.report.inventory import code_size, dependencies, hardware
from nanochat.report.markdown import Footnotes, duration, human, inline, percent, table, wall_clock
from nanochat.report.plots import draw, load_log
from nanochat.tasks import PREFIX, TASKS, in_group

PICTURES = "report_files"  # beside report.md and its copy, so that the links hold in both
PHASES = ("base", "mid", "sft", "rl")
STAGES = {"tok_train": "Tokenizer training", "tok_eval": "Tokenizer evaluation", "base_train": "Pretraining",
          "base_loss": "Bits per byte and samples", "base_eval": "CORE", "chat_eval_base": "Chat evaluation, base",
          "mid_train": "Midtraining", "chat_eval_mid": "Chat evaluation, mid", "chat_sft": "Supervised finetuning",
          "chat_eval_sft": "Chat evaluation, SFT", "chat_rl": "Reinforcement learning",
          "chat_eval_rl": "Chat evaluation, RL"}
BENCHMARKS = sorted(in_group("core"))
SKILLS = in_group("kindergarten")


# ---- sources
def load_results():
    """{name: result} of every file. Raises DataError for one that cannot be used, MissingArtifact for none."""
    folder, results = base_dir() / "report" / "results", {}
    for path in sorted(folder.glob("*.json")):
        results[path.stem] = result = read_json(path)
        if not isinstance(result, dict) or not isinstance(result.get("metrics"), dict):
            raise DataError(f"{path} is not a stage's result. Delete it and run that stage again.")
    if not results:
        raise MissingArtifact("any stage's result", folder, "bash speedrun.sh")
    return {name: results[name] for name in [*STAGES, *results] if name in results}


def draw_all(results, folder):
    """{stage: file name} of the curves drawn into `folder`."""
    pictures = {}
    for name, result in results.items():
        records = load_log(base_dir() / path) if (path := result["metrics"].get("log")) else []
        if any("loss" in r for r in records):
            pictures[name] = f"{name}.png"
            draw(records, folder / pictures[name])
    return pictures


def since_reset(results):
    """Seconds from reset to the last result; None without a reset."""
    path = base_dir() / "report" / "start.json"
    if path.exists():
        ends = [datetime.strptime(r["time"], "%Y-%m-%dT%H:%M:%S%z").timestamp() for r in results.values()]
        return max(ends) - read_json(path)["start"]


# ---- summary
NOT_RUN = {"metrics": {}, "notes": []}


def scores(results, phase):
    """{task: its record} of the chat evaluation after `phase`."""
    return results.get(f"chat_eval_{phase}", NOT_RUN)["metrics"].get("tasks") or {}


def title(task):
    return TASKS[task].title if task in TASKS else task


def skipped(result):
    """[(task, or "" for the whole stage, reason)] of the notes "skipped: task: reason", in a command as TASK."""
    found = [re.match(r"skipped:? (?:(\w+): )?(.*)", note, re.DOTALL) for note in result["notes"]]
    return [(match[1] or "", match[2].replace(f"-a {match[1]}", "-a TASK")) for match in found if match]


def why_missing(results, phase, task):
    name, command = f"chat_eval_{phase}", f"python -m scripts.chat_eval -i {phase}"
    if name not in results:
        return f"Not run: `{command}`."
    return dict(skipped(results[name])).get(task, f"Not asked for: `{command} -a TASK`.")


def _centered(result, name, notes, reason):
    value, interval = map(result["metrics"].get, (name, f"{name}_ci95"))
    return notes.dash(reason) if value is None else percent(value, interval, 1, 4)


def _core_row(results, notes):
    result = results.get("base_eval", NOT_RUN)
    tasks = result["metrics"].get("tasks")
    reason = dict(skipped(result)).get("", "Not run: `python -m scripts.base_eval`.")
    return ["CORE", "", f"{len(tasks)} tasks" if tasks else "", "0", _centered(result, "core", notes, reason),
            *[notes.dash("CORE measures the base model only.")] * 3]


def _sizes(counts):
    """'3', or '3 to 7' where the stages differ."""
    ends = sorted({n for n in counts if n})
    return " to ".join(f"{n:,}" for n in ends[:1] + ends[1:][-1:])


def _chatcore_row(results, notes):
    tasks = _sizes(sum(task["group"] == "core" for task in scores(results, phase).values()) for phase in PHASES)
    cells = [_centered(results.get(f"chat_eval_{phase}", NOT_RUN), "chatcore", notes,
                       "The mean of the benchmarks above, which are missing.") for phase in PHASES]
    return ["ChatCORE", "", f"{tasks} tasks" if tasks else "", "0", *cells]


def _task_row(results, task, split, notes):
    records = [scores(results, phase).get(task) for phase in PHASES]
    found = [record for record in records if record]
    cells = [percent(record["score"], record.get("ci95")) if record else notes.dash(why_missing(results, phase, task))
             for phase, record in zip(PHASES, records)]
    return [title(task), split, _sizes(r["n"] for r in found), percent(found[0]["chance"]) if found else "", *cells]


def skill_means(results):
    """The skills' mean after each phase; "" where one was not measured."""
    records = [[scores(results, phase).get(task) for task in SKILLS] for phase in PHASES]
    return [percent(sum(r["score"] for r in all_of) / len(SKILLS)) if all(all_of) else "" for all_of in records]


def summary(results):
    notes, measured = Footnotes(), set().union(*(scores(results, phase) for phase in PHASES))
    rows = [_core_row(results, notes), *(
        _task_row(results, task, "test", notes) for task in BENCHMARKS
        if task in measured or TASKS[task].source),  # SpellingBee only where measured
        _chatcore_row(results, notes)]
    if measured & set(SKILLS):
        rows.append(["**Kindergarten**"] + [""] * 7)
        rows += [_task_row(results, PREFIX + name, skill.split, notes) for name, skill in kindergarten.SKILLS.items()]
        rows.append([f"mean of the {len(SKILLS)} skills", "", "", "", *skill_means(results)])
    rows += [_task_row(results, task, "", notes) for task in sorted(measured - set(BENCHMARKS) - set(SKILLS))]
    return [*table(["", "split", "n", "chance", "BASE", "MID", "SFT", "RL"], rows, left=2),
            "Per cent of n answers that are right, ± the longer side of the 95 % interval; chance is what blind "
            "guessing gets. CORE and ChatCORE are means of centered scores: 0 is blind guessing, 1 is perfection.", "",
            *notes.lines()]


# ---- stages
def _command(name, config):
    script = name.removesuffix("_control").replace("chat_eval_", "chat_eval -i ")
    flags = [f"--{k}={v}" for k, v in config.items() if v not in (None, "") and k != "stage"]  # which is -i
    return " ".join(["python -m scripts." + script, *map(shlex.quote, flags)])


MODEL = ("{n_layer} layers, {n_embd} wide, {n_head} heads ({n_kv_head} for keys and values), "
         "context {sequence_len:,}, vocabulary {vocab_size:,}").format_map
# metric -> (label, how it is written); others are shown under their own names
NATS, BITS, FLOP = "{:.4f} nats a token".format, "{:.4f} bits a byte".format, "{:.2e} FLOP".format
LABELS = {
    "model": ("model", MODEL), "params": ("parameters", "{:,}".format),
    "tokens": ("tokens trained on", human), "steps": ("optimizer steps", human),
    "final_loss": ("training loss at the end", NATS), "val_bpb": ("validation", BITS),
    "train_bpb": ("training text", BITS), "val_loss": ("validation loss", NATS),
    "tok_per_s": ("speed", "{:,.0f} tokens a second".format), "flops_per_token": ("compute a token", FLOP),
    "total_flops": ("compute in all", FLOP), "mfu": ("of the hardware's peak (MFU)", lambda x: f"{100 * x:.1f} %"),
    "train_s": ("time in training steps", duration), "chars": ("characters read", human), "seconds": ("time", duration),
    "vocab_size": ("vocabulary", human), "token_bytes_mean": ("bytes of a token, mean", human),
    "core": ("CORE", "{:.4f}".format), "reward_start": ("reward at the start", human),
    "reward_end": ("reward at the end", human), "task": ("task", str)}


def metric_rows(name, metrics):
    """(label, value) of the plain numbers among a stage's metrics."""
    hidden = {"log", "chatcore"}
    if name != "base_train":  # where they are told once
        hidden |= {"model", "params", "flops_per_token"}
    if name == "chat_rl":  # sampling takes the time
        hidden |= {"final_loss", "tok_per_s", "mfu", "total_flops"}
    for key in sorted(metrics.keys() - hidden, key=[*LABELS, *metrics].index):
        if key == "model" or not isinstance(metrics[key], (dict, list, type(None))):
            label, write = LABELS.get(key, (key.replace("_", " "), human))
            yield label, write(metrics[key])


def _tokenizer_table(rows):
    header = ["text", "bytes", "tokens", "bytes a token"]
    lines = [[row["text"], f"{row['bytes']:,}", f"{row['tokens']:,}", f"{row['bytes_per_token']:.2f}"] for row in rows]
    for key, label in (("gpt2_tokens", "GPT-2"), ("gpt4_tokens", "GPT-4")):
        if any(row.get(key) for row in rows):
            header += [f"{label} tokens", "more than ours"]
            for line, row in zip(lines, rows):
                theirs = row.get(key)
                line += [f"{theirs:,}", f"{theirs / max(row['tokens'], 1) - 1:+.1%}"] if theirs else ["-", "-"]
    return table(header, lines)


def _core_table(metrics):
    tasks, gpt2 = metrics["tasks"].items(), metrics.get("gpt2") or {}
    rows = [[name, f"{task['n']:,}", percent(task["accuracy"], task.get("ci95")), f"{task['centered']:.4f}",
             percent(task["chance"]) if "chance" in task else "", *gpt2.get(name, [""] * 4)] for name, task in tasks]
    if "CORE" in gpt2:
        rows.append(["CORE", "", "", percent(metrics["core"], metrics["core_ci95"], 1, 4), "", *gpt2["CORE"]])
    return table("task|n|accuracy, %|centered|chance|GPT-2|medium|large|XL".split("|"), rows)


def difference(before, after):
    """(change, low, high): Newcombe's 95 % interval of after - before, from the scores and their Wilson intervals."""
    (p, (pl, pu)), (q, (ql, qu)) = (before["score"], before["ci95"]), (after["score"], after["ci95"])
    d = q - p
    return d, d - math.hypot(q - ql, pu - p), d + math.hypot(qu - q, p - pl)


def rl_change(results):
    before, after = scores(results, "sft"), scores(results, "rl")
    trained = str(results["chat_rl"]["metrics"].get("task", "")).split("|")
    both = sorted((task for task in after if task in before), key=lambda task: task not in trained)
    if not both:
        return ["Its effect is not known: chat_eval was not run after both SFT and RL.", ""]
    rows, moved, others = [], [], sum(task not in trained for task in both)
    for task in both:
        change, low, high = (100 * x for x in difference(before[task], after[task]))
        verdict = "up" if low > 0 else "down" if high < 0 else "within noise"
        if task not in trained and verdict != "within noise":
            moved.append(f"{title(task)} {verdict}")
        rows.append([f"**{title(task)}** (trained)" if task in trained else title(task), percent(before[task]["score"]),
                     percent(after[task]["score"]), f"{change:+.1f}", f"{low:+.1f} to {high:+.1f}", verdict])
    return [*table(["", "SFT, %", "RL, %", "change", "95 % interval", ""], rows),
            f"Of the {others} tasks that were not trained, {', '.join(moved) or 'none'} changed by more than the noise "
            f"(chance alone would move {others / 20:.1f}).", ""]


def section(name, results, pictures):
    result, metrics, label = results[name], results[name]["metrics"], STAGES.get(name, name)
    lines = [f"### {label}", ""]
    if rows := list(metric_rows(name, metrics)):
        lines += table(["", ""], rows, left=2)
    lines += _tokenizer_table(metrics["rows"]) if metrics.get("rows") else []
    for sample in metrics.get("samples") or ():
        lines += [f"> **{inline(sample['prompt'])}** {inline(sample['text'])}", ""]
    if name.startswith("chat_eval_"):
        sizes = [task["n"] for task in (metrics.get("tasks") or {}).values()]
        lines += [f"{len(sizes)} tasks, {sum(sizes):,} questions; the scores are in the summary.", ""]
    elif metrics.get("tasks"):
        lines += _core_table(metrics)
    lines += rl_change(results) if name == "chat_rl" else []
    lines += [f"![{label}]({PICTURES}/{pictures[name]})", ""] if name in pictures else []
    if told := [f"- {note}" for note in result["notes"] if not re.match(r"skipped:? \w+: ", note)]:
        lines += [*told, ""]
    return lines + [f"<details><summary>{duration(result['wall_s'])} on {result['device']}, commit {result['commit']}"
                    "</summary>", "", "```bash", _command(name, result["config"]), "```", "</details>", ""]


# ---- command
def _headline(results, stages_s):
    what, total = "", since_reset(results)
    if trained := results.get("base_train"):
        m, data = trained["metrics"], Path(str(trained["config"].get("dataset", "text"))).name
        what = (f"A language model of {human(m['params'])} parameters, trained from nothing on {human(m['tokens'])} "
                f"tokens of {data}.")
    if means := [(phase, mean) for phase, mean in zip(PHASES, skill_means(results)) if mean]:
        what += f" After {means[-1][0].upper()} it answers {means[-1][1]} % of the kindergarten's questions."
    clock = "not known (`python -m nanochat.report reset` starts the clock)" if total is None else wall_clock(total)
    return [what, "", f"**Total wall clock time: {clock}** (the stages themselves: {duration(stages_s)})", ""]


def _where(results):
    versions = {name: version for r in results.values() for name, version in r["versions"].items()}
    devices = sorted({str(r["device"]) for r in results.values()} - {"cpu"})
    return table(["", ""], [("date", max(r["time"] for r in results.values())[:16].replace("T", " ")),
                            ("commit", ", ".join(sorted({r["commit"] for r in results.values()}))),
                            ("machine", hardware()), ("computed on", "; ".join(devices) or "CPU"),
                            ("versions", ", ".join(f"{k} {v}" for k, v in sorted(versions.items())))], left=2)


def _code():
    (_, *ours), (_, *aside) = sizes = code_size()
    sizes.append(("all", *map(sum, zip(ours, aside))))
    rows = [[what, *(f"{n:,}" for n in (*counts, counts[-1] // 4))] for what, *counts in sizes]
    names = dependencies()
    return ["## The code", "", *table(["", "files", "lines", "characters", "tokens (characters / 4)"], rows),
            f"{len(names)} direct dependencies: {', '.join(names)}.", ""]


def _skipped(results):
    reasons = {}
    for name, result in results.items():
        for task, reason in skipped(result):
            tasks, stages = reasons.setdefault(reason, ({}, {}))
            tasks[title(task)] = stages[STAGES.get(name, name)] = None
    told = [f"- {'; '.join(stages)}: {', '.join(tasks)}{': ' if any(tasks) else ''}{reason}"
            for reason, (tasks, stages) in reasons.items()]
    told += [f"- {label}: the stage was not run." for name, label in STAGES.items() if name not in results]
    return ["## What was skipped", "", *(told or ["Nothing."]), ""]


def render(results, pictures):
    stages_s = sum(r["wall_s"] for r in results.values())
    spent = [[STAGES.get(name, name), duration(r["wall_s"]), f"{r['wall_s'] / max(stages_s, 1e-9):.0%}"]
             for name, r in results.items()]
    return "\n".join([
        "# nanochat report card", "", *_headline(results, stages_s), "## Summary", "", *summary(results), "",
        "## Stages", "", *itertools.chain(*(section(name, results, pictures) for name in results)),
        "## Where the time went", "", *table(["stage", "time", "share"], spent), *_skipped(results),
        "## Where it ran", "", *_where(results), *_code()])


def reset():
    folder = base_dir() / "report"
    for name in ("results", PICTURES):
        shutil.rmtree(folder / name, ignore_errors=True)
    (folder / "report.md").unlink(missing_ok=True)
    write_json(folder / "start.json", {"start": time.time(), "commit": git_commit()})
    log.info(f"report: earlier results removed, the clock is running ({folder})")


def generate(out):
    results, folder = load_results(), base_dir() / "report"
    pictures = draw_all(results, folder / PICTURES)
    path = folder / "report.md"
    atomic_write(path, render(results, pictures))
    log.info(f"report: {path}")
    if out and Path(out).resolve() != folder.resolve():
        for name in [f"{PICTURES}/{picture}" for picture in pictures.values()] + ["report.md"]:
            atomic_write(Path(out) / name, (folder / name).read_bytes())
        log.info(f"  copy: {Path(out) / 'report.md'}")
