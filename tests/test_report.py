"""
The report card: exact numbers with their errors, a reason for whatever is missing, links that hold in both places.
"""
import dataclasses
import importlib
import json
import math
import os
import random
import re
import shlex
import time

import pytest

from nanochat import common, kindergarten, report
from nanochat.cli import parse
from nanochat.common import DataError, MissingArtifact, UsageError
from nanochat.eval import statistics
from nanochat.report import card, inventory, markdown, plots, results, sections
from nanochat.tasks import PREFIX

MODEL = {"n_layer": 4, "n_embd": 256, "n_head": 2, "n_kv_head": 1, "sequence_len": 256, "vocab_size": 2048}
SKILLS = [PREFIX + name for name in kindergarten.SKILLS]


def wilson(p, n, z=1.96):
    middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return [max(0.0, (middle - half) / (1 + z * z / n)), min(1.0, (middle + half) / (1 + z * z / n))]


def record(score, n=120, group="kindergarten"):
    return {"score": score, "n": n, "chance": 0.0, "centered": score, "ci95": wilson(score, n), "kind": "generative",
            "group": group}


def save(name, metrics, wall_s=10.0, config=None, notes=()):
    common.save_result(name, metrics=metrics, config=config or {}, device="cpu", wall_s=wall_s, notes=notes)


