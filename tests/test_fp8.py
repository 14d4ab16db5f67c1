"""8-bit products: near the full ones at every magnitude, refused where they cannot work, and a training that learns alike."""
import json
import math
import sys
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import torch.nn.functional as F
from test_train import make, weights

from nanochat.common import CheckpointError, NanochatError, UsageError
from nanochat.model import fp8
from nanochat.model.gpt import GPT, GPTConfig
from nanochat.runtime import Runtime
from nanochat.train import checkpoint, loop

# Rounding to e4m3 is off by at most 1/16, to e5m2 by 1/8, and evenly spread by about a quarter of that. So a product of
# many terms is off, in its norm, by some 4 % (two e4m3) and 6 % (one of each).
OUTPUT, GRADIENT = 0.05, 0.08


def product(shape, x_size, w_size, d_size, dtype, seed=0):
    """(output, gradient of x, of w) in 8 bits and in float32 of the same numbers."""
    generator = torch.Generator().manual_seed(seed)
    batch, n_in, n_out = shape
    x, w, d = ((torch.randn(s, generator=generator) * size).to(dtype)
               for s, size in (((*batch, n_in), x_size), ((n_out, n_in), w_size), ((*batch, n_out), d_size)))
    layer = fp8.Linear(n_in, n_out, bias=False, dtype=dtype)
    layer.weight.data.copy_(w)
    x8, x32, w32 = x.clone().requires_grad_(), x.float().requires_grad_(), w.float().requires_grad_()
    y8, y32 = layer(x8), F.linear(x32, w32)
    y8.backward(d)
    y32.backward(d.float())
    return (y8.detach(), x8.grad, layer.weight.grad), (y32.detach(), x32.grad, w32.grad)


def off(got, wanted):
    return ((got.double() - wanted.double()).norm() / wanted.double().norm()).item()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [((32,), 16, 48), ((2, 64), 128, 128), ((4, 16), 64, 256), ((3, 5, 16), 256, 64)])
def test_output_and_gradients_are_near_those_of_float32(shape, dtype):
    got, wanted = product(shape, 1.0, 0.1, 1e-3, dtype)
    for g, w, bound in zip(got, wanted, (OUTPUT, GRADIENT, GRADIENT)):
        assert g.shape == w.shape and g.dtype == dtype and 0.001 < off(g, w) < bound      # 8 bits, not a full product


@pytest.mark.parametrize("x_size", [1e-6, 1.0, 1e4])
@pytest.mark.parametrize("w_size", [1e-6, 1e4])
@pytest.mark.parametrize("d_size", [1e-6, 1.0, 1e4])
def test_the_scale_follows_every_magnitude(x_size, w_size, d_size):
    got, wanted = product(((64,), 64, 64), x_size, w_size, d_size, torch.bfloat16)
    assert [off(g, w) < bound for g, w, bound in zip(got, wanted, (OUTPUT, GRADIENT, GRADIENT))] == [True] * 3


def test_the_largest_value_is_exact_and_nothing_overflows():
    for dtype in (torch.float8_e4m3fn, torch.float8_e5m2):
        for largest in (1e-38, 3e-7, 0.1, 1.0, 448.1, 65504.0, 3e38):
            x8, scale = fp8.quantize(torch.tensor([largest, -largest, largest / 3, 0.0]), dtype)
            back = x8.float() * scale
            assert torch.isfinite(back).all() and back[3] == 0
            if largest > 1e-30:
                assert back[0].item() == pytest.approx(largest, rel=1e-6) and back[1] == -back[0]
                assert back[2].item() == pytest.approx(largest / 3, rel=1 / 8)


def test_zeros_give_zeros():
    for sizes in ((0.0, 1.0, 1.0), (1.0, 0.0, 1.0), (1.0, 1.0, 0.0), (0.0, 0.0, 0.0)):
        got, wanted = product(((32,), 32, 32), *sizes, torch.bfloat16)
        for g, w in zip(got, wanted):
            assert torch.isfinite(g).all() and (w.any() or not g.any())


