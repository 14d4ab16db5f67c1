"""
Replies that are JSON by construction: a JSON schema says which tokens may come next.

A schema is a grammar of bytes, and a token is some bytes: those that cannot go on with what was said get no
chance (constrained decoding, arXiv 2307.09702), nor does the end before the value is whole. llguidance, an
optional package, keeps the grammar, in 10 to 100 microseconds a token.
"""
import functools
import json
from typing import Any

import numpy as np
import torch

from nanochat.common import UsageError
from nanochat.data.tokenizer import Tokenizer

# One line, as json.dumps writes it: blanks between values may go on for ever. No keyword is passed over.
LAYOUT = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": ", "lenient": False,
          "coerce_one_of": False}

# As many as a float holds: a small model may go on for ever with them, too.
MAX_DIGITS = 15


def _close(node: Any) -> None:
    """Let objects have just the properties that a schema names, unless it says other: clients mean
    that, and a small model would invent ever more."""
    parts = node if isinstance(node, list) else []
    if isinstance(node, dict):
        named = node.get("properties")
        parts = [value for key, value in node.items() if key != "properties"]
        if named and isinstance(named, dict):
            if node.keys() & {"$ref", "anyOf", "oneOf"}:
                return  # whose properties belong to it, too
            node.setdefault("type", "object")
            node.setdefault("additionalProperties", False)
            parts.extend(named.values())
    for part in parts:
        _close(part)


def _llguidance() -> Any:
    try:
        import llguidance.tiktoken
    except ImportError:
        raise UsageError("JSON replies need the package llguidance: .venv/bin/pip install -c constraints.txt "
                         "-e '.[json]'") from None
    return llguidance


@functools.lru_cache(maxsize=4)
def _vocabulary(tokenizer: Tokenizer) -> Any:
    end = tokenizer.special("<|assistant_end|>")
    return _llguidance().tiktoken.lltokenizer_from_encoding(
        tokenizer.encoding, n_vocab=tokenizer.vocab_size, eos_token=end
    )


@functools.lru_cache(maxsize=4)
def _begin_with_a_digit(tokenizer: Tokenizer) -> np.ndarray:
    return np.array([token[:1].isdigit() for token in tokenizer.tokens])


@functools.lru_cache(maxsize=32)
def compile_schema(tokenizer: Tokenizer, schema: str) -> Any:
    """The grammar of a JSON `schema` before the first token.

    Raises UsageError: no llguidance, or a schema that is wrong or more than a grammar.
    """
    matcher = _llguidance().LLMatcher
    meant = json.loads(schema)
    if '"allOf"' not in schema:  # whose schemas would exclude each other
        _close(meant)
    try:
        grammar = matcher(_vocabulary(tokenizer), matcher.grammar_from_json_schema(meant, overrides=LAYOUT),
                          log_level=0)
        problem = grammar.get_error()
    except ValueError as error:
        problem = str(error)
    if problem:
        raise UsageError(f"no reply can be held to this JSON schema: {problem.splitlines()[-1]}")
    return grammar


class JsonGrammar:
    """Where one reply stands in its schema's grammar. Raises as `compile_schema`."""

    def __init__(self, tokenizer: Tokenizer, schema: str) -> None:
        self._grammar = compile_schema(tokenizer, schema).deep_copy()
        self._tokenizer = tokenizer
        self._digits = 0  # how many the reply ends with so far

    @property
    def failed(self) -> bool:
        """Whether it became too complex: then nothing but the end is allowed."""
        return self._grammar.is_error()

    def forbid(self, logits: torch.Tensor) -> None:
        """Give the tokens that may not follow no chance in one row of logits (V,), in place."""
        bits = np.frombuffer(self._grammar.compute_bitmask(), np.uint8)
        allowed = np.unpackbits(bits, bitorder="little", count=self._tokenizer.vocab_size) == 1
        if self._digits >= MAX_DIGITS:
            self._end_number(allowed)
        logits[len(allowed):] = -torch.inf  # what pads a model's vocabulary is no token
        logits[:len(allowed)][torch.from_numpy(~allowed).to(logits.device)] = -torch.inf

    def _end_number(self, allowed: np.ndarray) -> None:
        """Allow no further digit if a number may end here, where no quote can follow, unlike in a text."""
        digits = _begin_with_a_digit(self._tokenizer)
        quote = self._tokenizer.encode('"')[0]
        may_end = allowed.copy()
        may_end[:len(digits)] &= ~digits
        if may_end.any() and not allowed[quote]:
            allowed &= may_end

    def accept(self, token: int) -> None:
        """Take the token that was chosen."""
        self._grammar.consume_token(token)
        text = self._tokenizer.tokens[token]
        at_end = len(text) - len(text.rstrip(b"0123456789"))
        self._digits = self._digits + at_end if at_end == len(text) else at_end