def write_log(path, n=60, **fields):
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [{"step": i, "loss": 5 / i + 1, "elapsed_s": i, **({k: v for k, v in fields.items() if i % 20 == 0})}
             for i in range(1, n + 1)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


@pytest.fixture
def full_run(base, tmp_path, monkeypatch):
    """The results of a whole kindergarten run, in a working directory of its own; returns that directory."""
    report.main(["reset"])
    train = {"params": 3_145_728, "tokens": 5_242_880, "steps": 60, "final_loss": 1.25, "tok_per_s": 51234.0,
             "flops_per_token": 2e7, "total_flops": 1e14, "mfu": None, "train_s": 100.0, "model": MODEL}
    save("tok_train", {"vocab_size": 2048, "chars": 12_000_000, "seconds": 3.0, "token_bytes_mean": 5.1})
    save("tok_eval", {"rows": [{"text": "news", "bytes": 400, "tokens": 200, "bytes_per_token": 2.0, "gpt2_tokens": None,
                                "gpt4_tokens": None}]})
    for name, field in (("base_train", "val_bpb"), ("mid_train", "val_loss"), ("chat_sft", "val_loss")):
        write_log(base / "logs" / f"{name}.jsonl", **{field: 0.5})
        save(name, {**train, field: 0.8123, "log": f"logs/{name}.jsonl"}, 100.0, {"dataset": "kindergarten", "depth": 4})
    write_log(base / "logs" / "rl.jsonl", reward=0.5)
    save("chat_rl", {**train, "task": SKILLS[0], "reward_start": 0.4, "reward_end": 0.8, "log": "logs/rl.jsonl"}, 50.0)
    save("base_loss", {"train_bpb": 0.8, "val_bpb": 0.81, "samples": [{"prompt": "The sky", "text": " is *blue* <b> | `x`\n"}]})
    save("base_eval", {"core": None, "tasks": {}}, notes=["skipped: the evaluation bundle is not there."])
    for phase, score in (("base", 0.05), ("mid", 0.5), ("sft", 0.7), ("rl", 0.7)):
        tasks = {task: record(score) for task in SKILLS}
        if phase == "rl":
            tasks[SKILLS[0]] = record(0.925)
        save(f"chat_eval_{phase}", {"tasks": tasks, "chatcore": None}, config={"stage": phase},
             notes=[f"skipped: {task}: its data are not here; -a {task} runs it"
                    for task in ("arc_easy", "arc_challenge", "mmlu", "gsm8k", "humaneval", "spellingbee")])
    place = tmp_path / "place"
    place.mkdir()
    monkeypatch.chdir(place)
    return place


def generated(base):
    report.main(["generate"])
    return (base / "report" / "report.md").read_text(encoding="utf-8")


def row(text, name):
    return next(line for line in text.splitlines() if line.startswith(f"| {name} |"))


# ------------------------------------------------------------------------------------------------------------- summary
def test_summary_has_every_row_and_column_of_the_design(full_run, base):
    text = generated(base)
    assert re.search(r"\| BASE \| MID \| SFT \| RL \|", text)
    for name in ("CORE", "ARC-Challenge", "ARC-Easy", "GSM8K", "HumanEval", "MMLU", "ChatCORE"):
        assert row(text, name)
    for skill in kindergarten.SKILLS.values():
        cells = row(text, skill.title)
        assert skill.split in cells and "120" in cells
    assert re.search(r"\*\*Total wall clock time: \dh\d\dm\*\*", text)


def test_a_score_carries_its_error(full_run, base):
    assert "92.5 ± 6.1" in row(generated(base), next(iter(kindergarten.SKILLS.values())).title)
    assert markdown.percent(1.0, wilson(1.0, 120)) == "100.0 ± 3.1"
    assert markdown.percent(0.5) == "50.0"


def test_every_dash_has_a_footnote_that_says_why(full_run, base):
    text = generated(base)
    used = set(re.findall(r"- <sup>(\d+)</sup> \|", text))
    explained = dict(re.findall(r"^<sup>(\d+)</sup> (.+)$", text, re.MULTILINE))
    assert used == set(explained) and len(used) == 4
    assert not re.findall(r"\| - \|", text)
    assert "the evaluation bundle is not there." in explained[re.search(r"<sup>(\d+)", row(text, "CORE"))[1]]
    assert "its data are not here" in explained[re.search(r"<sup>(\d+)", row(text, "GSM8K"))[1]]


def test_a_stage_that_was_not_run_is_said_to_be_missing(full_run, base):
    for name in ("chat_rl", "chat_eval_rl"):
        (base / "report" / "results" / f"{name}.json").unlink()
    text = generated(base)
    assert "Not run: `python -m scripts.chat_eval -i rl`." in text
    assert "- Reinforcement learning: the stage was not run." in text and "### Reinforcement learning" not in text


def test_measured_benchmarks_are_shown(full_run, base):
    save("base_eval", {"core": 0.22191, "tasks": {"arc": {"accuracy": 0.5, "centered": 0.3, "n": 100, "ci95": [0.4, 0.6]}}})
    save("chat_eval_sft", {"tasks": {"gsm8k": record(0.0754, 1319, "core")}, "chatcore": 0.1234}, config={"stage": "sft"})
    text = generated(base)
    assert "0.2219" in row(text, "CORE") and "1 tasks" in row(text, "CORE")
    assert "7.5 ± 1.6" in row(text, "GSM8K") and "1,319" in row(text, "GSM8K")
    assert "0.1234" in row(text, "ChatCORE")
    assert "| arc | 100 | 50.0 ± 10.0 | 0.3000 |" in text


def test_chatcore_says_of_how_many_tasks_it_is_the_mean(full_run, base):
    assert "tasks" not in row(generated(base), "ChatCORE")
    for phase, tasks in (("base", ("gsm8k", "mmlu", "arc_easy")), ("sft", ("gsm8k", SKILLS[0]))):
        save(f"chat_eval_{phase}", {"tasks": {task: record(0.5, group="core" if task in results.BENCHMARKS else "kindergarten")
                                              for task in tasks}, "chatcore": 0.5}, config={"stage": phase})
    assert "| ChatCORE |  | 1 to 3 tasks | 0 | 0.5000 |" in generated(base)


# -------------------------------------------------------------------------------------------------------------- stages
def test_rl_reports_its_change_with_an_interval(full_run, base):
    text = generated(base)
    trained = next(line for line in text.splitlines() if "(trained)" in line)
    assert "| 70.0 | 92.5 | +22.5 | +12.8 to +31.9 | up |" in trained
    assert f"Of the {len(SKILLS) - 1} tasks that were not trained, none changed" in text


def test_the_interval_of_a_difference_is_newcombes():
    """The example of table II in Newcombe 1998 (Statistics in Medicine 17:873): 56/70 - 48/80 by method 10."""
    assert statistics.difference(record(48 / 80, 80), record(56 / 70, 70)) == pytest.approx((0.2, 0.0524, 0.3339), abs=1e-4)


@pytest.mark.parametrize("p, q", [(0.7, 0.925), (0.5, 0.5), (1.0, 1.0), (0.0, 1.0), (0.95, 0.6)])
def test_the_interval_of_a_difference_covers_it_95_times_in_100(p, q, n=120, runs=1500):
    draw = random.Random(1)
    inside = 0
    for _ in range(runs):
        before, after = (sum(draw.random() < x for _ in range(n)) / n for x in (p, q))
        change, low, high = statistics.difference(record(before), record(after))
        assert low <= change <= high
        inside += low <= q - p <= high
    assert inside / runs >= 0.93


def test_every_stage_has_its_section_command_and_picture(full_run, base):
    text = generated(base)
    for label in results.TITLES.values():
        assert f"### {label}" in text
    assert "python -m scripts.base_train --dataset=kindergarten --depth=4" in text
    assert "python -m scripts.chat_eval -i sft\n" in text
    links = re.findall(r"!\[.*?\]\((.*?)\)", text)
    assert len(links) == 4
    for place in (base / "report", full_run):
        assert (place / "report.md").exists()
        for link in links:
            assert (place / link).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("script, flags", [("base_loss", ["--max_rows=0", "--sample_tokens=0"]),
                                           ("base_train", ["--depth=4", "--compile=false"])])
def test_the_command_in_the_report_is_the_one_that_was_run(script, flags):
    wanted = importlib.import_module(f"scripts.{script}").Config
    config = parse(wanted, flags)
    shown = shlex.split(sections.command(script, dataclasses.asdict(config)))
    assert shown[:3] == ["python", "-m", f"scripts.{script}"] and parse(wanted, shown[3:]) == config


def test_model_text_cannot_break_the_page(full_run, base):
    assert r"is \*blue\* \<b\> \| \`x\`" in generated(base)


def test_skipped_work_is_listed_once(full_run, base):
    text = generated(base)
    skipped = text.split("## What was skipped")[1].split("##")[0]
    assert skipped.count("its data are not here") == 1 and "ARC-Easy" in skipped and "the evaluation bundle" in skipped


def test_a_reason_keeps_the_names_of_files_and_repositories():
    why = "cannot read /here/openai/gsm8k/main/test-00000-of-00001.parquet: bad. Delete it, or leave out -a {}"
    assert results.skipped({"notes": [f"skipped: gsm8k: {why.format('gsm8k')}"]}) == [("gsm8k", why.format("TASK"))]
    assert results.skipped({"notes": ["skipped: no None here"]}) == [("", "no None here")]


# ----------------------------------------------------------------------------------------------------------- the clock
def test_the_clock_runs_from_reset_to_the_last_result(full_run, base):
    start = common.read_json(base / "report" / "start.json")
    common.write_json(base / "report" / "start.json", {**start, "start": time.time() - 3600 * 3 - 60 * 51})
    text = generated(base)
    assert "**Total wall clock time: 3h51m** (the stages themselves: " in text
    assert text == generated(base), "generating again changes nothing"


def test_its_date_is_that_of_the_last_result(full_run, base):
    first, *others = sorted((base / "report" / "results").glob("*.json"))
    for path in (first, *others):
        common.write_json(path, {**common.read_json(path), "time": f"2026-01-0{1 + (path == first)}T03:04:05+0000"})
    assert "| date | 2026-01-02 03:04 |" in generated(base)


def test_without_a_reset_the_clock_is_said_to_be_unknown(full_run, base):
    (base / "report" / "start.json").unlink()
    assert "Total wall clock time: not known" in generated(base)


def test_reset_forgets_results_but_nothing_else(full_run, base):
    generated(base)
    (base / "tokenizer").mkdir()
    report.main(["reset"])
    assert os.listdir(base / "report") == ["start.json"]
    assert (base / "tokenizer").exists() and (full_run / "report.md").exists() and list((base / "logs").iterdir())


@pytest.mark.parametrize("seconds, text", [(0, "0h00m"), (89, "0h01m"), (725, "0h12m"), (3 * 3600 + 51 * 60, "3h51m")])
def test_wall_clock(seconds, text):
    assert markdown.wall_clock(seconds) == text


# ------------------------------------------------------------------------------------------------------------ bad input
def test_nothing_to_report_names_the_command_that_makes_it(base):
    with pytest.raises(MissingArtifact, match="bash speedrun.sh"):
        report.main(["generate"])


@pytest.mark.parametrize("content", ["{", "[1]", '{"metrics": 3}'])
def test_a_damaged_result_is_named(full_run, base, content):
    (base / "report" / "results" / "mid_train.json").write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match="mid_train.json"):
        report.main(["generate"])


