"""Colour: OpenCV as the oracle, and a dropped channel by hand."""

import cv2
import numpy as np
import pytest
import torch

from corrlib import cielab


def test_lab_agrees_with_opencv():
    rgb = torch.rand(2, 3, 37, 53, generator=torch.Generator().manual_seed(0))
    rgb[0, :, :10] *= 0.05  # the linear branches
    oracle = [cv2.cvtColor(f.permute(1, 2, 0).numpy(), cv2.COLOR_RGB2Lab) for f in rgb]
    oracle = torch.from_numpy(np.stack(oracle)).permute(0, 3, 1, 2)
    shift, scale = torch.tensor([50.0, 0, 0]), torch.tensor([50.0, 127, 127])
    oracle = (oracle - shift[:, None, None]) / scale[:, None, None]
    assert (cielab.rgb_to_lab(rgb) - oracle).abs().max() < 1e-2


def test_lab_of_known_colours():
    colours = torch.tensor([[0.0, 0, 0], [1, 1, 1], [1, 0, 0]]).T.reshape(1, 3, 1, 3).requires_grad_()
    lab = cielab.rgb_to_lab(colours)
    expected = torch.tensor([[-1, 0, 0], [1, 0, 0], [(53.24 - 50) / 50, 80.09 / 127, 67.20 / 127]])
    assert torch.allclose(lab[0, :, 0].T, expected, atol=2e-3)
    lab.sum().backward()
    assert colours.grad.isfinite().all()


def test_dropping_a_channel_by_hand():
    lab = torch.rand(2, 3, 4, 5)
    for channel in range(3):
        left = cielab.drop_channel(lab, channel)
        kept = [c for c in range(3) if c != channel]
        assert not left[:, channel].any() and torch.allclose(left[:, kept], 1.5 * lab[:, kept])
    with pytest.raises(ValueError, match="channel should be 0, 1 or 2, got 3"):
        cielab.drop_channel(lab, 3)
