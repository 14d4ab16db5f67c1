"""
Muon for the matrices, AdamW for the rest: the update maths and their sharded communication.

Matrices of one shape are a bucket (K, m, n), for batched Newton-Schulz products; all else is a flat bucket (N,).
Gradients, summed in float32, are reduce-scattered along its first dimension, each rank updates its float32 masters, and
the result is gathered into the parameters, which are views of the bucket (ZeRO, arXiv 1910.02054).
"""
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch

from nanochat import runtime
from nanochat.common import CheckpointError


@dataclass(frozen=True)
class Group:
    """kind is "muon" (all 2-D) or "adamw"."""

    kind: str
    params: list  # [(name, parameter), ...]
    lr: float
    betas: tuple = (0.8, 0.95)
    weight_decay: float = 0.0


@dataclass
class LossScale:
    """Keeps small gradients from being zero in fp16 (Mixed Precision Training, arXiv 1710.03740).

    Halved when a gradient overflows, doubled after GROW_EVERY good steps: a power of two is exact to divide by.
    """

    value: float = 2.0 ** 16
    good_steps: int = 0  # since it last changed
    GROW_EVERY: ClassVar = 500
    MAX: ClassVar = 2.0 ** 24  # gradients that are all zero never overflow

    def lower(self):
        """Halve it; False below 1, where the scale is not to blame."""
        self.value, self.good_steps = self.value / 2, 0
        return self.value >= 1

    def passed(self):
        self.good_steps += 1
        if self.good_steps == self.GROW_EVERY:
            self.value, self.good_steps = min(2 * self.value, self.MAX), 0


