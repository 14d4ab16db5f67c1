"""From depth to everything, held against the real model and against known runs: python -m pytest tests/test_scaling.py"""
import importlib.util
import json
import weakref

import pytest
import torch
from conftest import ROOT
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from nanochat import runtime, scaling
from nanochat.model import attention, elementwise
from nanochat.model.gpt import GPT, GPTConfig
from nanochat.train import loop
from nanochat.train.recipe import architecture


# --------------------------------------------------------------------------------------------------------------- model
@pytest.mark.parametrize("depth", range(2, 41))
def test_planned_parameters_and_flops_are_those_of_the_model(depth):
    with torch.device("meta"):
        plain = GPT(GPTConfig(2048, 32768, **vars(scaling.model_shape(depth))))
        model = GPT(architecture(depth, 32768, 2048))
    assert plain.num_params() == scaling.num_params(depth, 32768, tables=False, skips=False)
    assert plain.flops_per_token() == model.flops_per_token()
    assert model.num_params() == scaling.num_params(depth, 32768)
    assert model.flops_per_token() == scaling.flops_per_token(depth, 32768, 2048)
    head = sum(p.numel() for _, p in model.parameter_groups()["unembedding"])
    assert (head, sum(p.numel() for _, p in model.parameter_groups()["matrix"])) == (
        scaling.head_params(depth, 32768), scaling.matrix_params(depth))


@pytest.mark.parametrize("vocab_size", [2048, 2049, 50257])
def test_a_vocabulary_is_planned_with_its_padding(vocab_size):
    with torch.device("meta"):
        model = GPT(architecture(3, vocab_size, 64))
    assert model.num_params() == scaling.num_params(3, vocab_size)


