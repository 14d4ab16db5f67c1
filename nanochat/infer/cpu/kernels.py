"""
What the compiled layers are made of: products, norms, attention and the like, in machine code.

Numba makes it of this Python at the first call and keeps it on disk. With few rows a product, and the
attention of single queries, take as long as memory takes to be read, which libraries made for many rows do at
half the speed. A row's sums have one order here, so with `deterministic` its bits do not depend on who is
beside it.

Arrays are float32, int8 or uint16, the bits of bfloat16, which NumPy does not know; products of bytes read
uint8. Whatever is quantized has a scale for each row: value = number * scale. B counts rows, each of them a
token, of whichever conversation.
"""
import sys
from collections.abc import Callable
from typing import TypeAlias

import numba
import numpy as np
import torch
from llvmlite import ir
from numba import njit, prange, types
from numba.extending import intrinsic, overload

THREADS = sys.platform == "linux"  # elsewhere a second OpenMP may end the process
if THREADS:
    try:
        from numba.np.ufunc import omppool  # noqa: F401    after torch, so that both have the same threads
        numba.config.THREADING_LAYER = "omp"
    except ImportError:  # no libgomp in the system
        THREADS = False
F32 = np.float32
Array: TypeAlias = np.ndarray
Number = float | int  # an element of an array
CACHE_LINE = 64  # bytes that a processor fetches at once
TILE = 3  # rows of weights that `product` multiplies together
# Sums may be made in vectors and products added in one instruction; infinities and NaN stay what they are.
OPTIONS = {"nogil": True, "fastmath": {"reassoc", "contract", "nsz"}, "error_model": "numpy"}


def as_array(tensor: torch.Tensor) -> Array:
    """A NumPy array over the memory of a CPU tensor; bfloat16 as uint16."""
    tensor = tensor.detach()
    if tensor.dtype == torch.bfloat16:
        tensor = tensor.view(torch.uint16)
    return tensor.numpy()


def compiled(function: Callable, **options: object) -> Callable:
    """`function` in machine code."""
    try:
        return njit(function, cache=True, **OPTIONS, **options)
    except RuntimeError:  # no folder to keep it in
        return njit(function, **OPTIONS, **options)


def parallel(function: Callable) -> Callable:
    """Compiled, its `prange` divided among as many threads as `use_threads` has said."""
    return compiled(function, parallel=THREADS)


def use_threads(threads: int) -> None:
    if THREADS:
        numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))


# ---- numbers: Numba picks the implementation by the type
def widen(x: Number) -> Number:
    """An element of an array as a float32."""
    raise TypeError("for compiled code: Numba has an implementation for each type")


@overload(widen, inline="always")
def _widen(x):
    if x == types.uint16:  # the upper half of a float32
        return lambda x: np.uint32(np.uint32(x) << np.uint32(16)).view(F32)
    return lambda x: F32(x)  # noqa: PLW0108    Numba wants a function of its own


def narrow(x: float, kind: Number) -> Number:
    """float32 x as an element of arrays whose elements have the type of `kind`."""
    raise TypeError("for compiled code: Numba has an implementation for each type")


@overload(narrow, inline="always")
def _narrow(x, kind):
    if kind == types.float32:
        return lambda x, kind: x

    def nearest(x, kind):  # bfloat16, rounded to even as torch does
        bits = F32(x).view(np.uint32)
        odd = (bits >> np.uint32(16)) & np.uint32(1)
        return np.uint16(np.uint32(bits + np.uint32(0x7FFF) + odd) >> np.uint32(16))
    return nearest


@intrinsic
def prefetch(typing_context: object, row: Array) -> tuple:
    """Have a row's first 64 bytes brought from memory while other work goes on."""
    def generate(context, builder, signature, values):
        place = ir.PointerType(ir.IntType(8))
        flag = ir.IntType(32)
        array = context.make_array(signature.args[0])(context, builder, values[0])
        kind = ir.FunctionType(ir.VoidType(), [place, flag, flag, flag])
        instruction = builder.module.declare_intrinsic("llvm.prefetch", [place], kind)
        read = flag(0)
        keep_in_cache = flag(3)
        data = flag(1)
        builder.call(instruction, [builder.bitcast(array.data, place), read, keep_in_cache, data])
        return context.get_dummy_value()
    return types.none(row), generate


