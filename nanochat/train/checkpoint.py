"""
Checkpoints: atomic, versioned, independent of the number of ranks, safetensors and JSON only (never pickle).

<base>/<stage>_checkpoints/<tag>/<step>/ holds model.safetensors (float32 masters), optim.safetensors, and meta.json
with the SHA-256 of all three.
"""
import contextlib
import hashlib
import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import safetensors
from safetensors.torch import load_file, save_file

from nanochat.cli import option
from nanochat.common import (
    CheckpointError,
    DataError,
    MissingArtifact,
    NanochatError,
    atomic_dir,
    base_dir,
    git_commit,
    log,
    read_json,
    sha256,
    versions,
    write_json,
)
from nanochat.data.tokenizer import Tokenizer
from nanochat.model.gpt import GPT, GPTConfig

FORMAT = 1
SCRIPTS = {"base": "base_train", "mid": "mid_train", "sft": "chat_sft", "rl": "chat_rl"}


@dataclass
class ModelFlags:
    device: str = option("", "cuda, mps, xpu or cpu; empty: the best there is")
    tag: str = option("", "model tag; empty: the newest")
    step: int | None = option(None, "checkpoint step; empty: the newest")


def source_flag():
    return option("", "stage of the model; empty: the latest of rl, sft, mid", short="i", choices=("", *SCRIPTS))


def stage_dir(stage) -> Path:
    return base_dir() / f"{stage}_checkpoints"


def steps_in(folder):
    """Steps of the whole checkpoints in a tag's folder, ascending."""
    return sorted(int(p.parent.name) for p in Path(folder).glob("*/meta.json") if p.parent.name.isdigit())


def newest_tag(stage):
    """The one written to last, or None."""
    tags = [p for p in stage_dir(stage).glob("*") if steps_in(p)]
    return max(tags, key=lambda p: (p / f"{steps_in(p)[-1]:06d}").stat().st_mtime).name if tags else None


def newest_chat_stage():
    """The latest stage one can talk to, or "sft"."""
    return next((stage for stage in ("rl", "sft", "mid") if newest_tag(stage)), "sft")


def _seal(meta):
    body = {k: v for k, v in meta.items() if k != "sha256"}
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode("utf-8")).hexdigest()


def save(folder, step, masters, optim_state, meta, keep=2):
    """Write a checkpoint, then drop all but the newest `keep` (0: none) and that of `best_step`. Raises NanochatError.

    meta["val"]: the validation loss at this step, if any.
    """
    folder = Path(folder)
    try:
        with atomic_dir(folder / f"{step:06d}") as tmp:
            for name, tensors in (("model", masters), ("optim", optim_state)):
                if tensors is not None:
                    save_file({k: t.contiguous().cpu() for k, t in tensors.items()}, tmp / f"{name}.safetensors")
            meta = {**meta, "format": FORMAT, "step": step, "commit": git_commit(), "versions": versions(),
                    "files": {p.name: sha256(p) for p in sorted(tmp.glob("*.safetensors"))}}
            write_json(tmp / "meta.json", {**meta, "sha256": _seal(meta)})
        _drop_old(folder, step, keep)
    except (OSError, safetensors.SafetensorError) as e:  # a full disk, for example
        raise NanochatError(f"cannot write a checkpoint to {folder}: {e}. The checkpoints before it are whole; mend "
                            "this, then run the same command to go on from there.") from None


def _drop_old(folder, step, keep):
    """Later steps do not count: the run went on from before them, so they are damaged."""
    best = best_step(folder)
    for old in [s for s in steps_in(folder) if s <= step][:-keep]:
        if old != best:
            gone = folder / f".{old:06d}.{os.getpid()}.tmp"  # its name is never that of a part
            os.rename(folder / f"{old:06d}", gone)
            shutil.rmtree(gone)


def best_step(folder):
    losses = {}
    for step in steps_in(folder):
        with contextlib.suppress(CheckpointError):
            losses[step] = read_meta(Path(folder) / f"{step:06d}").get("val")
    return min((step for step in losses if losses[step] is not None), key=losses.get, default=None)


