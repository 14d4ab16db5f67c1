"""What the page is told of a run: from whatever lies in a base directory, and no more than is new."""
import json
import os
import time

import pytest

from nanochat.common import append_jsonl, atomic_write, save_result
from nanochat.report.results import SKILLS
from nanochat.report.summary import MEAN
from nanochat.serve import run_view
from nanochat.serve.run_view import DENSE, view


def write_log(base, name, steps, loss=4.0, of=100):
    path = base / "logs" / name
    for step in steps:
        append_jsonl(path, {"step": step, "loss": loss / step, "lr": 1.0, "tok_per_s": 50, "elapsed_s": 2.0 * step, "of": of})
    return path


def write_result(name, **metrics):
    save_result(name, metrics=metrics, config={"dataset": "kindergarten"}, device="1 x CPU", wall_s=61.0)


def near(expected):
    return pytest.approx(expected, abs=1e-4)


def losses(view, stage="base"):
    log = next(log for log in view["logs"] if log["stage"] == stage)
    return {point["step"]: point.get("loss") for point in log["points"]}


def test_an_empty_folder_says_how_to_begin(base):
    found = view({})
    assert "bash speedrun.sh" in found["headline"]
    assert (found["stages"], found["logs"], found["card"], found["skills"], found["report"]) == ([], [], [], [], "")


def test_only_what_is_new_is_sent(base):
    path = write_log(base, "base_d3.jsonl", range(1, 6))
    first = view({})
    assert losses(first) == near({step: 4 / step for step in range(1, 6)}) and first["logs"][0]["anew"]
    assert losses(view(first["after"])) == {} and "card" not in view(first["after"])
    write_log(base, "base_d3.jsonl", [6, 7])
    append_jsonl(path, {"step": 7, "val_bpb": 0.5})
    second = view(json.loads(json.dumps(first["after"])))
    assert losses(second) == near({6: 4 / 6, 7: 4 / 7}) and not second["logs"][0]["anew"]
    assert second["logs"][0]["points"][-1]["val_bpb"] == 0.5


def test_a_line_that_is_being_written_waits_and_a_torn_one_is_passed_over(base):
    path = write_log(base, "base_d3.jsonl", [1, 2])
    with path.open("a", encoding="utf-8") as file:
        file.write('{"step": 3, "lo')
    first = view({})
    assert set(losses(first)) == {1, 2}
    with path.open("a", encoding="utf-8") as file:
        file.write('ss": 7.0}\n{"step": 4, "loss"\n\x00\x00\n[5]\n7\n{"loss": 1}\n')
        file.write('{"step": 5, "loss": NaN}\n{"step": 6, "loss": 1.0}\n')
    assert losses(view(first["after"])) == {3: 7.0, 6: 1.0}


def test_of_steps_made_again_the_last_word_holds(base):
    path = write_log(base, "base_d3.jsonl", range(1, 9))
    seen = view({})["after"]
    kept = path.read_text(encoding="utf-8").splitlines(keepends=True)[:4]
    atomic_write(path, "".join(kept))       # as resume.trim_log does
    write_log(base, "base_d3.jsonl", range(5, 8), loss=40.0)
    found = view(seen)
    expected = {**{step: 4 / step for step in range(1, 5)}, **{step: 40 / step for step in range(5, 8)}}
    assert found["logs"][0]["anew"] and losses(found) == near(expected)
    write_log(base, "base_d3.jsonl", [6], loss=400.0)     # by a hand that did not trim
    assert losses(view({}))[6] == near(400 / 6)


def test_a_run_that_starts_over_is_read_from_its_beginning(base):
    path = write_log(base, "base_d3.jsonl", range(1, 9))
    seen = view({})["after"]
    atomic_write(path, "")
    write_log(base, "base_d3.jsonl", [1], loss=9.0)
    found = view(seen)
    assert found["logs"][0]["anew"] and losses(found) == {1: 9.0}


def test_of_several_tags_the_newest_is_shown(base):
    os.utime(write_log(base, "base_d20.jsonl", [1, 2]), (1e9, 1e9))
    write_log(base, "base_d3.jsonl", [1])
    write_log(base, "other_d3.jsonl", [1])
    assert [(log["stage"], len(log["points"])) for log in view({})["logs"]] == [("base", 1)]


