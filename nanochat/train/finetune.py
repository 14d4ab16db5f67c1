"""
Training on conversations: the one assembly behind midtraining and supervised finetuning.

Conversations are packed whole into rows of the model's context, several to a row, each from a bos of its own,
so that little of a batch is padding. Attention is not cut between them: what stands before a bos is of no use
to the model, and it learns to pass over it. The loss is on what the assistant itself says. On the user's
words it would learn to ask instead of answer, on a tool's output to make results up.
"""
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from nanochat import runtime, scaling
from nanochat.cli import option
from nanochat.common import DataError, UsageError, log, setup_logging
from nanochat.data.dataloader import ChatRows, StepBatches
from nanochat.data.tokenizer import Tokenizer
from nanochat.eval.bits_per_byte import sum_over_rows
from nanochat.kindergarten import train_conversations
from nanochat.model.attention import pick_fastest
from nanochat.model.gpt import GPT
from nanochat.model.optim import MuonAdamW
from nanochat.runtime import Runtime
from nanochat.tasks import GENERATED, GENERATED_CONVERSATIONS, factors, mixture, training_conversations
from nanochat.tasks.persona import USUAL, Persona
from nanochat.train import checkpoint, loop
from nanochat.train.recipe import RowsFlags
from nanochat.train.stages import STAGES, StageRow

VAL_CONVERSATIONS = 400


def source_option(stage: str) -> str:
    """The flag --source of a stage: those that its row in the table allows, the first by default."""
    allowed = STAGES[stage].starts_from
    return option(allowed[0], "stage whose model to start from", choices=allowed)


@dataclass
class FinetuneConfig(RowsFlags):
    """Flags that both stages have; each adds its --source."""

    data: str = option(
        "",
        "kindergarten, tasks, files or folders of conversations joined by '|', each perhaps with a "
        "factor: 'kindergarten|mine.jsonl*50', 'smoltalk|gsm8k*2' (default: kindergarten for a model "
        "that grew up there)",
    )
    conversations: int = option(0, "how many to use (0: all there are; the kindergarten makes 20,000)")
    total_batch_size: int = option(0, "tokens a step over all devices (0: as in pretraining)")
    num_iterations: int = option(0, "optimizer steps (0: epochs decide)")
    epochs: float = option(1.0, "times over the data when num_iterations is 0")
    lr_scale: float = option(1.0, "factor on pretraining's learning rates")
    warmdown_frac: float = option(1.0, "last share of the steps, over which learning rates fall to zero")
    eval_every: int = option(0, "steps between validations (0: only at the end)")
    seed: int = option(0, "of the order of the conversations")
    source_tag: str = option("", "tag of the model to start from (default: the newest)")
    name: str = option("", "what the assistant is called (default: as its source, else nanochat)")
    made_by: str = option("", "who it says trained it (default: as its source, else the person who ran this "
                              "code)")


# ---- what a stage starts from
@dataclass
class Origin:
    """The model that a stage starts from, and where it runs."""

    rt: Runtime
    tag: str  # of the new run
    folder: Path  # the checkpoint's
    model: GPT
    tokenizer: Tokenizer
    meta: dict  # the checkpoint's meta.json
    persona: Persona = USUAL  # of the new model

    def identity(self) -> dict:
        """What a resumed run must have in common with this one, as far as it follows from the origin."""
        return {"tokenizer": self.tokenizer.hash, "model": asdict(self.model.config),
                "source": self.meta["files"]["model.safetensors"], **asdict(self.persona)}

    def about(self) -> dict:
        """What the new model's meta.json takes over."""
        return {"tokenizer": self.tokenizer.hash, "model": asdict(self.model.config),
                "dataset": self.meta["dataset"], "persona": asdict(self.persona)}


def start(config: Any, stage: str) -> Origin:
    """Find device and ranks, and load the model that config.source and config.source_tag name.

    Raises UsageError for a run that would start from itself: resumed, it would find its own checkpoint as the
    newest.
    """
    rt = runtime.init(config.device)
    setup_logging(rt.rank)
    folder = checkpoint.find(config.source, config.source_tag or None)
    if config.source == stage and config.source_tag in ("", config.tag or config.source_tag):
        raise UsageError(f"--source={stage} wants --source_tag and another --tag, else it starts from "
                         "itself.")
    model, tokenizer, meta = checkpoint.load_model(config.source, rt, folder.parent.name)
    loaded_from = checkpoint.step_dir(folder.parent, meta["step"])  # an older one where the newest is damaged
    persona = Persona(**meta.get("persona", {}))
    if isinstance(config, FinetuneConfig):
        persona = Persona(config.name or persona.name, config.made_by or persona.made_by)
    return Origin(rt, config.tag or folder.parent.name, loaded_from, model, tokenizer, meta, persona)


def optimizer_from(origin: Origin, scale: float, batch_tokens: int = 0) -> MuonAdamW:
    """An optimizer with the checkpoint's float32 masters, which load_model rounded to the compute dtype.

    Its averages begin at zero: those of the stage before belong to other data. `scale` and `batch_tokens` as
    in loop.make_optimizer.
    """
    model = origin.model.requires_grad_(True).train()
    optimizer = loop.make_optimizer(model, origin.rt, scale=scale, batch_tokens=batch_tokens)
    masters, _, _ = checkpoint.load(origin.folder)
    optimizer.load(masters)
    return optimizer


