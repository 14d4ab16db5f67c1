"""The runner: the fast one says what the model says, int8 nearly so, and deterministic means the same bits."""
import dataclasses
import gc
import random
import types
import weakref

import pytest
import torch
from engines import LEN, ask, drain, finish, model, tokenizer  # noqa: F401
from reference import Reference
from tiny import drawn, prompts_of, tiny_model

from nanochat.common import UsageError, log
from nanochat.infer.engine import Engine
from nanochat.infer.runner import Piece, Runner
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


# ----------------------------------------------------------------------------------------------------- as the reference
@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-4), (torch.bfloat16, 0.15)], ids=str)
@pytest.mark.parametrize("key_offset, n_kv_head", [(0.0, 2), (0.5, 4), (1.0, 1)])
@pytest.mark.parametrize("graphs", [False, True])
def test_the_fast_runner_agrees_with_the_model_itself(key_offset, n_kv_head, dtype, tolerance, graphs):
    config = GPTConfig(sequence_len=LEN, vocab_size=340, n_layer=3, n_head=4, n_kv_head=n_kv_head, n_embd=64,
                       key_offset=key_offset, value_offset=key_offset / 2, value_tables=key_offset == 0.5,
                       embedding_skips=key_offset == 0.5)
    model = drawn(GPT(config, dtype))
    rng, cursors = random.Random(3), [0] * 5
    fast, slow = Runner(model, 5, LEN, graphs=graphs), Reference(model, 5)
    with torch.inference_mode():
        for i in range(40):         # every other step holds single tokens only
            if fast.compiled:
                fast.compiled.few_tokens = 64 * (i % 3 // 2)    # compiled whole, or between oneDNN's products
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
    fast, slow = Runner(model, 2, LEN, **options), Reference(model, 2)
    assert fast.compiled.kind == torch.float32 and fast.cache.k.dtype == torch.bfloat16
    with torch.inference_mode():
        for work in ([Piece(0, 0, [*range(40)]), Piece(1, 0, [*range(50, 90)])], [Piece(0, 40, [7]), Piece(1, 40, [8])]):
            found, expected = (r.logits(r.forward(work)) for r in (fast, slow))
            torch.testing.assert_close(found, expected, rtol=0.15, atol=0.15)


@pytest.mark.parametrize("graphs", [False, True])
def test_the_cache_is_gone_with_its_runner_though_nothing_collects_garbage(graphs, monkeypatch, model, tokenizer):
    monkeypatch.setattr("nanochat.infer.scheduler.Runner", lambda *args: made.append(Runner(*args, graphs=graphs)) or made[-1])
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
        slow, fast = Reference(model, 3), Runner(model, 3, LEN, int8=True)
        expected = slow.logits(slow.forward(work))
        for i, piece in enumerate(work):
            for at, token in enumerate(piece.tokens):
                hidden = fast.forward([Piece(piece.slot, at, [token])])
            found = fast.logits(hidden)[0]
            assert 0 < (found - expected[i]).abs().max() < 0.25 * expected.std()
        together = Runner(model, 9, LEN, int8=True)
        work += [Piece(i, 0, [7]) for i in range(3, 9)]
        found = together.logits(together.forward(work))
        assert 0 < (found[:3] - expected).abs().max() < 0.25 * expected.std() and (found[3:] - found[1]).abs().max() < 0.01
        assert together.compiled.kind == (torch.uint8 if torch.cpu._is_vnni_supported() else torch.float32)


def test_deterministic_and_int8_are_for_a_cpu():
    with torch.device("meta"):
        model = GPT(GPTConfig(LEN, 340, n_layer=1, n_head=1, n_kv_head=1, n_embd=32))
    for option in ("deterministic", "int8"):
        with pytest.raises(UsageError, match="for a CPU"):
            Runner(model, 1, LEN, **{option: True})


# ------------------------------------------------------------------------------- what the compiled way does not know
class Gated(GPT):
    """One more parameter: a gate on what attention adds, as somebody might try out."""

    def __init__(self, config, dtype=torch.float32):
        super().__init__(config, dtype)
        self.gate = torch.nn.Parameter(torch.ones(config.n_embd, dtype=dtype))
        for block in self.blocks:
            block.attn.c_proj.register_forward_hook(lambda module, args, out: out * self.gate)


@dataclasses.dataclass(frozen=True)
class WindowConfig(GPTConfig):
    window: int = 16


class Windowed(GPT):
    """One more field: tokens see the last `window` alone, wherever they look."""

    def look(self, layer, q, k, v, positions=None):
        if positions is None:
            positions = torch.arange(q.size(1))[None]
        key, query = torch.arange(k.size(1)), positions[:, None, :, None]
        seen = (key <= query) & (key > query - self.config.window)
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, seen, enable_gqa=True).transpose(1, 2)


