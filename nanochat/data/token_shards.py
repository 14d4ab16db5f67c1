"""
Parquet shards of text -> memory-mapped shards of token ids, made once for each tokenizer and kept on disk.

Tokenizing while training would keep the processors busy again in every run and every epoch, and nobody would
know how many rows there are. Three files a shard: the ids (uint16, or uint32: half or as much memory as
text), the offsets of documents, and a manifest of sources, lengths and hashes; they are used only if all that
still holds. Run as a module it tokenizes one shard: how prepare_tokens starts a worker, without torch.
"""
import contextlib
import functools
import hashlib
import itertools
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nanochat.common import DataError, atomic_file, base_dir, log, read_json, run, write_json
from nanochat.data.datasets import count_documents, iter_texts
from nanochat.data.sources import reading
from nanochat.data.tokenizer import Tokenizer
from nanochat.terminal import Progress

FORMAT = 2
BATCH = 1024  # documents tokenized at once: lists of ids take much memory
IN_PROCESS_BYTES = 64 << 20  # below, worker processes cost more than they save
MOST_WORKERS = 32


@dataclass(frozen=True)
class TokenShard:
    """Document d is tokens[offsets[d]:offsets[d+1]] and starts with bos."""
    path: Path  # without the endings
    documents: int
    bos_id: int
    sha256: str  # of the token bytes
    offsets_sha256: str

    @functools.cached_property
    def tokens(self) -> np.ndarray:
        """(tokens,) uint16 or uint32, mapped: what is not read takes no memory."""
        return _load_npy(f"{self.path}.tokens.npy", self.sha256, ("<u2", "<u4"))

    @functools.cached_property
    def offsets(self) -> np.ndarray:
        """(documents + 1,) int64"""
        return _load_npy(f"{self.path}.offsets.npy", self.offsets_sha256, ("<i8",))


def _load_npy(path: str, sha256: str, dtypes: tuple[str, ...]) -> np.ndarray:
    """Mapped and checked against its digest. Raises DataError."""
    mend = "Delete it and run the same command again."
    try:
        with reading(path, mend):
            array = np.load(path, mmap_mode="r")
        if array.dtype.str in dtypes and hashlib.sha256(array).hexdigest() == sha256:
            return array
        what = "its values do not match its digest"
    except DataError:
        raise
    except Exception as e:  # a bad header raises nearly anything
        what = (str(e) or type(e).__name__).splitlines()[0]
    raise DataError(f"{path} is damaged ({what}). {mend}")


# ---- make one
def token_dtype(tokenizer: Tokenizer) -> type[np.unsignedinteger]:
    """The smallest type that holds every id."""
    return np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.uint32


def tokenize_shard(tokenizer: Tokenizer, parquet: str | Path, out_dir: str | Path,
                   progress: Progress | None = None) -> None:
    """Write the token shard of a parquet file. The manifest comes last: without it the rest is nothing."""
    parquet = Path(parquet)
    target = Path(out_dir) / parquet.stem
    with reading(parquet):
        source = _stamp(parquet)  # before reading: a file that changes meanwhile does not match
    dtype = token_dtype(tokenizer)
    texts = iter_texts([parquet])
    token_bytes = bytearray()
    lengths = [0]
    while batch := list(itertools.islice(texts, BATCH)):
        for ids in tokenizer.encode_batch(batch):
            token_bytes += np.array([tokenizer.bos_id, *ids], dtype).tobytes()
            lengths.append(len(ids) + 1)
        if progress:
            progress.update(len(batch))
    tokens = np.frombuffer(token_bytes, dtype)
    offsets = np.cumsum(lengths, dtype=np.int64)

    sizes = {}
    for ending, array in (("tokens.npy", tokens), ("offsets.npy", offsets)):
        # "w+b": into a file opened with "wb" numpy writes by itself, and its error of a full disk has no
        # errno
        with atomic_file(f"{target}.{ending}") as temporary, open(temporary, "w+b") as file:
            np.save(file, array)
            sizes[ending] = file.tell()
    write_json(f"{target}.json", {
        "format": FORMAT, "tokenizer": tokenizer.hash, "source": source, "bytes": sizes,
        "bos_id": tokenizer.bos_id, "documents": len(lengths) - 1, "tokens": len(tokens),
        "sha256": hashlib.sha256(tokens).hexdigest(), "offsets_sha256": hashlib.sha256(offsets).hexdigest()})


