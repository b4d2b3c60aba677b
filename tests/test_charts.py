"""Curves: what is drawn is what was measured."""

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from corrlib import charts


@pytest.fixture
def ax():
    return Figure().add_subplot()


def test_thresholds_are_drawn_as_given_and_told_apart(ax):
    shares = {"model": [0.2, 0.5, 0.9], "static": [0.1, 0.1, 0.2]}
    charts.show_thresholds(ax, shares, [1, 2, 4])
    drawn = {line.get_label(): line for line in ax.lines}
    assert {name: list(line.get_ydata()) for name, line in drawn.items()} == shares
    assert len({line.get_color() for line in ax.lines}) == len({line.get_marker() for line in ax.lines}) == 2
    assert [label.get_text() for label in ax.get_xticklabels()] == ["1", "2", "4"]


def test_calibration_by_hand():
    confidence, visible = torch.tensor([0.05, 0.15, 0.9, 1.0]), torch.tensor([False, True, True, False])
    sure, seen, count = charts.calibration_curve(confidence, visible, bins=2)
    assert np.allclose(sure, [0.1, 0.95]) and np.allclose(seen, [0.5, 0.5]) and count.tolist() == [2, 2]
    assert charts.calibration_curve(confidence, visible, bins=3)[2].tolist() == [2, 1, 1]
    assert charts.calibration_curve(confidence, visible, bins=9)[2].tolist() == [1] * 4  # what is empty is left out
    with pytest.raises(ValueError, match="expected points and bins, got 0 and 15"):
        charts.calibration_curve(confidence[:0], visible[:0])


def test_who_is_as_sure_as_right_has_no_calibration_error(ax):
    confidence = torch.rand(200_000, generator=torch.Generator().manual_seed(0))
    seen = torch.rand(200_000, generator=torch.Generator().manual_seed(1)) < confidence
    assert charts.show_calibration(ax, confidence, seen) < 0.01
    assert charts.show_calibration(ax, confidence**3, seen) > 0.2
