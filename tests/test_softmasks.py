"""Soft masks: to cells and back to pixels, closed forms."""

import pytest
import torch

from corrlib import softmasks


@pytest.mark.parametrize("stride", [1, 2, 4, 8])
def test_cells_hold_the_mean_of_the_pixels_around_them(stride):
    """A straight edge stays where it is: the mean over cells is the share of pixels, and no cell far from it mixes."""
    maps = torch.zeros(1, 1, 37, 53)
    maps[..., 24:] = 1
    cells = softmasks.to_grid(maps, stride)
    assert cells.shape[-2:] == (-(-37 // stride), -(-53 // stride))
    at = torch.arange(cells.shape[-1]) * stride
    reach = stride // 2
    assert (cells[0, 0, :, at + reach < 24] == 0).all() and (cells[0, 0, :, at - reach >= 24] == 1).all()


def test_masks_are_drawn_to_the_edges_of_the_image():
    """A blurred mask over a black and a white half of an image becomes sharp where the image is."""
    frame = torch.zeros(1, 3, 32, 48)
    frame[..., 21:] = 1
    blurred = ((torch.arange(48.0) - 20.5) / 8 + 0.5).clamp(0, 1).expand(1, 1, 32, 48)
    drawn = softmasks.to_edges(blurred, frame, 4)[0, 0, 16]
    assert drawn[19] < 0.4 and drawn[22] > 0.6
    assert drawn[22] - drawn[19] > 1.5 * (blurred[0, 0, 16, 22] - blurred[0, 0, 16, 19])


def test_the_largest_map_wins_and_the_first_of_equals():
    """As argmax over the labels does."""
    maps = torch.rand(4, 9, 11, generator=torch.Generator().manual_seed(0))
    assert torch.equal(softmasks.largest(maps), maps.argmax(dim=0))
    assert softmasks.largest(torch.ones(3, 2, 2)).unique().tolist() == [0]


def test_maps_are_stretched_over_the_frame_but_not_what_has_left_it():
    """An object whose soft mask has sunk to 0.4 is whole again; one that is nowhere above 0.05 stays away."""
    sunk = torch.zeros(1, 3, 4, 5)
    sunk[0, 1, 1:3, 1:3], sunk[0, 2, 0, 0] = 0.4, 0.05
    sunk[0, 0] = 1 - sunk[0, 1:].sum(dim=0)
    stretched = softmasks.stretched(sunk, least=0.3)
    assert stretched[0, 1, 1, 1] == 1 and stretched[0, 2].max() < 0.2
    assert softmasks.largest(stretched[0]).unique().tolist() == [0, 1]
    assert softmasks.largest(sunk[0]).unique().tolist() == [0]
