"""
Runs a task with a chat model: the model's replies, their verdicts, and a score with its interval.

The engine (tools included) answers generative tasks; categorical ones take the likeliest letter. Batch size and ranks
change results only by rounding.
"""
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import comb

import torch

from nanochat.cli import option
from nanochat.common import DataError, Progress, UsageError, atomic_write, base_dir, mix_seed
from nanochat.data.chat_format import encode_text, message_parts, parse_reply, render_prompt
from nanochat.eval.core_eval import batches, centered, pad, read_examples, share_out, subset, wilson
from nanochat.infer.engine import Engine, Sampling, Sequence


@dataclass(frozen=True)
class Score:
    """A task's result; `correct` may be a fraction under pass@k."""

    name: str
    n: int
    correct: float
    chance: float

    @property
    def score(self):
        return self.correct / self.n if self.n else 0.0

    @property
    def centered(self):
        return centered(self.score, self.chance)

    @property
    def ci95(self):
        return wilson(self.correct, self.n)


@dataclass
class Options:
    max_problems: int = option(0, "questions a task, a fixed random sample; 0 for all")
    batch_size: int = option(64, "replies generated together; lower it when memory runs out")
    temperature: float = option(0.0, "0 takes the likeliest token; above 0 samples")
    num_samples: int = option(1, "replies to each question, for pass@k; wants a temperature above 0")
    pass_k: int = option(1, "k of pass@k")
    max_new_tokens: int = option(0, "tokens a reply; 0: the task's own limit")
    batch_tokens: int = option(16384, "of padded prompts in one forward of a multiple-choice task")


def run_task(task, model, tokenizer, rt, options=Options()):
    """(Score, a `_record` of each question), the same on every rank, all of which must call."""
    grade = _grade_letters if task.kind == "categorical" else _grade_replies

    def graded(numbers):
        progress = Progress(len(numbers) * (options.num_samples if task.kind == "generative" else 1), task.name)
        yield from grade(task, model, tokenizer, numbers, options, progress)
        progress.close()
    records = share_out(rt, subset(len(task), options.max_problems, mix_seed("chat_eval", task.name)), graded)
    return Score(task.name, len(records), sum(r["score"] for r in records), task.chance), records


def pass_at_k(n, c, k):
    """Chance that one of k replies is right, when c of n were, unbiased (arXiv 2107.03374, section 2.1)."""
    return 1.0 - comb(n - c, k) / comb(n, k)


def _record(task, index, chat, cut, replies, verdicts, pass_k=1):
    *asked, last = chat["messages"]
    return {"task": task.name, "index": index, "prompt": asked, "cut": cut, "reference": last["content"],
            "replies": replies, "answers": [task.answer(chat, reply) for reply in replies],
            "verdicts": verdicts, "score": pass_at_k(len(verdicts), sum(verdicts), pass_k)}


def _prompt(tokenizer, chat, room):
    """(ids up to the reply, whether they had to be cut to `room`)."""
    whole = render_prompt(tokenizer, chat["messages"])
    short = render_prompt(tokenizer, chat["messages"], max_tokens=room)
    return short, short != whole


