"""
CORE of the base model: 22 few-shot tasks (DCLM, arXiv 2406.11794), 0 is blind guessing and 1 perfect.

    python -m scripts.base_eval                        when the evaluation bundle is in the base directory
    python -m scripts.base_eval --download             fetch it first (162 MB unpacked)
    python -m scripts.base_eval --max_per_task=500     a sample, for a quick look
    torchrun --standalone --nproc_per_node=8 -m scripts.base_eval

Without the bundle the result says that CORE was skipped and how to get it; that is no error. GPT-2 in its four sizes
scores 0.114, 0.185, 0.215 and 0.257.
"""
import shutil
import time
import urllib.request
import zipfile
from dataclasses import asdict, dataclass

from nanochat import core_eval, runtime
from nanochat.checkpoint import find, load_model
from nanochat.cli import option, parse
from nanochat.common import (DataError, Progress, UsageError, atomic_dir, atomic_file, base_dir, log, run, save_result,
                             setup_logging)

URL = "https://karpathy-public.s3.us-west-2.amazonaws.com/eval_bundle.zip"


@dataclass
class Config:
    max_per_task: int = option(0, "examples a task, a fixed random sample; 0 for all")
    batch_tokens: int = option(4096, "computed in a batch; lower it when memory runs out")
    download: bool = option(False, "fetch the evaluation bundle when it is not here")
    device: str = option("", "cuda, mps or cpu; empty: the best there is")
    tag: str | None = option(None, "model tag; empty: the newest")
    step: int | None = option(None, "checkpoint step; empty: the newest")

    def __post_init__(self):
        if self.max_per_task < 0 or self.batch_tokens < 1:
            raise UsageError("--max_per_task wants 0 or more, --batch_tokens 1 or more.")


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


def evaluate(config, rt):
    """(metrics, notes) of the newest base model on the bundle."""
    model, tokenizer, _ = load_model("base", rt, config.tag, config.step)
    tasks, results = core_eval.load_bundle(bundle_dir()), {}
    total = sum(min(config.max_per_task or 10**9, len(core_eval.read_examples(task.path))) for task in tasks)
    progress = Progress(-(-total // rt.world_size), "CORE")
    for task in tasks:
        found = core_eval.run_core_task(task, model, tokenizer, rt, max_items=config.max_per_task,
                                        batch_tokens=config.batch_tokens, progress=progress)
        results[task.label] = found
        log.info(f"{task.label:<34} {found['accuracy']:.4f} of {found['n']:,} | centred {found['centered']:+.4f}")
    progress.close()
    core = sum(found["centered"] for found in results.values()) / len(results)
    log.info(f"CORE {core:.4f}")
    cut = ", ".join(f"{label} {found['cut']}" for label, found in results.items() if found["cut"])
    notes = [f"prompts too long for the model, cut on the left: {cut}"] if cut else []
    if config.max_per_task:
        notes.append(f"a sample of at most {config.max_per_task} examples a task")
    return {"core": core, "tasks": results}, notes


def main(argv=None):
    config = parse(Config, argv, __doc__)
    rt = runtime.init(config.device)
    setup_logging(rt.rank)
    start = time.monotonic()
    find("base", config.tag, config.step)     # no model is an error also where there would be nothing to ask it
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
        save_result("base_eval", metrics=metrics, config=asdict(config), device=str(rt),
                    wall_s=time.monotonic() - start, notes=notes)
        for note in notes:
            log.info(note)
    runtime.close(rt)


if __name__ == "__main__":
    run(main)
