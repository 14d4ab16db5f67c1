"""
CORE: the mean centred accuracy of a base model over 22 few-shot tasks (DCLM, arXiv 2406.11794).

Scored are: each choice given the question (multiple choice), one continuation given each of several contexts (schema),
the answer given the question (language modelling). The first two take the option of the highest mean log-likelihood a
token; the last is right when greedy decoding gives the answer exactly. What a question's options share is read once.
"""
import csv
import json
import math
import os
import random
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from nanochat import runtime
from nanochat.common import DataError, mix_seed
from nanochat.model.gpt import offset_keys

GROUP = 512  # items rendered and sorted at a time
KINDS = {"multiple_choice": ("query", "choices"), "schema": ("context_options", "continuation"),
         "language_modeling": ("context", "continuation")}  # an example's keys: what is given, what is scored


# ---- statistics
def centered(accuracy, chance):
    """Blind guessing is 0 and perfection 1."""
    return (accuracy - chance) / (1.0 - chance)


def wilson(correct, n, z=1.96):
    """The 95 % interval (low, high) of a proportion (Wilson 1927)."""
    if n == 0:
        return 0.0, 1.0
    p, zz = correct / n, z * z
    middle, half = p + zz / (2 * n), z * math.sqrt(p * (1 - p) / n + zz / (4 * n * n))
    return max(0.0, (middle - half) / (1 + zz / n)), min(1.0, (middle + half) / (1 + zz / n))


def mean_centered(scores):
    """(mean of the centred accuracies, its 95 % interval) of scores as run_core_task gives them.

    Each side of it is made of that side of the tasks' own (Zou and Donner 2008).
    """
    mean = sum(s["centered"] for s in scores) / len(scores)
    sides = [[centered(s["ci95"][i], s["chance"]) - s["centered"] for s in scores] for i in (0, 1)]
    return mean, [mean + sign * math.hypot(*side) / len(scores) for sign, side in zip((-1, 1), sides)]


def gpt2():
    """{task: per cent right, "CORE": CORE} of GPT-2 small to XL; gpt2_core.txt has the source."""
    lines = Path(__file__).with_name("gpt2_core.txt").read_text(encoding="utf-8").splitlines()
    return {name: list(map(float, figures)) for name, *figures in map(str.split, lines) if name != "#"}


def subset(n, limit, seed):
    """At most `limit` (0: all) of range(n), a sample fixed by `seed`, ascending."""
    return sorted(random.Random(seed).sample(range(n), limit)) if 0 < limit < n else list(range(n))


def share_out(rt, numbers, grade):
    """The records that grade(numbers) gives, the work shared out among the ranks; the same on all, in order."""
    found = runtime.all_gather_object(rt, list(grade(numbers[rt.rank::rt.world_size])))
    return sorted(sum(found, []), key=lambda record: record["index"])


# ---- the bundle
@dataclass(frozen=True)
class CoreTask:
    """One row of core.yaml; `chance` is a fraction."""

    label: str
    path: Path
    kind: str
    shots: int
    delimiter: str
    chance: float


def read_yaml(text):
    """The mappings in core.yaml, in just that much YAML: '-' starts an entry, then lines of 'key: value'."""
    entries = []
    for line in text.splitlines():
        key, colon, value = (part.strip() for part in line.partition(":"))
        if key == "-":
            entries.append({})
        elif entries and colon:
            entries[-1][key] = json.loads(value) if value[:1] in tuple('["0123456789') else value
    return entries


def load_bundle(folder) -> list[CoreTask]:
    """Raises DataError."""
    folder = Path(folder)
    try:
        entries = read_yaml((folder / "core.yaml").read_text(encoding="utf-8"))
        with open(folder / "eval_meta_data.csv", encoding="utf-8", newline="") as f:
            chance = {row["Eval Task"]: float(row["Random baseline"]) / 100 for row in csv.DictReader(f)}
        tasks = [CoreTask(e["label"], folder / "eval_data" / e["dataset_uri"], e["icl_task_type"], e["num_fewshot"][0],
                          e.get("continuation_delimiter", " "), chance[e["label"]]) for e in entries]
        if (kinds := {task.kind for task in tasks}) - KINDS.keys() or not kinds:
            raise ValueError(f"types of tasks: {kinds or 'none'}")
    except (OSError, KeyError, ValueError, IndexError, TypeError) as e:
        raise DataError(f"the evaluation bundle in {folder} cannot be used: {type(e).__name__} {e}. "
                        "Delete the folder and fetch it again.") from None
    return tasks


