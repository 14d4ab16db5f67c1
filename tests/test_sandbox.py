"""Programs that try to get out, to cheat or to run wild, and honest ones that must not notice the walls."""
import functools
import os
import sys
import threading
import time

import psutil
import pytest

from nanochat.common import base_dir
from nanochat.infer import sandbox
from nanochat.infer.sandbox import FOLDER_FILES, MAX_OUTPUT, SAFE
from nanochat.infer.sandbox_walls import seccomp_program

run = functools.partial(sandbox.run_code, unsafe=True)       # what is run here is known, also on a machine without walls
DATA = base_dir()       # of whoever runs the tests: HumanEval's data may lie there
LEVEL = run("pass", timeout_s=10).level
needs_walls = pytest.mark.skipif(LEVEL not in ("full", "walls"),
                                 reason=f"Landlock and seccomp wanted, this machine reaches {LEVEL!r}")
needs_full = pytest.mark.skipif(LEVEL != "full", reason=f"namespaces wanted, this machine reaches {LEVEL!r}")


# ------------------------------------------------------------------------------------------------------------- honest
HONEST = {
    "print": "print('hi')",
    "threads": "import threading\nt = threading.Thread(target=print, args=('hi',))\nt.start()\nt.join()",
    "pool": "from concurrent.futures import ThreadPoolExecutor as P\n"
            "assert list(P(3).map(abs, [-1, 2])) == [1, 2]\nprint('hi')",
    "tempfile": "import tempfile\nf = tempfile.TemporaryFile()\nf.write(b'hi')\nf.seek(0)\nprint(f.read().decode())",
    "files": "import os, shutil\nopen('a', 'w').write('hi')\nshutil.copy('a', 'b')\nos.rename('b', 'c')\n"
             "print(open('c').read())",
    "numpy": "import numpy as np\nassert (np.eye(3) @ np.ones(3)).sum() == 3\nprint('hi')",
    "asyncio": "import asyncio\nprint(asyncio.run(asyncio.sleep(0, 'hi')))",
    "stdlib": "import json, re, random, datetime, collections, itertools, math, hashlib, decimal, typing\nprint('hi')",
    "unicode": "assert len('你好') == 2\nprint('hi')",
    "devnull": "import os\nopen(os.devnull, 'w').write('x')\nprint('hi')",
    "raise_signal": "import signal\nsignal.signal(signal.SIGINT, lambda *_: print('hi'))\n"
                    "signal.raise_signal(signal.SIGINT)",
    "main": "if __name__ == '__main__':\n    print('hi')",
}


@pytest.mark.parametrize("name", HONEST)
def test_honest_programs_run(name):
    if name == "numpy":
        pytest.importorskip("numpy")
    result = run(HONEST[name], timeout_s=20)
    assert result.ok and result.stdout == "hi\n" and result.error == "", result


@pytest.mark.parametrize("code, error", [
    ("1/0", "ZeroDivisionError: division by zero"), ("def f(:", "SyntaxError"),
    ("assert 1 == 2, 'no'", "AssertionError: no"),
    ("import sys; sys.exit(0)", "SystemExit: 0"), ("raise KeyboardInterrupt", "KeyboardInterrupt"),
    ("import os; os._exit(0)", "exited with status 0 before its end"),
    ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "killed by signal 9"),
    ("\0", "null bytes"), ("raise Exception('x' * 10**6)", "Exception: xxx"),
])
def test_failure_says_why(code, error):
    result = run(code, timeout_s=10)
    assert not result.ok and error in result.error and len(result.error) < 3000


def test_stdin_is_empty():
    assert "EOFError" in run("input()").error


def test_works_off_the_main_thread_and_many_at_once():
    results = {}

    def work(i):
        results[i] = run(f"print({i})", timeout_s=20)
    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [results[i].stdout for i in range(6)] == [f"{i}\n" for i in range(6)]


# -------------------------------------------------------------------------------------------------------------- tests
def test_tests_call_the_program_with_plain_data():
    code = ("def echo(*a, **k):\n    return a, k\n"
            "def boom():\n    raise ValueError('no')\n"
            "def odd():\n    return object()\n")
    tests = """
values = [1, -2.5, float('inf'), True, None, 'é', b'x', 3j, [1, [2]], (1,), (), {'a': {1}}, set()]
for value in values:
    (got,), keywords = echo(value, key=value)
    assert got == value and type(got) is type(value) and keywords == {'key': value}
try:
    boom()
    assert False
except ValueError as e:
    assert str(e) == 'no'
try:
    odd()
    assert False
except TypeError as e:
    assert 'no plain data' in str(e)
"""
    result = run(code, tests=tests, timeout_s=10)
    assert result.ok, result


