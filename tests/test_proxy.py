"""
The server behind a proxy, a tunnel or another site's page, and as the clients' habits have it: what is let in, what is
kept out, and that a refusal says what to do. nginx is Debian's (apt-get install nginx).
"""
import gzip
import json
import shutil
import socket
import subprocess
import time
import zlib
from functools import partial

import httpx
import pytest
from serving import HELLO, ask, client, engine, events_of, make_engine, served, serving, settles, tokenizer  # noqa: F401

from nanochat.common import UsageError
from nanochat.serve.limits import MAX_BODY_BYTES
from nanochat.serve.origins import KnownNames, parse_hosts, parse_origins, read_address
from scripts.chat_web import Config

PUBLIC = "https://chat.example.com"
FRONT = "https://front.example"


@pytest.fixture(scope="module")
def public(engine):
    """A server on this machine that is told its public name, and of a front end elsewhere."""
    with serving(engine, slots=2, api_key="right", hosts=("localhost",), public_hosts=("chat.example.com",),
                 allow_origins=(FRONT, "http://localhost:3000"), trusted_proxy="127.0.0.1") as (url, app):
        yield url, app


get, post, options = (partial(ask_for, timeout=60) for ask_for in (httpx.get, httpx.post, httpx.options))
KEY = {"Authorization": "Bearer right"}
BODY = {"messages": HELLO, "max_tokens": 4}


# ---------------------------------------------------------------------------------------------------------------- nginx
NGINX = """
daemon off; master_process off; pid %(folder)s/pid; error_log %(folder)s/error.log;
events {}
http {
    access_log off;
    client_body_temp_path %(folder)s/body; proxy_temp_path %(folder)s/proxy; fastcgi_temp_path %(folder)s/a;
    uwsgi_temp_path %(folder)s/b; scgi_temp_path %(folder)s/c;
    server {
        listen 127.0.0.1:%(port)d;
        location / { proxy_pass %(url)s; }
        location /nanochat/ { proxy_pass %(url)s/; }
        location /named/ {
            proxy_pass %(url)s/; proxy_set_header Host $host; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        }
    }
}
"""


