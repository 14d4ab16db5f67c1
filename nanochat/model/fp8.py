"""
Products in 8 bits: the matrices of the blocks in pretraining, behind --fp8. Never the embedding nor the loss's head.

Activations and weights are e4m3, gradients of outputs e5m2, which has more range (FP8 Formats for Deep Learning, arXiv
2209.05433). Each tensor is scaled by its own largest value at every use (torchao's "tensorwise" recipe). As there, the
output is summed the fast way, both gradients in full float32: their errors pile up.
"""
import torch
import torch.nn as nn
import torch.nn.functional as F

from nanochat.common import UsageError


def quantize(x, dtype):
    """(x in `dtype`, float32 scale of it). Zeros stay zeros; one infinity or NaN makes every product of it NaN."""
    scale = x.abs().amax().float().clamp(min=1e-30) / torch.finfo(dtype).max  # else 0 / 0
    return (x.float() / scale).to(dtype), scale


def _product(a, b, dtype, fast=False):
    """a (M, K) @ b (K, N) of two `quantize`d; the hardware reads rows of a, columns of b."""
    (a, scale_a), (b, scale_b) = a, b
    return torch._scaled_mm(a.contiguous(), b.t().contiguous().t(), scale_a=scale_a, scale_b=scale_b, out_dtype=dtype,
                            use_fast_accum=fast)


class _Linear(torch.autograd.Function):
    """F.linear on x (N, in) and weight (out, in) in three products; what is kept for backward is 8 bits wide."""

    @staticmethod
    def forward(ctx, x, weight):
        (x8, scale_x), (w8, scale_w) = quantize(x, torch.float8_e4m3fn), quantize(weight, torch.float8_e4m3fn)
        ctx.save_for_backward(x8, scale_x, w8, scale_w)
        ctx.dtypes = x.dtype, weight.dtype
        return _product((x8, scale_x), (w8.t(), scale_w), x.dtype, fast=True)

    @staticmethod
    def backward(ctx, d):
        x8, scale_x, w8, scale_w = ctx.saved_tensors
        d8, scale_d = quantize(d, torch.float8_e5m2)
        return (_product((d8, scale_d), (w8, scale_w), ctx.dtypes[0]),
                _product((d8.t(), scale_d), (x8, scale_x), ctx.dtypes[1]))


class Linear(nn.Linear):
    """In 8 bits where a gradient is wanted; validation sees the model as it will be used."""

    def forward(self, x):
        if not torch.is_grad_enabled():
            return F.linear(x, self.weight)
        return _Linear.apply(x.flatten(0, -2), self.weight).unflatten(0, x.shape[:-1])


def check(device, sizes):
    """Raises UsageError where `device` cannot, or a size of {what: number} is no multiple of 16; a CPU emulates."""
    cuda = device.type == "cuda"
    if device.type != "cpu" and not (cuda and torch.cuda.get_device_capability(device) >= (8, 9)):
        raise UsageError("--fp8 needs an NVIDIA GPU of compute capability 8.9 or more (H100, 4090, ...), or a CPU to try it "
                         f"slowly; this is {torch.cuda.get_device_name(device) if cuda else device.type}.")
    if wrong := [f"{what} is {size}" for what, size in sizes.items() if size % 16]:
        raise UsageError(f"--fp8 needs multiples of 16: {', '.join(wrong)}.")


def convert(model):
    """Let every linear layer of model.blocks work in 8 bits; the parameters stay as they are."""
    for module in model.blocks.modules():
        if type(module) is nn.Linear:
            module.__class__ = Linear
