"""
Supervised finetuning: the conversations that the assistant shall be good at.

    python -m scripts.chat_sft
    torchrun --standalone --nproc_per_node=8 -m scripts.chat_sft

Starts from the newest midtrained model, at half the learning rates: what it knows shall stay.
"""
from dataclasses import dataclass

from nanochat.cli import option, parse
from nanochat.common import run
from nanochat.train import finetune


@dataclass
class Config(finetune.FinetuneConfig):
    source: str = finetune.source_option("sft")
    lr_scale: float = option(0.5, "factor on pretraining's learning rates")


def main(argv: list[str] | None = None) -> None:
    finetune.run_stage("sft", parse(Config, argv, __doc__))


if __name__ == "__main__":
    run(main)
