"""What a tracker gets of a run is what its log holds: python -m pytest tests/test_tracking.py"""
import importlib.machinery
import json
import os
import subprocess
import sys
import types

import pytest
from conftest import ROOT

from nanochat.common import NanochatError, UsageError, base_dir
from scripts import base_train, tok_train

RUN = ["--dataset=kindergarten", "--depth=1", "--sequence_len=64", "--total_batch_size=256", "--num_iterations=3",
       "--eval_tokens=512", "--device=cpu", "--device_batch_size=4"]


@pytest.fixture
def small(monkeypatch):
    """A kindergarten of a few documents."""
    from nanochat.data import datasets
    monkeypatch.setattr(datasets, "KINDERGARTEN_SHARD", 60)
    monkeypatch.setattr(datasets, "KINDERGARTEN_VAL", 20)
    tok_train.main(["--dataset=kindergarten", "--vocab_size=400"])


def log_of(run="base_d1"):
    lines = (base_dir() / "logs" / f"{run}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


class Library(types.ModuleType):
    """What is used of wandb."""

    def __init__(self):
        super().__init__("wandb")
        self.__spec__ = importlib.machinery.ModuleSpec("wandb", None)
        self.calls = []

    def init(self, **settings):
        self.calls.append(("init", settings))

    def log(self, record, step):
        assert step == record["step"]
        self.calls.append(("log", record))

    def finish(self):
        self.calls.append(("finish", None))


def test_a_tracker_gets_the_numbers_of_each_line_of_the_log(small, monkeypatch):
    library = Library()
    monkeypatch.setitem(sys.modules, "wandb", library)
    base_train.main(["--track=wandb", *RUN])
    (first, settings), *middle, last = library.calls
    assert first == "init" and last[0] == "finish" and settings["name"] == "base_d1" and settings["config"]["depth"] == 1
    logged = [record for record in log_of() if "answers" not in record]               # these are texts
    assert [record.pop("of", 0) for record in logged] == [3, 3, 3, 0]                 # three steps and a validation
    assert [record for _, record in middle] == logged
    assert settings["dir"] == str(base_dir() / "logs")                                # not the current folder
    base_train.main(RUN)                                                              # it is no part of the run's identity


def test_it_ends_when_training_fails(small, monkeypatch):
    library = Library()
    monkeypatch.setitem(sys.modules, "wandb", library)
    monkeypatch.setattr("nanochat.train.loop.train_step", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        base_train.main(["--track=wandb", *RUN])
    assert library.calls[-1] == ("finish", None)


def test_what_the_library_refuses_is_one_line(small, monkeypatch):
    library = Library()
    library.init = lambda **settings: 1 / 0
    monkeypatch.setitem(sys.modules, "wandb", library)
    with pytest.raises(NanochatError, match="--track=wandb: division"):
        base_train.main(["--track=wandb", *RUN])


def test_a_missing_package_is_said_before_the_run_starts(monkeypatch):
    monkeypatch.setattr("nanochat.train.tracking.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r'pip install -c constraints.txt -e "\.\[wandb\]"'):
        base_train.main(["--track=wandb", *RUN])


def test_without_the_flag_nothing_is_imported(small):
    code = f"""
import sys
from scripts import base_train
base_train.main({RUN!r})
print({{"wandb", "transformers"}} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.stdout.endswith("set()\n"), done.stdout + done.stderr


# ---------------------------------------------------------------------------------------- the library itself, where it is
def wandb_records(content):
    """The records in a .wandb file: 7 bytes of header, then LevelDB's log format, blocks of 32 KiB."""
    at, parts = 7, b""
    while at + 7 <= len(content):
        room = 32768 - at % 32768
        size, kind = int.from_bytes(content[at + 4:at + 6], "little"), content[at + 6]
        if room < 7 or kind == 0:          # what is left of a block is zeros
            at += room
            continue
        parts += content[at + 7:at + 7 + size]
        at += 7 + size
        if kind in (1, 4):                 # whole, or the last part
            yield parts
            parts = b""


def test_wandbs_own_file_holds_the_curves_offline(small):
    pytest.importorskip("wandb", reason="wandb is not installed: pip install wandb")
    from wandb.proto import wandb_internal_pb2
    done = subprocess.run([sys.executable, "-m", "scripts.base_train", "--track=wandb", *RUN], cwd=ROOT, text=True,
                          capture_output=True, timeout=240, env={**os.environ, "WANDB_MODE": "offline"})
    assert done.returncode == 0, done.stdout + done.stderr
    path, = (base_dir() / "logs" / "wandb").glob("offline-run-*/*.wandb")
    losses = []
    for content in wandb_records(path.read_bytes()):
        record = wandb_internal_pb2.Record.FromString(content)
        losses += [float(item.value_json) for item in record.history.item if "loss" in (item.key, *item.nested_key)]
    assert losses == [one["loss"] for one in log_of() if "loss" in one]
