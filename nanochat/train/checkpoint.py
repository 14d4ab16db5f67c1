"""
Checkpoints: atomic, versioned, independent of the number of ranks, safetensors and JSON only (never pickle).

<base>/<stage>_checkpoints/<tag>/<step>/ holds model.safetensors (the float32 masters), optim.safetensors (the
optimizer's averages), tokenizer.json, without which the ids mean nothing, and meta.json with the SHA-256 of
all four: one folder is a model, wherever it is carried. Only what contradicts its digest is taken for damaged
and passed over; what cannot be read, or is of a newer format, stops. Tensors are saved whole under their
parameters' names, not as the ranks share them, so another number of GPUs can go on. A folder gets its name
only when it is complete; whoever is killed in the middle leaves a hidden temporary one, which `sweep`
removes. Pickle would run whatever code a downloaded file holds.
"""
import contextlib
import os
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file, save_file

from nanochat.common import (
    CheckpointError,
    MissingArtifact,
    NanochatError,
    Unreadable,
    atomic_dir,
    git_commit,
    log,
    sha256,
    versions,
    write_json,
)
from nanochat.data.tokenizer import Tokenizer
from nanochat.model.gpt import GPT, GPTConfig
from nanochat.runtime import Runtime
from nanochat.train.places import (  # noqa: F401    for who wants both, the place and what lies there
    FORMAT,
    DamagedCheckpoint,
    ModelFlags,
    find,
    newest_chat_stage,
    newest_tag,
    read_meta,
    seal,
    source_flag,
    stage_dir,
    step_dir,
    steps_in,
)
from nanochat.train.stages import STAGES

Tensors = dict[str, torch.Tensor]


# ---- writing
@contextlib.contextmanager
def _writing_to(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, safetensors.SafetensorError) as error:  # a full disk, for example
        raise NanochatError(f"cannot write a checkpoint to {folder}: {error}. The checkpoints before it are "
                            "whole; mend this, then run the same command to go on from there.") from None


def save(folder: Path, step: int, masters: Tensors, optim_state: Tensors | None, meta: dict,
         keep: int = 2, tokenizer: Tokenizer | None = None) -> None:
    """Write a checkpoint, then drop all but the newest `keep` (0: none) and that of `best_step`. Raises
    NanochatError.
    """
    folder = Path(folder)
    with _writing_to(folder):
        with atomic_dir(step_dir(folder, step)) as tmp:
            _save_tensors(masters, tmp / "model.safetensors")
            if optim_state is not None:
                _save_tensors(optim_state, tmp / "optim.safetensors")
            if tokenizer is not None:
                tokenizer.save(tmp)
            meta = dict(meta)
            meta["format"] = FORMAT
            meta["step"] = step
            meta["time"] = time.time()
            meta["commit"] = git_commit()
            meta["versions"] = versions()
            meta["files"] = {path.name: sha256(path) for path in sorted(tmp.iterdir())}
            _write_meta(tmp, meta)
        _drop_old(folder, step, keep)


def amend(folder: Path, step: int, keep: int, **more: Any) -> None:
    """Add to a checkpoint's meta.json what was found out later, as val, the loss that `best_step` goes by.

    Then drop as `save` does.
    """
    path = step_dir(folder, step)
    with _writing_to(folder):
        _write_meta(path, {**read_meta(path), **more})
        _drop_old(folder, step, keep)


def _write_meta(folder, meta):
    write_json(folder / "meta.json", {**meta, "sha256": seal(meta)})


def _save_tensors(tensors, path):
    save_file({name: tensor.contiguous().cpu() for name, tensor in tensors.items()}, path)


def _drop_old(folder, step, keep):
    """Later steps do not count: the run went on from before them, so they are damaged."""
    best = best_step(folder)
    earlier = [found for found in steps_in(folder) if found <= step]
    for old in earlier[:-keep]:  # keep=0: [:0], nothing
        if old != best:
            # Renamed first: a folder half deleted must not bear a checkpoint's name.
            gone = folder / f".{old:06d}.{os.getpid()}.tmp"
            os.rename(step_dir(folder, old), gone)
            shutil.rmtree(gone)


