"""Hours to a recipe, and what speedrun.sh makes of it: python -m pytest tests/test_budget.py"""
import json
import math
import re
import subprocess
import sys
import time
from dataclasses import asdict, replace

import pytest
import torch
from conftest import ROOT
from tiny import save_tiny_checkpoint

from nanochat import budget, common, dataset, scaling
from nanochat.common import UsageError
from nanochat.data import datasets, hub
from nanochat.report import card
from scripts import base_eval, plan, probe

KINDS = [("cpu", 1), ("mps", 1), ("3060", 1), ("4090", 1), ("a100-80", 1), ("h100", 1), ("h100", 8)]


def machine(name="cpu", gpus=1, mfu=0.4):
    return budget.assumed(name, gpus, scaling.GPUS[name], mfu)


def said(capsys, *argv):
    plan.main(list(argv))
    return capsys.readouterr().out


# ---------------------------------------------------------------------------------------------------- hours to a recipe
@pytest.mark.parametrize("name, gpus", KINDS)
@pytest.mark.parametrize("hours", [0.25, 1, 8, 100])
def test_the_stages_fill_the_hours(name, gpus, hours):
    found = budget.recipe(machine(name, gpus), hours)
    assert sum(found.seconds.values()) == pytest.approx(3600 * hours)
    least = 0.44 if found.depth < scaling.SMALL else 0.6  # a small one needs more of conversations
    assert found.seconds["base_train"] >= least * (3600 * hours - found.seconds["starting"])
    token_s = machine(name, gpus).token_s(found.depth, found.vocab_size, found.sequence_len)
    planned = found.base_steps * found.batch_tokens * token_s
    assert 0.8 * found.seconds["base_train"] < planned * budget.MARGIN <= found.seconds["base_train"] + found.batch_tokens * token_s


@pytest.mark.parametrize("name, gpus", KINDS)
def test_more_hours_never_make_a_smaller_model_and_the_ratio_stays_near_what_was_measured(name, gpus):
    depths = []
    for hours in (0.25, 0.5, 1, 2, 4, 8, 16, 32):
        found = budget.recipe(machine(name, gpus), hours)
        depths.append(found.depth)
        assert budget.RATIO / 3 < found.ratio < budget.RATIO * 3, (hours, found)
    assert depths == sorted(depths) and depths[-1] > depths[0]


@pytest.mark.parametrize("gpus", [1, 2, 3, 8])
def test_conversations_of_a_small_model_are_shared_out_evenly(gpus):
    found = budget.of_depth(machine("3060", gpus), 0.5, depth=4)
    for batch_tokens in (found.batch_tokens, found.chat_batch_tokens):
        assert batch_tokens % (found.sequence_len * gpus) == 0
    assert 2048 <= found.chat_batch_tokens <= 2048 + found.sequence_len * gpus


def test_the_depth_is_that_nearest_to_the_ratio():
    found = budget.recipe(machine("4090"), 8)
    off = [abs(math.log(budget.of_depth(machine("4090"), 8, depth).ratio / budget.RATIO)) for depth in range(1, 30)]
    assert found.depth == 1 + off.index(min(off))


def test_eight_h100_for_100_dollars_train_about_the_public_d24():
    hours = budget.hours_for(100, machine("h100", 8))
    assert hours == pytest.approx(100 / 24)
    found = budget.recipe(machine("h100", 8), hours)
    assert 23 <= found.depth <= 26 and found.fp8 and found.vocab_size == 32768 and found.sequence_len == 2048


@pytest.mark.parametrize("depth", range(1, 41))
def test_the_head_takes_its_part_of_a_model_and_a_row_divides_the_batch(depth):
    vocab_size = budget.vocab_size(depth)
    assert vocab_size & (vocab_size - 1) == 0
    if 2048 < vocab_size < 32768:
        assert 1 / 6.3 < scaling.head_params(depth, vocab_size) / scaling.matrix_params(depth) <= 1 / 2.9
    found = budget.of_depth(machine("h100", 8), 4, depth)
    assert found.batch_tokens % (found.sequence_len * 8 * max(found.rows, 1)) == 0


