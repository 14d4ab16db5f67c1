"""
Memory that runs out: less goes through the model at a time, and what is computed stays the same.

Whoever takes a batch apart (rows of a step, replies, tokens of prompts) hands the work to `fitted`. Results
change by rounding only: a step's loss is a sum over one global count, and a reply's random numbers are its
own.
"""
import contextlib
import gc
from collections.abc import Callable, Iterator
from typing import Any

import torch

from nanochat import runtime, scaling
from nanochat.common import NanochatError, log
from nanochat.runtime import Runtime

# Of MPS, the CPU's allocator and NVIDIA's libraries; others raise torch.OutOfMemoryError.
SIGNS = ("out of memory", "can't allocate memory", "not enough memory", "_STATUS_ALLOC_FAILED")


class OutOfMemory(NanochatError):
    """The least there is does not fit."""


class RanOut(torch.OutOfMemoryError):
    """Memory ran out on a rank; all raise it, to go on with less together."""


def ran_out(error: BaseException | None) -> bool:
    """Whether an error means that memory ran out, or came up while such a one was handled."""
    while error is not None:
        if isinstance(error, (torch.OutOfMemoryError, MemoryError, OutOfMemory)):
            return True
        if isinstance(error, RuntimeError) and any(sign in str(error) for sign in SIGNS):
            return True
        error = error.__context__
    return False


def fitted(model: Any, unit: str, size: int, work: Callable[[int], Any], training: bool = False) -> Any:
    """work(size), called anew with half the size as often as memory runs out. Raises OutOfMemory at 1.

    `work` takes up what is still to do, at most `size` of `unit` at a time. In `training` ranks wait for each
    other, so only RanOut counts, and where not even one fits, recomputation comes on (GPT.recompute).
    """
    known = vars(model).setdefault("fitted", {})  # {unit: size}, for the next batch
    asked = size
    size = min(size, known.get(unit, size))
    while True:
        try:
            return work(size)
        except (RuntimeError, MemoryError) as error:
            if not isinstance(error, RanOut) and (training or not ran_out(error)):
                raise
        # Not above: an error that is handled holds its frames, with the attempt's tensors.
        gc.collect()
        if torch.accelerator.is_available():
            torch.get_device_module().empty_cache()
        what = f"memory ran out with {size:,} {unit} at a time"
        if size > 1:
            size //= 2
        elif training and not model.recompute:
            model.recompute = True
            what += ", now with --recompute"
            size = asked
        else:
            raise OutOfMemory(f"{what}. Take a device with more, or a smaller model.")
        log.info(f"{what}: going on with at most {size:,}")
        known[unit] = size


@contextlib.contextmanager
def must_fit(config: Any, rt: Runtime) -> Iterator[None]:
    """Within it memory that runs out in training a model of this GPTConfig is one line: what would fit."""
    def gib(depth):  # recomputing, a row at a time, a tenth left free
        return scaling.memory_bytes(depth, config.vocab_size, config.sequence_len, 1, rt.world_size,
                                    rt.dtype.itemsize, config.value_tables, recompute=True) / 0.9 / 2**30

    try:
        yield
    except (RuntimeError, MemoryError, OutOfMemory) as error:
        if not ran_out(error):
            raise
        depth = config.n_layer
        here = runtime.memory_gib(rt)
        fits = max((smaller for smaller in range(1, depth) if gib(smaller) < here), default=1)
        raise OutOfMemory(f"memory ran out: a d{depth} with {config.sequence_len:,} tokens of context wants "
                          f"{gib(depth):.1f} of {here:.1f} GiB here. By the plan --depth={fits} fits, or a "
                          "shorter --sequence_len.") from None
