"""Training in fp16: the loss scale saves small gradients, gives way to large ones, is saved, and hides no real NaN."""
import json
import math
import os
import signal
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from reference import cross_entropy
from test_train import CONFIG, make, weights

from nanochat import runtime
from nanochat.common import Interrupted, NanochatError
from nanochat.data.dataloader import Batch
from nanochat.model.attention import blocked, sdpa
from nanochat.model.elementwise import norm, plain_norm
from nanochat.model.gpt import GPT
from nanochat.model.loss import linear_cross_entropy
from nanochat.model.optim import Group, LossScale, MuonAdamW
from nanochat.runtime import Runtime
from nanochat.train import checkpoint, loop
from nanochat.train.recipe import weighted_cross_entropy

HALF = Runtime(dtype=torch.float16)


def lines(path):
    return [json.loads(line) for line in (path / "log.jsonl").read_text(encoding="utf-8").splitlines()]


def test_a_training_follows_that_in_float32(tmp_path):
    found = {}
    for name, rt in (("fp32", Runtime()), ("fp16", HALF)):
        loop.run(*make(tmp_path / name, rt, steps=30))
        found[name] = [line["loss"] for line in lines(tmp_path / name)]
    assert found["fp16"] != found["fp32"] and found["fp16"][-1] < found["fp16"][0] - 0.8
    assert max(abs(a - b) for a, b in zip(*found.values())) < 0.05


def overflow_at(parts, bad):
    """Make one gradient infinite in the steps numbered in `bad`, the loss staying as it is; returns what is recorded."""
    _, model, optimizer, _ = parts
    model.blocks[0].mlp.c_fc.weight.register_hook(lambda g: g * math.inf if optimizer.steps in bad else g)
    seen, real = [], loop.train_step

    def watch(*args):
        before = weights(model)
        result = real(*args)
        seen.append((optimizer.scale.value, all(torch.equal(p, before[name]) for name, p in weights(model).items())))
        return result
    return seen, watch


def test_an_overflow_skips_one_update_halves_the_scale_and_goes_on(tmp_path, monkeypatch):
    parts = make(tmp_path, HALF)
    seen, watch = overflow_at(parts, {3})
    monkeypatch.setattr(loop, "train_step", watch)
    _, state = loop.run(*parts)
    assert [kept for _, kept in seen] == [False] * 3 + [True] + [False] * 8
    assert [scale for scale, _ in seen] == [2.0 ** 16] * 3 + [2.0 ** 15] * 9
    assert state.step == 12 and parts[2].scale.good_steps == 8
    log = lines(tmp_path)
    assert [step["step"] for step in log if "grad_norm" not in step] == [4] and math.isfinite(log[3]["loss"])
    assert [step["loss_scale"] for step in log] == [scale for scale, _ in seen]


def test_a_scale_that_is_far_too_large_comes_down_until_the_gradients_fit(tmp_path):
    parts = make(tmp_path, HALF, steps=40)
    parts[2].scale.value = 2.0 ** 30
    loop.run(*parts)
    log = lines(tmp_path)
    skipped = [step["step"] for step in log if "grad_norm" not in step]
    assert skipped[:3] == [1, 2, 3] and skipped == list(range(1, len(skipped) + 1)) and len(skipped) < 20
    assert parts[2].scale.value == 2.0 ** (30 - len(skipped)) and log[-1]["loss"] < log[0]["loss"] - 0.3


def test_it_doubles_after_good_steps_up_to_its_limit(monkeypatch):
    monkeypatch.setattr(LossScale, "GROW_EVERY", 3)
    scale = LossScale(2.0 ** 22)
    values = []
    for _ in range(12):
        scale.passed()
        values.append(scale.value)
    assert values == [2.0 ** 22] * 2 + [2.0 ** 23] * 3 + [2.0 ** 24] * 7
    scale.passed()
    assert scale.good_steps == 1 and scale.lower() and (scale.value, scale.good_steps) == (2.0 ** 23, 0)


