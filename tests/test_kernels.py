"""The compiled decoding step: every kernel says what torch says, in any number of threads."""
import os
import subprocess
import sys

import numba
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT
from engines import LEN, model, tokenizer  # noqa: F401
from tiny import drawn

from nanochat.infer.cpu import kernels
from nanochat.infer.cpu.compiled import threads_for
from nanochat.infer.engine import Engine
from nanochat.infer.runner import Piece, Runner
from nanochat.model.gpt import GPT, GPTConfig

KINDS = [torch.float32, torch.bfloat16, torch.int8]


def draw(*shape, seed=0, dtype=torch.float32):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return (x * 40).round().clamp(-127, 127).to(dtype) if dtype == torch.int8 else x.to(dtype)


@pytest.mark.parametrize("dtype", KINDS, ids=str)
@pytest.mark.parametrize("rows", [1, 3, 4, 9])
def test_a_product(dtype, rows):
    w, x, y, scale = draw(37, 50, dtype=dtype), draw(rows, 50, seed=1), draw(rows, 37, seed=2), draw(37, seed=3)
    expected = y + x @ w.float().T * scale
    kernels.product(*map(kernels.as_array, (w, scale, x, y)), False)
    torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-4)


def test_a_row_of_a_product_has_the_same_bits_beside_any_others():
    w, x, one = draw(64, 48, dtype=torch.bfloat16), draw(5, 48, seed=1), torch.ones(64)
    found = []
    for rows in ([0], [0, 1], [4, 0, 2], [3, 2, 1, 0], [1, 2, 3, 4, 0], [1, 2, 3, 4, 1, 2, 0, 3, 4]):
        y = torch.zeros(len(rows), 64)
        kernels.product(*map(kernels.as_array, (w, one, x[rows], y)), True)
        found.append(y[rows.index(0)])
    assert all(torch.equal(found[0], y) for y in found)


def test_float32_becomes_bfloat16_as_in_torch():
    x = torch.cat((draw(3000) * 1e3, torch.tensor([0.0, -0.0, 1.00390625, 1.01171875, 3.3e38, 1e-40])))
    y = torch.zeros(len(x), dtype=torch.bfloat16)
    copy_narrow(kernels.as_array(x), kernels.as_array(y))
    assert torch.equal(y, x.bfloat16())


@kernels.compiled
def copy_narrow(x, y):
    for i in range(x.size):
        y[i] = kernels.narrow(x[i], y[0])


def meant(a, s):
    """The floats that an array of any type and the worth of its rows stand for."""
    return (a.float() - 128 * (a.dtype == torch.uint8)) * s[:, None]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.uint8], ids=str)
def test_what_is_between_two_products(dtype):
    """As floats to what the type can say; a row of zeros stays one, a byte's row reaches both ends."""
    close = {torch.float32: 1e-5, torch.bfloat16: 4e-3, torch.uint8: 4e-3}[dtype]
    x, s, a = draw(5, 64) * 3, torch.empty(5), torch.empty(5, 64, dtype=dtype)
    x[1] = 0
    kernels.quantize(*map(kernels.as_array, (x, s, a)))
    assert (meant(a, s) - x).abs().max() < close * x.abs().max() and not meant(a, s)[1].any()
    assert dtype != torch.uint8 or {1, 255} & {int(a[0].min()), int(a[0].max())} and a[0].min() > 0

    y, s = draw(5, 64, seed=1, dtype=torch.bfloat16 if dtype == torch.bfloat16 else torch.float32), torch.rand(5) + 0.5
    expected = x + y.float() * s[:, None]
    kernels.add_and_norm(*map(kernels.as_array, (x, y, s, a)))
    torch.testing.assert_close(x, expected)
    assert (meant(a, s) - F.rms_norm(expected, (64,))).abs().max() < 4 * close

    s = torch.rand(5) + 0.5
    skip = torch.tensor([0.5, -2.0])
    embedded = draw(5, 64, seed=2)
    expected = 0.5 * (x + y.float() * s[:, None]) - 2 * embedded
    kernels.add(*map(kernels.as_array, (x, y, s)))
    kernels.mix_and_norm(*map(kernels.as_array, (x, embedded, skip, s, a)))
    torch.testing.assert_close(x, expected)
    assert (meant(a, s) - F.rms_norm(expected, (64,))).abs().max() < 4 * close

    s = torch.rand(5) + 0.5
    expected = (y.float() * s[:, None]).relu().square()
    kernels.relu_squared(*map(kernels.as_array, (y, s, a)))
    assert ((meant(a, s) - expected).abs().amax(1) < close * expected.amax(1)).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_soft_cap(dtype):
    y = torch.cat((draw(3, 200) * 30, torch.tensor([[0.0, 1e30]] * 3)), 1).to(dtype)
    s, out, bias = torch.rand(3) + 0.5, torch.empty(3, 202), torch.zeros(2, 202)
    bias[1, :9] = -torch.inf
    kernels.softcap_and_bias(kernels.as_array(y), kernels.as_array(s), 15.0, bias.numpy(), np.arange(len(y)) % 2,
                             kernels.as_array(out))
    expected = 15 * torch.tanh(y.double() * s[:, None] / 15)
    assert (out[1, :9] == -torch.inf).all()
    out[1, :9] = expected[1, :9]
    assert (out - expected).abs().max() < 6e-5 and (out[:, 201] == 15).all()


