"""Coordinates: every rule of the module's docstring, by hand and by OpenCV or torch as oracle."""

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from corrlib import coords
from corrlib.coords import Lattice

LATTICES = [Lattice(1), Lattice(2), Lattice(4), Lattice(8), Lattice(8, 3.5)]
SIZES = [(32, 48), (37, 53), (9, 11)]


@pytest.mark.parametrize("lattice", LATTICES)
@pytest.mark.parametrize("size_hw", SIZES)
def test_lattice_size_counts_the_cells_on_pixels(lattice, size_hw):
    expected = tuple(sum(lattice.offset + lattice.stride * i <= n - 1 for i in range(n)) for n in size_hw)
    assert coords.lattice_size(size_hw, lattice) == expected


def test_lattice_size_is_that_of_the_layers_that_have_the_lattice():
    frame = torch.zeros(1, 1, 37, 53)
    strided = F.conv2d(frame, torch.zeros(1, 1, 3, 3), stride=2, padding=1)
    assert tuple(strided.shape[2:]) == coords.lattice_size((37, 53), Lattice(2))
    patches = F.conv2d(frame[..., :32, :48], torch.zeros(1, 1, 8, 8), stride=8)
    assert tuple(patches.shape[2:]) == coords.lattice_size((32, 48), Lattice(8, 3.5))


def test_cells_and_pixels_by_hand():
    xy = torch.tensor([[3.5, 11.5], [0.0, 8.0]])
    assert torch.equal(coords.to_cells(xy, Lattice(8, 3.5))[0], torch.tensor([0.0, 1.0]))
    assert torch.equal(coords.to_cells(xy, Lattice(8))[1], torch.tensor([0.0, 1.0]))
    assert torch.equal(coords.to_pixels(torch.tensor([2.0, 0.5]), Lattice(8, 3.5)), torch.tensor([19.5, 7.5]))


@given(
    xy=st.lists(st.floats(-1000, 1000, width=32), min_size=2, max_size=2),
    lattice=st.sampled_from(LATTICES),
)
def test_to_pixels_undoes_to_cells(xy, lattice):
    xy = torch.tensor(xy)
    assert torch.allclose(coords.to_pixels(coords.to_cells(xy, lattice), lattice), xy, atol=1e-3)


def test_grid_holds_x_then_y():
    grid = coords.grid((37, 53))
    assert grid.shape == (37, 53, 2) and grid.dtype == torch.float32
    assert grid[5, 40].tolist() == [40, 5]


def test_window_offsets_are_row_by_row():
    offsets = coords.window_offsets(1)
    assert offsets.tolist() == [[-1, -1], [0, -1], [1, -1], [-1, 0], [0, 0], [1, 0], [-1, 1], [0, 1], [1, 1]]
    assert coords.window_offsets(0).tolist() == [[0, 0]]
    assert coords.window_offsets(4).shape == (81, 2)
    with pytest.raises(ValueError, match="window_offsets: radius should be at least 0, got -1"):
        coords.window_offsets(-1)


def test_inside_is_half_a_pixel_around_the_frame():
    xy = torch.tensor([[-0.5, 0], [-0.51, 0], [52.49, 0], [52.5, 0], [0, -0.5], [0, -0.51], [0, 36.49], [0, 36.5]])
    assert coords.inside(xy, (37, 53)).tolist() == [True, False, True, False, True, False, True, False]
    assert not coords.inside(torch.tensor([float("nan"), 0.0]), (37, 53))


def test_box_mask():
    mask = coords.box_mask((37, 53), 30.4, 10, 20.6, 15)
    assert mask.shape == (37, 53) and mask.sum() == 10 * 6 and mask[10, 21] == mask[15, 30] == 1 and mask[10, 20] == 0
    with pytest.raises(ValueError, match="box: should have at least 3 x 3 pixels inside the frame, got 2 x 9"):
        coords.box_mask((37, 53), 1, 1, 2, 9)


def test_reduced_size_is_that_of_the_shorter_side():
    assert coords.reduced_size((1080, 1920), 256) == (256, 455) and coords.reduced_size((1920, 1080), 256) == (455, 256)
    for kept in ((200, 900), (900, 200), (256, 256)):
        assert coords.reduced_size(kept, 256) == kept
    assert coords.reduced_size((1080, 1920), 0) == (1080, 1920) and coords.reduced_size((300, 3), 1) == (100, 1)


def test_resize_masks_keeps_numbers_and_places():
    masks = torch.zeros(2, 4, 6, dtype=torch.int64)
    masks[0, 1, 2], masks[1] = 3, 200
    larger = coords.resize_masks(masks, (8, 18))
    assert set(larger.unique().tolist()) == {0, 3, 200} and (larger[0] == 3).nonzero().tolist() == [
        [y, x] for y in (2, 3) for x in (6, 7, 8)
    ]
    assert torch.equal(coords.resize_masks(larger, (4, 6)), masks)


def test_sample_at_whole_pixels_reads_them():
    values = torch.rand(2, 3, 37, 53, generator=torch.Generator().manual_seed(0))
    grid = coords.grid((37, 53)).expand(2, 37, 53, 2)
    samples, inside = coords.sample(values, grid)
    assert torch.allclose(samples, values, atol=1e-5) and inside.all()


def test_sample_between_pixels_by_hand():
    values = torch.tensor([[[[0.0, 1, 2], [10, 11, 12]]]])
    xy = torch.tensor([[[0.5, 0.0], [1.25, 0.5], [0.0, 1.0]]])
    assert torch.allclose(coords.sample(values, xy)[0], torch.tensor([[[0.5, 6.25, 10.0]]]))


