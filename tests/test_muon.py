"""Muon: kernels move by as much in every direction, whatever their gradients; the rest moves as AdamW moves it."""

import copy

import pytest
import torch
from torch import nn

from corrlib.muon import MOMENTUM, RMS, Muon, orthogonal


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("size", [(16, 60), (64, 576), (27, 128)])
@pytest.mark.parametrize("tall", [False, True])
def test_orthogonal_keeps_singular_vectors_and_makes_their_values_alike(size, tall):
    wide = drawn(*size) * torch.logspace(0, -1, size[0])[:, None]
    matrix = wide.T if tall else wide
    left, before, right = torch.linalg.svd(matrix, full_matrices=False)
    found = orthogonal(matrix)
    values = (left.T @ found @ right.T).diagonal()
    assert before.max() / before.min() > 5
    assert values.min() > 0.6 and values.max() < 1.3
    torch.testing.assert_close(found, left @ values.diag() @ right, atol=1e-4, rtol=0)


def test_zeros_stay_zeros():
    """Of a whole matrix, and of the rows of one that has a single direction."""
    assert torch.equal(orthogonal(torch.zeros(5, 7)), torch.zeros(5, 7))
    single = torch.zeros(5, 7)
    single[2] = drawn(7)
    found = orthogonal(single)
    torch.testing.assert_close(found, single / single.norm() * found.norm())
    assert 0.6 < found.norm() < 1.3


def step_of(kernel, gradient, **how):
    """How far a kernel goes back along its gradient in a first step."""
    parameter = nn.Parameter(kernel.clone())
    parameter.grad = gradient.clone()
    Muon([parameter], **how).step()
    return kernel - parameter.detach()


@pytest.mark.parametrize("shape", [(32, 8, 3, 3), (64, 3, 7, 7), (64, 16, 1, 1)])
def test_a_step_of_a_kernel_is_as_long_whatever_the_gradient(shape):
    kernel, gradient = torch.zeros(shape), drawn(*shape)
    found = step_of(kernel, gradient, lr=1e-2)
    assert (found * gradient).sum() > 0  # downhill
    assert found.square().mean().sqrt().item() == pytest.approx(RMS * 1e-2 * 4, rel=0.25)
    for scale in (1e-3, 1e3):
        torch.testing.assert_close(step_of(kernel, scale * gradient, lr=1e-2), found, rtol=1e-3, atol=1e-6)
    half = step_of(kernel, gradient, lr=1e-2, times=2.0)
    torch.testing.assert_close(2 * half, found)


def test_two_steps_by_hand():
    """Ahead along the momentum, after the decay; a row of the matrix is an output channel."""
    start, (one, two) = drawn(6, 4, 3, 3), drawn(2, 6, 4, 3, 3, seed=1)
    kernel = nn.Parameter(start.clone())
    optimizer = Muon([kernel], lr=0.01, weight_decay=0.5)
    expected, momentum = start, torch.zeros_like(start)
    for gradient in (one, two):
        kernel.grad = gradient.clone()
        optimizer.step()
        momentum = MOMENTUM * momentum + (1 - MOMENTUM) * gradient
        ahead = MOMENTUM * momentum + (1 - MOMENTUM) * gradient
        along = orthogonal(ahead.reshape(6, 36)).reshape(start.shape)
        expected = expected * (1 - 0.04 * 0.5) - 0.04 * RMS * 36**0.5 * along
    torch.testing.assert_close(kernel.detach(), expected)


def test_what_is_no_kernel_moves_as_adamw_moves_it():
    shapes = [(5,), (4, 3), (2, 3, 4), (6, 5, 3, 3)]
    ours, theirs = ([nn.Parameter(drawn(*shape)) for shape in shapes] for _ in range(2))
    optimizers = Muon(ours, lr=0.01, weight_decay=0.1), torch.optim.AdamW(theirs, lr=0.01, weight_decay=0.1)
    for step in range(4):
        for parameters, optimizer in zip((ours, theirs), optimizers):
            for parameter in parameters:
                parameter.grad = drawn(*parameter.shape, seed=step)
            optimizer.step()
    assert [torch.equal(one, other) for one, other in zip(ours, theirs)] == [True, True, True, False]


def learn(model, optimizer, steps):
    for step in steps:
        optimizer.zero_grad()
        model(drawn(2, 3, 8, 8, seed=step)).square().mean().backward()
        optimizer.step()


def test_a_saved_optimizer_goes_on_as_if_it_had_not_stopped(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 3))
    optimizer = Muon(list(model.parameters()), lr=0.01)
    learn(model, optimizer, range(3))
    torch.save(optimizer.state_dict(), tmp_path / "state.pt")
    again = copy.deepcopy(model)
    other = Muon(list(again.parameters()), lr=0.5)
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    learn(model, optimizer, range(3, 6)), learn(again, other, range(3, 6))
    assert all(torch.equal(one, two) for one, two in zip(model.parameters(), again.parameters()))


def test_a_kernel_without_a_gradient_stays_where_it_is():
    still, moving = nn.Parameter(drawn(4, 3, 3, 3)), nn.Parameter(drawn(4, 3, 3, 3))
    optimizer = Muon([still, moving], lr=0.01, weight_decay=0.5)
    for step in range(2):
        moving.grad = drawn(4, 3, 3, 3, seed=step)
        optimizer.step()
    assert torch.equal(still, drawn(4, 3, 3, 3)) and not torch.equal(moving, still)
