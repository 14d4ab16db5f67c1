"""Muon and AdamW against plain references, and the optimizer's state across numbers of ranks."""
import pytest
import torch

from nanochat.model.optim import Group, MuonAdamW, orthogonalize
from nanochat.runtime import Runtime


def parameters(seed=0):
    g = torch.Generator().manual_seed(seed)
    shapes = {"a": (6, 4), "b": (6, 4), "c": (4, 6), "e": (5, 3)}
    return {name: torch.nn.Parameter(torch.randn(shape, generator=g)) for name, shape in shapes.items()}


def make(params):
    named = list(params.items())
    return MuonAdamW([Group("muon", named[:3], lr=0.02), Group("adamw", named[3:], lr=0.1)], Runtime())


def backward(params, seed):
    g = torch.Generator().manual_seed(seed)
    sum((p * torch.randn(p.shape, generator=g)).sum() for p in params.values()).backward()


def test_orthogonalize_brings_singular_values_near_one():
    stack = torch.randn(3, 20, 8, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalize(stack))
    assert values.min() > 0.6 and values.max() < 1.3
    u, _, vh = torch.linalg.svd(stack, full_matrices=False)
    assert torch.nn.functional.cosine_similarity(orthogonalize(stack).flatten(1), (u @ vh).flatten(1)).min() > 0.95


def test_adamw_equals_torch():
    params = parameters()
    theirs = torch.nn.Parameter(params["e"].detach().clone())
    reference = torch.optim.AdamW([theirs], lr=0.1, betas=(0.8, 0.95), eps=1e-10, weight_decay=0.0)
    ours = make(params)
    for step in range(5):
        backward(params, step)
        g = torch.Generator().manual_seed(step)
        grads = {name: torch.randn(p.shape, generator=g) for name, p in params.items()}
        theirs.grad = grads["e"]
        reference.step()
        ours.reduce()
        ours.step()
    torch.testing.assert_close(params["e"].data, theirs.data, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name, inputs", [("b", 1), ("c", 0)], ids=["tall: rows are even", "wide: columns are even"])
def test_muon_equals_one_matrix_at_a_time(name, inputs):
    params = parameters()
    expected = params[name].detach().clone()
    rows, columns = expected.shape
    ours = make(params)
    momentum = torch.zeros(rows, columns)
    squares = 0.0
    for step in range(3):
        backward(params, step)
        g = torch.Generator().manual_seed(step)
        grad = {name: torch.randn(p.shape, generator=g) for name, p in params.items()}[name]
        momentum = 0.95 * momentum + 0.05 * grad
        update = orthogonalize((0.05 * grad + 0.95 * momentum)[None])[0]
        squares = 0.95 * squares + 0.05 * update.square().mean(inputs, keepdim=True)
        even = update / squares.sqrt()
        expected = expected - 0.02 * max(1, rows / columns) ** 0.5 * even * update.norm() / even.norm()
        ours.reduce()
        ours.step()
    torch.testing.assert_close(params[name].data, expected, rtol=1e-4, atol=1e-5)


def test_a_matrix_without_a_gradient_stays_as_it_is():
    p = torch.nn.Parameter(torch.ones(4, 3))
    optimizer = MuonAdamW([Group("muon", [("p", p)], lr=0.1)], Runtime())
    (p * 0.0).sum().backward()
    optimizer.reduce()
    optimizer.step()
    assert torch.equal(p.data, torch.ones(4, 3))


def test_gradients_are_collected_in_float32_over_micro_steps():
    p = torch.nn.Parameter(torch.zeros(2, 2, dtype=torch.bfloat16))
    optimizer = MuonAdamW([Group("muon", [("p", p)], lr=0.1)], Runtime())
    for _ in range(300):                      # a bf16 sum stops growing at 256
        (p * 1.0).sum().backward()
    assert optimizer.buckets[0].grad[0, 0, 0].item() == 300 and p.grad is None


def test_small_updates_reach_the_master_weights_of_a_bf16_model():
    p = torch.nn.Parameter(torch.ones(4, dtype=torch.bfloat16))
    optimizer = MuonAdamW([Group("adamw", [("p", p)], lr=1e-4)], Runtime())
    for _ in range(100):                      # each step is far below bf16's resolution at 1.0
        p.sum().backward()
        optimizer.reduce()
        optimizer.step()
    assert p[0].item() == pytest.approx(0.99, abs=0.004)
    assert optimizer.masters()["p"][0].item() == pytest.approx(0.99, abs=1e-4)


def test_second_moment_is_kept_in_float32():
    p = torch.nn.Parameter(torch.ones(4, dtype=torch.bfloat16))
    optimizer = MuonAdamW([Group("adamw", [("p", p)], lr=0.1, betas=(0.9, 0.9995))], Runtime())
    p.sum().backward()
    optimizer.reduce()
    optimizer.step()
    assert optimizer.state()["exp_avg_sq.p"][0].item() == pytest.approx(0.0005, rel=1e-3)


def test_state_round_trip_continues_bitwise():
    first, second = parameters(), parameters(seed=9)
    one = make(first)
    for step in range(2):
        backward(first, step)
        one.reduce()
        one.step()
    two = make(second)
    two.load(one.masters(), one.state(), one.steps)
    for params, optimizer in ((first, one), (second, two)):
        backward(params, 7)
        optimizer.reduce()
        optimizer.step()
    assert all(torch.equal(first[name], second[name]) for name in first)
