"""
The ground: nothing half written, nothing run twice at once, no seed that stands for two, no traceback for a user.
"""
import contextlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st

from nanochat import common, terminal

ENTRY = """
import errno
from nanochat import common
def main():
    {}
common.run(main)
"""


def script(python, body):
    return python("-c", ENTRY.format(textwrap.indent(textwrap.dedent(body), "    ").strip()))


# ------------------------------------------------------------------------------------------------------------- writing
def test_atomic_write_replaces_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "new" / "a.txt"
    common.atomic_write(path, "Grüße\n")
    common.atomic_write(path, b"two")
    assert path.read_bytes() == b"two"
    assert [p.name for p in path.parent.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("write", [
    "common.atomic_write(path, 'half')",
    "with common.atomic_file(path) as tmp: tmp.write_text('half', encoding='utf-8')",
    "with common.atomic_dir(path) as tmp: (tmp / 'x').write_text('half', encoding='utf-8')"])
def test_a_process_killed_in_the_middle_of_a_write_leaves_the_old_content(tmp_path, write):
    path = tmp_path / "kept"
    kept = path / "x" if "atomic_dir" in write else path
    kept.parent.mkdir(exist_ok=True)
    kept.write_text("whole", encoding="utf-8")
    code = f"""
import pathlib, time
from nanochat import common
path = pathlib.Path({str(path)!r})
def halt(fd):                       # the data are written, the rename is not
    print('ready', flush=True)
    time.sleep(60)
common.os.fsync = halt
{write}
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    process.kill()
    process.wait()
    process.stdout.close()
    assert kept.read_text(encoding="utf-8") == "whole"


def test_a_write_that_raises_leaves_the_old_content_and_no_temporary(tmp_path):
    path = tmp_path / "a"
    common.atomic_write(path, "whole")
    with pytest.raises(ZeroDivisionError), common.atomic_file(path) as tmp:
        tmp.write_text("half", encoding="utf-8")
        raise ZeroDivisionError
    with pytest.raises(ZeroDivisionError), common.atomic_dir(tmp_path / "d") as tmp:
        (tmp / "x").write_text("half", encoding="utf-8")
        raise ZeroDivisionError
    assert path.read_text(encoding="utf-8") == "whole"
    assert [p.name for p in tmp_path.iterdir() if p.name != "base"] == ["a"]


def test_atomic_dir_replaces_a_folder_whole(tmp_path):
    for name in ("one", "two"):
        with common.atomic_dir(tmp_path / "d") as tmp:
            (tmp / name).write_text(name, encoding="utf-8")
    assert [p.name for p in (tmp_path / "d").iterdir()] == ["two"]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_json_refuses_what_is_no_json(tmp_path, bad):
    with pytest.raises(ValueError):
        common.write_json(tmp_path / "a.json", {"loss": bad})
    assert not (tmp_path / "a.json").exists()


@pytest.mark.parametrize("content", [b"", b'{"a": 1', b"\xff\xfe"])
def test_damaged_json_names_the_file(tmp_path, content):
    path = tmp_path / "broken.json"
    path.write_bytes(content)
    with pytest.raises(common.DataError, match="broken.json.*Delete it"):
        common.read_json(path)


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), OSError(5, "Input/output error"),
                                   FileNotFoundError(2, "No such file or directory")])
def test_json_that_cannot_be_read_is_not_called_damaged(tmp_path, error, monkeypatch):
    def refuse(*args, **how):
        raise error
    monkeypatch.setattr(common.Path, "read_text", refuse)
    with pytest.raises(common.Unreadable, match=f"a.json: {error.strerror}") as caught:
        common.read_json(tmp_path / "a.json")
    assert "Delete" not in str(caught.value) and not isinstance(caught.value, common.DataError)


def test_json_round_trip_keeps_text_readable(tmp_path):
    common.write_json(tmp_path / "a.json", {"text": "Grüße, 世界"})
    assert "Grüße, 世界" in (tmp_path / "a.json").read_text(encoding="utf-8")
    assert common.read_json(tmp_path / "a.json") == {"text": "Grüße, 世界"}
    common.append_jsonl(tmp_path / "a.jsonl", {"n": 1})
    common.append_jsonl(tmp_path / "a.jsonl", {"n": 2})
    assert [json.loads(line) for line in (tmp_path / "a.jsonl").read_text(encoding="utf-8").splitlines()] == [{"n": 1}, {"n": 2}]


def test_a_name_that_is_no_utf8_can_be_written_and_read_back(tmp_path):
    named = {"folder": os.fsdecode(b"caf\xe9")}
    common.write_json(tmp_path / "a.json", named)
    common.append_jsonl(tmp_path / "a.jsonl", named)
    assert common.read_json(tmp_path / "a.json") == common.read_json(tmp_path / "a.jsonl") == named


def test_base_dir_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("NANOCHAT_BASE_DIR", "~/elsewhere")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert common.base_dir() == tmp_path / "elsewhere"
    monkeypatch.delenv("NANOCHAT_BASE_DIR")
    assert common.base_dir() == tmp_path / ".cache" / "nanochat"


def test_save_result_says_what_a_reader_needs_to_repeat_it(base):
    path = common.save_result("tok_train", metrics={"n": 1}, config={"depth": 4}, device="cpu", wall_s=1.234, notes=["x"])
    result = common.read_json(path)
    assert path == base / "report" / "results" / "tok_train.json"
    assert result["metrics"] == {"n": 1} and result["config"] == {"depth": 4} and result["notes"] == ["x"]
    assert {"commit", "versions", "device", "time", "wall_s"} <= set(result)


# ---------------------------------------------------------------------------------------------------------------- lock
def test_run_lock_refuses_a_second_run_and_lets_the_next_one_in(tmp_path):
    path = tmp_path / "run.lock"
    with (common.run_lock(path), pytest.raises(common.NanochatError, match="another run holds"),
          common.run_lock(path)):
        pass
    with common.run_lock(path):
        pass


def test_run_lock_dies_with_its_process(tmp_path):
    path = tmp_path / "run.lock"
    code = ("import sys, time\nfrom nanochat.common import run_lock\n"
            "with run_lock(sys.argv[1]):\n    print('held', flush=True)\n    time.sleep(60)")
    process = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    with pytest.raises(common.NanochatError), common.run_lock(path):
        pass
    process.kill()
    process.wait()
    process.stdout.close()
    with common.run_lock(path):
        pass


def test_a_lock_file_that_was_left_behind_locks_nobody_out(tmp_path):
    path = tmp_path / "run.lock"
    path.write_text("of a run long ago", encoding="utf-8")
    with common.run_lock(path):
        pass


# ------------------------------------------------------------------------------------------------------ other systems
def test_everything_can_be_imported_where_posix_is_missing(python):
    """Windows has none of these modules; only the sandbox's child, which never starts there, may want one; what
    goes along with an export wants transformers."""
    files = [*ROOT.glob("nanochat/**/*.py"), *ROOT.glob("scripts/*.py")]
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in files
             if path.name not in ("sandbox_child.py", "for_transformers.py")]
    done = python("-c", f"""
import importlib, os, sys
for name in ("fcntl", "resource", "pwd", "grp", "termios", "pty", "tty"):
    sys.modules[name] = None
for name in {sorted(names)!r}:
    importlib.import_module(name)
from nanochat.infer import sandbox
del os.fork
try:
    sandbox.run_code("print('ran')", unsafe=True)
except sandbox.NanochatError as error:
    print(error)
""")
    assert done.returncode == 0, done.stderr
    assert "needs" in done.stdout and "os.fork" in done.stdout and "resource" in done.stdout
    assert done.stdout.count("\n") == 1


def test_a_folder_is_not_flushed_where_it_cannot_be_opened(tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr(common.os, "open", lambda path, flags: opened.append((path, flags)) or 0)
    monkeypatch.setattr(common.os, "fsync", lambda descriptor: None)
    monkeypatch.setattr(common.os, "close", lambda descriptor: None)
    monkeypatch.setattr(common.os, "name", "nt")
    common._flush_to_disk(tmp_path)
    assert not opened
    common._flush_to_disk(tmp_path / "file")
    assert opened == [(tmp_path / "file", os.O_RDWR)]


# --------------------------------------------------------------------------------------------------------------- seeds
def test_mix_seed_does_not_collide_where_arithmetic_does():
    groups = [(1,), (-1,), (0,), (0, 0), (1, 0), (0, 1), ("1",), ("a", "b"), ("ab",), ("a", "b", ""), (10**30,), (1, "eval"),
              ("eval", 1)]
    assert len({common.mix_seed(*parts) for parts in groups}) == len(groups)


@given(st.lists(st.one_of(st.integers(), st.text(max_size=20)), max_size=4))
def test_mix_seed_fits_every_generator_and_never_changes(parts):
    assert common.mix_seed(*parts) == common.mix_seed(*parts)
    assert 0 <= common.mix_seed(*parts) < 2**63


def test_mix_seed_is_the_same_in_every_process(python):
    out = python("-c", "from nanochat.common import mix_seed; print(mix_seed('a', 1))", env={**os.environ, "PYTHONHASHSEED": "7"})
    assert int(out.stdout) == common.mix_seed("a", 1)


# ----------------------------------------------------------------------------------------------- what the user sees of it
@pytest.mark.parametrize("body, code, text", [
    ("return None", 0, ""),
    ("return 3", 3, ""),
    ("raise common.UsageError('--depth must be at least 1, got 0')", 2, "error: --depth must be at least 1, got 0"),
    ("raise common.DataError('x.parquet is cut off')", 1, "error: x.parquet is cut off"),
    ("raise common.MissingArtifact('tokenizer', '/t', 'python -m scripts.tok_train')", 1,
     "error: tokenizer not found at /t. Make it with: python -m scripts.tok_train"),
    ("raise common.CheckpointError('another depth')", 1, "error: another depth"),
    ("raise common.Interrupted('saved at step 7')", 130, "stopped: saved at step 7"),
    ("raise KeyboardInterrupt", 130, "stopped: interrupted; run the same command again to go on"),
    ("raise OSError(errno.ENOSPC, 'No space left on device', 'big.bin')", 1,
     "error: no space left on the device that holds big.bin. Free some, then run this again."),
    ("raise OSError(errno.EDQUOT, 'Disk quota exceeded', 'big.bin')", 1,
     "error: no space left on the device that holds big.bin. Free some, then run this again."),
    ("raise PermissionError(errno.EACCES, 'Permission denied', 'theirs.lock')", 1,
     "error: cannot use theirs.lock: Permission denied.")])
def test_a_users_mistake_is_one_line_and_an_exit_code(python, body, code, text):
    done = script(python, body)
    assert (done.returncode, done.stderr.strip()) == (code, text)


def test_a_programmers_mistake_keeps_its_traceback(python):
    done = script(python, "assert 1 == 2, 'got 1'")
    assert done.returncode == 1 and "Traceback" in done.stderr and "got 1" in done.stderr


def test_python_says_nothing_about_what_a_model_wrote(python):
    done = script(python, "from nanochat.infer import tools; print(tools.run_tool('1or 2'))")
    assert done.stdout and not done.stderr


def test_a_full_disk_is_one_line(python):
    if not os.path.exists("/dev/full"):
        pytest.skip("there is no /dev/full on this system")
    done = script(python, """
        with open("/dev/full", "w", encoding="utf-8") as f:
            f.write("x" * 100000)
    """)
    assert done.returncode == 1 and done.stderr.startswith("error: no space left") and done.stderr.count("\n") == 1


def test_a_reader_that_goes_away_is_no_error(python):
    code = ENTRY.format("for i in range(100000): print(i)")
    done = subprocess.run(f'{sys.executable} -c "$CODE" | head -1', shell=True, capture_output=True, text=True,
                          env={**os.environ, "CODE": code})
    assert (done.stdout, done.stderr) == ("0\n", "")


def test_ctrl_c_is_one_line(python):
    code = ENTRY.format("import time; print('ready', flush=True); time.sleep(60)")
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=20)
    assert process.returncode == 130 and stderr == "stopped: interrupted; run the same command again to go on\n"


# ------------------------------------------------------------------------------------------------------------- terminal
def test_progress_speaks_now_and_then_when_there_is_no_terminal(monkeypatch, capsys):
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    common.setup_logging()
    progress = terminal.Progress(100, "steps", every_s=10.0)
    for _ in range(100):
        clock[0] += 0.5
        progress.update(1, loss="1.0")
    progress.close()
    lines = capsys.readouterr().out.splitlines()
    assert 4 <= len(lines) <= 6 and lines[0].startswith("steps 20/100 (20%)") and "loss 1.0" in lines[0] and "left" in lines[0]


def on_a_terminal(code):
    """What a terminal of 100 columns receives from a Python program."""
    pty = pytest.importorskip("pty", reason="this system has no pseudo-terminals")
    master, slave = pty.openpty()
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=slave, stderr=slave, cwd=ROOT,
                               env={**os.environ, "COLUMNS": "100", "TERM": "xterm"})
    os.close(slave)
    received = b""
    with contextlib.suppress(OSError):          # EIO: the program has ended
        while block := os.read(master, 1 << 16):
            received += block
    os.close(master)
    process.wait()
    return received.decode()


def test_on_a_terminal_a_bar_is_drawn_now_and_then_and_lines_pass_above_it():
    text = on_a_terminal("""
        from nanochat import common, terminal
        common.setup_logging()
        progress = terminal.Progress(2000, "steps", done=1000)
        for i in range(1000):
            progress.update(1, loss="2.50")
            if i == 500:
                common.log.info("said between")
        progress.close()
        print("behind it")
    """)
    assert "steps 1,000/2,000 (50%)" in text and "2,000/2,000 (100%)" in text and "loss 2.50" in text
    assert text.count("loss 2.50") < 100, "not drawn at every step"
    assert "\x1b[2Ksaid between\r\n" in text, "the bar is wiped before a line and drawn again after it"
    assert text.endswith("\x1b[2Kbehind it\r\n")
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l"), "the cursor is back"


def test_a_bar_that_an_exception_ends_gives_the_cursor_back():
    text = on_a_terminal("""
        from nanochat import common, terminal
        def main():
            common.setup_logging()
            terminal.Progress(2000, "steps").update(7)
            raise common.DataError("x.parquet is cut off")
        common.run(main)
    """)
    assert "error: x.parquet is cut off\r\n" in text
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")


def test_other_ranks_only_speak_of_warnings(capsys):
    common.setup_logging(rank=1)
    common.log.info("hidden")
    common.log.warning("shown")
    assert capsys.readouterr().out == "[rank 1] shown\n"
    common.setup_logging()
