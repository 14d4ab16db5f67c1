"""
A run's numbers to Weights & Biases, beside its log: --track=wandb, by its own API, imported only when asked
for.

WANDB_MODE=offline keeps them in files. Each sitting is a run of its own there; its steps are counted from the
first.
"""
import contextlib
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

from nanochat.common import NanochatError, UsageError, base_dir

TRACKERS = ("", "wandb")


def require(tracker: str) -> None:
    """Raise UsageError where the package is missing: before a run, not after its data are ready."""
    if tracker and find_spec(tracker) is None:
        raise UsageError(f"--track={tracker} wants its package: "
                         f'pip install -c constraints.txt -e ".[{tracker}]"')


@contextlib.contextmanager
def tracked(tracker: str, run: str, config: dict[str, Any]) -> Iterator[Callable[[dict], None]]:
    """Yield what takes a record of the log, {"step": ..., ...}; "" does nothing. Raises NanochatError."""
    if not tracker:
        yield lambda record: None
        return
    import wandb

    try:
        wandb.init(project="nanochat", name=run, config=config, dir=str(base_dir() / "logs"))
    except Exception as error:  # no key, and no terminal to ask for one
        raise NanochatError(f"--track={tracker}: {error}") from None
    try:
        yield lambda record: wandb.log(record, step=record["step"])
    finally:
        wandb.finish()
