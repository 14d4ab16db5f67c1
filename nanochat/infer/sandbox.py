"""
Run untrusted Python, such as a model's answer to a programming task, with as few rights as this machine can take away.

Everywhere: a child process (sandbox_child.py) of its own session, in a temporary folder, without environment or
descriptors, with limits on time, memory, file size and output. On Linux also no_new_privs, no capabilities, Landlock
(files, TCP, signals), a seccomp filter (no sockets, new processes, ...) and, where a user may have them, namespaces, in
which the folder is a small file system in memory. Result.level says what was reached: "full" (all), "walls" (no
namespaces), "landlock", "seccomp" or "basic". Below SAFE a program could reach the user's files.
"""
import contextlib
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

MAX_OUTPUT = 64 * 1024
FILE_BYTES, FOLDER_BYTES, FOLDER_FILES = 16 << 20, 64 << 20, 4096
SAFE = ("full", "walls", "landlock")
# -S leaves out site.py (6 of 20 ms).
_START = "import sys; sys.path.insert(0, sys.argv[1]); import sandbox_child; sandbox_child.main(int(sys.argv[2]))"


@dataclass(frozen=True)
class Result:
    """ok: the program ran to its end and passed its tests. stdout: with standard error, control characters escaped."""

    ok: bool
    stdout: str
    error: str
    level: str = "basic"


def run(code, *, tests="", timeout_s=5.0, memory_bytes=512 << 20, unsafe=False) -> Result:
    """Run the program `code`, then `tests` against it. Never raises for what the program does; any thread may call.

    tests: trusted Python that calls the program's functions by name, in a process of its own
    and with plain data: a program can neither read the expected answers nor fake its success, but without tests its
    end. timeout_s: wall clock. unsafe: also where the level is not one of SAFE.
    """
    nonce = secrets.token_bytes(16)
    with tempfile.TemporaryDirectory(prefix="nanochat-sandbox-", ignore_cleanup_errors=True) as folder:
        folder = os.path.realpath(folder)
        verdict_out, verdict_in = os.pipe()
        try:
            process = _start(folder, verdict_in)
        finally:
            os.close(verdict_in)
        try:
            _send(process.stdin, _request(code, folder, timeout_s, memory_bytes, unsafe),
                  {"tests": tests, "nonce": nonce})
            output, verdict, in_time = _listen(process.stdout.fileno(), verdict_out, time.monotonic() + timeout_s)
        finally:
            _kill(process)
            os.close(verdict_out)
    level, _, answer = verdict.partition(b"\n")
    ok = in_time and answer == b"=" + nonce
    error = ("" if ok else f"timeout after {timeout_s:g}s" if not in_time
             else _readable(answer[1:]) if answer[:1] == b"!" else "the sandbox was killed")
    return Result(ok, _readable(output), error, level.decode() or "basic")


def _start(folder, verdict_in):
    command = [sys.executable, "-I", "-S", "-X", "utf8", "-c", _START, str(Path(__file__).parent), str(verdict_in)]
    environment = {"HOME": folder, "TMPDIR": folder, "LANG": "C.UTF-8", "OMP_NUM_THREADS": "1",
                   "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                            cwd=folder, env=environment, start_new_session=True, pass_fds=(verdict_in,))


def _request(code, folder, timeout_s, memory_bytes, unsafe):
    path = [p for p in sys.path if Path(p) == Path(os.__file__).parent or p.endswith(("lib-dynload", ".zip"))]
    path += site.getsitepackages()
    libraries = ["/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache", "/usr/share/zoneinfo", "/dev/urandom"]
    return {"code": code, "folder": folder, "timeout_s": timeout_s, "memory_bytes": memory_bytes, "path": path,
            "safe": None if unsafe else SAFE, "room": f"size={FOLDER_BYTES},nr_inodes={FOLDER_FILES},mode=700",
            "file_bytes": FILE_BYTES, "readable": path + [f"{sys.base_prefix}/lib"] + libraries}


def _send(pipe, *values):
    with contextlib.suppress(BrokenPipeError), pipe:  # a child that died at once says so by its silence
        for data in map(marshal.dumps, values):
            pipe.write(struct.pack("I", len(data)) + data)


def _listen(output_fd, verdict_fd, deadline):
    """(output, verdict, in time): read until the child closes the verdict's pipe or the deadline passes."""
    kept = {output_fd: b"", verdict_fd: b""}
    with selectors.DefaultSelector() as selector:
        for fd in kept:
            os.set_blocking(fd, False)
            selector.register(fd, selectors.EVENT_READ)
        while verdict_fd in selector.get_map() and (left := deadline - time.monotonic()) > 0:
            for key, _ in selector.select(left):
                block = os.read(key.fd, 1 << 16)
                kept[key.fd] = (kept[key.fd] + block)[:MAX_OUTPUT]  # a chatty program neither blocks nor fills memory
                if not block:
                    selector.unregister(key.fd)
        in_time = verdict_fd not in selector.get_map()
    with contextlib.suppress(BlockingIOError):
        while len(kept[output_fd]) < MAX_OUTPUT and (block := os.read(output_fd, 1 << 16)):
            kept[output_fd] += block
    return kept[output_fd][:MAX_OUTPUT], kept[verdict_fd], in_time


def _kill(process):
    """Kill the child's whole group while the unreaped child holds its number, then reap it."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        process.kill()
    process.stdout.close()
    process.wait()


def _readable(data):
    """Bytes as text that is safe to print."""
    text = data.decode("utf-8", "replace")
    return "".join(c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in text)
