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

from nanochat.common import UsageError
from nanochat.infer.cpu import kernels
from nanochat.infer.kv_cache import KVCache
from nanochat.model.elementwise import norm

FEW = 3, 64  # tokens that `kernels` read faster than oneDNN: in bfloat16 or bytes, in float32
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
    weakly: a cycle would wait for the collector, which training switches off.
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

    `deterministic` (CPU): a token's result is the same bits in any company, slot, chunks and cache, for which all is
    left to `kernels`. `int8` (CPU): weights in 8 bits, one scale a row; what many tokens multiply them by too, if the
    processor has products of bytes. `graphs`: by default on a GPU; only CUDA captures them. `bans` (states, vocab_size):
    added to logits by state.
    """

    @torch.inference_mode()
    def __init__(self, model, batch_size, capacity, bans=None, deterministic=False, int8=False, graphs=None):
        c, device, D = model.config, model.device, model.config.head_dim
        if (deterministic or int8) and device.type != "cpu":
            raise UsageError("deterministic answers and int8 weights are for a CPU.")
        self.model, self.config, self.exact = model, c, deterministic
        self.bans = torch.zeros(1, c.vocab_size, device=device) if bans is None else bans
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
        self.scale = c.max_attn_logit / D
        self.tables = [block.attn.table and block.attn.table.weight for block in model.blocks]
        weights = [model.lm_head.weight[: c.vocab_size]]
        for a, mlp in ((block.attn, block.mlp) for block in model.blocks):
            q, k = (w.weight.view(-1, D, w.in_features)[:, order].flatten(0, 1) for w in (a.c_q, a.c_k))
            weights += torch.cat((q, k, a.c_v.weight)), a.c_proj.weight, mlp.c_fc.weight, mlp.c_proj.weight
        weights, scales = [w.to(dtype) for w in weights], [torch.ones(len(w)) for w in weights]
        onednn = device.type == "cpu" and torch.backends.mkldnn.is_available()
        if onednn and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
            dtype = torch.float32
        narrow = int8 and onednn and torch.cpu._is_vnni_supported()
        self.kind, products = torch.uint8 if narrow else dtype, [] if narrow else [pack(w.to(dtype)) for w in weights]
        self.few = FEW[onednn and self.kind == torch.float32]
        if int8:
            scales = [w.float().abs().amax(1).clamp_(min=1e-12) / 127 for w in weights]
            weights = [(w / scale[:, None]).round_().to(torch.int8) for w, scale in zip(weights, scales)]
        self.head, *linears = products or map(pack8, weights, scales)
        self.layers = list(zip(*(linears[i::4] for i in range(4))))
        if not graphs:
            self._compile(weights, scales)

    def _compile(self, weights, scales):
        """What `kernels` want to have."""
        kernels.share(threads_for(self.model))
        tables = [torch.zeros(0, 1) if table is None else table for table in self.tables]
        self.arrays = [[kernels.array(x) for x in part] for part in (tables, weights, scales)]
        self.lists = [List(part) for part in self.arrays]  # slow to look into from outside of the kernels
        self.k, self.v = (kernels.array(x.transpose(2, 3)) for x in (self.cache.k, self.cache.v))
        self.angles = kernels.array(torch.view_as_real(self.turn).flatten(1))
        self.wte, self.bans = kernels.array(self.model.wte.weight.float()), kernels.array(self.bans)

    def forward(self, pieces):
        """Each piece's last hidden state: (len(pieces), C)."""
        if not self.graphs:
            return self._forward(pieces)
        last = {}
        for run, group in ((self.graphs, [p for p in pieces if len(p.tokens) == 1]),
                           (self._forward, [p for p in pieces if len(p.tokens) > 1])):
            if group:
                last |= zip((p.slot for p in group), run(group))
        return torch.stack([last[p.slot] for p in pieces])

    def _forward(self, pieces):
        rows = [(token, p.slot, p.start + i) for p in pieces for i, token in enumerate(p.tokens)]
        ids, slots, at = np.array(rows).T.copy()
        ends = np.cumsum([len(p.tokens) for p in pieces])
        parts = [(p, slice(end - len(p.tokens), end)) for p, end in zip(pieces, ends)]
        if self.graphs:
            idx, slots, at = (torch.from_numpy(a).to(self.model.device) for a in (ids, slots, at))
            x = F.embedding(idx, self.model.wte.weight).float()

            def attend(layer, qkv):
                q = self._store(layer, qkv, idx, slots, at)
                return torch.cat([self._read(layer, piece, q[rows]) for piece, rows in parts])
            return self._layers(x, attend)[torch.from_numpy(ends - 1).to(x.device)]
        x = self.wte[ids]  # torch's operations give Python's lock away, and wait for it
        if self.exact or len(rows) <= self.few:
            kernels.step(x, ids, slots, at, *self.lists, self.angles, self.k, self.v, self.cache.offset, self.scale, self.exact)
        else:
            x = self._native(x, parts, ids, slots, at)
        return torch.from_numpy(x if len(x) == len(pieces) else x[ends - 1])

    def _layers(self, x, attend):
        """Last hidden states of embeddings x (n, C); attend(layer, qkv) -> (n, n_head * head_dim)."""
        x = norm(x)
        for layer, (qkv, proj, fc, out) in enumerate(self.layers):
            x = x + proj(attend(layer, qkv(norm(x)).float()))
            x = x + out(fc(norm(x)).relu().square())
        return norm(x)

    def _native(self, x, parts, ids, slots, at):
        """The same on a CPU: products by oneDNN, what is between them by `kernels`, longer pieces' attention by torch."""
        longer = [part for part in parts if len(part[0].tokens) > 1]
        alone = np.delete(np.arange(len(ids)), [i for _, rows in longer for i in range(rows.start, rows.stop)])
        shape = self.config.n_head, self.config.head_dim

        X, y, a, s = kernels.units(x), torch.zeros(x.shape), torch.empty(x.shape, dtype=self.kind), torch.empty(len(x))
        Y, A, S = map(kernels.array, (y, a, s))
        kernels.ready(X, S, A)
        for layer, (qkv, proj, fc, out) in enumerate(self.layers):
            found = qkv(a).float().mul_(s[:, None])
            there, cache = kernels.array(found), (self.k[layer], self.v[layer])
            kernels.store(there, ids, self.arrays[0][layer], slots, at, self.angles, *cache, self.cache.offset)
            kernels.attend(alone, there, slots, at, *cache, self.scale, Y)
            for piece, rows in longer:
                y[rows] = self._read(layer, piece, found[rows, :y.size(1)].view(-1, *shape))
            kernels.ready(Y, S, A)
            kernels.renew(X, kernels.array(proj(a)), S, A)
            found = fc(a)
            wide = torch.empty_like(found, dtype=self.kind)
            kernels.square(kernels.array(found), S, kernels.array(wide))
            kernels.renew(X, kernels.array(out(wide)), S, A)
        return kernels.units(X)

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
        qk = torch.view_as_complex(norm(qk).unflatten(2, (-1, 2))) * self.turn[at]
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

    def logits(self, hidden, states=None):
        """hidden (n, C) -> float32 (n, vocab_size), with the bans of each row's state."""
        cap, states = self.config.softcap, states or [0] * len(hidden)
        if self.graphs:
            return (self.head(hidden).float() / cap).tanh_().mul_(cap).add_(self.bans[states])
        s, out = np.ones(len(hidden), np.float32), np.zeros((len(hidden), self.config.vocab_size), np.float32)
        found = out
        if len(hidden) > self.few and not self.exact:
            a = torch.empty_like(hidden, dtype=self.kind)
            kernels.ready(kernels.array(hidden), s, kernels.array(a))
            found = kernels.array(self.head(a))
        else:
            head, scales = (part[0] for part in self.arrays[1:])
            kernels.product(head, scales, kernels.array(hidden), out, self.exact)
        kernels.soften(found, s, cap, self.bans, np.array(states), out)
        return torch.from_numpy(out)


def pack(weight):
    """f(x): x @ weight.T in the weight's dtype.

    In oneDNN's layout, where torch has it (not on a Mac), 1 to 32 rows take half of F.linear's time.
    """
    dtype, product = weight.dtype, F.linear
    if weight.device.type == "cpu" and torch.backends.mkldnn.is_available():
        weight = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), 1)

        def product(x, weight):
            return torch.ops.mkldnn._linear_pointwise.default(x, weight, None, "none", [], "")
    return lambda x: product(x.to(dtype), weight)


def pack8(weight, scale):
    """f(x): (x - 128) @ weight.T times scale, in float32; x uint8, weight (R, C) int8, scale (R,)."""
    packed, zeros = torch.ops.onednn.qlinear_prepack(weight, None), torch.zeros(len(weight), dtype=torch.int32)
    return lambda x: torch.ops.onednn.qlinear_pointwise(x, 1.0, 128, packed, scale, zeros, None, 1.0, 0, torch.float32,
                                                        "none", [], "")
