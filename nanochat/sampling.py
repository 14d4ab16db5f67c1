"""
Choosing the next token for a whole batch at once, each row by its own settings.

Pure functions of logits (-inf where a token is not allowed) and of random numbers. All filters are thresholds on the
logit: a row's choice depends on it alone.
"""
import math
import sys
from dataclasses import dataclass

import torch

from nanochat.common import UsageError


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


def sample(logits, temperature, top_k, top_p, uniform, min_p=(0.0,)):
    """One token a row of logits (n, V) float32: (n,) int64. All else has a number for each row.

    Nucleus sampling (top_p): arXiv 1904.09751; min_p: arXiv 2407.01082. The cumulative distribution is inverted at the
    row's `uniform` in [0, 1).
    """
    if not any(temperature):
        return logits.argmax(-1)
    V, wide = logits.size(-1), widest(logits.device)

    def column(values, dtype=wide):
        return torch.tensor(values, dtype=dtype, device=logits.device)[:, None]
    scaled = logits / column([min(max(t, COLDEST), HOTTEST) if t else 1.0 for t in temperature]).float()
    k = [min(k, V) or V for k in top_k]
    if min(k) < V:
        best = scaled.topk(max(n for n in k if n < V)).values
        kth = best.gather(1, column([min(n, best.size(1)) - 1 for n in k], torch.int64))
        scaled = scaled.masked_fill(scaled < kth.masked_fill_(column(k) == V, -math.inf), -math.inf)
    if min(top_p) < 1.0:
        best = scaled.sort(-1, descending=True).values
        p = best.softmax(-1)
        keep = ((p.cumsum(-1) - p) < column(top_p)).sum(-1, keepdim=True).clamp(min=1)
        scaled = scaled.masked_fill(scaled < best.gather(1, keep - 1), -math.inf)
    if any(min_p):
        least = scaled.max(-1, keepdim=True).values + column(min_p).log().float()
        scaled = scaled.masked_fill(scaled < least, -math.inf)
    mass = scaled.softmax(-1).to(wide).cumsum(-1)
    total = mass[:, -1:]
    point = torch.minimum(column(uniform) * total, torch.nextafter(total, torch.zeros_like(total)))
    drawn = torch.searchsorted(mass, point, right=True)[:, 0]
    return torch.where(column(temperature)[:, 0] > 0, drawn, logits.argmax(-1))
