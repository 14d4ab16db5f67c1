"""
The report card: exact numbers with their errors, a reason for whatever is missing, links that hold in both places.
"""
import dataclasses
import importlib
import json
import math
import os
import re
import shlex
import time
from pathlib import Path

import pytest

from nanochat import common, kindergarten, report
from nanochat.cli import parse
from nanochat.common import DataError, MissingArtifact, UsageError
from nanochat.report import card, markdown, plots, results, sections, summary
from nanochat.tasks import PREFIX, TASKS

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


def ask(base, stage, task, *questions, right=1.0):
    """Keep the records of an evaluation: questions, each with its answer, all of them graded as `right`."""
    records = [{"task": task, "index": i, "prompt": [{"role": "user", "content": question}], "cut": False, "reference": "Oslo.",
                "replies": [[{"type": "text", "text": answer}]], "answers": [answer], "verdicts": [right == 1], "score": right}
               for i, (question, answer) in enumerate(questions)]
    common.atomic_write(base / "report" / "items" / f"{stage}_{task}.jsonl", "".join(json.dumps(r) + "\n" for r in records))


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
    """report.md, without the pictures, which take a second."""
    found = results.shareable(results.load_results())
    return card.render(found, plots.load_curves(found))


def written(base):
    """report.md and report.html as the command writes them."""
    report.main(["generate"])
    return [(base / "report" / name).read_text(encoding="utf-8") for name in ("report.md", "report.html")]


def row(text, name):
    return next(line for line in text.splitlines() if line.startswith(f"| {name} |"))


# ----------------------------------------------------------------------------------------------------------- the opening
def test_it_opens_with_the_one_number_and_its_interval(full_run, base):
    text = generated(base)
    mean = (0.925 + 0.7 * (len(SKILLS) - 1)) / len(SKILLS)
    low, high = wilson(0.7, 120), wilson(0.925, 120)
    half = math.sqrt((0.7 - low[0]) ** 2 * (len(SKILLS) - 1) + (0.925 - high[0]) ** 2) / len(SKILLS)
    assert text.splitlines()[2] == f"## {100 * mean:.1f} ± {100 * half:.1f} %"
    assert f"answered right after RL, the mean of {len(SKILLS)} skills. Blind guessing gets 0.0 %." in text.splitlines()[4]


def test_it_says_what_was_trained_on_what(full_run, base):
    line = generated(base).splitlines()[6]
    assert line.startswith("A language model of 3.15M parameters, trained from nothing on 5.24M tokens of kindergarten and "
                           "15.73M tokens of conversations, on cpu. Total wall clock time: **")


@pytest.mark.parametrize("skills", [[], SKILLS], ids=["text of the web", "kindergarten"])
def test_a_model_that_strangers_have_asked_opens_with_what_they_got(base, skills):
    tasks = {"gsm8k": record(0.5, group="core"), "strangers": record(0.3)} | dict.fromkeys(skills, record(0.9))
    save("base_eval", {"core": 0.04, "core_ci95": [0.02, 0.06], "tasks": {}})
    save("chat_eval_sft", {"tasks": tasks, "chatcore": 0.5, "chatcore_ci95": [0.4, 0.6], "chatcore_tasks": ["gsm8k"]},
         config={"stage": "sft"})
    lines = generated(base).splitlines()
    assert lines[2].startswith("## 30.0 ± ")
    assert "questions of strangers, who did not know what it learns, answered right after SFT" in lines[4]


@pytest.mark.parametrize("measured, opening", [
    ({"chatcore": 0.2734, "chatcore_ci95": [0.26, 0.29], "chatcore_tasks": ["gsm8k"]}, "## ChatCORE 0.2734 ± 0.0166"),
    ({"chatcore": None}, "## CORE 0.2219 ± 0.0081")])
def test_a_model_of_real_text_opens_with_its_benchmarks(base, measured, opening):
    save("base_eval", {"core": 0.2219, "core_ci95": [0.2138, 0.23], "tasks": {}})
    save("chat_eval_sft", {"tasks": {"gsm8k": record(0.1, group="core")}, **measured}, config={"stage": "sft"})
    assert generated(base).splitlines()[2] == opening


def test_the_chart_of_skills_stands_before_the_table(full_run, base):
    text = generated(base)
    assert text.index("](report_files/skills.png)") < text.index("## Scores")
    first, *others = plots.chart_rows(summary.score_rows(results.load_results()))
    assert first.title == summary.MEAN and len(others) == len(SKILLS)
    assert others[0].title == next(iter(kindergarten.SKILLS.values())).title, "then the best of the last model"


