"""Which shards there are, reading them, generating them: python -m pytest tests/test_dataset.py"""
import sys
import types
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nanochat import dataset
from nanochat.common import DataError, MissingArtifact, UsageError
from nanochat.data import datasets, hub

CLIMBMIX = datasets.DATASETS["climbmix"]
REAL_TEXT = Path(__file__).parents[2] / "shared/data/hub/datasets/karpathy/climbmix-400b-shuffle"


@pytest.fixture
def kindergarten(monkeypatch):
    """A stand-in that says which documents were asked for; the real one has its own tests."""
    module = types.ModuleType("nanochat.kindergarten")
    module.documents = lambda n, seed=0, size=60: (f"document {i} of {seed}" for i in range(n))
    monkeypatch.setitem(sys.modules, "nanochat.kindergarten", module)
    monkeypatch.setattr(datasets, "KINDERGARTEN_SHARD", 5)
    monkeypatch.setattr(datasets, "KINDERGARTEN_VAL", 3)


def write(path, texts=("a text",)):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"text": list(texts), "source": ["x"] * len(texts)}), path)
    return path


def names(paths):
    return [path.name for path in paths]


# ------------------------------------------------------------------------------------------------------- which shards
def test_validation_text_does_not_depend_on_the_number_of_downloaded_shards():
    write(CLIMBMIX.folder / CLIMBMIX.validation, ["held out"])
    for i in range(3):
        write(CLIMBMIX.folder / CLIMBMIX.pattern.format(i))
        assert names(datasets.shards("climbmix", "val")) == ["shard_06542.parquet"]
        assert names(datasets.shards("climbmix", "train")) == [f"shard_{k:05d}.parquet" for k in range(i + 1)]
    assert list(datasets.iter_texts(datasets.shards("climbmix", "val"))) == ["held out"]


def test_training_shards_end_at_the_first_gap():
    for i in (0, 1, 3):
        write(CLIMBMIX.folder / CLIMBMIX.pattern.format(i))
    assert names(datasets.shards("climbmix", "train")) == ["shard_00000.parquet", "shard_00001.parquet"]


def test_half_a_download_is_no_shard():
    write(CLIMBMIX.folder / ".shard_00000.parquet.abc.part")
    with pytest.raises(MissingArtifact, match="python -m nanochat.dataset --dataset=climbmix"):
        datasets.shards("climbmix", "train")


def test_in_a_folder_the_last_file_by_name_is_for_validation(tmp_path):
    for name in ("b", "a", "c"):
        write(tmp_path / "mine" / f"{name}.parquet")
    assert names(datasets.shards(str(tmp_path / "mine"), "train")) == ["a.parquet", "b.parquet"]
    assert names(datasets.shards(tmp_path / "mine", "val")) == ["c.parquet"]


def test_an_unknown_data_set_names_the_known_ones(tmp_path):
    with pytest.raises(UsageError, match="climbmix, fineweb-edu, kindergarten"):
        datasets.shards("climbmax", "train")
    with pytest.raises(UsageError, match="two or more"):
        datasets.shards(write(tmp_path / "one" / "a.parquet").parent, "train")


@pytest.mark.parametrize("row", datasets.DATASETS.values(), ids=lambda row: row.name)
def test_no_training_shard_is_the_validation_shard(row):
    assert row.validation not in {row.pattern.format(i) for i in range(row.n_train)}


# ------------------------------------------------------------------------------------------------------------- reading
def test_texts_come_in_order_without_empty_ones(tmp_path):
    a, b = write(tmp_path / "a.parquet", ["one", "", "two"]), write(tmp_path / "b.parquet", ["drei", None])
    assert list(datasets.iter_texts([b, a])) == ["drei", "one", "two"]
    assert datasets.count_documents(a) == 3


@pytest.mark.parametrize("keep", [0, 3, 200, -1])
def test_a_truncated_shard_is_named(tmp_path, keep):
    path = write(tmp_path / "cut.parquet", ["text"] * 100)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match="cut.parquet"):
        list(datasets.iter_texts([path]))


def test_damage_behind_a_whole_footer_is_named(tmp_path):
    path = write(tmp_path / "hole.parquet", [f"text {i}" for i in range(5000)])
    path.write_bytes(path.read_bytes()[:40] + bytes(400) + path.read_bytes()[440:])
    with pytest.raises(DataError, match="hole.parquet"):
        list(datasets.iter_texts([path]))


def test_a_shard_without_a_text_column_is_named_with_what_it_has(tmp_path):
    pq.write_table(pa.table({"body": ["a"]}), tmp_path / "b.parquet")
    with pytest.raises(DataError, match="b.parquet.*'text'.*body"):
        list(datasets.iter_texts([tmp_path / "b.parquet"]))
    pq.write_table(pa.table({"text": [1]}), tmp_path / "n.parquet")
    with pytest.raises(DataError, match="n.parquet holds int64"):
        list(datasets.iter_texts([tmp_path / "n.parquet"]))


