"""
Checkpoints: atomic, versioned, independent of the number of ranks, safetensors and JSON only (never pickle).

<base>/<stage>_checkpoints/<tag>/<step>/ holds model.safetensors (the float32 masters), optim.safetensors (the
optimizer's averages), and meta.json with the SHA-256 of all three. Tensors are saved whole under their
parameters' names, not as the ranks share them, so another number of GPUs can go on. A folder gets its name
only when it is complete; whoever is killed in the middle leaves a hidden temporary one, which `sweep`
removes. Pickle would run whatever code a downloaded file holds.
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
import torch
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
from nanochat.runtime import Runtime
from nanochat.train.stages import CHAT_STAGES, STAGES

FORMAT = 1
Tensors = dict[str, torch.Tensor]


@dataclass
class ModelFlags:
    """Flags of a script that takes a trained model."""

    device: str = option("", "cuda, mps, xpu or cpu; empty: the best there is")
    tag: str = option("", "model tag; empty: the newest")
    step: int | None = option(None, "checkpoint step; empty: the newest")


def source_flag() -> str:
    """The flag -i of scripts that talk to a model."""
    latest = ", ".join(CHAT_STAGES)
    return option("", f"stage of the model; empty: the latest of {latest}", short="i", choices=("", *STAGES))


# ---- names
def stage_dir(stage: str) -> Path:
    """The folder of a stage's tags."""
    return base_dir() / STAGES[stage].folder


def step_dir(folder: Path, step: int) -> Path:
    """The folder of a step's checkpoint in its tag's."""
    return Path(folder) / f"{step:06d}"


def steps_in(folder: Path) -> list[int]:
    """Steps of the whole checkpoints in a tag's folder, ascending as numbers: 1000000 comes after 999999."""
    names = [path.parent.name for path in Path(folder).glob("*/meta.json")]
    return sorted(int(name) for name in names if name.isdigit())


def newest_tag(stage: str) -> str | None:
    """The one written to last, or None."""
    written = {}
    for folder in stage_dir(stage).glob("*"):
        steps = steps_in(folder)
        if steps:
            written[folder.name] = step_dir(folder, steps[-1]).stat().st_mtime
    return max(written, key=lambda name: written[name], default=None)


def newest_chat_stage() -> str:
    """The latest stage with a model that one can talk to; "sft" where there is none yet, to be named in the
    error.
    """
    for stage in CHAT_STAGES:
        if newest_tag(stage):
            return stage
    return "sft"


def find(stage: str, tag: str | None = None, step: int | None = None) -> Path:
    """A checkpoint's folder, by default the newest tag's newest step. Raises MissingArtifact."""
    folder = stage_dir(stage) / (tag or newest_tag(stage) or "")
    steps = steps_in(folder)
    wanted = step
    if step is None and steps:
        wanted = steps[-1]
    if wanted not in steps:
        what = f"the {stage} model"
        if step is not None:
            what += f" at step {step}"
        raise MissingArtifact(what, folder, f"python -m scripts.{STAGES[stage].script}")
    return step_dir(folder, wanted)


# ---- writing
def _seal(meta):
    """The digest of meta.json's own contents, which it carries itself."""
    body = {key: value for key, value in meta.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode("utf-8")).hexdigest()


def save(folder: Path, step: int, masters: Tensors, optim_state: Tensors | None, meta: dict,
         keep: int = 2) -> None:
    """Write a checkpoint, then drop all but the newest `keep` (0: none) and that of `best_step`. Raises
    NanochatError.

    meta["val"]: the validation loss at this step, if any.
    """
    folder = Path(folder)
    try:
        with atomic_dir(step_dir(folder, step)) as tmp:
            _save_tensors(masters, tmp / "model.safetensors")
            if optim_state is not None:
                _save_tensors(optim_state, tmp / "optim.safetensors")
            meta = dict(meta)
            meta["format"] = FORMAT
            meta["step"] = step
            meta["commit"] = git_commit()
            meta["versions"] = versions()
            meta["files"] = {path.name: sha256(path) for path in sorted(tmp.glob("*.safetensors"))}
            write_json(tmp / "meta.json", {**meta, "sha256": _seal(meta)})
        _drop_old(folder, step, keep)
    except (OSError, safetensors.SafetensorError) as error:  # a full disk, for example
        raise NanochatError(f"cannot write a checkpoint to {folder}: {error}. The checkpoints before it are "
                            "whole; mend this, then run the same command to go on from there.") from None


def _save_tensors(tensors, path):
    save_file({name: tensor.contiguous().cpu() for name, tensor in tensors.items()}, path)


def _drop_old(folder, step, keep):
    """Later steps do not count: the run went on from before them, so they are damaged."""
    best = best_step(folder)
    earlier = [found for found in steps_in(folder) if found <= step]
    for old in earlier[:-keep]:  # keep=0: [:0], nothing
        if old != best:
            gone = folder / f".{old:06d}.{os.getpid()}.tmp"  # its name is never that of a part
            os.rename(step_dir(folder, old), gone)
            shutil.rmtree(gone)


