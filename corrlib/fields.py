"""What is known of every pixel, as colour: features and errors. Flow and masks are in `visualize`."""

import cv2
import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, Shaped, UInt8
from matplotlib.axes import Axes
from torch import Tensor

from . import coords, visualize


def features_to_color(features: Float[Tensor, "B C h w"]) -> UInt8[Tensor, "B 3 h w"]:
    """Feature maps as colours: alike where features are alike, in one map and from one to the next.

    The three directions in which all vectors given differ most (their principal components) become
    lightness, blue against yellow, and, paler, green against magenta: red against green tells nothing
    that the other two do not.

    Raises:
        ValueError: there are fewer than three channels, or a feature is not finite.
    """
    B, C, h, w = features.shape
    if C < 3 or not features.isfinite().all():
        raise ValueError(f"features_to_color: features should be finite, with at least 3 channels, got {C} channels.")
    vectors = rearrange(features, "B C h w -> (B h w) C").double()
    vectors = vectors - vectors.mean(dim=0)
    _, directions = torch.linalg.eigh(vectors.T @ vectors)
    directions = directions[:, [-1, -2, -3]]
    largest = directions.gather(0, directions.abs().argmax(dim=0, keepdim=True))  # a direction has no sign of its own
    parts = vectors @ (directions * largest.sign())
    reach = np.quantile(parts.abs().numpy(force=True), 0.98, axis=0)
    parts = parts.cpu() / np.maximum(reach, max(reach[0] / 4, 1e-12))  # so that noise is not made colourful
    light, yellow, magenta = parts.clamp(-1, 1).unbind(dim=-1)
    lab = torch.stack([55 + 38 * light, 22 * magenta, 60 * yellow], dim=-1).float().reshape(B * h, w, 3)
    rgb = cv2.cvtColor(lab.numpy(), cv2.COLOR_Lab2RGB).clip(0, 1)
    return torch.from_numpy(rearrange((rgb * 255).round().astype(np.uint8), "(B h) w C -> B C h w", B=B).copy())


def show_features(
    ax: Axes, color: UInt8[Tensor, "3 h w"], lattice: coords.Lattice, size_hw: tuple[int, int], title: str = ""
) -> None:
    """One map of `features_to_color`, each cell a square around its pixel.

    Args:
        ax: where to.
        color: of the map.
        lattice: of the map.
        size_hw: of the frame, pixels.
        title: over it.
    """
    h, w = color.shape[1:]
    first = lattice.offset - lattice.stride / 2
    extent = (first, first + lattice.stride * w, first + lattice.stride * h, first)
    ax.imshow(rearrange(color.numpy(force=True), "C h w -> h w C"), extent=extent, interpolation="nearest")
    ax.set(xlim=(-0.5, size_hw[1] - 0.5), ylim=(size_hw[0] - 0.5, -0.5))
    ax.set_title(title, fontsize=10)
    ax.tick_params(labelsize=8, length=2)


def show_error(
    ax: Axes,
    error: Float[Tensor, "H W"],
    label: str = "error, pixels",
    most: float = 0.0,
    frame: Shaped[Tensor, "3 H W"] | None = None,
    title: str = "",
) -> None:
    """Errors of every pixel, dark blue where there is none, yellow where they are large.

    Args:
        ax: where to.
        error: at least 0; NaN where the truth is not known, which shows the frame in grey, or plain grey.
        label: of the colour bar, with its unit.
        most: errors from which on all are yellow; 0 takes the 98th percentile.
        frame: what the errors are of, shown where they are not known.
        title: over it.
    """
    values = np.ma.masked_invalid(error.numpy(force=True))
    known = values.compressed()
    most = most or (float(np.quantile(known, 0.98)) if known.size else 0.0) or 1.0
    grey = torch.full((3, *error.shape), 200, dtype=torch.uint8) if frame is None else frame
    visualize.show_frame(ax, grey.float().mean(dim=0, keepdim=True).expand(3, -1, -1).to(grey.dtype), title)
    image = ax.imshow(values, cmap="cividis", vmin=0, vmax=most, interpolation="nearest")
    visualize.show_color_bar(image, label)
