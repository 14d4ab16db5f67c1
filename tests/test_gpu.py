"""
What only a GPU can show: `python -m pytest tests/test_gpu.py -m gpu` where there is one.

The same tests run on a CPU, which takes CUDA's path as far as it can (traced for the compiler, no kernels made), so that a
mistake in them does not wait for a GPU to be seen.
"""
import dataclasses
import gc
import importlib.util
import json
import math
import sys
import weakref
from functools import partial

import pytest
import torch
import torch.distributed as dist
from conftest import ROOT
from tiny import tiny_tokenizer
from torch._dynamo.utils import counters
from torch.nn.attention import SDPBackend, sdpa_kernel

from nanochat import runtime, scaling
from nanochat.data.dataloader import Batch
from nanochat.infer.engine import Engine
from nanochat.model import attention
from nanochat.model.gpt import GPT, GPTConfig
from nanochat.runtime import Runtime
from nanochat.train import checkpoint, loop
from nanochat.train.recipe import RunFlags, architecture

CONFIG = GPTConfig(sequence_len=64, vocab_size=500, n_layer=2, n_head=2, n_kv_head=1, n_embd=128, key_offset=0.5,
                   value_offset=0.5, value_tables=True, embedding_skips=True)
STEPS = 6


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def rt(request, monkeypatch):
    """The device in bf16, on which training compiles, but only once."""
    monkeypatch.setattr(attention, "_fastest", {})
    if request.param == "cpu":
        monkeypatch.setattr(loop, "COMPILED_ON", ("cpu",))
        monkeypatch.setattr(loop, "COMPILE", {**loop.COMPILE, "backend": "eager"})
    torch._dynamo.reset()
    counters.clear()
    with torch._dynamo.config.patch(error_on_recompile=True):
        yield dataclasses.replace(runtime.init(request.param), dtype=torch.bfloat16)
    assert not counters["graph_break"] and not counters["recompiles"]
    torch._dynamo.reset()


def make(tmp_path, rt, hook=None, compile=True):
    """Arguments of loop.run: rows to learn, a fifth of their targets ignored, two micro-batches a step."""
    attention.pick_fastest(rt.device, rt.dtype, 4, CONFIG)
    model = GPT(CONFIG, rt.dtype).to(rt.device)
    model.init_weights(1)

    def batches(start, at_a_time):
        for step in range(start, STEPS):
            g = torch.Generator().manual_seed(step)
            tokens = (torch.randint(0, 500, (2, 4, 1), generator=g) + torch.arange(65) * 3) % 500
            weight = (torch.rand(2, 4, 64, generator=g) < 0.8).float()
            if hook:
                hook(step)
            yield step, [Batch(t[:, :-1].contiguous(), t[:, 1:].contiguous(), w, float(weight.sum()), [0])
                         for t, w in zip(tokens, weight)]

    stage = loop.Stage("test", tmp_path / "run", tmp_path / "log.jsonl", STEPS, batches, lambda step: (0.5, 0.9), {},
                        {"model": dataclasses.asdict(CONFIG), "tokenizer": "x"}, flags=RunFlags(save_every=2), compile=compile)
    return stage, model, loop.make_optimizer(model, rt), rt


def losses(tmp_path):
    return torch.tensor([json.loads(line)["loss"] for line in (tmp_path / "log.jsonl").read_text("utf-8").splitlines()])


def test_compiled_training_in_bf16_equals_the_cpu_in_float32(rt, tmp_path):
    loop.run(*make(tmp_path / "a", rt))
    loop.run(*make(tmp_path / "b", Runtime(), compile=False))
    found, exact = losses(tmp_path / "a"), losses(tmp_path / "b")
    assert exact[-1] < exact[0] - 1, "there is something to learn"
    torch.testing.assert_close(found, exact, rtol=0.01, atol=0.02)
    assert counters["stats"]["unique_graphs"] == 1


def test_resumed_training_equals_uninterrupted(rt, tmp_path):
    loop.run(*make(tmp_path / "a", rt))

    def stop(step):
        if step == 4:
            raise KeyboardInterrupt
    torch._dynamo.reset()
    with pytest.raises(KeyboardInterrupt):
        loop.run(*make(tmp_path / "b", rt, hook=stop))
    torch._dynamo.reset()
    loop.run(*make(tmp_path / "b", rt))
    straight, resumed = losses(tmp_path / "a"), losses(tmp_path / "b")
    if rt.device.type == "cpu":
        assert torch.equal(straight, resumed)
    else:           # sums in the embedding's gradient come in any order
        torch.testing.assert_close(straight, resumed, rtol=0.01, atol=0.02)


