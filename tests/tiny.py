"""Small real things for tests: a tokenizer with a few merges, a model that is not all zeros, a checkpoint of it."""
import random
from dataclasses import asdict

import torch

from nanochat.data.tokenizer import Tokenizer
from nanochat.model.gpt import GPT, GPTConfig
from nanochat.train import checkpoint

TEXT = ["Question: what is the colour of the sky? Answer: blue. The cat sat on the mat and the dog ran to the river.",
        "Zoë eats a crème brûlée in 東京 😀😀", "hello there, how are you? 47 * 12 = 564."]


def tiny_tokenizer():
    return Tokenizer.train(TEXT * 4, 340)


def drawn(model, std=0.15):
    """The model for evaluation, with every part drawn anew: some begin at zero, and would be tested by nothing."""
    generator = torch.Generator().manual_seed(2)       # with which greedy replies go on
    for p in model.parameters():
        p.data.normal_(0, std, generator=generator)
    if model.skips is not None:  # of a stream near zero only rounding would be left
        model.skips.data += 1
    return model.requires_grad_(False).eval()


def tiny_model(vocab_size, sequence_len=64, kind=GPT, **shape):
    shape = {"n_layer": 2, "n_head": 2, "n_kv_head": 1, "n_embd": 32, **shape}
    return drawn(kind(GPTConfig(sequence_len, vocab_size, **shape)))


def prompts_of(tokenizer, lengths):
    """Prompts of bytes, of these lengths."""
    rng = random.Random(1)
    return [[tokenizer.bos_id] + [rng.randrange(256) for _ in range(n - 1)] for n in lengths]


def save_tiny_checkpoint(stage, dataset, sequence_len=64, tag="tiny", tokenizer=None, model=None):
    """Tokenizer and checkpoint under base_dir(), as training leaves them; returns (model, tokenizer)."""
    tokenizer = tokenizer or tiny_tokenizer()
    tokenizer.save()
    model = model or tiny_model(tokenizer.vocab_size, sequence_len)
    checkpoint.save(checkpoint.stage_dir(stage) / tag, 5, model.state_dict(), None,
                    {"model": asdict(model.config), "tokenizer": tokenizer.hash, "dataset": dataset}, tokenizer=tokenizer)
    return model, tokenizer
