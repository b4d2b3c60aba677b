"""Samples travel unchanged: frozen, with the fields that data sets and trackers agree on."""

import dataclasses

import pytest
import torch

from corrlib import samples

T, N, J, H, W = 4, 3, 2, 37, 53
FRAME = torch.zeros(3, H, W)
VIDEO = torch.zeros(T, 3, H, W, dtype=torch.uint8)
SEEN = torch.ones(T, N, dtype=torch.bool)
EVERYWHERE = torch.ones(H, W, dtype=torch.bool)
EXAMPLES = [
    samples.FramePair(FRAME, FRAME),
    samples.FlowPair(FRAME, FRAME, torch.zeros(2, H, W), EVERYWHERE, EVERYWHERE),
    samples.TrackClip(VIDEO, torch.zeros(N, 3), torch.zeros(T, N, 2), SEEN, SEEN),
    samples.MaskClip(VIDEO, torch.zeros(T, H, W, dtype=torch.int64)),
    samples.PoseClip(VIDEO, torch.zeros(T, J, 2), SEEN[:, :J], SEEN[:, :J], torch.ones(T)),
]


@pytest.mark.parametrize("sample", EXAMPLES, ids=lambda sample: type(sample).__name__)
def test_samples_are_frozen_and_have_a_name(sample):
    assert sample.name == ""
    with pytest.raises(dataclasses.FrozenInstanceError):
        sample.name = "other"
    assert dataclasses.replace(sample, name="other").name == "other"


def test_samples_refuse_frames_of_different_sizes():
    with pytest.raises(TypeError):
        samples.FramePair(FRAME, torch.zeros(3, H, W + 1))


def test_every_sample_is_tested():
    known = {v for v in vars(samples).values() if isinstance(v, type) and dataclasses.is_dataclass(v)}
    assert known == {type(sample) for sample in EXAMPLES}


def test_point_tracks_unpack_in_the_promised_order():
    tracks, visible, confidence = samples.PointTracks(torch.zeros(T, N, 2), SEEN, torch.zeros(T, N))
    assert (tracks.shape, visible.dtype, confidence.shape) == ((T, N, 2), torch.bool, (T, N))
