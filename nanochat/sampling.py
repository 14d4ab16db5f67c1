"""
Choosing the next token: temperature, top-k and top-p, for a whole batch at once, each row by its own settings.

Pure functions of logits and of random numbers that the caller draws; which tokens are allowed at all is the caller's
business too (-inf). Both filters are thresholds on the logit, so a row's choice depends on that row alone.
"""
import math
from dataclasses import dataclass

import torch

from nanochat.common import UsageError


@dataclass(frozen=True)
class Sampling:
    """How a reply is sampled. temperature 0 is greedy; top_k None or 0 and top_p None or 1 are off."""

    max_new_tokens: int = 256
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    seed: int = 0
    use_tools: bool = True

    def __post_init__(self):
        for name, wanted, holds in (
                ("max_new_tokens", "at least 1", self.max_new_tokens >= 1),
                ("temperature", "0 or more", 0 <= self.temperature < math.inf),
                ("top_k", "0 (off) or more", (self.top_k or 0) >= 0),
                ("top_p", "above 0 and at most 1", self.top_p is None or 0 < self.top_p <= 1)):
            if not holds:
                raise UsageError(f"{name} must be {wanted}, got {getattr(self, name)}.")


def sample(logits, temperature, top_k, top_p, uniform):
    """One token a row from logits (n, V) float32: (n,) int64. The other arguments are (n,) lists.

    temperature 0 takes the largest logit; top_k 0 and top_p 1 are off (top_p: arXiv 1904.09751). A token is drawn by
    inverting the cumulative distribution at the row's own uniform number in [0, 1).
    """
    if not any(temperature):
        return logits.argmax(-1)
    V = logits.size(-1)

    def column(values):
        return torch.tensor(values, dtype=torch.float64, device=logits.device)[:, None]
    scaled = logits / column([t or 1.0 for t in temperature]).float()
    k = [min(k, V) or V for k in top_k]
    if min(k) < V:
        best = scaled.topk(max(n for n in k if n < V)).values
        kth = best.gather(1, torch.tensor([[min(n, best.size(1)) - 1] for n in k], device=logits.device))
        kth[[n == V for n in k]] = -math.inf
        scaled = scaled.masked_fill(scaled < kth, -math.inf)
    if min(top_p) < 1.0:
        best = scaled.sort(-1, descending=True).values
        p = best.softmax(-1)
        keep = ((p.cumsum(-1) - p) < column(top_p)).sum(-1, keepdim=True).clamp(min=1)
        scaled = scaled.masked_fill(scaled < best.gather(1, keep - 1), -math.inf)
    mass = scaled.softmax(-1).double().cumsum(-1)
    total = mass[:, -1:]
    point = torch.minimum(column(uniform) * total, torch.nextafter(total, torch.zeros_like(total)))
    drawn = torch.searchsorted(mass, point, right=True)[:, 0]
    greedy = torch.tensor([not t for t in temperature], device=logits.device)
    return torch.where(greedy, logits.argmax(-1), drawn)
