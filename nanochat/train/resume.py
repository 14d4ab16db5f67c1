"""
What lets a run go on where it stopped, bit for bit as if it never had.

Training is a function of few things, and all are saved or follow from the step's number: the exact weights
(float32 masters), the optimizer's averages and its count of steps, the fp16 loss scale and TrainState. The
rows of a step, its learning rate and the seeds of sampled answers are functions of the step, not of what ran
before, so there is no generator whose state could be forgotten. `identity` is what must be the same for that
to hold: data, model, and every flag that changes the weights. Another number of ranks, another device and its
dtype may go on, too; then numbers are rounded otherwise.
"""
import contextlib
import json
import math
import shutil
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from nanochat import runtime
from nanochat.common import CheckpointError, atomic_write, git_commit, log
from nanochat.model.gpt import GPTConfig
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
    val: dict = field(default_factory=dict)  # the last validation; {}: that of this step is still to be made
    notes: list[str] = field(default_factory=list)  # what a reader of the result must know
    save_stall_s: float = 0.0  # for which saving kept the next step waiting

    def record(self, loss: float, tokens: int, seconds: float) -> None:
        """Count a step."""
        if self.step == 0:
            self.loss = loss
        else:
            self.loss = 0.9 * self.loss + 0.1 * loss
        self.step += 1
        self.tokens += tokens
        self.train_s += seconds


def _as_json(state):
    saved = asdict(state)
    if math.isinf(state.best):
        saved["best"] = None  # JSON has no word for infinity
    return saved


def save(stage: Stage, optimizer: MuonAdamW, state: TrainState, rt: Runtime, writer: checkpoint.Writer,
         wait: bool) -> None:
    """Start (`wait`: and finish) a checkpoint. Every rank must call; all raise when this or the last write
    failed.
    """
    start = time.monotonic()
    # Where rank 0 fails inside of rank_zero_first all ranks raise, and none waits for it for ever.
    with runtime.rank_zero_first(rt):
        if rt.rank == 0:
            writer.wait()  # memory holds one copy at a time
    masters = optimizer.masters()
    averages = optimizer.state()
    meta = {
        **stage.meta,
        "identity": stage.identity,
        "steps": stage.steps,
        "device": str(rt),
        "loss_scale": asdict(optimizer.scale) if optimizer.scale else None,
        "state": _as_json(state),
    }
    with runtime.rank_zero_first(rt):
        if rt.rank == 0:
            writer.save(stage.folder, state.step, masters, averages, meta, stage.flags.keep,
                        stage.tokenizer)
            if wait:
                writer.wait()
    state.save_stall_s += time.monotonic() - start


def save_validation(stage: Stage, state: TrainState, rt: Runtime, writer: checkpoint.Writer) -> None:
    """Add state.val to the checkpoint of this step, if there is one. Every rank must call."""
    with runtime.rank_zero_first(rt):
        if rt.rank == 0:
            writer.wait()
            if state.step in checkpoint.steps_in(stage.folder):
                checkpoint.amend(stage.folder, state.step, stage.flags.keep,
                                 val=min(state.val.values()), state=_as_json(state))


def resume(stage: Stage, optimizer: MuonAdamW, rt: Runtime) -> TrainState:
    """The newest whole checkpoint's TrainState, weights and averages loaded, or a new one. Raises
    CheckpointError.
    """
    found = checkpoint.newest_whole(stage.folder, with_optim=True)
    _check_ranks(stage, found, rt)
    if found is None:
        return TrainState()
    masters, optim_state, meta = found
    differences = _differences(stage, meta)
    if differences and stage.flags.replace:
        _delete(stage, differences, rt)
        return TrainState()
    if differences:
        there, here = _told(differences)
        raise CheckpointError(
            f"{stage.folder} holds a run with {there}, this one has {here}. Go on with what it has, or give "
            "this script another --tag to keep both, or --fresh to start over.")
    state = TrainState(**meta["state"])
    if state.best is None:
        state.best = math.inf
    optimizer.load(masters, optim_state, state.step)
    if optimizer.scale and meta.get("loss_scale"):
        optimizer.scale = LossScale(**meta["loss_scale"])
    log.info(f"going on from step {state.step:,} of {stage.steps:,} in {stage.folder}")
    if state.step < stage.steps:
        _note_changes(state, meta, rt)
    else:  # what is reported is what trained it, not what was asked for now
        stage.meta.update({key: meta[key] for key in ("config", "device") if key in meta})
    return state


def _check_ranks(stage, found, rt):
    """All ranks must have found the same: nodes may have base directories of their own."""
    mine = {"checkpoint": found and found[2]["step"], **stage.identity}
    for rank, theirs in enumerate(runtime.all_gather_object(rt, mine)):
        for key, value in mine.items():
            if theirs[key] != value:
                raise CheckpointError(f"rank {rank} has {key}={theirs[key]}, not {value}. Let all share one "
                                      "NANOCHAT_BASE_DIR.")


def _differences(stage, meta):
    """[(key, its value in the checkpoint's run, its value in this one)] of what is not the same."""
    found = []
    for key, here in json.loads(json.dumps(stage.identity)).items():
        there = here  # a flag younger than the checkpoint is no difference
        if key in meta["identity"]:
            there = meta["identity"][key]
        elif here is True:  # but a switch that the checkpoint's run did not have was off
            there = False
        if key == "model" and isinstance(there, dict):
            there = asdict(GPTConfig(**there))  # a field that it did not have has its default
            here = {name: value for name, value in here.items() if there[name] != value}
            there = {name: there[name] for name in here}
        if there != here:
            found.append((key, there, here))
    return found


def _told(differences):
    """(what the checkpoint's run has, what this one has), in words."""
    return (", ".join(f"{key}={there}" for key, there, _ in differences),
            ", ".join(f"{key}={here}" for key, _, here in differences))


def _delete(stage, differences, rt):
    there, here = _told(differences)
    if rt.rank == 0:
        log.info(f"starting over: replacing {stage.folder}, a run with {there}, by one with {here}")
        shutil.rmtree(stage.folder)
    runtime.barrier(rt)


def _note_changes(state, meta, rt):
    """Say, and keep for the result, what is not the same in all of the run's steps."""
    changes = []
    for key, here in (("commit", git_commit()), ("device", str(rt))):
        there = meta.get(key, here)
        if there != here:
            changes.append((key, there, here))
    if changes:
        there, here = _told(changes)
        state.notes.append(f"from step {state.step:,} on {here}, before {there}")
        log.info(state.notes[-1])


def trim_log(path: Path, step: int) -> None:
    """Drop the log's lines of steps that will be made again, and broken ones."""
    kept = []
    if path.exists():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            with contextlib.suppress(ValueError, TypeError, KeyError):
                if json.loads(line)["step"] <= step:
                    kept.append(line + "\n")
    atomic_write(path, "".join(kept))
