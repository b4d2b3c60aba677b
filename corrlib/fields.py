"""What is known of every pixel, as colour: features, flow and errors. Masks are in `visualize`."""

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


def flow_to_color(flow: Float[Tensor, "2 H W"], max_px: float = 0.0) -> UInt8[Tensor, "3 H W"]:
    """A flow as colour: yellow goes right, blue left, light up, dark down, and grey stays.

    Args:
        flow: in pixels; NaN is drawn black.
        max_px: length at which colours are full; 0 takes the 98th percentile of the lengths.

    Differs: Middlebury's wheel tells right from left by red against green.
    """
    max_px = max_px or full_length(flow)
    u, v = flow / flow.norm(dim=0).clamp(min=max_px)
    lab = torch.stack([58 - 34 * v, -24 * v, 62 * u], dim=-1)
    known = flow.isfinite().all(dim=0, keepdim=True)
    rgb = cv2.cvtColor(lab.nan_to_num().float().numpy(force=True), cv2.COLOR_Lab2RGB)
    return (torch.from_numpy(rearrange(rgb, "H W C -> C H W")) * known.cpu() * 255).round().to(torch.uint8)


def full_length(flow: Float[Tensor, "2 H W"]) -> float:
    """The length, in pixels, that all but the longest 2 % of a flow stay below; 1 if nothing moves."""
    lengths = flow.norm(dim=0)
    lengths = lengths[lengths.isfinite()].numpy(force=True)  # torch's quantile refuses large inputs
    return float(np.quantile(lengths, 0.98)) or 1.0 if lengths.size else 1.0


def show_flow(ax: Axes, flow: Float[Tensor, "2 H W"], max_px: float = 0.0, title: str = "") -> None:
    """A flow as colour, with the wheel of directions in its corner."""
    max_px = max_px or full_length(flow)
    visualize.show_frame(ax, flow_to_color(flow, max_px), title)
    disc = coords.grid((101, 101)) / 50 - 1
    wheel = flow_to_color(rearrange(disc, "H W xy -> xy H W"), 1.0)
    rgba = np.concatenate(
        [rearrange(wheel.numpy(), "C H W -> H W C"), 255 * (disc.norm(dim=-1)[..., None] <= 1).numpy()], axis=2
    ).astype(np.uint8)
    corner = ax.inset_axes((0.02, 0.03, 0.25, 0.25), anchor="SW")
    corner.imshow(rgba)
    corner.axis("off")
    corner.text(106, 100, f"{max_px:.3g} px", fontsize=9, color="white", bbox={"facecolor": "black", "pad": 1.5})


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
