"""What CUDA runs in training, proven without a GPU: one graph, compiled once, that gives what the eager model gives."""
import math
import time
from functools import partial

import pytest
import torch
from reference import cross_entropy
from torch._dynamo.backends.debugging import aot_eager
from torch._dynamo.utils import counters
from torch.nn.attention import SDPBackend, sdpa_kernel

from nanochat import scaling
from nanochat.data.dataloader import Batch
from nanochat.model import attention, loss
from nanochat.model.gpt import GPT, GPTConfig
from nanochat.runtime import Runtime
from nanochat.train import loop
from nanochat.train.recipe import RunFlags

T, V = 32, 90           # V is not the padded size, which is 128
SHAPES = {"plain": {}, "grouped heads, key offset": {"n_kv_head": 2, "key_offset": 0.5, "value_offset": 0.5, "value_tables": True,
                                                  "embedding_skips": True}}


class Graphs(list):
    """The (graph, inputs) that were traced. They run as they are, or go `through` the next stages of a compiler."""

    def through(self, graph, inputs):
        return graph.forward

    def backend(self, graph, inputs):
        self.append((graph, inputs))
        return self.through(graph, inputs)


@pytest.fixture
def graphs(monkeypatch):
    """Compile on this CPU as if it were CUDA, and refuse to do it twice."""
    made = Graphs()
    torch._dynamo.reset()
    counters.clear()
    monkeypatch.setattr(loop, "COMPILED_ON", ("cpu",))
    monkeypatch.setattr(loop, "COMPILE", {**loop.COMPILE, "backend": made.backend})
    with torch._dynamo.config.patch(error_on_recompile=True):
        yield made
    torch._dynamo.reset()


@pytest.fixture(autouse=True)
def no_choice(monkeypatch):
    monkeypatch.setattr(attention, "_fastest", {})


def make(dtype=torch.float32, **shape):
    """(model, its optimizer)"""
    model = GPT(GPTConfig(**{"sequence_len": T, "vocab_size": V, "n_layer": 2, "n_head": 4, "n_kv_head": 4, "n_embd": 32,
                             **shape}), dtype)
    model.init_weights(1)
    return model, loop.make_optimizer(model, Runtime(dtype=dtype))


def steps(n, rows=3):
    """Batches of two micro-batches of rows that change, a third of the targets ignored, in one all of them."""
    g = torch.Generator().manual_seed(0)
    for step in range(n):
        tokens = torch.randint(0, V, (2, rows, T + 1), generator=g)
        weight = (torch.rand(2, rows, T, generator=g) * 2 - 0.4).clamp(min=0)      # packed rows, or advantages
        weight[0] *= step != 1
        yield [Batch(t[:, :-1].contiguous(), t[:, 1:].contiguous(), w, float(weight.sum()), list(range(rows)))
               for t, w in zip(tokens, weight)]


def stage(tmp_path=None, n=4, compile=True, **more):
    def batches(start, at_a_time):
        yield from enumerate(steps(n))
    return loop.Stage("test", tmp_path and tmp_path / "run", tmp_path and tmp_path / "log.jsonl", n, batches,
                       lambda step: (scaling.lr_scale(step, n), 0.9), {"steps": n}, {"tokenizer": "x"}, RunFlags(),
                       compile=compile, **more)


def losses(model, optimizer, compile):
    found, loss_of = [], None
    for step, micro in enumerate(steps(4)):
        loss_of = loss_of or loop.loss_function(stage(compile=compile), model, optimizer, Runtime(), micro[0])
        found.append(loop.train_step(loss_of, optimizer, micro, Runtime(), 1 - step / 8, 0.85 + step / 100)[:2])
    return found


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_training_compiles_whole_and_once_and_equals_eager(graphs, shape):
    graphs.through = aot_eager          # which also traces the backward pass and takes all apart, as for CUDA
    compiled, eager = losses(*make(**shape), True), losses(*make(**shape), False)
    torch.testing.assert_close(torch.tensor(compiled), torch.tensor(eager), rtol=1e-3, atol=1e-4)
    assert len(graphs) == 1 and not counters["graph_break"]


