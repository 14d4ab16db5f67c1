"""
A script's flags, generated from one dataclass: each field is a default and a help line.

    @dataclass
    class Config:
        depth: int = option(4, "layers; width, heads and horizon follow from it")

    config = parse(Config, argv, __doc__)

Types: int, float, str, bool, and Optional of the first three. Validate in __post_init__ by raising UsageError.
"""
import argparse
import dataclasses
import typing

from nanochat.common import UsageError


def option(default, help, choices=None, short=None):
    """A field that becomes the flag --name; `short` is a one-letter form such as 'i'."""
    return dataclasses.field(default=default, metadata={"help": help, "choices": choices, "short": short})


def at_least(config, **least):
    """Raise UsageError for the first field that is below its least value."""
    for name, value in least.items():
        if not getattr(config, name) >= value:  # nan
            raise UsageError(f"--{name} must be at least {value}, got {getattr(config, name)}.")


class _Parser(argparse.ArgumentParser):
    def error(self, message):
        raise UsageError(f"{message}. See --help.")


def _boolean(text):
    yes, no = ("1", "true", "yes", "on"), ("0", "false", "no", "off")
    if text.lower() not in yes + no:
        raise argparse.ArgumentTypeError(f"wants true or false, got {text!r}")
    return text.lower() in yes


def build_parser(cls, doc=None) -> argparse.ArgumentParser:
    parser = _Parser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    hints = typing.get_type_hints(cls)
    inherited = {f.name: next(i for i, c in enumerate(cls.__mro__) if f.name in c.__dict__.get("__annotations__", ()))
                 for f in dataclasses.fields(cls)}
    for f in sorted(dataclasses.fields(cls), key=lambda f: inherited[f.name]):  # its own flags first
        short, choices = f.metadata["short"], f.metadata["choices"]
        names = ([f"-{short}"] if short else []) + list(dict.fromkeys((f"--{f.name}", f"--{f.name.replace('_', '-')}")))
        kind = next((a for a in typing.get_args(hints[f.name]) if a is not type(None)), hints[f.name])  # Optional
        shown = "" if f.default is None or f.default == "" else f" (default: {f.default})"
        more = {"nargs": "?", "const": True, "type": _boolean} if kind is bool else {"type": kind}
        parser.add_argument(*names, dest=f.name, default=f.default, choices=choices,
                            metavar=None if choices else kind.__name__.upper(),
                            help=(f.metadata["help"] + shown).replace("%", "%%"), **more)
    return parser


def parse(cls, argv=None, doc=None):
    """An instance of `cls` from the command line. Raises UsageError."""
    return cls(**vars(build_parser(cls, doc).parse_args(argv)))
