"""
Causal attention: PyTorch's scaled_dot_product_attention is the reference (`sdpa`), faster ways stand beside
it.

Training goes through `attention`, which takes what was fastest on this device. On a CPU that is `blocked`:
PyTorch's fused kernel has a slow backward at short context. On CUDA the kernels that PyTorch has are tried
out once (`pick_fastest`).
"""
import contextlib
import math
import time
import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

if TYPE_CHECKING:  # gpt.py imports this file
    from nanochat.model.gpt import GPTConfig

BLOCK = 128  # queries at a time
BLOCKED_MAX_T = 1024  # beyond, the probabilities kept cost more memory than the speed is worth

Kernel = Callable[[Tensor, Tensor, Tensor], Tensor]


def sdpa(q: Tensor, k: Tensor, v: Tensor, positions: Tensor | None = None) -> Tensor:
    """The reference. q (B, T, H, D); k, v (B, S, H_kv, D) -> (B, T, H, D).

    `positions` (B or 1, T) are the queries' places among the S keys, each of which sees the keys up to its
    own place. None: plain causal self-attention with S == T.
    """
    q = q.transpose(1, 2)  # (B, H, T, D)
    k = k.transpose(1, 2)  # (B, H_kv, S, D)
    v = v.transpose(1, 2)
    mask = None
    if positions is not None:
        mask = torch.arange(k.size(2), device=k.device) <= positions[:, None, :, None]  # (B or 1, 1, T, S)
    grouped = q.size(1) != k.size(1)
    y = F.scaled_dot_product_attention(q, k, v, mask, is_causal=mask is None, enable_gqa=grouped)
    return y.transpose(1, 2)


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Plain causal self-attention, q (B, T, H, D), k, v (B, T, H_kv, D), in the fastest way known here."""
    if torch.is_grad_enabled() and q.requires_grad:
        return training_kernel(q.device.type, q.size(1))(q, k, v)
    return sdpa(q, k, v)


# ---- for training on a CPU
class _Blocked(torch.autograd.Function):
    """Attention on (N, T, D), N being rows times heads, a block of queries at a time, each with the keys up
    to its end.

    Half of a causal score matrix is never looked at, and blocks do not compute most of that half. The
    probabilities are kept for the backward pass, which flash attention (arXiv 2205.14135) computes anew to
    save memory.
    """

    @staticmethod
    def forward(ctx, q, k, v, scale):
        T = q.size(1)
        out = torch.empty_like(q)
        future = torch.full((BLOCK, BLOCK), float("-inf"), dtype=q.dtype, device=q.device).triu_(1)
        kept = []
        for start in range(0, T, BLOCK):
            end = min(start + BLOCK, T)
            scores = torch.bmm(q[:, start:end] * scale, k[:, :end].transpose(1, 2))  # (N, end - start, end)
            scores[:, :, start:] += future[: end - start, : end - start]
            p = torch.softmax(scores, dim=-1)
            out[:, start:end] = torch.bmm(p, v[:, :end])
            kept.append(p)
        ctx.save_for_backward(q, k, v, *kept)
        ctx.scale = scale
        return out

    @staticmethod
    def backward(ctx, d_out):
        q, k, v, *kept = ctx.saved_tensors
        T = q.size(1)
        d_q = torch.empty_like(q)
        d_k = torch.empty_like(k)
        d_v = torch.empty_like(v)
        add = 0  # beta 0 overwrites: the last block fills the gradients of all keys, the others add to them
        blocks = list(zip(range(0, T, BLOCK), kept))
        for start, p in reversed(blocks):
            end = min(start + BLOCK, T)
            d_o = d_out[:, start:end]  # (N, n, D), n = end - start
            torch.baddbmm(d_v[:, :end], p.transpose(1, 2), d_o, beta=add, out=d_v[:, :end])
            d_p = torch.bmm(d_o, v[:, :end].transpose(1, 2))  # (N, n, end)
            d_scores = torch._softmax_backward_data(d_p, p, -1, p.dtype)  # p * (d_p - (p * d_p).sum(-1))
            torch.bmm(d_scores, k[:, :end], out=d_q[:, start:end])
            torch.baddbmm(d_k[:, :end], d_scores.transpose(1, 2), q[:, start:end], beta=add, out=d_k[:, :end])
            add = 1
        return d_q.mul_(ctx.scale), d_k.mul_(ctx.scale), d_v, None  # scores were scale * q . k


def blocked(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """As `sdpa` without positions."""
    B, T, H, D = q.shape
    if k.size(2) != H:
        k = k.repeat_interleave(H // k.size(2), dim=2)
        v = v.repeat_interleave(H // v.size(2), dim=2)
    flat = [x.transpose(1, 2).reshape(B * H, T, D) for x in (q, k, v)]
    y = _Blocked.apply(*flat, D ** -0.5)  # (B * H, T, D)
    return y.view(B, H, T, D).transpose(1, 2)


# ---- for training on a GPU
def _only(backend):
    """`sdpa` with just one of PyTorch's kernels."""
    def attend(q, k, v):
        with sdpa_kernel(backend):
            return sdpa(q, k, v)
    return attend