@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
def test_what_is_not_finite_reaches_the_result(bad):
    for where in range(3):
        x, w, d = (torch.ones(32, 32) for _ in range(3))
        (x, w, d)[where][3, 4] = bad
        x.requires_grad_(), w.requires_grad_()
        y = fp8._Linear.apply(x, w)
        y.backward(d)
        finite = [bool(torch.isfinite(t).all()) for t in (y, x.grad, w.grad)]
        assert finite == [where == 2, where == 0, where == 1], where


def test_a_step_that_is_not_finite_is_refused_in_8_bits_too(tmp_path):
    stage, model, optimizer, rt = make(tmp_path)
    fp8.convert(model)
    model.blocks[1].mlp.c_fc.weight.data[0, 0] = math.inf
    with pytest.raises(NanochatError, match="step 0: .*not finite; nothing was applied"):
        loop.run(stage, model, optimizer, rt)


def losses(path):
    return [json.loads(line)["loss"] for line in (path / "log.jsonl").read_text(encoding="utf-8").splitlines()]


def test_a_training_follows_that_in_bf16(tmp_path):
    rt, found = Runtime(dtype=torch.bfloat16), {}
    for name in ("bf16", "fp8"):
        parts = make(tmp_path / name, rt, steps=30)
        if name == "fp8":
            fp8.convert(parts[1])
        loop.run(*parts)
        found[name] = losses(tmp_path / name)
    assert found["fp8"] != found["bf16"]
    assert found["fp8"][-1] < found["fp8"][0] - 0.8
    assert max(abs(a - b) for a, b in zip(*found.values())) < 0.15


def test_only_the_blocks_matrices_are_converted_and_evaluation_is_as_it_was():
    model = GPT(GPTConfig(sequence_len=16, vocab_size=64, n_layer=2, n_head=2, n_kv_head=1, n_embd=32))
    model.init_weights(1)
    idx = torch.arange(32).view(2, 16)
    with torch.no_grad():
        before = model(idx)
        fp8.convert(model)
        assert torch.equal(model(idx), before)
    assert not torch.equal(model(idx), before)
    assert sum(isinstance(m, fp8.Linear) for m in model.modules()) == 2 * 6
    assert type(model.lm_head) is torch.nn.Linear
    assert list(model.state_dict()) == list(GPT(model.config).state_dict())


def test_it_compiles_into_one_graph_and_computes_the_same():
    torch._dynamo.reset()
    model = GPT(GPTConfig(sequence_len=16, vocab_size=64, n_layer=1, n_head=2, n_kv_head=1, n_embd=32))
    model.init_weights(1)
    fp8.convert(model)
    layer = model.blocks[0].mlp
    torch.nn.init.normal_(layer.c_proj.weight, generator=torch.Generator().manual_seed(1))
    x = torch.randn(2, 16, 32, generator=torch.Generator().manual_seed(0))

    def gradients(f):
        inside = x.clone().requires_grad_()
        layer.zero_grad()
        y = f(inside)
        y.square().sum().backward()
        return [y.detach(), inside.grad, *(p.grad.clone() for p in layer.parameters())]
    plain, compiled = gradients(layer), gradients(torch.compile(layer, fullgraph=True, backend="aot_eager"))
    for a, b in zip(plain, compiled):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("device, capability, says", [
    ("cuda", (8, 0), "--fp8 needs an NVIDIA GPU of compute capability 8.9"), ("cuda", (8, 6), "this is A card"),
    ("mps", None, "this is mps"), ("xpu", None, "this is xpu")])
def test_a_device_without_it_is_refused_in_one_line(monkeypatch, device, capability, says):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "A card")
    with pytest.raises(UsageError, match=says) as error:
        fp8.check(torch.device(device), {})
    assert "\n" not in str(error.value)


