"""
The loop. Every kind of training in this project is a Stage run by `run`; where batches depend on the model as it stands,
the stage's iterator of batches samples them when they are asked for.

A step accumulates gradients over micro-batches, sums them over the ranks, checks that they are finite, and updates. The
loss of a step is the weighted sum over all its tokens divided by their global count, so that any split of a batch over
ranks and micro-batches gives the same gradient. State is saved whole, so a resumed run continues as if it had never
stopped; a resume with other settings is refused with the two values.
"""
import contextlib
import gc
import json
import math
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from nanochat import checkpoint, runtime, scaling
from nanochat.common import (CheckpointError, Interrupted, NanochatError, Progress, append_jsonl, atomic_write, log,
                             run_lock, save_result)
from nanochat.optim import Group, MuonAdamW


@dataclass
class TrainState:
    """All that a resume needs beyond the weights and the optimizer."""

    step: int = 0                # optimizer steps done
    tokens: int = 0              # tokens seen, padding included
    train_s: float = 0.0         # seconds spent in steps, over all sittings
    loss: float = 0.0            # smoothed training loss, nats a supervised token
    best: float = math.inf       # lowest validation loss so far
    val: dict = field(default_factory=dict)

    def record(self, loss, tokens, seconds):
        """Count one step."""
        self.loss = loss if self.step == 0 else 0.9 * self.loss + 0.1 * loss
        self.step, self.tokens, self.train_s = self.step + 1, self.tokens + tokens, self.train_s + seconds


@dataclass
class Stage:
    """One training run as plain values. `batches(start_step)` iterates (step, [Batch, ...]) from there on."""

    name: str
    folder: Path                                   # checkpoints go here
    log_path: Path                                 # one JSON line a logged step
    steps: int
    batches: Callable
    schedule: Callable                             # step -> (learning-rate factor, Muon momentum)
    identity: dict                                 # what a resumed run must have in common with the saved one
    meta: dict                                     # saved beside it: model, tokenizer, config
    evaluate: Callable | None = None               # () -> {"val_...": float}; every rank calls it
    eval_every: int = 0                            # 0: only at the end
    save_every: int = 0                            # 0: only at the end
    extra: dict = field(default_factory=dict)      # what `batches` wants logged with the step


def make_optimizer(model, rt, matrix_lr=0.02, embedding_lr=0.3, unembedding_lr=0.004, weight_decay=0.0, scale=1.0):
    """Muon on the matrices, AdamW on embedding and head; `scale` multiplies all learning rates."""
    groups, adam = model.parameter_groups(), scale * scaling.adam_lr_scale(model.config.n_embd)
    return MuonAdamW([Group("adamw", groups["embedding"], embedding_lr * adam),
                      Group("adamw", groups["unembedding"], unembedding_lr * adam),
                      Group("muon", groups["matrix"], matrix_lr * scale, weight_decay=weight_decay)], rt)


def train_step(model, optimizer, batches, rt, lr_scale, momentum, stop=False):
    """One optimizer step over this rank's micro-batches. Returns (global loss, gradient norm, any rank wants to stop).

    Raises NanochatError, with nothing applied, when the loss or a gradient is not finite. Every rank must call.
    """
    total = torch.zeros(2, dtype=torch.float64, device=rt.device)
    total[1] = float(stop)
    for batch in batches:
        inputs, targets, weight = (x.to(rt.device, non_blocking=True)
                                   for x in (batch.inputs, batch.targets, batch.weight))
        loss = model.loss(inputs, targets, weight) / batch.count
        loss.backward()
        total[0] += loss.detach()
    local = total[0].item()
    loss, stopped = runtime.all_reduce_sum(rt, total).tolist()
    norm = optimizer.reduce()
    if not (math.isfinite(loss) and math.isfinite(norm)):
        optimizer.zero_grad()
        rows = [row for batch in batches for row in batch.rows]
        seen = runtime.all_gather_object(rt, f"rank {rt.rank}: loss {local}, rows {rows[0]}..{rows[-1]}")
        raise NanochatError(f"step {optimizer.steps}: loss {loss} or gradient norm {norm} is not finite; nothing was "
                            f"applied. {'; '.join(seen)}. Lower the learning rate or look at these rows.")
    optimizer.step(lr_scale, momentum)
    return loss, norm, stopped > 0


def save(stage, optimizer, state, rt):
    """Write a checkpoint of the whole state; every rank must call, rank 0 writes."""
    masters, optim_state = optimizer.masters(), optimizer.state()
    if rt.rank == 0:
        meta = {**stage.meta, "identity": stage.identity, "steps": stage.steps,
                "state": {**asdict(state), "best": None if math.isinf(state.best) else state.best}}
        checkpoint.save(stage.folder, state.step, masters, optim_state, meta)
    runtime.barrier(rt)


