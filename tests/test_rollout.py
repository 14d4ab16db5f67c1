"""What reinforcement learning trains on: python -m pytest tests/test_rollout.py"""
from types import SimpleNamespace

import pytest
from tiny import tiny_tokenizer

from nanochat.infer.sampling import Sampling
from nanochat.infer.sequence import Sequence
from nanochat.train.rollout import sample

TOKENIZER = tiny_tokenizer()
QUESTION = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]}


class Says:
    """An engine whose model says these tokens to whatever it is asked."""

    max_len = 64

    def __init__(self, tokens):
        self.tokens = tokens

    def generate(self, prompts, *, batch_size, **sampling):
        replies = [Sequence(TOKENIZER, prompt, Sampling(**sampling)) for prompt in prompts]
        for reply in replies:
            reply.room = reply.sampling.max_new_tokens
            for token in self.tokens:
                reply.accept(token)
        return replies


@pytest.mark.parametrize("end", [["<|assistant_end|>"], ["<|bos|>"], []])
def test_the_end_that_the_model_chose_is_trained_on_and_no_other(end):
    said = TOKENIZER.encode("hello")
    end = [TOKENIZER.special(token) for token in end]
    task = SimpleNamespace(reward=lambda conversation, parts: float(parts[0]["text"] == "hello"))
    engine = Says(said + end)
    (rollout, second), = sample(engine, TOKENIZER, [(task, QUESTION)], 2, max_new_tokens=len(said) + len(end))
    assert rollout.ids == said + end and rollout.sampled == [1] * len(rollout.ids)
    assert rollout.reward == second.reward == 1.0


def test_a_question_longer_than_the_context_loses_its_beginning_and_ends_no_run():
    long = {"messages": [{"role": "user", "content": "so many words " * 100}, QUESTION["messages"][1]]}
    task = SimpleNamespace(reward=lambda conversation, parts: 0.0)
    (rollout,), = sample(Says(TOKENIZER.encode("hi")), TOKENIZER, [(task, long)], 1, max_new_tokens=16)
    assert len(rollout.prompt) <= Says.max_len - 16 and rollout.prompt[0] == TOKENIZER.bos_id
