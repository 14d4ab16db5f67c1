"""RMSNorm and rotary positions: the passes written by hand give what the plain functions and autograd give."""
import pytest
import torch

from nanochat.model import elementwise


def values(fn, dtype, shape, *more, seed=0):
    """(result, gradient of x) of fn(x, *more), the result weighted at random."""
    g = torch.Generator().manual_seed(seed)
    x = (2 * torch.randn(shape, generator=g)).to(dtype).requires_grad_()
    y = fn(x, *more)
    (y.float() * torch.randn(shape, generator=g)).sum().backward()
    return y, x.grad


def angles(T, n):
    angle = torch.rand(1, T, 1, n, generator=torch.Generator().manual_seed(1)) * 6
    return angle.cos(), angle.sin()


@pytest.mark.parametrize("shape", [(3, 5, 8), (1, 64), (2, 7, 3, 16)])
def test_norm_by_hand_equals_the_plain_one(shape):
    for fast, slow in zip(values(elementwise.norm, torch.float32, shape), values(elementwise.plain_norm, torch.float32, shape)):
        torch.testing.assert_close(fast, slow, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("n", [4, 2, 0])          # all, half and none of the 8 channels rotate
@pytest.mark.parametrize("gain", [1.0, 1.9])
def test_rotated_norm_by_hand_equals_the_plain_one(n, gain):
    more = (*angles(5, n), gain)
    for fast, slow in zip(values(elementwise.rotate_norm, torch.float32, (2, 5, 3, 8), *more),
                          values(elementwise.plain_rotate_norm, torch.float32, (2, 5, 3, 8), *more)):
        torch.testing.assert_close(fast, slow, rtol=1e-5, atol=1e-6)


def test_by_hand_in_bf16_is_no_further_from_the_truth_than_twice_autograd():
    more = (*(x.bfloat16() for x in angles(64, 16)), 1.9)
    exact = values(elementwise.plain_rotate_norm, torch.float32, (2, 64, 4, 32), *(x.float() for x in more[:2]), 1.9)
    fast, slow = (values(fn, torch.bfloat16, (2, 64, 4, 32), *more) for fn in
                  (elementwise.rotate_norm, elementwise.plain_rotate_norm))
    for a, b, truth in zip(fast, slow, exact):
        assert (a.float() - truth).norm() < 2 * (b.float() - truth).norm()


def test_a_zero_vector_stays_zero_with_a_finite_gradient():
    x = torch.zeros(2, 8, requires_grad=True)
    y = elementwise.norm(x)
    y.sum().backward()
    assert not y.any() and torch.isfinite(x.grad).all()


def test_without_gradient_the_plain_function_runs():
    x = torch.randn(2, 8)
    assert torch.equal(elementwise.norm(x), elementwise.plain_norm(x))
