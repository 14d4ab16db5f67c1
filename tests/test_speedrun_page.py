"""The page that speedrun.sh starts: there before the first stage, at a free port, and gone with the run, however that ends."""
import os
import re
import signal
import socket
import subprocess
import sys

import httpx
import pytest
from conftest import ROOT
from serving import settles

HEAD = ("set -euo pipefail; here=$PWD; tier=kindergarten; fresh=; source dev/stages.sh\n"
        "kindergarten() {\n    stage one sleep 0.1\n    stage two sleep ${LAST:-0.1} \\\n        0.1\n}\n"
        "begin\nstart_page\nkindergarten\nend\n")


@pytest.fixture
def run(base, tmp_path):
    """Start such a speedrun; its process, and what it said before its first stage."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n', encoding="utf-8")
    (folder / "python").chmod(0o755)
    started = []

    def start(**env):
        env = {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}", **env}
        process = subprocess.Popen(["bash", "-c", HEAD], cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                   env=env, start_new_session=True)
        started.append(process)
        said = []
        for line in process.stdout:
            if line.startswith("==="):
                break
            said.append(line)
        return process, "".join(said)
    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.stdout.close()
        process.wait()


def address(said):
    return re.search(r"watch it learn: (http://localhost:\d+)/#run", said)[1]


def ends(url):
    def gone():
        try:
            httpx.get(f"{url}/health", timeout=2)
        except httpx.ConnectError:
            return True
        return False
    settles(gone, within_s=15)


def test_the_page_is_there_before_the_first_stage_and_ends_with_the_last(run, base):
    process, said = run(LAST="3")
    url = address(said)
    assert said.count("\n") == 2, "one line about the tier, one about the page"
    assert httpx.get(url).text.startswith("<!doctype html>")
    found = httpx.get(f"{url}/run").json()
    assert [title for title, _, _ in found["stages"]] == ["One", "Two"]
    settles(lambda: [how for _, how, _ in httpx.get(f"{url}/run").json()["stages"]] == ["done", "running"])
    assert httpx.post(f"{url}/v1/chat/completions", json={"messages": [{"role": "user", "content": "hi"}]}).status_code == 503
    rest = process.stdout.read()
    assert process.wait(20) == 0 and "Traceback" not in rest and "8000" not in rest, rest
    ends(url)


def test_a_taken_port_gives_way_to_the_next(run):
    with socket.socket() as sock:
        try:
            sock.bind(("127.0.0.1", 8000))
            sock.listen()
        except OSError:     # taken by somebody else: just as well
            pass
        _, said = run(LAST="2")
        assert int(address(said).rpartition(":")[2]) > 8000


@pytest.mark.parametrize("how, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_however_the_run_is_ended_no_page_is_left(run, base, how, code):
    process, said = run(LAST="60")
    url = address(said)
    if how == signal.SIGKILL:
        os.kill(process.pid, how)
    else:
        os.killpg(process.pid, how)
    assert process.wait(20) == code
    ends(url)
    assert (base / ".done" / "kindergarten" / "stopped").exists() == (how != signal.SIGKILL)


def test_where_there_can_be_no_page_the_run_goes_on(run, tmp_path):
    (tmp_path / "bin" / "python").write_text("#!/bin/sh\necho 'error: no such thing here' >&2\nexit 1\n", encoding="utf-8")
    process, said = run()
    assert "no page to watch it in: error: no such thing here" in said
    process.stdout.read()
    assert process.wait(20) == 0


def test_a_run_that_goes_on_has_a_page_again_and_is_not_shown_as_stopped(run, base):
    process, said = run(LAST="60")
    os.killpg(process.pid, signal.SIGTERM)
    process.wait(20)
    _, said = run(LAST="3")
    assert httpx.get(f"{address(said)}/run").json()["stages"][1][1] == "running"