@pytest.mark.parametrize("code", [
    "def add(a, b): return a - b",
    "",
    "import os\ndef add(a, b): os._exit(0)",
    "import sys\ndef add(a, b): sys.exit(0)",
    "class Yes:\n    __eq__ = lambda *_: True\ndef add(a, b): return Yes()",
    "class Yes(int):\n    __eq__ = lambda *_: True\n    __repr__ = lambda s: '3'\ndef add(a, b): return Yes(7)",
    "import builtins\nbuiltins.AssertionError = ZeroDivisionError\ndef add(a, b): return 0",
    "import gc\ndef add(a, b):\n    return next((o for o in gc.get_objects() if type(o) is dict and 'nonce' in o), 0)",
    "import os\nfor fd in range(64):\n    try: os.write(fd, b'\\x01\\0\\0\\0=')\n    except OSError: pass\n"
    "def add(a, b): return 0",
    "def add(a, b):\n    while True: pass",
], ids=["wrong", "nothing", "_exit", "exit", "equal to all", "lying repr", "builtins", "gc", "all pipes", "hang"])
def test_success_cannot_be_faked(code):
    assert not run(code, tests="for i in range(3):\n    assert add(i, 2) == i + 2", timeout_s=1.5).ok


def test_the_tests_are_not_in_the_programs_memory():
    code = ("import gc, sys\n"
            "def look():\n"
            "    seen = [repr(o)[:10**5] for o in gc.get_objects() if isinstance(o, (dict, tuple))]\n"
            "    frame = sys._getframe()\n"
            "    while frame:\n        seen.append(repr(frame.f_locals))\n        frame = frame.f_back\n"
            "    return 'rewsna_terces'[::-1] in ''.join(seen)\n")
    assert run(code, tests="secret_answer = 42\nassert look() is False", timeout_s=10).ok


# -------------------------------------------------------------------------------------------------- running wild
def test_timeout_kills_everything():
    start = time.monotonic()
    result = run("import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
                 "import os\nprint(os.getpid(), flush=True)\ntime.sleep(60)", timeout_s=1)
    assert time.monotonic() - start < 5 and result.error == "timeout after 1s"
    pid, deadline = int(result.stdout), time.monotonic() + 5
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "the program outlived its time"
        time.sleep(0.01)


def test_memory_is_limited():
    assert "MemoryError" in run("x = bytearray(10**10)", timeout_s=10).error


def test_a_flood_of_output_is_cut():
    result = run("import sys\nfor _ in range(64):\n    sys.stdout.write('x' * 2**20)", timeout_s=20)
    assert result.ok and len(result.stdout) == MAX_OUTPUT


def test_files_are_limited():
    result = run("f = open('big', 'wb')\nfor _ in range(100):\n    f.write(b'x' * 2**20)\n    f.flush()", timeout_s=10)
    assert not result.ok and ("File too large" in result.error or "signal" in result.error)


def test_deep_recursion_is_an_error():
    code = "import sys\nsys.setrecursionlimit(10**8)\ndef f(): f()\nf()"
    assert not run(code, timeout_s=1, memory_bytes=128 << 20).ok


def test_control_codes_do_not_reach_the_terminal():
    result = run("print('\\x1b[2J\\x07\\x9b\\u202ered')", timeout_s=10)
    assert result.stdout == "\\x1b[2J\\x07\\x9b\\u202ered\n"
    assert "\x1b" not in run("raise Exception('\\x1b[2J')", timeout_s=10).error


# ---------------------------------------------------------------------------------------------------------- getting out
def test_the_environment_is_not_inherited(monkeypatch):
    monkeypatch.setenv("SECRET_KEY", "abc")
    assert "abc" not in run("import os\nprint(dict(os.environ))", timeout_s=10).stdout


def test_descriptors_are_not_inherited(tmp_path):
    with open(tmp_path / "secret", "w+", encoding="utf-8") as f:
        f.write("secret")
        f.flush()
        os.set_inheritable(f.fileno(), True)
        result = run("import os\nfor fd in range(3, 64):\n    try: print(os.fstat(fd).st_size)\n"
                     "    except OSError: pass", timeout_s=10)
        assert "6\n" not in result.stdout


