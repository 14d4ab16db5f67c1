"""
The loop: every kind of training is a Stage run by `run`.

A step adds up the gradients of its micro-batches, sums them over the ranks, checks that they are finite, and
updates. Its loss is the weighted sum over all tokens of the step divided by their *global* count. So any
split of a batch over ranks and micro-batches gives the same gradient; a mean of each micro-batch's mean would
give a token more weight the fewer others stand beside it, which differs between splits wherever targets are
masked.

The loop does not know what it trains: data, loss and schedule come with the Stage (recipe.py), what lets a
run go on after a stop is in resume.py, files are in checkpoint.py.
"""
import contextlib
import gc
import math
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from functools import partial

import torch

from nanochat import memory, runtime, scaling
from nanochat.common import Interrupted, NanochatError, append_jsonl, log, run_lock, save_result
from nanochat.data.dataloader import Batch
from nanochat.model.gpt import GPT
from nanochat.model.optim import Group, LossScale, MuonAdamW
from nanochat.runtime import Runtime
from nanochat.terminal import Progress
from nanochat.train import checkpoint, speech, tracking
from nanochat.train.recipe import Stage
from nanochat.train.resume import TrainState, resume, save, save_validation, trim_log

SKIPS_LR = 0.005
SKIPS_EPS = 1e-6  # at first the stream's length changes nothing: that gradient is rounding alone
COMPILED_ON = ("cuda",)  # a CPU gains too little
COMPILE = {"fullgraph": True, "dynamic": False}


# ---- one step
def make_optimizer(model: GPT, rt: Runtime, matrix_lr: float = 0.02, embedding_lr: float = 0.3,
                   unembedding_lr: float = 0.004, weight_decay: float = 0.0, scale: float = 1.0,
                   batch_tokens: int = 0) -> MuonAdamW:
    """Muon on the matrices, AdamW on embeddings, head and skips.

    `scale` is on all learning rates; batch_tokens are those of a step over all devices (0: many).
    """
    groups = model.parameter_groups()
    adam_scale = scale * scaling.adam_lr_scale(model.config.n_embd)
    betas = scaling.adam_betas(model.config.n_layer, batch_tokens)
    with memory.must_fit(model.config, rt):
        return MuonAdamW([
            Group("adamw", groups["embedding"] + groups["table"], embedding_lr * adam_scale, betas),
            Group("adamw", groups["unembedding"], unembedding_lr * adam_scale, betas),
            Group("adamw", groups["skips"], SKIPS_LR * scale, betas, eps=SKIPS_EPS),
            Group("muon", groups["matrix"], matrix_lr * scale, weight_decay=weight_decay),
        ], rt)


def loss_function(stage: Stage, model: GPT, optimizer: MuonAdamW, rt: Runtime,
                  batch: Batch | None) -> Callable[[Batch], torch.Tensor]:
    """batch -> stage.loss(model, batch), compiled where the stage wants it, for the shape of `batch`.

    That one also tries the compiler out; it leaves no gradient behind. What is not compiled is a partial.
    """
    loss_of = partial(stage.loss, model)
    if not stage.compile or rt.device.type not in COMPILED_ON:
        return loss_of
    assert batch is not None, "nothing to try the compiler out on"
    start = time.monotonic()
    compiled = torch.compile(loss_of, **COMPILE)
    try:
        compiled(batch.to(rt.device)).backward()
    except Exception as error:
        if memory.ran_out(error):
            return compiled  # the step finds out, on all ranks
        reason = " ".join(str(error).split())[:150]
        log.warning(f"this torch cannot compile the model ({type(error).__name__}: {reason}); "
                    "going on uncompiled")
        return loss_of
    finally:
        optimizer.zero_grad()
    log.info(f"compiled in {time.monotonic() - start:.0f} s")
    return compiled


def _backward(loss_of, batch, scale):
    """Add the gradient of the batch's share of the step's loss; returns that share."""
    if scale is None:
        loss = loss_of(batch) / batch.count
        loss.backward()
        return loss.detach()
    # The loss scale must be in the weights: the loss makes its gradients in fp16 itself, where a factor that
    # comes only from outside would find them rounded to zero.
    scaled = replace(batch, weight=batch.weight * (scale.value / batch.count))
    loss = loss_of(scaled)
    loss.backward()
    return loss.detach() / scale.value


