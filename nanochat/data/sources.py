"""
The files that people bring: a file's kind and split, the rows in it, and what an error of reading it means.

Pretraining text, conversations and the tables of tasks all come through here. Nothing is loaded whole but a
JSON list. A file that may not be read or is not there is not damaged, and nobody is told to delete what is
theirs: whoever can make or fetch a file again says so in `mend`.
"""
import contextlib
import errno
import io
import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from nanochat.common import DataError, UsageError

KINDS = {".parquet": "parquet", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".txt": "txt"}
COMPRESSED = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2"}
ACCEPTED = ".parquet, .jsonl, .json or .txt (the last three also as .gz, .zst or .bz2)"
SPLITS = {"train": "train", "training": "train", "validation": "val", "valid": "val", "val": "val",
          "dev": "val", "eval": "val", "test": "test", "testing": "test"}
NO_WORDS = {"of", "snappy", *(ending[1:] for ending in (*KINDS, *COMPRESSED))}  # of a file's name
BINARY = {pa.binary(): pa.string(), pa.large_binary(): pa.large_string()}  # the same bytes as strings
ROW_GROUP = 1024  # rows read at once
MOST_PIECE_CHARS = 8192  # of a .txt: about one context of 2048 tokens
LEAST_PIECE_CHARS = 256
END_OF_TEXT = "<|endoftext|>"  # what many text files put between documents


# ---- what goes wrong
@contextlib.contextmanager
def reading(path: str | Path, mend: str = "") -> Iterator[None]:
    """Turn an error of reading `path` into a DataError that says which: only what was read and is wrong is
    damage, for which `mend` helps.
    """
    try:
        yield
    except UnicodeDecodeError as e:
        byte = e.object[e.start]
        raise DataError(f"{path} holds bytes that are no UTF-8 (0x{byte:02x}). Save it as UTF-8.") from None
    except MemoryError:
        raise DataError(f"there is not enough memory to read {path}. Cut it into several files.") from None
    except pa.ArrowNotImplementedError as e:
        raise DataError(f"{path} is written in a way that pyarrow cannot read ({_first_line(e)}).") from None
    except (OSError, pa.ArrowException, EOFError) as e:
        number = getattr(e, "errno", None)
        if number is None and os.path.isdir(path):
            number = errno.EISDIR
        if number is not None:
            hint = " Give this user the right to read it." if number in (errno.EACCES, errno.EPERM) else ""
            raise DataError(f"cannot read {path}: {os.strerror(number)}.{hint}") from None
        raise DataError(f"cannot read {path}, it is damaged or truncated ({_first_line(e)}). "
                        f"{mend or 'Copy or make it again.'}") from None


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:120]


# ---- which files
def kind_of(path: str | Path) -> str:
    """"parquet", "jsonl", "json" or "txt" by the ending; "" for any other."""
    path = Path(path)
    if path.suffix.lower() in COMPRESSED:
        kind = KINDS.get(Path(path.stem).suffix.lower(), "")
        return "" if kind == "parquet" else kind
    return KINDS.get(path.suffix.lower(), "")


def split_of(path: str | Path) -> str:
    """"train", "val", "test" or "" by the names of a file and of the folders around it.

    As hubs write them: train-00000-of-00002.parquet, wiki.valid.jsonl, test/0.parquet, split=test/0.parquet.
    """
    found = set()
    for name in Path(path).parts:
        words = [word for word in re.findall("[a-z]+", name.lower()) if word not in NO_WORDS]
        for word in words[:1] + words[-1:]:
            found.add(SPLITS.get(word, ""))
    for split in ("test", "val", "train"):  # in doubt it is not trained on
        if split in found:
            return split
    return ""


