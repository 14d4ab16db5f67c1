"""
Pictures of the page for the README: a real conversation with the newest model and its run, in a real browser.

    python dev/screenshots.py                                     writes dev/screenshots/{light,dark,phone,run}.png
    NANOCHAT_BASE_DIR=/path python dev/screenshots.py --out=/tmp  with another model, to another folder

Wants chromium and chromedriver on the PATH and `pip install selenium`. The server that it starts listens on
this machine only and ends with it.
"""

import argparse
import base64
import re
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[1]
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
)
QUESTIONS = ("Who are you?", "What is 47 * 12?", "How many b are in rabbit?")
SHOTS = {
    "light": (1120, 720, 1),
    "dark": (1120, 720, 1),
    "phone": (380, 760, 2),
    "run": (1120, 900, 1),
}  # width, height, pixels per point
WAIT_S = 60.0


@contextmanager
def serving():
    """The URL of a chat server for the newest model, on a free port."""
    server = subprocess.Popen(
        [sys.executable, "-m", "scripts.chat_web", "--port=0"],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        said = []
        for line in server.stdout:
            said.append(line)
            if found := re.search(r"Chat at (http://\S+)", line):
                yield found[1]
                return
        raise SystemExit("The server did not start:\n" + "".join(said))
    finally:
        server.terminate()
        server.wait()


@contextmanager
def browsing(profile):
    """A headless browser with a fresh profile."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or shutil.which("google-chrome")
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    browser = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        yield browser
    finally:
        browser.quit()


def until(claim):
    """Wait for `claim` to hold."""
    end = time.monotonic() + WAIT_S
    while not claim():
        if time.monotonic() > end:
            raise SystemExit("The page did not get there in time.")
        time.sleep(0.05)


def converse(browser, url):
    """Ask the questions and wait for their answers."""
    browser.get(url)
    until(lambda: browser.execute_script("return !!document.getElementById('model').textContent"))
    for i, question in enumerate(QUESTIONS, 1):
        browser.find_element("id", "draft").send_keys(question + "\n")
        until(
            lambda i=i: browser.execute_script(
                "const log = document.getElementById('log');"
                "return log.getAttribute('aria-busy') === 'false' && log.querySelectorAll('.turn').length === arguments[0]",
                2 * i,
            )
        )


def shoot(browser, path, width, height, scale, scheme):
    """Write what the page looks like on such a screen."""
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": width < 600},
    )
    browser.execute_script("document.activeElement.blur(); document.getElementById('scroll').scrollTop = 1e6")
    browser.execute_async_script("setTimeout(arguments[0], 400)")  # transitions end
    shot = browser.execute_cdp_cmd("Page.captureScreenshot", {"format": "png", "optimizeForSpeed": False})
    path.write_bytes(base64.b64decode(shot["data"]))
    print(f"{path} {path.stat().st_size:,} bytes")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=ROOT / "dev" / "screenshots", help="folder to write to")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    with serving() as url, tempfile.TemporaryDirectory() as profile, browsing(profile) as browser:
        converse(browser, url)
        for name, (width, height, scale) in SHOTS.items():
            if name == "run":
                browser.get(f"{url}/#run")
                until(lambda: browser.find_elements("css selector", "#skills tr"))
            shoot(browser, out / f"{name}.png", width, height, scale, "dark" if name == "dark" else "light")


if __name__ == "__main__":
    main()
