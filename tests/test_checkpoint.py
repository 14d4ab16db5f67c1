"""A checkpoint is a model wherever it is carried, for whoever may read it, and only proven damage is damage."""
import contextlib
import os
import shutil
import stat
import tempfile
from pathlib import Path

import pytest
import torch
from test_train import make
from tiny import save_tiny_checkpoint, tiny_model, tiny_tokenizer

from nanochat.common import CheckpointError, Unreadable, atomic_dir
from nanochat.data.tokenizer import Tokenizer
from nanochat.runtime import Runtime
from nanochat.train import checkpoint, finetune, loop
from scripts import chat_cli, chat_sft


def save_model(stage, tag="tiny", tokenizer=None, step=5):
    """A checkpoint with its tokenizer inside, as training leaves it, and none beside it; returns its folder."""
    tokenizer = tokenizer or tiny_tokenizer()
    model = tiny_model(tokenizer.vocab_size)
    folder = checkpoint.stage_dir(stage) / tag
    checkpoint.save(folder, step, model.state_dict(), None,
                    {"model": vars(model.config), "tokenizer": tokenizer.hash, "dataset": "kindergarten"}, tokenizer=tokenizer)
    return checkpoint.step_dir(folder, step)


# ------------------------------------------------------------------------------------------------- who may read it
@contextlib.contextmanager
def denied(path):
    """Within it nobody may read `path`; root, to whom that means nothing, is somebody else."""
    mode = path.stat().st_mode
    path.chmod(0)
    root = os.geteuid() == 0
    try:
        if root:
            os.seteuid(65534)
        yield
    finally:
        if root:
            os.seteuid(0)
        path.chmod(mode)


