"""
Pretrain a model from nothing: predict the next token of documents.

    python -m scripts.base_train --dataset=kindergarten --depth=3 --sequence_len=256  # a laptop, minutes
    torchrun --standalone --nproc_per_node=8 -m scripts.base_train -- --depth=20  # a node, hours

--depth sets everything else (nanochat/scaling.py). An interrupted run goes on with the same command.

The steps are those of every stage: resolve the flags into a plan, make data, model and optimizer, put them
into a Stage and let the loop run it. All the text counts here, so every target's weight is 1.
"""
from dataclasses import asdict, dataclass, replace

from nanochat import runtime, scaling
from nanochat.cli import at_least, option, parse
from nanochat.common import DataError, UsageError, log, mix_seed, run, setup_logging
from nanochat.data.dataloader import StepBatches, TextRows, text_rows
from nanochat.data.datasets import shards
from nanochat.data.tokenizer import Tokenizer
from nanochat.eval.bits_per_byte import bits_per_byte
from nanochat.model import fp8
from nanochat.model.attention import pick_fastest
from nanochat.model.gpt import GPT, GPTConfig
from nanochat.runtime import Runtime
from nanochat.train import loop
from nanochat.train.recipe import RowsFlags, architecture
from nanochat.train.stages import STAGES


@dataclass
class Config(RowsFlags):
    dataset: str = option(
        "climbmix", "climbmix, fineweb-edu, kindergarten, or a file or folder of .txt, .jsonl or .parquet"
    )
    depth: int = option(20, "layers: the one dial; width, heads, batch and horizon follow")
    sequence_len: int = option(2048, "context in tokens; 256 is enough for the kindergarten")
    key_offset: float = option(0.5, "share of a head that finds words by the word before")
    value_offset: float = option(0.5, "share of a head that gives what stands before the word it finds")
    value_tables: bool = option(True, "every second layer adds a vector by token to its values")
    embedding_skips: bool = option(True, "every layer reads the embedding beside the residual stream")
    total_batch_size: int = option(0, "tokens a step over all devices (0: from the depth)")
    num_iterations: int = option(0, "optimizer steps (0: from the ratio)")
    param_data_ratio: float = option(20.0, "training tokens for each parameter when num_iterations is 0")
    matrix_lr: float = option(0.02, "Muon's learning rate for the matrices")
    embedding_lr: float = option(0.3, "AdamW's for the embedding, at width 768")
    unembedding_lr: float = option(0.004, "AdamW's for the head, at width 768")
    weight_decay: float | None = option(None, "decoupled weight decay on the matrices (default: from the "
                                              "depth)")
    warmdown_frac: float | None = option(None, "last share of the steps, over which learning rates fall "
                                               "(default: so too)")
    fp8: bool = option(False, "the blocks' products in 8 bits, for GPUs that have them (H100, 4090, ...)")
    eval_every: int = option(250, "steps between validations (0: only at the end)")
    eval_tokens: int = option(0, "validation tokens (0: 20 batches)")
    seed: int = option(0, "of the initial weights")

    def __post_init__(self):
        super().__post_init__()
        at_least(self, depth=1, sequence_len=1, param_data_ratio=0.01)
        for name in ("warmdown_frac", "key_offset", "value_offset"):
            if not 0 <= (getattr(self, name) or 0) <= 1:
                raise UsageError(f"--{name} must lie in 0 to 1, got {getattr(self, name)}.")


@dataclass(frozen=True)
class Plan:
    """What the flags come to."""

    model: GPTConfig
    recipe: scaling.Pretraining
    rows_per_step: int  # over all ranks
    device_batch_size: int  # rows a device takes at a time


def resolve(config: Config, vocab_size: int, rt: Runtime) -> Plan:
    """The depth's recipe, where the flags do not say otherwise. Raises UsageError."""
    model = architecture(config.depth, vocab_size, config.sequence_len, key_offset=config.key_offset,
                         value_offset=config.value_offset, value_tables=config.value_tables,
                         embedding_skips=config.embedding_skips)
    recipe = scaling.pretraining(config.depth, vocab_size, config.param_data_ratio, config.total_batch_size,
                                 config.num_iterations, config.matrix_lr, rt.world_size)
    if config.weight_decay is not None:
        recipe = replace(recipe, weight_decay=config.weight_decay)
    if config.warmdown_frac is not None:
        recipe = replace(recipe, warmdown_frac=config.warmdown_frac)
    rows_per_step, at_a_time = config.rows_of(recipe.batch_tokens, config.sequence_len, rt)
    if config.fp8:
        fp8.check(rt.device, {"--sequence_len": config.sequence_len, "n_embd": model.n_embd,
                              "of the keys": model.n_kv_head * model.head_dim})
    return Plan(model, recipe, rows_per_step, at_a_time)