def train_step(loss_of: Callable[[Batch], torch.Tensor], optimizer: MuonAdamW, batches: list[Batch],
               rt: Runtime, lr_scale: float, momentum: float,
               wishes: Sequence[bool] = ()) -> tuple[float, float, list[float]]:
    """One step over this rank's micro-batches: (global loss, gradient norm, how many ranks have each wish).
    All must call.

    All raise RanOut where one rank's memory runs out. Where something is not finite nothing is applied,
    either: raises NanochatError. In fp16 a gradient alone first lowers the loss scale, with inf as norm.
    """
    said = torch.tensor([0.0, 0.0, *map(float, wishes)], device=rt.device)  # one message for all
    try:
        on_device = [batch.to(rt.device) for batch in batches]  # all first: a copy waits for the work before
        for batch in on_device:
            said[0] += _backward(loss_of, batch, optimizer.scale)
    except (RuntimeError, MemoryError) as error:
        if not memory.ran_out(error):
            raise
        said[1] = 1
    local_loss = said[0].item()
    loss, ranks_out, *wished = runtime.all_reduce_sum(rt, said).tolist()
    if ranks_out:
        optimizer.zero_grad()
        raise memory.RanOut("memory ran out in a step")
    norm = optimizer.reduce()

    if math.isfinite(loss) and math.isfinite(norm):
        optimizer.step(lr_scale, momentum)
        return loss, norm, wished

    optimizer.zero_grad()
    if math.isfinite(loss) and optimizer.scale is not None and optimizer.scale.lower():
        optimizer.steps += 1
        return loss, math.inf, wished
    raise NanochatError(f"step {optimizer.steps}: loss {loss} or gradient norm {norm} is not finite; nothing "
                        f"was applied. {_seen_by_all(batches, rt, local_loss)}. Lower the learning rate or "
                        "look at these rows.")


def _seen_by_all(batches, rt, local_loss):
    """What loss each rank saw in which rows, in words."""
    rows = []
    for batch in batches:
        rows += batch.rows
    seen = f"rows {rows[0]}..{rows[-1]}" if rows else "rows none..none"
    return "; ".join(runtime.all_gather_object(rt, f"rank {rt.rank}: loss {local_loss}, {seen}"))


