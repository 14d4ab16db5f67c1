"""
Training on conversations: the one assembly behind midtraining and supervised finetuning.

The loss is on what the assistant itself says.
"""
from dataclasses import asdict, dataclass

import torch

from nanochat import runtime, scaling
from nanochat.cli import option
from nanochat.common import UsageError, log, setup_logging
from nanochat.data.dataloader import ChatRows, StepBatches, collate
from nanochat.kindergarten import train_conversations
from nanochat.model.attention import pick_fastest
from nanochat.tasks import training_conversations
from nanochat.train import checkpoint, loop

VAL_CONVERSATIONS = 400
KINDERGARTEN_CONVERSATIONS = 20000


@dataclass
class FinetuneConfig(loop.RunFlags):
    """Flags that both stages have."""

    source: str = option("base", "stage whose model to start from", choices=("base", "mid", "sft"))
    data: str = option("", "kindergarten, or tasks and .jsonl files joined by '|', each perhaps with a factor: "
                           "'smoltalk|gsm8k*2|mine.jsonl' (default: kindergarten for a model that grew up there)")
    conversations: int = option(0, "how many to use (0: all there are; the kindergarten makes 20,000)")
    device_batch_size: int = option(0, "rows a device takes at a time; halve it when memory runs out (0: 32, fewer on a CPU)")
    total_batch_size: int = option(0, "tokens a step over all devices (0: as in pretraining)")
    num_iterations: int = option(0, "optimizer steps (0: epochs decide)")
    epochs: float = option(1.0, "times over the data when num_iterations is 0")
    lr_scale: float = option(1.0, "factor on pretraining's learning rates")
    warmdown_frac: float = option(1.0, "last share of the steps, over which learning rates fall to zero")
    eval_every: int = option(0, "steps between validations (0: only at the end)")
    compile: bool = option(True, "compile the model on CUDA: a minute at the start")
    seed: int = option(0, "of the order of the conversations")
    source_tag: str = option("", "tag of the model to start from (default: the newest)")


def conversations(data, stage, count, seed=0):
    """(training, validation), `count` (0: all) for training, in a fixed random order."""
    if data == "kindergarten":
        wanted = (count or KINDERGARTEN_CONVERSATIONS) + VAL_CONVERSATIONS
        made = list(train_conversations(wanted, seed=seed, stage=stage))
    else:
        found = training_conversations(*data.split("|"))
        wanted = count + VAL_CONVERSATIONS if count else len(found)
        order = torch.randperm(len(found), generator=torch.Generator().manual_seed(0))
        made = [found[i] for i in order[:wanted].tolist()]
    held = min(VAL_CONVERSATIONS, len(made) // 20)
    if held == 0:
        raise UsageError(f"--data={data} holds {len(made)} conversations; at least 20 are needed.")
    return made[held:][:count or None], made[:held]


def start(config, stage):
    """(runtime, tag, checkpoint's folder, model, tokenizer, meta)."""
    rt = runtime.init(config.device)
    setup_logging(rt.rank)
    source = checkpoint.find(config.source, config.source_tag or None)
    if config.source == stage and config.source_tag in ("", config.tag or config.source_tag):
        raise UsageError(f"--source={stage} wants --source_tag and another --tag, else it starts from itself.")
    loaded = checkpoint.load_model(config.source, rt, source.parent.name)
    source = source.with_name(f"{loaded[2]['step']:06d}")
    return rt, config.tag or source.parent.name, source, *loaded


def optimizer_from(source, model, rt, scale):
    """With the checkpoint's float32 masters, which load_model rounded."""
    optimizer = loop.make_optimizer(model.requires_grad_(True).train(), rt, scale=scale)
    optimizer.load(checkpoint.load(source)[0])
    return optimizer


def run(stage_name, title, result, config, real_data):
    """One stage; `real_data` is --data for a model that did not grow up in the kindergarten."""
    rt, tag, source, model, tokenizer, meta = start(config, stage_name)
    T = model.config.sequence_len
    data = config.data or ("kindergarten" if meta["dataset"] == "kindergarten" else real_data)
    chosen, held = conversations(data, stage_name, config.conversations, config.seed)
    rows, val_rows = (ChatRows(part, tokenizer, T, seed=config.seed) for part in (chosen, held))
    batch_tokens = config.total_batch_size or meta["identity"]["batch_tokens"]
    if batch_tokens % T:
        raise UsageError(f"--total_batch_size={batch_tokens} must be a multiple of the model's context, {T}.")
    per_step = batch_tokens // T
    at_a_time = config.device_batch_size or scaling.rows_at_a_time(rt.device.type, T, per_step // rt.world_size)
    steps = config.num_iterations or max(1, round(config.epochs * len(rows) / per_step))
    log.info(f"{title} of {config.source}/{tag} on {rt}: {len(chosen):,} conversations of {data}, {steps:,} steps of "
             f"{batch_tokens:,} tokens; attention: {pick_fastest(rt.device, rt.dtype, at_a_time, model.config)}")
    if config.dry_run:
        return
    optimizer = optimizer_from(source, model, rt,
                               config.lr_scale * scaling.lr_factor(model.config.n_layer, batch_tokens))
    common = {"tokenizer": tokenizer.hash, "model": asdict(model.config)}
    stage = loop.Stage(
        name=title,
        batches=lambda start: iter(StepBatches(rows, per_step, at_a_time, rt.rank, rt.world_size, seed=config.seed,
                                               shuffle=True, start_step=start)),
        identity={"data": data, "rows": rows.hash, **common, "steps": steps, "batch_tokens": batch_tokens,
                  "source": meta["files"]["model.safetensors"]},
        meta={**common, "dataset": meta["dataset"], "data": data, "config": asdict(config)},
        evaluate=lambda: {"val_loss": masked_loss(model, val_rows, at_a_time, rt)},
        eval_every=config.eval_every, compile=config.compile,
        **config.for_stage(stage_name, tag, steps, config.warmdown_frac))
    loop.run_locked(stage, model, optimizer, rt, config, result)


@torch.no_grad()
def masked_loss(model, rows, device_batch_size, rt):
    """Mean nats a supervised token over all `rows`; every rank must call."""
    total = 0.0
    for start in range(rt.rank * device_batch_size, len(rows), rt.world_size * device_batch_size):
        tensors = collate(rows, range(start, min(start + device_batch_size, len(rows))))
        total += model.loss(*(tensor.to(rt.device) for tensor in tensors)).item()
    return sum(runtime.all_gather_object(rt, total)) / max(float(rows.counts.sum()), 1.0)