def test_a_checkpoint_goes_to_a_cpu(rt, tmp_path):
    stage, model, optimizer, _ = make(tmp_path, rt, compile=False)
    loop.run(stage, model, optimizer, rt)
    weights, state, meta = checkpoint.newest_whole(stage.folder, with_optim=True)
    assert all(t.device.type == "cpu" and t.dtype == torch.float32 for t in [*weights.values(), *state.values()])
    assert all(torch.equal(t.cpu(), weights[name]) for name, t in optimizer.masters().items())
    moved = GPT(GPTConfig(**meta["model"]))
    moved.load_state_dict(weights)
    idx = torch.arange(64)[None] * 3
    torch.testing.assert_close(moved(idx), model(idx.to(rt.device)).cpu(), rtol=0.05, atol=0.15)


def test_greedy_answers_are_what_the_model_itself_finds_likeliest(rt):
    tokenizer = tiny_tokenizer()
    model = GPT(dataclasses.replace(CONFIG, vocab_size=tokenizer.vocab_size), rt.dtype).to(rt.device)
    model.init_weights(1)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())).to(p))
    model.requires_grad_(False).eval()
    prompts = [[tokenizer.bos_id, *tokenizer.encode(text)] for text in ("The cat", "Question: what", "a")]
    replies = Engine(model, tokenizer).generate(prompts, max_new_tokens=20, temperature=0.0)
    special = sorted(tokenizer.special_ids)
    assert max(len(reply.ids) for reply in replies) == 20
    for prompt, reply in zip(prompts, replies):
        logits = model(torch.tensor([prompt + reply.ids], device=rt.device))[0, len(prompt) - 1: -1].cpu()
        logits[:, special] = -math.inf
        chosen = logits.gather(1, torch.tensor(reply.ids)[:, None])[:, 0]
        assert (chosen > logits.max(-1).values - 0.1).all(), "up to bf16's rounding"


def values(attend, inputs):
    q, k, v = (x.detach().requires_grad_() for x in inputs)
    y = attend(q, k, v)
    return y, *torch.autograd.grad(y, (q, k, v), q.detach())


def exact(q, k, v):
    with sdpa_kernel(SDPBackend.MATH):
        return attention.sdpa(q, k, v)


def test_every_kernel_that_works_equals_plain_attention(rt):
    found = attention.measure(rt.device, rt.dtype, 2, CONFIG, attention.CUDA_KERNELS)
    working = [name for name, s in found.items() if math.isfinite(s)]
    assert working, found
    g = torch.Generator().manual_seed(0)
    inputs = [torch.randn(2, 64, heads, 64, generator=g).to(rt.device, rt.dtype) for heads in (2, 1, 1)]
    truth = values(exact, [x.float() for x in inputs])
    for name in working:
        for fast, true in zip(values(attention.CUDA_KERNELS[name], inputs), truth):
            torch.testing.assert_close(fast.float(), true, rtol=0.03, atol=0.03, msg=lambda text, name=name: f"{name}: {text}")


class Alone(int):
    """A world of one rank that does not know it: every collective is really made."""

    def __eq__(self, other):
        return False

    def __gt__(self, other):
        return True

    __hash__ = int.__hash__


