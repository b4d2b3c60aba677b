"""Scores of long clips, by hand."""

import inspect
import math

import numpy as np
import pytest

from corrlib import occlusions


def clip(T: int = 60, N: int = 2) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """True tracks, all visible, asked at t = 0."""
    rng = np.random.default_rng(0)
    return rng.uniform(20, 200, (T, N, 2)), np.ones((T, N), bool), np.zeros((N, 3))


def test_regained_counts_who_was_hidden_for_ten_frames_and_looks_five_frames_later():
    truth, seen, queries = clip()
    seen[5:15, 0] = False  # ten frames: comes back at 15, is looked at in 20
    seen[5:14, 1] = False  # nine are too few
    for error, expected in ((3.9, 1.0), (4.1, 0.0)):
        answer = truth + 500.0
        answer[20, 0] = truth[20, 0] + [0, error]
        assert occlusions.regained(answer, truth, seen, queries) == {"regained": expected, "regained_count": 1}


def test_regained_leaves_out_who_is_hidden_again_and_who_comes_back_too_late():
    truth, seen, queries = clip()
    seen[5:15, 0] = False
    seen[20, 0] = False
    seen[40:56, 1] = False  # back at 56, the clip ends with 59
    found = occlusions.regained(truth, truth, seen, queries)
    assert found["regained_count"] == 0 and math.isnan(found["regained"])


def test_regained_does_not_count_what_was_before_the_query():
    truth, seen, queries = clip()
    seen[2:15, 0] = False
    queries[0, 0] = 8
    assert occlusions.regained(truth, truth, seen, queries)["regained_count"] == 0


def test_regained_counts_each_return():
    truth, seen, queries = clip(N=1)
    seen[2:13], seen[20:30] = False, False
    answer = truth.copy()
    answer[35] += 100
    assert occlusions.regained(answer, truth, seen, queries) == {"regained": 0.5, "regained_count": 2}


def test_fading_is_what_the_end_has_lost():
    truth, seen, _ = clip(T=49)
    answer = truth.copy()
    answer[25:, :, 0] += 3.0  # within 4, 8 and 16
    assert occlusions.fading(answer, truth, seen) == {"fading": pytest.approx(0.4)}
    seen[25:] = False  # nothing to be seen at the end
    assert math.isnan(occlusions.fading(answer, truth, seen)["fading"])


def test_fading_needs_two_ends_and_shapes_must_agree():
    truth, seen, queries = clip(T=48)
    with pytest.raises(ValueError, match="clips should have at least 49 frames, got 48"):
        occlusions.fading(truth, truth, seen)
    with pytest.raises(ValueError, match=r"regained: true_visible should be \(48, 2\) like tracks"):
        inspect.unwrap(occlusions.regained)(truth, truth, seen[:20], queries)  # before the run-time type check
