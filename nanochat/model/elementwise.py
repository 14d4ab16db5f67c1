"""
RMSNorm and rotary positions: the operations beside matrix products in a Transformer's layers, and their
backward passes.

On a CPU autograd makes some twenty passes over memory of them, the backward passes by hand below half as
many. All but training on a CPU runs the plain functions, which are the reference and which compilers fuse.
"""
import torch
import torch.nn.functional as F
from torch import Tensor


# ---- the reference
def plain_norm(x: Tensor) -> Tensor:
    """x / RMS(x) over the last dimension (RMSNorm, arXiv 1910.07467).

    LayerNorm without the mean and without a learned gain: the matrix that follows can learn the gain itself.
    """
    return F.rms_norm(x, (x.size(-1),))


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the first 2n channels of x (B, T, H, D) in pairs (i, n + i) (RoPE, arXiv 2104.09864).

    cos, sin (B or 1, T, 1, n). The channels from 2n on stay as they are.
    """
    n = cos.size(-1)
    left, right, rest = x[..., :n], x[..., n:2 * n], x[..., 2 * n:]
    return torch.cat((left * cos + right * sin, right * cos - left * sin, rest), dim=-1)


def plain_rotate_norm(x: Tensor, cos: Tensor, sin: Tensor, gain: float = 1.0) -> Tensor:
    return plain_norm(rotate(x, cos, sin)) * gain


# ---- what the model calls
def norm(x: Tensor) -> Tensor:
    """`plain_norm`, by hand where that is faster."""
    if _by_hand(x):
        return _Norm.apply(x)
    return plain_norm(x)


def rotate_norm(x: Tensor, cos: Tensor, sin: Tensor, gain: float = 1.0) -> Tensor:
    """`rotate`, then `norm` times `gain`, by hand where that is faster."""
    if _by_hand(x):
        return _RotateNorm.apply(x, cos, sin, gain)
    return plain_rotate_norm(x, cos, sin, gain)


def _by_hand(x):
    trains = x.requires_grad and torch.is_grad_enabled()
    return trains and x.device.type == "cpu" and not torch.compiler.is_compiling()


# ---- by hand
def _inverse_rms(x, gain=1.0):
    """gain / RMS over the last dimension, computed in float32."""
    size = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
    mean_square = size.square_().div_(x.size(-1))
    return mean_square.add_(torch.finfo(torch.float32).eps).rsqrt_().mul_(gain).to(x.dtype)


def _norm_backward(d_y, y, inverse, gain=1.0):
    """The gradient of x for y = x * inverse, where inverse = gain / RMS(x).

    y has a fixed size, so the part of d_y that points along y cannot change it and is taken off:
    d_x = (d_y - y * mean(y * d_y) / gain^2) * inverse.
    """
    along = (y * d_y).sum(-1, keepdim=True).mul_(1 / (y.size(-1) * gain ** 2))
    return torch.addcmul(d_y, y, along, value=-1).mul_(inverse)


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        inverse = _inverse_rms(x)
        y = x * inverse
        ctx.save_for_backward(y, inverse)
        return y

    @staticmethod
    def backward(ctx, d_y):
        return _norm_backward(d_y, *ctx.saved_tensors)


def _rotate_into(out, x, cos, sin):
    """`rotate` of x, written into `out`, without memory of its own."""
    n = cos.size(-1)
    left, right = x[..., :n], x[..., n:2 * n]
    torch.mul(left, cos, out=out[..., :n]).addcmul_(right, sin)
    torch.mul(right, cos, out=out[..., n:2 * n]).addcmul_(left, sin, value=-1)
    out[..., 2 * n:] = x[..., 2 * n:]
    return out


class _RotateNorm(torch.autograd.Function):
    """The result lies in memory as (B, H, T, D), which attention's products want."""

    @staticmethod
    def forward(ctx, x, cos, sin, gain):
        B, T, H, D = x.shape
        y = _rotate_into(x.new_empty((B, H, T, D)).transpose(1, 2), x, cos, sin)
        inverse = _inverse_rms(x, gain)  # a rotation does not change the size
        y.mul_(inverse)
        ctx.save_for_backward(y, inverse, cos, sin)
        ctx.gain = gain
        return y

    @staticmethod
    def backward(ctx, d_y):
        y, inverse, cos, sin = ctx.saved_tensors
        d_rotated = _norm_backward(d_y, y, inverse, ctx.gain)
        d_x = _rotate_into(d_rotated.new_empty(d_rotated.shape), d_rotated, cos, -sin)  # turned back
        return d_x, None, None, None