@dataclass(frozen=True)
class Files:
    """What a path holds, each in the order of its names; those used are of one kind."""

    train: list[Path]
    val: list[Path]  # [] where no name says so
    unused: list[Path]  # tests, what has no split beside files that have one, other kinds

    def __str__(self) -> str:
        said = [f"training on {_named(self.train)}", f"validating on {_named(self.val)}"]
        if self.unused:
            said.append(f"not using {_named(self.unused)}")
        return ", ".join(said)


def _named(files: list[Path]) -> str:
    if not files:
        return "some of it"
    more = f" and {len(files) - 1:,} more" if len(files) > 1 else ""
    return f"{files[0].parent.name}/{files[0].name}{more}"


def find_files(path: str | Path) -> Files:
    """The file itself, or a folder's parquet files, else those of the kind with most bytes there.

    Names that begin with a dot or _ are passed over, as Spark's _SUCCESS. Raises UsageError, DataError.
    """
    path = Path(path).expanduser()
    with reading(path):
        is_folder = path.is_dir()
        if not is_folder:
            path.stat()
            files = [path]
        else:
            files = sorted(_walk(path))
    sizes = Counter[str]()
    for file in files:
        sizes[kind_of(file)] += file.stat().st_size if file.exists() else 0  # a dead link
    del sizes[""]
    if "parquet" not in sizes and any(file.suffix == ".arrow" for file in files):
        raise UsageError(f"{path} is .arrow, of save_to_disk. Write parquet: "
                         "load_from_disk(..)['train'].to_parquet('train.parquet')")
    if not sizes:
        raise UsageError(f"{path} {'holds no file that is' if is_folder else 'is no'} {ACCEPTED}.")
    kind = "parquet" if "parquet" in sizes else max(sizes, key=lambda name: sizes[name])
    if not is_folder:
        return Files(files, [], [])
    found = _by_split(path, [file for file in files if kind_of(file) == kind])
    if kind != "parquet":  # beside which a README.txt is usual
        found.unused.extend(file for file in files if kind_of(file) not in (kind, ""))
    return found


def _walk(folder: Path) -> Iterator[Path]:
    for entry in folder.iterdir():
        if entry.name.startswith((".", "_")):
            continue
        if not entry.is_dir():
            yield entry
        elif not folder.resolve().is_relative_to(entry.resolve()):  # a link to where it lies would never end
            yield from _walk(entry)


def _by_split(folder: Path, files: list[Path]) -> Files:
    by_split: dict[str, list[Path]] = {"train": [], "val": [], "test": [], "": []}
    for file in files:
        by_split[split_of(file.relative_to(folder))].append(file)
    train = by_split["train"] or by_split[""]
    if not train:
        raise UsageError(f"{folder} holds nothing to train on: its files are named validation or test.")
    return Files(train, by_split["val"], by_split["test"] + (by_split[""] if by_split["train"] else []))


# ---- rows
def rows(path: Path) -> Iterator[tuple[str, Any]]:
    """(place, value) of each row of a parquet or JSON file; the place is for messages. Raises DataError."""
    if kind_of(path) != "parquet":
        yield from _json_rows(path)
        return
    number = 0
    with reading(path), pq.ParquetFile(path, page_checksum_verification=True) as file:
        for batch in file.iter_batches(batch_size=ROW_GROUP):
            for value in batch.to_pylist():
                number += 1
                yield f"{path}, row {number}", value


def open_text(path: Path) -> io.TextIOWrapper:
    """A text file, unpacked as it is read; UTF-16 where its first bytes say so, else UTF-8."""
    compression = COMPRESSED.get(path.suffix.lower())
    with pa.input_stream(path, compression=compression) as stream:
        start = stream.read(2)
    encoding = "utf-16" if start in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    return io.TextIOWrapper(pa.input_stream(path, compression=compression), encoding)


