"""Rows of crash.py's table for two ranks: one dies, one hangs, each has a base directory of its own."""

import os
import shutil
import signal
import socket
import threading
import time

from damage import Row
from sitting import Sitting, whole_steps

from nanochat import runtime, scaling


def two_ranks(bases, **more):
    """Sittings of two gloo processes, each with its base directory."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        env = {
            "WORLD_SIZE": "2",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(s.getsockname()[1]),
            "GLOO_SOCKET_IFNAME": "lo",
        }
    return [Sitting(base, RANK=str(rank), **env, **more) for rank, base in enumerate(bases)]


def test_ranks(config, toy, tmp):
    """One of two gloo processes dies."""
    for victim in (1, 0):
        base = toy.copy(tmp / f"ranks{victim}")
        ranks = two_ranks([base, base])
        ranks[0].wait_for_steps(9)
        ranks[victim].kill()
        start, code = time.monotonic(), ranks[1 - victim].wait(60)
        seconds, (good, bad) = time.monotonic() - start, whole_steps(ranks[0].folder)
        said = ranks[1 - victim].text()
        named = "Traceback" not in said and f"error: rank {1 - victim} of 2 has lost another one" in said
        ended = Sitting(base).wait() == 0
        yield Row(
            f"rank {victim} of 2 killed",
            "the other says so in one line and exits within 60 s; one rank goes on",
            f"{'one line' if named else 'A TRACEBACK'}, exit {code} after {seconds:.2f} s; checkpoints {good}; "
            f"{'goes on' if ended else 'DOES NOT GO ON'}",
            code == 1 and named and seconds < 60 and bool(good) and not bad and ended,
        )
        for sitting in ranks:
            sitting.wait(1)


def hang(what, victim):
    """For Sitting's `before`: in step 9 `victim` hangs, and from then on the other waits for seconds, not
    minutes."""

    def before(sitting):
        hangs, real = sitting.folder / "hangs", scaling.lr_scale

        def listen():
            while not hangs.exists():
                time.sleep(0.05)
            runtime.HANG_S, runtime.ANSWER_S = 2, 4

        def lr_scale(step, *args, **more):
            if step == 9 and os.environ["RANK"] == str(victim):
                hangs.touch()
                if what == "stopped":
                    os.kill(os.getpid(), signal.SIGSTOP)
                time.sleep(1000)
            return real(step, *args, **more)

        scaling.lr_scale = lr_scale
        threading.Thread(target=listen, daemon=True).start()

    return before


def test_hung(config, toy, tmp):
    """One of two gloo processes is stopped, or does something else: it lives, and so do its connections."""
    cases = []
    for what, victim in (("stopped", 1), ("stopped", 0), ("astray", 1)):
        base = toy.copy(tmp / f"{what}{victim}")
        cases.append((what, victim, base, two_ranks([base, base], before=hang(what, victim))))
    for what, victim, base, ranks in cases:
        code, (good, bad) = ranks[1 - victim].wait(), whole_steps(ranks[0].folder)
        said = [line for line in ranks[1 - victim].text().splitlines() if line.startswith("error: ")]
        named = len(said) == 1 and f"for rank {victim} of 2, on {os.uname().nodename}" in said[0]
        ranks[victim].kill()
        ranks[victim].wait()
        ended = Sitting(base).wait() == 0
        yield Row(
            f"rank {victim} of 2 {what}",
            "the other names it in one line and exits; one rank goes on",
            f"'{' '.join(said)}', exit {code}; checkpoints {good}; {'goes on' if ended else 'DOES NOT GO ON'}",
            code == 1 and named and bool(good) and not bad and ended,
        )


def test_folders(config, toy, tmp):
    """Two nodes of one rank, each with a base directory of its own."""
    bases = [toy.copy(tmp / f"node{rank}") for rank in range(2)]
    shutil.rmtree(bases[1] / "tokens")
    codes = [sitting.wait() for sitting in two_ranks(bases)]
    written = [bool(list((base / "base_checkpoints").glob("d1/*/meta.json"))) for base in bases]
    yield Row(
        "a base directory for each node",
        "trains; the second tokenizes for itself; the first has the checkpoints",
        f"exits {codes}, checkpoints: {written}",
        codes == [0, 0] and written == [True, False] and (bases[1] / "tokens").is_dir(),
    )
    ranks = two_ranks(bases)
    codes, said = (
        [sitting.wait() for sitting in ranks],
        [sitting.text().splitlines()[-1] for sitting in ranks],
    )
    yield Row(
        "going on where one node has no checkpoint",
        "all ranks refuse in one line, naming it",
        f"exits {codes}: '{said[0]}'",
        codes == [1, 1]
        and "rank 1 has checkpoint=None, not 40" in said[0]
        and "rank 0 has checkpoint=40, not None" in said[1],
    )
