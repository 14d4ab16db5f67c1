"""
Between a script and whoever started it: its three streams, Ctrl-C, and what the system refuses, in words.

`common.run` puts it together. Nothing here knows what the scripts do.
"""
import errno
import io
import os
import signal
import sys
from pathlib import Path
from typing import Any

# Errors that tell of the user's disk, rights, names or limits. Any other is a mistake of ours, and keeps its
# traceback.
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
NOT_OURS = (
    errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ELOOP,
    errno.ENAMETOOLONG, errno.EIO, errno.ENODEV, errno.ENXIO, errno.ESTALE, errno.EFBIG, errno.EMFILE,
    errno.ENFILE,
)


def mend_streams() -> None:
    """Give the program all three streams, and have them show a ? for what their encoding does not know.

    Whoever starts it may have closed one (`<&-`). It would be None, and the next file that is opened would
    get its number, and with it what is meant for the terminal. And latin-1 has no word for much that a model
    says.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def on_ctrl_c(handler: Any) -> None:
    """Have `handler` answer Ctrl-C, unless whoever started the program has it ignored (nohup, a job with
    &)."""
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
        signal.signal(signal.SIGINT, handler)


def in_one_line(error: OSError, base: str) -> str | None:
    """What the user has to mend; None where that is nothing. `base`: the folder that keeps all."""
    where = f"{base} or the output"  # a write does not know the name of its file
    if isinstance(error.filename, (str, bytes)):
        where = os.fsdecode(error.filename)
    if error.errno in NO_ROOM:
        return f"no space left on the device that holds {where}. Free some, then run this again."

    above_base = Path(base).is_relative_to(where)  # then that cannot be made, whatever the reason
    if error.errno not in NOT_OURS and not above_base:
        return None
    reason = error.strerror
    if error.errno == errno.EEXIST:
        reason = "a file, or a link to nothing, is where a folder should be"
    advice = "Mend that, then run this again."
    if above_base or Path(where).is_relative_to(base):
        advice = "Mend that, or have all kept elsewhere: NANOCHAT_BASE_DIR=/path/to/folder"
    return f"cannot use {where}: {reason}. {advice}"
