"""
CORE of the base model: 22 few-shot tasks (DCLM, arXiv 2406.11794), 0 is blind guessing and 1 perfect.

    python -m scripts.base_eval --download                    with the evaluation bundle (162 MB unpacked)
    python -m scripts.base_eval --overlap='climbmix|gsm8k'    how many test questions stand in these

Every graded question is kept under "core", or "core@TAG" with --tag, for scripts.chat_eval:
--show=core_hellaswag, --compare=core@d4,core@d6.
"""
import itertools
import shutil
import tempfile
import time
import urllib.request
import zipfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from nanochat import runtime
from nanochat.cli import at_least, option, parse
from nanochat.common import (
    DataError,
    NanochatError,
    atomic_dir,
    base_dir,
    log,
    run,
    save_result,
    setup_logging,
)
from nanochat.data.chat_format import message_parts
from nanochat.data.datasets import DATASETS, iter_texts, shards
from nanochat.eval.bundle import gpt2, load_bundle, read_examples
from nanochat.eval.core_eval import run_core_task
from nanochat.eval.overlap import RUN_LENGTH, overlap
from nanochat.eval.prompts import options
from nanochat.eval.records import save_items
from nanochat.eval.statistics import mean_centered
from nanochat.runtime import Runtime
from nanochat.tasks import TASKS, in_group, training_conversations
from nanochat.terminal import Progress
from nanochat.train.checkpoint import ModelFlags, find, load_model

URL = "https://karpathy-public.s3.us-west-2.amazonaws.com/eval_bundle.zip"


@dataclass
class Config(ModelFlags):
    max_per_task: int = option(0, "examples a task, a fixed random sample; 0 for all")
    batch_tokens: int = option(0, "computed in a batch, lower it when memory runs out; 0: 1,024 on a CPU, "
                                 "else 16,384")
    overlap: str = option("", "training texts to look for test questions in: data sets, folders, tasks, "
                              "joined by '|'")
    download: bool = option(False, "fetch the evaluation bundle when it is not here")

    def __post_init__(self):
        at_least(self, max_per_task=0, batch_tokens=0)


def bundle_dir() -> Path:
    """Where the evaluation bundle is, or would be."""
    return base_dir() / "eval_bundle"


def download() -> None:
    """Fetch and unpack the evaluation bundle, whole or not at all. Raises DataError; rank 0 only."""
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


# ---- CORE
def evaluate(config: Config, rt: Runtime) -> tuple[dict, list[str]]:
    """(metrics, notes) of the base model on the bundle's tasks. Every rank must call."""
    model, tokenizer, _ = load_model("base", rt, config.tag, config.step)
    tasks = load_bundle(bundle_dir())
    peers = gpt2()
    progress = Progress(_items_of_a_rank(tasks, config, rt), "CORE")
    results = {}
    for task in tasks:
        found, records = run_core_task(
            task, model, tokenizer, rt, max_items=config.max_per_task, batch_tokens=config.batch_tokens,
            progress=progress)
        results[task.label] = found
        low, high = found["ci95"]
        log.info(f"{task.label:<34} {found['accuracy']:6.1%} ({low:.1%} to {high:.1%}) of {found['n']:,} | "
                 f"chance {task.chance:.1%} | centred {found['centered']:+.4f} | "
                 f"GPT-2 {peers.get(task.label, '')}")
        if rt.rank == 0:  # after it is shown: this may fail
            save_items("core", task.label, records, config.tag)
    progress.close()
    core, interval = mean_centered(results.values())
    log.info(f"CORE {core:.4f} ({interval[0]:.4f} to {interval[1]:.4f}) | GPT-2 {peers['CORE']}")
    return {"core": core, "core_ci95": interval, "tasks": results, "gpt2": peers}, _notes(config, results)


def _items_of_a_rank(tasks, config, rt):
    """How many items each rank has to do, for the progress bar."""
    total = 0
    for task in tasks:
        examples = len(read_examples(task.path))
        total += min(config.max_per_task, examples) if config.max_per_task else examples
    return -(-total // rt.world_size)


def _notes(config, results):
    """What a reader of the scores must know."""
    notes = []
    above = [label for label, found in results.items() if found["ci95"][0] > found["chance"]]
    notes.append(f"above chance beyond the interval: {', '.join(above) or 'no task'}")
    cut = [f"{label} {found['cut']}" for label, found in results.items() if found["cut"]]
    if cut:
        notes.append(f"prompts too long for the model, cut on the left: {', '.join(cut)}")
    if config.max_per_task:
        notes.append(f"a sample of at most {config.max_per_task} examples a task")
    return notes


# ---- overlap
def words_of(conversation: dict) -> str:
    """All that is said in a conversation, or a document {"text": ...}."""
    messages = conversation.get("messages") or [{"content": conversation["text"]}]
    texts = []
    for message in messages:
        texts += [part["text"] for part in message_parts(message)]
    return " ".join(texts)


def _questions() -> dict[str, Iterable[str]]:
    """{test: the words of its questions with their answers} of CORE and the chat tasks, as far as they are
    here."""
    tests: dict = {}
    tasks = load_bundle(bundle_dir()) if bundle_dir().exists() else []
    for task in tasks:
        tests[task.label] = []
        for example in read_examples(task.path):
            right = options(task, example)[example.get("gold", 0)]
            tests[task.label].append(" ".join(right))
    for name in in_group("core"):
        if TASKS[name].source and TASKS[name].is_local():
            chats = TASKS[name].make("test")
            tests[f"chat {name}"] = [words_of(chats[i]) for i in range(len(chats))]
    return tests


def count_overlap(sources: str) -> tuple[dict[str, list[int]], str]:
    """({test: [questions found, questions in all]}, note) for the tests that are here and `sources` as in
    --overlap."""
    texts = []
    for name in sources.split("|"):
        if name in DATASETS or "/" in name:
            texts.append(iter_texts(shards(name, "train")))
        else:
            texts.append(map(words_of, training_conversations(name)))
    found = overlap(itertools.chain(*texts), _questions())
    hits = [f"{name} {hit:,} of {total:,}" for name, (hit, total) in found.items() if hit]
    told = ", ".join(hits) or "none"
    return found, f"test questions with {RUN_LENGTH} words in a row that stand in {sources}: {told}"


def main(argv: list[str] | None = None) -> None:
    config = parse(Config, argv, __doc__)
    rt = runtime.init(config.device)
    setup_logging(rt.rank)
    start = time.monotonic()
    find("base", config.tag, config.step)  # no model is an error also where nothing would be asked
    why = (f"the evaluation bundle is not in {bundle_dir()}. Get it with: "
           "python -m scripts.base_eval --download")
    if rt.rank == 0 and config.download and not bundle_dir().exists():
        try:
            download()
        except DataError as error:  # no reason to lose what comes after
            why = str(error)
    runtime.barrier(rt)
    if bundle_dir().exists():
        metrics, notes = evaluate(config, rt)
    else:
        metrics = {"core": None, "tasks": {}}
        notes = [f"skipped: {why}"]
    if rt.rank == 0:
        if config.overlap:
            try:
                metrics["overlap"], note = count_overlap(config.overlap)
            except NanochatError as error:  # no reason to lose what was evaluated
                note = f"skipped: overlap: {error}"
            notes.append(note)
        log.info("\n".join(notes))
        save_result("base_eval", metrics=metrics, config=asdict(config), device=str(rt),
                    wall_s=time.monotonic() - start, notes=notes)
    runtime.close(rt)


if __name__ == "__main__":
    run(main)