@compiled
def exp(x: float) -> float:
    """Of x <= 0, to 4e-6 of it: 2^n times a polynomial, which compilers turn into vectors."""
    t = max(x, F32(-87)) * F32(1.442695)  # log2(e): e^x = 2^t
    n = np.floor(t + F32(0.5))
    f = (t - n) * F32(0.6931472)  # e^x = 2^n * e^f, |f| < 0.35
    p = F32(1 / 24) + f * (F32(1 / 120) + f * F32(1 / 720))
    p = F32(1) + f * (F32(1) + f * (F32(1 / 2) + f * (F32(1 / 6) + f * p)))
    return p * np.int32((np.int32(n) + np.int32(127)) << np.int32(23)).view(F32)


# ---- norm
@compiled
def dot(row: Array, x: Array) -> float:
    total = F32(0)
    for i in range(x.size):
        total += widen(row[i]) * x[i]
    return total


@compiled
def rms_norm(x: Array) -> None:
    """RMSNorm of x (n,), in place."""
    x /= max(np.sqrt(dot(x, x) / F32(x.size)), F32(1e-30))


@compiled
def rms_norm_rows(x: Array) -> Array:
    """RMSNorm of each row of x (B, C), in new memory."""
    y = x.copy()
    for row in y:
        rms_norm(row)
    return y


@compiled
def mix(x: Array, embedded: Array, skip: Array) -> None:
    """x (n,) becomes skip[0] * x + skip[1] * embedded, in place."""
    for i in range(x.size):
        x[i] = skip[0] * x[i] + skip[1] * embedded[i]


# ---- products of few rows
@compiled
def tile_sums(weights: tuple, x0: Array, x1: Array, x2: Array, x3: Array) -> tuple:
    """Products of weights (three rows of C) with four rows, as 3 x 4 sums that stay in registers.

    Seven loads feed twelve multiply-adds; one row at a time would be bound by its loads.
    """
    a0 = a1 = a2 = a3 = b0 = b1 = b2 = b3 = c0 = c1 = c2 = c3 = F32(0)
    wa, wb, wc = weights
    for i in range(wa.size):
        a0 += wa[i] * x0[i]
        b0 += wb[i] * x0[i]
        c0 += wc[i] * x0[i]
        a1 += wa[i] * x1[i]
        b1 += wb[i] * x1[i]
        c1 += wc[i] * x1[i]
        a2 += wa[i] * x2[i]
        b2 += wb[i] * x2[i]
        c2 += wc[i] * x2[i]
        a3 += wa[i] * x3[i]
        b3 += wb[i] * x3[i]
        c3 += wc[i] * x3[i]
    return (a0, a1, a2, a3), (b0, b1, b2, b3), (c0, c1, c2, c3)