def test_what_does_not_fit_the_memory_is_not_chosen():
    small = machine("4090")
    small = replace(small, kind=replace(small.kind, gib=4))
    found = budget.recipe(small, 100)
    assert found.rows > 0 and found.depth < budget.recipe(machine("4090"), 100).depth


def test_too_few_hours_are_refused_with_how_many_would_do():
    with pytest.raises(UsageError, match=r"--hours=0\.0\d") as caught:
        budget.recipe(machine(), 0.01)
    budget.recipe(machine(), float(re.search(r"--hours=(\d+\.\d+)", str(caught.value))[1]))


def test_speed_lies_on_a_line_between_the_measured_depths_and_is_flat_beyond():
    flops = {depth: scaling.flops_per_token(depth, 2048, 256) for depth in (1, 2, 4, 6, 9)}
    two = replace(machine(), speeds=[(flops[2], 1e9), (flops[6], 4e9)])
    rate = {depth: flops[depth] / two.token_s(depth, 2048, 256) for depth in flops}
    assert rate[1] == rate[2] == pytest.approx(1e9) and rate[6] == rate[9] == pytest.approx(4e9)
    assert 1e9 < rate[4] < 4e9


def test_what_short_steps_take_is_planned_for_small_models_and_for_no_others():
    slow = replace(machine(), short_step=2 * machine().short_step)
    plain = budget.of_depth(machine(), 1, depth=4)
    planned = budget.of_depth(slow, 1, depth=4)
    assert 0.5 * plain.sft_steps <= planned.sft_steps < 0.6 * plain.sft_steps and planned.mid_steps < plain.mid_steps
    assert planned.base_steps == plain.base_steps and planned.seconds == plain.seconds
    assert budget.of_depth(slow, 1000, depth=8) == budget.of_depth(machine(), 1000, depth=8)


def test_evaluation_grows_with_its_share():
    few, many = (budget.of_depth(machine(), hours, depth=3) for hours in (0.25, 2))
    assert 2 <= few.questions < many.questions and few.core_questions < many.core_questions
    assert budget.recipe(machine("h100", 8), 8).questions == 0         # all there are
    assert few.seconds["chat_eval"] == pytest.approx(0.08 * (900 - few.seconds["starting"]))


def test_the_kindergarten_grows_to_the_budget():
    small, large = (budget.recipe(machine(), hours, "kindergarten") for hours in (0.5, 8))
    assert small.depth == 3 and small.vocab_size == 6144 and small.batch_tokens == 2048
    assert large.depth > small.depth and large.text_chars > 2 * small.text_chars
    assert large.sft_conversations > 2 * small.sft_conversations
    assert large.sft_steps > 3 * large.base_steps                       # finetuning is what makes that world talk


# ----------------------------------------------------------------------------------------------------------- the plan
@pytest.mark.parametrize("gpu, gpus", KINDS)
def test_a_plan_is_one_screen(capsys, gpu, gpus):
    lines = said(capsys, "--hours=8", f"--gpu={gpu}", f"--gpus={gpus}").splitlines()
    assert len(lines) < 12 and max(map(len, lines)) < 140 and f"{gpus} x {gpu}" in lines[1]
    assert any("assumed: 40% of" in line for line in lines)


@pytest.mark.parametrize("flags, machine", [
    (["--hours=4", "--gpu=cpu"], "2 CPU cores"), (["--hours=8", "--gpu=mps"], "M1, 16 GiB"),
    (["--hours=8", "--gpu=3060"], "one 3060"), (["--hours=8", "--gpu=4090"], "one 4090"),
    (["--hours=8", "--gpu=a100-80"], "one A100-80"),
    *[([f"--dollars={dollars}", "--gpus=8", "--gpu=h100"], "8xH100") for dollars in (48, 100, 300, 1000)]])