def best_step(folder: Path) -> int | None:
    """The step with the lowest validation loss, or None where none was validated."""
    losses = {}
    for step in steps_in(folder):
        with contextlib.suppress(DamagedCheckpoint):
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
    for path in Path(folder).glob("*/.*.tmp"):  # killed while it amended
        path.unlink()


class Writer:
    """Writes on a thread while training goes on; leaving its block waits for the last write.

    One checkpoint at a time: a second one waits for the first.
    """

    def __init__(self):
        self._pool = ThreadPoolExecutor(1, "checkpoint")
        self._pending = None

    def save(self, folder: Path, step: int, masters: Tensors, optim_state: Tensors | None, meta: dict,
             keep: int = 2, tokenizer: Tokenizer | None = None) -> None:
        """`save` of tensors that are the writer's own from now on: the next step must not change them.

        Raises the error of the write before.
        """
        self.wait()
        self._pending = self._pool.submit(save, folder, step, masters, optim_state, meta, keep, tokenizer)

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


# ---- reading
def _tensors(path, name, meta):
    file = Path(path) / name
    if name not in meta["files"]:
        raise CheckpointError(f"{path} holds no {name}: no run can go on from there. Give this one another "
                              "--tag.")
    _check(file, meta)
    try:
        return load_file(file)
    except (OSError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"cannot read {file}: {error}") from None


def _check(path, meta):
    try:
        if sha256(path) != meta["files"][path.name]:
            raise DamagedCheckpoint(f"{path} is damaged: its bytes do not match the digest in meta.json.")
    except OSError as error:
        raise Unreadable(path, error) from None


def load(path: Path, with_optim: bool = False) -> tuple[Tensors, Tensors | None, dict]:
    """(masters, optimizer state or None, meta) of one step's folder. Raises as read_meta does."""
    meta = read_meta(path)
    if "tokenizer.json" in meta["files"]:
        _check(Path(path) / "tokenizer.json", meta)
    optim_state = _tensors(path, "optim.safetensors", meta) if with_optim else None
    return _tensors(path, "model.safetensors", meta), optim_state, meta


def newest_whole(folder: Path, with_optim: bool = False) -> tuple[Tensors, Tensors | None, dict] | None:
    """`load` of the newest checkpoint that is not damaged, or None; raises what else `load` raises."""
    for step in reversed(steps_in(folder)):
        try:
            return load(step_dir(folder, step), with_optim)
        except DamagedCheckpoint as error:
            log.warning(f"passing over checkpoint {step}: {error}")
    return None


def load_model(stage: str, rt: Runtime, tag: str | None = None,
               step: int | None = None) -> tuple[GPT, Tokenizer, dict]:
    """(model, tokenizer, meta): the model in evaluation mode, in rt.dtype, on rt.device. Says what it took.

    Without a step, a damaged newest checkpoint falls back to the one before it. Raises MissingArtifact, and
    CheckpointError where nothing is whole or the tokenizer is another: token 500 would then be another word.
    """
    path = find(stage, tag, step)
    folder = path.parent
    found = load(path) if step is not None else newest_whole(folder)
    if found is None:
        raise CheckpointError(f"every checkpoint under {folder} is damaged. Copy or train it again: "
                              f"python -m scripts.{STAGES[stage].script} --fresh")
    masters, _, meta = found
    tokenizer = _tokenizer_of(step_dir(folder, meta["step"]), meta)
    model = GPT(GPTConfig(**meta["model"]), rt.dtype).to(rt.device)
    model.load_state_dict(masters)
    log.info(f"{stage} model {folder.name}, step {meta['step']:,}: {model.num_params():,} parameters, "
             f"on {rt}")
    return model.requires_grad_(False).eval(), tokenizer, meta


def _tokenizer_of(path, meta):
    found = "none"
    with contextlib.suppress(MissingArtifact):
        tokenizer = Tokenizer.load(path)
        if tokenizer.hash == meta["tokenizer"]:
            return tokenizer
        found = tokenizer.hash
    raise CheckpointError(f"{path} was trained with tokenizer {meta['tokenizer']} and holds {found}. "
                          "Put the tokenizer.json with that hash there.")