def test_recomputation_compiles_whole_too(graphs):
    graphs.through = aot_eager
    model, optimizer = make()
    model.recompute = True
    compiled, eager = losses(model, optimizer, True), losses(*make(), False)
    torch.testing.assert_close(torch.tensor(compiled), torch.tensor(eager), rtol=1e-3, atol=1e-4)
    assert len(graphs) == 1 and not counters["graph_break"]


def test_the_graph_of_a_bf16_model_takes_its_matrices_in_bf16_cast_once_a_step(graphs):
    model, optimizer = make(torch.bfloat16)
    compiled, eager = losses(model, optimizer, True), losses(*make(torch.bfloat16), False)
    torch.testing.assert_close(torch.tensor(compiled), torch.tensor(eager), rtol=0.02, atol=0.02)
    (graph, inputs), = graphs
    taken = [x.dtype for x in inputs if isinstance(x, torch.nn.Parameter)]
    assert len(taken) == len(list(model.parameters())) and taken.count(torch.float32) == 1, "only the embedding is float32"
    assert all(bucket.master.dtype == torch.float32 for bucket in optimizer.buckets)
    called = " ".join(str(node.target) for part in graph.modules() if hasattr(part, "graph") for node in part.graph.nodes)
    assert all(name in called for name in ("rms_norm", "scaled_dot_product_attention", "sigmoid")), "what CUDA takes"
    assert not any(name in called for name in ("baddbmm", "scatter_add_", "vector_norm")), "and not what a CPU takes"


def test_a_run_compiles_once_through_validations_of_another_shape(graphs, tmp_path):
    def run(folder, compile):
        model, optimizer = make()
        odd, weight = torch.zeros(1, 7, dtype=torch.int64), torch.ones(1, 7)

        def evaluate():
            with torch.no_grad():
                return {"val": model.token_nll(odd, odd).mean().item(), "loss": model.loss(odd, odd, weight).item()}
        loop.run(stage(folder, 4, compile, evaluate=evaluate, eval_every=1), model, optimizer, Runtime())
        return optimizer.masters()
    whole, eager = run(tmp_path / "a", True), run(tmp_path / "b", False)
    for name, p in whole.items():
        torch.testing.assert_close(p, eager[name], rtol=1e-2, atol=1e-3)
    assert len(graphs) == 1


def test_trying_the_compiler_out_leaves_no_gradient_behind(graphs):
    model, optimizer = make()
    loop.loss_function(stage(), model, optimizer, Runtime(), next(steps(1))[0])
    assert all(not bucket.grad.any() for bucket in optimizer.buckets) and len(graphs) == 1
    assert all(p.grad is None for p in model.parameters())


def test_a_compiler_that_fails_is_one_line_and_training_goes_on_as_it_is(graphs, caplog):
    def broken(graph, inputs):
        raise ValueError("no compiler\nin this torch")
    graphs.through = broken
    assert losses(*make(), True) == losses(*make(), False)
    said = [r.getMessage() for r in caplog.records if r.name == "nanochat"]
    assert len(said) == 1 and "no compiler in this torch" in said[0] and "going on uncompiled" in said[0]


def test_memory_that_runs_out_is_not_taken_for_a_broken_compiler(graphs):
    def full(graph, inputs):
        def run(*args):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return run
    graphs.through = full
    with pytest.raises(torch.OutOfMemoryError):
        losses(*make(), True)


def test_nothing_is_compiled_on_a_cpu_or_when_not_wanted(monkeypatch):
    monkeypatch.setattr(torch, "compile", None)
    model, optimizer = make()
    assert isinstance(loop.loss_function(stage(), model, optimizer, Runtime(), None), partial)
    monkeypatch.setattr(loop, "COMPILED_ON", ("cpu",))
    assert isinstance(loop.loss_function(stage(compile=False), model, optimizer, Runtime(), None), partial)