@pytest.fixture
def open_folder():
    """One that somebody else can get into, unlike pytest's."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.mark.parametrize("umask, mode", [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_the_umask_holds_for_every_file(umask, mode):
    before = os.umask(umask)
    try:
        folder = save_model("sft")
        checkpoint.amend(folder.parent, 5, 2, val=1.0)
    finally:
        os.umask(before)
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {mode}
    assert sorted(path.name for path in folder.iterdir()) == ["meta.json", "model.safetensors", "tokenizer.json"]
    assert stat.S_IMODE(folder.stat().st_mode) == 0o777 & ~umask


def test_a_folder_that_a_library_fills_with_private_files_is_by_the_umask_too(tmp_path):
    with atomic_dir(tmp_path / "out") as folder:
        os.close(os.open(folder / "weights", os.O_CREAT | os.O_WRONLY, 0o600))
    plain = tmp_path / "plain"
    plain.touch()
    assert (tmp_path / "out" / "weights").stat().st_mode == plain.stat().st_mode


@pytest.mark.parametrize("name", ["", "000002", "000002/meta.json", "000002/model.safetensors", "000002/optim.safetensors"])
def test_a_run_does_not_begin_anew_beside_a_checkpoint_that_it_may_not_read(open_folder, name, monkeypatch):
    loop.run(*make(open_folder, steps=2))
    parts = make(open_folder, steps=4)
    parts[0].identity["steps"] = 2
    with denied(open_folder / "run" / name), pytest.raises(Unreadable, match=f"{name}.*Permission denied") as error:
        loop.run(*parts)
    assert "--fresh" not in str(error.value) and "elete" not in str(error.value)
    assert checkpoint.steps_in(open_folder / "run") == [2]


def test_a_disks_error_is_not_damage(tmp_path, monkeypatch):
    loop.run(*make(tmp_path, steps=2))

    def fails(path):
        raise OSError(5, "Input/output error")
    monkeypatch.setattr(checkpoint, "sha256", fails)
    with pytest.raises(Unreadable, match="safetensors: Input/output error"):
        loop.run(*make(tmp_path, steps=2))


def test_a_file_that_is_gone_stops_a_run_and_names_it(tmp_path):
    loop.run(*make(tmp_path, steps=2))
    (tmp_path / "run" / "000002" / "optim.safetensors").unlink()
    with pytest.raises(Unreadable, match="optim.safetensors: No such file"):
        loop.run(*make(tmp_path, steps=2))
    assert checkpoint.steps_in(tmp_path / "run") == [2]


def test_a_checkpoint_of_newer_code_is_not_passed_over(tmp_path):
    loop.run(*make(tmp_path, steps=2))
    folder = tmp_path / "run" / "000002"
    checkpoint._write_meta(folder, {**checkpoint.read_meta(folder), "format": 99})
    with pytest.raises(CheckpointError, match="format 99.*update the code"):
        loop.run(*make(tmp_path, steps=2))


def test_nobody_is_told_to_train_again_what_they_may_not_read(open_folder, monkeypatch):
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(open_folder))
    folder = save_model("sft")
    for path in (folder / "model.safetensors", folder / "tokenizer.json", folder, folder.parent, folder.parent.parent):
        with denied(path), pytest.raises(Unreadable, match="Permission denied") as error:
            checkpoint.load_model(checkpoint.newest_chat_stage(), Runtime())
        assert "--fresh" not in str(error.value)
    tiny_tokenizer().save()
    with denied(open_folder / "tokenizer"), pytest.raises(Unreadable, match="tokenizer.json: Permission denied"):
        Tokenizer.load()


# ------------------------------------------------------------------------------------------------- its own tokenizer
@pytest.mark.parametrize("beside", ["no tokenizer", "another tokenizer"])
def test_a_tags_folder_alone_is_enough_to_chat(tmp_path, monkeypatch, capsys, beside):
    folder = save_model("sft")
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(folder.parent, elsewhere / "sft_checkpoints" / "tiny")
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(elsewhere))
    if beside == "another tokenizer":
        Tokenizer.train(["another text"] * 9, 300).save()
    assert chat_cli.main(["-p", "hello", "--max_tokens=3", "--device=cpu"]) is None
    said = capsys.readouterr()
    assert "sft model tiny, step 5: " in said.err and "sft model" not in said.out
    origin = finetune.start(chat_sft.Config(source="sft", source_tag="tiny", tag="more", device="cpu"), "sft")
    assert origin.tokenizer.hash == tiny_tokenizer().hash == origin.identity()["tokenizer"]


def test_a_checkpoint_without_its_tokenizer_takes_no_other_and_says_which_it_wants():
    model, tokenizer = save_tiny_checkpoint("sft", "kindergarten")     # the right one lies in the base directory, too
    meta = checkpoint.read_meta(checkpoint.find("sft"))
    checkpoint.save(checkpoint.stage_dir("sft") / "bare", 5, model.state_dict(), None, meta)
    folder = checkpoint.find("sft", "bare")
    other = Tokenizer.train(["another text"] * 9, 300)
    for change in (lambda: None, lambda: other.save(folder)):
        change()
        with pytest.raises(CheckpointError, match=f"tokenizer {tokenizer.hash}.*Put the tokenizer.json") as error:
            checkpoint.load_model("sft", Runtime(), "bare")
        assert "--fresh" not in str(error.value) and "tok_train" not in str(error.value)
    tokenizer.save(folder)
    assert checkpoint.load_model("sft", Runtime(), "bare")[1].hash == tokenizer.hash


def test_a_damaged_tokenizer_inside_is_damage(tmp_path):
    for step in (5, 6):
        folder = save_model("sft", step=step)
    (folder / "tokenizer.json").write_text("{}", encoding="utf-8")
    assert checkpoint.load_model("sft", Runtime())[2]["step"] == 5


def test_training_puts_the_tokenizer_into_its_checkpoints(tmp_path):
    stage, *rest = make(tmp_path, steps=2)
    stage.tokenizer = tiny_tokenizer()
    loop.run(stage, *rest)
    assert Tokenizer.load(tmp_path / "run" / "000002").hash == stage.tokenizer.hash


# ------------------------------------------------------------------------------------------------- the newest
def test_the_newest_model_is_found_though_an_archive_lost_the_files_times():
    old, new = save_model("sft", "old"), save_model("sft", "new")
    for path, when in ((old, 2_000_000_000), (new, 1_000_000_000)):
        for file in [*path.iterdir(), path]:
            os.utime(file, (when, when))
    assert checkpoint.newest_tag("sft") == "new"
    for folder in (old, new):                              # older code did not write the time down
        meta = checkpoint.read_meta(folder)
        del meta["time"]
        checkpoint._write_meta(folder, meta)
    os.utime(old, (1_000_000_000, 1_000_000_000))
    assert checkpoint.newest_tag("sft") == "new"
    os.utime(new, (900_000_000, 900_000_000))
    assert checkpoint.newest_tag("sft") == "old"


def test_a_tag_is_looked_for_in_the_stage_that_has_it():
    save_model("rl", "d3")
    save_model("sft", "house")
    assert checkpoint.newest_chat_stage() == "rl" == checkpoint.newest_chat_stage("d3")
    assert checkpoint.newest_chat_stage("house") == "sft" == checkpoint.newest_chat_stage("nowhere")


def test_what_was_taken_is_said_in_one_line(caplog):
    caplog.set_level("INFO", "nanochat")
    save_model("sft", "mine", step=1234)
    checkpoint.load_model("sft", Runtime())
    assert [line for line in caplog.messages if "model" in line] == [
        f"sft model mine, step 1,234: {tiny_model(tiny_tokenizer().vocab_size).num_params():,} parameters, on 1 x cpu, float32"]


def test_what_was_found_out_later_is_sealed_and_a_kill_meanwhile_leaves_nothing(tmp_path):
    checkpoint.save(tmp_path, 1, {"w": torch.ones(1)}, None, {"note": "here"})
    checkpoint.amend(tmp_path, 1, 2, val=3.0)
    (tmp_path / "000001" / ".meta.json.77.tmp").write_text("half", encoding="utf-8")
    checkpoint.sweep(tmp_path)
    meta = checkpoint.load(tmp_path / "000001")[2]
    assert (meta["note"], meta["val"]) == ("here", 3.0)
    assert sorted(path.name for path in (tmp_path / "000001").iterdir()) == ["meta.json", "model.safetensors"]