@pytest.mark.parametrize("argv", [[], ["print"], ["generate", "--no_such=1"], ["generate", "extra"]])
def test_a_wrong_action_is_one_line(argv):
    with pytest.raises(UsageError):
        report.main(argv)


def test_out_can_be_another_folder_or_none(full_run, base, tmp_path):
    report.main(["generate", "--out="])
    assert not (full_run / "report.md").exists()
    report.main(["generate", f"--out={tmp_path / 'there'}"])
    assert (tmp_path / "there" / "report.md").exists() and (tmp_path / "there" / sections.PICTURES).is_dir()


def test_a_folder_that_takes_no_copy_is_no_failure_unless_it_was_asked_for(full_run, base, monkeypatch, capsys):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")
    monkeypatch.setattr(card, "_copy", refuse)
    report.main(["generate"])
    assert (base / "report" / "report.md").exists() and "no copy in this folder: Permission denied" in capsys.readouterr().out
    with pytest.raises(PermissionError):
        report.main(["generate", "--out=there"])


# ---------------------------------------------------------------------------------------------------------------- logs
def test_a_step_made_again_counts_once_and_a_torn_last_line_is_left_out(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1, "loss": 3}\n{"step": 2, "loss": 2}\n{"step": 2, "loss": 1.5}\n{"step": 3, "lo',
                    encoding="utf-8")
    assert plots.load_log(path) == [{"step": 1, "loss": 3}, {"step": 2, "loss": 1.5}]
    assert plots.load_log(tmp_path / "none.jsonl") == []
    path.write_text('{"step": 1, "loss": 3}\nrubbish\n{"step": 2, "loss": 2}\n', encoding="utf-8")
    with pytest.raises(DataError, match="line 2"):
        plots.load_log(path)