def test_the_readmes_rows_are_the_plans(capsys, flags, machine):
    planned = said(capsys, *flags).splitlines()[1].strip("| ").split(" | ")[3:]  # depth, parameters, tokens
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    row, = [line for line in readme.splitlines() if f"speedrun.sh {flags[0]}` | {machine}" in line]
    assert row.strip("| ").split(" | ")[3:] == planned


def test_several_budgets_are_the_rows_of_a_table(capsys):
    lines = said(capsys, "--dollars=10,48,100,300,1000").splitlines()
    assert [re.search(r"\$([\d,]+)", line)[1] for line in lines[2:]] == ["10", "48", "100", "300", "1,000"]
    assert all("8 x h100" in line for line in lines[2:])
    assert len({line.count("|") for line in lines}) == 1


def test_a_budget_of_hours_without_a_gpu_is_this_cpus_and_its_measured_speed_counts(capsys, base, monkeypatch):
    monkeypatch.setattr(plan, "_listed_by_nvidia_smi", lambda: [])
    assert "1 x cpu" in said(capsys, "--hours=1") and "8 x h100" in said(capsys, "--dollars=100")
    fast = replace(machine(mfu=40), known_by="measured here")
    common.write_json(base / "probe.json", asdict(fast))
    text = said(capsys, "--hours=1")
    assert "measured here" in text
    assert f"| d{budget.recipe(fast, 1).depth} |" in text and budget.recipe(fast, 1) == budget.recipe(
        budget.machine_from(json.loads((base / "probe.json").read_text(encoding="utf-8"))), 1)
    assert "assumed" in said(capsys, "--hours=1", "--gpu=cpu")


def test_a_price_that_is_not_known_is_asked_for(capsys):
    with pytest.raises(UsageError, match="cpu costs"):
        plan.main(["--dollars=5", "--gpu=cpu"])
    assert "| 10 h |" in said(capsys, "--dollars=5", "--gpu=cpu", "--price=0.5")


@pytest.mark.parametrize("flags", [["--hours=x"], ["--hours=0"], ["--hours=-1"], ["--hours=nan"], ["--hours=1", "--dollars=1"]])
def test_no_number_is_one_line(flags):
    with pytest.raises(UsageError, match="--hours"):
        plan.main(flags)


def test_a_plan_takes_a_second_and_no_torch(python):
    code = "import sys; from scripts import plan; plan.main(['--hours=8', '--gpu=4090']); assert 'torch' not in sys.modules"
    start = time.process_time()
    done = python("-c", code)
    assert done.returncode == 0 and "4090" in done.stdout, done.stderr
    assert time.process_time() - start < 1


def test_32_rows_do_not_fit_into_eight_gib_in_float32(capsys):
    assert "16 fit into 8" in said(capsys, "--depth=6", "--gpu=cpu")


def test_what_is_kept_stays_and_is_what_the_shell_gets(capsys, base, monkeypatch):
    monkeypatch.setattr(datasets, "download", lambda row, n_shards: None)
    plan.main(["--hours=1", "--gpu=cpu", "--keep"])
    capsys.readouterr()
    found = budget.recipe(machine(), 1)
    assert budget.Recipe(**json.loads((base / "plan.json").read_text(encoding="utf-8"))) == found
    said_to_shell = said(capsys, "--hours=1", "--shell")
    script = f'{said_to_shell}\necho "$depth $base_steps $fp8 $dataset $questions"'
    out = subprocess.run(["bash", "-euc", script], capture_output=True, text=True, check=True).stdout
    assert out.split() == [str(found.depth), str(found.base_steps), "false", "climbmix", str(found.questions)]


