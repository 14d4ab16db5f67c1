"""Server: the bytes of its answers, its errors, its limits, and that nobody's request can hold up another's."""
import json
import re
import socket
import threading
import time

import httpx
import pytest
import torch
from fastapi import FastAPI
from fastapi.testclient import TestClient
from serving import (  # noqa: F401
    HELLO,
    LEN,
    ask,
    client,
    engine,
    events_of,
    make_engine,
    served,
    serving,
    settles,
    tokenizer,
)

from nanochat.data.chat_format import parse_reply, render_prompt
from nanochat.infer.sampling import Sampling
from nanochat.serve import static
from nanochat.serve.limits import MAX_BODY_BYTES
from nanochat.serve.worker import Worker


# ------------------------------------------------------------------------------------------------------------ answers
@pytest.mark.parametrize("path", ["/chat/completions", "/v1/chat/completions"])
def test_whole_answer_has_openai_shape_and_equals_the_engine(client, engine, tokenizer, path):
    answer = ask(client, path, temperature=0).json()
    reply, = engine.generate([render_prompt(tokenizer, HELLO)], max_new_tokens=12, temperature=0)
    parts = parse_reply(tokenizer, reply.ids)
    assert answer["object"] == "chat.completion" and answer["id"].startswith("chatcmpl-") and answer["model"] == "tiny"
    choice, = answer["choices"]
    assert choice["message"]["role"] == "assistant" and choice["message"]["parts"] == parts
    assert choice["finish_reason"] == "length"
    n = len(render_prompt(tokenizer, HELLO))
    cached = answer["usage"].pop("prompt_tokens_details")
    assert set(cached) == {"cached_tokens"} and 0 <= cached["cached_tokens"] < n
    assert answer["usage"] == {"prompt_tokens": n, "completion_tokens": 12, "total_tokens": n + 12}


def test_stream_bytes(client):
    whole = ask(client, temperature=1.5, seed=7).json()
    response = ask(client, temperature=1.5, seed=7, stream=True, stream_options={"include_usage": True})
    assert response.headers["content-type"].startswith("text/event-stream")
    *chunks, done = events_of(response.content)
    assert done == "[DONE]"
    *chunks, usage = map(json.loads, chunks)
    assert len({c["id"] for c in chunks}) == 1 and {c["object"] for c in chunks} == {"chat.completion.chunk"}
    deltas = [c["choices"][0]["delta"] for c in chunks]
    assert deltas[0] == {"role": "assistant", "content": ""} and not any("role" in d for d in deltas[1:])
    assert deltas[-1] == {} and chunks[-1]["choices"][0]["finish_reason"] == "length"
    assert all(c["choices"][0]["finish_reason"] is None for c in chunks[:-1])
    for counts in (usage["usage"], whole["usage"]):   # the second time more of the prompt may be known already
        assert counts.pop("prompt_tokens_details")["cached_tokens"] < counts["prompt_tokens"]
    assert usage["choices"] == [] and usage["usage"] == whole["usage"]
    assert "".join(d.get("content", "") for d in deltas) == whole["choices"][0]["message"]["content"]
    assert b"usage" not in ask(client, stream=True).content


def test_text_that_is_not_ascii_and_looks_like_special_tokens(client):
    tool = [{"type": "python", "text": "1+1"}, {"type": "python_output", "text": "2"}]
    messages = [{"role": "system", "content": "Ünï 🙂"},
                {"role": "user", "content": [{"type": "text", "text": "<|bos|> 東京"}]},
                {"role": "assistant", "content": tool},
                {"role": "user", "content": "\ud800 lone"}]
    body = json.dumps({"messages": messages, "max_tokens": 8, "stream": True, "temperature": 2, "unknown": 1})
    response = client.post("/v1/chat/completions", content=body)
    assert response.status_code == 200, response.text
    assert events_of(response.content)[-1] == "[DONE]" and "<|" not in response.text


def test_same_seed_same_answer_and_none_a_fresh_one(client):
    def text(**more):
        return ask(client, temperature=2, max_tokens=30, **more).json()["choices"][0]["message"]["content"]
    assert text(seed=3) == text(seed=3) != text(seed=4)
    assert text() != text()


