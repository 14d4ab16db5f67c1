"""Small real things for tests: a tokenizer with a few merges, a model that is not all zeros, a checkpoint of it."""
from dataclasses import asdict

import torch

from nanochat import checkpoint
from nanochat.gpt import GPT, GPTConfig
from nanochat.tokenizer import Tokenizer

TEXT = ["Question: what is the colour of the sky? Answer: blue. The cat sat on the mat and the dog ran to the river."]


def tiny_tokenizer():
    return Tokenizer.train(TEXT * 4, 300)


def tiny_model(vocab_size, sequence_len=64):
    model = GPT(GPTConfig(sequence_len, vocab_size, n_layer=2, n_head=2, n_kv_head=1, n_embd=32))
    model.init_weights(1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for p in model.parameters():      # some matrices start at zero: make every part count
            p.add_(torch.randn(p.shape, generator=generator) * 0.1)
    return model.requires_grad_(False).eval()


def save_tiny_checkpoint(stage, dataset, sequence_len=64, tag="tiny"):
    """Tokenizer and checkpoint under base_dir(), as training leaves them; returns (model, tokenizer)."""
    tokenizer = tiny_tokenizer()
    tokenizer.save()
    model = tiny_model(tokenizer.vocab_size, sequence_len)
    checkpoint.save(checkpoint.stage_dir(stage) / tag, 5, model.state_dict(), None,
                    {"model": asdict(model.config), "tokenizer": tokenizer.hash, "dataset": dataset})
    return model, tokenizer
