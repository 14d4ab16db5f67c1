"""
A Transformer's layers for few tokens on a CPU, wholly compiled: the maths of model/gpt.py made of `kernels`.

Python and torch cost as much as the work itself when a small model decodes a token, so one call runs all
layers. More tokens go through compiled.CompiledModel.many, the second and last place where a layer is written
for speed. Both are taken only for a model that nanochat/model/known.py recognises, and tests hold both to
`GPT.hidden`.
"""
from typing import NamedTuple

import numpy as np
from numba.typed import List

from nanochat.infer.cpu.kernels import (
    F32,
    Array,
    attend,
    compiled,
    mix,
    product,
    rms_norm,
    rms_norm_rows,
    store_keys_and_values,
)


class LayerWeights(NamedTuple):
    """One layer's matrices, (out, in), as `kernels.product` reads them, each with a scale for every row."""

    qkv: Array  # ((H + 2 H_kv) * D, C), channels of queries and keys in the order of their rotation
    qkv_scale: Array
    attn_proj: Array  # (C, H * D)
    attn_proj_scale: Array
    mlp_fc: Array  # (4 C, C)
    mlp_fc_scale: Array
    mlp_proj: Array  # (C, 4 C)
    mlp_proj_scale: Array
    table: Array  # (V, H_kv * D) float32, or no rows
    value_offset: int  # how many channels of a value are stored one position on


@compiled
def run_layers(x: Array, ids: Array, slots: Array, positions: Array, layers: List, skips: Array,
               rope: Array, k: Array, v: Array, key_offset: int, attn_scale: float,
               deterministic: bool) -> None:
    """x (B, C), the embeddings of tokens ids (B,), become their last hidden states, in place.

    `layers` is a typed list of LayerWeights; skips (n_layer, 2) as in GPT; k, v are the cache of all layers;
    the rest as in `kernels`.
    """
    all_rows = np.arange(len(x))
    for row in x:
        rms_norm(row)
    embedded = x.copy()
    for i in range(len(layers)):
        layer = layers[i]
        for b in range(len(x)):
            mix(x[b], embedded[b], skips[i])
        qkv = np.zeros((len(x), len(layer.qkv)), F32)
        product(layer.qkv, layer.qkv_scale, rms_norm_rows(x), qkv, deterministic)
        store_keys_and_values(qkv, ids, layer.table, slots, positions, rope, k[i], v[i], key_offset,
                              layer.value_offset)
        y = np.empty_like(x)
        attend(all_rows, qkv, slots, positions, k[i], v[i], attn_scale, y)
        product(layer.attn_proj, layer.attn_proj_scale, y, x, deterministic)  # adds to x, the residual stream
        wide = np.zeros((len(x), len(layer.mlp_fc)), F32)
        product(layer.mlp_fc, layer.mlp_fc_scale, rms_norm_rows(x), wide, deterministic)
        activated = np.maximum(wide, F32(0)) ** 2
        product(layer.mlp_proj, layer.mlp_proj_scale, activated, x, deterministic)
    for row in x:
        rms_norm(row)
