"""What is asked of one clip of a data set: query points, and what is known of the truth.

Each returns a `TrackClip` and what else is known: `masks` (T, H, W), of which frame 0 may be given to
a method, and in which a point is right while it stays on its object; `scale` (T,), the length PCK is
measured by, `joints` (N,), which joint each query is, and `labelled` (T, N). Nothing is read here.
"""

from dataclasses import replace

import torch
from einops import rearrange
from torch import Tensor

from . import coords
from .samples import FlowPair, MaskClip, PoseClip, TrackClip

Asked = tuple[TrackClip, dict[str, Tensor]]


def of_tracks(clip: TrackClip) -> Asked:
    """The queries of a clip that has its own, inside of the frame."""
    # A raster position of 1 is the frame's far edge, of which no pixel is.
    far = clip.query_points.new_tensor([clip.video.shape[3], clip.video.shape[2]]) - 0.501
    xy = torch.minimum(clip.query_points[:, 1:].clamp(min=-0.5), far)
    return replace(clip, query_points=torch.cat([clip.query_points[:, :1], xy], dim=1)), {}


def of_joints(clip: PoseClip, benchmark: str) -> Asked:
    """Joints, asked in the first frame where one is seen, all that have a position there.

    Tracks are scored as points only where a joint is seen, and of those that were seen when asked.

    Raises:
        ValueError: no joint can be seen.
    """
    seen = clip.visible & clip.valid
    if not seen.any():
        raise ValueError(f"of_joints: {benchmark} {clip.name} should have a joint that can be seen, got none.")
    first = int(seen.any(dim=1).nonzero()[0])
    size_hw = tuple(clip.video.shape[2:])
    asked = (clip.valid[first] & coords.inside(clip.joints[first], size_hw)).nonzero()[:, 0]
    queries = torch.cat([torch.full((len(asked), 1), float(first)), clip.joints[first, asked]], dim=1)
    fair = seen[:, asked] & seen[first, asked]
    tracks = TrackClip(clip.video, queries, clip.joints[:, asked], clip.visible[:, asked], fair, clip.name)
    return tracks, {"scale": clip.scale, "joints": asked, "labelled": clip.valid[:, asked]}


def of_objects(clip: MaskClip, spacing: int = 12) -> Asked:
    """The objects of the first frame, and a grid of points on each; on one too small for it, a point."""
    T, H, W = clip.masks.shape
    pixels = coords.grid((H, W))
    on_grid = torch.zeros(H, W, dtype=torch.bool)
    on_grid[spacing // 2 :: spacing, spacing // 2 :: spacing] = True
    points = []
    for number in range(1, int(clip.masks[0].max()) + 1):
        inside = pixels[(clip.masks[0] == number) & on_grid]
        whole = pixels[clip.masks[0] == number]
        points.append(inside if len(inside) else whole[len(whole) // 2 :][:1])
    grid = torch.cat(points)
    queries = torch.cat([torch.zeros(len(grid), 1), grid], dim=1)
    unknown = torch.zeros(T, len(grid), dtype=torch.bool)
    tracks = TrackClip(clip.video, queries, grid.expand(T, len(grid), 2).clone(), unknown, unknown, clip.name)
    return tracks, {"masks": clip.masks.to(torch.int16)}


def of_pair(pair: FlowPair, spacing: int = 4) -> Asked:
    """Every fourth pixel of every fourth row, where flow is known."""
    grid = rearrange(coords.grid(tuple(pair.valid.shape))[::spacing, ::spacing], "h w c -> (h w) c")
    x, y = grid.long().unbind(-1)
    grid, x, y = (v[pair.valid[y, x]] for v in (grid, x, y))
    tracks = torch.stack([grid, grid + pair.flow_0to1[:, y, x].T])
    video = (torch.stack([pair.frame0, pair.frame1]) * 255).round().to(torch.uint8)
    queries = torch.cat([torch.zeros(len(grid), 1), grid], dim=1)
    known = torch.ones(2, len(grid), dtype=torch.bool)
    return TrackClip(video, queries, tracks, known, known, pair.name), {}