ESCAPES = {
    "read passwd": "open('/etc/passwd').read()",
    "read root's home": "import os; os.listdir('/root')",
    "read the user's home": "import os; os.listdir(os.path.expanduser('~root')); os.listdir('/home')",
    "read the caller's folder": f"import os; os.listdir({os.getcwd()!r})",
    "read the code under test": f"open({__file__!r}).read()",
    "first process's environment": "open('/proc/1/environ').read()",
    "own maps": "open('/proc/self/maps').read()",
    "own memory": "open('/proc/self/mem', 'rb')",
    "list the root": "import os; os.listdir('/')",
    "parent's environment": "import os; open(f'/proc/{os.getppid()}/environ').read()",
    "parent's memory": "import os; open(f'/proc/{os.getppid()}/mem', 'rb')",
    "write to tmp": "open('/tmp/nanochat-escape', 'w')",
    "write to var": "open('/var/tmp/nanochat-escape', 'w')",
    "write to the interpreter": "import os; open(os.__file__, 'a')",
    "write by ctypes": "import ctypes; assert ctypes.CDLL(None).open(b'/tmp/nanochat-escape', 0o102, 0o600) >= 0",
    "make a folder outside": "import os; os.mkdir('/tmp/nanochat-escape')",
    "make a device": "import os, stat; os.mknod('disk', stat.S_IFBLK | 0o600, os.makedev(8, 0))",
    "remove outside": f"import os; os.remove({__file__!r})",
    "truncate outside": f"import os; os.truncate({__file__!r}, 0)",
    "write to shared memory": "open('/dev/shm/nanochat-escape', 'w')",
    "climb out": "open('../nanochat-escape', 'w')",
    "symlink out": "import os; os.symlink('/etc/passwd', 'p'); open('p').read()",
    "hard link out": "import os; os.link('/etc/passwd', 'p')",
    "rename out": "import os; open('a', 'w').close(); os.rename('a', '/tmp/nanochat-escape')",
    "tcp": "import socket; socket.socket()",
    "udp": "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM)",
    "unix socket": "import socket; socket.socket(socket.AF_UNIX)",
    "raw socket": "import socket; socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)",
    "netlink": "import socket; socket.socket(16, socket.SOCK_RAW, 0)",
    "socket pair and pass": "import socket; a, b = socket.socketpair(); socket.socket(fileno=0)",
    "fetch": "import urllib.request; urllib.request.urlopen('http://127.0.0.1:1')",
    "fork": "import os; os.fork()",
    "posix.fork": "import posix; posix.fork()",
    "reloaded os": "import importlib, os; importlib.reload(os).fork()",
    "fork bomb": "import os\nwhile True: os.fork()",
    "fork by system call": "import ctypes; assert ctypes.CDLL(None).syscall(57) >= 0",
    "clone3": "import ctypes; assert ctypes.CDLL(None).syscall(435, bytes(64), 64) >= 0",
    "posix_spawn": "import os; os.posix_spawn('/bin/true', ['true'], {})",
    "spawn": "import subprocess; subprocess.run(['/bin/true'])",
    "exec": "import os; os.execv('/bin/true', ['true'])",
    "system": "import os; assert os.system('true') == 0",
    "multiprocessing": "import multiprocessing as m; p = m.Process(target=print); p.start()",
    "signal parent": "import os; os.kill(os.getppid(), 0)",
    "signal all": "import os; os.kill(-1, 0)",
    "new session": "import os; os.setsid()",
    "ptrace by ctypes": "import ctypes, os; assert ctypes.CDLL(None).ptrace(16, os.getppid(), 0, 0) == 0",
    "raise own limits": "import resource as r; r.setrlimit(r.RLIMIT_CPU, (10**6, 10**6))",
    "limit the parent": "import resource as r, os; r.prlimit(os.getppid(), r.RLIMIT_CPU, (1, 1))",
    "mount by ctypes": "import ctypes; assert ctypes.CDLL(None).mount(b'none', b'.', b'tmpfs', 0, None) == 0",
    "memory of another process": "import ctypes, os; assert ctypes.CDLL(None).syscall(310, os.getppid(), 0, 0, 0, 0, 0) == 0",
    "bpf": "import ctypes; assert ctypes.CDLL(None).syscall(321, 0, bytes(64), 64) >= 0",
    "io_uring": "import ctypes; assert ctypes.CDLL(None).syscall(425, 1, bytes(120)) >= 0",
    "userfaultfd": "import ctypes; assert ctypes.CDLL(None).syscall(323, 0) >= 0",
    "chroot": "import os; os.chroot('.')",
    "lift the filter": "import ctypes; assert ctypes.CDLL(None).prctl(22, 0, 0, 0, 0) == 0",
    "user namespace": "import ctypes; assert ctypes.CDLL(None).unshare(0x10000000) == 0",
    "hidden file": "import ctypes; assert ctypes.CDLL(None).memfd_create(b'x', 0) >= 0",
    "become another user": "import os; os.setuid(12345); open('/etc/passwd')",
}