# ---- generative
def _grade_replies(task, model, tokenizer, numbers, options, progress):
    chats, each = [task[i] for i in numbers], options.num_samples
    room = model.config.sequence_len
    new = min(options.max_new_tokens or task.max_new_tokens, room // 2)
    prompts = [_prompt(tokenizer, c, room - new) for c in chats]
    sampling = Sampling(new, options.temperature)
    samples = [Sequence(tokenizer, ids, sampling, index=mix_seed(task.name, number, k))  # ranks do not matter to it
               for number, (ids, _) in zip(numbers, prompts) for k in range(each)]
    if samples:
        longest = max(len(ids) for ids, _ in prompts) + new
        batcher = Engine(model, tokenizer).batcher(min(options.batch_size, len(samples)), min(room, longest))
        for sample in samples:
            batcher.add(sample)
        while not batcher.idle:
            progress.update(sum(s.finish_reason is not None for s in batcher.step()))
    replies = [parse_reply(tokenizer, s.ids) for s in samples]
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:  # a program that waits for its core runs out of time
        verdicts = list(pool.map(task.evaluate, [c for c in chats for _ in range(each)], replies))
    parts = [slice(i * each, (i + 1) * each) for i in range(len(numbers))]
    return [_record(task, number, c, cut, replies[part], verdicts[part], options.pass_k)
            for number, c, (_, cut), part in zip(numbers, chats, prompts, parts)]


# ---- categorical
def _grade_letters(task, model, tokenizer, numbers, options, progress):
    chats = [task[i] for i in numbers]
    prompts = [_prompt(tokenizer, c, model.config.sequence_len) for c in chats]
    letters = [letter_ids(tokenizer, c["letters"]) for c in chats]
    longest_first = sorted(range(len(prompts)), key=lambda i: -len(prompts[i][0]))
    for batch in batches(longest_first, lambda batch: len(prompts[batch[0]][0]) * len(batch), options.batch_tokens):
        for i, row in zip(batch, last_logits(model, [prompts[i][0] + letters[i][0] for i in batch])):
            letter = chats[i]["letters"][int(row[letters[i][1]].argmax())]
            parts = [{"type": "text", "text": letter}]
            right = task.evaluate(chats[i], parts)
            yield _record(task, numbers[i], chats[i], prompts[i][1], [parts], [right])
        progress.update(len(batch))


@torch.inference_mode()
def last_logits(model, prompts):
    """Logits (B, V) on the CPU of the token that follows each prompt (a list of ids)."""
    hidden = model.hidden(pad(prompts, model.device))
    return model.logits(torch.stack([row[len(prompt) - 1] for row, prompt in zip(hidden, prompts)])).cpu()


def letter_ids(tokenizer, letters):
    """(ids before the letter in a reply, the id of each letter): a toy vocabulary has no token " A"."""
    ids = [encode_text(tokenizer, letter) for letter in letters]
    if all(len(i) == 1 for i in ids):
        return [], [i[0] for i in ids]
    return tokenizer.encode(" "), [tokenizer.encode(letter)[0] for letter in letters]


# ---- results
def items_path(stage, name):
    return base_dir() / "report" / "items" / f"{stage}_{name}.jsonl"


def save_items(stage, name, records, tag=None):
    """A task's graded items, one JSON a line; rank 0 only."""
    atomic_write(items_path(f"{stage}@{tag}" if tag else stage, name),
                 "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records))


def load_items(stage, name):
    kind, at, tag = stage.partition("@")
    made_by = {"core": "base_eval", "control": "base_eval --control"}.get(kind, f"chat_eval -i {kind} -a {name}")
    return read_examples(items_path(stage, name), f"Make it with: python -m scripts.{made_by}{at and ' --tag='}{tag}")


def paired(before, after):
    """(n, mean, mean, half of the 95 % interval of their difference) of two models' scores on the same questions.

    Pairing leaves the questions' own spread out (arXiv 2411.00640).
    """
    asked = [[(r["index"], r["prompt"], r["reference"]) for r in records] for records in (before, after)]
    if asked[0] != asked[1] or not before:
        raise DataError(f"the two stages were not graded on the same questions (they have {len(before):,} and "
                        f"{len(after):,}). Run scripts.chat_eval again for both, with the same --max_problems.")
    n, a, b = len(before), *(sum(r["score"] for r in records) / len(records) for records in (before, after))
    variance = sum((y["score"] - x["score"] - (b - a)) ** 2 for x, y in zip(before, after)) / max(n - 1, 1)
    return n, a, b, 1.96 * (variance / n) ** 0.5


def compare(stages, names=()):
    kept = [{path.stem.removeprefix(f"{s}_") for path in items_path(s, "").parent.glob(f"{s}_*.jsonl")} for s in stages]
    names = names or sorted(set.intersection(*kept))
    if len(stages) != 2 or not names:
        raise UsageError(f"--compare={','.join(stages)} wants two stages with a task graded for both "
                         "(python -m scripts.chat_eval -i STAGE).")
    lines = [f"{'task':<34} {stages[0]:>7} {stages[1]:>7}  difference, 95 % interval"]
    for name in names:
        n, old, new, half = paired(*(load_items(stage, name) for stage in stages))
        lines.append(f"{name:<34} {old:>7.1%} {new:>7.1%}  {100 * (new - old):+.1f} +- {100 * half:.1f}, {n:,} items")
    return "\n".join(lines)


def item_text(record):
    lines = [f"--- {record['task']} {record['index']}"]
    said = [*record["prompt"], {"role": "reference", "content": record["reference"]}]
    said += [{"role": "right" if right else "wrong", "content": reply}
             for reply, right in zip(record["replies"], record["verdicts"])]
    for message in said:
        texts = (p["text"] if p["type"] == "text" else f"[{p['text']}] " for p in message_parts(message))
        lines.append(f"{message['role']}: {''.join(texts)}")
    return "\n".join(lines)
