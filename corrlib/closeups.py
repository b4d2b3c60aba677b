"""The fine window around the place where a point was found: the frame, the label that would teach it, the answer.

A soft label says where a point went as a distribution over the cells of a window; so does the
network. Here both are looked at in a video whose truth is not known: the label is that of the
place found, so that what differs from it is what the network is not sure of.
"""

from dataclasses import dataclass

import cv2
import matplotlib as mpl
import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from matplotlib.axes import Axes
from torch import Tensor

from . import coords, frames, labels, matching, visualize
from .replay import Replay

GAP = 6  # pixels between the panels of a picture


@dataclass(frozen=True)
class Closeup:
    """What is known of one point in the fine window around where it was found in one frame."""

    patch: UInt8[Tensor, "3 P P"]  # of the frame as it was encoded
    label: Float[Tensor, "K"]  # the bilinear soft label of the place found
    answer: Float[Tensor, "K"]  # the network's own distribution: correlations with the point asked, through a softmax
    radius: int  # of the window, in cells
    cell_px: float  # width of a cell in pixels of the video

    @property
    def width_px(self) -> float:
        """Of the window, in pixels of the video."""
        return (2 * self.radius + 1) * self.cell_px

    @property
    def entropy(self) -> float:
        """Of the answer, in nat; 0 is certainty."""
        return float(torch.special.entr(self.answer).sum())

    @property
    def off(self) -> float:
        """From the label's mean to the answer's, in pixels of the video."""
        offsets = coords.window_offsets(self.radius)
        return float(((self.answer - self.label)[:, None] * offsets).sum(0).norm()) * self.cell_px


def look(replay: Replay, query: Float[Tensor, "3"], t: int, xy: Float[Tensor, "2"]) -> Closeup | None:
    """The window around a place in frame t, for a point asked as (t, x, y); None where the place is outside.

    The answer is that of the point's own features, at the tracker's radius and temperature, and
    without what else the tracker knows: neither the motion so far nor other candidates.
    """
    if not coords.inside(xy, replay.size_hw):
        return None
    lattice, radius, device = replay.fine_lattice, replay.config.radius, replay.place.device
    here, there = coords.resize_points(torch.stack([query[1:], xy]), replay.size_hw, replay.work_hw).to(device)
    target = coords.to_cells(there, lattice)
    with torch.inference_mode():
        vector = matching.features_at(replay.features[int(query[0])].fine, coords.to_cells(here, lattice)[None, None])
        logits, cells = matching.window_correlation(vector, replay.features[t].fine, target[None, None], radius)
    label, _ = labels.soft_label(target, cells[0, 0])
    answer = (logits[0, 0] / replay.config.temperature).softmax(dim=-1)
    cell_px = lattice.stride * replay.size_hw[0] / replay.work_hw[0]
    return Closeup(_patch(replay, t, target.round(), radius), label.cpu(), answer.cpu(), radius, cell_px)


def _patch(replay: Replay, t: int, centre: Float[Tensor, "2"], radius: int) -> UInt8[Tensor, "3 P P"]:
    """The pixels of the cells of a window, black outside the frame."""
    lattice = replay.fine_lattice
    frame = coords.resize_frames(frames.to_float(replay.video[t])[None], replay.work_hw)
    side = (2 * radius + 1) * lattice.stride
    first = coords.to_pixels(centre.cpu() - radius, lattice) - (lattice.stride - 1) / 2
    patch, inside = coords.sample(frame, (coords.grid((side, side)) + first)[None])
    return (patch[0] * inside[0] * 255).round().to(torch.uint8)


def draw(closeup: Closeup, lines: int) -> UInt8[Tensor, "3 H W"]:
    """The patch, the label and the answer side by side, cells as squares, white arms around the means.

    Args:
        closeup: from `look`.
        lines: height of the picture, pixels.
    """
    panels = [_resized(rearrange(closeup.patch.numpy(), "C H W -> H W C"), lines)]
    for values in (closeup.label, closeup.answer):
        side = 2 * closeup.radius + 1
        shares = rearrange(values, "(dy dx) -> dy dx", dy=side).numpy()
        colour = mpl.colormaps["magma"](shares / max(shares.max(), 1e-12))[..., :3]
        panel = _resized((255 * colour).round().astype(np.uint8), lines)
        mean = (values[:, None] * coords.window_offsets(closeup.radius)).sum(0)
        x, y = ((mean + closeup.radius + 0.5) * lines / side).round().int().tolist()
        cell = max(3, lines // side)
        for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1)):  # arms that leave the cells themselves free
            near, far = (x + cell * dx, y + cell * dy), (x + 2 * cell * dx, y + 2 * cell * dy)
            cv2.line(panel, near, far, (255, 255, 255), 1)
        panels += [np.full((lines, GAP, 3), 255, np.uint8), panel]
    return torch.from_numpy(rearrange(np.concatenate([panels[0], *panels[1:]], axis=1), "H W C -> C H W").copy())


def _resized(image: UInt8[np.ndarray, "H W 3"], lines: int) -> UInt8[np.ndarray, "H2 W2 3"]:
    """A square image with so many lines, its pixels as squares."""
    return np.ascontiguousarray(cv2.resize(image, (lines, lines), interpolation=cv2.INTER_NEAREST))


def show(axes: list[Axes], closeup: Closeup, name: str = "") -> None:
    """The same on three axes, with scales and units.

    Args:
        axes: three of them.
        closeup: from `look`.
        name: of what answered, written beside the first.
    """
    edge = closeup.radius + 0.5
    axes[0].imshow(rearrange(closeup.patch.numpy(), "C H W -> H W C"), extent=(-edge, edge, edge, -edge))
    axes[0].set_title(f"the frame, {closeup.width_px:.0f} px", fontsize=10)
    axes[0].tick_params(labelsize=8, length=2)
    axes[0].set_ylabel(name)
    visualize.show_soft_label(axes[1], closeup.label, closeup.radius, "label of the place found")
    said = f"the network's answer, {closeup.entropy:.2f} nat"
    visualize.show_soft_label(axes[2], closeup.answer, closeup.radius, said)