# ---- all steps
@dataclass
class _Sitting:
    """What the steps of one process share."""

    stage: Stage
    model: GPT
    optimizer: MuonAdamW
    rt: Runtime
    state: TrainState
    writer: checkpoint.Writer
    progress: Progress
    asked: list[str]  # signals that ask to stop
    saved_at: float = field(default_factory=time.monotonic)  # or the sitting's beginning

    def steps(self, most):
        """Train to the last step, `most` rows at a time at most. Raises Interrupted when asked to stop."""
        stage = self.stage
        loss_of = None
        rows = scaling.equal_part(stage.rows, most)
        save_s = 60 * stage.flags.save_minutes or math.inf
        with contextlib.closing(stage.batches(self.state.step, rows)) as batches:
            start = time.monotonic()  # of a step: reading its batches is part of it
            for step, micro_batches in batches:
                if loss_of is None:
                    first = micro_batches[0] if micro_batches else None
                    begun = time.monotonic()
                    loss_of = loss_function(stage, self.model, self.optimizer, self.rt, first)
                    start += time.monotonic() - begun  # compiling is no step's time
                lr_factor, momentum = stage.schedule(step)
                wishes = (bool(self.asked), time.monotonic() - self.saved_at > save_s)
                loss, norm, (stop, save_now) = train_step(loss_of, self.optimizer, micro_batches, self.rt,
                                                          lr_factor, momentum, wishes)
                seconds = time.monotonic() - start
                # As if all ranks had as many: so for packed rows, about so for rollouts.
                tokens = sum(batch.inputs.numel() for batch in micro_batches) * self.rt.world_size
                self.state.record(loss, tokens, seconds)
                self.log_step(loss, norm, lr_factor, tokens / seconds)
                self.keep(stop, save_now)
                self.speak()
                if self.state.step == stage.steps:
                    return
                if stop:
                    raise Interrupted(f"{stage.name} is saved at step {self.state.step:,}. Run the same "
                                      "command to go on.")
                start = time.monotonic()

    def keep(self, stop, save_now):
        """Save and validate where this step is one for it; `stop` and `save_now` are all ranks' wishes."""
        stage = self.stage
        state = self.state
        done = stop or state.step == stage.steps
        save_every = stage.flags.steps_between_saves(self.rt)
        due = save_now or (save_every > 0 and state.step % save_every == 0)
        validating = _validates_at(stage, state.step)
        if validating:
            state.val = {}  # saved so: whoever resumes here validates first
            # A validation that fails shall cost no steps; where save_minutes alone decides, it may.
            due = due or save_every > 0 or not stage.flags.save_minutes
        if done or due:
            save(stage, self.optimizer, state, self.rt, self.writer, wait=done)
            self.saved_at = time.monotonic()
        if validating:
            self.validate()

    def validate(self):
        """The stage's validation, into log and checkpoint. Raises NanochatError where it is not finite."""
        state = self.state
        self.model.eval()
        state.val = self.stage.evaluate()
        self.model.train()
        if not all(math.isfinite(value) for value in state.val.values()):
            raise NanochatError(f"step {state.step}: the validation gives {state.val}. Lower the learning "
                                "rate, or look at its data.")
        state.best = min(state.best, *state.val.values())
        if self.rt.rank == 0:
            append_jsonl(self.stage.log_path, {"step": state.step, **state.val})
            self.stage.track({"step": state.step, **state.val})
        save_validation(self.stage, state, self.rt, self.writer)
        gc.collect()

    def speak(self):
        """At a few steps rank 0 asks the model the stage's prompts; the others wait for it in their next
        sum."""
        stage = self.stage
        state = self.state
        if not stage.prompts or self.rt.rank > 0 or state.step not in speech.speaking_steps(stage.steps):
            return
        said = speech.answers(self.model, stage.tokenizer, stage.prompts, stage.chats)
        append_jsonl(stage.log_path, {"step": state.step, "answers": said, **stage.told,
                                      "memory_gib": round(runtime.peak_memory_gib(self.rt), 3)})

    def log_step(self, loss, norm, lr_factor, tok_per_s):
        record = {"step": self.state.step, **_outcome(loss, norm, self.optimizer.scale)}
        record["lr"] = round(lr_factor, 5)  # of its peak
        record["tok_per_s"] = round(tok_per_s)
        record["elapsed_s"] = round(self.state.train_s, 2)
        if self.rt.rank == 0:
            append_jsonl(self.stage.log_path, {**record, "of": self.stage.steps, **self.stage.extra})
            self.stage.track({**record, **self.stage.extra})
        shown = {"loss": f"{self.state.loss:.3f}", "lr": f"{lr_factor:.2f}", "tok/s": f"{tok_per_s:,.0f}"}
        self.progress.update(1, **shown)


def _validates_at(stage, step):
    """Whether there is a validation after this step."""
    regular = stage.eval_every > 0 and step % stage.eval_every == 0
    return stage.evaluate is not None and (regular or step == stage.steps)


def _outcome(loss: float, norm: float, scale: LossScale | None) -> dict:
    """A step's part of the log: without a norm where fp16 could not hold it."""
    found = {"loss": round(loss, 5)}
    if math.isfinite(norm):
        found["grad_norm"] = round(norm, 5)
    if scale:
        found["loss_scale"] = scale.value
    return found


@contextlib.contextmanager
def _graceful():
    """A list into which Ctrl-C and SIGTERM put their names; a second Ctrl-C kills (torchrun repeats a
    scheduler's SIGTERM).
    """
    asked = []

    def on_signal(number, frame):
        if asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked.append(signal.Signals(number).name)

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _no_garbage_collection():
    """Its pauses come at other times on other ranks, and all wait for the slowest; a validation collects
    instead.
    """
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


