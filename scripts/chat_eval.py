"""
Ask a chat model the questions of the tasks; scores with intervals, beside blind guessing's.

    python -m scripts.chat_eval -i rl -a 'gsm8k|arc_easy'    fetches their data when they are not here
    python -m scripts.chat_eval --show=sft_kg_story --wrong
    python -m scripts.chat_eval --compare=sft,rl
"""
import contextlib
import time
from dataclasses import asdict, dataclass

from nanochat import runtime, scaling
from nanochat.cli import at_least, option, parse
from nanochat.common import (
    DataError,
    MissingArtifact,
    UsageError,
    base_dir,
    log,
    run,
    save_result,
    setup_logging,
)
from nanochat.eval import chat_eval, records
from nanochat.eval.chat_eval import Score
from nanochat.eval.statistics import mean_centered
from nanochat.infer import sandbox
from nanochat.report.results import load_results, scores_of
from nanochat.runtime import Runtime
from nanochat.tasks import TASKS, TaskUnavailable, everyday_tasks, in_group, lookup
from nanochat.tasks.base import Task
from nanochat.tasks.persona import Persona
from nanochat.train.checkpoint import ModelFlags, load_model
from nanochat.train.stages import STAGES


@dataclass
class Config(chat_eval.Options, ModelFlags):
    stage: str = option("sft", "which model", choices=list(STAGES), short="i")
    tasks: str = option("", "names joined by '|'; empty: every core task and strangers; for a small model "
                            "also what it was taught; for a kindergarten model all skills and those core "
                            "tasks whose data are here", short="a")
    compare: str = option("", "two stages, as in sft,rl or core@d4,core@d6: only print how their scores "
                              "differ")
    show: str = option("", "stage and task, as in sft_kg_story: only print its graded questions")
    wrong: bool = option(False, "--show those with a wrong reply")
    unsafe: bool = option(False, "run the model's code also where the sandbox cannot keep it from the files "
                                  "here")

    def __post_init__(self):
        at_least(self, max_problems=0, batch_size=1, max_new_tokens=0, batch_tokens=0)
        for name in self.names():
            if lookup(name).kind == "conversations":
                raise UsageError(f"{name} is for training; there is nothing to grade.")

    def names(self) -> list[str]:
        """The tasks that were asked for by name."""
        return [name.strip().lower() for name in self.tasks.split("|") if name.strip()]


# ---- which tasks
def choose(config: Config, meta: dict) -> tuple[list[str], list[str]]:
    """(names of the tasks to run, notes on the others), of a model with this meta.json."""
    if config.names():
        return config.names(), []
    core = in_group("core")
    if meta["dataset"] != "kindergarten":
        is_small = meta["model"]["n_layer"] < scaling.SMALL
        return core + in_group("strangers") + (everyday_tasks() if is_small else []), []
    names = in_group("kindergarten") + in_group("strangers")
    notes = []
    for name in core:
        row = TASKS[name]
        if row.source and row.is_local():
            names.append(name)
        else:
            data = ", its data are not here" if row.source else ""
            notes.append(f"skipped: {name}: not part of the kindergarten{data}; -a {name} runs it")
    return names, notes


def make_task(name: str, rt: Runtime, hub_fails: bool = False,
              unsafe: bool = False) -> tuple[Task | None, str]:
    """(task, "") or (None, why not). Every rank must call; rank 0 fetches the data, once.

    With `hub_fails` nothing is fetched: a hub that cannot be reached costs half a minute each time.
    """
    row = TASKS[name]
    task = None
    why = ""
    if rt.rank == 0:
        task, why = _fetched(name, row, hub_fails)
        if task and task.runs_code and not unsafe:
            level = sandbox.run_code("pass", unsafe=True).level
            if level not in sandbox.SAFE:
                why = f"the sandbox only reaches {level!r} here; --unsafe runs the model's code all the same"
    why = runtime.broadcast_object(rt, why)
    if why:
        return None, why
    task = task or row.make("test")
    task.unsafe = unsafe
    return task, ""


def _fetched(name, row, hub_fails):
    """(task, "") or (None, why not)."""
    if hub_fails and not row.is_local():
        return None, f"its data are not here and an earlier fetch failed; -a {name} tries this one alone"
    try:
        return row.make("test"), ""
    except TaskUnavailable as e:
        return None, str(e)


