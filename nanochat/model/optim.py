"""
Muon for the matrices, AdamW for the rest: the update maths and their sharded communication.

Matrices of one shape are a bucket (K, m, n), so that Newton-Schulz runs on all of them in one batched
product; every other parameter is a flat bucket (N,). The optimizer owns the memory: parameters are views of
their bucket's `values`.

A step is ZeRO (arXiv 1910.02054): gradients are summed over the ranks in such a way that each rank receives
only its own slice of the sum (reduce-scatter), it updates its slice of the float32 masters, and the new
values are gathered into everybody's parameters. That moves no more bytes than an all-reduce, and each rank
keeps and computes only its share of masters and optimizer state. Schedules live in scaling.py, what a step is
in train/loop.py.
"""
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch

from nanochat import runtime
from nanochat.common import CheckpointError
from nanochat.runtime import Runtime

Named = tuple[str, torch.nn.Parameter]  # a parameter with its name in the model
Tensors = dict[str, torch.Tensor]

# Muon's quintic: five rounds of p(s) = 3.4445 s - 4.7750 s^3 + 2.0315 s^5 take any singular value s of 0.01
# to 1 near 1.
QUINTIC = (3.4445, -4.7750, 2.0315)
NEURON_BETA = 0.95  # what the average of a neuron's squared update keeps in a step


@dataclass(frozen=True)
class Group:
    """Parameters that share a rule and its settings; kind is "muon" (all 2-D) or "adamw".

    AdamW's beta2 of 0.95 remembers about 20 steps, where Adam's 0.999 remembers 1,000: runs are short, and
    the size of early gradients says little about that of later ones. Small batches want more of it
    (scaling.adam_betas).
    """

    kind: str
    params: list[Named]
    lr: float
    betas: tuple[float, float] = (0.8, 0.95)  # AdamW's; Muon's momentum is an argument of `step`
    weight_decay: float = 0.0
    eps: float = 1e-10  # AdamW's: gradients far below it are rounding, and move nothing


@dataclass
class LossScale:
    """Keeps small gradients from becoming zero in fp16 (Mixed Precision Training, arXiv 1710.03740).

    Below 6e-8 fp16 knows only zero, and many gradients of a language model are smaller. A loss multiplied by
    S has gradients multiplied by S, which are divided again in float32. S is halved when a gradient
    overflows, whose step is lost, and doubled after GROW_EVERY good ones. It is a power of two, by which
    floats are multiplied without rounding.
    """

    value: float = 2.0 ** 16
    good_steps: int = 0  # since it last changed
    GROW_EVERY: ClassVar[int] = 500
    MAX: ClassVar[float] = 2.0 ** 24  # gradients that are all zero never overflow

    def lower(self) -> bool:
        """Halve it; False below 1, where the scale is not to blame."""
        self.value /= 2
        self.good_steps = 0
        return self.value >= 1

    def passed(self) -> None:
        """Count a step whose gradients were finite."""
        self.good_steps += 1
        if self.good_steps == self.GROW_EVERY:
            self.value = min(2 * self.value, self.MAX)
            self.good_steps = 0


