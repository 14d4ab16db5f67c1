"""
CORE: how much a base model knows and understands, one number from 22 few-shot tasks (DCLM, arXiv 2406.11794).

The loss says how well a model predicts text, CORE what that is good for: facts, reading, common sense,
counting. Its tasks were chosen since even small models do better than chance on them, so it can tell two of
them apart early. Each task's accuracy is centred (guessing is 0, perfection 1) and CORE is the mean; GPT-2 XL
has 0.2565.

Nobody has to answer in words. Of multiple choice and schema tasks the option of the highest mean
log-likelihood a token is the answer; a language-modelling task is right when greedy decoding would give the
answer exactly.
"""
from nanochat.data.tokenizer import Tokenizer
from nanochat.eval.bundle import CoreTask, read_examples
from nanochat.eval.prompts import Item, options, render_item
from nanochat.eval.scoring import SpanScore, likeliest_option, score_items, share_out
from nanochat.eval.statistics import centered, wilson
from nanochat.model.gpt import GPT
from nanochat.runtime import Runtime
from nanochat.terminal import Progress

GROUP = 512  # items that are rendered, sorted into batches and scored together


def is_right(task: CoreTask, item: Item, results: list[SpanScore]) -> bool:
    """Whether the item, whose spans have these scores, is answered rightly."""
    if task.kind == "language_modeling":
        return results[0].exact
    return likeliest_option(results) == item.gold


def _record(task, example, item, results, tokenizer):
    """A graded item, as in records.py; in language modelling the reply is the likeliest token at each
    place."""
    pairs = options(task, example)
    if task.kind == "schema":  # where the contexts are the options
        asked = pairs[0][1]
        answers = [context for context, _ in pairs]
    else:
        asked = pairs[0][0]
        answers = [continuation for _, continuation in pairs]
    if task.kind == "language_modeling":
        reply = tokenizer.decode(results[0].likeliest).strip()
    else:
        reply = answers[likeliest_option(results)]
    right = is_right(task, item, results)
    return {"task": task.label, "index": item.index, "prompt": [{"role": "user", "content": asked}],
            "cut": any(span.cut for span in item.spans), "reference": answers[item.gold], "replies": [reply],
            "answers": [reply], "verdicts": [right], "score": float(right)}


def run_core_task(task: CoreTask, model: GPT, tokenizer: Tokenizer, rt: Runtime, *, max_items: int = 0,
                  batch_tokens: int = 0, progress: Progress | None = None) -> tuple[dict, list[dict]]:
    """Score a task: ({"accuracy", "centered", "n", "chance", "ci95", "cut"}, records), the same on every
    rank.

    All must call. At most `max_items` (0: all) are asked, a fixed random sample, and solved examples drawn
    from it. `cut` counts the items whose prompt was too long for the model.
    """
    examples = read_examples(task.path, max_items)
    room = model.config.sequence_len

    def grade(numbers):
        for first in range(0, len(numbers), GROUP):
            group = numbers[first:first + GROUP]
            items = [render_item(task, examples, index, tokenizer, room) for index in group]
            for item, results in zip(items, score_items(model, items, batch_tokens)):
                yield _record(task, examples[item.index], item, results, tokenizer)
            if progress:
                progress.update(len(items), task=task.label)

    records = share_out(rt, list(range(len(examples))), grade)
    total = len(records)
    right = sum(record["verdicts"][0] for record in records)
    accuracy = right / max(total, 1)
    found = {"accuracy": accuracy, "centered": centered(accuracy, task.chance), "n": total,
             "chance": task.chance, "ci95": list(wilson(right, total)),
             "cut": sum(record["cut"] for record in records)}
    return found, records
