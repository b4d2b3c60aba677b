"""The frozen dataclasses that travel between data, training, tracking and evaluation.

One sample is unbatched; `training` stacks what it needs. Frames are float32 sRGB in [0, 1]
in pairs, and uint8 in clips, which may be long. Coordinates as in `coords`.
"""

from dataclasses import dataclass
from typing import NamedTuple

from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class FramePair:
    """Two frames of one unlabelled video, (3, H, W) each."""

    frame0: Float[Tensor, "3 H W"]
    frame1: Float[Tensor, "3 H W"]
    name: str = ""


@dataclass(frozen=True)
class FlowPair:
    """Two frames and the motion from the first to the second.

    `valid` is where the flow is known; `visible` where the point of frame 0 can also be
    seen in frame 1 (equal to `valid` when the data set does not tell).
    """

    frame0: Float[Tensor, "3 H W"]
    frame1: Float[Tensor, "3 H W"]
    flow_0to1: Float[Tensor, "2 H W"]
    valid: Bool[Tensor, "H W"]
    visible: Bool[Tensor, "H W"]
    name: str = ""


@dataclass(frozen=True)
class TrackClip:
    """A video with query points and their true tracks.

    `query_points` are (t, x, y). `visible` is False where a point is hidden or outside.
    `valid` is where the truth is known at all (annotated frames).
    """

    video: Tensor  # (T, 3, H, W) uint8
    query_points: Float[Tensor, "N 3"]
    tracks: Float[Tensor, "T N 2"]
    visible: Bool[Tensor, "T N"]
    valid: Bool[Tensor, "T N"]
    name: str = ""
    masks: Int[Tensor, "T H W"] | None = None  # where they are asked for: as in MaskClip
    taught: tuple[Tensor, Tensor] | None = None  # where they are kept: a teacher's coarse and fine maps, (T, C, h, w)


@dataclass(frozen=True)
class MaskClip:
    """A video with object masks, 0 = background, -1 = frame without a mask."""

    video: Tensor  # (T, 3, H, W) uint8
    masks: Int[Tensor, "T H W"]
    name: str = ""


@dataclass(frozen=True)
class PoseClip:
    """A video with named joints; `valid` where a joint is annotated, `visible` where it can be seen.

    `scale` is the length in pixels that PCK thresholds are a fraction of, one a frame,
    NaN where the data set gives none.
    """

    video: Tensor  # (T, 3, H, W) uint8
    joints: Float[Tensor, "T J 2"]
    visible: Bool[Tensor, "T J"]
    valid: Bool[Tensor, "T J"]
    scale: Float[Tensor, "T"]
    name: str = ""


class PointTracks(NamedTuple):
    """What every tracker returns: tracks (T, N, 2) in pixels, visible (T, N), confidence (T, N) in [0, 1]."""

    tracks: Float[Tensor, "T N 2"]
    visible: Bool[Tensor, "T N"]
    confidence: Float[Tensor, "T N"]
