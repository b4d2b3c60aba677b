"""The soft cross-entropy against torch's own, and with candidates missing."""

import math

import pytest
import torch

from corrlib import coords, losses
from corrlib.losses import LossWeights, soft_label_cross_entropy


def test_carried_labels_closed_form():
    """Features that tell things apart carry masks without loss; features all alike carry the shares of all cells."""
    things = torch.tensor([[0, 0, 0, 0, 0, 1, 1, 1, 1, 1]])
    known = torch.nn.functional.one_hot(things, 2).mT.float()
    apart = torch.nn.functional.normalize(known, dim=1)
    assert losses.carried_label_loss(apart, apart, known, known, 0.05) < 1e-3
    alike = torch.ones(1, 3, 10) / 3**0.5
    assert losses.carried_label_loss(alike, alike, known, known, 0.05) == pytest.approx(math.log(2), abs=1e-3)
    fewer = known.clone()
    fewer[:, :, 6:] = torch.tensor([1.0, 0.0])[:, None]  # the thing fills one cell: it is not carried
    telling = losses.carried_label_loss(alike, alike, fewer, known, 0.05)
    assert telling == pytest.approx(-0.5 * math.log(0.9 + 1e-4), abs=1e-3)


def test_equals_torch():
    g = torch.Generator().manual_seed(0)
    logits, label = torch.randn(2, 5, 9, generator=g), torch.rand(2, 5, 9, generator=g).softmax(-1)
    valid = torch.rand(2, 5, generator=g) > 0.3
    expected = torch.nn.functional.cross_entropy(logits[valid], label[valid])
    assert soft_label_cross_entropy(logits, label, valid).item() == pytest.approx(expected.item(), abs=1e-6)


def test_missing_candidates_share_nothing():
    logits = torch.tensor([[[0.0, 0.0, float("-inf"), float("-inf")]]], requires_grad=True)
    label = torch.tensor([[[1.0, 0.0, 0.0, 0.0]]])
    loss = soft_label_cross_entropy(logits, label, torch.tensor([[True]]))
    assert loss.item() == pytest.approx(math.log(2))
    loss.backward()
    assert torch.allclose(logits.grad, torch.tensor([[[-0.5, 0.5, 0.0, 0.0]]]))


def test_nothing_valid_is_zero_with_zero_gradient():
    logits = torch.randn(1, 3, 4, requires_grad=True)
    loss = soft_label_cross_entropy(logits, torch.full((1, 3, 4), 0.25), torch.zeros(1, 3, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0 and logits.grad.abs().sum() == 0


def test_invalid_labels_do_not_count():
    logits = torch.tensor([[[5.0, 0.0], [0.0, 5.0]]])
    label = torch.tensor([[[1.0, 0.0], [1.0, 0.0]]])
    only_good = soft_label_cross_entropy(logits, label, torch.tensor([[True, False]]))
    assert only_good.item() == pytest.approx(math.log(1 + math.exp(-5)), abs=1e-6)


def one_hot_pair(shift_xy, size_hw=(11, 13), sharpness=60.0):
    """Features of two frames of which the second is the first, shifted; each cell is like itself alone."""
    h, w = size_hw
    key = sharpness * torch.eye(h * w).reshape(1, h * w, h, w)
    return torch.roll(key, shift_xy[::-1], dims=(2, 3)), key


def test_reconstruction_is_the_reference_where_the_affinity_is_one_hot():
    (dx, dy), colours = (2, -1), torch.rand(1, 2, 11, 13)
    query, key = one_hot_pair((dx, dy))
    rebuilt = losses.reconstruct(query, [key], [colours], 3)
    expected = torch.roll(colours, (dy, dx), dims=(2, 3))
    inner = (..., slice(3, -3), slice(3, -3))
    assert torch.allclose(rebuilt[inner], expected[inner], atol=1e-4)
    still = losses.reconstruct(key, [key], [colours], 3)
    assert torch.allclose(still, colours, atol=1e-4)


def test_features_that_say_nothing_rebuild_the_mean_of_the_window():
    flat, colours = torch.zeros(1, 4, 9, 8), torch.rand(1, 1, 9, 8)
    rebuilt = losses.reconstruct(flat, [flat], [colours], 1)
    assert rebuilt[0, 0, 4, 4].item() == pytest.approx(colours[0, 0, 3:6, 3:6].mean().item(), abs=1e-6)
    assert rebuilt[0, 0, 0, 0].item() == pytest.approx(colours[0, 0, :2, :2].mean().item(), abs=1e-6)
    with_outside = losses.reconstruct(flat, [flat], [colours], 1, outside_zero=True)
    assert with_outside[0, 0, 0, 0].item() == pytest.approx(colours[0, 0, :2, :2].sum().item() / 9, abs=1e-6)


def test_the_reference_that_looks_alike_is_chosen():
    query, key = one_hot_pair((0, 0))
    right, wrong = torch.rand(1, 1, 11, 13), torch.rand(1, 1, 11, 13)
    rebuilt = losses.reconstruct(query, [torch.zeros_like(key), key], [wrong, right], 2)
    assert torch.allclose(rebuilt, right, atol=1e-3)


def test_products_are_divided_by_the_root_of_the_channels():
    g = torch.Generator().manual_seed(0)
    query, key, colours = (torch.randn(2, c, 6, 7, generator=g) for c in (9, 9, 1))
    rebuilt = losses.reconstruct(query, [key], [colours], 7)  # a window that holds the whole map
    affinity = torch.einsum("bcn,bcm->bnm", query.flatten(2), key.flatten(2)).div(3).softmax(-1)
    expected = torch.einsum("bnm,bvm->bvn", affinity, colours.flatten(2)).reshape(2, 1, 6, 7)
    assert torch.allclose(rebuilt, expected, atol=1e-5)


def test_reconstruction_loss_by_hand():
    """Cells sit on every second pixel, so that a ramp is rebuilt exactly; a gap of d counts 20 d - 1/2."""
    lattice = coords.Lattice(2)
    ramp = (coords.grid((9, 11)) @ torch.tensor([0.03, 0.05]))[None, None]
    cells = coords.relattice(ramp, coords.PIXELS, lattice, (9, 11))
    assert losses.reconstruction_loss(cells, ramp, lattice).item() == pytest.approx(0, abs=1e-6)
    assert losses.reconstruction_loss(cells + 0.2, ramp, lattice).item() == pytest.approx(3.5, abs=1e-4)
    assert losses.reconstruction_loss(cells + 0.02, ramp, lattice).item() == pytest.approx(0.08, abs=1e-4)


def test_bad_weights_and_references():
    with pytest.raises(ValueError, match="weights should be at least 0 and not all 0"):
        LossWeights(0.0, 0.0, 0.0, 0.0)
    with pytest.raises(ValueError, match=r"not all 0, got .*'domain': -1"):
        LossWeights(domain=-1.0)
    features = torch.rand(1, 2, 4, 5)
    with pytest.raises(ValueError, match="keys and values should be of the same frames, got 0, 0"):
        losses.reconstruct(features, [], [], 1)
    with pytest.raises(ValueError, match="radius should be 0 to 5"):
        losses.reconstruct(features, [features], [features], 6)
