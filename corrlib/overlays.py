"""Maps, masks and marks drawn into frames themselves, for pictures that change as fast as one looks.

In the colours of `visualize`, which draws the same on axes, with scales and units. A frame given
is left as it was; what comes back is uint8.
"""

import cv2
import matplotlib as mpl
import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, Integer, Shaped, UInt8
from torch import Tensor

from . import frames, visualize


def draw_map(
    frame: Shaped[Tensor, "3 H W"], values: Float[Tensor, "H W"], cmap: str = "viridis", weight: float = 0.65
) -> UInt8[Tensor, "3 H W"]:
    """A map over the grey frame, from its least value to its largest."""
    grey = frames.to_float(frame).mean(dim=0).numpy(force=True)[..., None]
    low, high = values.min(), values.max()
    scaled = ((values - low) / (high - low).clamp(min=1e-12)).numpy(force=True)
    colour = mpl.colormaps[cmap](scaled)[..., :3]
    return _bytes(weight * colour + (1 - weight) * grey)


def draw_masks(
    frame: Shaped[Tensor, "3 H W"], masks: Integer[Tensor, "H W"], weight: float = 0.45
) -> UInt8[Tensor, "3 H W"]:
    """Objects tinted, with a boundary; 0 is background."""
    image = rearrange(frames.to_float(frame), "C H W -> H W C").numpy(force=True).copy()
    numbers = masks.numpy(force=True)
    palette = visualize.colours(max(int(numbers.max(initial=0)), 0))
    for number in np.unique(numbers[numbers > 0]):
        on, colour = numbers == number, palette[number - 1]
        image[on] = (1 - weight) * image[on] + weight * colour
        edge = on & ~cv2.erode(on.astype(np.uint8), np.ones((3, 3), np.uint8), borderValue=0).astype(bool)
        image[edge] = colour
    return _bytes(image)


def draw_marks(
    frame: Shaped[Tensor, "3 H W"], query: Float[Tensor, "2"] | None, candidates: Float[Tensor, "M 2"]
) -> UInt8[Tensor, "3 H W"]:
    """An orange cross-hair that leaves the pixel itself free, and candidates as numbered squares, the best first."""
    image = np.ascontiguousarray(_image(frame))
    size = max(6, round(min(frame.shape[-2:]) / 40))
    white, dark = (255, 255, 255), (20, 20, 20)
    for number, (x, y) in enumerate(candidates.round().int().tolist(), start=1):
        for width, colour in ((4, dark), (2, white)):
            cv2.rectangle(image, (x - size, y - size), (x + size, y + size), colour, width, cv2.LINE_AA)
            left = x + 2 * size + 3 > image.shape[1]  # a number at the right border would not be seen
            place = (x - size - 3 - round(1.3 * size * len(str(number))) if left else x + size + 3, y + size)
            cv2.putText(image, str(number), place, cv2.FONT_HERSHEY_SIMPLEX, size / 16, colour, width, cv2.LINE_AA)
    if query is not None:
        x, y = query.clamp(-4000, 20000).round().int().tolist()
        accent = [round(255 * v) for v in mpl.colors.to_rgb(visualize.ACCENT)]
        for width, colour in ((5, dark), (2, accent)):
            for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1)):
                near, far = (x + size * dx, y + size * dy), (x + 2 * size * dx, y + 2 * size * dy)
                cv2.line(image, near, far, colour, width, cv2.LINE_AA)
    return torch.from_numpy(rearrange(image, "H W C -> C H W").copy())


def _image(frame: Tensor) -> UInt8[np.ndarray, "H W 3"]:
    """A frame as OpenCV wants it."""
    return _as_bytes(rearrange(frames.to_float(frame), "C H W -> H W C").numpy(force=True))


def _bytes(image: np.ndarray) -> UInt8[Tensor, "3 H W"]:
    """An image in [0, 1] as a frame."""
    return torch.from_numpy(np.ascontiguousarray(rearrange(_as_bytes(image), "H W C -> C H W")))


def _as_bytes(image: np.ndarray) -> UInt8[np.ndarray, "H W 3"]:
    return np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)
