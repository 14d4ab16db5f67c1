"""
Choosing the next token for a whole batch at once, each row by its own settings.

Pure functions of logits (-inf where a token is not allowed) and random numbers, so a reply can be had again
from its seed. Filters are thresholds on the logit: a row's choice depends on it alone, and what is equally
likely stays or goes together.
"""
import math
import sys
from dataclasses import dataclass

import numpy as np
import torch

from nanochat.common import UsageError
from nanochat.infer.cpu.sampler import sample_rows

COLDEST = 1e-30  # temperatures; beyond, logits could be infinite or no number
HOTTEST = 1e30


@dataclass(frozen=True)
class Sampling:
    """How a reply is sampled. temperature 0 is greedy; top_k 0, top_p 1 and every None is off.

    - temperature divides the logits: below 1 the likely becomes likelier, above 1 less so.
    - top_k: only the k likeliest tokens.
    - top_p: only the fewest tokens whose probabilities sum to top_p: many where the model is
      unsure, few where it is sure (nucleus sampling, arXiv 1904.09751).
    - min_p: only tokens of at least min_p times the likeliest one's probability (arXiv 2407.01082).
    - frequency_penalty, presence_penalty: off a token's logit each time that the reply has it, and once.
    - logit_bias: pairs (token, what is added to its logit).

    A reply ends before any string in `stop`. With a `json_schema` it is JSON that fits, or cut by its length.
    `logprobs` k asks for the log-probability of each token and of the k likeliest, before all else. `echo` n
    tells the prompt's last n tokens again before the reply, with theirs: how likely a model finds a given
    text.
    """

    max_new_tokens: int = 256
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    seed: int = 0
    use_tools: bool = True
    min_p: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    logit_bias: tuple[tuple[int, float], ...] = ()
    json_schema: str | None = None
    stop: tuple[str, ...] = ()
    logprobs: int | None = None
    echo: int = 0

    def __post_init__(self) -> None:
        above_zero = math.ulp(0.0)
        largest = sys.float_info.max
        limits = (
            ("max_new_tokens", "0 or more", 0, largest),
            ("temperature", "0 or more", 0, largest),
            ("top_k", "0 (off) or more", 0, largest),
            ("top_p", "above 0 and at most 1", above_zero, 1),
            ("min_p", "0 (off) to 1", 0, 1),
            ("frequency_penalty", "from -2 to 2", -2, 2),
            ("presence_penalty", "from -2 to 2", -2, 2),
            ("logprobs", "0 or more", 0, largest),
        )
        for name, wanted, least, most in limits:
            value = getattr(self, name)
            if value is not None and not least <= value <= most:  # nan is refused, too
                raise UsageError(f"{name} must be {wanted}, got {value}.")
        if not isinstance(self.stop, tuple) or not all(self.stop):
            raise UsageError(f"stop must be a tuple of strings that are not empty, got {self.stop}.")

    @property
    def changes_logits(self) -> bool:
        return any((self.frequency_penalty, self.presence_penalty, self.logit_bias, self.json_schema))


def penalize_counts(logits: torch.Tensor, ids: list[int], frequency: float, presence: float) -> None:
    """Make the tokens that a reply of `ids` has less likely in one row of logits (V,), in place."""
    said = torch.tensor(ids, dtype=torch.int64, device=logits.device)
    tokens, counts = said.unique(return_counts=True)
    logits[tokens] -= frequency * counts + presence


def top_logprobs(logits: torch.Tensor, tokens: list[int],
                 counts: list[int]) -> list[tuple[float, list[tuple[int, float]]]]:
    """For each row of logits (n, V): (log-probability of tokens[i], [(token, its own) of the counts[i]
    likeliest])."""
    logprobs = logits.log_softmax(-1)
    best = logprobs.topk(min(max(counts), logits.size(-1)))
    chosen = logprobs.gather(1, torch.tensor(tokens, device=logits.device)[:, None])[:, 0]
    ids = best.indices.tolist()  # whole, once: on a GPU each copy waits for all work before it
    values = best.values.tolist()
    found = []
    for i, logprob in enumerate(chosen.tolist()):
        found.append((logprob, list(zip(ids[i][:counts[i]], values[i][:counts[i]]))))
    return found


def sample_tokens(logits: torch.Tensor, temperature: list[float], top_k: list[int], top_p: list[float],
                  uniform: list[float], min_p: list[float]) -> torch.Tensor:
    """One token (n,) int64 for each row of logits (n, V) float32; all else has a number a row, as in
    Sampling.

    Where a row is not greedy, the cumulative distribution of what its settings leave is inverted at its
    number `uniform` in [0, 1): the same number gives the same token, whoever else is in the batch.
    """
    bounded = [min(max(warmth, COLDEST), HOTTEST) if warmth else 0.0 for warmth in temperature]
    if logits.device.type != "cpu":
        return sample_tokens_torch(logits, bounded, top_k, top_p, uniform, min_p)
    settings = [bounded, top_k, top_p, uniform, min_p]
    tokens = np.empty(len(logits), np.int64)
    sample_rows(logits.numpy(), *np.array(settings, float), tokens)
    return torch.from_numpy(tokens)


def widest_float(device: torch.device) -> torch.dtype:
    """Apple's GPUs and some of Intel's have no floats of 64 bits."""
    return torch.float64 if device.type in ("cpu", "cuda") else torch.float32


# Long: the filters in the order in which they apply.
def sample_tokens_torch(logits: torch.Tensor, temperature: list[float], top_k: list[int], top_p: list[float],
                        uniform: list[float], min_p: list[float]) -> torch.Tensor:
    """`sample_tokens` in torch, for GPUs: the reference of the compiled one. All but logits (n, V) have a
    number a row."""
    greedy = logits.argmax(-1)
    if not any(temperature):
        return greedy
    V = logits.size(-1)
    kept = [min(n, V) or V for n in top_k]
    wanted_mass = [p if p < 1 else 2 for p in top_p]  # 2: rounding must not cut a row that wants all
    # One copy to the device for all settings, each (n, 1).
    columns = torch.tensor(
        [temperature, kept, wanted_mass, uniform, min_p],
        dtype=widest_float(logits.device),
        device=logits.device,
    )[..., None]
    warmth, kth, mass, point, least = columns
    x = logits / warmth.where(warmth > 0, 1).float()
    if min(kept) < V:
        most = max(int(n) for n in kept if n < V)
        top = x.topk(most).values
        bound = top.gather(1, kth.long().clamp(max=most) - 1)
        x = x.masked_fill((x < bound) & (kth < V), -math.inf)
    if min(top_p) < 1:
        top = x.sort(-1, descending=True).values
        p = top.softmax(-1)
        before = p.cumsum(-1) - p  # the mass of those that are likelier
        n = (before < mass).sum(-1, keepdim=True).clamp(min=1)
        x = x.masked_fill(x < top.gather(1, n - 1), -math.inf)
    x = x.masked_fill(x < x.amax(-1, keepdim=True) + least.log().float(), -math.inf)
    cumulative = x.softmax(-1).to(warmth.dtype).cumsum(-1)
    total = cumulative[:, -1:]
    point = torch.minimum(point * total, total.nextafter(torch.zeros_like(total)))
    sampled = torch.searchsorted(cumulative, point, right=True)[:, 0]
    return torch.where(warmth[:, 0] > 0, sampled, greedy)
