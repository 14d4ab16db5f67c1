"""
Reinforcement learning on checkable tasks: sample several answers a question, reinforce the better ones.

    python -m scripts.chat_rl
    torchrun --standalone --nproc_per_node=8 -m scripts.chat_rl -- --tasks=gsm8k

Each step also trains on a few rows of finetuning's conversations, lest the unrewarded be
forgotten (PPO-ptx of InstructGPT, arXiv 2203.02155).
"""
import json
from dataclasses import asdict, dataclass
from itertools import count

from nanochat.cli import at_least, option, parse
from nanochat.common import UsageError, log, mix_seed, run
from nanochat.data.dataloader import ChatRows, StepBatches
from nanochat.infer.engine import Engine
from nanochat.tasks import factors, lookup
from nanochat.train import finetune, loop, rollout


@dataclass
class Config(loop.RunFlags):
    source: str = option("sft", "stage whose model to start from", choices=("mid", "sft", "rl"))
    tasks: str = option("", "tasks joined by '|', each perhaps with a factor as in 'gsm8k*3|spellingbee' "
                            "(default: gsm8k, or for a model that grew up in the kindergarten its word problems)")
    num_iterations: int = option(0, "optimizer steps (0: epochs decide)")
    epochs: float = option(1.0, "times over the tasks' training questions when num_iterations is 0")
    questions: int = option(16, "questions a step, over all devices")
    samples: int = option(16, "answers to each question, to be compared")
    anchor_rows: int = option(16, "rows of finetuning's conversations a step, over all devices (0: reward alone)")
    device_batch_size: int = option(64, "rollouts or rows a device takes at a time")
    max_new_tokens: int = option(128, "longest answer")
    temperature: float = option(1.0, "of the sampling")
    top_k: int = option(0, "sample among the k likeliest tokens (0: all)")
    lr_scale: float = option(0.05, "factor on pretraining's learning rates at the start; falls to zero")
    save_every: int = option(20, "steps between checkpoints (0: only at the end)")
    seed: int = option(0, "of questions and samples")
    source_tag: str = option("", "tag of the model to start from (default: the newest)")

    def __post_init__(self):
        super().__post_init__()
        at_least(self, samples=2, questions=1, device_batch_size=1, max_new_tokens=1)
        if self.temperature <= 0:
            raise UsageError(f"--temperature must be above 0, got {self.temperature}: equal answers teach nothing.")


def anchor_batches(config, meta, tokenizer, T, steps, rt):
    """step -> micro-batches of what the source was finetuned on."""
    if not config.anchor_rows:
        return lambda step: []
    stage = "mid" if config.source == "mid" else "sft"
    wanted = 8 * steps * config.anchor_rows  # about 8 conversations fill a row
    chosen, _ = finetune.conversations(meta["data"], stage, wanted, mix_seed("anchor", config.seed))
    rows = ChatRows(chosen, tokenizer, T, seed=config.seed)
    return StepBatches(rows, config.anchor_rows, config.device_batch_size, rt.rank, rt.world_size).load


def rollout_batches(config, tasks, anchor, model, tokenizer, rt, extra, start):
    """Yield (step, micro-batches): answers of the model as it stands, the mean reward into `extra`, then the anchor's rows.

    Each kind is a mean over its own tokens, and the loss is their sum.
    """
    engine = Engine(model, tokenizer)
    for step in count(start):
        numbers = [step * config.questions + i for i in range(rt.rank, config.questions, rt.world_size)]
        chosen = [(task, task[n // len(tasks) % len(task)]) for n in numbers for task in [tasks[n % len(tasks)]]]
        model.eval()
        groups = rollout.sample(engine, tokenizer, chosen, config.samples, max_new_tokens=config.max_new_tokens,
                                temperature=config.temperature, top_k=config.top_k,
                                seed=mix_seed("rollout", config.seed, step, rt.rank))
        model.train()
        batches, extra["reward"] = rollout.make_batches(groups, config.device_batch_size, tokenizer.bos_id, rt)
        yield step, batches + anchor(step)


def main(argv=None):
    config = parse(Config, argv, __doc__)
    rt, tag, source, model, tokenizer, meta = finetune.start(config, "rl")
    for name in ("questions", "anchor_rows"):
        if getattr(config, name) % rt.world_size:
            raise UsageError(f"--{name}={getattr(config, name)} must divide by the {rt.world_size} ranks.")
    names = config.tasks or ("kg_word_problem" if meta["dataset"] == "kindergarten" else "gsm8k")
    tasks = [task for name, times in factors(names.split("|")) for task in [lookup(name).make("train")] * times]
    steps = config.num_iterations or max(1, round(config.epochs * sum(map(len, tasks)) / config.questions))
    log.info(f"reinforcement learning of {config.source}/{tag} on {rt}: {names}, {steps:,} steps of {config.questions} "
             f"questions, {config.samples} answers each")
    if config.dry_run:
        return
    anchor = anchor_batches(config, meta, tokenizer, model.config.sequence_len, steps, rt)
    optimizer = finetune.optimizer_from(source, model, rt, config.lr_scale)
    extra, common = {}, {"tokenizer": tokenizer.hash, "model": asdict(model.config)}
    stage = loop.Stage(
        name="reinforcement learning",
        batches=lambda start: rollout_batches(config, tasks, anchor, model, tokenizer, rt, extra, start),
        identity={"tasks": names, "steps": steps, "questions": config.questions, "samples": config.samples,
                  "anchor_rows": config.anchor_rows, **common, "source": meta["files"]["model.safetensors"]},
        meta={**common, "dataset": meta["dataset"], "data": meta["data"], "tasks": names, "config": asdict(config)},
        extra=extra, **config.for_stage("rl", tag, steps, warmdown_frac=1.0))
    loop.run_locked(stage, model, optimizer, rt, config, "chat_rl", lambda: {"task": names, **_rewards(stage.log_path)})


def _rewards(log_path):
    """Means over the first and the last tenth of the steps."""
    rewards = [json.loads(line)["reward"] for line in log_path.read_text(encoding="utf-8").splitlines()]
    n = max(1, len(rewards) // 10)
    return {"reward_start": sum(rewards[:n]) / n, "reward_end": sum(rewards[-n:]) / n}


if __name__ == "__main__":
    run(main)
