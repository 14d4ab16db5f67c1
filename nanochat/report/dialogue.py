"""
What the model said: questions of its last evaluation with its answers, right or wrong as they came.

Nobody picks them. Of the tasks from its best to its worst, some at even distances show their first question
in good writing. Were all answers right, then the last makes room for a wrong one.
"""
from nanochat.common import DataError
from nanochat.eval.records import load_items
from nanochat.kindergarten.typist import is_plain
from nanochat.report.markdown import inline, percent
from nanochat.report.results import PHASES, scores, task_title

SHOWN = 7
LONGEST = 300  # characters of a question or an answer


def dialogue(results: dict[str, dict]) -> list[str]:
    """The exchanges of the last model that was asked, and how they were chosen; [] where none are kept."""
    phases = [phase for phase in PHASES if scores(results, phase)]
    kept = _readable_records(results, phases[-1]) if phases else {}
    if not kept:
        return []
    found = scores(results, phases[-1])
    tasks = sorted(kept, key=lambda task: -found[task]["score"])  # equals stay in the table's order
    apart = max(1.0, (len(tasks) - 1) / (SHOWN - 1))
    chosen = [kept[tasks[round(i * apart)]][0] for i in range(min(SHOWN, len(tasks)))]
    if all(record["score"] == 1 for record in chosen):
        wrong = [record for task in reversed(tasks) for record in kept[task] if record["score"] < 1]
        chosen[-1:] = wrong[:1] or chosen[-1:]
    lines = [f"Asked in the evaluation after {phases[-1].upper()}, each in a conversation of its own, and "
             f"chosen by a rule, not by hand: of {len(chosen)} tasks from its best to its worst, the first "
             "question in good writing.", ""]
    for record in chosen:
        lines += _exchange(record, found[record["task"]])
    return lines


def _readable_records(results, phase):
    """{task: its readable records}, of this evaluation; not of strangers' questions, which stay unread."""
    tag = results[f"chat_eval_{phase}"]["config"].get("tag")
    kept = {}
    for task, score in scores(results, phase).items():
        try:
            records = load_items(f"{phase}@{tag}" if tag else phase, task)
        except DataError:  # results of another machine come without them
            continue
        right = sum(record["score"] for record in records)
        readable = [record for record in records if _is_readable(record)]
        if readable and abs(right - score["score"] * score["n"]) < 1e-6 and not task.startswith("strangers"):
            kept[task] = readable
    return kept


def _is_readable(record):
    """Whether the questions are sentences in good writing, none of them and no answer long."""
    for message in record["prompt"]:
        said = _text(message["content"])
        if len(said) > LONGEST or message["role"] == "user" and not is_plain(said):
            return False
    return 0 < len(_text(record["replies"][0])) <= LONGEST


def _exchange(record, score):
    """A quotation of all that was said, the answers before the last being the test's, and the verdict."""
    lines = [f"*{task_title(record['task'])}, {percent(score['score'])} % right*", ""]
    for message in record["prompt"]:
        given = " *(given by the test)*" if message["role"] == "assistant" else ""
        lines += [f"> {inline(_text(message['content']))}{given}", ">"]
    verdict = "✓ right"
    if record["score"] < 1:
        verdict = f"✗ wrong; a right answer: {inline(_text(record['reference']))}"
    return [*lines, f"> **{inline(_text(record['replies'][0]))}**", ">", f"> {verdict}", ""]


def _text(content):
    """A message's words, and in brackets what went through the calculator: "[47*12 = 564] 47 * 12 = 564."."""
    if isinstance(content, str):
        return content.strip()
    marks = {"text": "{}", "python": "[{}", "python_output": " = {}] "}
    return "".join(marks[part["type"]].format(part["text"]) for part in content).strip()