def test_a_missing_shard_is_named(tmp_path):
    with pytest.raises(DataError, match="gone.parquet"):
        list(datasets.iter_texts([tmp_path / "gone.parquet"]))


@pytest.mark.skipif(not REAL_TEXT.is_dir(), reason=f"no real text at {REAL_TEXT}")
def test_real_text_can_be_read_where_it_lies():
    val = datasets.shards(REAL_TEXT, "val")
    assert names(val) == [CLIMBMIX.validation]
    assert sum(1 for _ in datasets.iter_texts(val)) > 100


# ----------------------------------------------------------------------------------------------------------- generated
def test_the_kindergarten_is_generated_on_first_use_and_its_shards_differ(kindergarten):
    train, val = datasets.shards("kindergarten", "train"), datasets.shards("kindergarten", "val")
    texts = list(datasets.iter_texts(train))
    assert len(train) == 4 and len(texts) == len(set(texts)) == 20
    held_out = list(datasets.iter_texts(val))
    assert len(held_out) == 3 and not set(held_out) & set(texts)


def test_more_generated_shards_leave_the_first_as_they_are(kindergarten, capsys):
    dataset.main(["--dataset=kindergarten", "-n", "1"])
    first, = datasets.shards("kindergarten", "train")
    before, stamp = first.read_bytes(), first.stat().st_mtime_ns
    dataset.main(["--dataset=kindergarten", "-n", "3"])
    assert len(datasets.shards("kindergarten", "train")) == 3
    assert first.read_bytes() == before and first.stat().st_mtime_ns == stamp
    assert "3 training shards" in capsys.readouterr().out


def test_an_interrupted_generation_leaves_no_shard_and_goes_on(kindergarten, monkeypatch, base):
    real = pq.write_table
    def stop_at_second(table, path, **more):
        if len(list(base.rglob("*.parquet"))) == 1:
            raise KeyboardInterrupt
        real(table, path, **more)
    monkeypatch.setattr(datasets.pq, "write_table", stop_at_second)
    with pytest.raises(KeyboardInterrupt):
        datasets.shards("kindergarten", "train")
    assert len(list(base.rglob("*"))) == 3                     # base_data, kindergarten, and one whole shard
    monkeypatch.setattr(datasets.pq, "write_table", real)
    assert len(datasets.shards("kindergarten", "train")) == 4


def test_text_generated_by_other_code_is_said(kindergarten, monkeypatch, caplog):
    datasets.shards("kindergarten", "train")
    assert not caplog.text
    datasets._warn_if_stale.cache_clear()
    monkeypatch.setattr(datasets, "_kindergarten_version", lambda: "newer")
    datasets.shards("kindergarten", "train")
    assert "generated by another version" in caplog.text


# ------------------------------------------------------------------------------------------------------------- command
def test_the_command_fetches_what_is_missing_and_the_validation_shard(monkeypatch):
    asked = []
    def fetch(repo, name, dest, on_bytes):
        asked.append((repo, name))
        write(dest)
        on_bytes(10)
    monkeypatch.setattr(hub, "fetch", fetch)
    dataset.main(["-n", "2"])
    assert sorted(asked) == [(CLIMBMIX.repo, f"shard_{i:05d}.parquet") for i in (0, 1, 6542)]
    dataset.main(["-n", "3", "--num-workers=1"])
    assert asked[3:] == [(CLIMBMIX.repo, "shard_00002.parquet")]


def test_the_first_failure_stops_the_other_downloads(monkeypatch):
    asked = []
    def fetch(repo, name, dest, on_bytes):
        asked.append(name)
        if name == "shard_00001.parquet":
            raise hub.HubError("the network is gone")
        on_bytes(1)
        write(dest)
    monkeypatch.setattr(hub, "fetch", fetch)
    with pytest.raises(hub.HubError, match="the network is gone"):
        datasets.download(CLIMBMIX, 500, workers=1)
    assert len(asked) < 500
    assert names(datasets.shards("climbmix", "train")) == ["shard_00000.parquet"]


@pytest.mark.parametrize("flags, said", [(["-n", "9999"], "-n wants 0 to 6542"), (["--dataset=nope"], "got nope"),
                                         (["--num_workers=0"], "--num_workers")])
def test_wrong_flags_are_named(flags, said):
    with pytest.raises(UsageError, match=said):
        dataset.main(flags)


def test_a_macs_hidden_twins_are_no_shards(tmp_path):
    """On disks that are not its own macOS keeps attributes of a.parquet in ._a.parquet."""
    for name in ("a.parquet", "b.parquet"):
        pq.write_table(pa.table({"text": ["words"]}), tmp_path / name)
        (tmp_path / f"._{name}").touch()
    assert [p.name for split in ("train", "val") for p in datasets.shards(str(tmp_path), split)] == ["a.parquet", "b.parquet"]
