"""
speedrun.sh's bookkeeping: a finished stage is not repeated, an interrupted one is, and whatever comes after a stage that
ran anew runs anew too. The stages here are echoes and small shell commands.
"""
import os
import signal
import subprocess

import pytest
from conftest import ROOT

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
    for tag in ("d4", "mine"):
        (base / "sft_checkpoints" / tag).mkdir(parents=True)
    done = tier(STAGES, FRESH="yes")
    assert ran(done) == ["one", "two", "three"] and "deleting" in done.stdout
    assert [p.name for p in (base / "sft_checkpoints").iterdir()] == ["mine"]


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
