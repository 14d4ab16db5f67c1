"""
Graded questions: kept as lines of JSON, shown, compared between two models.

A record is {"task", "index", "prompt", "cut", "reference", "replies", "answers", "verdicts", "score"}. A
score alone tells whether a model got better; what it says to the questions tells why. So every record of
every evaluation is kept, one file a stage and task under report/items, and scripts.chat_eval shows and
compares them.
"""
import contextlib
import json
from collections.abc import Sequence
from pathlib import Path

from nanochat.common import DataError, UsageError, atomic_write, base_dir
from nanochat.data.chat_format import message_parts, plain_text
from nanochat.eval.statistics import paired_difference
from nanochat.kindergarten.typist import is_plain


# ---- kept on disk
def read_jsonl(path: Path, mend: str) -> list[dict]:
    """A JSON object a line. Raises DataError, which ends with `mend`, what to do about it."""
    try:
        with open(path, encoding="utf-8") as file:
            return [json.loads(line) for line in file if line.strip()]
    except (OSError, ValueError) as e:
        raise DataError(f"cannot read {path}: {e}. {mend}") from None


def items_path(stage: str, name: str) -> Path:
    """Where a task's records are kept. `stage`: base, mid, sft, rl or core, perhaps with "@" and a
    model tag."""
    return base_dir() / "report" / "items" / f"{stage}_{name}.jsonl"


def save_items(stage: str, name: str, records: list[dict], tag: str = "") -> None:
    """Write a task's records; rank 0 only. With a model tag they are kept apart from other models' of that
    stage."""
    if tag:
        stage = f"{stage}@{tag}"
    lines = [json.dumps(record, ensure_ascii=False) + "\n" for record in records]
    atomic_write(items_path(stage, name), "".join(lines))


def load_items(stage: str, name: str) -> list[dict]:
    """A task's records. Raises DataError, which names the command that makes them."""
    kind, _, tag = stage.partition("@")
    if kind == "core":
        command = "base_eval"
    else:
        command = f"chat_eval -i {kind} -a {name}"
    if tag:
        command += f" --tag={tag}"
    return read_jsonl(items_path(stage, name), f"Make it with: python -m scripts.{command}")


LONGEST_SUGGESTION = 50  # characters: it stands on a button


def passed_questions(stage: str, most: int = 6) -> list[str]:
    """Questions that were answered right in a stage's last evaluation, at most one a task; [] without one.

    For people who do not know what to ask: whole sentences without what was said before them, and no
    questions of strangers, which are to stay unread. A file that cannot be read has none to offer.
    """
    found = []
    for name in sorted(_graded_tasks(stage)):
        if name.startswith("strangers"):
            continue
        with contextlib.suppress(DataError):
            offered = [record for record in load_items(stage, name) if _offers(record)]
            found += [record["prompt"][0]["content"] for record in offered[:1]]
    apart = max(1, len(found) // most)
    return found[::apart][:most]


def _offers(record):
    """Whether the record holds one short question in good writing, and a right answer to it."""
    question = record["prompt"][0]["content"]
    is_sentence = is_plain(question) and question.endswith("?") and "\n" not in question
    is_alone = len(record["prompt"]) == 1 and len(question) <= LONGEST_SUGGESTION
    return record["score"] == 1 and is_alone and is_sentence


# ---- compared
def paired(before: list[dict], after: list[dict]) -> tuple[int, float, float, float]:
    """(n, mean, mean, half of the 95 % interval of their difference) of two models' records of the same
    questions.

    Raises DataError for other questions: then there are no pairs.
    """
    questions = [[_asked(record) for record in records] for records in (before, after)]
    if questions[0] != questions[1] or not before:
        raise DataError("the two stages were not graded on the same questions (they have "
                        f"{len(before):,} and {len(after):,}). Run scripts.chat_eval again for both, "
                        "with the same --max_problems.")
    old_scores = [record["score"] for record in before]
    new_scores = [record["score"] for record in after]
    return len(before), *paired_difference(old_scores, new_scores)


def _asked(record):
    """What must be the same in both: who is asked in a conversation has given the answers before it, too."""
    said = [message["content"] for message in record["prompt"] if message["role"] != "assistant"]
    return record["index"], said, record["reference"]


def _graded_tasks(stage):
    """Names of the tasks whose records are kept for a stage."""
    files = items_path(stage, "").parent.glob(f"{stage}_*.jsonl")
    return {path.stem.removeprefix(f"{stage}_") for path in files}


def compare(stages: Sequence[str], names: Sequence[str] = ()) -> str:
    """A table of how two stages' scores differ, by default on every task that both were graded on."""
    if not names:
        kept = [_graded_tasks(stage) for stage in stages]
        names = sorted(set.intersection(*kept))
    if len(stages) != 2 or not names:
        raise UsageError(f"--compare={','.join(stages)} wants two stages with a task graded for both "
                         "(python -m scripts.chat_eval -i STAGE).")
    lines = [f"{'task':<34} {stages[0]:>7} {stages[1]:>7}  difference, 95 % interval"]
    for name in names:
        total, old, new, half = paired(load_items(stages[0], name), load_items(stages[1], name))
        change = f"{100 * (new - old):+.1f} +- {100 * half:.1f}"
        lines.append(f"{name:<34} {old:>7.1%} {new:>7.1%}  {change}, {total:,} items")
    return "\n".join(lines)


def item_text(record: dict) -> str:
    """A record for a person to read: the question, the reference, each reply with its verdict; tools in
    brackets."""
    said = [*record["prompt"], {"role": "reference", "content": record["reference"]}]
    for reply, right in zip(record["replies"], record["verdicts"]):
        said.append({"role": "right" if right else "wrong", "content": reply})
    lines = [f"--- {record['task']} {record['index']}"]
    for message in said:
        lines.append(f"{message['role']}: {plain_text(message_parts(message))}")
    return "\n".join(lines)
