"""The soft cross-entropy against torch's own, and with candidates missing."""

import math

import pytest
import torch

from corrlib.losses import soft_label_cross_entropy


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