def gradients(dtype, scale, count):
    """Gradients of one batch of a model that is not all zeros, the scale taken off again, by parameter name."""
    model = GPT(CONFIG, dtype)
    model.init_weights(1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for p in model.parameters():
            p.add_((torch.randn(p.shape, generator=generator) * 0.05).to(p.dtype))
    optimizer = loop.make_optimizer(model, Runtime(dtype=dtype))
    if optimizer.scale:
        optimizer.scale.value = scale
    tokens = torch.randint(64, (2, 17), generator=generator)
    batch = Batch(tokens[:, :-1], tokens[:, 1:], torch.ones(2, 16), count, [0])
    loss = loop._backward(partial(weighted_cross_entropy, model), batch, optimizer.scale)
    optimizer.reduce()
    return loss.item(), {name: grad.clone() for b in optimizer.buckets
                         for name, grad in zip(b.names, b._split(b.reduced, b.params))}


def test_the_scale_rescues_gradients_that_are_zero_without_it():
    loss, wanted = gradients(torch.float32, None, 1e9)
    plain_loss, plain = gradients(torch.float16, 1.0, 1e9)
    scaled_loss, scaled = gradients(torch.float16, 2.0 ** 24, 1e9)
    assert plain_loss == pytest.approx(loss, rel=1e-3) and scaled_loss == pytest.approx(loss, rel=1e-3)
    for name, grad in wanted.items():
        assert grad.any()
        assert ((scaled[name] - grad).norm() / grad.norm()).item() < 0.02, name
        if name != "wte.weight":        # float32, but what reaches it has passed through fp16
            assert not plain[name].any(), name
    assert not plain["wte.weight"].any()


@pytest.mark.parametrize("size", [1e-7, 1.0])
def test_muon_in_fp16_makes_the_update_of_float32_from_the_smallest_gradients(size):
    moved = []
    for dtype in (torch.float32, torch.float16):
        p = torch.nn.Parameter(torch.zeros(24, 16, dtype=dtype))
        optimizer = MuonAdamW([Group("muon", [("p", p)], 0.02)], Runtime(dtype=dtype))
        optimizer.buckets[0].grad.copy_(torch.randn(1, 24, 16, generator=torch.Generator().manual_seed(0)) * size)
        if optimizer.scale:
            optimizer.buckets[0].grad.mul_(optimizer.scale.value)
        optimizer.reduce()
        optimizer.step()
        moved.append(optimizer.buckets[0].master)
    assert moved[1].abs().max() > 1e-3
    torch.testing.assert_close(moved[1], moved[0], rtol=0.05, atol=2e-4)


def test_resume_equals_uninterrupted_bitwise_scale_included(tmp_path, monkeypatch):
    monkeypatch.setattr(LossScale, "GROW_EVERY", 4)
    runs = []
    for name in "ab":
        def interrupt(step, micro, name=name):
            if name == "b" and step == 5:
                os.kill(os.getpid(), signal.SIGTERM)
        parts = make(tmp_path / name, HALF, hook=interrupt)
        overflow_at(parts, {1})
        if name == "b":
            with pytest.raises(Interrupted, match="step 6"):
                loop.run(*parts)
            saved = checkpoint.read_meta(tmp_path / "b" / "run" / "000006")["loss_scale"]
            assert saved == {"value": 2.0 ** 16, "good_steps": 0}        # halved in step 2, doubled after four more
            parts = make(tmp_path / name, HALF)
        loop.run(*parts)
        runs.append((weights(parts[1]), vars(parts[2].scale), [(x["loss"], x["loss_scale"]) for x in lines(tmp_path / name)]))
    assert runs[0][1:] == runs[1][1:] and runs[0][1]["value"] == 2.0 ** 17
    assert all(torch.equal(p, runs[1][0][name]) for name, p in runs[0][0].items())


def test_a_checkpoint_of_float32_goes_on_in_fp16_and_back(tmp_path):
    for rt, stop in ((Runtime(), 4), (HALF, 8), (Runtime(), 12)):
        stage, *rest = make(tmp_path, rt)
        stage.steps = stop
        _, state = loop.run(stage, *rest)
        assert state.step == stop
        assert checkpoint.read_meta(stage.folder / f"{stop:06d}")["loss_scale"] == (
            {"value": 2.0 ** 16, "good_steps": 4} if rt is HALF else None)


def test_a_nan_in_the_data_is_reported_at_once_and_the_scale_stays(tmp_path):
    def poison(step, micro):
        if step == 3:
            micro[0].weight[0, 0] = math.nan
    parts = make(tmp_path, HALF, hook=poison)
    with pytest.raises(NanochatError, match=r"step 3: loss nan.*not finite; nothing was applied.*rows 24\.\."):
        loop.run(*parts)
    assert parts[2].scale.value == 2.0 ** 16


def test_a_gradient_that_no_scale_mends_is_reported(tmp_path):
    parts = make(tmp_path, HALF, steps=40)
    overflow_at(parts, set(range(2, 40)))
    with pytest.raises(NanochatError, match="step 18: .*gradient norm (nan|inf) is not finite"):
        loop.run(*parts)


def test_other_dtypes_have_no_scale(tmp_path):
    for dtype in (torch.float32, torch.bfloat16):
        assert make(tmp_path, Runtime(dtype=dtype))[2].scale is None


def test_norms_attention_and_loss_hold_large_values():
    generator = torch.Generator().manual_seed(0)
    x = (torch.randn(2, 8, 64, generator=generator) * 5000).half()
    for y in (norm(x.clone().requires_grad_()), plain_norm(x)):
        torch.testing.assert_close(y.float(), plain_norm(x.float()), rtol=5e-3, atol=5e-3)
    q, k, v = (torch.randn(2, 160, 2, 32, generator=generator).half() for _ in range(3))
    q, k = norm(q) * (15 / 32 ** 0.5), norm(k)
    for f in (sdpa, blocked):
        torch.testing.assert_close(f(q, k, v * 1000).float(), sdpa(q.float(), k.float(), v.float() * 1000), rtol=0.02, atol=5.0)
    hidden, head = norm(torch.randn(32, 64, generator=generator).half()), torch.randn(96, 64, generator=generator).half() * 30
    targets, weight = torch.randint(96, (32,), generator=generator), torch.ones(32)
    found = linear_cross_entropy(hidden.requires_grad_(), head.requires_grad_(), targets, weight, 15.0)
    torch.testing.assert_close(found, cross_entropy(hidden.float(), head.float(), targets, weight, 15.0), rtol=2e-3, atol=0.1)
    found.backward()
    assert torch.isfinite(hidden.grad).all() and torch.isfinite(head.grad).all()


@pytest.mark.parametrize("capability, dtype", [
    ((6, 1), torch.float32), ((7, 0), torch.float16), ((7, 5), torch.float16), ((8, 0), torch.bfloat16), ((9, 0), torch.bfloat16)])
def test_a_card_without_bf16_takes_fp16_where_that_is_fast(monkeypatch, capability, dtype):
    monkeypatch.delenv("NANOCHAT_DTYPE", raising=False)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: capability)
    assert runtime._pick_dtype(torch.device("cuda")) is dtype
    monkeypatch.setenv("NANOCHAT_DTYPE", "float16")
    assert runtime._pick_dtype(torch.device("cpu")) is torch.float16


