"""
Choosing the next token for a whole batch at once, each row by its own settings.

Pure functions of logits (-inf where a token is not allowed) and random numbers. Filters are thresholds on the logit: a
row's choice depends on it alone.
"""
import math
import sys
from dataclasses import dataclass

import numpy as np
import torch

from nanochat.common import UsageError
from nanochat.infer.cpu.sampler import sample_rows

LARGEST, COLDEST, HOTTEST = 1e6, 1e-30, 1e30  # beyond, logits could be infinite or no number


@dataclass(frozen=True)
class Sampling:
    """temperature 0 is greedy; top_k 0, top_p 1 and every None is off.

    A reply ends before any string in `stop`. `logprobs` k asks for the log-probability of each token and of the k
    likeliest, before all else.
    """

    max_new_tokens: int = 256
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    seed: int = 0
    use_tools: bool = True
    min_p: float | None = None
    repetition_penalty: float | None = None
    stop: tuple[str, ...] = ()
    logprobs: int | None = None

    def __post_init__(self):
        least, most = math.ulp(0.0), sys.float_info.max
        for name, wanted, low, high in (
                ("max_new_tokens", "at least 1", 1, most), ("temperature", "0 or more", 0, most),
                ("top_k", "0 (off) or more", 0, most), ("top_p", "above 0 and at most 1", least, 1),
                ("min_p", "0 (off) to 1", 0, 1), ("repetition_penalty", "above 0", least, most),
                ("logprobs", "0 or more", 0, most)):
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise UsageError(f"{name} must be {wanted}, got {value}.")
        if not isinstance(self.stop, tuple) or not all(self.stop):
            raise UsageError(f"stop must be a tuple of strings that are not empty, got {self.stop}.")


def penalise(logits, ids, penalty):
    """Make tokens `ids` less likely in one row of logits (V,), in place (CTRL, arXiv 1909.05858)."""
    ids = torch.tensor(ids, dtype=torch.int64, device=logits.device)
    seen = logits[ids].cpu().double()
    changed = torch.where(seen > 0, seen / penalty, seen * penalty).clamp_(-LARGEST, LARGEST)
    logits[ids] = torch.where(seen > -math.inf, changed, seen).float().to(logits.device)


def widest(device):
    """Float type; Apple's GPUs and some of Intel's have none of 64 bits."""
    return torch.float64 if device.type in ("cpu", "cuda") else torch.float32


def likeliest(logits, tokens, counts):
    """[(log-probability of tokens[i], [(token, log-probability) of the counts[i] likeliest])] of logits (n, V)."""
    logprobs = logits.log_softmax(-1)
    best = logprobs.topk(min(max(counts), logits.size(-1)))
    chosen = logprobs.gather(1, torch.tensor(tokens, device=logits.device)[:, None])[:, 0]
    return [(p, list(zip(ids[:n], values[:n])))
            for p, ids, values, n in zip(chosen.tolist(), best.indices.tolist(), best.values.tolist(), counts)]


def sample(logits, temperature, top_k, top_p, uniform, min_p):
    """One token a row of logits (n, V) float32: (n,) int64. All else has a number for each row.

    Nucleus sampling (top_p): arXiv 1904.09751; min_p: arXiv 2407.01082. The cumulative distribution is inverted at the
    row's `uniform` in [0, 1).
    """
    settings = [[min(max(t, COLDEST), HOTTEST) if t else 0.0 for t in temperature], top_k, top_p, uniform, min_p]
    if logits.device.type != "cpu":
        return choose(logits, *settings)
    tokens = np.empty(len(logits), np.int64)
    sample_rows(logits.numpy(), *np.array(settings, float), tokens)
    return torch.from_numpy(tokens)


def choose(logits, temperature, top_k, top_p, uniform, min_p):
    """`sample` in torch, for GPUs."""
    best, V = logits.argmax(-1), logits.size(-1)
    if not any(temperature):
        return best
    k = [min(n, V) or V for n in top_k]
    warm, kth, mass, point, least = torch.tensor([temperature, k, [p if p < 1 else 2 for p in top_p], uniform, min_p],
                                                 dtype=widest(logits.device), device=logits.device)[..., None]
    x = logits / warm.where(warm > 0, 1).float()
    if min(k) < V:
        top = x.topk(max(n for n in k if n < V)).values
        low = top.gather(1, kth.long().clamp(max=top.size(1)) - 1)
        x = x.masked_fill((x < low) & (kth < V), -math.inf)
    if min(top_p) < 1:
        top = x.sort(-1, descending=True).values
        p = top.softmax(-1)
        n = ((p.cumsum(-1) - p) < mass).sum(-1, keepdim=True).clamp(min=1)
        x = x.masked_fill(x < top.gather(1, n - 1), -math.inf)
    x = x.masked_fill(x < x.amax(-1, keepdim=True) + least.log().float(), -math.inf)
    mass = x.softmax(-1).to(warm.dtype).cumsum(-1)
    point = torch.minimum(point * mass[:, -1:], mass[:, -1:].nextafter(torch.zeros_like(point)))
    return torch.where(warm[:, 0] > 0, torch.searchsorted(mass, point, right=True)[:, 0], best)
