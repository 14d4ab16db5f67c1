"""What a careless or hostile client can do to the server: nothing that others would notice."""
import gc
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest
from conftest import ROOT
from serving import HELLO, ask, client, engine, events_of, make_engine, served, serving, settles, tokenizer  # noqa: F401
from tiny import save_tiny_checkpoint

from nanochat.serve import limits
from nanochat.serve.limits import RateLimit
from nanochat.serve.openai_requests import ChatRequest

BODY = json.dumps({"messages": HELLO, "max_tokens": 40, "stream": True}).encode()
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n"


def connect(url):
    return socket.create_connection(url.removeprefix("http://").split(":"), timeout=20)


def talk(url, data):
    """The status and the body that `data`, sent raw, is answered with; None when the connection is just closed."""
    with connect(url) as sock:
        try:
            sock.sendall(data)
            response = http.client.HTTPResponse(sock)
            response.begin()
            return response.status, response.read()
        except (ConnectionError, http.client.BadStatusLine):
            return None


def chat_text(url, n=3):
    response = httpx.post(f"{url}/v1/chat/completions", json={"messages": HELLO, "max_tokens": n}, timeout=30)
    return response.status_code


# ---------------------------------------------------------------------------------------------------------------- rate
def test_rate_counts_each_client_alone_and_pays_back_evenly(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    rate = RateLimit(6)
    assert [rate.wait_s("a") for _ in range(6)] == [0] * 6
    assert rate.wait_s("a") == pytest.approx(10) == rate.wait_s("a") and rate.wait_s("b") == 0
    now[0] += 10.1
    assert rate.wait_s("a") == 0 < rate.wait_s("a")
    now[0] += 1000
    assert [bool(rate.wait_s("a")) for _ in range(7)] == [False] * 6 + [True]
    monkeypatch.setattr(limits, "MAX_CLIENTS", 3)
    for name in "cdefgh":
        rate.wait_s(name)
    assert len(rate.paid_until) == 3


def test_a_client_that_asks_too_often_gets_429_and_when_to_come_back(engine):
    with serving(engine, rate=3, api_key="right") as (url, _):
        asked = [httpx.get(f"{url}/v1/models", headers={"Authorization": f"Bearer {k}"}) for k in ("wrong", "right", "x", "right")]
        assert [r.status_code for r in asked] == [401, 200, 401, 429]   # guessing keys is slow, too
        assert 1 <= int(asked[-1].headers["retry-after"]) <= 20
        assert asked[-1].json()["error"]["code"] == "rate_limit_exceeded"
        assert httpx.get(f"{url}/health").status_code == 200


def test_a_client_is_an_address_or_an_ipv6_network():
    class Asked:
        def __init__(self, host):
            self.client = type("Address", (), {"host": host}) if host else None
    names = [limits.client_of(Asked(h)) for h in ("10.0.0.1", "10.0.0.2", "2001:db8::1", "2001:db8::ffff:1", "2001:db8:1::1", None,
                                                 "unknown:x")]
    assert len(set(names)) == 6 and names[2] == names[3]


# ------------------------------------------------------------------------------------------------------ slow and many
@pytest.fixture
def hasty(engine, monkeypatch):
    """A server that waits a second for a request."""
    monkeypatch.setattr(limits, "RECEIVE_S", 1.0)
    with serving(engine) as (url, app):
        yield url, app


def closed(sock):
    """Wait until the server has closed `sock`; the socket's own timeout is what fails."""
    try:
        while sock.recv(1000):
            pass
    except ConnectionError:
        pass
    return True


def test_slow_loris_is_cut_off_and_others_are_served(hasty):
    url, app = hasty
    slow = [connect(url) for _ in range(40)]
    for sock in slow:
        sock.sendall(b"GET / HTTP/1.1\r\nX: ")
    assert chat_text(url) == 200

    def trickle(sock):
        try:
            while True:
                sock.sendall(b"x")
                time.sleep(0.05)
        except OSError:
            sock.close()
    threads = [threading.Thread(target=trickle, args=(sock,)) for sock in slow]
    [t.start() for t in threads]
    assert chat_text(url) == 200
    [t.join(20) for t in threads]
    assert not any(t.is_alive() for t in threads)
    settles(lambda: not app.state.server.server_state.connections)


def test_a_slow_body_gets_a_408_and_a_slow_second_request_is_cut_off(hasty):
    url, _ = hasty
    status, body = talk(url, HEAD % 100 + b"{")
    assert status == 408 and json.loads(body)["error"]["code"] == "request_timeout"
    with connect(url) as sock:
        sock.sendall(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\nGET ")
        assert b"200 OK" in sock.recv(4000)
        assert closed(sock)


def test_an_answer_may_take_longer_than_a_request(hasty, engine):
    engine.model.pace_s = 0.05
    try:
        status, body = talk(hasty[0], HEAD % len(BODY) + BODY)
    finally:
        engine.model.pace_s = 0.0
    assert status == 200 and events_of(body)[-1] == "[DONE]"


def test_too_many_connections_cost_the_oldest_idle_ones(engine, monkeypatch):
    monkeypatch.setattr(limits, "MAX_CONNECTIONS", 5)
    with serving(engine) as (url, app):
        engine.model.pace_s = 0.1
        with connect(url) as busy:
            busy.sendall(HEAD % len(BODY) + BODY)
            settles(lambda: app.state.worker.busy == 1)
            idle = [connect(url) for _ in range(12)]
            assert chat_text(url) == 200
            assert all(closed(sock) for sock in idle[:7])
            engine.model.pace_s = 0.0
            response = http.client.HTTPResponse(busy)
            response.begin()
            assert events_of(response.read())[-1] == "[DONE]"
            [sock.close() for sock in idle]


# ------------------------------------------------------------------------------------------------------------- hostile
@pytest.mark.parametrize("data, statuses", [
    (HEAD % (10 << 20) + b" " * (10 << 20), [413, None]),                                # 10 MB
    (HEAD % -1 + BODY, [400]), (HEAD % 1 + BODY, [400]),                                  # lying lengths
    (HEAD.replace(b"%d", b"1e3") + BODY, [400]),
    (HEAD % 5 + b"hello" + HEAD % 5 + b"world", [400]),
    (HEAD % 100_001 + b"[" * 100_000 + b" ", [400]),
    (HEAD % 300_000 + b'{"messages":' + b'{"a":' * 59_997 + b"   ", [400]),
    (HEAD % 8 + b'{"n":\xff\xfe}', [400]), (HEAD % 20 + b'{"temperature": NaN}', [400]),
    (HEAD % 5017 + b'{"max_tokens": 1' + b"0" * 5000 + b"}", [400]),
    (b"\x16\x03\x01\x02\x00" * 50, [400]), (b"GET / HTTP/1.1\r\nA: " + b"x" * 200_000, [400, None]),
    (HEAD.replace(b"Host", b"Transfer-Encoding: chunked\r\nHost") % 5 + b"zz\r\n", [400])],
    ids=["10 MB", "-1", "1", "1e3", "two in one", "deep list", "deep object", "not UTF-8", "NaN", "huge integer", "TLS",
         "long header", "bad chunk"])
def test_hostile_requests_get_a_4xx_and_no_memory(client, data, statuses):
    url, before = str(client.base_url).rstrip("/"), psutil.Process().memory_info().rss
    answer = talk(url, data)
    status, body = answer or (None, b"")
    assert status in statuses, answer
    assert b"Traceback" not in body and b".py" not in body and str(ROOT).encode() not in body
    assert psutil.Process().memory_info().rss - before < 50 << 20
    assert client.get("/health").status_code == 200


# --------------------------------------------------------------------------------------------------------- disconnects
def leave(url, worker, moment):
    """A client that goes away at a `moment`."""
    with connect(url) as sock:
        if moment == "before headers":
            sock.sendall(b"POST /v1/chat/com")
        elif moment == "before the body":
            sock.sendall(HEAD % len(BODY) + BODY[:5])
        else:
            sock.sendall(HEAD % len(BODY) + BODY)
            if moment == "in the stream":
                sock.recv(10)
        if moment == "abruptly":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")   # a reset instead of a goodbye


def test_clients_that_leave_leave_nothing_behind(engine):
    me = psutil.Process()
    with serving(engine, slots=4, max_waiting=16) as (url, app):
        assert chat_text(url) == 200
        state = app.state.server.server_state
        settles(lambda: not state.connections)
        files, threads = me.num_fds(), me.num_threads()
        engine.model.pace_s = 0.05      # 20 answers, 4 at a time, would take 10 s
        moments = ["before headers", "before the body", "before the first token", "in the stream", "abruptly"]
        with ThreadPoolExecutor(10) as pool:
            list(pool.map(lambda i: leave(url, app.state.worker, moments[i % 5]), range(100)))
        left = time.monotonic()
        settles(lambda: not app.state.worker.busy and not state.tasks and not state.connections and me.num_fds() <= files)
        assert time.monotonic() - left < 5
        settles(lambda: me.num_threads() <= threads + 8)    # a client's thread is joined shortly before it is gone
        engine.model.pace_s = 0.0
        assert chat_text(url) == 200


# ---------------------------------------------------------------------------------------------------------------- load
def test_places_are_taken_before_tokenizing(engine, monkeypatch):
    go, tokenizing = threading.Event(), []

    def slow(wanted, tokenizer):
        tokenizing.append(wanted)
        assert go.wait(60)
        return [[tokenizer.bos_id]]
    monkeypatch.setattr(ChatRequest, "prompts", slow)
    with serving(engine, slots=2, max_waiting=1) as (url, _), ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(chat_text, url) for _ in range(3)]
        settles(lambda: len(tokenizing) == 3)
        assert [chat_text(url) for _ in range(3)] == [429] * 3 and len(tokenizing) == 3
        go.set()
        assert [one.result() for one in waiting] == [200] * 3 and chat_text(url) == 200


def test_many_requests_at_once_get_200_or_429_and_leave_no_memory(engine):
    with serving(engine, slots=8, max_waiting=16) as (url, app), httpx.Client(base_url=url, timeout=60) as asking:
        def one(i):
            response = ask(asking, max_tokens=4, stream=bool(i % 2), seed=i, temperature=1)
            return response.status_code, response.headers.get("retry-after")

        def load(n):
            with ThreadPoolExecutor(32) as pool:
                return list(pool.map(one, range(n)))
        answers = load(150)
        assert {status for status, _ in answers} <= {200, 429} and all(bool(after) == (s == 429) for s, after in answers)
        gc.collect()
        before, objects = psutil.Process().memory_info().rss, len(gc.get_objects())
        answers = load(150)
        gc.collect()
        assert psutil.Process().memory_info().rss - before < 20 << 20 and len(gc.get_objects()) - objects < 2000
        told = asking.get("/metrics").text
        counted = dict(re.findall(r'requests_total\{path="/v1/chat/completions",status="(\d+)"\} (\d+)\.0', told))
        assert sum(map(int, counted.values())) == 300
        assert f'nanochat_tokens_total{{kind="completion_tokens"}} {4 * int(counted["200"])}.0\n' in told
        assert f"nanochat_first_token_seconds_count {counted['200']}.0\n" in told and "nanochat_running 0.0\n" in told
        assert asking.get("/ready").status_code == 200


def test_metrics_are_prometheus_text(client):
    ask(client)
    for line in client.get("/metrics").text.splitlines():
        line_of = r'# HELP \w+ .+|# TYPE \w+ (counter|gauge|histogram)|\w+(\{\w+="[^"]*"(,\w+="[^"]*")*\})? [0-9.e+-]+'
        assert re.fullmatch(line_of, line), line


def test_ready_says_no_while_full_and_after_a_crash(client, served, tokenizer):
    assert client.get("/ready").json() == {"status": "ready"}
    engine = make_engine(tokenizer)
    engine.model.pace_s = 0.1
    with serving(engine, slots=1, max_waiting=0) as (url, app):
        with httpx.stream("POST", f"{url}/chat/completions", json={"messages": HELLO, "stream": True}):
            settles(lambda: app.state.worker.busy == 1)
            assert httpx.get(f"{url}/ready").status_code == 429
            engine.model.broken = True
            settles(lambda: app.state.worker.failed)
        assert httpx.get(f"{url}/ready").status_code == httpx.get(f"{url}/health").status_code == 503


# ------------------------------------------------------------------------------------------------- the OpenAPI document
@pytest.mark.parametrize("phases", ["fuzzing,stateful", pytest.param("coverage,fuzzing,stateful", marks=pytest.mark.slow)])
def test_every_answer_is_as_the_openapi_document_says(engine, phases, tmp_path):
    """schemathesis makes up requests, right and wrong ones, from the server's own document."""
    with serving(engine, slots=8, max_waiting=200, hosts=("127.0.0.1",)) as (url, app):
        command = [Path(sys.executable).with_name("schemathesis"), "run", f"{url}/openapi.json", "--checks=all", "--seed=1",
                   f"--phases={phases}", "-n", "6" if "coverage" not in phases else "50"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=500, env={
            **os.environ, "SCHEMATHESIS_HOOKS": "fitting", "PYTHONPATH": str(ROOT / "tests")})
        assert done.returncode == 0, done.stdout + done.stderr
        assert "Tested: 8" in done.stdout and not app.state.worker.failed


# ---------------------------------------------------------------------------------------------------------------- stop
def test_sigterm_lets_32_streams_finish(base, tmp_path):
    save_tiny_checkpoint("sft", "kindergarten", sequence_len=512)
    command = [sys.executable, "-m", "scripts.chat_web", "--port=0", "--device=cpu", "--slots=32", "--temperature=2"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            url = next(m[1] for line in process.stdout if (m := re.search(r"(http://\S+)", line)))
            with ThreadPoolExecutor(32) as pool:
                body = {"messages": HELLO, "stream": True, "max_tokens": 400, "n": 1}
                first = threading.Barrier(33)

                def read(seed):
                    with httpx.stream("POST", f"{url}/v1/chat/completions", json={**body, "seed": seed}, timeout=60) as response:
                        chunks = response.iter_bytes()
                        start = next(chunks)
                        first.wait(60)
                        return start + b"".join(chunks)
                streams = [pool.submit(read, seed) for seed in range(32)]
                first.wait(60)
                process.send_signal(signal.SIGTERM)
                assert all(events_of(stream.result())[-1] == "[DONE]" for stream in streams)
            process.wait(20)
            assert process.returncode in (0, -signal.SIGTERM) and "Traceback" not in process.stdout.read()
        finally:
            process.kill()
    with pytest.raises(httpx.ConnectError):
        httpx.get(url)