@pytest.fixture(scope="module")
def nginx(public, tmp_path_factory):
    """The URL of a real nginx in front of `public`."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if program is None:
        pytest.skip("nginx is not installed: apt-get install nginx")
    folder = tmp_path_factory.mktemp("nginx")
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    config = folder / "nginx.conf"
    config.write_text(NGINX % {"folder": folder, "port": port, "url": public[0]}, encoding="utf-8")
    with subprocess.Popen([program, "-p", folder, "-e", folder / "error.log", "-c", config]) as process:
        try:
            def answers():
                assert process.poll() is None, (folder / "error.log").read_text(encoding="utf-8")
                with socket.socket() as sock:
                    return sock.connect_ex(("127.0.0.1", port)) == 0
            settles(answers)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def test_a_question_passes_nginx_with_its_defaults(nginx):
    """It asks by "Host: 127.0.0.1:PORT", where the browser is at another origin: proxy_pass alone."""
    page = get(nginx)
    assert page.status_code == 200 and "<title>nanochat" in page.text
    told = post(f"{nginx}/v1/chat/completions", json=BODY, headers={**KEY, "Origin": PUBLIC})
    assert told.status_code == 200 and told.json()["usage"]["completion_tokens"] == 4
    refused = post(f"{nginx}/v1/chat/completions", json=BODY, headers={**KEY, "Origin": "https://other.example"})
    assert refused.status_code == 403 and "--public_host=other.example" in refused.json()["error"]["message"]


def test_a_stream_passes_nginx_token_by_token(nginx, public, engine):
    engine.model.pace_s = 0.1
    try:
        with httpx.stream("POST", f"{nginx}/v1/chat/completions", json={**BODY, "max_tokens": 40, "stream": True},
                          headers={**KEY, "Origin": PUBLIC}, timeout=60) as answer:
            chunks = answer.iter_bytes()
            seen = next(chunks) + next(chunks) + next(chunks)
            assert public[1].state.worker.busy == 1 and b"[DONE]" not in seen    # it is not done, and we read already
        settles(lambda: public[1].state.worker.busy == 0, within_s=2)     # who leaves the proxy has left the server
    finally:
        engine.model.pace_s = 0.0
    whole = post(f"{nginx}/v1/chat/completions", json={**BODY, "stream": True}, headers=KEY)
    assert events_of(whole.content)[-1] == "[DONE]"


def test_the_page_works_under_a_path_of_the_proxy(nginx):
    """All that it loads and asks is told from where it stands."""
    page = get(f"{nginx}/nanochat/").text
    links = [part.partition('"')[0] for part in page.split('src="')[1:] + page.split('href="')[1:]]
    links = [link for link in links if not link.startswith("data:")]
    assert len(links) == 5 and not any(link.startswith("/") for link in links)
    for link in [*links, "v1/models", "health", "run"]:
        assert get(f"{nginx}/nanochat/{link}", headers=KEY).status_code == 200, link
    script = get(f"{nginx}/nanochat/page/api.js").text + get(f"{nginx}/nanochat/page/answers.js").text
    assert 'request("v1/' in script and 'request("/' not in script and 'fetch("/' not in script


@pytest.mark.parametrize("host, status", [("chat.example.com", 200), ("CHAT.example.com.:8443", 200), ("localhost", 200),
                                          ("192.168.1.9:8000", 200), ("evil.example", 403), ("host.docker.internal", 403)])
def test_names_that_nginx_hands_on(nginx, host, status):
    answer = get(f"{nginx}/named/v1/models", headers={**KEY, "Host": host})
    assert answer.status_code == status, answer.text
    if status == 403:
        assert f"--public_host={host}" in answer.json()["error"]["message"]


# ---------------------------------------------------------------------------------------------------------------- names
@pytest.mark.parametrize("host, known", [
    ("localhost:8000", True), ("LocalHost:8000", True), ("localhost.:8000", True), ("localhost", True), ("127.0.0.1:1", True),
    ("[::1]:8000", True), ("[0:0:0::1]", True), ("10.1.2.3", True), ("chat.example.com", True), ("chat.example.com:", True),
    ("nanochat:8000", False), ("localhost.evil.example", False), ("evil@localhost", False), ("", False), ("[", False),
    ("evil.example/localhost", False), ("127.0.0.1.evil.example", False), ("::1", False), ("localhost:8000:1", False)])
def test_which_names_are_ours(host, known):
    names = KnownNames(("localhost",), ("chat.example.com",), ())
    if known:
        names.check(host, None)
    else:
        with pytest.raises(Exception) as error:
            names.check(host, None)
        assert error.value.status == 403
    KnownNames((), (), ()).check(host, None)      # who listens to a network cannot know its names


@pytest.mark.parametrize("host, origin, allowed", [
    ("localhost:8000", "http://localhost:8000", True), ("LOCALHOST:8000", "http://localhost:8000", True),
    ("localhost", "http://localhost", True), ("localhost:80", "http://localhost", True), ("[::1]:8000", "http://[::1]:8000", True),
    ("localhost:443", "https://localhost", True), ("localhost", "https://localhost:443", True),
    ("127.0.0.1:8000", PUBLIC, True), ("127.0.0.1:8000", PUBLIC + ":8443", True), ("127.0.0.1:8000", FRONT, True),
    ("localhost:8000", "http://localhost:3000", False), ("localhost:8000", "http://127.0.0.1:8000", False),
    ("localhost", "http://localhost:8000", False), ("127.0.0.1:8000", "http://front.example", False),
    ("127.0.0.1:8000", "https://sub.chat.example.com", False), ("127.0.0.1:8000", "https://chat.example.com.evil.example", False),
    ("localhost:8000", "null", False), ("localhost:8000", "", False), ("localhost:8000", "localhost:8000", False),
    ("localhost:8000", "https://localhost@evil.example", False)])
def test_which_pages_may_ask(host, origin, allowed):
    names = KnownNames(("localhost",), ("chat.example.com",), (FRONT,))
    if allowed:
        names.check(host, origin)
    else:
        with pytest.raises(Exception) as error:
            names.check(host, origin)
        assert error.value.status == 403 and error.value.body["error"]["code"] == "wrong_origin"
    KnownNames(("localhost",), ("chat.example.com",), ("*",)).check(host, origin)


def test_a_front_end_elsewhere_may_ask_and_read_what_it_is_told(public):
    url = f"{public[0]}/v1/chat/completions"
    wish = {"Origin": FRONT, "Access-Control-Request-Method": "POST", "Access-Control-Request-Private-Network": "true",
            "Access-Control-Request-Headers": "authorization,content-type,x-stainless-os"}
    preflight = options(url, headers=wish)
    assert preflight.status_code == 200 and preflight.headers["access-control-allow-origin"] == FRONT
    assert "x-stainless-os" in preflight.headers["access-control-allow-headers"]
    assert preflight.headers["access-control-allow-private-network"] == "true"
    for headers, status in ((KEY, 200), ({}, 401)):
        told = post(url, json=BODY, headers={**headers, "Origin": FRONT})
        assert told.status_code == status and told.headers["access-control-allow-origin"] == FRONT
    foreign = options(url, headers={**wish, "Origin": "https://evil.example"})
    assert foreign.status_code == 403 and "access-control-allow-origin" not in foreign.headers
    assert "--allow_origin=https://evil.example" in foreign.json()["error"]["message"]
    assert "access-control-allow-origin" not in get(public[0], headers={"Origin": PUBLIC}).headers


def test_flags_take_what_people_write():
    names = parse_hosts("public_host", "https://Chat.Example.com:8443/app, b.example.,[::1]")
    assert names == ("chat.example.com", "b.example", "::1")
    given = "https://Front.example/, http://localhost:3000,https://a.example:443,app://obsidian.md,*,http://[::1]:80"
    assert parse_origins("allow_origin", given) == (
        "https://front.example", "http://localhost:3000", "https://a.example", "app://obsidian.md", "*", "http://[::1]")
    assert parse_hosts("public_host", " , ") == () and read_address("bad name") is None
    for wrong in (dict(public_host="*.example.com"), dict(public_host="a b"), dict(allow_origin="front.example"),
                  dict(allow_origin="null"), dict(trusted_proxy="proxy"), dict(trusted_proxy="*")):
        with pytest.raises(UsageError, match=f"--{next(iter(wrong))} "):
            Config(api_key="x", **wrong)


def test_who_opens_a_server_says_how_strangers_are_kept_out():
    for opening in (dict(public_host="chat.example.com"), dict(allow_origin="*"), dict(host="0.0.0.0")):
        with pytest.raises(UsageError, match="--api_key"):
            Config(**opening)
        assert Config(api_key="x", **opening).rate == Config(no_auth=True, **opening).rate == 60
    assert Config(allow_origin=FRONT).rate == Config().rate == 0


@pytest.mark.parametrize("trusted, statuses", [("", [200, 200, 429]), ("127.0.0.1", [200, 200, 200])])
def test_only_a_trusted_proxy_says_who_asks(engine, trusted, statuses):
    """Else a client would be as many as it likes, each with a rate of its own."""
    with serving(engine, rate=2, trusted_proxy=trusted) as (url, _):
        said = [get(f"{url}/v1/models", headers={"X-Forwarded-For": f"10.0.0.{i}"}).status_code for i in range(3)]
        assert said == statuses
        spoofed = [get(f"{url}/v1/models", headers={"X-Forwarded-For": f"10.9.9.{i}, 10.0.1.1"}).status_code
                   for i in range(3)]
        assert spoofed[2] == 429      # the proxy adds its client at the end; what stands before is the client's own


# --------------------------------------------------------------------------------------------------------------- habits
@pytest.mark.parametrize("path", ["/", "/health", "/ready", "/v1/models", "/models", "/metrics", "/page/main.js"])
def test_head_is_get_without_the_body(client, path):
    head, get = client.head(path), client.get(path)
    assert head.status_code == get.status_code == 200 and head.content == b"" and get.content
    if path != "/metrics":
        assert head.headers["content-length"] == get.headers["content-length"]


@pytest.mark.parametrize("base", ["/v1", "", "/v1/", "/", "//", "/v1/v1"])
@pytest.mark.parametrize("end", ["", "/"])
def test_a_base_url_may_have_v1_or_not_and_a_slash_or_not(client, base, end):
    url = str(client.base_url).rstrip("/") + base
    assert client.get(f"{url}/models{end}").json()["data"][0]["id"] == "tiny"
    assert client.get(f"{url}/models/tiny{end}").json()["id"] == "tiny"
    assert ask(client, f"{url}/chat/completions{end}").status_code == 200
    assert client.post(f"{url}/completions{end}", json={"prompt": "hello"}).json()["object"] == "text_completion"


def test_who_asks_for_what_is_not_there_is_told_what_is(client):
    for path in ("/api/tags", "/v1", "/page/", "/v1/chat", "/v1/embeddings"):
        answer = client.get(path)
        assert answer.status_code == 404 and "POST /v1/chat/completions, POST /v1/completions" in answer.json()["error"]["message"]
    wrong = client.get("/v1/chat/completions")
    assert wrong.status_code == 405 and "only POST" in wrong.json()["error"]["message"]
    options = client.options("/completions")
    assert options.status_code == 204 and options.headers["allow"] == "POST"
    assert client.get("/favicon.ico").status_code == 204


@pytest.mark.parametrize("given, status", [("Bearer right", 200), ("bearer right", 200), ("BEARER   right", 200), ("right", 200),
                                           ("Bearer", 401), ("Bearer wrong", 401), ("Basic right", 401), ("", 401)])
def test_the_word_bearer_is_written_in_any_case(public, given, status):
    assert get(f"{public[0]}/v1/models", headers={"Authorization": given}).status_code == status


@pytest.mark.parametrize("kind", [None, "application/json; charset=utf-8", "text/plain", "application/x-www-form-urlencoded"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_a_body_is_json_whatever_its_type_and_unicode(client, kind, encoding):
    body = json.dumps({"messages": [{"role": "user", "content": "Zoë 東京"}], "max_tokens": 2}, ensure_ascii=False)
    answer = client.post("/v1/chat/completions", content=body.encode(encoding), headers={"Content-Type": kind} if kind else {})
    assert answer.status_code == 200, answer.text


def raw_deflate(data):
    packer = zlib.compressobj(wbits=15)
    return packer.compress(data) + packer.flush()


@pytest.mark.parametrize("coding, pack", [("gzip", gzip.compress), ("GZip", gzip.compress), ("x-gzip", gzip.compress),
                                          ("deflate", raw_deflate), ("identity", bytes)])
def test_a_packed_body_is_read(client, coding, pack):
    answer = client.post("/v1/chat/completions", content=pack(json.dumps(BODY).encode()), headers={"Content-Encoding": coding})
    assert answer.status_code == 200 and answer.json()["usage"]["completion_tokens"] == 4


@pytest.mark.parametrize("body, coding, status, code", [
    (gzip.compress(b" " * (1 << 27)), "gzip", 413, "request_too_large"),       # 130 KB, 128 MB unpacked
    (gzip.compress(b" " * (MAX_BODY_BYTES + 1)), "gzip", 413, "request_too_large"),
    (b"{}", "gzip", 400, "invalid_encoding"), (b"", "gzip", 400, "invalid_json"), (b"{}", "br", 415, "unsupported_encoding"),
    (gzip.compress(json.dumps(BODY).encode())[:40], "gzip", 400, "invalid_json")],
    ids=["bomb", "1 MB", "plain", "empty", "br", "cut"])
def test_a_bomb_or_what_cannot_be_unpacked_is_refused(client, body, coding, status, code):
    start = time.monotonic()
    answer = client.post("/v1/chat/completions", content=body, headers={"Content-Encoding": coding})
    assert answer.status_code == status and answer.json()["error"]["code"] == code, answer.text
    assert time.monotonic() - start < 2
