"""Masks as soft maps, one a label: from pixels to cells and back to the edges of the image.

What `propagation` does with labels before and after it carries them.
"""

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor


def to_grid(maps: Float[Tensor, "B K H W"], stride: int) -> Float[Tensor, "B K h w"]:
    """Means over the pixels around each cell of the label grid."""
    if stride == 1:
        return maps
    reach = stride // 2
    return F.avg_pool2d(maps, 2 * reach + 1, stride, reach, count_include_pad=False)


def to_edges(maps: Float[Tensor, "1 K H W"], frame: Float[Tensor, "1 3 H W"], radius: int) -> Float[Tensor, "1 K H W"]:
    """Soft masks drawn to the edges of the image: around each pixel a mask is a linear function of colour.

    Source: He, Sun and Tang, Guided image filtering, TPAMI 2013.
    """

    def mean(values: np.ndarray) -> np.ndarray:
        return cv2.blur(values, (2 * radius + 1,) * 2).reshape(values.shape)

    colour, mask = (rearrange(v[0], "C H W -> H W C").numpy(force=True) for v in (frame, maps))
    colour, mask = np.ascontiguousarray(colour), np.ascontiguousarray(mask)
    around, level = mean(colour), mean(mask)
    spread = mean(np.einsum("hwi,hwj->hwij", colour, colour).reshape(*colour.shape[:2], 9)).reshape(*colour.shape, 3)
    spread = spread - np.einsum("hwi,hwj->hwij", around, around) + 1e-3 * np.eye(3, dtype=np.float32)
    both = np.stack([mean(colour[..., i : i + 1] * mask) - around[..., i : i + 1] * level for i in range(3)], axis=-2)
    a, b, c = np.moveaxis(spread, -2, 0)  # inverted by cofactors, ten times faster than by numpy's solve
    cofactors = np.stack([np.cross(b, c), np.cross(c, a), np.cross(a, b)], axis=-2)
    slope = np.einsum("hwij,hwjk->hwik", cofactors, both) / (a * cofactors[..., 0, :]).sum(-1)[..., None, None]
    offset = mean(np.ascontiguousarray(level - np.einsum("hwi,hwik->hwk", around, slope)))
    slope = np.stack([mean(np.ascontiguousarray(slope[..., i, :])) for i in range(3)], axis=-2)
    drawn = np.einsum("hwi,hwik->hwk", colour, slope) + offset
    return rearrange(torch.from_numpy(drawn.astype(np.float32)), "H W K -> 1 K H W").to(maps.device)


def stretched(maps: Float[Tensor, "1 K H W"], least: float) -> Float[Tensor, "1 K H W"]:
    """Each label's map from 0 to 1 over the frame: means of means sink, those of small things most.

    Less than a range of `least` is taken for that: what has left the frame stays out of it.

    Source: Jabri, Owens and Efros, NeurIPS 2020, whose evaluation does so too.
    """
    low, high = maps.amin(dim=(2, 3), keepdim=True), maps.amax(dim=(2, 3), keepdim=True)
    return (maps - low) / (high - low).clamp(min=least)


def largest(maps: Float[Tensor, "K H W"]) -> Int[Tensor, "H W"]:
    """The number of the largest map at each pixel, ten times faster than argmax over K."""
    top, number = maps[0].clone(), torch.zeros_like(maps[0], dtype=torch.long)
    for k in range(1, len(maps)):
        number[maps[k] > top] = k
        torch.maximum(top, maps[k], out=top)
    return number


def check_mask(name: str, first_mask: Tensor | np.ndarray, size_hw: tuple[int, int]) -> Int[Tensor, "H W"]:
    """A mask as int64 on the CPU, refused where it is none of the first frame's."""
    mask = torch.as_tensor(first_mask).cpu()
    if mask.is_floating_point() or mask.is_complex():
        raise ValueError(f"{name}: first_mask should be integers or booleans, got {mask.dtype}.")
    if tuple(mask.shape) != tuple(size_hw):
        raise ValueError(f"{name}: first_mask should be {size_hw} (H, W) as frames, got {tuple(mask.shape)}.")
    found = mask.long().unique().tolist()
    if found[0] < 0:
        raise ValueError(f"{name}: first_mask should hold ids from 0, got {found[0]}.")
    if found[-1] == 0:
        raise ValueError(f"{name}: first_mask should hold at least one object, got background only.")
    missing = next((i for i in range(1, found[-1]) if i not in found), None)
    if missing:
        expected = f"each object from 1 to {found[-1]}; number them without gaps"
        raise ValueError(f"{name}: first_mask should hold {expected}, got no pixel of object {missing}.")
    return mask.long()