# -------------------------------------------------------------------------------------------------------------- recipe
def test_the_kindergartens_recipe_stands():
    assert scaling.pretraining(4, 2048, batch_tokens=4096, steps=200) == scaling.Pretraining(200, 4096, 1.0, 0.0, 0.4, 0.0)
    assert scaling.pretraining(4, 2048) == scaling.Pretraining(20 * 4_194_304 // 8192, 8192, 1.0, 0.0, 0.4, 0.0)
    assert [scaling.lr_factor(depth, 4096) for depth in range(1, 12)] == [1.0] * 11


def test_the_first_public_d20_run_is_planned_as_it_was():
    """561M parameters, 21,400 steps of 524,288 tokens, 3h51m on 8 x H100, 240 shards with some to spare."""
    assert scaling.num_params(20, 65536, tables=False, skips=False) == pytest.approx(561e6, rel=0.001)
    tokens = 21_400 * 524_288
    flops = tokens * scaling.flops_per_token(20, 65536, 2048)
    hours = flops / (8 * scaling.GPUS["h100"].peak_flops * 0.4) / 3600 * (1 + scaling.LATER_STAGES)
    assert hours == pytest.approx(3 + 51 / 60, rel=0.03)
    assert 0.88 * 240 < scaling.shards_needed(tokens) < 240
    assert scaling.lr_factor(20, 524_288) == 1.0


def test_the_public_d24_record_is_planned_as_it_was():
    """8 tokens for each parameter of matrices and head, a million tokens a step, 1.65 hours: with fp8 65 % of bf16's peak."""
    recipe = scaling.pretraining(24, 32768, ratio=8)
    assert recipe.batch_tokens == 2**20
    assert recipe.steps * 2**20 == pytest.approx(8 * (scaling.matrix_params(24) + scaling.head_params(24, 32768)), rel=1e-3)
    hours = recipe.steps * 2**20 * scaling.flops_per_token(24, 32768, 2048) / (8 * 989e12 * 0.65) / 3600
    assert hours == pytest.approx(1.65, rel=0.03)


def test_batch_learning_rate_and_decay_follow_their_laws():
    batches = [scaling.total_batch_tokens(20, 2**i * 1e8) for i in range(12)]
    assert batches == sorted(batches)
    for i, batch in enumerate(batches):                          # D^0.383, to the nearest power of two
        assert batch & (batch - 1) == 0 and 2**-0.51 < batch / (2**20 * (2**i * 1e8 / 5.84e9) ** 0.383) < 2**0.51
    assert scaling.lr_factor(26, 2**21) / scaling.lr_factor(26, 2**19) == 2.0
    def decay(depth, batch, tokens):                             # sqrt(batch) / tokens at a fixed ratio
        return scaling.weight_decay(tokens / batch, 0.02 * scaling.lr_factor(depth, batch), 8)
    assert decay(20, 2**21, 1e10) / decay(20, 2**19, 1e10) == pytest.approx(2.0)
    assert decay(20, 2**20, 1e10) / decay(20, 2**20, 4e10) == pytest.approx(4.0)


@pytest.mark.parametrize("world", range(1, 17))
@pytest.mark.parametrize("depth", [4, 6, 12, 20, 26, 32])
def test_any_number_of_devices_shares_a_step(depth, world):
    """What fits one, a power of two, divides its share; the batch is as near to the law's as that allows."""
    law, found = (scaling.pretraining(depth, 32768, world=n).batch_tokens for n in (1, world))
    share, rest = divmod(found, 256 * world)
    assert rest == 0 and share & (share - 1) == 0 and 2**-1.01 < found / law < 2**1.01
    assert world & (world - 1) or found == law


@pytest.mark.parametrize("depth", range(1, 41))
def test_every_depth_has_a_recipe_that_a_step_can_be_cut_from(depth):
    recipe = scaling.pretraining(depth, 32768)
    assert recipe.steps >= 1 and recipe.batch_tokens % 2048 == 0 and 0 <= recipe.weight_decay < 1
    tokens = [scaling.horizon_tokens(d, 32768) for d in (depth, depth + 1)]
    assert tokens[0] < tokens[1] or depth + 1 == scaling.DEEP     # where another count begins


def test_what_is_asked_for_counts():
    recipe = scaling.pretraining(20, 32768, batch_tokens=2**19, steps=10)
    assert (recipe.steps, recipe.batch_tokens, recipe.lr_factor) == (10, 2**19, 1.0)
    assert scaling.pretraining(20, 32768, lr=0.0).weight_decay == 0.0


# -------------------------------------------------------------------------------------------------------------- memory
class Live(TorchDispatchMode):
    """Counts the bytes of all tensors that are alive, as every operation is seen, and remembers the most."""

    def __init__(self):
        super().__init__()
        self.sizes, self.now, self.peak = {}, 0, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        tree_map_only(torch.Tensor, self.add, out)
        return out

    def add(self, tensor):
        storage = tensor.untyped_storage()
        if storage._cdata not in self.sizes:
            self.sizes[storage._cdata] = storage.nbytes()
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self.forget, storage._cdata)

    def forget(self, key):
        self.now -= self.sizes.pop(key)


