"""
The last layer and the loss as one operation: linear, soft cap, cross-entropy, without ever holding all
logits.

The logits are by far the largest tensor of a training step: 32 rows of 2,048 tokens times 32,768 words are 8
GiB in float32. So tokens are taken in chunks, and each chunk's gradient is computed while its logits are warm
(the idea of Liger Kernel, arXiv 2410.10989). The soft cap, softcap * tanh(x / softcap), keeps a logit from
running away (Gemma 2, arXiv 2408.00118). `token_nll` is the reference: `_eager` and `_traced` give its
weighted sum and the gradients of that.
"""
import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK_ELEMENTS = 1 << 22  # logits held at a time: 16 MiB in fp32, about a CPU's cache


def chunk_tokens(hidden: Tensor, head: Tensor) -> int:
    """How many tokens make a chunk; on a GPU, which small products waste, a sixteenth of them at least."""
    tokens = max(1, CHUNK_ELEMENTS // head.size(0))
    if hidden.device.type != "cpu":
        tokens = max(tokens, -(-hidden.size(0) // 16))
    return tokens


def softcapped_logits(hidden: Tensor, head: Tensor, softcap: float) -> Tensor:
    """hidden (..., C) and head (V, C), same dtype -> float32 logits (..., V) in (-softcap, softcap)."""
    return softcap * torch.tanh(F.linear(hidden, head).float() / softcap)


def token_nll(hidden: Tensor, head: Tensor, targets: Tensor, softcap: float) -> Tensor:
    """Negative log-likelihoods in nats: hidden (N, C), targets (N,) int64 -> float32 (N,). No gradient."""
    step = chunk_tokens(hidden, head)
    found = []
    for h, target in zip(hidden.split(step), targets.split(step)):
        found.append(F.cross_entropy(softcapped_logits(h, head, softcap), target, reduction="none"))
    return torch.cat(found)


def _eager(hidden, head, targets, weight, softcap):
    """(loss, its gradients of hidden and, in float32, of head), with one memory for all chunks.

    With s = sigmoid(2x / softcap), a capped logit is softcap * (2s - 1) and its slope 4s(1 - s): half of
    tanh's passes over memory. It is bounded, so exp() needs no maximum taken off, as softmax usually does.
    """
    step = chunk_tokens(hidden, head)
    total = torch.zeros((), dtype=torch.float32, device=hidden.device)
    d_hidden = torch.empty_like(hidden)
    d_head = torch.zeros_like(head, dtype=torch.float32)
    raw_memory = head.new_empty((min(step, hidden.size(0)), head.size(0)))  # (chunk, V)
    sigmoid_memory = torch.empty_like(raw_memory, dtype=torch.float32)
    grad_memory = torch.empty_like(raw_memory, dtype=torch.float32)
    for start in range(0, hidden.size(0), step):
        rows = slice(start, start + step)
        h = hidden[rows]  # (n, C)
        target = targets[rows, None]  # (n, 1)
        w = weight[rows, None]  # (n, 1)
        raw = raw_memory[: h.size(0)]
        s = sigmoid_memory[: h.size(0)]
        grad = grad_memory[: h.size(0)]
        s.copy_(torch.mm(h, head.T, out=raw)).mul_(2 / softcap).sigmoid_()
        torch.mul(s, 2 * softcap, out=grad).sub_(softcap)  # at first the capped logits,
        logit = grad.gather(1, target)  # (n, 1)
        exp_sum = grad.exp_().sum(-1, keepdim=True)  # (n, 1); now their exponentials,
        total += ((exp_sum.log() - logit) * w).sum()
        # and at last d loss / d raw logit = (softmax - onehot) * weight * slope, softmax = exp / exp_sum
        grad.scatter_add_(1, target, -exp_sum)
        slope = torch.addcmul(s, s, s, value=-1, out=s)  # s - s^2, the 4 comes with the weight
        grad.mul_(slope).mul_(w * 4 / exp_sum)
        torch.mm(raw.copy_(grad), head, out=d_hidden[rows])  # raw: the gradient in the head's dtype
        d_head += raw.T @ h
    return total, d_hidden, d_head


def _traced(hidden, head, targets, weight, softcap):
    """`_eager` without writes in place: of this a compiler makes two passes over the logits."""
    vocabulary = torch.arange(head.size(0), device=head.device)
    step = chunk_tokens(hidden, head)
    total = 0.0
    d_head = 0.0
    d_hidden = []
    for h, target, w in zip(hidden.split(step), targets[:, None].split(step), weight[:, None].split(step)):
        s = torch.sigmoid((h @ head.T).float() * (2 / softcap))
        logits = s * (2 * softcap) - softcap
        exp_sum = logits.exp().sum(-1, keepdim=True)  # (n, 1)
        total = total + ((exp_sum.log() - logits.gather(1, target)) * w).sum()
        grad = (logits.exp() - exp_sum * (vocabulary == target)) * (s - s * s) * (w * 4 / exp_sum)
        d_hidden.append(grad.to(head.dtype) @ head)
        d_head = d_head + (grad.to(head.dtype).T @ h).float()
    return total, torch.cat(d_hidden), d_head


class _LinearCrossEntropy(torch.autograd.Function):
    """The gradients are made in the forward pass; backward only scales them."""

    @staticmethod
    def forward(ctx, hidden, head, targets, weight, softcap):
        fused = _traced if torch.compiler.is_compiling() else _eager
        total, d_hidden, d_head = fused(hidden, head, targets, weight, softcap)
        ctx.save_for_backward(d_hidden, d_head)
        ctx.head_dtype = head.dtype
        return total

    @staticmethod
    def backward(ctx, upstream):
        d_hidden, d_head = ctx.saved_tensors
        d_hidden = d_hidden * upstream.to(d_hidden.dtype)
        d_head = (d_head * upstream).to(ctx.head_dtype)
        return d_hidden, d_head, None, None, None


def linear_cross_entropy(hidden: Tensor, head: Tensor, targets: Tensor, weight: Tensor,
                         softcap: float) -> Tensor:
    """Sum over tokens of weight * negative log-likelihood.

    hidden (N, C) and head (V, C) in the compute dtype, targets (N,) int64, weight (N,) float32. A sum, not a
    mean: only the loop knows how many tokens a step has on all ranks.
    """
    if not torch.is_grad_enabled():
        return (token_nll(hidden, head, targets, softcap) * weight).sum()
    if hidden.device.type == "cpu" and not torch.compiler.is_compiling():
        # Half of a chat is what the user says, which has no weight: those rows are left out. A GPU would have
        # to wait for their number, and a compiled graph for every new one.
        counted = weight.nonzero().squeeze(1)  # (M,), M <= N
        hidden, targets, weight = hidden[counted], targets[counted], weight[counted]
    return _LinearCrossEntropy.apply(hidden, head, targets, weight, softcap)