# ---- how they went
def table(scores: list[Score]) -> str:
    """The scores for the terminal."""
    lines = [f"{'task':<28} {'score':>7} {'95 % interval':>15} {'chance':>7} {'n':>6}"]
    for score in scores:
        low, high = score.ci95
        interval = f"{low:.1%} - {high:.1%}"
        lines.append(f"{score.name:<28} {score.score:>7.1%} {interval:>15} "
                     f"{score.chance:>7.1%} {score.n:>6,}")
    return "\n".join(lines)


def earlier(config: Config, meta: dict) -> dict | None:
    """The result of the evaluation before this one, if it was of this very checkpoint."""
    with contextlib.suppress(MissingArtifact, DataError):
        results = load_results()
        if scores_of(config.stage, meta, results):
            return results[f"chat_eval_{config.stage}"]
    return None


def metrics_of(scores: list[Score], kept: dict[str, dict]) -> dict:
    """What the report reads: each task, those `kept` from before too, and ChatCORE, the mean of the core
    tasks' centred scores."""
    tasks = dict(kept)
    for score in scores:
        row = TASKS[score.name]
        tasks[score.name] = {
            "score": score.score, "n": score.n, "chance": score.chance, "centered": score.centered,
            "ci95": list(score.ci95), "kind": row.kind, "group": row.group, "title": row.title}
    core = {name: found for name, found in tasks.items() if found["group"] == "core"}
    chatcore = None
    interval = None
    if core:
        chatcore, interval = mean_centered(core.values())
    return {"tasks": tasks, "chatcore": chatcore, "chatcore_ci95": interval, "chatcore_tasks": list(core)}


def show(config: Config) -> None:
    """Print the kept records that --show names."""
    stage, _, name = config.show.partition("_")
    shown = []
    for record in records.load_items(stage, name):
        if not config.wrong or not all(record["verdicts"]):
            shown.append(records.item_text(record))
    print("\n\n".join(shown))


def evaluate(config: Config, rt: Runtime) -> None:
    """Run the tasks and save what came out. Every rank must call."""
    start = time.monotonic()
    model, tokenizer, meta = load_model(config.stage, rt, config.tag, config.step)
    names, notes = choose(config, meta)
    scores = []
    hub_fails = False
    for name in names:
        task, why = make_task(name, rt, hub_fails, config.unsafe)
        if task is None:
            hub_fails = not config.tasks
            notes.append(f"skipped: {name}: {why}")
            log.info(notes[-1])
            continue
        task.persona = Persona(**meta.get("persona", {}))
        score, graded = chat_eval.run_task(task, model, tokenizer, rt, config)
        scores.append(score)
        cut = sum(record["cut"] for record in graded)
        if cut:
            notes.append(f"{name}: {cut} of {score.n} prompts were too long for the model and lost their "
                         "beginning")
        if rt.rank == 0:
            log.info(f"{name}: {score.score:.1%} of {score.n:,}")  # before it is saved, which may fail
            records.save_items(config.stage, name, graded, config.tag)
    if rt.rank == 0:
        log.info("\n".join([table(scores), *notes]))
        before = earlier(config, meta) if config.tasks else None
        if before:  # some tasks were asked once more; the others stay, and what was noted on them
            notes += [note for note in before["notes"] if not any(f"{name}: " in note for name in names)]
        metrics = metrics_of(scores, before["metrics"]["tasks"] if before else {})
        metrics["weights"] = meta["files"]["model.safetensors"]  # whose scores they are
        chatcore = metrics["chatcore"]
        told = "not measured" if chatcore is None else f"{chatcore:.4f}"
        log.info(f"ChatCORE {told} over {len(metrics['chatcore_tasks'])} core tasks | "
                 f"graded questions in {base_dir() / 'report' / 'items'}")
        save_result(f"chat_eval_{config.stage}", metrics=metrics, config=asdict(config), device=str(rt),
                    wall_s=time.monotonic() - start, notes=notes)


def main(argv: list[str] | None = None) -> None:
    config = parse(Config, argv, __doc__)
    if config.compare:
        print(records.compare(config.compare.split(","), config.names()))
        return
    if config.show:
        show(config)
        return
    rt = runtime.init(config.device)
    setup_logging(rt.rank)
    evaluate(config, rt)
    runtime.close(rt)


if __name__ == "__main__":
    run(main)