def best_step(folder: Path) -> int | None:
    """The step with the lowest validation loss, or None where none was validated."""
    losses = {}
    for step in steps_in(folder):
        with contextlib.suppress(CheckpointError):
            loss = read_meta(step_dir(folder, step)).get("val")
            if loss is not None:
                losses[step] = loss
    return min(losses, key=lambda step: losses[step], default=None)


def sweep(folder: Path) -> None:
    """Remove what a killed run left, give back what was being replaced. Only with the folder's lock."""
    for path in Path(folder).glob(".*"):
        name = path.name[1:].partition(".")[0]  # .<step>.<process>.tmp or .old
        kept = path.with_name(name)
        is_whole = (path / "meta.json").exists()
        if path.suffix == ".old" and is_whole and not kept.exists():
            os.rename(path, kept)
        elif path.suffix in (".old", ".tmp"):
            shutil.rmtree(path)


class Writer:
    """Writes on a thread while training goes on; leaving its block waits for the last write.

    One checkpoint at a time: a second one waits for the first, so that memory holds at most one copy.
    """

    def __init__(self):
        self._pool = ThreadPoolExecutor(1, "checkpoint")
        self._pending = None

    def save(self, folder: Path, step: int, masters: Tensors, optim_state: Tensors | None, meta: dict,
             keep: int = 2) -> None:
        """`save` of copies made here, since the next step changes the tensors. Raises the error of the write
        before.
        """
        self.wait()
        optim_copy = None if optim_state is None else _copy(optim_state)
        self._pending = self._pool.submit(save, folder, step, _copy(masters), optim_copy, meta, keep)

    def wait(self) -> None:
        """Until the write is done. Raises its error."""
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
        if failed and failed is not error:  # another error is already on its way
            log.warning(str(failed))


def _copy(tensors):
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}


# ---- reading
def read_meta(folder: Path) -> dict:
    """A checkpoint's meta.json. Raises CheckpointError."""
    path = Path(folder) / "meta.json"
    try:
        meta = read_json(path)
    except DataError as error:
        raise CheckpointError(str(error)) from None
    if not isinstance(meta, dict) or meta.get("sha256") != _seal(meta):
        raise CheckpointError(f"{path} is damaged: its contents do not match its own digest.")
    if meta["format"] > FORMAT:
        raise CheckpointError(f"{path} has format {meta['format']}, this code reads up to {FORMAT}: "
                              "update the code.")
    return meta


def _tensors(folder, name, meta):
    path = Path(folder) / name
    if name not in meta["files"]:
        raise CheckpointError(f"{folder} holds no {name}: this run cannot be continued from there.")
    try:
        if sha256(path) != meta["files"][name]:
            raise CheckpointError(f"{path} is damaged: its bytes do not match the digest in meta.json.")
        return load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"cannot read {path}: {error}") from None


def load(folder: Path, with_optim: bool = False) -> tuple[Tensors, Tensors | None, dict]:
    """(masters, optimizer state or None, meta). Raises CheckpointError."""
    meta = read_meta(folder)
    optim_state = _tensors(folder, "optim.safetensors", meta) if with_optim else None
    return _tensors(folder, "model.safetensors", meta), optim_state, meta


def newest_whole(folder: Path, with_optim: bool = False) -> tuple[Tensors, Tensors | None, dict] | None:
    """`load` of the newest whole checkpoint, or None."""
    for step in reversed(steps_in(folder)):
        try:
            return load(step_dir(folder, step), with_optim)
        except CheckpointError as error:
            log.warning(f"passing over checkpoint {step}: {error}")
    return None


def load_model(stage: str, rt: Runtime, tag: str | None = None,
               step: int | None = None) -> tuple[GPT, Tokenizer, dict]:
    """(model, tokenizer, meta): the model in evaluation mode, in rt.dtype, on rt.device.

    Without a step, a damaged newest checkpoint falls back to the one before it. Raises MissingArtifact, and
    CheckpointError where nothing is whole or the tokenizer is another: token 500 would then be another word.
    """
    path = find(stage, tag, step)
    again = f"Train the stage again: python -m scripts.{STAGES[stage].script} --fresh"
    found = load(path) if step is not None else newest_whole(path.parent)
    if found is None:
        raise CheckpointError(f"no whole checkpoint under {path.parent}. {again}")
    masters, _, meta = found
    tokenizer = Tokenizer.load()
    if tokenizer.hash != meta["tokenizer"]:
        raise CheckpointError(f"{path} was trained with tokenizer {meta['tokenizer']}, but "
                              f"{base_dir() / 'tokenizer'} holds {tokenizer.hash}. {again}")
    model = GPT(GPTConfig(**meta["model"]), rt.dtype).to(rt.device)
    model.load_state_dict(masters)
    return model.requires_grad_(False).eval(), tokenizer, meta
