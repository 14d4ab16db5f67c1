"""
The half of nanochat.infer.sandbox that runs in the child: it locks the door behind itself, then runs the
program.

Imported by path in a bare `python -I -S`, so it imports little and nothing of nanochat. Two processes: the
*judge* reads the tests and the nonce after the *worker* is forked off, so neither is ever in the memory of
the untrusted program. Both stand behind the walls of sandbox_walls.py. The worker answers the judge's calls
with literals, which the judge reads without running anything (ast.literal_eval): what the program returns can
neither be code nor compare itself equal to everything.

    caller --request, then tests and nonce (stdin)--> judge --calls-->   worker: runs the program
           <--level, then nonce or error (verdict)--        <--answers--
"""
import builtins
import marshal
import os
import struct
import sys

import sandbox_walls

MAX_FRAME = 8 << 20  # bytes of one call or answer
ERROR_CHARS = 2000
DONE = b"="  # opens an answer or a verdict: what follows is the value, or the nonce
FAILED = b"!"  # what follows says why


def main(verdict: int) -> None:
    """Run the request on stdin; write a line with the level, then the nonce or the error, to `verdict`."""
    request = marshal.loads(_receive(0))
    sys.path[:] = request["path"]
    sandbox_walls.limit(CPU=int(request["timeout_s"]) + 1, AS=request["memory_bytes"],
                        FSIZE=request["file_bytes"], CORE=0, NOFILE=64, MEMLOCK=0, MSGQUEUE=0)
    request["in_memory"] = sandbox_walls.own_folder(request["folder"], request["room"])

    calls_out, calls_in = os.pipe()
    answers_out, answers_in = os.pipe()
    worker = os.fork()
    if worker == 0:
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)  # stdin, where the tests come next
        for descriptor in (null, verdict, calls_in, answers_out):
            os.close(descriptor)
        level = _confine(request)
        _send(answers_in, level.encode())
        _work(request, level, calls_out, answers_in)

    os.close(calls_out)
    os.close(answers_in)
    secret = marshal.loads(_receive(0))
    _confine(request)
    level = _receive(answers_out) or b"basic"
    os.write(verdict, level + b"\n")
    problem = _judge(secret["tests"], calls_in, answers_out, worker)
    os.write(verdict, DONE + secret["nonce"] if problem is None else FAILED + problem)
    os._exit(0)


def _confine(request: dict) -> str:
    return sandbox_walls.confine(request["readable"], request["folder"], request["in_memory"])


# ---- frames: four bytes of length, then the data
def _send(pipe: int, data: bytes) -> None:
    data = struct.pack("I", len(data)) + data
    while data:
        written = os.write(pipe, data)
        data = data[written:]


def _receive(pipe: int) -> bytes | None:
    """One frame, or None at the end of the pipe or when it claims to be too long.

    Unbuffered: the judge's next must not be in memory when the worker is forked off.
    """
    head = _read_exactly(pipe, 4)
    if head is None:
        return None
    size = struct.unpack("I", head)[0]
    return _read_exactly(pipe, size) if size <= MAX_FRAME else None


def _read_exactly(pipe: int, size: int) -> bytes | None:
    data = b""
    while len(data) < size:
        block = os.read(pipe, size - len(data))
        if not block:
            return None
        data += block
    return data


def _describe(error: BaseException) -> bytes:
    return f"{type(error).__name__}: {error}"[:ERROR_CHARS].encode("utf-8", "replace")


# ---- worker
def _work(request: dict, level: str, calls: int, answers: int) -> None:
    """Run the program, then answer calls (name, arguments, keywords) until the judge hangs up; no return."""
    namespace = {"__name__": "__main__", "__builtins__": __builtins__}
    try:
        if request["safe"] and level not in request["safe"]:
            raise PermissionError(f"code is not run in a sandbox that only reaches {level!r}")
        exec(compile(request["code"], "<program>", "exec"), namespace)
        sys.stdout.flush()
        reply = DONE
    except BaseException as error:
        reply = FAILED + _describe(error)
    _send(answers, reply)

    while (call := _receive(calls)) is not None:
        try:
            name, arguments, keywords = marshal.loads(call)
            result = namespace[name](*arguments, **keywords)
            reply = DONE + _literal(result).encode("utf-8")
        except BaseException as error:
            reply = FAILED + _describe(error)
        _send(answers, reply)
    sys.stdout.flush()
    os._exit(0)


def _literal(value: object) -> str:
    """`value` in Python's literal syntax; TypeError for what is no plain data.

    By the types' own __repr__: that of a subclass might lie.
    """
    if hasattr(value, "tolist"):
        value = value.tolist()  # numpy
    for kind in (bool, int, str, bytes, complex, type(None)):
        if isinstance(value, kind):
            return kind.__repr__(value)
    if isinstance(value, float):
        return float.__repr__(value).replace("inf", "1e999")  # infinity has no literal
    if isinstance(value, dict):
        items = [f"{_literal(key)}: {_literal(item)}" for key, item in value.items()]
        return "{" + ", ".join(items) + "}"
    if isinstance(value, (set, frozenset)):
        return "{" + ", ".join(map(_literal, value)) + "}" if value else "set()"  # {} would be a dict
    if isinstance(value, (list, tuple)):
        items = "".join(f"{_literal(item)}, " for item in value)
        return f"[{items}]" if isinstance(value, list) else f"({items})"
    raise TypeError(f"a test got a {type(value).__name__}, which is no plain data")


# ---- judge
def _judge(tests: str, calls: int, answers: int, worker: int) -> bytes | None:
    """None when the program passed `tests`, else what went wrong."""
    reply = _receive(answers)
    if reply is None:
        status = os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1])
        if status < 0:
            return f"killed by signal {-status}".encode()
        return f"exited with status {status} before its end".encode()
    if reply != DONE:
        return reply[1:]
    try:
        code = compile(tests, "<tests>", "exec")
        namespace = {}
        for name in _names(code) - set(dir(builtins)):
            namespace[name] = _stand_in(name, calls, answers)
        namespace["__name__"] = "__tests__"
        exec(code, namespace)
    except BaseException as error:
        return _describe(error)
    return None


def _names(code: object) -> set[str]:
    """All global names that a code object and those inside it (functions, comprehensions) mention."""
    names = set(code.co_names)
    for constant in code.co_consts:
        if hasattr(constant, "co_names"):
            names |= _names(constant)
    return names


def _stand_in(name: str, calls: int, answers: int):
    """For the tests in place of the program's function `name`: has the worker call it."""
    def ask(*arguments, **keywords):
        import ast  # here, as it takes a few ms and most programs come without tests

        _send(calls, marshal.dumps((name, arguments, keywords)))
        reply = _receive(answers)
        if reply is None:
            raise RuntimeError(f"the program ended within {name}()")
        text = reply[1:].decode("utf-8", "replace")
        if reply[:1] == DONE:
            return ast.literal_eval(text)
        raise _same_exception(text)

    ask.__name__ = name
    return ask


def _same_exception(text: str) -> Exception:
    """Of 'ValueError: no' a ValueError, as tests may expect one; of an unknown kind a RuntimeError."""
    kind = getattr(builtins, text.partition(":")[0], None)
    message = text.partition(": ")[2] or text
    if isinstance(kind, type) and issubclass(kind, Exception):
        return kind(message)
    return RuntimeError(message)