# ------------------------------------------------------------------------------------------------------------- the scores
def test_the_table_has_a_row_for_what_was_measured_and_no_rows_of_dashes(full_run, base):
    text = generated(base)
    assert "| task | split | n | chance | BASE | MID | SFT | RL |" in text
    for skill in kindergarten.SKILLS.values():
        cells = row(text, skill.title)
        assert skill.split in cells and "120" in cells
    assert "| - |" not in text and not re.search(r"^\| (CORE,|ChatCORE|ARC-|GSM8K|MMLU)", text, re.MULTILINE)
    assert "<sup>" not in text and re.search(r"wall clock time: \*\*\dh\d\dm\*\*", text)


def test_a_score_carries_its_error(full_run, base):
    assert "92.5 ± 6.1" in row(generated(base), next(iter(kindergarten.SKILLS.values())).title)
    assert markdown.percent(1.0, wilson(1.0, 120)) == "100.0 ± 3.1"
    assert markdown.percent(0.5) == "50.0"


def test_what_was_skipped_is_told_once_with_its_reason(full_run, base):
    text = generated(base)
    skipped = text.split("## What was skipped")[1].split("##")[0]
    assert "- CORE: the evaluation bundle is not there." in skipped
    assert "- Chat evaluation: ARC-Challenge, ARC-Easy, GSM8K, HumanEval, MMLU, SpellingBee: its data are not here" in skipped
    assert text.count("its data are not here") == text.count("the evaluation bundle is not there.") == 1


def test_a_task_that_one_stage_was_not_asked_is_a_dash_and_a_line(full_run, base):
    asked = {task: record(0.5) for task in SKILLS[1:]}
    save("chat_eval_mid", {"tasks": asked, "chatcore": None}, config={"stage": "mid"})
    text = generated(base)
    title = TASKS[SKILLS[0]].title
    assert re.search(r"\| 5\.0 ± \d\.\d \| - \| 70\.0 ± \d\.\d \| 92\.5 ± 6\.1 \|", row(text, title))
    assert re.search(rf"- Chat evaluation, mid: .*{title}.*: not asked for: `python -m scripts.chat_eval -i STAGE -a TASK`", text)


def test_a_stage_that_was_not_run_is_one_line_and_no_column(full_run, base):
    for name in ("chat_rl", "chat_eval_rl"):
        (base / "report" / "results" / f"{name}.json").unlink()
    text = generated(base)
    assert "- Not run: Reinforcement learning; Chat evaluation, RL." in text
    assert "| task | split | n | chance | BASE | MID | SFT |\n" in text and "| RL |" not in text


def test_a_run_of_real_text_shows_its_benchmarks_and_what_was_planned(full_run, base):
    core = {"arc": {"accuracy": 0.5, "centered": 0.3, "n": 100, "ci95": [0.4, 0.6], "chance": 0.25}}
    save("base_eval", {"core": 0.22191, "core_ci95": [0.2, 0.25], "tasks": core,
                       "gpt2": {"arc": ["0.1", "0.2", "0.3", "0.4"], "CORE": ["0.11", "0.22", "0.33", "0.44"]}})
    tasks = {"gsm8k": record(0.0754, 1319, "core"), "mmlu": {**record(0.31, 14042, "core"), "chance": 0.25}}
    for phase in results.PHASES:
        (base / "report" / "results" / f"chat_eval_{phase}.json").unlink()
    save("chat_eval_sft", {"tasks": tasks, "chatcore": 0.1234, "chatcore_ci95": [0.11, 0.14],
                           "chatcore_tasks": list(tasks)}, wall_s=90.0, config={"stage": "sft"})
    common.write_json(base / "plan.json", {"seconds": {"starting": 60.0, "base_train": 120.0, "chat_eval": 400.0}})
    text = generated(base)
    assert text.splitlines()[2] == "## ChatCORE 0.1234 ± 0.0166"
    assert "| task | split | n | chance | BASE | SFT |" in text
    assert "| CORE, of the base model |  | 1 tasks | 0.0 | 0.2219 ± 0.0281 | - |" in text
    assert "| ChatCORE |  | 2 tasks | 0.0 | - | 0.1234 ± 0.0166 |" in text
    assert "| GSM8K | test | 1,319 | 0.0 | - | 7.5 ± 1.6 |" in text
    assert "| MMLU | test | 14,042 | 25.0 | - | 31.0 ± 0.8 |" in text
    assert "| arc | 100 | 50.0 ± 10.0 | 0.3000 | 25.0 | 0.1 | 0.2 | 0.3 | 0.4 |" in text
    assert re.search(r"\| Pretraining \| 1m40s \| \d+\.\d% \| 2m00s \|", text)
    assert re.search(r"\| Chat evaluation, SFT \| 1m30s \| \d+\.\d% \| 1m40s \|", text)
    assert "Planned in all: 9m40s, 1m00s of it to measure the machine" in text


