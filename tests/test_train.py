"""The loop: any split of a batch gives the same update, a resumed run equals one that never stopped, bad steps change nothing."""
import importlib
import json
import math
import os
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pytest
import safetensors
import torch

from nanochat import scaling
from nanochat.common import CheckpointError, Interrupted, NanochatError
from nanochat.data.dataloader import StepBatches
from nanochat.model.gpt import GPT, GPTConfig
from nanochat.runtime import Runtime
from nanochat.train import checkpoint, loop
from nanochat.train.recipe import RunFlags, weighted_cross_entropy
from nanochat.train.stages import STAGES

CONFIG = GPTConfig(sequence_len=16, vocab_size=64, n_layer=2, n_head=2, n_kv_head=2, n_embd=32)
ROWS_PER_STEP = 8


class FakeRows:
    """40 rows of tokens that can be learned (a fixed cycle with some noise), every fifth row fully masked."""

    def __init__(self):
        rng = np.random.RandomState(0)
        start = rng.randint(0, 64, size=(40, 1))
        self.tokens = (start + np.arange(17) * 3 + (rng.rand(40, 17) < 0.1)) % 64
        self.weight = (rng.rand(40, 16) < 0.7).astype(np.float32)
        self.weight[::5] = 0
        self.counts = self.weight.sum(1).astype(np.float64)

    def __len__(self):
        return 40

    def row(self, i):
        return self.tokens[i].astype(np.int64), self.weight[i]


def make(tmp_path, rt=Runtime(), steps=12, device_batch_size=4, hook=None, save_every=None, **identity):
    model = GPT(CONFIG, rt.dtype)
    model.init_weights(1)
    optimizer = loop.make_optimizer(model, rt)

    def batches(start, at_a_time):
        for step, micro in StepBatches(FakeRows(), ROWS_PER_STEP, at_a_time, rt.rank, rt.world_size, start_step=start):
            if hook:
                hook(step, micro)
            yield step, micro

    stage = loop.Stage("test", tmp_path / "run", tmp_path / "log.jsonl", steps, batches,
                        lambda step: (scaling.lr_scale(step, steps), scaling.muon_momentum(step, steps)),
                        {"steps": steps, **identity}, {"model": vars(CONFIG), "tokenizer": "x"}, rows=device_batch_size,
                        flags=RunFlags(save_every=save_every))
    return stage, model, optimizer, rt


