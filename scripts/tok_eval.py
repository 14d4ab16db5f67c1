"""
Compare the tokenizer's compression with GPT-2's and GPT-4's on five small texts and on the data set's own.

    python -m scripts.tok_eval --dataset=climbmix
"""
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import tiktoken

from nanochat.cli import at_least, option, parse
from nanochat.common import MissingArtifact, log, run, save_result, setup_logging
from nanochat.data.datasets import iter_texts, shards
from nanochat.data.tokenizer import Tokenizer
from nanochat.report.markdown import table

PEERS = {"gpt2": "gpt2", "gpt4": "cl100k_base"}

TEXTS = dict(text.split("\n", 1) for text in
             Path(__file__).with_suffix(".txt").read_text(encoding="utf-8").split("=== ")[1:])


@dataclass
class Config:
    dataset: str = option("kindergarten", "data set whose training and validation text is compressed too")
    max_chars: int = option(200_000, "characters taken of each split of the data set")
    download_s: float = option(6.0, "seconds to wait for GPT-2's and GPT-4's tokenizers; 0: do not look for them")

    def __post_init__(self):
        at_least(self, max_chars=1)


def load_peers(wait_s):
    """({peer: encoding} of those that could be had within `wait_s` seconds, notes on the rest).

    tiktoken downloads without a time-out, hence a thread that is left behind when it hangs.
    """
    found, problems = {}, []

    def fetch():
        try:
            for peer, name in PEERS.items():
                found[peer] = tiktoken.get_encoding(name)
        except Exception as e:  # whatever the network says is shown
            problems.append(type(e).__name__)
    if wait_s > 0:
        thread = threading.Thread(target=fetch, daemon=True)
        thread.start()
        thread.join(wait_s)
    peers = dict(found)
    missing = " and ".join(peer for peer in PEERS if peer not in peers)
    why = problems[0] if problems else f"no answer in {wait_s:g}s" if wait_s > 0 else "--download_s=0"
    return peers, [f"{missing} tokenizer not available offline ({why})"] if missing else []


def sample_texts(config):
    """({name: text to compress}, notes on what was left out)."""
    texts, notes = dict(TEXTS), []
    for split in ("train", "val"):
        try:
            text = ""
            for document in iter_texts(shards(config.dataset, split)):
                text += f"{document}\n"
                if len(text) > config.max_chars:
                    break
            texts[f"{Path(config.dataset).name} {split}"] = text[:config.max_chars]
        except MissingArtifact as e:
            notes.append(f"skipped {config.dataset} {split}: {e}")
    return texts, notes


def measure(name, text, tokenizer, peers):
    n, n_bytes = len(tokenizer.encode(text)), len(text.encode("utf-8", "replace"))
    theirs = {f"{peer}_tokens": len(peers[peer].encode_ordinary(text)) if peer in peers else None for peer in PEERS}
    return {"text": name, "bytes": n_bytes, "tokens": n, "bytes_per_token": round(n_bytes / max(n, 1), 3), **theirs}


def main(argv=None):
    config = parse(Config, argv, __doc__)
    setup_logging()
    start = time.monotonic()
    tokenizer = Tokenizer.load()
    texts, notes = sample_texts(config)
    peers, missing = load_peers(config.download_s)
    notes += missing
    rows = [measure(name, text, tokenizer, peers) for name, text in texts.items()]
    columns = ["text", "bytes", "tokens", "bytes_per_token", *(f"{peer}_tokens" for peer in peers)]
    for line in table(columns, [[row[column] for column in columns] for row in rows]) + notes:
        log.info(line)
    sizes = {"ours": tokenizer.vocab_size, **{peer: encoding.n_vocab for peer, encoding in peers.items()}}
    save_result("tok_eval", metrics={"rows": rows, "vocab_sizes": sizes, "hash": tokenizer.hash}, notes=notes,
                config=asdict(config), device="cpu", wall_s=time.monotonic() - start)


if __name__ == "__main__":
    run(main)
