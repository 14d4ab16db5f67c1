"""
The toy run that crash.py ends in every way: scripts.base_train on a few kindergarten documents, in a forked
process.

Whoever imports this has torch imported but must never have used it.
"""

import os
import shutil
import signal
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

from nanochat import common
from nanochat.common import NanochatError
from nanochat.data import datasets
from nanochat.train import checkpoint
from scripts import base_train, tok_train

STEPS = 40
FLAGS = [
    "--dataset=kindergarten",
    "--depth=1",
    "--sequence_len=64",
    "--total_batch_size=256",
    "--device_batch_size=2",
    f"--num_iterations={STEPS}",
    "--eval_every=4",
    "--eval_tokens=256",
    "--save_every=2",
    "--device=cpu",
]


class Sitting:
    """A forked process that runs `main` (by default the training) with `base` as its base directory."""

    def __init__(self, base, main=lambda: base_train.main(FLAGS), before=None, **env):
        self.folder, self.log, self.code = (
            base / "base_checkpoints" / "d1",
            base / "logs" / "base_d1.jsonl",
            None,
        )
        self.out = base / f"out{env.get('RANK', '')}.txt"
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            self._be(main, before, {"NANOCHAT_BASE_DIR": str(base), **env})

    def _be(self, main, before, env):
        code = 70
        try:
            fd = os.open(self.out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(fd, 1)
            os.dup2(fd, 2)
            os.environ.update(env)
            if before:
                before(self)
            common.run(main)
        except SystemExit as e:
            code = e.code or 0
        except BaseException:
            code = 1
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def poll(self):
        """Its exit code, negative for a signal; None while it runs."""
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.code = os.waitstatus_to_exitcode(status) if pid else None
        return self.code

    def wait(self, timeout_s=120):
        """Its exit code. After `timeout_s` it is killed and the code says so (-9)."""
        end = time.monotonic() + timeout_s
        while self.poll() is None:
            if time.monotonic() > end:
                self.kill()
            time.sleep(0.002)
        return self.code

    def kill(self, number=signal.SIGKILL):
        os.kill(self.pid, number)

    def wait_for_steps(self, n):
        """Return when n steps are logged, or when it has ended."""
        while self.poll() is None and not (self.log.exists() and self.log.read_bytes().count(b"\n") >= n):
            time.sleep(0.002)
        return self

    def text(self):
        return self.out.read_text(encoding="utf-8", errors="replace")


@dataclass
class Toy:
    """The base directory of a finished run that nobody disturbed, and what to compare with it."""

    base: Path
    seconds: float = 0.0

    def model(self, base):
        path = base / "base_checkpoints" / "d1" / f"{STEPS:06d}" / "model.safetensors"
        return path.read_bytes() if path.exists() else b"no model"

    def same(self, base):
        return self.model(base) == self.model(self.base)

    def copy(self, to):
        """Tokenizer and data of this one, nothing trained."""
        trained = shutil.ignore_patterns("base_checkpoints", "logs", "report", "*.txt")
        return Path(shutil.copytree(self.base, to, ignore=trained))


def make_toy(base):
    """Documents, tokenizer and an undisturbed run."""

    def prepare():
        datasets.KINDERGARTEN_SHARD, datasets.KINDERGARTEN_VAL = 60, 20
        datasets.generate(datasets.DATASETS["kindergarten"], 1)
        tok_train.main(["--dataset=kindergarten", "--vocab_size=400"])

    base.mkdir(parents=True)
    for main in (prepare, lambda: base_train.main(FLAGS)):
        start, sitting = time.monotonic(), Sitting(base, main)
        assert sitting.wait() == 0, sitting.text()
    return Toy(base, time.monotonic() - start)


def whole_steps(folder):
    """(steps that load, steps that stand under their name and do not)."""
    good, bad = [], []
    for step in checkpoint.steps_in(folder):
        try:
            checkpoint.load(folder / f"{step:06d}", with_optim=True)
            good.append(step)
        except NanochatError:
            bad.append(step)
    return good, bad


def leftovers(folder):
    """Halves of checkpoints."""
    return [path for path in folder.glob(".*") if (path / "model.safetensors").exists()]
