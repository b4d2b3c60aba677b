"""Soft labels: closed forms, sums, means, and what is no longer valid."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from corrlib import labels, matching


def window(target, radius=3, centre=(10.0, 7.0)):
    cells = matching.window_cells(torch.tensor([[centre]]), radius)
    return torch.tensor([[target]]), cells


def test_bilinear_by_hand():
    target, cells = window((10.25, 7.0))
    label, valid = labels.soft_label(target, cells)
    assert valid.all()
    middle = 24  # of the 49 offsets of radius 3
    assert label[0, 0, middle] == pytest.approx(0.75) and label[0, 0, middle + 1] == pytest.approx(0.25)
    assert label.count_nonzero() == 2


def test_integer_displacement_is_at_its_offset():
    """x moves by one slot, y by a whole row of the window: dy is the slow index."""
    for kind in ("bilinear", "hard"):
        target, cells = window((12.0, 6.0))
        label, _ = labels.soft_label(target, cells, kind)
        assert label[0, 0].argmax() == 24 + 2 - 7 and label[0, 0].max() == 1


@given(st.floats(7.01, 12.99), st.floats(4.01, 9.99))
def test_bilinear_sums_to_one_and_has_the_target_as_its_mean(x, y):
    target, cells = window((x, y))
    label, valid = labels.soft_label(target, cells)
    assert valid.all() and label.sum().item() == pytest.approx(1, abs=1e-5)
    mean = (label[..., None] * cells).sum(dim=2)
    assert torch.allclose(mean, target, atol=1e-4)


@given(st.floats(7.6, 12.4), st.floats(4.6, 9.4))
def test_hard_is_the_nearest_cell(x, y):
    target, cells = window((x, y))
    label, valid = labels.soft_label(target, cells, "hard")
    assert valid.all() and label.sum() == 1
    nearest = (label[..., None] * cells).sum(dim=2)
    assert (nearest - target).abs().max() <= 0.5 + 1e-5


def test_a_target_beyond_the_window_is_no_label():
    for x in (13.2, 20.0, float("nan")):
        label, valid = labels.soft_label(*window((x, 7.0)))
        assert not valid.any()
        assert not (label > 0).any()


def test_message():
    with pytest.raises(
        ValueError, match="label should be one of bilinear, hard, gaussian, teacher, teacher_gaussian, got 'soft'"
    ):
        labels.soft_label(*window((10.0, 7.0)), "soft")