@parallel
def product(weight: Array, scale: Array, x: Array, out: Array, deterministic: bool) -> None:
    """out (B, R) += x (B, C) @ weight.T, weight (R, C) times its rows' scale (R,).

    `deterministic`: a row's bits are the same for any B; otherwise a single row is multiplied in a quicker
    way.
    """
    R, C = weight.shape
    B = len(x)
    for task in prange((R + TILE - 1) // TILE):
        here = range(TILE * task, min(TILE * task + TILE, R))
        if B == 1 and not deterministic:
            for r in here:
                if weight.itemsize == 1:  # wider rows arrive in time without it
                    for i in range(0, C, CACHE_LINE):
                        prefetch(weight[min(r + 1, R - 1), i:])
                out[0, r] += dot(weight[r], x[0]) * scale[r]
            continue
        rows = np.zeros((TILE, C), F32)
        for r in here:
            for i in range(0, C, CACHE_LINE // weight.itemsize):
                prefetch(weight[min(r + TILE, R - 1), i:])
            for i in range(C):
                rows[r - here.start, i] = widen(weight[r, i])
        three = rows[0], rows[1], rows[2]
        for b in range(0, B, 4):
            last = min(b + 4, B) - 1  # a tile of fewer than four rows computes its last one again
            sums = tile_sums(three, x[b], x[min(b + 1, last)], x[min(b + 2, last)], x[last])
            for r in here:
                for i in range(last + 1 - b):
                    out[b + i, r] += sums[r - here.start][i] * scale[r]


# ---- attention
@compiled
def store_row(row: Array, memory: Array, position: int, offset: int) -> None:
    """row (D,) into memory (S + 1, D) at `position`, its last `offset` channels one further."""
    here = row.size - offset
    for i in range(here):
        memory[position, i] = narrow(row[i], memory[0, 0])
    for i in range(here, row.size):
        memory[position + 1, i] = narrow(row[i], memory[0, 0])


# Long: annotations and docstring are a third of it.
@parallel
def store_keys_and_values(qkv: Array, ids: Array, table: Array, slots: Array,
                          positions: Array, rope: Array, k: Array, v: Array,
                          key_offset: int, value_offset: int) -> None:
    """Normalise and rotate queries and keys in qkv (B, (H + 2 H_kv) * D) in place; cache the keys and values.

    Row b is token ids[b] at positions[b] of slot slots[b]. table (V, H_kv * D) is added to its values if it
    has rows. rope (S, D) has for each position the complex numbers by which pairs of neighbouring channels
    turn. k and v (slots, H_kv, S + 1, D) are one layer of the cache; a key's last `key_offset` channels and a
    value's last `value_offset` are stored one position on.
    """
    H_kv = v.shape[1]
    D = v.shape[3]
    rotating = qkv.shape[1] // D - H_kv  # heads: queries and keys
    for task in prange(len(qkv) * rotating):
        b, h = divmod(np.int64(task), rotating)
        head = qkv[b, h * D:(h + 1) * D]
        slot = slots[b]
        p = positions[b]
        rms_norm(head)
        for i in range(0, D, 2):
            cos = rope[p, i]
            sin = rope[p, i + 1]
            left = head[i]
            right = head[i + 1]
            head[i] = left * cos - right * sin
            head[i + 1] = right * cos + left * sin
        kv = h - rotating + H_kv
        if kv < 0:  # a query
            continue
        value = qkv[b, (rotating + kv) * D:(rotating + kv + 1) * D]
        if len(table):
            value += table[ids[b], kv * D:(kv + 1) * D]
        store_row(head, k[slot, kv], p, key_offset)
        store_row(value, v[slot, kv], p, value_offset)


@parallel
def attend(rows: Array, qkv: Array, slots: Array, positions: Array, k: Array,
           v: Array, scale: float, out: Array) -> None:
    """out (B, H * D): what the queries of each b in `rows` find in positions 0 to positions[b] of slot
    slots[b].

    qkv, k and v as `store_keys_and_values` left them; scores are q . k * scale.
    """
    H_kv = v.shape[1]
    D = v.shape[3]
    H = out.shape[1] // D
    gain = F32(scale)
    for task in prange(len(rows) * H):
        p = np.empty(v.shape[2], F32)
        i_row, h = divmod(np.int64(task), H)
        b = rows[i_row]
        seen = positions[b] + 1
        q = qkv[b, h * D:(h + 1) * D]
        found = out[b, h * D:(h + 1) * D]
        keys = k[slots[b], h * H_kv // H]
        values = v[slots[b], h * H_kv // H]
        for s in range(seen):
            for i in range(0, D, CACHE_LINE // values.itemsize):
                prefetch(values[s, i:])  # the second loop will read them
            p[s] = dot(keys[s], q) * gain
        highest = p[:seen].max()
        total = F32(0)
        for s in range(seen):
            p[s] = exp(p[s] - highest)
            total += p[s]
        found[:] = 0
        for s in range(0, seen - seen % 4, 4):  # four at a time: `found` is read and written less often
            for i in range(D):
                found[i] += (p[s] * widen(values[s, i]) + p[s + 1] * widen(values[s + 1, i])
                           + p[s + 2] * widen(values[s + 2, i]) + p[s + 3] * widen(values[s + 3, i]))
        for s in range(seen - seen % 4, seen):
            for i in range(D):
                found[i] += p[s] * widen(values[s, i])
        found /= total


# ---- between the products of many rows
def quantize_row(row: Array, out: Array) -> float:
    """Floats into `out`, of any type; bytes stand around 128. Returns what 1 in `out` is worth."""
    raise TypeError("for compiled code: Numba has an implementation for each type")


@overload(quantize_row, jit_options=OPTIONS)
def _quantize_row(row, out):
    if out.dtype != types.uint8:
        def round_to_float(row, out):
            for i in range(row.size):
                out[i] = narrow(row[i], out[0])
            return F32(1)
        return round_to_float

    def round_to_byte(row, out):
        most = np.uint32(1)
        for i in range(row.size):  # the bits of positive floats are in the order of the floats
            most = max(most, F32(row[i]).view(np.uint32) & np.uint32(0x7FFFFFFF))
        scale = np.uint32(most).view(F32) / F32(127) + F32(1e-30)
        gain = F32(1) / scale
        for i in range(row.size):
            out[i] = np.uint8(np.int32(row[i] * gain + F32(128.5)))
        return scale
    return round_to_byte


@compiled
def add_row(x: Array, added: Array, scale: float) -> None:
    """x (n,) += added * scale, in place."""
    for i in range(x.size):
        x[i] += widen(added[i]) * scale


@compiled
def norm_row(x: Array, out: Array) -> float:
    """`out` becomes the RMSNorm of x (n,); returns what 1 in it is worth."""
    row = x.copy()
    rms_norm(row)
    return quantize_row(row, out)


@parallel
def quantize(x: Array, scale: Array, out: Array) -> None:
    """out (B, C) and scale (B,) become x (B, C)."""
    for b in prange(len(x)):
        scale[b] = quantize_row(x[b], out[b])


@parallel
def mix_and_norm(x: Array, embedded: Array, skip: Array, scale: Array, out: Array) -> None:
    """x becomes skip[0] * x + skip[1] * embedded, out and scale its RMSNorm. All (B, C) but scale (B,)."""
    for b in prange(len(x)):
        mix(x[b], embedded[b], skip)
        scale[b] = norm_row(x[b], out[b])


@parallel
def add(x: Array, added: Array, scale: Array) -> None:
    """x (B, C) += added times its rows' scale (B,)."""
    for b in prange(len(x)):
        add_row(x[b], added[b], scale[b])


@parallel
def add_and_norm(x: Array, added: Array, scale: Array, out: Array) -> None:
    """As `add`; then out (B, C) and scale become the RMSNorm of x."""
    for b in prange(len(x)):
        add_row(x[b], added[b], scale[b])
        scale[b] = norm_row(x[b], out[b])


@parallel
def relu_squared(wide: Array, scale: Array, out: Array) -> None:
    """out and scale become relu(wide times its rows' scale)^2."""
    for b in prange(len(wide)):
        row = np.empty(wide.shape[1], F32)
        for i in range(row.size):
            row[i] = max(widen(wide[b, i]), F32(0)) ** 2
        scale[b] *= scale[b] * quantize_row(row, out[b])  # relu(scale * w)^2 = scale^2 * relu(w)^2


@parallel
def softcap_and_bias(raw: Array, scale: Array, softcap: float, bias: Array, states: Array,
                     out: Array) -> None:
    """out (B, V) = softcap * tanh(raw times its rows' scale / softcap) + bias[states[b]], the tanh to 4e-6.

    raw (B, V), bias (n, V), states (B,).
    """
    for b in prange(len(raw)):
        gain = F32(2) * scale[b] / F32(softcap)
        most = F32(softcap)
        for i in range(raw.shape[1]):
            x = widen(raw[b, i]) * gain
            rest = exp(-abs(x))  # tanh(x / 2) = (1 - e^-x) / (1 + e^-x)
            capped = most * (F32(1) - rest) / (F32(1) + rest)
            out[b, i] = (capped if x > 0 else -capped) + bias[states[b], i]
