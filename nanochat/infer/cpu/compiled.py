"""
A GPT's forward pass for inference on a CPU, compiled; model/gpt.py over a KVCache is the reference.

Steps of few tokens, and all of them when `deterministic`, are one call of layers.run_layers. For more,
products go to oneDNN, which is made for many rows, and what stands between two products is a kernel (`many`).
Weights are rearranged once, so they must stay as they are.
"""
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numba.typed import List
from torch import Tensor

from nanochat.infer.cpu import kernels
from nanochat.infer.cpu.layers import LayerWeights, run_layers
from nanochat.infer.kv_cache import KVCache, Piece
from nanochat.model.gpt import GPT

FEW_TOKENS = 3  # up to which `few` is quicker than oneDNN's products in bfloat16 or bytes (dev/LOG.md)
FEW_TOKENS_FLOAT32 = 64  # and in float32
PARAMS_PER_THREAD = 10_000_000  # with fewer, a second CPU thread waits more than it helps

Product = Callable[[Tensor], Tensor]


class LayerProducts(NamedTuple):
    """One layer's matrices as functions of many rows."""

    qkv: Product
    attn_proj: Product
    mlp_fc: Product
    mlp_proj: Product


class Tokens(NamedTuple):
    """The tokens of all pieces, one after another: int64 arrays (N,)."""

    ids: np.ndarray
    slots: np.ndarray
    positions: np.ndarray
    ends: np.ndarray  # of each piece: one past its last row


