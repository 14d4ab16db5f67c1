"""
The loop: every kind of training is a Stage run by `run`.

A step's loss is the weighted sum over its tokens by their global count, so any split of a batch over ranks
and micro-batches gives the same gradient.
"""
import contextlib
import gc
import json
import math
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import torch

from nanochat import runtime, scaling
from nanochat.cli import at_least, option
from nanochat.common import (
    CheckpointError,
    Interrupted,
    NanochatError,
    Progress,
    UsageError,
    append_jsonl,
    atomic_write,
    base_dir,
    log,
    run_lock,
    save_result,
)
from nanochat.model.optim import Group, LossScale, MuonAdamW
from nanochat.train import checkpoint

COMPILED_ON, COMPILE = ("cuda",), {"fullgraph": True, "dynamic": False}  # a CPU gains too little


@dataclass
class RunFlags:
    save_every: int = option(100, "steps between checkpoints, written while training goes on (0: only at the end)")
    keep: int = option(2, "newest checkpoints that stay, besides the one that validated best (0: all)")
    skip_nonfinite: int = option(0, "steps with a loss or gradient that is not finite to skip before giving up")
    resume_anyway: bool = option(False, "go on although data, batch or horizon differ from the checkpoint's")
    tag: str = option("", "name of the run's folder (default: as its source, else d<depth>)")
    device: str = option("", "cuda, mps, xpu or cpu (default: the best there is)")
    fresh: bool = option(False, "start over, deleting this tag's checkpoints")
    dry_run: bool = option(False, "print what would be run, and stop")

    def __post_init__(self):
        at_least(self, **{f.name: 0 for f in fields(self) if f.type in (int, float) and f.name != "seed"})
        if "/" in self.tag or self.tag in (".", ".."):  # --fresh deletes it
            raise UsageError(f"--tag wants one folder's name, got {self.tag}.")

    def for_stage(self, stage, tag, steps, warmdown_frac, final_lr=0.0):
        """Arguments of a Stage."""
        return {"folder": checkpoint.stage_dir(stage) / tag, "steps": steps,
                "log_path": base_dir() / "logs" / f"{stage}_{tag}.jsonl",
                "schedule": lambda step: (scaling.lr_scale(step, steps, warmdown_frac=warmdown_frac, final=final_lr),
                                          scaling.muon_momentum(step, steps)),
                **{name: getattr(self, name) for name in ("save_every", "keep", "skip_nonfinite", "resume_anyway")}}


@dataclass
class TrainState:
    """What a resume needs beside weights and optimizer."""
    step: int = 0
    tokens: int = 0  # tokens seen, padding included
    train_s: float = 0.0  # in steps, over all sittings
    loss: float = 0.0  # smoothed, nats a supervised token
    best: float = math.inf  # lowest validation loss
    val: dict = field(default_factory=dict)
    skipped: int = 0  # steps that were not finite
    save_stall_s: float = 0.0  # for which saving kept the next step waiting

    def record(self, loss, tokens, seconds):
        """A NaN loss stands for a skipped step."""
        if math.isnan(loss):
            self.skipped += 1
        else:
            self.loss = loss if self.step == self.skipped else 0.9 * self.loss + 0.1 * loss
        self.step, self.tokens, self.train_s = self.step + 1, self.tokens + tokens, self.train_s + seconds


@dataclass
class Stage:
    """One training run as plain values. `batches(start_step)` yields (step, [Batch, ...]) from there on."""
    name: str
    folder: Path
    log_path: Path  # one JSON line a logged step
    steps: int
    batches: Callable  # closed when the run ends
    schedule: Callable  # step -> (learning-rate factor, Muon momentum)
    identity: dict  # what a resumed run must share with the saved one
    meta: dict  # saved beside it: model, tokenizer, config
    evaluate: Callable | None = None  # () -> {"val_...": float}; every rank calls it
    eval_every: int = 0  # 0: only at the end
    save_every: int = 0
    keep: int = 2  # and these: RunFlags
    skip_nonfinite: int = 0
    resume_anyway: bool = False
    compile: bool = False  # the loss, on CUDA; wants micro-batches of one shape
    extra: dict = field(default_factory=dict)  # what `batches` wants logged with the step


