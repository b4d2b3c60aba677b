"""What is minimised: functions of logits and labels, without a model in sight."""

from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor

from . import coords, matching

LEAST_SHOWN = 4.0  # cells that a thing must fill to be carried
COLOUR_SCALE = 20.0  # of normalised Lab, before the smooth L1


@dataclass(frozen=True)
class LossWeights:
    """How much each loss counts; zero switches it off, and spares the work."""

    coarse: float = 1.0
    fine: float = 1.0
    reconstruction: float = 0.0
    domain: float = 0.0
    masks: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what is no training."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        if min(values.values()) < 0 or not any(values.values()):
            raise ValueError(f"LossWeights: weights should be at least 0 and not all 0, got {values}.")


def soft_label_cross_entropy(
    logits: Float[Tensor, "*shape K"],
    label: Float[Tensor, "*shape K"],
    valid: Bool[Tensor, "*shape"],
    count: Tensor | None = None,
) -> Float[Tensor, ""]:
    """Cross-entropy of a softmax with soft labels, in nat, averaged over the valid ones.

    Args:
        logits: correlation over temperature; -inf where there is no candidate.
        label: the target distribution; where a logit is -inf it must be 0.
        valid: which labels count.
        count: how many there are, where these are only a part of them.

    Returns:
        the mean over valid labels; 0, with a zero gradient, where there is none.

    Source: Li, Zhou and Liu, ICCV 2023, supervised loss (there called a KL divergence, which
    differs by the label's own entropy and has the same gradient).
    """
    log_affinity = logits.log_softmax(dim=-1)
    # 0 * -inf is NaN, in the gradient too: candidates outside the frame are taken out first.
    entropy = -(label * log_affinity.masked_fill(torch.isneginf(logits), 0.0)).sum(dim=-1)
    return (entropy * valid).sum() / (valid.sum() if count is None else count).clamp(min=1)


def carried_label_loss(
    query: Float[Tensor, "B C N"],
    keys: Float[Tensor, "B C M"],
    known: Float[Tensor, "B K M"],
    truth: Float[Tensor, "B K N"],
    temperature: float,
    total: Callable[[Tensor], Tensor] = torch.Tensor.clone,
) -> Float[Tensor, ""]:
    """How badly soft masks of some frames, carried along the affinity, say what another frame shows, in nat.

    What comes into sight has no counterpart that a motion vector could lead to, and yet belongs to
    something: this asks of features what carrying masks asks of them.

    Args:
        query: unit-length features of the cells of the frame that is told.
        keys: those of all cells of the frames that tell.
        known: their soft masks, which sum to 1 over K; the first is the background's.
        truth: the query's. Cells of what `known` hardly shows do not count.
        temperature: of the affinity.
        total: makes of a number of cells that of all batches, where this is one of several.

    Returns:
        the cross-entropy, in which all cells of objects together count as much as those of the
        background; 0, with a zero gradient, where nothing counts.
    """
    affinity = (query.mT @ keys / temperature).softmax(dim=-1)
    carried = known @ affinity.mT
    entropy = -(truth * (carried + 1e-4).log()).sum(dim=1)
    shown = known.sum(dim=2, keepdim=True) > LEAST_SHOWN
    counts = ((truth * shown).sum(dim=1) > 0.99).float()
    objects, ground = counts * (truth[:, 0] < 0.9), counts * (truth[:, 0] >= 0.9)
    halves = [(entropy * part).sum() / total(part.sum()).clamp(min=1) for part in (objects, ground)]
    return sum(halves) / 2


def reconstruct(
    query: Float[Tensor, "B C h w"],
    keys: list[Float[Tensor, "B C h w"]],
    values: list[Float[Tensor, "B V h w"]],
    radius: int,
    outside_zero: bool = False,
) -> Float[Tensor, "B V h w"]:
    """What the query frame looks like if it is put together from other frames, along the affinity.

    Args:
        query, keys: features, not of unit length; the keys of one or more reference frames.
        values: what is carried, of the same reference frames on the same lattice.
        radius: of the windows, around each cell's own place, in cells.
        outside_zero: cells outside the frame are candidates with product 0 and value 0.

    Raises:
        ValueError: there are no references, or as for `matching.local_correlation`.

    Source: Lai, Lu and Xie, MAST, CVPR 2020; Li, Zhou and Liu, ICCV 2023, products over sqrt(C).
    Differs: theirs keeps cells outside the frame; here they are no candidates unless asked for.
    """
    if not keys or len(keys) != len(values):
        raise ValueError(f"reconstruct: keys and values should be of the same frames, got {len(keys)}, {len(values)}.")
    logits = [matching.local_correlation(query, key, radius) for key in keys]
    logits = logits[0] if len(keys) == 1 else torch.cat(logits, dim=-1)
    if outside_zero:
        logits = logits.masked_fill(torch.isneginf(logits), 0.0)
    affinity = (logits / query.shape[1] ** 0.5).softmax(dim=-1)
    side = 2 * radius + 1
    rebuilt = 0.0
    for part, value in zip(affinity.chunk(len(keys), dim=-1), values):
        around = F.pad(value, (radius,) * 4).unfold(2, side, 1).unfold(3, side, 1)  # a view
        part = rearrange(part, "B h w (dy dx) -> B h w dy dx", dy=side)
        # A product and a sum are several times faster than so many small matrix products.
        rebuilt = rebuilt + torch.stack([(part * v).sum(dim=(-2, -1)) for v in around.unbind(1)], dim=1)
    return rebuilt


def reconstruction_loss(
    rebuilt: Float[Tensor, "B V h w"], truth: Float[Tensor, "B V H W"], lattice: coords.Lattice
) -> Float[Tensor, ""]:
    """How far the colours of a rebuilt frame are from its own: smooth L1 of 20 times normalised Lab, over all pixels.

    Args:
        rebuilt: from `reconstruct`, on a lattice; read between its cells for each pixel.
        truth: the frame's own colours, in pixels.
        lattice: where the cells sit.

    Source: Li, Zhou and Liu, ICCV 2023, self-supervised branch.
    Differs: theirs enlarges with half a pixel of shift.
    """
    full = coords.relattice(rebuilt, lattice, coords.PIXELS, tuple(truth.shape[-2:]))
    return F.smooth_l1_loss(COLOUR_SCALE * full, COLOUR_SCALE * truth)
