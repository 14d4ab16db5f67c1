"""
Where the computation runs: rank, device, dtype, and the few collectives the project needs.

The only reader of torchrun's RANK, WORLD_SIZE, LOCAL_RANK and of NANOCHAT_DTYPE. On one process every collective is the
identity.
"""
import contextlib
import ctypes
import os
import threading
import time
from dataclasses import dataclass, field
from datetime import timedelta

import torch
import torch.distributed as dist

from nanochat import scaling
from nanochat.common import NanochatError, UsageError

DTYPES = {"bfloat16": torch.bfloat16, "bf16": torch.bfloat16, "float32": torch.float32, "fp32": torch.float32,
          "float16": torch.float16, "fp16": torch.float16}
HANG_S, ANSWER_S = 600, 10


@dataclass(frozen=True)
class Runtime:
    rank: int = 0
    world_size: int = 1
    device: torch.device = torch.device("cpu")
    dtype: torch.dtype = torch.float32  # to compute in
    device_name: str = "cpu"
    peak_flops: float | None = None  # of one device in bf16; None when unknown
    started: float = field(default_factory=time.monotonic)
    sums: list = field(default_factory=lambda: [0], compare=False)  # how many were begun

    def __str__(self):
        return f"{self.world_size} x {self.device_name}, {str(self.dtype).removeprefix('torch.')}"


