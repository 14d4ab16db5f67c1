"""
The report's sections, one a stage: its numbers, what belongs to this stage alone, its curve, the command that
made it.
"""
import re
import shlex

from nanochat.eval.statistics import difference
from nanochat.report.markdown import duration, human, inline, percent, table
from nanochat.report.results import scores, stage_title, task_title

PICTURES = "report_files"  # beside report.md and its copy, so that the links hold in both

MODEL = ("{n_layer} layers, {n_embd} wide, {n_head} heads ({n_kv_head} for keys and values), "
         "context {sequence_len:,}, vocabulary {vocab_size:,}").format_map
NATS = "{:.4f} nats a token".format
BITS = "{:.4f} bits a byte".format
FLOP = "{:.2e} FLOP".format


def _hundredths(share):
    return f"{100 * share:.1f} %"


# metric -> (label, how it is written), in the order of the table; others follow under their own names
LABELS = {
    "model": ("model", MODEL),
    "params": ("parameters", "{:,}".format),
    "tokens": ("tokens trained on", human),
    "steps": ("optimizer steps", human),
    "final_loss": ("training loss at the end", NATS),
    "val_bpb": ("validation", BITS),
    "train_bpb": ("training text", BITS),
    "val_loss": ("validation loss", NATS),
    "tok_per_s": ("speed", "{:,.0f} tokens a second".format),
    "flops_per_token": ("compute a token", FLOP),
    "total_flops": ("compute in all", FLOP),
    "mfu": ("of the hardware's peak (MFU)", _hundredths),
    "train_s": ("time in training steps", duration),
    "chars": ("characters read", human),
    "seconds": ("time", duration),
    "vocab_size": ("vocabulary", human),
    "token_bytes_mean": ("bytes of a token, mean", human),
    "core": ("CORE", "{:.4f}".format),
    "reward_start": ("reward at the start", human),
    "reward_end": ("reward at the end", human),
    "task": ("task", str),
}


def section(name: str, results: dict[str, dict], pictures: dict[str, str]) -> list[str]:
    """The lines about one stage; `pictures` as draw_all() gives them."""
    result = results[name]
    metrics = result["metrics"]
    label = stage_title(name)
    lines = [f"### {label}", ""]
    rows = metric_rows(name, metrics)
    if rows:
        lines += table(["", ""], rows, left=2)
    lines += _of_this_stage(name, results)
    if name in pictures:
        lines += [f"![{label}]({PICTURES}/{pictures[name]})", ""]
    notes = []
    for note in result["notes"]:
        if not re.match(r"skipped:? \w+: ", note):  # those have a section of their own
            notes.append(f"- {note}")
    if notes:
        lines += [*notes, ""]
    where = f"{duration(result['wall_s'])} on {result['device']}, commit {result['commit']}"
    lines += [f"<details><summary>{where}</summary>", "", "```bash", command(name, result["config"]), "```",
              "</details>", ""]
    return lines


def _of_this_stage(name, results):
    """What no other stage has."""
    metrics = results[name]["metrics"]
    lines = []
    if metrics.get("rows"):
        lines += _tokenizer_table(metrics["rows"])
    for sample in metrics.get("samples") or ():
        lines += [f"> **{inline(sample['prompt'])}** {inline(sample['text'])}", ""]
    if name.startswith("chat_eval_"):
        records = (metrics.get("tasks") or {}).values()
        questions = sum(record["n"] for record in records)
        lines += [f"{len(records)} tasks, {questions:,} questions; the scores are in the summary.", ""]
    elif metrics.get("tasks"):
        lines += _core_table(metrics)
    if name == "chat_rl":
        lines += rl_change(results)
    return lines


def command(name: str, config: dict) -> str:
    """The command that made this result; its stage is -i, and what was empty is left away."""
    script = name.removesuffix("_control").replace("chat_eval_", "chat_eval -i ")
    words = ["python -m scripts." + script]
    for flag, value in config.items():
        if value not in (None, "") and flag != "stage":
            words.append(shlex.quote(f"--{flag}={value}"))
    return " ".join(words)


