"""
Pretrain a model from nothing: predict the next token of documents.

    python -m scripts.base_train --dataset=kindergarten --depth=4 --sequence_len=256          a laptop,
    minutes torchrun --standalone --nproc_per_node=8 -m scripts.base_train -- --depth=20              a node,
    hours

--depth sets everything else (nanochat/scaling.py). An interrupted run goes on with the same command.

The steps are those of every stage: resolve the flags into a plan, make data, model and optimizer, put them
into a Stage and let the loop run it. All the text counts here, so every target's weight is 1.
"""
from dataclasses import asdict, dataclass

from nanochat import runtime, scaling
from nanochat.cli import at_least, option, parse
from nanochat.common import DataError, UsageError, log, mix_seed, run, setup_logging
from nanochat.data.dataloader import StepBatches, TextRows, prepare_tokens
from nanochat.data.datasets import shards
from nanochat.data.tokenizer import Tokenizer
from nanochat.eval.bits_per_byte import bits_per_byte
from nanochat.model import fp8
from nanochat.model.attention import pick_fastest
from nanochat.model.gpt import GPT, GPTConfig
from nanochat.runtime import Runtime
from nanochat.train import loop
from nanochat.train.recipe import RunFlags
from nanochat.train.stages import STAGES


@dataclass
class Config(RunFlags):
    dataset: str = option(
        "climbmix", "climbmix, fineweb-edu, kindergarten, or a folder of parquet files with a text column"
    )
    depth: int = option(20, "layers: the one dial; width, heads, batch and horizon follow")
    sequence_len: int = option(2048, "context in tokens; 256 is enough for the kindergarten")
    key_offset: float = option(0.5, "share of a head that finds words by the word before")
    value_tables: bool = option(True, "every second layer adds a vector by token to its values")
    device_batch_size: int = option(0, "rows a device takes at a time, fewer where memory runs out (0: 32, "
                                       "on a CPU fewer)")
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
    compile: bool = option(True, "compile the model on CUDA: a minute at the start")
    seed: int = option(0, "of the initial weights")

    def __post_init__(self):
        super().__post_init__()
        at_least(self, depth=1, sequence_len=1, param_data_ratio=0.01)
        for name in ("warmdown_frac", "key_offset"):
            if not 0 <= (getattr(self, name) or 0) <= 1:
                raise UsageError(f"--{name} must lie in 0 to 1, got {getattr(self, name)}.")


@dataclass(frozen=True)
class Plan:
    """What the flags come to."""

    model: GPTConfig
    steps: int
    batch_tokens: int  # a step, over all ranks
    rows_per_step: int  # the same in rows
    device_batch_size: int  # rows a device takes at a time
    lr_factor: float
    weight_decay: float
    warmdown_frac: float
    final_lr: float


def resolve(config: Config, vocab_size: int, rt: Runtime) -> Plan:
    """The depth's recipe, where the flags do not say otherwise. Raises UsageError."""
    model = GPTConfig(config.sequence_len, vocab_size, key_offset=config.key_offset,
                      value_tables=config.value_tables, **asdict(scaling.model_shape(config.depth)))
    recipe = scaling.pretraining(config.depth, vocab_size, config.param_data_ratio, config.total_batch_size,
                                 config.num_iterations, config.matrix_lr, rt.world_size)
    if recipe.batch_tokens % config.sequence_len:
        raise UsageError(f"--total_batch_size={recipe.batch_tokens} must be a multiple of "
                         f"--sequence_len={config.sequence_len}.")
    if config.fp8:
        fp8.check(rt.device, {"--sequence_len": config.sequence_len, "n_embd": model.n_embd,
                              "of the keys": model.n_kv_head * model.head_dim})
    rows_per_step = recipe.batch_tokens // config.sequence_len
    # A step's rows are shared by the ranks, and what a rank cannot hold at once it takes in turns (gradient
    # accumulation): memory bounds the micro-batch, never the batch.
    at_a_time = scaling.rows_at_a_time(rt.device.type, config.sequence_len, rows_per_step // rt.world_size,
                                       config.device_batch_size)
    return Plan(
        model=model, steps=recipe.steps, batch_tokens=recipe.batch_tokens, rows_per_step=rows_per_step,
        device_batch_size=at_a_time, lr_factor=recipe.lr_factor, final_lr=recipe.final_lr,
        weight_decay=recipe.weight_decay if config.weight_decay is None else config.weight_decay,
        warmdown_frac=recipe.warmdown_frac if config.warmdown_frac is None else config.warmdown_frac)


def describe(config: Config, plan: Plan, rt: Runtime) -> str:
    """The run in one line."""
    n_params = scaling.num_params(config.depth, plan.model.vocab_size, config.value_tables)
    attention = pick_fastest(rt.device, rt.dtype, plan.device_batch_size, plan.model)
    precision = ", fp8" if config.fp8 else ""
    return (f"d{config.depth} on {rt}{precision}: {n_params:,} parameters, {plan.steps:,} steps of "
            f"{plan.batch_tokens:,} tokens = {plan.steps * plan.batch_tokens:,} tokens of {config.dataset}; "
            f"attention: {attention}")


def load_rows(config: Config, plan: Plan, tokenizer: Tokenizer, rt: Runtime) -> tuple[TextRows, TextRows]:
    """(training, validation); rank 0 tokenizes first, the others then map the same files."""
    name = config.dataset.rstrip("/").rpartition("/")[2]
    with runtime.rank_zero_first(rt):
        train_shards = prepare_tokens(tokenizer, shards(config.dataset, "train"), name)
        rows = TextRows(train_shards, config.sequence_len)
        val_paths = shards(config.dataset, "val")
        val_rows = TextRows(prepare_tokens(tokenizer, val_paths, name), config.sequence_len)
        if not len(val_rows):  # now, not after the last step
            raise DataError(f"{val_paths[-1]}, the text for validation, is empty. Put some text there: in a "
                            "folder it is the last file by name.")
    wanted = plan.steps * plan.rows_per_step
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
    val_tokens = config.eval_tokens or 20 * plan.batch_tokens
    val_count = max(1, val_tokens // config.sequence_len)  # rows
    token_bytes = tokenizer.token_bytes()

    def batches(start_step, at_a_time):
        return iter(StepBatches(rows, plan.rows_per_step, at_a_time, rt.rank, rt.world_size,
                                start_step=start_step))

    def evaluate():
        return {"val_bpb": bits_per_byte(model, val_rows, token_bytes, plan.device_batch_size, rt, val_count)}

    origin = {"tokenizer": tokenizer.hash, "model": asdict(plan.model)}
    return config.make_stage(
        STAGES["base"], config.tag or f"d{config.depth}", rt, plan.steps, plan.warmdown_frac,
        identity={**origin, "rows": rows.hash, "batch_tokens": plan.batch_tokens, "lr_factor": plan.lr_factor,
                  "weight_decay": plan.weight_decay, "warmdown_frac": plan.warmdown_frac,
                  "final_lr": plan.final_lr},
        meta={**origin, "dataset": config.dataset}, final_lr=plan.final_lr, tokenizer=tokenizer,
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
                                    plan.weight_decay, plan.lr_factor)
    stage = make_stage(config, plan, model, tokenizer, rt)
    loop.run_locked(stage, model, optimizer, rt, config, STAGES["base"].script)


if __name__ == "__main__":
    run(main)
