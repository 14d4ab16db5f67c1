"""
A person's own text as the shards that pretraining reads: --dataset=mine.txt, corpus.jsonl.gz, a folder.

A folder of parquet files with a validation split, by their names or as the last of several, is read where it
lies. Anything else is copied once into parquet shards under base_dir(), 1/64 of it held out for validation:
what comes after then streams, works in several processes and finds documents by number, whatever was brought.
"""
import functools
import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from nanochat.common import UsageError, atomic_dir, base_dir, log, read_json, write_json
from nanochat.data.sources import (
    LEAST_PIECE_CHARS,
    MOST_PIECE_CHARS,
    ROW_GROUP,
    Files,
    find_files,
    kind_of,
    reading,
    texts,
)

FORMAT = 1  # of the copy
SHARD_CHARS = 100_000_000
HELD_OUT_FRAC = 1 / 64
RECORD = "source.json"  # of the files that a copy was made of


def own_shards(path: str | Path, split: str) -> list[Path]:
    """The shards of a file or folder, `split` "train" or "val". Raises UsageError, DataError."""
    files = find_files(path)
    train = files.train
    is_parquet = kind_of(train[0]) == "parquet"
    in_one_folder = len({file.parent for file in train}) == 1  # else they may be categories
    if is_parquet and not files.val and in_one_folder:
        with reading(train[-1]):
            filled = [file for file in train if pq.read_metadata(file).num_rows]  # Spark's
        if len(filled) > 1:
            last = filled[-1]
            files = Files(train[:train.index(last)], [last], files.unused)
    _say(f"{path}: {files}")
    names = {file.resolve().stem for file in files.train + files.val}  # tokens are kept by them
    if not is_parquet or not files.val or len(names) < len(files.train + files.val):
        return _copied(Path(path).expanduser().resolve(), files, split)
    return files.train if split == "train" else files.val


@functools.cache
def _say(line: str) -> None:
    """Once: every split asks for the files."""
    log.info(line)


# ---- copy
def _copied(path: Path, files: Files, split: str) -> list[Path]:
    """The shards of the copy, which is made unless it is there and its sources are as they were."""
    digest = hashlib.sha256(str(path).encode("utf-8", "surrogateescape")).hexdigest()
    folder = base_dir() / "base_data" / f"{re.sub(r'[^A-Za-z0-9.-]+', '_', path.name)}-{digest[:8]}"
    source = {"format": FORMAT, "train": _stamps(files.train), "val": _stamps(files.val)}
    record = folder / RECORD
    if not record.exists() or read_json(record) != source:
        _copy(path, files, folder, source)
    return sorted(folder.glob(f"{split}_*.parquet"))


def _stamps(files: list[Path]) -> list[list]:
    stamps = []
    for file in files:
        with reading(file):
            stat = file.stat()
        stamps.append([str(file), stat.st_size, stat.st_mtime_ns])
    return stamps


def _copy(path: Path, files: Files, folder: Path, source: dict) -> None:
    n_bytes = sum(stamp[1] for stamp in source["train"])
    piece_chars = min(max(round(n_bytes * HELD_OUT_FRAC), LEAST_PIECE_CHARS), MOST_PIECE_CHARS)
    documents = Counter[str]()
    log.info(f"reading {path} into {folder}")
    with atomic_dir(folder) as temporary:
        waiting: dict[str, list[str]] = {"train": [], "val": []}
        waiting_chars = Counter[str]()

        def write(split: str) -> None:
            target = temporary / f"{split}_{documents[split]:012d}.parquet"
            documents[split] += len(waiting[split])
            pq.write_table(pa.table({"text": waiting[split]}), target, row_group_size=ROW_GROUP,
                           compression="zstd", write_page_checksum=True)
            waiting[split] = []
            waiting_chars[split] = 0

        for split, text in _split_texts(files, piece_chars):
            waiting[split].append(text)
            waiting_chars[split] += len(text)
            if waiting_chars[split] > SHARD_CHARS:
                write(split)
                log.info(f"{documents.total():,} documents so far")
        for split, texts_left in waiting.items():
            if texts_left:
                write(split)
        if not documents["train"] or not documents["val"]:
            raise UsageError(f"{path} holds {documents.total()} documents that are not empty or null; "
                             "it takes two or more, one of them for validation.")
        write_json(temporary / RECORD, source)
    log.info(f"{documents['train']:,} documents to train on, {documents['val']:,} for validation")


def _split_texts(files: Files, piece_chars: int) -> Iterator[tuple[str, str]]:
    """(split, text) of each document, in order.

    Where no file is for validation, the 1/64 with the lowest hashes are: the same documents in whatever order
    they come, and equal ones on one side. It takes a second reading, which is quick beside tokenizing.
    """
    def read(paths: list[Path]) -> Iterator[str]:
        for file in paths:
            for text in texts(file, piece_chars):
                # JSON can hold half a character, which UTF-8 cannot.
                yield text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")

    for text in read(files.val):
        yield "val", text
    held_out = -1  # hashes up to it
    if not files.val:
        hashes = np.unique(np.fromiter((_hash(text) for text in read(files.train)), np.uint64))
        if len(hashes):
            held_out = int(hashes[max(0, round(len(hashes) * HELD_OUT_FRAC) - 1)])
    for text in read(files.train):
        yield "val" if _hash(text) <= held_out else "train", text


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode("utf-8")).digest()[:8], "big")
