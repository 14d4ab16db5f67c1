"""The chat page in a real browser, against a real server whose model has its answers by heart."""
import importlib.util
import shutil
import socket
import threading
import time
from contextlib import contextmanager

import pytest
import torch
import uvicorn

from nanochat.engine import Engine
from nanochat.gpt import GPTConfig
from nanochat.server import create_app
from nanochat.tokenizer import Tokenizer

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
MISSING = "chromium" if not CHROMIUM else "chromedriver" if not DRIVER else "selenium"
pytestmark = [pytest.mark.browser, pytest.mark.skipif(
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


class ByHeart:
    """A model that looks up the last question of its prompt and says the answer, one byte a token; one slot only."""

    pace_s = 0.002
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

    def until(self, claim, within_s=8.0):
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

    def texts(self, css=".turn .body"):
        return [e.text for e in self.all(css)]

    def ask(self, text):
        n = len(self.all(".turn"))
        self.type(text + "\n")
        self.until(lambda: len(self.all(".turn")) == n + 2 and self.idle())

    def idle(self):
        return self.all("#log")[0].get_attribute("aria-busy") == "false"


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


def test_send_and_read_an_answer(page):
    page.ask("hello <b>you</b>")
    assert page.texts() == ["hello <b>you</b>", "You said: hello <b>you</b>"]
    assert page.all("#draft")[0].get_attribute("value") == ""


def test_tool_calls_are_chips(page):
    page.ask("What is 47 * 12?")
    assert page.texts(".chip")[0].split("\n") == ["47 * 12", "=", "564"] or page.texts(".chip") == ["47 * 12 = 564"]
    assert page.texts()[1].startswith("47 * 12 is") and page.texts()[1].endswith("564.")


def test_markdown_becomes_elements(page):
    page.ask("markdown please")
    for css, text in (("h2", "Head"), ("strong", "bold"), ("em", "slanted"), ("p code", "code"), ("li", "one"),
                      ("pre code", "print('hi')"), ("blockquote", "said")):
        assert page.texts(f".assistant {css}")[0] == text


def test_no_markup_of_the_model_or_the_user_ever_runs(page):
    page.ask("xss " + XSS.replace("\n", " "))
    assert page.browser.execute_script("return window.hacked") is None
    assert not page.all(".turn img, .turn script, .turn .body svg, .turn b, a[href^=javascript]")
    assert "<script>" in page.texts()[0] and "<script>" in page.texts()[1]


@pytest.mark.parametrize("how", ["Stop (Esc)", "\ue00c"])
def test_stop_keeps_what_was_said(page, model, how):
    model.pace_s = 0.02
    page.type("long one\n")
    page.until(lambda: "word word" in page.texts()[-1])
    page.click(how) if how.startswith("Stop") else page.type(how)
    page.until(page.idle)
    assert "word word" in page.texts()[-1] and page.texts(".note") == ["Stopped."]
    model.pace_s = 0.0
    page.ask("and now")
    assert page.texts()[-1] == "You said: and now"


def test_reload_keeps_the_conversation_and_the_draft(page):
    page.ask("remember me")
    page.type("half a thou")
    page.browser.refresh()
    page.until(lambda: page.texts() == ["remember me", "You said: remember me"])
    assert page.all("#draft")[0].get_attribute("value") == "half a thou"
    page.click("New chat")
    assert not page.all(".turn") and page.all("#welcome")


def test_edit_regenerate_and_history(page, model):
    page.ask("first")
    page.ask("second")
    page.click("Regenerate")
    page.until(lambda: page.idle() and "always the same" in "".join(page.texts(".note")))
    assert "first" in model.asked[-1] and len(page.all(".turn")) == 4
    page.browser.execute_script("[...document.querySelectorAll('.user .act')].find(b => b.title === 'Edit').click()")
    area = page.until(lambda: page.all(".edit textarea"))[0]
    page.until(lambda: page.browser.switch_to.active_element == area)
    area.send_keys(" changed\n")
    page.until(lambda: page.idle() and page.texts() == ["first changed", "You said: first changed"])
    assert "second" not in model.asked[-1]


def test_a_conversation_beyond_the_context_is_trimmed_with_a_note(page, model):
    for i in range(7):
        page.ask(f"message {i} " + "abcdefgh " * 7)
    assert "no longer remembers" in page.texts(".cut")[0] and len(page.all(".turn")) == 14
    assert "message 0" not in model.asked[-1] and "message 6" in model.asked[-1]


def test_errors_are_said_and_nothing_written_is_lost(page):
    page.browser.execute_script("window.kept = fetch; window.fetch = () => Promise.reject(new TypeError('down'))")
    page.type("important thought\n")
    page.until(lambda: "cannot be reached" in "".join(page.texts(".error")))
    assert page.texts() == ["important thought"]
    page.browser.execute_script("window.fetch = () => Promise.resolve(new Response('{}', {status: 429}))")
    page.click("Try again")
    page.until(lambda: "busy" in "".join(page.texts(".error")))
    page.browser.execute_script("window.fetch = window.kept")
    page.click("Try again")
    page.until(lambda: page.texts() == ["important thought", "You said: important thought"] and not page.all(".error"))


def test_api_key_can_be_entered(browser, model, tokenizer):
    with serving(model, tokenizer, api_key="sesame") as url:
        browser.get(url)
        page = Page.__new__(Page)
        page.browser, page.url = browser, url
        page.until(lambda: "API key" in "".join(page.texts(".error")))
        page.click("Enter the key")
        page.all("#api_key")[0].send_keys("sesame")
        page.click("Done")
        page.until(lambda: page.texts("#model") == ["sft"] and not page.all(".error"))
        page.ask("hello")
        assert page.texts()[-1] == "You said: hello"


def test_settings_are_sent_and_kept(page, model):
    page.click("Settings")
    for name, value in (("top_k", "7"), ("max_tokens", "9")):
        page.all(f"#{name}")[0].clear()
        page.all(f"#{name}")[0].send_keys(value)
    page.click("Done")
    page.ask("another message of mine")
    assert page.texts(".note") == ["Cut at the longest answer allowed."]
    assert len(page.texts()[1]) < len("You said: another")
    page.browser.refresh()
    page.until(lambda: page.texts("#model") == ["sft"])
    page.click("Settings")
    assert page.all("#max_tokens")[0].get_attribute("value") == "9"


@pytest.mark.parametrize("width", [320, 390, 1100])
def test_nothing_is_wider_than_the_screen(page, width):
    page.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride",
                                 {"width": width, "height": 700, "deviceScaleFactor": 1, "mobile": False})
    page.ask("markdown " + "x" * 120)
    wide = page.browser.execute_script(
        "return [document.documentElement, document.querySelector('main')].map(e => e.scrollWidth)")
    page.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert max(wide) <= width


def test_controls_have_names_and_the_keyboard_suffices(page):
    page.ask("hi")
    unnamed = page.browser.execute_script("""return [...document.querySelectorAll('button, input, textarea')].filter(
        e => !(e.textContent.trim() || e.ariaLabel || e.labels?.length)).map(e => e.outerHTML)""")
    assert unnamed == []
    assert page.all("#log")[0].get_attribute("aria-live") == "polite"
    page.type("\ue004")   # Tab leaves the message box: nothing traps the keyboard
    assert page.browser.switch_to.active_element.get_attribute("id") != "draft"
