"""
Products in 8 bits: the matrices of the blocks in pretraining, behind --fp8. Never the embedding nor the
loss's head.

A GPU multiplies 8-bit floats twice as fast as bf16, but such a number has 2 or 3 bits of mantissa and a
narrow range. Activations and weights are e4m3 (more bits), gradients of outputs e5m2, which has more range,
as gradients differ more in size (FP8 Formats for Deep Learning, arXiv 2209.05433). Each tensor is scaled by
its own largest value at every use (torchao's "tensorwise" recipe). As there, the output is summed the fast
way, both gradients in full float32: their errors pile up over the layers and steps.
"""
import torch
import torch.nn as nn
import torch.nn.functional as F

from nanochat.common import UsageError


def quantize(x: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """(x / scale in the 8-bit `dtype`, the float32 scale), with the largest of |x| becoming the largest of
    dtype.

    Too large a number would become infinite and too small a one zero, so the range is used up to its end.
    Zeros stay zeros; one infinity or NaN makes every product of it NaN.
    """
    largest = x.abs().amax().float().clamp(min=1e-30)  # else 0 / 0
    scale = largest / torch.finfo(dtype).max
    return (x.float() / scale).to(dtype), scale


def _product(left, right, dtype, fast=False):
    """left (M, K) @ right (K, N), each (8-bit tensor, scale); the hardware reads rows of left, columns of
    right.
    """
    values_left, scale_left = left
    values_right, scale_right = right
    by_column = values_right.t().contiguous().t()
    return torch._scaled_mm(values_left.contiguous(), by_column, scale_a=scale_left, scale_b=scale_right,
                            out_dtype=dtype, use_fast_accum=fast)


class _Linear(torch.autograd.Function):
    """F.linear on x (N, in) and weight (out, in) in three products; what backward needs is kept in 8 bits."""

    @staticmethod
    def forward(ctx, x, weight):
        x8, scale_x = quantize(x, torch.float8_e4m3fn)
        weight8, scale_weight = quantize(weight, torch.float8_e4m3fn)
        ctx.save_for_backward(x8, scale_x, weight8, scale_weight)
        ctx.dtypes = (x.dtype, weight.dtype)
        return _product((x8, scale_x), (weight8.t(), scale_weight), x.dtype, fast=True)

    @staticmethod
    def backward(ctx, grad_output):
        x8, scale_x, weight8, scale_weight = ctx.saved_tensors
        x_dtype, weight_dtype = ctx.dtypes
        grad8, scale_grad = quantize(grad_output, torch.float8_e5m2)  # (N, out)
        grad_x = _product((grad8, scale_grad), (weight8, scale_weight), x_dtype)
        grad_weight = _product((grad8.t(), scale_grad), (x8, scale_x), weight_dtype)
        return grad_x, grad_weight


class Linear(nn.Linear):
    """In 8 bits where a gradient is wanted; validation sees the model as it will be used."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x (..., in) -> (..., out), in x's dtype."""
        if not torch.is_grad_enabled():
            return F.linear(x, self.weight)
        return _Linear.apply(x.flatten(0, -2), self.weight).unflatten(0, x.shape[:-1])


def check(device: torch.device, sizes: dict[str, int]) -> None:
    """Raises UsageError where `device` cannot, or a size of {what: number} is no multiple of 16; a CPU
    emulates.
    """
    is_cuda = device.type == "cuda"
    has_fp8 = is_cuda and torch.cuda.get_device_capability(device) >= (8, 9)
    if device.type != "cpu" and not has_fp8:
        name = torch.cuda.get_device_name(device) if is_cuda else device.type
        raise UsageError(
            "--fp8 needs an NVIDIA GPU of compute capability 8.9 or more (H100, 4090, ...), or a CPU "
            f"to try it slowly; this is {name}."
        )
    wrong = [f"{what} is {size}" for what, size in sizes.items() if size % 16]
    if wrong:
        raise UsageError(f"--fp8 needs multiples of 16: {', '.join(wrong)}.")


def convert(model: nn.Module) -> None:
    """Let every linear layer of model.blocks work in 8 bits; the parameters stay as they are."""
    for module in model.blocks.modules():
        if type(module) is nn.Linear:
            module.__class__ = Linear
