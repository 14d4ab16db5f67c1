"""Fetching from a faulty hub on loopback: the right bytes or a clear failure. python -m pytest tests/test_hub.py"""
import hashlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from nanochat.data import datasets, hub

REPO, NAME = "org/data", "part/shard.bin"
DATA = np.random.RandomState(0).bytes(300_000)
SHA256 = hashlib.sha256(DATA).hexdigest()


class FaultyHub(BaseHTTPRequestHandler):
    """Serves DATA under every name; each GET first takes a fault from server.faults, if there is one."""
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        server, get = self.server, self.command == "GET"
        if not self.path.startswith(f"/datasets/{server.repo}/resolve/main/{server.names}"):
            return self.fail(404, "RepoNotFound" if server.repo not in self.path else "EntryNotFound")
        fault, value = server.faults.pop(0) if get and server.faults else ("", None)
        if not get and server.head_faults:
            fault, value = "status", server.head_faults.pop(0)
        if fault == "status":
            return self.fail(value)
        first = int((re.match(r"bytes=(\d+)-", self.headers.get("Range", "")) or [0, 0])[1])
        first = 0 if fault == "ignore range" else first
        body = {"wrong bytes": bytes(len(DATA)), "short": DATA[:value]}.get(fault, DATA)[first:]
        if get:
            server.asked.append(first)
        self.send_response(206 if first else 200)
        self.send_header("Content-Length", str(len(body)))
        if first:
            self.send_header("Content-Range", f"bytes {first}-{len(DATA) - 1}/{len(DATA)}")
        for key, text in (("ETag", f'"{server.etag}"'), ("X-Linked-Size", str(len(DATA))), ("X-Repo-Commit", "c" * 40)):
            self.send_header(key, text)
        self.end_headers()
        if not get:
            return
        if fault == "reset":
            self.wfile.write(body[:value])
            self.wfile.flush()
            self.connection.shutdown(2)
            self.close_connection = True
            return
        if fault == "slow":
            time.sleep(value)
        if fault == "stall":
            self.wfile.write(body[:value])
            self.wfile.flush()
            self.close_connection = True
            server.over.wait(60)
            return
        for start in range(0, len(body), value if fault == "trickle" else len(body)):
            if fault == "trickle":
                server.dripped.wait(0.005)
            self.wfile.write(body[start:start + value] if fault == "trickle" else body)

    def fail(self, status, code=""):
        self.send_response(status)
        self.send_header("Content-Length", "0")
        if code:
            self.send_header("X-Error-Code", code)
            self.send_header("X-Error-Message", code)
        self.end_headers()


@pytest.fixture
def server(monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), FaultyHub)
    server.faults, server.head_faults, server.asked, server.etag = [], [], [], SHA256
    server.repo, server.names, server.over, server.dripped = REPO, NAME, threading.Event(), threading.Event()
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(time, "sleep", lambda seconds, real=time.sleep: real(min(seconds, 0.05)))
    yield server
    server.over.set()
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def hf_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))


@pytest.fixture
def dest(tmp_path):
    return tmp_path / "got" / "shard.bin"


def parts(dest):
    return [p for p in dest.parent.iterdir() if p != dest]


def test_a_file_is_fetched_once_and_leaves_nothing_else(server, dest):
    seen = []
    for _ in range(2):
        assert hub.fetch(REPO, NAME, dest, on_bytes=seen.append) == dest
    assert dest.read_bytes() == DATA and server.asked == [0] and sum(seen) == len(DATA) and not parts(dest)


def test_without_a_destination_it_lies_under_the_base_folder(server, tmp_path):
    assert hub.fetch(REPO, NAME) == tmp_path / "base" / "hub" / REPO / NAME


@pytest.mark.parametrize("offset", [0, 1, 100, 4096, 65_535, 65_536, 65_537, 150_000, 262_144,
                                    len(DATA) - 1])
