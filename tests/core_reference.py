"""
CORE asked the plain way: one example after another, each option by a forward of its own, nothing shared, nothing batched.

Written from the description of the evaluator that the public figures of this family of models come from, not from
nanochat/eval, so that a verdict on which the two agree was reached twice:

- a task's examples are shuffled by random.Random(1337), and the first so many are the task;
- before example i stand `shots` others, drawn by random.Random(1234 + i) from all but it, each followed by a blank line;
- nothing is stripped but the contexts of language modelling, and there the prompt that only tells where the answer begins;
- of several choices is scored what follows the tokens that all options begin with, of a schema the tokens that all end
  with; the lowest mean loss wins, the first of several;
- a text that is too long for the model loses its beginning, bos too.
"""
import json
import math
import random

import torch
import torch.nn.functional as F


def questions(path, limit=0):
    """The first `limit` (0: all) examples in their fixed order."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    random.Random(1337).shuffle(rows)
    return rows[:limit] if limit else rows


def texts_of(task, example, shots):
    """The text of each option behind the solved examples; in language modelling [the prompt alone, all of it]."""
    solved = ""
    for shot in shots:
        if task.kind == "multiple_choice":
            solved += shot["query"] + task.delimiter + shot["choices"][shot["gold"]] + "\n\n"
        elif task.kind == "schema":
            solved += shot["context_options"][shot["gold"]] + task.delimiter + shot["continuation"] + "\n\n"
        else:
            solved += shot["context"].strip() + task.delimiter + shot["continuation"] + "\n\n"
    if task.kind == "multiple_choice":
        return [solved + example["query"] + task.delimiter + choice for choice in example["choices"]]
    if task.kind == "schema":
        return [solved + context + task.delimiter + example["continuation"] for context in example["context_options"]]
    prompt = solved + example["context"].strip() + task.delimiter
    return [prompt.strip(), prompt + example["continuation"]]


def in_common(rows):
    """How many first tokens all rows share."""
    count = 0
    while all(len(row) > count for row in rows) and len({row[count] for row in rows}) == 1:
        count += 1
    return count


@torch.inference_mode()
def scored(model, ids, start, room):
    """(mean loss of ids[start:], whether each of them was the likeliest); nan for none."""
    lost = max(0, len(ids) - room)
    ids = ids[lost:]
    first = max(start - lost, 1)  # the first token is predicted by nothing
    if first == len(ids):
        return math.nan, True
    logits = model(torch.tensor([ids], device=model.device))[0, first - 1:-1].float()
    asked = torch.tensor(ids[first:], device=model.device)
    return F.cross_entropy(logits, asked).item(), bool((logits.argmax(-1) == asked).all())


def verdict(task, rows, number, tokenizer, model, room=None):
    """Whether the model answers example `number` of `rows` rightly."""
    others = [i for i in range(len(rows)) if i != number]
    drawn = random.Random(1234 + number).sample(others, min(task.shots, len(others)))
    example = rows[number]
    encoded = []
    for text in texts_of(task, example, [rows[i] for i in drawn]):
        encoded.append([tokenizer.bos_id, *tokenizer.encode(text)])
    room = room or model.config.sequence_len
    if task.kind == "language_modeling":
        prompt, whole = encoded
        assert whole[:len(prompt)] == prompt, "the prompt is a beginning of the whole"
        return scored(model, whole, len(prompt), room)[1]
    if task.kind == "multiple_choice":
        starts = [in_common(encoded)] * len(encoded)
    else:
        ending = in_common([ids[::-1] for ids in encoded])
        starts = [len(ids) - ending for ids in encoded]
    losses = [scored(model, ids, start, room)[0] for ids, start in zip(encoded, starts)]
    return losses.index(min(losses)) == example["gold"]
