"""The model: shapes, initialisation, counts, and that its fast parts agree with their slow references."""
import dataclasses
import math

import pytest
import torch
from reference import cross_entropy
from tiny import drawn

from nanochat import scaling
from nanochat.infer.kv_cache import KVCache, Piece
from nanochat.model import attention, loss
from nanochat.model.elementwise import norm
from nanochat.model.gpt import GPT, GPTConfig, move_on

TINY = GPTConfig(sequence_len=32, vocab_size=100, n_layer=2, n_head=4, n_kv_head=2, n_embd=32, value_tables=True,
                 embedding_skips=True)


def tiny(dtype=torch.float32, seed=0):
    model = GPT(TINY, dtype)
    model.init_weights(seed)
    for name, p in model.named_parameters():
        if name.endswith("c_proj.weight"):
            torch.nn.init.normal_(p, std=0.1, generator=torch.Generator().manual_seed(1))
    return model


def test_every_parameter_is_initialised():
    model = GPT(TINY)
    for p in model.parameters():
        p.data.fill_(math.nan)
    model.init_weights()
    assert all(torch.isfinite(p).all() for p in model.parameters())


def test_init_after_meta_device_leaves_nothing_uninitialised():
    with torch.device("meta"):
        model = GPT(TINY)
    model = model.to_empty(device="cpu")
    for p in model.parameters():
        p.data.fill_(math.nan)
    model.init_weights()
    assert torch.isfinite(model(torch.zeros(1, 4, dtype=torch.int64))).all()
    assert not dict(model.named_buffers()), "a buffer would stay uninitialised after to_empty"


def test_untrained_model_guesses_uniformly():
    model = GPT(TINY)
    model.init_weights()
    idx = torch.arange(32)[None]
    assert model.token_nll(idx, idx).mean().item() == pytest.approx(math.log(TINY.vocab_size), abs=0.02)


def test_no_position_sees_the_future():
    model, idx = tiny(), torch.randint(0, 100, (1, 16), generator=torch.Generator().manual_seed(0))
    changed = idx.clone()
    changed[0, 10:] = (changed[0, 10:] + 1) % 100
    before, after = model(idx), model(changed)
    assert torch.equal(before[:, :10], after[:, :10])
    assert not torch.allclose(before[:, 10:], after[:, 10:])


@pytest.mark.parametrize("T", [1, 7, 128, 200])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_blocked_attention_equals_sdpa(T, kv_heads):
    def run(fn):
        g = torch.Generator().manual_seed(T)
        q = torch.randn(2, T, 4, 8, generator=g).requires_grad_()
        k, v = (torch.randn(2, T, kv_heads, 8, generator=g).requires_grad_() for _ in range(2))
        y = fn(q, k, v)
        (y * torch.randn(y.shape, generator=g)).sum().backward()
        return y, q.grad, k.grad, v.grad
    for fast, slow in zip(run(attention.blocked), run(attention.sdpa)):
        torch.testing.assert_close(fast, slow, rtol=1e-4, atol=1e-5)


def test_attention_with_positions_equals_plain_causal():
    g = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 9, 4, 8, generator=g) for _ in range(3))
    positions = torch.arange(9).expand(2, 9)
    torch.testing.assert_close(attention.sdpa(q, k, v, positions), attention.sdpa(q, k, v))


def loss_inputs(N=50, C=16, V=70, seed=0):
    g = torch.Generator().manual_seed(seed)
    weight = torch.rand(N, generator=g) * (torch.rand(N, generator=g) > 0.3)
    return (torch.randn(N, C, generator=g).requires_grad_(), torch.randn(V, C, generator=g).requires_grad_(),
            torch.randint(0, V, (N,), generator=g), weight)


