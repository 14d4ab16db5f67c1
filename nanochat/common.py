"""
The ground that everything stands on: typed errors, whole files, locks, seeds, records of a run, the terminal.

It knows nothing of models and is light to import: the standard library, with filelock and rich where they are
needed. Two promises are made here and used everywhere. A file has its name only when it is whole, so that a
process that is killed at any moment leaves either the old content or the new, never half of it. And a user's
mistake ends as one line that says what to do, without a traceback: raise NanochatError or one of its kinds,
and let `run` print it.
"""
import contextlib
import functools
import hashlib
import json
import logging
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, NoReturn

from nanochat import terminal

log = logging.getLogger("nanochat")

# Those that can change a result.
RECORDED_PACKAGES = ("torch", "numpy", "tiktoken", "rustbpe", "safetensors", "pyarrow")


# ---- errors
class NanochatError(Exception):
    """A mistake that the user can mend: its text, shown without traceback, ends with what to do."""

    exit_code = 1


class UsageError(NanochatError):
    """A flag or argument that cannot be used as given."""

    exit_code = 2  # the shell's convention, and argparse's


class DataError(NanochatError):
    """A file that does not hold what it promises."""


class Unreadable(NanochatError):
    """A file that one may not read, or that the disk does not give: nothing is known of what it holds."""

    def __init__(self, path: str | Path, error: OSError) -> None:
        super().__init__(f"cannot read {path}: {error.strerror or error}. Nothing was changed; mend that, "
                         "then run the same command.")


class MissingArtifact(NanochatError):
    """Something that an earlier stage makes is not there."""

    def __init__(self, what: str, path: str | Path, command: str) -> None:
        super().__init__(f"{what} not found at {path}. Make it with: {command}")


class CheckpointError(NanochatError):
    """A checkpoint that is damaged, or not of the run that wants it."""


class Interrupted(NanochatError):
    """Ctrl-C or SIGTERM; the text says how to go on."""

    exit_code = 130  # 128 + SIGINT, as a shell reports it


# ---- file system
def _chosen_dir() -> str:
    return os.path.expanduser(os.environ.get("NANOCHAT_BASE_DIR") or "~/.cache/nanochat")


def base_dir() -> Path:
    """The folder that keeps all that runs make: $NANOCHAT_BASE_DIR, else ~/.cache/nanochat. The only place
    that asks."""
    path = _chosen_dir()
    if path.startswith("~"):  # still: /etc/passwd does not know that user, as in a container
        raise UsageError(f"{path}: no such home is known. Name a folder: NANOCHAT_BASE_DIR=/path/to/folder")
    if os.path.lexists(path) and not os.path.isdir(path):
        raise UsageError(f"{path} is no folder that is there now. Name one: "
                         "NANOCHAT_BASE_DIR=/path/to/folder")
    return Path(path)


