"""
The Transformer: its architecture, its initialisation, and the counts that scaling laws and reports are made
of.

The maths of a layer stands here and, for speed on a CPU, once more in nanochat/infer/cpu, which takes a model
only when it recognises all of it. Training, decoding and evaluation differ in how a token finds the tokens
before it, so that comes from outside: `hidden(idx, positions, attend)`. A layer's way is Block -> Attention
-> attend, by default `causal`: first `offset`, then `look`, which says who sees whom. This file knows no
optimizer, tokenizer, rank, cache or checkpoint.

A decoder in the line of GPT-2, changed where small models gained: rotary positions instead of learned ones,
RMSNorm without gains, normalised queries and keys, relu^2, no biases, an untied head, logits with a soft cap,
and four optional parts: keys and values that are partly those of the token before, value tables, and skips
from the embedding.
"""
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from nanochat.model.attention import attention, sdpa
from nanochat.model.elementwise import norm, rotate_norm
from nanochat.model.loss import linear_cross_entropy, softcapped_logits, token_nll

# attend(layer, q, k, v) -> y: what the queries of one layer find.
# q, y (B, T, H, D); k, v (B, T, H_kv, D), not yet offset (see GPT.offset).
Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class GPTConfig:
    sequence_len: int = 2048
    vocab_size: int = 32768
    n_layer: int = 12
    n_head: int = 6
    n_kv_head: int = 6  # fewer than n_head: groups of queries share keys and values (GQA, arXiv 2305.13245)
    n_embd: int = 768
    softcap: float = 15.0  # logits stay in -softcap to softcap
    rope_base: float = 10000.0
    max_attn_logit: float = 15.0  # of a query and its equal; otherwise it would be sqrt(head size)
    key_offset: float = 0.0  # share of a head's key channels that are the token before's (GPT.offset)
    value_offset: float = 0.0  # the same of its value channels; not in the last layer
    value_tables: bool = False  # every second layer, from the last, adds a vector by token to its values
    embedding_skips: bool = False  # a layer reads the residual stream and the embedding, each times a number

    def __post_init__(self) -> None:
        assert self.n_embd % self.n_head == 0, f"n_embd {self.n_embd} must divide by n_head {self.n_head}"
        assert self.head_dim % 2 == 0, f"head size {self.head_dim} must be even for rotary positions"
        assert self.n_head % self.n_kv_head == 0, \
            f"n_head {self.n_head} must divide by n_kv_head {self.n_kv_head}"
        assert 0 < self.softcap <= 50, \
            f"softcap {self.softcap} must lie in 0 to 50: the loss takes exp() of logits"
        for name in ("key_offset", "value_offset"):
            share = getattr(self, name)
            assert 0 <= share <= 1, f"{name} {share} must lie in 0 to 1"

    @property
    def head_dim(self) -> int:
        return self.n_embd // self.n_head

    @property
    def offset_channels(self) -> int:
        """How many of a head's last key channels are those of the token before, an even number.

        They have no rotary position: they match by content, however far away.
        """
        return round(self.head_dim * self.key_offset / 2) * 2

    def offset_values(self, layer: int) -> int:
        """How many of a head's last value channels are those of the token before.

        None in the last layer, whose reader is the head: what it finds should be the word itself.
        """
        if layer == self.n_layer - 1:
            return 0
        return round(self.head_dim * self.value_offset)

    @property
    def padded_vocab_size(self) -> int:
        """The vocabulary rounded up to a multiple of 64, which matrix units like."""
        return -(-self.vocab_size // 64) * 64

    def has_table(self, layer: int) -> bool:
        return self.value_tables and (self.n_layer - layer) % 2 == 1


def move_on(x: Tensor, channels: int) -> Tensor:
    """x (B, T, H_kv, D) with its last `channels` moved one position on; the first gets zeros there."""
    if channels == 0:
        return x
    here, moved = x.split([x.size(-1) - channels, channels], dim=-1)
    moved = F.pad(moved[:, :-1], (0, 0, 0, 0, 1, 0))  # along T: drop the last, put zeros before the first
    return torch.cat((here, moved), dim=-1)


class Attention(nn.Module):
    def __init__(self, config: GPTConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.head_dim = config.head_dim
        self.offset_channels = config.offset_channels
        # Scores are q . k / sqrt(D) of vectors with RMS 1: at most sqrt(D). The gain on q makes that
        # max_attn_logit, so that a head can be sharp. Normalising q and k bounds the scores, which lets
        # training use larger learning rates (QK norm, arXiv 2010.04245).
        self.gain = config.max_attn_logit / config.head_dim ** 0.5
        kv_width = config.n_kv_head * config.head_dim
        self.c_q = nn.Linear(config.n_embd, config.n_embd, bias=False)
        self.c_k = nn.Linear(config.n_embd, kv_width, bias=False)
        self.c_v = nn.Linear(config.n_embd, kv_width, bias=False)
        self.c_proj = nn.Linear(config.n_embd, config.n_embd, bias=False)
        # What a token means by itself need not pass through the residual stream to be a value: a table says
        # it (value embeddings, KellerJordan/modded-nanogpt; of the kind of arXiv 2410.17897).
        self.table = nn.Embedding(config.padded_vocab_size, kv_width) if config.has_table(layer) else None

    def forward(self, x: Tensor, idx: Tensor, rotary: tuple[Tensor, Tensor],
                attend: Attend) -> Tensor:
        """x (B, T, C) and its tokens idx (B, T) -> (B, T, C)."""
        B, T, C = x.shape
        q = self.c_q(x).view(B, T, -1, self.head_dim)  # (B, T, H, D)
        k = self.c_k(x).view(B, T, -1, self.head_dim)  # (B, T, H_kv, D)
        v = self.c_v(x).view(B, T, -1, self.head_dim)  # (B, T, H_kv, D)
        if self.table is not None:
            v = v + self.table(idx).to(v.dtype).view_as(v)
        q = rotate_norm(q, *rotary, self.gain)
        k = rotate_norm(k, *rotary)
        y = attend(self.layer, q, k, v)  # (B, T, H, D)
        return self.c_proj(y.reshape(B, T, C))

    def match_keys(self) -> None:
        """Give the offset channels of a key the query's weights (mimetic initialisation, arXiv 2305.09828).

        A query then finds its own token from the first step on. Without it the offset taught a small model
        nothing in 370,000 tokens.
        """
        first = self.head_dim - self.offset_channels
        q = self.c_q.weight.unflatten(0, (-1, self.head_dim))  # (H, D, C)
        k = self.c_k.weight.unflatten(0, (-1, self.head_dim))  # (H_kv, D, C)
        group = len(q) // len(k)  # queries that share a key
        k[:, first:] = q[::group, first:]


class MLP(nn.Module):
    """relu^2 between two matrices.

    As good as gated activations without their third matrix, and most of its outputs are zero (Primer, arXiv
    2109.08668).
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.c_fc = nn.Linear(config.n_embd, 4 * config.n_embd, bias=False)
        self.c_proj = nn.Linear(4 * config.n_embd, config.n_embd, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(F.relu(self.c_fc(x)).square())


class Block(nn.Module):
    """Each half reads the normalised residual stream and adds to it, so that gradients pass unchanged beside
    it."""

    def __init__(self, config: GPTConfig, layer: int) -> None:
        super().__init__()
        self.attn = Attention(config, layer)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, idx: Tensor, rotary: tuple[Tensor, Tensor],
                attend: Attend) -> Tensor:
        x = x + self.attn(norm(x), idx, rotary, attend)
        return x + self.mlp(norm(x))


class GPT(nn.Module):
    """Its weights are undefined before init_weights or a load.

    Matrices are in `dtype`, the compute dtype. The embedding and the value tables are in float32: their
    gradients sum over every occurrence of a word, which bf16 would round away.
    """

    def __init__(self, config: GPTConfig, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.config = config
        self.dtype = dtype
        # Whether the backward pass runs each block again, to keep its input alone, not 18 numbers for a token
        # and channel (arXiv 1604.06174): a third more work, the same gradients to the bit.
        self.recompute = False
        self.wte = nn.Embedding(config.padded_vocab_size, config.n_embd)
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.n_layer))
        self.lm_head = nn.Linear(config.n_embd, config.padded_vocab_size, bias=False)
        # What a layer wrote stays in the residual stream for good, and buries the word itself. So each layer
        # takes the stream times one learned number, and the embedding times another (x0 skips,
        # KellerJordan/modded-nanogpt).
        self.skips = nn.Parameter(torch.empty(config.n_layer, 2)) if config.embedding_skips else None
        self.lm_head.to(dtype)
        for block in self.blocks:
            block.to(dtype)
            if block.attn.table is not None:
                block.attn.table.float()

    @property
    def device(self) -> torch.device:
        return self.wte.weight.device

    @torch.no_grad()
    def init_weights(self, seed: int = 0) -> None:
        """The same on every device, whatever its dtype.

        Matrices are uniform with a standard deviation of 1/sqrt(fan_in), which keeps the size of what passes
        through them, and value tables as small. What writes into the residual stream (c_proj) is zero: every
        block begins as the identity, so a deep model trains like a shallow one at first. The head is nearly
        zero: all tokens equally likely.
        """
        generator = torch.Generator().manual_seed(seed)  # on the CPU, for devices draw other numbers
        for name, p in self.named_parameters():
            draw = torch.zeros(p.shape)
            if name == "wte.weight":
                draw.normal_(0.0, 1.0, generator=generator)
            elif name == "lm_head.weight":
                draw.normal_(0.0, 0.001, generator=generator)
            elif name == "skips":
                draw[:, 0] = 1.0  # the stream alone
            elif name.endswith("table.weight"):
                draw.normal_(0.0, self.config.n_embd ** -0.5, generator=generator)
            elif not name.endswith("c_proj.weight"):
                bound = (3.0 / p.size(1)) ** 0.5
                draw.uniform_(-bound, bound, generator=generator)
            p.copy_(draw)
        for block in self.blocks:
            block.attn.match_keys()

    def look(self, layer: int, q: Tensor, k: Tensor, v: Tensor,
             positions: Tensor | None = None) -> Tensor:
        """What queries q (B, T, H, D) at `positions` (B or 1, T) find among keys and values (B, S, H_kv, D)
        from position 0 on.

        Each sees the keys up to its own position. None: plain causal attention, S == T. The one place that
        says who sees whom, for training, decoding and evaluation; `layer` is for models whose layers differ.
        """
        if positions is None:
            return attention(q, k, v)
        return sdpa(q, k, v, positions)

    def offset(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (B, T, H_kv, D) of whole texts as queries find them: partly the token before's.

        By an offset key a token is found by the one before it: a query that asks for its own token finds what
        came after that token earlier, "after Leo lives in came Fernhill". A Transformer otherwise needs two
        layers for this (an induction head, arXiv 2209.11895); here one will do (partial key offset,
        KellerJordan/modded-nanogpt pull request 169).

        By an offset value a token that is found tells of the one before it, the mirror image: who asks for
        "milk" finds who "likes milk". And a token that looks at nothing but itself learns its neighbour,
        which otherwise takes attention (channels shifted along time cost nothing: TSM, arXiv 1811.08383).
        """
        return move_on(k, self.config.offset_channels), move_on(v, self.config.offset_values(layer))

    def causal(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """The plain `Attend`: each token sees itself and all before it in its row."""
        return self.look(layer, q, *self.offset(layer, k, v))

    def hidden(self, idx: Tensor, positions: Tensor | None = None,
               attend: Attend | None = None) -> Tensor:
        """Last hidden states (B, T, C) of tokens idx (B, T) int64, normalised, in the compute dtype.

        `positions` (B or 1, T) int64 are the tokens' places in their texts, by default 0 to T - 1. `attend`
        is what a layer's queries find, by default `causal`: whoever keeps keys and values brings another
        (nanochat/infer/kv_cache.py).
        """
        if positions is None:
            positions = torch.arange(idx.size(1), device=idx.device)[None]
        if attend is None:
            attend = self.causal
        rotary = self._rotary(positions)
        embedded = norm(self.wte(idx).to(self.dtype))  # (B, T, C)
        x = embedded  # the residual stream
        for layer, block in enumerate(self.blocks):
            if self.skips is not None:
                x = self.skips[layer, 0] * x + self.skips[layer, 1] * embedded
            if self.recompute and torch.is_grad_enabled():
                x = checkpoint(block, x, idx, rotary, attend, use_reentrant=False, preserve_rng_state=False)
            else:
                x = block(x, idx, rotary, attend)
        return norm(x)

    def _rotary(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """cos and sin, both (B or 1, T, 1, n), of the angles by which n pairs of channels turn at positions
        (B or 1, T).

        Rotary positions (RoPE, arXiv 2104.09864): the score of two tokens then depends on how far apart they
        are. The first pair turns by one radian a token, the last by almost 1 / rope_base.
        """
        D = self.config.head_dim - self.config.offset_channels
        channel = torch.arange(0, D, 2, device=positions.device, dtype=torch.float32)
        angle = positions[..., None, None].float() * self.config.rope_base ** (-channel / max(D, 1))
        return angle.cos().to(self.dtype), angle.sin().to(self.dtype)

    def _head(self) -> Tensor:
        return self.lm_head.weight[: self.config.vocab_size]

    def logits(self, hidden: Tensor) -> Tensor:
        """hidden (..., C) -> float32 logits (..., vocab_size)."""
        return softcapped_logits(hidden, self._head(), self.config.softcap)

    def forward(self, idx: Tensor) -> Tensor:
        """idx (B, T) int64 -> float32 logits (B, T, vocab_size)."""
        return self.logits(self.hidden(idx))

    def loss(self, idx: Tensor, targets: Tensor, weight: Tensor) -> Tensor:
        """Sum of weight * negative log-likelihood; idx, targets (B, T) int64, weight (B, T) float32."""
        h = self.hidden(idx).flatten(0, 1)  # (B * T, C)
        return linear_cross_entropy(h, self._head(), targets.flatten(), weight.flatten(), self.config.softcap)

    @torch.no_grad()
    def token_nll(self, idx: Tensor, targets: Tensor) -> Tensor:
        """Negative log-likelihood of each target in nats, (B, T) float32."""
        h = self.hidden(idx).flatten(0, 1)  # (B * T, C)
        return token_nll(h, self._head(), targets.flatten(), self.config.softcap).view_as(targets)

    def parameter_groups(self) -> dict[str, list[tuple[str, nn.Parameter]]]:
        """{kind: [(name, parameter), ...]}: kinds want learning rates, and matrices an optimizer, of their
        own."""
        groups: dict[str, list] = {"embedding": [], "table": [], "matrix": [], "unembedding": [], "skips": []}
        for name, p in self.named_parameters():
            kind = "matrix"
            if name == "wte.weight":
                kind = "embedding"
            elif name == "lm_head.weight":
                kind = "unembedding"
            elif name == "skips":
                kind = "skips"
            elif name.endswith("table.weight"):
                kind = "table"
            groups[kind].append((name, p))
        return groups

    def num_params(self) -> int:
        return sum(p.numel() for p in self.parameters())

    def flops_per_token(self) -> int:
        """Training FLOPs of a token, as scaling.flops_per_token counts them from a depth; a test compares."""
        c = self.config
        groups = self.parameter_groups()
        weights = sum(p.numel() for _, p in groups["matrix"] + groups["unembedding"])
        return 6 * weights + 12 * c.n_layer * c.n_embd * c.sequence_len
