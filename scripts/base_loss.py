"""
Bits per byte of the base model on training and validation text, and a few texts as it continues them.

    python -m scripts.base_loss --max_rows=2000 --dataset=climbmix

Two numbers, because their distance tells: a model that knows its training text much better than text of the
same kind has learned it by heart. The samples are what a number cannot show.
"""
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from nanochat import runtime
from nanochat.cli import at_least, option, parse
from nanochat.common import DataError, log, run, save_result, setup_logging
from nanochat.data.dataloader import text_rows
from nanochat.data.tokenizer import Tokenizer
from nanochat.eval.bits_per_byte import bits_per_byte
from nanochat.infer.engine import Engine
from nanochat.kindergarten import World
from nanochat.model.gpt import GPT
from nanochat.train.checkpoint import ModelFlags, load_model

PROMPTS = Path(__file__).with_suffix(".txt").read_text(encoding="utf-8").splitlines()


@dataclass
class Config(ModelFlags):
    dataset: str = option("", "text as base_train's; empty: what the model was trained on")
    max_rows: int = option(512, "rows of each split; 0 for all of the validation shard and the first "
                               "training shard")
    device_batch_size: int = option(32, "rows in one forward, fewer where memory runs out")
    sample_tokens: int = option(64, "tokens of each sample; 0 for no samples")

    def __post_init__(self):
        at_least(self, max_rows=0, device_batch_size=1, sample_tokens=0)


def sample(model: GPT, tokenizer: Tokenizer, dataset: str, max_new_tokens: int) -> list[dict]:
    """[{"prompt", "text"}]: how the model goes on after each prompt, by likeliest tokens."""
    if not max_new_tokens:
        return []
    prompts = PROMPTS
    if dataset == "kindergarten":
        person = World().people[0].name
        prompts = [f"{person} lives in", f"The best friend of {person} is", *PROMPTS]
    ids = [[tokenizer.bos_id, *tokenizer.encode(prompt)] for prompt in prompts]
    engine = Engine(model, tokenizer)
    replies = engine.generate(ids, max_new_tokens=max_new_tokens, temperature=0.0, use_tools=False)
    texts = [tokenizer.decode(reply.ids) for reply in replies]
    return [{"prompt": prompt, "text": text} for prompt, text in zip(prompts, texts)]


def main(argv: list[str] | None = None) -> None:
    config = parse(Config, argv, __doc__)
    rt = runtime.init(config.device)
    setup_logging(rt.rank)
    start = time.monotonic()
    model, tokenizer, meta = load_model("base", rt, config.tag, config.step)
    name = config.dataset or meta["dataset"]
    token_bytes = tokenizer.token_bytes()
    metrics: dict = {}
    for split in ("train", "val"):
        rows = text_rows(name, split, tokenizer, model.config.sequence_len, rt, most_shards=1)
        if not len(rows):
            raise DataError(f"the {split} text of {name} is empty. Give another --dataset.")
        bpb = bits_per_byte(model, rows, token_bytes.tolist(), config.device_batch_size, rt, config.max_rows)
        metrics[f"{split}_bpb"] = bpb
        counted = min(len(rows), config.max_rows or len(rows))
        log.info(f"{split}: {bpb:.4f} bits per byte over {counted:,} rows of {name}")
    if rt.rank == 0:
        metrics["samples"] = sample(model, tokenizer, name, config.sample_tokens)
        for said in metrics["samples"]:
            log.info(f"> {said['prompt']}|{said['text']}")
        save_result("base_loss", metrics=metrics, config=asdict(config), device=str(rt),
                    wall_s=time.monotonic() - start)
    runtime.close(rt)


if __name__ == "__main__":
    run(main)
