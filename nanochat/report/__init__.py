"""
The report card: results become report.md and report.html; nothing else writes Markdown.

    python -m nanochat.report reset       forget earlier results, start the clock
    python -m nanochat.report generate    write report.md and report.html
"""
import sys
from dataclasses import dataclass

from nanochat.cli import option, parse
from nanochat.common import UsageError, setup_logging
from nanochat.report.card import generate, reset


@dataclass
class Config:
    out: str = option(".", "generate: folder that gets a copy of both and of the pictures; '' for none")


def main(argv: list[str] | None = None) -> None:
    argv = list(sys.argv[1:] if argv is None else argv)
    action = ""
    if argv and not argv[0].startswith("-"):
        action = argv.pop(0)
    config = parse(Config, argv, __doc__)
    if action not in ("reset", "generate"):
        raise UsageError(f"python -m nanochat.report wants reset or generate, got {action or 'nothing'}. "
                         "See --help.")
    setup_logging()
    if action == "reset":
        reset()
    else:
        generate(config.out)
