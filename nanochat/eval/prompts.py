"""
From an example of CORE to token sequences: the few-shot prompt, and which of its tokens are scored.

A base model has not learned to follow instructions; it goes on as its text has begun. So a question stands
behind solved ones of the same form, from which the model can tell what is asked (GPT-3, arXiv 2005.14165).
Which ones is drawn by the question's number, so that every model sees the same text.
"""
import os
import random
from dataclasses import dataclass
from functools import cached_property

from nanochat.common import mix_seed
from nanochat.data.tokenizer import Tokenizer
from nanochat.eval.bundle import KINDS, CoreTask


@dataclass(frozen=True)
class Span:
    """One option as tokens, of which ids[start:] are scored; start >= 1, for the first token is predicted by
    nothing."""

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
        common = len(os.path.commonprefix([span.ids for span in self.spans]))
        return min(common, *(span.start - 1 for span in self.spans))


def options(task: CoreTask, example: dict) -> list[tuple[str, str]]:
    """[(context, continuation)] of an example, one pair for each of its choices, or of its contexts."""
    given, scored = KINDS[task.kind]
    pairs = []
    for context in _as_list(example[given]):
        for continuation in _as_list(example[scored]):
            pairs.append((context.strip(), continuation.strip()))
    return pairs


def _as_list(text):
    return [text] if isinstance(text, str) else text


def _other_than(index, drawn):
    """`drawn`, of one number fewer than there are examples, as the number of an example that is not
    `index`."""
    return drawn + 1 if drawn >= index else drawn


def draw_shots(task: CoreTask, total: int, index: int) -> list[int]:
    """Which of `total` examples stand before example `index`, fixed by its number; never itself: that would
    tell."""
    rng = random.Random(mix_seed(1234, task.label, index))
    drawn = rng.sample(range(total - 1), min(task.shots, total - 1))
    return [_other_than(index, number) for number in drawn]


def posed(task: CoreTask, examples: list[dict], index: int, control: bool) -> dict:
    """Example `index`; for the control its answers behind another's question.

    The control is an experiment whose outcome is known: who cannot know what was asked can only guess. If the
    scores do not fall to chance, something other than the question gives the answers away: their length,
    their wording, a bug here.
    """
    example = examples[index]
    if not control or len(examples) < 2:
        return example
    rng = random.Random(mix_seed("control", task.label, index))
    other = _other_than(index, rng.randrange(len(examples) - 1))
    given, _ = KINDS[task.kind]
    return {**example, given: examples[other][given]}


def render_item(task: CoreTask, examples: list[dict], index: int, tokenizer: Tokenizer, max_tokens: int,
                control: bool = False) -> Item:
    """Example `index` behind its few-shot examples; `control` as for posed().

    Sequences of more than `max_tokens` lose their left but for bos, all options as much as the longest:
    compared must be how well they continue the same words.
    """
    few_shot = ""
    for number in draw_shots(task, len(examples), index):
        solved = examples[number]
        context, continuation = options(task, solved)[solved.get("gold", 0)]
        few_shot += f"{context}{task.delimiter}{continuation}\n\n"

    encoded = []
    for context, continuation in options(task, posed(task, examples, index, control)):
        encoded.append(_encode(tokenizer, few_shot + context + task.delimiter, continuation))

    room = max_tokens - 1  # bos takes one
    longest = max(len(ids) for ids, _ in encoded)
    spans = []
    for ids, prompt_tokens in encoded:
        cut = min(longest - room, prompt_tokens)  # as much as of the longest, but no word of the continuation
        cut = max(0, cut, len(ids) - room)  # unless that alone is too long
        start = max(1, prompt_tokens - cut + 1)
        spans.append(Span([tokenizer.bos_id, *ids[cut:]], start, cut))
    return Item(index, spans, examples[index].get("gold", 0))


def _encode(tokenizer, prompt, continuation):
    """(ids of both together, how many of them are the prompt's).

    Both are encoded as one text, as the model has read text, where a blank belongs to the word after it: "
    blue" is a token, "blue" behind a blank another. So the prompt's last blank counts to the continuation,
    and where the two still melt into one token it is scored.
    """
    ids = tokenizer.encode(prompt + continuation)
    prompt_ids = tokenizer.encode(prompt.rstrip())
    same = len(os.path.commonprefix([ids, prompt_ids]))
    return ids, min(same, len(ids) - 1)