@pytest.mark.parametrize("chunk", [70, 70 * 7, 1 << 22])
def test_fused_loss_equals_reference(chunk, monkeypatch):
    monkeypatch.setattr(loss, "CHUNK_ELEMENTS", chunk)
    def run(fn):
        hidden, head, targets, weight = loss_inputs()
        value = fn(hidden, head, targets, weight, 15.0)
        (value * 0.5).backward()
        return value, hidden.grad, head.grad
    for fast, slow in zip(run(loss.linear_cross_entropy), run(cross_entropy)):
        torch.testing.assert_close(fast, slow, rtol=1e-4, atol=1e-5)


def test_all_masked_tokens_give_zero_loss_and_no_nan():
    hidden, head, targets, _ = loss_inputs()
    value = loss.linear_cross_entropy(hidden, head, targets, torch.zeros(50), 15.0)
    value.backward()
    assert value.item() == 0 and not hidden.grad.any() and not head.grad.any()


def test_softcap_is_computed_in_float32():
    hidden, head = torch.randn(4, 16).bfloat16() * 30, torch.randn(70, 16).bfloat16()
    logits = loss.softcapped_logits(hidden, head, 15.0)
    assert logits.dtype == torch.float32 and logits.abs().max() <= 15.0
    distinct = loss.softcapped_logits(torch.tensor([[13.0], [13.0625]]).bfloat16(), torch.ones(1, 1).bfloat16(), 15.0)
    assert distinct[0] != distinct[1], "in bf16 these two logits would be one"


def test_loss_sums_weighted_token_nll():
    model = tiny()
    g = torch.Generator().manual_seed(3)
    idx, targets = (torch.randint(0, 100, (2, 8), generator=g) for _ in range(2))
    weight = torch.rand(2, 8, generator=g)
    expected = (model.token_nll(idx, targets) * weight).sum()
    torch.testing.assert_close(model.loss(idx, targets, weight), expected, rtol=1e-5, atol=1e-5)


def test_vocabulary_is_padded_to_64_and_padding_is_never_predicted():
    model = tiny()
    assert model.wte.weight.size(0) == 128 and model(torch.zeros(1, 1, dtype=torch.int64)).size(-1) == 100


@pytest.mark.parametrize("depth", range(1, 41))
def test_every_depth_gives_an_even_head_size_and_the_planned_parameters(depth):
    shape = scaling.model_shape(depth)
    config = GPTConfig(64, 1000, **vars(shape))
    assert config.head_dim % 2 == 0
    with torch.device("meta"):
        assert GPT(config).num_params() == scaling.num_params(depth, 1000, tables=False, skips=False)


def test_d20_has_the_known_number_of_parameters():
    assert scaling.num_params(20, 65536, tables=False, skips=False) == pytest.approx(561e6, rel=0.01)


def test_learning_rate_stays_and_comes_down():
    rates = [scaling.lr_scale(s, 100, warmdown_frac=0.3) for s in range(100)]
    assert rates[:70] == [1.0] * 70
    assert rates[70:] == sorted(rates[70:], reverse=True) and 0 < rates[-1] < 0.05


def test_momentum_schedule_fits_into_a_short_run():
    assert scaling.muon_momentum(0, 50) == pytest.approx(0.85)
    assert scaling.muon_momentum(49, 50) == pytest.approx(0.95)


@pytest.mark.parametrize("key_offset", [0.0, 0.5, 1.0])
def test_ragged_pieces_over_a_cache_equal_one_full_forward(key_offset):
    """Slots advance at their own pace, two of three at a time, and each token gets what a whole forward gives it."""
    parts = {"value_offset": key_offset, "value_tables": key_offset > 0, "embedding_skips": key_offset > 0}
    model = drawn(GPT(dataclasses.replace(TINY, key_offset=key_offset, **parts)))
    idx = torch.randint(0, 100, (3, 12), generator=torch.Generator().manual_seed(5))
    full, cache, seen = model(idx), KVCache(model, 3, 12, torch.float32), [0, 0, 0]
    for lengths in ([5, 3, 0], [1, 1, 4], [0, 4, 1], [6, 0, 7], [0, 4, 0]):
        pieces = [Piece(slot, seen[slot], idx[slot, seen[slot]:seen[slot] + n].tolist()) for slot, n in enumerate(lengths) if n]
        positions, attend = cache.attend_pieces(pieces)
        found = model.logits(model.hidden(torch.tensor([sum((p.tokens for p in pieces), [])]), positions, attend))[0]
        expected = torch.cat([full[p.slot, p.start:p.start + len(p.tokens)] for p in pieces])
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        seen = [n + more for n, more in zip(seen, lengths)]
    assert seen == [12, 12, 12]


