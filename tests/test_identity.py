"""What decides a run is its identity: every flag of every training script, tried with another value on a finished run."""
import importlib
import json
from dataclasses import fields

import pytest
from safetensors.torch import load_file

from nanochat.common import CheckpointError, base_dir
from nanochat.train import checkpoint
from nanochat.train.recipe import INDIFFERENT, RESOLVED
from nanochat.train.stages import STAGES

EVERY = ["--num_iterations=2", "--device=cpu", "--device_batch_size=4", "--tag=t"]
LATER = ["--source_tag=t", *EVERY]
FLAGS = {
    "base": ["--dataset=kindergarten", "--depth=1", "--sequence_len=64", "--total_batch_size=256", "--eval_tokens=256", *EVERY],
    "mid": ["--conversations=60", *LATER],
    "sft": ["--conversations=60", *LATER],
    "rl": ["--questions=2", "--samples=2", "--max_new_tokens=6", "--anchor_rows=4", *LATER],
}
# Where one more, or half as much, would not do.
OTHER = {
    "dataset": ["--dataset={base}/mine"], "data": ["--data=simplespelling"], "tasks": ["--tasks=kg_identity"],
    "sequence_len": ["--sequence_len=32"], "total_batch_size": ["--total_batch_size=512"], "conversations": ["--conversations=80"],
    "device_batch_size": ["--device_batch_size=2"], "device": ["--device=cpu"], "source_tag": ["--source_tag=other"],
    "name": ["--name=Ada"], "made_by": ["--made_by=two sisters"],
    "save_every": ["--save_every=1"], "track": ["--track=wandb"],
    "param_data_ratio": ["--num_iterations=0", "--param_data_ratio=0.01"], "epochs": ["--num_iterations=0", "--epochs={epochs}"],
}
EPOCHS = {"mid": 3, "sft": 3, "rl": 0.02}  # one of RL is some thousand questions, with eight times as many anchors
OTHER_SOURCE = {"mid": "sft", "sft": "base", "rl": "mid"}


def script(stage):
    return importlib.import_module(f"scripts.{STAGES[stage].script}")


def flags_of(kind):
    """(stage, flag) of all training scripts, of the one kind or the other; what begins anew or does nothing is neither."""
    for stage in STAGES:
        for field in fields(script(stage).Config):
            indifferent = field.name in INDIFFERENT
            if field.name not in ("fresh", "dry_run", "tag") and indifferent == (kind == "indifferent"):
                yield pytest.param(stage, field.name, id=f"{STAGES[stage].script}-{field.name}")


