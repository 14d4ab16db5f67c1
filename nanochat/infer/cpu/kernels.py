"""
Decoding on a CPU, in machine code that Numba makes of this Python at the first call and keeps on disk.

With few rows a product, and the attention of single queries, take as long as memory takes to be read, which kernels
for many rows do at half the speed. A row's sums have one order: its bits do not depend on who is beside it.
Arrays are float32, int8, or uint16: the bits of bfloat16, which NumPy does not know.
"""
import sys

import numba
import numpy as np
import torch
from llvmlite import ir
from numba import njit, prange, types
from numba.extending import intrinsic, overload

THREADS = sys.platform == "linux"  # elsewhere a second OpenMP may end the process
if THREADS:
    try:
        from numba.np.ufunc import omppool  # noqa: F401    after torch: so both have the same threads
        numba.config.THREADING_LAYER = "omp"
    except ImportError:  # no libgomp in the system
        THREADS = False
F32 = np.float32
# Sums in vectors, products added in one; infinities and NaN stay what they are.
OPTIONS = {"nogil": True, "fastmath": {"reassoc", "contract", "nsz"}, "error_model": "numpy"}


def array(tensor):
    """A NumPy array over the memory of a CPU tensor in float32, bfloat16 or int8."""
    tensor = tensor.detach()
    return tensor.view(torch.uint16).numpy() if tensor.dtype == torch.bfloat16 else tensor.numpy()


def widen(x):
    """An element of an array as a float32."""


def narrow(x, kind):
    """float32 x as an element of arrays whose elements are of `kind`'s type."""


@overload(widen, inline="always")
def _widen(x):
    if x == types.uint16:
        return lambda x: np.uint32(np.uint32(x) << np.uint32(16)).view(F32)
    return lambda x: F32(x)


@overload(narrow, inline="always")
def _narrow(x, kind):
    if kind == types.float32:
        return lambda x, kind: x

    def nearest(x, kind):
        bits, half, sixteen = F32(x).view(np.uint32), np.uint32(0x7FFF), np.uint32(16)
        return np.uint16(np.uint32(bits + half + ((bits >> sixteen) & np.uint32(1))) >> sixteen)
    return nearest


def compiled(function, **options):
    try:
        return njit(function, cache=True, **OPTIONS, **options)
    except RuntimeError:  # no folder to keep it in
        return njit(function, **OPTIONS, **options)


def shared(function):
    """Compiled, its `prange` divided among as many threads as `share` has said."""
    return compiled(function, parallel=THREADS)


def share(threads):
    if THREADS:
        numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))


@intrinsic
def fetch(_, row):
    """Have a row's first 64 bytes brought from memory meanwhile."""
    def generate(context, builder, signature, values):
        place, flag = ir.PointerType(ir.IntType(8)), ir.IntType(32)
        array = context.make_array(signature.args[0])(context, builder, values[0])
        kind = ir.FunctionType(ir.VoidType(), [place, flag, flag, flag])
        prefetch = builder.module.declare_intrinsic("llvm.prefetch", [place], kind)
        builder.call(prefetch, [builder.bitcast(array.data, place), flag(0), flag(3), flag(1)])
        return context.get_dummy_value()
    return types.none(row), generate


@compiled
def exp(x):
    """Of x <= 0, to 4e-6 of it: 2^n times a polynomial, which compilers turn into vectors."""
    t = max(x, F32(-87)) * F32(1.442695)
    n = np.floor(t + F32(0.5))
    f = (t - n) * F32(0.6931472)
    p = F32(1 / 24) + f * (F32(1 / 120) + f * F32(1 / 720))
    p = F32(1) + f * (F32(1) + f * (F32(1 / 2) + f * (F32(1 / 6) + f * p)))
    return p * np.int32((np.int32(n) + np.int32(127)) << np.int32(23)).view(F32)


@compiled
def dot(w, x):
    total = F32(0)
    for i in range(x.size):
        total += widen(w[i]) * x[i]
    return total


@compiled
def unit(x):
    """RMSNorm of x (n,), in place."""
    x /= max(np.sqrt(dot(x, x) / F32(x.size)), F32(1e-30))


@compiled
def tile(w, x0, x1, x2, x3):
    """Sums of products of w (3, C) and four rows, twelve at a time in registers."""
    a0 = a1 = a2 = a3 = b0 = b1 = b2 = b3 = c0 = c1 = c2 = c3 = F32(0)
    u, v, w = w
    for i in range(u.size):
        a0, b0, c0 = a0 + u[i] * x0[i], b0 + v[i] * x0[i], c0 + w[i] * x0[i]
        a1, b1, c1 = a1 + u[i] * x1[i], b1 + v[i] * x1[i], c1 + w[i] * x1[i]
        a2, b2, c2 = a2 + u[i] * x2[i], b2 + v[i] * x2[i], c2 + w[i] * x2[i]
        a3, b3, c3 = a3 + u[i] * x3[i], b3 + v[i] * x3[i], c3 + w[i] * x3[i]
    return (a0, a1, a2, a3), (b0, b1, b2, b3), (c0, c1, c2, c3)