def _stamp(path: Path) -> dict[str, int]:
    """What changes when a file is replaced; its hash would take as long as tokenizing."""
    stat = path.stat()
    return {"bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns}


# ---- find those there are
def _load_shard(tokenizer: Tokenizer, parquet: Path, out_dir: Path) -> TokenShard | None:
    """The TokenShard of a parquet file, or None when it has to be made."""
    target = out_dir / parquet.stem
    for ending in ("json", "offsets.npy", "tokens.npy"):  # what may not be read is no damage to be mended
        with reading(f"{target}.{ending}"), contextlib.suppress(FileNotFoundError):
            open(f"{target}.{ending}", "rb").close()
    if not Path(f"{target}.json").exists():
        return None
    try:
        return _checked_shard(tokenizer, parquet, target)
    except DataError as e:
        why = str(e).partition(". ")[0]
    except (AttributeError, KeyError, TypeError, ValueError):  # a manifest of other types than its own
        why = f"{target}.json is damaged"
    log.warning(f"{why}: tokenizing {parquet.name} again")
    return None


def _checked_shard(tokenizer: Tokenizer, parquet: Path, target: Path) -> TokenShard | None:
    """None if made by another format, tokenizer or source. Raises DataError and others if damaged."""
    manifest = read_json(f"{target}.json")
    expected = {"format": FORMAT, "tokenizer": tokenizer.hash, "source": _stamp(parquet)}
    if manifest | expected != manifest:
        return None
    shard = TokenShard(target, manifest["documents"], manifest["bos_id"], manifest["sha256"],
                       manifest["offsets_sha256"])
    for ending in ("tokens.npy", "offsets.npy"):
        file = Path(f"{target}.{ending}")
        size = manifest["bytes"][ending]
        found = file.stat().st_size if file.exists() else 0
        if found != size:
            raise DataError(f"{file} is damaged ({found:,} bytes instead of {size:,}).")
    if shard.documents != len(shard.offsets) - 1 or shard.bos_id != tokenizer.bos_id:
        raise DataError(f"{target}.json is damaged.")
    return shard


def prepare_tokens(tokenizer: Tokenizer, shard_paths: Iterable[str | Path], name: str) -> list[TokenShard]:
    """The token shards of `shard_paths`, in base_dir()/tokens/<hash>/<name>/; the missing ones are made.

    Rank 0 calls before the others. Raises DataError naming a shard.
    """
    root = base_dir().resolve() / "tokens" / tokenizer.hash
    out_dir = root / re.sub(r"[^\w.-]+", "_", str(name)).strip("_")
    paths = [Path(path).resolve() for path in shard_paths]
    if len({path.stem for path in paths}) < len(paths):
        raise DataError(f"two shards of {name} have the same file name. Rename one of them.")

    missing = [path for path in paths if _load_shard(tokenizer, path, out_dir) is None]
    if missing:
        _make_shards(tokenizer, missing, root, out_dir, name)
    shards = []
    for path in paths:
        shard = _load_shard(tokenizer, path, out_dir)
        if shard is None:
            raise DataError(f"{path} changed while it was being tokenized. Run the same command again.")
        shards.append(shard)
    if not any(shard.documents for shard in shards):
        raise DataError(f"{name} holds no text: all of {paths[0]} is empty or null. Give another --dataset.")
    return shards


def _make_shards(tokenizer: Tokenizer, paths: list[Path], root: Path, out_dir: Path, name: str) -> None:
    n_documents = sum(count_documents(path) for path in paths)
    n_bytes = sum(path.stat().st_size for path in paths)
    progress = Progress(n_documents, f"tokenizing {name}: documents")
    if len(paths) == 1 or n_bytes < IN_PROCESS_BYTES:
        for path in paths:
            tokenize_shard(tokenizer, path, out_dir, progress)
    else:
        tokenizer.save(root)
        workers = min(os.cpu_count() or 1, MOST_WORKERS)
        _tokenize_in_processes(root, paths, out_dir, workers, progress)
    progress.close()


def _tokenize_in_processes(tokenizer_dir: Path, paths: list[Path], out_dir: Path, workers: int,
                           progress: Progress) -> None:
    """A fresh interpreter a shard: fork is unsafe with torch's threads, spawn imports the main script."""
    children = []

    def work(path: Path) -> None:
        command = [sys.executable, "-m", "nanochat.data.token_shards",
                   str(tokenizer_dir), str(out_dir), str(path)]
        child = subprocess.Popen(command, cwd=Path(__file__).parents[2], stdout=subprocess.DEVNULL,
                                 stderr=subprocess.PIPE, text=True)
        children.append(child)
        _, errors = child.communicate()
        if child.returncode:
            said = errors.strip().splitlines()
            if said:
                raise DataError(said[-1].removeprefix("error: "))
            raise DataError(f"tokenizing {path} ended with status {child.returncode}. "
                            f"Is there enough memory?")
        progress.update(count_documents(path))

    with ThreadPoolExecutor(workers) as pool:
        try:
            for future in as_completed([pool.submit(work, path) for path in paths]):
                future.result()
        finally:  # a failure or Ctrl-C ends the others too
            pool.shutdown(wait=False, cancel_futures=True)
            for child in list(children):
                if child.poll() is None:
                    child.terminate()


def main() -> None:
    tokenizer_dir, out_dir, shard = sys.argv[1:]
    tokenize_shard(Tokenizer.load(tokenizer_dir), shard, out_dir)


if __name__ == "__main__":
    run(main)
