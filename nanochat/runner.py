"""
Runs a model over pieces of many conversations at once and keeps their keys and values. It knows no text and no policy.

A `Piece` is some next tokens of the conversation in one slot. `Reference` says with the model's own forward pass what
`Fast` must say. What is fast was measured (benchmarks/bench_infer.py): one matrix for query, key and value; rotation as
one complex product, for which the pairs of channels are brought together; all that a step needs of the cache looked up
once and not in each layer; on a CPU attention and cache in float32, where the fused kernel is several times as fast as
in bf16, and weights in the layout of oneDNN.
"""
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from nanochat.gpt import GPT, norm
from nanochat.kv_cache import KVCache

TILE = 16           # rows of every matrix product when deterministic
KEY_BLOCK = 512     # and the keys of every attention are a multiple of this: what the CPU's kernel takes at a time


@dataclass(frozen=True)
class Piece:
    """Tokens to be read in `slot`, whose first `start` positions are in the cache."""

    slot: int
    start: int
    tokens: list


def runs(pieces):
    """The pieces as lists in which single tokens of neighbouring slots stand together; a longer piece stands alone."""
    found = []
    for piece in pieces:
        last = found[-1][-1] if found else None
        if last and piece.slot == last.slot + 1 and len(piece.tokens) == len(last.tokens) == 1:
            found[-1].append(piece)
        else:
            found.append([piece])
    return found


class Reference:
    """Slow and plain: `model.hidden` for each run of pieces, and anything with that method will do."""

    def __init__(self, model, batch_size, capacity):
        self.model, self.cache = model, KVCache.empty(model, batch_size, capacity)
        self.any_start = isinstance(model, GPT)   # a stand-in for a model may want its prompts whole and from the start

    def forward(self, pieces):
        """The last hidden state (len(pieces), C) of each piece, in order of slots."""
        return torch.cat([self._run(run) for run in runs(pieces)])

    def _run(self, run):
        slots = slice(run[0].slot, run[-1].slot + 1)
        self.cache.lengths[slots] = torch.tensor([piece.start for piece in run], device=self.model.device)
        idx = torch.tensor([piece.tokens for piece in run], device=self.model.device)
        return self.model.hidden(idx, self.cache.rows(slots.start, slots.stop))[:, -1]

    def logits(self, hidden):
        return self.model.logits(hidden)


