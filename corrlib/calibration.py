"""How sure a tracker may be: evidence turned into the probability that a point can be seen.

The tracker's evidence means something else for every kind of features, so each encoder carries
its own `calibration`, fitted on clips that are neither trained nor scored on.
"""

from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from .following import TrackerConfig
from .samples import TrackClip
from .tracking import OnlineTracker


def calibrate(
    model: nn.Module, clips: list[TrackClip], config: TrackerConfig | None = None, rounds: int = 2
) -> tuple[float, ...]:
    """Logistic regression of "can be seen" on the tracker's evidence.

    What counts as seen decides which templates are renewed, and so the evidence itself: the fit
    is repeated with its own outcome.

    Args:
        model: an encoder; what it says of itself is where the first round starts from.
        clips: all queries in frame 0, of other seeds than those it is judged on.
        config: of the tracker.
        rounds: how often to fit.

    Returns:
        the weights of `following.evidence` and the constant; for `model.calibration`.

    Raises:
        ValueError: there are no clips, or in them no point is ever hidden.
    """
    if not clips:
        raise ValueError("calibrate: clips should be at least 1, got none.")
    config = config or TrackerConfig()
    for _ in range(rounds):
        facts, seen = (torch.cat(parts) for parts in zip(*(_observe(model, clip, config) for clip in clips)))
        if seen.all() or not seen.any():
            raise ValueError("calibrate: clips should have both visible and hidden points.")
        config = replace(config, calibration=logistic_regression(facts, seen))
    return config.calibration


def _observe(
    model: nn.Module, clip: TrackClip, config: TrackerConfig
) -> tuple[Float[Tensor, "P E"], Bool[Tensor, "P"]]:
    """The evidence for every point in every frame of a clip after the first, and whether it can be seen."""
    tracker, facts = OnlineTracker(model, config), []
    tracker.step(clip.video[0], clip.query_points[:, 1:])
    for frame in clip.video[1:]:
        tracker.step(frame)
        facts.append(tracker.state.evidence.cpu())
    return torch.cat(facts), clip.visible[1:].flatten()


def logistic_regression(facts: Float[Tensor, "P E"], seen: Bool[Tensor, "P"]) -> tuple[float, ...]:
    """Weights w and, last, the constant c that make sigmoid(facts @ w + c) the chance of `seen`; by Newton's method."""
    mean, deviation = facts.mean(dim=0), facts.std(dim=0).clamp(min=1e-6)
    design = torch.cat([(facts - mean) / deviation, torch.ones(len(facts), 1)], dim=1).double()
    weights = torch.zeros(design.shape[1], dtype=torch.float64)
    ridge = 1e-3 * torch.eye(design.shape[1], dtype=torch.float64)  # where the facts do not decide
    for _ in range(25):
        chance = (design @ weights).sigmoid()
        gradient = design.T @ (chance - seen.double()) + ridge @ weights
        curvature = (design.T * (chance * (1 - chance))) @ design + ridge
        weights = weights - torch.linalg.solve(curvature, gradient)
    slopes = weights[:-1] / deviation
    return tuple(round(value, 4) for value in [*slopes.tolist(), (weights[-1] - (slopes * mean).sum()).item()])