def test_where_no_hub_is_reached_the_kindergarten_is_planned_and_said(capsys, base, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    plan.main(["--hours=1", "--gpu=cpu", "--keep"])
    out = capsys.readouterr().out
    assert out.count("no text of the web") == 1 and "kindergarten: " in out
    assert json.loads((base / "plan.json").read_text(encoding="utf-8"))["dataset"] == "kindergarten"


# ---------------------------------------------------------------------------------------------------------- the probe
def test_the_probe_measures_two_depths_and_the_recipe_stands_on_it(base, capsys):
    probe.main(["--hours=0.5", "--seconds=0", "--device=cpu"])
    out = capsys.readouterr().out
    found = budget.machine_from(json.loads((base / "probe.json").read_text(encoding="utf-8")))
    assert found.known_by == "measured here" and found.name == "cpu" and 1 <= len(found.speeds) <= 2
    assert all(speed > 1e6 for _, speed in found.speeds) and found.decoding > 0 and found.short_step > 0
    assert found.speeds == sorted(found.speeds) and "d2 trains on" in out and found.starting_s > 10


def test_the_probe_halves_the_rows_until_they_fit_and_lowers_the_memory(monkeypatch):
    trial = probe.Trial(1, probe.Runtime())
    real = probe.weighted_cross_entropy

    def short(model, batch):
        if len(batch.inputs) > 4:
            raise torch.OutOfMemoryError("no room")
        return real(model, batch)
    monkeypatch.setattr(probe, "weighted_cross_entropy", short)
    assert trial.rows_that_fit(32) == 4 and trial.rows_that_fit(2) == 2
    monkeypatch.setattr(probe, "weighted_cross_entropy", lambda model, batch: short(model, trial.batch(5)))
    assert trial.rows_that_fit(8) == 0


# ------------------------------------------------------------------------------------------------------- text that is wanted
def test_as_many_shards_as_hold_the_text(monkeypatch):
    row = datasets.DATASETS["climbmix"]
    monkeypatch.setattr(dataset, "get", lambda *args: None)
    monkeypatch.setattr(dataset, "shards", lambda name, split: ["first"])
    monkeypatch.setattr(dataset, "text_bytes", lambda path: 1000)
    assert [dataset.shards_for(row, chars, 1) for chars in (1, 900, 1000, 2500, 10**9)] == [1, 1, 2, 3, row.n_train]


def test_the_text_of_a_shard_is_counted_from_its_footer(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq
    texts = [f"{i} " * 500 for i in range(300)]
    pq.write_table(pa.table({"source": texts, "text": texts}), tmp_path / "a.parquet", row_group_size=100)
    held = datasets.text_bytes(tmp_path / "a.parquet")
    assert held == pytest.approx(sum(map(len, texts)), rel=0.05)


def test_dataset_fetches_by_characters(monkeypatch, base):
    fetched = []
    monkeypatch.setattr(dataset, "download", lambda row, n, workers: fetched.append(n))
    monkeypatch.setattr(dataset, "shards", lambda name, split: ["first"])
    monkeypatch.setattr(dataset, "text_bytes", lambda path: 1000)
    dataset.main(["--chars=4200"])
    assert fetched == [1, 5]


# -------------------------------------------------------------------------------------------------------- the front door
@pytest.mark.parametrize("argument, words", [("--hours=", "number"), ("--hours=eight", "number"), ("--dollars=x", "number"),
                                             ("--dollars=100", "--hours=8")])
def test_speedrun_refuses_what_is_no_budget_in_one_line(argument, words, tmp_path):
    done = subprocess.run(["bash", str(ROOT / "speedrun.sh"), argument], cwd=tmp_path, capture_output=True, text=True,
                          env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)})
    assert done.returncode == 2 and words in done.stderr and done.stderr.count("\n") == 1


BUDGET_TIER = """
set -euo pipefail
stage() { echo "stage: $*"; }
background() { echo "background: $*"; }
eval "$(sed -n '/^budget_tier() {/,/^}/p' speedrun.sh)"
budget_tier "$1"
"""


