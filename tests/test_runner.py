"""The runner: the fast one says what the model says, int8 nearly so, and deterministic means the same bits."""
import gc
import random
import weakref

import pytest
import torch
from engines import LEN, ask, drain, finish, model, tokenizer  # noqa: F401
from reference import PlainCache, Reference
from tiny import drawn, prompts_of, tiny_model

from nanochat.common import UsageError
from nanochat.infer.engine import Engine
from nanochat.infer.runner import Fast, Piece
from nanochat.model.gpt import GPT, GPTConfig


def random_work(rng, cursors, capacity, vocab_size, longest=20):
    """Pieces for some slots: single tokens and chunks, from where each slot stands."""
    work = []
    for slot in range(len(cursors)):
        n = rng.choice([0, 1, 1, 1, rng.randrange(1, longest)])
        if n and cursors[slot] + n <= capacity:
            work.append(Piece(slot, cursors[slot], [rng.randrange(vocab_size) for _ in range(n)]))
            cursors[slot] += n
    return work


# -------------------------------------------------------------------------------------------------------- the reference
def test_kv_cache_matches_full_forward(model):
    torch.manual_seed(0)
    idx, lengths = torch.randint(0, 256, (3, 20)), torch.tensor([5, 12, 9])
    full = model(idx)
    cache = PlainCache(model, 3, 20)
    padded = idx[:, :12].clone()
    for row, n in enumerate(lengths):
        padded[row, n:] = 7    # padding, which must leave no trace
    logits = model(padded, cache)
    cache.advance(lengths)
    for row, n in enumerate(lengths):
        torch.testing.assert_close(logits[row, :n], full[row, :n], atol=1e-5, rtol=1e-5)
    for _ in range(8):
        at = cache.lengths.clone()
        step = model(idx.gather(1, at[:, None]), cache)
        cache.advance(1)
        torch.testing.assert_close(step[:, 0], full[torch.arange(3), at], atol=1e-5, rtol=1e-5)


def test_chunked_prefill_matches_full_prefill(model):
    idx = torch.randint(0, 256, (2, 17), generator=torch.Generator().manual_seed(3))
    cache, pieces = PlainCache(model, 2, 17), []
    for chunk in idx.split([1, 5, 11], dim=1):
        pieces.append(model(chunk, cache))
        cache.advance(chunk.size(1))
    torch.testing.assert_close(torch.cat(pieces, 1), model(idx), atol=1e-5, rtol=1e-5)


def test_the_cache_refuses_to_grow(model):
    cache = PlainCache(model, 1, 8)
    with pytest.raises(UsageError, match="9 tokens do not fit a KV cache of 8"):
        model(torch.zeros(1, 9, dtype=torch.int64), cache)
    assert cache.v.size(2) == cache.capacity == 8


# ----------------------------------------------------------------------------------------------------- as the reference
@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-4), (torch.bfloat16, 0.15)], ids=str)
@pytest.mark.parametrize("key_offset, n_kv_head", [(0.0, 2), (0.5, 4), (1.0, 1)])
@pytest.mark.parametrize("graphs", [False, True])
def test_the_fast_runner_agrees_with_the_model_itself(key_offset, n_kv_head, dtype, tolerance, graphs):
    config = GPTConfig(sequence_len=LEN, vocab_size=340, n_layer=3, n_head=4, n_kv_head=n_kv_head, n_embd=64,
                       key_offset=key_offset, value_tables=key_offset == 0.5)
    model = drawn(GPT(config, dtype))
    rng, cursors = random.Random(3), [0] * 5
    fast, slow = Fast(model, 5, LEN, graphs=graphs), Reference(model, 5, LEN)
    with torch.inference_mode():
        for i in range(40):         # every other step holds single tokens only
            fast.few = 64 * (i % 3 // 2)    # compiled whole, or between oneDNN's products
            if work := random_work(rng, cursors, LEN, 340, 20 if i % 2 else 2):
                found, expected = (r.logits(r.forward(work)) for r in (fast, slow))
                torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)
    assert not graphs or {64, LEN} == set(fast.graphs.made)


@pytest.mark.parametrize("options", [{}, {"int8": True}], ids=str)
def test_a_processor_without_products_in_bf16_or_bytes_has_them_in_float32(monkeypatch, options):
    """As most laptops; the weights that few tokens read, and the cache, stay as they are."""
    model = drawn(GPT(GPTConfig(LEN, 340, n_layer=2, n_head=2, n_kv_head=2, n_embd=64), torch.bfloat16))
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: False)
    fast, slow = Fast(model, 2, LEN, **options), Reference(model, 2, LEN)
    assert fast.kind == torch.float32 and fast.cache.k.dtype == torch.bfloat16
    with torch.inference_mode():
        for work in ([Piece(0, 0, [*range(40)]), Piece(1, 0, [*range(50, 90)])], [Piece(0, 40, [7]), Piece(1, 40, [8])]):
            found, expected = (r.logits(r.forward(work)) for r in (fast, slow))
            torch.testing.assert_close(found, expected, rtol=0.15, atol=0.15)


