"""
The chat server in a process of its own, for the commands that ask it as a client does.
"""
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from nanochat.common import UsageError


@contextmanager
def serving(source: str, *flags: str) -> Iterator[str]:
    """The URL of scripts.chat_web with the model of a stage, on a free port of this machine. Raises UsageError."""
    command = [sys.executable, "-m", "scripts.chat_web", "--port=0", f"--source={source}", *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            for line in process.stdout:
                print(line, end="", flush=True)
                found = re.search(r"Chat at (http://\S+)", line)
                if found:
                    yield found[1]
                    return
            raise UsageError("the server did not start.")
        finally:
            process.terminate()
