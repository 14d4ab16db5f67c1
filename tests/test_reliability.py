"""
Pull the plug at any moment and lose nothing: the promises that benchmarks/crash.py measures, at small counts, and what
the background writer and the best checkpoint promise beside them.
"""
import json
import math
import os
import shutil
import subprocess
import sys
import threading
import time
from functools import partial

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import ROOT
from test_train import make, weights

from nanochat.common import DataError, NanochatError
from nanochat.train import checkpoint, loop, resume
from nanochat.train.recipe import weighted_cross_entropy


# ------------------------------------------------------------------------------------------------- the benchmark, small
@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """{test: row} of the benchmark at small counts. A process of its own: it forks, which this one may no longer do."""
    out = tmp_path_factory.mktemp("crash") / "rows.json"
    done = subprocess.run([sys.executable, str(ROOT / "benchmarks" / "crash.py"), "--kills=6", "--in_save=3", "--offsets=3",
                           f"--json={out}"], capture_output=True, text=True, timeout=300)
    assert out.exists(), done.stdout + done.stderr
    return {row["test"]: row for row in json.loads(out.read_text(encoding="utf-8"))}


def holds(rows, *tests):
    missed = [f"{test}: {rows[test]['measured']}" for test in tests if not rows[test]["ok"]]
    assert not missed, "\n".join(missed)


def test_killed_runs_end_bitwise_like_the_undisturbed_one(rows):
    holds(rows, "SIGKILL, then the same command")


def test_a_kill_loses_no_whole_checkpoint_and_its_leftovers_are_in_nobodys_way(rows):
    holds(rows, "whole checkpoints lost", "collisions with leftovers, or leftovers that stay")


def test_a_full_disk_is_one_line_and_the_run_goes_on_bitwise_when_there_is_room(rows):
    holds(rows, "disk full (tmpfs)", "file size limit")


def test_a_signal_saves_within_ten_seconds_and_says_so(rows):
    holds(rows, "SIGTERM", "SIGINT")


def test_a_dead_rank_does_not_leave_the_other_hanging(rows):
    holds(rows, "rank 0 of 2 killed", "rank 1 of 2 killed")


def test_a_hung_rank_is_named_and_ends_the_run(rows):
    holds(rows, *("rank 1 of 2 stopped", "rank 0 of 2 stopped", "rank 1 of 2 astray"))


def test_nodes_with_folders_of_their_own_train_but_do_not_go_on_from_different_checkpoints(rows):
    holds(rows, "a base directory for each node", "going on where one node has no checkpoint")


def test_a_second_run_in_one_folder_is_refused(rows):
    holds(rows, "two runs in one folder")


@pytest.mark.parametrize("what", ["model.safetensors", "optim.safetensors", "meta.json", "token shard .tokens.npy",
                                  "token shard .offsets.npy", "token shard .json", "tokenizer.json", "parquet"])
def test_damage_is_never_unnoticed(rows, what):
    holds(rows, f"damage to {what}")


def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(rows):
    holds(rows, "a damaged newest checkpoint")


def test_no_hostile_pickle_runs(rows):
    holds(rows, "hostile pickles as every input")


# ------------------------------------------------------------------------------------------------ written in background
def test_a_checkpoint_holds_the_values_of_its_own_step_though_training_went_on(tmp_path, monkeypatch):
    real, go_on = checkpoint.save_file, threading.Event()

    def slow(tensors, path):
        go_on.wait(10)
        real(tensors, path)
    monkeypatch.setattr(checkpoint, "save_file", slow)
    stage, model, optimizer, rt = make(tmp_path)
    before = weights(model)
    state = {name: tensor.clone() for name, tensor in optimizer.state().items()}
    with checkpoint.Writer() as writer:
        resume.save(stage, optimizer, resume.TrainState(step=1), rt, writer, wait=False)
        loop.train_step(partial(weighted_cross_entropy, model), optimizer, next(stage.batches(0, 8))[1], rt, 1.0, 0.9)
        go_on.set()
    masters, optim_state, _ = checkpoint.load(stage.folder / "000001", with_optim=True)
    assert not torch.equal(before["wte.weight"], model.wte.weight), "training went on"
    assert all(torch.equal(masters[name], p) for name, p in before.items())
    assert all(torch.equal(optim_state[name], tensor) for name, tensor in state.items())