def test_devices_with_it_and_sizes(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (8, 9))
    fp8.check(torch.device("cuda"), {"width": 64})
    fp8.check(torch.device("cpu"), {"width": 64})
    with pytest.raises(UsageError, match="--fp8 needs multiples of 16: width is 40, --sequence_len is 100."):
        fp8.check(torch.device("cpu"), {"width": 40, "keys": 32, "--sequence_len": 100})


TINY = ["--depth=1", "--sequence_len=64", "--total_batch_size=256", "--eval_tokens=256",
        "--device=cpu", "--device_batch_size=4"]


def test_the_flag_is_kept_and_another_setting_is_refused_unless_asked(base, tmp_path):
    from tiny import TEXT, tiny_tokenizer

    from scripts import base_train
    tiny_tokenizer().save()
    for name in ("train", "val"):
        pq.write_table(pa.table({"text": TEXT * 60}), tmp_path / f"{name}.parquet")
    flags = [*TINY, f"--dataset={tmp_path}"]
    base_train.main([*flags, "--num_iterations=2", "--fp8"])
    folder = base / "base_checkpoints" / "d1"
    meta = checkpoint.read_meta(folder / "000002")
    assert meta["config"]["fp8"] is True and meta["identity"]["fp8"] is True
    result = json.loads((base / "report" / "results" / "base_train.json").read_text(encoding="utf-8"))
    assert result["config"]["fp8"] is True
    with pytest.raises(CheckpointError, match="fp8=True.*fp8=False"):
        base_train.main([*flags, "--num_iterations=2"])
    with pytest.raises(UsageError, match="--sequence_len is 40"):
        base_train.main([*flags, "--sequence_len=40", "--total_batch_size=160", "--fp8"])


def test_a_checkpoint_from_before_the_flag_goes_on_without_it(tmp_path):
    loop.run(*make(tmp_path, steps=2))
    _, state = loop.run(*make(tmp_path, steps=2, fp8=False))
    assert state.step == 2
    with pytest.raises(CheckpointError, match="fp8=False, this one has fp8=True"):
        loop.run(*make(tmp_path, steps=2, fp8=True))


def test_gradients_of_a_resumed_run_are_the_same(tmp_path):
    """Nothing of the scaling has to be remembered: a run in two sittings is that in one, bitwise."""
    runs = []
    for name, stops in (("a", [8]), ("b", [4, 8])):
        for stop in stops:
            stage, model, *rest = make(tmp_path / name, steps=8)
            stage.steps = stop
            fp8.convert(model)
            loop.run(stage, model, *rest)
        runs.append(weights(model))
    assert all(torch.equal(p, runs[1][name]) for name, p in runs[0].items())


@pytest.mark.gpu
def test_on_the_gpu_it_is_as_near_and_at_a_large_shape_faster():
    if torch.cuda.get_device_capability() < (8, 9):
        pytest.skip("gpu: no 8-bit products before compute capability 8.9")
    N, C = 16384, 4096
    generator = torch.Generator("cuda").manual_seed(0)
    x, w, d = (torch.randn(s, generator=generator, device="cuda").bfloat16() for s in ((N, C), (4 * C, C), (N, 4 * C)))
    x.requires_grad_(), w.requires_grad_()

    def full():
        return torch.autograd.grad(F.linear(x, w), (x, w), d)

    def eight():
        return torch.autograd.grad(fp8._Linear.apply(x, w), (x, w), d)
    y8, y16 = fp8._Linear.apply(x, w), F.linear(x, w)
    assert off(y8, y16) < OUTPUT
    assert [off(a, b) < GRADIENT for a, b in zip(eight(), full())] == [True, True]

    def best_ms(f):
        f = torch.compile(f)
        times = []
        for _ in range(10):
            torch.cuda.synchronize()
            start = time.perf_counter()
            f()
            torch.cuda.synchronize()
            times.append(1e3 * (time.perf_counter() - start))
        return min(times[3:])
    slow, fast = best_ms(full), best_ms(eight)
    print(f"bf16 {slow:.2f} ms, fp8 {fast:.2f} ms", file=sys.stderr)
    assert fast < slow
