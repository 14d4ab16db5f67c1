"""
Fetch the shards of a pretraining data set, or generate the kindergarten's.

    python -m nanochat.dataset -n 450    450 training shards of ClimbMix and the validation shard

What is there already is not fetched again, and a command that was interrupted goes on where it was. What the
data sets are stands in nanochat/data/datasets.py.
"""
from dataclasses import dataclass

from nanochat.cli import at_least, option, parse
from nanochat.common import UsageError, log, run, setup_logging
from nanochat.data.datasets import DATASETS, download, generate, shards


@dataclass
class Config:
    dataset: str = option("climbmix", f"one of {', '.join(DATASETS)}")
    num_shards: int | None = option(
        None, "training shards, besides the validation shard (default: 8, kindergarten 4)", short="n")
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
        at_least(self, num_workers=1)


def main(argv: list[str] | None = None) -> None:
    config = parse(Config, argv, __doc__)
    setup_logging()
    row = DATASETS[config.dataset]
    assert config.num_shards is not None
    if row.repo:
        download(row, config.num_shards, config.num_workers)
    else:
        generate(row, config.num_shards)
    n_train = len(shards(row.name, "train")) if config.num_shards else 0
    log.info(f"{row.name}: {n_train} training shards and the validation shard in {row.folder}")


if __name__ == "__main__":
    run(main)