# ---- data
def conversations(data: str, stage: str, count: int, seed: int = 0,
                  persona: Persona = USUAL) -> tuple[list[dict], list[dict]]:
    """(training, validation), `count` (0: all) for training, in a fixed random order. Raises UsageError."""
    if data.strip().lower() == GENERATED:
        wanted = (count or GENERATED_CONVERSATIONS) + VAL_CONVERSATIONS
        made = [persona.speaks(chat) for chat in train_conversations(wanted, seed=seed, stage=stage)]
    else:
        found = training_conversations(*data.split("|"), stage=stage, seed=seed, persona=persona)
        wanted = count + VAL_CONVERSATIONS if count else len(found)
        order = torch.randperm(len(found), generator=torch.Generator().manual_seed(0))
        made = [found[i] for i in order[:wanted].tolist()]
    held = min(VAL_CONVERSATIONS, len(made) // 20)
    if held == 0:
        raise UsageError(f"--data={data} holds {len(made)} conversations; at least 20 are needed.")
    return made[held:][:count or None], made[:held]


@dataclass
class Plan:
    """What the flags come to: the data, and how much of it a step takes."""

    data: str
    n_conversations: int
    rows: ChatRows
    val_rows: ChatRows
    batch_tokens: int  # a step, over all ranks
    rows_per_step: int  # the same in rows
    device_batch_size: int  # rows a device takes at a time
    steps: int


def resolve(config: Any, stage: str, origin: Origin) -> Plan:
    """Render and pack the conversations, and count steps."""
    data = config.data
    if not data:
        data = GENERATED
        if origin.meta["dataset"] != GENERATED:
            data = mixture(stage, origin.model.config.n_layer)
    names = {name for name, _ in factors(data.split("|"))}
    if (config.name or config.made_by) and not names & {GENERATED, "identity"}:
        raise UsageError(f"--data={data} says nowhere who the assistant is. Add it: --data='{data}|identity'")
    T = origin.model.config.sequence_len
    chosen, held = conversations(data, stage, config.conversations, config.seed, origin.persona)
    rows = ChatRows(chosen, origin.tokenizer, T, seed=config.seed)
    val_rows = ChatRows(held, origin.tokenizer, T, seed=config.seed)
    if not rows.counts.sum() or not val_rows.counts.sum():
        raise DataError(f"there is nothing to learn, or to validate by, in --data={data}: no reply begins "
                        f"within the model's {T} tokens. Give other conversations or a longer context.")
    batch_tokens = config.total_batch_size or origin.meta["identity"]["batch_tokens"]
    rows_per_step, at_a_time = config.rows_of(batch_tokens, T, origin.rt)
    steps = config.num_iterations or max(1, round(config.epochs * len(rows) / rows_per_step))
    return Plan(data, len(chosen), rows, val_rows, batch_tokens, rows_per_step, at_a_time, steps)


@torch.no_grad()
def masked_loss(model: GPT, rows: ChatRows, device_batch_size: int, rt: Runtime) -> float:
    """Mean nats a supervised token over all `rows`; every rank must call."""
    def measure(*batch):
        inputs, targets, weight = [tensor.to(rt.device) for tensor in batch]
        return model.loss(inputs, targets, weight).item(), weight.sum().item()

    nats, count = sum_over_rows(measure, model, rows, device_batch_size, rt)
    return nats / max(count, 1.0)


# ---- the stage
def run_stage(stage: str, config: Any) -> None:
    """Run one stage of the table from the flags to its result."""
    row = STAGES[stage]
    origin = start(config, stage)
    plan = resolve(config, stage, origin)
    attention = pick_fastest(origin.rt.device, origin.rt.dtype, plan.device_batch_size, origin.model.config)
    log.info(f"{row.title.lower()} of {config.source}/{origin.folder.parent.name} on {origin.rt}: "
             f"{plan.n_conversations:,} conversations of {plan.data}, {plan.steps:,} steps of "
             f"{plan.batch_tokens:,} tokens; attention: {attention}")
    if config.dry_run:
        return
    lr_factor = scaling.lr_factor(origin.model.config.n_layer, plan.batch_tokens)
    optimizer = optimizer_from(origin, config.lr_scale * lr_factor, plan.batch_tokens)
    made = make_stage(row, config, origin, plan)
    loop.run_locked(made, origin.model, optimizer, origin.rt)


def make_stage(row: StageRow, config: FinetuneConfig, origin: Origin, plan: Plan) -> loop.Stage:
    """The Stage: shuffled rows of conversations, validated by the loss on those held out.

    Of what the mixture repeats (gsm8k*4) other copies of these are trained on, so that loss is too low there.
    """
    rt = origin.rt

    def batches(start_step, at_a_time):
        return iter(StepBatches(plan.rows, plan.rows_per_step, at_a_time, rt.rank, rt.world_size,
                                seed=config.seed, shuffle=True, start_step=start_step))

    def evaluate():
        return {"val_loss": masked_loss(origin.model, plan.val_rows, plan.device_batch_size, rt)}

    return config.make_stage(
        row, origin.tag, rt, plan.steps, config.warmdown_frac,
        identity={**origin.identity(), "data": plan.data, "rows": plan.rows.hash,
                  "batch_tokens": plan.batch_tokens},
        meta={**origin.about(), "data": plan.data}, tokenizer=origin.tokenizer,
        batches=batches, rows=plan.device_batch_size, evaluate=evaluate, eval_every=config.eval_every,
        compile=config.compile)