def test_finetuning_and_reinforcement_learning_run_in_fp16(base, monkeypatch):
    from tiny import save_tiny_checkpoint

    from scripts import chat_rl, chat_sft
    monkeypatch.setenv("NANOCHAT_DTYPE", "float16")
    save_tiny_checkpoint("base", "kindergarten", 128)
    common = ["--device=cpu", "--num_iterations=2", "--device_batch_size=4"]
    chat_sft.main([*common, "--source=base", "--conversations=40", "--total_batch_size=512"])
    chat_rl.main([*common, "--source=sft", "--questions=2", "--samples=2", "--max_new_tokens=8", "--anchor_rows=2"])
    for stage in ("sft", "rl"):
        meta = checkpoint.read_meta(checkpoint.find(stage))
        assert meta["loss_scale"] == {"value": 2.0 ** 16, "good_steps": 2} and math.isfinite(meta["state"]["loss"])


def test_every_rank_lowers_the_scale_when_one_overflows(tmp_path):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    env = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1",
           "PYTHONPATH": str(Path(__file__).parent.parent), "NANOCHAT_DTYPE": "float16", "GLOO_SOCKET_IFNAME": "lo"}
    children = [subprocess.Popen([sys.executable, __file__, str(tmp_path)], env={**env, "RANK": str(r), "LOCAL_RANK": str(r)})
                for r in range(2)]
    assert [child.wait(timeout=240) for child in children] == [0, 0]
    ends = [json.loads((tmp_path / f"{r}.json").read_text(encoding="utf-8")) for r in range(2)]
    assert ends[0] == ends[1] and ends[0]["scale"] == {"value": 2.0 ** 15, "good_steps": 2}
    assert [step["step"] for step in lines(tmp_path) if "grad_norm" not in step] == [3]


def _rank_main(out):
    rt = runtime.init("cpu")
    parts = make(out, rt, steps=5, device_batch_size=2)
    overflow_at(parts, {2} if rt.rank == 1 else set())
    loop.run(*parts)
    end = {"scale": vars(parts[2].scale), "weights": {name: p.sum().item() for name, p in weights(parts[1]).items()}}
    (out / f"{rt.rank}.json").write_text(json.dumps(end), encoding="utf-8")
    runtime.close(rt)


if __name__ == "__main__":
    _rank_main(Path(sys.argv[1]))
