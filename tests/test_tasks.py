"""Tasks: what they ask, how they grade, where their data come from. Tiny parquet files stand in for the hub's."""
import json
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nanochat import kindergarten
from nanochat.common import DataError, NanochatError, UsageError
from nanochat.data.chat_format import validate
from nanochat.infer.tools import run_tool
from nanochat.tasks import TASKS, TaskUnavailable, base, factors, lookup, spellingbee, training_conversations
from nanochat.tasks.base import HubTable, message_parts
from nanochat.tasks.customjson import CustomJSON
from nanochat.tasks.gsm8k import final_number, solution_parts
from nanochat.tasks.humaneval import program

ARC_ROW = {"question": "Which is hot?", "choices": {"text": ["ice", "fire", "snow"], "label": ["1", "2", "3"]},
           "answerKey": "2"}
MMLU_ROW = {"question": "2 + 2 = ?", "subject": "maths", "choices": ["3", "5", "4", "22"], "answer": 2}
GSM_ROW = {"question": "Five boxes of 12 eggs, and 3 more?",
           "answer": "There are 5*12=<<5*12=60>>60 eggs in boxes.\nWith 3 more: <<60+3=63>>63 eggs.\n#### 63"}
HUMANEVAL_ROW = {"task_id": "HumanEval/0", "entry_point": "double",
                 "prompt": 'import math\n\n\ndef half(x):\n    return x / 2\n\n\n'
                           'def double(x):\n    """ Twice x. """\n',
                 "canonical_solution": "    return math.floor(half(x) * 4)\n",
                 "test": "def check(candidate):\n    assert candidate(3) == 6\n    assert candidate(-1) == -2\n"}
SMOL_ROW = {"messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"},
                         {"role": "assistant", "content": "Hello!"}], "source": "x"}


def put(home, repo, folder, split, rows, shard=0, shards=1):
    path = home / "tasks" / repo / folder / f"{split}-{shard:05d}-of-{shards:05d}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A base directory with one or two rows of every data set, and no network."""
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(tmp_path))
    monkeypatch.setattr(base.hub, "list_files", lambda repo: offline())
    for folder in ("ARC-Easy", "ARC-Challenge"):
        for split in ("train", "test"):
            put(tmp_path, "allenai/ai2_arc", folder, split, [ARC_ROW, ARC_ROW])
    for split in ("auxiliary_train", "test"):
        put(tmp_path, "cais/mmlu", "all", split, [MMLU_ROW])
    for split in ("train", "test"):
        put(tmp_path, "openai/gsm8k", "main", split, [GSM_ROW, {**GSM_ROW, "question": split}])
        put(tmp_path, "HuggingFaceTB/smol-smoltalk", "data", split, [SMOL_ROW])
    put(tmp_path, "openai/openai_humaneval", "openai_humaneval", "test", [HUMANEVAL_ROW])
    return tmp_path


def offline():
    raise NanochatError("the hub cannot be reached.")


def text(reply):
    return [{"type": "text", "text": reply}]


# ----------------------------------------------------------------------------------------------------------- all tasks
@pytest.mark.parametrize("name", list(TASKS))
def test_every_row_of_the_table_makes_the_task_it_describes(home, name):
    row = lookup(name)
    task = row.make("test")
    assert (task.name, task.kind, task.chance) == (name, row.kind, row.chance)
    assert len(task) > 0 and row.is_local() and row.title
    with pytest.raises(IndexError):
        task[len(task)]
    for i in range(min(len(task), 20)):
        messages = [{**message, "content": message["content"] or "for the model to say"} for message in task[i]["messages"]]
        validate({**task[i], "messages": messages})
        assert task[i] == task[i] and task[i]["messages"][-1]["role"] == "assistant"


GRADED = [n for n, row in TASKS.items() if row.kind != "conversations" and "strangers" not in n]   # whose reference is a pattern


@pytest.mark.parametrize("name", GRADED)
def test_the_reference_answer_is_right_and_nonsense_is_wrong(home, name):
    task = TASKS[name].make("test")
    for i in range(min(len(task), 25)):
        conversation = task[i]
        reference = message_parts(conversation["messages"][-1])
        assert task.evaluate(conversation, reference) is True, (i, conversation)
        assert task.reward(conversation, reference) == 1.0
        for nonsense in ([], text(""), text("#### banana"), [{"type": "python", "text": "1+"}], text("\ufffd```py\n")):
            assert task.evaluate(conversation, nonsense) is False, (i, conversation, nonsense)


def test_unknown_task_is_refused_with_the_list_of_names():
    with pytest.raises(UsageError, match="arc_easy.*gsm8k"):
        lookup("gsm9k")


# --------------------------------------------------------------------------------------------------- one task at a time
def test_multiple_choice_is_lettered_from_a_whatever_the_labels(home):
    conversation = TASKS["arc_easy"].make("test")[0]
    question = conversation["messages"][0]["content"]
    assert question == "Which is hot?\nA. ice\nB. fire\nC. snow\nAnswer with the letter only."
    assert conversation["messages"][1]["content"] == "B" and conversation["letters"] == ["A", "B", "C"]
    assert TASKS["mmlu"].make("train")[0]["messages"][1]["content"] == "C"