@torch.no_grad()
def orthogonalize(stack, dtype=None, steps=5):
    """Roughly the nearest semi-orthogonal matrix of each in stack (K, m, n): singular values of 0.7 to 1.2.

    Newton-Schulz with the quintic of Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon), in `dtype` if given.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = stack.size(-2) > stack.size(-1)
    x = stack.mT if tall else stack
    x = x / (x.float().norm(dim=(-2, -1), keepdim=True) * 1.01 + 1e-7).to(x.dtype)
    x = x.to(dtype or x.dtype)
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


class _Bucket:
    """`values` (compute dtype), `grad` (float32) and this rank's `master` shard."""

    def __init__(self, group, named, rt):
        self.group, self.rt, self.names = group, rt, [name for name, _ in named]
        params = [p for _, p in named]
        self.shape = params[0].shape if group.kind == "muon" else None
        rows = sum(p.numel() for p in params) if self.shape is None else len(params)
        full = (-(-rows // rt.world_size) * rt.world_size, *(self.shape or ()))
        self.values = torch.zeros(full, dtype=params[0].dtype, device=params[0].device)
        self.grad = torch.zeros_like(self.values, dtype=torch.float32)
        for p, view, grad in zip(params, self._split(self.values, params), self._split(self.grad, params)):
            view.copy_(p.data)
            p.data = view
            p.register_post_accumulate_grad_hook(partial(_Bucket._collect, grad))
        self.params = params
        self.master = self.mine(self.values).float().clone()
        names = ("momentum",) if group.kind == "muon" else ("exp_avg", "exp_avg_sq")
        self.state = {name: torch.zeros_like(self.master) for name in names}
        self.reduced = None

    @staticmethod
    def _collect(grad, p):
        """A hook of p. Were it to hold the bucket, which holds p, torch's part of that cycle would never be freed."""
        grad += p.grad
        p.grad = None

    def _split(self, full, like):
        if self.shape is not None:
            return list(full[: len(like)])
        sizes = [p.numel() for p in like]
        return [piece.view(p.shape) for piece, p in zip(full[: sum(sizes)].split(sizes), like)]

    def mine(self, full):
        size = full.size(0) // self.rt.world_size
        return full[self.rt.rank * size: (self.rt.rank + 1) * size]

    def named_full(self, shard):
        """{parameter name: tensor} from every rank's `shard`; every rank must call."""
        full = torch.empty_like(self.grad)
        runtime.all_gather_into(self.rt, full, shard)()
        return dict(zip(self.names, self._split(full, self.params)))

    def load_shard(self, shard, tensors):
        full = torch.zeros_like(self.values, dtype=torch.float32)
        for name, view in zip(self.names, self._split(full, self.params)):
            if name not in tensors or tensors[name].shape != view.shape:
                raise CheckpointError(f"the checkpoint holds no tensor {name} of shape {tuple(view.shape)}.")
            view.copy_(tensors[name])
        shard.copy_(self.mine(full))

    def publish(self):
        """Begin to give all ranks' masters to the parameters; returns a function that waits for it."""
        return runtime.all_gather_into(self.rt, self.values, self.master.to(self.values.dtype))

    def muon(self, lr, momentum, weight_decay):
        buffer, grad = self.state["momentum"], self.reduced
        buffer.lerp_(grad, 1 - momentum)
        dtype = self.values.dtype
        given = torch.float32 if dtype == torch.float16 else dtype  # it holds small numbers once normalised
        update = orthogonalize(grad.lerp(buffer, momentum).to(given), dtype)
        scale = max(1.0, self.shape[0] / self.shape[1]) ** 0.5
        self.master.mul_(1 - lr * weight_decay).add_(update, alpha=-lr * scale)

    def adamw(self, lr, step):
        """arXiv 1711.05101; step counts from 1."""
        (beta1, beta2), grad = self.group.betas, self.reduced
        avg, avg_sq = self.state["exp_avg"], self.state["exp_avg_sq"]
        avg.lerp_(grad, 1 - beta1)
        avg_sq.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
        root = (avg_sq / (1 - beta2 ** step)).sqrt_().add_(1e-10)
        self.master.mul_(1 - lr * self.group.weight_decay).addcdiv_(avg, root, value=-lr / (1 - beta1 ** step))


class MuonAdamW:
    """It owns the memory of the parameters it was given."""

    @torch.no_grad()
    def __init__(self, groups, rt):
        self.rt, self.steps, self.buckets = rt, 0, []
        for group in groups:
            if group.kind == "muon":
                shapes = sorted({tuple(p.shape) for _, p in group.params})
                parts = [[(n, p) for n, p in group.params if tuple(p.shape) == shape] for shape in shapes]
            else:
                parts = [[named] for named in group.params]
            self.buckets += [_Bucket(group, part, rt) for part in parts]
        self.scale = LossScale() if any(b.values.dtype == torch.float16 for b in self.buckets) else None

    @torch.no_grad()
    def reduce(self):
        """Sum the gradients over the ranks and take the loss scale off; returns their global 2-norm."""
        square = torch.zeros((), device=self.buckets[0].grad.device)
        begun = [runtime.reduce_scatter_sum(self.rt, bucket.grad) for bucket in self.buckets]
        for bucket, (mine, arrive) in zip(self.buckets, begun):
            arrive()
            bucket.reduced = mine
            if self.scale:
                bucket.reduced.div_(self.scale.value)
            square += bucket.reduced.norm() ** 2
        return runtime.all_reduce_sum(self.rt, square).sqrt().item()

    def zero_grad(self):
        for bucket in self.buckets:
            bucket.grad.zero_()

    @torch.no_grad()
    def step(self, lr_scale=1.0, momentum=0.95):
        """Update from what `reduce` left; each bucket is sent while the next is computed."""
        self.steps += 1
        if self.scale:
            self.scale.passed()
        sent = []
        for bucket in self.buckets:
            group = bucket.group
            if group.kind == "muon":
                bucket.muon(group.lr * lr_scale, momentum, group.weight_decay)
            else:
                bucket.adamw(group.lr * lr_scale, self.steps)
            sent.append(bucket.publish())
        for arrive in sent:
            arrive()
        self.zero_grad()

    @torch.no_grad()
    def masters(self):
        """{parameter name: whole float32 tensor}; every rank must call."""
        return {k: v for b in self.buckets for k, v in b.named_full(b.master).items()}

    @torch.no_grad()
    def state(self):
        """{"momentum.<name>" and the like: whole float32 tensor}; every rank must call."""
        return {f"{key}.{name}": t for b in self.buckets for key, shard in b.state.items()
                for name, t in b.named_full(shard).items()}

    @torch.no_grad()
    def load(self, masters, state=None, steps=0):
        """Take masters and optimizer state, saved on any number of ranks; the model gets them, too."""
        self.steps = steps
        for bucket in self.buckets:
            bucket.load_shard(bucket.master, masters)
            for key, shard in bucket.state.items() if state is not None else ():
                bucket.load_shard(shard, {name.removeprefix(f"{key}."): t for name, t in state.items()
                                          if name.startswith(f"{key}.")})
            bucket.publish()()
