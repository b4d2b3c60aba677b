"""Chained flow: whatever tells the motion, points and masks go along with it."""

import numpy as np
import torch

from corrlib import chains

SIZE = (37, 53)
QUERIES = torch.tensor([[0, 20.0, 10.0], [2, 30.5, 20.25]])


def sideways(a: int, b: int) -> np.ndarray:
    """Everything moves by (2, 1) a frame; images are the numbers of the frames."""
    return np.broadcast_to(np.float32([2, 1]) * (b - a), (*SIZE, 2)).copy()


def test_points_go_along():
    found = chains.track_flow(range(4), SIZE, QUERIES, sideways)
    elapsed = torch.arange(4)[:, None] - QUERIES[:, 0]
    expected = QUERIES[:, 1:] + elapsed[..., None] * torch.tensor([2.0, 1.0])
    torch.testing.assert_close(found.tracks, expected)
    assert found.visible.all() and (found.confidence == 1).all()


def test_each_flow_is_computed_once():
    calls = []
    chains.track_flow(range(6), SIZE, QUERIES, lambda a, b: calls.append((a, b)) or sideways(a, b))
    assert len(calls) == len(set(calls)) == 2 * 5


def test_points_whose_way_back_is_another_are_not_visible():
    """Half a pixel squared and a hundredth of the motion are forgiven."""
    one = QUERIES[:1]
    for astray, visible in ((0.5, True), (2.0, False)):
        found = chains.track_flow(range(3), SIZE, one, lambda a, b: sideways(a, b) + (b < a) * np.float32([astray, 0]))  # noqa: B023
        assert bool(found.visible[2, 0]) is visible


def test_masks_are_fetched_from_the_first_frame():
    mask = torch.zeros(SIZE, dtype=torch.long)
    mask[10:20, 20:30], mask[25:30, 5:9] = 1, 2
    found = chains.propagate_masks_flow(range(4), SIZE, mask, sideways)
    for t in range(4):
        assert torch.equal(found[t, t:, 2 * t :], mask[: SIZE[0] - t, : SIZE[1] - 2 * t])
