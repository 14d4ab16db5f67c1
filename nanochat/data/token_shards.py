"""
Parquet shards of text -> memory-mapped shards of token ids, made once for each tokenizer and kept on disk.

Three files: ids (uint16, or uint32), document offsets, and a manifest of sources, lengths and hashes; used only if all
that still holds. Run as a module it tokenizes one shard: how prepare_tokens starts a worker, without torch.
"""
import functools
import hashlib
import itertools
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nanochat.common import DataError, Progress, atomic_file, base_dir, log, read_json, run, write_json
from nanochat.data.datasets import count_documents, iter_texts
from nanochat.data.tokenizer import Tokenizer

FORMAT = 2
BATCH = 1024  # documents tokenized at once: lists of ids take much memory
IN_PROCESS_BYTES = 64 << 20  # below, worker processes cost more than they save


@dataclass(frozen=True)
class TokenShard:
    """Document d is tokens[offsets[d]:offsets[d+1]] and starts with bos."""
    path: Path  # without the endings
    documents: int
    bos_id: int
    sha256: str  # of the token bytes
    offsets_sha256: str

    @functools.cached_property
    def tokens(self):
        return _load_npy(f"{self.path}.tokens.npy", self.sha256, "<u2 <u4")

    @functools.cached_property
    def offsets(self):
        return _load_npy(f"{self.path}.offsets.npy", self.offsets_sha256, "<i8")


def _load_npy(path, sha256, dtypes):
    """Mapped. Raises DataError."""
    try:
        array = np.load(path, mmap_mode="r")
        if array.dtype.str in dtypes.split() and hashlib.sha256(array).hexdigest() == sha256:
            return array
        what = "its values do not match its digest"
    except Exception as e:  # a bad header raises nearly anything
        what = (str(e) or type(e).__name__).splitlines()[0]
    raise DataError(f"{path} is damaged ({what}). Delete it and run the same command again.")


def tokenize_shard(tokenizer, parquet, out_dir, progress=None):
    """The manifest is written last: without it the rest does not count."""
    parquet, target = Path(parquet), Path(out_dir) / Path(parquet).stem
    source, bos, texts = _stamp(parquet), tokenizer.bos_id, iter_texts([parquet])
    dtype = np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.uint32
    documents, sizes = [np.zeros(0, dtype)], {}
    while batch := list(itertools.islice(texts, BATCH)):
        documents += [np.array([bos, *ids], dtype) for ids in tokenizer.encode_batch(batch)]
        if progress:
            progress.update(len(batch))
    tokens, offsets = np.concatenate(documents), np.cumsum([len(ids) for ids in documents], dtype=np.int64)
    for ending, array in (("tokens.npy", tokens), ("offsets.npy", offsets)):
        with atomic_file(f"{target}.{ending}") as tmp, open(tmp, "w+b") as file:  # "wb": no errno of a full disk
            np.save(file, array)
            sizes[ending] = file.tell()
    write_json(f"{target}.json", {
        "format": FORMAT, "tokenizer": tokenizer.hash, "source": source, "bytes": sizes, "bos_id": bos,
        "documents": len(offsets) - 1, "tokens": len(tokens), "sha256": hashlib.sha256(tokens).hexdigest(),
        "offsets_sha256": hashlib.sha256(offsets).hexdigest()})


def _stamp(path):
    stat = path.stat()
    return {"bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns}


def _load_shard(tokenizer, parquet, out_dir):
    """The TokenShard of a parquet file, or None when it has to be made."""
    target = out_dir / parquet.stem
    if not Path(f"{target}.json").exists():
        return None
    try:
        manifest = read_json(f"{target}.json")
        if manifest | {"format": FORMAT, "tokenizer": tokenizer.hash, "source": _stamp(parquet)} != manifest:
            return None
        shard = TokenShard(target, *(manifest[key] for key in ("documents", "bos_id", "sha256", "offsets_sha256")))
        for ending in ("tokens.npy", "offsets.npy"):
            file, size = Path(f"{target}.{ending}"), manifest["bytes"][ending]
            found = file.stat().st_size if file.exists() else 0
            if found != size:
                raise DataError(f"{file} is damaged ({found:,} bytes instead of {size:,}).")
        if (shard.documents, shard.bos_id) != (len(shard.offsets) - 1, tokenizer.bos_id):
            raise DataError(f"{target}.json is damaged.")
    except (DataError, AttributeError, KeyError, TypeError, ValueError) as e:
        why = str(e) if isinstance(e, DataError) else f"{target}.json is damaged."
        log.warning(f"{why.partition('. ')[0]}: tokenizing {parquet.name} again")
        return None
    return shard


def prepare_tokens(tokenizer, shard_paths, name) -> list[TokenShard]:
    """The token shards of `shard_paths`, in base_dir()/tokens/<hash>/<name>/; the missing ones are made.

    Rank 0 calls before the others. Raises DataError naming a shard.
    """
    root = base_dir().resolve() / "tokens" / tokenizer.hash
    out_dir = root / re.sub(r"[^\w.-]+", "_", str(name)).strip("_")
    paths = [Path(p).resolve() for p in shard_paths]
    if len({p.stem for p in paths}) < len(paths):
        raise DataError(f"two shards of {name} have the same file name. Rename one of them.")
    todo = [p for p in paths if _load_shard(tokenizer, p, out_dir) is None]
    if todo:
        progress = Progress(sum(count_documents(p) for p in todo), f"tokenizing {name}: documents")
        if len(todo) == 1 or sum(p.stat().st_size for p in todo) < IN_PROCESS_BYTES:
            for path in todo:
                tokenize_shard(tokenizer, path, out_dir, progress)
        else:
            tokenizer.save(root)
            _tokenize_in_processes(root, todo, out_dir, min(os.cpu_count() or 1, 32), progress)
        progress.close()
    shards = [_load_shard(tokenizer, p, out_dir) for p in paths]
    if None in shards:
        raise DataError(f"{paths[shards.index(None)]} changed while it was being tokenized. Run the same command "
                        "again.")
    return shards


def _tokenize_in_processes(tokenizer_dir, paths, out_dir, workers, progress):
    """A fresh interpreter a shard: fork is unsafe with torch's threads, spawn imports the main script."""
    children = []

    def work(path):
        command = [sys.executable, "-m", "nanochat.data.token_shards", str(tokenizer_dir), str(out_dir), str(path)]
        child = subprocess.Popen(command, cwd=Path(__file__).parents[2], stdout=subprocess.DEVNULL,
                                 stderr=subprocess.PIPE, text=True)
        children.append(child)
        error = child.communicate()[1].strip()
        if child.returncode:
            raise DataError(error.splitlines()[-1].removeprefix("error: ") if error else
                            f"tokenizing {path} ended with status {child.returncode}. Is there enough memory?")
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


def main():
    tokenizer_dir, out_dir, shard = sys.argv[1:]
    tokenize_shard(Tokenizer.load(tokenizer_dir), shard, out_dir)


if __name__ == "__main__":
    run(main)
