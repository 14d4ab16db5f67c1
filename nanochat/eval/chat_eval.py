"""
Runs a task with a chat model: the model's replies, their verdicts, and a score with its interval.

"generative" tasks are answered in free text by the engine, tools included, and graded by the task.
"categorical" ones offer lettered choices, and the answer is the letter that the model holds for likeliest as
the first of its reply. A small model that knows the answer may still not have learned to say just the letter;
read this way it is asked what it knows, not whether it minds the form.

Batch size and number of ranks change results only by rounding.
"""
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch

from nanochat.cli import option
from nanochat.common import mix_seed
from nanochat.data.chat_format import encode_text, parse_reply, render_prompt
from nanochat.data.tokenizer import Tokenizer
from nanochat.eval.prompts import Item, Span
from nanochat.eval.scoring import likeliest_option, score_items, share_out
from nanochat.eval.statistics import centered, subset, wilson
from nanochat.infer.engine import Engine
from nanochat.infer.sampling import Sampling
from nanochat.infer.sequence import Sequence
from nanochat.model.gpt import GPT
from nanochat.runtime import Runtime
from nanochat.tasks.base import Task
from nanochat.terminal import Progress

LETTERS_TOGETHER = 512  # questions of choice that are rendered, sorted into batches and scored together


@dataclass(frozen=True)
class Score:
    """A task's result."""

    name: str
    n: int  # questions
    correct: float  # of them
    chance: float  # score of blind guessing

    @property
    def score(self) -> float:
        """The share that is right."""
        return self.correct / self.n if self.n else 0.0

    @property
    def centered(self) -> float:
        """The score where guessing is 0."""
        return centered(self.score, self.chance)

    @property
    def ci95(self) -> tuple[float, float]:
        """The 95 % interval of the score."""
        return wilson(self.correct, self.n)


@dataclass
class Options:
    max_problems: int = option(0, "questions a task, a fixed random sample; 0 for all")
    batch_size: int = option(64, "replies generated together, fewer where memory runs out")
    temperature: float = option(0.0, "0 takes the likeliest token; above 0 samples")
    max_new_tokens: int = option(0, "tokens a reply; 0: the task's own limit")
    batch_tokens: int = option(0, "computed in a batch of a multiple-choice task; 0: 1,024 on a CPU, else "
                                 "16,384")


def run_task(task: Task, model: GPT, tokenizer: Tokenizer, rt: Runtime,
             options: Options = Options()) -> tuple[Score, list[dict]]:
    """(Score, a record of each question as in records.py), the same on every rank, all of which must call."""
    grade = _grade_letters if task.kind == "categorical" else _grade_replies

    def graded(numbers):
        progress = Progress(len(numbers), task.name)
        yield from grade(task, model, tokenizer, numbers, options, progress)
        progress.close()

    numbers = subset(len(task), options.max_problems, mix_seed("chat_eval", task.name))
    records = share_out(rt, numbers, graded)
    correct = sum(record["score"] for record in records)
    return Score(task.name, len(records), correct, task.chance), records


def _record(task, index, chat, cut, reply, verdict):
    *asked, last = chat["messages"]
    return {"task": task.name, "index": index, "prompt": asked, "cut": cut, "reference": last["content"],
            "replies": [reply], "answers": [task.answer(chat, reply)], "verdicts": [verdict],
            "score": float(verdict)}


def _prompt(tokenizer, chat, room):
    """(ids up to the reply, whether they had to be cut to `room`)."""
    whole = render_prompt(tokenizer, chat["messages"])
    short = render_prompt(tokenizer, chat["messages"], max_tokens=room)
    return short, short != whole


# ---- generative
def _grade_replies(task, model, tokenizer, numbers, options, progress):
    room = model.config.sequence_len
    max_new_tokens = min(options.max_new_tokens or task.max_new_tokens, room // 2)
    sampling = Sampling(max_new_tokens, options.temperature)
    chats = [task[number] for number in numbers]
    cut = []  # whether a question's prompt was
    sequences = []
    engine = Engine(model, tokenizer)
    _answer_between(chats, engine, sampling, options.batch_size)
    for number, chat in zip(numbers, chats):
        prompt, was_cut = _prompt(tokenizer, chat, room - max_new_tokens)
        cut.append(was_cut)
        # Seeded by what is asked, so that a reply does not depend on which rank gives it.
        sequences.append(Sequence(tokenizer, prompt, sampling, index=mix_seed(task.name, number, 0)))
    engine.finish(sequences, options.batch_size, progress)
    replies = [parse_reply(tokenizer, sequence.ids) for sequence in sequences]

    # Some tasks run a program. More of them than there are cores would wait for one until their time is over.
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        verdicts = list(pool.map(task.evaluate, chats, replies))

    records = []
    for i, number in enumerate(numbers):
        records.append(_record(task, number, chats[i], cut[i], replies[i], verdicts[i]))
    return records


def _answer_between(chats, engine, sampling, batch_size):
    """Fill in the model's own answers to the turns before the last: those whose content is None."""
    tokenizer = engine.tokenizer
    room = engine.max_len - sampling.max_new_tokens
    while True:
        waiting = []  # (the message to fill in, its sequence), at most one of each conversation
        for chat in chats:
            for place, message in enumerate(chat["messages"]):
                if message["content"] is None:
                    prompt = render_prompt(tokenizer, chat["messages"][:place], max_tokens=room)
                    waiting.append((message, Sequence(tokenizer, prompt, sampling)))
                    break
        if not waiting:
            return
        engine.finish([sequence for _, sequence in waiting], batch_size)
        for message, sequence in waiting:
            message["content"] = parse_reply(tokenizer, sequence.ids) or ""


# ---- categorical
def _grade_letters(task, model, tokenizer, numbers, options, progress):
    records = []
    for first in range(0, len(numbers), LETTERS_TOGETHER):
        group = numbers[first:first + LETTERS_TOGETHER]
        chats = [task[number] for number in group]
        cut = []  # whether a question's prompt was
        items = []
        for number, chat in zip(group, chats):
            prompt, was_cut = _prompt(tokenizer, chat, model.config.sequence_len)
            cut.append(was_cut)
            before, letters = letter_ids(tokenizer, chat["letters"])
            start = len(prompt) + len(before)
            spans = [Span([*prompt, *before, letter], start) for letter in letters]
            items.append(Item(number, spans, chat["letters"].index(chat["messages"][-1]["content"])))
        for i, scores in enumerate(score_items(model, items, options.batch_tokens)):
            reply = [{"type": "text", "text": chats[i]["letters"][likeliest_option(scores)]}]
            right = task.evaluate(chats[i], reply)
            records.append(_record(task, group[i], chats[i], cut[i], reply, right))
        progress.update(len(group))
    return records


def letter_ids(tokenizer: Tokenizer, letters: list[str]) -> tuple[list[int], list[int]]:
    """(ids before the letter in a reply, the id of each letter).

    A reply begins with a blank, and in a big vocabulary " A" is one token. A toy one may lack it: there the
    blank is given, and the letter that follows is asked for.
    """
    ids = [encode_text(tokenizer, letter) for letter in letters]
    if all(len(of_letter) == 1 for of_letter in ids):
        return [], [of_letter[0] for of_letter in ids]
    return tokenizer.encode(" "), [tokenizer.encode(letter)[0] for letter in letters]