def weights(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def test_training_lowers_the_loss(tmp_path):
    parts = make(tmp_path, steps=40)
    loop.run(*parts)
    losses = [json.loads(line)["loss"] for line in (tmp_path / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(losses) == 40 and losses[0] == pytest.approx(math.log(64), abs=0.1) and losses[-1] < losses[0] - 1


def test_the_loss_is_the_stages_own(tmp_path):
    """Twice the loss gives twice the gradient; the loop, which divides by the count, has no say in it."""
    norms = []
    for name, factor in (("plain", 1), ("double", 2)):
        stage, model, optimizer, rt = make(tmp_path / name, steps=1)
        stage.loss = lambda model, batch, factor=factor: factor * weighted_cross_entropy(model, batch)
        loop.run(stage, model, optimizer, rt)
        norms.append(json.loads(stage.log_path.read_text(encoding="utf-8"))["grad_norm"])
    assert norms[1] == pytest.approx(2 * norms[0], rel=1e-4)


def test_every_stage_of_the_table_has_its_script_and_starts_from_others_of_it():
    for name, row in STAGES.items():
        script = importlib.import_module(f"scripts.{row.script}")
        assert row.name == name and set(row.starts_from) <= STAGES.keys()
        source = {field.name: field for field in fields(script.Config)}.get("source")
        assert (source.metadata["choices"] if source else ()) == row.starts_from


@pytest.mark.parametrize("micro", [1, 2, 4])
def test_any_micro_batch_gives_the_same_update(tmp_path, micro):
    whole, split = make(tmp_path / "a", device_batch_size=8), make(tmp_path / "b", device_batch_size=micro)
    loop.run(*whole)
    loop.run(*split)
    for name, p in weights(whole[1]).items():
        torch.testing.assert_close(weights(split[1])[name], p, rtol=1e-3, atol=2e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_resume_equals_uninterrupted_bitwise(tmp_path, dtype):
    rt = Runtime(dtype=dtype)
    straight = make(tmp_path / "a", rt)
    loop.run(*straight)

    def interrupt(step, micro):
        if step == 5:
            os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(Interrupted, match="step 6"):
        loop.run(*make(tmp_path / "b", rt, hook=interrupt))
    resumed = make(tmp_path / "b", rt)
    _, state = loop.run(*resumed)
    assert state.step == 12
    assert all(torch.equal(p, weights(resumed[1])[name]) for name, p in weights(straight[1]).items())
    lines = [(tmp_path / x / "log.jsonl").read_text(encoding="utf-8").splitlines() for x in "ab"]
    assert [json.loads(a)["loss"] for a in lines[0]] == [json.loads(b)["loss"] for b in lines[1]]


@pytest.mark.parametrize("second, error", [(signal.SIGTERM, Interrupted), (signal.SIGINT, KeyboardInterrupt)])
def test_sigterm_twice_still_saves_as_schedulers_signal_torchrun_and_its_ranks(tmp_path, second, error):
    def interrupt(step, micro):
        if step == 5:
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), second)
    with pytest.raises(error):
        loop.run(*make(tmp_path, hook=interrupt))
    assert checkpoint.steps_in(tmp_path / "run") == ([6] if error is Interrupted else [])


def test_finished_run_is_not_repeated(tmp_path):
    loop.run(*make(tmp_path))
    again = make(tmp_path)
    _, state = loop.run(*again)
    assert state.step == 12 and len((tmp_path / "log.jsonl").read_text(encoding="utf-8").splitlines()) == 12


def test_resume_with_other_settings_is_refused_with_both_values(tmp_path):
    loop.run(*make(tmp_path, rows="old"))
    with pytest.raises(CheckpointError, match="rows=old.*rows=new"):
        loop.run(*make(tmp_path, rows="new"))


def test_non_finite_step_changes_nothing_and_names_the_rows(tmp_path):
    def poison(step, micro):
        if step == 3:
            micro[0].weight[0, 0] = math.nan
    parts = make(tmp_path, hook=poison)
    seen = []
    real = parts[2].step
    parts[2].step = lambda *args: (real(*args), seen.append(weights(parts[1])))
    with pytest.raises(NanochatError, match=r"step 3: .*not finite; nothing was applied.*rank 0.*rows 24\.\."):
        loop.run(*parts)
    assert len(seen) == 3 and all(torch.equal(p, seen[-1][name]) for name, p in weights(parts[1]).items())


def test_old_checkpoints_are_dropped_and_steps_compared_as_numbers(tmp_path):
    folder = tmp_path / "run"
    for step in (999999, 1000000, 1000001):
        checkpoint.save(folder, step, {"w": torch.ones(1)}, None, {}, keep=2)
    assert checkpoint.steps_in(folder) == [1000000, 1000001]


@pytest.mark.parametrize("name", ["model.safetensors", "optim.safetensors", "meta.json"])
@pytest.mark.parametrize("damage", ["flip", "truncate"])
def test_damaged_checkpoint_is_refused_by_name_and_the_one_before_is_used(tmp_path, name, damage, caplog):
    for step in (1, 2):
        checkpoint.save(tmp_path, step, {"w": torch.ones(5) * step}, {"m.w": torch.ones(5)}, {"note": "here"})
    path = tmp_path / "000002" / name
    data = bytearray(path.read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 1
    path.write_bytes(data if damage == "flip" else data[: len(data) // 2])
    with pytest.raises(CheckpointError, match=name):
        checkpoint.load(tmp_path / "000002", with_optim=True)
    masters, _, meta = checkpoint.newest_whole(tmp_path, with_optim=True)
    assert meta["step"] == 1 and masters["w"][0] == 1


def test_checkpoint_knows_its_whole_model_config(tmp_path):
    parts = make(tmp_path, steps=1)
    loop.run(*parts)
    meta = checkpoint.read_meta(tmp_path / "run" / "000001")
    assert GPTConfig(**meta["model"]) == CONFIG


def test_a_full_disk_is_one_line_and_the_old_checkpoint_stays(tmp_path, monkeypatch):
    checkpoint.save(tmp_path, 1, {"w": torch.ones(5)}, None, {})
    real = checkpoint.save_file

    def full(tensors, path):
        real(tensors, path)
        raise safetensors.SafetensorError("No space left on device")
    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(NanochatError, match="No space left.*go on"):
        checkpoint.save(tmp_path, 2, {"w": torch.ones(5)}, None, {})
    assert [p.name for p in tmp_path.iterdir()] == ["000001"]
    assert checkpoint.newest_whole(tmp_path)[2]["step"] == 1


@dataclass
class Ranks:
    """Run a test file's __main__ under several gloo processes and collect what rank 0 wrote."""

    world: int
    file: str = __file__

    def run(self, out, *args):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        env = {**os.environ, "WORLD_SIZE": str(self.world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
               "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent.parent), "NANOCHAT_DTYPE": "float32",
               "GLOO_SOCKET_IFNAME": "lo"}
        children = [subprocess.Popen([sys.executable, self.file, str(out), *map(str, args)],
                                     env={**env, "RANK": str(r), "LOCAL_RANK": str(r)}) for r in range(self.world)]
        assert [child.wait(timeout=120) for child in children] == [0] * self.world
        return torch.load(out / "weights.pt", weights_only=True), json.loads((out / "losses.json").read_text(encoding="utf-8"))


def test_one_rank_equals_two_and_four_and_checkpoints_move_between_them(tmp_path):
    one = make(tmp_path / "one", device_batch_size=2)
    loop.run(*one)
    expected = weights(one[1])
    losses = [json.loads(x)["loss"] for x in (tmp_path / "one" / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    for world, stop in ((2, 0), (4, 7)):
        out = tmp_path / str(world)
        out.mkdir()
        if stop:                                   # first half on two ranks, the rest on four
            Ranks(2).run(out, stop)
        got, got_losses = Ranks(world).run(out, 0)
        assert got_losses == pytest.approx(losses, abs=2e-3)
        for name, p in expected.items():
            torch.testing.assert_close(got[name], p, rtol=1e-3, atol=5e-4)


def _rank_main(out, stop):
    from nanochat import runtime
    rt = runtime.init("cpu")

    def interrupt(step, micro):
        if stop and step == stop - 1 and rt.rank == rt.world_size - 1:    # one rank alone is told to stop
            os.kill(os.getpid(), signal.SIGTERM)
    stage, model, optimizer, _ = make(out, rt, device_batch_size=1, hook=interrupt)
    try:
        loop.run(stage, model, optimizer, rt)
    except Interrupted:
        assert stop
    if rt.rank == 0:
        lines = (out / "log.jsonl").read_text(encoding="utf-8").splitlines()
        torch.save(weights(model), out / "weights.pt")
        (out / "losses.json").write_text(json.dumps([json.loads(x)["loss"] for x in lines]), encoding="utf-8")
    runtime.barrier(rt)
    runtime.close(rt)


if __name__ == "__main__":
    _rank_main(Path(sys.argv[1]), int(sys.argv[2]))
