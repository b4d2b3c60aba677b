"""Boxes of the frame: actors are drawn within theirs only."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


class Box(NamedTuple):
    """What of the frame an actor may cover: as many rows and columns at all times, and its parts' own boxes."""

    top: Int[Tensor, "T"]
    left: Int[Tensor, "T"]
    h: int
    w: int
    low: Float[Tensor, "T N 2"]
    high: Float[Tensor, "T N 2"]


def whole(size_hw: tuple[int, int], times: Float[Tensor, "T"]) -> Box:
    """The whole frame, at every time."""
    zero = torch.zeros(len(times), dtype=torch.long, device=times.device)
    none = torch.zeros(len(times), 0, 2, device=times.device)
    return Box(zero, zero, *size_hw, none, none)


def around(
    low: Float[Tensor, "T N 2"], high: Float[Tensor, "T N 2"], spread: int, size_hw: tuple[int, int]
) -> Box | None:
    """What of the frame the boxes of all parts cover, and so much around it; None if nothing at any time."""
    H, W = size_hw
    limit = torch.tensor([W, H], device=low.device)
    low, high = low.maximum(-limit), high.minimum(2 * limit)
    # What is blurred needs what is a little outside the frame.
    first = (low.amin(1) - spread).clamp(min=-spread).minimum(limit + spread)
    last = (high.amax(1) + spread + 1).clamp(min=-spread).minimum(limit + spread)
    there = (last > first).all(-1)
    if not there.any():
        return None
    # In steps of 4, those of the maps of shadows, which thus do not depend on what else is asked.
    first = (first / 4).floor() * 4
    w, h = (((last - first) * there[:, None]).amax(0) / 4).ceil().int().mul(4).tolist()
    left, top = first.long().unbind(-1)
    return Box(top, left, h, w, low, high)


def windows(box: Box, size_hw: tuple[int, int]) -> Iterator[tuple[tuple[slice, slice], tuple[slice, slice]]]:
    """For every time, the rows and columns of the frame within a box, and the same of the box."""
    H, W = size_hw
    for top, left in zip(box.top.tolist(), box.left.tolist()):
        (i0, i1), (j0, j1) = _shared(top, box.h, H), _shared(left, box.w, W)
        yield (slice(i0, i1), slice(j0, j1)), (slice(i0 - top, i1 - top), slice(j0 - left, j1 - left))


def _shared(first: int, count: int, size: int) -> tuple[int, int]:
    """The beginning and the end of what a range shares with 0 to `size`; equal where it shares nothing."""
    begin, end = max(first, 0), min(first + count, size)
    return (begin, end) if begin < end else (max(first, 0), max(first, 0))


def write(
    frames: Tensor, box: Box, here: Bool[Tensor, "T h w"], values: Int[Tensor, "T p q"] | Float[Tensor, "T h w"] | float
) -> None:
    """Writes values into maps (T, H, W) where a mask over a box says so."""
    values = torch.as_tensor(values, device=frames.device).expand(here.shape)
    for t, (within, own) in enumerate(windows(box, tuple(frames.shape[1:]))):
        frames[t][within] = torch.where(here[t][own], values[t][own].to(frames.dtype), frames[t][within])