def make_optimizer(model, rt, matrix_lr=0.02, embedding_lr=0.3, unembedding_lr=0.004, weight_decay=0.0, scale=1.0):
    """Muon on the matrices, AdamW on embedding and head; `scale` is on all learning rates."""
    groups, adam = model.parameter_groups(), scale * scaling.adam_lr_scale(model.config.n_embd)
    return MuonAdamW([Group("adamw", groups["embedding"] + groups["table"], embedding_lr * adam),
                      Group("adamw", groups["unembedding"], unembedding_lr * adam),
                      Group("muon", groups["matrix"], matrix_lr * scale, weight_decay=weight_decay)], rt)


def loss_function(stage, model, optimizer, rt, batch):
    """model.loss, compiled where the stage wants it, for the shape of `batch`, which tries it out."""
    if not stage.compile or rt.device.type not in COMPILED_ON:
        return model.loss
    start, compiled, batch = time.monotonic(), torch.compile(model.loss, **COMPILE), batch.to(rt.device)
    try:
        compiled(batch.inputs, batch.targets, batch.weight).backward()
    except torch.OutOfMemoryError:
        raise
    except Exception as e:
        log.warning(f"this torch cannot compile the model ({type(e).__name__}: {' '.join(str(e).split())[:150]}); "
                    "going on uncompiled")
        return model.loss
    finally:
        optimizer.zero_grad()
    log.info(f"compiled in {time.monotonic() - start:.0f} s")
    return compiled


def _backward(loss_of, batch, scale):
    """The batch's share of the step's loss. The scale is in the weights: the loss has fp16 inside."""
    weight, count = (batch.weight * (scale.value / batch.count), 1) if scale else (batch.weight, batch.count)
    loss = loss_of(batch.inputs, batch.targets, weight) / count
    loss.backward()
    return loss.detach() / (scale.value if scale else 1)


def train_step(loss_of, optimizer, batches, rt, lr_scale, momentum, stop=False, may_skip=False):
    """One step over this rank's micro-batches: (global loss, gradient norm, any rank wants to stop). All must
    call.

    Where something is not finite nothing is applied: raises NanochatError, or with `may_skip` gives NaN for
    both. In fp16 a gradient alone first lowers the loss scale, with inf as norm.
    """
    total = torch.zeros(2, device=rt.device)
    total[1] = float(stop)
    for here in [batch.to(rt.device) for batch in batches]:  # a copy would wait for the work before it
        total[0] += _backward(loss_of, here, optimizer.scale)
    local = total[0].item()
    loss, stopped = runtime.all_reduce_sum(rt, total).tolist()
    norm = optimizer.reduce()
    if math.isfinite(loss) and math.isfinite(norm):
        optimizer.step(lr_scale, momentum)
        return loss, norm, stopped > 0
    optimizer.zero_grad()
    if math.isfinite(loss) and optimizer.scale and optimizer.scale.lower():
        optimizer.steps += 1
        return loss, math.inf, stopped > 0
    rows = [row for batch in batches for row in batch.rows] or ["none"]
    seen = runtime.all_gather_object(rt, f"rank {rt.rank}: loss {local}, rows {rows[0]}..{rows[-1]}")
    what = (f"step {optimizer.steps}: loss {loss} or gradient norm {norm} is not finite; nothing was applied. "
            f"{'; '.join(seen)}.")
    if not may_skip:
        raise NanochatError(f"{what} Lower the learning rate or look at these rows.")
    if rt.rank == 0:
        log.warning(f"skipping {what}")
    optimizer.steps += 1
    return math.nan, math.nan, stopped > 0