def run(stage: Stage, model: GPT, optimizer: MuonAdamW, rt: Runtime) -> tuple[float, TrainState]:
    """Train from the newest checkpoint, or the model as given, to the last step; every rank must call.

    Returns (seconds of steps in earlier sittings, TrainState). Raises Interrupted, all saved, after Ctrl-C or
    SIGTERM.
    """
    if rt.rank == 0:
        checkpoint.sweep(stage.folder)
    runtime.barrier(rt)
    state = resume(stage, optimizer, rt)
    before_s = state.train_s
    if rt.rank == 0:
        trim_log(stage.log_path, state.step)
    validation_missing = state.step > 0 and _validates_at(stage, state.step) and not state.val
    if state.step >= stage.steps and not validation_missing:
        return before_s, state

    with contextlib.ExitStack() as stack:
        progress = stack.enter_context(contextlib.closing(Progress(stage.steps, stage.name, done=state.step)))
        stack.enter_context(memory.must_fit(model.config, rt))
        stack.enter_context(_no_garbage_collection())
        asked = stack.enter_context(_graceful())
        writer = stack.enter_context(checkpoint.Writer())
        sitting = _Sitting(stage, model, optimizer, rt, state, writer, progress, asked)
        if validation_missing:
            sitting.validate()
        if state.step < stage.steps:
            # sitting.steps(rows); where memory runs out, again from state.step on with half the rows
            memory.fitted(model, "rows", stage.rows, sitting.steps, training=True)
    validated = "".join(f", {name} {value:.4f}" for name, value in state.val.items())
    log.info(f"{stage.name}: {state.step:,} steps, loss {state.loss:.3f}{validated}, {state.train_s:.0f} s")
    return before_s, state


# ---- a whole run, with its lock and its result
def metrics(stage: Stage, model: GPT, state: TrainState, rt: Runtime) -> dict:
    """What the report wants to know of a run that is done."""
    flops = model.flops_per_token()
    rate = state.tokens / max(state.train_s, 1e-9)  # tokens a second
    found = {
        "params": model.num_params(), "tokens": state.tokens, "steps": state.step, "final_loss": state.loss,
        **state.val, "save_stall_s": state.save_stall_s, "tok_per_s": rate,
        "flops_per_token": flops, "total_flops": flops * state.tokens,
        # Model FLOPs utilization: the share of what the hardware could do at best (PaLM, arXiv 2204.02311).
        "mfu": rate * flops / (rt.peak_flops * rt.world_size) if rt.peak_flops else None,
        "train_s": state.train_s, "log": f"logs/{stage.log_path.name}", "model": asdict(model.config),
    }
    best = checkpoint.best_step(stage.folder)
    if best is not None:
        found["best_step"] = best
    return found


def run_locked(stage: Stage, model: GPT, optimizer: MuonAdamW, rt: Runtime,
               more: Callable[[], dict] = dict) -> None:
    """Train behind the folder's lock, save the stage's result with `more()`. Ends the group of ranks."""
    flags = stage.flags
    lock: AbstractContextManager = contextlib.nullcontext()
    if rt.rank == 0:
        lock = run_lock(stage.folder.parent / f".{stage.folder.name}.lock")
    with lock:
        if flags.fresh and rt.rank == 0 and stage.folder.exists():
            log.info(f"starting over: deleting {stage.folder}")
            shutil.rmtree(stage.folder)
        runtime.barrier(rt)
        tracker = flags.track if rt.rank == 0 else ""
        model.recompute = flags.recompute
        with (runtime.watched(rt),
              tracking.tracked(tracker, stage.log_path.stem, stage.meta["config"]) as stage.track):
            before_s, state = run(stage, model, optimizer, rt)
        if rt.rank == 0:
            wall_s = before_s + time.monotonic() - rt.started  # of earlier sittings, the steps alone
            save_result(stage.result, metrics={**metrics(stage, model, state, rt), **more()},
                        config=stage.meta["config"], device=stage.meta.get("device", str(rt)), wall_s=wall_s,
                        notes=state.notes)
            log.info(f"the model is in {checkpoint.step_dir(stage.folder, state.step)}")
    runtime.close(rt)