def test_one_token_in_every_slot_equals_one_full_forward():
    model = drawn(GPT(dataclasses.replace(TINY, key_offset=0.5, value_offset=0.5, value_tables=True, embedding_skips=True)))
    idx = torch.randint(0, 100, (3, 9), generator=torch.Generator().manual_seed(6))
    full, cache = model(idx), KVCache(model, 3, 16, torch.float32)
    for position in range(9):
        positions = torch.full((3,), position)
        hidden = model.hidden(idx[:, position, None], positions[:, None], cache.attend_all(positions, 16))
        torch.testing.assert_close(model.logits(hidden)[:, 0], full[:, position], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def found_by_the_last_token(idx, **parts):
    """The positions of idx (T,), likeliest first, whose value the first layer's attention gives the last token."""
    model = GPT(dataclasses.replace(TINY, n_kv_head=4, n_embd=256, max_attn_logit=50.0, **parts))
    model.init_weights()
    block = model.blocks[0].attn
    seen = norm(norm(model.wte(torch.tensor([idx]))))
    if not model.config.key_offset:
        block.c_k.weight.copy_(block.c_q.weight)                     # a token asks for itself
    block.c_proj.weight.copy_(torch.eye(block.c_proj.weight.size(0)))
    n = block.head_dim - block.offset_channels
    cos = torch.ones(1, len(idx), 1, n // 2)     # no turning: a token is found wherever it stands
    out = block(seen, torch.tensor([idx]), (cos, 1 - cos), model.causal)[0, -1]
    return torch.cosine_similarity(out, block.c_v(seen)[0], dim=-1).argsort(descending=True).tolist()


def test_offset_keys_let_a_token_find_what_followed_it_before():
    assert found_by_the_last_token([7, 3, 8, 4, 9, 5, 3], key_offset=0.5)[0] == 2      # the 8 after the first 3


def test_offset_values_let_a_token_find_what_stood_before_it():
    assert set(found_by_the_last_token([7, 3, 8, 4, 9, 5, 8], value_offset=1.0)[:2]) == {1, 5}    # the 3 and the 5


def test_the_last_layer_has_no_offset_values():
    config = GPTConfig(n_layer=3, n_head=2, n_kv_head=2, n_embd=192, value_offset=0.5)
    assert [config.offset_values(layer) for layer in range(3)] == [48, 48, 0]


def test_value_tables_are_in_every_second_layer_from_the_last_and_add_to_its_values():
    assert [GPTConfig(n_layer=5, value_tables=True).has_table(i) for i in range(5)] == [True, False, True, False, True]
    model, idx = tiny(), torch.tensor([[7, 3, 8]])
    assert [block.attn.table is not None for block in model.blocks] == [False, True]
    before, table = model(idx), model.blocks[1].attn.table.weight
    with torch.no_grad():
        table[8] += 1.0
    after = model(idx)
    assert torch.equal(before[:, :2], after[:, :2]) and not torch.allclose(before[:, 2], after[:, 2])
    assert table.dtype == torch.float32 == GPT(TINY, torch.bfloat16).blocks[1].attn.table.weight.dtype


def test_position_zero_of_what_is_moved_on_is_zero_and_the_rest_moves_by_one():
    k = torch.arange(24.0).view(1, 3, 2, 4)
    moved = move_on(k, 2)
    assert torch.equal(moved[..., :2], k[..., :2])
    assert torch.equal(moved[:, 1:, :, 2:], k[:, :-1, :, 2:]) and not moved[:, 0, :, 2:].any()
