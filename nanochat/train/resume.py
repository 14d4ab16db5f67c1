"""
What lets a run go on where it stopped, bit for bit as if it never had.

Training is a function of few things, and all are saved or follow from the step's number: the exact weights
(float32 masters), the optimizer's averages and its count of steps, the fp16 loss scale and TrainState. The
rows of a step, its learning rate and the seeds of sampled answers are functions of the step, not of what ran
before, so there is no generator whose state could be forgotten. `identity` is what must be the same for that
to hold: data, model, batch, horizon. Another number of ranks may go on, too; then sums are rounded in another
order.
"""
import contextlib
import json
import math
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from nanochat import runtime
from nanochat.common import CheckpointError, atomic_write, log
from nanochat.model.optim import LossScale, MuonAdamW
from nanochat.runtime import Runtime
from nanochat.train import checkpoint
from nanochat.train.recipe import Stage


@dataclass
class TrainState:
    """What a resume needs beside weights and optimizer. One dataclass, saved whole, so that nothing is
    forgotten.
    """

    step: int = 0
    tokens: int = 0  # tokens seen, padding included
    train_s: float = 0.0  # in steps, over all sittings
    loss: float = 0.0  # smoothed, nats a supervised token
    best: float = math.inf  # lowest validation loss
    val: dict = field(default_factory=dict)
    skipped: int = 0  # steps that were not finite
    save_stall_s: float = 0.0  # for which saving kept the next step waiting

    def record(self, loss: float, tokens: int, seconds: float) -> None:
        """Count a step. A NaN loss stands for a skipped one."""
        if math.isnan(loss):
            self.skipped += 1
        elif self.step == self.skipped:  # the first that counts
            self.loss = loss
        else:
            self.loss = 0.9 * self.loss + 0.1 * loss
        self.step += 1
        self.tokens += tokens
        self.train_s += seconds


def save(stage: Stage, optimizer: MuonAdamW, state: TrainState, rt: Runtime, writer: checkpoint.Writer,
         val: dict[str, float], wait: bool) -> None:
    """Start (`wait`: and finish) a checkpoint. Every rank must call; all raise when this or the last write
    failed.
    """
    start = time.monotonic()
    masters = optimizer.masters()
    averages = optimizer.state()
    saved_state = asdict(state)
    if math.isinf(state.best):
        saved_state["best"] = None  # JSON has no word for infinity
    meta = {
        **stage.meta,
        "identity": stage.identity,
        "steps": stage.steps,
        "val": min(val.values(), default=None),
        "loss_scale": asdict(optimizer.scale) if optimizer.scale else None,
        "state": saved_state,
    }
    with runtime.rank_zero_first(rt):
        if rt.rank == 0:
            writer.save(stage.folder, state.step, masters, averages, meta, stage.keep)
            if wait:
                writer.wait()
    state.save_stall_s += time.monotonic() - start


def resume(stage: Stage, optimizer: MuonAdamW, rt: Runtime) -> TrainState:
    """The newest whole checkpoint's TrainState, weights and averages loaded, or a new one. Raises
    CheckpointError.
    """
    found = checkpoint.newest_whole(stage.folder, with_optim=True)
    _check_ranks(stage, found, rt)
    if found is None:
        return TrainState()
    masters, optim_state, meta = found
    _check_identity(stage, meta["identity"])
    state = TrainState(**meta["state"])
    if state.best is None:
        state.best = math.inf
    optimizer.load(masters, optim_state, state.step)
    if optimizer.scale and meta.get("loss_scale"):
        optimizer.scale = LossScale(**meta["loss_scale"])
    log.info(f"going on from step {state.step:,} of {stage.steps:,} in {stage.folder}")
    return state


def _check_ranks(stage, found, rt):
    """All ranks must have found the same: nodes may have base directories of their own."""
    mine = {"checkpoint": found and found[2]["step"], **stage.identity}
    for rank, theirs in enumerate(runtime.all_gather_object(rt, mine)):
        for key, value in mine.items():
            if theirs[key] != value:
                raise CheckpointError(f"rank {rank} has {key}={theirs[key]}, not {value}. Let all share one "
                                      "NANOCHAT_BASE_DIR.")


def _check_identity(stage, saved):
    """The run in the folder must be this one, or, with --resume_anyway, at least have its model and
    tokenizer.
    """
    for key, here in stage.identity.items():
        there = saved.get(key, False)  # a flag younger than the checkpoint was off
        if there == json.loads(json.dumps(here)):
            continue
        differs = f"{stage.folder} holds a run with {key}={there}, this one has {key}={here}."
        if not stage.resume_anyway or key in ("model", "tokenizer"):
            raise CheckpointError(
                f"{differs} Use --fresh to start over, another --tag to keep both, or, unless "
                "it is the model or its tokenizer, --resume_anyway."
            )
        log.warning(f"{differs} Going on as asked.")


def trim_log(path: Path, step: int) -> None:
    """Drop the log's lines of steps that will be made again, and broken ones."""
    kept = []
    if path.exists():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            with contextlib.suppress(ValueError, TypeError, KeyError):
                if json.loads(line)["step"] <= step:
                    kept.append(line + "\n")
    atomic_write(path, "".join(kept))
