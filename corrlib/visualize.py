"""Figures drawn on given axes, in one colour language; and overlays drawn into frames.

Query and cross-hair: one orange accent. Points: one colour each, the same in every figure, a
filled disc where visible, hollow where not, with a tail of where they came from. Correlation:
viridis; probability: magma; signed: RdBu around 0. No meaning hangs on red against green.
Axes are in pixels. Nothing here reads files, computes results or keeps state in pyplot.
"""

import cv2
import matplotlib as mpl
import numpy as np
import torch
from einops import rearrange
from jaxtyping import Bool, Float, Integer, Shaped, UInt8
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import ConnectionPatch
from torch import Tensor

from . import coords

ACCENT = "#e69f00"  # the query
# Okabe and Ito's colours, told apart by people with any colour vision, in an order that keeps neighbours apart.
PALETTE = ("#56b4e9", "#e69f00", "#cc79a7", "#f0e442", "#009e73", "#d55e00", "#0072b2")
TAIL = 12  # frames


def colours(count: int) -> Float[np.ndarray, "count 3"]:
    """RGB in [0, 1] of points or objects, the same for the same number and count.

    More than seven go around the hues by the golden angle, greens lighter than reds.
    """
    if count <= len(PALETTE):
        return np.array([mpl.colors.to_rgb(c) for c in PALETTE[:count]]).reshape(count, 3)
    hue = np.arange(count) * np.pi * (3 - 5**0.5)
    lab = np.stack([72 - 18 * np.cos(hue), 60 * np.cos(hue), 60 * np.sin(hue)], axis=-1)
    return cv2.cvtColor(lab[None].astype(np.float32), cv2.COLOR_Lab2RGB)[0].clip(0, 1).astype(float)


def show_frame(ax: Axes, frame: Shaped[Tensor, "3 H W"], title: str = "") -> None:
    """A frame, uint8 or float in [0, 1], with its axes in pixels."""
    ax.imshow(_image(frame))
    ax.set_autoscale_on(False)  # points outside the frame do not widen the picture
    ax.set_title(title, fontsize=10)
    ax.tick_params(labelsize=8, length=2)


def show_tracks(
    ax: Axes,
    frame: Shaped[Tensor, "3 H W"],
    tracks: Float[Tensor, "T N 2"],
    visible: Bool[Tensor, "T N"],
    t: int,
    title: str = "",
) -> None:
    """Points at frame t, each with a fading tail of the frames before it in which it was visible.

    Raises:
        ValueError: t is not a frame of the tracks, or the shapes differ.
    """
    _check_tracks("show_tracks", tracks, visible)
    if not 0 <= t < len(tracks):
        raise ValueError(f"show_tracks: t should be in 0 .. {len(tracks) - 1}, got {t}.")
    show_frame(ax, frame, title)
    xy, seen, colour = tracks.numpy(force=True), visible.numpy(force=True), colours(tracks.shape[1])
    for age in range(min(TAIL, t), 0, -1):
        a, b = t - age, t - age + 1
        on = seen[a] & seen[b]
        segments = np.stack([xy[a, on], xy[b, on]], axis=1)
        ax.add_collection(
            LineCollection(segments, colors=colour[on], linewidths=1.8, alpha=1 - age / (TAIL + 1)), autolim=False
        )
    inside = coords.inside(tracks[t], tuple(frame.shape[-2:])).numpy(force=True)
    _discs(ax, xy[t, inside], seen[t, inside], colour[inside])


def draw_tracks(
    video: Shaped[Tensor, "T 3 H W"], tracks: Float[Tensor, "T N 2"], visible: Bool[Tensor, "T N"]
) -> UInt8[Tensor, "T 3 H W"]:
    """The same picture drawn into every frame of a video, for `frames.write_video`.

    Raises:
        ValueError: the shapes differ.
    """
    _check_tracks("draw_tracks", tracks, visible, len(video))
    return torch.stack([draw_points(frame, tracks, visible, t) for t, frame in enumerate(video)])