@pytest.mark.parametrize("tables, recompute", [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize("depth, rows", [(2, 8), (4, 8), (5, 16), (6, 1)])
def test_planned_memory_is_that_of_a_real_step_within_a_tenth(depth, rows, tables, recompute, monkeypatch):
    """In float32 on the CPU with what a GPU runs (reference attention, plain norms), by backward pass and by optimizer."""
    monkeypatch.setattr(attention, "training_kernel", lambda *a: attention.sdpa)
    monkeypatch.setattr(elementwise, "_by_hand", lambda x: False)
    with Live() as live:
        model = GPT(GPTConfig(128, 512, value_tables=tables, embedding_skips=tables, **vars(scaling.model_shape(depth))))
        model.init_weights(0)
        model.recompute = recompute
        rt = runtime.Runtime()
        optimizer = loop.make_optimizer(model, rt)
        idx = torch.randint(0, 512, (rows, 128), generator=torch.Generator().manual_seed(0))
        for _ in range(2):
            model.loss(idx, idx, torch.ones(rows, 128)).backward()
            optimizer.reduce()
            optimizer.step()
    planned = scaling.memory_bytes(depth, 512, 128, rows, itemsize=4, tables=tables, recompute=recompute)
    assert live.peak == pytest.approx(planned, rel=0.1)


def test_adam_forgets_by_tokens_so_a_small_step_keeps_more_of_its_history():
    for batch_tokens in (1024, 2048, 4096):
        _, beta2 = scaling.adam_betas(3, batch_tokens)
        assert beta2 ** (scaling.SQUARES_HALF_LIFE / batch_tokens) == pytest.approx(0.5)
    for depth, batch_tokens in ((20, 2 ** 19), (12, 2 ** 18), (20, 0)):
        assert scaling.adam_betas(depth, batch_tokens) == (0.8, 0.95)


def test_more_devices_need_less_each_and_the_known_batches_fit_an_h100():
    for depth, rows in ((20, 32), (26, 16), (32, 8)):            # what public runs of these depths used, vocabulary 65,536
        assert scaling.device_batch_size(depth, 65536, 2048, scaling.GPUS["h100"].gib, 8, tables=False) == rows
        assert scaling.memory_bytes(depth, 65536, 2048, rows, 8) < scaling.memory_bytes(depth, 65536, 2048, rows, 2)
    assert scaling.device_batch_size(32, 32768, 2048, 11.6) == 0


# ------------------------------------------------------------------------------------------------------------- devices
@pytest.mark.parametrize("name, key", [
    ("NVIDIA H100 80GB HBM3", "h100"), ("NVIDIA H100 PCIe", "h100-pcie"), ("NVIDIA H200", "h200"), ("NVIDIA B200", "b200"),
    ("NVIDIA A100-SXM4-80GB", "a100-80"), ("NVIDIA A100 80GB PCIe", "a100-80"), ("NVIDIA A100-SXM4-40GB", "a100-40"),
    ("NVIDIA GeForce RTX 4090", "4090"), ("NVIDIA GeForce RTX 3060", "3060"), ("Tesla T4", None)])
def test_a_device_is_known_by_its_own_name(name, key):
    assert scaling.gpu_named(name) == key


def test_peaks_of_one_architecture_go_as_multiprocessors_times_clock():
    """bf16 always sums in float32, at half the rate of the fp16 figures in some of GeForce's data sheets."""
    made = {"3090": 82 * 1.695e9, "3060": 28 * 1.777e9}
    rates = {name: scaling.GPUS[name].peak_flops / ticks for name, ticks in made.items()}
    assert rates["3060"] == pytest.approx(rates["3090"], rel=0.02)


# --------------------------------------------------------------------------------------------------- series of real runs
@pytest.fixture(scope="module")
def curves():
    spec = importlib.util.spec_from_file_location("curves", ROOT / "benchmarks" / "curves.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def result(folder, depth, tokens, bpb):
    """A result file as base_train writes it, as far as the curves read it."""
    folder.mkdir(parents=True, exist_ok=True)
    metrics = {"model": {"n_layer": depth, "vocab_size": 2048}, "tokens": tokens, "val_bpb": bpb,
               "total_flops": tokens * scaling.flops_per_token(depth, 2048, 256)}
    (folder / f"d{depth}.json").write_text(json.dumps({"metrics": metrics}), encoding="utf-8")


def test_a_series_finds_the_power_law_it_was_made_from(curves, tmp_path, capsys):
    for depth in range(2, 8):
        flops = depth * 1e6 * scaling.flops_per_token(depth, 2048, 256)
        result(tmp_path, depth, depth * 10**6, 30 * flops ** -0.08)
    a, b = curves.power_law(curves.load(tmp_path))
    assert (a, b) == (pytest.approx(30, rel=1e-3), pytest.approx(0.08, rel=1e-3))
    curves.series(tmp_path)
    assert "d7" in capsys.readouterr().out and (tmp_path / "series.png").stat().st_size > 5000


def test_runs_of_one_budget_have_no_power_law(curves, tmp_path, capsys):
    for depth, flops, bpb in ((1, 2.01e11, 0.91), (2, 1.99e11, 1.20)):
        result(tmp_path, depth, flops / scaling.flops_per_token(depth, 2048, 256), bpb)
    curves.series(tmp_path)
    assert "FLOPs^" not in capsys.readouterr().out and (tmp_path / "series.png").exists()
