"""
Runs a task with a chat model: the model's replies, their verdicts, and a score with its interval.

"generative" tasks are answered in free text by the engine, tools included, and graded by the task.
"categorical" ones offer lettered choices, and the answer is the letter that the model holds for likeliest as
the first of its reply. A small model that knows the answer may still not have learned to say just the letter;
read this way it is asked what it knows, not whether it minds the form, and one forward answers a question.

Batch size and number of ranks change results only by rounding.
"""
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch

from nanochat import memory
from nanochat.cli import option
from nanochat.common import mix_seed
from nanochat.data.chat_format import encode_text, parse_reply, render_prompt
from nanochat.data.tokenizer import Tokenizer
from nanochat.eval.scoring import batches, pad, share_out
from nanochat.eval.statistics import centered, pass_at_k, subset, wilson
from nanochat.infer.engine import Engine
from nanochat.infer.sampling import Sampling
from nanochat.infer.sequence import Sequence
from nanochat.model.gpt import GPT
from nanochat.runtime import Runtime
from nanochat.tasks.base import Task
from nanochat.terminal import Progress


@dataclass(frozen=True)
class Score:
    """A task's result."""

    name: str
    n: int  # questions
    correct: float  # of them; a fraction under pass@k
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
    num_samples: int = option(1, "replies to each question, for pass@k; wants a temperature above 0")
    pass_k: int = option(1, "k of pass@k")
    max_new_tokens: int = option(0, "tokens a reply; 0: the task's own limit")
    batch_tokens: int = option(16384, "of padded prompts in one forward of a multiple-choice task")


def run_task(task: Task, model: GPT, tokenizer: Tokenizer, rt: Runtime,
             options: Options = Options()) -> tuple[Score, list[dict]]:
    """(Score, a record of each question as in records.py), the same on every rank, all of which must call."""
    grade: Callable
    if task.kind == "categorical":
        grade = _grade_letters
        replies_each = 1
    else:
        grade = _grade_replies
        replies_each = options.num_samples

    def graded(numbers):
        progress = Progress(len(numbers) * replies_each, task.name)
        yield from grade(task, model, tokenizer, numbers, options, progress)
        progress.close()

    numbers = subset(len(task), options.max_problems, mix_seed("chat_eval", task.name))
    records = share_out(rt, numbers, graded)
    correct = sum(record["score"] for record in records)
    return Score(task.name, len(records), correct, task.chance), records


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
    room = model.config.sequence_len
    max_new_tokens = min(options.max_new_tokens or task.max_new_tokens, room // 2)
    sampling = Sampling(max_new_tokens, options.temperature)
    chats = []
    cut = []  # whether a question's prompt was
    samples = []  # num_samples of the first question, then of the second, ...
    asked = []  # the chat of each sample
    asked_for = [task[number] for number in numbers]
    engine = Engine(model, tokenizer)
    _answer_between(asked_for, engine, sampling, options.batch_size)
    for number, chat in zip(numbers, asked_for):
        prompt, was_cut = _prompt(tokenizer, chat, room - max_new_tokens)
        chats.append(chat)
        cut.append(was_cut)
        for i in range(options.num_samples):
            # Seeded by what is asked, so that a reply does not depend on which rank gives it.
            samples.append(Sequence(tokenizer, prompt, sampling, index=mix_seed(task.name, number, i)))
            asked.append(chat)
    engine.finish(samples, options.batch_size, progress)
    replies = [parse_reply(tokenizer, sample.ids) for sample in samples]

    # Some tasks run a program. More of them than there are cores would wait for one until their time is over.
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        verdicts = list(pool.map(task.evaluate, asked, replies))

    records = []
    for i, (number, chat) in enumerate(zip(numbers, chats)):
        part = slice(i * options.num_samples, (i + 1) * options.num_samples)
        records.append(_record(task, number, chat, cut[i], replies[part], verdicts[part], options.pass_k))
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
@dataclass
class _Question:
    number: int
    chat: dict
    prompt: list[int]
    was_cut: bool
    before: list[int]  # ids between the prompt and the letter
    letters: list[int]  # the id of each letter


def _grade_letters(task, model, tokenizer, numbers, options, progress):
    questions = []
    for number in numbers:
        chat = task[number]
        prompt, was_cut = _prompt(tokenizer, chat, model.config.sequence_len)
        before, letters = letter_ids(tokenizer, chat["letters"])
        questions.append(_Question(number, chat, prompt, was_cut, before, letters))

    def padded_tokens(batch):
        return len(batch[0].prompt) * len(batch)

    # Prompts of about one length together, the longest first, so that memory runs out at once or never.
    questions.sort(key=lambda question: -len(question.prompt))
    records = []

    def grade(batch_tokens):
        for batch in batches(questions[len(records):], padded_tokens, batch_tokens):
            rows = last_logits(model, [question.prompt + question.before for question in batch])
            for question, row in zip(batch, rows):
                likeliest = int(row[question.letters].argmax())
                reply = [{"type": "text", "text": question.chat["letters"][likeliest]}]
                right = task.evaluate(question.chat, reply)
                records.append(_record(task, question.number, question.chat, question.was_cut, [reply],
                                       [right]))
            progress.update(len(batch))

    memory.fitted(model, "prompt tokens", options.batch_tokens, grade)
    return records


@torch.inference_mode()
def last_logits(model: GPT, prompts: list[list[int]]) -> torch.Tensor:
    """float32 logits (B, V) on the CPU of the token that follows each of B prompts."""
    hidden = model.hidden(pad(prompts, model.device))  # (B, T, C)
    last = torch.stack([row[len(prompt) - 1] for row, prompt in zip(hidden, prompts)])  # (B, C)
    return model.logits(last).cpu()


def letter_ids(tokenizer: Tokenizer, letters: list[str]) -> tuple[list[int], list[int]]:
    """(ids before the letter in a reply, the id of each letter).

    A reply begins with a blank, and in a big vocabulary " A" is one token. A toy one may lack it: there the
    blank is given, and the letter that follows is asked for.
    """
    ids = [encode_text(tokenizer, letter) for letter in letters]
    if all(len(of_letter) == 1 for of_letter in ids):
        return [], [of_letter[0] for of_letter in ids]
    return tokenizer.encode(" "), [tokenizer.encode(letter)[0] for letter in letters]