def test_the_collectives_of_this_device_leave_one_rank_as_it_is(rt, tmp_path):
    loop.run(*make(tmp_path / "a", rt, compile=False))
    dist.init_process_group("nccl" if rt.device.type == "cuda" else "gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        loop.run(*make(tmp_path / "b", dataclasses.replace(rt, world_size=Alone(1)), compile=False))
    finally:
        dist.destroy_process_group()
    torch.testing.assert_close(losses(tmp_path / "a"), losses(tmp_path / "b"), rtol=1e-3, atol=1e-3)


@pytest.mark.gpu
@pytest.mark.parametrize("compile, share", [(True, 1.0), (False, 1.1)])        # the plan leaves a tenth of the memory free
def test_a_step_takes_no_more_memory_than_planned(compile, share):
    rt = runtime.init("cuda")
    config = architecture(12, 32768, 2048)
    gc.collect()                # what other tests left would otherwise be freed in between and count for less than nothing
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    model = GPT(config, rt.dtype).to(rt.device)
    model.init_weights()
    optimizer, idx = loop.make_optimizer(model, rt), torch.zeros(4, 2048, dtype=torch.int64)
    batch = Batch(idx, idx, torch.ones(4, 2048), 4 * 2048.0, [0])
    stage = loop.Stage("test", None, None, 1, None, None, {}, {}, RunFlags(), compile=compile)
    loss_of = loop.loss_function(stage, model, optimizer, rt, batch)
    assert isinstance(loss_of, partial) != compile
    for _ in range(3):
        loop.train_step(loss_of, optimizer, [batch], rt, 1.0, 0.9)
    held = torch.cuda.max_memory_allocated() - before
    assert held < share * scaling.memory_bytes(12, 32768, 2048, 4, itemsize=rt.dtype.itemsize)


# ----------------------------------------------------------------------------------------------------------- benchmark
@pytest.fixture
def bench(monkeypatch):
    """benchmarks/gpu.py with everything tiny, and each line measured in this process."""
    spec = importlib.util.spec_from_file_location("gpu_benchmark", ROOT / "benchmarks" / "gpu.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "gpu_benchmark", module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(loop, "COMPILED_ON", ())
    monkeypatch.setattr(loop, "COMPILE", dict(loop.COMPILE))
    monkeypatch.setattr(attention, "_fastest", {})
    monkeypatch.setattr(module.bench_train, "matmul_peak", lambda *args, n: 1e12)
    module.tiny = module.Config(depths="2", device="cpu", sequence_len=32, vocab_size=64, rows=2, accumulate=2, steps=2,
                                batches="1,2", compiler="eager", quick=True)
    torch._dynamo.reset()
    yield module
    torch._dynamo.reset()


def test_the_benchmark_measures_every_line(bench, monkeypatch, capsys):
    monkeypatch.setattr(bench, "launch", lambda config, words: json.loads(json.dumps(bench.measure(
        dataclasses.replace(config, one=words)))))
    bench.report(bench.tiny)
    said = capsys.readouterr().out
    assert "failed" not in said and said.count("\n| 2") == (6 if importlib.util.find_spec("transformers") else 5)
    rows = [line for line in said.splitlines() if line.startswith("|")]      # between them the log may have spoken
    assert all(row.count("|") == above.count("|") for above, row in zip(rows, rows[1:]) if row.startswith("| 2")), \
        "every line has its table's columns"



def test_memory_that_runs_out_halves_the_batch_and_the_line_says_so(bench, monkeypatch):
    real, tried, made = bench.loop.make_optimizer, [], []

    def watched(*args):
        assert all(bucket() is None for bucket in made), "the candidate before still holds its memory"
        optimizer = real(*args)
        made[:] = map(weakref.ref, optimizer.buckets)
        return optimizer

    def full(loss_of, optimizer, batches, *args):
        tried.append(len(batches[0].inputs))
        if tried[-1] > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return step(loss_of, optimizer, batches, *args)
    step = bench.loop.train_step
    monkeypatch.setattr(bench.loop, "make_optimizer", watched)
    monkeypatch.setattr(bench.loop, "train_step", full)
    gc.disable()                # it may come too late
    try:
        found = bench.measure(dataclasses.replace(bench.tiny, rows=8, one="train 2 nanochat eager"))
    finally:
        gc.enable()
    assert tried[:3] == [8, 4, 2] and set(tried[3:]) == {2} and bench.TrainCells()("2 nanochat eager", found)[0] == "2 (planned: 8)"


def test_a_line_that_fails_says_why_and_the_next_goes_on(bench, capsys):
    assert bench.launch(dataclasses.replace(bench.tiny, timeout_s=0), "machine") == "took more than 0 s"
    bench.table(bench.tiny, "Training", ["name", "figure"], ["2 nanochat eager cudnn"], "train", None)
    assert "| 2 nanochat eager cudnn | failed: error: cudnn attention refuses this shape here |" in capsys.readouterr().out
