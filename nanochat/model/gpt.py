"""
The Transformer: architecture, initialisation, and the counts that scaling laws and reports are made of.

Matrices are in the compute dtype, the embedding and value tables in float32: their gradients sum over every occurrence
of a word, which bf16 would round away.
"""
from dataclasses import dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F

from nanochat.model.attention import attention
from nanochat.model.elementwise import norm, rotate_norm
from nanochat.model.loss import linear_cross_entropy, softcapped_logits, token_nll


@dataclass(frozen=True)
class GPTConfig:
    sequence_len: int = 2048
    vocab_size: int = 32768
    n_layer: int = 12
    n_head: int = 6
    n_kv_head: int = 6
    n_embd: int = 768
    softcap: float = 15.0
    rope_base: float = 10000.0
    max_attn_logit: float = 15.0  # of a query and its equal; otherwise sqrt(head size)
    key_offset: float = 0.0  # share of channels in which a token is found by the one before
    value_tables: bool = False  # every second layer, from the last, adds a vector by token to its values

    def __post_init__(self):
        assert self.n_embd % self.n_head == 0, f"n_embd {self.n_embd} must divide by n_head {self.n_head}"
        assert self.head_dim % 2 == 0, f"head size {self.head_dim} must be even for rotary positions"
        assert self.n_head % self.n_kv_head == 0, f"n_head {self.n_head} must divide by n_kv_head {self.n_kv_head}"
        assert 0 < self.softcap <= 50, f"softcap {self.softcap} must lie in 0 to 50: the loss takes exp() of logits up to it"
        assert 0 <= self.key_offset <= 1, f"key_offset {self.key_offset} must lie in 0 to 1"

    @property
    def head_dim(self):
        return self.n_embd // self.n_head

    @property
    def offset_channels(self):
        """A head's last: no rotary position, the key of the token before."""
        return round(self.head_dim * self.key_offset / 2) * 2

    def has_table(self, layer):
        return self.value_tables and (self.n_layer - layer) % 2 == 1

    @property
    def padded_vocab_size(self):
        """A multiple of 64, which matrix units like."""
        return -(-self.vocab_size // 64) * 64


def offset_keys(k, channels):
    """k (B, T, H, D) with its last `channels` moved one position on.

    A query for its own token finds what came after it before (partial key offset, KellerJordan/modded-nanogpt pull
    request 169).
    """
    here, moved = k.split([k.size(-1) - channels, channels], dim=-1)
    return torch.cat((here, F.pad(moved[:, :-1], (0, 0, 0, 0, 1, 0))), dim=-1)


class Attention(nn.Module):
    def __init__(self, config, layer):
        super().__init__()
        self.gain, self.offset_channels = config.max_attn_logit / config.head_dim ** 0.5, config.offset_channels
        self.layer, self.head_dim = layer, config.head_dim
        width, kv_width = config.n_embd, config.n_kv_head * config.head_dim
        self.c_q = nn.Linear(width, width, bias=False)
        self.c_k = nn.Linear(width, kv_width, bias=False)
        self.c_v = nn.Linear(width, kv_width, bias=False)
        self.c_proj = nn.Linear(width, width, bias=False)
        self.table = nn.Embedding(config.padded_vocab_size, kv_width) if config.has_table(layer) else None

    def forward(self, x, idx, rotary, positions, cache):
        """The table is that of value embeddings (KellerJordan/modded-nanogpt; of arXiv 2410.17897's kind)."""
        B, T, C = x.shape
        q, k, v = (linear(x).view(B, T, -1, self.head_dim) for linear in (self.c_q, self.c_k, self.c_v))
        if self.table is not None:
            v = v + self.table(idx).to(v.dtype).view_as(v)
        q, k = rotate_norm(q, *rotary, self.gain), rotate_norm(k, *rotary)
        if cache is not None:
            k, v = cache.update(self.layer, k, v)
        elif self.offset_channels:
            k = offset_keys(k, self.offset_channels)
        positions = positions if k.size(1) > T else None  # None: plain causal attention, no mask
        return self.c_proj(attention(q, k, v, positions).reshape(B, T, C))

    def match_keys(self):
        """Give the offset channels of a key the query's weights (mimetic initialisation, arXiv 2305.09828).

        Without it the offset taught a small model nothing in 370,000 tokens.
        """
        first = self.head_dim - self.offset_channels
        q, k = (linear.weight.unflatten(0, (-1, self.head_dim)) for linear in (self.c_q, self.c_k))
        k[:, first:] = q[:: len(q) // len(k), first:]


class MLP(nn.Module):
    """relu^2 between two matrices (Primer, arXiv 2109.08668)."""

    def __init__(self, config):
        super().__init__()
        self.c_fc = nn.Linear(config.n_embd, 4 * config.n_embd, bias=False)
        self.c_proj = nn.Linear(4 * config.n_embd, config.n_embd, bias=False)

    def forward(self, x):
        return self.c_proj(F.relu(self.c_fc(x)).square())


class Block(nn.Module):
    def __init__(self, config, layer):
        super().__init__()
        self.attn = Attention(config, layer)
        self.mlp = MLP(config)

    def forward(self, x, idx, rotary, positions, cache):
        x = x + self.attn(norm(x), idx, rotary, positions, cache)
        return x + self.mlp(norm(x))


class GPT(nn.Module):
    """Its weights are undefined before init_weights or a load."""

    def __init__(self, config, dtype=torch.float32):
        super().__init__()
        self.config, self.dtype = config, dtype
        self.wte = nn.Embedding(config.padded_vocab_size, config.n_embd)
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.n_layer))
        self.lm_head = nn.Linear(config.n_embd, config.padded_vocab_size, bias=False)
        for block in self.blocks:
            block.to(dtype)
            if block.attn.table is not None:
                block.attn.table.float()
        self.lm_head.to(dtype)

    @property
    def device(self):
        return self.wte.weight.device

    @torch.no_grad()
    def init_weights(self, seed=0):
        """Matrices uniform with std 1/sqrt(fan_in), value tables as small; those that write into the residual zero."""
        generator = torch.Generator().manual_seed(seed)  # on the CPU: the same on every device
        for name, p in self.named_parameters():
            draw = torch.zeros(p.shape)
            if name == "wte.weight":
                draw.normal_(0.0, 1.0, generator=generator)
            elif name == "lm_head.weight":
                draw.normal_(0.0, 0.001, generator=generator)
            elif name.endswith("table.weight"):
                draw.normal_(0.0, self.config.n_embd ** -0.5, generator=generator)
            elif not name.endswith("c_proj.weight"):
                bound = (3.0 / p.size(1)) ** 0.5
                draw.uniform_(-bound, bound, generator=generator)
            p.copy_(draw)
        for block in self.blocks:
            block.attn.match_keys()

    def hidden(self, idx, cache=None):
        """idx (B, T) int64 -> last hidden states (B, T, n_embd) in the compute dtype, normalised.

        With a cache, row b begins at cache.lengths[b]; it is not advanced.
        """
        steps = torch.arange(idx.size(1), device=idx.device)
        positions = None if cache is None else cache.lengths[:, None] + steps
        rotary = self._rotary(steps[None] if positions is None else positions)
        x = norm(self.wte(idx).to(self.dtype))
        for block in self.blocks:
            x = block(x, idx, rotary, positions, cache)
        return norm(x)

    def _rotary(self, positions):
        """cos and sin (B or 1, T, 1, n) of positions (B or 1, T)."""
        D = self.config.head_dim - self.config.offset_channels
        channel = torch.arange(0, D, 2, device=positions.device, dtype=torch.float32)
        angle = positions[..., None, None].float() * self.config.rope_base ** (-channel / max(D, 1))
        return angle.cos().to(self.dtype), angle.sin().to(self.dtype)

    def _head(self):
        return self.lm_head.weight[: self.config.vocab_size]

    def logits(self, hidden):
        """hidden (..., n_embd) -> float32 logits (..., vocab_size)."""
        return softcapped_logits(hidden, self._head(), self.config.softcap)

    def forward(self, idx, cache=None):
        """idx (B, T) int64 -> float32 logits (B, T, vocab_size)."""
        return self.logits(self.hidden(idx, cache))

    def loss(self, idx, targets, weight):
        """Sum of weight * nll; idx, targets (B, T) int64, weight (B, T) float32."""
        h = self.hidden(idx)
        return linear_cross_entropy(h.flatten(0, 1), self._head(), targets.flatten(), weight.flatten(),
                                    self.config.softcap)

    @torch.no_grad()
    def token_nll(self, idx, targets):
        h = self.hidden(idx).flatten(0, 1)
        return token_nll(h, self._head(), targets.flatten(), self.config.softcap).view_as(targets)

    def parameter_groups(self):
        """{kind: [(name, parameter), ...]}."""
        groups = {"embedding": [], "table": [], "matrix": [], "unembedding": []}
        for name, p in self.named_parameters():
            kind = {"wte.weight": "embedding", "lm_head.weight": "unembedding"}.get(name, "matrix")
            groups["table" if name.endswith("table.weight") else kind].append((name, p))
        return groups

    def num_params(self):
        return sum(p.numel() for p in self.parameters())

    def flops_per_token(self):
        """Training FLOPs, forward and backward (PaLM, arXiv 2204.02311, appendix B; full attention counted)."""
        c, groups = self.config, self.parameter_groups()
        matmul = sum(p.numel() for _, p in groups["matrix"] + groups["unembedding"])
        return 6 * matmul + 12 * c.n_layer * c.n_embd * c.sequence_len
