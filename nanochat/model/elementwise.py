"""
RMSNorm and rotary positions, the two operations beside matrix products in a Transformer's layers.

On a CPU autograd makes some twenty passes over memory of them, the backward passes by hand below half as many. All but
training on a CPU runs the plain functions, which compilers fuse.
"""
import torch
import torch.nn.functional as F


def plain_norm(x):
    """RMSNorm (arXiv 1910.07467) without a gain, over the last dimension."""
    return F.rms_norm(x, (x.size(-1),))


def rotate(x, cos, sin):
    """Rotary positions (arXiv 2104.09864) on the first 2n channels of x (B, T, H, D); cos, sin (B or 1, T, 1, n)."""
    n = cos.size(-1)
    a, b, rest = x[..., :n], x[..., n:2 * n], x[..., 2 * n:]
    return torch.cat((a * cos + b * sin, b * cos - a * sin, rest), dim=-1)


def plain_rotate_norm(x, cos, sin, gain=1.0):
    return plain_norm(rotate(x, cos, sin)) * gain


def _by_hand(x):
    return x.device.type == "cpu" and not torch.compiler.is_compiling() and x.requires_grad and torch.is_grad_enabled()


def norm(x):
    return _Norm.apply(x) if _by_hand(x) else plain_norm(x)


def rotate_norm(x, cos, sin, gain=1.0):
    return _RotateNorm.apply(x, cos, sin, gain) if _by_hand(x) else plain_rotate_norm(x, cos, sin, gain)


def _inverse_rms(x, gain=1.0):
    """gain / RMS over the last dimension, computed in float32."""
    size = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
    return size.square_().div_(x.size(-1)).add_(torch.finfo(torch.float32).eps).rsqrt_().mul_(gain).to(x.dtype)


def _norm_backward(d, y, inverse, gain=1.0):
    """What points along y cannot change it."""
    along = (y * d).sum(-1, keepdim=True).mul_(1 / (y.size(-1) * gain ** 2))
    return torch.addcmul(d, y, along, value=-1).mul_(inverse)


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        inverse = _inverse_rms(x)
        y = x * inverse
        ctx.save_for_backward(y, inverse)
        return y

    @staticmethod
    def backward(ctx, d):
        return _norm_backward(d, *ctx.saved_tensors)


def _rotate_into(out, x, cos, sin):
    n = cos.size(-1)
    a, b = x[..., :n], x[..., n:2 * n]
    torch.mul(a, cos, out=out[..., :n]).addcmul_(b, sin)
    torch.mul(b, cos, out=out[..., n:2 * n]).addcmul_(a, sin, value=-1)
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
    def backward(ctx, d):
        y, inverse, cos, sin = ctx.saved_tensors
        d = _norm_backward(d, y, inverse, ctx.gain)
        return _rotate_into(d.new_empty(d.shape), d, cos, -sin), None, None, None
