"""The dense match of two frames: flow, confidence and visibility at every pixel.

The frames may be any distance apart; nothing is carried from frame to frame, which `tracking`
and `propagation` do.
"""

from typing import NamedTuple

import cv2
import numpy as np
import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from . import coarse_to_fine, coords, flow, frames
from .encoder import device_of

ISLAND = 60  # cells, about 15 x 15 pixels: what moves alone and is smaller is taken for an error


class Match(NamedTuple):
    """A dense match of two frames, on the pixels of the first."""

    flow_0to1: Float[Tensor, "2 H W"]
    confidence: Float[Tensor, "H W"]
    visible_0to1: Bool[Tensor, "H W"]


def match_frames(
    model: nn.Module,
    frame0: Tensor | np.ndarray,
    frame1: Tensor | np.ndarray,
    how: coarse_to_fine.CoarseToFine | None = None,
    refine: bool = True,
) -> Match:
    """Where every pixel of a frame is in another one, however far apart in time the two are.

    Both directions are searched coarse-to-fine. What does not come back, and what moves unlike
    all around it, takes the motion of the nearest other cell; a median follows, and the
    brightness of the two frames settles the last fraction of a pixel.

    Args:
        model: an encoder (`load_pretrained()`), in evaluation mode.
        frame0, frame1: (3, H, W) tensors or arrays, uint8 or float in [0, 1], of one size.
        how: settings of the search.
        refine: whether brightness settles the last fraction of a pixel; without, features alone do.

    Returns:
        flow_0to1 in pixels; confidence in [0, 1], the correlation found times exp(-gap), the gap
        being that of going there and back in pixels; visible_0to1, forward-backward consistency.

    Raises:
        ValueError: a frame is not (3, H, W), the two differ in size, or the model is in training mode.

    Source: variational refinement as in Brox et al., ECCV 2004, as OpenCV has it.
    """
    frame0, frame1 = torch.as_tensor(frame0), torch.as_tensor(frame1)
    for name, frame in (("frame0", frame0), ("frame1", frame1)):
        if frame.ndim != 3 or frame.shape[0] != 3:
            raise ValueError(f"match_frames: {name} should be (3, H, W), got {tuple(frame.shape)}.")
    if frame0.shape != frame1.shape:
        expected = f"{tuple(frame0.shape)} like frame0"
        raise ValueError(f"match_frames: frame1 should be {expected}, got {tuple(frame1.shape)}.")
    device = device_of("match_frames", model)
    pair, size_hw = [frames.to_float(frame)[None].to(device) for frame in (frame0, frame1)], tuple(frame0.shape[1:])
    lattices = model.coarse_lattice, model.fine_lattice
    with torch.no_grad():  # in inference mode, what is answered could not weigh a loss
        features = [model(frame) for frame in pair]
        if how is None:  # small frames have few cells
            most = features[0].coarse[0, 0].numel()
            how = coarse_to_fine.CoarseToFine(candidates=min(coarse_to_fine.CoarseToFine.candidates, most))
        there, correlation = coarse_to_fine.match_field(features[0], features[1], lattices, how)
        back, _ = coarse_to_fine.match_field(features[1], features[0], lattices, how)
        cells = coords.grid(tuple(there.shape[1:3]), device)
        there, back = (rearrange(field - cells, "B h w d -> B d h w") for field in (there, back))
        returned, inside = flow.warp(back, there)
        gap = lattices[1].stride * (there + returned).norm(dim=1)
        visible = inside & (gap < 1.5 + 0.05 * lattices[1].stride * there.norm(dim=1))
        confidence = correlation.clamp(0, 1) * torch.exp(-gap)
        there = lattices[1].stride * there
        there = _fill(there[0], _in_company(there[0], visible[0]))[None]
        maps = torch.cat([there, confidence[:, None], visible[:, None].float()], dim=1)
        maps = coords.relattice(maps, lattices[1], coords.PIXELS, size_hw)[0]
    refined = _refine(maps[:2], *pair) if refine else maps[:2]
    ends_inside = coords.inside(flow.destinations(refined[None])[0], size_hw)
    return Match(refined, maps[2], (maps[3] > 0.5) & ends_inside)


def _in_company(field: Float[Tensor, "2 h w"], good: Bool[Tensor, "h w"]) -> Bool[Tensor, "h w"]:
    """Good cells less small islands: at least ISLAND good neighbours, in a chain, differ by a pixel at most.

    What looks alike elsewhere matches both ways too, but rarely for as long as an object does.
    """
    alone, good = -(2**15), good.numpy(force=True).copy()
    for values in field.numpy(force=True):
        steps = np.where(good, np.clip(np.rint(32 * values), -32000, 32000), alone).astype(np.int16)
        cv2.filterSpeckles(steps, alone, ISLAND, 32)
        good &= steps != alone
    return torch.from_numpy(good).to(field.device)


def _fill(field: Float[Tensor, "2 h w"], good: Bool[Tensor, "h w"]) -> Float[Tensor, "2 h w"]:
    """A field with its bad cells replaced by the nearest good ones, through a median of 5 x 5."""
    values, bad = rearrange(field, "d h w -> h w d").numpy(force=True), (~good).numpy(force=True)
    if bad.any() and not bad.all():
        _, nearest = cv2.distanceTransformWithLabels(
            bad.astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
        )
        number = np.zeros(nearest.max() + 1, np.int64)
        number[nearest[~bad]] = np.flatnonzero(~bad)
        values = values.reshape(-1, 2)[number[nearest]]
    smooth = np.stack([cv2.medianBlur(np.ascontiguousarray(values[..., d]), 5) for d in range(2)])
    return torch.from_numpy(smooth).to(field.device)


def _refine(
    field: Float[Tensor, "2 H W"], frame0: Float[Tensor, "1 3 H W"], frame1: Float[Tensor, "1 3 H W"]
) -> Float[Tensor, "2 H W"]:
    """A flow moved to where brightness and its gradient agree, smoothly."""
    bytes_ = [(rearrange(f[0], "C H W -> H W C") * 255).round().to(torch.uint8) for f in (frame0, frame1)]
    greys = [cv2.cvtColor(b.numpy(force=True), cv2.COLOR_RGB2GRAY) for b in bytes_]
    u, v = (np.ascontiguousarray(c) for c in field.numpy(force=True))
    refinement = cv2.VariationalRefinement_create()
    refinement.setFixedPointIterations(5)
    refinement.setSorIterations(10)
    refinement.calcUV(*greys, u, v)
    return torch.from_numpy(np.stack([u, v])).to(field.device)