@pytest.mark.parametrize("graphs", [False, True])
def test_the_cache_is_gone_with_its_runner_though_nothing_collects_garbage(graphs, monkeypatch, model, tokenizer):
    monkeypatch.setattr("nanochat.infer.engine.Fast", lambda *args: made.append(Fast(*args, graphs=graphs)) or made[-1])
    made = []
    gc.disable()                # as in training, and reinforcement learning makes a new cache every step
    try:
        Engine(model, tokenizer).generate([[1, 2, 3]] * 2, max_new_tokens=4)
        assert bool(made[0].graphs and made[0].graphs.made) == graphs
        cache = weakref.ref(made.pop().cache)
        assert cache() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("vnni", [True, False])
def test_int8_weights_say_nearly_the_same(monkeypatch, vnni):
    """Token by token, and all at once, where products of bytes are for processors that have them."""
    if not vnni:
        monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: False)
    model = tiny_model(340, LEN)
    work = [Piece(0, 0, list(range(1, 40))), Piece(1, 0, [7]), Piece(2, 0, [300])]
    with torch.inference_mode():
        slow, fast = Reference(model, 3, LEN), Fast(model, 3, LEN, int8=True)
        expected = slow.logits(slow.forward(work))
        for i, piece in enumerate(work):
            for at, token in enumerate(piece.tokens):
                hidden = fast.forward([Piece(piece.slot, at, [token])])
            found = fast.logits(hidden)[0]
            assert 0 < (found - expected[i]).abs().max() < 0.25 * expected.std()
        together = Fast(model, 9, LEN, int8=True)
        work += [Piece(i, 0, [7]) for i in range(3, 9)]
        found = together.logits(together.forward(work))
        assert 0 < (found[:3] - expected).abs().max() < 0.25 * expected.std() and (found[3:] - found[1]).abs().max() < 0.01
        assert together.kind == (torch.uint8 if torch.cpu._is_vnni_supported() else torch.float32)


def test_deterministic_and_int8_are_for_a_cpu():
    with torch.device("meta"):
        model = GPT(GPTConfig(LEN, 340, n_layer=1, n_head=1, n_kv_head=1, n_embd=32))
    for option in ("deterministic", "int8"):
        with pytest.raises(UsageError, match="for a CPU"):
            Fast(model, 1, LEN, **{option: True})


# ------------------------------------------------------------------------------------------------------ deterministic
@pytest.mark.parametrize("options", [dict(dtype=torch.float32), dict(dtype=torch.bfloat16),
                                     dict(dtype=torch.float32, int8=True)], ids=str)
@pytest.mark.parametrize("width", [64, 192])
def test_deterministic_logits_are_the_same_bits_in_any_company(options, width):
    options = dict(options)
    config = GPTConfig(600, 340, n_layer=2, n_head=width // 32, n_kv_head=width // 64, n_embd=width, key_offset=0.5,
                       value_tables=True)
    model = drawn(GPT(config, options.pop("dtype")), width ** -0.5)
    rng = random.Random(2)
    with torch.inference_mode():
        for n in (5, 37, 520):
            ids = [rng.randrange(340) for _ in range(n)]
            alone = Fast(model, 1, 600, deterministic=True, **options)
            expected = [alone.logits(alone.forward([Piece(0, i, [token])]))[0] for i, token in enumerate(ids[:40])]
            if n > 40:
                expected.append(alone.logits(alone.forward([Piece(0, 40, ids[40:])]))[0])
            for slot in (0, 3, 9):
                company = Fast(model, 10, 600, deterministic=True, **options)
                cursors, at = [0] * 10, 0
                while at < n:
                    step = min(rng.choice([1, 1, 3, 16, 29, 100] if at < 40 else [16, 29, 100]), n - at)
                    others = [p for p in random_work(rng, cursors, 600, 340) if p.slot != slot]
                    work = sorted([*others, Piece(slot, at, ids[at:at + step])], key=lambda piece: piece.slot)
                    found = company.logits(company.forward(work))[[p.slot for p in work].index(slot)]
                    at += step
                    if at <= 40 or at == n:
                        assert torch.equal(found, expected[min(at, 41) - 1]), f"{n} tokens, slot {slot}, position {at}"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_deterministic_replies_do_not_depend_on_company_slot_chunks_or_cache(model, tokenizer, dtype):
    copy = GPT(model.config, dtype).eval()
    copy.load_state_dict(model.state_dict())
    engine = Engine(copy, tokenizer, deterministic=True)
    texts, how = prompts_of(tokenizer, [5, 22, 40, 9, 31]), dict(temperature=1.0, top_p=0.95, seed=4)
    expected = [finish(engine.batcher(1), p, 20, i, **how) for i, p in enumerate(texts)]
    crowd = engine.batcher(5, beside=7)
    for turn in range(2):           # the second time from the cache
        found = []
        for i, prompt in enumerate(texts):
            found.append(ask(crowd, prompt, 20, i, **how))
            crowd.step()
        drain(crowd)
        assert [s.ids for s in found] == [s.ids for s in expected]
    assert sum(s.cached_tokens for s in found) > 20
    history = texts[1] + expected[1].ids + texts[0][1:]      # what was decoded before is read from the cache, or anew
    cached, fresh = (finish(b, history, 12, **how) for b in (crowd, engine.batcher(1)))
    assert cached.ids == fresh.ids and cached.cached_tokens > 0 == fresh.cached_tokens
