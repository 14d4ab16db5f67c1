"""Other devices than this one: what Apple's and Intel's GPUs lack is not asked of them."""
from functools import partial

import numpy as np
import pytest
import torch
from tiny import prompts_of, tiny_model, tiny_tokenizer
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from nanochat import runtime
from nanochat.data.dataloader import Batch
from nanochat.infer import runner, sampling
from nanochat.infer.cpu import compiled
from nanochat.infer.engine import Engine
from nanochat.model.gpt import GPT, GPTConfig
from nanochat.runtime import Runtime
from nanochat.train import finetune, loop
from nanochat.train.recipe import weighted_cross_entropy


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
    monkeypatch.setattr(sampling, "widest_float", lambda device: torch.float32)
    with NoDoubles():
        yield


def test_the_mode_notices(no_doubles):
    with pytest.raises(AssertionError, match="double|_to_copy|zeros|empty|ones"):
        torch.ones(2).double()


def test_training_and_validating(no_doubles):
    model = tiny_model(64).requires_grad_(True)
    optimizer = loop.make_optimizer(model, Runtime())
    tokens, weight = torch.arange(24).view(3, 8) % 64, torch.ones(3, 8)
    batch = Batch(tokens, tokens, weight, 24.0, [0])
    loop.train_step(partial(weighted_cross_entropy, model), optimizer, [batch], Runtime(), 1.0, 0.9)
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
    assert sampling.widest_float(torch.device(device)) == dtype


def test_32_bits_draw_what_64_draw(monkeypatch):
    logits = torch.randn(500, 300, generator=torch.Generator().manual_seed(0)) * 3
    uniform = torch.rand(500, generator=torch.Generator().manual_seed(1)).tolist()
    drawn = []
    for wide in (torch.float64, torch.float32):
        monkeypatch.setattr(sampling, "widest_float", lambda device, wide=wide: wide)
        drawn.append(sampling.sample_tokens_torch(logits, [1.0] * 500, [50] * 500, [0.95] * 500, uniform, [0.001] * 500))
    assert (drawn[0] != drawn[1]).sum() <= 2        # a point that rounding moves over a border


def test_a_torch_without_onednn(monkeypatch):
    weight, x = (torch.randn(n, 16, generator=torch.Generator().manual_seed(n)) for n in (24, 3))
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    monkeypatch.setattr(torch.ops.mkldnn, "_reorder_linear_weight", None)
    torch.testing.assert_close(compiled.pack(weight)(x), x @ weight.T)


def test_the_accelerator_that_torch_finds_is_taken(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: torch.device("meta"))
    assert runtime.init().device.type == "meta"


class OneDevice(TorchDispatchMode):
    """On torch's meta device tensors of a CPU may be mixed in; here, as on a GPU, only copied, or taken as indices."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        places = {x.device.type for x in tree_leaves((args, kwargs)) if torch.is_tensor(x) and x.dim()}
        assert len(places) < 2 or func.overloadpacket in (torch.ops.aten.copy_, torch.ops.aten.index), (func, places)
        return func(*args, **(kwargs or {}))


@pytest.fixture(params=[torch.bfloat16, torch.float16, torch.float32])
def elsewhere(request):
    """A Runtime on the meta device, where shapes are followed as on a GPU and numbers are not."""
    with OneDevice():
        yield Runtime(device=torch.device("meta"), dtype=request.param)


def model_on(rt):
    shape = {"key_offset": 0.5, "value_offset": 0.5, "value_tables": True, "embedding_skips": True}
    model = GPT(GPTConfig(64, 500, 4, 4, 2, 128, **shape), rt.dtype).to(rt.device)
    model.init_weights(1)
    return model


def test_elsewhere_a_tensor_left_on_the_cpu_is_an_error(elsewhere):
    with pytest.raises(AssertionError, match="cpu"):
        model_on(elsewhere).loss(*(torch.zeros(1, 8, dtype=torch.long, device=d) for d in ("meta", "cpu", "meta")))


def test_training_leaves_no_tensor_on_the_cpu(elsewhere, monkeypatch):
    monkeypatch.setattr(runtime, "gather_to_main_memory", lambda rt, mine: mine.clone())  # for a checkpoint: that is copied
    model = model_on(elsewhere)
    optimizer = loop.make_optimizer(model, elsewhere, weight_decay=0.1)
    idx, weight = torch.zeros(4, 64, dtype=torch.long, device="meta"), torch.ones(4, 64, device="meta")
    loss = loop._backward(partial(weighted_cross_entropy, model), Batch(idx, idx, weight, 256.0, [0]), optimizer.scale)
    for bucket in optimizer.buckets:
        bucket.reduced = bucket.grad
    optimizer.step(0.5, 0.9)
    optimizer.load(optimizer.masters(), optimizer.state(), 1)
    made = [loss, model.token_nll(idx, idx), *model.parameters(), *optimizer.masters().values(), *optimizer.state().values()]
    assert {tensor.device.type for tensor in made} == {"meta"}


def test_decoding_leaves_no_tensor_on_the_cpu(elsewhere):
    fast = runner.Runner(model_on(elsewhere).requires_grad_(False), 3, 128)
    assert fast.graphs, "as on a GPU"
    with torch.inference_mode():
        hidden = fast.forward([runner.Piece(0, 0, [1]), runner.Piece(1, 0, [1, 2, 3]), runner.Piece(2, 5, [3, 4])])
        assert hidden.shape == (3, 128) and fast.logits(hidden).shape == (3, 500)
        assert hidden.device.type == fast.logits(hidden).device.type == "meta"
