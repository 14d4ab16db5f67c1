"""
speedrun.sh's bookkeeping: a finished stage is not repeated, an interrupted one is, and whatever comes after a stage that
ran anew runs anew too. The stages here are echoes and small shell commands.
"""
import importlib
import os
import re
import signal
import subprocess
import sys
from dataclasses import fields

import pytest
from conftest import ROOT

from nanochat import scaling
from nanochat.train import stages

HEAD = 'set -euo pipefail; here=$PWD; tier=${TIER:-kindergarten}; fresh=${FRESH:-}; source dev/stages.sh; begin\n'


@pytest.fixture
def tier(base):
    """Run the given stages as a tier; returns the finished process."""
    def run(body, **env):
        return subprocess.run(["bash", "-c", HEAD + body], cwd=ROOT, capture_output=True, text=True, timeout=60,
                              env={**os.environ, **env})
    return run


def ran(done):
    return [line.split()[1].rstrip(":") for line in done.stdout.splitlines() if line.startswith("===")]


STAGES = "stage one echo 1\nstage two echo 2\nstage three echo 3\nend\n"


def test_a_finished_stage_is_not_repeated(tier):
    first, second = tier(STAGES), tier(STAGES)
    assert first.returncode == second.returncode == 0, first.stderr
    assert (ran(first), ran(second)) == (["one", "two", "three"], [])
    assert "scripts.chat_cli" in second.stdout and "scripts.chat_web" in second.stdout


def test_a_failed_stage_stops_the_run_says_how_to_go_on_and_is_tried_again(tier):
    broken = STAGES.replace("echo 2", "bash -c 'exit 3'")
    done = tier(broken)
    assert done.returncode == 3 and ran(done) == ["one", "two"]
    assert "stage two failed" in done.stderr and "bash speedrun.sh kindergarten" in done.stderr
    assert ran(tier(STAGES)) == ["two", "three"]


def test_a_changed_command_runs_again_and_so_does_all_after_it(tier):
    tier(STAGES)
    changed = STAGES.replace("echo 2", "echo two")
    assert ran(tier(changed)) == ["two", "three"]
    assert ran(tier(changed)) == []


def test_stages_after_a_changed_one_stay_out_of_date_when_that_one_is_interrupted(tier):
    tier(STAGES)
    assert ran(tier(STAGES.replace("echo 2", "false"))) == ["two"]
    assert ran(tier(STAGES)) == ["two", "three"]


def test_fresh_starts_over_and_deletes_only_this_tiers_checkpoints(tier, base):
    tier(STAGES)
    speedrun = (ROOT / "speedrun.sh").read_text(encoding="utf-8")
    made = "d" + re.search(r"scripts.base_train --dataset=kindergarten --depth=(\d+)", speedrun)[1]
    folders = [base / row.folder for row in stages.STAGES.values()]
    for folder in folders:
        for tag in (made, "mine"):
            (folder / tag).mkdir(parents=True)
    done = tier(STAGES, FRESH="yes")
    assert ran(done) == ["one", "two", "three"] and "deleting" in done.stdout
    for folder in folders:
        assert [p.name for p in folder.iterdir()] == ["mine"]


TRAINING = """
stage tok_train python -m scripts.tok_train
stage base_train python -m scripts.base_train --depth=4
stage mid_train torchrun -m scripts.mid_train -- --lr_scale=1
stage chat_eval python -m scripts.chat_eval -i mid
stage chat_sft python -m scripts.chat_sft
end
"""