CUDA_KERNELS: Mapping[str, Kernel] = {
    "cudnn": _only(SDPBackend.CUDNN_ATTENTION),
    "flash": _only(SDPBackend.FLASH_ATTENTION),
    "efficient": _only(SDPBackend.EFFICIENT_ATTENTION),
}
_fastest: dict[str, Kernel] = {}  # device type -> what `pick_fastest` found


def seconds(attend: Kernel, q: Tensor, k: Tensor, v: Tensor, calls: int = 5) -> float:
    """Seconds of one call, forward and backward, after two to warm up."""
    synchronize = torch.get_device_module(q.device).synchronize
    for call in range(-2, calls):
        if call == 0:
            synchronize()
            start = time.perf_counter()
        torch.autograd.grad(attend(q, k, v), (q, k, v), q.detach())
    synchronize()
    return (time.perf_counter() - start) / calls


def measure(device: torch.device, dtype: torch.dtype, rows: int, config: "GPTConfig",
            kernels: Mapping[str, Kernel]) -> dict[str, float]:
    """{name: seconds} of `kernels` on `rows` rows of a GPTConfig's shape, infinite for those that cannot."""
    tensors = []
    for heads in (config.n_head, config.n_kv_head, config.n_kv_head):
        shape = (rows, config.sequence_len, heads, config.head_dim)
        tensors.append(torch.randn(shape, device=device, dtype=dtype, requires_grad=True))
    found = dict.fromkeys(kernels, math.inf)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's reasons against a kernel, a dozen lines
        for name, attend in kernels.items():
            with contextlib.suppress(RuntimeError):
                found[name] = seconds(attend, *tensors)
    return found


def pick_fastest(device: torch.device, dtype: torch.dtype, rows: int, config: "GPTConfig",
                 kernels: Mapping[str, Kernel] | None = None) -> str:
    """Let training use the fastest of `kernels` (by default CUDA's, elsewhere none); returns the choice in
    words."""
    if kernels is None:
        kernels = CUDA_KERNELS if device.type == "cuda" else {}
    found = measure(device, dtype, rows, config, kernels) if kernels else {}
    _fastest.pop(device.type, None)
    able = [name for name in found if found[name] < math.inf]
    if not able:
        return training_kernel(device.type, config.sequence_len).__name__
    name = min(able, key=lambda name: found[name])
    _fastest[device.type] = kernels[name]
    times = ", ".join(f"{name} {s * 1e3:.3g} ms" for name, s in found.items())
    return f"{name} ({times})"


def training_kernel(device_type: str, T: int) -> Kernel:
    """On a CPU `blocked` while T is short; else what `pick_fastest` found, `sdpa` where it tried nothing."""
    if device_type == "cpu" and T <= BLOCKED_MAX_T and not torch.compiler.is_compiling():
        return blocked
    return _fastest.get(device_type, sdpa)