def test_a_long_log_comes_thinned_with_all_of_its_beginning_its_end_and_its_answers(base):
    path = write_log(base, "base_d3.jsonl", range(1, 3001))
    append_jsonl(path, {"step": 2000, "answers": [["My name is", " Ada."]], "memory_gib": 0.5, "group": {"question": "?"}})
    log = view({})["logs"][0]
    steps = [point["step"] for point in log["points"]]
    assert steps[:DENSE] == list(range(1, DENSE + 1)) and steps[-1] == 3000 and len(steps) < 800
    assert log["said"] == [{"step": 2000, "answers": [["My name is", " Ada."]], "memory_gib": 0.5, "group": {"question": "?"}}]
    points = {point["step"]: point["loss"] for point in log["points"]}
    last = list(range(steps[-2] + 1, 3001))
    assert points[3000] == pytest.approx(sum(4 / step for step in last) / len(last), abs=1e-4)


# --------------------------------------------------------------------------------------------------------------- stages
def speedrun(base, done=(), begun=None, listed="", stopped=False):
    tier = base / ".done" / "kindergarten"
    tier.mkdir(parents=True)
    for number, name in enumerate(done, 1):
        (tier / f"{number:02d}-{name}").write_text("x", encoding="utf-8")
    if begun:
        (tier / f"{len(done) + 1:02d}-{begun}.begun").write_text("x", encoding="utf-8")
    (tier / "stages").write_text(listed, encoding="utf-8")
    if stopped:
        (tier / "stopped").write_text("", encoding="utf-8")


LISTED = "tok_train python x\nbase_train python x --num_iterations=100\nmid_train python x --num_iterations=30\nreport_generate x\n"


@pytest.mark.parametrize("stopped", [False, True])
def test_the_line_of_stages_says_what_is_done_running_and_to_come_and_the_time_left(base, stopped):
    speedrun(base, ["tok_train"], "base_train", LISTED, stopped)
    write_log(base, "base_d3.jsonl", range(1, 41))
    write_log(base, "mid_d3.jsonl", range(1, 5))     # of an earlier run
    write_result("tok_train")
    found = view({})
    how = "stopped" if stopped else "running"
    assert found["stages"] == [["Tokenizer training", "done", "1m01s"], ["Pretraining", how, "40%"],
                               ["Midtraining", "to come", ""], ["Report generate", "to come", ""]]
    assert [log["stage"] for log in found["logs"]] == ["base"]
    assert found["headline"] == ("Pretraining: step 40 of 100. Stopped; the same command goes on from there." if stopped else
                                 "Pretraining: step 40 of 100, about 2 min left (3 min for all of it).")


def test_a_finished_run_of_older_code_is_shown_too(base):
    speedrun(base, ["tok_train", "base_train"])
    (base / ".done" / "kindergarten" / "stages").unlink()
    assert [how for _, how, _ in view({})["stages"]] == ["done", "done"] and "All 2 stages are done" in view({})["headline"]


def test_a_run_without_a_speedrun_is_told_by_what_it_left(base):
    os.utime(write_log(base, "base_d3.jsonl", range(1, 101)), (1e9, 1e9))
    write_result("base_train", params=7, tokens=2048, steps=100, train_s=90.0, model={"n_layer": 3})
    path = write_log(base, "mid_d3.jsonl", range(1, 11))
    assert [how for _, how, _ in view({})["stages"]] == ["done", "running"]
    old = time.time() - 2 * run_view.IDLE_S
    os.utime(path, (old, old))
    assert [how for _, how, _ in view({})["stages"]] == ["done", "stopped"]


def test_results_are_told_when_they_come_and_a_damaged_one_is_passed_over(base):
    write_result("base_train", params=2_899_968, tokens=1_024_000, steps=500, train_s=172.5, model={"n_layer": 3})
    (base / "report" / "results" / "mid_train.json").write_text("{", encoding="utf-8")
    write_result("chat_sft", val_loss=0.2)      # by older code, which told less
    seen = view({})
    assert dict(seen["card"])["Size"] == "2,899,968 parameters in 3 layers" and "David" in seen["people"] and not seen["skills"]
    task = {"score": 0.5, "n": 20, "chance": 0.1, "ci95": [0.3, 0.7], "group": "kindergarten"}
    write_result("chat_eval_base", tasks={SKILLS[0]: task})
    write_result("chat_eval_sft", tasks={**dict.fromkeys(SKILLS, task), SKILLS[0]: {**task, "score": 1.0}})
    (base / "report" / "report.md").write_text("# Report", encoding="utf-8")
    found = view(seen["after"])
    assert found["report"] == "report.md"
    assert found["skills"][0] == ["base", "sft"]
    assert found["skills"][1] == [MEAN, None, pytest.approx(0.5 + 0.5 / len(SKILLS))]  # of all of them, or none
    assert [row[1:] for row in found["skills"][2:]] == [[0.5, 1.0], *[[None, 0.5]] * (len(SKILLS) - 1)]