def test_calculator_marks_become_tool_calls_and_nothing_is_lost():
    parts = solution_parts(GSM_ROW["answer"])
    assert [(p["type"], p["text"]) for p in parts] == [
        ("text", "There are 5*12="), ("python", "5*12"), ("python_output", "60"),
        ("text", "60 eggs in boxes.\nWith 3 more: "), ("python", "60+3"), ("python_output", "63"),
        ("text", "63 eggs.\n#### 63")]
    marks = {"text": "{}", "python": "<<{}=", "python_output": "{}>>"}
    assert "".join(marks[p["type"]].format(p["text"]) for p in parts) == GSM_ROW["answer"]


@pytest.mark.parametrize("reply, number", [
    ("#### 63", "63"), ("so #### 1 no\n#### $1,200.00", "1200"), ("#### -0.50", "-0.5"), ("####.5", "0.5"),
    ("#### 0", "0"), ("63", ""), ("#### many", ""), ("", ""), ("#### 63.", "63"), ("#### 070", "70"),
    ("#### 10", "10"), ("#### ,", "")])
def test_final_number_is_the_one_after_the_last_mark(reply, number):
    assert final_number(reply) == number


def test_gsm8k_reads_numbers_only_from_what_is_said_to_the_user(home):
    task = TASKS["gsm8k"].make("test")
    assert task.evaluate(task[0], text("#### 63.0")) and not task.evaluate(task[0], text("63"))
    assert not task.evaluate(task[0], [{"type": "python_output", "text": "#### 63"}])


@pytest.mark.parametrize("reply", [
    "    return 2 * x",
    "Sure!\n```python\ndef double(x):\n    return math.floor(half(x) * 4)\n```\nIt doubles.",
    "```\ndef double(x):\n    return x + x",
    "Here:\n```Python\ndef double(x):\n    return x + x\n```\nThis doubles.",
    "```python3\ndef double(x):\n    return x + x\n```",
    "```python\n    return x * 2\n```",
    HUMANEVAL_ROW["prompt"] + "    return x << 1"])
def test_humaneval_accepts_a_body_a_function_or_a_whole_program(home, reply):
    task = TASKS["humaneval"].make("test")
    assert task.evaluate(task[0], text(reply)) is True


@pytest.mark.parametrize("reply", ["    return x", "def triple(x):\n    return 2 * x", "    import os; os._exit(0)",
                                   "```python\nraise SystemExit(0)\n```", "I cannot do that."])
def test_humaneval_refuses_wrong_code_and_early_exits(home, reply):
    task = TASKS["humaneval"].make("test")
    assert task.evaluate(task[0], text(reply)) is False


def test_program_keeps_the_prompts_imports_and_helpers():
    code = program(HUMANEVAL_ROW["prompt"], "double", "```python\ndef double(x):\n    return 1\n```")
    assert "import math" in code and "def half" in code and code.count("def double") == 1


def test_spelling_words_of_the_test_are_never_trained():
    train, test = spellingbee.words("train"), spellingbee.words("test")
    assert not set(train) & set(test) and len(test) > 120 and len(train) > 4 * len(test) - 5
    assert len(set(spellingbee.WORDS)) == len(spellingbee.WORDS)
    assert all(word.isascii() and word.islower() and word.isalpha() for word in spellingbee.WORDS)


def test_spelling_bee_spells_and_its_count_is_what_the_tool_says():
    task = TASKS["spellingbee"].make("test")
    for i in range(50):
        said, code, output, last = task[i]["messages"][-1]["content"]
        assert run_tool(code["text"]) == output["text"] and last["text"].endswith(f"#### {output['text']}")
        word = said["text"].split(" is spelled ")[0]
        assert said["text"].split(" is spelled ")[1].split(".")[0].replace(", ", "") == word


@pytest.mark.parametrize("form, is_right", [("{} #### {}", True), ("It is in there {} times.", True), ("12 #### 12", False),
                                            ("{} times, or 12 times.", False), ("I don't know.", False)])
def test_a_count_is_right_in_any_words(form, is_right):
    task = TASKS["spellingbee"].make("test")
    count = task[0]["messages"][-1]["content"][2]["text"]
    assert task.evaluate(task[0], text(form.format(count, count))) is is_right


def asked(task, n):
    return [json.dumps(task[i]["messages"][:-1]) for i in range(n)]


@pytest.mark.parametrize("skill", kindergarten.SKILLS)
def test_kindergarten_asks_no_question_twice(skill):
    task = TASKS[f"kg_{skill}"].make("test")
    assert 100 <= len(task) <= 200 and len(set(asked(task, len(task)))) == len(task)


def test_kindergarten_questions_for_reinforcement_are_not_those_of_the_test():
    row = TASKS["kg_word_problem"]
    test, train = row.make("test"), row.make("train")
    assert len(test) == 200 and len(train) > 1000 and len(set(asked(train, 200))) > 150
    assert not set(asked(test, 200)) & set(asked(train, 1000))


