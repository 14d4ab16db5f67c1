"""The strangers' questions: read whole, asked turn by turn, graded by their patterns, trained on by nobody."""
import pytest

from nanochat.common import DataError, UsageError
from nanochat.tasks import TASKS, training_conversations
from nanochat.tasks import strangers as module


@pytest.mark.parametrize("name, size", [("strangers", 235), ("strangers_open", 435)])
def test_both_lists_are_made_as_any_task_is(name, size):
    task = TASKS[name].make("test")
    assert task.name == name and len(task) == size
    for number in range(len(task)):
        chat = task[number]
        roles = [message["role"] for message in chat["messages"]]
        assert roles == ["user", "assistant"] * (len(roles) // 2) and chat["right"]
        assert not task.evaluate(chat, []), f"question {number} takes silence for an answer"


def test_the_lists_have_no_question_in_common():
    held, opened = ({tuple(block.turns) for block in module.read(which)} for which in module.LISTS)
    assert len(held) == 235 and not held & opened


def test_a_pattern_decides_and_another_forbids(tmp_path, monkeypatch):
    block = module.Block("sums", ["5+5"], r"\b(10|ten)\b", r"\b(9|11)\b")
    monkeypatch.setattr(module, "read", lambda which: [block])
    task = module.Strangers()
    for text, right in (("That is TEN.", True), ("10 or 11", False), ("100", False)):
        assert task.evaluate(task[0], [{"type": "text", "text": text}]) is right


def test_a_line_of_no_kind_is_named(tmp_path, monkeypatch):
    (tmp_path / "strangers_odd.txt").write_text("# sums\n> 5+5\n? what\n", encoding="utf-8")
    monkeypatch.setattr(module, "__file__", str(tmp_path / "strangers.py"))
    with pytest.raises(DataError, match="strangers_odd.txt, line 3"):
        module.read("odd")


@pytest.mark.parametrize("name", ["strangers", "strangers_open"])
def test_nobody_trains_on_them(name):
    with pytest.raises(UsageError, match="cannot be trained on"):
        training_conversations(name)
