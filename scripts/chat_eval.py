"""
Ask a chat model the questions of the tasks; scores with intervals, beside blind guessing's.

    python -m scripts.chat_eval -i rl -a 'gsm8k|arc_easy'    fetches their data when they are not here
    python -m scripts.chat_eval --show=sft_kg_story --wrong
    python -m scripts.chat_eval --compare=sft,rl
"""
import time
from dataclasses import asdict, dataclass

from nanochat import runtime
from nanochat.cli import at_least, option, parse
from nanochat.common import UsageError, base_dir, log, run, save_result, setup_logging
from nanochat.eval import chat_eval
from nanochat.eval.core_eval import mean_centered
from nanochat.infer import sandbox
from nanochat.tasks import TASKS, TaskUnavailable, in_group, lookup
from nanochat.train.checkpoint import ModelFlags, load_model


@dataclass
class Config(chat_eval.Options, ModelFlags):
    stage: str = option("sft", "which model", choices=["base", "mid", "sft", "rl"], short="i")
    tasks: str = option("", "names joined by '|'; empty: every core task; for a kindergarten model skills and those "
                            "core tasks whose data are here", short="a")
    compare: str = option("", "two stages, as in sft,rl or core@d4,core@d6: only print how their scores differ")
    show: str = option("", "stage and task, as in sft_kg_story: only print its graded questions")
    wrong: bool = option(False, "--show those with a wrong reply")
    unsafe: bool = option(False, "run the model's code also where the sandbox cannot keep it from the files here")

    def __post_init__(self):
        at_least(self, max_problems=0, batch_size=1, max_new_tokens=0)
        if not 1 <= self.pass_k <= self.num_samples:
            raise UsageError(f"--pass_k must lie between 1 and --num_samples={self.num_samples}, got {self.pass_k}.")
        if self.num_samples > 1 and self.temperature <= 0:
            raise UsageError(f"--num_samples={self.num_samples} wants a --temperature above 0, else all are equal.")
        for name in self.names():
            if lookup(name).kind == "conversations":
                raise UsageError(f"{name} is for training; there is nothing to grade.")

    def names(self):
        return [name.strip() for name in self.tasks.split("|") if name.strip()]


def choose(config, meta):
    """(names of the tasks to run, notes on the others)."""
    if config.names():
        return config.names(), []
    core = in_group("core")
    if meta["dataset"] != "kindergarten":
        return core, []
    here = [name for name in core if TASKS[name].source and TASKS[name].is_local()]
    notes = [f"skipped: {name}: not part of the kindergarten{', its data are not here' if TASKS[name].source else ''}; "
             f"-a {name} runs it" for name in core if name not in here]
    return in_group("kindergarten") + here, notes


def make_task(name, rt, hub_fails=False, unsafe=False):
    """(task, "") or (None, why not). Rank 0 fetches the data, once."""
    task, why, row = None, "", TASKS[name]
    if rt.rank == 0 and hub_fails and not row.is_local():
        why = f"its data are not here and an earlier fetch failed; -a {name} tries this one alone"
    elif rt.rank == 0:
        try:
            task = row.make("test")
        except TaskUnavailable as e:
            why = str(e)
    if task and task.runs_code and not unsafe and (level := sandbox.run("pass", unsafe=True).level) not in sandbox.SAFE:
        why = f"the sandbox only reaches {level!r} here; --unsafe runs the model's code all the same"
    if why := runtime.broadcast_object(rt, why):
        return None, why
    task = task or row.make("test")
    task.unsafe = unsafe
    return task, ""


def table(scores):
    lines = [f"{'task':<28} {'score':>7} {'95 % interval':>15} {'chance':>7} {'n':>6}"]
    for score in scores:
        interval = " - ".join(f"{end:.1%}" for end in score.ci95)
        lines.append(f"{score.name:<28} {score.score:>7.1%} {interval:>15} {score.chance:>7.1%} {score.n:>6,}")
    return "\n".join(lines)


def main(argv=None):
    config = parse(Config, argv, __doc__)
    if config.compare:
        return print(chat_eval.compare(config.compare.split(","), config.names()))
    if config.show:
        stage, _, name = config.show.partition("_")
        items = chat_eval.load_items(stage, name)
        return print("\n\n".join(chat_eval.item_text(r) for r in items if not (config.wrong and all(r["verdicts"]))))
    rt = runtime.init(config.device)
    setup_logging(rt.rank)
    start = time.monotonic()
    model, tokenizer, meta = load_model(config.stage, rt, config.tag, config.step)
    names, notes = choose(config, meta)
    scores, hub_fails = [], False
    for name in names:
        task, why = make_task(name, rt, hub_fails, config.unsafe)
        if task is None:
            hub_fails = not config.tasks  # a hub that cannot be reached costs half a minute each time
            notes.append(f"skipped: {name}: {why}")
            log.info(notes[-1])
            continue
        score, records = chat_eval.run_task(task, model, tokenizer, rt, config)
        scores.append(score)
        if config.pass_k > 1:
            found = [v for record in records for v in record["verdicts"]]
            once = sum(found) / max(len(found), 1)
            notes.append(f"{name}: pass@{config.pass_k} {score.score:.1%}, pass@1 {once:.1%}")
        if cut := sum(record["cut"] for record in records):
            notes.append(f"{name}: {cut} of {score.n} prompts were too long for the model and lost their beginning")
        if rt.rank == 0:
            chat_eval.save_items(config.stage, name, records, config.tag)
    if rt.rank == 0:
        tasks = {s.name: {"score": s.score, "n": s.n, "chance": s.chance, "centered": s.centered, "ci95": list(s.ci95),
                          **{key: getattr(TASKS[s.name], key) for key in ("kind", "group", "title")}} for s in scores}
        core = {name: found for name, found in tasks.items() if found["group"] == "core"}
        chatcore, interval = mean_centered(core.values()) if core else (None, None)
        metrics = {"tasks": tasks, "chatcore": chatcore, "chatcore_ci95": interval, "chatcore_tasks": list(core)}
        save_result(f"chat_eval_{config.stage}", metrics=metrics, config=asdict(config), device=str(rt),
                    wall_s=time.monotonic() - start, notes=notes)
        log.info("\n".join([table(scores), *notes]))
        log.info(f"ChatCORE {'not measured' if chatcore is None else f'{chatcore:.4f}'} over {len(core)} core tasks | "
                 f"graded questions in {base_dir() / 'report' / 'items'}")
    runtime.close(rt)


if __name__ == "__main__":
    run(main)
