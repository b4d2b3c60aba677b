"""Soft labels: where a point went, as a distribution over the cells it could have gone to.

The motion vector of a synthetic video gives a target, a fractional cell. The candidates are the
cells of a window, or of the whole map. A label is the probability of each candidate.
"""

from jaxtyping import Bool, Float
from torch import Tensor

KINDS = ("bilinear", "hard")


def soft_label(
    target: Float[Tensor, "*shape 2"], cells: Float[Tensor, "*shape K 2"], kind: str = "bilinear"
) -> tuple[Float[Tensor, "*shape K"], Bool[Tensor, "*shape"]]:
    """The distribution over candidate cells that a target position stands for.

    Args:
        target: the true position, in (fractional) cells.
        cells: the candidates, whole cells.
        kind: "bilinear" splits the target between its four neighbours so that the label's mean is
            the target; "hard" is the one-hot of the nearest cell.

    Returns:
        the label, which sums to 1 over K where valid and is all zero elsewhere, and whether it is
        valid: all of the target's mass lies on candidates.

    Raises:
        ValueError: the kind is unknown.

    Source: Li, Zhou and Liu, ICCV 2023, soft probabilistic labels.
    Differs: theirs come from a teacher's self-similarity; bilinear ones need no teacher and keep
    the sub-pixel position exactly.
    """
    check_kind(kind)
    if kind == "hard":
        target = (target + 0.5).floor()
    weight = (1 - (cells - target[..., None, :]).abs()).clamp(min=0).prod(dim=-1)
    valid = weight.sum(dim=-1) > 0.999
    return weight * valid[..., None], valid


def check_kind(kind: str) -> None:
    """Refuse a kind of label that there is not."""
    if kind not in KINDS:
        raise ValueError(f"soft_label: label should be one of {', '.join(KINDS)}, got {kind!r}.")