@torch.no_grad()
def orthogonalize(stack: torch.Tensor, dtype: torch.dtype | None = None, steps: int = 5) -> torch.Tensor:
    """Roughly the nearest semi-orthogonal matrix of each in stack (K, m, n): singular values of 0.7 to 1.2.

    Newton-Schulz with the quintic of Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon), in `dtype`
    if given.

    Why: with G = U S V^T, the result is U V^T. A gradient has a few large singular values and many small
    ones; a step along it would hardly move the matrix in the rare directions. With all singular values near
    1, every direction gets the same step, the steepest one for a given change of the layer's output (arXiv
    2409.20325). Of all ways to get there this needs matrix products alone, which GPUs do best, and holds in
    bf16, which an SVD does not.
    """
    linear, cubic, quintic = QUINTIC
    tall = stack.size(-2) > stack.size(-1)
    x = stack.mT if tall else stack  # wide: X X^T is then the smaller of the two Gram matrices

    # No singular value is above the Frobenius norm, so now all are in 0 to 1, where the quintic works. The
    # 1.01 leaves room for rounding, and 1e-7 keeps a gradient of zeros from being 0 / 0.
    x = x / (x.float().norm(dim=(-2, -1), keepdim=True) * 1.01 + 1e-7).to(x.dtype)
    x = x.to(dtype or x.dtype)

    # An odd polynomial of X changes the singular values alone: p(X) = U p(S) V^T. The coefficients make its
    # slope at zero as steep as can be, so that small singular values grow fast. In exchange large ones do not
    # converge but wander around 1, which costs nothing in the final loss.
    for _ in range(steps):
        gram = x @ x.mT  # (K, short, short)
        factor = torch.baddbmm(gram, gram, gram, beta=cubic, alpha=quintic)
        x = torch.baddbmm(x, factor, x, beta=linear)
    return x.mT if tall else x


