"""
speedrun.sh and test.sh as people start them: by sh, through a link, from anywhere, without HOME, rights or a fit Python. A
small script stands for Python, and says what it was asked to run.
"""
import os
import shutil
import subprocess
import sys
import tempfile

import pytest
from conftest import ROOT

PYTHON = """#!/bin/sh
case "$1 $2" in
    "-m venv") mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
    "-m pip") [ "$3" = --version ] || exit ${PIP_FAILS:-0} ;;
    "--version "*) echo Python 3.11 ;;
    "-c "*) case $2 in *ensurepip*) exit ${BARE:-0} ;; *version_info*) exit ${OLD:-0} ;; esac ;;
    *) echo "ran in $PWD, $NANOCHAT_BASE_DIR: $*" ;;
esac
"""
PYTHONS = ("python", "python3", "python3.10", "python3.11", "python3.12", "python3.13")


@pytest.fixture
def clone(tmp_path):
    """A copy of what the shell scripts need, in a folder with a space in its name."""
    folder = tmp_path / "my clone"
    shutil.copytree(ROOT / "dev", folder / "dev")
    for name in ("speedrun.sh", "test.sh", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, folder / name)
    (tmp_path / "bin").mkdir()
    for name in PYTHONS:
        (tmp_path / "bin" / name).write_text(PYTHON, encoding="utf-8")
        (tmp_path / "bin" / name).chmod(0o755)
    return folder


@pytest.fixture
def start(clone, tmp_path):
    """Run a command in a folder, by default the clone; returns the finished process. An env of None is unset."""
    def run(*command, cwd=clone, **env):
        merged = {**os.environ, "PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}", **env}
        return subprocess.run([str(word) for word in command], cwd=cwd, capture_output=True, text=True, timeout=60,
                              stdin=subprocess.DEVNULL, env={k: str(v) for k, v in merged.items() if v is not None})
    return run


def trained_in(done, clone, base):
    assert done.returncode == 0, done.stdout + done.stderr
    return f"ran in {clone}, {base}: -m scripts.base_train" in done.stdout


@pytest.mark.parametrize("command", [["sh", "speedrun.sh"], ["bash", "--posix", "speedrun.sh"], ["./speedrun.sh"],
                                     ["bash", "-C", "-f", "speedrun.sh"], ["bash", "-c", "bash speedrun.sh <&-"]])
def test_it_runs_however_it_is_started(start, clone, base, command):
    assert trained_in(start(*command), clone, base)
    assert "done before: base_train" in start(*command).stdout


