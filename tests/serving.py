"""A tiny model behind a real server on a free port, for the tests that ask one."""
import socket
import threading
import time
from contextlib import contextmanager

import httpx
import pytest
import standin  # noqa: F401    for Paced.runner
from tiny import tiny_model, tiny_tokenizer

from nanochat.infer.engine import Engine
from nanochat.infer.runner import Runner
from nanochat.model.gpt import GPT
from nanochat.serve import limits
from nanochat.serve.served import Found, Served
from nanochat.serve.server import create_app

LEN = 160
HELLO = [{"role": "user", "content": "hello"}]


class Paced(GPT):
    """A tiny random model whose every step takes `pace_s` more, so that a test can act while it decodes."""

    pace_s, broken = 0.0, False

    class runner(Runner):    # noqa: N801    the name by which standin.py looks for it
        def forward(self, pieces):
            time.sleep(self.model.pace_s)
            assert not self.model.broken, "broken on purpose"
            return super().forward(pieces)


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


def make_engine(tokenizer):
    model = tiny_model(tokenizer.vocab_size, LEN, Paced, n_layer=1, n_embd=16)
    for name in ("assistant_end", "bos"):   # it never ends by itself
        model.lm_head.weight.data[tokenizer.special(f"<|{name}|>")] = 0
    return Engine(model, tokenizer)


class Given:
    """A source of models that are there already: {id: engine}, each of which may have a version."""

    def __init__(self, engines, suggestions=(), room=float("inf")):
        self.engines, self.offered, self.most, self.versions, self.loads = engines, list(suggestions), room, {}, []

    def found(self):
        return [Found(name, engine.max_len, self.versions.get(name, ""), size=1) for name, engine in self.engines.items()]

    def suggestions(self, found):
        return self.offered

    def load(self, found):
        self.loads.append((found.id, found.version))
        return self.engines[found.id]

    def room(self):
        return self.most


@contextmanager
def serving(engine, model_id="tiny", trusted_proxy="", suggestions=(), source=None, slots=8, max_waiting=32, **settings):
    """The base URL of a server on a free port of 127.0.0.1, and its application; `source` instead of one engine."""
    served = Served(source or Given({model_id: engine}, suggestions), slots, max_waiting)
    app = create_app(served, **settings)
    if not source:
        app.state.worker = served.preload().worker
    server = limits.server(app, trusted_proxy)
    server.config.timeout_graceful_shutdown, app.state.server = 1, server
    with socket.create_server(("127.0.0.1", 0)) as sock:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]})
        thread.start()
        try:
            while not server.started:
                time.sleep(0.01)
            yield f"http://127.0.0.1:{sock.getsockname()[1]}", app
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="module")
def engine(tokenizer):
    return make_engine(tokenizer)


@pytest.fixture(scope="module")
def served(engine):
    with serving(engine, slots=2, max_waiting=2, hosts=("127.0.0.1",)) as (url, app):
        yield url, app.state.worker


@pytest.fixture
def client(served, engine):
    engine.model.pace_s = 0.0
    with httpx.Client(base_url=served[0], timeout=60) as client:
        yield client
    engine.model.pace_s = 0.0
    settles(lambda: served[1].busy == 0)


def settles(claim, within_s=20.0):
    """Wait until `claim()` holds."""
    end = time.monotonic() + within_s
    while not claim():
        assert time.monotonic() < end, "did not happen in time"
        time.sleep(0.01)


def ask(client, path="/v1/chat/completions", **body):
    return client.post(path, json={"messages": HELLO, "max_tokens": 12, **body})


def events_of(raw):
    blocks = raw.decode("utf-8").split("\n\n")
    assert blocks.pop() == "" and all(b.startswith("data: ") and "\n" not in b for b in blocks)
    return [b.removeprefix("data: ") for b in blocks]
