"""Running tasks: batched equals plain, ranks and batch sizes do not matter, what is skipped is said, items are kept."""
import json
import time
from dataclasses import replace

import pytest
import torch
from tiny import save_tiny_checkpoint, tiny_model, tiny_tokenizer

from nanochat import kindergarten
from nanochat.common import DataError, MissingArtifact, UsageError, read_json
from nanochat.data.chat_format import parse_reply, render_prompt
from nanochat.eval import records as kept
from nanochat.eval import statistics
from nanochat.eval.chat_eval import Options, Score, run_task
from nanochat.infer.engine import Engine
from nanochat.runtime import Runtime
from nanochat.tasks import TASKS, TaskUnavailable, first_questions
from nanochat.tasks.base import Task, exchange, multiple_choice
from scripts import chat_eval as script


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


@pytest.fixture(scope="module")
def model(tokenizer):
    return tiny_model(tokenizer.vocab_size, sequence_len=96)


class Letters(Task):
    """Questions of very different lengths with 3 to 5 choices."""
    name, kind, chance = "letters", "categorical", 0.25

    def __len__(self):
        return 23

    def __getitem__(self, i):
        return multiple_choice(f"{i}?" + " the cat" * (i * 7 % 11), ["a", "b", "c", "d", "e"][:3 + i % 3], i % 3)


class Words(Task):
    """Right when the reply's first character has an even code: a coin that needs no trained model."""
    name, chance, max_new_tokens = "words", 0.5, 12

    def __len__(self):
        return 17

    def __getitem__(self, i):
        return exchange("the dog " * (i % 5) + f"number {i}?", "cat")

    def evaluate(self, conversation, parts):
        return bool(parts) and bool(parts[0]["text"]) and ord(parts[0]["text"][0]) % 2 == 0


# -------------------------------------------------------------------------------------------------------- equalities
@pytest.mark.parametrize("batch_tokens", [1, 150, 100_000])
def test_letter_logits_in_batches_equal_one_plain_forward_each(model, tokenizer, batch_tokens):
    task = Letters()
    score, records = run_task(task, model, tokenizer, Runtime(), Options(batch_tokens=batch_tokens))
    for i, record in enumerate(records):
        prompt = torch.tensor([render_prompt(tokenizer, task[i]["messages"])])[:, -96:]
        assert record["cut"] == (len(render_prompt(tokenizer, task[i]["messages"])) > 96)
        if not record["cut"]:
            whole = [tokenizer.encode(" " + letter) for letter in task[i]["letters"]]
            before = [] if all(len(ids) == 1 for ids in whole) else tokenizer.encode(" ")
            logits = model(torch.cat([prompt, torch.tensor([before], dtype=torch.int64)], dim=1))[0, -1]
            last = {x: tokenizer.encode(x if before else " " + x)[0] for x in task[i]["letters"]}
            best = max(last, key=lambda letter: logits[last[letter]].item())
            assert record["answers"] == [best]
        assert record["verdicts"] == [record["answers"][0] == record["reference"]]
    assert score.n == 23 and score.correct == sum(r["verdicts"][0] for r in records)


@pytest.mark.parametrize("batch_size", [1, 5, 64])
def test_replies_are_those_of_the_engine_alone_whatever_the_batch(model, tokenizer, batch_size):
    task = Words()
    _, records = run_task(task, model, tokenizer, Runtime(), Options(batch_size=batch_size))
    for i, record in enumerate(records):
        prompt = render_prompt(tokenizer, task[i]["messages"])
        alone = Engine(model, tokenizer).generate([prompt], max_new_tokens=12, temperature=0.0)[0]
        assert record["replies"] == [parse_reply(tokenizer, alone.ids)]
    assert [r["index"] for r in records] == list(range(17))


@pytest.mark.parametrize("task", [Letters(), Words()])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_two_ranks_together_give_the_records_of_one(model, tokenizer, task, temperature, monkeypatch):
    options, parts = Options(max_problems=9, temperature=temperature), []
    alone = run_task(task, model, tokenizer, Runtime(), options)
    monkeypatch.setattr("nanochat.runtime.all_gather_object", lambda rt, value: parts.append(value) or list(parts))
    run_task(task, model, tokenizer, Runtime(rank=0, world_size=2), options)
    assert run_task(task, model, tokenizer, Runtime(rank=1, world_size=2), options) == alone
    assert alone[0].n == 9


def test_more_ranks_than_questions_is_fine(model, tokenizer, monkeypatch):
    monkeypatch.setattr("nanochat.runtime.all_gather_object", lambda rt, value: [value])
    for task in (Letters(), Words()):
        score, records = run_task(task, model, tokenizer, Runtime(rank=30, world_size=31), Options())
        assert (score.n, score.score, records) == (0, 0.0, [])