@pytest.mark.parametrize("n", [1, 2, 30])
def test_a_curve_is_drawn_of_any_number_of_steps(tmp_path, n):
    plots.draw([{"step": i, "loss": 1.0 / (i + 1)} for i in range(n)], tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 1000


def test_the_smooth_curve_follows_a_straight_line_without_lag():
    line = [float(i) for i in range(500)]
    assert plots._smooth(line) == pytest.approx(line)


# ------------------------------------------------------------------------------------------------------------- counting
def test_code_is_counted_from_files_without_what_it_makes(tmp_path):
    for name, text in {"pyproject.toml": "a\n", "nanochat/x.py": "é\n", "tests/test_x.py": "12\n3\n", "report.md": "no\n",
                       ".venv/lib/y.py": "no\n", "report_files/a.png": "no\n", ".ci/run": "b\n", "dev/stages.sh": "c\n",
                       "nanochat/infer/table.txt": "d\n", "nanochat/tasks/words.txt": "one\n", "dev/LOG.md": "\n",
                       "nanochat.egg-info/SOURCES.txt": "no\n", "nanochat/serve/page/page.js": "e\n",
                       "docs/01-x.md": "4\n"}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    assert inventory.code_size(tmp_path) == [
        ("the code", 6, 6, 12), ("word lists", 1, 1, 4), ("tests, benchmarks, dev, docs", 3, 4, 8)]


def test_dependencies_are_those_of_pyproject():
    names = inventory.dependencies()
    assert {"torch", "rustbpe", "tiktoken"} <= set(names) and "pytest" not in names and len(names) >= 13