def _json_rows(path):
    """One value a line, or a list of them over the whole file. A comma may end a line."""
    with reading(path), open_text(path) as file:
        for number, line in enumerate(file, start=1):
            line = line.strip()
            if not line:
                continue
            try:
                value = json.loads(line.removesuffix(","))
            except (ValueError, RecursionError) as e:
                if number > 1 or not re.match(r"\[|\{$", line):
                    raise DataError(f"{path}, line {number} is no JSON: {e}") from None
                break
            yield from _unpacked(f"{path}, line {number}", path, value)
        else:
            return
    with reading(path), open_text(path) as file:  # it begins like a list, or a value over many lines
        text = file.read()
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as e:
            raise DataError(f"{path} is no JSON: {e}") from None
    yield from _unpacked(f"{path}, row 1", path, value)


def _unpacked(place, path, value):
    """The rows in a list of rows; a list of messages is one row."""
    first = value[0] if isinstance(value, list) and value else None
    if first is None or isinstance(first, dict) and ("role" in first or "from" in first):
        yield place, value
        return
    for number, row in enumerate(value, start=1):
        yield f"{path}, row {number}", row


# ---- text
@contextlib.contextmanager
def open_parquet(path: str | Path, mend: str = "") -> Iterator[pq.ParquetFile]:
    """A parquet file with a column `text`. Raises DataError."""
    with reading(path, mend), pq.ParquetFile(path, page_checksum_verification=True) as file:
        names = file.schema_arrow.names
        if "text" not in names:
            raise DataError(f"{path} has no column 'text' (it has {', '.join(names)}). "
                            "Give that name to the one with the text.")
        kind = file.schema_arrow.field("text").type
        if not _is_text(kind):
            raise DataError(f"the column 'text' of {path} holds {kind}, not strings.")
        yield file


def _is_text(kind: pa.DataType) -> bool:
    """pandas and polars write categories as dictionaries; old Spark and Hive call strings binary."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return kind in (pa.string(), pa.large_string(), pa.string_view(), pa.null(), *BINARY)


def parquet_texts(path: str | Path, mend: str = "") -> Iterator[str]:
    """The documents of a parquet file in order, without empty ones. Raises DataError."""
    number = 0
    with open_parquet(path, mend) as file:
        for batch in file.iter_batches(batch_size=ROW_GROUP, columns=["text"]):
            column = batch.column(0)
            if column.type in BINARY:
                column = column.view(BINARY[column.type])
            with reading(f"{path}, rows {number + 1:,} to {number + len(column):,},"):
                found = column.to_pylist()
            number += len(found)
            for text in found:
                if text:
                    yield text


def text_pieces(path: Path, size: int) -> Iterator[str]:
    """A text file as documents of about `size` characters, which end at a blank line.

    Paragraphs alone would teach nothing of what follows what, and a whole book as one document would leave
    nothing to hold out. Where no blank line comes, a line's end must do; <|endoftext|> ends one in any case.
    """
    for piece in _raw_pieces(path, size):
        piece = piece.strip("\n")
        if piece.strip():
            yield piece


def _raw_pieces(path, size):
    piece = ""
    with reading(path), open_text(path) as file:
        while line := file.readline(4 * size):  # all in one line is cut, too
            *ended, rest = line.split(END_OF_TEXT)
            for end in ended:
                yield piece + end
                piece = ""
            piece += rest
            if len(piece) >= 2 * size or len(piece) >= size and not line.strip():
                yield piece
                piece = ""
    yield piece


def texts(path: Path, piece_chars: int) -> Iterator[str]:
    """The documents of any file, without empty ones. Raises DataError."""
    kind = kind_of(path)
    if kind == "parquet":
        yield from parquet_texts(path)
        return
    if kind == "txt":
        yield from text_pieces(path, piece_chars)
        return
    for place, value in rows(path):
        if isinstance(value, dict):
            if "text" not in value:
                raise DataError(f"{place} has no key 'text' (it has {', '.join(value) or 'none'}). "
                                'Write one {"text": ".."} a line.')
            value = value["text"]
        if value is not None and not isinstance(value, str):
            raise DataError(f"{place}: the text is of type {type(value).__name__}, not a string.")
        if value:
            yield value
