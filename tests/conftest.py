"""
What every test stands on: a base directory of its own, no network, one thread. A test that cannot run here says why.
"""
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

os.environ.setdefault("OMP_NUM_THREADS", "1")       # read when torch is imported, also by what tests start; a toy model
os.environ.setdefault("MPLBACKEND", "Agg")          # on two threads is slower than on one

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:       # as in a job started with &, and inherited by all we start:
    signal.signal(signal.SIGINT, signal.default_int_handler)    # Ctrl-C could not be tested


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="run the tests marked slow, too")


def pytest_collection_modifyitems(config, items):
    def mark(name, reason):
        for item in items:
            if item.get_closest_marker(name):           # not item.keywords: they hold the names of folders, too
                item.add_marker(pytest.mark.skip(reason=reason))
    if not config.getoption("--slow"):
        mark("slow", "slow: runs with --slow")
    if any(item.get_closest_marker("gpu") for item in items):
        import torch
        if not torch.cuda.is_available():
            mark("gpu", "gpu: no CUDA device here")


@pytest.fixture(autouse=True)
def base(tmp_path, monkeypatch):
    """The test's own NANOCHAT_BASE_DIR. Anything that asks a host other than this one is refused at once."""
    folder = tmp_path / "base"
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(folder))
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")          # the discard port: nobody listens
        monkeypatch.setenv(name.upper(), "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost,::1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost,::1")
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path / "tiktoken"))
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
    return folder


@pytest.fixture
def python():
    """Run `python ARGS...` in the repository's root and return the finished process, its output as text."""
    def run(*args, timeout=120, **more):
        return subprocess.run([sys.executable, *map(str, args)], cwd=ROOT, capture_output=True, text=True, timeout=timeout,
                              stdin=subprocess.DEVNULL, **more)
    return run