def save(stage, optimizer, state, rt, writer, val, wait):
    """Start (`wait`: and finish) a checkpoint. Every rank must call; all raise when this or the last write
    failed."""
    start = time.monotonic()
    weights = optimizer.masters(), optimizer.state()
    meta = {**stage.meta, "identity": stage.identity, "steps": stage.steps, "val": min(val.values(), default=None),
            "loss_scale": optimizer.scale and asdict(optimizer.scale),
            "state": {**asdict(state), "best": None if math.isinf(state.best) else state.best}}
    with runtime.rank_zero_first(rt):
        if rt.rank == 0:
            writer.save(stage.folder, state.step, *weights, meta, stage.keep)
            if wait:
                writer.wait()
    state.save_stall_s += time.monotonic() - start


def resume(stage, optimizer, rt):
    """The newest whole checkpoint's TrainState, or a new one."""
    found = checkpoint.newest_whole(stage.folder, with_optim=True)
    mine = {"checkpoint": found and found[2]["step"], **stage.identity}
    for rank, theirs in enumerate(runtime.all_gather_object(rt, mine)):
        if wrong := [f"{key}={theirs[key]}, not {mine[key]}" for key in mine if theirs[key] != mine[key]]:
            raise CheckpointError(f"rank {rank} has {wrong[0]}. Let all share one NANOCHAT_BASE_DIR.")
    if found is None:
        return TrainState()
    masters, optim_state, meta = found
    for key, here in stage.identity.items():
        there = meta["identity"].get(key, False)  # a flag younger than the checkpoint was off
        if there == json.loads(json.dumps(here)):
            continue
        differs = f"{stage.folder} holds a run with {key}={there}, this one has {key}={here}."
        if not stage.resume_anyway or key in ("model", "tokenizer"):
            raise CheckpointError(f"{differs} Use --fresh to start over, another --tag to keep both, or, unless it is the "
                                  "model or its tokenizer, --resume_anyway.")
        log.warning(f"{differs} Going on as asked.")
    state = TrainState(**meta["state"])
    if state.best is None:
        state.best = math.inf
    optimizer.load(masters, optim_state, state.step)
    if optimizer.scale and meta.get("loss_scale"):
        optimizer.scale = LossScale(**meta["loss_scale"])
    log.info(f"going on from step {state.step:,} of {stage.steps:,} in {stage.folder}")
    return state