# ---------------------------------------------------------------------------------------------------------- custom json
def test_custom_json_takes_both_forms_and_names_the_bad_line(tmp_path):
    path = tmp_path / "mine.jsonl"
    messages = SMOL_ROW["messages"]
    path.write_text(json.dumps({"messages": messages}) + "\n\n" + json.dumps(messages) + "\n", encoding="utf-8")
    task = CustomJSON(path)
    assert len(task) == 2 and task[0] == task[1] and task.name == "mine"
    for bad in ("{half", json.dumps({"messages": []}), json.dumps([messages[2]]), "3", '"x"'):
        path.write_text(json.dumps(messages) + "\n" + bad + "\n", encoding="utf-8")
        with pytest.raises(DataError, match=r"mine.jsonl, line 2"):
            CustomJSON(path)
    path.write_bytes(b"\xff\xfe")
    for broken in (path, tmp_path / "none.jsonl"):
        with pytest.raises(TaskUnavailable, match=broken.name):
            CustomJSON(broken)


def test_a_line_of_custom_json_ends_at_a_line_feed_only(tmp_path):
    path, odd = tmp_path / "mine.jsonl", "one\u2028two\u2029three\x85four"       # which JSON allows in a string
    lines = [json.dumps({"text": odd}, ensure_ascii=False), "", "{half"]
    path.write_bytes("\r\n".join(lines[:2]).encode("utf-8"))
    assert list(CustomJSON(path)) == [{"text": odd}]
    path.write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(DataError, match=r"mine.jsonl, line 3"):
        CustomJSON(path)


def test_custom_json_takes_documents(tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text(json.dumps({"text": "The sea is salty."}) + "\n", encoding="utf-8")
    assert training_conversations(str(path))[0] == {"text": "The sea is salty."}
    path.write_text(json.dumps({"text": 3}) + "\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"mine.jsonl, line 1"):
        CustomJSON(path)


def test_training_conversations_chain_in_order_with_repeats(home):
    made = training_conversations("gsm8k*2", "smoltalk", "arc_easy")
    assert len(made) == 2 * 2 + 1 + 2
    assert [c["messages"][0]["content"] for c in made][:5] == [GSM_ROW["question"], "train"] * 2 + ["Be kind."]
    assert made[6]["letters"] == ["A", "B", "C"] and len(training_conversations()) == 0
    with pytest.raises(IndexError):
        made[7]


def test_training_on_test_questions_and_odd_factors_are_refused(home):
    for name in (f"kg_{next(iter(kindergarten.SKILLS))}", "humaneval", "nothing", "gsm8k*many"):
        with pytest.raises(UsageError):
            training_conversations(name)


# ----------------------------------------------------------------------------------------------------------- the files
def test_a_split_counts_as_here_only_when_all_its_shards_are(home):
    put(home, "some/data", "x", "train", [{"a": 1}], 1, 2)
    assert base.local_files("some/data", "x", "train") == []
    put(home, "some/data", "x", "train", [{"a": 0}], 0, 2)
    table = HubTable("some/data", "x", "train")
    assert [table[i]["a"] for i in range(len(table))] == [0, 1]
    assert base.local_files("some/data", "x", "rain") == []


def test_missing_shards_are_fetched_from_the_hub_and_kept(home, monkeypatch):
    fetched = []

    def fetch(repo, path, dest):
        fetched.append(path)
        put(home, repo, "x", "test", [{"a": 7}])
        return dest
    names = [f"{folder}-00000-of-00001.parquet" for folder in ("x/test", "x/train", "y/test")]
    monkeypatch.setattr(base.hub, "list_files", lambda repo: ["README.md", *names])
    monkeypatch.setattr(base.hub, "fetch", fetch)
    assert HubTable("some/data", "x", "test")[0] == {"a": 7} and HubTable("some/data", "x", "test")[0] == {"a": 7}
    assert fetched == ["x/test-00000-of-00001.parquet"]
    with pytest.raises(TaskUnavailable, match="x/dev"):
        HubTable("some/data", "x", "dev")


def test_data_that_cannot_be_had_is_one_line_with_the_reason(home):
    for path in (home / "tasks" / "openai").rglob("*.parquet"):
        path.unlink()
    assert not TASKS["gsm8k"].is_local()
    with pytest.raises(TaskUnavailable, match="gsm8k.*hub cannot be reached"):
        TASKS["gsm8k"].make("test")


def test_damaged_parquet_names_the_file(home):
    path = next((home / "tasks" / "openai" / "gsm8k").rglob("test-*.parquet"))
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(TaskUnavailable, match=path.name):
        TASKS["gsm8k"].make("test")
    pq.write_table(pa.table({"other": [1]}), path)
    with pytest.raises(TaskUnavailable, match=path.name):
        TASKS["gsm8k"].make("test")


def test_names_of_tasks_take_factors():
    assert list(factors(["kg_story*2", "kg_unknown"])) == [("kg_story", 2), ("kg_unknown", 1)]
    for wrong in ("kg_story*x", "kg_story*0", "kg_story*", "kg_story*-1"):
        with pytest.raises(UsageError, match=re.escape(wrong)):
            list(factors([wrong]))
