"""
Causal attention behind one function: SDPA is the reference.

PyTorch's fused CPU kernel has a slow backward at short context, where products over blocks of queries, each with the
keys up to its end, win.
"""
import contextlib
import math
import time
import warnings

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

BLOCK = 128  # queries at a time
BLOCKED_MAX_T = 1024  # beyond, the scores kept cost more memory than the speed is worth


def sdpa(q, k, v, positions=None):
    """The reference. q (B, T, H, D); k, v (B, S, H_kv, D); positions (B, T) of the queries among the S keys.

    positions None: plain causal self-attention with S == T. Returns (B, T, H, D).
    """
    q, k, v, mask = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), None
    if positions is not None:
        mask = torch.arange(k.size(2), device=k.device) <= positions[:, None, :, None]  # (B, 1, T, S)
    gqa = q.size(1) != k.size(1)
    return F.scaled_dot_product_attention(q, k, v, mask, is_causal=mask is None, enable_gqa=gqa).transpose(1, 2)


class _Blocked(torch.autograd.Function):
    """On (N, T, D); probabilities are kept."""

    @staticmethod
    def forward(ctx, q, k, v, scale):
        T, out, kept = q.size(1), torch.empty_like(q), []
        hidden = torch.full((BLOCK, BLOCK), float("-inf"), dtype=q.dtype, device=q.device).triu_(1)
        for start in range(0, T, BLOCK):
            end = min(start + BLOCK, T)
            scores = torch.bmm(q[:, start:end] * scale, k[:, :end].transpose(1, 2))
            scores[:, :, start:] += hidden[: end - start, : end - start]
            p = torch.softmax(scores, dim=-1)
            out[:, start:end] = torch.bmm(p, v[:, :end])
            kept.append(p)
        ctx.save_for_backward(q, k, v, *kept)
        ctx.scale = scale
        return out

    @staticmethod
    def backward(ctx, d_out):
        q, k, v, *kept = ctx.saved_tensors
        T, d_q, d_k, d_v = q.size(1), torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        add = 0  # the last block fills the gradients of all keys, the others add
        for start, p in reversed(list(zip(range(0, T, BLOCK), kept))):
            end = min(start + BLOCK, T)
            d_o = d_out[:, start:end]
            torch.baddbmm(d_v[:, :end], p.transpose(1, 2), d_o, beta=add, out=d_v[:, :end])
            d_p = torch.bmm(d_o, v[:, :end].transpose(1, 2))
            d_s = torch._softmax_backward_data(d_p, p, -1, p.dtype)
            torch.bmm(d_s, k[:, :end], out=d_q[:, start:end])
            torch.baddbmm(d_k[:, :end], d_s.transpose(1, 2), q[:, start:end], beta=add, out=d_k[:, :end])
            add = 1
        return d_q.mul_(ctx.scale), d_k.mul_(ctx.scale), d_v, None


def blocked(q, k, v):
    """As `sdpa` without positions."""
    B, T, H, D = q.shape
    if k.size(2) != H:
        k, v = (x.repeat_interleave(H // x.size(2), dim=2) for x in (k, v))
    q, k, v = (x.transpose(1, 2).reshape(B * H, T, D) for x in (q, k, v))
    return _Blocked.apply(q, k, v, D ** -0.5).view(B, H, T, D).transpose(1, 2)


def _only(backend):
    def attend(q, k, v):
        with sdpa_kernel(backend):
            return sdpa(q, k, v)
    return attend


KERNELS = {name: _only(getattr(SDPBackend, f"{name.upper()}_ATTENTION")) for name in ("cudnn", "flash", "efficient")}
_fastest = {}  # device type -> what `choose` found


def seconds(attend, q, k, v, calls=5):
    """Of one call, forward and backward."""
    finish = torch.get_device_module(q.device).synchronize
    for call in range(-2, calls):
        if call == 0:
            finish()
            start = time.perf_counter()
        torch.autograd.grad(attend(q, k, v), (q, k, v), q.detach())
    finish()
    return (time.perf_counter() - start) / calls


def probe(device, dtype, rows, config, kernels):
    """{name: seconds} of `kernels` on `rows` rows, infinite for those that cannot."""
    q, k, v = (torch.randn(rows, config.sequence_len, heads, config.head_dim, device=device, dtype=dtype, requires_grad=True)
               for heads in (config.n_head, config.n_kv_head, config.n_kv_head))
    found = dict.fromkeys(kernels, math.inf)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's reasons against a kernel, a dozen lines
        for name, attend in kernels.items():
            with contextlib.suppress(RuntimeError):
                found[name] = seconds(attend, q, k, v)
    return found


def choose(device, dtype, rows, config, kernels=None):
    """Let training use the fastest of `kernels` (by default CUDA's); returns the choice in words."""
    kernels = kernels or (KERNELS if device.type == "cuda" else {})
    found = probe(device, dtype, rows, config, kernels)
    _fastest.pop(device.type, None)
    if min(found.values(), default=math.inf) == math.inf:
        return training_backend(device.type, config.sequence_len).__name__
    name = min(found, key=found.get)
    _fastest[device.type] = kernels[name]
    return f"{name} ({', '.join(f'{n} {s * 1e3:.3g} ms' for n, s in found.items())})"


def training_backend(device_type, T):
    """What `choose` found, or was fastest in dev/LOG.md."""
    if device_type == "cpu" and T <= BLOCKED_MAX_T and not torch.compiler.is_compiling():
        return blocked
    return _fastest.get(device_type, sdpa)


def attention(q, k, v, positions=None):
    if positions is None and torch.is_grad_enabled() and q.requires_grad:
        return training_backend(q.device.type, q.size(1))(q, k, v)
    return sdpa(q, k, v, positions)
