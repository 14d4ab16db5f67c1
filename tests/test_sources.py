"""The text that people bring, and what it means when it cannot be read: python -m pytest tests/test_sources.py"""
import contextlib
import gzip
import json
import os
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tiny import tiny_tokenizer

from nanochat.common import DataError, UsageError, base_dir
from nanochat.data import own_text, sources
from nanochat.data.dataloader import prepare_tokens
from nanochat.data.datasets import DATASETS, iter_texts, shards
from nanochat.tasks import base as tasks_base

DOCUMENTS = [f"Document {i}\nsays {i * i}." for i in range(640)]


def write(path, texts, name="text", **more):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({name: texts}), path, **more)
    return path


def read(path, split):
    return list(iter_texts(shards(str(path), split)))


def everything(path):
    return sorted(read(path, "train") + read(path, "val"))


@pytest.fixture
def open_folder():
    """That others may enter, unlike pytest's."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o777)
        yield Path(name)


@contextlib.contextmanager
def forbidden(path):
    """As somebody who may not read `path`."""
    user = os.geteuid()
    mode = path.stat().st_mode
    path.chmod(0)
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)
        path.chmod(mode)


# ------------------------------------------------------------------------------------------------------------- splits
@pytest.mark.parametrize("name, split", [
    ("train-00000-of-00002.parquet", "train"), ("train-00000-of-00001-a09b74b3ef9c3b56.parquet", "train"),
    ("test-00000-of-00001.parquet", "test"), ("validation-00000-of-00001.parquet", "val"), ("valid.jsonl", "val"),
    ("VAL.parquet", "val"), ("dev.jsonl.gz", "val"), ("wiki.test.txt", "test"), ("my_train_002.parquet", "train"),
    ("test/0000.parquet", "test"), ("default/partial-train/0000.parquet", "train"), ("split=test/part-0.parquet", "test"),
    ("test/train.parquet", "test"), ("part-00000-f00d.c000.snappy.parquet", ""), ("latest.parquet", ""),
    ("contest-1.parquet", ""), ("shard_00001.parquet", ""), ("a_test_of_time.parquet", "")])
def test_names_tell_the_split(name, split):
    assert sources.split_of(name) == split


def test_a_test_split_is_never_trained_on_and_what_is_used_for_what_is_said(tmp_path, caplog):
    hub = tmp_path / "hub"
    for i in range(2):
        write(hub / f"data/train-0000{i}-of-00002.parquet", [f"train {i}"])
    write(hub / "data/test-00000-of-00001.parquet", ["test"])
    write(hub / "data/validation-00000-of-00001.parquet", ["val"])
    (hub / "README.txt").write_text("no text to train on", encoding="utf-8")
    with caplog.at_level("INFO", "nanochat"):
        assert read(hub, "train") == ["train 0", "train 1"] and read(hub, "val") == ["val"]
    said, = caplog.messages
    assert said == (f"{hub}: training on data/train-00000-of-00002.parquet and 1 more, validating on "
                    "data/validation-00000-of-00001.parquet, not using data/test-00000-of-00001.parquet")


def test_without_a_validation_split_it_is_cut_off_the_training_text_not_the_test(tmp_path):
    write(tmp_path / "d" / "train" / "0.parquet", DOCUMENTS)
    write(tmp_path / "d" / "test" / "0.parquet", ["test"])
    assert everything(tmp_path / "d") == sorted(DOCUMENTS) and len(read(tmp_path / "d", "val")) == 10


def test_a_folder_of_tests_alone_is_refused(tmp_path):
    write(tmp_path / "test.parquet", ["a"])
    write(tmp_path / "dev.parquet", ["a"])
    with pytest.raises(UsageError, match="nothing to train on"):
        shards(str(tmp_path), "train")


def test_what_is_held_out_is_the_same_in_whatever_order_and_files(tmp_path):
    mixed = [DOCUMENTS[i] for i in np.random.RandomState(0).permutation(len(DOCUMENTS))]
    (tmp_path / "one.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in DOCUMENTS), encoding="utf-8")
    for i in range(4):
        path = tmp_path / "many" / f"{i}.jsonl"
        path.parent.mkdir(exist_ok=True)
        path.write_text("\n".join(json.dumps({"text": text}) for text in mixed[i::4] + mixed[i:i + 1]), encoding="utf-8")
    held_out = read(tmp_path / "one.jsonl", "val")
    assert len(held_out) == 10 and set(read(tmp_path / "many", "val")) == set(held_out)
    assert not set(held_out) & set(read(tmp_path / "many", "train"))         # equal documents stay on one side
    assert read(tmp_path / "one.jsonl", "train") == [text for text in DOCUMENTS if text not in held_out]


@pytest.mark.parametrize("n", [2, 30])
def test_little_text_leaves_one_document_for_validation(tmp_path, n):
    assert len(read(write(tmp_path / "a.parquet", DOCUMENTS[:n]), "val")) == 1


# --------------------------------------------------------------------------------------------------- kinds of columns
@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary(),
                                  pa.dictionary(pa.int8(), pa.string()), pa.dictionary(pa.uint32(), pa.large_string())], ids=str)
def test_text_as_pandas_polars_duckdb_and_spark_write_it(tmp_path, kind):
    texts = ["one", None, "ünï", "", "one"]
    column = pa.array(texts).dictionary_encode().cast(kind) if pa.types.is_dictionary(kind) else pa.array(texts, kind)
    assert list(iter_texts([write(tmp_path / "a.parquet", column)])) == ["one", "ünï", "one"]


def test_folders_as_spark_and_duckdb_write_them(tmp_path):
    for kind in "ab":
        write(tmp_path / "hive" / f"kind={kind}" / "data_0.parquet", [f"{kind} {text}" for text in DOCUMENTS])
        (tmp_path / "hive" / f"kind={kind}" / ".data_0.parquet.crc").write_text("x", encoding="utf-8")
    write(tmp_path / "hive" / "_temporary" / "data_0.parquet", ["half"])
    (tmp_path / "hive" / "_SUCCESS").touch()
    (tmp_path / "hive" / "again").symlink_to(tmp_path / "hive")
    assert everything(tmp_path / "hive") == sorted(f"{kind} {text}" for text in DOCUMENTS for kind in "ab")
    for i in range(3):
        write(tmp_path / "out" / "part.parquet" / f"part-0000{i}.snappy.parquet", [str(i)])
    for folder in (tmp_path / "out", tmp_path / "out" / "part.parquet"):     # a folder may be called so
        assert read(folder, "train") == ["0", "1"] and read(folder, "val") == ["2"]


def test_files_of_one_name_in_two_folders_keep_their_tokens_apart(tmp_path):
    write(tmp_path / "d" / "train" / "0000.parquet", ["train"])
    write(tmp_path / "d" / "validation" / "0000.parquet", ["val"])
    tokenizer = tiny_tokenizer()
    made = [prepare_tokens(tokenizer, shards(str(tmp_path / "d"), split), "d")[0] for split in ("train", "val")]
    assert [tokenizer.decode(shard.tokens.tolist()) for shard in made] == ["train", "val"]


# ------------------------------------------------------------------------------------------------------ kinds of files
def lines(texts):
    return "".join(json.dumps({"text": text, "id": 1}, ensure_ascii=False) + "\n" for text in texts)


@pytest.mark.parametrize("name, data", [
    ("a.jsonl", lines(DOCUMENTS).encode()), ("A.JSONL", lines(DOCUMENTS).replace("\n", "\r\n").encode()),
    ("a.jsonl.gz", gzip.compress(lines(DOCUMENTS[:9]).encode()) + gzip.compress(lines(DOCUMENTS[9:]).encode())),
    ("a.jsonl.zst", pa.compress(lines(DOCUMENTS).encode(), codec="zstd", asbytes=True)),
    ("a b ü.jsonl", b"\xef\xbb\xbf" + lines(DOCUMENTS).encode()), ("a.ndjson", lines(DOCUMENTS).encode("utf-16")),
    ("a.jsonl", lines(DOCUMENTS).replace("\n", ",\n\n").encode()),
    ("a.json", json.dumps([{"text": text} for text in DOCUMENTS]).encode()),
    ("a.json", json.dumps([{"text": text} for text in DOCUMENTS], indent=2).encode()),
    ("a.txt", "<|endoftext|>".join(DOCUMENTS).encode()), ("a.TXT.GZ", gzip.compress("\n<|endoftext|>\n".join(DOCUMENTS).encode())),
], ids=["jsonl", "crlf", "gz", "zst", "bom", "utf16", "comma", "list", "pretty", "txt", "txt gz"])
def test_one_file_of_any_kind_is_text_to_train_on(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    assert everything(tmp_path / name) == sorted(DOCUMENTS)


def test_a_text_file_becomes_documents_that_end_at_blank_lines_and_lose_nothing(tmp_path):
    paragraphs = [" ".join(f"word{i * k}" for k in range(1, 40)) for i in range(300)]
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeff".encode() + "\r\n\r\n".join(paragraphs).encode())
    pieces = list(sources.text_pieces(path, 1000))
    assert "\n\n".join(pieces).replace("\n\n\n", "\n\n") == "\n\n".join(paragraphs)
    assert all(1000 <= len(piece) < 1500 for piece in pieces[:-1])
    path.write_text("word " * 10_000, encoding="utf-8")                                        # no line ends at all
    pieces = list(sources.text_pieces(path, 1000))
    assert "".join(pieces) == "word " * 10_000 and max(map(len, pieces)) <= 5000


def test_a_text_that_changed_is_read_again_and_a_long_one_gets_several_shards(tmp_path, monkeypatch):
    monkeypatch.setattr(own_text, "SHARD_CHARS", 1000)
    path = tmp_path / "a.jsonl"
    path.write_text(lines(DOCUMENTS), encoding="utf-8")
    first = shards(str(path), "train")
    stamps = [shard.stat().st_mtime_ns for shard in first]
    assert len(first) > 5 and list(iter_texts(first)) == [text for text in DOCUMENTS if text not in read(path, "val")]
    assert [shard.stat().st_mtime_ns for shard in shards(str(path), "train")] == stamps
    path.write_text(lines(["a", "b"]), encoding="utf-8")
    assert everything(path) == ["a", "b"]


@pytest.mark.parametrize("name, content, said", [
    ("a.jsonl", '{"content": "x", "id": 3}', "line 1 has no key 'text'.*content, id"),
    ("a.jsonl", '{"text": "x"}\n{"text": 3}', "line 2: the text is of type int"),
    ("a.jsonl", '{"text": "x"}\n{"text": ', "line 2 is no JSON"), ("a.json", '[{"text": "x"}', "is no JSON"),
    ("a.txt", "", "0 documents"), ("a.txt", "\n \n", "0 documents"), ("a.txt", "one", "1 documents.*two or more"),
    ("a.jsonl", '{"text": null}\n{"text": ""}', "0 documents"), ("a.csv", "x", r"no .parquet, .jsonl, .json or .txt")])
def test_what_is_no_text_is_one_line_and_leaves_nothing_behind(tmp_path, name, content, said):
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises((UsageError, DataError), match=said):
        shards(str(tmp_path / name), "train")
    assert not list(base_dir().rglob("*.parquet"))


def test_half_a_character_in_json_becomes_a_question_mark(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "a\\ud83d"}\n{"text": "\\ud83d\\ude00"}\n', encoding="utf-8")
    assert everything(tmp_path / "a.jsonl") == ["a\ufffd", "😀"]


def test_text_that_is_all_null_is_said_not_divided_by(tmp_path):
    for kind, name in ((pa.null(), "a"), (pa.string(), "b")):
        write(tmp_path / f"{name}.parquet", pa.nulls(4, kind))
    for split in ("train", "val"):
        with pytest.raises(DataError, match="nulls holds no text.*empty or null"):
            prepare_tokens(tiny_tokenizer(), shards(str(tmp_path), split), "nulls")


# ------------------------------------------------------------------------------------------------------- what is damage
def refused(path, read=lambda path: list(iter_texts([path]))):
    with pytest.raises(DataError) as error:
        read(path)
    assert path.name in str(error.value) and "\n" not in str(error.value)
    return str(error.value)


def test_what_may_not_be_read_is_not_damaged(open_folder, monkeypatch):
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(open_folder))
    path = write(open_folder / "a.parquet", ["a", "b"])
    shard, = prepare_tokens(tiny_tokenizer(), [path], "x")
    def tokens(path):
        prepare_tokens(tiny_tokenizer(), [open_folder / "a.parquet"], "x")
    def table(path):
        tasks_base._read_table(path, None)
    for file, read in ((path, lambda path: list(iter_texts([path]))), (path, lambda path: shards(str(path), "train")),
                       (path, table), (shard.path.with_name("a.tokens.npy"), tokens), (shard.path.with_name("a.json"), tokens)):
        with forbidden(file):
            said = refused(file, read)
        assert "Permission denied" in said and "elete" not in said and "damage" not in said


def test_a_folder_that_may_not_be_read_is_not_passed_over(tmp_path):
    write(tmp_path / "d" / "a.parquet", ["a"])
    secret = write(tmp_path / "d" / "secret" / "b.parquet", ["b"]).parent
    with forbidden(secret), pytest.raises(DataError, match="Permission denied"):
        shards(str(tmp_path / "d"), "train")


def test_what_is_not_there_or_a_folder_or_broken_by_the_disk_is_not_damaged(tmp_path, monkeypatch):
    assert "No such file" in refused(tmp_path / "gone.parquet")
    (tmp_path / "part.parquet").mkdir()
    assert "Is a directory" in refused(tmp_path / "part.parquet")
    def fail(*args, **more):
        raise OSError(5, "Input/output error")
    path = write(tmp_path / "a.parquet", ["a"])
    monkeypatch.setattr(sources.pq, "ParquetFile", fail)
    said = refused(path)
    assert "Input/output error" in said and "elete" not in said


def test_bytes_that_are_no_utf8_are_placed_and_not_called_damage(tmp_path):
    offsets = pa.array([0, 2, 4], pa.int32()).buffers()[1]
    broken = pa.Array.from_buffers(pa.string(), 2, [None, offsets, pa.py_buffer(b"ab\xff\xfe")])
    said = refused(write(tmp_path / "a.parquet", broken))
    assert "rows 1 to 2" in said and "0xff" in said and "elete" not in said and "damage" not in said
    (tmp_path / "a.txt").write_bytes("café\n\nau lait".encode("latin-1"))
    said = refused(tmp_path / "a.txt", lambda path: shards(str(path), "train"))
    assert "UTF-8" in said and "damage" not in said


def test_only_a_shard_that_can_be_had_again_may_be_deleted(tmp_path):
    texts = [f"{text} {text}" for text in DOCUMENTS]
    row = DATASETS["climbmix"]
    (tmp_path / "mine.jsonl").write_text(lines(DOCUMENTS), encoding="utf-8")
    copy, = shards(str(tmp_path / "mine.jsonl"), "train")
    fetched, mine = write(row.folder / "shard_00000.parquet", texts), write(tmp_path / "mine.parquet", texts)
    for path, advice in ((fetched, "Delete it and fetch it again: python -m nanochat.dataset"), (mine, "Copy or make it again"),
                         (copy, f"Delete {copy.parent} and run")):
        path.write_bytes(path.read_bytes()[:-9])
        said = refused(path)
        assert "damaged" in said and advice in said and ("elete" in said) == (path.name != "mine.parquet")


def test_a_truncated_archive_is_damage_not_the_end(tmp_path):
    for name, data in (("a.jsonl.gz", gzip.compress(lines(DOCUMENTS).encode())),
                       ("a.jsonl.zst", pa.compress(lines(DOCUMENTS).encode(), codec="zstd", asbytes=True))):
        (tmp_path / name).write_bytes(data[:-9])
        said = refused(tmp_path / name, lambda path: shards(str(path), "train"))
        assert "damaged or truncated" in said and "elete" not in said
