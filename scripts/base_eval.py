"""
CORE of the base model: 22 few-shot tasks (DCLM, arXiv 2406.11794), 0 is blind guessing and 1 perfect.

    python -m scripts.base_eval                        when the evaluation bundle is in the base directory
    python -m scripts.base_eval --download             fetch it first (162 MB unpacked)
    python -m scripts.base_eval --max_per_task=500     a sample, for a quick look
    python -m scripts.base_eval --tag=d4,d6            models side by side, and how the last differs from the first
    python -m scripts.base_eval --control              and once more with exchanged questions: must fall to chance
    python -m scripts.base_eval --overlap='climbmix|gsm8k'     and how many test questions stand in these
    torchrun --standalone --nproc_per_node=8 -m scripts.base_eval

Without the bundle the result says that CORE was skipped and how to get it; that is no error. Every graded question is
kept: python -m scripts.chat_eval --show=core_hellaswag, or core@TAG_hellaswag for a model that was named.
"""
import shutil
import time
import urllib.request
import zipfile
from dataclasses import asdict, dataclass

from nanochat import chat_eval, core_eval, overlap, runtime
from nanochat.checkpoint import find, load_model
from nanochat.cli import option, parse
from nanochat.common import (DataError, Progress, UsageError, atomic_dir, atomic_file, base_dir, log, run, save_result,
                             setup_logging)
from nanochat.dataset import DATASETS, iter_texts, shards
from nanochat.tasks import TASKS, training_conversations
from nanochat.tasks.base import message_parts

URL = "https://karpathy-public.s3.us-west-2.amazonaws.com/eval_bundle.zip"


@dataclass
class Config:
    max_per_task: int = option(0, "examples a task, a fixed random sample; 0 for all")
    batch_tokens: int = option(0, "computed in a batch, lower it when memory runs out; 0: 1,024 on a CPU, else 16,384")
    control: bool = option(False, "score each task once more with other questions' texts before the answers")
    overlap: str = option("", "training texts to look for test questions in: data sets, folders, tasks, joined by '|'")
    download: bool = option(False, "fetch the evaluation bundle when it is not here")
    device: str = option("", "cuda, mps or cpu; empty: the best there is")
    tag: str | None = option(None, "model tag, or several joined by ','; empty: the newest")
    step: int | None = option(None, "checkpoint step; empty: the newest")

    def __post_init__(self):
        if self.max_per_task < 0 or self.batch_tokens < 0:
            raise UsageError("--max_per_task and --batch_tokens want 0 or more.")


def bundle_dir():
    return base_dir() / "eval_bundle"


def download():
    """Fetch and unpack the bundle; it appears under its name only when whole. Raises DataError."""
    archive = base_dir() / "eval_bundle.zip"
    log.info(f"fetching {URL}")
    try:
        with urllib.request.urlopen(URL, timeout=30) as response, atomic_file(archive) as tmp, open(tmp, "wb") as f:
            shutil.copyfileobj(response, f)
        with zipfile.ZipFile(archive) as zipped, atomic_dir(bundle_dir()) as tmp:
            zipped.extractall(tmp)
            for path in (tmp / "eval_bundle").iterdir():       # the archive holds one folder, which is the bundle
                path.rename(tmp / path.name)
            (tmp / "eval_bundle").rmdir()
    except (OSError, zipfile.BadZipFile) as e:
        raise DataError(f"the evaluation bundle cannot be fetched from {URL}: {e}. Unpack a copy of it into "
                        f"{base_dir()}, or leave --download away.") from None
    finally:
        archive.unlink(missing_ok=True)


