"""
The half of nanochat.infer.sandbox that runs in the child: it locks the door behind itself, then runs the program.

Imported by path in a bare `python -I -S`, so it imports little and nothing of nanochat. Two
processes: the *judge* reads the tests and the nonce after the *worker* is forked off, so neither is ever in the memory
of the untrusted program. The worker answers the judge's calls with literals.
"""
import builtins
import ctypes
import marshal
import os
import resource
import struct
import sys

MAX_FRAME = 8 << 20
ERROR_CHARS = 2000

# ---- system calls
with open(os.path.join(os.path.dirname(__file__), "syscalls.txt"), encoding="ascii") as _file:
    _CALLS = [line.split() for line in _file if line[0] != "#"]
_MACHINES = {"x86_64": (2, 0xC000003E), "aarch64": (3, 0xC00000B7)}
_CLONE_THREAD = 0x00010000
_EPERM, _ENOSYS = 1, 38
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_LOAD, _JUMP_EQ, _JUMP_GE, _JUMP_SET, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06


def seccomp_program(machine, pid):
    """The filter as packed struct sock_filter[], for a process whose id is `pid`; None on an unknown machine."""
    if machine not in _MACHINES:
        return None
    column, arch = _MACHINES[machine]
    refuse, allow, argument = (_RETURN, 0, 0, _ERRNO | _EPERM), (_RETURN, 0, 0, _ALLOW), (_LOAD, 0, 0, 16)
    code = [(_LOAD, 0, 0, 4), (_JUMP_EQ, 1, 0, arch), (_RETURN, 0, 0, _KILL), (_LOAD, 0, 0, 0)]
    if machine == "x86_64":  # the x32 calls are the same under other numbers
        code += [(_JUMP_GE, 0, 1, 0x40000000), refuse]
    then = {"refused": [refuse], "pretended": [(_RETURN, 0, 0, _ERRNO)], "missing": [(_RETURN, 0, 0, _ERRNO | _ENOSYS)],
            "itself": [argument, (_JUMP_EQ, 1, 0, pid), refuse, allow],
            "limits": [argument, (_JUMP_EQ, 2, 0, pid), (_JUMP_EQ, 1, 0, 0), refuse, allow],
            "thread": [argument, (_JUMP_SET, 1, 0, _CLONE_THREAD), refuse, allow]}
    for call in _CALLS:
        if call[column] != "-":
            code += [(_JUMP_EQ, 0, len(then[call[0]]), int(call[column])), *then[call[0]]]
    return b"".join(struct.pack("HBBI", *line) for line in code + [allow])