@contextlib.contextmanager
def _graceful():
    """Ctrl-C and SIGTERM put a word into the list; a second Ctrl-C kills (torchrun repeats a scheduler's
    SIGTERM)."""
    asked = []

    def on_signal(number, frame):
        if asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked.append(signal.Signals(number).name)
    old = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _no_garbage_collection():
    """Its pauses differ between ranks; _evaluate collects."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


def _trim_log(path, step):
    """Drop lines of steps that will be made again, and broken ones."""
    kept = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else ():
        with contextlib.suppress(ValueError, TypeError, KeyError):
            if json.loads(line)["step"] <= step:
                kept.append(line)
    atomic_write(path, "".join(line + "\n" for line in kept))


def _evaluate(stage, model, state):
    model.eval()
    state.val = stage.evaluate()
    model.train()
    if not all(map(math.isfinite, state.val.values())):
        raise NanochatError(f"step {state.step}: the validation gives {state.val}. Lower the learning rate, or look at its "
                            "data.")
    state.best = min(state.best, *state.val.values())
    gc.collect()
    return state.val


def _made(loss, norm, state, scale):
    """Without a norm where fp16 could not hold it."""
    if math.isnan(loss):
        return {"skipped": state.skipped}
    return {"loss": round(loss, 5), **({"grad_norm": round(norm, 5)} if math.isfinite(norm) else {}),
            **({"loss_scale": scale.value} if scale else {})}


def _loop(stage, model, optimizer, rt, state, batches, progress, asked, writer):
    loss_of, start = None, time.monotonic()
    for step, micro in batches:
        if loss_of is None:
            begun = time.monotonic()
            loss_of = loss_function(stage, model, optimizer, rt, micro[0] if micro else None)
            start += time.monotonic() - begun  # compiling is no step's time
        factor, momentum = stage.schedule(step)
        loss, norm, stop = train_step(loss_of, optimizer, micro, rt, factor, momentum, bool(asked),
                                      state.skipped < stage.skip_nonfinite)
        seconds, tokens = time.monotonic() - start, sum(b.inputs.numel() for b in micro) * rt.world_size
        state.record(loss, tokens, seconds)
        last, val = state.step == stage.steps, {}
        if stage.evaluate and (last or (stage.eval_every and state.step % stage.eval_every == 0)):
            val = _evaluate(stage, model, state)
        if rt.rank == 0:
            append_jsonl(stage.log_path, {"step": state.step, **_made(loss, norm, state, optimizer.scale),
                                          "lr": round(factor, 5), "tok_per_s": round(tokens / seconds),
                                          "elapsed_s": round(state.train_s, 2), **val, **stage.extra})
        progress.update(1, loss=f"{state.loss:.3f}", lr=f"{factor:.2f}", **{"tok/s": f"{tokens / seconds:,.0f}"})
        if last or stop or (stage.save_every and state.step % stage.save_every == 0):
            save(stage, optimizer, state, rt, writer, val, wait=last or stop)
        if last:
            return
        if stop:
            raise Interrupted(f"{stage.name} is saved at step {state.step:,}. Run the same command to go on.")
        start = time.monotonic()


def run(stage, model, optimizer, rt):
    """Train from the newest checkpoint, or the model as given, to the last step; every rank must call.

    Returns (seconds of steps in earlier sittings, TrainState). Raises Interrupted, all saved, after Ctrl-C or
    SIGTERM.
    """
    if rt.rank == 0:
        checkpoint.sweep(stage.folder)
    runtime.barrier(rt)
    state = resume(stage, optimizer, rt)
    before_s, at_start = state.train_s, state.step
    if rt.rank == 0:
        _trim_log(stage.log_path, state.step)
    if at_start < stage.steps:
        with (contextlib.closing(Progress(stage.steps, stage.name, done=at_start)) as progress,
              contextlib.closing(stage.batches(at_start)) as batches, _no_garbage_collection(), _graceful() as asked,
              checkpoint.Writer() as writer):
            _loop(stage, model, optimizer, rt, state, batches, progress, asked, writer)
        log.info(f"{stage.name}: {state.step:,} steps, loss {state.loss:.3f}"
                 + "".join(f", {k} {v:.4f}" for k, v in state.val.items()) + f", {state.train_s:.0f} s")
    return before_s, state


def metrics(stage, model, state, rt):
    flops, rate = model.flops_per_token(), state.tokens / max(state.train_s, 1e-9)
    best = checkpoint.best_step(stage.folder)
    return {"params": model.num_params(), "tokens": state.tokens, "steps": state.step, "final_loss": state.loss, **state.val,
            **({} if best is None else {"best_step": best}), "skipped": state.skipped, "save_stall_s": state.save_stall_s,
            "tok_per_s": rate, "flops_per_token": flops, "total_flops": flops * state.tokens,
            "mfu": rate * flops / (rt.peak_flops * rt.world_size) if rt.peak_flops else None,
            "train_s": state.train_s, "log": f"logs/{stage.log_path.name}", "model": asdict(model.config)}


def run_locked(stage, model, optimizer, rt, config, result, more=dict):
    """Train behind the folder's lock; metrics and `more()` go to report/results/<result>.json."""
    with run_lock(stage.folder.parent / f".{stage.folder.name}.lock") if rt.rank == 0 else contextlib.nullcontext():
        if config.fresh and rt.rank == 0:
            shutil.rmtree(stage.folder, ignore_errors=True)
        runtime.barrier(rt)
        with runtime.watched(rt):
            before, state = run(stage, model, optimizer, rt)
        if rt.rank == 0:
            save_result(result, metrics={**metrics(stage, model, state, rt), **more()}, config=asdict(config),
                        device=str(rt), wall_s=before + time.monotonic() - rt.started)  # before: the steps alone
            log.info(f"the model is in {stage.folder / f'{state.step:06d}'}")
    runtime.close(rt)
