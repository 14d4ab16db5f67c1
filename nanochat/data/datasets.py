"""
Pretraining text: which data sets there are, how their shards arrive and how they are read.

A shard is a parquet file with a column `text`. Every script also takes a folder of such files; the last is
then for validation.
"""
import functools
import hashlib
import itertools
import threading
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from nanochat.common import (
    DataError,
    MissingArtifact,
    Progress,
    UsageError,
    atomic_file,
    base_dir,
    log,
    mix_seed,
)
from nanochat.data import hub


@dataclass(frozen=True)
class Dataset:
    name: str
    repo: str  # on the hub; "": generated here
    pattern: str  # of training shard i
    n_train: int
    validation: str
    default_n: int  # shards without -n

    @property
    def folder(self) -> Path:
        return base_dir() / "base_data" / self.name


DATASETS = {row.name: row for row in [
    # 100 MB a shard. ClimbMix (arXiv 2504.13161), shuffled: 400B tokens of web text
    Dataset("climbmix", "karpathy/climbmix-400b-shuffle", "shard_{:05d}.parquet", 6542, "shard_06542.parquet", 8),
    # FineWeb-Edu (arXiv 2406.17557), shuffled: 100B tokens of educational pages
    Dataset("fineweb-edu", "karpathy/fineweb-edu-100b-shuffle", "shard_{:05d}.parquet", 1822, "shard_01822.parquet", 8),
    Dataset("kindergarten", "", "train_{:03d}.parquet", 1000, "val.parquet", 4),
]}
KINDERGARTEN_SHARD = 4000  # documents
KINDERGARTEN_VAL = 800


def shards(name: str, split: str) -> list[Path]:
    """The shards of a data set, or of a folder, on this machine, in a fixed order.

    "train": up to the first missing, so that a row's number never changes. The kindergarten is generated when
    asked for. Raises MissingArtifact, UsageError.
    """
    assert split in ("train", "val"), split
    if name not in DATASETS:
        return _folder_shards(name, split)
    row = DATASETS[name]
    if not row.repo:
        if not (row.folder / row.validation).exists():
            generate(row, row.default_n)
        _warn_if_stale(row.folder / row.validation)
    names = [row.validation] if split == "val" else map(row.pattern.format, range(row.n_train))
    found = list(itertools.takewhile(Path.exists, (row.folder / name for name in names)))
    if not found:
        raise MissingArtifact(f"{split} shard of {name}", row.folder,
                              f"python -m nanochat.dataset --dataset={name} -n {row.default_n}")
    return found


def _folder_shards(folder, split):
    if not (path := Path(folder).expanduser()).is_dir():
        raise UsageError(f"--dataset={folder} is neither a folder of parquet files nor one of {', '.join(DATASETS)}.")
    paths = sorted(path.glob("[!.]*.parquet"))
    if len(paths) < 2:
        raise UsageError(f"--dataset={folder} holds {len(paths)} parquet files; it wants two or more, the last one is "
                         f"for validation.")
    return paths[-1:] if split == "val" else paths[:-1]


def _open(path):
    try:
        file = pq.ParquetFile(path, page_checksum_verification=True)
        kind = file.schema_arrow.field("text").type
    except KeyError:
        raise DataError(f"{path} has no column 'text' (it has {', '.join(file.schema_arrow.names)}).") from None
    except (OSError, pa.ArrowException) as e:
        raise _damaged(path, e) from None
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise DataError(f"the column 'text' of {path} holds {kind}, not strings.")
    return file


def _damaged(path, error):
    said = (str(error).strip() or type(error).__name__).splitlines()[0][:120]
    return DataError(f"cannot read {path}, it is damaged or truncated ({said}). Delete it and fetch it again.")


def count_documents(path: Path) -> int:
    with _open(path) as file:
        return file.metadata.num_rows


def iter_texts(paths):
    """The documents of these shards in order, without empty ones. Raises DataError."""
    for path in paths:
        with _open(path) as file:
            try:
                for batch in file.iter_batches(batch_size=1024, columns=["text"]):
                    yield from (text for text in batch.column(0).to_pylist() if text)
            except (OSError, pa.ArrowException, UnicodeDecodeError) as e:
                raise _damaged(path, e) from None


def generate(row, n):
    """Write what is missing of the first n training shards and the validation shard, each from its own
    seed."""
    from nanochat.kindergarten import documents
    wanted = [(row.validation, KINDERGARTEN_VAL)] + [(row.pattern.format(i), KINDERGARTEN_SHARD) for i in range(n)]
    wanted = [(name, count) for name, count in wanted if not (row.folder / name).exists()]
    progress = Progress(sum(count for _, count in wanted), f"generating {row.name}: documents")
    for name, count in reversed(wanted):  # validation last: the sign that all are there
        texts = []
        for text in documents(count, seed=mix_seed(row.name, name)):
            texts.append(text)
            progress.update()
        with atomic_file(row.folder / name) as tmp:
            table = pa.table({"text": texts}, metadata={"made_by": _kindergarten_version()})
            pq.write_table(table, tmp, row_group_size=1024, compression="zstd", write_page_checksum=True)
    progress.close()


@functools.cache
def _kindergarten_version():
    """A hash of the code that generates."""
    files = sorted(f for f in (Path(__file__).parents[1] / "kindergarten").rglob("*") if f.suffix in (".py", ".txt"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]


@functools.cache
def _warn_if_stale(path):
    with _open(path) as file:
        if (file.schema_arrow.metadata or {}).get(b"made_by") != _kindergarten_version().encode():
            log.warning(f"{path.parent} was generated by another version of the code; delete it to generate it anew")


def download(row, n, workers=4):
    """Fetch what is missing of the first n and the validation shard. Raises hub.HubError."""
    missing = [name for name in (row.validation, *map(row.pattern.format, range(n)))
               if not (row.folder / name).exists()]
    progress = Progress(len(missing), f"downloading {row.name}: shards")
    lock, stop, seen_bytes = threading.Lock(), threading.Event(), 0

    def count(n_bytes, done=0):
        nonlocal seen_bytes
        if stop.is_set():
            raise hub.Stopped
        with lock:
            seen_bytes += n_bytes
            progress.update(done, MB=f"{seen_bytes / 1e6:,.0f}")

    def fetch(name):
        count(0)
        hub.fetch(row.repo, name, row.folder / name, on_bytes=count)
        count(0, done=1)

    with ThreadPoolExecutor(workers) as pool:
        try:
            for future in as_completed([pool.submit(fetch, name) for name in missing]):
                future.result()
        finally:
            stop.set()  # the other threads end at their next bytes
            progress.close()