def _flush_to_disk(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, has left the kernel's memory for the disk.

    Without it a rename may reach the disk before the data do: after a power cut the new name would hold
    zeros. Windows cannot open a folder, and flushes a file only through a handle that may write.
    """
    windows = os.name == "nt"
    if windows and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDWR if windows else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _temporary(path: Path, ending: str = "tmp") -> Path:
    """A hidden name beside `path`: a rename is atomic only within one file system. Makes the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_name(f".{path.name}.{os.getpid()}.{ending}")


def atomic_write(path: str | Path, data: str | bytes) -> None:
    """Write `data` (a str as UTF-8) so that `path` holds all of it or what it held before.

    A file's name may hold bytes that are no UTF-8; they become \\udc.., which JSON reads back.
    """
    with atomic_file(path) as temporary:
        temporary.write_bytes(data.encode("utf-8", "backslashreplace") if isinstance(data, str) else data)


@contextlib.contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path to write to, which becomes `path` when the block ends without an exception."""
    path = Path(path)
    temporary = _temporary(path)
    try:
        yield temporary
        _flush_to_disk(temporary)
        os.replace(temporary, path)
        _flush_to_disk(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_dir(path: str | Path) -> Iterator[Path]:
    """Yield a temporary folder to fill, which then becomes `path`, whatever stood there.

    No system call replaces a folder that is not empty, so the old one first steps aside.
    """
    path = Path(path)
    temporary = _temporary(path)
    aside = _temporary(path, "old")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()

    try:
        yield temporary
        by_umask = temporary.stat().st_mode & 0o666  # safetensors would keep its files from everybody else
        for file in temporary.rglob("*"):
            if file.is_file():
                file.chmod(by_umask)
            _flush_to_disk(file)
        _flush_to_disk(temporary)

        if path.exists():
            shutil.rmtree(aside, ignore_errors=True)  # left by a killed process that had this one's number
            os.rename(path, aside)
        try:
            os.rename(temporary, path)
        except BaseException:  # Ctrl-C, too
            if aside.exists():
                os.rename(aside, path)
            raise
        _flush_to_disk(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(aside, ignore_errors=True)


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` atomically. ValueError for NaN and infinity, for which JSON has no word."""
    atomic_write(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: str | Path) -> Any:
    """The value in a JSON file. Raises DataError where it is damaged, Unreadable where that is not known."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise Unreadable(path, error) from None
    except ValueError as error:
        raise DataError(
            f"cannot read {path}: {error}. Delete it and run the stage that makes it again."
        ) from None


def is_there(path: str | Path) -> bool:
    """Whether a file or folder is there. Raises Unreadable where one may not look: that is not a no."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise Unreadable(path, error) from None
    return True


def append_jsonl(path: str | Path, record: dict[str, Any]) -> None:
    """Add `record` as one line to a log that grows: not atomic, so its readers allow for a cut last line."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8", errors="backslashreplace") as file:
        file.write(json.dumps(record, ensure_ascii=False) + "\n")


def sha256(path: str | Path) -> str:
    """The hex digest of a file, read by the MiB: shards and checkpoints need not fit into memory."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextlib.contextmanager
def run_lock(path: str | Path) -> Iterator[None]:
    """Hold an exclusive lock on the file `path`; raises NanochatError at once where another run holds it.

    Two runs that write one folder of checkpoints would mix their weights. The kernel keeps the lock (flock,
    on Windows LockFile) and lets go when the process ends, however it ends: a file left behind locks nobody
    out.
    """
    import filelock  # here, as it brings asyncio: 0.1 s that only training needs

    Path(path).parent.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(path)
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        raise NanochatError(
            f"another run holds {path}. Wait for it, or give this one another --tag."
        ) from None
    try:
        yield
    finally:
        lock.release()


# ---- seeds
def mix_seed(*parts: Any) -> int:
    """A seed of 63 bits from plain values, such as (seed, epoch, "train"), the same on every machine.

    Plain arithmetic collides: seed + epoch gives (1, 2) what it gives (2, 1), and random.Random takes -1 for
    1. Two sources with one seed draw the same examples, which leaks test into train. A hash has no such
    neighbours.
    """
    digest = hashlib.sha256(json.dumps(parts).encode("utf-8")).digest()
    return int.from_bytes(digest[:8], "little") >> 1  # torch and NumPy want it to fit a signed 64-bit integer


# ---- records
def cpu_name() -> str:
    """This machine's processor in words."""
    with contextlib.suppress(OSError):  # Linux alone
        told = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        if found := re.search(r"^model name\s*: (.*)", told, re.MULTILINE):
            return found[1]
    return platform.processor() or platform.machine() or "CPU"


def main_memory_gib() -> float:
    """The machine's, used or not; 0 where it is not told, as on Windows."""
    if not hasattr(os, "sysconf"):
        return 0.0
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


@functools.cache
def git_commit() -> str:
    """Short hash of the code that runs, with '-dirty' where files were changed since; 'unknown' outside
    git."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True).stdout.strip() or "unknown"
    except OSError:  # git is not installed
        return "unknown"


def versions() -> dict[str, str]:
    """Of Python and of the packages that can change a result."""
    found = {"python": platform.python_version()}
    for name in RECORDED_PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def save_result(name: str, *, metrics: dict[str, Any], config: dict[str, Any], device: str, wall_s: float,
                notes: Iterable[str] = ()) -> Path:
    """Write report/results/<name>.json, all that a reader needs to repeat the run; rank 0 only."""
    path = base_dir() / "report" / "results" / f"{name}.json"
    write_json(path, {
        "name": name,
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "wall_s": round(wall_s, 2),
        "commit": git_commit(),
        "device": device,
        "versions": versions(),
        "config": config,
        "metrics": metrics,
        "notes": list(notes),
    })
    return path


# ---- the user's terminal
class _StandardOutput(logging.StreamHandler):
    """Writes to what sys.stdout is at that moment: a progress bar puts itself there, to let lines pass above
    it."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stdout
        super().emit(record)


def setup_logging(rank: int = 0) -> None:
    """Send the one logger to stdout; ranks above 0 only warn, or eight GPUs would say everything eight
    times."""
    handler = _StandardOutput()
    handler.setFormatter(logging.Formatter("%(message)s" if rank == 0 else f"[rank {rank}] %(message)s"))
    log.handlers[:] = [handler]
    log.setLevel(logging.INFO if rank == 0 else logging.WARNING)
    log.propagate = False


def run(main: Callable[[], int | None]) -> NoReturn:
    """Run a script's `main` and exit: a user's mistake becomes one line on stderr and an exit code."""
    warnings.simplefilter("ignore", SyntaxWarning)  # of what a model wrote: 1or 2
    terminal.mend_streams()
    text = ""
    try:
        terminal.on_ctrl_c(signal.default_int_handler)  # modules are loaded (nanochat/__init__.py)
        code = main() or 0
        sys.stdout.flush()
    except NanochatError as error:
        code = error.exit_code
        text = str(error)
    except KeyboardInterrupt:
        code = 130
        text = "interrupted; run the same command again to go on"
    except BrokenPipeError:  # the reader, such as head, has seen enough
        code = 0
    except OSError as error:
        code = 1
        text = terminal.in_one_line(error, _chosen_dir()) or ""
        if not text:
            raise
    terminal.on_ctrl_c(lambda number, frame: os._exit(130))  # a second one: what is left is to end
    with contextlib.suppress(OSError):  # the terminal may be what is gone
        if text:
            print(f"{'stopped' if code == 130 else 'error'}: {text}", file=sys.stderr)
    try:
        sys.stdout.flush()
    except OSError:  # Python's own last flush would complain again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)