class _Bucket:
    """Parameters that are updated together, in one piece of memory, and this rank's share of what belongs to
    them.

    values: the parameters in their compute dtype, whole, on every rank. grad: float32, whole. master:
    float32, this rank's slice; the exact weights, of which `values` is a rounded copy. In bf16 alone a weight
    of 1 would not move for any update below 0.004. state: the optimizer's averages, this rank's slices.
    reduced: its slice of the summed gradient, from MuonAdamW.reduce to the step.
    """

    def __init__(self, group: Group, named: list[Named], rt: Runtime):
        self.group = group
        self.rt = rt
        self.names = [name for name, _ in named]
        self.params = [parameter for _, parameter in named]
        first = self.params[0]
        self.shape = first.shape if group.kind == "muon" else None  # of one matrix; None: flat

        # Dim 0 counts matrices or elements. Padded with zeros, so that every rank has a slice of the same
        # size.
        length = len(self.params)
        if self.shape is None:
            length = sum(parameter.numel() for parameter in self.params)
        padded = -(-length // rt.world_size) * rt.world_size
        self.values = torch.zeros((padded, *(self.shape or ())), dtype=first.dtype, device=first.device)
        self.grad = torch.zeros_like(self.values, dtype=torch.float32)
        self._adopt_parameters()

        self.master = self.mine(self.values).float().clone()
        if group.kind == "muon":
            neurons = self.master.mean(self._mean_dim(), keepdim=True)  # for its shape alone, as in `_even`
            self.state = {"momentum": torch.zeros_like(self.master), "neuron_sq": torch.zeros_like(neurons)}
        else:
            self.state = {name: torch.zeros_like(self.master) for name in ("exp_avg", "exp_avg_sq")}
        self.reduced = None

    def _adopt_parameters(self):
        """Make the parameters views of `values`, and have their gradients added to `grad` as soon as they are
        there.

        backward leaves a gradient in the parameter's own dtype. Adding it up in float32 at once, and dropping
        it, makes many micro-batches as exact as one large batch (a bf16 sum of ones stops at 256), and needs
        no second copy.
        """
        views = self._split(self.values, self.params)
        gradients = self._split(self.grad, self.params)
        for parameter, view, gradient in zip(self.params, views, gradients):
            view.copy_(parameter.data)
            parameter.data = view
            parameter.register_post_accumulate_grad_hook(partial(_Bucket._collect, gradient))

    @staticmethod
    def _collect(gradient, parameter):
        """A hook. Were it to hold the bucket, which holds the parameter, that cycle would never be freed."""
        here = parameter.grad
        parameter.grad = None  # first: it must not stay where memory runs out
        gradient += here

    def _split(self, full, like):
        """Views of a whole bucket, one a parameter, in the shapes of `like`."""
        if self.shape is not None:
            return list(full[: len(like)])
        sizes = [parameter.numel() for parameter in like]
        pieces = full[: sum(sizes)].split(sizes)
        return [piece.view(parameter.shape) for piece, parameter in zip(pieces, like)]

    def mine(self, full):
        """This rank's slice of a whole bucket."""
        size = full.size(0) // self.rt.world_size
        return full[self.rt.rank * size: (self.rt.rank + 1) * size]

    def gathered(self, shard):
        """{parameter name: tensor} of every rank's `shard` on rank 0, {} elsewhere; every rank must call."""
        full = runtime.gather_to_main_memory(self.rt, shard)
        if full is None:
            return {}
        return dict(zip(self.names, self._split(full, self.params)))

    def load_shard(self, shard, tensors):
        """Fill this rank's `shard` from whole tensors by parameter name. Raises CheckpointError."""
        full = torch.zeros((len(self.values), *shard.shape[1:]), device=shard.device)
        for name, view in zip(self.names, self._split(full, self.params)):
            if name not in tensors or tensors[name].shape != view.shape:
                raise CheckpointError(f"the checkpoint holds no tensor {name} of shape {tuple(view.shape)}.")
            view.copy_(tensors[name])
        shard.copy_(self.mine(full))

    def publish(self):
        """Begin to give all ranks' masters to the parameters; returns a function that waits for it."""
        return runtime.all_gather_into(self.rt, self.values, self.master.to(self.values.dtype))

    def muon(self, lr, momentum, weight_decay):
        """Momentum, orthogonalised. Nesterov's kind: the gradient is mixed in once more, a look ahead of the
        average.
        """
        grad = self.reduced  # (K / ranks, m, n)
        buffer = self.state["momentum"]
        buffer.lerp_(grad, 1 - momentum)
        ahead = grad.lerp(buffer, momentum)

        # fp16 would lose small gradients before they are normalised, and holds them well afterwards.
        compute_dtype = self.values.dtype
        given_dtype = torch.float32 if compute_dtype == torch.float16 else compute_dtype
        update = self._even(orthogonalize(ahead.to(given_dtype), compute_dtype))

        # A tall matrix (m > n) has n singular values for m outputs: sqrt(m / n) gives each output a step of
        # usual size.
        rows, columns = self.shape
        scale = max(1.0, rows / columns) ** 0.5
        self.master.mul_(1 - lr * weight_decay).add_(update, alpha=-lr * scale)

    def _mean_dim(self):
        """The dimension of a matrix over which the squares of a neuron's update are averaged.

        A neuron is a row of a tall matrix, an output, or a column of a wide one, an input: along the other
        side an orthogonal matrix is even by itself.
        """
        rows, columns = self.shape
        return -1 if rows >= columns else -2

    def _even(self, update):
        """The update with neurons of like size; each matrix keeps its Frobenius norm (NorMuon, arXiv
        2510.05491).

        Orthogonal is the matrix as a whole: of its neurons some still get far longer steps than others, step
        after step. Each is divided by the root of the average of its squares so far, as Adam does with single
        numbers.
        """
        square = update.float().square().mean(self._mean_dim(), keepdim=True)  # (K / ranks, m or 1, 1 or n)
        seen = self.state["neuron_sq"].lerp_(square, 1 - NEURON_BETA)
        factor = (seen + 1e-10).rsqrt()
        before = square.sum((-2, -1), keepdim=True) + 1e-10
        after = (square * factor ** 2).sum((-2, -1), keepdim=True) + 1e-10
        return update * (factor * (before / after).sqrt())

    def adamw(self, lr, step):
        """AdamW (arXiv 1711.05101), for embeddings, the head and value tables; step counts from 1.

        A row of an embedding is one word's, and gets a gradient only when that word occurs. There is no
        direction that rows share, which orthogonalising would even out, so each number is scaled by its own
        history instead.
        """
        beta1, beta2 = self.group.betas
        grad = self.reduced
        avg = self.state["exp_avg"]
        avg_sq = self.state["exp_avg_sq"]
        avg.lerp_(grad, 1 - beta1)
        avg_sq.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
        # Both averages began at zero and are too small by 1 - beta^step at first.
        root = (avg_sq / (1 - beta2 ** step)).sqrt_().add_(self.group.eps)
        step_size = lr / (1 - beta1 ** step)
        self.master.mul_(1 - lr * self.group.weight_decay).addcdiv_(avg, root, value=-step_size)


def _buckets_of(group: Group) -> list[list[Named]]:
    """A group's parameters as they are bucketed: Muon's by shape, AdamW's each alone."""
    if group.kind != "muon":
        return [[named] for named in group.params]
    by_shape: dict[tuple, list[Named]] = {}
    for name, parameter in group.params:
        by_shape.setdefault(tuple(parameter.shape), []).append((name, parameter))
    return [by_shape[shape] for shape in sorted(by_shape)]


class MuonAdamW:
    """Both rules behind `reduce` and `step`. It owns the memory of the parameters it was given.

    Usage: backward as often as wanted, then norm = reduce(), then step(), or zero_grad() to throw the
    gradient away. Every rank must call each of them. `scale` is the LossScale in fp16, None otherwise.
    """

    @torch.no_grad()
    def __init__(self, groups: list[Group], rt: Runtime):
        self.rt = rt
        self.steps = 0  # taken or skipped
        self.buckets = []
        for group in groups:
            for named in _buckets_of(group):
                self.buckets.append(_Bucket(group, named, rt))
        is_half = any(bucket.values.dtype == torch.float16 for bucket in self.buckets)
        self.scale = LossScale() if is_half else None

    @torch.no_grad()
    def reduce(self) -> float:
        """Sum the gradients over the ranks and take the loss scale off; returns their global 2-norm.

        All buckets are begun before the first is waited for: the network works while norms are computed.
        """
        square = torch.zeros((), device=self.buckets[0].grad.device)
        begun = [runtime.reduce_scatter_sum(self.rt, bucket.grad) for bucket in self.buckets]
        for bucket, (mine, arrive) in zip(self.buckets, begun):
            arrive()
            if self.scale:
                mine.div_(self.scale.value)
            bucket.reduced = mine
            square += mine.norm() ** 2
        return runtime.all_reduce_sum(self.rt, square).sqrt().item()

    def zero_grad(self) -> None:
        """Forget the gradients gathered so far."""
        for bucket in self.buckets:
            bucket.grad.zero_()

    @torch.no_grad()
    def step(self, lr_scale: float = 1.0, momentum: float = 0.95) -> None:
        """Update from what `reduce` left; each bucket is sent while the next is computed.

        lr_scale is the schedule's factor on every group's learning rate, momentum is Muon's.
        """
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
    def masters(self) -> Tensors:
        """{parameter name: whole float32 tensor} in rank 0's main memory; every rank must call, others get
        {}."""
        found = {}
        for bucket in self.buckets:
            found.update(bucket.gathered(bucket.master))
        return found

    @torch.no_grad()
    def state(self) -> Tensors:
        """{"momentum.<name>" and the like: whole float32 tensor}, as `masters`; every rank must call."""
        found = {}
        for bucket in self.buckets:
            for average, shard in bucket.state.items():
                for name, tensor in bucket.gathered(shard).items():
                    found[f"{average}.{name}"] = tensor
        return found

    @torch.no_grad()
    def load(self, masters: Tensors, state: Tensors | None = None, steps: int = 0) -> None:
        """Take masters and optimizer state, saved on any number of ranks; the model gets them, too.

        Without `state` the averages stay as they are: zero in a new optimizer. Raises CheckpointError.
        """
        self.steps = steps
        for bucket in self.buckets:
            bucket.load_shard(bucket.master, masters)
            if state is not None:
                for average, shard in bucket.state.items():
                    bucket.load_shard(shard, _of_average(state, average))
            arrive = bucket.publish()
            arrive()


def _of_average(state, average):
    """{parameter name: tensor} of one average in what `MuonAdamW.state` returned."""
    start = f"{average}."
    return {name.removeprefix(start): tensor for name, tensor in state.items() if name.startswith(start)}
