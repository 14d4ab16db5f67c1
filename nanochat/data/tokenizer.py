"""
Text <-> token ids: byte pair encoding, trained by rustbpe, encoded by tiktoken, kept as JSON (never pickle).

Ids are byte-level tokens in the order learned, then the special tokens. These are no text: encode() never yields one,
decode() never shows one; chat_format and the data loader place them by name.
"""
import base64
import functools
import hashlib
import json
import re
from pathlib import Path

import numpy as np
import rustbpe
import tiktoken

from nanochat.common import DataError, MissingArtifact, UsageError, atomic_write, base_dir, read_json

FORMAT = "nanochat-tokenizer-1"

# Reserved names: for a new tool, without a new tokenizer.
SPECIAL_TOKENS = ["<|bos|>", *(f"<|{part}_{edge}|>" for part in ("user", "assistant", "python", "output", "system")
                               for edge in ("start", "end")), *(f"<|reserved_{i}|>" for i in range(5))]

# GPT-4's split pattern with at most two digits, or up to SMALL_VOCAB tokens one: a small vocabulary should not be spent
# on numbers, and each digit of a sum is easier seen alone.
_PATTERN = (r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}DIGITS"
            r"| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+")
SMALL_VOCAB = 4096


def split_pattern(vocab_size) -> str:
    return _PATTERN.replace("DIGITS", "" if vocab_size <= SMALL_VOCAB else "{1,2}")


# Some 800,000 blanks overflow the regular expression engine's stack and end the process, so runs are cut.
MAX_SPACES = 100_000
_SPACES = re.compile(r"\s{%d}" % MAX_SPACES)


def _pieces(text) -> list[str]:
    if len(text) <= MAX_SPACES:
        return [text]
    ends = [match.end() for match in _SPACES.finditer(text)]
    return [text[start:end] for start, end in zip([0, *ends], [*ends, len(text)])]


def _training_pieces(texts):
    """With lone surrogates, which UTF-8 cannot hold, replaced as the encoder replaces them."""
    for text in texts:
        yield from _pieces(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))


class Tokenizer:
    """tokens: the bytes of each ordinary token; special: names that take the ids after them. Thread-safe."""

    def __init__(self, tokens, special, pattern):
        self.tokens, self.pattern = list(tokens), pattern
        self._special = {name: len(self.tokens) + i for i, name in enumerate(special)}
        self.vocab_size = len(self.tokens) + len(self._special)
        self.special_ids = frozenset(self._special.values())
        self.bos_id = self.special("<|bos|>")
        self._encoding = tiktoken.Encoding("nanochat", pat_str=pattern, special_tokens=self._special,
                                           mergeable_ranks={token: i for i, token in enumerate(self.tokens)})

    # ---- make, save, load
    @classmethod
    def train(cls, texts, vocab_size):
        """Learn `vocab_size` tokens, the special ones among them; little text gives fewer. Raises UsageError."""
        least = 256 + len(SPECIAL_TOKENS)
        if vocab_size < least:
            raise UsageError(f"--vocab_size must be at least {least} (bytes and special tokens), got {vocab_size}")
        bpe, pattern = rustbpe.Tokenizer(), split_pattern(vocab_size)
        bpe.train_from_iterator(_training_pieces(texts), vocab_size - len(SPECIAL_TOKENS), pattern=pattern)
        ranks = {bytes(token): rank for token, rank in bpe.get_mergeable_ranks()}
        return cls(sorted(ranks, key=ranks.get), SPECIAL_TOKENS, pattern)

    def save(self, dir=None) -> Path:
        path = _path(dir)
        atomic_write(path, json.dumps({**self._kept, "hash": self.hash}, indent=0) + "\n")
        return path

    @classmethod
    def load(cls, dir=None):
        """Raises MissingArtifact, DataError."""
        path = _path(dir)
        if not path.is_file():
            raise MissingArtifact("tokenizer", path, "python -m scripts.tok_train")
        kept = read_json(path)
        if not isinstance(kept, dict) or kept.pop("hash", "") != _digest(kept) or kept["format"] != FORMAT:
            raise DataError(f"{path} is damaged: it does not match its own hash, or is no {FORMAT}. "
                            "Make it again with: python -m scripts.tok_train")
        return cls(map(base64.b64decode, kept["tokens"]), kept["special"], kept["pattern"])

    @property
    def _kept(self):
        tokens = [base64.b64encode(token).decode("ascii") for token in self.tokens]
        return {"format": FORMAT, "pattern": self.pattern, "special": list(self._special), "tokens": tokens}

    @functools.cached_property
    def hash(self) -> str:
        """16 hex digits that name this vocabulary."""
        return _digest(self._kept)

    # ---- encode, decode
    def encode(self, text) -> list[int]:
        return [i for piece in _pieces(text) for i in self._encoding.encode_ordinary(piece)]

    def encode_batch(self, texts) -> list[list[int]]:
        pieces = [_pieces(text) for text in texts]
        encoded = iter(self._encoding.encode_ordinary_batch([piece for text in pieces for piece in text]))
        return [[i for _ in text for i in next(encoded)] for text in pieces]

    def decode(self, ids) -> str:
        """Bytes that are no UTF-8 become U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def decode_bytes(self, ids) -> bytes:
        """Special tokens and the ids that pad a model's vocabulary have none."""
        n = len(self.tokens)
        return b"".join(self.tokens[i] for i in ids if i < n)

    def special(self, name) -> int:
        assert name in self._special, f"no special token {name!r} among {list(self._special)}"
        return self._special[name]

    def token_bytes(self) -> np.ndarray:
        """Of each id: (vocab_size,) int32, 0 for special tokens."""
        return np.array([len(token) for token in self.tokens] + [0] * len(self._special), dtype=np.int32)


def _digest(kept):
    return hashlib.sha256((json.dumps(kept, indent=0) + "\n").encode("utf-8")).hexdigest()[:16]


def _path(dir):
    return (Path(dir) if dir else base_dir() / "tokenizer") / "tokenizer.json"
