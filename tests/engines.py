"""A tiny random model in an engine, and what tests ask it."""
import pytest
import torch
from tiny import tiny_model, tiny_tokenizer

from nanochat.infer.engine import Engine
from nanochat.infer.sampling import Sampling
from nanochat.infer.scheduler import format_bias
from nanochat.infer.sequence import Sequence

LEN = 96


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


@pytest.fixture(scope="module")
def model(tokenizer):
    return tiny_model(tokenizer.vocab_size, LEN, n_head=4, n_kv_head=2)


@pytest.fixture
def engine(model, tokenizer):
    return Engine(model, tokenizer)


def greedy(model, tokenizer, prompt, max_new_tokens):
    """Greedy decoding by the whole forward pass for each token, with the engine's rules for special tokens left out."""
    bias = format_bias(tokenizer, model.config.vocab_size)[2]
    ids = list(prompt)
    while len(ids) < len(prompt) + max_new_tokens:
        token = int((model(torch.tensor([ids]))[0, -1] + bias).argmax())
        if token in (tokenizer.special("<|assistant_end|>"), tokenizer.bos_id):
            break
        ids.append(token)
    return ids[len(prompt):]


def ask(scheduler, prompt, n=10, index=0, **how):
    """Queue a prompt for a reply of at most n tokens, by default greedy and without tools; returns its Sequence."""
    how = {"temperature": 0.0, "use_tools": False, **how}
    sequence = Sequence(scheduler.tokenizer, list(prompt), Sampling(n, **how), index)
    scheduler.add(sequence)
    return sequence


def drain(scheduler):
    while not scheduler.idle:
        scheduler.step()


def finish(scheduler, *args, **how):
    """As `ask`, and all work is done."""
    sequence = ask(scheduler, *args, **how)
    drain(scheduler)
    return sequence
