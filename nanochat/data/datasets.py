"""
Pretraining text: which data sets there are, how their shards arrive and how they are read.

A shard is a parquet file with a column `text`, about 100 MB of a big data set, so that a run can fetch as
many as its budget needs. The validation shard is fixed by name: "the last file on disk" would be another text
for everybody who has fetched another number of shards, and losses could not be compared. Every script also
takes a person's own file or folder (own_text.py).
"""
import functools
import hashlib
import itertools
import os
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from nanochat.common import MissingArtifact, UsageError, atomic_file, base_dir, log, mix_seed
from nanochat.data import hub
from nanochat.data.own_text import RECORD, own_shards
from nanochat.data.sources import ROW_GROUP, open_parquet, parquet_texts, reading
from nanochat.terminal import Progress


@dataclass(frozen=True)
class Dataset:
    name: str
    repo: str  # on the hub; "": generated here
    pattern: str  # of training shard i
    n_train: int  # training shards there are
    validation: str  # the validation shard
    default_n: int  # shards without -n

    @property
    def folder(self) -> Path:
        return base_dir() / "base_data" / self.name


DATASETS = {row.name: row for row in [
    # 100 MB a shard. ClimbMix (arXiv 2504.13161), shuffled: 400B tokens of web text
    Dataset("climbmix", "karpathy/climbmix-400b-shuffle", "shard_{:05d}.parquet", 6542,
            "shard_06542.parquet", 8),
    # FineWeb-Edu (arXiv 2406.17557), shuffled: 100B tokens of educational pages
    Dataset("fineweb-edu", "karpathy/fineweb-edu-100b-shuffle", "shard_{:05d}.parquet", 1822,
            "shard_01822.parquet", 8),
    Dataset("kindergarten", "", "train_{:03d}.parquet", 1000, "val.parquet", 4),
]}
KINDERGARTEN_SHARD = 4000  # documents
KINDERGARTEN_VAL = 800


# ---- which shards
def shards(name: str | Path, split: str) -> list[Path]:
    """The shards of a data set, or of a folder, on this machine, in a fixed order; `split` is "train" or
    "val".

    "train": up to the first missing, so that a row's number never changes. The kindergarten is generated when
    asked for. Raises MissingArtifact, UsageError.
    """
    assert split in ("train", "val"), split
    if name not in DATASETS:
        with reading(name):
            there = name != "" and Path(name).expanduser().exists()
        if not there:
            known = ", ".join(DATASETS)
            raise UsageError(f"--dataset={name} is neither a file nor a folder, nor one of {known}. "
                             "Give one file or folder on this machine.")
        return own_shards(name, split)
    row = DATASETS[name]
    if not row.repo:
        if not (row.folder / row.validation).exists():
            generate(row, row.default_n)
        _warn_if_stale(row.folder / row.validation)

    names = [row.validation] if split == "val" else _train_names(row, row.n_train)
    paths = (row.folder / name for name in names)
    with reading(row.folder):
        found = list(itertools.takewhile(Path.exists, paths))
    if not found:
        raise MissingArtifact(f"{split} shard of {name}", row.folder,
                              f"python -m nanochat.dataset --dataset={name} -n {row.default_n}")
    return found


def _train_names(row: Dataset, n_shards: int) -> list[str]:
    return [row.pattern.format(i) for i in range(n_shards)]


# ---- read
def _mend(path: str | Path) -> str:
    """What helps against a damaged shard: only what can be had again may be deleted."""
    folder = Path(path).resolve().parent
    for row in DATASETS.values():
        if folder == row.folder.resolve() and row.repo:
            return f"Delete it and fetch it again: python -m nanochat.dataset --dataset={row.name}"
    if os.path.exists(folder / RECORD) or folder == DATASETS["kindergarten"].folder.resolve():
        return f"Delete {folder} and run the same command again."
    return ""


def count_documents(path: str | Path) -> int:
    """From the file's footer, without reading the text; counts empty documents, too."""
    with open_parquet(path, _mend(path)) as file:
        return file.metadata.num_rows


def text_bytes(path: str | Path) -> int:
    """Of all documents, from the file's footer: as they are before compression."""
    total = 0
    with open_parquet(path, _mend(path)) as file:
        column = file.metadata.schema.names.index("text")
        for group in range(file.metadata.num_row_groups):
            total += file.metadata.row_group(group).column(column).total_uncompressed_size
    return total


def iter_texts(paths: Iterable[str | Path]) -> Iterator[str]:
    """The documents of these shards in order, without empty ones. Raises DataError."""
    for path in paths:
        yield from parquet_texts(path, _mend(path))


# ---- generate
def generate(row: Dataset, n_shards: int) -> None:
    """Write what is missing of the first training shards and the validation shard, each from its own seed."""
    from nanochat.kindergarten import documents
    n_documents = {row.validation: KINDERGARTEN_VAL}
    for name in _train_names(row, n_shards):
        n_documents[name] = KINDERGARTEN_SHARD
    missing = [name for name in n_documents if not (row.folder / name).exists()]
    progress = Progress(sum(n_documents[name] for name in missing), f"generating {row.name}: documents")
    for name in reversed(missing):  # validation last: the sign that all are there
        texts = []
        # The seed is a hash of the name: counted seeds might give two shards the same text.
        for text in documents(n_documents[name], seed=mix_seed(row.name, name)):
            texts.append(text)
            progress.update()
        table = pa.table({"text": texts}, metadata={"made_by": _kindergarten_version()})
        with atomic_file(row.folder / name) as temporary:
            pq.write_table(table, temporary, row_group_size=ROW_GROUP, compression="zstd",
                           write_page_checksum=True)
    progress.close()


@functools.cache
def _kindergarten_version() -> str:
    """A hash of the code that generates."""
    folder = Path(__file__).parents[1] / "kindergarten"
    files = sorted(file for file in folder.rglob("*") if file.suffix in (".py", ".txt"))
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


@functools.cache
def _warn_if_stale(path: Path) -> None:
    with open_parquet(path, _mend(path)) as file:
        metadata = file.schema_arrow.metadata or {}
    if metadata.get(b"made_by") != _kindergarten_version().encode():
        log.warning(f"{path.parent} was generated by another version of the code; "
                    f"delete it to generate it anew")


# ---- download
def download(row: Dataset, n_shards: int, workers: int = 4) -> None:
    """Fetch what is missing of the first training shards and the validation shard. Raises hub.HubError."""
    wanted = [row.validation, *_train_names(row, n_shards)]
    missing = [name for name in wanted if not (row.folder / name).exists()]
    progress = Progress(len(missing), f"downloading {row.name}: shards")
    lock = threading.Lock()
    stop = threading.Event()
    seen_bytes = 0

    def count(n_bytes: int, n_done: int = 0) -> None:
        nonlocal seen_bytes
        if stop.is_set():
            raise hub.Stopped
        with lock:
            seen_bytes += n_bytes
            progress.update(n_done, MB=f"{seen_bytes / 1e6:,.0f}")

    def fetch(name: str) -> None:
        count(0)
        hub.fetch(row.repo, name, row.folder / name, on_bytes=count)
        count(0, n_done=1)

    with ThreadPoolExecutor(workers) as pool:
        try:
            for future in as_completed([pool.submit(fetch, name) for name in missing]):
                future.result()
        finally:
            stop.set()  # the other threads end at their next bytes
            progress.close()
