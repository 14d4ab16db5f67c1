"""
From an example of CORE to token sequences: the few-shot prompt, and which of its tokens are scored.

A base model has not learned to follow instructions; it goes on as its text has begun. So a question stands
behind solved ones of the same form, from which the model can tell what is asked (GPT-3, arXiv 2005.14165).

What is asked, what stands before it and which tokens count is as in the evaluator that the public figures
of this family of models come from: another choice, even a better one, is another measure. Said plainly in
tests/core_reference.py.
"""
import os
import random
from dataclasses import dataclass
from functools import cached_property

from nanochat.data.tokenizer import Tokenizer
from nanochat.eval.bundle import KINDS, CoreTask


@dataclass(frozen=True)
class Span:
    """One option as tokens, of which ids[start:] are scored; start >= 1, for the first token is predicted by
    nothing. There are none where an option only repeats what all begin with."""

    ids: list[int]
    start: int
    cut: int = 0  # tokens lost on the left, the sequence being too long for the model


@dataclass(frozen=True)
class Item:
    """A question: its options, and which is right."""

    index: int
    spans: list[Span]
    gold: int

    @cached_property
    def shared(self) -> int:
        """How many first tokens need to be read only once for all options.

        Those that all have in common, but for the one before the first scored token: its prediction is part
        of the score.
        """
        common = _common([span.ids for span in self.spans])
        return min(common, *(span.start - 1 for span in self.spans))


def options(task: CoreTask, example: dict) -> list[tuple[str, str]]:
    """[(context, continuation)] of an example, one pair for each of its choices, or of its contexts.

    As they stand in the file; only where the answer must be given word by word do blanks around the context
    go: in squad and coqa it ends with one, and the delimiter is another.
    """
    given, scored = KINDS[task.kind]
    pairs = []
    for context in _as_list(example[given]):
        if task.kind == "language_modeling":
            context = context.strip()
        for continuation in _as_list(example[scored]):
            pairs.append((context, continuation))
    return pairs


def _as_list(text):
    return [text] if isinstance(text, str) else text


def draw_shots(shots: int, total: int, index: int) -> list[int]:
    """Which of `total` examples stand before example `index`, fixed by its number; never itself: that would
    tell."""
    drawn = random.Random(1234 + index).sample(range(total - 1), min(shots, total - 1))
    return [number + 1 if number >= index else number for number in drawn]


def render_item(task: CoreTask, examples: list[dict], index: int, tokenizer: Tokenizer,
                max_tokens: int) -> Item:
    """Example `index` behind its few-shot examples.

    Sequences of more than `max_tokens` lose their left, bos first.
    """
    few_shot = ""
    for number in draw_shots(task.shots, len(examples), index):
        solved = examples[number]
        context, continuation = options(task, solved)[solved.get("gold", 0)]
        few_shot += f"{context}{task.delimiter}{continuation}\n\n"

    encoded = []
    for context, continuation in options(task, examples[index]):
        prompt = few_shot + context + task.delimiter
        encoded.append([tokenizer.bos_id, *tokenizer.encode(prompt + continuation)])
    if task.kind == "language_modeling":
        # The prompt's last blank belongs to the word after it: " blue" is a token, "blue" behind a blank
        # another. Where prompt and answer still melt into one token it is scored.
        alone = [tokenizer.bos_id, *tokenizer.encode(prompt.strip())]
        starts = [min(_common([*encoded, alone]), len(encoded[0]) - 1)]
    elif task.kind == "schema":  # what all options end with
        ending = _common([ids[::-1] for ids in encoded])
        starts = [len(ids) - ending for ids in encoded]
    else:  # what follows the beginning that all share
        starts = [_common(encoded)] * len(encoded)

    spans = []
    for ids, start in zip(encoded, starts):
        cut = max(0, len(ids) - max_tokens)
        spans.append(Span(ids[cut:], max(1, start - cut), cut))
    return Item(index, spans, examples[index].get("gold", 0))


def _common(sequences: list[list[int]]) -> int:
    """How many first tokens all have in common."""
    return len(os.path.commonprefix(sequences))