def test_at_most_one_checkpoint_is_written_at_a_time_and_the_stall_is_counted(tmp_path, monkeypatch):
    real, inside, most = checkpoint.save, [], []

    def slow(*args):
        inside.append(1)
        most.append(len(inside))
        time.sleep(0.3)      # of 1.2 s in all the steps between hide some
        real(*args)
        inside.pop()
    monkeypatch.setattr(checkpoint, "save", slow)
    parts = make(tmp_path, steps=4, save_every=1)
    _, state = loop.run(*parts)
    assert most == [1] * 4 and checkpoint.steps_in(tmp_path / "run") == [3, 4]
    assert 0.3 < state.save_stall_s == loop.metrics(*parts[:2], state, parts[3])["save_stall_s"]


def test_a_write_that_fails_in_the_background_stops_the_run_at_the_next_save(tmp_path, monkeypatch):
    real, calls = checkpoint.save_file, []

    def full_after_the_first(tensors, path):
        calls.append(path)
        if len(calls) > 2:                         # model and optimizer of one checkpoint
            raise OSError(28, "No space left on device")
        real(tensors, path)
    monkeypatch.setattr(checkpoint, "save_file", full_after_the_first)
    with pytest.raises(NanochatError, match="cannot write a checkpoint to .*No space left.*go on"):
        loop.run(*make(tmp_path, save_every=2))
    monkeypatch.undo()
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["000002"]
    parts, straight = make(tmp_path, save_every=2), make(tmp_path / "straight")
    loop.run(*parts)
    loop.run(*straight)
    assert all(torch.equal(p, weights(parts[1])[name]) for name, p in weights(straight[1]).items())


# --------------------------------------------------------------------------------------------------- what is kept, swept
def test_the_best_checkpoint_is_kept_beside_the_newest(tmp_path):
    for step, val in enumerate([3.0, 1.0, None, 2.0, 4.0, None], start=1):
        checkpoint.save(tmp_path, step, {"w": torch.ones(1)}, None, {"val": val}, keep=2)
    assert checkpoint.steps_in(tmp_path) == [2, 5, 6] and checkpoint.best_step(tmp_path) == 2
    assert checkpoint.newest_whole(tmp_path)[2]["step"] == 6


def test_training_marks_the_checkpoint_with_the_lowest_validation_loss(tmp_path):
    stage, model, optimizer, rt = make(tmp_path, steps=6, save_every=1)
    losses = iter([3.0, 1.0, 2.0])
    stage.evaluate, stage.eval_every, stage.flags.keep = lambda: {"val_loss": next(losses)}, 2, 1
    _, state = loop.run(stage, model, optimizer, rt)
    assert checkpoint.steps_in(stage.folder) == [4, 6] and checkpoint.best_step(stage.folder) == 4
    assert loop.metrics(stage, model, state, rt)["best_step"] == 4


def test_a_checkpoint_just_written_is_not_dropped_for_damaged_later_ones(tmp_path):
    for step in (1, 5, 6):
        checkpoint.save(tmp_path, step, {"w": torch.ones(1)}, None, {}, keep=3)
    for step in (5, 6):
        (tmp_path / f"{step:06d}" / "model.safetensors").write_bytes(b"damaged")
    checkpoint.save(tmp_path, 2, {"w": torch.ones(1)}, None, {}, keep=2)
    assert checkpoint.newest_whole(tmp_path)[2]["step"] == 2 and 1 in checkpoint.steps_in(tmp_path)