# -------------------------------------------------------------------------------------------------------------- stages
def test_the_stages_of_training_stand_side_by_side(full_run, base):
    text = generated(base)
    assert "| Pretraining | Midtraining | Supervised finetuning | Reinforcement learning |" in text
    assert "| training loss at the end, nats a token | 1.2500 | 1.2500 | 1.2500 |  |" in text
    assert "| validation, bits a byte | 0.8123 |  |  |  |" in text
    assert "| validation loss, nats a token |  | 0.8123 | 0.8123 |  |" in text
    assert "| mean reward, last tenth |  |  |  | 0.8000 |" in text
    assert f"Rewarded for: {TASKS[SKILLS[0]].title}." in text
    assert "steps skipped" not in text, "unless there were any"


def test_all_commands_are_told_in_the_order_of_the_run(full_run, base):
    commands = generated(base).split("```bash\n")[1].split("```")[0].splitlines()
    assert "# Pretraining: 1m40s on cpu" in commands
    assert commands.index("python -m scripts.base_train --dataset=kindergarten --depth=4") < commands.index(
        "python -m scripts.chat_eval -i sft")
    assert [line[2:].split(": ")[0] for line in commands if line[0] == "#"] == list(results.TITLES.values())


def test_pictures_are_there_in_both_places(full_run, base):
    links = re.findall(r"!\[.*?\]\((.*?)\)", written(base)[0])
    assert links == ["report_files/skills.png", "report_files/curves.png"]
    for place in (base / "report", full_run):
        assert (place / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")
        for name in links:
            assert (place / name).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("script, flags", [("base_loss", ["--max_rows=0", "--sample_tokens=0"]),
                                           ("base_train", ["--depth=4", "--compile=false"])])
def test_the_command_in_the_report_is_the_one_that_was_run(script, flags):
    wanted = importlib.import_module(f"scripts.{script}").Config
    config = parse(wanted, flags)
    shown = shlex.split(sections.command(script, dataclasses.asdict(config)))
    assert shown[:3] == ["python", "-m", f"scripts.{script}"] and parse(wanted, shown[3:]) == config


def test_model_text_cannot_break_the_page(full_run, base):
    assert r"is \*blue\* \<b\> \| \`x\`" in generated(base)


def test_no_folder_of_this_machine_is_told(full_run, base, monkeypatch):
    monkeypatch.setenv("HOME", "/home/jane doe")
    save("mid_train", {"tokens": 1}, config={"data": "/home/jane doe/mine/chats.jsonl|HuggingFaceTB/smoltalk*2", "out": "D:\\x\\y"},
         notes=[f"read {base}/tasks/a.parquet, /mnt/disk-7/b.parquet and https://example.org/a/b at /srv/x/c:3"])
    text = "".join(written(base))
    for folder in (base, base.parent, "jane", "/mnt", "disk-7", "/srv", "D:\\x"):
        assert str(folder) not in text, folder
    assert "read $NANOCHAT_BASE_DIR/tasks/a.parquet, b.parquet and https://example.org/a/b at c:3" in text
    assert "'--data=~/mine/chats.jsonl|HuggingFaceTB/smoltalk*2' --out=y" in text


def test_a_reason_keeps_the_names_of_files_and_repositories():
    why = "cannot read /here/openai/gsm8k/main/test-00000-of-00001.parquet: bad. Delete it, or leave out -a {}"
    assert results.skipped({"notes": [f"skipped: gsm8k: {why.format('gsm8k')}"]}) == {"gsm8k": why.format("TASK")}
    assert results.skipped({"notes": ["skipped: no None here"]}) == {"": "no None here"}


# ----------------------------------------------------------------------------------------------------------- the clock
def test_the_clock_runs_from_reset_to_the_last_result(full_run, base):
    start = common.read_json(base / "report" / "start.json")
    common.write_json(base / "report" / "start.json", {**start, "start": time.time() - 3600 * 3 - 60 * 51})
    text = generated(base)
    assert "Total wall clock time: **3h51m** (the stages themselves: " in text
    assert text == generated(base), "generating again changes nothing"


def test_its_date_is_that_of_the_last_result(full_run, base):
    first, *others = sorted((base / "report" / "results").glob("*.json"))
    for path in (first, *others):
        common.write_json(path, {**common.read_json(path), "time": f"2026-01-0{1 + (path == first)}T03:04:05+0000"})
    assert "- 2026-01-02 03:04, commit " in generated(base)


def test_without_a_reset_the_clock_is_said_to_be_unknown(full_run, base):
    (base / "report" / "start.json").unlink()
    assert "Total wall clock time: **not known" in generated(base)


def test_reset_forgets_results_but_nothing_else(full_run, base):
    written(base)
    (base / "tokenizer").mkdir()
    report.main(["reset"])
    assert os.listdir(base / "report") == ["start.json"], "neither report.md nor report.html"
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
    assert {path.name for path in (tmp_path / "there").iterdir()} == {"report.md", "report.html", card.PICTURES}


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
    log = b'{"step": 1, "loss": 3}\n{"step": 2, "loss": 2}\n{"step": 2, "loss": 1.5}\nrubbish\n{"step": 3, "lo'
    assert results.log_records(log) == [{"step": 1, "loss": 3}, {"step": 2, "loss": 1.5}]
    assert results.log_records(b"") == []


@pytest.mark.parametrize("n", [1, 2, 30])
def test_a_curve_is_drawn_of_any_number_of_steps(tmp_path, n):
    points = [(i, 1.0 / (i + 1)) for i in range(n)]
    plots.draw_curves([plots.Curve("base", "training loss", "nats a token", points)], tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 1000


def drawn(monkeypatch, draw, *args):
    """The axes of a picture that would be written."""
    found = []
    monkeypatch.setattr(plots, "_save", lambda figure, path: found.extend(figure.axes))
    draw(*args, Path("unwritten"))
    return found


def test_curves_have_titles_axes_and_their_validation(full_run, base, monkeypatch):
    write_log(base / "logs" / "mid_train.jsonl", n=30, val_loss=0.25)
    write_log(base / "logs" / "base_train.jsonl", n=30, val_bpb=0.75)
    axes = drawn(monkeypatch, plots.draw_curves, plots.load_curves(results.load_results()))
    assert [axis.get_title() for axis in axes] == [row.title for row in plots.STAGES.values()]
    assert [axis.get_ylabel() for axis in axes] == ["nats a token"] * 3 + ["mean reward, 0 to 1"]
    assert all(axis.get_xlabel() == "optimizer step" for axis in axes)
    legends = [[text.get_text() for text in axis.get_legend().get_texts()] for axis in axes]
    assert legends[0][1] == "validation 0.7500 bits a byte" and legends[1][1] == "validation loss 0.2500"
    assert legends[2][1] == "validation loss 0.5000" and legends[3] == ["reward 0.5000"]
    assert [len(line.get_xdata()) for line in axes[1].lines] == [30, 30, 1], "noisy, smoothed to the end, validation"


def test_the_chart_of_skills_has_every_task_and_stage(full_run, base, monkeypatch):
    rows = plots.chart_rows(summary.score_rows(results.load_results()))
    axes = drawn(monkeypatch, plots.draw_skills, rows)
    labels = [label.get_text() for axis in axes for label in axis.get_yticklabels()]
    assert labels == [row.title for row in rows] and len(axes) == 2
    assert all(axis.get_xlabel() == "answered right, %" for axis in axes)


def test_the_smooth_curve_follows_a_straight_line_without_lag():
    line = [float(i) for i in range(500)]
    assert plots.smoothed(line) == pytest.approx(line)


def test_the_smooth_curve_is_smooth_to_its_end():
    noisy = [10 - i / 100 + (-1) ** i for i in range(1000)]
    smooth = plots.smoothed(noisy)
    assert len(smooth) == 1000
    assert all(abs(smooth[i] - (10 - i / 100)) < 0.1 for i in range(20, 1000)), "no noise, no lag, not at the end either"