def read_examples(path, mend="Delete the evaluation bundle and fetch it again.") -> list[dict]:
    """A JSON object a line. Raises DataError, which ends with `mend`."""
    try:
        with open(path, encoding="utf-8") as f:
            return [json.loads(line) for line in f if line.strip()]
    except (OSError, ValueError) as e:
        raise DataError(f"cannot read {path}: {e}. {mend}") from None


# ---- rendering
@dataclass(frozen=True)
class Span:
    """Tokens of which ids[start:] are scored; start >= 1. `cut` counts those lost on the left."""

    ids: list
    start: int
    cut: int = 0


@dataclass(frozen=True)
class Item:
    """A question: its options, and which is right."""

    index: int
    spans: list
    gold: int

    @cached_property
    def shared(self):
        """How many first tokens the options share, less the one that predicts the first scored."""
        return min(len(os.path.commonprefix([s.ids for s in self.spans])), *(s.start - 1 for s in self.spans))


def options(task, example):
    """[(context, continuation)] of one example, a pair for each choice or context."""
    contexts, continuations = ([text] if isinstance(text, str) else text
                               for text in (example[key] for key in KINDS[task.kind]))
    return [(context.strip(), continuation.strip()) for context in contexts for continuation in continuations]


def draw_shots(task, n, index) -> list[int]:
    """Which of n examples stand before example `index`, fixed by its number."""
    drawn = random.Random(mix_seed(1234, task.label, index)).sample(range(n - 1), min(task.shots, n - 1))
    return [i + (i >= index) for i in drawn]


def posed(task, examples, index, control):
    """Example `index`; for the control its answers behind another's question."""
    if not control or len(examples) < 2:
        return examples[index]
    other = random.Random(mix_seed("control", task.label, index)).randrange(len(examples) - 1)
    given = KINDS[task.kind][0]
    return examples[index] | {given: examples[other + (other >= index)][given]}


def render_item(task, examples, index, tokenizer, max_tokens, control=False) -> Item:
    """Example `index` behind its few-shot examples. Sequences of more than `max_tokens` lose their left but for bos,
    all options as much as the longest, so that they are compared after the same words."""
    shots = []
    for i in draw_shots(task, len(examples), index):
        context, continuation = options(task, examples[i])[examples[i].get("gold", 0)]
        shots.append(f"{context}{task.delimiter}{continuation}\n\n")
    parts = [_encode(tokenizer, "".join(shots) + context + task.delimiter, continuation)
             for context, continuation in options(task, posed(task, examples, index, control))]
    spans, room, longest = [], max_tokens - 1, max(len(ids) for ids, _ in parts)
    for ids, same in parts:
        cut = max(0, len(ids) - room, min(longest - room, same))  # of its continuation only what must go
        spans.append(Span([tokenizer.bos_id, *ids[cut:]], max(1, same - cut + 1), cut))
    return Item(index, spans, examples[index].get("gold", 0))


def _encode(tokenizer, prompt, continuation):
    """(ids, how many are the prompt's, without its last space)."""
    ids, before = tokenizer.encode(prompt + continuation), tokenizer.encode(prompt.rstrip())
    return ids, min(len(os.path.commonprefix([ids, before])), len(ids) - 1)


# ---- scoring
def _judge(logits, targets):
    """(log-likelihood, likeliest token) of each target (n,) under its row of logits (n, V)."""
    return logits.log_softmax(-1).gather(1, targets[:, None])[:, 0], logits.argmax(-1)


def batches(items, cost, limit):
    """Lists of `items`, in order, with cost(list) at most `limit`."""
    batch = []
    for item in items:
        if batch and cost([*batch, item]) > limit:
            yield batch
            batch = []
        batch.append(item)
    if batch:
        yield batch


def pad(sequences, device):
    """Token lists as one int64 (B, T), zeros on the right (which a causal model never looks at)."""
    width = max(map(len, sequences))
    return torch.tensor([ids + [0] * (width - len(ids)) for ids in sequences], device=device)


class _Prefixes:
    """The keys and values of token rows idx (B, P), read once; sequence i goes on where row owner[i] ends."""

    def __init__(self, model, idx, owner):
        self.model, self.owner, self.length, self.layers = model, owner, idx.size(1), []
        model.hidden(idx, attend=self._keep)

    def _keep(self, layer, q, k, v):
        self.layers.append((k, v))
        return self.model.causal(layer, q, k, v)

    def attend(self, layer, q, k, v):
        """An `Attend` for tokens at positions length, length + 1, ... of every sequence."""
        k, v = (torch.cat((old.index_select(0, self.owner), new), dim=1) for old, new in zip(self.layers[layer], (k, v)))
        positions = torch.arange(self.length, k.size(1), device=k.device)[None]
        return self.model.look(layer, q, offset_keys(k, self.model.config.offset_channels), v, positions)


