"""
Choosing the next token of many rows in one compiled call: what `sampling.sample_tokens_torch` does, without
some twenty passes over all logits.
"""
import numpy as np
from numba import prange

from nanochat.infer.cpu.kernels import F32, Array, compiled, exp, parallel

BITS_OF_ONE = 0x3F800000  # of the float32 1.0


@compiled
def _mass_from(p, bound, by_number):
    """How many of p (V,) are at least `bound` (`by_number`), or their sum."""
    found = F32(0)
    for i in range(p.size):
        if p[i] >= bound:
            found += F32(1) if by_number else p[i]
    return found


@compiled
def keep_largest(probabilities: Array, by_number: bool, wanted: float) -> None:
    """Zero what is small in probabilities (V,), from 0 to 1, as long as `wanted` is left, by number or by
    sum; equals stay together.

    The smallest bound that leaves enough is found by halving, over the bits of floats, which for positive
    ones are in the order of the floats: 31 passes at most, and no sort.
    """
    low = 0
    high = BITS_OF_ONE
    while low < high:
        middle = (low + high + 1) // 2
        found = _mass_from(probabilities, np.int32(middle).view(F32), by_number)
        if found == wanted:
            low = middle
            high = middle
        elif found > wanted:
            low = middle
        else:
            high = middle - 1
    bound = np.int32(low).view(F32)
    for i in range(probabilities.size):
        if probabilities[i] < bound:
            probabilities[i] = F32(0)


@compiled
def _argmax(row):
    best = 0
    for i in range(row.size):
        if row[i] > row[best]:
            best = i
    return best


@parallel
def sample_rows(logits: Array, temperature: Array, top_k: Array, top_p: Array,
                uniform: Array, min_p: Array, out: Array) -> None:
    """out (B,): a token of each row of logits (B, V) by its settings, each (B,), which mean what they do in
    `sampling.sample_tokens`."""
    for b in prange(len(logits)):
        row = logits[b]
        best = _argmax(row)
        out[b] = best
        if temperature[b] == 0:
            continue
        p = np.empty(row.size, F32)  # relative to the likeliest token's
        gain = F32(1 / temperature[b])
        for i in range(row.size):
            x = (row[i] - row[best]) * gain
            p[i] = exp(x) if x > F32(-87) else F32(0)
        if 0 < top_k[b] < row.size:
            keep_largest(p, True, F32(top_k[b]))
        if top_p[b] < 1:
            keep_largest(p, False, F32(top_p[b] * p.sum()))
        left = 0.0
        for i in range(row.size):
            if p[i] < min_p[b]:
                p[i] = F32(0)
            left += p[i]
        left *= uniform[b]
        for i in range(row.size):  # invert the cumulative distribution at `uniform`
            if p[i] > 0:
                out[b] = i
                left -= p[i]
                if left < 0:
                    break