@pytest.mark.parametrize("chunk", [V, V * 7, 1 << 22])
def test_the_loss_as_a_compiler_sees_it_equals_the_reference(chunk, monkeypatch):
    monkeypatch.setattr(loss, "CHUNK_ELEMENTS", chunk)
    g = torch.Generator().manual_seed(0)
    hidden, head = (torch.randn(n, 16, generator=g, requires_grad=True) for n in (50, V))
    targets, weight = torch.randint(0, V, (50,), generator=g), torch.rand(50, generator=g) - 0.3
    expected = cross_entropy(hidden, head, targets, weight, 15.0)
    expected.backward()
    with torch.no_grad():
        for found, wanted in zip(loss._traced(hidden, head, targets, weight, 15.0), (expected, hidden.grad, head.grad)):
            torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_chunks_of_the_loss_are_small_on_a_cpu_and_a_sixteenth_of_the_batch_elsewhere():
    sizes = {device: loss.chunk_tokens(torch.empty(65536, 8, device=device), torch.empty(32768, 8, device=device))
             for device in ("meta", "cpu")}
    assert sizes == {"meta": 4096, "cpu": 128}


# ----------------------------------------------------------------------------------------------------------- attention
CONFIG, CPU = GPTConfig(sequence_len=16, n_head=4, n_kv_head=2, n_embd=32), torch.device("cpu")


def refuses(q, k, v):
    raise RuntimeError("No available kernel")


def slow(q, k, v):
    time.sleep(0.02)
    return attention.sdpa(q, k, v)


def only_forward(q, k, v):
    return attention.sdpa(q, k, v).detach()


def test_the_fastest_kernel_that_works_both_ways_is_chosen():
    seen = []

    def quick(q, k, v):
        seen.append((q.shape, k.shape, v.shape, q.dtype))
        return attention.sdpa(q, k, v)
    kernels = {"refuses": refuses, "only_forward": only_forward, "slow": slow, "quick": quick}
    words = attention.pick_fastest(CPU, torch.bfloat16, 3, CONFIG, kernels)
    assert words.startswith("quick (") and "refuses inf" in words and "only_forward inf" in words
    assert set(seen) == {((3, 16, 4, 8), (3, 16, 2, 8), (3, 16, 2, 8), torch.bfloat16)}
    assert attention.training_kernel("cpu", 2048) is quick, "beyond blocked attention's length"


def test_without_a_kernel_that_works_the_table_stands():
    attention.pick_fastest(CPU, torch.float32, 1, CONFIG, {"slow": slow})
    assert attention.pick_fastest(CPU, torch.float32, 1, CONFIG, {"refuses": refuses}) == "blocked"
    assert attention.training_kernel("cpu", 16) is attention.blocked
    assert attention.training_kernel("cpu", 2048) is attention.training_kernel("cuda", 16) is attention.sdpa


def test_on_a_cpu_nothing_is_tried(monkeypatch):
    monkeypatch.setattr(attention, "measure", lambda *args: {})
    assert attention.pick_fastest(CPU, torch.float32, 1, CONFIG) == "blocked" and attention._fastest == {}


def test_kernels_do_what_sdpa_does_or_refuse():
    g = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 16, heads, 8, generator=g, requires_grad=True) for heads in (4, 4, 4))
    found = attention.measure(CPU, torch.float32, 2, CONFIG, attention.CUDA_KERNELS)
    assert set(found) == {"cudnn", "flash", "efficient"} and math.isfinite(found["flash"])      # a CPU has flash alone
    assert math.isinf(found["cudnn"])
    with sdpa_kernel(SDPBackend.MATH):
        expected = attention.sdpa(q, k, v)
    torch.testing.assert_close(attention.CUDA_KERNELS["flash"](q, k, v), expected, rtol=1e-4, atol=1e-5)


def test_the_chosen_kernel_is_what_is_compiled(graphs):
    attention.pick_fastest(CPU, torch.float32, 3, CONFIG, {"flash": attention.CUDA_KERNELS["flash"]})
    compiled, eager = losses(*make(n_kv_head=2), True), losses(*make(n_kv_head=2), False)
    torch.testing.assert_close(torch.tensor(compiled), torch.tensor(eager), rtol=1e-3, atol=1e-4)
    (graph, _), = graphs
    assert "_sdpa_kernel" in graph.code or "sdp" in graph.code
