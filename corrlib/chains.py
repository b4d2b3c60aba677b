"""Points and masks carried from frame to frame by whatever tells the motion between two frames.

A flow is any call on two images that gives their motion as an array (H, W, 2) of (dx, dy) in
pixels; what an image is, is between the caller and the flow. Points go forwards and backwards
in time, and are visible while each step is consistent with the step back.
"""

import itertools
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from einops import rearrange, repeat
from jaxtyping import Float, Int
from torch import Tensor

from . import coords, softmasks
from .samples import PointTracks

ALPHA, BETA = 0.01, 0.5  # of forward-backward consistency, as for the model

Points = Tensor | np.ndarray | Sequence  # (N, 3)
Flow = Callable[..., np.ndarray]  # (image, image) -> (H, W, 2)

# Moves points (n, 2) from frame a to frame b, and tells how far from home they come back.
Move = Callable[[int, int, Tensor], tuple[Tensor, Tensor]]


def track_flow(images: Sequence, size_hw: tuple[int, int], query_points: Points, flow: Flow) -> PointTracks:
    """Points carried by a dense flow, which is computed once for each pair and direction.

    Args:
        images: T of what the flow takes.
        size_hw: (H, W) of the frames.
        query_points: (N, 3), (t, x, y) in pixels, t a whole number.
        flow: motion from one image to another.

    Returns:
        tracks (T, N, 2), before the query frame too; a point is visible in its query frame
        and on from there while it is inside and each step to it is consistent.

    Raises:
        ValueError: no queries, or one outside the frame or the clip.
    """
    queries = check_queries(query_points, len(images), size_hw)
    last_query = queries[:, 0].amax()
    flows: dict[tuple[int, int], Tensor] = {}

    def at(a: int, b: int, xy: Tensor) -> Tensor:
        if (a, b) not in flows:
            flows[a, b] = rearrange(torch.from_numpy(flow(images[a], images[b])), "H W xy -> 1 xy H W")
        return coords.sample(flows[a, b], xy[None])[0][0].T

    def move(a: int, b: int, xy: Tensor) -> tuple[Tensor, Tensor]:
        there = xy + at(a, b, xy)
        home = there + at(b, a, there)
        if min(a, b) >= last_query:  # no point comes back through here, so let the memory go
            del flows[a, b], flows[b, a]
        return there, (home - xy).norm(dim=-1)

    return carry(len(images), size_hw, queries, move)


def carry(num_frames: int, size_hw: tuple[int, int], queries: Float[Tensor, "N 3"], move: Move) -> PointTracks:
    """Points moved one frame at a time, away from their query frame in both directions."""
    start = queries[:, 0].long()
    tracks = repeat(queries[:, 1:], "N xy -> T N xy", T=num_frames).clone()
    visible = torch.ones(tracks.shape[:2], dtype=torch.bool)
    confidence = torch.ones(tracks.shape[:2])
    for step in (1, -1):
        for a in range(num_frames - 1) if step == 1 else range(num_frames - 1, 0, -1):
            b, on = a + step, (a - start) * step >= 0
            if not on.any():
                continue
            tracks[b, on], error = move(a, b, tracks[a, on])
            squares = 2 * (tracks[b, on] - tracks[a, on]).square().sum(-1)
            good = (error.square() < ALPHA * squares + BETA) & coords.inside(tracks[b, on], size_hw)
            visible[b, on] = good & visible[a, on]  # a chain that lost its point follows another one
            confidence[b, on] = torch.exp(-error) * confidence[a, on] * good
    return PointTracks(tracks, visible, confidence)


def propagate_masks_flow(
    images: Iterable, size_hw: tuple[int, int], first_mask: Tensor | np.ndarray, flow: Flow
) -> Int[Tensor, "T H W"]:
    """Masks fetched from the first frame along chained flow.

    Each pixel follows the flow back, one frame at a time, and takes the label it ends at.

    Args:
        images, size_hw, flow: as for `track_flow`.
        first_mask: (H, W), as for `propagation.propagate_masks`.

    Raises:
        ValueError: a mask that `propagation.propagate_masks` refuses.
    """
    mask = softmasks.check_mask("propagate_masks", first_mask, size_hw)
    pixels = coords.grid(size_hw)
    home, out = rearrange(pixels, "H W xy -> 1 xy H W"), [mask]
    last = torch.tensor(size_hw[::-1]) - 1
    for before, now in itertools.pairwise(images):
        there = pixels + torch.from_numpy(flow(now, before))
        home = coords.sample(home, there[None])[0]
        x, y = torch.minimum(rearrange(home[0], "xy H W -> H W xy").round().long().clamp(min=0), last).unbind(-1)
        out.append(mask[y, x])
    return torch.stack(out)


def check_queries(query_points: Points, num_frames: int, size_hw: tuple[int, int]) -> Float[Tensor, "N 3"]:
    """Query points as float32, refused where they are not points of the clip."""
    queries = torch.as_tensor(query_points, dtype=torch.float32)
    if queries.ndim != 2 or queries.shape[1] != 3 or not len(queries):
        raise ValueError(f"query_points should be (N, 3) as (t, x, y), N at least 1, got {tuple(queries.shape)}.")
    t, xy = queries[:, 0], queries[:, 1:]
    good = (t == t.round()) & (t >= 0) & (t < num_frames) & coords.inside(xy, size_hw)  # NaN is nowhere
    if not good.all():
        n = int((~good).nonzero()[0])
        got = ", ".join(f"{v:g}" for v in queries[n].tolist())
        raise ValueError(
            f"query_points: point {n} should be (t, x, y) with t in 0 .. {num_frames - 1} and (x, y) inside "
            f"the {size_hw[1]} x {size_hw[0]} frame, got ({got})."
        )
    return queries
