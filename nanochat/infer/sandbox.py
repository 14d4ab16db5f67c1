"""
Run untrusted Python, such as a model's answer to a programming task, with as few rights as this machine can
take away.

Everywhere: a child process (sandbox_child.py) of its own session, in a temporary folder, without environment
or descriptors, with limits on time, memory, file size and output. On Linux also the walls of
sandbox_walls.py: no_new_privs, no capabilities, Landlock (files, TCP, signals), a seccomp filter (no sockets,
new processes, ...) and, where a user may have them, namespaces, in which the folder is a small file system in
memory. Result.level says what was reached: "full" (all), "walls" (no namespaces), "landlock", "seccomp" or
"basic". Below SAFE a program could reach the user's files. Windows has nothing of this, so there the sandbox
refuses to run.
"""
import contextlib
import importlib.util
import marshal
import os
import secrets
import selectors
import signal
import site
import struct
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nanochat.common import NanochatError

MAX_OUTPUT = 64 * 1024  # bytes that are kept of what a program prints
FILE_BYTES = 16 << 20
FOLDER_BYTES = 64 << 20
FOLDER_FILES = 4096
SAFE = ("full", "walls", "landlock")
# -I: no environment, no user's packages, no current folder. -S: without site.py (6 of 20 ms).
START = [
    sys.executable,
    "-I",
    "-S",
    "-X",
    "utf8",
    "-c",
    "import sys; sys.path.insert(0, sys.argv[1]); import sandbox_child; sandbox_child.main(int(sys.argv[2]))",
    str(Path(__file__).parent),
]
SYSTEM_LIBRARIES = ["/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache", "/usr/share/zoneinfo",
                    "/dev/urandom"]


@dataclass(frozen=True)
class Result:
    """ok: the program ran to its end and passed its tests. stdout: with standard error, control characters
    escaped."""

    ok: bool
    stdout: str
    error: str
    level: str = "basic"


def run_code(code: str, *, tests: str = "", timeout_s: float = 5.0, memory_bytes: int = 512 << 20,
        unsafe: bool = False) -> Result:
    """Run the program `code`, then `tests` against it. Never raises for what the program does; any thread may
    call.

    tests: trusted Python that calls the program's functions by name, in a process of its own and with plain
    data: a program can neither read the expected answers nor fake its success, but without tests its end.
    timeout_s: wall clock. unsafe: also where the level is not one of SAFE. Raises NanochatError on a system
    that has no sandbox.
    """
    _check_system()
    nonce = secrets.token_bytes(16)  # proves that a verdict comes from the judge: the program cannot guess it
    with tempfile.TemporaryDirectory(prefix="nanochat-sandbox-", ignore_cleanup_errors=True) as folder:
        folder = os.path.realpath(folder)
        verdict_out, verdict_in = os.pipe()
        try:
            process = _start(folder, verdict_in)
        finally:
            os.close(verdict_in)
        try:
            assert process.stdin and process.stdout  # pipes
            _send(process.stdin, _request(code, folder, timeout_s, memory_bytes, unsafe),
                  {"tests": tests, "nonce": nonce})
            output, verdict, in_time = _listen(
                process.stdout.fileno(), verdict_out, time.monotonic() + timeout_s
            )
        finally:
            _kill(process)
            os.close(verdict_out)

    level, _, answer = verdict.partition(b"\n")
    ok = in_time and answer == b"=" + nonce
    error = "" if ok else _what_went_wrong(answer, in_time, timeout_s)
    return Result(ok, _readable(output), error, level.decode() or "basic")


def _check_system() -> None:
    lacking = []
    if not hasattr(os, "fork"):
        lacking.append("os.fork")
    if importlib.util.find_spec("resource") is None:
        lacking.append("the module resource")
    if lacking:
        raise NanochatError(
            f"running a model's code needs {' and '.join(lacking)}, which this system ({sys.platform}) "
            "lacks. Use Linux, on Windows in WSL, or leave out the tasks that run code."
        )


def _what_went_wrong(answer: bytes, in_time: bool, timeout_s: float) -> str:
    if not in_time:
        return f"timeout after {timeout_s:g}s"
    if answer.startswith(b"!"):
        return _readable(answer[1:])
    return "the sandbox was killed"


def _start(folder: str, verdict_in: int) -> subprocess.Popen:
    environment = {"HOME": folder, "TMPDIR": folder, "LANG": "C.UTF-8", "OMP_NUM_THREADS": "1",
                   "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.Popen([*START, str(verdict_in)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, cwd=folder, env=environment, pass_fds=(verdict_in,),
                            start_new_session=True)  # so that one signal reaches all that it starts


def _request(code: str, folder: str, timeout_s: float, memory_bytes: int, unsafe: bool) -> dict[str, Any]:
    """What the child must know; it may import the standard library and the installed packages, nothing of the
    user's."""
    standard_library = Path(os.__file__).parent
    path = [entry for entry in sys.path
            if Path(entry) == standard_library or entry.endswith(("lib-dynload", ".zip"))]
    path += site.getsitepackages()
    return {
        "code": code,
        "folder": folder,
        "timeout_s": timeout_s,
        "memory_bytes": memory_bytes,
        "file_bytes": FILE_BYTES,
        "path": path,
        "readable": [*path, f"{sys.base_prefix}/lib", *SYSTEM_LIBRARIES],
        "room": f"size={FOLDER_BYTES},nr_inodes={FOLDER_FILES},mode=700",
        "safe": None if unsafe else SAFE,
    }


def _send(pipe: Any, *values: dict[str, Any]) -> None:
    """As frames: four bytes of length, then the data. marshal reads plain data only and needs no import."""
    with contextlib.suppress(BrokenPipeError), pipe:  # a child that died at once says so by its silence
        for value in values:
            data = marshal.dumps(value)
            pipe.write(struct.pack("I", len(data)) + data)


def _listen(output_fd: int, verdict_fd: int, deadline: float) -> tuple[bytes, bytes, bool]:
    """(output, verdict, in time): read until the child closes the verdict's pipe or the deadline passes.

    What is too much is read and dropped: a chatty program neither blocks nor fills memory.
    """
    kept = {output_fd: b"", verdict_fd: b""}
    with selectors.DefaultSelector() as selector:
        for descriptor in kept:
            os.set_blocking(descriptor, False)
            selector.register(descriptor, selectors.EVENT_READ)
        while verdict_fd in selector.get_map():
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                break
            for key, _ in selector.select(left_s):
                block = os.read(key.fd, 1 << 16)
                kept[key.fd] = (kept[key.fd] + block)[:MAX_OUTPUT]
                if not block:
                    selector.unregister(key.fd)
        in_time = verdict_fd not in selector.get_map()

    output = kept[output_fd]
    with contextlib.suppress(BlockingIOError):  # what was printed last may still be in the pipe
        while len(output) < MAX_OUTPUT and (block := os.read(output_fd, 1 << 16)):
            output += block
    return output[:MAX_OUTPUT], kept[verdict_fd], in_time


def _kill(process: subprocess.Popen) -> None:
    """Kill the child's whole group while the unreaped child holds its number, then reap it."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        process.kill()
    if process.stdout:
        process.stdout.close()
    process.wait()


def _readable(data: bytes) -> str:
    """Bytes as text that is safe to print: an escape code could rewrite what the terminal showed before."""
    shown = []
    for character in data.decode("utf-8", "replace"):
        if character.isprintable() or character in "\n\t":
            shown.append(character)
        else:
            shown.append(ascii(character)[1:-1])
    return "".join(shown)
