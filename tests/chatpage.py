"""What the tests of the chat page share: a model that knows its answers by heart, its server, and a browser."""
import importlib.util
import json
import shutil
import socket
import threading
import time
from contextlib import contextmanager

import pytest
import torch
import uvicorn
from reference import StandIn, WholePrompts

from nanochat.engine import Engine
from nanochat.gpt import GPTConfig
from nanochat.server import create_app
from nanochat.tokenizer import Tokenizer

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
MISSING = "chromium" if not CHROMIUM else "chromedriver" if not DRIVER else "selenium"
IN_A_BROWSER = [pytest.mark.browser, pytest.mark.skipif(
    not (CHROMIUM and DRIVER and importlib.util.find_spec("selenium")), reason=f"{MISSING} is not installed")]

FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
         "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage")
XSS = ('<img src=x onerror="window.hacked=1"><script>window.hacked=1</script> [x](javascript:window.hacked=1) '
       '[y](https://example.org/"onmouseover=1) **<svg onload=window.hacked=1>** `<b>`')
ANSWERS = {
    "47 * 12": ["47 * 12 is ", "\0python:47 * 12", "\0output:564", "564."],
    "markdown": ["# Head\n\nSome **bold**, *slanted* and `code`.\n\n- one\n- two\n\n"
                 "```python\nprint('hi')\n```\n\n> said"],
    "long": ["word " * 400],
    "xss": [XSS],
}


class ByHeart(StandIn):
    """A model that looks up the last question of its prompt and says the answer, one byte a token; one slot only."""

    runner, pace_s = WholePrompts, 0.002
    broken = False

    def __init__(self, tokenizer, answers, sequence_len=700):
        self.tokenizer, self.answers = tokenizer, answers
        self.config = GPTConfig(sequence_len=sequence_len, vocab_size=tokenizer.vocab_size, n_layer=1, n_head=1,
                                n_kv_head=1, n_embd=2)
        self.dtype, self.device = torch.float32, torch.device("cpu")
        self.asked = []   # decoded prompts, oldest first

    def hidden(self, idx, cache):
        time.sleep(self.pace_s)
        k = torch.zeros(*idx.shape, 1, 2)
        cache.update(0, k, k)
        if idx.size(1) > 1:
            self._look_up(idx[0].tolist())
        return (cache.lengths[:, None] + torch.arange(idx.size(1)))[..., None].float().expand(-1, -1, 2)

    def _look_up(self, prompt):
        start, end = (self.tokenizer.special(f"<|user_{edge}|>") for edge in ("start", "end"))
        at = len(prompt) - prompt[::-1].index(start)
        question = self.tokenizer.decode(prompt[at: prompt.index(end, at)])
        self.asked.append(self.tokenizer.decode(prompt))
        answer = next((a for key, a in self.answers.items() if key in question), [f"You said: {question}"])
        self.script, self.begin = [i for piece in answer for i in self._ids(piece)], len(prompt)

    def _ids(self, piece):
        kind, _, text = piece.partition(":")
        special = self.tokenizer.special
        if kind == "\0python":
            return [special("<|python_start|>"), *self.tokenizer.encode(text), special("<|python_end|>")]
        if kind == "\0output":   # the engine forces these; only their number matters
            return [0] * (len(self.tokenizer.encode(text)) + 2)
        return self.tokenizer.encode(piece)

    def logits(self, hidden):
        logits = torch.zeros(hidden.size(0), self.config.vocab_size)
        at = int(hidden[0, 0]) - self.begin + 1
        logits[:, self.script[at] if at < len(self.script) else self.tokenizer.special("<|assistant_end|>")] = 50.0
        return logits


@contextmanager
def serving(model, tokenizer, **settings):
    """The URL of a server for this model on 127.0.0.1."""
    app = create_app(Engine(model, tokenizer), model_id="nanochat-sft", slots=1, **settings)
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1))
    with socket.create_server(("127.0.0.1", 0)) as sock:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]})
        thread.start()
        try:
            while not server.started:
                time.sleep(0.01)
            yield f"http://127.0.0.1:{sock.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@contextmanager
