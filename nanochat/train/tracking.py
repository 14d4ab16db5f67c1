"""
A run's numbers to a tracker, beside its log: --track=tensorboard or wandb.

Each by the library's own API, imported only when asked for. Nothing needs a network: TensorBoard keeps files
(`tensorboard --logdir <base>/logs/tensorboard`), and so does Weights & Biases with WANDB_MODE=offline. Each
sitting is a run of its own there; its steps are counted from the first.
"""
import contextlib
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

from nanochat.common import NanochatError, UsageError, base_dir

TRACKERS = ("", "tensorboard", "wandb")


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
    if tracker == "tensorboard":
        from torch.utils.tensorboard import SummaryWriter

        folder = base_dir() / "logs" / "tensorboard" / run / time.strftime("%Y-%m-%d_%H-%M-%S")
        with SummaryWriter(str(folder)) as writer:
            yield lambda record: _scalars(writer, record)
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


def _scalars(writer, record):
    for name, value in record.items():
        writer.add_scalar(name, value, record["step"])
