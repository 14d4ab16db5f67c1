"""
Where the computation runs: rank, device, dtype, and the few collectives that the project needs.

With several devices every one has a process of its own, called a *rank*, and all run the same program
(torchrun starts them). They share nothing; from time to time all of them call the same *collective*, such as
all_reduce_sum, which exchanges tensors between them: by NCCL between NVIDIA's GPUs, by gloo between CPUs,
which is how the tests prove it. A collective waits until every rank has called it, in the same order. A rank
that takes another branch, or dies, leaves the others waiting; hence `watched`.

The only reader of torchrun's RANK, WORLD_SIZE, LOCAL_RANK and of NANOCHAT_DTYPE. On one process every
collective is the identity, so that callers need not ask.
"""
import contextlib
import ctypes
import os
import platform
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, NoReturn

import torch
import torch.distributed as dist

from nanochat import scaling
from nanochat.common import NanochatError, UsageError, cpu_name, main_memory_gib

DTYPES = {
    "bfloat16": torch.bfloat16, "bf16": torch.bfloat16,
    "float32": torch.float32, "fp32": torch.float32,
    "float16": torch.float16, "fp16": torch.float16,
}
COLLECTIVE_TIMEOUT = timedelta(hours=1)  # so long rank 0 may tokenize while the others wait
HANG_S = 600  # without a new sum: a rank hangs
ANSWER_S = 10  # between two looks at how far each rank came


@dataclass(frozen=True)
class Runtime:
    """What a process knows of its place; made once by `init` and handed to whoever computes."""

    rank: int = 0  # of world_size, over all nodes; rank 0 writes files and speaks
    world_size: int = 1
    device: torch.device = torch.device("cpu")
    dtype: torch.dtype = torch.float32  # to compute in
    device_name: str = "cpu"
    peak_flops: float | None = None  # of one device in bf16; None when unknown
    started: float = field(default_factory=time.monotonic)
    # One number: how many, for `watched`.
    sums_begun: list[int] = field(default_factory=lambda: [0], compare=False)

    def __str__(self) -> str:
        return f"{self.world_size} x {self.device_name}, {str(self.dtype).removeprefix('torch.')}"


# ---- this process's place
def init(device: str = "") -> Runtime:
    """Find the device (`device`, or the best that there is) and, under torchrun, join the others. Once, in
    main.

    Raises UsageError where the device cannot be used.
    """
    rank = int(os.environ.get("RANK", "0"))
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))  # within this node: which of its GPUs
    found = _pick_device(device, local_rank)
    peak_flops = None
    if found.type == "cuda":
        torch.cuda.set_device(found)
        torch.set_float32_matmul_precision("high")  # tf32 for what is left in fp32
        name = torch.cuda.get_device_name(found)
        gpu = scaling.gpu_named(name)
        if gpu:
            peak_flops = scaling.GPUS[gpu].peak_flops
    else:
        name = found.type
        if name == "cpu":
            name = f"{cpu_name()} ({torch.get_num_threads()} threads)"
        _keep_freed_memory()
    if world_size > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if found.type == "cuda" else "gloo", timeout=COLLECTIVE_TIMEOUT)
    return Runtime(rank, world_size, found, _pick_dtype(found), name, peak_flops)


def close(rt: Runtime) -> None:
    """Leave the process group; every rank calls."""
    if rt.world_size > 1 and dist.is_initialized():
        dist.destroy_process_group()


def _pick_device(wanted: str, local_rank: int) -> torch.device:
    kind = wanted
    if not kind:
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        kind = accelerator.type if accelerator else "cpu"
    try:
        device = torch.device(kind, local_rank) if kind == "cuda" else torch.device(kind)
        torch.empty(1, device=device)  # a device may be known and yet not work
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"--device={kind} cannot be used here: {str(error).splitlines()[0]}. "
                         "Without it the best there is is taken.") from None
    return device


def _pick_dtype(device: torch.device) -> torch.dtype:
    """bf16 where the hardware multiplies it faster than fp32, else fp16, else fp32.

    bf16 has float32's range with 8 bits of precision, enough for products that are summed in float32. fp16
    has more precision but little range, so its gradients must be scaled (nanochat/train); it is for GPUs that
    have nothing else.
    """
    wanted = os.environ.get("NANOCHAT_DTYPE")
    if wanted:
        if wanted not in DTYPES:
            raise UsageError(f"NANOCHAT_DTYPE must be one of {', '.join(DTYPES)}, got {wanted!r}.")
        return DTYPES[wanted]
    if device.type == "cuda":
        capability = torch.cuda.get_device_capability(device)
        if capability >= (8, 0):  # Ampere: A100, RTX 30
            return torch.bfloat16
        return torch.float16 if capability >= (7, 0) else torch.float32  # Volta and Turing: V100, T4
    if device.type == "cpu":
        if torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported():
            return torch.bfloat16
    return torch.float32