def _pick_device(wanted, local_rank):
    kind = wanted or (torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")).type
    try:
        device = torch.device(kind, local_rank) if kind == "cuda" else torch.device(kind)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as e:
        raise UsageError(f"--device={kind} cannot be used here: {str(e).splitlines()[0]}") from None
    return device


def _pick_dtype(device):
    """bf16 where the hardware multiplies it faster than fp32, else fp16."""
    if wanted := os.environ.get("NANOCHAT_DTYPE"):
        if wanted not in DTYPES:
            raise UsageError(f"NANOCHAT_DTYPE must be one of {', '.join(DTYPES)}, got {wanted!r}.")
        return DTYPES[wanted]
    if device.type == "cuda":
        capability = torch.cuda.get_device_capability(device)
        return torch.bfloat16 if capability >= (8, 0) else torch.float16 if capability >= (7, 0) else torch.float32
    probes = ("_is_amx_tile_supported", "_is_avx512_bf16_supported") if device.type == "cpu" else ()
    return torch.bfloat16 if any(getattr(torch.cpu, name, bool)() for name in probes) else torch.float32


def _cpu_name():
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as f:
            name = next(line.split(":", 1)[1].strip() for line in f if line.startswith("model name"))
    except (OSError, StopIteration):
        name = "CPU"
    return f"{name} ({torch.get_num_threads()} threads)"


def _keep_freed_memory():
    """glibc gives every large temporary back to the kernel: about 9 % of a step (dev/LOG.md)."""
    with contextlib.suppress(OSError, AttributeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(-3, 1 << 30)  # M_MMAP_THRESHOLD
        mallopt(-1, (1 << 31) - 1)  # M_TRIM_THRESHOLD


def init(device="") -> Runtime:
    """Find the device and, under torchrun, join the process group. Call once, in main."""
    rank, world_size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    found = _pick_device(device, int(os.environ.get("LOCAL_RANK", 0)))
    peak = None
    if found.type == "cuda":
        torch.cuda.set_device(found)
        torch.set_float32_matmul_precision("high")  # tf32 for what is left in fp32
        name = torch.cuda.get_device_name(found)
        if gpu := scaling.gpu_named(name):
            peak = scaling.GPUS[gpu].peak_flops
    else:
        name = _cpu_name() if found.type == "cpu" else found.type
        _keep_freed_memory()
    if world_size > 1 and not dist.is_initialized():
        # rank 0 may tokenize so long
        dist.init_process_group("nccl" if found.type == "cuda" else "gloo", timeout=timedelta(hours=1))
    return Runtime(rank, world_size, found, _pick_dtype(found), name, peak)


def all_reduce_sum(rt, tensor):
    """In place; every rank must call."""
    if rt.world_size > 1:
        rt.sums[0] += 1
        dist.all_reduce(tensor)
    return tensor


def reduce_scatter_sum(rt, whole):
    """(this rank's slice of the sum, a function that waits for it); dim 0 must divide by world_size."""
    if rt.world_size == 1:
        return whole, lambda: None
    mine = torch.empty_like(whole[: whole.size(0) // rt.world_size])
    scatter = getattr(dist, "reduce_scatter_single", dist.reduce_scatter_tensor)  # the newer name first
    return mine, scatter(mine, whole, async_op=True).wait


def all_gather_into(rt, whole, mine):
    """Begin to fill `whole` with every rank's `mine`, along dim 0; returns a function that waits for it."""
    if rt.world_size == 1:
        whole.copy_(mine)
        return lambda: None
    work = getattr(dist, "all_gather_single", dist.all_gather_into_tensor)(whole, mine, async_op=True)
    return lambda: (work.wait(), mine)  # which must live so long


def all_gather_object(rt, value) -> list:
    """The small plain value of every rank, in rank order."""
    if rt.world_size == 1:
        return [value]
    values = [None] * rt.world_size
    dist.all_gather_object(values, value)
    return values


def broadcast_object(rt, value):
    if rt.world_size == 1:
        return value
    box = [value]
    with lost_ranks_named(rt):
        dist.broadcast_object_list(box)
    return box[0]


@contextlib.contextmanager
def lost_ranks_named(rt):
    try:
        yield
    except RuntimeError as e:
        if rt.world_size == 1 or not ("gloo" in str(e) or isinstance(e, dist.DistError)):
            raise
        raise NanochatError(f"rank {rt.rank} of {rt.world_size} has lost another one "
                            f"({str(e).splitlines()[0][-200:]}). Look at that one's last lines, then run the "
                            "same command.") from None


@contextlib.contextmanager
def watched(rt):
    """lost_ranks_named, and the process ends when another rank hangs."""
    ended = threading.Event()
    try:
        with lost_ranks_named(rt):
            nodes = all_gather_object(rt, os.uname().nodename)
            if rt.world_size > 1:
                threading.Thread(target=_watch, args=(rt, nodes, ended), daemon=True).start()
            yield
    finally:
        ended.set()


def _watch(rt, nodes, ended):
    """Gloo and NCCL do not say who is late, so each rank tells rank 0's store how far it came."""
    def end(rank):
        os.write(2, f"error: rank {rt.rank} has waited {HANG_S} s for rank {rank} of {rt.world_size}, on {nodes[rank]}. "
                    "End it, then run the same command.\n".encode())
        os._exit(1)

    idle, seen, beats = 0, 0, []  # in naps: the whole run may be suspended
    with contextlib.suppress(RuntimeError):  # no store: the next collective fails
        store = dist.TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))
        store.set(f"beat{rt.rank}", "0 0")  # reading waits for what is not there
        while not ended.wait(1):
            idle, seen = idle + 1 if rt.sums == [seen] else 0, rt.sums[0]
            store.set(f"beat{rt.rank}", f"{seen} {time.monotonic()}")
            if idle < HANG_S or idle % ANSWER_S:
                continue
            silence = threading.Timer(ANSWER_S, end, [0])
            silence.start()
            before, beats = beats, store.multi_get([f"beat{rank}" for rank in range(rt.world_size)])
            silence.cancel()
            for rank, (old, new) in enumerate(zip(before, beats)):
                if old == new or int(new.split()[0]) < seen:
                    end(rank)


def barrier(rt):
    if rt.world_size > 1:
        dist.barrier()


@contextlib.contextmanager
def rank_zero_first(rt):
    """Rank 0 runs the block alone, then the others; if it fails, they do not wait."""
    if rt.rank and (error := broadcast_object(rt, None)):
        raise NanochatError(f"rank 0 failed: {error}")
    error = None
    try:
        yield
    except BaseException as e:
        error = str(e) or type(e).__name__
        raise
    finally:
        if rt.rank == 0:
            broadcast_object(rt, error)


def close(rt):
    if rt.world_size > 1 and dist.is_initialized():
        dist.destroy_process_group()