@pytest.mark.parametrize("name, text", [("4090", "climbmix"), ("cpu", "kindergarten")])
def test_speedrun_does_what_was_planned(base, tmp_path, name, text, monkeypatch):
    found = budget.recipe(machine(name), 4, text)
    common.write_json(base / "plan.json", asdict(found))
    (tmp_path / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n', encoding="utf-8")
    (tmp_path / "python").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    done = subprocess.run(["bash", "-c", BUDGET_TIER, "budget_tier", "--hours=4"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = {line.split()[1]: line for line in done.stdout.splitlines()}
    assert list(lines)[:6] == ["report_reset", "probe", "plan", "first_text", "text", "tok_train"]
    assert f"--num_iterations={found.base_steps} --device_batch_size={found.rows}" in lines["base_train"]
    assert f"--dataset={text} --depth={found.depth} --fp8={str(found.fp8).lower()}" in lines["base_train"]
    assert f"--conversations={found.sft_conversations}" in lines["chat_sft"]
    assert f"--max_problems={found.questions}" in lines["chat_eval_sft"] and "hub" not in lines["text"]
    assert f"--chars={found.text_chars}" in lines["text"] and ("kg_" in lines["chat_rl"]) == (text == "kindergarten")


def test_only_a_hub_that_fails_makes_it_the_kindergarten(monkeypatch):
    """The error that means: no hub. Any other stops the plan."""
    monkeypatch.setattr(datasets, "download", lambda row, n: (_ for _ in ()).throw(hub.HubError("down")))
    config = plan.parse(plan.Config, ["--hours=1", "--gpu=cpu", "--keep"])
    assert plan.keep(config, machine(), 1.0).dataset == "kindergarten"
    monkeypatch.setattr(datasets, "download", lambda row, n: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError):
        plan.keep(config, machine(), 1.0)


def test_the_report_says_planned_and_real(base):
    found = budget.recipe(machine(), 1)
    results = {name: {"wall_s": wall_s} for name, wall_s in (("base_train", 2000.0), ("chat_eval_sft", 60.0), ("base_loss", 5.0))}
    assert "planned" not in "".join(card._time_table(results))
    common.write_json(base / "plan.json", asdict(found))
    lines = card._time_table(results)
    assert "planned" in lines[0] and len({line.count("|") for line in lines if line.startswith("|")}) == 1
    assert card.duration(found.seconds["base_train"]) in next(line for line in lines if "Pretraining" in line)
    assert card.duration(found.seconds["chat_eval"] / 4) in next(line for line in lines if "SFT" in line)
    assert "Planned in all: 1h00m" in lines[-2]


def test_a_bundle_that_cannot_be_fetched_ends_no_run_and_is_said(base, monkeypatch):
    monkeypatch.setattr(base_eval, "URL", "http://127.0.0.1:9/eval_bundle.zip")
    save_tiny_checkpoint("base", "climbmix")
    base_eval.main(["--download", "--device=cpu"])
    result = json.loads((base / "report" / "results" / "base_eval.json").read_text(encoding="utf-8"))
    assert result["metrics"]["core"] is None
    assert result["notes"][0].startswith("skipped: the evaluation bundle cannot be fetched from http://127.0.0.1:9/")


def test_a_stopped_budget_goes_on_by_its_own_command_and_fresh_deletes_its_own(base, tmp_path):
    head = f'set -euo pipefail; here=$PWD tier=budget asked=--hours=8; export NANOCHAT_BASE_DIR={base}; source dev/stages.sh; '
    for tag in ("budget", "d4"):
        (base / "base_checkpoints" / tag).mkdir(parents=True)
    done = subprocess.run(["bash", "-c", head + "fresh=yes; begin; stage one false"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and "bash speedrun.sh --hours=8" in done.stderr
    assert [path.name for path in (base / "base_checkpoints").iterdir()] == ["d4"]
