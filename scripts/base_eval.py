"""
CORE of the base model: 22 few-shot tasks (DCLM, arXiv 2406.11794), 0 is blind guessing and 1 perfect.

    python -m scripts.base_eval --download                    with the evaluation bundle (162 MB unpacked)
    python -m scripts.base_eval --overlap='climbmix|gsm8k'    how many test questions stand in these

Every graded question is kept under "core", or "core@TAG" with --tag, for scripts.chat_eval: --show=core_hellaswag,
--compare=core@d4,core@d6.
"""
import itertools
import shutil
import tempfile
import time
import urllib.request
import zipfile
from dataclasses import asdict, dataclass

from nanochat import runtime
from nanochat.cli import at_least, option, parse
from nanochat.common import DataError, Progress, atomic_dir, base_dir, log, run, save_result, setup_logging
from nanochat.data.chat_format import message_parts
from nanochat.data.datasets import DATASETS, iter_texts, shards
from nanochat.eval import chat_eval, core_eval, overlap
from nanochat.tasks import TASKS, in_group, training_conversations
from nanochat.train.checkpoint import ModelFlags, find, load_model

URL = "https://karpathy-public.s3.us-west-2.amazonaws.com/eval_bundle.zip"


@dataclass
class Config(ModelFlags):
    max_per_task: int = option(0, "examples a task, a fixed random sample; 0 for all")
    batch_tokens: int = option(0, "computed in a batch, lower it when memory runs out; 0: 1,024 on a CPU, else 16,384")
    control: bool = option(False, "put another question before each answer; the scores must fall to chance")
    overlap: str = option("", "training texts to look for test questions in: data sets, folders, tasks, joined by '|'")
    download: bool = option(False, "fetch the evaluation bundle when it is not here")

    def __post_init__(self):
        at_least(self, max_per_task=0, batch_tokens=0)


def bundle_dir():
    return base_dir() / "eval_bundle"


def download():
    log.info(f"fetching {URL}")
    try:
        with tempfile.TemporaryFile() as archive:
            with urllib.request.urlopen(URL, timeout=30) as response:
                shutil.copyfileobj(response, archive)
            with zipfile.ZipFile(archive) as zipped, atomic_dir(bundle_dir()) as tmp:
                zipped.extractall(tmp)
                for path in (tmp / "eval_bundle").iterdir():  # its one folder is the bundle
                    path.rename(tmp / path.name)
                (tmp / "eval_bundle").rmdir()
    except (OSError, zipfile.BadZipFile) as e:
        raise DataError(f"the evaluation bundle cannot be fetched from {URL}: {e}. Unpack a copy of it into "
                        f"{base_dir()}, or leave --download away.") from None


def evaluate(config, rt):
    model, tokenizer, _ = load_model("base", rt, config.tag, config.step)
    tasks, results, gpt2 = core_eval.load_bundle(bundle_dir()), {}, core_eval.gpt2()
    total = sum(min(config.max_per_task or 10**9, len(core_eval.read_examples(task.path))) for task in tasks)
    progress = Progress(-(-total // rt.world_size), "CORE")
    for task in tasks:
        found, records = core_eval.run_core_task(
            task, model, tokenizer, rt, max_items=config.max_per_task, batch_tokens=config.batch_tokens,
            progress=progress, control=config.control)
        results[task.label] = found
        if rt.rank == 0:
            chat_eval.save_items("control" if config.control else "core", task.label, records, config.tag)
        low, high = found["ci95"]
        log.info(f"{task.label:<34} {found['accuracy']:6.1%} ({low:.1%} to {high:.1%}) of {found['n']:,} | chance "
                 f"{task.chance:.1%} | centred {found['centered']:+.4f} | GPT-2 {gpt2.get(task.label, '')}")
    progress.close()
    core, (low, high) = core_eval.mean_centered(results.values())
    log.info(f"CORE {core:.4f} ({low:.4f} to {high:.4f}) | GPT-2 {gpt2['CORE']}")
    above = ", ".join(label for label, found in results.items() if found["ci95"][0] > found["chance"])
    notes = ["a control: each answer stood behind another question"] if config.control else []
    notes.append(f"above chance beyond the interval: {above or 'no task'}")
    if cut := ", ".join(f"{label} {found['cut']}" for label, found in results.items() if found["cut"]):
        notes.append(f"prompts too long for the model, cut on the left: {cut}")
    if config.max_per_task:
        notes.append(f"a sample of at most {config.max_per_task} examples a task")
    return {"core": core, "core_ci95": [low, high], "tasks": results, "gpt2": gpt2}, notes


def words_of(conversation):
    """All that is said in a conversation, or a document {"text": ...}."""
    messages = conversation.get("messages") or [{"content": conversation["text"]}]
    return " ".join(part["text"] for message in messages for part in message_parts(message))


def count_overlap(sources):
    """({test: [questions found, questions in all]}, note) for the tests that are here."""
    tests = {}
    for task in core_eval.load_bundle(bundle_dir()) if bundle_dir().exists() else []:
        tests[task.label] = [" ".join(core_eval.options(task, example)[example.get("gold", 0)])
                             for example in core_eval.read_examples(task.path)]
    for name in in_group("core"):
        if TASKS[name].source and TASKS[name].is_local():
            tests[f"chat {name}"] = map(words_of, TASKS[name].make("test"))
    texts = [iter_texts(shards(name, "train")) if name in DATASETS or "/" in name
             else map(words_of, training_conversations(name)) for name in sources.split("|")]
    found = overlap.overlap(itertools.chain(*texts), tests)
    told = ", ".join(f"{name} {hits:,} of {n:,}" for name, (hits, n) in found.items() if hits)
    return found, f"test questions with {overlap.N} words in a row that stand in {sources}: {told or 'none'}"


def main(argv=None):
    config = parse(Config, argv, __doc__)
    rt = runtime.init(config.device)
    setup_logging(rt.rank)
    start = time.monotonic()
    find("base", config.tag, config.step)  # no model is an error also where nothing would be asked
    if rt.rank == 0 and config.download and not bundle_dir().exists():
        download()
    runtime.barrier(rt)
    if bundle_dir().exists():
        metrics, notes = evaluate(config, rt)
    else:
        metrics = {"core": None, "tasks": {}}
        notes = [f"skipped: the evaluation bundle is not in {bundle_dir()}. "
                 "Get it with: python -m scripts.base_eval --download"]
    if rt.rank == 0:
        if config.overlap:
            metrics["overlap"], note = count_overlap(config.overlap)
            notes.append(note)
        save_result("base_eval" + "_control" * config.control, metrics=metrics, config=asdict(config), device=str(rt),
                    wall_s=time.monotonic() - start, notes=notes)
        log.info("\n".join(notes))
    runtime.close(rt)


if __name__ == "__main__":
    run(main)