def browsing(profile, *flags):
    """A headless browser with a fresh profile."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={profile}", "--window-size=1100,820", *flags):
        options.add_argument(flag)
    browser = webdriver.Chrome(options=options, service=Service(DRIVER))
    try:
        yield browser
    finally:
        browser.quit()


class Page:
    """The page as its user sees it."""

    def __init__(self, browser, url):
        self.browser, self.url = browser, url
        browser.get(url)
        browser.execute_script("localStorage.clear()")
        browser.get(url)
        self.until(lambda: self.all("#model")[0].text)

    def all(self, css):
        return self.browser.find_elements("css selector", css)

    def until(self, claim, within_s=30.0):
        end = time.monotonic() + within_s
        while True:
            try:
                if value := claim():
                    return value
            except Exception:   # the page redraws: an element found may be gone again
                pass
            assert time.monotonic() < end, f"not in time; the page says: {self.all('body')[0].text}"
            time.sleep(0.03)

    def type(self, text):
        self.all("#draft")[0].send_keys(text)

    def click(self, text):
        named = lambda: [b for b in self.all("button") if text in (b.text, b.get_attribute("aria-label"))]  # noqa: E731
        self.until(named)[-1].click()

    def press(self, label, nth=0):
        """Press the nth button of this name, also one that shows only under the pointer."""
        self.until(lambda: self.browser.execute_script("""const [label, nth] = arguments;
            const found = [...document.querySelectorAll('button')].filter(b => b.ariaLabel === label || b.textContent === label);
            if (found.length > nth) setTimeout(() => found[nth].click());   // later: a prompt() would stop this script
            return found.length > nth""", label, nth))

    def fake(self, *replies):
        """Let the server's answers be these, (status, headers, body); the last for ever."""
        self.browser.execute_script("""const replies = [...arguments[0]];
            window.real ??= fetch;
            window.asked = [];
            window.fetch = async (url, options) => {
                if (!url.includes("completions")) return window.real(url, options);
                window.asked.push(JSON.parse(options.body));
                const [status, headers, body] = replies.length > 1 ? replies.shift() : replies[0];
                return new Response(body, {status, headers});
            }""", replies)

    def asked(self):
        return self.browser.execute_script("return window.asked")

    def active(self, name="id"):
        return self.browser.switch_to.active_element.get_attribute(name)

    def texts(self, css=".turn .body"):
        return [e.text for e in self.all(css)]

    def ask(self, text):
        n = len(self.all(".turn"))
        self.type(text + "\n")
        self.until(lambda: len(self.all(".turn")) == n + 2 and self.idle())

    def idle(self):
        return self.all("#log")[0].get_attribute("aria-busy") == "false"


def said(*pieces, end="data: [DONE]\n\n"):
    """A reply that streams these pieces: text, or (text, log probability, [(other text, log probability), ...])."""
    chunks = []
    for piece in pieces:
        choice = {"index": 0, "delta": {"content": piece if isinstance(piece, str) else piece[0]}, "finish_reason": None}
        if not isinstance(piece, str):
            top = [{"token": t, "logprob": q} for t, q in piece[2]]
            choice["logprobs"] = {"content": [{"token": piece[0], "logprob": piece[1], "top_logprobs": top}]}
        chunks.append({"choices": [choice]})
    return 200, {}, "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + end


def refused(status, headers=None, **error):
    return status, headers or {}, json.dumps({"error": {"message": "No.", **error}})


@contextmanager
def screen(browser, width, scheme="light"):
    """A screen of this width in points, in light or dark."""
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride",
                            {"width": width, "height": 760, "deviceScaleFactor": 1, "mobile": False})
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]})
    try:
        yield
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(["the cat sat on the mat. word word " * 5, "47 * 12 = 564"], 300)


@pytest.fixture(scope="module")
def model(tokenizer):
    return ByHeart(tokenizer, ANSWERS)


@pytest.fixture(scope="module")
def url(model, tokenizer):
    with serving(model, tokenizer, max_waiting=1) as url:
        yield url


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with browsing(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture
def page(browser, url, model):
    model.pace_s = 0.002
    page = Page(browser, url)
    yield page
    said = [line["message"] for line in browser.get_log("browser")]
    assert not [line for line in said if "Content Security" in line or "Uncaught" in line]
