"""The plan says what training will do, and where it assumes something: python -m pytest tests/test_plan.py"""
import os
import re
import sys

import pytest
import torch  # noqa: F401 (so that a plan's import of it would show)
from test_commands import check
from tiny import tiny_tokenizer

from nanochat import scaling
from nanochat.common import UsageError
from scripts import base_train, plan


def said(capsys, *argv):
    plan.main(list(argv))
    return capsys.readouterr().out


@pytest.fixture
def nvidia_smi(tmp_path, monkeypatch):
    """Put a program on the path that lists the given devices as nvidia-smi does."""
    def put(*lines):
        path = tmp_path / "bin" / "nvidia-smi"
        path.parent.mkdir(exist_ok=True)
        path.write_text("#!/bin/sh\n" + "".join(f"echo '{line}'\n" for line in lines), encoding="utf-8")
        path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{path.parent}{os.pathsep}{os.environ['PATH']}")
    return put


def test_it_says_parameters_tokens_disk_memory_hours_dollars_and_what_is_assumed(capsys):
    text = said(capsys, "--depth=26", "--gpus=8", "--gpu=h100")
    recipe = scaling.pretraining(26, 32768)
    for words in (f"{scaling.num_params(26, 32768):,} parameters", f"{recipe.steps:,} steps of {recipe.batch_tokens:,}",
                  "16 fit into 79", "assumed: 40% of 7,912 TFLOP/s", "assumed: $3.00 a device and hour",
                  f"{scaling.shards_needed(recipe.steps * recipe.batch_tokens)} training shards"):
        assert words in text


def test_its_commands_can_be_run(capsys):
    text = said(capsys) + said(capsys, "--depth=20", "--gpus=1", "--gpu=4090", "--param_data_ratio=8.5")
    commands = [line.strip() for line in text.splitlines() if re.match(" *(python|torchrun) ", line)]
    assert len(commands) == 12 and "--param_data_ratio=8.5" in commands[-1]
    for command in commands:
        check(command)


def test_training_does_what_was_planned(capsys):
    """The dry run of the command that the plan prints says the same numbers."""
    tokenizer = tiny_tokenizer()
    tokenizer.save()
    for depth in (3, 7, 12):
        text = said(capsys, f"--depth={depth}", "--gpu=cpu", f"--vocab_size={tokenizer.vocab_size}", "--sequence_len=512")
        command = next(line for line in text.splitlines() if "base_train" in line)
        base_train.main([*command.split()[3:], "--device=cpu", "--dry_run"])
        trained = capsys.readouterr().out
        steps, batch = re.search(r"= ([\d,]+) steps of ([\d,]+);", text).groups()
        parameters = re.search(r"([\d,]+) parameters", text)[1]
        assert f"{parameters} parameters, {steps} steps of {batch} tokens" in trained


def test_it_takes_the_devices_it_finds(capsys, nvidia_smi):
    nvidia_smi("NVIDIA A100-SXM4-40GB, 40960", "NVIDIA A100-SXM4-40GB, 40960")
    assert "d20 on 2 x NVIDIA A100-SXM4-40GB" in (text := said(capsys, "--depth=20")) and "624 TFLOP/s" in text
    rows = scaling.device_batch_size(20, 32768, 2048, 40, 2)
    assert re.fullmatch(rf"gpus=2 rows={rows} shards=\d+\n", said(capsys, "--depth=20", "--shell"))
    assert "d20 on 8 x h200" in said(capsys, "--depth=20", "--gpus=8", "--gpu=h200")


def test_an_unknown_device_is_planned_by_its_memory(capsys, nvidia_smi):
    nvidia_smi("NVIDIA Something New, 24576")
    text = said(capsys, "--depth=12")
    assert "1 x NVIDIA Something New" in text and "fit into 24" in text and "nan h" in text


@pytest.mark.parametrize("said_so", ["No devices were found", "Failed to initialize NVML: Driver/library version mismatch",
                                     "NVIDIA GB10, [N/A]"])
def test_an_nvidia_smi_that_names_no_memory_counts_as_none(capsys, nvidia_smi, said_so):
    nvidia_smi(said_so)
    assert "d20 on 8 x h100" in said(capsys, "--depth=20")


def test_what_does_not_fit_is_said(capsys):
    assert "NOT EVEN ONE FITS into 12" in said(capsys, "--depth=32", "--gpus=1", "--gpu=3060")
    assert "rows=0" in said(capsys, "--depth=32", "--gpus=1", "--gpu=3060", "--shell")


def test_hours_and_dollars_follow_the_assumptions(capsys):
    def figures(*argv):
        text = said(capsys, "--depth=26", "--gpu=h100", *argv)
        return [float(re.search(pattern, text)[1].replace(",", "")) for pattern in (r"([\d.]+) h with all", r"\$([\d,]+) \(")]
    (hours, dollars), (slow_hours, slow_dollars) = figures("--mfu=0.6"), figures("--mfu=0.3")
    assert slow_hours == pytest.approx(2 * hours, abs=0.2) and slow_dollars == pytest.approx(2 * dollars, abs=2)
    assert figures("--mfu=0.6", "--price=6")[1] == pytest.approx(2 * dollars, abs=2)


@pytest.mark.parametrize("flags, words", [(["--gpu=h1000"], "h1000"), (["--mfu=0"], "--mfu"), (["--depth=-1"], "--depth")])
def test_wrong_flags_are_named(flags, words):
    with pytest.raises(UsageError, match=words):
        plan.main(flags)


def test_it_needs_no_torch(python):
    done = python("-c", "import sys; from scripts import plan; plan.main(['--depth=20']); assert 'torch' not in sys.modules")
    assert done.returncode == 0 and "d20 on" in done.stdout, done.stderr
    assert sys.modules["torch"]