def metric_rows(name: str, metrics: dict) -> list[tuple[str, str]]:
    """(label, value) of the plain numbers among a stage's metrics."""
    hidden = {"log", "chatcore"}
    if name != "base_train":  # where they are told once
        hidden |= {"model", "params", "flops_per_token"}
    if name == "chat_rl":  # sampling takes the time
        hidden |= {"final_loss", "tok_per_s", "mfu", "total_flops"}
    order = [*LABELS, *metrics]
    rows = []
    for key in sorted(metrics.keys() - hidden, key=order.index):
        value = metrics[key]
        if key == "model" or not isinstance(value, (dict, list, type(None))):
            label, write = LABELS.get(key, (key.replace("_", " "), human))
            rows.append((label, write(value)))
    return rows


def _tokenizer_table(rows):
    header = ["text", "bytes", "tokens", "bytes a token"]
    lines = []
    for row in rows:
        ratio = f"{row['bytes_per_token']:.2f}"
        lines.append([row["text"], f"{row['bytes']:,}", f"{row['tokens']:,}", ratio])
    for key, label in (("gpt2_tokens", "GPT-2"), ("gpt4_tokens", "GPT-4")):
        if not any(row.get(key) for row in rows):
            continue
        header += [f"{label} tokens", "more than ours"]
        for line, row in zip(lines, rows):
            theirs = row.get(key)
            if theirs:
                line += [f"{theirs:,}", f"{theirs / max(row['tokens'], 1) - 1:+.1%}"]
            else:
                line += ["-", "-"]
    return table(header, lines)


def _core_table(metrics):
    gpt2 = metrics.get("gpt2") or {}
    rows = []
    for name, task in metrics["tasks"].items():
        accuracy = percent(task["accuracy"], task.get("ci95"))
        chance = percent(task["chance"]) if "chance" in task else ""
        peers = gpt2.get(name, [""] * 4)
        rows.append([name, f"{task['n']:,}", accuracy, f"{task['centered']:.4f}", chance, *peers])
    if "CORE" in gpt2:
        core = percent(metrics["core"], metrics["core_ci95"], whole=1, digits=4)
        rows.append(["CORE", "", "", core, "", *gpt2["CORE"]])
    return table(["task", "n", "accuracy, %", "centered", "chance", "GPT-2", "medium", "large", "XL"], rows)


# ---- what reinforcement learning changed
def rl_change(results: dict[str, dict]) -> list[str]:
    """SFT and RL task by task, the trained ones first: did these get better, and did the others suffer?

    "within noise" where the 95 % interval of the difference holds 0. Of tasks that did not change at all, one
    in twenty leaves it by chance, so the text says how many would.
    """
    before = scores(results, "sft")
    after = scores(results, "rl")
    trained = str(results["chat_rl"]["metrics"].get("task", "")).split("|")
    both = [task for task in after if task in before]
    both.sort(key=lambda task: task not in trained)
    if not both:
        return ["Its effect is not known: chat_eval was not run after both SFT and RL.", ""]
    rows = []
    moved = []
    for task in both:
        change, low, high = (100 * share for share in difference(before[task], after[task]))
        verdict = _verdict(low, high)
        label = task_title(task)
        if task in trained:
            label = f"**{label}** (trained)"
        elif verdict != "within noise":
            moved.append(f"{label} {verdict}")
        rows.append([label, percent(before[task]["score"]), percent(after[task]["score"]), f"{change:+.1f}",
                     f"{low:+.1f} to {high:+.1f}", verdict])
    others = sum(task not in trained for task in both)
    told = (f"Of the {others} tasks that were not trained, {', '.join(moved) or 'none'} changed by more than "
            f"the noise (chance alone would move {others / 20:.1f}).")
    return [*table(["", "SFT, %", "RL, %", "change", "95 % interval", ""], rows), told, ""]


def _verdict(low, high):
    if low > 0:
        return "up"
    if high < 0:
        return "down"
    return "within noise"