def test_it_runs_through_links_from_anywhere(start, clone, base, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    (home / "clone").symlink_to(clone)
    (home / "link").symlink_to("clone/speedrun.sh")
    (tmp_path / "there").symlink_to("home/link")
    (tmp_path / "cd" / "my clone").mkdir(parents=True)
    assert trained_in(start("bash", "there", cwd=tmp_path), clone, base)
    for command, cwd in ((["bash", "link"], home), (["bash", "my clone/speedrun.sh"], tmp_path),
                         (["bash", "speedrun.sh"], home / "clone")):
        done = start(*command, cwd=cwd, CDPATH=tmp_path / "cd")
        assert "done before: base_train" in done.stdout and "installing" not in done.stdout, done.stdout + done.stderr
    (home / "t").symlink_to(clone / "test.sh")
    assert f"ran in {clone}, {base}: -m pytest -q tests/x.py" in start("sh", home / "t", "tests/x.py", cwd=home).stdout


@pytest.mark.parametrize("chosen, kept", [("~", "{home}"), ("~/a b", "{home}/a b"), ("é/x", "{clone}/é/x"),
                                          ("", "{home}/.cache/nanochat")])
def test_the_base_directory_is_what_it_would_be_in_a_shell(start, clone, tmp_path, chosen, kept):
    done = start("bash", "speedrun.sh", NANOCHAT_BASE_DIR=chosen, HOME=tmp_path)
    assert trained_in(done, clone, kept.format(home=tmp_path, clone=clone))


def test_its_output_may_be_closed(start, base):
    assert start("bash", "-c", "bash speedrun.sh >&-").returncode == 0
    assert any(path.name.endswith("report_generate") for path in (base / ".done" / "kindergarten").iterdir())


def test_home_may_be_unset(start, clone, base):
    assert trained_in(start("bash", "speedrun.sh", HOME=None), clone, base)


@pytest.mark.parametrize("argv, env, words", [
    (["d20", "d26"], {}, "one tier at a time"), ([], {"NANOCHAT_BASE_DIR": "~no-such-user/x"}, "Write it out"),
    ([], {"NANOCHAT_BASE_DIR": "speedrun.sh/x"}, "Name a folder of yours"), ([], {"OLD": 1}, "Python 3.10 or newer is needed"),
    ([], {"BARE": 1}, "python3 cannot make a virtual environment (on Debian and Ubuntu: apt install python3-venv)"),
    ([], {"PYTHON": "/no/python"}, "Python 3.10 or newer is needed")])
def test_what_stands_in_the_way_is_one_line(start, argv, env, words):
    done = start("bash", "speedrun.sh", *argv, **env)
    assert done.returncode and words in done.stderr and done.stderr.count("\n") == 1 and not done.stdout


def test_packages_that_cannot_be_had_are_said_and_tried_again(start, clone, base):
    done = start("bash", "speedrun.sh", PIP_FAILS=1)
    assert done.returncode == 1 and "not all packages could be installed" in done.stderr
    assert trained_in(start("bash", "speedrun.sh"), clone, base)


@pytest.mark.parametrize("damage", ["echo exit 1 >.venv/bin/python", "echo /elsewhere >.venv/.place", "rm .venv/.installed",
                                    "rm -r .venv/bin"])
def test_a_broken_or_moved_environment_is_made_again(start, clone, base, damage):
    start("bash", "speedrun.sh")
    start("bash", "-c", damage)
    done = start("bash", "speedrun.sh", "--fresh")
    assert trained_in(done, clone, base) and "installing" in done.stdout
    assert "installing" not in start("bash", "speedrun.sh").stdout


def test_the_environment_of_another_clone_is_left_alone(start, clone, tmp_path):
    start("bash", "speedrun.sh")
    (clone / ".venv").rename(tmp_path / "venv")
    (tmp_path / "venv" / ".place").write_text("/another/clone\n", encoding="utf-8")
    (clone / ".venv").symlink_to(tmp_path / "venv")
    done = start("bash", "speedrun.sh")
    assert done.returncode == 1 and "link" in done.stderr and done.stderr.count("\n") == 1
    assert (tmp_path / "venv" / "bin" / "python").exists()


def test_a_clone_that_is_not_ones_own_is_one_line(start, clone):
    other = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"] if os.getuid() == 0 else []
    if other and (sys.platform != "linux" or not shutil.which("setpriv")):
        pytest.skip("root may write anywhere, and there is no setpriv here")
    with tempfile.TemporaryDirectory() as folder:           # tmp_path is closed to others
        os.chmod(folder, 0o755)
        theirs = shutil.copytree(clone, f"{folder}/clone")
        os.chmod(theirs, 0o555)
        done = start(*other, "bash", "test.sh", cwd=theirs)
    assert done.returncode == 1 and "cannot write to" in done.stderr and done.stderr.count("\n") == 1


def test_shell_scripts_have_no_carriage_returns_in_a_clone_that_converts_lines(tmp_path):
    scripts = ["speedrun.sh", "test.sh", "dev/venv.sh", "dev/stages.sh"]
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    git = ["git", "-C", tmp_path, "-c", "core.autocrlf=true", "-c", "user.name=x", "-c", "user.email=x"]
    for name in (".gitattributes", *scripts):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    subprocess.run([*git, "add", "."], check=True)
    for name in scripts:
        (tmp_path / name).unlink()
    subprocess.run([*git, "checkout", "-q", "."], check=True)
    assert all(b"\r" not in (tmp_path / name).read_bytes() for name in scripts)
