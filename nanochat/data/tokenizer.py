"""
Text <-> token ids: byte pair encoding, trained by rustbpe, encoded by tiktoken, kept as JSON (never pickle).

Byte pair encoding (arXiv 1508.07909) begins with the 256 bytes as tokens, so that any text can be written,
and adds the most frequent pair of neighbours as a new token, again and again, until the vocabulary is full:
frequent words become one token, rare ones several. tests/test_rustbpe.py has it in 30 lines of Python.

Ids are byte-level tokens in the order learned, then the special tokens. These are no text: encode() never
yields one, decode() never shows one; chat_format and the data loader place them by name. If text could spell
them, a user who types <|assistant_start|> would put words into the model's mouth.
"""
import base64
import functools
import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import rustbpe
import tiktoken

from nanochat.common import (
    DataError,
    MissingArtifact,
    UsageError,
    atomic_write,
    base_dir,
    is_there,
    read_json,
)

FORMAT = "nanochat-tokenizer-1"

SPECIAL_TOKENS = [
    "<|bos|>",  # begins every document and every conversation
    "<|user_start|>", "<|user_end|>",
    "<|assistant_start|>", "<|assistant_end|>",
    "<|python_start|>", "<|python_end|>",  # the assistant calls the calculator
    "<|output_start|>", "<|output_end|>",  # which answers
    "<|system_start|>", "<|system_end|>",
    # for a new tool, without a new tokenizer
    "<|reserved_0|>", "<|reserved_1|>", "<|reserved_2|>", "<|reserved_3|>", "<|reserved_4|>",
]

# Merges never cross the pieces into which this pattern splits a text: without it "dog", "dog." and "dog!"
# would each become a token. It is GPT-4's: contractions | a word with the blank before it | digits |
# punctuation | line ends | blanks; but with at most two digits in a piece, or one if the vocabulary has up to
# SMALL_VOCAB tokens: a small vocabulary should not be spent on numbers, and each digit of a sum is easier
# seen alone.
_PATTERN = (r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}DIGITS"
            r"| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+")
SMALL_VOCAB = 4096


def split_pattern(vocab_size: int) -> str:
    digits = "" if vocab_size <= SMALL_VOCAB else "{1,2}"
    return _PATTERN.replace("DIGITS", digits)


# Some 800,000 blanks overflow the regular expression engine's stack and end the process, so runs are cut.
MAX_SPACES = 100_000
_SPACES = re.compile(rf"\s{{{MAX_SPACES}}}")


def _pieces(text: str) -> list[str]:
    """The text, cut where it is nothing but blanks for too long."""
    if len(text) <= MAX_SPACES:
        return [text]
    pieces = []
    start = 0
    for match in _SPACES.finditer(text):
        pieces.append(text[start:match.end()])
        start = match.end()
    pieces.append(text[start:])
    return pieces


def _training_pieces(texts: Iterable[str]) -> Iterator[str]:
    """With lone surrogates, which UTF-8 cannot hold, replaced as the encoder replaces them."""
    for text in texts:
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        yield from _pieces(text)


