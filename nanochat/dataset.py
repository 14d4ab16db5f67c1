"""
Fetch the shards of a pretraining data set, or generate the kindergarten's.

    python -m nanochat.dataset -n 450    450 training shards of ClimbMix and the validation shard
    python -m nanochat.dataset --chars=2000000000    as many as hold so much text

What is there already is not fetched again, and a command that was interrupted goes on where it was. What the
data sets are stands in nanochat/data/datasets.py.
"""
import math
from dataclasses import dataclass

from nanochat.cli import at_least, option, parse
from nanochat.common import UsageError, log, run, setup_logging
from nanochat.data.datasets import DATASETS, Dataset, download, generate, shards, text_bytes


@dataclass
class Config:
    dataset: str = option("climbmix", f"one of {', '.join(DATASETS)}")
    num_shards: int | None = option(
        None, "training shards, besides the validation shard (default: 8, kindergarten 4)", short="n")
    chars: int = option(0, "instead of -n: so much training text, if all shards are like the first")
    num_workers: int = option(4, "files fetched at the same time")

    def __post_init__(self) -> None:
        if self.dataset not in DATASETS:
            raise UsageError(f"--dataset wants one of {', '.join(DATASETS)}, got {self.dataset} "
                             f"(a folder is read where it lies).")
        row = DATASETS[self.dataset]
        if self.num_shards is None:
            self.num_shards = row.default_n
        if not 0 <= self.num_shards <= row.n_train:
            raise UsageError(f"-n wants 0 to {row.n_train} shards of {self.dataset}, got {self.num_shards}.")
        at_least(self, num_workers=1, chars=0)


def get(row: Dataset, n_shards: int, workers: int) -> None:
    """Fetch what is missing of the first shards, or generate it."""
    if row.repo:
        download(row, n_shards, workers)
    else:
        generate(row, n_shards)


def shards_for(row: Dataset, chars: int, workers: int) -> int:
    """How many training shards hold so much text, if all are about like the first, which is fetched."""
    get(row, 1, workers)
    held = text_bytes(shards(row.name, "train")[0])
    return min(row.n_train, math.ceil(chars / max(held, 1) + 0.05))


def main(argv: list[str] | None = None) -> None:
    config = parse(Config, argv, __doc__)
    setup_logging()
    row = DATASETS[config.dataset]
    n_shards = config.num_shards
    if config.chars:
        n_shards = shards_for(row, config.chars, config.num_workers)
    assert n_shards is not None
    get(row, n_shards, config.num_workers)
    n_train = len(shards(row.name, "train")) if n_shards else 0
    log.info(f"{row.name}: {n_train} training shards and the validation shard in {row.folder}")


if __name__ == "__main__":
    run(main)