def test_no_more_programs_are_run_at_once_than_this_process_has_cores(model, tokenizer, monkeypatch):
    running, most = [], []

    class Programs(Words):
        def evaluate(self, conversation, parts):
            running.append(1)
            most.append(len(running))
            time.sleep(0.05)
            running.pop()
            return True
    monkeypatch.setattr("os.cpu_count", lambda: 64)      # of the machine; this process may use fewer, other ranks the rest
    monkeypatch.setattr("torch.get_num_threads", lambda: 2)
    assert run_task(Programs(), model, tokenizer, Runtime())[0].score == 1.0
    assert max(most) <= 2


# ------------------------------------------------------------------------------------------------------- long prompts
def test_long_prompts_are_cut_to_leave_room_and_counted(model, tokenizer):
    class Long(Words):
        def __getitem__(self, i):
            return exchange("why " * (200 if i == 3 else 2), "cat")
    _, records = run_task(Long(), model, tokenizer, Runtime())
    assert [r["cut"] for r in records] == [i == 3 for i in range(17)]


# ------------------------------------------------------------------------------------------------------------- results
def test_score_has_interval_chance_and_centred_accuracy():
    score = Score("x", 200, 150, 0.5)
    assert (score.score, score.centered) == (0.75, 0.5)
    low, high = score.ci95
    assert 0.68 < low < 0.75 < high < 0.81
    parts = [{"centered": s.centered, "chance": s.chance, "ci95": s.ci95} for s in (score, Score("y", 10, 0, 0.0))]
    assert statistics.mean_centered(parts)[0] == pytest.approx(0.25)


# ---------------------------------------------------------------------------------------------------------- the script
@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(tmp_path))
    monkeypatch.setenv("NANOCHAT_DTYPE", "fp32")
    monkeypatch.setattr("nanochat.data.hub.list_files", lambda repo: unreachable())
    return tmp_path


def unreachable():
    raise TaskUnavailable("the hub cannot be reached")


def result(home, stage):
    return read_json(home / "report" / "results" / f"chat_eval_{stage}.json")


def test_a_task_without_data_is_skipped_aloud_and_the_others_run(home):
    save_tiny_checkpoint("sft", "climbmix", sequence_len=128)
    script.main(["-i", "sft", "-a", "gsm8k|simplespelling", "--max-problems=3", "--device=cpu"])
    found = result(home, "sft")
    assert list(found["metrics"]["tasks"]) == ["simplespelling"] and found["metrics"]["chatcore"] is None
    assert any(note.startswith("skipped: gsm8k") and "cannot be reached" in note for note in found["notes"])
    spelling = found["metrics"]["tasks"]["simplespelling"]
    assert spelling["n"] == 3 and len(spelling["ci95"]) == 2 and spelling["chance"] == 0.0


def test_a_task_asked_once_more_leaves_the_other_scores_of_this_checkpoint_and_none_of_another(home):
    model, _ = save_tiny_checkpoint("sft", "climbmix", sequence_len=128)
    for task in ("spellingbee", "simplespelling", "spellingbee"):
        script.main(["-i", "sft", "-a", task, "--max-problems=3", "--device=cpu"])
    found = result(home, "sft")["metrics"]
    assert list(found["tasks"]) == ["spellingbee", "simplespelling"] and found["chatcore_tasks"] == ["spellingbee"]
    assert result(home, "sft")["notes"] == []
    for task in ("gsm8k", "spellingbee", "gsm8k"):                       # its data are not here
        script.main(["-i", "sft", "-a", task, "--max-problems=3", "--device=cpu"])
        assert [note[:16] for note in result(home, "sft")["notes"]] == ["skipped: gsm8k: "]
    model.wte.weight.data += 1
    save_tiny_checkpoint("sft", "climbmix", sequence_len=128, tag="house", model=model)
    script.main(["-i", "sft", "--tag=house", "-a", "simplespelling", "--max-problems=3", "--device=cpu"])
    assert list(result(home, "sft")["metrics"]["tasks"]) == ["simplespelling"]


@pytest.mark.parametrize("where, shown", [("records.save_items", "simplespelling: "), ("save_result", "95 % interval")])
def test_what_was_measured_is_shown_although_it_cannot_be_saved(home, monkeypatch, capsys, where, shown):
    def refuse(*_, **__):
        raise PermissionError("no")
    monkeypatch.setattr(f"scripts.chat_eval.{where}", refuse)
    save_tiny_checkpoint("sft", "climbmix", sequence_len=128)
    with pytest.raises(PermissionError):
        script.main(["-i", "sft", "-a", "simplespelling", "--max-problems=3", "--device=cpu"])
    assert shown in capsys.readouterr().out


