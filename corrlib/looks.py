"""A query's frame looked at again, turned and scaled.

Features forgive a turn or a change of scale only so far. What a point will look like once its object
has turned, or come nearer, is therefore seen beforehand, in copies of the frame it is asked in: that
costs an encoder's work once a query's frame, and the search of later frames nothing, since each point
is sought as one look has it, the one that was most like it last.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from . import coords
from .encoder import Features, encode

LEAST = 8  # pixels, the least side of a frame that encoders take
OWN = (0.0, 1.0)  # the frame as it is
# Degrees from x towards y, and scale: what is made smaller costs less, and covers as much.
TURNED_AND_SCALED = ((0.0, 0.71), (-25.0, 0.71), (25.0, 0.71), (-25.0, 1.0), (25.0, 1.0), (0.0, 1.35))


class Look(NamedTuple):
    """Features of a frame that is scaled to a size and then turned."""

    features: Features
    size_hw: tuple[int, int]
    degrees: float


def looks(
    model: nn.Module,
    frame: Float[Tensor, "1 3 H W"],
    features: Features,
    wanted: tuple[tuple[float, float], ...],
    bfloat16: bool,
) -> list[Look]:
    """A frame as it is, whose features are known, and as (degrees, scale) have it; `bfloat16` as in `encode`."""
    found = [Look(features, tuple(frame.shape[-2:]), 0.0)]
    for degrees, scale in wanted:
        size_hw = tuple(max(LEAST, round(n * scale)) for n in frame.shape[-2:])
        shown = coords.turn_frames(coords.resize_frames(frame, size_hw), degrees)
        found.append(Look(encode(model, shown, bfloat16), size_hw, degrees))
    return found


def place(
    xy: Float[Tensor, "n 2"], size_hw: tuple[int, int], look: Look
) -> tuple[Float[Tensor, "n 2"], Bool[Tensor, "n"]]:
    """Where points of an (H, W) frame are in a look at it, in its pixels; and whether it shows them.

    Of what is turned out of sight the nearest place at the edge is returned.
    """
    at = coords.turn_points(coords.resize_points(xy, size_hw, look.size_hw), look.degrees, look.size_hw)
    last = at.new_tensor([look.size_hw[1] - 1, look.size_hw[0] - 1])
    return torch.minimum(at.clamp(min=0), last), coords.inside(at, look.size_hw)
