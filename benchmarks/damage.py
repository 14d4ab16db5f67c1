"""
What happens to flipped bits, cut files and hostile pickles in everything that a run reads back. A part of
benchmarks/crash.py, which makes the run; both tests work on a copy of it, as the base directory of this
process.
"""

import collections
import json
import os
import pickle
import random
import resource
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from nanochat.common import NanochatError, base_dir, sha256, write_json
from nanochat.data import datasets
from nanochat.data.dataloader import TextRows, prepare_tokens
from nanochat.data.tokenizer import Tokenizer
from nanochat.tasks.customjson import CustomJSON
from nanochat.train import checkpoint
from nanochat.train.resume import trim_log


@dataclass
class Row:
    """One line of the table."""

    test: str
    bar: str
    measured: str
    ok: bool


# ----------------------------------------------------------------------------------------------------- damage
def damages(data, offsets, rng):
    """`data` with a bit flipped, and cut off, at each of so many places; the first and the last byte among
    them."""
    for at in sorted({0, len(data) - 1, *(rng.randrange(len(data)) for _ in range(offsets - 2))}):
        flipped = bytearray(data)
        flipped[at] ^= 1 << rng.randrange(8)
        yield bytes(flipped)
        yield data[:at]


def outcomes(path, use, offsets, rng, beside=()):
    """Counter of what `use` makes of the damaged file: it returns whether all is as it was, or raises."""
    count, stat = collections.Counter(), path.stat()
    before = {p: p.read_bytes() for p in (path, *beside)}
    for data in damages(before[path], offsets, rng):
        path.write_bytes(data)
        os.utime(
            path, ns=(stat.st_atime_ns, stat.st_mtime_ns)
        )  # the disk's own fault leaves the time as it was
        try:
            right = use()
            count[("rebuilt" if path.read_bytes() != data else "harmless") if right else "UNNOTICED"] += 1
        except NanochatError as e:
            count["refused" if any(p.name in str(e) for p in before) else "REFUSED WITHOUT NAME"] += 1
        except Exception as e:
            count[f"TRACEBACK {type(e).__name__}"] += 1
        for p, kept in before.items():
            p.write_bytes(kept)
            os.utime(p, ns=(stat.st_atime_ns, stat.st_mtime_ns)) if p == path else None
    return count


def damage_row(test, count):
    return Row(
        f"damage to {test}",
        "refused by name, rebuilt, or harmless; never unnoticed",
        ", ".join(f"{n} {what}" for what, n in count.most_common()),
        not any(w[0].isupper() for w in count),
    )


def test_damage(config, toy, tmp):
    """Flipped bits and cut files, in everything that is read back."""
    resource.setrlimit(
        resource.RLIMIT_AS, (16 << 30, resource.RLIM_INFINITY)
    )  # a damaged length may ask for terabytes
    rng, base = random.Random(config.seed), Path(shutil.copytree(toy.base, base_dir()))
    folder = base / "base_checkpoints" / "d1"
    older, newest = checkpoint.steps_in(folder)[-2:]
    fell_back = [0, 0]

    def load():
        found = checkpoint.newest_whole(folder, with_optim=True)
        fell_back[0] += found is not None and found[2]["step"] == older
        fell_back[1] += 1
        kept = checkpoint.load(folder / f"{newest:06d}", with_optim=True)[2]
        fell_back[1] -= 1  # not damaged after all: nothing to fall back from
        return kept["step"] == newest

    for name in ("model.safetensors", "optim.safetensors", "meta.json"):
        yield damage_row(name, outcomes(folder / f"{newest:06d}" / name, load, config.offsets, rng))
    yield Row(
        "a damaged newest checkpoint",
        "the one before is used",
        f"{fell_back[0]} of {fell_back[1]} times",
        fell_back[0] == fell_back[1] > 0,
    )
    tokenizer, parquets = Tokenizer.load(base / "tokenizer"), datasets.shards("kindergarten", "train")
    texts = list(datasets.iter_texts(parquets))

    def rows():
        shard = prepare_tokens(tokenizer, parquets, "kindergarten")[0]
        return shard.tokens.tobytes(), shard.offsets.tobytes(), TextRows([shard], 64).hash

    expected, stem = rows(), next((base / "tokens").rglob("train_000.json")).with_suffix("")
    shard_files = [Path(f"{stem}.{ending}") for ending in ("tokens.npy", "offsets.npy", "json")]
    for path in shard_files:
        yield damage_row(
            f"token shard .{path.name.partition('.')[2]}",
            outcomes(path, lambda: rows() == expected, config.offsets, rng, shard_files),
        )
    yield damage_row(
        "tokenizer.json",
        outcomes(
            base / "tokenizer" / "tokenizer.json",
            lambda: Tokenizer.load(base / "tokenizer").hash == tokenizer.hash,
            config.offsets,
            rng,
        ),
    )
    yield damage_row(
        "parquet",
        outcomes(parquets[0], lambda: list(datasets.iter_texts(parquets)) == texts, config.offsets, rng),
    )


