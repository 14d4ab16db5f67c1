"""
What one training run is made of, as plain values: its flags, and the Stage that the loop runs.

A script resolves its flags into a Stage and hands it to loop.run_locked. All in which one kind of training
differs from another is a field of it: the batches, the loss, the schedule, the validation. The loop reads
nothing else.
"""
from collections.abc import Callable, Generator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch

from nanochat import scaling
from nanochat.cli import at_least, option
from nanochat.common import UsageError, base_dir
from nanochat.data.dataloader import Batch
from nanochat.data.tokenizer import Tokenizer
from nanochat.model.gpt import GPT, GPTConfig
from nanochat.runtime import Runtime
from nanochat.train import tracking
from nanochat.train.checkpoint import stage_dir
from nanochat.train.stages import StageRow

# A flag of a training script is part of its run's identity unless it stands in one of these tables: what is
# forgotten here is refused once too often, not mixed in unnoticed. First, flags that leave the weights as
# they are but for rounding: where a run computes, how much at a time, when it looks, how its files are kept.
INDIFFERENT = frozenset({
    "device", "device_batch_size", "recompute", "compile", "eval_every", "eval_tokens", "save_every",
    "save_minutes", "keep", "replace", "fresh", "dry_run", "tag", "track",
})
# Then those that count by what they come to, under this key of the identity: --num_iterations=0 and the
# number that follows from the depth are one run.
RESOLVED = {
    "depth": "model", "sequence_len": "model", "key_offset": "model", "value_offset": "model",
    "value_tables": "model", "embedding_skips": "model",
    "num_iterations": "steps", "epochs": "steps", "param_data_ratio": "steps",
    "total_batch_size": "batch_tokens", "conversations": "rows", "source": "source", "source_tag": "source",
    "name": "name", "made_by": "made_by",
}


def weighted_cross_entropy(model: GPT, batch: Batch) -> torch.Tensor:
    """The sum of weight * -log p(target): a float32 scalar.

    One loss for several kinds of training, by weight: 1 for all text, the mask of what the assistant says, or
    the advantage of a sampled answer, with which its gradient is REINFORCE's.
    """
    return model.loss(batch.inputs, batch.targets, batch.weight)


def architecture(depth: int, vocab_size: int, sequence_len: int, key_offset: float = 0.5,
                 value_offset: float = 0.5, value_tables: bool = True, embedding_skips: bool = True
                 ) -> GPTConfig:
    """What pretraining makes of a depth by default; GPTConfig's own defaults are a plain Transformer."""
    return GPTConfig(sequence_len, vocab_size, key_offset=key_offset, value_offset=value_offset,
                     value_tables=value_tables, embedding_skips=embedding_skips,
                     **asdict(scaling.model_shape(depth)))


@dataclass
class Stage:
    """One training run as plain values.

    loss(model, batch) is a float32 scalar: a sum over the batch that is linear in batch.weight. The loop
    divides by batch.count, which is the same on all ranks, and in fp16 puts the loss scale into the weight.
    """

    name: str
    folder: Path
    log_path: Path  # a JSON line for each step, and one for each validation
    steps: int
    # batches(first step, rows at a time) yields (step, this rank's micro-batches), step after step; closed at
    # the run's end.
    batches: Callable[[int, int], Generator[tuple[int, list[Batch]], None, None]]
    schedule: Callable[[int], tuple[float, float]]  # step -> (learning-rate factor, Muon momentum)
    identity: dict  # what a resumed run must share with the saved one
    meta: dict  # saved beside it: model, hash of the tokenizer, config
    flags: "RunFlags"
    result: str = ""  # the name under report/results
    rows: int = 1  # of a device at a time, or fewer where memory runs out: a part that divides it
    tokenizer: Tokenizer | None = None  # saved beside it, so that a checkpoint alone is a model
    loss: Callable[[GPT, Batch], torch.Tensor] = weighted_cross_entropy
    evaluate: Callable[[], dict[str, float]] | None = None  # -> {"val_...": loss}; every rank calls it
    eval_every: int = 0  # 0: only at the end
    compile: bool = False  # the loss, on CUDA; wants micro-batches of one shape
    extra: dict = field(default_factory=dict)  # numbers that `batches` wants logged with the step
    prompts: tuple[str, ...] = ()  # what the model is asked now and then, its answers into the log
    chats: bool = True  # whether these are questions of a chat, or beginnings of texts
    told: dict = field(default_factory=dict)  # what `batches` wants logged with the answers
    track: Callable[[dict], None] = lambda record: None  # gets the log's numbers, too


