"""
The last layer and the loss as one operation: linear, softcap, cross-entropy, without ever holding all logits.

Each chunk's gradient is computed while its logits are warm (the idea of Liger Kernel, arXiv 2410.10989; the softcap is
from Gemma 2, arXiv 2408.00118).
"""
import torch
import torch.nn.functional as F

CHUNK_ELEMENTS = 1 << 22  # logits held at a time: 16 MiB in fp32, about a CPU's cache


def chunk_tokens(hidden, head):
    """How many make a chunk; on a GPU, which small products waste, a sixteenth at least."""
    return max(1, CHUNK_ELEMENTS // head.size(0), 0 if hidden.device.type == "cpu" else -(-hidden.size(0) // 16))


def softcapped_logits(hidden, head, softcap):
    """hidden (..., C) and head (V, C), same dtype -> float32 logits (..., V) in (-softcap, softcap)."""
    return softcap * torch.tanh(F.linear(hidden, head).float() / softcap)


def token_nll(hidden, head, targets, softcap):
    """In nats: hidden (N, C), targets (N,) -> float32 (N,). No gradient."""
    step = chunk_tokens(hidden, head)
    return torch.cat([F.cross_entropy(softcapped_logits(h, head, softcap), t, reduction="none")
                      for h, t in zip(hidden.split(step), targets.split(step))])


def _eager(hidden, head, targets, weight, softcap):
    """(loss, its gradients of hidden and, in float32, of head).

    With s = sigmoid(2x / softcap) a logit is softcap * (2s - 1), its slope 4s(1 - s): half of tanh's passes over memory.
    It is bounded, so exp() needs no maximum taken off.
    """
    step = chunk_tokens(hidden, head)
    total = torch.zeros((), dtype=torch.float32, device=hidden.device)
    d_hidden = torch.empty_like(hidden)
    d_head = torch.zeros_like(head, dtype=torch.float32)
    raw = head.new_empty((min(step, hidden.size(0)), head.size(0)))
    squashed, exponent = (torch.empty_like(raw, dtype=torch.float32) for _ in range(2))  # one memory for all chunks
    for start in range(0, hidden.size(0), step):
        rows = slice(start, start + step)
        h, t, w = hidden[rows], targets[rows, None], weight[rows, None]
        logits, s, grad = (x[: h.size(0)] for x in (raw, squashed, exponent))
        s.copy_(torch.mm(h, head.T, out=logits)).mul_(2 / softcap).sigmoid_()
        torch.mul(s, 2 * softcap, out=grad).sub_(softcap)
        logit = grad.gather(1, t)
        norm = grad.exp_().sum(-1, keepdim=True)
        total += ((norm.log() - logit) * w).sum()
        # d loss / d raw logit = (softmax - onehot) * weight * slope
        grad.scatter_add_(1, t, -norm)
        grad.mul_(torch.addcmul(s, s, s, value=-1, out=s)).mul_(w * 4 / norm)
        torch.mm(logits.copy_(grad), head, out=d_hidden[rows])
        d_head += logits.T @ h
    return total, d_hidden, d_head


def _traced(hidden, head, targets, weight, softcap):
    """`_eager` without writes in place: a compiler makes two passes over the logits of it."""
    vocabulary = torch.arange(head.size(0), device=head.device)
    total, d_hidden, d_head = 0.0, [], 0.0
    for h, t, w in zip(*(x.split(chunk_tokens(hidden, head)) for x in (hidden, targets[:, None], weight[:, None]))):
        s = torch.sigmoid((h @ head.T).float() * (2 / softcap))
        logits = s * (2 * softcap) - softcap
        norm = logits.exp().sum(-1, keepdim=True)
        total = total + ((norm.log() - logits.gather(1, t)) * w).sum()
        grad = (logits.exp() - norm * (vocabulary == t)) * (s - s * s) * (w * 4 / norm)
        d_hidden.append(grad.to(head.dtype) @ head)
        d_head = d_head + (grad.to(head.dtype).T @ h).float()
    return total, torch.cat(d_hidden), d_head


class _LinearCrossEntropy(torch.autograd.Function):
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
        return d_hidden * upstream.to(d_hidden.dtype), (d_head * upstream).to(ctx.head_dtype), None, None, None


def linear_cross_entropy(hidden, head, targets, weight, softcap):
    """Sum over tokens of weight * negative log-likelihood.

    hidden (N, C) and head (V, C) in the compute dtype, targets (N,) int64, weight (N,) float32.
    """
    if not torch.is_grad_enabled():
        return (token_nll(hidden, head, targets, softcap) * weight).sum()
    return _LinearCrossEntropy.apply(hidden, head, targets, weight, softcap)
