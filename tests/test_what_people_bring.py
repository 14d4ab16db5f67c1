"""What was brought and went wrong though nobody had listed it: files, conversations, base directories, shells."""
import os
import shutil
import subprocess
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tiny import save_tiny_checkpoint

from nanochat import runtime
from nanochat.common import DataError, MissingArtifact, UsageError, base_dir
from nanochat.data.conversation_forms import to_chat
from nanochat.data.datasets import shards
from nanochat.data.own_text import own_shards
from nanochat.data.sources import find_files, texts
from nanochat.tasks import training_conversations
from nanochat.train import checkpoint

ROOT = Path(__file__).parents[1]


# ---- text
def test_books_beside_a_metadata_json_are_what_is_read_and_the_rest_is_said(tmp_path):
    (tmp_path / "metadata.json").write_text('{"title": "my books"}', encoding="utf-8")
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("Once upon a time. " * 20, encoding="utf-8")
    found = find_files(tmp_path)
    assert [file.name for file in found.train] == ["a.txt", "b.txt"]
    assert "not using" in str(found) and "metadata.json" in str(found)


def test_a_folder_of_save_to_disk_is_refused_for_what_it_is(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train"]}', encoding="utf-8")
    (tmp_path / "train" / "data-00000-of-00001.arrow").write_bytes(b"\xff\xff\xff\xff")
    with pytest.raises(UsageError, match=r"\.arrow.*to_parquet"):
        find_files(tmp_path)


def test_what_spark_leaves_empty_is_not_the_text_for_validation(tmp_path):
    for number, documents in enumerate([["a", "b"], ["c"], []]):
        pq.write_table(pa.table({"text": pa.array(documents, pa.string())}), tmp_path / f"part-{number}.parquet")
    assert [file.name for file in own_shards(tmp_path, "val")] == ["part-1.parquet"]
    assert [file.name for file in own_shards(tmp_path, "train")] == ["part-0.parquet"]
    (tmp_path / "part-0.parquet").unlink()
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "part-00.parquet")
    with pytest.raises(UsageError, match="holds 1 documents"):      # one file that is not empty is cut in two
        own_shards(tmp_path, "train")


def test_a_variable_that_is_not_set_is_not_the_folder_one_stands_in(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "private.txt").write_text("line\n\n" * 4000, encoding="utf-8")
    with pytest.raises(UsageError, match="--dataset= is neither a file nor a folder"):
        shards("", "train")


@pytest.mark.parametrize("name", ["corpus/*.parquet", "roneneldan/TinyStories", "a.txt,b.txt", "https://host/a.txt"])
def test_what_is_no_place_on_this_machine_is_told_what_to_give(name):
    with pytest.raises(UsageError, match="Give one file or folder on this machine"):
        shards(name, "train")


def test_json_without_a_text_says_how_to_write_it(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"content": "A story."}', encoding="utf-8")
    with pytest.raises(DataError, match=r'Write one \{"text": "\.\."\} a line'):
        list(texts(tmp_path / "x.jsonl", 100))


# ---- conversations
@pytest.mark.parametrize("row", [{"role": "prompter", "text": "Hi"}, {"prompt": "Hi", "text": "Hello"}])
def test_half_a_conversation_is_not_taken_for_a_document(row):
    with pytest.raises(DataError, match="a text beside"):
        to_chat(row)


def test_the_turns_before_a_question_are_not_left_out():
    row = {"instruction": "And you?", "input": "", "output": "Fine.", "history": [["Hi", "Hello"]]}
    with pytest.raises(DataError, match="'history' would be lost"):
        to_chat(row)
    assert to_chat({**row, "history": []})["messages"]


def test_a_picture_that_stands_beside_the_words_is_refused():
    asked = [{"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "A cat."}]
    with pytest.raises(DataError, match="image"):
        to_chat({"conversations": asked, "image": "cat.jpg"})
    assert to_chat({"conversations": asked, "image": None, "images": []})["messages"]


@pytest.mark.parametrize("key", ["train", "loss"])
def test_a_reply_that_shall_not_be_learned_is_not(key):
    asked = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello", key: False}]
    assert to_chat({"messages": asked})["messages"][1]["weight"] == 0
    asked[1][key] = True
    assert "weight" not in to_chat({"messages": asked})["messages"][1]


def test_a_glob_and_a_folder_that_is_not_there_are_no_tasks(tmp_path):
    with pytest.raises(UsageError, match="joined by"):
        training_conversations(f"{tmp_path}/chat*.jsonl")
    with pytest.raises(DataError, match="No such file"):
        training_conversations(f"{tmp_path}/chats")


# ---- places
@pytest.mark.parametrize("make", [lambda path: path.write_bytes(b"x"), lambda path: path.symlink_to("/no/disk")])
def test_a_base_directory_that_is_none_is_refused_at_once(base, make):
    make(base)
    with pytest.raises(UsageError, match="NANOCHAT_BASE_DIR"):
        base_dir()


def test_a_model_that_is_not_there_says_which_are():
    save_tiny_checkpoint("sft", "kindergarten")
    with pytest.raises(MissingArtifact, match=r"at step 7 \(as <tag>/<step>/meta.json there is 5\)"):
        checkpoint.find("sft", None, 7)
    with pytest.raises(MissingArtifact, match=r"there is tiny\)"):
        checkpoint.find("sft", "d20")


def test_weights_that_lie_there_in_another_layout_are_told_theirs(base):
    (base / "sft_checkpoints" / "d20").mkdir(parents=True)
    (base / "sft_checkpoints" / "d20" / "model_021400.pt").write_bytes(b"x")
    with pytest.raises(MissingArtifact, match="there is none"):
        checkpoint.find("sft")


def test_a_device_that_cannot_be_used_says_how_to_do_without():
    with pytest.raises(UsageError, match="--device=gpu cannot be used.*Without it the best there is"):
        runtime.init("gpu")


# ---- shells
def run_in(folder, *command, **more):
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60,
                          **{"stdin": subprocess.DEVNULL, **more})


@pytest.mark.parametrize("shell", ["bash", "sh"])
def test_a_series_without_depths_or_elsewhere_says_how_to_start_it(tmp_path, shell):
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")
    elsewhere = run_in(tmp_path, shell, str(ROOT / "benchmarks" / "series.sh"), "2", "3")
    for done in (elsewhere, run_in(ROOT, shell, "benchmarks/series.sh")):
        assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
        assert done.stderr.startswith("error: in nanochat's folder, with its .venv: bash ")


def test_nodes_without_slurm_says_so():
    env = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}
    done = run_in(ROOT, "bash", "runs/nodes.sh", "scripts.base_train", env=env)
    assert done.returncode and "sbatch" in done.stderr and "unbound" not in done.stderr


def test_speedrun_through_a_pipe_says_what_it_wants(tmp_path):
    script = (ROOT / "speedrun.sh").read_text(encoding="utf-8")
    done = run_in(tmp_path, "bash", "-s", "kindergarten", input=script, stdin=None)
    assert done.returncode == 2 and done.stderr == ("error: fetch the whole folder, then: bash speedrun.sh\n")