# ----------------------------------------------------------------------------------------------------- pickle
class Hostile:
    """Unpickling one runs a command."""

    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return os.mkdir, (self.marker,)


def hostile_files(evil, raw, tmp):
    """{name: (path to be replaced, bytes)} as an attacker would make them; what vouches for a file is made to
    fit it."""
    array, tensors = np.array([evil] * 4, dtype=object), tmp / "tensors.pt"
    np.save(tmp / "evil.npy", array, allow_pickle=True)
    np.savez(tmp / "evil.npz", stamp=array, first=array, start=array, length=array)
    torch.save(evil, tensors)
    field = pa.field(
        "text",
        pa.string(),
        metadata={b"ARROW:extension:name": b"arrow.py_extension_type", b"ARROW:extension:metadata": raw},
    )
    pq.write_table(pa.table([pa.array(["a"])], schema=pa.schema([field])), tmp / "evil.parquet")
    made = {
        "pickle": raw,
        **{
            name: (tmp / name).read_bytes() for name in ("tensors.pt", "evil.npy", "evil.npz", "evil.parquet")
        },
    }
    return made


def test_pickle(config, toy, tmp):
    """Pickles that would make a folder, in the place of everything that is read."""
    marker, base = tmp / "marker", Path(shutil.copytree(toy.base, base_dir()))
    evil = Hostile(marker)
    raw = pickle.dumps(evil)
    pickle.loads(raw)
    marker.rmdir()  # it works where it is let
    made = hostile_files(evil, raw, tmp)
    folder = checkpoint.find("base")
    stem = next((base / "tokens").rglob("train_000.json")).with_suffix("")
    parquets, tokenizer = datasets.shards("kindergarten", "train"), Tokenizer.load(base / "tokenizer")

    def vouch_checkpoint(path):
        meta = checkpoint.read_meta(folder)
        meta["files"][path.name] = sha256(path)
        write_json(folder / "meta.json", {**meta, "sha256": checkpoint.seal(meta)})

    def vouch_shard(path):
        manifest = json.loads(Path(f"{stem}.json").read_text(encoding="utf-8"))
        manifest["bytes"][path.name.partition(".")[2]] = path.stat().st_size
        write_json(f"{stem}.json", {**manifest, f"{path.name.split('.')[1]}_sha256": sha256(path)})

    def rows():
        shards = prepare_tokens(tokenizer, parquets, "kindergarten")
        return TextRows(shards, 64).row(0)

    targets = [
        (folder / "model.safetensors", vouch_checkpoint, lambda: checkpoint.load(folder)),
        (folder / "optim.safetensors", vouch_checkpoint, lambda: checkpoint.load(folder, True)),
        (folder / "meta.json", None, lambda: checkpoint.load(folder)),
        (base / "tokenizer" / "tokenizer.json", None, lambda: Tokenizer.load(base / "tokenizer")),
        (Path(f"{stem}.tokens.npy"), vouch_shard, rows),
        (Path(f"{stem}.offsets.npy"), vouch_shard, rows),
        (Path(f"{stem}.json"), None, rows),
        (parquets[0], None, lambda: list(datasets.iter_texts(parquets))),
        (tmp / "mine.jsonl", None, lambda: CustomJSON(tmp / "mine.jsonl")),
        (base / "logs" / "base_d1.jsonl", None, lambda: trim_log(base / "logs" / "base_d1.jsonl", 9)),
    ]
    count, run = collections.Counter(), 0
    for path, vouch, use in targets:
        keep = {p: p.read_bytes() for p in (path, folder / "meta.json", Path(f"{stem}.json")) if p.exists()}
        for data in made.values():
            path.write_bytes(data)
            if vouch:
                vouch(path)
            try:
                use()
                count["passed over"] += 1
            except NanochatError:
                count["refused"] += 1
            except Exception as e:
                count[f"TRACEBACK {type(e).__name__} ({path.name})"] += 1
            run += marker.exists()
            path.unlink()
            for p, bytes_ in keep.items():
                p.write_bytes(bytes_)
    yield Row(
        "hostile pickles as every input",
        "never run, refused in one line",
        f"{run} run; " + ", ".join(f"{n} {what}" for what, n in count.most_common()),
        not run and not any(what[0].isupper() for what in count),
    )
