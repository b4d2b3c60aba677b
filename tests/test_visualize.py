"""Figures: what is drawn lies where it should, in the colours that it should have."""

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from corrlib import coords, visualize
from corrlib.coords import Lattice

H, W = 37, 53
BLACK = torch.zeros(3, H, W, dtype=torch.uint8)


@pytest.fixture
def ax():
    """Axes on which one pixel of a frame is ten of the picture, and nothing else is drawn."""
    fig = Figure(figsize=(W / 10, H / 10), dpi=100)
    ax = fig.add_axes((0, 0, 1, 1))
    ax.axis("off")
    return ax


def pixels(ax) -> np.ndarray:
    """The drawn picture, (10 * H, 10 * W, 3)."""
    canvas = FigureCanvasAgg(ax.figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


def at(ax, x, y):
    """The colour drawn at a position of the frame, in [0, 1]."""
    return pixels(ax)[round((y + 0.5) * 10), round((x + 0.5) * 10)] / 255


def walk(T=4, N=2):
    """Two points that go 5 px to the right a frame, the second hidden from frame 2 on."""
    tracks = torch.tensor([[10.0, 8], [10.0, 25]]) + torch.arange(T)[:, None, None] * torch.tensor([5.0, 0])
    visible = torch.ones(T, N, dtype=torch.bool)
    visible[2:, 1] = False
    return tracks, visible


def test_colours_are_stable_and_distinct():
    for count in (1, 7, 8, 60):
        colours = visualize.colours(count)
        assert colours.shape == (count, 3) and colours.min() >= 0 and colours.max() <= 1
        apart = np.abs(colours[:, None] - colours[None]).max(-1) + np.eye(count)
        assert apart.min() > 0.005 and apart[:8, :8].min() > 0.1
    assert np.array_equal(visualize.colours(60)[:10], visualize.colours(90)[:10])


def test_colours_differ_without_red_against_green():
    """Neighbouring numbers differ in the blue-yellow axis or in lightness, which everybody sees."""
    for count in (7, 24):
        red, green, blue = visualize.colours(count).T
        seen = np.stack([(red + green) / 2, blue], axis=-1)  # red and green cones taken for one
        assert np.abs(np.diff(seen, axis=0)).max(-1).min() > 0.05


def test_show_frame_has_pixel_axes_and_takes_floats(ax):
    frame = BLACK.clone()
    frame[0, 20, 40] = 255
    visualize.show_frame(ax, frame.float() / 255, "a title")
    assert at(ax, 40, 20) == pytest.approx([1, 0, 0])
    assert at(ax, 41, 20) == pytest.approx([0, 0, 0])
    assert ax.get_xlim() == (-0.5, W - 0.5) and ax.get_ylim() == (H - 0.5, -0.5)


def test_show_tracks_fills_the_visible_and_leaves_the_occluded_hollow(ax):
    tracks, visible = walk()
    visualize.show_tracks(ax, BLACK, tracks, visible, t=3)
    assert at(ax, 25, 8) == pytest.approx(visualize.colours(2)[0], abs=0.02)
    assert at(ax, 25, 25) == pytest.approx([0, 0, 0])
    tails = [c for c in ax.collections if isinstance(c, LineCollection)]
    assert [len(c.get_segments()) for c in tails] == [2, 1, 1]  # the hidden point has no tail after frame 1
    assert [c.get_alpha() for c in tails] == sorted(c.get_alpha() for c in tails)
    assert tails[-1].get_segments()[0].tolist() == [[20, 8], [25, 8]]


def test_show_tracks_leaves_out_what_is_outside(ax):
    tracks = torch.tensor([[[200.0, 8.0], [-3.0, 5.0]]])
    visualize.show_tracks(ax, BLACK, tracks, torch.ones(1, 2, dtype=torch.bool), t=0)
    assert pixels(ax).max() == 0 and ax.get_xlim() == (-0.5, W - 0.5)


def test_show_tracks_errors(ax, unchecked):
    tracks, visible = walk()
    with pytest.raises(ValueError, match=r"show_tracks: t should be in 0 \.\. 3, got 4"):
        visualize.show_tracks(ax, BLACK, tracks, visible, t=4)
    with pytest.raises(ValueError, match=r"visible \(T=4, N\), got \(4, 2, 2\) and \(4, 1\)"):
        visualize.show_tracks(ax, BLACK, tracks, visible[:, :1], t=0)


def test_draw_tracks():
    tracks, visible = walk()
    video = BLACK.expand(4, 3, H, W)
    drawn = visualize.draw_tracks(video, tracks, visible)
    assert drawn.shape == (4, 3, H, W) and drawn.dtype == torch.uint8
    assert video.max() == 0  # what was given is as it was
    colour = torch.from_numpy(visualize.colours(2) * 255).round()
    for t in range(4):
        assert torch.allclose(drawn[t, :, 8, 10 + 5 * t].double(), colour[0], atol=2)
    assert torch.allclose(drawn[1, :, 25, 15].double(), colour[1], atol=2)
    rows, columns = drawn[3, :, 20:31, 20:31].sum(0).nonzero().T  # the ring of the hidden point, at (25, 25)
    assert (rows.double().mean() + 20, columns.double().mean() + 20) == (pytest.approx(25), pytest.approx(25))
    assert drawn[3, :, 25, 25].max() < drawn[3, :, 25, 28].max() / 2  # hollow
    assert drawn[0, :, :, 30:].max() == 0  # no tail before it was there
    assert 0 < drawn[3, :, 8, 17].max() < drawn[3, :, 8, 23].max()  # the older, the fainter


def test_draw_tracks_far_outside_and_floats():
    tracks = torch.tensor([[[1e9, -1e9], [3.0, 3.0]]]).expand(2, 2, 2)
    video = BLACK.float().expand(2, 3, H, W)
    drawn = visualize.draw_tracks(video, tracks, torch.ones(2, 2, dtype=torch.bool))
    assert drawn[:, :, 10:, 10:].max() == 0 and drawn[:, :, 3, 3].max() > 0


def test_draw_tracks_errors(unchecked):
    tracks, visible = walk()
    with pytest.raises(ValueError, match=r"draw_tracks: tracks should be \(T=3, N, 2\) .* got \(4, 2, 2\)"):
        visualize.draw_tracks(BLACK.expand(3, 3, H, W), tracks, visible)


def test_strip_spreads_frames_over_the_clip():
    tracks, visible = walk(T=9)
    fig = visualize.strip(BLACK.expand(9, 3, H, W), tracks, visible, num=3)
    assert [ax.get_title() for ax in fig.axes] == ["frame 0", "frame 4", "frame 8"]
    fig = visualize.strip(BLACK.expand(9, 3, H, W)[:1], tracks[:1], visible[:1], num=3)
    assert [ax.get_title() for ax in fig.axes] == ["frame 0"]


def test_strip_errors(unchecked):
    tracks, visible = walk()
    with pytest.raises(ValueError, match="strip: num should be at least 1, got 0"):
        visualize.strip(BLACK.expand(4, 3, H, W), tracks, visible, num=0)
    with pytest.raises(ValueError, match=r"strip: tracks should be \(T=2, N, 2\)"):
        visualize.strip(BLACK.expand(2, 3, H, W), tracks, visible)


def test_show_matches_joins_points_and_dashes_the_bad():
    fig = Figure(figsize=(6, 3))
    ax0, ax1 = fig.subplots(1, 2)
    xy0, xy1 = torch.tensor([[5.0, 6], [30, 20]]), torch.tensor([[8.0, 9], [33, 23]])
    visualize.show_matches(ax0, ax1, BLACK, BLACK, xy0, xy1, good=torch.tensor([True, False]))
    lines = [a for a in ax1.patches if isinstance(a, mpl.patches.ConnectionPatch)]
    assert [(a.xy1, a.xy2, a.get_linestyle()) for a in lines] == [([5, 6], [8, 9], "-"), ([30, 20], [33, 23], ":")]
    FigureCanvasAgg(fig).draw()


@pytest.mark.parametrize("lattice", [Lattice(8, 0.0), Lattice(8, 3.5), Lattice(2, 0.0)])
def test_show_correlation_puts_each_cell_around_its_pixel(ax, lattice):
    h, w = coords.lattice_size((H, W), lattice)
    correlation = torch.zeros(h, w)
    correlation[2, 3] = 1
    visualize.show_correlation(ax, BLACK, correlation, lattice)
    x, y = coords.to_pixels(torch.tensor([3.0, 2.0]), lattice).tolist()
    near, half = np.array(mpl.colormaps["viridis"](1.0)[:3]) * 0.7, lattice.stride / 2
    for dx, dy in ((0, 0), (0.8 * half, 0), (-0.8 * half, 0), (0, 0.8 * half), (0, -0.8 * half)):
        assert at(ax, x + dx, y + dy) == pytest.approx(near, abs=0.03)
    assert at(ax, x + 1.2 * half, y) != pytest.approx(near, abs=0.2)


def test_show_correlation_leaves_out_minus_infinity_and_marks_the_query(ax):
    correlation = torch.full((5, 7), -torch.inf)
    correlation[0, 0] = 1
    visualize.show_correlation(ax, BLACK, correlation, Lattice(8), torch.tensor([40.0, 20.0]), label="cosine")
    assert at(ax, 25, 30) == pytest.approx([0, 0, 0])
    assert at(ax, 40, 20) == pytest.approx(mpl.colors.to_rgb(visualize.ACCENT), abs=0.02)
    assert ax.child_axes[0].get_ylabel() == "cosine"


def test_show_soft_label_is_in_window_order_with_a_cross_at_the_mean(ax):
    label = torch.zeros(25)
    label[2 * 5 + 4] = 0.75  # dy 0, dx 2
    label[0 * 5 + 4] = 0.25  # dy -2, dx 2
    visualize.show_soft_label(ax, label, radius=2)
    drawn = ax.images[0].get_array()
    assert drawn[2, 4] == 0.75 and drawn[0, 4] == 0.25
    assert ax.images[0].get_extent() == [-2.5, 2.5, 2.5, -2.5]
    assert [line.get_xydata().tolist() for line in ax.lines] == [[[2.0, -0.5]]] * 2
    with pytest.raises(ValueError, match="label should have 49 values for radius 3, got 25"):
        visualize.show_soft_label(ax, label, radius=3)


def test_show_masks_tints_objects_and_draws_their_boundary(ax):
    masks = torch.zeros(H, W, dtype=torch.int64)
    masks[10:30, 10:30] = 2
    masks[0, 0] = -1
    visualize.show_masks(ax, BLACK, masks)
    assert at(ax, 20, 20) == pytest.approx(0.45 * visualize.colours(2)[1], abs=0.02)
    assert at(ax, 45, 20) == pytest.approx([0, 0, 0]) and at(ax, 0, 0) == pytest.approx([0, 0, 0])
    assert at(ax, 9.5, 20) == pytest.approx(visualize.colours(2)[1], abs=0.1)
    visualize.show_masks(ax, BLACK, torch.zeros_like(masks))  # no objects
