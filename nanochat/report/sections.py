"""
The report's sections below its scores: stages of training side by side, base model, tokenizer, commands.
"""
import shlex
from collections.abc import Callable

from nanochat.report.markdown import duration, human, inline, percent, table
from nanochat.report.results import NOT_RUN, stage_title, task_title
from nanochat.train.stages import STAGES

SAMPLE_CHARS = 150  # of a sample: a base model repeats itself soon
MODEL = ("{n_layer} layers, {n_embd} wide, {n_head} heads ({n_kv_head} for keys and values), "
         "context {sequence_len:,}, vocabulary {vocab_size:,}.").format_map

# metric of a stage of training -> (label with its unit, how it is written), in the order of the table
FOUR_PLACES = "{:.4f}".format
ROWS: dict[str, tuple[str, Callable[..., str]]] = {
    "tokens": ("tokens trained on", human),
    "steps": ("optimizer steps", human),
    "skipped": ("steps skipped, not finite", human),
    "final_loss": ("training loss at the end, nats a token", FOUR_PLACES),
    "val_loss": ("validation loss, nats a token", FOUR_PLACES),
    "val_bpb": ("validation, bits a byte", FOUR_PLACES),
    "reward_start": ("mean reward, first tenth of the steps", FOUR_PLACES),
    "reward_end": ("mean reward, last tenth", FOUR_PLACES),
    "tok_per_s": ("speed, tokens a second", "{:,.0f}".format),
    "total_flops": ("compute, FLOP", "{:.2e}".format),
    "mfu": ("of the hardware's peak (MFU)", "{:.1%}".format),
    "train_s": ("time in training steps", duration),
}
NOT_OF_REWARDS = ("final_loss", "tok_per_s", "total_flops", "mfu")  # where sampling takes the time


def training(results: dict[str, dict]) -> list[str]:
    """The stages of training side by side."""
    stages = {row.script: results[row.script]["metrics"] for row in STAGES.values() if row.script in results}
    rows = []
    for key, (label, write) in ROWS.items():
        cells = []
        for metrics in stages.values():
            hidden = key in NOT_OF_REWARDS and "reward_end" in metrics
            value = None if hidden else metrics.get(key)
            cells.append("" if value is None else write(value))
        if set(cells) - {"", "0"}:
            rows.append([label, *cells])
    lines = []
    for metrics in stages.values():
        if not lines:  # later ones have the same
            lines += [MODEL(metrics["model"]), "", *table(["what", *map(stage_title, stages)], rows)]
        if metrics.get("task"):
            lines += [f"Rewarded for: {'; '.join(map(task_title, metrics['task'].split('|')))}.", ""]
    return lines


def tokenizer(results: dict[str, dict]) -> list[str]:
    """How far it compresses texts, beside GPT-2's and GPT-4's where those were at hand."""
    made = results.get("tok_train", NOT_RUN)["metrics"]
    lines = []
    if made:
        lines += [f"{made['vocab_size']:,} tokens, learned from {human(made['chars'])} characters.", ""]
    found = results.get("tok_eval", NOT_RUN)["metrics"].get("rows") or []
    peers = {"gpt2_tokens": "GPT-2 tokens", "gpt4_tokens": "GPT-4 tokens"}
    known = [key for key in peers if any(row.get(key) for row in found)]
    rows = []
    for row in found:
        cells = [f"{row['bytes_per_token']:.2f}"]
        for key in known:
            more = row[key] / max(row["tokens"], 1) - 1
            cells.append(f"{row[key]:,} ({more:+.1%})")
        rows.append([row["text"], f"{row['bytes']:,}", f"{row['tokens']:,}", *cells])
    if rows:
        lines += table(["text", "bytes", "tokens", "bytes a token", *(peers[key] for key in known)], rows)
    return lines


def base_model(results: dict[str, dict]) -> list[str]:
    """What it says before anybody taught it to answer: how it continues prompts, and CORE task by task."""
    lines = []
    metrics = results.get("base_loss", NOT_RUN)["metrics"]
    if metrics:
        lines += [f"A sample of validation text takes it {metrics['val_bpb']:.4f} bits a byte, one of "
                  f"training text {metrics['train_bpb']:.4f}. How it goes on with a text:", ""]
    for sample in metrics.get("samples") or ():
        text = sample["text"]
        if len(text) > SAMPLE_CHARS:
            text = f"{text[:SAMPLE_CHARS].rpartition(' ')[0]} ..."
        lines += [f"> **{inline(sample['prompt'])}** {inline(text)}", ""]
    for name, result in results.items():
        if result["metrics"].get("tasks") and not name.startswith("chat_eval_"):
            lines += [f"### {stage_title(name)}", "", *_core_table(result["metrics"])]
    return lines


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
    return table(["task", "n", "right, %", "centered", "chance, %", "GPT-2", "medium", "large", "XL"], rows)


def notes(results: dict[str, dict]) -> list[str]:
    """What a reader of the numbers must know, a line each; what was skipped is told elsewhere."""
    stages = {}  # note -> titles of the stages
    for name, result in results.items():
        for note in result["notes"]:
            if not note.startswith("skipped"):
                task, colon, rest = note.partition(": ")
                told = task_title(task) + colon + rest
                stages.setdefault(told, []).append(stage_title(name))
    return [f"{'; '.join(titles)}: {note}" for note, titles in stages.items()]


def commands(results: dict[str, dict]) -> list[str]:
    """All that was run, in order, as a shell takes it."""
    lines = ["```bash"]
    for name, result in results.items():
        lines += [f"# {stage_title(name)}: {duration(result['wall_s'])} on {result['device']}",
                  command(name, result["config"])]
    return [*lines, "```", ""]


def command(name: str, config: dict) -> str:
    """The command that made this result; its stage is -i, and what was empty is left away."""
    script = name.replace("chat_eval_", "chat_eval -i ")
    words = ["python -m scripts." + script]
    for flag, value in config.items():
        if value not in (None, "") and flag != "stage":
            words.append(shlex.quote(f"--{flag}={value}"))
    return " ".join(words)
