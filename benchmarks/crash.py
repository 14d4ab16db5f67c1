"""
Pull the plug on a toy run at any moment, damage its files, fill its disk: does anything get lost?

    python benchmarks/crash.py                          50 kills, 20 places of damage in every file; minutes
    python benchmarks/crash.py --kills=6 --only=kills,signals

The run is scripts.base_train on a few kindergarten documents. Each sitting is a process forked from this one,
which has torch imported but has never used it, so that it starts in a moment; what is resumed must end with
the very bytes of the run that nobody disturbed. Prints a Markdown table and exits with 1 when a bar is
missed.
"""

import collections
import contextlib
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: no threads that a fork would lose
ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
from damage import Row, test_damage, test_pickle  # noqa: E402
from ranks import test_folders, test_hung, test_ranks  # noqa: E402
from sitting import STEPS, Sitting, leftovers, make_toy, whole_steps  # noqa: E402

from nanochat import common, runtime
from nanochat.cli import option, parse  # noqa: E402
from nanochat.common import UsageError, write_json  # noqa: E402
from nanochat.train import checkpoint  # noqa: E402


@dataclass
class Config:
    kills: int = option(50, "moments at which a run is killed")
    in_save: int = option(15, "of them, at least so many while a checkpoint is being written")
    offsets: int = option(20, "places in every file at which a bit is flipped, and at which it is cut off")
    seed: int = option(0, "of the moments and places")
    only: str = option(
        "",
        "tests joined by commas, of kills, damage, disk, signals, ranks, hung, folders, pickle, lock, stall",
    )
    json: str = option("", "write the rows to this file, too")

    def __post_init__(self):
        for name, least in (("kills", 1), ("in_save", 0), ("offsets", 2)):
            if getattr(self, name) < least:
                raise UsageError(f"--{name} must be at least {least}, got {getattr(self, name)}.")
        if unknown := set(filter(None, self.only.split(","))) - set(TESTS):
            raise UsageError(f"--only wants some of {', '.join(TESTS)}, got {', '.join(sorted(unknown))}.")


# ------------------------------------------------------------------------------------------------------ kills
def leave_own_number(sitting):
    """What a killed run with this very process number would have left, as in a container where each run is
    process 7."""
    for name in (
        f".{step:06d}.{os.getpid()}.{ending}" for step in range(2, STEPS, 2) for ending in ("tmp", "old")
    ):
        (sitting.folder / name).mkdir(parents=True)
        (sitting.folder / name / "junk").write_text("junk", encoding="utf-8")


def kill_once(base, rng, in_save, toy):
    """Start a sitting and kill it, at a random moment or as a checkpoint is written. Returns (sitting, newest
    step seen)."""
    sitting, seen, saves = Sitting(base, before=leave_own_number), 0, set()
    end, wanted = time.monotonic() + rng.uniform(0, toy.seconds), rng.randrange(1, 4)
    while sitting.poll() is None:
        seen = max([seen, *checkpoint.steps_in(sitting.folder)])
        if in_save:
            saves |= {path.name for path in leftovers(sitting.folder) if path.suffix == ".tmp"}
        if len(saves) >= wanted or (not in_save and time.monotonic() >= end):
            time.sleep(rng.uniform(0, 0.01) if in_save else 0)
            sitting.kill()
            sitting.wait()
    return sitting, seen


def test_kills(config, toy, tmp):
    """SIGKILL, resume, SIGKILL, resume ... until the run ends by itself; then the next run."""
    rng, count, base = random.Random(config.seed), collections.Counter(), toy.copy(tmp / "kills0")
    done = False
    while not done or base.exists():
        want_save = count["in a save"] < config.in_save * min(1, (count["kills"] + 1) / config.kills)
        done = count["kills"] >= config.kills and (not want_save or count["kills"] > 3 * config.kills)
        sitting, seen = (Sitting(base), 0) if done else kill_once(base, rng, want_save, toy)
        code = sitting.wait()
        good, bad = whole_steps(sitting.folder)
        count["lost"] += len(bad) + (max([0, *good]) < seen)
        if code == -signal.SIGKILL:
            count.update({"kills": 1, "in a save": bool(leftovers(sitting.folder))})
            continue
        if code:
            count["collisions"] += 1
            print(sitting.text(), file=sys.stderr)
        count["collisions"] += len(list(sitting.folder.glob(".*")))
        count["runs"] += 1
        count["same"] += toy.same(base)
        shutil.rmtree(base)
        if not done:
            base = toy.copy(tmp / f"kills{count['runs']}")
    kills = f"{count['kills']} kills, {count['in a save']} of them in a save"
    yield Row(
        "SIGKILL, then the same command",
        f"{config.kills} kills, {config.in_save} in a save; all runs end bitwise equal",
        f"{kills}; {count['same']} of {count['runs']} runs bitwise equal",
        count["in a save"] >= config.in_save and count["same"] == count["runs"],
    )
    yield Row("whole checkpoints lost", "0", str(count["lost"]), not count["lost"])
    yield Row(
        "collisions with leftovers, or leftovers that stay",
        "0",
        str(count["collisions"]),
        not count["collisions"],
    )


# -------------------------------------------------------------------------------------------------- full disk
@contextlib.contextmanager
def small_disk(at, size):
    """`at` as a file system of `size` bytes; yields why not where that cannot be had."""
    at.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(at)], capture_output=True, text=True
    )
    try:
        yield done.stderr.strip()
    finally:
        if not done.returncode:
            subprocess.run(["umount", "-l", str(at)], check=True)


