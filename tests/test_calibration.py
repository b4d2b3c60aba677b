"""Calibration: the regression finds known weights, and what it gives is what the tracker then says."""

import pytest
import torch

from corrlib import benchmarks, calibration
from corrlib.encoder import PixelEncoder
from corrlib.following import TrackerConfig
from corrlib.tracking import OnlineTracker


def test_known_weights_are_found():
    g = torch.Generator().manual_seed(0)
    facts = torch.randn(40_000, 2, generator=g) * torch.tensor([1.0, 5.0]) + torch.tensor([0.0, 3.0])
    chance = (1.5 * facts[:, 0] - 0.4 * facts[:, 1] + 0.7).sigmoid()
    found = calibration.logistic_regression(facts, torch.rand(40_000, generator=g) < chance)
    assert found == pytest.approx((1.5, -0.4, 0.7), abs=0.1)


@pytest.fixture(scope="module")
def clips():
    return [task.read()[0] for task in benchmarks.procedural_calib(3, 4, 64, 24)]


def test_calibration_makes_the_confidence_honest(clips):
    """The mean confidence becomes the share of points seen; that of an untouched encoder is far off."""
    torch.manual_seed(0)
    model = PixelEncoder(width=8, fine_channels=16).eval()

    def mean_confidence(weights):
        said = []
        for clip in clips:
            tracker = OnlineTracker(model, TrackerConfig(calibration=weights))
            tracker.step(clip.video[0], clip.query_points[:, 1:])
            said += [tracker.step(frame).confidence for frame in clip.video[1:]]
        return torch.cat(said).mean().item()

    seen = torch.cat([clip.visible[1:].flatten() for clip in clips]).float().mean().item()
    fitted = calibration.calibrate(model, clips)
    assert mean_confidence(fitted) == pytest.approx(seen, abs=0.05)
    assert abs(mean_confidence((0.0,) * 6 + (-3.0,)) - seen) > 0.3


def test_messages(clips):
    from dataclasses import replace

    model = PixelEncoder(width=8, fine_channels=16).eval()
    with pytest.raises(ValueError, match="clips should be at least 1, got none"):
        calibration.calibrate(model, [])
    with pytest.raises(ValueError, match="both visible and hidden points"):
        calibration.calibrate(model, [replace(clips[0], visible=torch.ones_like(clips[0].visible))])