class Tokenizer:
    """tokens: the bytes of each ordinary token; special: names that take the ids after them. Thread-safe."""

    def __init__(self, tokens: Iterable[bytes], special: Iterable[str], pattern: str) -> None:
        self.tokens = list(tokens)
        self.pattern = pattern
        self._special = {name: len(self.tokens) + i for i, name in enumerate(special)}
        self.vocab_size = len(self.tokens) + len(self._special)
        self.special_ids = frozenset(self._special.values())
        self.bos_id = self.special("<|bos|>")
        # What was learned first is merged first, so a token's id is its rank, too.
        ranks = {token: rank for rank, token in enumerate(self.tokens)}
        self.encoding = tiktoken.Encoding("nanochat", pat_str=pattern, mergeable_ranks=ranks,
                                          special_tokens=self._special)

    # ---- make, save, load
    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int) -> "Tokenizer":
        """Learn `vocab_size` tokens, special ones included; little text gives fewer. Raises UsageError."""
        least = 256 + len(SPECIAL_TOKENS)
        if vocab_size < least:
            raise UsageError(f"--vocab_size must be at least {least} (bytes and special tokens), "
                             f"got {vocab_size}")
        pattern = split_pattern(vocab_size)
        bpe = rustbpe.Tokenizer()
        bpe.train_from_iterator(_training_pieces(texts), vocab_size - len(SPECIAL_TOKENS), pattern=pattern)
        ranks = {bytes(token): rank for token, rank in bpe.get_mergeable_ranks()}
        return cls(sorted(ranks, key=lambda token: ranks[token]), SPECIAL_TOKENS, pattern)

    def save(self, folder: str | Path | None = None) -> Path:
        """Write tokenizer.json, by default into base_dir()/tokenizer. Returns its path."""
        path = _path(folder)
        content = {**self._content(), "hash": self.hash}
        atomic_write(path, json.dumps(content, indent=0) + "\n")
        return path

    @classmethod
    def load(cls, folder: str | Path | None = None) -> "Tokenizer":
        """Raises MissingArtifact, Unreadable, and DataError for a file that does not match its own hash."""
        path = _path(folder)
        if not is_there(path):
            raise MissingArtifact("tokenizer", path, "python -m scripts.tok_train")
        content = read_json(path)
        is_whole = isinstance(content, dict) and content.pop("hash", "") == _digest(content)
        if not is_whole or content["format"] != FORMAT:
            raise DataError(f"{path} is damaged: it does not match its own hash, or is no {FORMAT}. "
                            "Each checkpoint holds a copy of its own: put that there, or make it again with: "
                            "python -m scripts.tok_train")
        tokens = [base64.b64decode(token) for token in content["tokens"]]
        return cls(tokens, content["special"], content["pattern"])

    def _content(self) -> dict[str, Any]:
        """What is kept on disk; base64, as tokens may be parts of characters."""
        tokens = [base64.b64encode(token).decode("ascii") for token in self.tokens]
        return {"format": FORMAT, "pattern": self.pattern, "special": list(self._special), "tokens": tokens}

    @functools.cached_property
    def hash(self) -> str:
        """16 hex digits that name this vocabulary: ids of another one mean other text."""
        return _digest(self._content())

    # ---- encode, decode
    def encode(self, text: str) -> list[int]:
        """The ids of a text, in which nothing is special."""
        ids = []
        for piece in _pieces(text):
            ids += self.encoding.encode_ordinary(piece)
        return ids

    def encode_batch(self, texts: Iterable[str]) -> list[list[int]]:
        """The same on several threads."""
        pieces_of_texts = [_pieces(text) for text in texts]
        all_pieces = []
        for pieces in pieces_of_texts:
            all_pieces += pieces
        encoded = iter(self.encoding.encode_ordinary_batch(all_pieces))
        ids_of_texts = []
        for pieces in pieces_of_texts:
            ids = next(encoded)
            for _ in pieces[1:]:
                ids = ids + next(encoded)
            ids_of_texts.append(ids)
        return ids_of_texts

    def decode(self, ids: Iterable[int]) -> str:
        """Bytes that are no UTF-8, such as half a character when a reply was cut, become U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """Special tokens and the ids that pad a model's vocabulary have none."""
        n_ordinary = len(self.tokens)
        return b"".join(self.tokens[i] for i in ids if i < n_ordinary)

    def special(self, name: str) -> int:
        """The id of a special token."""
        assert name in self._special, f"no special token {name!r} among {list(self._special)}"
        return self._special[name]

    def token_bytes(self) -> np.ndarray:
        """Bytes of text of each id: (vocab_size,) int32, 0 for special tokens.

        Loss per byte can be compared between vocabularies, loss per token cannot: longer tokens are harder to
        guess."""
        lengths = np.zeros(self.vocab_size, dtype=np.int32)
        lengths[:len(self.tokens)] = [len(token) for token in self.tokens]
        return lengths


def _digest(content: dict[str, Any]) -> str:
    text = json.dumps(content, indent=0) + "\n"
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]


def _path(folder: str | Path | None) -> Path:
    return (Path(folder) if folder else base_dir() / "tokenizer") / "tokenizer.json"