def memory_gib(rt: Runtime) -> float:
    """Of this rank's device, used or not."""
    if rt.device.type == "mps":
        return torch.mps.recommended_max_memory() / 2**30
    if rt.device.type == "cpu":
        return main_memory_gib()
    return torch.get_device_module(rt.device).get_device_properties(rt.device).total_memory / 2**30


def peak_memory_gib(rt: Runtime) -> float:
    """The most that this process has held, of its GPU's memory or, on a CPU, of the machine's."""
    if rt.device.type == "cuda":
        return torch.cuda.max_memory_allocated(rt.device) / 2**30
    if os.name == "nt":
        return 0.0
    import resource  # here, as Windows has none

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**30 if sys.platform == "darwin" else peak / 2**20  # bytes there, KiB elsewhere


def _keep_freed_memory() -> None:
    """Have glibc keep memory that torch frees, for the next tensor.

    By default it gives every large block back to the kernel, which clears its pages anew at the next
    allocation: about 9 % of a step (dev/LOG.md). Other C libraries have no mallopt.
    """
    if sys.platform != "linux":
        return
    M_TRIM_THRESHOLD = -1
    M_MMAP_THRESHOLD = -3
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_THRESHOLD, 1 << 30)
        mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)


# ---- collectives: every rank calls, in the same order
def all_reduce_sum(rt: Runtime, tensor: torch.Tensor) -> torch.Tensor:
    """The sum of every rank's `tensor`, in place."""
    if rt.world_size > 1:
        rt.sums_begun[0] += 1
        dist.all_reduce(tensor)
    return tensor