def sweep(folder):
    """Remove what a killed run left, give back what was being replaced. Only with the folder's lock."""
    for path in Path(folder).glob(".*"):
        kept = path.with_name(path.name[1:].partition(".")[0])
        if path.suffix == ".old" and (path / "meta.json").exists() and not kept.exists():
            os.rename(path, kept)
        elif path.suffix in (".old", ".tmp"):
            shutil.rmtree(path)


class Writer:
    """Writes on a thread; leaving its block waits for the last write."""

    def __init__(self):
        self._pool, self._pending = ThreadPoolExecutor(1, "checkpoint"), None

    def save(self, folder, step, masters, optim_state, meta, keep=2):
        """`save` of copies made here. Raises the error of the write before."""
        self.wait()
        copies = [None if tensors is None else {name: t.detach().to("cpu", copy=True) for name, t in tensors.items()}
                  for tensors in (masters, optim_state)]
        self._pending = self._pool.submit(save, folder, step, *copies, meta, keep)

    def wait(self):
        if self._pending:
            self._pending.result()
        self._pending = None

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        self._pool.shutdown()
        failed = self._pending and self._pending.exception()
        if failed and not error:
            raise failed
        if failed and failed is not error:
            log.warning(str(failed))


def read_meta(folder):
    """Raises CheckpointError."""
    path = Path(folder) / "meta.json"
    try:
        meta = read_json(path)
    except DataError as e:
        raise CheckpointError(str(e)) from None
    if not isinstance(meta, dict) or meta.get("sha256") != _seal(meta):
        raise CheckpointError(f"{path} is damaged: its contents do not match its own digest.")
    if meta["format"] > FORMAT:
        raise CheckpointError(f"{path} has format {meta['format']}, this code reads up to {FORMAT}: update the code.")
    return meta


def _tensors(folder, name, meta):
    path = Path(folder) / name
    if name not in meta["files"]:
        raise CheckpointError(f"{folder} holds no {name}: this run cannot be continued from there.")
    try:
        if sha256(path) != meta["files"][name]:
            raise CheckpointError(f"{path} is damaged: its bytes do not match the digest in meta.json.")
        return load_file(path)
    except (OSError, safetensors.SafetensorError) as e:
        raise CheckpointError(f"cannot read {path}: {e}") from None


def load(folder, with_optim=False):
    """(masters, optimizer state or None, meta). Raises CheckpointError."""
    meta = read_meta(folder)
    optim_state = _tensors(folder, "optim.safetensors", meta) if with_optim else None
    return _tensors(folder, "model.safetensors", meta), optim_state, meta


def newest_whole(folder, with_optim=False):
    """`load` of the newest whole checkpoint, or None."""
    for step in reversed(steps_in(folder)):
        try:
            return load(Path(folder) / f"{step:06d}", with_optim)
        except CheckpointError as e:
            log.warning(f"passing over checkpoint {step}: {e}")


def find(stage, tag=None, step=None) -> Path:
    """A checkpoint's folder, by default the newest tag's newest step. Raises MissingArtifact."""
    folder = stage_dir(stage) / (tag or newest_tag(stage) or "")
    steps = steps_in(folder)
    if not steps or step not in (None, *steps):
        raise MissingArtifact(f"the {stage} model" + (f" at step {step}" if step is not None else ""), folder,
                              f"python -m scripts.{SCRIPTS[stage]}")
    return folder / f"{steps[-1] if step is None else step:06d}"


def load_model(stage, rt, tag=None, step=None):
    """(model, tokenizer, meta): the model in evaluation mode, in rt.dtype, on rt.device.

    Without a step, a damaged newest checkpoint falls back to the one before it.
    """
    path, again = find(stage, tag, step), f"Train the stage again: python -m scripts.{SCRIPTS[stage]} --fresh"
    found = load(path) if step is not None else newest_whole(path.parent)
    if found is None:
        raise CheckpointError(f"no whole checkpoint under {path.parent}. {again}")
    masters, _, meta = found
    tokenizer = Tokenizer.load()
    if tokenizer.hash != meta["tokenizer"]:
        raise CheckpointError(f"{path} was trained with tokenizer {meta['tokenizer']}, but {base_dir() / 'tokenizer'} "
                              f"holds {tokenizer.hash}. {again}")
    model = GPT(GPTConfig(**meta["model"]), rt.dtype).to(rt.device)
    model.load_state_dict(masters)
    return model.requires_grad_(False).eval(), tokenizer, meta