def threads_for(model: GPT) -> int:
    """How many CPU threads decode fastest."""
    return min(torch.get_num_threads(), 1 + model.num_params() // PARAMS_PER_THREAD)


def _flatten(pieces):
    rows = []
    ends = []
    for piece in pieces:
        rows += [(token, piece.slot, piece.start + i) for i, token in enumerate(piece.tokens)]
        ends.append(len(rows))
    ids, slots, positions = np.array(rows).T.copy()
    return Tokens(ids, slots, positions, np.array(ends))


class CompiledModel:
    """`forward` and `logits` of a Runner for a model that model/known.py recognises.

    `few` and `many` give the hidden states (N, C) of all tokens of some pieces, in NumPy's float32.
    """

    def __init__(self, model: GPT, batch_size: int, capacity: int, logit_bias: Tensor,
                 deterministic: bool, int8: bool) -> None:
        config = model.config
        self.config = config
        self.capacity = capacity
        self.deterministic = deterministic
        dtype = model.dtype
        if dtype == torch.float16:  # few CPUs compute in it
            dtype = torch.float32
        self.cache = KVCache(model, batch_size, capacity, torch.bfloat16 if int8 else dtype)
        self.attn_scale = config.max_attn_logit / config.head_dim  # of queries and keys with RMS 1

        head, layers = _matrices(model, dtype)
        self._make_products(head, layers, dtype, int8)

        # What the kernels read, as NumPy arrays over the same memory.
        kernels.use_threads(threads_for(model))
        tables = [block.attn.table for block in model.blocks]
        self.head, self.head_scale = _for_kernels(head, int8)
        self.weights = []
        for layer, matrices in enumerate(layers):
            self.weights.append(_layer_weights(matrices, tables[layer], config.offset_values(layer), int8))
        self.typed_weights = List(self.weights)  # slow to look into from outside of the kernels
        skips = model.skips
        if skips is None:
            skips = torch.tensor([[1.0, 0.0]]).expand(config.n_layer, 2)  # the stream as it is
        self.skips = kernels.as_array(skips.float().contiguous())
        self.wte = kernels.as_array(model.wte.weight.float())
        self.rope = _rope(config, capacity)
        self.k = kernels.as_array(self.cache.k.transpose(2, 3))
        self.v = kernels.as_array(self.cache.v.transpose(2, 3))  # both (n_layer, slots, H_kv, S + 1, D)
        self.logit_bias = kernels.as_array(logit_bias)

    def _make_products(self, head, layers, dtype, int8):
        """oneDNN's functions for many rows, and `kind`, the type of what they multiply the weights by."""
        onednn = torch.backends.mkldnn.is_available()
        if onednn and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
            dtype = torch.float32  # the processor has no products in bf16
        bytes_ = int8 and onednn and torch.cpu._is_vnni_supported()
        self.kind = torch.uint8 if bytes_ else dtype
        self.few_tokens = FEW_TOKENS
        if onednn and self.kind == torch.float32:
            self.few_tokens = FEW_TOKENS_FLOAT32

        def product(weight):
            return pack_int8(*quantize_weight(weight)) if bytes_ else pack(weight.to(dtype))
        self.head_product = product(head)
        self.products = []
        for matrices in layers:
            self.products.append(LayerProducts(*[product(weight) for weight in matrices]))

    def forward(self, pieces: list[Piece]) -> Tensor:
        """Each piece's last hidden state: (len(pieces), C) float32."""
        n = sum(len(piece.tokens) for piece in pieces)
        if self.deterministic or n <= self.few_tokens:
            x = self.few(pieces)
        else:
            x = self.many(pieces)
        if n > len(pieces):
            last = np.cumsum([len(piece.tokens) for piece in pieces]) - 1
            x = x[last]
        return torch.from_numpy(x)

    def few(self, pieces: list[Piece]) -> np.ndarray:
        """All in one call: torch's operations would each give Python's lock away, and wait for it."""
        tokens = _flatten(pieces)
        x = self.wte[tokens.ids]  # (N, C), a copy
        run_layers(x, tokens.ids, tokens.slots, tokens.positions, self.typed_weights, self.skips, self.rope,
                   self.k, self.v, self.config.offset_channels, self.attn_scale, self.deterministic)
        return x

    # Long: a layer's maths is told from top to bottom in one place.
    def many(self, pieces: list[Piece]) -> np.ndarray:
        """Products by oneDNN, what is between them by kernels, the attention of longer pieces by torch.

        Arrays and tensors of one name share their memory, the array has the ending _np. `factor`, what the
        next product reads, is quantized: its rows stand for the number times `scale`, as do the products'
        results.
        """
        tokens = _flatten(pieces)
        longer = []  # (piece, its rows)
        alone = []  # rows that are a piece of their own
        for piece, end in zip(pieces, tokens.ends):
            if len(piece.tokens) > 1:
                longer.append((piece, slice(end - len(piece.tokens), end)))
            else:
                alone.append(end - 1)
        alone = np.array(alone, np.int64)
        H = self.config.n_head
        D = self.config.head_dim
        gain = self.config.max_attn_logit / D ** 0.5  # as in gpt.Attention

        embedded = kernels.rms_norm_rows(self.wte[tokens.ids])  # (N, C) float32
        x = embedded.copy()  # the residual stream
        attended = torch.zeros(x.shape)
        factor = torch.empty(x.shape, dtype=self.kind)
        scale = torch.empty(len(x))
        attended_np = kernels.as_array(attended)
        factor_np = kernels.as_array(factor)
        scale_np = kernels.as_array(scale)
        for layer, products in enumerate(self.products):
            kernels.mix_and_norm(x, embedded, self.skips[layer], scale_np, factor_np)  # norm(x)
            qkv = products.qkv(factor).float().mul_(scale[:, None])  # (N, (H + 2 H_kv) * D)
            qkv_np = kernels.as_array(qkv)
            k = self.k[layer]
            v = self.v[layer]
            kernels.store_keys_and_values(qkv_np, tokens.ids, self.weights[layer].table, tokens.slots,
                                          tokens.positions, self.rope, k, v, self.config.offset_channels,
                                          self.weights[layer].value_offset)
            kernels.attend(alone, qkv_np, tokens.slots, tokens.positions, k, v, self.attn_scale, attended_np)
            for piece, rows in longer:
                q = qkv[rows, :H * D].view(-1, H, D) * gain
                attended[rows] = self.cache.read(layer, piece, q).flatten(1)
            kernels.quantize(attended_np, scale_np, factor_np)  # what attention found
            projected = products.attn_proj(factor)
            kernels.add_and_norm(x, kernels.as_array(projected), scale_np, factor_np)  # norm(x)
            wide = products.mlp_fc(factor)  # (N, 4 C)
            activated = torch.empty_like(wide, dtype=self.kind)
            kernels.relu_squared(kernels.as_array(wide), scale_np, kernels.as_array(activated))
            kernels.add(x, kernels.as_array(products.mlp_proj(activated)), scale_np)
        return kernels.rms_norm_rows(x)

    def logits(self, hidden: Tensor, states: list[int]) -> Tensor:
        """hidden (n, C) float32 -> float32 (n, vocab_size), with the logit bias of each row's state."""
        scale = np.ones(len(hidden), np.float32)
        out = np.zeros((len(hidden), self.config.vocab_size), np.float32)
        if self.deterministic or len(hidden) <= self.few_tokens:
            raw = out
            kernels.product(self.head, self.head_scale, kernels.as_array(hidden), raw, self.deterministic)
        else:
            quantized = torch.empty_like(hidden, dtype=self.kind)
            kernels.quantize(kernels.as_array(hidden), scale, kernels.as_array(quantized))
            raw = kernels.as_array(self.head_product(quantized))
        kernels.softcap_and_bias(raw, scale, self.config.softcap, self.logit_bias, np.array(states), out)
        return torch.from_numpy(out)


# ---- weights
def _matrices(model, dtype):
    """(head (V, C), [(qkv, attn_proj, mlp_fc, mlp_proj) of each layer]) in dtype.

    The channels of queries and keys are put in the order in which the kernels rotate them: the two of a pair
    side by side.
    """
    config = model.config
    D = config.head_dim
    rotating = D - config.offset_channels
    pairs = torch.arange(rotating).view(2, rotating // 2).T.flatten()  # 0, n, 1, n + 1, ...
    order = torch.cat((pairs, torch.arange(rotating, D)))

    def reordered(linear):
        heads = linear.weight.view(-1, D, config.n_embd)
        return heads[:, order].flatten(0, 1)
    layers = []
    for block in model.blocks:
        attn = block.attn
        mlp = block.mlp
        qkv = torch.cat((reordered(attn.c_q), reordered(attn.c_k), attn.c_v.weight))
        matrices = (qkv, attn.c_proj.weight, mlp.c_fc.weight, mlp.c_proj.weight)
        layers.append(tuple(weight.to(dtype) for weight in matrices))
    return model.lm_head.weight[: config.vocab_size].to(dtype), layers


def _rope(config, capacity):
    """(capacity, D) float32: for each position cos and sin of the angle by which each pair of channels
    turns."""
    D = config.head_dim
    rotating = D - config.offset_channels
    angle = torch.zeros(capacity, D // 2)  # the offset channels do not turn
    frequency = config.rope_base ** (-torch.arange(0.0, rotating, 2) / max(rotating, 1))
    # Minus: elementwise.rotate turns a pair the other way than a complex product, which the kernels make.
    angle[:, :rotating // 2] = -torch.arange(capacity)[:, None] * frequency
    turn = torch.polar(torch.ones_like(angle), angle)
    return kernels.as_array(torch.view_as_real(turn).flatten(1))


def quantize_weight(weight: Tensor) -> tuple[Tensor, Tensor]:
    """(int8 (R, C), float32 scale (R,)) of a matrix: each row's largest number becomes 127 or -127."""
    scale = weight.float().abs().amax(1).clamp_(min=1e-12) / 127
    return (weight / scale[:, None]).round_().to(torch.int8), scale


def _for_kernels(weight, int8):
    """(array (R, C), scale (R,)) of a matrix."""
    if int8:
        weight, scale = quantize_weight(weight)
    else:
        scale = torch.ones(len(weight))
    return kernels.as_array(weight), kernels.as_array(scale)


def _layer_weights(matrices, table, value_offset, int8):
    arrays = []
    for weight in matrices:
        arrays += _for_kernels(weight, int8)
    rows = torch.zeros(0, 1) if table is None else table.weight
    return LayerWeights(*arrays, kernels.as_array(rows), value_offset)


def pack(weight: Tensor) -> Product:
    """A function of x (N, C) that gives x @ weight.T in the weight's dtype.

    In oneDNN's layout, where torch has it (not on a Mac), 1 to 32 rows take half of F.linear's time.
    """
    dtype = weight.dtype
    if not torch.backends.mkldnn.is_available():
        return lambda x: F.linear(x.to(dtype), weight)
    packed = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), 1)
    linear = torch.ops.mkldnn._linear_pointwise.default
    return lambda x: linear(x.to(dtype), packed, None, "none", [], "")


def pack_int8(weight: Tensor, scale: Tensor) -> Product:
    """A function of x (N, C) uint8 that gives (x - 128) @ weight.T times scale in float32; weight (R, C)
    int8, scale (R,)."""
    packed = torch.ops.onednn.qlinear_prepack(weight, None)
    zero_points = torch.zeros(len(weight), dtype=torch.int32)
    linear = torch.ops.onednn.qlinear_pointwise

    def product(x):
        x_scale = 1.0
        x_zero_point = 128
        return linear(x, x_scale, x_zero_point, packed, scale, zero_points, None, 1.0, 0, torch.float32,
                      "none", [], "")
    return product
