"""A point told by what lies around it.

Features alone lose a point on a plain surface, and slide along an edge. What lies around it moves nearly
as it does, though, and some of it can be seen while the point is hidden. So landmarks on a spiral around
each point are looked for where its motion of late foretells them, and a local affine motion, fitted to
those that agree, says where the point is: alone where the point is not to be seen, and else the more the less
sure its own features are, along an edge above all. A landmark that went another way than its point before
counts less. Nothing is shared between points.
"""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from . import coords, matching
from .looks import Look, place

RADIUS = 3  # fine cells around where a landmark is foretold
READOUT = 2  # and around the one most like it there
TEMPERATURE = 0.06  # of the read-out there
NEAREST, FARTHEST = 4.0, 34.0  # pixels of the spiral's ends
GOLDEN = math.pi * (3 - math.sqrt(5))  # the angle that spreads points on a spiral evenly
ALIKE, SLOPE = 0.7, 0.1  # cosine from which a landmark counts as found, and how sharply
REACH = 30.0  # pixels after which landmarks count less
STIFF = 30.0  # square pixels: how much must be seen before the local motion gives way
STRAY = 1.0  # pixels off the fitted motion at which a landmark counts half
AGREE = 2.0  # pixels within which one agrees
LEARN = 0.2  # share of what is believed of a landmark that one frame tells
LEAST = 0.02  # share of all landmarks that should agree
ROUNDS = 4  # of fitting
FAR = 6.0  # pixels from where a point would have gone beyond which it has leapt
MOST = 8.0  # pixels that they may correct a guess
HIDDEN = 1e6  # square pixels of doubt: landmarks alone tell
UNSURE = 0.5  # square pixels, along each axis, of what they tell though they all agree


def spiral(count: int, scale: float, device: torch.device) -> Float[Tensor, "K 2"]:
    """Where the landmarks of a point are beside it, in pixels, the nearest first."""
    number = torch.arange(count, device=device)
    radius = NEAREST * (FARTHEST / NEAREST) ** (number / max(1, count - 1))
    turn = number * GOLDEN
    return scale * radius[:, None] * torch.stack([turn.cos(), turn.sin()], dim=-1)


def start(
    xy: Float[Tensor, "n 2"],
    size_hw: tuple[int, int],
    look: Look,
    lattice: coords.Lattice,
    beside: Float[Tensor, "K 2"],
) -> tuple[Float[Tensor, "n K D"], Bool[Tensor, "n K"]]:
    """The fine features of the landmarks of points, as a look has them, and whether it shows them.

    Args:
        xy: pixels of the (H, W) frame.
        beside: `spiral`.
    """
    around = (xy[:, None] + beside).flatten(0, 1)
    at, shown = place(around, size_hw, look)
    features = matching.features_at(look.features.fine, coords.to_cells(at, lattice)[None])[0]
    shown = shown & coords.inside(around, size_hw)
    return features.unflatten(0, (len(xy), len(beside))), shown.unflatten(0, (len(xy), len(beside)))


def follow(
    fine: Float[Tensor, "1 D h w"],
    lattice: coords.Lattice,
    known: Float[Tensor, "n K D"],
    shown: Bool[Tensor, "n K"],
    beside: Float[Tensor, "K 2"],
    centre: Float[Tensor, "n 2"],
    doubt: Float[Tensor, "n 2 2"],
    most: Float[Tensor, "n"],
    trust: Float[Tensor, "n K"],
    motion: Float[Tensor, "n 2 2"],
    scale: float,
) -> tuple[Float[Tensor, "n 2"], Float[Tensor, "n K"], Float[Tensor, "n 2 2"], Bool[Tensor, "n"]]:
    """Where points are by what lies around them.

    Args:
        fine: the features of the frame.
        known: what `start` found, as the points look now; with `shown`.
        beside: `spiral`.
        centre: pixels, where the points may be.
        doubt: the covariance of that in square pixels, without landmarks.
        most: pixels from there; what landmarks tell beyond is not believed.
        trust: how far landmarks agreed until now, 0 to 1.
        motion: what has become of the surroundings since the query, a matrix for `beside`.
        scale: of all distances in pixels.

    Returns:
        the positions in pixels, trust and motion from now on, and whether landmarks told them; where they did not,
        all is as it was.
    """
    foretold = beside @ motion.mT
    cells, alike, good = _found(fine, known, coords.to_cells(centre[:, None] + foretold, lattice))
    off = coords.to_pixels(cells, lattice) - centre[:, None] - foretold
    seen = torch.sigmoid((alike - ALIKE) / SLOPE) * (shown & good)
    weight = seen * trust.square() * torch.exp(-(beside.norm(dim=-1) / (REACH * scale)).square() / 2)
    basis = torch.cat([beside, torch.ones_like(beside[:, :1])], dim=1)
    hold = torch.diag(basis.new_tensor([STIFF * scale**2] * 2 + [1e-4]))
    stray = (off - off.median(dim=1, keepdim=True).values).norm(dim=-1)
    for _ in range(ROUNDS):
        counted = (weight / (1 + (stray / (STRAY * scale)).square()))[..., None] * basis
        affine = torch.linalg.solve(counted.mT @ basis + hold, counted.mT @ off)  # (n, 3, 2)
        stray = (off - basis @ affine).norm(dim=-1)
    agree = weight * (stray < AGREE * scale)
    backing = agree.sum(dim=1)
    told = (3 * backing > weight.sum(1)) & (backing > LEAST * len(beside))
    told &= affine[:, 2].norm(dim=-1) < most * scale
    theirs = UNSURE * scale**2 + (agree * stray.square()).sum(dim=1) / backing.clamp(min=1e-6)
    # What is believed of the shift is as its doubt is to both: all of it if nothing is known of the point itself.
    both = doubt + theirs[:, None, None] * torch.eye(2, device=doubt.device)
    shift = (torch.linalg.solve(both, doubt) @ affine[:, 2, :, None])[..., 0]
    stray = (off - beside @ affine[:, :2] - shift[:, None]).norm(dim=-1)  # from what the point did
    trusted = trust + LEARN * seen * (1 / (1 + (stray / (AGREE * scale)).square()) - trust)
    return (
        torch.where(told[:, None], centre + shift, centre),
        torch.where(told[:, None], trusted, trust),
        torch.where(told[:, None, None], motion + affine[:, :2].mT, motion),
        told,
    )


def _found(
    fine: Float[Tensor, "1 D h w"], known: Float[Tensor, "n K D"], cells: Float[Tensor, "n K 2"]
) -> tuple[Float[Tensor, "n K 2"], Float[Tensor, "n K"], Bool[Tensor, "n K"]]:
    """The cells of landmarks near where they are foretold, how alike they are, and whether they were foretold in the
    frame and found within the window."""
    n, K, _ = cells.shape
    values, at = matching.square_correlation(known.flatten(0, 1), fine, cells.flatten(0, 1), RADIUS)
    offsets = at[0] - at[0, 0]
    apart = (offsets[:, None] - offsets).abs().amax(dim=-1)
    border = ((offsets == 0) | (offsets == offsets[-1])).any(dim=-1)  # beyond which there may be better ones
    best, peak = values.max(dim=-1)
    near = (values / TEMPERATURE).masked_fill(apart[peak] > READOUT, float("-inf"))
    edge = cells.new_tensor([fine.shape[-1] - 0.5, fine.shape[-2] - 0.5])
    good = ((cells >= -0.5) & (cells < edge)).all(dim=-1) & ~border[peak].reshape(n, K)
    return matching.soft_argmax(near, at).reshape(n, K, 2), best.reshape(n, K), good