@shared
def product(w, scale, x, y, exact):
    """y (B, R) += x (B, C) @ w.T, w (R, C) times its rows' scale (R,); `exact`: a row's bits are the same in any B."""
    (R, C), B = w.shape, len(x)
    for task in prange((R + 2) // 3):
        here = range(3 * task, min(3 * task + 3, R))
        if B == 1 and not exact:
            for r in here:
                if w.itemsize == 1:  # wider rows arrive in time
                    for i in range(0, C, 64):
                        fetch(w[min(r + 1, R - 1), i:])
                y[0, r] += dot(w[r], x[0]) * scale[r]
            continue
        rows = np.zeros((3, C), F32)
        for r in here:
            for i in range(0, C, 64 // w.itemsize):
                fetch(w[min(r + 3, R - 1), i:])
            for i in range(C):
                rows[r - here.start, i] = widen(w[r, i])
        three = rows[0], rows[1], rows[2]
        for b in range(0, B, 4):
            last = min(b + 4, B) - 1
            sums = tile(three, x[b], x[min(b + 1, last)], x[min(b + 2, last)], x[last])
            for r in here:
                for i in range(last + 1 - b):
                    y[b + i, r] += sums[r - here.start][i] * scale[r]


@shared
def store(qkv, ids, table, slots, at, turn, k, v, offset):
    """Normalise and rotate queries and keys in qkv (B, (n_q + 2 n_kv) * D) in place; cache the keys and values.

    Row b is token ids[b] at position at[b] of slot slots[b]; table (V, n_kv * D) is added to its values if it has rows;
    turn (S, D): complex numbers by which pairs of channels turn; k, v as in `KVCache`, one layer, (slots, n_kv, S, D).
    """
    D, n_kv = v.shape[3], v.shape[1]
    n = qkv.shape[1] // D - n_kv  # heads that rotate
    here = D - offset
    for task in prange(len(qkv) * n):
        b, h = divmod(np.int64(task), n)
        head, slot, p, kv = qkv[b, h * D:(h + 1) * D], slots[b], at[b], h - n + n_kv
        unit(head)
        for i in range(0, D, 2):
            c, s, left, right = turn[p, i], turn[p, i + 1], head[i], head[i + 1]
            head[i] = left * c - right * s
            head[i + 1] = right * c + left * s
        if kv < 0:
            continue
        value, kept = qkv[b, (n + kv) * D:(n + kv + 1) * D], v[slot, kv, p]
        key, moved = k[slot, kv, p], k[slot, kv, p + 1]
        if len(table):
            value += table[ids[b], kv * D:(kv + 1) * D]
        for i in range(here):
            key[i] = narrow(head[i], key[0])
        for i in range(here, D):
            moved[i] = narrow(head[i], key[0])
        for i in range(D):
            kept[i] = narrow(value[i], key[0])


@shared
def attend(rows, qkv, slots, at, k, v, scale, y):
    """y (B, n_q * D): what the queries of each b in `rows` find in positions 0 to at[b] of slot slots[b]."""
    D, n_kv = v.shape[3], v.shape[1]
    n_q = y.shape[1] // D
    gain = F32(scale)
    for task in prange(len(rows) * n_q):
        p = np.empty(v.shape[2], F32)
        b, h = divmod(np.int64(task), n_q)
        b = rows[b]
        n, q, out = at[b] + 1, qkv[b, h * D:(h + 1) * D], y[b, h * D:(h + 1) * D]
        keys, values = k[slots[b], h * n_kv // n_q], v[slots[b], h * n_kv // n_q]
        for s in range(n):
            for i in range(0, D, 64 // values.itemsize):
                fetch(values[s, i:])
            p[s] = dot(keys[s], q) * gain
        most, total = p[:n].max(), F32(0)
        for s in range(n):
            p[s] = exp(p[s] - most)
            total += p[s]
        out[:] = 0
        for s in range(0, n - n % 4, 4):  # four at a time: `out` is read and written less often
            for i in range(D):
                out[i] += (p[s] * widen(values[s, i]) + p[s + 1] * widen(values[s + 1, i])
                           + p[s + 2] * widen(values[s + 2, i]) + p[s + 3] * widen(values[s + 3, i]))
        for s in range(n - n % 4, n):
            for i in range(D):
                out[i] += p[s] * widen(values[s, i])
        out /= total


def cast(row, out):
    """Floats into `out`, of any type; in bytes they stand around 128. Returns what 1 in `out` is worth."""


@overload(cast, jit_options=OPTIONS)
def _cast(row, out):
    if out.dtype != types.uint8:
        def impl(row, out):
            for i in range(row.size):
                out[i] = narrow(row[i], out[0])
            return F32(1)
        return impl

    def impl(row, out):
        most = np.uint32(1)
        for i in range(row.size):  # the bits of positive floats are in the order of the floats
            most = max(most, F32(row[i]).view(np.uint32) & np.uint32(0x7FFFFFFF))
        unit = np.uint32(most).view(F32) / F32(127) + F32(1e-30)
        gain = F32(1) / unit
        for i in range(row.size):
            out[i] = np.uint8(np.int32(row[i] * gain + F32(128.5)))
        return unit
    return impl


@shared
def ready(x, s, a):
    """a and s (B,) become x."""
    for b in prange(len(x)):
        s[b] = cast(x[b], a[b])


@shared
def renew(x, y, s, a):
    """x += y times its rows' s; then a and s are the RMSNorm of x."""
    for b in prange(len(x)):
        for i in range(x.shape[1]):
            x[b, i] += widen(y[b, i]) * s[b]
        row = x[b].copy()
        unit(row)
        s[b] = cast(row, a[b])


@shared
def square(y, s, a):
    """a and s become the square of what is positive in y times its rows' s."""
    for b in prange(len(y)):
        row = np.empty(y.shape[1], F32)
        for i in range(row.size):
            row[i] = max(widen(y[b, i]), F32(0)) ** 2
        s[b] *= s[b] * cast(row, a[b])


@shared
def soften(y, s, cap, bans, states, out):
    """out (B, V): cap * tanh(y times its rows' s / cap), to 4e-6 of cap, plus the row of bans (n, V) for each state (B,)."""
    for b in prange(len(y)):
        gain, most = F32(2) * s[b] / F32(cap), F32(cap)
        for i in range(y.shape[1]):
            x = widen(y[b, i]) * gain
            rest = exp(-abs(x))
            z = most * (F32(1) - rest) / (F32(1) + rest)
            out[b, i] = (z if x > 0 else -z) + bans[states[b], i]


@compiled
def keep(p, each, wanted):
    """Zero what is small in p (V,), from 0 to 1, as long as `wanted` is left, by number (`each`) or sum; equals stay."""
    low, high = 0, 0x3F800000  # the bits of 0 and 1
    while low < high:
        middle, found = (low + high + 1) // 2, F32(0)
        bound = np.int32(middle).view(F32)
        for i in range(p.size):
            found += F32(p[i] >= bound) if each else p[i] if p[i] >= bound else F32(0)
        low, high = (middle, middle if found == wanted else high) if found >= wanted else (low, middle - 1)
    bound = np.int32(low).view(F32)
    for i in range(p.size):
        p[i] = p[i] if p[i] >= bound else F32(0)


@shared
def draw(logits, temperature, top_k, top_p, uniform, min_p, out):
    """out (B,): a token of each row of logits (B, V), by what `sampling.sample` says of the others (B,)."""
    for b in prange(len(logits)):
        row, best, p = logits[b], 0, np.empty(logits.shape[1], F32)
        for i in range(row.size):
            if row[i] > row[best]:
                best = i
        out[b] = best
        if temperature[b] == 0:
            continue
        gain = F32(1 / temperature[b])
        for i in range(row.size):
            x = (row[i] - row[best]) * gain
            p[i] = exp(x) if x > F32(-87) else F32(0)
        if 0 < top_k[b] < row.size:
            keep(p, True, F32(top_k[b]))
        if top_p[b] < 1:
            keep(p, False, F32(top_p[b] * p.sum()))
        left = 0.0
        for i in range(row.size):
            p[i] = p[i] if p[i] >= min_p[b] else F32(0)
            left += p[i]
        left *= uniform[b]
        for i in range(row.size):
            if p[i] > 0:
                out[b] = i
                left -= p[i]
                if left < 0:
                    break


@compiled
def units(x):
    y = x.copy()
    for row in y:
        unit(row)
    return y


@compiled
def step(x, ids, slots, at, tables, weights, scales, turn, k, v, offset, scale, exact):
    """x (B, C), embeddings of tokens ids (B,), become their last hidden states.

    tables, weights, scales: lists; from the second on, weights and scales are each layer's qkv, proj, fc, out, as in
    `product`; the rest as in `store` and `attend`, k and v of all layers.
    """
    rows = np.arange(len(x))
    for row in x:
        unit(row)
    for layer in range(len(k)):
        i, y = 1 + 4 * layer, np.empty_like(x)
        qkv = np.zeros((len(x), len(weights[i])), F32)
        product(weights[i], scales[i], units(x), qkv, exact)
        store(qkv, ids, tables[layer], slots, at, turn, k[layer], v[layer], offset)
        attend(rows, qkv, slots, at, k[layer], v[layer], scale, y)
        product(weights[i + 1], scales[i + 1], y, x, exact)
        wide = np.zeros((len(x), len(weights[i + 2])), F32)
        product(weights[i + 2], scales[i + 2], units(x), wide, exact)
        product(weights[i + 3], scales[i + 3], np.maximum(wide, F32(0)) ** 2, x, exact)
    for row in x:
        unit(row)
