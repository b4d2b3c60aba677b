"""Features, flow and errors as colour: alike where they are alike, in their place, with their scale."""

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from corrlib import coords, fields

H, W = 16, 24


@pytest.fixture
def ax():
    return Figure(figsize=(4, 3)).add_subplot()


@pytest.fixture
def halves():
    """Two maps whose left and right halves have other features, the halves changing places in the second."""
    a, b = torch.nn.functional.normalize(torch.randn(2, 5, generator=torch.Generator().manual_seed(0)), dim=1)
    first = torch.cat([a[:, None, None].expand(5, 4, 3), b[:, None, None].expand(5, 4, 3)], dim=2)
    return torch.stack([first, first.flip(2)]) + 1e-3 * torch.randn(
        2, 5, 4, 6, generator=torch.Generator().manual_seed(1)
    )


def test_features_alike_have_colours_alike_across_maps(halves):
    color = fields.features_to_color(halves).int()
    assert color.shape == (2, 3, 4, 6)
    left, right = color[0, :, :, :3].flatten(1).double(), color[0, :, :, 3:].flatten(1).double()
    assert (left.mean(1) - right.mean(1)).abs().max() > 100  # lightness tells the halves apart
    assert (color[0].double().mean((1, 2)) - color[1].double().mean((1, 2))).abs().max() < 8
    assert (left.mean(1) - color[1, :, :, 3:].flatten(1).double().mean(1)).abs().max() < 8
    assert torch.equal(fields.features_to_color(halves), fields.features_to_color(halves.clone()))


def test_features_errors(halves):
    with pytest.raises(ValueError, match="at least 3 channels, got 2 channels"):
        fields.features_to_color(halves[:, :2])
    halves[0, 0, 0, 0] = float("nan")
    with pytest.raises(ValueError, match="should be finite"):
        fields.features_to_color(halves)


def test_cells_lie_around_their_pixels(ax, halves):
    fields.show_features(ax, fields.features_to_color(halves)[0], coords.Lattice(4), (H, W), "features")
    assert ax.images[0].get_extent() == [-2, 22, 14, -2] and ax.get_xlim() == (-0.5, W - 0.5)
    assert ax.get_title() == "features"


def test_error_leaves_out_what_is_not_known_and_has_a_scale(ax):
    error = torch.linspace(0, 10, H * W).reshape(H, W)
    error[3, 4] = float("nan")
    fields.show_error(ax, error, "error, px")
    _, image = ax.images
    assert image.get_array().mask.sum() == 1 and image.get_array().mask[3, 4]
    assert image.get_clim()[0] == 0 and image.get_clim()[1] == pytest.approx(9.8, abs=0.05)
    assert image.colorbar.ax.get_ylabel() == "error, px"


def test_error_of_nothing_known(ax):
    frame = torch.zeros(3, H, W)
    frame[0] = 0.9
    fields.show_error(ax, torch.full((H, W), float("nan")), frame=frame, most=5.0)
    grey, image = ax.images
    assert image.get_clim() == (0, 5) and np.ptp(grey.get_array()) == 0 and grey.get_array()[0, 0, 0] == 76


def test_flow_to_color_tells_the_four_directions():
    right, left, up, down, still = fields.flow_to_color(
        torch.tensor([[[2.0, -2, 0, 0, 0]], [[0.0, 0, -2, 2, 0]]]), max_px=2
    )[:, 0].T.float()
    assert right[0] > right[2] + 80 and left[2] > left[0] + 80  # yellow, blue
    assert up.mean() > still.mean() + 60 > down.mean() + 120  # light, dark
    assert still.max() - still.min() < 3


def test_flow_to_color_scales_and_survives_unknown_flow():
    flow = torch.zeros(2, H, W)
    flow[0, :, 14:] = 3
    assert torch.equal(fields.flow_to_color(flow), fields.flow_to_color(flow, 3.0))
    flow[0, 0, 0] = torch.nan
    assert fields.flow_to_color(flow)[:, 0, 0].max() == 0
    assert fields.full_length(flow) == pytest.approx(3)
    assert fields.full_length(torch.zeros(2, H, W)) == 1
    assert fields.full_length(torch.full((2, H, W), torch.nan)) == 1


def test_show_flow_has_a_wheel_that_says_its_length(ax):
    fields.show_flow(ax, torch.full((2, H, W), 2.0), max_px=4)
    assert [text.get_text() for text in ax.child_axes[0].texts] == ["4 px"]