def test_exp():
    x = -torch.rand(5000, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 80
    found = torch.tensor([kernels.exp(np.float32(a)) for a in x.tolist()], dtype=torch.float64)
    assert (found / x.float().double().exp() - 1).abs().max() < 4e-6
    assert kernels.exp(np.float32(0)) == 1 and 0 <= kernels.exp(np.float32(-1e30)) < 1e-37


@pytest.mark.parametrize("dtype", KINDS[:2], ids=str)
def test_attention_of_rows_in_any_slot_at_any_position(dtype):
    n_q, n_kv, D, S = 4, 2, 16, 21
    k, v = draw(6, n_kv, S + 1, D, seed=1, dtype=dtype), draw(6, n_kv, S, D, seed=2, dtype=dtype)
    q, slots, at = draw(5, (n_q + 2 * n_kv) * D), [4, 0, 4, 5, 2], [3, 20, 17, 0, 9]
    y = torch.zeros(5, n_q * D)
    rows = np.array([0, 1, 3, 4])
    kernels.attend(rows, kernels.as_array(q), np.array(slots), np.array(at), kernels.as_array(k), kernels.as_array(v), 0.3,
                   kernels.as_array(y))
    assert not y[2].any(), "a row that was not asked for"
    for b in rows:
        keys, values = (x[slots[b], :, :at[b] + 1].float() for x in (k, v))
        expected = F.scaled_dot_product_attention(q[b, :n_q * D].view(n_q, 1, D), keys.repeat_interleave(2, 0),
                                                  values.repeat_interleave(2, 0), scale=0.3)
        torch.testing.assert_close(y[b].view(n_q, 1, D), expected, rtol=1e-4, atol=1e-5)


# ------------------------------------------------------------------------------------------------------------- threads
def test_any_number_of_threads_gives_the_same_bits(monkeypatch):
    config = GPTConfig(LEN, 340, n_layer=3, n_head=6, n_kv_head=3, n_embd=96, key_offset=0.5, value_offset=0.5, value_tables=True,
                       embedding_skips=True)
    model, found = drawn(GPT(config, torch.bfloat16)), []
    for threads in (1, 2, 100):
        monkeypatch.setattr("nanochat.infer.cpu.compiled.threads_for", lambda model, n=threads: n)
        fast = Runner(model, 3, LEN)
        for i in range(12):
            hidden = fast.forward([Piece(0, i, [i + 3]), Piece(2, i, [90 - i])])
        found.append(fast.logits(hidden))
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


def test_a_small_model_has_one_thread(monkeypatch, model):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    assert threads_for(model) == 1
    monkeypatch.setattr(model, "num_params", lambda: 35_000_000)
    assert threads_for(model) == 4


def test_replies_of_few_and_of_many_agree(model, tokenizer):
    prompts = [[tokenizer.bos_id, *range(20, 25 + i)] for i in range(6)]
    together = Engine(model, tokenizer).generate(prompts, max_new_tokens=12, temperature=0)
    alone = [Engine(model, tokenizer).generate([p], max_new_tokens=12, temperature=0)[0] for p in prompts]
    assert [c.ids for c in together] == [c.ids for c in alone]


def test_without_the_systems_openmp_one_thread_computes(tmp_path):
    code = """if True:
        import sys
        sys.modules["numba.np.ufunc.omppool"] = None
        import numpy as np
        from nanochat.infer.cpu import kernels
        y = np.zeros((1, 2), np.float32)
        kernels.use_threads(4)
        kernels.product(np.array([[1, 2], [3, 4]], np.float32), np.ones(2, np.float32), np.ones((1, 2), np.float32), y, False)
        print(kernels.THREADS, y.tolist())
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT,
                          env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)})
    assert done.stdout.split(None, 1) == ["False", "[[3.0, 7.0]]\n"], done.stderr


def test_where_nothing_can_be_written_it_is_compiled_every_time(monkeypatch):
    def njit(function, cache=False, **options):
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return numba.njit(function, **options)
    monkeypatch.setattr(kernels, "njit", njit)
    assert kernels.compiled(lambda x: x + 1)(2) == 3