def reduce_scatter_sum(rt: Runtime, whole: torch.Tensor) -> tuple[torch.Tensor, Callable[[], Any]]:
    """Begin to sum every rank's `whole`, (N, ...); returns this rank's slice, (N / world_size, ...), and its
    wait.

    With it each rank updates only its share of the weights and keeps only that share's optimizer state (ZeRO,
    arXiv 1910.02054), and what it sends is half of an all-reduce. The slice may be read after the wait was
    called; the backward pass goes on meanwhile. world_size must divide N.
    """
    if rt.world_size == 1:
        return whole, lambda: None
    mine = torch.empty_like(whole[: whole.size(0) // rt.world_size])
    return mine, dist.reduce_scatter_single(mine, whole, async_op=True).wait


def all_gather_into(rt: Runtime, whole: torch.Tensor, mine: torch.Tensor) -> Callable[[], Any]:
    """Begin to fill `whole`, (N, ...), with every rank's `mine`, (N / world_size, ...); returns a wait for
    it."""
    if rt.world_size == 1:
        whole.copy_(mine)
        return lambda: None
    work = dist.all_gather_single(whole, mine, async_op=True)
    return lambda: (work.wait(), mine)  # `mine` must live so long


def gather_to_main_memory(rt: Runtime, mine: torch.Tensor) -> torch.Tensor | None:
    """Every rank's `mine`, (N / world_size, ...), copied to rank 0's main memory as (N, ...); else None."""
    if rt.world_size == 1:
        return mine.to("cpu", copy=True)
    parts = [torch.empty_like(mine) for _ in range(rt.world_size)] if rt.rank == 0 else None
    dist.gather(mine, parts)
    return torch.cat([part.cpu() for part in parts]) if parts else None


def all_gather_object(rt: Runtime, value: Any) -> list[Any]:
    """The small plain value of every rank, in rank order, for every rank."""
    if rt.world_size == 1:
        return [value]
    values = [None] * rt.world_size
    dist.all_gather_object(values, value)
    return values


def broadcast_object(rt: Runtime, value: Any) -> Any:
    """Rank 0's small plain value, for every rank; the `value` of others is ignored."""
    if rt.world_size == 1:
        return value
    box = [value]
    with lost_ranks_named(rt):
        dist.broadcast_object_list(box)
    return box[0]


def barrier(rt: Runtime) -> None:
    """Wait until every rank is here."""
    if rt.world_size > 1:
        dist.barrier()


@contextlib.contextmanager
def rank_zero_first(rt: Runtime) -> Iterator[None]:
    """Rank 0 runs the block alone, such as a download, then the others, who find it done; if it fails, nobody
    waits."""
    if rt.rank > 0:
        error = broadcast_object(rt, None)
        if error:
            raise NanochatError(f"rank 0 failed: {error}")
    error = None
    try:
        yield
    except BaseException as exception:
        error = str(exception) or type(exception).__name__
        raise
    finally:
        if rt.rank == 0:
            broadcast_object(rt, error)


# ---- ranks that die or hang
@contextlib.contextmanager
def lost_ranks_named(rt: Runtime) -> Iterator[None]:
    """Within it a collective that fails because another rank died is one line, not a traceback of gloo's or
    NCCL's."""
    try:
        yield
    except RuntimeError as error:
        of_a_collective = "gloo" in str(error) or isinstance(error, dist.DistError)
        if rt.world_size == 1 or not of_a_collective:
            raise
        reason = str(error).splitlines()[0][-200:]
        raise NanochatError(
            f"rank {rt.rank} of {rt.world_size} has lost another one ({reason}). Look at that one's last "
            "lines, then run the same command."
        ) from None


@contextlib.contextmanager
def watched(rt: Runtime) -> Iterator[None]:
    """lost_ranks_named, and the process ends when another rank hangs; every rank must enter and leave.

    A rank that dies closes its connections, and the others fail at once. One that hangs (a stuck disk, a
    stopped process, a wedged GPU) does not: the others wait within a collective, where no Python runs, until
    the timeout, an hour at its price. And neither gloo nor NCCL says whom they wait for. So a thread looks
    after them.
    """
    ended = threading.Event()
    try:
        with lost_ranks_named(rt):
            nodes = all_gather_object(rt, platform.node())
            if rt.world_size > 1:
                threading.Thread(target=_watch, args=(rt, nodes, ended), daemon=True).start()
            yield
    finally:
        ended.set()


def _watch(rt: Runtime, nodes: list[str], ended: threading.Event) -> None:
    """Tell rank 0's store once a second how many sums this rank began; if that stands still, look who is
    behind.

    The store is torch.distributed's table of keys and values, which rank 0 serves to all. Time is counted in
    naps of a second, not by the clock: the whole run may be suspended for the night.
    """
    idle_s = 0
    seen = 0
    beats: list[bytes] = []
    with contextlib.suppress(RuntimeError):  # no store: rank 0 is gone, and the next collective fails
        store = dist.TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))
        store.set(f"beat{rt.rank}", "0 0")  # at once, as reading waits for what is not there
        while not ended.wait(1):
            idle_s = idle_s + 1 if rt.sums_begun[0] == seen else 0
            seen = rt.sums_begun[0]
            store.set(f"beat{rt.rank}", f"{seen} {time.monotonic()}")
            if idle_s < HANG_S or idle_s % ANSWER_S:
                continue
            before = beats
            beats = _read_beats(rt, store, nodes)
            late = _who_is_late(before, beats, seen)
            if late is not None:
                _end_process(rt, late, nodes)


def _read_beats(rt: Runtime, store: dist.Store, nodes: list[str]) -> list[bytes]:
    """What each rank said last, b"sums clock"; if there is no answer, it is rank 0 that hangs, whose store it
    is."""
    silence = threading.Timer(ANSWER_S, _end_process, [rt, 0, nodes])
    silence.start()
    beats = store.multi_get([f"beat{rank}" for rank in range(rt.world_size)])
    silence.cancel()
    return beats


def _who_is_late(before: list[bytes], beats: list[bytes], seen: int) -> int | None:
    """The rank whose process stands still (two beats are the same) or that did not begin the sum we wait
    in."""
    for rank, (old, new) in enumerate(zip(before, beats)):
        sums_begun = int(new.split()[0])
        if old == new or sums_begun < seen:
            return rank
    return None


def _end_process(rt: Runtime, late: int, nodes: list[str]) -> NoReturn:
    """Not by an exception: the main thread waits in C++ and would never see it."""
    os.write(
        2,
        f"error: rank {rt.rank} has waited {HANG_S} s for rank {late} of {rt.world_size}, on {nodes[late]}. "
        "End it, then run the same command.\n".encode(),
    )
    os._exit(1)