def test_a_connection_lost_on_the_way_still_gives_the_right_bytes(server, dest, offset):
    server.faults = [("reset", offset), ("reset", offset // 2)]
    assert hub.fetch(REPO, NAME, dest).read_bytes() == DATA and not parts(dest)


def test_wrong_bytes_of_the_right_size_are_refused(server, dest):
    server.faults = [("wrong bytes", None)] * 20
    with pytest.raises(hub.HubError, match="does not give the bytes that the hub announces"):
        hub.fetch(REPO, NAME, dest)
    assert not dest.exists() and len(server.asked) == hub.ATTEMPTS


def test_wrong_bytes_once_are_fetched_anew(server, dest):
    server.faults = [("wrong bytes", None)]
    assert hub.fetch(REPO, NAME, dest).read_bytes() == DATA


def test_a_truncated_answer_is_no_file(server, dest):
    server.faults = [("short", 1000)]                  # a whole answer, by its own Content-Length
    assert hub.fetch(REPO, NAME, dest).read_bytes() == DATA
    dest.unlink()
    server.faults = [("short", 1000)] * 20
    with pytest.raises(hub.HubError):
        hub.fetch(REPO, NAME, dest)
    assert not dest.exists()


def test_a_second_process_goes_on_where_the_first_was_stopped(server, dest):
    part = dest.with_name(f".shard.bin.{SHA256[:16]}.part")
    part.parent.mkdir()
    part.write_bytes(DATA[:200_000])
    assert hub.fetch(REPO, NAME, dest).read_bytes() == DATA
    assert server.asked == [200_000] and not parts(dest)


@pytest.mark.parametrize("left", [bytes(200_000), DATA + b"more", bytes(len(DATA)), DATA])
def test_a_damaged_part_cannot_harm(server, dest, left):
    dest.parent.mkdir()
    dest.with_name(f".shard.bin.{SHA256[:16]}.part").write_bytes(left)
    assert hub.fetch(REPO, NAME, dest).read_bytes() == DATA and not parts(dest)


def test_a_part_of_another_version_is_not_continued(server, dest):
    dest.parent.mkdir()
    dest.with_name(".shard.bin.0123456789abcdef.part").write_bytes(bytes(1000))
    assert hub.fetch(REPO, NAME, dest).read_bytes() == DATA
    assert server.asked == [0] and not parts(dest)


def test_a_hub_that_ignores_ranges_still_gives_the_right_bytes(server, dest):
    server.faults = [("reset", 100_000), ("ignore range", None)]
    assert hub.fetch(REPO, NAME, dest).read_bytes() == DATA


def test_a_trickle_is_waited_for(server, dest):
    server.faults, seen = [("trickle", 3000)], []
    assert hub.fetch(REPO, NAME, dest, on_bytes=seen.append).read_bytes() == DATA
    assert server.asked == [0] and sum(seen) == len(DATA)


def test_a_connection_that_falls_silent_is_given_up_and_resumed(server, dest, monkeypatch):
    from huggingface_hub import constants
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.5)
    server.faults = [("stall", 100_000)]
    assert hub.fetch(REPO, NAME, dest).read_bytes() == DATA and not parts(dest)
    assert server.asked[0] == 0 and 0 < server.asked[-1] <= 100_000


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_hub_is_asked_again(server, dest, status):
    server.faults, server.head_faults = [("status", status)], [status]
    assert hub.fetch(REPO, NAME, dest).read_bytes() == DATA


def test_a_hub_that_stays_busy_is_said(server, dest):
    server.head_faults = [503] * 20
    with pytest.raises(hub.HubError, match="answers 503"):
        hub.fetch(REPO, NAME, dest)


def test_stopping_keeps_what_arrived(server, dest):
    def stop(n):
        raise hub.Stopped
    with pytest.raises(hub.Stopped):
        hub.fetch(REPO, NAME, dest, on_bytes=stop)
    assert not dest.exists() and len(parts(dest)) == 1
    kept = parts(dest)[0].stat().st_size
    assert hub.fetch(REPO, NAME, dest).read_bytes() == DATA and server.asked == [0, kept] and kept > 0


def test_a_small_file_is_checked_against_its_git_hash(server, dest):
    server.etag = hashlib.sha1(b"blob %d\0" % len(DATA) + DATA).hexdigest()
    assert hub.fetch(REPO, NAME, dest).read_bytes() == DATA
    dest.unlink()
    server.etag = "0" * 40
    with pytest.raises(hub.HubError):
        hub.fetch(REPO, NAME, dest)


def test_several_at_once_fetch_it_once(server, dest):
    server.faults = [("slow", 0.3)]
    threads = [threading.Thread(target=hub.fetch, args=(REPO, NAME, dest)) for _ in range(4)]
    code = f"from nanochat.data import hub; hub.fetch({REPO!r}, {NAME!r}, {str(dest)!r})"
    other = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[1])
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert other.wait(30) == 0
    assert dest.read_bytes() == DATA and len(server.asked) == 1 and not parts(dest)