def score(config, model, tokenizer, rt, control=False):
    """({"core", "core_ci95", "tasks"}, {task: records}) of a model; None where there are no tasks."""
    tasks, results, records = core_eval.load_bundle(bundle_dir()), {}, {}
    total = sum(min(config.max_per_task or 10**9, len(core_eval.read_examples(task.path))) for task in tasks)
    what = "control" if control else "CORE"
    progress = Progress(-(-total // rt.world_size), what)
    for task in tasks:
        found, records[task.label] = core_eval.run_core_task(
            task, model, tokenizer, rt, max_items=config.max_per_task, batch_tokens=config.batch_tokens,
            progress=progress, control=control)
        results[task.label] = found
        low, high = found["ci95"]
        log.info(f"{task.label:<34} {found['accuracy']:6.1%} ({low:.1%} to {high:.1%}) of {found['n']:,} | chance "
                 f"{task.chance:.1%} | centred {found['centered']:+.4f} | GPT-2 {scale(task.label)}")
    progress.close()
    core, ci95 = core_eval.mean_centered(list(results.values()))
    log.info(f"{what} {core:.4f} ({ci95[0]:.4f} to {ci95[1]:.4f}) | GPT-2 {scale('CORE')} %")
    return {"core": core, "core_ci95": ci95, "tasks": results}, records


def scale(label):
    return " ".join(map(str, core_eval.GPT2.get(label, ())))


def evaluate(config, rt, tag):
    """(metrics, notes, records) of a base model on the bundle."""
    model, tokenizer, _ = load_model("base", rt, tag, config.step)
    metrics, records = score(config, model, tokenizer, rt)
    cut = ", ".join(f"{label} {found['cut']}" for label, found in metrics["tasks"].items() if found["cut"])
    notes = [f"prompts too long for the model, cut on the left: {cut}"] if cut else []
    if config.max_per_task:
        notes.append(f"a sample of at most {config.max_per_task} examples a task")
    if config.control:
        metrics["control"] = score(config, model, tokenizer, rt, control=True)[0]
        above = [label for label, found in metrics["control"]["tasks"].items() if found["ci95"][0] > found["chance"]]
        notes.append(f"control, each answer behind another question's text: CORE {metrics['control']['core']:.4f}; "
                     f"above chance all the same: {', '.join(above) or 'no task'}")
    if rt.rank == 0:
        for label, found in records.items():
            chat_eval.save_items("core" + (f"@{tag}" if tag else ""), label, found)
    return {**metrics, "gpt2": core_eval.GPT2}, notes, records


def side_by_side(runs):
    """{tag: (metrics, records)} as text: scores with intervals, and the paired difference of the last to the first."""
    (first, old), *_, (_, new) = runs.values()

    def line(name, chance, key, found):
        cells = [f"{100 * f[key]:.1f} +- {100 * max(f[key] - f[ci][0], f[ci][1] - f[key]):.1f}" for f, ci in found]
        return f"{name:<34} {chance:>6}" + "".join(f" {cell:>15}" for cell in cells)
    head = "".join(f" {tag:>15}" for tag in runs)
    lines = [f"{'per cent, 95 % interval':<34} {'chance':>6}{head}  last - first"]
    for label, task in first["tasks"].items():
        n, a, b, half = chat_eval.paired(old[label], new[label])
        found = [(metrics["tasks"][label], "ci95") for metrics, _ in runs.values()]
        scores = line(label, f"{100 * task['chance']:.1f}", "accuracy", found)
        lines.append(f"{scores}  {100 * (b - a):+.1f} +- {100 * half:.1f}, {n:,} items")
    return "\n".join([*lines, line("CORE", 0, "core", [(m, "core_ci95") for m, _ in runs.values()])])


def words_of(conversation):
    return " ".join(part["text"] for message in conversation["messages"] for part in message_parts(message))


def training_texts(name):
    """The texts of a data set, a folder of shards, or the training conversations of a task."""
    if name in DATASETS or "/" in name:
        return iter_texts(shards(name, "train"))
    return map(words_of, training_conversations(name))


def count_overlap(names):
    """({test: (questions found in the training texts, questions looked for)}, note) for all tests that are here."""
    tests = {}
    for task in core_eval.load_bundle(bundle_dir()) if bundle_dir().exists() else []:
        tests[task.label] = [" ".join(core_eval.options(task, example)[example.get("gold", 0)])
                             for example in core_eval.read_examples(task.path)]
    for name, row in TASKS.items():
        if row.group == "core" and row.source and row.is_local():
            tests[f"chat {name}"] = map(words_of, row.make("test"))
    found = overlap.overlap((text for name in names.split("|") for text in training_texts(name)), tests)
    told = ", ".join(f"{name} {hits:,} of {n:,}" for name, (hits, n) in found.items() if hits)
    return found, f"test questions with {overlap.N} words in a row that stand in {names}: {told or 'none'}"


def main(argv=None):
    config = parse(Config, argv, __doc__)
    rt = runtime.init(config.device)
    setup_logging(rt.rank)
    start = time.monotonic()
    tags = config.tag.split(",") if config.tag else [None]
    for tag in tags:
        find("base", tag, config.step)     # no model is an error also where there would be nothing to ask it
    if rt.rank == 0 and config.download and not bundle_dir().exists():
        download()
    runtime.barrier(rt)
    if bundle_dir().exists():
        runs = {tag: evaluate(config, rt, tag) for tag in tags}
        metrics, notes, _ = runs[tags[-1]]
        if len(tags) > 1:
            log.info(side_by_side({tag: (found, records) for tag, (found, _, records) in runs.items()}))
            notes = notes + [f"beside it: {tag}, CORE {runs[tag][0]['core']:.4f}" for tag in tags[:-1]]
    else:
        metrics = {"core": None, "tasks": {}}
        notes = [f"skipped: the evaluation bundle is not in {bundle_dir()}. "
                 "Get it with: python -m scripts.base_eval --download"]
    if rt.rank == 0 and config.overlap:
        metrics["overlap"], note = count_overlap(config.overlap)
        notes = [*notes, note]
    if rt.rank == 0:
        save_result("base_eval", metrics=metrics, config=asdict(config), device=str(rt),
                    wall_s=time.monotonic() - start, notes=notes)
        for note in notes:
            log.info(note)
    runtime.close(rt)


if __name__ == "__main__":
    run(main)
