"""
Reinforcement learning on checkable tasks: sample several answers a question, reinforce the better ones.

    python -m scripts.chat_rl
    torchrun --standalone --nproc_per_node=8 -m scripts.chat_rl -- --tasks=gsm8k

Each step also trains on a few rows of finetuning's conversations, lest the unrewarded be forgotten (PPO-ptx
of InstructGPT, arXiv 2203.02155). The algorithm is in nanochat/train/rollout.py.
"""
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path

from nanochat import scaling
from nanochat.cli import at_least, option, parse
from nanochat.common import UsageError, log, mix_seed, run
from nanochat.data.dataloader import Batch, ChatRows, StepBatches
from nanochat.infer.engine import Engine
from nanochat.tasks import factors, lookup
from nanochat.tasks.base import Task
from nanochat.train import finetune, loop, rollout
from nanochat.train.recipe import RunFlags
from nanochat.train.stages import STAGES


@dataclass
class Config(RunFlags):
    source: str = finetune.source_option("rl")
    tasks: str = option("", "tasks joined by '|', each perhaps with a factor as in 'gsm8k*3|spellingbee' "
                            "(default: gsm8k, or for a model that grew up in the kindergarten its word "
                            "problems)")
    num_iterations: int = option(0, "optimizer steps (0: epochs decide)")
    epochs: float = option(1.0, "times over the tasks' training questions when num_iterations is 0")
    questions: int = option(16, "questions a step, over all devices")
    samples: int = option(16, "answers to each question, to be compared")
    anchor_rows: int = option(16, "rows of finetuning's conversations a step, over all devices (0: reward "
                                  "alone)")
    device_batch_size: int = option(64, "rollouts or rows a device takes at a time")
    max_new_tokens: int = option(128, "longest answer")
    temperature: float = option(1.0, "of the sampling")
    top_k: int = option(0, "sample among the k likeliest tokens (0: all)")
    lr_scale: float = option(0.05, "factor on pretraining's learning rates at the start; falls to zero")
    seed: int = option(0, "of questions and samples")
    source_tag: str = option("", "tag of the model to start from (default: the newest)")

    def __post_init__(self):
        super().__post_init__()
        at_least(self, samples=2, questions=1, device_batch_size=1, max_new_tokens=1)
        if self.temperature <= 0:
            raise UsageError(f"--temperature must be above 0, got {self.temperature}: equal answers teach "
                             "nothing.")


@dataclass
class Plan:
    """What the flags come to."""

    names: str  # of the tasks, as --tasks has them
    tasks: list[Task]  # one with a factor stands there so often
    steps: int


def resolve(config: Config, origin: finetune.Origin) -> Plan:
    """Load the tasks and count the steps. Raises UsageError."""
    world_size = origin.rt.world_size
    for name in ("questions", "anchor_rows"):
        if getattr(config, name) % world_size:
            raise UsageError(f"--{name}={getattr(config, name)} must divide by the {world_size} ranks.")
    names = config.tasks
    if not names:
        names = "kg_word_problem" if origin.meta["dataset"] == "kindergarten" else "gsm8k"
    tasks = []
    for name, times in factors(names.split("|")):
        task = lookup(name).make("train")
        task.persona = origin.persona
        tasks += [task] * times
    n_questions = sum(len(task) for task in tasks)
    steps = config.num_iterations or max(1, round(config.epochs * n_questions / config.questions))
    return Plan(names, tasks, steps)