class _Run:
    """The part of a step whose attention is one call: the views on the cache that it needs, for all layers at once."""

    def __init__(self, run, first, cache, scale, exact):
        self.cache, self.scale, self.causal = cache, scale, False
        n, device, starts = len(run[0].tokens), cache.v.device, [piece.start for piece in run]
        slots, end = slice(run[0].slot, run[-1].slot + 1), max(starts) + n
        seen = end if not exact else min(-(-end // KEY_BLOCK) * KEY_BLOCK, cache.capacity)
        k, v = cache.k.transpose(2, 3)[:, slots], cache.v.transpose(2, 3)[:, slots]     # (n_layer, B, H, S, D)
        here, self.mask = k.size(-1) - cache.offset, None
        self.shape, self.rows = (len(run), n), slice(first, first + len(run) * n)
        self.keys, self.values = k[:, :, :, :seen].unbind(0), v[:, :, :, :seen].unbind(0)
        at = starts[0]
        if len(run) == 1:
            self.index = None
            self.into = (k[:, :, :, at:end, :here].unbind(0), k[:, :, :, at + 1:end + 1, here:].unbind(0),
                         v[:, :, :, at:end].unbind(0))
        else:
            row, head = torch.arange(len(run), device=device)[:, None], torch.arange(k.size(2), device=device)
            at = torch.tensor(starts, device=device)[:, None]
            self.index = (row, head, at), (row, head, at + 1)
            self.into = k[..., :here].unbind(0), k[..., here:].unbind(0), v.unbind(0)
        if exact or n > 1 and starts[0] or len(set(starts)) > 1:
            last = torch.tensor(starts, device=device)[:, None] + torch.arange(n, device=device)
            hidden = torch.arange(seen, device=device) > last[:, None, :, None]
            self.mask = torch.zeros(hidden.shape, dtype=v.dtype, device=device).masked_fill_(hidden, -torch.inf)
        elif n > 1:
            self.causal = True
        if exact and n > 1:                        # each token by itself, as when it is decoded
            self.shape, self.mask = (n, 1), self.mask.transpose(1, 2).reshape(n, 1, 1, seen)
            self.keys, self.values = ([x.expand(n, -1, -1, -1) for x in part] for part in (self.keys, self.values))

    def store(self, layer, k, v):
        """Put k, v (N, H, D) of all rows of this step where they belong."""
        k, v = k[self.rows], v[self.rows]
        here, after, values = (part[layer] for part in self.into)
        n = here.size(-1)
        if self.index is None:
            k, v = k.transpose(0, 1), v.transpose(0, 1)
            here[0].copy_(k[..., :n])
            values[0].copy_(v)
            if self.cache.offset:
                after[0].copy_(k[..., n:])
        else:
            here.index_put_(self.index[0], k[..., :n])
            values.index_put_(self.index[0], v)
            if self.cache.offset:
                after.index_put_(self.index[1], k[..., n:])

    def attend(self, layer, q):
        """Attention of this run's rows of q (N, H, D) to all that is stored: (rows, H * D)."""
        keys, values = self.keys[layer], self.values[layer]
        q = q[self.rows].unflatten(0, self.shape).transpose(1, 2)
        y = F.scaled_dot_product_attention(q, keys, values, attn_mask=self.mask, is_causal=self.causal, scale=self.scale,
                                           enable_gqa=q.size(1) != keys.size(1))
        return y.transpose(1, 2).flatten(0, 1).flatten(1)


class Fast:
    """The forward pass of a GPT for inference, on its own copy of what it lays out anew; see the module's docstring.

    `deterministic`: a token's result is the same bits whatever else is in the step, in which slot, by which chunks and
    from which cache, since every matrix product has TILE rows and every attention one query and whole blocks of keys.
    """

    any_start = True

    def __init__(self, model, batch_size, capacity, deterministic=False):
        c = model.config
        self.model, self.config, self.exact = model, c, deterministic
        capacity = -(-capacity // KEY_BLOCK) * KEY_BLOCK if deterministic else capacity
        self.inner = torch.float32 if model.device.type == "cpu" else model.dtype
        self.cache = KVCache.empty(model, batch_size, capacity, self.inner)
        n = (c.head_dim - c.offset_channels) // 2                    # pairs of channels that rotate
        pairs = torch.arange(2 * n).view(2, n).T.flatten()
        order = torch.cat((pairs, torch.arange(2 * n, c.head_dim)))
        angle = torch.zeros(capacity, c.head_dim // 2)
        channel = torch.arange(0, 2 * n, 2, dtype=torch.float32)
        angle[:, :n] = -torch.arange(capacity)[:, None] * c.rope_base ** (-channel / max(2 * n, 1))
        self.turn = torch.polar(torch.ones_like(angle), angle)[:, None].to(model.device)
        self.scale = c.max_attn_logit / c.head_dim
        self.layers = [self._layer(block, order) for block in model.blocks]
        self.head = pack(model.lm_head.weight[: c.vocab_size])

    def _layer(self, block, order):
        a, D = block.attn, self.config.head_dim
        q, k = (w.weight.view(-1, D, w.in_features)[:, order].flatten(0, 1) for w in (a.c_q, a.c_k))
        return [pack(w) for w in (torch.cat((q, k, a.c_v.weight)), a.c_proj.weight, block.mlp.c_fc.weight,
                                  block.mlp.c_proj.weight)]

    def forward(self, pieces):
        """The last hidden state (len(pieces), C) of each piece, in order of slots."""
        if not self.exact:
            return self._forward(pieces)
        raise NotImplementedError

    def _forward(self, pieces):
        device, n_q, n_kv = self.model.device, self.config.n_head, self.config.n_kv_head
        idx = torch.tensor([token for piece in pieces for token in piece.tokens], device=device)
        at = [i for piece in pieces for i in range(piece.start, piece.start + len(piece.tokens))]
        turn, parts, first = self.turn[at], [], 0
        for run in runs(pieces):
            parts.append(_Run(run, first, self.cache, self.scale, self.exact))
            first = parts[-1].rows.stop
        x = norm(F.embedding(idx, self.model.wte.weight).to(self.model.dtype))
        for layer, (qkv, proj, fc, out) in enumerate(self.layers):
            heads = qkv(norm(x)).to(self.inner).view(len(at), n_q + 2 * n_kv, -1)
            qk = torch.view_as_complex(norm(heads[:, :n_q + n_kv]).unflatten(-1, (-1, 2))) * turn
            qk = torch.view_as_real(qk).flatten(-2)
            for part in parts:
                part.store(layer, qk[:, n_q:], heads[:, n_q + n_kv:])
            y = [part.attend(layer, qk[:, :n_q]) for part in parts]
            x = proj((y[0] if len(y) == 1 else torch.cat(y)).to(x.dtype), x)
            x = out(fc(norm(x)).relu_().square(), x)
        if len(at) > len(pieces):
            x = x[torch.tensor([len(piece.tokens) for piece in pieces], device=device).cumsum(0) - 1]
        return norm(x)

    def logits(self, hidden):
        softcap = self.config.softcap
        return (self.head(hidden).float() / softcap).tanh_().mul_(softcap)


def pack(weight):
    """f(x, residual=None): x @ weight.T (+ residual), with the weight in the layout that is fastest here."""
    if weight.device.type == "cpu" and weight.dtype == torch.bfloat16:
        packed = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), 1)
        plain, added = torch.ops.mkldnn._linear_pointwise.default, torch.ops.mkldnn._linear_pointwise.binary

        def linear(x, residual=None):
            if residual is None:
                return plain(x, packed, None, "none", [], "")
            return added(x, residual, packed, None, "add")
        return linear
    turned = weight.t()
    return lambda x, residual=None: torch.mm(x, turned) if residual is None else torch.addmm(residual, x, turned)
