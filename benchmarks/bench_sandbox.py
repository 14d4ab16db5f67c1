"""
How long it takes to run an empty program in the sandbox: start, lock, run, verdict, clean up.

    python benchmarks/bench_sandbox.py            101 runs
"""

import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from nanochat.cli import option, parse  # noqa: E402
from nanochat.common import run  # noqa: E402
from nanochat.infer import sandbox  # noqa: E402


@dataclass
class Config:
    runs: int = option(101, "timed runs, after five that warm up")


def main(argv=None):
    config, taken = parse(Config, argv, __doc__), []
    for _ in range(5 + config.runs):
        start = time.perf_counter()
        result = sandbox.run_code("pass", unsafe=True)
        taken.append(1000 * (time.perf_counter() - start))
        assert result.ok, result
    taken = sorted(taken[5:])
    print(
        f"level {result.level}, {len(taken)} runs: median {statistics.median(taken):.1f} ms, least {taken[0]:.1f}, "
        f"nine in ten below {taken[int(0.9 * (len(taken) - 1))]:.1f}, most {taken[-1]:.1f}"
    )


if __name__ == "__main__":
    run(main)