class HardCodedWindow(GPT):
    """The same window, and no name for it."""

    def look(self, layer, q, k, v, positions=None):
        return Windowed.look(types.SimpleNamespace(config=WindowConfig()), layer, q, k, v, positions)


class Louder(GPT):
    """Another head: only the logits tell."""

    def logits(self, hidden):
        return 2 * super().logits(hidden)


class Gelu(GPT):
    """No new name anywhere: only what comes out is different."""

    def __init__(self, config, dtype=torch.float32):
        super().__init__(config, dtype)
        for block in self.blocks:
            block.mlp.forward = lambda x, mlp=block.mlp: mlp.c_proj(torch.nn.functional.gelu(mlp.c_fc(x)))


SHAPE = dict(n_layer=2, n_head=4, n_kv_head=2, n_embd=64, key_offset=0.5, value_offset=0.5, value_tables=True, embedding_skips=True)
CHANGED = [(Gated, GPTConfig, "gate"), (Windowed, WindowConfig, "config.window"),
           (Gelu, GPTConfig, "hidden states of few tokens are"), (HardCodedWindow, GPTConfig, "hidden states of"),
           (Louder, GPTConfig, "logits of")]


@pytest.mark.parametrize("kind, config, named", CHANGED)
def test_a_changed_model_is_decoded_by_its_own_forward_and_a_line_says_why(kind, config, named, monkeypatch, tokenizer):
    said = []
    monkeypatch.setattr(log, "warning", said.append)
    model, cursors, rng = drawn(kind(config(LEN, 340, **SHAPE))), [0] * 3, random.Random(1)
    runner, slow = Runner(model, 3, LEN), Reference(model, 3)
    assert runner.compiled is None and len(said) == 1 and named in said[0] and "right but slower" in said[0]
    with torch.inference_mode():
        for i in range(12):
            if work := random_work(rng, cursors, LEN, 340, 20 if i % 2 else 2):
                found, expected = (r.logits(r.forward(work)) for r in (runner, slow))
                torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    Runner(model, 1, LEN)
    assert len(said) == 1, "once a model"
    for options in ({"int8": True}, {"deterministic": True}):
        with pytest.raises(UsageError, match=named):
            Runner(model, 1, LEN, **options)
        with pytest.raises(UsageError, match=named):        # before a server listens
            Engine(model, tokenizer, **options)


def test_a_known_model_is_compiled_without_a_word(monkeypatch):
    said = []
    monkeypatch.setattr(log, "warning", said.append)
    assert Runner(drawn(GPT(GPTConfig(LEN, 340, **SHAPE))), 1, LEN).compiled and not said


# ------------------------------------------------------------------------------------------------------ deterministic
@pytest.mark.parametrize("options", [dict(dtype=torch.float32), dict(dtype=torch.bfloat16),
                                     dict(dtype=torch.float32, int8=True)], ids=str)
@pytest.mark.parametrize("width", [64, 192])
def test_deterministic_logits_are_the_same_bits_in_any_company(options, width):
    options = dict(options)
    config = GPTConfig(600, 340, n_layer=2, n_head=width // 32, n_kv_head=width // 64, n_embd=width, key_offset=0.5,
                       value_offset=0.5, value_tables=True, embedding_skips=True)
    model = drawn(GPT(config, options.pop("dtype")), width ** -0.5)
    rng = random.Random(2)
    with torch.inference_mode():
        for n in (5, 37, 520):
            ids = [rng.randrange(340) for _ in range(n)]
            alone = Runner(model, 1, 600, deterministic=True, **options)
            expected = [alone.logits(alone.forward([Piece(0, i, [token])]))[0] for i, token in enumerate(ids[:40])]
            if n > 40:
                expected.append(alone.logits(alone.forward([Piece(0, 40, ids[40:])]))[0])
            for slot in (0, 3, 9):
                company = Runner(model, 10, 600, deterministic=True, **options)
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
    expected = [finish(engine.scheduler(1), p, 20, i, **how) for i, p in enumerate(texts)]
    crowd = engine.scheduler(5, prefill_beside=7)
    for _ in range(2):           # the second time from the cache
        found = []
        for i, prompt in enumerate(texts):
            found.append(ask(crowd, prompt, 20, i, **how))
            crowd.step()
        drain(crowd)
        assert [s.ids for s in found] == [s.ids for s in expected]
    assert sum(s.cached_tokens for s in found) > 20
    history = texts[1] + expected[1].ids + texts[0][1:]      # what was decoded before is read from the cache, or anew
    cached, fresh = (finish(b, history, 12, **how) for b in (crowd, engine.scheduler(1)))
    assert cached.ids == fresh.ids and cached.cached_tokens > 0 == fresh.cached_tokens
