"""Soft labels: where a point went, as a distribution over the cells it could have gone to.

The motion vector of a synthetic video gives a target, a fractional cell. The candidates are the
cells of a window, or of the whole map. A label is the probability of each candidate.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from . import coords, matching

OF_MOTION = ("bilinear", "hard", "gaussian")
OF_TEACHER = ("teacher", "teacher_gaussian")
KINDS = (*OF_MOTION, *OF_TEACHER)


def soft_label(
    target: Float[Tensor, "*shape 2"],
    cells: Float[Tensor, "*shape K 2"],
    kind: str = "bilinear",
    sigma: float = 1.0,
    similarity: Float[Tensor, "*shape K"] | None = None,
    outside: Bool[Tensor, "*shape K"] | None = None,
) -> tuple[Float[Tensor, "*shape K"], Bool[Tensor, "*shape"]]:
    """The distribution over candidate cells that a target position stands for.

    Args:
        target: the true position, in (fractional) cells.
        cells: the candidates, whole cells.
        kind: "bilinear" splits the target between its four neighbours so that the label's mean is
            the target; "hard" is the one-hot of the nearest cell; "gaussian" falls off around the
            target; "teacher" is what a teacher finds alike, by `similarity`; "teacher_gaussian" is
            the product of the last two.
        sigma: of the Gaussian, in cells.
        similarity: of the teacher kinds, from `self_similarity`.
        outside: candidates that are none, being outside of the frame; they get nothing.

    Returns:
        the label, which sums to 1 over K where valid and is all zero elsewhere, and whether it is
        valid: the neighbours of the target (of a hard label, the nearest cell) are all candidates.

    Raises:
        ValueError: the kind is unknown, sigma is not above 0, or a teacher kind has no similarity.

    Source: Li, Zhou and Liu, ICCV 2023, soft probabilistic labels; theirs are of the kind "teacher",
    with the Gaussian, and its product with the teacher's, as alternatives.
    Differs: "bilinear" is ours; it needs no teacher and keeps the position below a cell exactly.
    Theirs rounds the Gaussian's centre to a cell.
    """
    check_kind(kind)
    if not sigma > 0:
        raise ValueError(f"soft_label: sigma should be above 0, got {sigma}.")
    if kind in OF_TEACHER and similarity is None:
        raise ValueError(f"soft_label: labels of kind {kind} should have a similarity from a teacher, got none.")
    if kind == "hard":
        target = (target + 0.5).floor()
    away = cells - target[..., None, :]
    near = (1 - away.abs()).clamp(min=0).prod(dim=-1)
    valid = near.sum(dim=-1) > 0.999
    if outside is not None:
        valid = valid & ~(outside & (near > 0)).any(dim=-1)
    if kind in ("bilinear", "hard"):
        return torch.where(valid[..., None], near, 0.0), valid
    logits = similarity if kind in OF_TEACHER else torch.zeros_like(near)
    if kind != "teacher":
        logits = logits - away.square().sum(dim=-1) / (2 * sigma**2)
    if outside is not None:
        logits = logits.masked_fill(outside, float("-inf"))
    return torch.where(valid[..., None], logits.softmax(dim=-1), 0.0), valid


def self_similarity(
    features: Float[Tensor, "B C h w"],
    target: Float[Tensor, "B N 2"],
    cells: Float[Tensor, "B N K 2"],
    temperature: float = 0.07,
    legacy: bool = False,
) -> Float[Tensor, "B N K"]:
    """How alike a teacher finds each candidate cell and the true position, both in the frame searched.

    The teacher's features are read bilinearly at the target and multiplied with those of the
    candidates: what looks like the target shares its label. Any window will do: one around the
    target, one around the query's own place, as the paper's of 49 x 49, or the whole map.

    Args:
        features: of the frame searched, by the teacher; their length does not matter.
        target: the true positions, in (fractional) cells.
        cells: the candidates, whole cells.
        temperature: divides the products.
        legacy: normalise along the height in place of the channels, as the released code does; the
            labels are then about twice as sharp, and depend on the size of the frame.

    Returns:
        logits, -inf for candidates outside the map.

    Raises:
        ValueError: the temperature is not above 0, or a feature is not finite.

    Source: Li, Zhou and Liu, ICCV 2023, soft labels by a pre-trained 2D encoder.
    """
    if not temperature > 0:
        raise ValueError(f"self_similarity: temperature should be above 0, got {temperature}.")
    features = F.normalize(features, dim=2 if legacy else 1)
    at_target = coords.sample(features, target)[0].mT
    return matching.cell_correlation(at_target, features, cells) / temperature


def check_kind(kind: str) -> None:
    """Refuse a kind of label that there is not."""
    if kind not in KINDS:
        raise ValueError(f"soft_label: label should be one of {', '.join(KINDS)}, got {kind!r}.")
