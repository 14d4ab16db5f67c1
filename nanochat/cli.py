"""
A script's flags, generated from one dataclass: each field is a default and a help line.

    @dataclass
    class Config:
        depth: int = option(4, "layers; width, heads and horizon follow from it")

    config = parse(Config, argv, __doc__)

Types: int, float, str, bool, and Optional of the first three. Both --matrix_lr and --matrix-lr are
understood, and an abbreviation is refused: a flag that is added later must not change what a short form
means. Validate in __post_init__ by raising UsageError, so that a Config made by a test is held to the same
rules as one from the command line.
"""
import argparse
import dataclasses
import typing
from collections.abc import Sequence

from nanochat.common import UsageError

YES = ("1", "true", "yes", "on")
NO = ("0", "false", "no", "off")

Config = typing.TypeVar("Config")  # whichever dataclass a script has


def option(default: typing.Any, help: str, choices: Sequence[str] | None = None,
           short: str | None = None) -> typing.Any:
    """A dataclass field that becomes the flag --name; `short` is a one-letter form such as 'i'."""
    return dataclasses.field(default=default, metadata={"help": help, "choices": choices, "short": short})


def at_least(config: typing.Any, **least: float) -> None:
    """Raise UsageError for the first field of `config` that is below its least value, or is nan."""
    for name, value in least.items():
        if not getattr(config, name) >= value:  # not `<`, which is false for nan as well
            raise UsageError(f"--{name} must be at least {value}, got {getattr(config, name)}.")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> typing.NoReturn:
        """argparse would print its usage over many lines and exit."""
        raise UsageError(f"{message}. See --help.")


def _boolean(text: str) -> bool:
    word = text.lower()
    if word not in YES + NO:
        raise argparse.ArgumentTypeError(f"wants true or false, got {text!r}")
    return word in YES


def build_parser(config_class: type, doc: str | None = None) -> argparse.ArgumentParser:
    """An argparse parser with one flag for each field of a dataclass; `doc` opens its --help."""
    as_written = argparse.RawDescriptionHelpFormatter
    parser = _Parser(description=doc, formatter_class=as_written, allow_abbrev=False)
    types = typing.get_type_hints(config_class)
    for field in _own_fields_first(config_class):
        _add_flag(parser, field, types[field.name])
    return parser


def _own_fields_first(config_class: type) -> list[dataclasses.Field]:
    """Fields in the order of --help: a script's own before those that it inherits."""
    def distance(field: dataclasses.Field) -> int:
        for steps, ancestor in enumerate(config_class.__mro__):
            if field.name in ancestor.__dict__.get("__annotations__", ()):
                return steps
        raise AssertionError(f"{config_class.__name__} has no {field.name}")

    return sorted(dataclasses.fields(config_class), key=distance)


def _add_flag(parser: argparse.ArgumentParser, field: dataclasses.Field, hint: typing.Any) -> None:
    names = [f"--{field.name}"]
    if "_" in field.name:
        names.append(f"--{field.name.replace('_', '-')}")
    if field.metadata["short"]:
        names.insert(0, f"-{field.metadata['short']}")

    kind = _without_none(hint)
    choices = field.metadata["choices"]
    help_line = field.metadata["help"]
    if field.default is not None and field.default != "":
        help_line += f" (default: {field.default})"
    settings = {
        "dest": field.name,
        "default": field.default,
        "choices": choices,
        "metavar": None if choices else kind.__name__.upper(),
        "help": help_line.replace("%", "%%"),  # argparse formats it
        "type": kind,
    }
    if kind is bool:  # --fresh alone means --fresh=true
        settings.update(type=_boolean, nargs="?", const=True)
    parser.add_argument(*names, **settings)


def _without_none(hint: typing.Any) -> type:
    """The type that `X | None` is about; `hint` itself where it is a plain type."""
    for kind in typing.get_args(hint):
        if kind is not type(None):
            return kind
    return hint


def parse(config_class: type[Config], argv: Sequence[str] | None = None, doc: str | None = None) -> Config:
    """An instance of a dataclass from the command line, or from `argv`. Raises UsageError."""
    return config_class(**vars(build_parser(config_class, doc).parse_args(argv)))
