"""
The ground everything stands on: files, errors, locks, records, the terminal. Standard library only.

A file has its name only when it is whole (fsync, rename).
"""
import contextlib
import errno
import fcntl
import functools
import hashlib
import json
import logging
import os
import platform
import shutil
import subprocess
import sys
import time
import warnings
from importlib import metadata
from pathlib import Path

log = logging.getLogger("nanochat")


# ---- errors
class NanochatError(Exception):
    """A mistake the user can mend: its text, shown without traceback, ends with what to do."""

    exit_code = 1


class UsageError(NanochatError):
    """A flag or argument that cannot be used as given."""

    exit_code = 2


class DataError(NanochatError):
    """A file that does not hold what it promises."""


class MissingArtifact(NanochatError):
    """Something an earlier stage makes is not there."""

    def __init__(self, what, path, command):
        super().__init__(f"{what} not found at {path}. Make it with: {command}")


class CheckpointError(NanochatError):
    """Damaged, or not of the run that wants it."""


class Interrupted(NanochatError):
    """Ctrl-C or SIGTERM; the text says how to go on."""

    exit_code = 130


# ---- file system
def base_dir() -> Path:
    """Where all that a run makes is kept: $NANOCHAT_BASE_DIR."""
    return Path(os.environ.get("NANOCHAT_BASE_DIR") or Path.home() / ".cache" / "nanochat").expanduser()


def _fsync(path):
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _temporary(path, ending="tmp"):
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_name(f".{path.name}.{os.getpid()}.{ending}")


def atomic_write(path, data):
    """Write `data` (bytes, or str as UTF-8)."""
    with atomic_file(path) as tmp:
        tmp.write_bytes(data.encode("utf-8") if isinstance(data, str) else data)


@contextlib.contextmanager
def atomic_file(path):
    """Yield a temporary path, which becomes `path` when the block ends well."""
    path = Path(path)
    tmp = _temporary(path)
    try:
        yield tmp
        _fsync(tmp)
        os.replace(tmp, path)
        _fsync(path.parent)
    finally:
        tmp.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_dir(path):
    """Yield a temporary folder, which then becomes `path`, whatever stood there."""
    path = Path(path)
    tmp, old = _temporary(path), _temporary(path, "old")
    shutil.rmtree(tmp, ignore_errors=True)
    tmp.mkdir()
    try:
        yield tmp
        for file in tmp.rglob("*"):
            _fsync(file)
        _fsync(tmp)
        if path.exists():
            shutil.rmtree(old, ignore_errors=True)  # of a killed process of this number
            os.rename(path, old)
        try:
            os.rename(tmp, path)
        except OSError:
            if old.exists():
                os.rename(old, path)
            raise
        _fsync(path.parent)
    finally:
        shutil.rmtree(tmp, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def write_json(path, value):
    """Atomically. ValueError for NaN and infinity, for which JSON has no word."""
    atomic_write(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path):
    """Raises DataError."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise DataError(f"cannot read {path}: {e}. Delete it and run the stage that makes it again.") from None


def _appending(path):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    return open(path, "a", encoding="utf-8")


def append_jsonl(path, record):
    with _appending(path) as f:
        f.write(json.dumps(record, ensure_ascii=False) + "\n")


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as f:
        while block := f.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextlib.contextmanager
def run_lock(path):
    """Hold an exclusive lock; a second run on the same folder is refused."""
    with _appending(path) as f:
        try:
            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise NanochatError(f"another run holds {path}. Wait for it, or give this one another --tag.") from None
        yield


# ---- seeds
def mix_seed(*parts):
    """A 63-bit seed. Plain arithmetic collides (random.Random: 1 and -1), which leaks test into train."""
    return int.from_bytes(hashlib.sha256(json.dumps(parts).encode("utf-8")).digest()[:8], "little") >> 1


# ---- records
@functools.cache
def git_commit():
    """Short hash, perhaps with '-dirty'; 'unknown' outside git."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True).stdout.strip() or "unknown"
    except OSError:
        return "unknown"


def versions():
    found = {"python": platform.python_version()}
    for name in ("torch", "numpy", "tiktoken", "rustbpe", "safetensors", "pyarrow"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def save_result(name, *, metrics, config, device, wall_s, notes=()):
    """Write report/results/<name>.json; rank 0 only."""
    path = base_dir() / "report" / "results" / f"{name}.json"
    write_json(path, {"name": name, "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "wall_s": round(wall_s, 2),
                      "commit": git_commit(), "device": device, "versions": versions(), "config": config,
                      "metrics": metrics, "notes": list(notes)})
    return path


# ---- the user's terminal
def setup_logging(rank=0):
    """Send the one logger to stdout; ranks above 0 only warn."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(message)s" if rank == 0 else f"[rank {rank}] %(message)s"))
    log.handlers[:] = [handler]
    log.setLevel(logging.INFO if rank == 0 else logging.WARNING)
    log.propagate = False


class Progress:
    """One redrawn line on a terminal, elsewhere a line every `every_s` seconds."""

    def __init__(self, total, what, every_s=10.0, done=0):
        self.total, self.what, self.every_s = total, what, every_s
        self.done, self.before = done, done
        self.start, self.tty = time.monotonic(), sys.stdout.isatty() and log.isEnabledFor(logging.INFO)
        self.shown = 0.0 if self.tty else self.start

    def update(self, n=1, **fields):
        self.done += n
        now = time.monotonic()
        if now - self.shown < (0.1 if self.tty else self.every_s) and not (self.tty and self.done >= self.total):
            return
        self.shown = now
        rate = (self.done - self.before) / max(now - self.start, 1e-9)
        left = (self.total - self.done) / rate if rate else 0
        text = (f"{self.what} {self.done:,}/{self.total:,} ({self.done / max(self.total, 1):.0%}) | {left:.0f}s left"
                + "".join(f" | {k} {v}" for k, v in fields.items()))
        (self._redraw if self.tty else log.info)(text)

    def _redraw(self, text):
        width = shutil.get_terminal_size().columns - 1
        print("\r" + text[:width].ljust(width), end="", flush=True)

    def close(self):
        """Returns the seconds it took."""
        if self.tty and self.shown:
            self._redraw("")
            print(end="\r", flush=True)
        return time.monotonic() - self.start


def run(main):
    """A user's mistake becomes one line and an exit code."""
    warnings.simplefilter("ignore", SyntaxWarning)  # of what a model wrote: 1or 2
    try:
        sys.exit(main() or 0)
    except NanochatError as e:
        code, text = e.exit_code, str(e)
    except KeyboardInterrupt:
        code, text = 130, "interrupted; run the same command again to go on"
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code, text = 0, ""
    except OSError as e:
        if e.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        full = e.filename or base_dir()
        code, text = 1, f"no space left on the device that holds {full}. Free some, then run this again."
    if text:
        print(f"{'stopped' if code == 130 else 'error'}: {text}", file=sys.stderr)
    sys.exit(code)
