"""
Midtraining: teach the pretrained model the form of a conversation, the use of tools, multiple choice.

    python -m scripts.mid_train
    torchrun --standalone --nproc_per_node=8 -m scripts.mid_train

Starts from the newest base model.
"""
from nanochat.cli import parse
from nanochat.common import run
from nanochat.train import finetune

REAL_DATA = "smoltalk|mmlu|gsm8k*2|simplespelling|spellingbee"
Config = finetune.FinetuneConfig


def main(argv=None):
    finetune.run("mid", "midtraining", "mid_train", parse(Config, argv, __doc__), REAL_DATA)


if __name__ == "__main__":
    run(main)
