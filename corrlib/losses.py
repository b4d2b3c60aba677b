"""What is minimised: functions of logits and labels, without a model in sight."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor


@dataclass(frozen=True)
class LossWeights:
    """How much each loss counts; zero switches it off."""

    coarse: float = 1.0
    fine: float = 1.0


def soft_label_cross_entropy(
    logits: Float[Tensor, "*shape K"], label: Float[Tensor, "*shape K"], valid: Bool[Tensor, "*shape"]
) -> Float[Tensor, ""]:
    """Cross-entropy of a softmax with soft labels, in nat, averaged over the valid ones.

    Args:
        logits: correlation over temperature; -inf where there is no candidate.
        label: the target distribution; where a logit is -inf it must be 0.
        valid: which labels count.

    Returns:
        the mean over valid labels; 0, with a zero gradient, where there is none.

    Source: Li, Zhou and Liu, ICCV 2023, supervised loss (there called a KL divergence, which
    differs by the label's own entropy and has the same gradient).
    """
    log_affinity = logits.log_softmax(dim=-1)
    # 0 * -inf is NaN, in the gradient too: candidates outside the frame are taken out first.
    entropy = -(label * log_affinity.masked_fill(torch.isneginf(logits), 0.0)).sum(dim=-1)
    return (entropy * valid).sum() / valid.sum().clamp(min=1)
