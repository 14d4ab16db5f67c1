"""
Between a script and whoever started it: streams, Ctrl-C, and in words what the system refuses (common.run).
"""
import errno
import io
import os
import signal
import sys
from pathlib import Path
from typing import Any

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
