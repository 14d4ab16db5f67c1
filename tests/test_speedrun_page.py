"""The page that speedrun.sh starts: there before the first stage, at a free port, and gone with the run, however that ends."""
import os
import re
import signal
import socket
import subprocess
import sys
import time

import httpx
import pytest
from conftest import ROOT

HEAD = ("set -euo pipefail; here=$PWD; tier=kindergarten; fresh=; source dev/stages.sh\n"
        'wait_for() { until [ -e "$1" ]; do sleep 0.1; done; }\n'
        'kindergarten() {\n    stage one sleep 0.1\n    stage two wait_for \\\n        "$GO"\n}\n'
        "begin\nstart_page\nkindergarten\nend\n")


@pytest.fixture
def run(base, tmp_path):
    """Start such a speedrun, whose last stage waits for a file; its process, and what it said before the first."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n', encoding="utf-8")
    (folder / "python").chmod(0o755)
    started = []

    def start():
        env = {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}", "GO": str(tmp_path / "go")}
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


def settles(claim, within_s=60):
    end = time.monotonic() + within_s
    while not claim():
        assert time.monotonic() < end, "did not happen in time"
        time.sleep(0.1)


def address(said):
    return re.search(r"watch it learn: (http://localhost:\d+)/#run", said)[1]


def ends(url):
    def gone():
        try:
            httpx.get(f"{url}/health", timeout=2)
        except httpx.ConnectError:
            return True
        return False
    settles(gone)


def test_the_page_is_there_before_the_first_stage_and_ends_with_the_last(run, tmp_path):
    process, said = run()
    url = address(said)
    assert len(said.split("\n\n")[0].splitlines()) == 2, "one line about the tier, one about the page"
    assert httpx.get(url, timeout=60).text.startswith("<!doctype html>")
    found = httpx.get(f"{url}/run", timeout=60).json()
    assert [title for title, _, _ in found["stages"]] == ["One", "Two"]
    settles(lambda: [how for _, how, _ in httpx.get(f"{url}/run", timeout=60).json()["stages"]] == ["done", "running"])
    asked = httpx.post(f"{url}/v1/chat/completions", json={"messages": [{"role": "user", "content": "hi"}]}, timeout=60)
    assert asked.status_code == 503
    (tmp_path / "go").touch()
    rest = process.stdout.read()
    assert process.wait(60) == 0 and "Traceback" not in rest and "localhost" not in rest, rest
    ends(url)


def test_a_taken_port_gives_way_to_the_next(run):
    with socket.socket() as sock:
        try:
            sock.bind(("127.0.0.1", 8000))
            sock.listen()
        except OSError:     # taken by somebody else: just as well
            pass
        _, said = run()
        assert int(address(said).rpartition(":")[2]) > 8000


@pytest.mark.parametrize("how, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_however_the_run_is_ended_no_page_is_left(run, base, how, code):
    process, said = run()
    url = address(said)
    if how == signal.SIGKILL:
        os.kill(process.pid, how)
    else:
        os.killpg(process.pid, how)
    assert process.wait(60) == code
    ends(url)
    assert (base / ".done" / "kindergarten" / "stopped").exists() == (how != signal.SIGKILL)


def test_where_there_can_be_no_page_the_run_goes_on(run, tmp_path):
    (tmp_path / "bin" / "python").write_text("#!/bin/sh\necho 'error: no such thing here' >&2\nexit 1\n", encoding="utf-8")
    (tmp_path / "go").touch()
    process, said = run()
    assert "no page to watch it in: error: no such thing here" in said
    process.stdout.read()
    assert process.wait(60) == 0


def test_a_run_that_goes_on_has_a_page_again_and_is_not_shown_as_stopped(run, base):
    process, said = run()
    os.killpg(process.pid, signal.SIGTERM)
    process.wait(60)
    _, said = run()
    state = ""
    for _ in range(300):  # until its stage has begun
        state = httpx.get(f"{address(said)}/run", timeout=60).json()["stages"][1][1]
        if state != "to come":
            break
        time.sleep(0.1)
    assert state == "running"
