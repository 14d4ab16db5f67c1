"""
Compare the tokenizer's compression with GPT-2's and GPT-4's on five small texts and on the data set's own.

    python -m scripts.tok_eval --dataset=climbmix

Bytes a token is what counts: the more text a token holds, the more of it fits the context and the less
computing a text costs. But only on text of the kind that the model will read, hence several kinds, and beside
vocabularies much larger than ours.
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

PEERS = {"gpt2": "gpt2", "gpt4": "cl100k_base"}  # by the names that tiktoken has for their encodings


def _built_in_texts():
    """{name: text} of tok_eval.txt, whose texts stand below lines of "=== name"."""
    texts = {}
    for entry in Path(__file__).with_suffix(".txt").read_text(encoding="utf-8").split("=== ")[1:]:
        name, text = entry.split("\n", 1)
        texts[name] = text
    return texts


TEXTS = _built_in_texts()


@dataclass
class Config:
    dataset: str = option("kindergarten", "data set whose training and validation text is compressed too")
    max_chars: int = option(200_000, "characters taken of each split of the data set")
    download_s: float = option(6.0, "seconds to wait for GPT-2's and GPT-4's tokenizers; 0: do not look for "
                                     "them")

    def __post_init__(self):
        at_least(self, max_chars=1)


def load_peers(wait_s: float) -> tuple[dict[str, tiktoken.Encoding], list[str]]:
    """({peer: encoding} of those that could be had within `wait_s` seconds, notes on the rest).

    tiktoken downloads without a time-out, hence a thread that is left behind when it hangs.
    """
    found = {}
    problems = []

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
    peers = dict(found)  # as it is now: the thread may go on
    missing = [peer for peer in PEERS if peer not in peers]
    if not missing:
        return peers, []
    if problems:
        why = problems[0]
    elif wait_s > 0:
        why = f"no answer in {wait_s:g}s"
    else:
        why = "--download_s=0"
    return peers, [f"{' and '.join(missing)} tokenizer not available offline ({why})"]


def sample_texts(config: Config) -> tuple[dict[str, str], list[str]]:
    """({name: text to compress}, notes on what was left out)."""
    texts = dict(TEXTS)
    notes = []
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


def measure(name: str, text: str, tokenizer: Tokenizer, peers: dict[str, tiktoken.Encoding]) -> dict:
    """A row of the table: the text's bytes, our tokens, and each peer's, None where it could not be had."""
    tokens = len(tokenizer.encode(text))
    size = len(text.encode("utf-8", "replace"))
    row = {"text": name, "bytes": size, "tokens": tokens, "bytes_per_token": round(size / max(tokens, 1), 3)}
    for peer in PEERS:
        row[f"{peer}_tokens"] = len(peers[peer].encode_ordinary(text)) if peer in peers else None
    return row


def main(argv: list[str] | None = None) -> None:
    config = parse(Config, argv, __doc__)
    setup_logging()
    start = time.monotonic()
    tokenizer = Tokenizer.load()
    texts, notes = sample_texts(config)
    peers, missing = load_peers(config.download_s)
    notes += missing
    rows = [measure(name, text, tokenizer, peers) for name, text in texts.items()]
    columns = ["text", "bytes", "tokens", "bytes_per_token", *(f"{peer}_tokens" for peer in peers)]
    cells = [[row[column] for column in columns] for row in rows]
    for line in [*table(columns, cells), *notes]:
        log.info(line)
    sizes = {"ours": tokenizer.vocab_size}
    for peer, encoding in peers.items():
        sizes[peer] = encoding.n_vocab
    save_result("tok_eval", metrics={"rows": rows, "vocab_sizes": sizes, "hash": tokenizer.hash}, notes=notes,
                config=asdict(config), device="cpu", wall_s=time.monotonic() - start)


if __name__ == "__main__":
    run(main)
