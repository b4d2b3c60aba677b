"""Boxes of the frame: actors are drawn within theirs only."""

import math
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
    starts, sides = [], [(0, 0)]
    # In plain numbers: there are few, and each operation on tensors takes as long as all of these.
    for corners in torch.cat([low.amin(1), high.amax(1)], dim=1).tolist():
        # What is blurred needs what is a little outside the frame.
        first = [min(max(v - spread, -spread), n + spread) for v, n in zip(corners[:2], (W, H))]
        last = [min(max(v + spread + 1, -spread), n + spread) for v, n in zip(corners[2:], (W, H))]
        there = last[0] > first[0] and last[1] > first[1]
        # In steps of 4, those of the maps of shadows, which thus do not depend on what else is asked.
        starts.append([math.floor(v / 4) * 4 for v in first])
        sides += [tuple(math.ceil((b - a) / 4) * 4 for a, b in zip(starts[-1], last))] * there
    w, h = map(max, zip(*sides))
    if not w:
        return None
    left, top = torch.tensor(starts, device=low.device).unbind(-1)
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
