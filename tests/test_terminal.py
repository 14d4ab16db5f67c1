"""
Between a script and whoever started it: a disk, rights, streams, names or a signal that are not as usual end in one line.
"""
import os
import signal
import subprocess
import sys

import pytest
from conftest import ROOT
from test_common import ENTRY, script

from nanochat import common

ELSEWHERE = "Mend that, or have all kept elsewhere: NANOCHAT_BASE_DIR=/path/to/folder"


# ---------------------------------------------------------------------------------------------------- disks and rights
@pytest.mark.parametrize("error, text", [
    ("errno.EACCES, 'Permission denied', '/b/logs/x'", f"cannot use /b/logs/x: Permission denied. {ELSEWHERE}"),
    ("errno.EROFS, 'Read-only file system', '/b'", f"cannot use /b: Read-only file system. {ELSEWHERE}"),
    ("errno.EIO, 'Input/output error', '/b/x'", f"cannot use /b/x: Input/output error. {ELSEWHERE}"),
    ("errno.ENOENT, 'No such file or directory', '/b'", f"cannot use /b: No such file or directory. {ELSEWHERE}"),
    ("errno.EPERM, 'Operation not permitted', b'/out'",
     "cannot use /out: Operation not permitted."),
    ("errno.EMFILE, 'Too many open files', '/etc/hosts'",
     "cannot use /etc/hosts: Too many open files."),
    ("errno.EACCES, 'Failed to open local file'",
     "cannot use /b or the output: Failed to open local file."),
    ("errno.ENOSPC, 'No space left on device'",
     "no space left on the device that holds /b or the output. Free some, then run this again.")])
def test_what_the_system_refuses_is_one_line(python, monkeypatch, error, text):
    monkeypatch.setenv("NANOCHAT_BASE_DIR", "/b")
    done = script(python, f"raise OSError({error})")
    assert (done.returncode, done.stderr.strip()) == (1, f"error: {text}")


@pytest.mark.parametrize("error", ["errno.ENOENT, 'No such file or directory', '/b/x'", "errno.EINVAL, 'Invalid argument'"])
def test_what_may_be_our_mistake_keeps_its_traceback(python, monkeypatch, error):
    monkeypatch.setenv("NANOCHAT_BASE_DIR", "/b")
    assert "Traceback" in script(python, f"raise OSError({error})").stderr


@pytest.mark.parametrize("kind", ["file", "below a file", "dead link", "long name"])
def test_a_base_directory_that_cannot_be_made_is_one_line(python, base, monkeypatch, kind):
    if kind == "dead link":
        base.symlink_to("/nowhere/at/all")
    elif kind == "long name":
        monkeypatch.setenv("NANOCHAT_BASE_DIR", f"{base}{300 * 'x'}")
    else:
        base.write_text("a file", encoding="utf-8")
    if kind == "below a file":
        monkeypatch.setenv("NANOCHAT_BASE_DIR", str(base / "x"))
    done = python("-m", "nanochat.report", "reset")
    assert done.returncode in (1, 2) and str(base) in done.stderr and done.stderr.count("\n") == 1
    assert "NANOCHAT_BASE_DIR=" in done.stderr


def test_a_user_whom_the_system_does_not_know_is_asked_for_a_folder(python):
    code = ENTRY.format("import pwd; pwd.getpwuid = {}.__getitem__; print(common.base_dir())")
    homeless = {name: value for name, value in os.environ.items() if name not in ("HOME", "NANOCHAT_BASE_DIR")}
    for env in (homeless, {**os.environ, "NANOCHAT_BASE_DIR": "~nobody-of-that-name/x"}):
        done = python("-c", code, env=env)
        assert done.returncode == 2 and "NANOCHAT_BASE_DIR=/path" in done.stderr and done.stderr.count("\n") == 1


# ------------------------------------------------------------------------------------------------------------- streams
def shell(command, body, **env):
    """Run ENTRY with `body` as "$@" of a shell's `command`."""
    return subprocess.run(["sh", "-c", command, "sh", sys.executable, "-c", ENTRY.format(body)], cwd=ROOT, capture_output=True,
                          text=True, encoding="latin-1", timeout=60, env={**os.environ, **env})


def test_closed_streams_are_as_good_as_empty_ones(tmp_path):
    kept = tmp_path / "kept"
    body = (f"import sys, os; file = open({str(kept)!r}, 'w', encoding='utf-8'); print('said', sys.stdin.read()); "
            "print('warned', file=sys.stderr); os.write(1, b'by C'); file.write('written')")
    assert shell('"$@" <&- >&- 2>&-', body).returncode == 0
    assert kept.read_text(encoding="utf-8") == "written"


def test_a_terminal_that_lacks_a_letter_shows_a_question_mark():
    done = shell('"$@"', "common.setup_logging(); common.log.info('caf\\u00e9 \\u4e16'); print('\\u4e16')",
                 PYTHONIOENCODING="latin-1")
    assert (done.returncode, done.stdout, done.stderr) == (0, "café ?\n?\n", "")


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_output_that_has_no_room_is_one_line(unbuffered):
    if not os.path.exists("/dev/full"):
        pytest.skip("there is no /dev/full on this system")
    done = shell('"$@" >/dev/full', "print('hello')", PYTHONUNBUFFERED=unbuffered)
    assert done.returncode == 1 and done.stderr.startswith("error: no space left") and done.stderr.count("\n") == 1


# -------------------------------------------------------------------------------------------------------------- Ctrl-C
@pytest.mark.parametrize("module, needs", [("scripts.chat_cli", "torch"), ("scripts.base_train", "torch"),
                                           ("scripts.plan", "shutil"), ("nanochat.dataset", "pyarrow")])
def test_ctrl_c_while_modules_load_is_one_line(tmp_path, module, needs):
    slow = "print('loading', flush=True)\nimport time\ntry:\n    time.sleep(60)\nexcept BaseException:\n    raise ImportError\n"
    (tmp_path / f"{needs}.py").write_text(slow, encoding="utf-8")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen([sys.executable, "-m", module], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               text=True, env={**os.environ, "PYTHONPATH": path})
    assert process.stdout.readline() == "loading\n"
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=20)
    assert process.returncode == 130 and stderr.startswith("stopped: ") and stderr.count("\n") == 1


def test_whoever_imports_the_package_keeps_their_ctrl_c(python):
    done = python("-c", "import signal, nanochat.common; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)")
    assert done.stdout == "True\n"


def test_a_second_ctrl_c_at_the_end_is_no_traceback():
    ends = "import atexit, os, time; atexit.register(lambda: os.write(2, b'ending\\n') and time.sleep(60))"
    code = ENTRY.format(f"{ends}; raise KeyboardInterrupt")
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    assert process.stderr.readline().startswith("stopped: ") and process.stderr.readline() == "ending\n"
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=20)
    assert (process.returncode, stderr) == (130, "")


def test_the_handler_of_ctrl_c_is_not_changed_where_it_is_ignored(python):
    code = ENTRY.format("import signal; print(signal.getsignal(signal.SIGINT) == signal.SIG_IGN)")
    assert python("-c", code, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)).stdout == "True\n"


def test_the_folder_of_a_user_is_found_without_home(monkeypatch):
    monkeypatch.delenv("HOME")
    monkeypatch.setenv("NANOCHAT_BASE_DIR", "~")
    assert common.base_dir() == common.Path.home()
