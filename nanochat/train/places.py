"""
Where checkpoints lie, and what their meta.json says: <base>/<stage>_checkpoints/<tag>/<step>/.

What finds and lists models without reading their weights, so that a page which shows what there is needs no
torch, and comes at once. The weights, and writing, are in checkpoint.py.
"""
import contextlib
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

from nanochat.cli import option
from nanochat.common import (
    CheckpointError,
    DataError,
    MissingArtifact,
    Unreadable,
    base_dir,
    is_there,
    read_json,
)
from nanochat.train.stages import CHAT_STAGES, STAGES

FORMAT = 1


class DamagedCheckpoint(CheckpointError):
    """One whose bytes are proven not to be those that were written."""


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
    """Steps of the whole checkpoints in a tag's folder, ascending as numbers: 1000000 comes after 999999.

    Raises Unreadable: a folder that one may not look into is not an empty one.
    """
    names = [name for name in _names_in(folder) if name.isdigit()]
    return sorted(int(name) for name in names if is_there(Path(folder) / name / "meta.json"))


def _names_in(folder):
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise Unreadable(folder, error) from None


def newest_of_tags(stage: str) -> list[Path]:
    """The newest checkpoint's folder of each tag."""
    found = []
    for tag in _names_in(stage_dir(stage)):
        steps = steps_in(stage_dir(stage) / tag)
        if steps:
            found.append(step_dir(stage_dir(stage) / tag, steps[-1]))
    return found


def newest_tag(stage: str) -> str | None:
    """The one written to last, or None."""
    newest = max(newest_of_tags(stage), key=_written, default=None)
    return newest.parent.name if newest else None


def _written(folder):
    """When (seconds since 1970), as meta.json says: a copy or an archive may give its files another time."""
    with contextlib.suppress(DamagedCheckpoint):
        written = read_meta(folder).get("time")
        if written is not None:
            return written
    return folder.stat().st_mtime


def newest_chat_stage(tag: str | None = None) -> str:
    """The latest stage with a model that one can talk to, of this tag if one is named; "sft" where there is
    none yet, to be named in the error.
    """
    for stage in CHAT_STAGES:
        name = tag or newest_tag(stage)
        if name and steps_in(stage_dir(stage) / name):
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
        there = [*map(str, steps)] or [path.parent.name for path in newest_of_tags(stage)]
        if _names_in(stage_dir(stage)):
            what += f" (as <tag>/<step>/meta.json there is {', '.join(there) or 'none'})"
        raise MissingArtifact(what, folder, f"python -m scripts.{STAGES[stage].script}")
    return step_dir(folder, wanted)


# ---- meta.json
def seal(meta: dict) -> str:
    """The digest of meta.json's own contents, which it carries itself."""
    body = {key: value for key, value in meta.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode("utf-8")).hexdigest()


def read_meta(folder: Path) -> dict:
    """A checkpoint's meta.json. Raises DamagedCheckpoint, Unreadable, CheckpointError for a newer format."""
    path = Path(folder) / "meta.json"
    try:
        meta = read_json(path)
    except DataError:
        raise DamagedCheckpoint(f"{path} is damaged: it is no JSON.") from None
    if not isinstance(meta, dict) or meta.get("sha256") != seal(meta):
        raise DamagedCheckpoint(f"{path} is damaged: its contents do not match its own digest.")
    if meta["format"] > FORMAT:
        raise CheckpointError(f"{path} has format {meta['format']}, this code reads up to {FORMAT}: "
                              "update the code.")
    return meta
