"""The conversations that people bring: python -m pytest tests/test_conversation_forms.py"""
import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tiny import save_tiny_checkpoint, tiny_tokenizer

from nanochat import kindergarten
from nanochat.common import DataError, UsageError
from nanochat.data.chat_format import render
from nanochat.data.conversation_forms import to_chat
from nanochat.tasks import TASKS, TaskUnavailable, factors, training_conversations
from nanochat.tasks.customjson import CustomJSON
from nanochat.train import finetune
from scripts import chat_eval, chat_sft


def said(*contents, system=None):
    messages = [{"role": ("user", "assistant")[i % 2], "content": content} for i, content in enumerate(contents)]
    return {"messages": ([{"role": "system", "content": system}] if system else []) + messages}


def message(role, content, **more):
    return {"role": role, "content": content, **more}


def text(*words):
    return [{"type": "text", "text": word} for word in words]


# -------------------------------------------------------------------------------------------------------------- forms
@pytest.mark.parametrize("row, chat", [
    ({**said("q", "a"), "id": 7, "source": None}, said("q", "a")), (said("q", "a")["messages"], said("q", "a")),
    ({"conversations": [{"from": "system", "value": "s"}, {"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
     said("q", "a", system="s")),
    ({"system": "s", "conversations": [{"from": "human", "value": "q", "weight": None}, {"from": "gpt", "value": "a"}],
      "messages": None}, said("q", "a", system="s")),
    ({"messages": [message("Human", "q"), message("bot", "a")]}, said("q", "a")),
    ({"messages": [message("developer", "s"), message("user", "q"), message("model", "a")]}, said("q", "a", system="s")),
    ({"instruction": "q", "input": "", "output": "a", "text": "all of it"}, said("q", "a")),
    ({"instruction": "q", "input": "with this", "output": "a"}, said("q\n\nwith this", "a")),
    ({"instruction": "q", "context": "with this", "response": "a", "category": "x"}, said("q\n\nwith this", "a")),
    ({"prompt": "q", "completion": "a"}, said("q", "a")), ({"prompt": "q", "response": "a"}, said("q", "a")),
    ({"Question": "q", "Answer": "a"}, said("q", "a")), ({"input": "q", "output": "a"}, said("q", "a")),
    ({"prompt": [message("system", "s"), message("user", "q")], "completion": [message("assistant", "a")]},
     said("q", "a", system="s")),
    ({"messages": [message("user", text("q", "!")), message("assistant", text("a"))]}, said("q!", text("a"))),
    ({"messages": [message("system", None), message("user", "q"), message("assistant", None), message("assistant", "a")]},
     said("q", "a")),
    ({"messages": [message("user", "q"), message("user", "r"), message("assistant", "a"), message("assistant", "b")]},
     said("q\n\nr", "a\n\nb")),
    ({"messages": [message("system", "s"), message("system", "t"), message("user", "q"), message("assistant", "a")]},
     said("q", "a", system="s\n\nt")),
    ({"messages": [message("user", "q"), message("assistant", "a", weight=1, tool_calls=None, name=None)]}, said("q", "a")),
    ({"text": "a document", "messages": None}, {"text": "a document"}),
])
def test_the_usual_forms_are_understood(row, chat):
    assert to_chat(row) == chat
    assert to_chat(chat) == chat


@pytest.mark.parametrize("row, why", [
    ({"a": 1}, "it has a.*Understood are.*conversations.*instruction.*prompt"), ("hi", "it has str.*Understood"), (3, "int"),
    ({"prompt": "q", "chosen": "a", "rejected": "b"}, "Understood are"), ({"messages": "hi"}, "'messages' holds str"),
    ({"messages": ["q", "a"]}, "message 0 is no object"), ({"messages": [{"role": "user", "words": "q"}]}, "has no content.*words"),
    ({"messages": [message("user", "q"), message("tool", "t")]}, "'tool'"),
    ({"messages": [message("user", "q"), message("assistant", None, tool_calls=[{"id": 1}])]}, "message 1 calls a tool"),
    ({"messages": [message("user", [{"type": "image_url", "image_url": "x"}])]}, "message 0.*'image_url', not text"),
    ({"messages": [message("user", text(None))]}, "message 0.*without a text"),
    ({"messages": [message("user", "q"), message("assistant", "a", weight=0.5)]}, "weight must be 0 or 1, got 0.5"),
    ({"question": "q", "answer": 4}, "assistant's content must be a string, got int"),
    ({"messages": [message("assistant", "a")]}, "expected the user")])
def test_what_cannot_be_understood_is_refused(row, why):
    with pytest.raises(DataError, match=why):
        to_chat(row)


def test_a_reply_of_weight_0_is_read_and_not_learned():
    tokenizer = tiny_tokenizer()
    messages = [message("user", "q"), message("assistant", "bad", weight=0), message("user", "r"), message("assistant", "good")]
    ids, mask = render(tokenizer, to_chat(messages))
    plain_ids, plain_mask = render(tokenizer, said("q", "bad", "r", "good"))
    assert ids == plain_ids and sum(mask) < sum(plain_mask)
    assert tokenizer.decode([i for i, learned in zip(ids, mask) if learned]) == " good"


# -------------------------------------------------------------------------------------------------------------- files
CHATS = [said(f"q{i}", f"a{i}") for i in range(30)]
LINES = "\n".join(json.dumps(chat) for chat in CHATS)


@pytest.mark.parametrize("name, data", [
    ("a.jsonl", LINES.encode("utf-8-sig")), ("A b ü.JSONL", LINES.replace("\n", "\r\n").encode()),
    ("a.jsonl", LINES.encode("utf-16")),
    ("a.jsonl.gz", gzip.compress(LINES.encode())), ("a.jsonl.zst", pa.compress(LINES.encode(), codec="zstd", asbytes=True)),
    ("a.json", json.dumps(CHATS).encode()), ("a.json", json.dumps(CHATS, indent=1).encode()), ("a.json", LINES.encode()),
    ("a.json", json.dumps([chat["messages"] for chat in CHATS]).encode()), ("a.jsonl", LINES.replace("\n", ",\n\n").encode())],
    ids=["bom", "crlf", "utf16", "gz", "zst", "list", "pretty", "lines", "lists", "commas"])
def test_conversations_come_in_files_of_any_kind(tmp_path, monkeypatch, name, data):
    (tmp_path / name).write_bytes(data)
    assert list(CustomJSON(tmp_path / name)) == CHATS
    monkeypatch.setenv("HOME", str(tmp_path))
    assert list(training_conversations(f" ~/{name} * 2 ")) == CHATS * 2


def test_a_parquet_file_a_link_and_a_folder_of_conversations(tmp_path, caplog):
    folder = tmp_path / "chats"
    folder.mkdir()
    pq.write_table(pa.Table.from_pylist([{**chat, "n": 1} for chat in CHATS]), tmp_path / "a.parquet")
    (tmp_path / "link.parquet").symlink_to("a.parquet")
    assert list(CustomJSON(tmp_path / "link.parquet")) == CHATS
    for i, name in enumerate(("train_a.jsonl", "train_b.jsonl", "test.jsonl")):
        (folder / name).write_text(json.dumps(CHATS[i]), encoding="utf-8")
    with caplog.at_level("INFO", "nanochat"):
        assert list(training_conversations(str(folder))) == CHATS[:2]
    assert "not using chats/test.jsonl" in caplog.text


@pytest.mark.parametrize("content, where", [
    (LINES + '\n{"messages": [', "line 31 is no JSON"), (LINES + '\n{"x": 1}', "line 31: this is"),
    (json.dumps([*CHATS, {"x": 1}], indent=1), "row 31: this is")])
def test_a_bad_row_names_file_and_number(tmp_path, content, where):
    (tmp_path / "mine.jsonl").write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=f"mine.jsonl, {where}"):
        CustomJSON(tmp_path / "mine.jsonl")


def test_no_conversation_is_said(tmp_path):
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "folder.jsonl").mkdir()
    (tmp_path / "book.txt").write_text("text", encoding="utf-8")
    for name, why in (("empty.jsonl", "is empty"), ("folder.jsonl", "holds no file"), ("book.txt", "--dataset.*messages"),
                      ("gone.jsonl", "No such file")):
        with pytest.raises((TaskUnavailable, UsageError), match=f"{name}.*{why}"):
            training_conversations(str(tmp_path / name))


def test_a_bad_row_of_a_table_names_data_set_file_and_row(base):
    folder = base / "tasks" / "HuggingFaceTB/smol-smoltalk" / "data"
    folder.mkdir(parents=True)
    good = said("q", "a")["messages"]
    for i, messages in enumerate((good, None)):
        table = pa.Table.from_pylist([{"messages": good}, {"messages": messages}])
        pq.write_table(table, folder / f"train-0000{i}-of-00002.parquet")
    task = TASKS["smoltalk"].make("train")
    assert [task[i] for i in range(3)] == [said("q", "a")] * 3
    with pytest.raises(DataError, match="smoltalk: .*train-00001-of-00002.parquet, row 2: this is no conversation"):
        task[3]


def test_names_are_taken_with_capitals_and_blanks():
    found = list(factors([" GSM8K ", "Kindergarten * 3", " Mine.JSONL*2", ""]))
    assert found == [("gsm8k", 1), ("kindergarten", 3), ("Mine.JSONL", 2)]
    assert chat_eval.Config(tasks="GSM8K | ARC_Easy").names() == ["gsm8k", "arc_easy"]


# ----------------------------------------------------------------------------------------------------------- finetuning
def test_the_kindergarten_and_a_file_are_trained_on_together(tmp_path, monkeypatch):
    monkeypatch.setattr("nanochat.tasks.GENERATED_CONVERSATIONS", 50)
    (tmp_path / "mine.jsonl").write_text(LINES, encoding="utf-8")
    chosen, held = finetune.conversations(f"Kindergarten | {tmp_path}/mine.jsonl*2", "sft", 0)
    made = chosen + held
    assert len(made) == 50 + 2 * 30 and [made.count(chat) for chat in CHATS] == [2] * 30
    assert all(chat in made for chat in kindergarten.train_conversations(50, stage="sft"))


@pytest.mark.parametrize("chat", [
    said("why " * 200, "a"), said("q"), {"messages": [message("user", "q"), message("assistant", "a", weight=0)]}],
    ids=["question longer than the context", "no reply", "weight 0"])
def test_training_on_nothing_is_refused_before_it_begins(tmp_path, chat):
    save_tiny_checkpoint("mid", "kindergarten")
    path = tmp_path / "mine.jsonl"
    path.write_text((json.dumps(chat) + "\n") * 60, encoding="utf-8")
    config = chat_sft.Config(data=str(path), device="cpu", total_batch_size=64, num_iterations=1)
    with pytest.raises(DataError, match="nothing to learn"):
        finetune.resolve(config, "sft", finetune.start(config, "sft"))


def test_conversations_that_lost_every_reply_are_counted(tmp_path, capsys):
    save_tiny_checkpoint("mid", "kindergarten")
    path = tmp_path / "mine.jsonl"
    path.write_text("\n".join(json.dumps(chat) for chat in [*CHATS, *[said("why " * 200, "a")] * 10]), encoding="utf-8")
    config = chat_sft.Config(data=str(path), device="cpu", total_batch_size=64, num_iterations=1)
    plan = finetune.resolve(config, "sft", finetune.start(config, "sft"))
    assert plan.rows.counts.sum() > 0
    told = [line for line in capsys.readouterr().out.splitlines() if "have no reply to learn within 65 tokens" in line]
    counted = [int(line.split()[0]) for line in told]
    assert sum(counted) == 10