def other(stage, flag):
    """Arguments that give the flag another value than the finished run had."""
    if flag == "source":
        return [f"--source={OTHER_SOURCE[stage]}"]
    if flag in OTHER:
        return [argument.format(base=base_dir(), epochs=EPOCHS.get(stage)) for argument in OTHER[flag]]
    given = next((word.partition("=")[2] for word in FLAGS[stage] if word.startswith(f"--{flag}=")), None)
    value = next(field.default for field in fields(script(stage).Config) if field.name == flag)
    assert not isinstance(value, str), f"say in OTHER what else --{flag} may be"
    if isinstance(value, bool):
        return [f"--{flag}={not value}"]
    if isinstance(value, int):
        return [f"--{flag}={2 * int(given or value) or 1}"]
    return [f"--{flag}={value / 2 if value else 0.1}"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A base directory in which every stage has run, and a second model at every source."""
    folder = tmp_path_factory.mktemp("identity")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NANOCHAT_BASE_DIR", str(folder))
        from nanochat.data import datasets
        from scripts import tok_train
        patch.setattr(datasets, "KINDERGARTEN_SHARD", 60)
        patch.setattr(datasets, "KINDERGARTEN_VAL", 20)
        tok_train.main(["--dataset=kindergarten", "--vocab_size=400"])
        script("base").main([*FLAGS["base"], "--tag=other", "--seed=5"])
        for stage in ("mid", "sft"):
            script(stage).main([*FLAGS[stage], "--tag=other", "--source_tag=other"])
        for stage in STAGES:
            script(stage).main(FLAGS[stage])
        mine = folder / "mine"
        mine.mkdir()
        for name in ("train_000.parquet", "val.parquet"):
            (mine / name).write_bytes((folder / "base_data" / "kindergarten" / name).read_bytes())
    return folder


@pytest.fixture(autouse=True)
def there(finished, monkeypatch):
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(finished))


@pytest.mark.parametrize("stage, flag", list(flags_of("deciding")))
def test_another_value_is_refused_with_both(stage, flag):
    before = checkpoint.find(stage, "t").stat().st_mtime_ns
    key = RESOLVED.get(flag, flag)
    with pytest.raises(CheckpointError) as error:
        script(stage).main([*FLAGS[stage], *other(stage, flag)])
    there, here = str(error.value).split(", this one has ")
    assert f"{key}=" in there and f"{key}=" in here and "--fresh" in here
    if flag not in RESOLVED and flag not in ("data", "tasks", "dataset"):
        identity = checkpoint.read_meta(checkpoint.find(stage, "t"))["identity"]
        assert other(stage, flag)[0][2:] in here and f"{flag}={identity[flag]}" in there
    assert checkpoint.find(stage, "t").stat().st_mtime_ns == before


@pytest.mark.parametrize("stage, flag", list(flags_of("indifferent")))
def test_flags_that_decide_nothing_may_change(stage, flag):
    if flag == "track":
        pytest.importorskip("wandb", reason="an optional extra")
    before = (checkpoint.find(stage, "t") / "model.safetensors").stat().st_mtime_ns
    script(stage).main([*FLAGS[stage], *other(stage, flag)])
    assert (checkpoint.find(stage, "t") / "model.safetensors").stat().st_mtime_ns == before


def test_flags_that_decide_nothing_leave_the_weights_bit_for_bit():
    """Rounding apart, which another device, another split of the batch and a compiler change."""
    script("base").main([*FLAGS["base"], "--tag=looked_at", "--eval_every=1", "--eval_tokens=512", "--save_every=1", "--keep=1",
                         "--compile=false", "--recompute", "--save_minutes=0"])
    straight, looked_at = (load_file(checkpoint.find("base", tag) / "model.safetensors") for tag in ("t", "looked_at"))
    assert all((weight == looked_at[name]).all() for name, weight in straight.items())


def test_every_name_in_the_tables_is_a_flag():
    known = {field.name for stage in STAGES for field in fields(script(stage).Config)}
    assert INDIFFERENT | RESOLVED.keys() <= known and not INDIFFERENT & RESOLVED.keys()


# --------------------------------------------------------------------------------------------------------- older, mixed
def rewrite(stage, **more):
    """The stage's meta.json with other contents, under a seal that fits."""
    folder = checkpoint.find(stage, "t")
    kept = (folder / "meta.json").read_bytes()
    checkpoint._write_meta(folder, {**checkpoint.read_meta(folder), **more})
    return folder, kept


OLD_KEYS = ("dataset", "data", "rows", "tokenizer", "model", "steps", "batch_tokens", "fp8", "source", "tasks", "questions")


@pytest.mark.parametrize("stage, flag", [("base", "matrix_lr"), ("base", "weight_decay"), ("mid", "lr_scale"),
                                         ("rl", "temperature")])
def test_a_run_from_before_a_flag_goes_on(stage, flag):
    meta = checkpoint.read_meta(checkpoint.find(stage, "t"))
    old = {key: meta["identity"][key] for key in OLD_KEYS if key in meta["identity"]}
    old["model"].pop("rope_base")                                      # a field that is younger has its default
    folder, kept = rewrite(stage, identity=old)
    try:
        script(stage).main([*FLAGS[stage], *other(stage, flag)])       # nothing is known of it
    finally:
        (folder / "meta.json").write_bytes(kept)


def test_what_is_reported_of_a_finished_run_is_what_trained_it():
    script("base").main([*FLAGS["base"], "--keep=7"])
    result = json.loads((base_dir() / "report" / "results" / "base_train.json").read_text(encoding="utf-8"))
    assert result["config"]["keep"] == 2 and result["notes"] == []


def test_going_on_at_another_commit_is_noted_in_the_result(monkeypatch):
    from test_pipeline import interrupted_in_its_first_step
    flags = [*FLAGS["base"], "--tag=mixed", "--num_iterations=3"]
    interrupted_in_its_first_step(script("base").main, flags)
    before = checkpoint.read_meta(checkpoint.find("base", "mixed"))["commit"]
    monkeypatch.setattr("nanochat.train.resume.git_commit", lambda: "abc1234")
    script("base").main(flags)
    result = json.loads((base_dir() / "report" / "results" / "base_train.json").read_text(encoding="utf-8"))
    assert result["notes"] == [f"from step 2 on commit=abc1234, before commit={before}"]


def test_replace_starts_over_only_where_something_differs(caplog):
    flags = [*FLAGS["base"], "--tag=replaced", "--replace"]
    script("base").main(flags)
    first = checkpoint.read_meta(checkpoint.find("base", "replaced"))
    script("base").main(flags)
    assert checkpoint.read_meta(checkpoint.find("base", "replaced"))["time"] == first["time"]
    script("base").main([*flags, "--seed=3"])
    second = checkpoint.read_meta(checkpoint.find("base", "replaced"))
    assert second["time"] > first["time"] and second["identity"]["seed"] == 3
    assert second["files"]["model.safetensors"] != first["files"]["model.safetensors"]


# ---------------------------------------------------------------------------------------------------------- its name
def test_later_stages_keep_the_name_that_midtraining_gave():
    ada = {"name": "Ada", "made_by": "two sisters"}
    source = ["--tag=ada", "--source_tag=ada"]
    script("mid").main([*FLAGS["mid"], "--tag=ada", "--name=Ada", "--made_by=two sisters"])
    script("sft").main([*FLAGS["sft"], *source])
    script("rl").main([*FLAGS["rl"], *source, "--tasks=kg_identity"])
    for stage in ("mid", "sft", "rl"):
        meta = checkpoint.read_meta(checkpoint.find(stage, "ada"))
        assert meta["persona"] == ada and ada.items() <= meta["identity"].items()
    assert checkpoint.read_meta(checkpoint.find("sft", "t"))["persona"]["name"] == "nanochat"
    rows = [checkpoint.read_meta(checkpoint.find("sft", tag))["identity"]["rows"] for tag in ("t", "ada")]
    assert rows[0] != rows[1]