def anchor_batches(config: Config, plan: Plan,
                   origin: finetune.Origin) -> tuple[Callable[[int, int], list[Batch]], str]:
    """(step, rows at a time -> micro-batches of what the source was finetuned on, the hash of these rows)."""
    if not config.anchor_rows:
        return lambda step, at_a_time: [], ""
    stage = "mid" if config.source == "mid" else "sft"
    wanted = 8 * plan.steps * config.anchor_rows  # about 8 conversations fill a row
    chosen, _ = finetune.conversations(origin.meta["data"], stage, wanted, mix_seed("anchor", config.seed),
                                       origin.persona)
    rows = ChatRows(chosen, origin.tokenizer, origin.model.config.sequence_len, seed=config.seed)
    rt = origin.rt

    def load(step, at_a_time):
        part = scaling.equal_part(config.anchor_rows // rt.world_size, at_a_time)
        return StepBatches(rows, config.anchor_rows, part, rt.rank, rt.world_size).load(step)

    return load, rows.hash


def rollout_batches(config: Config, plan: Plan, origin: finetune.Origin,
                    anchor: Callable[[int, int], list[Batch]], extra: dict, told: dict, start_step: int,
                    at_a_time: int) -> Iterator[tuple[int, list[Batch]]]:
    """Yield (step, micro-batches): answers of the model as it stands, then the anchor's rows.

    The mean reward goes into `extra`, a question's answers into `told`, both for the log. Each kind is a mean
    over its own tokens, and the loss is their sum. Questions and seeds follow from the step's number, so that
    a resumed run asks and samples the same.
    """
    rt = origin.rt
    engine = Engine(origin.model, origin.tokenizer)
    for step in count(start_step):
        chosen = []
        for i in range(rt.rank, config.questions, rt.world_size):
            number = step * config.questions + i  # of all questions of the run
            task = plan.tasks[number % len(plan.tasks)]  # in turns
            chosen.append((task, task[number // len(plan.tasks) % len(task)]))
        origin.model.eval()
        groups = rollout.sample(engine, origin.tokenizer, chosen, config.samples,
                                max_new_tokens=config.max_new_tokens, temperature=config.temperature,
                                top_k=config.top_k, seed=mix_seed("rollout", config.seed, step, rt.rank))
        origin.model.train()
        batches, reward = rollout.make_batches(groups, at_a_time, origin.tokenizer.bos_id, rt)
        extra["reward"] = reward
        told["group"] = rollout.readable(origin.tokenizer, chosen, groups)
        yield step, batches + anchor(step, at_a_time)


def make_stage(config: Config, plan: Plan, origin: finetune.Origin) -> loop.Stage:
    """The Stage: no validation, since the reward of every step's fresh questions is one."""
    anchor, rows_hash = anchor_batches(config, plan, origin)
    extra: dict = {}
    told: dict = {}
    return config.make_stage(
        STAGES["rl"], origin.tag, origin.rt, plan.steps, warmdown_frac=1.0,
        identity={**origin.identity(), "tasks": plan.names, "rows": rows_hash},
        meta={**origin.about(), "data": origin.meta["data"], "tasks": plan.names}, tokenizer=origin.tokenizer,
        batches=partial(rollout_batches, config, plan, origin, anchor, extra, told),
        rows=config.device_batch_size, extra=extra, told=told)


def rewards(log_path: Path) -> dict[str, float]:
    """Means over the first and the last tenth of the steps."""
    records = map(json.loads, log_path.read_text(encoding="utf-8").splitlines())
    found = [record["reward"] for record in records if "reward" in record]
    tenth = max(1, len(found) // 10)
    return {"reward_start": sum(found[:tenth]) / tenth, "reward_end": sum(found[-tenth:]) / tenth}


def main(argv: list[str] | None = None) -> None:
    config = parse(Config, argv, __doc__)
    row = STAGES["rl"]
    origin = finetune.start(config, "rl")
    plan = resolve(config, origin)
    log.info(
        f"{row.title.lower()} of {config.source}/{origin.folder.parent.name} on {origin.rt}: {plan.names}, "
        f"{plan.steps:,} steps of {config.questions} questions, {config.samples} answers each"
    )
    if config.dry_run:
        return
    stage = make_stage(config, plan, origin)
    optimizer = finetune.optimizer_from(origin, config.lr_scale)
    loop.run_locked(stage, origin.model, optimizer, origin.rt,
                    lambda: {"task": plan.names, **rewards(stage.log_path)})


if __name__ == "__main__":
    run(main)
