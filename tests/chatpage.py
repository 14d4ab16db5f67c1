"""What the tests of the chat page share: a model that knows its answers by heart, its server, and a browser."""
import importlib.util
import json
import shutil
import time
from contextlib import contextmanager

import pytest
from serving import serving
from standin import ByHeart

from nanochat.data.tokenizer import Tokenizer
from nanochat.infer.engine import Engine

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
    "three times": ["\0python:' ha'*3", "\0output: ha ha ha"],
    "47 * 12": ["47 * 12 is ", "\0python:47 * 12", "\0output:564", "564."],
    "markdown": ["# Head\n\nSome **bold**, *slanted* and `code`.\n\n- one\n- two\n\n"
                 "```python\nprint('hi')\n```\n\n> said"],
    "long": ["word " * 400],
    "xss": [XSS],
}


@contextmanager
def browsing(profile, *flags, prefs=None):
    """A headless browser with a fresh profile."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={profile}", "--window-size=1100,820", *flags):
        options.add_argument(flag)
    options.add_experimental_option("prefs", prefs or {})
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

    def paste(self, text):
        self.browser.execute_script("document.getElementById('draft').focus(); document.execCommand('insertText', false, "
                                    "arguments[0])", text)

    def click(self, text):
        named = lambda: [b for b in self.all("button") if text in (b.text, b.get_attribute("aria-label"))]  # noqa: E731
        self.until(named)[-1].click()

    def press(self, label, nth=0):
        """Press the nth button of this name, also one that shows only under the pointer; a renaming, whose prompt() would
        stop this script, a little later."""
        self.until(lambda: self.browser.execute_script("""const [label, nth] = arguments;
            const found = [...document.querySelectorAll('button')].filter(b => b.ariaLabel === label || b.textContent === label);
            if (found.length > nth) label.startsWith("Rename") ? setTimeout(() => found[nth].click()) : found[nth].click();
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
        self.paste(text)
        self.type("\n")
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
def screen(browser, width, scheme="light", touch=False):
    """A screen of this width in points, in light or dark, under a finger or not."""
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride",
                            {"width": width, "height": 760, "deviceScaleFactor": 1, "mobile": touch})
    browser.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": touch})
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]})
    # The page hears of its new width before it draws: what is pressed before that is undone, or undoes it.
    browser.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")
    try:
        yield
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        browser.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": False})
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(["the cat sat on the mat. word word " * 5, "47 * 12 = 564"], 300)


@pytest.fixture(scope="module")
def model(tokenizer):
    return ByHeart(tokenizer, ANSWERS)


@pytest.fixture(scope="module")
def url(model, tokenizer):
    with serving(Engine(model, tokenizer), "nanochat-sft", slots=1, max_waiting=1) as (url, _):
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