def test_a_checkpoint_caught_between_two_names_gets_its_own_back_and_halves_go(tmp_path):
    for step in (1, 2):
        checkpoint.save(tmp_path, step, {"w": torch.ones(1)}, None, {})
    os.rename(tmp_path / "000002", tmp_path / ".000002.77.old")       # killed as 2 was written again: the old one is aside
    (tmp_path / ".000002.77.tmp").mkdir()                             # and the new one has no name yet
    shutil.copytree(tmp_path / "000001", tmp_path / ".000001.77.old")
    checkpoint.sweep(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir() if p.name != "base") == ["000001", "000002"]
    assert checkpoint.newest_whole(tmp_path)[2]["step"] == 2


def test_a_replacement_that_cannot_take_its_name_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    checkpoint.save(tmp_path / "run", 1, {"w": torch.ones(1)}, None, {})
    real = os.rename

    def rename(a, b):
        if str(a).endswith(".tmp"):
            raise OSError(5, "Input/output error")
        real(a, b)
    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(NanochatError, match="Input/output error"):
        checkpoint.save(tmp_path / "run", 1, {"w": torch.zeros(1)}, None, {})
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["000001"]
    assert checkpoint.load(tmp_path / "run" / "000001")[0]["w"] == 1


def test_half_a_line_in_the_log_does_not_keep_a_run_from_going_on(tmp_path):
    stage, *rest = make(tmp_path, steps=2)
    loop.run(stage, *rest)
    with open(stage.log_path, "ab") as f:
        f.write(b'{"step": 3, "lo\xff')
    loop.run(*make(tmp_path, steps=2))
    assert [json.loads(line)["step"] for line in stage.log_path.read_text(encoding="utf-8").splitlines()] == [1, 2]


# ----------------------------------------------------------------------------------------------------------- validation
def test_a_validation_that_fails_costs_no_step_and_is_made_up_for(tmp_path, monkeypatch):
    def fails():
        raise OSError(5, "Input/output error")
    stage, *rest = make(tmp_path, steps=3)
    stage.evaluate, stage.eval_every = fails, 2
    with pytest.raises(OSError, match="Input/output"):
        loop.run(stage, *rest)
    assert checkpoint.steps_in(stage.folder) == [2]                    # no validation stands before its checkpoint
    stage, *rest = make(tmp_path, steps=3)
    stage.evaluate = fails
    with pytest.raises(OSError, match="Input/output"):
        loop.run(stage, *rest)
    assert checkpoint.steps_in(stage.folder) == [2, 3]
    monkeypatch.setattr(loop, "train_step", fails)                     # nothing is left to train
    stage, *rest = make(tmp_path, steps=3)
    stage.evaluate = lambda: {"val_loss": 2.5}
    _, state = loop.run(stage, *rest)
    assert state.val == {"val_loss": 2.5} and checkpoint.best_step(stage.folder) == 3
    lines = [json.loads(line) for line in stage.log_path.read_text(encoding="utf-8").splitlines()]
    assert lines[-1] == {"step": 3, "val_loss": 2.5} and len(lines) == 4
    stage.evaluate = fails
    assert loop.run(stage, *rest)[1].val == {"val_loss": 2.5}          # and it is not made twice


def test_a_validation_file_without_text_is_refused_before_the_first_step(tmp_path, base):
    from tiny import TEXT, tiny_tokenizer

    from scripts import base_train
    tiny_tokenizer().save()
    for name, texts in (("train.parquet", TEXT * 60), ("validation.parquet", [])):
        pq.write_table(pa.table({"text": pa.array(texts, pa.string())}), tmp_path / name)
    with pytest.raises(DataError, match="validation.parquet"):
        base_train.main([f"--dataset={tmp_path}", "--depth=1", "--sequence_len=64", "--total_batch_size=256", "--num_iterations=2",
                         "--device=cpu"])
    assert not (base / "base_checkpoints").exists()


def test_a_validation_that_is_not_finite_is_one_line(tmp_path):
    stage, *rest = make(tmp_path, steps=2)
    stage.evaluate = lambda: {"val_loss": math.nan}
    with pytest.raises(NanochatError, match="step 2: the validation gives .*nan"):
        loop.run(stage, *rest)