@dataclass
class RunFlags:
    """Flags that every kind of training has."""

    save_every: int | None = option(None, "steps between checkpoints, and one before each validation "
                                          "(default: 100 on a CPU; 0: as save_minutes says)")
    save_minutes: float = option(10.0, "minutes between checkpoints, written while training goes on (0: by "
                                      "steps alone)")
    keep: int = option(2, "newest checkpoints that stay, besides the one that validated best (0: all)")
    replace: bool = option(False, "start over as with --fresh, but only if flags or data differ from the "
                                  "checkpoint's")
    recompute: bool = option(False, "compute activations twice, to keep fewer (comes on where not one row "
                                    "fits)")
    tag: str = option("", "name of the run's folder (default: as its source, else d<depth>)")
    device: str = option("", "cuda, mps, xpu or cpu (default: the best there is)")
    track: str = option("", "send the log to a tracker, too", choices=tracking.TRACKERS)
    fresh: bool = option(False, "start over, deleting this tag's checkpoints")
    dry_run: bool = option(False, "print what would be run, and stop")

    def __post_init__(self):
        numbers = [flag.name for flag in fields(self) if flag.type in (int, float) and flag.name != "seed"]
        at_least(self, **dict.fromkeys(numbers, 0))
        tracking.require(self.track)
        if self.save_every is not None:
            at_least(self, save_every=0)
        if "/" in self.tag or self.tag in (".", ".."):  # --fresh deletes it
            raise UsageError(f"--tag wants one folder's name, got {self.tag}.")

    def steps_between_saves(self, rt: Runtime) -> int:
        """--save_every, or what it is by default; 0: none by steps."""
        if self.save_every is not None:
            return self.save_every
        return 100 if rt.device.type == "cpu" else 0

    def make_stage(self, row: StageRow, tag: str, rt: Runtime, steps: int, warmdown_frac: float,
                   identity: dict, meta: dict, final_lr: float = 0.0, **parts: Any) -> Stage:
        """The Stage of a run: places, schedule and flags from here, its `parts` (batches, evaluate, ...) as
        given. `identity` adds to the flags what they come to, and the data.

        warmdown_frac is the last share of the steps, over which learning rates fall to final_lr of their
        peak. A high rate goes far and stays noisy; as it falls the weights settle. Decaying late, and to the
        end, lets one run be stopped at any horizon (arXiv 2405.18392). Muon's momentum rises: an average over
        few gradients follows the fast turns of the beginning, one over many smooths the noise of later.
        """
        def schedule(step):
            lr_factor = scaling.lr_scale(step, steps, warmdown_frac=warmdown_frac, final=final_lr)
            return lr_factor, scaling.muon_momentum(step, steps)

        config = asdict(self)
        whole = {"steps": steps, **identity}
        for flag, value in config.items():
            if flag in RESOLVED:
                assert RESOLVED[flag] in whole, f"--{flag} decides, and the identity has no {RESOLVED[flag]}"
            elif flag not in INDIFFERENT:
                whole.setdefault(flag, value)
        return Stage(name=row.title.lower(), folder=stage_dir(row.name) / tag, identity=whole,
                     meta={**meta, "config": config}, flags=self, result=row.script,
                     log_path=base_dir() / "logs" / f"{row.name}_{tag}.jsonl", steps=steps, schedule=schedule,
                     prompts=row.prompts, chats=row.chats, **parts)


@dataclass
class RowsFlags(RunFlags):
    """Flags of training on packed rows, of text or of conversations."""

    device_batch_size: int = option(0, "rows a device takes at a time, fewer where memory runs out (0: 32, "
                                       "on a CPU fewer)")
    compile: bool = option(True, "compile the model on CUDA: a minute at the start")

    def rows_of(self, batch_tokens: int, sequence_len: int, rt: Runtime) -> tuple[int, int]:
        """(rows of a step over all ranks, rows that a device takes at a time). Raises UsageError."""
        if batch_tokens % sequence_len:
            raise UsageError(f"--total_batch_size={batch_tokens} must be a multiple of the context, "
                             f"{sequence_len} tokens.")
        rows = batch_tokens // sequence_len
        # A step's rows are shared by the ranks, and what a rank cannot hold at once it takes in turns
        # (gradient accumulation): memory bounds the micro-batch, never the batch.
        return rows, scaling.rows_at_a_time(rt.device.type, sequence_len, rows // rt.world_size,
                                            self.device_batch_size)