@pytest.fixture
def training(tier, tmp_path):
    """Run TRAINING, changed as told, with programs that only say what they were given; {script: how it was started}."""
    for name in ("python", "torchrun"):
        (tmp_path / name).write_text('#!/bin/sh\necho "ran $@"\n[ "$2" != "$FAILS" ]\n', encoding="utf-8")
        (tmp_path / name).chmod(0o755)

    def run(*change, fails=""):
        done = tier(TRAINING.replace(*change) if change else TRAINING, FAILS=f"scripts.{fails}",
                    PATH=f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
        lines = [line.split() for line in done.stdout.splitlines() if line.startswith("ran ")]
        return {line[2].removeprefix("scripts."): line[3:] for line in lines}
    return run


def test_the_first_run_replaces_nothing(training):
    assert training() == {"tok_train": [], "base_train": ["--depth=4"], "mid_train": ["--", "--lr_scale=1"],
                          "chat_eval": ["-i", "mid"], "chat_sft": []}


def test_a_stage_whose_command_changed_may_replace_its_old_run_and_so_may_those_after_it(training):
    training()
    assert training("lr_scale=1", "lr_scale=2") == {"mid_train": ["--", "--lr_scale=2", "--replace"], "chat_eval": ["-i", "mid"],
                                                    "chat_sft": ["--replace"]}
    assert training("-m scripts.tok_train", "-m scripts.tok_train --vocab_size=9")["tok_train"] == ["--vocab_size=9"]


def test_a_stage_that_was_stopped_goes_on_by_the_same_command_and_not_by_another(training):
    assert training(fails="mid_train")["mid_train"] == ["--", "--lr_scale=1"]
    assert training(fails="mid_train") == {"mid_train": ["--", "--lr_scale=1"]}
    assert training("lr_scale=1", "lr_scale=2")["mid_train"] == ["--", "--lr_scale=2", "--replace"]


def test_what_comes_after_a_changed_stage_may_still_replace_when_that_one_was_stopped(training):
    training()
    training("lr_scale=1", "lr_scale=2", fails="mid_train")
    assert training("lr_scale=1", "lr_scale=2")["chat_sft"] == ["--replace"]
    assert training("lr_scale=1", "lr_scale=2") == {}


def test_a_stage_put_in_between_does_not_hide_that_the_later_ones_have_run(training):
    training()
    assert training("stage mid_train", "stage new echo\nstage mid_train")["chat_sft"] == ["--replace"]


def test_every_script_that_can_replace_is_told_to(tier):
    for path in sorted((ROOT / "scripts").glob("[a-z]*.py")):
        config = importlib.import_module(f"scripts.{path.stem}").Config
        flags = {field.name for field in fields(config)}
        wanted = next((f"--{name}" for name in ("replace", "fresh") if name in flags), "")
        assert tier(f"replacing 'python -m scripts.{path.stem} --x'").stdout.splitlines()[1:] == [wanted] * bool(wanted)


def test_two_tiers_do_not_share_a_base_directory(tier):
    tier("stage tok_train echo t\nend\n")
    other = tier(STAGES, TIER="d20")
    assert other.returncode == 1 and "NANOCHAT_BASE_DIR" in other.stderr and ran(other) == []


def test_ctrl_c_says_how_to_go_on(base):
    process = subprocess.Popen(["bash", "-c", HEAD + "stage one echo 1\nstage two sleep 60\n"], cwd=ROOT, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
    assert any("=== two" in line for line in iter(process.stdout.readline, ""))
    os.killpg(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "stopped in stage two" in stderr and "bash speedrun.sh kindergarten" in stderr


def test_a_background_download_gives_way_to_its_stage_and_dies_with_the_run(tier, tmp_path):
    alive = tmp_path / "alive"
    slow = f"bash -c 'while true; do touch {alive}; sleep 0.05; done'"
    done = tier(f"background data {slow}\nstage one sleep 0.3\nstage data rm {alive}\nstage three sleep 0.3\nend\n")
    assert done.returncode == 0 and not alive.exists(), done.stderr
    assert tier(f"background more {slow}\nstage four sleep 0.3\nfalse\n").returncode == 1
    alive.unlink()
    subprocess.run(["sleep", "0.3"], check=True)
    assert not alive.exists()


@pytest.mark.parametrize("argument, words", [("d99", "Usage"), ("--frehs", "Usage")])
def test_a_wrong_argument_is_one_line(argument, words, tmp_path):
    done = subprocess.run(["bash", str(ROOT / "speedrun.sh"), argument], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2 and words in done.stderr and done.stderr.count("\n") == 1


def test_help_needs_nothing(tmp_path):
    done = subprocess.run(["bash", str(ROOT / "speedrun.sh"), "--help"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and "kindergarten" in done.stdout and "--fresh" in done.stdout


# ------------------------------------------------------------------------------------------------------- tiers for GPUs
GPU_TIER = """
set -euo pipefail
stage() { echo "stage: $*"; }
background() { echo "background: $*"; }
fail() { echo "error: $1" >&2; exit 2; }
eval "$(sed -n '/^gpu_tier() {/,/^}/p' speedrun.sh)"
gpu_tier "$1"
"""


@pytest.fixture
def gpu_tier(tmp_path, monkeypatch):
    """What the tier for a depth would run on a machine whose nvidia-smi lists these devices."""
    def run(depth, *devices):
        bin = tmp_path / "bin"
        bin.mkdir(exist_ok=True)
        listed = "".join(f"echo '{device}'\n" for device in devices)
        for name, text in (("nvidia-smi", f"#!/bin/sh\n{listed}"), ("python", f'#!/bin/sh\nexec {sys.executable} "$@"\n')):
            (bin / name).write_text(text, encoding="utf-8")
            (bin / name).chmod(0o755)
        return subprocess.run(["bash", "-c", GPU_TIER, "gpu_tier", str(depth)], cwd=ROOT, capture_output=True, text=True,
                              timeout=60, env={**os.environ, "PATH": f"{bin}{os.pathsep}{os.environ['PATH']}"})
    return run


@pytest.mark.parametrize("depth, devices, rows", [(20, 8 * ["NVIDIA H100 80GB HBM3, 81559"], 32),
                                                  (26, 4 * ["NVIDIA A100-SXM4-40GB, 40960"], 4),
                                                  (20, ["NVIDIA GeForce RTX 4090, 24564"], 2)])
def test_a_gpu_tier_prints_its_plan_and_takes_shards_and_rows_from_it(gpu_tier, depth, devices, rows):
    done = gpu_tier(depth, *devices)
    assert done.returncode == 0, done.stderr
    recipe = scaling.pretraining(depth, 32768)
    shards = scaling.shards_needed(recipe.steps * recipe.batch_tokens)
    lines = done.stdout.splitlines()
    assert lines[0] == f"d{depth} on {len(devices)} x {devices[0].split(',')[0]}" and any("price" in line for line in lines)
    assert f"background: shards python -m nanochat.dataset -n {shards}" in lines
    order = [line.split()[1] for line in lines if line.startswith(("stage:", "background:"))]
    assert order[1:5] == ["first_shards", "shards", "tok_train", "tok_eval"]       # the others come while that trains
    assert order.index("base_train") == order.index("tok_eval") + 2                # ... and are all there before this
    for stage in ("base_train", "mid_train", "chat_sft"):
        line = next(line for line in lines if line.startswith(f"stage: {stage} "))
        assert f"--nproc_per_node={len(devices)} " in line and f"--device_batch_size={rows}" in line
    assert any("tok_train" in line and "--vocab_size=32768" in line for line in lines if line.startswith("stage"))


def test_a_tier_that_does_not_fit_is_refused_before_anything_is_fetched(gpu_tier):
    done = gpu_tier(32, "NVIDIA GeForce RTX 3060, 12288")
    assert done.returncode == 2 and "d32 does not fit" in done.stderr and "stage: first_shards" not in done.stdout