def resume(stage, optimizer, rt):
    """The TrainState to go on from: of the newest whole checkpoint in stage.folder, or a new one."""
    found = checkpoint.newest_whole(stage.folder, with_optim=True)
    if found is None:
        return TrainState()
    masters, optim_state, meta = found
    for key, here in stage.identity.items():
        there = meta["identity"].get(key)
        if there != json.loads(json.dumps(here)):
            raise CheckpointError(f"{stage.folder} holds a run with {key}={there}, this one has {key}={here}. Use --fresh "
                                  f"to start over, or another --tag to keep both.")
    saved = meta["state"]
    state = TrainState(**{**saved, "best": math.inf if saved["best"] is None else saved["best"]})
    optimizer.load(masters, optim_state, state.step)
    log.info(f"going on from step {state.step:,} of {stage.steps:,} in {stage.folder}")
    return state


@contextlib.contextmanager
def _graceful(asked):
    """Ctrl-C and SIGTERM put a word into the list `asked` instead of killing the step; a second Ctrl-C does kill."""
    def on_signal(number, frame):
        if asked:
            raise KeyboardInterrupt
        asked.append(signal.Signals(number).name)
    old = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def _trim_log(path, step):
    """Drop the log lines of steps that will be made again."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    kept = [line for line in lines if json.loads(line)["step"] <= step]
    atomic_write(path, "".join(line + "\n" for line in kept))


def _evaluate(stage, model, state):
    model.eval()
    state.val = stage.evaluate()
    model.train()
    state.best = min(state.best, *state.val.values())
    gc.collect()
    return state.val


def run(stage, model, optimizer, rt):
    """Train `stage` from its newest checkpoint, or from the model as given, to its last step. Every rank must call.

    Returns (seconds of steps in earlier sittings, TrainState). Raises Interrupted, with everything saved, after Ctrl-C or SIGTERM.
    """
    state = resume(stage, optimizer, rt)
    before_s = state.train_s
    if rt.rank == 0:
        _trim_log(stage.log_path, state.step)
    progress, asked, at_start = Progress(stage.steps, stage.name, done=state.step), [], state.step
    batches = stage.batches(state.step)
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        with _graceful(asked):
            start = time.monotonic()
            for step, micro in batches if state.step < stage.steps else ():
                factor, momentum = stage.schedule(step)
                loss, norm, stop = train_step(model, optimizer, micro, rt, factor, momentum, bool(asked))
                seconds, tokens = time.monotonic() - start, sum(b.inputs.numel() for b in micro) * rt.world_size
                state.record(loss, tokens, seconds)
                last, val = state.step == stage.steps, {}
                if stage.evaluate and (last or (stage.eval_every and state.step % stage.eval_every == 0)):
                    val = _evaluate(stage, model, state)
                if rt.rank == 0:
                    append_jsonl(stage.log_path, {
                        "step": state.step, "loss": round(loss, 5), "grad_norm": round(norm, 5), "lr": round(factor, 5),
                        "tok_per_s": round(tokens / seconds), "elapsed_s": round(state.train_s, 2), **val, **stage.extra})
                progress.update(1, loss=f"{state.loss:.3f}", lr=f"{factor:.2f}", **{"tok/s": f"{tokens / seconds:,.0f}"})
                if last or stop or (stage.save_every and state.step % stage.save_every == 0):
                    save(stage, optimizer, state, rt)
                if last:
                    break
                if stop:
                    raise Interrupted(f"{stage.name} is saved at step {state.step:,}. Run the same command to go on.")
                start = time.monotonic()
    finally:
        gc.enable()
        gc.unfreeze()
        getattr(batches, "close", lambda: None)()
        progress.close()
    if state.step > at_start:
        log.info(f"{stage.name}: {state.step:,} steps, loss {state.loss:.3f}"
                 + "".join(f", {k} {v:.4f}" for k, v in state.val.items()) + f", {state.train_s:.0f} s")
    return before_s, state


def metrics(stage, model, state, rt) -> dict:
    """What a finished stage puts into its result file."""
    flops = model.flops_per_token()
    rate = state.tokens / max(state.train_s, 1e-9)
    mfu = rate * flops / (rt.peak_flops * rt.world_size) if rt.peak_flops else None
    return {"params": model.num_params(), "tokens": state.tokens, "steps": state.step, "final_loss": state.loss, **state.val,
            "tok_per_s": rate, "flops_per_token": flops, "total_flops": flops * state.tokens, "mfu": mfu,
            "train_s": state.train_s, "log": f"logs/{stage.log_path.name}", "model": asdict(model.config)}


def run_locked(stage, model, optimizer, rt, config, result, more=dict):
    """What a script does with its stage: lock the folder, honour --fresh, train, write report/results/<result>.json.

    `more()` is called after the training for metrics of the script's own.
    """
    with run_lock(stage.folder.parent / f".{stage.folder.name}.lock") if rt.rank == 0 else contextlib.nullcontext():
        if config.fresh and rt.rank == 0:
            shutil.rmtree(stage.folder, ignore_errors=True)
        runtime.barrier(rt)
        before, state = run(stage, model, optimizer, rt)
        if rt.rank == 0:
            wall_s = before + time.monotonic() - rt.started      # earlier sittings count with their steps alone
            save_result(result, metrics={**metrics(stage, model, state, rt), **more()}, config=asdict(config),
                        device=str(rt), wall_s=wall_s)
            log.info(f"the model is in {stage.folder / f'{state.step:06d}'}")
    runtime.close(rt)