def _seccomp(libc):
    if (program := seccomp_program(os.uname().machine, os.getpid())) is None:
        return False

    class Program(ctypes.Structure):
        _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.c_char_p)]
    return libc.prctl(22, 2, ctypes.byref(Program(len(program) // 8, program)), 0, 0) == 0  # PR_SET_SECCOMP


# ---- Landlock
_RIGHTS = (13, 14, 15, 15, 16)  # on files, by the version of the interface
_READ = 1 << 2 | 1 << 3  # READ_FILE, READ_DIR
_WRITE = _READ | 1 << 1 | 1 << 4 | 1 << 5 | 1 << 7 | 1 << 8 | 1 << 12 | 1 << 13 | 1 << 14  # files, folders, links
_ON_FILES = 1 << 1 | 1 << 2 | 1 << 14 | 1 << 15


def _landlock(libc, readable, folder):
    """Leave `folder` to write in, `readable` to read, no TCP, no signals outwards; False where there is no Landlock."""
    abi = libc.syscall(444, None, 0, 1)
    if abi < 1:
        return False
    fs = (1 << _RIGHTS[min(abi, 5) - 1]) - 1
    attributes = struct.pack("QQQ", fs, 3, 3)[:8 if abi < 4 else 16 if abi < 6 else 24]
    ruleset = libc.syscall(444, attributes, ctypes.c_size_t(len(attributes)), 0)
    if ruleset < 0:
        return False
    try:
        null = ("/dev/null", _READ | 1 << 1 | 1 << 14)
        for path, rights in [*((path, _READ) for path in readable), null, (folder, _WRITE)]:
            try:
                fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
            except OSError:
                continue  # what is not there needs no permission
            rights &= fs if os.path.isdir(path) else fs & _ON_FILES
            added = libc.syscall(445, ruleset, 1, struct.pack("=Qi", rights, fd), 0)
            os.close(fd)
            if added:
                return False
        return libc.syscall(446, ruleset, 0) == 0
    finally:
        os.close(ruleset)


# ---- lock the door
def _limit(**limits):
    """Set hard limits, which a process without capabilities cannot raise again."""
    for name, most in limits.items():
        if (kind := getattr(resource, f"RLIMIT_{name}", None)) is not None:
            hard = resource.getrlimit(kind)[1]
            most = most if hard == resource.RLIM_INFINITY else min(most, hard)
            try:
                resource.setrlimit(kind, (most, most))
            except (OSError, ValueError):
                pass  # macOS knows RLIMIT_AS but refuses it


def _namespaces(folder, room):
    """Move into namespaces with a file system in memory as `folder`; False where that is refused."""
    uid, gid, libc = os.getuid(), os.getgid(), ctypes.CDLL(None)
    if sys.platform != "linux" or libc.unshare(0x10000000 | 0x20000 | 0x8000000):  # CLONE_NEWUSER, NEWNS, NEWIPC
        return False
    try:
        for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
            with open(f"/proc/self/{name}", "w", encoding="ascii") as f:
                f.write(text)
    except OSError:
        return False
    if libc.mount(b"tmpfs", folder.encode(), b"tmpfs", 6, room.encode()):  # MS_NOSUID, MS_NODEV
        return False
    os.chdir(folder)
    return True


def _confine(request):
    """Give up capabilities, files, network and new processes for good. Returns the level reached."""
    level = _confine_linux(request) if sys.platform == "linux" else "basic"
    if level not in ("full", "walls", "seccomp"):
        _limit(NPROC=0)  # counts all of the user's processes: no fork, but no threads either
    return level


def _confine_linux(request):
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(1, 9, 0, 0, 0)  # PR_SET_PDEATHSIG, SIGKILL
    if libc.prctl(38, 1, 0, 0, 0):  # PR_SET_NO_NEW_PRIVS
        return "basic"
    libc.prctl(4, 0, 0, 0, 0)  # PR_SET_DUMPABLE: nobody may look into it
    landlock = _landlock(libc, request["readable"], request["folder"])
    libc.capset(struct.pack("Ii", 0x20080522, 0), struct.pack("6I", *[0] * 6))
    seccomp = _seccomp(libc)
    if landlock and seccomp:
        return "full" if request["own_folder"] else "walls"
    return "landlock" if landlock else "seccomp" if seccomp else "basic"


# ---- frames
def _send(fd, data):
    data = struct.pack("I", len(data)) + data
    while data:
        data = data[os.write(fd, data):]


def _receive(fd):
    """One frame, or None at the end of the pipe or when it claims to be too long.

    Unbuffered: the judge's next must not be in memory when the worker is forked off.
    """
    def exactly(n):
        data = b""
        while len(data) < n and (block := os.read(fd, n - len(data))):
            data += block
        return data if len(data) == n else None
    head = exactly(4)
    size = struct.unpack("I", head)[0] if head else MAX_FRAME + 1
    return exactly(size) if size <= MAX_FRAME else None


def _describe(error):
    return f"{type(error).__name__}: {error}"[:ERROR_CHARS].encode("utf-8", "replace")


# ---- worker
def _literal(value):
    """`value` in Python's literal syntax; TypeError for what is no plain data."""
    if hasattr(value, "tolist"):
        value = value.tolist()  # numpy
    for kind in (bool, int, str, bytes, complex, type(None)):
        if isinstance(value, kind):
            return kind.__repr__(value)  # of a subclass too, whose own might lie
    if isinstance(value, float):
        return float.__repr__(value).replace("inf", "1e999")
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_literal(k)}: {_literal(v)}" for k, v in value.items()) + "}"
    if isinstance(value, (set, frozenset)):
        return "{" + ", ".join(map(_literal, value)) + "}" if value else "set()"
    if isinstance(value, (list, tuple)):
        items = "".join(f"{_literal(item)}, " for item in value)
        return f"[{items}]" if isinstance(value, list) else f"({items})"
    raise TypeError(f"a test got a {type(value).__name__}, which is no plain data")


def _work(request, level, calls, answers):
    """Run the program, then answer calls (name, arguments, keywords) until the judge hangs up. Never returns."""
    namespace = {"__name__": "__main__", "__builtins__": __builtins__}
    try:
        if request["safe"] and level not in request["safe"]:
            raise PermissionError(f"code is not run in a sandbox that only reaches {level!r}")
        exec(compile(request["code"], "<program>", "exec"), namespace)
        sys.stdout.flush()
        reply = b"="
    except BaseException as e:
        reply = b"!" + _describe(e)
    _send(answers, reply)
    while (call := _receive(calls)) is not None:
        try:
            name, arguments, keywords = marshal.loads(call)
            reply = b"=" + _literal(namespace[name](*arguments, **keywords)).encode("utf-8")
        except BaseException as e:
            reply = b"!" + _describe(e)
        _send(answers, reply)
    sys.stdout.flush()
    os._exit(0)


# ---- judge
def _ask(name, calls, answers):
    """A stand-in for the program's function `name`, which has the worker call it."""
    def stand_in(*arguments, **keywords):
        import ast
        _send(calls, marshal.dumps((name, arguments, keywords)))
        if (reply := _receive(answers)) is None:
            raise RuntimeError(f"the program ended within {name}()")
        text = reply[1:].decode("utf-8", "replace")
        if reply[:1] == b"=":
            return ast.literal_eval(text)
        kind = getattr(builtins, text.partition(":")[0], None)
        usable = isinstance(kind, type) and issubclass(kind, Exception)
        raise (kind if usable else RuntimeError)(text.partition(": ")[2] or text)
    stand_in.__name__ = name
    return stand_in


def _names(code):
    """All global names that a code object and those inside it mention."""
    return set(code.co_names).union(*(_names(inner) for inner in code.co_consts if hasattr(inner, "co_names")))


def _judge(tests, calls, answers, worker):
    """None when the program passed `tests`, else what went wrong, as bytes."""
    if (reply := _receive(answers)) is None:
        status = os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1])
        how = f"exited with status {status} before its end" if status >= 0 else f"killed by signal {-status}"
        return how.encode()
    if reply != b"=":
        return reply[1:]
    try:
        code = compile(tests, "<tests>", "exec")
        namespace = {name: _ask(name, calls, answers) for name in _names(code) - set(dir(builtins))}
        exec(code, {**namespace, "__name__": "__tests__"})
    except BaseException as e:
        return _describe(e)
    return None


def main(verdict):
    """Read the request from stdin, run it; write a line with the level, then the nonce or the error, to `verdict`."""
    request = marshal.loads(_receive(0))
    sys.path[:] = request["path"]
    _limit(CPU=int(request["timeout_s"]) + 1, AS=request["memory_bytes"], FSIZE=request["file_bytes"], CORE=0,
           NOFILE=64, MEMLOCK=0, MSGQUEUE=0)
    request["own_folder"] = _namespaces(request["folder"], request["room"])
    (calls_out, calls_in), (answers_out, answers_in) = os.pipe(), os.pipe()
    worker = os.fork()
    if worker == 0:
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)
        for fd in (null, verdict, calls_in, answers_out):
            os.close(fd)
        level = _confine(request)
        _send(answers_in, level.encode())
        _work(request, level, calls_out, answers_in)
    os.close(calls_out)
    os.close(answers_in)
    secret = marshal.loads(_receive(0))
    _confine(request)
    os.write(verdict, (_receive(answers_out) or b"basic") + b"\n")
    problem = _judge(secret["tests"], calls_in, answers_out, worker)
    os.write(verdict, b"=" + secret["nonce"] if problem is None else b"!" + problem)
    os._exit(0)