def test_an_unreachable_hub_is_asked_once_not_for_every_task(home, monkeypatch):
    save_tiny_checkpoint("mid", "climbmix", sequence_len=128)
    asked = []
    monkeypatch.setattr("nanochat.data.hub.list_files", lambda repo: asked.append(repo) or unreachable())
    script.main(["-i", "mid", "--max_problems=2", "--device=cpu"])
    assert len(asked) == 1 and list(result(home, "mid")["metrics"]["tasks"])[:3] == ["spellingbee", "strangers", "kg_tales"]
    assert sum(note.startswith("skipped:") for note in result(home, "mid")["notes"]) == 5


def test_every_graded_item_is_kept_as_a_line(home):
    save_tiny_checkpoint("base", "climbmix", sequence_len=128)
    script.main(["-i", "base", "-a", "spellingbee", "--max_problems=4", "--device=cpu"])
    lines = (home / "report" / "items" / "base_spellingbee.jsonl").read_text(encoding="utf-8").splitlines()
    items = [json.loads(line) for line in lines]
    assert len(items) == 4
    for item in items:
        assert item["prompt"][0]["role"] == "user" and len(item["replies"]) == len(item["verdicts"]) == 1
        assert isinstance(item["verdicts"][0], bool) and item["reference"]
    metrics = result(home, "base")["metrics"]
    assert metrics["chatcore"] == metrics["tasks"]["spellingbee"]["centered"]
    assert metrics["chatcore_tasks"] == ["spellingbee"]


def test_default_tasks_follow_what_the_model_was_trained_on(home):
    core = [name for name, row in TASKS.items() if row.group == "core"]
    web = {"dataset": "climbmix", "model": {"n_layer": 8}}
    assert script.choose(script.Config(), web) == (core + ["strangers"], [])
    small = {**web, "model": {"n_layer": 7}}  # is also asked what it was taught
    names, notes = script.choose(script.Config(), small)
    assert names[: len(core) + 1] == [*core, "strangers"] and "kg_lists" in names and "kg_facts_seen" not in names
    assert {name.removeprefix("kg_") for name in names[len(core) + 1:]} == first_questions.SKILLS and not notes
    names, notes = script.choose(script.Config(), {"dataset": "kindergarten"})
    assert names == [f"kg_{skill}" for skill in kindergarten.SKILLS] + ["strangers"]
    assert len(notes) == len(core) and all(note.startswith("skipped:") for note in notes)


@pytest.mark.parametrize("flags, named", [
    (["-a", "gsm9k"], "gsm9k.*arc_easy"), (["-a", "smoltalk"], "smoltalk"), (["--batch_size=0"], "--batch_size"),
    (["-i", "pre"], "pre")])
def test_wrong_flags_are_refused_by_name_before_anything_is_loaded(home, flags, named):
    with pytest.raises(UsageError, match=named):
        script.main(flags)


# -------------------------------------------------------------------------------------------------- kept and compared
def items(scores, question="How many"):
    """Records as a run leaves them, one for each score."""
    parts = [{"type": "python", "text": "1+1"}, {"type": "python_output", "text": "2"}, {"type": "text", "text": "Two."}]
    return [{"task": "gsm8k", "index": i, "prompt": [{"role": "user", "content": f"{question} {i}?\u2028"}],
             "reference": parts, "replies": [[{"type": "text", "text": f"It is {score}."}]], "answers": [None],
             "verdicts": [score == 1], "score": float(score), "cut": False} for i, score in enumerate(scores)]


def test_paired_difference_matches_the_formula_and_beats_the_unpaired_interval():
    before, after = [1, 0] * 50, [1, 0] * 45 + [1, 1] * 5
    n, a, b, half = kept.paired(items(before), items(after))
    assert (n, a, b) == (100, 0.5, 0.55)
    variance = (95 * 0.05 ** 2 + 5 * 0.95 ** 2) / 99
    assert half == pytest.approx(1.96 * (variance / 100) ** 0.5) and half < 0.05 < 1.96 * (2 * 0.25 / 100) ** 0.5
    assert kept.paired(items([1]), items([0]))[3] == 0.0


@pytest.mark.parametrize("other", [items([1, 0]), items([1, 0, 1], "How few"), []])
def test_other_questions_cannot_be_compared(other):
    with pytest.raises(DataError, match="not graded on the same questions"):
        kept.paired(items([1, 0, 1]), other)


def test_what_the_models_themselves_said_before_may_differ():
    before, after = items([1, 0]), items([0, 0])
    for records, said in ((before, "Hello!"), (after, "Good day.")):
        for record in records:
            record["prompt"] = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": said}, *record["prompt"]]
    assert kept.paired(before, after)[:3] == (2, 0.5, 0.0)


