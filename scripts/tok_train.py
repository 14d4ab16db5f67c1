"""
Train the tokenizer: byte pair encoding on the first characters of a data set's training text.

    python -m scripts.tok_train --vocab_size=6144    on the kindergarten

Its vocabulary decides how many tokens a text is, and so what a model can read in its context and learn in its
budget; its embedding is a matrix of vocab_size rows, which is why a small model wants a small one.
"""
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from nanochat.cli import at_least, option, parse
from nanochat.common import DataError, log, run, save_result, setup_logging
from nanochat.data.datasets import iter_texts, shards
from nanochat.data.tokenizer import SPECIAL_TOKENS, Tokenizer
from nanochat.terminal import Progress


@dataclass
class Config:
    dataset: str = option(
        "kindergarten", "text to learn from: kindergarten, climbmix, ... or your own, as base_train's"
    )
    vocab_size: int = option(32768, "tokens, special ones included; 6144 are best for the kindergarten")
    max_chars: int = option(2_000_000_000, "characters to read; more hardly change the tokens")
    doc_cap: int = option(10_000, "characters used of one document, so that no single one dominates")

    def __post_init__(self) -> None:
        at_least(self, max_chars=1, doc_cap=1)


@dataclass
class Seen:
    """What has been read so far; `chars` are those that are learned from."""
    read: int = 0
    chars: int = 0
    documents: int = 0


def read(config: Config, seen: Seen) -> Iterator[str]:
    """The texts to train on, counted in `seen` as they go by: no more than one lies in memory here.

    All that is read counts, also what doc_cap cuts off: so many characters are in the same shards every time,
    whether later ones are there yet or not.
    """
    progress = Progress(config.max_chars, "reading: characters")
    for text in iter_texts(shards(config.dataset, "train")):
        text = text[:config.max_chars - seen.read]
        used = text[:config.doc_cap]
        seen.read += len(text)
        seen.chars += len(used)
        seen.documents += 1
        progress.update(len(text), documents=f"{seen.documents:,}")
        yield used
        if seen.read >= config.max_chars:
            break
    seconds = progress.close()
    log.info(f"read {seen.read:,} characters of {seen.documents:,} documents in {seconds:.1f}s; "
             f"now learning from {seen.chars:,}...")


def main(argv: list[str] | None = None) -> None:
    config = parse(Config, argv, __doc__)
    setup_logging()
    start = time.monotonic()
    seen = Seen()
    tokenizer = Tokenizer.train(read(config, seen), config.vocab_size)
    if not seen.chars:
        raise DataError(f"{config.dataset} holds no text to learn from. Try another --dataset.")
    seconds = time.monotonic() - start
    path = tokenizer.save()

    notes = []
    if tokenizer.vocab_size < config.vocab_size:
        notes.append(f"the text has room for only {tokenizer.vocab_size:,} of {config.vocab_size:,} tokens")
        log.info(notes[0])
    metrics = _metrics(tokenizer, seen, seconds)
    save_result(
        "tok_train", metrics=metrics, config=asdict(config), device="cpu", wall_s=seconds, notes=notes
    )
    mean = metrics["token_bytes_mean"]
    log.info(f"{tokenizer.vocab_size:,} tokens in {seconds:.1f}s, {mean:.2f} bytes each on average, "
             f"hash {tokenizer.hash}, saved to {path}")


def _metrics(tokenizer: Tokenizer, seen: Seen, seconds: float) -> dict[str, Any]:
    lengths = tokenizer.token_bytes()[:-len(SPECIAL_TOKENS)]
    return {
        "vocab_size": tokenizer.vocab_size,
        "special_tokens": len(SPECIAL_TOKENS),
        "hash": tokenizer.hash,
        "chars": seen.chars,
        "documents": seen.documents,
        "seconds": round(seconds, 2),
        "token_bytes_mean": round(float(lengths.mean()), 3),
        "token_bytes_std": round(float(lengths.std()), 3),
        "token_bytes_max": int(lengths.max()),
    }


if __name__ == "__main__":
    run(main)