def computed_tokens(items):
    """Tokens that a batch computes, infinite where too much is padding."""
    shared, width = min(item.shared for item in items), max(len(s.ids) for item in items for s in item.spans)
    computed = len(items) * shared + sum(len(item.spans) for item in items) * (width - shared)
    needed = sum(item.shared + sum(len(s.ids) - item.shared for s in item.spans) for item in items)
    return computed if computed < 1.25 * needed + 256 else math.inf


@torch.inference_mode()
def score_items(model, items, batch_tokens=0):
    """(mean log-likelihood, exact greedy match, likeliest tokens) of each span of each item."""
    results = {}
    batch_tokens = batch_tokens or (1024 if model.device.type == "cpu" else 16384)  # fits a processor's cache
    for batch in batches(sorted(items, key=lambda item: -item.shared), computed_tokens, batch_tokens):
        found = iter(_score_batch(model, batch))
        results |= {item.index: [next(found) for _ in item.spans] for item in batch}
    return [results[item.index] for item in items]


def _score_batch(model, items):
    device, attend, shared = model.device, None, min(item.shared for item in items)
    spans = [span for item in items for span in item.spans]
    if shared:
        owner = torch.tensor([i for i, item in enumerate(items) for _ in item.spans], device=device)
        attend = _Prefixes(model, pad([item.spans[0].ids[:shared] for item in items], device), owner).attend
    idx = pad([s.ids[shared:-1] for s in spans], device)
    hidden = model.hidden(idx, torch.arange(shared, shared + idx.size(1), device=device)[None], attend)
    scored = torch.cat([h[s.start - 1 - shared:len(s.ids) - 1 - shared] for h, s in zip(hidden, spans)])  # (n, C)
    targets = [s.ids[s.start:] for s in spans]
    found = _judge(model.logits(scored), torch.tensor(sum(targets, []), device=device))
    pieces = zip(targets, *(x.cpu().split([len(t) for t in targets]) for x in found))
    return [(likelihood.mean().item(), likeliest.tolist() == target, likeliest.tolist())
            for target, likelihood, likeliest in pieces]


def likeliest_option(results):
    return max(range(len(results)), key=lambda i: results[i][0])


def is_right(task, item, results):
    return results[0][1] if task.kind == "language_modeling" else likeliest_option(results) == item.gold


def _record(task, example, item, results, tokenizer):
    """A graded item as chat_eval keeps it; in language modelling the reply is the likeliest token at each place."""
    asked, answers = zip(*options(task, example))
    if task.kind == "schema":
        asked, answers = answers, asked
    reply = (tokenizer.decode(results[0][2]).strip() if task.kind == "language_modeling"
             else answers[likeliest_option(results)])
    right = is_right(task, item, results)
    return {"task": task.label, "index": item.index, "prompt": [{"role": "user", "content": asked[0]}],
            "cut": any(span.cut for span in item.spans), "reference": answers[item.gold], "replies": [reply],
            "answers": [reply], "verdicts": [right], "score": float(right)}


def run_core_task(task, model, tokenizer, rt, *, max_items=0, batch_tokens=0, progress=None, control=False):
    """Score a task: ({"accuracy", "centered", "n", "chance", "ci95", "cut"}, records), the same on every rank.

    All must call. `cut` counts the items whose prompt was too long; for `control` see posed().
    """
    examples = read_examples(task.path)

    def grade(numbers):
        for start in range(0, len(numbers), GROUP):
            items = [render_item(task, examples, i, tokenizer, model.config.sequence_len + 1, control)
                     for i in numbers[start:start + GROUP]]
            for item, results in zip(items, score_items(model, items, batch_tokens)):
                yield _record(task, posed(task, examples, item.index, control), item, results, tokenizer)
            if progress:
                progress.update(len(items), task=task.label)
    records = share_out(rt, subset(len(examples), max_items, mix_seed("core", task.label)), grade)
    right, n = sum(r["verdicts"][0] for r in records), len(records)
    accuracy = right / max(n, 1)
    return {"accuracy": accuracy, "centered": centered(accuracy, task.chance), "n": n, "chance": task.chance,
            "ci95": list(wilson(right, n)), "cut": sum(r["cut"] for r in records)}, records