def test_two_stages_are_compared_task_by_task_from_their_kept_items(home, capsys):
    kept.save_items("sft", "gsm8k", items([1, 0, 0, 0]))
    kept.save_items("rl", "gsm8k", items([1, 1, 1, 0]))
    kept.save_items("rl", "mmlu", items([1]))
    script.main(["--compare=sft,rl"])
    head, line = capsys.readouterr().out.splitlines()
    assert "sft" in head and "rl" in head
    assert line.split() == ["gsm8k", "25.0%", "75.0%", "+50.0", "+-", "56.6,", "4", "items"]
    for flags, named in [(["-a", "mmlu"], "sft_mmlu.jsonl.*-i sft -a mmlu"), (["--compare=sft"], "--compare=sft wants"),
                         (["--compare=base,rl"], "--compare=base,rl wants")]:
        with pytest.raises((DataError, UsageError), match=named):
            script.main(["--compare=sft,rl", *flags])


def test_models_named_by_tag_are_kept_apart_and_compared(home, capsys):
    save_tiny_checkpoint("base", "climbmix", sequence_len=128, tag="one")
    save_tiny_checkpoint("base", "climbmix", sequence_len=128, tag="two")
    for tag in ("one", "two"):
        script.main(["-i", "base", "-a", "simplespelling", "--max_problems=3", "--device=cpu", f"--tag={tag}"])
    script.main(["--compare=base@one,base@two"])
    assert capsys.readouterr().out.splitlines()[-1].split() == [
        "simplespelling", "0.0%", "0.0%", "+0.0", "+-", "0.0,", "3", "items"]


def test_model_code_is_refused_without_walls_unless_unsafe(home, monkeypatch):
    class Code(Words):
        name, runs_code = "code", True
    monkeypatch.setitem(TASKS, "code", replace(TASKS["simplespelling"], make=lambda split: Code()))
    monkeypatch.setattr("nanochat.infer.sandbox.SAFE", ("no such level",))
    task, why = script.make_task("code", Runtime())
    assert task is None and "--unsafe" in why
    assert script.make_task("code", Runtime(), unsafe=True)[0].unsafe is True
    monkeypatch.undo()
    assert script.make_task("simplespelling", Runtime())[0].unsafe is False


def test_graded_items_can_be_read_and_only_the_wrong_ones(home, capsys):
    kept.save_items("sft", "gsm8k", items([1, 0]))
    script.main(["--show=sft_gsm8k"])
    assert capsys.readouterr().out.replace("\u2028", "") == (
        "--- gsm8k 0\nuser: How many 0?\nreference: [1+1] [2] Two.\nright: It is 1.\n\n"
        "--- gsm8k 1\nuser: How many 1?\nreference: [1+1] [2] Two.\nwrong: It is 0.\n")
    script.main(["--show=sft_gsm8k", "--wrong"])
    assert "wrong: It is 0." in (shown := capsys.readouterr().out) and "right:" not in shown
    with pytest.raises(DataError, match="rl_gsm8k.jsonl.*scripts.chat_eval -i rl -a gsm8k"):
        script.main(["--show=rl_gsm8k"])


@pytest.mark.parametrize("stage, command", [
    ("core@d4", "base_eval --tag=d4"), ("sft@x", "chat_eval -i sft -a copa --tag=x")])
def test_missing_items_name_the_command_that_makes_them(home, stage, command):
    with pytest.raises(DataError, match=f"Make it with: python -m scripts.{command}$"):
        kept.load_items(stage, "copa")


def test_missing_model_names_the_script_that_makes_it(home):
    with pytest.raises(MissingArtifact, match="scripts.chat_sft"):
        script.main(["-i", "sft", "--device=cpu"])


def test_suggestions_are_short_questions_that_were_answered_right(base):
    def record(question, score, before=()):
        return {"prompt": [*before, {"role": "user", "content": question}], "score": score}
    kept.save_items("sft", "kg_a", [record("Is it wrong?", 0), record("What is right?", 1)])
    kept.save_items("sft", "kg_b", [record("lower case?", 1), record("What is " + "long " * 20 + "?", 1)])
    kept.save_items("sft", "strangers", [record("Who are you?", 1)])
    kept.save_items("rl", "kg_a", [record("Another model?", 1)])
    assert kept.passed_questions("sft") == ["What is right?"] and kept.passed_questions("mid") == []
    kept.items_path("sft", "kg_c").write_text("cut off {", encoding="utf-8")   # no reason not to serve
    assert kept.passed_questions("sft") == ["What is right?"]