def test_sample_outside_repeats_the_border_or_is_zero_and_says_so():
    values = torch.ones(1, 1, 4, 6)
    xy = torch.tensor([[[-3.0, 1.0], [-0.4, 1.0], [5.6, 1.0], [2.0, 9.0]]])
    samples, inside = coords.sample(values, xy)
    assert torch.allclose(samples, torch.ones(1, 1, 4)) and inside.tolist() == [[False, True, False, False]]
    samples, _ = coords.sample(values, xy, padding="zeros")
    assert torch.allclose(samples, torch.tensor([[[0, 0.6, 0.4, 0]]]), atol=1e-5)


@pytest.mark.parametrize("size_hw", [(1, 1), (1, 6), (5, 1)])
def test_sample_of_maps_one_cell_wide(size_hw):
    values = torch.arange(1.0, 1 + size_hw[0] * size_hw[1]).reshape(1, 1, *size_hw)
    grid = coords.grid(size_hw)[None]
    for padding in ("border", "zeros"):
        assert torch.allclose(coords.sample(values, grid, padding)[0], values)


def test_sample_agrees_with_opencv():
    generator = torch.Generator().manual_seed(0)
    values = torch.rand(1, 1, 37, 53, generator=generator)
    xy = torch.rand(1, 20, 7, 2, generator=generator) * torch.tensor([52.0, 36.0])
    oracle = cv2.remap(values[0, 0].numpy(), xy[0, ..., 0].numpy(), xy[0, ..., 1].numpy(), cv2.INTER_LINEAR)
    assert np.abs(coords.sample(values, xy)[0][0, 0].numpy() - oracle).max() < 0.02  # theirs has 1/32 px steps


def test_sample_has_the_gradient_of_a_ramp():
    ramp = coords.grid((37, 53))[None, ..., 0][:, None] * 3.0
    xy = torch.tensor([[[20.3, 11.7]]], requires_grad=True)
    coords.sample(ramp, xy)[0].sum().backward()
    assert torch.allclose(xy.grad, torch.tensor([[[3.0, 0.0]]]), atol=1e-4)


@pytest.mark.parametrize("source", LATTICES)
@pytest.mark.parametrize("target", LATTICES)
def test_relattice_keeps_a_ramp_where_it_is(source, target):
    """A map that holds its own pixel coordinates still holds them on another lattice."""
    size_hw = (37, 53)
    pixels = coords.to_pixels(coords.grid(coords.lattice_size(size_hw, source)), source)
    moved = coords.relattice(pixels.permute(2, 0, 1)[None], source, target, size_hw)[0]
    expected = coords.to_pixels(coords.grid(coords.lattice_size(size_hw, target)), target).permute(2, 0, 1)
    assert moved.shape == expected.shape
    low, high = pixels.amin((0, 1)), pixels.amax((0, 1))  # beyond its outer cells the map repeats itself
    assert torch.allclose(moved, expected.clamp(low[:, None, None], high[:, None, None]), atol=1e-4)


def test_resize_points_by_hand():
    xy = torch.tensor([[-0.5, -0.5], [52.5, 36.5], [0.0, 0.0]])
    expected = torch.tensor([[-0.5, -0.5], [105.5, 73.5], [0.5, 0.5]])
    assert torch.allclose(coords.resize_points(xy, (37, 53), (74, 106)), expected)


@pytest.mark.parametrize("new_size_hw", [(74, 106), (20, 90), (111, 53)])
def test_resize_points_follows_the_resized_picture(new_size_hw):
    """A blob's centre of mass is where `resize_points` says, in torch's picture and in OpenCV's."""
    xy = torch.tensor([23.0, 14.0])
    frame = torch.exp(-(coords.grid((37, 53)) - xy).square().sum(-1) / 18)
    expected = coords.resize_points(xy, (37, 53), new_size_hw)
    pictures = [
        coords.resize_frames(frame[None, None], new_size_hw)[0, 0],
        torch.from_numpy(cv2.resize(frame.numpy(), new_size_hw[::-1], interpolation=cv2.INTER_AREA)),
    ]
    for picture in pictures:
        centre = (coords.grid(new_size_hw) * picture[..., None]).sum((0, 1)) / picture.sum()
        assert (centre - expected).abs().max() < 0.1


SIDES = st.tuples(st.integers(1, 500), st.integers(1, 500))


@given(size=SIDES, new=SIDES)
def test_resize_points_there_and_back(size, new):
    xy = torch.tensor([[3.0, 7.0], [-0.5, 2.25]])
    back = coords.resize_points(coords.resize_points(xy, size, new), new, size)
    assert torch.allclose(back, xy, atol=1e-3)


def test_resize_frames_of_the_same_size_is_the_same():
    frame = torch.rand(1, 3, 37, 53)
    assert coords.resize_frames(frame, (37, 53)) is frame
    assert coords.resize_frames(frame, (20, 31)).shape == (1, 3, 20, 31)


def test_query_grid_is_centred_on_the_frame(unchecked):
    grid = coords.query_grid((37, 53), 4)
    xs, ys = grid[:, 1].unique(), grid[:, 2].unique()
    assert len(ys) == 4 and len(xs) == 5 and len(grid) == 20 and not grid[:, 0].any()
    assert ys.mean() == pytest.approx((37 - 1) / 2)  # pixel centres: as much above as below
    assert coords.inside(grid[:, 1:], (37, 53)).all()
    with pytest.raises(ValueError, match="count should be 1 to 37, the shorter side in pixels, got 0"):
        coords.query_grid((37, 53), 0)