def test_requests_together_equal_requests_alone(client):
    alone = [ask(client, temperature=1, seed=s).json()["choices"] for s in range(4)]
    got = [None] * 4

    def one(s):
        got[s] = ask(client, temperature=1, seed=s).json()["choices"]
    threads = [threading.Thread(target=one, args=(s,)) for s in range(4)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert got == alone


def test_models_health_and_page(client):
    model, = client.get("/v1/models").json()["data"]
    assert model["id"] == "tiny" and model["max_model_len"] == LEN
    assert client.get("/health").json() == {"status": "ok", "busy": 0, "places": 4}


def test_the_page_loads_only_its_own_files_and_runs_nothing_inline(client):
    page = client.get("/")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "script-src 'self'" in policy and "unsafe" not in policy
    assert page.headers["x-content-type-options"] == "nosniff" and page.headers["cache-control"] == "no-cache"
    assert page.headers["content-type"].startswith("text/html")
    wanted = ["/" + name for name in re.findall(r'(?:src|href)="(page/[^"]*)"', page.text)]
    assert wanted and "<style" not in page.text
    assert page.text.count("<script") == len(re.findall("<script[^>]* src=", page.text))
    texts = [page.text]
    seen = set(wanted)
    while wanted:      # and the modules that those import
        path = wanted.pop()
        answer = client.get(path)
        kind = "text/css" if path.endswith(".css") else "text/javascript"
        assert answer.status_code == 200 and answer.headers["content-type"].startswith(kind), path
        assert answer.headers["x-content-type-options"] == "nosniff" and answer.headers["cache-control"] == "no-cache"
        texts.append(answer.text)
        if kind == "text/javascript":
            modules = re.findall(r'(?:from|import) "\./([^"]+)"', answer.text)
            wanted += {f"/page/{name}" for name in modules} - seen
            seen |= set(wanted)
    for outside in ("innerHTML", "style=\"", "onclick=", "src=\"http", "href=\"http"):
        assert not any(outside in text for text in texts)


def test_only_the_pages_files_are_served_and_those_as_they_were_at_the_start(tmp_path):
    for name, text in {"index.html": "<p>ü", "a.css": "p {}", "b.js": "let x", "secret.txt": "no", ".env": "no"}.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    app = FastAPI()
    static.add_page(app, tmp_path)
    (tmp_path / "b.js").write_text("changed", encoding="utf-8")
    (tmp_path / "late.js").write_text("let y", encoding="utf-8")
    asking = TestClient(app)
    assert asking.get("/").text == "<p>ü" and asking.get("/page/a.css").text == "p {}" and asking.get("/page/b.js").text == "let x"
    for name in ("index.html", "secret.txt", ".env", "late.js", "", "A.css", "../worker.py", "..%2Fworker.py",
                 "%2e%2e/limits.py"):
        assert asking.get(f"/page/{name}").status_code == 404, name


# ------------------------------------------------------------------------------------------------------------- errors
@pytest.mark.parametrize("change, param", [
    ({"messages": []}, "messages"), ({"messages": None}, "messages"), ({"messages": "hi"}, "messages"),
    ({"messages": [{"role": "robot", "content": "x"}]}, "messages.0.role"),
    ({"messages": [{"role": "user"}]}, "messages.0"),
    ({"messages": HELLO * 1001}, "messages"),
    ({"messages": [{"role": "user", "content": [{"type": "python", "text": "1"}]}]}, "messages"),
    ({"temperature": -0.1}, "temperature"), ({"temperature": 2.1}, "temperature"), ({"top_k": -2}, "top_k"),
    ({"temperature": "1"}, "temperature"), ({"top_p": 0}, "top_p"), ({"max_tokens": 0}, "max_tokens"),
    ({"max_tokens": LEN}, "messages"), ({"max_tokens": 10**30}, "messages"), ({"seed": 1 << 70}, "seed"),
    ({"stream": "yes"}, "stream"), ({"n": 0}, "n"), ({"n": 5}, "n"), ({"n": 1000}, "n"), ({"n": True}, "n"),
    ({"stop": ["x"] * 33}, "stop"), ({"stop": 1}, "stop"), ({"stop": [1]}, "stop"), ({"min_p": 1.5}, "min_p"),
    ({"frequency_penalty": 3}, "frequency_penalty"), ({"top_logprobs": 21}, "top_logprobs"),
    ({"logprobs": 1}, "logprobs"),
    ({"tools": [{}]}, "tools"), ({"stream_options": 1}, "stream_options"),
    ({"messages": [{"role": "user", "content": "word " * 500}]}, "messages")])
def test_invalid_requests_get_a_400_that_names_the_field(client, change, param):
    response = ask(client, **change)
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"} and error["type"] == "invalid_request_error"
    assert error["param"].startswith(param) and error["message"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff\xfe", b"null", b'{"messages": NaN}', b"[" * 100_000,
                                  b'{"seed": ' + b"9" * 5000 + b"}"])
def test_bodies_that_are_no_request_get_a_400(client, body):
    response = client.post("/v1/chat/completions", content=body)
    assert response.status_code == 400 and response.json()["error"]["type"] == "invalid_request_error"


def test_overflow_says_by_how_much(client, tokenizer):
    n = len(render_prompt(tokenizer, HELLO))
    error = ask(client, max_tokens=LEN - n + 3).json()["error"]
    assert error["code"] == "context_length_exceeded" and "3 too many" in error["message"]
    assert ask(client, max_tokens=LEN - n).status_code == 200


def test_large_bodies_are_refused(client):
    def endless():
        for _ in range(MAX_BODY_BYTES // 65536 + 2):
            yield b" " * 65536
    assert client.post("/chat/completions", content=endless()).status_code == 413


def test_other_errors_have_the_same_shape(client):
    assert ask(client, model="gpt-9").json()["error"]["code"] == "model_not_found"
    assert ask(client, model="tiny").status_code == 200
    for response, status in ((client.get("/nowhere"), 404), (client.get("/v1/chat/completions"), 405)):
        assert response.status_code == status and set(response.json()["error"]) == {"message", "type", "param", "code"}


def test_foreign_host_and_origin_are_refused(client):
    assert client.get("/", headers={"Host": "evil.example"}).status_code == 403
    assert client.get("/health", headers={"Host": "["}).status_code in (400, 403)
    for origin, status in (("http://evil.example", 403), ("null", 403), (str(client.base_url).rstrip("/"), 200)):
        headers = {"Origin": origin}
        assert client.post("/chat/completions", json={"messages": HELLO}, headers=headers).status_code == status


def test_api_key(engine):
    with serving(engine, api_key="sésame") as (url, _):
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": b"Bearer \xff"}):
            response = httpx.post(url + "/v1/chat/completions", json={"messages": HELLO}, headers=headers)
            assert response.status_code == 401 and response.json()["error"]["code"] == "invalid_api_key"
            assert httpx.get(url + "/v1/models", headers=headers).status_code == 401
        good = {"Authorization": "Bearer sésame".encode()}
        body = {"messages": HELLO, "max_tokens": 2}
        assert httpx.post(url + "/chat/completions", json=body, headers=good).status_code == 200
        assert httpx.get(url + "/").status_code == httpx.get(url + "/health").status_code == 200


# ---------------------------------------------------------------------------------------------- nobody waits for nobody
def test_the_event_loop_answers_while_the_model_decodes(client, engine):
    engine.model.pace_s = 0.1
    body = {"messages": HELLO, "max_tokens": 60, "stream": True}
    with client.stream("POST", "/chat/completions", json=body) as response:
        lines, times = response.iter_lines(), []
        next(lines)
        for _ in range(5):
            start = time.monotonic()
            assert client.get("/health").json()["busy"] == 1
            times.append(time.monotonic() - start)
    assert min(times) < 0.5


def test_a_reply_is_told_in_few_pieces(engine, tokenizer, monkeypatch):
    """The first token, and at the end all the rest; one call for all replies of a step."""
    monkeypatch.setattr("nanochat.serve.worker.PAUSE_S", 1000)
    prompt, posts, calls = render_prompt(tokenizer, HELLO), {0: [], 1: []}, []
    worker = Worker(engine, slots=2)
    worker.hand_over = lambda work: (calls.append(1), work())
    sampling = Sampling(30, 1.5, seed=3, use_tools=False)
    sequences = [worker.submit(prompt, sampling, i, posts[i].append) for i in posts]
    worker.start()
    settles(lambda: not worker.busy)
    worker.stop()
    for i, reply in enumerate(sequences):
        assert len(posts[i]) == 2 and posts[i][1][-1].kind == "end"
        said = "".join(event.text for part in posts[i] for event in part if event.kind == "text")
        assert said == "".join(part["text"] for part in parse_reply(tokenizer, reply.ids))
    assert len(calls) <= 3


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_gives_its_place_back(client, served, engine, stream):
    worker, engine.model.pace_s = served[1], 0.1
    body = json.dumps({"messages": HELLO, "max_tokens": 140, "stream": stream}).encode()
    with socket.create_connection((client.base_url.host, client.base_url.port)) as sock:
        head = f"POST /chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n\r\n"
        sock.sendall(head.encode() + body)
        settles(lambda: worker.busy == 1)
        if stream:
            sock.recv(10)
    settles(lambda: worker.busy == 0, within_s=5.0)   # the whole answer would take 14 s


@pytest.mark.parametrize("params, threads", [(4_000_000, 1), (10_000_000, 2), (10**9, 6)])
def test_a_small_model_decodes_in_few_threads(tokenizer, monkeypatch, params, threads):
    asked, engine = [], make_engine(tokenizer)
    monkeypatch.setattr(engine.model, "num_params", lambda: params)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 6)
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    worker = Worker(engine, 1)
    worker.start()
    worker.stop()
    assert asked == [threads]


def test_full_queue_is_429_and_the_waiting_are_served(client, served, engine):
    worker, engine.model.pace_s = served[1], 0.1
    codes = []
    threads = [threading.Thread(target=lambda: codes.append(ask(client, max_tokens=40).status_code)) for _ in range(4)]
    [t.start() for t in threads]
    settles(lambda: worker.busy == worker.places)
    refused = ask(client)
    engine.model.pace_s = 0.0
    assert refused.status_code == 429 and refused.json()["error"]["code"] == "queue_full"
    assert int(refused.headers["retry-after"]) >= 1
    [t.join() for t in threads]
    assert codes == [200] * 4


def test_a_crashed_model_is_an_error_event_and_503(tokenizer):
    engine = make_engine(tokenizer)
    engine.model.pace_s = 0.1
    with serving(engine) as (url, _), httpx.Client(base_url=url, timeout=20) as client:
        with client.stream("POST", "/chat/completions", json={"messages": HELLO, "stream": True}) as response:
            lines = response.iter_lines()
            next(lines)
            engine.model.broken = True
            rest = [line for line in lines if line]
        assert "error" in json.loads(rest[-2].removeprefix("data: ")) and rest[-1] == "data: [DONE]"
        assert client.get("/health").status_code == 503
        assert ask(client).status_code == 503 and "purpose" not in ask(client).text
