"""
Midtraining: teach the pretrained model the form of a conversation, the use of tools, multiple choice.

    python -m scripts.mid_train
    torchrun --standalone --nproc_per_node=8 -m scripts.mid_train

Starts from the newest base model. It is finetuning by its means and pretraining by its amount: broad data at
full learning rates, so that the next stage has only to choose among what the model can do.
"""
from dataclasses import dataclass

from nanochat.cli import parse
from nanochat.common import run
from nanochat.train import finetune


@dataclass
class Config(finetune.FinetuneConfig):
    source: str = finetune.source_option("mid")


def main(argv: list[str] | None = None) -> None:
    finetune.run_stage("mid", parse(Config, argv, __doc__))


if __name__ == "__main__":
    run(main)
