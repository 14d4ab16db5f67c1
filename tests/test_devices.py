"""Other devices than this one: what Apple's and Intel's GPUs lack is not asked of them."""

import numpy as np
import pytest
import torch
from tiny import prompts_of, tiny_model, tiny_tokenizer
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from nanochat import finetune, runner, runtime, sampling, train
from nanochat.dataloader import Batch
from nanochat.engine import Engine
from nanochat.runtime import Runtime


class NoDoubles(TorchDispatchMode):
    """A device that has no 64-bit floats: an operation that makes some fails."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        assert not any(torch.is_tensor(x) and x.dtype == torch.float64 for x in tree_leaves(out)), func
        return out


class Rows:
    counts = np.full(3, 8.0)

    def __len__(self):
        return 3

    def row(self, i):
        return np.arange(9) + i, np.ones(8, dtype=np.float32)


@pytest.fixture
def no_doubles(monkeypatch):
    monkeypatch.setattr(sampling, "widest", lambda device: torch.float32)
    with NoDoubles():
        yield


def test_the_mode_notices(no_doubles):
    with pytest.raises(AssertionError, match="double|_to_copy|zeros|empty|ones"):
        torch.ones(2).double()


def test_training_and_validating(no_doubles):
    model = tiny_model(64).requires_grad_(True)
    optimizer = train.make_optimizer(model, Runtime())
    tokens, weight = torch.arange(24).view(3, 8) % 64, torch.ones(3, 8)
    train.train_step(model.loss, optimizer, [Batch(tokens, tokens, weight, 24.0, [0])], Runtime(), 1.0, 0.9)
    assert finetune.masked_loss(model, Rows(), 2, Runtime()) > 0


def test_generating_by_every_setting(no_doubles):
    tokenizer = tiny_tokenizer()
    engine = Engine(tiny_model(tokenizer.vocab_size), tokenizer)
    found = engine.generate(prompts_of(tokenizer, [5, 9]), max_new_tokens=6, temperature=0.8, top_k=20, top_p=0.9,
                            min_p=0.01, logprobs=2, seed=1)
    assert all(len(completion.ids) == 6 or completion.finish_reason == "stop" for completion in found)


@pytest.mark.parametrize("device, dtype", [("cpu", torch.float64), ("cuda", torch.float64), ("mps", torch.float32),
                                           ("xpu", torch.float32)])
def test_the_widest_float(device, dtype):
    assert sampling.widest(torch.device(device)) == dtype


def test_32_bits_draw_what_64_draw(monkeypatch):
    logits = torch.randn(500, 300, generator=torch.Generator().manual_seed(0)) * 3
    uniform = torch.rand(500, generator=torch.Generator().manual_seed(1)).tolist()
    drawn = []
    for wide in (torch.float64, torch.float32):
        monkeypatch.setattr(sampling, "widest", lambda device, wide=wide: wide)
        drawn.append(sampling.sample(logits, [1.0] * 500, [50] * 500, [0.95] * 500, uniform, [0.001] * 500))
    assert (drawn[0] != drawn[1]).sum() <= 2        # a point that rounding moves over a border


def test_a_torch_without_onednn(monkeypatch):
    weight, x, residual = (torch.randn(*shape, generator=torch.Generator().manual_seed(i))
                           for i, shape in enumerate([(24, 16), (3, 16), (3, 24)]))
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    monkeypatch.setattr(torch.ops.mkldnn, "_reorder_linear_weight", None)
    torch.testing.assert_close(runner.pack(weight)(x, residual), residual + x @ weight.T)
    torch.testing.assert_close(runner.pack(weight, relu=True)(x), (x @ weight.T).relu())


def test_the_accelerator_that_torch_finds_is_taken(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: torch.device("meta"))
    assert runtime.init().device.type == "meta"
