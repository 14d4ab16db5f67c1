"""
Between a script and whoever started it: streams, Ctrl-C, in words what the system refuses (common.run), and
how far a long job came.
"""
import atexit
import errno
import io
import logging
import os
import select
import signal
import sys
import time
from pathlib import Path
from typing import Any

log = logging.getLogger("nanochat")

PASTE_S = 0.03
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
# What may be a mistake of ours keeps its traceback. Others tell of the user's disk, rights, names and limits.
MAYBE_OURS = (None, errno.ENOENT, errno.EINVAL, errno.EBADF, errno.ESPIPE, errno.ECHILD)


def mend_streams() -> None:
    """Have all three streams, which show a ? for what their encoding lacks (latin-1: most of Unicode).

    One that was closed (`<&-`) is None, and the next file opened would get its number, and what is meant for
    it.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def ask(prompt: str) -> str:
    """A line of stdin, as input() reads it. Only a person is shown the prompt, and a pipe behind stdout gets
    none of it."""
    if not sys.stdin.isatty():
        prompt = ""
    elif not sys.stdout.isatty():
        print(prompt, end="", file=sys.stderr, flush=True)
        prompt = ""
    return input(prompt)


def is_pasted() -> bool:
    """Whether the line just read came with more. Nobody types a line in PASTE_S.

    GNU readline is told by the terminal where a paste ends and makes it one line; others are not.
    """
    readline = sys.modules.get("readline")
    knows_pastes = "libedit" not in (getattr(readline, "__doc__", None) or "libedit") and sys.stdout.isatty()
    if knows_pastes or os.name == "nt" or not sys.stdin.isatty():
        return False
    return bool(select.select([sys.stdin], [], [], PASTE_S)[0])


def on_ctrl_c(handler: Any) -> None:
    """Have `handler` answer Ctrl-C, unless it is ignored from the start, as in a shell's job with &."""
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
        signal.signal(signal.SIGINT, handler)


def in_one_line(error: OSError, base: str) -> str | None:
    """What the user has to mend, None for nothing; `base` is the base directory."""
    where = f"{base} or the output"  # a write does not know the name of its file
    if isinstance(error.filename, (str, bytes)):
        where = os.fsdecode(error.filename)
    if error.errno in NO_ROOM:
        return f"no space left on the device that holds {where}. Free some, then run this again."

    above_base = Path(base).is_relative_to(where)  # base cannot be made, whatever the reason
    if error.errno in MAYBE_OURS and not above_base:
        return None
    text = f"cannot use {where}: {error.strerror}."
    if error.errno == errno.EEXIST:
        text = f"{where} should be a folder, and is a file or a link to nothing."
    if above_base or Path(where).is_relative_to(base):
        text += " Mend that, or have all kept elsewhere: NANOCHAT_BASE_DIR=/path/to/folder"
    return text


class Progress:
    """How far a long job came: a bar on a terminal, elsewhere (a file, a pipe) a plain line every `every_s`
    seconds."""

    REDRAW_S = 0.1  # a bar drawn at every step would cost more than a small model's step

    def __init__(self, total: int, what: str, every_s: float = 10.0, done: int = 0) -> None:
        """`total` and `done` count anything; `done` was done in earlier sittings and is left out of the
        speed."""
        self.total = total
        self.what = what
        self.done = done
        self.done_before = done
        self.start = time.monotonic()
        self.shown = self.start  # when last
        self.bar = None
        self.every_s = every_s
        if sys.stdout.isatty() and log.isEnabledFor(logging.INFO):
            self.every_s = self.REDRAW_S
            self.bar = _terminal_bar()
            self.task = self.bar.add_task(what, total=total, completed=done, fields="")
            self.bar.start()
            atexit.register(self.bar.stop)  # gives the cursor back, also after an exception

    def update(self, count: int = 1, **fields: Any) -> None:
        """`count` more are done. `fields`, such as loss="2.31", are shown behind."""
        self.done += count
        now = time.monotonic()
        finished = self.bar is not None and self.done >= self.total
        if now - self.shown < self.every_s and not finished:
            return
        self.shown = now
        text = "".join(f" | {name} {value}" for name, value in fields.items())
        if self.bar is not None:
            self.bar.update(self.task, completed=self.done, fields=text)
            self.bar.refresh()
        else:
            log.info(self._line(now) + text)

    def _line(self, now: float) -> str:
        rate = (self.done - self.done_before) / max(now - self.start, 1e-9)
        left_s = (self.total - self.done) / rate if rate else 0
        share = self.done / max(self.total, 1)
        return f"{self.what} {self.done:,}/{self.total:,} ({share:.0%}) | {left_s:.0f}s left"

    def close(self) -> float:
        """Wipe the bar; returns the seconds it took."""
        if self.bar is not None:
            self.bar.stop()
            atexit.unregister(self.bar.stop)
        return time.monotonic() - self.start


def _terminal_bar():
    """A bar that draws itself only when asked (no thread of its own that would take time from training)."""
    import rich.progress as rich  # here, as it takes 0.1 s, and only people at a terminal need it

    text = "{task.description} {task.completed:,.0f}/{task.total:,.0f} ({task.percentage:.0f}%)"
    return rich.Progress(
        rich.TextColumn(text, markup=False),
        rich.BarColumn(),
        rich.TimeRemainingColumn(),
        rich.TextColumn("{task.fields[fields]}", markup=False),
        transient=True,
        auto_refresh=False,
    )
