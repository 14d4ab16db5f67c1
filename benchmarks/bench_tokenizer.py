"""
How fast the tokenizer is trained and encodes, beside Hugging Face's tokenizers and bare tiktoken, on the same
text with the same splitting pattern and as many tokens.

    python benchmarks/bench_tokenizer.py                                generated text of the kindergarten
    python benchmarks/bench_tokenizer.py --dataset=FOLDER --vocab_size=32768

`pip install tokenizers` for the comparison. Figures are medians of --runs, all in one process, one thread
where a library lets us choose.
"""

import os
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
sys.path.insert(0, str(Path(__file__).parents[1]))

import tiktoken  # noqa: E402

from nanochat.cli import option, parse  # noqa: E402
from nanochat.common import run  # noqa: E402
from nanochat.data.datasets import iter_texts, shards  # noqa: E402
from nanochat.data.tokenizer import Tokenizer  # noqa: E402
from nanochat.kindergarten import documents  # noqa: E402


@dataclass
class Config:
    dataset: str = option("", "folder of parquet files (default: generated documents)")
    max_chars: int = option(8_000_000, "characters of text")
    vocab_size: int = option(4096, "tokens")
    runs: int = option(3, "repetitions of each measurement")


def texts_of(config):
    """Documents up to max_chars characters."""
    source = iter_texts(shards(config.dataset, "train")) if config.dataset else documents(10**9)
    texts, room = [], config.max_chars
    for text in source:
        texts.append(text[:room])
        room -= len(text)
        if room <= 0:
            return texts
    return texts


def timed(work, runs):
    """(median seconds, the last result)."""
    seconds = []
    for _ in range(runs):
        start = time.perf_counter()
        result = work()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds), result


def train_tokenizers(texts, ours):
    """A byte-level BPE of Hugging Face's tokenizers with our pattern and size."""
    from tokenizers import Regex, pre_tokenizers, trainers
    from tokenizers import Tokenizer as Theirs
    from tokenizers.models import BPE

    made = Theirs(BPE())
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(ours.pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=len(ours.tokens), initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    made.train_from_iterator(texts, trainer)
    return made


def main(argv=None):
    config = parse(Config, argv, __doc__)
    texts = texts_of(config)
    megabytes = sum(len(text.encode("utf-8")) for text in texts) / 1e6
    seconds, ours = timed(lambda: Tokenizer.train(texts, config.vocab_size), config.runs)
    bare = tiktoken.Encoding(
        "bare",
        pat_str=ours.pattern,
        special_tokens={},
        mergeable_ranks={token: i for i, token in enumerate(ours.tokens)},
    )
    print(
        f"{megabytes:.1f} MB, {len(texts):,} documents, {config.vocab_size:,} tokens, median of {config.runs}\n"
    )
    print("| what | training, s | encoding, MB/s | tokens |\n| --- | ---: | ---: | ---: |")
    encoding, n = timed(lambda: sum(len(ours.encode(text)) for text in texts), config.runs)
    print(
        f"| nanochat (rustbpe, tiktoken) | {seconds:.2f} | {megabytes / encoding:.1f} | {n:,} |", flush=True
    )
    encoding, n = timed(lambda: sum(len(bare.encode_ordinary(text)) for text in texts), config.runs)
    print(f"| tiktoken, the same merges | - | {megabytes / encoding:.1f} | {n:,} |", flush=True)
    try:
        seconds, theirs = timed(lambda: train_tokenizers(texts, ours), config.runs)
    except ImportError:
        print("| tokenizers | not installed | | |")
        return
    encoding, n = timed(lambda: sum(len(theirs.encode(text).ids) for text in texts), config.runs)
    print(f"| tokenizers | {seconds:.2f} | {megabytes / encoding:.1f} | {n:,} |")


if __name__ == "__main__":
    run(main)
