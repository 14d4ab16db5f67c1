"""
What the page that shows a run costs the run: one training, and the page looked at in every other stretch of it.

    python benchmarks/bench_page.py                     60 pairs of stretches of 5 seconds, some 10 minutes
    python benchmarks/bench_page.py --browser --times=1 --seconds=20   with a browser on this machine (chromium, selenium)

The server is started as speedrun.sh starts it, and stopped (SIGSTOP) in the stretches without it, as is the browser.
Which of a pair comes first changes from pair to pair. Whole runs in turns had differed by 5 % on their own, and stretches
of seconds still do, so what is asked every five seconds by the page (its news of five seconds) is asked ten times as
often here, and costs ten times as much. After three minutes a page asks every fifteen; a browser does so here, too. Told
are the pairs' mean ratio of tokens a second with its 95 % interval, what that is for one page, and what part of the time
server and browser compute, which says it with less chance.
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
import time
import urllib.parse
import urllib.request
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[1]
EVERY_S = 5.0  # how often serve/page/run.js asks in its first three minutes
SETTLED = 50  # steps after which caches are full
TRAIN = ("scripts.base_train", "--dataset=kindergarten", "--depth=3", "--sequence_len=256", "--total_batch_size=2048",
         "--num_iterations=1000000", "--eval_every=0", "--save_every=0", "--fresh")


def newest(log):
    """(step, seconds of training until then) of the last line that a training wrote; (0, 0) before the first."""
    lines = log.read_text(encoding="utf-8").split("\n")[:-1] if log.exists() else []
    for line in reversed(lines):
        record = json.loads(line)
        if "elapsed_s" in record:
            return record["step"], record["elapsed_s"]
    return 0, 0.0


@contextlib.contextmanager
def training(folder):
    """A training that is at work, as its log; it ends with the block."""
    log = Path(folder) / "logs" / "base_d3.jsonl"
    with subprocess.Popen([sys.executable, "-m", *TRAIN], cwd=ROOT, stdout=subprocess.DEVNULL) as trainer:
        try:
            while newest(log)[0] < SETTLED:
                if trainer.poll() is not None:
                    sys.exit("the training ended before it was measured")
                time.sleep(0.5)
            yield log
        finally:
            trainer.kill()


@contextlib.contextmanager
def serving():
    """The page's server as speedrun.sh starts it, and its address."""
    command = ["nice", sys.executable, "-m", "scripts.chat_web", "--port=0", "--preload=false", "--device=cpu"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        try:
            yield server, next(found[1] for line in server.stdout if (found := re.search(r"(http://\S+)", line)))
        finally:
            server.kill()


@contextlib.contextmanager
def browsing(url):
    """A browser that shows the page, on this machine: its processes."""
    sys.path.insert(0, str(ROOT / "tests"))
    import chatpage

    with tempfile.TemporaryDirectory() as profile, chatpage.browsing(profile) as browser:
        browser.get(url)
        driver = psutil.Process(browser.service.process.pid)
        shown = [driver, *driver.children(recursive=True)]
        try:
            yield shown
        finally:
            awake(shown)


def asleep(processes):
    for process in processes:
        process.suspend()


def awake(processes):
    for process in processes:
        process.resume()


class Looking:
    """Pages that look at the run, `times` as many as one."""

    def __init__(self, url, times):
        self.url = url
        self.every_s = EVERY_S / times
        self.after = ["{}"] * times  # what was known EVERY_S ago, ..., at the last time

    def ask(self):
        with urllib.request.urlopen(f"{self.url}/run?after={urllib.parse.quote(self.after.pop(0))}") as answer:
            self.after.append(json.dumps(json.load(answer)["after"]))


def tokens_per_s(log, seconds, looking):
    """The training's speed over so many seconds, in which somebody is looking, or nobody (None)."""
    before_step, before_s = newest(log)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if looking:
            looking.ask()
        time.sleep(looking.every_s if looking else seconds)
    step, elapsed_s = newest(log)
    return 2048 * (step - before_step) / (elapsed_s - before_s)


def processor_s(processes):
    """Seconds that these processes have computed."""
    used = [process.cpu_times() for process in processes]
    return sum(times.user + times.system for times in used)


def compare(log, looking, server, browser, options):
    """Of each pair the ratio of speeds, looked at over not, and how long server and browser computed, in seconds."""
    pairs = []
    for pair in range(options.pairs):
        speeds = {}
        before_s = processor_s([server, *browser])
        for looked_at in (pair % 2 == 0, pair % 2 == 1):
            (awake if looked_at else asleep)([server, *browser])
            asks = looked_at and not browser  # a browser asks by itself
            speeds[looked_at] = tokens_per_s(log, options.seconds, looking if asks else None)
        ratio = speeds[True] / speeds[False]
        pairs.append((ratio, processor_s([server, *browser]) - before_s))
        print(f"pair {pair + 1}: alone {speeds[False]:,.0f}, looked at {speeds[True]:,.0f} tokens a second, "
              f"{ratio - 1:+.2%}", flush=True)
    awake([server, *browser])
    return pairs


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=60)
    parser.add_argument("--seconds", type=float, default=EVERY_S)
    parser.add_argument("--times", type=int, default=10, help="how many pages look at it")
    parser.add_argument("--browser", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["NANOCHAT_BASE_DIR"] = folder
        subprocess.run([sys.executable, "-m", "scripts.tok_train", "--dataset=kindergarten", "--vocab_size=2048"],
                       cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        with training(folder) as log, serving() as (server, url), contextlib.ExitStack() as opened:
            browser = opened.enter_context(browsing(f"{url}/#run")) if options.browser else []
            looking = Looking(url, options.times)
            for _ in range(options.times):
                looking.ask()  # for all that was there before
            pairs = compare(log, looking, psutil.Process(server.pid), browser, options)
    ratios = [ratio for ratio, _ in pairs]
    share = statistics.mean(computed_s for _, computed_s in pairs) / options.seconds
    mean = statistics.mean(ratios) - 1
    half = 1.96 * statistics.stdev(ratios) / len(ratios) ** 0.5
    print(f"{options.times} times a page {mean:+.2%} (95 %: {mean - half:+.2%} to {mean + half:+.2%}) of {len(ratios)} pairs, "
          f"one page {mean / options.times:+.2%} ({(mean - half) / options.times:+.2%} to {(mean + half) / options.times:+.2%}); "
          f"for it server and browser compute {share:.2%} of the time on one core, for one page {share / options.times:.2%}")


if __name__ == "__main__":
    main()