def test_what_is_not_there_is_said(server, dest):
    with pytest.raises(hub.HubError, match="no such file"):
        hub.fetch(REPO, "other.bin", dest)
    with pytest.raises(hub.HubError, match="no such repository"):
        hub.fetch("org/none", NAME, dest)


def test_no_network_is_said_in_one_line(monkeypatch, dest):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(hub.HubError, match="127.0.0.1:9 cannot be reached") as error:
        hub.fetch(REPO, NAME, dest)
    assert "\n" not in str(error.value) and not dest.exists()


def test_a_file_that_is_here_needs_no_network(monkeypatch, dest):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    dest.parent.mkdir()
    dest.write_bytes(b"here")
    assert hub.fetch(REPO, NAME, dest).read_bytes() == b"here"


# ------------------------------------------------------------------------------------ the command that fetches many files
CLIMBMIX = datasets.DATASETS["climbmix"]


@pytest.fixture
def climbmix(server, tmp_path):
    """The faulty hub with shards of ClimbMix, and the command that fetches them, started: returns a Popen."""
    server.repo, server.names = CLIMBMIX.repo, "shard_"
    started = []
    def start(*flags, **env):
        started.append(subprocess.Popen([sys.executable, "-m", "nanochat.dataset", *flags], text=True,
                                        cwd=Path(__file__).parents[1], env={**os.environ, **env},
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE))
        return started[-1]
    yield start
    for process in started:
        process.kill()
        process.communicate()


def shards_there():
    """Names of the finished shards; each must hold the right bytes, and nothing else may lie there but parts."""
    for path in CLIMBMIX.folder.glob("*.parquet"):
        assert path.read_bytes() == DATA, path
    return sorted(path.name for path in CLIMBMIX.folder.iterdir() if not path.name.endswith(".part"))


def test_the_command_run_twice_at_once_on_a_bad_hub_fetches_every_shard_right(server, climbmix):
    server.faults = [("reset", 1000), ("status", 503), ("wrong bytes", None), ("short", 5), ("status", 429), ("reset", 200_000)]
    wanted = sorted([CLIMBMIX.validation, *map(CLIMBMIX.pattern.format, range(6))])
    for process in [climbmix("-n", "6", "--num_workers=3") for _ in range(2)]:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0 and "6 training shards" in out, err
    assert shards_there() == wanted and len(list(CLIMBMIX.folder.iterdir())) == 7
    assert len(server.asked) <= 7 + 6 + 2, "what one process fetches the other does not fetch again"


def test_the_command_interrupted_leaves_no_wrong_file_and_goes_on(server, climbmix):
    server.faults = [("stall", 150_000)] * 3
    process = climbmix("-n", "3", "--num_workers=3")
    deadline = time.monotonic() + 60
    def arrived():
        return [path.stat().st_size for path in CLIMBMIX.folder.glob(".*.part")] if CLIMBMIX.folder.exists() else []
    while sum(size > 100_000 for size in arrived()) < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert sum(size > 100_000 for size in arrived()) == 3
    process.send_signal(signal.SIGINT)
    server.over.set()                                            # a thread that reads ends at its next bytes or their end
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "run the same command again" in err and "Traceback" not in err
    shards_there()
    again = climbmix("-n", "3")
    assert again.communicate(timeout=60) and again.returncode == 0
    assert len(shards_there()) == 4 and sum(first > 100_000 for first in server.asked) >= 3


def test_without_a_network_by_choice_the_command_says_so(climbmix):
    process = climbmix("-n", "1", HF_HUB_OFFLINE="1")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1 and "HF_HUB_OFFLINE is set" in err and err.count("\n") == 1
