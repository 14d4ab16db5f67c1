"""
Pretrain a model from nothing: predict the next token of documents.

    python -m scripts.base_train --dataset=kindergarten --depth=4 --sequence_len=256          a laptop, minutes
    torchrun --standalone --nproc_per_node=8 -m scripts.base_train -- --depth=20              a node, hours

--depth sets everything else (nanochat/scaling.py). An interrupted run goes on with the same command.
"""
from dataclasses import asdict, dataclass

from nanochat import runtime, scaling
from nanochat.cli import at_least, option, parse
from nanochat.common import UsageError, log, mix_seed, run, setup_logging
from nanochat.data.dataloader import StepBatches, TextRows, prepare_tokens
from nanochat.data.datasets import shards
from nanochat.data.tokenizer import Tokenizer
from nanochat.eval.bits_per_byte import bits_per_byte
from nanochat.model import fp8
from nanochat.model.attention import pick_fastest
from nanochat.model.gpt import GPT, GPTConfig
from nanochat.train import loop


@dataclass
class Config(loop.RunFlags):
    dataset: str = option("climbmix", "climbmix, fineweb-edu, kindergarten, or a folder of parquet files with a text column")
    depth: int = option(20, "layers: the one dial; width, heads, batch and horizon follow")
    sequence_len: int = option(2048, "context in tokens; 256 is enough for the kindergarten")
    key_offset: float = option(0.5, "share of a head that finds words by the word before")
    value_tables: bool = option(True, "every second layer adds a vector by token to its values")
    device_batch_size: int = option(0, "rows a device takes at a time; halve it when memory runs out (0: 32, fewer on a CPU)")
    total_batch_size: int = option(0, "tokens a step over all devices (0: from the depth)")
    num_iterations: int = option(0, "optimizer steps (0: from the ratio)")
    param_data_ratio: float = option(20.0, "training tokens for each parameter when num_iterations is 0")
    matrix_lr: float = option(0.02, "Muon's learning rate for the matrices")
    embedding_lr: float = option(0.3, "AdamW's for the embedding, at width 768")
    unembedding_lr: float = option(0.004, "AdamW's for the head, at width 768")
    weight_decay: float | None = option(None, "decoupled weight decay on the matrices (default: from the depth)")
    warmdown_frac: float | None = option(None, "last share of the steps, over which learning rates fall (default: so too)")
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


def main(argv=None):
    config = parse(Config, argv, __doc__)
    rt = runtime.init(config.device)
    setup_logging(rt.rank)
    tokenizer = Tokenizer.load()
    model_config = GPTConfig(config.sequence_len, tokenizer.vocab_size, key_offset=config.key_offset,
                             value_tables=config.value_tables, **asdict(scaling.model_shape(config.depth)))
    plan = scaling.pretraining(config.depth, tokenizer.vocab_size, config.param_data_ratio, config.total_batch_size,
                               config.num_iterations, config.matrix_lr, rt.world_size)
    batch_tokens, steps = plan.batch_tokens, plan.steps
    decay = plan.weight_decay if config.weight_decay is None else config.weight_decay
    warmdown = plan.warmdown_frac if config.warmdown_frac is None else config.warmdown_frac
    if batch_tokens % config.sequence_len:
        raise UsageError(f"--total_batch_size={batch_tokens} must be a multiple of --sequence_len={config.sequence_len}.")
    if config.fp8:
        fp8.check(rt.device, {"--sequence_len": config.sequence_len, "n_embd": model_config.n_embd,
                              "of the keys": model_config.n_kv_head * model_config.head_dim})
    rows_per_step = batch_tokens // config.sequence_len
    at_a_time = config.device_batch_size or scaling.rows_at_a_time(rt.device.type, config.sequence_len,
                                                                   rows_per_step // rt.world_size)
    log.info(f"d{config.depth} on {rt}{', fp8' * config.fp8}: "
             f"{scaling.num_params(config.depth, tokenizer.vocab_size, config.value_tables):,} parameters, {steps:,} steps of "
             f"{batch_tokens:,} tokens = {steps * batch_tokens:,} tokens of {config.dataset}; attention: "
             f"{pick_fastest(rt.device, rt.dtype, at_a_time, model_config)}")
    if config.dry_run:
        return
    name = config.dataset.rstrip("/").rpartition("/")[2]
    with runtime.rank_zero_first(rt):  # who tokenizes; the others then map the same files
        rows, val_rows = (TextRows(prepare_tokens(tokenizer, shards(config.dataset, split), name), config.sequence_len)
                          for split in ("train", "val"))
    model = GPT(model_config, rt.dtype).to(rt.device)
    model.init_weights(mix_seed("init", config.seed))
    if config.fp8:
        fp8.convert(model)
    optimizer = loop.make_optimizer(model, rt, config.matrix_lr, config.embedding_lr, config.unembedding_lr,
                                     decay, plan.lr_factor)
    if steps * rows_per_step > len(rows):
        log.info(f"the training shards on this machine hold {len(rows):,} rows: they will be read "
                 f"{steps * rows_per_step / len(rows):.1f} times. More: python -m nanochat.dataset")
    val_count = max(1, (config.eval_tokens or 20 * batch_tokens) // config.sequence_len)
    token_bytes = tokenizer.token_bytes()
    common = {"tokenizer": tokenizer.hash, "model": asdict(model_config)}
    stage = loop.Stage(
        name="pretraining",
        batches=lambda start: iter(StepBatches(rows, rows_per_step, at_a_time, rt.rank, rt.world_size, start_step=start)),
        identity={"dataset": config.dataset, "rows": rows.hash, **common, "steps": steps, "batch_tokens": batch_tokens,
                  "fp8": config.fp8},
        meta={**common, "dataset": config.dataset, "config": asdict(config)},
        evaluate=lambda: {"val_bpb": bits_per_byte(model, val_rows, token_bytes, at_a_time, rt, val_count)},
        eval_every=config.eval_every, compile=config.compile,
        **config.for_stage("base", config.tag or f"d{config.depth}", steps, warmdown, plan.final_lr))
    loop.run_locked(stage, model, optimizer, rt, config, "base_train")


if __name__ == "__main__":
    run(main)