def describe(config: Config, plan: Plan, rt: Runtime) -> str:
    """The run in one line."""
    n_params = scaling.num_params(config.depth, plan.model.vocab_size, config.value_tables,
                                  config.embedding_skips)
    attention = pick_fastest(rt.device, rt.dtype, plan.device_batch_size, plan.model)
    precision = ", fp8" if config.fp8 else ""
    steps = plan.recipe.steps
    batch_tokens = plan.recipe.batch_tokens
    return (f"d{config.depth} on {rt}{precision}: {n_params:,} parameters, {steps:,} steps of "
            f"{batch_tokens:,} tokens = {steps * batch_tokens:,} tokens of {config.dataset}; "
            f"attention: {attention}")


def load_rows(config: Config, plan: Plan, tokenizer: Tokenizer, rt: Runtime) -> tuple[TextRows, TextRows]:
    """(training, validation)."""
    rows = text_rows(config.dataset, "train", tokenizer, config.sequence_len, rt)
    val_rows = text_rows(config.dataset, "val", tokenizer, config.sequence_len, rt)
    if not len(val_rows):  # now, not after the last step
        last = shards(config.dataset, "val")[-1]
        raise DataError(f"{last}, the text for validation, is empty. Put some text there: in a folder it is "
                        "the last file by name.")
    wanted = plan.recipe.steps * plan.rows_per_step
    if wanted > len(rows):
        log.info(f"the training shards on this machine hold {len(rows):,} rows: they will be read "
                 f"{wanted / len(rows):.1f} times. More: python -m nanochat.dataset")
    return rows, val_rows


def make_model(config: Config, plan: Plan, rt: Runtime) -> GPT:
    """New weights, the same for a seed on every device and number of ranks."""
    model = GPT(plan.model, rt.dtype).to(rt.device)
    model.init_weights(mix_seed("init", config.seed))
    if config.fp8:
        fp8.convert(model)
    return model


def make_stage(config: Config, plan: Plan, model: GPT, tokenizer: Tokenizer, rt: Runtime) -> loop.Stage:
    """The Stage: rows of text in their global order, validated in bits per byte, which no tokenizer can
    flatter.
    """
    rows, val_rows = load_rows(config, plan, tokenizer, rt)
    val_tokens = config.eval_tokens or 20 * plan.recipe.batch_tokens
    val_count = max(1, val_tokens // config.sequence_len)  # rows
    token_bytes = tokenizer.token_bytes()

    def batches(start_step, at_a_time):
        return iter(StepBatches(rows, plan.rows_per_step, at_a_time, rt.rank, rt.world_size,
                                start_step=start_step))

    def evaluate():
        return {"val_bpb": bits_per_byte(model, val_rows, token_bytes, plan.device_batch_size, rt, val_count)}

    origin = {"tokenizer": tokenizer.hash, "model": asdict(plan.model)}
    return config.make_stage(
        STAGES["base"], config.tag or f"d{config.depth}", rt, plan.recipe.steps, plan.recipe.warmdown_frac,
        identity={**origin, "rows": rows.hash, **asdict(plan.recipe)},
        meta={**origin, "dataset": config.dataset}, final_lr=plan.recipe.final_lr, tokenizer=tokenizer,
        batches=batches, rows=plan.device_batch_size, evaluate=evaluate, eval_every=config.eval_every,
        compile=config.compile)


def main(argv: list[str] | None = None) -> None:
    config = parse(Config, argv, __doc__)
    rt = runtime.init(config.device)
    setup_logging(rt.rank)
    tokenizer = Tokenizer.load()
    plan = resolve(config, tokenizer.vocab_size, rt)
    log.info(describe(config, plan, rt))
    if config.dry_run:
        return
    model = make_model(config, plan, rt)
    optimizer = loop.make_optimizer(model, rt, config.matrix_lr, config.embedding_lr, config.unembedding_lr,
                                    plan.recipe.weight_decay, plan.recipe.lr_factor, plan.recipe.batch_tokens)
    stage = make_stage(config, plan, model, tokenizer, rt)
    loop.run_locked(stage, model, optimizer, rt)


if __name__ == "__main__":
    run(main)