@needs_walls
@pytest.mark.parametrize("name", ESCAPES)
def test_escape(name):
    result = run(ESCAPES[name], timeout_s=5)
    assert not result.ok and "timeout" not in result.error and "SyntaxError" not in result.error, result
    assert not any(os.path.exists(f"{place}/nanochat-escape") for place in ("/tmp", "/var/tmp", "/dev/shm"))


def test_there_are_at_least_forty_escapes():
    assert len(ESCAPES) >= 40


BOMBS = {
    "a million files": ("for i in range(10**6): open(str(i), 'w')", "No space left"),
    "a million folders": ("import os\nfor i in range(10**6): os.mkdir(str(i))", "No space left"),
    "fill the disk": ("for i in range(99):\n    with open(str(i), 'wb') as f: f.write(bytes(10**7))", "No space left"),
}


@needs_full
@pytest.mark.parametrize("name", BOMBS)
def test_the_disk_cannot_be_filled(name):
    code, error = BOMBS[name]
    result = run(code, timeout_s=20)
    assert not result.ok and error in result.error
    assert run(f"for i in range({FOLDER_FILES // 2}): open(str(i), 'w')", timeout_s=20).ok       # but there is room


def test_a_memory_bomb_by_ctypes_stays_within_its_limit():
    code = ("import ctypes\nlibc = ctypes.CDLL(None)\nlibc.malloc.restype = ctypes.c_void_p\n"
            "got = [libc.malloc(ctypes.c_size_t(1 << 26)) for _ in range(64)]\nprint(sum(map(bool, got)))")
    assert int(run(code, timeout_s=10).stdout) < 8          # of 64 MiB each


def test_a_thread_bomb_ends_with_its_time():
    start = time.monotonic()
    code = ("import threading, time\nwhile True:\n    try: threading.Thread(target=time.sleep, args=(60,)).start()\n"
            "    except RuntimeError: pass")
    assert not run(code, timeout_s=1).ok and time.monotonic() - start < 20


# ------------------------------------------------------------------------------------------------------ without walls
def test_below_the_minimum_a_program_is_not_run_unless_that_is_asked_for(monkeypatch):
    monkeypatch.setattr(sandbox, "SAFE", ("no such level",))
    refused = sandbox.run_code("print('ran')", timeout_s=10)
    assert not refused.ok and refused.stdout == "" and refused.level == LEVEL
    assert f"only reaches {LEVEL!r}" in refused.error
    assert not sandbox.run_code("def f(): return 1", tests="assert f() == 1", timeout_s=10).ok
    assert sandbox.run_code("print('ran')", timeout_s=10, unsafe=True).stdout == "ran\n"


def test_what_counts_as_safe_keeps_files_apart():
    assert set(SAFE) == {"full", "walls", "landlock"}       # the filter alone refuses no file


@needs_walls
def test_chmod_outside_changes_nothing(tmp_path):
    victim = tmp_path / "file"
    victim.write_text("x", encoding="utf-8")
    victim.chmod(0o640)
    run(f"import os; os.chmod({str(victim)!r}, 0o777); os.utime({str(victim)!r}, (0, 0))", timeout_s=10)
    assert victim.stat().st_mode & 0o777 == 0o640 and victim.stat().st_mtime > 0


# --------------------------------------------------------------------------------------------------------- the filter
def test_the_filter_fits_each_known_machine_and_is_left_out_elsewhere():
    assert seccomp_program("riscv64", 1) is None
    for machine in ("x86_64", "aarch64"):
        assert 100 < len(seccomp_program(machine, 1)) // 8 < 4096


@pytest.mark.skipif(sys.platform != "linux", reason="seccomp is Linux's")
def test_start_is_quick():
    times = []
    for _ in range(7):
        start = time.monotonic()
        run("pass", timeout_s=10)
        times.append(time.monotonic() - start)
    assert sorted(times)[3] < 0.5          # 25 ms on a quiet machine (benchmarks/bench_sandbox.py)


# ---------------------------------------------------------------------------------------------------------- HumanEval
def test_every_reference_solution_of_humaneval_passes(monkeypatch):
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(DATA))
    from concurrent.futures import ThreadPoolExecutor

    from nanochat.tasks import TASKS
    from nanochat.tasks.base import message_parts
    if not TASKS["humaneval"].is_local():
        pytest.skip(f"HumanEval's data are not in {DATA / 'tasks'} (python -m scripts.chat_eval -a humaneval fetches them)")
    task = TASKS["humaneval"].make("test")
    task.unsafe = True
    with ThreadPoolExecutor(2) as pool:
        verdicts = list(pool.map(lambda i: task.evaluate(task[i], message_parts(task[i]["messages"][-1])), range(len(task))))
    assert len(verdicts) == 164 and all(verdicts), [i for i, right in enumerate(verdicts) if not right]
