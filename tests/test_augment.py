"""Appearance changes: in range, by each frame's own draw, never moving anything."""

import pytest
import torch

from corrlib import augment


def test_each_frame_has_its_own_draw_and_the_seed_decides():
    frames = torch.rand(1, 3, 32, 48).expand(6, 3, 32, 48)
    one = augment.change_appearance(frames, torch.Generator().manual_seed(1))
    assert torch.equal(one, augment.change_appearance(frames, torch.Generator().manual_seed(1)))
    assert not torch.equal(one, augment.change_appearance(frames, torch.Generator().manual_seed(2)))
    assert one.shape == frames.shape and one.min() >= 0 and one.max() <= 1
    assert (one[0] - one[1]).abs().mean() > 0.02


def test_strength_zero_changes_nothing():
    frames = torch.rand(2, 3, 32, 48)
    assert torch.equal(augment.change_appearance(frames, torch.Generator(), 0.0), frames)


def test_nothing_moves():
    """A bright square stays where it is: the centre of its excess over the rest hardly moves."""
    frames = torch.full((16, 3, 37, 53), 0.3)
    frames[:, :, 15:22, 20:27] = 0.8
    changed = augment.change_appearance(frames, torch.Generator().manual_seed(0), 0.5)
    near = changed[:, :, 11:26, 16:31].mean(dim=1)
    excess = (near - near[:, 0, 0][:, None, None]).abs()
    x = (excess * torch.arange(15.0)).sum((1, 2)) / excess.sum((1, 2))
    assert (x - 7).abs().median() < 0.3


def test_blur_by_hand_and_of_width_zero():
    frames = torch.zeros(2, 1, 9, 11)
    frames[:, 0, 4, 5] = 1
    out = augment.blur(frames, torch.tensor([0.0, 1.0]))
    assert torch.allclose(out[0], frames[0], atol=1e-6)
    assert out[1].sum().item() == pytest.approx(1, abs=1e-5)
    assert out[1, 0, 4, 5] > out[1, 0, 4, 6] == pytest.approx(out[1, 0, 3, 5].item())


def test_message():
    with pytest.raises(ValueError, match="strength should be at least 0, got -1"):
        augment.change_appearance(torch.rand(1, 3, 8, 8), torch.Generator(), -1.0)