def draw_points(
    frame: Shaped[Tensor, "3 H W"], tracks: Float[Tensor, "T N 2"], visible: Bool[Tensor, "T N"], t: int
) -> UInt8[Tensor, "3 H W"]:
    """Frame t with the points at that time and their tails: one frame of `draw_tracks`."""
    # Far outside the frame OpenCV's integers overflow; a tail to there looks the same from here.
    # Sixteenths of a pixel are what it draws at with shift=4.
    first = max(0, t - TAIL)
    xy = (tracks[first : t + 1].clamp(-4000, 20000) * 16).round().int().tolist()
    seen, count = visible[first : t + 1].numpy(force=True), tracks.shape[1]
    colour = np.round(colours(count) * 255)
    radius = max(3, round(min(frame.shape[-2:]) / 90))
    ring = max(1, radius // 2)
    image = np.ascontiguousarray(_image(frame))
    for a in range(len(xy) - 1):
        layer = image.copy()
        for n in np.flatnonzero(seen[a] & seen[a + 1]):
            cv2.line(layer, xy[a][n], xy[a + 1][n], colour[n].tolist(), radius - 2, cv2.LINE_AA, shift=4)
        weight = 1 - (len(xy) - 1 - a) / (TAIL + 1)
        image = cv2.addWeighted(layer, weight, image, 1 - weight, 0)
    for n in range(count):
        centre, dark = xy[-1][n], (20, 20, 20)
        if seen[-1, n]:
            cv2.circle(image, centre, 16 * radius + 20, dark, -1, cv2.LINE_AA, shift=4)
            cv2.circle(image, centre, 16 * radius, colour[n].tolist(), -1, cv2.LINE_AA, shift=4)
        else:  # a ring of the colour between two dark ones, so that it shows on any ground
            cv2.circle(image, centre, 16 * radius, dark, ring + 2, cv2.LINE_AA, shift=4)
            cv2.circle(image, centre, 16 * radius, colour[n].tolist(), ring, cv2.LINE_AA, shift=4)
    return torch.from_numpy(rearrange(image, "H W C -> C H W").copy())


def strip(
    video: Shaped[Tensor, "T 3 H W"], tracks: Float[Tensor, "T N 2"], visible: Bool[Tensor, "T N"], num: int = 5
) -> Figure:
    """Frames spread evenly over a clip, side by side, each with its points and their tails.

    Raises:
        ValueError: no frames are asked for, or the shapes differ.
    """
    _check_tracks("strip", tracks, visible, len(video))
    if num < 1:
        raise ValueError(f"strip: num should be at least 1, got {num}.")
    times = np.unique(np.linspace(0, len(video) - 1, num).round().astype(int))
    H, W = video.shape[-2:]
    fig = Figure(figsize=(2.8 * len(times), 2.8 * H / W + 0.3), layout="constrained")
    for ax, t in zip(np.atleast_1d(fig.subplots(1, len(times), sharey=True)), times):
        show_tracks(ax, video[t], tracks, visible, int(t), title=f"frame {t}")
        ax.set(xticks=[], yticks=[])
    return fig


def show_matches(
    ax0: Axes,
    ax1: Axes,
    frame0: Shaped[Tensor, "3 H W"],
    frame1: Shaped[Tensor, "3 H2 W2"],
    xy0: Float[Tensor, "N 2"],
    xy1: Float[Tensor, "N 2"],
    good: Bool[Tensor, "N"] | None = None,
) -> None:
    """Points of two frames joined by lines; those that are not good are hollow and dashed."""
    kept = np.ones(len(xy0), bool) if good is None else good.numpy(force=True)
    colour = colours(len(xy0))
    for ax, frame, xy in ((ax0, frame0, xy0), (ax1, frame1, xy1)):
        show_frame(ax, frame)
        _discs(ax, xy.numpy(force=True), kept, colour)
    for n, (start, end) in enumerate(zip(xy0.tolist(), xy1.tolist())):
        style = {"linestyle": "-" if kept[n] else ":", "color": colour[n], "linewidth": 1}
        line = ConnectionPatch(start, end, "data", "data", axesA=ax0, axesB=ax1, **style)
        line.set_in_layout(False)
        ax1.add_artist(line)


def show_correlation(
    ax: Axes,
    frame: Shaped[Tensor, "3 H W"],
    correlation: Float[Tensor, "h w"],
    lattice: coords.Lattice,
    xy: Float[Tensor, "2"] | None = None,
    label: str = "correlation",
) -> None:
    """A correlation map over the grey frame, each cell a square around its pixel.

    Args:
        frame: the frame searched.
        correlation: one value a cell; -inf is left out.
        lattice: of the map.
        xy: a point to mark with a cross, in pixels.
        label: of the colour bar, with its unit if it has one.
    """
    h, w = correlation.shape
    grey = _image(frame).mean(axis=2)
    ax.imshow(grey, cmap="gray", vmin=0, vmax=255)
    first = lattice.offset - lattice.stride / 2
    extent = (first, first + lattice.stride * w, first + lattice.stride * h, first)
    values = np.ma.masked_invalid(correlation.numpy(force=True))
    image = ax.imshow(values, cmap="viridis", alpha=0.7, extent=extent, interpolation="nearest")
    show_color_bar(image, label)
    ax.set(xlim=(-0.5, frame.shape[2] - 0.5), ylim=(frame.shape[1] - 0.5, -0.5))
    ax.tick_params(labelsize=8, length=2)
    if xy is not None:
        show_query(ax, xy)


def show_query(ax: Axes, xy: Float[Tensor, "2"]) -> None:
    """The query point: an orange cross-hair that leaves the pixel itself free."""
    x, y = xy.tolist()
    for width, colour in ((4.5, "black"), (2, ACCENT)):
        ax.plot([x], [y], marker="+", markersize=15, markeredgewidth=width, color=colour)


def show_soft_label(
    ax: Axes, label: Float[Tensor, "K"], radius: int, title: str = "", vmax: float | None = None
) -> None:
    """A distribution over a window, with a cross at its mean; axes in cells from the centre.

    Raises:
        ValueError: the label does not have (2 * radius + 1) ** 2 values.
    """
    side = 2 * radius + 1
    if len(label) != side**2:
        raise ValueError(f"show_soft_label: label should have {side**2} values for radius {radius}, got {len(label)}.")
    edge = radius + 0.5
    values = rearrange(label, "(dy dx) -> dy dx", dy=side).numpy(force=True)
    image = ax.imshow(values, cmap="magma", vmin=0, vmax=vmax, extent=(-edge, edge, edge, -edge))
    x, y = (label[:, None] * coords.window_offsets(radius, label.device)).sum(0).tolist()
    ax.plot([x], [y], marker="+", markersize=11, markeredgewidth=3.5, color="black")
    ax.plot([x], [y], marker="+", markersize=10, markeredgewidth=1.6, color="white")
    show_color_bar(image, "probability")
    ax.set_title(title, fontsize=10)
    ax.set_xlabel("dx, cells", fontsize=9)
    ax.set_ylabel("dy, cells", fontsize=9)
    ax.tick_params(labelsize=8, length=2)


def show_masks(ax: Axes, frame: Shaped[Tensor, "3 H W"], masks: Integer[Tensor, "H W"], title: str = "") -> None:
    """Objects tinted, with their boundaries; 0 is background, and negative is unknown."""
    ids = [i for i in masks.unique().tolist() if i > 0]
    image = _image(frame).astype(np.float32) / 255
    palette = colours(max(ids, default=0))
    for i in ids:
        on = (masks == i).numpy(force=True)
        image[on] = 0.55 * image[on] + 0.45 * palette[i - 1]
    show_frame(ax, torch.from_numpy(rearrange(image, "H W C -> C H W")), title)
    for i in ids:
        outline = np.pad((masks == i).numpy(force=True).astype(np.float32), 1)  # closed at the frame's border
        y, x = np.arange(outline.shape[0]) - 1, np.arange(outline.shape[1]) - 1
        for width, colour in ((2.6, "black"), (1.3, palette[i - 1])):
            ax.contour(x, y, outline, levels=[0.5], colors=[colour], linewidths=width)
    ax.set(xlim=(-0.5, frame.shape[2] - 0.5), ylim=(frame.shape[1] - 0.5, -0.5))


def _image(frame: Tensor) -> UInt8[np.ndarray, "H W 3"]:
    """A frame as matplotlib and OpenCV want it."""
    if frame.dtype != torch.uint8:
        frame = (frame.clamp(0, 1) * 255).round().to(torch.uint8)
    return rearrange(frame.numpy(force=True), "C H W -> H W C")


def _discs(ax: Axes, xy: np.ndarray, filled: np.ndarray, colour: np.ndarray) -> None:
    """Points: filled with a dark rim, or hollow."""
    ax.scatter(*xy[filled].T, s=34, c=colour[filled], edgecolors="black", linewidths=0.8, zorder=3)
    ax.scatter(*xy[~filled].T, s=30, facecolors="none", edgecolors="black", linewidths=2.6, zorder=3)
    ax.scatter(*xy[~filled].T, s=30, facecolors="none", edgecolors=colour[~filled], linewidths=1.2, zorder=3)


def show_color_bar(image: AxesImage, label: str) -> None:
    """A bar as high as the picture, to the right of it."""
    bar = image.axes.figure.colorbar(image, cax=image.axes.inset_axes((1.03, 0, 0.035, 1)))
    bar.set_label(label, fontsize=9)
    bar.ax.tick_params(labelsize=8)


def _check_tracks(function: str, tracks: Tensor, visible: Tensor, num_frames: int | None = None) -> None:
    """Tracks (T, N, 2) and visible (T, N), T as many as there are frames."""
    T = len(tracks) if num_frames is None else num_frames
    if tracks.ndim != 3 or tracks.shape[2] != 2 or visible.shape != tracks.shape[:2] or len(tracks) != T:
        expected = f"tracks should be (T={T}, N, 2) and visible (T={T}, N)"
        raise ValueError(f"{function}: {expected}, got {tuple(tracks.shape)} and {tuple(visible.shape)}.")
