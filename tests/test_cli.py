"""
Flags are what the dataclass says: both spellings, exact types, no guessing, and one clear line for what cannot be used.
"""
from dataclasses import asdict, dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanochat.cli import build_parser, option, parse
from nanochat.common import UsageError


@dataclass
class Config:
    """The kinds of fields there are."""

    depth: int = option(4, "layers")
    matrix_lr: float = option(0.02, "rate, 50 % of the other")
    run_name: str = option("", "name", short="n")
    fresh: bool = option(False, "start over")
    tools: bool = option(True, "use tools")
    step: int | None = option(None, "which")
    tag: str | None = option(None, "tag")
    stage: str = option("sft", "model", choices=["base", "sft"], short="i")

    def __post_init__(self):
        if self.depth < 1:
            raise UsageError(f"--depth must be at least 1, got {self.depth}")


def test_defaults():
    assert parse(Config, []) == Config()


@pytest.mark.parametrize("argv, field, value", [
    (["--depth=12"], "depth", 12), (["--depth", "12"], "depth", 12), (["--matrix_lr=1e-3"], "matrix_lr", 1e-3),
    (["--matrix-lr=1e-3"], "matrix_lr", 1e-3), (["--run-name", "a b"], "run_name", "a b"), (["-n", "x"], "run_name", "x"),
    (["--fresh"], "fresh", True), (["--fresh=false"], "fresh", False), (["--tools=0"], "tools", False),
    (["--tools", "no"], "tools", False), (["--step=7"], "step", 7), (["--tag=t"], "tag", "t"), (["-i", "base"], "stage", "base"),
    (["--stage=base"], "stage", "base")])
def test_a_flag_sets_its_field_and_no_other(argv, field, value):
    config = parse(Config, argv)
    assert getattr(config, field) == value and type(getattr(config, field)) is type(value)
    assert asdict(config) == {**asdict(Config()), field: value}


@pytest.mark.parametrize("argv, word", [
    (["--depht=3"], "depht"), (["--dep=3"], "dep"), (["--depth=3.5"], "3.5"), (["--depth"], "depth"), (["--fresh=maybe"], "maybe"),
    (["--stage=mid"], "mid"), (["stray"], "stray"), (["--depth=0"], "--depth"), (["--step=last"], "last")])
def test_what_cannot_be_used_is_named(argv, word):
    with pytest.raises(UsageError, match=word):
        parse(Config, argv)


def test_help_tells_every_flag_its_meaning_and_its_default(capsys):
    with pytest.raises(SystemExit) as stop:
        parse(Config, ["--help"], "What it does.\n\n    python -m scripts.it --depth=4")
    text = capsys.readouterr().out
    assert stop.value.code == 0
    for part in ("What it does.", "    python -m scripts.it --depth=4", "layers (default: 4)", "--matrix-lr", "50 % of the other"):
        assert part in text


def test_every_flag_has_a_help_line():
    for action in build_parser(Config)._actions:
        assert action.help


@given(st.integers(1, 10**12), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=30), st.booleans())
def test_values_survive_the_command_line(depth, rate, name, fresh):
    argv = [f"--depth={depth}", f"--matrix_lr={rate!r}", f"--run_name={name}", f"--fresh={fresh}"]
    config = parse(Config, argv)
    assert (config.depth, config.matrix_lr, config.run_name, config.fresh) == (depth, rate, name, fresh)
