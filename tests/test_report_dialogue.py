"""The report's talk with the model: chosen by a rule, nothing hidden, nothing stale."""
import re

import pytest
from test_report import SKILLS, ask, generated, record, save

from nanochat.report import dialogue


def answered(base, *scores_of_tasks):
    """A run in which these tasks were asked two questions each."""
    tasks = {}
    for task, right in zip(SKILLS, scores_of_tasks):
        ask(base, "sft", task, ("What is it?", f"It is {task}."), ("And what is this?", "No idea."), right=right)
        tasks[task] = record(right, 2)
    save("chat_eval_sft", {"tasks": tasks}, config={"stage": "sft"})


def test_the_dialogue_goes_from_the_best_task_to_the_worst(base):
    answered(base, *[0.0, 1.0] * 10)
    said = re.findall(r"It is (\w+)", dialogue_of(base))
    assert said == [SKILLS[i] for i in (1, 7, 13, 0, 6, 12, 18)]


def dialogue_of(base):
    return generated(base).split("## A talk with it")[1].split("## ")[0].replace("\\_", "_")


def test_the_dialogue_shows_a_wrong_answer_and_says_so(base):
    answered(base, *[1.0] * 7, 0.0)
    text = dialogue_of(base)
    assert text.count("✓ right") == 6 and text.count("✗ wrong; a right answer: Oslo.") == 1


def test_the_dialogue_takes_the_first_question_in_good_writing(base):
    bad = ["what now", "WHAT NOW?", "What now", "What? " * 100]
    ask(base, "rl", SKILLS[0], *[(question, "Well.") for question in bad], ("What is *it*?", "<b>Oslo</b>"), right=0.0)
    save("chat_eval_rl", {"tasks": {SKILLS[0]: record(0.0, 5)}}, config={"stage": "rl"})
    assert "> What is \\*it\\*?\n>\n> **\\<b\\>Oslo\\</b\\>**\n" in generated(base)


@pytest.mark.parametrize("task, n", [("strangers", 1), (SKILLS[0], 7)])
def test_the_dialogue_has_no_strangers_and_nothing_of_another_evaluation(base, task, n):
    ask(base, "sft", task, ("What is it?", "Stale."))
    save("chat_eval_sft", {"tasks": {task: record(1.0, n)}}, config={"stage": "sft"})
    assert "Stale." not in generated(base) and "## A talk" not in generated(base)


def test_the_dialogue_knows_models_by_their_tag_and_shows_what_the_calculator_did(base):
    ask(base, "sft@big", "gsm8k", ("How many?", "6."))
    save("chat_eval_sft", {"tasks": {"gsm8k": record(1.0, 1)}}, config={"stage": "sft", "tag": "big"})
    assert "> **6.**" in generated(base)
    parts = [{"type": "python", "text": "2*3"}, {"type": "python_output", "text": "6"}, {"type": "text", "text": "It is 6."}]
    assert dialogue._text(parts) == "[2*3 = 6] It is 6."
