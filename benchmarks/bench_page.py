"""
What the page that shows a run costs the run: training alone and with the page looked at, in turns.

    python benchmarks/bench_page.py                     10 pairs of a kindergarten's pretraining, some 10 minutes
    python benchmarks/bench_page.py --pairs=20 --steps=120
    python benchmarks/bench_page.py --browser           with a browser on this machine, too (chromium, selenium)

In the run with the page the server is started as speedrun.sh starts it, and its /run is asked every three seconds as
the page does it. Which of a pair comes first changes from pair to pair. Told are tokens a second of the steps, the
median of the pairs' ratios and its quartiles; and what part of the time the server itself computes, as processors' speed
may vary by more than a page costs.
"""
import argparse
import contextlib
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[1]
EVERY_S = 3.0


def python(*args):
    """Run a script in the base directory, quietly."""
    subprocess.run([sys.executable, "-m", *args], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def train(steps):
    """Tokens a second of one run's steps; the first five, in which caches fill, do not count."""
    python("scripts.base_train", "--dataset=kindergarten", "--depth=3", "--sequence_len=256", "--total_batch_size=2048",
           f"--num_iterations={steps}", "--eval_tokens=2048", "--fresh")
    lines = (Path(os.environ["NANOCHAT_BASE_DIR"]) / "logs" / "base_d3.jsonl").read_text(encoding="utf-8").splitlines()
    records = [record for record in map(json.loads, lines) if "elapsed_s" in record]
    seconds = records[-1]["elapsed_s"] - records[4]["elapsed_s"]
    return 2048 * (len(records) - 5) / seconds


def processor_s(pid):
    """Seconds that a process has computed."""
    used = psutil.Process(pid).cpu_times()
    return used.user + used.system


@contextlib.contextmanager
def looked_at(browser, shares):
    """The page, as speedrun.sh starts it, and somebody who looks at it. Its share of a core is added to `shares`."""
    command = ["nice", sys.executable, "-m", "scripts.chat_web", "--port=0", "--preload=false", "--device=cpu"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        url = next(found[1] for line in server.stdout if (found := re.search(r"(http://\S+)", line)))
        ended = threading.Event()

        def look():
            after = "{}"
            while not ended.wait(EVERY_S):
                with urllib.request.urlopen(f"{url}/run?after={urllib.parse.quote(after)}") as answer:
                    after = json.dumps(json.load(answer)["after"])

        thread = threading.Thread(target=look)
        begun = time.monotonic()
        used = processor_s(server.pid)
        thread.start()
        try:
            with browsing(f"{url}/#run") if browser else contextlib.nullcontext():
                yield
        finally:
            ended.set()
            thread.join()
            shares.append((processor_s(server.pid) - used) / (time.monotonic() - begun))
            server.terminate()


@contextlib.contextmanager
def browsing(url):
    """A browser that shows the page, on this machine."""
    sys.path.insert(0, str(ROOT / "tests"))
    import chatpage

    with tempfile.TemporaryDirectory() as profile, chatpage.browsing(profile) as browser:
        browser.get(url)
        yield


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--browser", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["NANOCHAT_BASE_DIR"] = folder
        python("scripts.tok_train", "--dataset=kindergarten", "--vocab_size=2048")
        train(10)  # tokenizes
        ratios = []
        shares = []
        for pair in range(options.pairs):
            speeds = {}
            for with_page in (pair % 2 == 0, pair % 2 == 1):
                with looked_at(options.browser, shares) if with_page else contextlib.nullcontext():
                    speeds[with_page] = train(options.steps)
            ratios.append(speeds[True] / speeds[False])
            print(f"pair {pair + 1}: alone {speeds[False]:,.0f}, with the page {speeds[True]:,.0f} tokens a second, "
                  f"{ratios[-1] - 1:+.2%}", flush=True)
        low, middle, high = statistics.quantiles(ratios, n=4)
        print(f"with the page {middle - 1:+.2%} (quartiles {low - 1:+.2%} to {high - 1:+.2%}) of {len(ratios)} pairs; "
              f"its server computes {statistics.median(shares):.2%} of the time on one core")


if __name__ == "__main__":
    main()
