"""
Runs a GPT over pieces of many conversations at once and keeps their keys and values.

On a CPU steps of few tokens, and the attention of all single ones, are for `kernels`, other products for oneDNN; on a
GPU single tokens are a captured graph.
"""
from typing import NamedTuple
from weakref import WeakMethod

import numpy as np
import torch
import torch.nn.functional as F
from numba.typed import List

from nanochat import kernels
from nanochat.common import UsageError
from nanochat.kv_cache import KVCache

FEW = 3  # tokens that `kernels` read faster than oneDNN
PER_THREAD = 10_000_000  # parameters; with fewer a second CPU thread waits more than it helps


class Piece(NamedTuple):
    """Tokens to be read in `slot` from position `start`."""

    slot: int
    start: int
    tokens: list


def threads_for(model):
    """How many CPU threads decode fastest."""
    return min(torch.get_num_threads(), 1 + model.num_params() // PER_THREAD)


class _Graphs:
    """Decoding steps of all slots, a CUDA graph for each of 64, 128, 256... keys.

    A slot that sits out computes too, and stores at the last position, which nobody reads. `decode`, a method, is held
    weakly: in a cycle with its runner the cache would wait for the collector, which training switches off.
    """

    def __init__(self, decode, batch_size, idle, device):
        self.decode, self.idle, self.made = WeakMethod(decode), idle, {}
        self.idx, self.at = (torch.zeros(batch_size, dtype=torch.long, device=device) for _ in range(2))

    def __call__(self, pieces):
        idx, at = [0] * len(self.idx), [self.idle] * len(self.idx)
        for slot, start, (token,) in pieces:
            idx[slot], at[slot] = token, start
        self.idx.copy_(torch.tensor(idx)), self.at.copy_(torch.tensor(at))
        seen = min(1 << max(6, max(piece.start for piece in pieces).bit_length()), self.idle)
        if seen not in self.made:
            self.made[seen] = self._capture(seen)
        return self.made[seen]()[[piece.slot for piece in pieces]]

    def _capture(self, seen):
        def step():
            return self.decode()(self.idx, self.at, seen)
        if self.idx.device.type != "cuda":
            return step
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # libraries set themselves up outside of the graph
            step()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            out = step()

        def replay():
            graph.replay()
            return out
        return replay


class Fast:
    """The forward pass of a GPT for inference, whose weights must stay as they are.

    `deterministic` (CPU): a token's result is the same bits in any company, slot, chunks and cache, since all is left to
    `kernels`, which go row by row. `int8` (CPU): they read weights in 8 bits, one scale a row. `graphs`: by default on a
    GPU; only CUDA captures them.
    """

    @torch.inference_mode()
    def __init__(self, model, batch_size, capacity, deterministic=False, int8=False, graphs=None):
        c, device, D = model.config, model.device, model.config.head_dim
        if (deterministic or int8) and device.type != "cpu":
            raise UsageError("deterministic answers and int8 weights are for a CPU.")
        self.model, self.config, self.exact = model, c, deterministic
        graphs = device.type != "cpu" if graphs is None else graphs
        self.graphs = _Graphs(self._decode, batch_size, capacity, device) if graphs else None
        capacity += bool(graphs)
        dtype = model.dtype
        if device.type == "cpu" and dtype == torch.float16:  # few CPUs compute in it
            dtype = torch.float32
        self.cache = KVCache(model, batch_size, capacity, torch.bfloat16 if int8 else dtype)
        n = D - c.offset_channels  # channels that rotate, in pairs
        order = torch.cat((torch.arange(n).view(2, n // 2).T.flatten(), torch.arange(n, D)))
        angle = torch.zeros(capacity, D // 2)
        angle[:, :n // 2] = -torch.arange(capacity)[:, None] * c.rope_base ** (-torch.arange(0.0, n, 2) / max(n, 1))
        self.turn = torch.polar(torch.ones_like(angle), angle)[:, None].to(device)
        self.scale, self.root = c.max_attn_logit / D, c.n_embd ** 0.5
        self.tables = [block.attn.table and block.attn.table.weight for block in model.blocks]
        weights = [model.lm_head.weight[: c.vocab_size]]
        for a, mlp in ((block.attn, block.mlp) for block in model.blocks):
            q, k = (w.weight.view(-1, D, w.in_features)[:, order].flatten(0, 1) for w in (a.c_q, a.c_k))
            weights += torch.cat((q, k, a.c_v.weight)), a.c_proj.weight, mlp.c_fc.weight, mlp.c_proj.weight
        weights = [w.to(dtype) for w in weights]
        self.head, *linears = [pack(w, i and i % 4 == 3) for i, w in enumerate(weights)]
        self.layers = list(zip(*(linears[i::4] for i in range(4))))
        if not graphs:
            self._compile(weights, int8)

    def _compile(self, weights, int8):
        """What `kernels` want to have."""
        scales = [torch.ones(len(w), 1) for w in weights]
        if int8:
            scales = [w.float().abs().amax(1, keepdim=True).clamp_(min=1e-12) / 127 for w in weights]
            weights = [(w / scale).round_().to(torch.int8) for w, scale in zip(weights, scales)]
        kernels.share(threads_for(self.model))
        tables = [torch.zeros(0, 1) if table is None else table for table in self.tables]
        scales = [scale.flatten() for scale in scales]
        self.arrays = [[kernels.array(x) for x in part] for part in (tables, weights, scales)]
        self.lists = [List(part) for part in self.arrays]  # slow to look into from outside of the kernels
        self.k, self.v = (kernels.array(x.transpose(2, 3)) for x in (self.cache.k, self.cache.v))
        self.angles = kernels.array(torch.view_as_real(self.turn).flatten(1))

    def forward(self, pieces):
        """Each piece's last hidden state: (len(pieces), C)."""
        if not self.graphs:
            return self._forward(pieces)
        last = {}
        for run, group in ((self.graphs, [piece for piece in pieces if len(piece.tokens) == 1]),
                           (self._forward, [piece for piece in pieces if len(piece.tokens) > 1])):
            if group:
                last |= zip((piece.slot for piece in group), run(group))
        return torch.stack([last[piece.slot] for piece in pieces])

    def _forward(self, pieces):
        rows = [(token, piece.slot, piece.start + i) for piece in pieces for i, token in enumerate(piece.tokens)]
        ids, slots, at = np.array(rows).T.copy()
        ends = np.cumsum([len(piece.tokens) for piece in pieces])
        parts = [(piece, slice(end - len(piece.tokens), end)) for piece, end in zip(pieces, ends)]
        idx = torch.from_numpy(ids).to(self.model.device)
        x = F.embedding(idx, self.model.wte.weight).float()
        if self.graphs:
            slots, at = (torch.from_numpy(a).to(x.device) for a in (slots, at))
            x = self._layers(x, self._prompts(parts, idx, slots, at))
        elif self.exact or len(rows) <= FEW:
            kernels.step(kernels.array(x), ids, slots, at, *self.lists, self.angles, self.k, self.v, self.cache.offset,
                         self.scale, self.exact)
        else:
            x = self._layers(x, self._native(parts, ids, slots, at))
        return x if len(x) == len(pieces) else x[torch.from_numpy(ends - 1).to(x.device)]

    def _layers(self, x, attend):
        """Last hidden states of embeddings x (n, C); attend(layer, qkv) -> (n, n_head * head_dim)."""
        x = unit(x, self.root)
        for layer, (qkv, proj, fc, out) in enumerate(self.layers):
            x = proj(attend(layer, qkv(unit(x, self.root)).float()), x)
            y = fc(unit(x, self.root))
            x = out(y * y, x)
        return unit(x, self.root)

    def _native(self, parts, ids, slots, at):
        """Attention by `kernels`, but by torch for pieces of several tokens."""
        longer = [part for part in parts if len(part[0].tokens) > 1]
        alone = np.delete(np.arange(len(ids)), [i for _, rows in longer for i in range(rows.start, rows.stop)])
        shape = self.config.n_head, self.config.head_dim

        def attend(layer, qkv):
            found, y = kernels.array(qkv), torch.zeros(len(qkv), shape[0] * shape[1])
            cache = self.k[layer], self.v[layer]
            kernels.store(found, ids, self.arrays[0][layer], slots, at, self.angles, *cache,
                      self.cache.offset)
            kernels.attend(alone, found, slots, at, *cache, self.scale, kernels.array(y))
            for piece, rows in longer:
                y[rows] = self._read(layer, piece, qkv[rows, :y.size(1)].view(-1, *shape))
            return y
        return attend

    def _prompts(self, parts, idx, slots, at):
        def attend(layer, qkv):
            q = self._store(layer, qkv, idx, slots, at)
            return torch.cat([self._read(layer, piece, q[rows]) for piece, rows in parts])
        return attend

    def _decode(self, idx, at, seen):
        """One token for every slot, at positions `at` (B,): its hidden states (B, C)."""
        slots, hidden = torch.arange(len(at), device=at.device), torch.arange(seen, device=at.device) > at[:, None]
        mask = torch.zeros(hidden.shape, dtype=self.cache.v.dtype, device=at.device).masked_fill_(hidden, -torch.inf)

        def attend(layer, qkv):
            q = self._store(layer, qkv, idx, slots, at)
            keys, values = self.cache.k[layer, :, :seen], self.cache.v[layer, :, :seen]
            return self._sdpa(q[:, None], keys, values, mask[:, None, None])
        return self._layers(F.embedding(idx, self.model.wte.weight).float(), attend)

    def _store(self, layer, qkv, idx, slots, at):
        """Keep keys and values of qkv (n, (n_q + 2 n_kv) * D), a row for position at[i] of slots[i]; its queries."""
        n_q, n_kv, offset = self.config.n_head, self.config.n_kv_head, self.cache.offset
        qk, v = qkv.unflatten(1, (-1, self.config.head_dim)).split((n_q + n_kv, n_kv), 1)
        if self.tables[layer] is not None:
            v = v + F.embedding(idx, self.tables[layer]).view_as(v)
        qk = torch.view_as_complex(unit(qk, self.config.head_dim ** 0.5).unflatten(2, (-1, 2))) * self.turn[at]
        q, k = torch.view_as_real(qk).flatten(2).to(self.cache.v.dtype).split((n_q, n_kv), 1)
        here = k.size(2) - offset
        self.cache.k[layer, slots, at, :, :here] = k[..., :here]
        self.cache.k[layer, slots, at + 1, :, here:] = k[..., here:]
        self.cache.v[layer, slots, at] = v.to(k.dtype)
        return q

    def _read(self, layer, piece, q):
        """What the queries q (n, n_q, D) of a piece find in its slot: (n, n_q * D)."""
        n, seen = len(q), piece.start + len(q)
        shown = torch.ones(n, seen, dtype=torch.bool, device=q.device).tril_(piece.start) if piece.start else None
        return self._sdpa(q[None], *(x[layer, None, piece.slot, :seen] for x in (self.cache.k, self.cache.v)), shown)

    def _sdpa(self, q, keys, values, mask):
        """q (B, n, n_q, D), keys and values (B, seen, n_kv, D): (B * n, n_q * D)."""
        q, keys, values = (x.transpose(1, 2).to(q.dtype) for x in (q, keys, values))
        y = F.scaled_dot_product_attention(q, keys, values, mask, 0.0, mask is None, scale=self.scale,
                                           enable_gqa=q.size(1) != keys.size(1))
        return y.transpose(1, 2).flatten(2).flatten(0, 1)

    def logits(self, hidden):
        """hidden (n, C) -> float32 (n, vocab_size)."""
        if self.graphs or len(hidden) > FEW and not self.exact:
            logits = self.head(hidden)
        else:
            logits = torch.zeros(len(hidden), self.config.vocab_size)
            head, scale = (part[0] for part in self.arrays[1:])
            kernels.product(head, scale, kernels.array(hidden), kernels.array(logits), self.exact)
        return (logits.float() / self.config.softcap).tanh_().mul_(self.config.softcap)


def unit(x, scale):
    """RMSNorm in half the time of F.rms_norm on a CPU."""
    return x / (torch.linalg.vector_norm(x, 2, -1, True) / scale).clamp_(min=1e-30)


def pack(weight, relu=False):
    """f(x, residual=None): x @ weight.T, cut at 0 if `relu`, plus residual; x and residual in float32.

    In oneDNN's layout, where torch has it (not on a Mac), 1 to 32 rows take half of F.linear's time.
    """
    dtype, product = weight.dtype, F.linear
    if weight.device.type == "cpu" and torch.backends.mkldnn.is_available():
        weight = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), 1)

        def product(x, weight):
            return torch.ops.mkldnn._linear_pointwise.default(x, weight, None, "none", [], "")

    def linear(x, residual=None):
        y = product(x.to(dtype), weight)
        y = y.relu_() if relu else y
        return y if residual is None else residual + y
    return linear
