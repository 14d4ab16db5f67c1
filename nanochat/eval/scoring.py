"""
Likelihoods of spans of tokens: what a language model holds for likely, without letting it write.

A causal model gives the probabilities of all tokens of a text in one forward pass. The options of a question
have most of their tokens in common (few-shot examples, the question), so a batch goes in two passes: one over
what each item's options share, which keeps keys and values, one over the rest of every option. The result is
that of one plain forward an option but for rounding, and a test holds the two together.
"""
import math
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import torch

from nanochat import memory, runtime
from nanochat.eval.prompts import Item
from nanochat.model.gpt import GPT
from nanochat.runtime import Runtime


class SpanScore(NamedTuple):
    """What a model says of a span's scored tokens."""

    log_likelihood: float  # mean a token, lest a long option be the less likely for its length; nan of none
    exact: bool  # whether greedy decoding would have given just these tokens
    likeliest: list[int]  # the token it held for likeliest at each place


def likeliest_option(results: list[SpanScore]) -> int:
    """The number of the option that the model holds for likeliest, the first of several; nan never beats
    another."""
    return max(range(len(results)), key=lambda i: results[i].log_likelihood)


# ---- batches
def batches(items: Iterable, cost: Callable[[list], float], limit: float) -> Iterator[list]:
    """Lists of `items`, in order, with cost(list) at most `limit`; one item alone may cost more."""
    batch: list = []
    for item in items:
        if batch and cost([*batch, item]) > limit:
            yield batch
            batch = []
        batch.append(item)
    if batch:
        yield batch


def share_out(rt: Runtime, numbers: list[int], grade: Callable[[list[int]], Iterable[dict]]) -> list[dict]:
    """The records that grade(numbers) gives, each rank grading its share; the same on all ranks, by "index".

    Every rank must call. A rank takes every world_size-th number, so that questions sorted by length are
    shared out evenly.
    """
    mine = list(grade(numbers[rt.rank::rt.world_size]))
    records = []
    for share in runtime.all_gather_object(rt, mine):
        records += share
    return sorted(records, key=lambda record: record["index"])


def pad(sequences: list[list[int]], device: torch.device) -> torch.Tensor:
    """Token lists as one int64 (B, T), zeros on the right, which a causal model's other tokens never look
    at."""
    width = max(1, *[len(ids) for ids in sequences])  # one place where all are empty
    rows = [ids + [0] * (width - len(ids)) for ids in sequences]
    return torch.tensor(rows, device=device)


def computed_tokens(items: list[Item]) -> float:
    """How many tokens the model computes for a batch of these items, infinite where too much of it is
    padding."""
    shared = min(item.shared for item in items)
    computed = len(items) * shared
    needed = 0
    width = max(len(span.ids) for item in items for span in item.spans)
    for item in items:
        computed += len(item.spans) * (width - shared)
        needed += item.shared + sum(len(span.ids) - item.shared for span in item.spans)
    wasteful = computed >= 1.25 * needed + 256
    return math.inf if wasteful else computed


# ---- a prefix that is read once
class SharedPrefixes:
    """The keys and values of prefixes (P, S), read once; row b of what follows goes on where prefix owner[b]
    ends.

    This is a KV cache in its shortest form: attention is all through which a token meets those before it, so
    their keys and values, layer by layer, stand for them whole.
    """

    def __init__(self, model: GPT, prefixes: torch.Tensor, owner: torch.Tensor) -> None:
        """prefixes (P, S) int64, none padded; owner (B,) int64."""
        self.model = model
        self.owner = owner
        self.length = prefixes.size(1)
        self.layers: list[tuple] = []  # (k, v) of each, (P, S, H_kv, D)
        model.hidden(prefixes, attend=self._read)

    def _read(self, layer, q, k, v):
        """The `Attend` for the prefixes: plain causal attention, which keeps what it sees."""
        self.layers.append((k, v))
        return self.model.causal(layer, q, k, v)

    def attend(self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """The `Attend` for what follows: q (B, T, H, D) find their prefix and, up to themselves, k, v (B, T,
        H_kv, D)."""
        prefix_k, prefix_v = self.layers[layer]
        k = torch.cat((prefix_k.index_select(0, self.owner), k), dim=1)  # (B, S + T, H_kv, D)
        v = torch.cat((prefix_v.index_select(0, self.owner), v), dim=1)
        # Only now are they offset: the first token's come in part from the last of the prefix.
        k, v = self.model.offset(layer, k, v)
        return self.model.look(layer, q, k, v, self.positions(q.size(1)))

    def positions(self, T: int) -> torch.Tensor:
        """(1, T) int64: the places of T tokens behind a prefix."""
        return torch.arange(self.length, self.length + T, device=self.owner.device)[None]


# ---- scores
@torch.inference_mode()
def score_items(model: GPT, items: list[Item], batch_tokens: int = 0) -> list[list[SpanScore]]:
    """The SpanScore of each span of each item. `batch_tokens` bounds what is computed at once; 0: what suits
    the device."""
    if not batch_tokens:
        batch_tokens = 1024 if model.device.type == "cpu" else 16384  # a processor's cache holds no more
    by_shared = sorted(items, key=lambda item: -item.shared)  # a batch shares no more than each of its items
    found = {}

    def score(at_a_time):
        for batch in batches(by_shared[len(found):], computed_tokens, at_a_time):
            scores = iter(_score_batch(model, batch))
            for item in batch:
                found[item.index] = [next(scores) for _ in item.spans]

    memory.fitted(model, "tokens of options", batch_tokens, score)
    return [found[item.index] for item in items]


def _score_batch(model, items):
    """The SpanScores of all spans of these items, one after another."""
    device = model.device
    shared = min(item.shared for item in items)
    spans = []
    owner = []  # the number of the item that a span belongs to
    for number, item in enumerate(items):
        spans += item.spans
        owner += [number] * len(item.spans)

    # (B, T); the last token of a span predicts nothing that is scored
    idx = pad([span.ids[shared:-1] for span in spans], device)
    if shared:
        prefixes = pad([item.spans[0].ids[:shared] for item in items], device)
        cache = SharedPrefixes(model, prefixes, torch.tensor(owner, device=device))
        hidden = model.hidden(idx, cache.positions(idx.size(1)), cache.attend)  # (B, T, C)
    else:
        hidden = model.hidden(idx)

    # Only the states that predict a scored token meet the vocabulary, the most expensive of all matrices.
    predicting = []
    targets = []
    for span, states in zip(spans, hidden):
        predicting.append(states[span.start - 1 - shared:len(span.ids) - 1 - shared])
        targets += span.ids[span.start:]
    logits = model.logits(torch.cat(predicting))  # (n, V), n scored tokens in all
    asked = torch.tensor(targets, device=device)[:, None]
    likelihoods = logits.log_softmax(-1).gather(1, asked)[:, 0].cpu()  # (n,)
    likeliest = logits.argmax(-1).cpu()  # (n,)

    scores = []
    first = 0
    for span in spans:
        target = span.ids[span.start:]
        part = slice(first, first + len(target))
        said = likeliest[part].tolist()
        scores.append(SpanScore(likelihoods[part].mean().item(), said == target, said))
        first += len(target)
    return scores
