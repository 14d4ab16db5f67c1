"""
Runs a GPT over pieces of many conversations at once and keeps their keys and values.

Measured to be fast: one matrix for query, key and value, rotation as a complex product, views on the cache made once a
step, on a CPU oneDNN's layout and attention in float32.
"""
import warnings
from itertools import groupby
from typing import NamedTuple
from weakref import WeakMethod

import torch
import torch.nn.functional as F

from nanochat.common import UsageError
from nanochat.kv_cache import KVCache

TILE = 16  # rows of every matrix product when deterministic
KEY_BLOCK = 512  # and keys of every attention in multiples: what the CPU's kernel takes at a time
QUERIES = 8  # and queries: with fewer the buffers of the kernel's threads are aligned unlike


class Piece(NamedTuple):
    """Tokens to be read in `slot` from position `start`."""

    slot: int
    start: int
    tokens: list


def runs(pieces):
    """Single tokens of neighbouring slots together, longer pieces alone."""
    found = []
    for piece in pieces:
        last = found and found[-1][-1]
        if last and piece.slot == last.slot + 1 and len(piece.tokens) == len(last.tokens) == 1:
            found[-1].append(piece)
        else:
            found.append([piece])
    return found


class _Run:
    """The part of a step whose attention is one call: rows `first` and on, n tokens for each of `slots`, from `starts`.

    With `starts` a tensor, for a captured graph, its values change nothing but the result.
    """

    def __init__(self, slots, starts, n, seen, first, cache, scale, exact=False):
        self.scale, self.exact, self.index, self.mask = scale, exact, None, None
        device, rows, at = cache.v.device, slots.stop - slots.start, starts[0]
        k, v, here = cache.k[:, slots], cache.v[:, slots], cache.k.size(-1) - cache.offset  # (n_layer, B, S, H, D)
        self.split, self.shape, self.rows = (here, cache.offset), (rows, n), slice(first, first + rows * n)
        self.keys, self.values = (x[:, :, :seen].transpose(2, 3).unbind(0) for x in (k, v))
        into, fixed = (k[..., :here], k[:, :, 1:, :, here:], v), torch.is_tensor(starts)
        if rows == 1 and not fixed:
            into = [x[:, 0, at:at + n] for x in into]
        else:
            self.index = torch.arange(rows, device=device), torch.as_tensor(starts, device=device)
        self.into = [x.unbind(0) for x in into]
        if fixed or exact or n > 1 and at or len(set(starts)) > 1:
            last = torch.as_tensor(starts, device=device)[:, None] + torch.arange(n, device=device)
            hidden = torch.arange(seen, device=device) > last[:, None, :, None]
            self.mask = torch.zeros(hidden.shape, dtype=v.dtype, device=device).masked_fill_(hidden, -torch.inf)
        self.causal = n > 1 and self.mask is None
        if exact:  # QUERIES at a time: the tokens, and the last one again to fill up
            self.fill = torch.arange(-(-n // QUERIES) * QUERIES, device=device).clamp_(max=n - 1)
            self.mask = self.mask[:, :, self.fill].reshape(-1, 1, QUERIES, seen)
            self.keys, self.values = ([x.expand(len(self.mask), -1, -1, -1) for x in part]
                                      for part in (self.keys, self.values))

    def attend(self, layer, q, k, v):
        """Store k, v (rows, H, D); q attends to all that is stored: (rows, H * D)."""
        for into, x in zip(self.into, (*k.split(self.split, -1), v)):
            if self.index is None:
                into[layer].copy_(x)
            else:
                into[layer].index_put_(self.index, x)
        keys, values = self.keys[layer], self.values[layer]
        q = q.view(*self.shape, *q.shape[1:])
        if self.exact:
            q = q[:, self.fill].view(-1, QUERIES, *q.shape[2:])
        y = F.scaled_dot_product_attention(q.transpose(1, 2), keys, values, self.mask, 0.0, self.causal,
                                           scale=self.scale, enable_gqa=q.size(2) != keys.size(1)).transpose(1, 2)
        if self.exact:
            y = y.reshape(self.shape[0], -1, *y.shape[2:])[:, :self.shape[1]]
        return y.reshape(-1, q.size(2) * q.size(3))


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
    """The forward pass of a GPT for inference, with its weights as they are now.

    `deterministic` (CPU): a token's result is the same bits in any company, slot, chunks and cache, since every matrix
    product has TILE rows and every attention QUERIES queries and whole blocks of keys. `graphs`: by default on CUDA; a
    CPU runs the same step without capturing it.
    """

    @torch.inference_mode()
    def __init__(self, model, batch_size, capacity, deterministic=False, int8=False, graphs=None):
        c, self.pack = model.config, pack_int8 if int8 else pack_plain
        self.model, self.config, self.exact = model, c, deterministic
        capacity = -(-capacity // KEY_BLOCK) * KEY_BLOCK if deterministic else capacity
        graphs = model.device.type == "cuda" and not deterministic if graphs is None else graphs
        self.inner = torch.float32 if model.device.type == "cpu" else model.dtype
        self.graphs = _Graphs(self._decode, batch_size, capacity, model.device) if graphs else None
        capacity += bool(graphs)
        self.cache = KVCache(model, batch_size, capacity, self.inner)
        n = c.head_dim - c.offset_channels  # channels that rotate, in pairs
        order = torch.cat((torch.arange(n).view(2, n // 2).T.flatten(), torch.arange(n, c.head_dim)))
        angle = torch.zeros(capacity, c.head_dim // 2)
        speed = c.rope_base ** (-torch.arange(0.0, n, 2) / max(n, 1))
        angle[:, :n // 2] = -torch.arange(capacity)[:, None] * speed
        self.turn = torch.polar(torch.ones_like(angle), angle)[:, None].to(model.device)
        self.scale = c.max_attn_logit / c.head_dim
        self.tables = [a.attn.table and a.attn.table.weight for a in model.blocks]
        self.layers = [self._layer(block, order) for block in model.blocks]
        self.head = self.pack(model.lm_head.weight[: c.vocab_size])

    def _layer(self, block, order):
        a, D = block.attn, self.config.head_dim
        q, k = (w.weight.view(-1, D, w.in_features)[:, order].flatten(0, 1) for w in (a.c_q, a.c_k))
        return (self.pack(torch.cat((q, k, a.c_v.weight))), self.pack(a.c_proj.weight),
                self.pack(block.mlp.c_fc.weight, relu=True), self.pack(block.mlp.c_proj.weight))

    def forward(self, pieces):
        """Each piece's last hidden state: (len(pieces), C)."""
        if self.graphs and all(len(piece.tokens) == 1 for piece in pieces):
            return self.graphs(pieces)
        if not self.exact:
            return self._forward(pieces)
        last = {piece.slot: x for group in tiles(pieces) for piece, x in zip(group, self._forward(group))}
        return torch.stack([last[piece.slot] for piece in pieces])

    def _forward(self, pieces):
        device = self.model.device
        idx = torch.tensor([token for piece in pieces for token in piece.tokens], device=device)
        at = [i for piece in pieces for i in range(piece.start, piece.start + len(piece.tokens))]
        n, parts, first = len(at), [], 0
        if self.exact:
            idx, at = F.pad(idx, (0, TILE - n)), at + [0] * (TILE - n)
        rest = torch.zeros(len(at) - n, self.config.n_embd, dtype=self.inner, device=device)
        for run in runs(pieces):
            starts, length = [piece.start for piece in run], len(run[0].tokens)
            seen = max(starts) + length
            parts.append(_Run(slice(run[0].slot, run[-1].slot + 1), starts, length,
                              -(-seen // KEY_BLOCK) * KEY_BLOCK if self.exact else seen, first, self.cache, self.scale,
                              self.exact))
            first = parts[-1].rows.stop
        x = self._layers(idx, self.turn[at], parts, rest)
        if len(x) == len(pieces):
            return x
        return x[torch.tensor([len(piece.tokens) for piece in pieces], device=device).cumsum(0) - 1]

    def _decode(self, idx, at, seen):
        """One token for every slot, at positions `at` (B,): its hidden states (B, C)."""
        return self._layers(idx, self.turn[at], [_Run(slice(0, len(idx)), at, 1, seen, 0, self.cache, self.scale)], ())

    def _layers(self, idx, turn, parts, rest):
        """Hidden states (n, C) of tokens (n,); `rest`: zeros for rows in nobody's part."""
        n_q, n_kv = self.config.n_head, self.config.n_kv_head
        root, head_root = self.config.n_embd ** 0.5, self.config.head_dim ** 0.5
        shape, half = (len(idx), n_q + 2 * n_kv, -1), (len(idx), n_q + n_kv, -1, 2)
        x = unit(F.embedding(idx, self.model.wte.weight).float(), root)
        for layer, (qkv, proj, fc, out) in enumerate(self.layers):
            qk, v = qkv(unit(x, root)).float().view(shape).split((n_q + n_kv, n_kv), 1)
            if self.tables[layer] is not None:
                v = v + F.embedding(idx, self.tables[layer]).view_as(v)
            qk = torch.view_as_real(torch.view_as_complex(unit(qk, head_root).view(half)) * turn)
            q, k, v = *qk.flatten(-2).to(self.inner).split((n_q, n_kv), 1), v.to(self.inner)
            if len(parts) == 1 and not len(rest):
                y = parts[0].attend(layer, q, k, v)
            else:
                y = torch.cat([part.attend(layer, q[part.rows], k[part.rows], v[part.rows]) for part in parts] + [rest])
            x = proj(y.float(), x)
            y = fc(unit(x, root))
            x = out(y * y, x)
        return unit(x, root)

    def logits(self, hidden):
        """hidden (n, C) -> float32 (n, vocab_size)."""
        if self.exact:
            logits = torch.cat([self.head(F.pad(x, (0, 0, 0, TILE - len(x))))[:len(x)] for x in hidden.split(TILE)])
        else:
            logits = self.head(hidden)
        return (logits.float() / self.config.softcap).tanh_().mul_(self.config.softcap)


def tiles(pieces):
    """The pieces in groups of at most TILE tokens."""
    rows = [(piece.slot, piece.start + i, token) for piece in pieces for i, token in enumerate(piece.tokens)]
    for first in range(0, len(rows), TILE):
        parts = [list(part) for _, part in groupby(rows[first:first + TILE], key=lambda row: row[0])]
        yield [Piece(*part[0][:2], [token for *_, token in part]) for part in parts]


def unit(x, scale):
    """RMSNorm in half the time of F.rms_norm on a CPU."""
    return x / (torch.linalg.vector_norm(x, 2, -1, True) / scale).clamp_(min=1e-30)


def pack_int8(weight, relu=False):
    """`pack_plain` in 8 bits, one scale a row of weight and of x (LLM.int8(), arXiv 2208.07339, without outliers)."""
    if weight.device.type != "cpu" or "fbgemm" not in torch.backends.quantized.supported_engines:
        raise UsageError("int8 weights are for x86 CPUs.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch deprecates the only constructor for its kernel
        scale = weight.float().abs().amax(1).clamp(min=1e-12).double() / 127
        quantized = torch.quantize_per_channel(weight.float(), scale, torch.zeros_like(scale).long(), 0, torch.qint8)
        packed = torch.ops.quantized.linear_prepack(quantized, None)
    product = getattr(torch.ops.quantized, f"linear_with_input_q_dq_qweight_dq_{'relu_' * relu}output_fp32").default

    def linear(x, residual=None):
        largest = x.abs().amax(-1, True).clamp_(min=1e-12)
        y = product(x / largest, 1 / 127, 128, packed)
        return y.mul_(largest) if residual is None else torch.addcmul(residual, y, largest)
    return linear


def pack_plain(weight, relu=False):
    """f(x, residual=None): x @ weight.T, cut at 0 if `relu`, plus residual; x and residual in float32.

    In oneDNN's layout, where torch has it (not on a Mac), 1 to 32 rows take half of F.linear's time.
    """
    on_cpu, ops = weight.device.type == "cpu", torch.ops.mkldnn
    weight = weight.float() if on_cpu and weight.dtype == torch.float16 else weight  # few CPUs multiply in it
    dtype, packed = weight.dtype, on_cpu and torch.backends.mkldnn.is_available()
    if packed:
        weight = ops._reorder_linear_weight(weight.contiguous(), 1)
        plain, added = ops._linear_pointwise.default, ops._linear_pointwise.binary

    def linear(x, residual=None):
        if packed and dtype == torch.float32 and residual is not None:
            return added(x, residual, weight, None, "add")
        if packed:
            y = plain(x.to(dtype), weight, None, "relu" if relu else "none", [], "")
        else:
            y = F.linear(x.to(dtype), weight)
            y = y.relu() if relu else y
        return y if residual is None else residual + y
    return linear
