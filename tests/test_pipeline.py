"""Every stage, end to end, at toy size: the scripts as a user runs them, one after another in one folder."""
import json
import os
import signal

import pytest
import torch
from safetensors.torch import load_file

from nanochat.common import CheckpointError, Interrupted, MissingArtifact, UsageError, base_dir

TINY = ["--device=cpu", "--device_batch_size=4"]


def script(name):
    return __import__(f"scripts.{name}", fromlist=["main"]).main


def result(name):
    return json.loads((base_dir() / "report" / "results" / f"{name}.json").read_text(encoding="utf-8"))


@pytest.fixture
def trained(run_folder, monkeypatch):
    """The folder of the finished run, as the base directory of this test."""
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(run_folder))
    return run_folder


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A folder in which the whole kindergarten pipeline ran at toy size."""
    folder = tmp_path_factory.mktemp("run with spaces")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NANOCHAT_BASE_DIR", str(folder))
        patch.chdir(folder)
        from nanochat import report
        from nanochat.data import datasets
        patch.setattr(datasets, "KINDERGARTEN_SHARD", 120)
        patch.setattr(datasets, "KINDERGARTEN_VAL", 30)
        report.main(["reset"])
        script("tok_train")(["--dataset=kindergarten", "--vocab_size=600"])
        script("tok_eval")(["--dataset=kindergarten", "--download_s=0"])
        script("base_train")(["--dataset=kindergarten", "--depth=2", "--sequence_len=128", "--total_batch_size=1024",
                              "--num_iterations=6", "--eval_tokens=2048", *TINY])
        script("base_loss")(["--device=cpu"])
        script("base_eval")(["--device=cpu"])
        script("mid_train")(["--conversations=100", "--num_iterations=4", *TINY])
        script("chat_sft")(["--conversations=100", "--num_iterations=4", *TINY])
        script("chat_rl")(["--num_iterations=2", "--questions=2", "--samples=2", "--max_new_tokens=12", *TINY])
        for stage in ("base", "mid", "sft", "rl"):
            script("chat_eval")(["-i", stage, "-a", "kg_identity|kg_arithmetic", "--max_problems=4", "--device=cpu"])
        report.main(["generate"])
    return folder


def test_every_stage_writes_down_what_its_model_says(trained):
    for stage, steps in (("base", 6), ("mid", 4), ("sft", 4), ("rl", 2)):
        lines = (trained / "logs" / f"{stage}_d2.jsonl").read_text(encoding="utf-8").splitlines()
        said = [record for record in map(json.loads, lines) if "answers" in record]
        assert said[0]["step"] == 1 and said[-1]["step"] == steps and all(len(record["answers"]) == 6 for record in said)
        assert all(len(record["group"]["answers"]) == 2 for record in said) if stage == "rl" else "group" not in said[0]


def test_every_stage_leaves_its_result(trained):
    for name in ("tok_train", "tok_eval", "base_train", "base_loss", "base_eval", "mid_train", "chat_sft", "chat_rl",
                 "chat_eval_base", "chat_eval_mid", "chat_eval_sft", "chat_eval_rl"):
        assert result(name)["metrics"], name


def test_report_has_the_summary_table_and_a_section_a_stage(trained):
    text = (trained / "report.md").read_text(encoding="utf-8")
    for word in ("| BASE | MID | SFT | RL |", "CORE", "ARC-Challenge", "ARC-Easy", "GSM8K", "HumanEval", "MMLU",
                 "| Pretraining | Midtraining | Supervised finetuning | Reinforcement learning |", "Total wall clock time"):
        assert word in text, word
    for name in ("report.html", "report_files/skills.png", "report_files/curves.png"):
        assert (trained / name).stat().st_size > 1000


def test_a_finished_stage_is_not_trained_again(trained):
    before = result("base_train")["metrics"]
    script("base_train")(["--dataset=kindergarten", "--depth=2", "--sequence_len=128", "--total_batch_size=1024",
                          "--num_iterations=6", "--eval_tokens=2048", *TINY])
    assert result("base_train")["metrics"]["train_s"] == before["train_s"]


def test_other_settings_are_refused_and_nothing_is_lost(trained):
    with pytest.raises(CheckpointError, match="steps=6.*steps=7.*--fresh"):
        script("base_train")(["--dataset=kindergarten", "--depth=2", "--sequence_len=128", "--total_batch_size=1024",
                              "--num_iterations=7", *TINY])
    assert (trained / "base_checkpoints" / "d2" / "000006" / "meta.json").exists()


def test_command_line_chat_answers_and_shows_no_special_token(trained, capsys):
    script("chat_cli")(["-p", "What is 47 * 12?", "--device=cpu"])
    said = capsys.readouterr()
    assert said.out.endswith("\n") and "<|" not in said.out and "model d2" not in said.out
    assert "rl model d2, step 2: " in said.err


def test_rl_trains_beside_the_answers_on_conversations_that_differ_from_step_to_step(trained):
    from nanochat.train import loop, rollout
    steps, real = [], loop.train_step

    def watch(loss_of, optimizer, batches, *more):
        steps.append(batches)
        return real(loss_of, optimizer, batches, *more)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "train_step", watch)
        patch.setattr(rollout, "make_batches", lambda *args: ([], 0.0))       # no reward: what is left is the anchor
        script("chat_rl")(["--tag=anchored", "--num_iterations=2", "--anchor_rows=8", "--questions=2", "--samples=2",
                           "--max_new_tokens=4", *TINY])
    first, second = (list(step) for step in steps)
    assert [len(batch.rows) for batch in first] == [4, 4] and not torch.equal(first[0].inputs, second[0].inputs)
    assert sum(batch.weight.sum().item() for batch in first) == first[0].count > 1
    assert result("chat_rl")["metrics"]["final_loss"] > 0


def interrupted_in_its_first_step(main, argv):
    """Run a training script until Ctrl-C in its first step has it save and stop."""
    from nanochat.train import loop
    real, calls = loop.train_step, []

    def stop_in_the_first(*args):
        calls.append(1)
        if len(calls) == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return real(*args)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "train_step", stop_in_the_first)
        with pytest.raises(Interrupted):
            main(argv)


@pytest.mark.parametrize("name, stage, flags", [
    ("base_train", "base", ["--dataset=kindergarten", "--depth=2", "--sequence_len=128", "--total_batch_size=1024",
                            "--eval_tokens=1024"]),
    ("mid_train", "mid", ["--conversations=100"]), ("chat_sft", "sft", ["--conversations=100"]),
    ("chat_rl", "rl", ["--questions=2", "--samples=3", "--max_new_tokens=8", "--anchor_rows=4"])])
def test_interrupted_and_resumed_equals_uninterrupted_bitwise(trained, name, stage, flags):
    flags = ["--num_iterations=3", *flags, *TINY] + ["--source_tag=d2"] * (stage != "base")
    script(name)(["--tag=straight", *flags])
    interrupted_in_its_first_step(script(name), ["--tag=broken", *flags])
    script(name)(["--tag=broken", *flags])
    straight, broken = (base_dir() / f"{stage}_checkpoints" / tag / "000003" for tag in ("straight", "broken"))
    for file in ("model.safetensors", "optim.safetensors"):
        a, b = load_file(straight / file), load_file(broken / file)
        assert a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("name, argv, missing", [
    ("base_train", ["--dataset=kindergarten"], "scripts.tok_train"), ("mid_train", [], "scripts.base_train"),
    ("chat_sft", [], "scripts.mid_train"), ("chat_rl", [], "scripts.chat_sft"), ("chat_eval", ["-i", "sft"], "scripts.chat_sft"),
    ("base_loss", [], "scripts.base_train"), ("base_eval", [], "scripts.base_train")])
def test_missing_artifact_names_the_script_that_makes_it(tmp_path, monkeypatch, name, argv, missing):
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(tmp_path))
    with pytest.raises(MissingArtifact, match=missing):
        script(name)([*argv, "--device=cpu"])


@pytest.mark.parametrize("name, argv, flag", [
    ("base_train", ["--depth=0"], "--depth"), ("base_train", ["--detph=4"], "--detph"), ("base_train", ["--depth=x"], "--depth"),
    ("chat_rl", ["--samples=1"], "--samples"), ("chat_rl", ["--anchor_rows=-16"], "--anchor_rows"),
    ("chat_sft", ["--lr_scale=-1"], "--lr_scale"), ("base_train", ["--num_iterations=-5"], "--num_iterations"),
    ("base_train", ["--total_batch_size=-1024"], "--total_batch_size"), ("base_train", ["--keep=-1"], "--keep"),
    ("base_train", ["--param_data_ratio=0"], "--param_data_ratio"), ("base_train", ["--tag=a/b"], "--tag"),
    ("mid_train", ["--tag=..", "--fresh"], "--tag"), ("chat_sft", ["--epochs=nan"], "--epochs"),
    ("chat_sft", ["--conversations=-1"], "--conversations"), ("chat_rl", ["--num_iterations=-1"], "--num_iterations"),
    ("chat_eval", ["-i", "nothing"], "-i")])
def test_wrong_flag_is_named(tmp_path, monkeypatch, name, argv, flag):
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(tmp_path))
    with pytest.raises(UsageError, match=flag):
        script(name)(argv)