def test_disk(config, toy, tmp):
    """No room for the next checkpoint: by a small file system where one can be mounted, and by a limit on a
    file's size."""

    def limit(sitting):
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))

    with small_disk(tmp / "disk", 32 << 20) as why_not:
        for name in ("disk full (tmpfs)", "file size limit"):
            full = name == "disk full (tmpfs)"
            bar = "one line, exit 1, old checkpoint loads, goes on bitwise"
            if full and why_not:
                yield Row(name, bar, f"skipped: {why_not}", True)
                continue
            base = toy.copy(tmp / ("disk/base" if full else "limit"))
            sitting = Sitting(base).wait_for_steps(9)
            sitting.kill(signal.SIGTERM)
            sitting.wait()
            before = whole_steps(sitting.folder)[0]
            if full:
                (base / "filler").write_bytes(b"x" * (shutil.disk_usage(base).free - 300_000))
            sitting = Sitting(base, before=None if full else limit)
            code, said = (
                sitting.wait(),
                [line for line in sitting.text().splitlines() if line.startswith("error: ")],
            )
            kept = whole_steps(sitting.folder) == (before, []) and "Traceback" not in sitting.text()
            (base / "filler").unlink(missing_ok=True)
            ended = Sitting(base).wait() == 0 and toy.same(base)
            yield Row(
                name,
                bar,
                f"exit {code}, {len(said)} line, checkpoint {before[-1]} {'kept' if kept else 'LOST'}, "
                f"then {'bitwise equal' if ended else 'DIFFERENT'}",
                code == 1 and len(said) == 1 and kept and ended,
            )


# --------------------------------------------------------------------------------------------- signals, locks
def test_signals(config, toy, tmp):
    """Ctrl-C and what a scheduler sends."""
    for number in (signal.SIGTERM, signal.SIGINT):
        sitting = Sitting(toy.copy(tmp / number.name)).wait_for_steps(5)
        start = time.monotonic()
        sitting.kill(number)
        code, seconds = sitting.wait(), time.monotonic() - start
        said, steps = sitting.text().splitlines()[-1], whole_steps(sitting.folder)[0]
        ok = code == 130 and seconds < 10 and f"saved at step {steps[-1]}." in said
        ended = Sitting(tmp / number.name).wait() == 0 and toy.same(tmp / number.name)
        yield Row(
            number.name,
            "saved within 10 s, exit 130; goes on bitwise",
            f"{seconds:.2f} s, exit {code}, says '{said}'; then {'bitwise equal' if ended else 'DIFFERENT'}",
            ok and ended,
        )


def test_lock(config, toy, tmp):
    """The same command twice at once."""
    first = Sitting(toy.copy(tmp / "lock")).wait_for_steps(3)
    second = Sitting(tmp / "lock", RANK="0")  # only so that its output has another name
    code = second.wait()
    ended = first.wait() == 0 and toy.same(tmp / "lock")
    said = second.text().splitlines()[-1].partition(". ")[0]
    yield Row(
        "two runs in one folder",
        "the second is refused, the first undisturbed",
        f"exit {code}: "
        f"'{said.replace(str(tmp), '')}'; the first ends {'bitwise equal' if ended else 'DIFFERENT'}",
        code == 1 and "another run holds" in second.text() and ended,
    )


# ------------------------------------------------------------------------------------------------------ stall
def test_stall(config, toy, tmp):
    """How long a save keeps the loop waiting, beside how long it takes."""
    runtime.init("cpu")  # as a run does: memory that was freed is kept
    tensors = {f"t{i}": torch.randn(1 << 20) for i in range(32)}
    with checkpoint.Writer() as writer:
        writer.save(tmp / "stall", 1, tensors, None, {})
        writer.wait()
        start = time.monotonic()
        copies = {name: tensor.clone() for name, tensor in tensors.items()}  # as MuonAdamW.masters makes them
        writer.save(tmp / "stall", 2, copies, None, {})
        stall = time.monotonic() - start
        writer.wait()
        whole = time.monotonic() - start
    yield Row(
        "the second save of 128 MB",
        "most of it while the training goes on",
        f"{whole:.2f} s, of which the loop waits {stall:.2f} s",
        stall < whole / 2,
    )


TESTS = {
    "kills": test_kills,
    "disk": test_disk,
    "signals": test_signals,
    "ranks": test_ranks,
    "hung": test_hung,
    "folders": test_folders,
    "lock": test_lock,
    "damage": test_damage,
    "pickle": test_pickle,
    "stall": test_stall,
}  # those that fork come first


def measure(config, tmp):
    """The rows of the table, one after another as they are measured."""
    common.git_commit()  # once for all sittings
    common.log.setLevel("ERROR")  # in this process; a sitting sets up its own
    toy = make_toy(tmp / "toy")
    for name in config.only.split(",") if config.only else TESTS:
        folder = tmp / name
        folder.mkdir()
        start = time.monotonic()
        os.environ["NANOCHAT_BASE_DIR"] = str(folder / "base")
        yield from TESTS[name](config, toy, folder)
        print(f"{name}: {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)


def main(argv=None):
    config = parse(Config, argv, __doc__)
    with tempfile.TemporaryDirectory() as tmp:
        rows = list(measure(config, Path(tmp)))
    print("| test | bar | measured |\n|---|---|---|")
    for row in rows:
        print(f"| {row.test} | {row.bar} | {row.measured}{'' if row.ok else ' **missed**'} |")
    if config.json:
        write_json(config.json, [asdict(row) for row in rows])
    return 0 if all(row.ok for row in rows) else 1


if __name__ == "__main__":
    common.run(main)
