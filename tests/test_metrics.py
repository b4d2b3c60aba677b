"""Metrics: cases by hand, degenerate ones, and the official evaluators' own values."""

import inspect
import math
import pathlib

import numpy as np
import pytest
import torch

from corrlib import metrics

# Inputs, and what the official functions return for them: `compute_tapvid_metrics` of
# google-deepmind/tapnet, `db_eval_iou`, `db_eval_boundary` and `db_statistics` of davis2017-evaluation.
OFFICIAL = np.load(pathlib.Path(__file__).parent / "official_metrics.npz")
NAN = math.nan


def door(function):
    """The function without the run-time type check, which answers before its own messages can."""
    return inspect.unwrap(function)


def tracks(T: int = 6, N: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """True tracks, all visible, queried at t = 0."""
    xy = np.arange(T * N * 2, dtype=np.float64).reshape(T, N, 2)
    return xy, np.ones((T, N), bool), np.zeros((N, 3))


def square(top: int, left: int, side: int = 10, size_hw: tuple[int, int] = (37, 53)) -> np.ndarray:
    """A filled square in an empty mask."""
    mask = np.zeros(size_hw, bool)
    mask[top : top + side, left : left + side] = True
    return mask


def same(got: dict, expected: dict) -> None:
    """Equal within 1e-12, NaN equal to NaN; only the keys expected."""
    for key, value in expected.items():
        assert got[key] == pytest.approx(value, abs=1e-12, nan_ok=True), key


def test_tapvid_perfect_is_one():
    xy, seen, queries = tracks()
    for mode in ("first", "strided"):
        scores = metrics.tapvid_metrics(xy, seen, xy, seen, queries, mode)
        assert {v for k, v in scores.items() if not k.startswith("count")} == {1}
        assert scores["count"] == scores["count_visible"] == 15
        assert len(scores) == 15


def test_tapvid_all_wrong_is_zero():
    xy, seen, queries = tracks()
    scores = metrics.tapvid_metrics(xy + 100, ~seen, xy, seen, queries)
    assert {v for k, v in scores.items() if not k.startswith("count")} == {0}


def test_tapvid_threshold_is_strict():
    xy, seen, queries = tracks()
    for distance in metrics.THRESHOLDS:
        scores = metrics.tapvid_metrics(xy + [distance, 0], seen, xy, seen, queries)
        assert [scores[f"delta_{t}"] for t in metrics.THRESHOLDS] == [t > distance for t in metrics.THRESHOLDS]
    assert metrics.tapvid_metrics(xy + [3, 4], seen, xy, seen, queries)["delta_avg"] == 0.4


def test_tapvid_mixed_case_by_hand():
    """One point, five frames after the query: right, right but hidden, far, false, rightly hidden."""
    truth = np.zeros((6, 1, 2))
    answer = truth + np.array([0, 0.5, 0, 9, 0, 0])[:, None, None]
    true_visible = np.array([1, 1, 1, 1, 0, 0], bool)[:, None]
    visible = np.array([1, 1, 0, 1, 1, 0], bool)[:, None]
    scores = metrics.tapvid_metrics(answer, visible, truth, true_visible, np.zeros((1, 3)))
    expected = {"occlusion_accuracy": 3 / 5, "count": 5, "count_visible": 3, "delta_8": 2 / 3, "delta_16": 1}
    # At 8 px one hit of 3 visible, false positives at the far and the hidden frame; at 16 px 2 hits, 1 false.
    expected |= {"jaccard_8": 1 / 5, "jaccard_16": 2 / 4, "delta_avg": (4 * 2 / 3 + 1) / 5}
    same(scores, expected | {"average_jaccard": (4 / 5 + 1 / 2) / 5})


def test_tapvid_query_modes():
    """The point is lost before and at the query: first does not see it, strided only the frames before."""
    xy, seen, queries = tracks(6, 1)
    queries[:, 0] = 2
    answer = xy.copy()
    answer[:3] += 50
    scores = metrics.tapvid_metrics(answer, seen, xy, seen, queries, "first")
    same(scores, {"delta_avg": 1, "count": 3})
    scores = metrics.tapvid_metrics(answer, seen, xy, seen, queries, "strided")
    same(scores, {"delta_avg": 3 / 5, "count": 5})


def test_tapvid_nothing_visible_or_nothing_scored():
    xy, seen, queries = tracks()
    hidden = metrics.tapvid_metrics(xy, ~seen, xy, ~seen, queries)
    same(hidden, {"delta_avg": NAN, "average_jaccard": NAN, "occlusion_accuracy": 1, "count_visible": 0})
    claimed = metrics.tapvid_metrics(xy, seen, xy, ~seen, queries)
    same(claimed, {"delta_avg": NAN, "average_jaccard": 0, "occlusion_accuracy": 0, "count": 15})
    for T, N in ((1, 3), (6, 0)):
        xy, seen, queries = tracks(T, N)
        nothing = metrics.tapvid_metrics(xy, seen, xy, seen, queries)
        same(nothing, {"delta_16": NAN, "jaccard_1": NAN, "occlusion_accuracy": NAN, "count": 0})


def test_tapvid_valid_restricts():
    xy, seen, queries = tracks()
    answer, valid = xy.copy(), seen.copy()
    answer[3], valid[3] = NAN, False
    same(metrics.tapvid_metrics(answer, seen, xy, seen, queries), {"delta_avg": 0.8, "count": 15})
    same(metrics.tapvid_metrics(answer, seen, xy, seen, queries, valid=valid), {"delta_avg": 1, "count": 12})


def test_tapvid_averaging_of_the_paper():
    """Track 0 is visible in 1 of 5 frames and lost, track 1 in all and found, track 2 never."""
    xy, seen, queries = tracks()
    seen[2:, 0] = seen[1:, 2] = False
    answer = xy + np.array([50, 0, 0])[:, None]
    official = metrics.tapvid_metrics(answer, seen, xy, seen, queries)
    same(official, {"delta_avg": 5 / 6, "jaccard_1": 5 / 7, "occlusion_accuracy": 1})
    paper = metrics.tapvid_metrics(answer, seen, xy, seen, queries, averaging="paper")
    same(paper, {"delta_avg": 1 / 2, "jaccard_1": 1 / 2, "occlusion_accuracy": 1})


def test_tapvid_equals_the_official_values():
    names = [
        "occlusion_accuracy",
        *(f"{kind}_{t}" for kind in ("delta", "jaccard") for t in metrics.THRESHOLDS),
    ]
    names += ["delta_avg", "average_jaccard"]
    stored = {k: OFFICIAL[f"tapvid_{k}"] for k in ("tracks", "true", "visible", "true_visible", "query_t")}
    used = dict.fromkeys(stored, 0)

    def take(key: str, *shape: int) -> np.ndarray:
        used[key] += math.prod(shape)
        return stored[key][used[key] - math.prod(shape) : used[key]].reshape(shape)

    sizes = zip(*(OFFICIAL[f"tapvid_{k}"].tolist() for k in ("T", "N", "strided")))
    for (T, N, strided), values in zip(sizes, OFFICIAL["tapvid_values"].reshape(-1, 13), strict=True):
        xy, seen = take("tracks", T, N, 2), take("visible", T, N)
        queries = np.pad(take("query_t", N, 1).astype(float), ((0, 0), (0, 2)))
        truth, mode = (take("true", T, N, 2), take("true_visible", T, N)), "strided" if strided else "first"
        same(metrics.tapvid_metrics(xy, seen, *truth, queries, mode), dict(zip(names, values)))
    assert used == {k: len(v) for k, v in stored.items()}


def test_tapvid_takes_tensors():
    xy, seen, queries = (torch.from_numpy(v) for v in tracks())
    assert metrics.tapvid_metrics(xy.float(), seen, xy.float(), seen, queries)["average_jaccard"] == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"true_tracks": np.zeros((5, 3, 2))},
            r"true_tracks should be \(6, 3, 2\) like tracks, got \(5, 3, 2\)",
        ),
        ({"visible": np.ones((6, 2), bool)}, r"tapvid_metrics: visible should be \(6, 3\) like tracks, got"),
        ({"valid": np.ones((3, 6), bool)}, r"valid should be \(6, 3\)"),
        ({"query_points": np.zeros((2, 3))}, r"query_points should be \(3, 3\) like tracks, got \(2, 3\)"),
        ({"query_points": np.full((3, 3), 6.0)}, r"queries should be at 0 <= t < T=6, got \[6\.0"),
        ({"query_mode": "last"}, "query_mode should be first or strided, got last"),
        ({"averaging": "mean"}, "averaging should be official or paper, got mean"),
    ],
)
def test_tapvid_errors(change, message):
    xy, seen, queries = tracks()
    given = {"tracks": xy, "visible": seen, "true_tracks": xy, "true_visible": seen, "query_points": queries}
    with pytest.raises(ValueError, match=message):
        door(metrics.tapvid_metrics)(**(given | change))


def test_joint_box_scale():
    joints = np.array([[[0, 0], [30, 40], [999, 999]], [[1, 2], [3, 4], [5, 6]]], np.float64)
    valid = np.array([[True, True, False], [False, False, False]])
    assert metrics.joint_box_scale(joints, valid)[0] == pytest.approx(0.6 * 50)
    assert np.isnan(metrics.joint_box_scale(joints, valid)[1])


def test_mask_scale():
    masks = np.stack([square(3, 4) * 7, square(0, 0, 0), np.full((37, 53), -1)]).astype(np.int64)
    assert metrics.mask_scale(masks)[0] == 10
    assert np.isnan(metrics.mask_scale(torch.from_numpy(masks))[1:]).all()


def test_counted_joints():
    visible = np.array([[1, 1, 0], [1, 1, 1], [0, 1, 1]], bool)
    valid = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]], bool)
    assert metrics.counted_joints(visible, valid, "strict").tolist() == [[0, 0, 0], [1, 0, 0], [0, 1, 0]]
    assert metrics.counted_joints(visible, valid, "pips").tolist() == [[0, 0, 0], [1, 0, 1], [0, 1, 1]]
    assert metrics.counted_joints(visible, valid, "paper").tolist() == [[1, 1, 0], [1, 0, 1], [0, 1, 1]]
    with pytest.raises(ValueError, match="protocol should be strict, pips or paper, got lax"):
        metrics.counted_joints(visible, valid, "lax")


def test_pck_by_hand():
    """Limits of 2 and 4 px; joint 0 off by 1 and 4, joint 1 by 2 and 3, its first not counted."""
    truth = np.zeros((2, 2, 2))
    joints = np.array([[[1, 0], [2, 0]], [[0, 4], [0, -3]]], np.float64)
    counted = np.array([[True, False], [True, True]])
    scores = metrics.pck(joints, truth, counted, np.array([10.0, 20.0]), alpha=0.2)
    same(scores, {"pck": 2 / 3, "pck_joint_mean": (1 / 2 + 1) / 2, "count": 3})
    scores = metrics.pck(joints, truth, counted, np.array([10.0, 20.0]), alpha=0.2, inclusive=True)
    same(scores, {"pck": 1, "pck_joint_mean": 1, "count": 3})


def test_pck_degenerate():
    truth, counted = np.zeros((2, 2, 2)), np.ones((2, 2), bool)
    nothing = {"pck": NAN, "pck_joint_mean": NAN, "count": 0}
    same(metrics.pck(truth, truth, ~counted, np.ones(2)), nothing)
    same(metrics.pck(truth, truth, counted, np.full(2, NAN)), nothing)
    same(metrics.pck(truth, truth, counted, np.array([NAN, 5])), {"pck": 1, "count": 2})
    same(metrics.pck(truth + NAN, truth, counted, np.ones(2)), {"pck": 0, "count": 4})
    with pytest.raises(ValueError, match=r"pck: scale should be \(2,\) like joints, got \(3,\)"):
        door(metrics.pck)(truth, truth, counted, np.ones(3))


def test_jaccard():
    assert metrics.jaccard(square(0, 0), square(0, 5)) == pytest.approx(50 / 150)
    empty = square(0, 0, 0)
    pairs = [
        (empty, empty),
        (empty, square(0, 0)),
        (square(3, 4), square(3, 4)),
        (square(0, 0), square(20, 20)),
    ]
    assert metrics.jaccard(*(np.stack(m) for m in zip(*pairs))).tolist() == [1, 0, 1, 0]
    with pytest.raises(ValueError, match=r"jaccard: true_mask should be \(37, 53\) like mask, got \(37, 50\)"):
        door(metrics.jaccard)(empty, empty[:, :50])


def test_boundary_f_matches_within_the_radius_only():
    """37 x 53 has a diagonal of 64.6 and a radius of 1: a shift by 1 is forgiven, by 2 mostly not."""
    assert metrics.boundary_f(square(10, 10), square(10, 10)) == 1
    assert metrics.boundary_f(square(10, 10), square(10, 11)) == 1
    # The boundary is a ring of 11 x 11 without its middle, 40 pixels. Shifted by two, it keeps
    # of the top and bottom rows 9 pixels and the one beside, and nothing of the sides but their ends.
    assert 0.4 < metrics.boundary_f(square(10, 10), square(10, 12)) < 0.6
    assert metrics.boundary_f(square(10, 10), square(12, 12)) < 0.2
    big = (480, 640)  # a radius of ceil(0.008 x 800) = 7
    assert metrics.boundary_f(square(100, 100, 90, big), square(107, 100, 90, big)) == 1
    assert metrics.boundary_f(square(100, 100, 90, big), square(108, 100, 90, big)) < 1


def test_boundary_f_degenerate():
    empty, full = np.zeros((37, 53), bool), np.ones((37, 53), bool)
    assert metrics.boundary_f(empty, empty) == 1
    assert metrics.boundary_f(full, empty) == 1  # the frame's edge is no boundary
    assert metrics.boundary_f(square(5, 5), empty) == 0
    assert metrics.boundary_f(empty, square(5, 5)) == 0
    assert metrics.boundary_f(square(2, 2, 4), square(25, 40, 4)) == 0
    with pytest.raises(ValueError, match=r"boundary_f: true_mask should be \(37, 53\) like mask, got \(36, 53\)"):
        door(metrics.boundary_f)(empty, empty[1:])


def masks_of(*sides: int) -> np.ndarray:
    """Two objects a frame: one square that is there or not (side 0), one that always is."""
    return np.stack([square(3, 4, side) + 2 * square(20, 30) for side in sides]).astype(np.int64)


def test_j_and_f_drops_the_first_and_the_last_frame():
    truth = masks_of(10, 10, 10, 10)
    answer = truth.copy()
    answer[[0, -1]] = 0
    same(metrics.j_and_f(answer, truth), {"j_and_f": 1, "jaccard_recall": 1, "num_objects": 2, "num_frames": 2})


def test_j_and_f_by_hand():
    """Object 1 is lost from the fourth of eight scored frames on, object 2 kept: decays of 1 and 0."""
    truth, answer = masks_of(*[10] * 10), masks_of(*[10] * 4, *[0] * 6)
    expected = {"jaccard": (3 / 8 + 1) / 2, "jaccard_recall": (3 / 8 + 1) / 2, "jaccard_decay": 1 / 2}
    expected |= {"boundary_f": 11 / 16, "boundary_f_recall": 11 / 16, "boundary_f_decay": 1 / 2}
    same(metrics.j_and_f(answer, truth), expected | {"j_and_f": 11 / 16, "num_frames": 8})


def test_j_and_f_decay_of_a_clip_longer_than_a_byte():
    truth, answer = masks_of(*[10] * 602), masks_of(*[10] * 302, *[0] * 300)
    assert metrics.j_and_f(answer[:, :20, :20], truth[:, :20, :20])["jaccard_decay"] == 1


def test_j_and_f_skips_frames_without_a_mask():
    truth, answer = masks_of(*[10] * 6), masks_of(10, 10, 0, 10, 10, 10)
    same(metrics.j_and_f(answer, truth), {"jaccard": 7 / 8, "num_frames": 4})
    truth[2] = -1
    same(metrics.j_and_f(answer, truth), {"jaccard": 1, "num_frames": 3})


def test_j_and_f_degenerate():
    names = ("jaccard", "jaccard_decay", "boundary_f_recall", "j_and_f")
    for T in (1, 2):
        scores = metrics.j_and_f(masks_of(*[10] * T), masks_of(*[10] * T))
        same(scores, dict.fromkeys(names, NAN) | {"num_frames": 0, "num_objects": 2})
    empty = np.zeros((5, 37, 53), np.int64)
    same(metrics.j_and_f(empty, empty), dict.fromkeys(names, NAN) | {"num_objects": 0, "num_frames": 3})
    same(metrics.j_and_f(masks_of(10, 10, 10) * 0, masks_of(10, 0, 0)), {"jaccard": 1 / 2, "jaccard_decay": 0})


def test_j_and_f_errors():
    with pytest.raises(ValueError, match="ids should be at most 2 as in frame 0, got 3"):
        metrics.j_and_f(masks_of(10, 10, 10) + 1, masks_of(10, 10, 10))
    with pytest.raises(ValueError, match=r"true_masks should be \(3, 37, 53\) like masks, got \(2, 37, 53\)"):
        door(metrics.j_and_f)(masks_of(1, 1, 1), masks_of(1, 1))


def test_j_and_f_equals_the_official_values():
    names = [f"{kind}{end}" for kind in ("jaccard", "boundary_f") for end in ("", "_recall", "_decay")]
    start = 0
    for shape, values in zip(OFFICIAL["davis_shape"].reshape(-1, 3), OFFICIAL["davis_values"].reshape(-1, 6)):
        stop = start + math.prod(shape.tolist())
        answer, truth = (OFFICIAL[f"davis_{k}"][start:stop].reshape(shape) for k in ("masks", "true"))
        same(metrics.j_and_f(answer, truth), dict(zip(names, values)))
        start = stop
    assert start == len(OFFICIAL["davis_masks"])


def test_flow_metrics_by_hand():
    """Errors of 0.5, 1, 5 of 100 px (no outlier), 3 of 5 (none), 3.5 of 10, 9 where nothing is known."""
    truth = np.array([[[5, 5, 100, 5, 10, 0]], [[0] * 6]], np.float64)
    flow = truth + np.array([[[0.5, 1, 5, 3, 3.5, 9]], [[0] * 6]])
    scores = metrics.flow_metrics(flow, truth, np.array([[True] * 5 + [False]]))
    same(scores, {"epe": 13 / 5, "px1": 1 / 5, "fl_all": 1 / 5, "count": 5})
    diagonal = metrics.flow_metrics(torch.tensor([3.0, 4.0]).reshape(2, 1, 1), torch.zeros(2, 1, 1), np.array([[True]]))
    same(diagonal, {"epe": 5, "px1": 0, "fl_all": 1})


def test_flow_metrics_degenerate():
    flow, valid = np.zeros((2, 3, 5)), np.zeros((3, 5), bool)
    same(metrics.flow_metrics(flow, flow, valid), {"epe": NAN, "px1": NAN, "fl_all": NAN, "count": 0})
    same(metrics.flow_metrics(flow, flow, ~valid), {"epe": 0, "px1": 1, "fl_all": 0, "count": 15})
    with pytest.raises(ValueError, match=r"flow_metrics: valid should be \(3, 5\) like flow, got \(5, 3\)"):
        door(metrics.flow_metrics)(flow, flow, valid.T)


def test_paired_difference_by_hand():
    scores = metrics.paired_difference(np.array([3.0, 5, 4, NAN]), np.array([2.0, 2, 2, 9]))
    same(scores, {"mean": 2, "standard_error": 1 / math.sqrt(3), "count": 3})
    assert 1 <= scores["low"] < 2 < scores["high"] <= 3


def test_paired_difference_is_repeatable_and_covers():
    """A constant cancels in the pairs; the interval is about the mean +- 1.96 standard errors."""
    generator = np.random.default_rng(0)
    b = generator.normal(0, 100, 400)
    a = b + generator.normal(1, 2, 400)
    scores = metrics.paired_difference(a, b)
    assert scores == metrics.paired_difference(a, b)
    other = metrics.paired_difference(a, b, generator=torch.Generator().manual_seed(1))
    assert (other["low"], other["high"]) != (scores["low"], scores["high"])
    for bound, sign in (("low", -1), ("high", 1)):
        assert scores[bound] == pytest.approx(scores["mean"] + sign * 1.96 * scores["standard_error"], abs=0.03)


def test_paired_difference_degenerate():
    one = metrics.paired_difference(np.array([2.0]), np.array([0.5]))
    same(one, {"mean": 1.5, "standard_error": NAN, "low": 1.5, "high": 1.5, "count": 1})
    same(metrics.paired_difference(np.zeros(0), np.zeros(0)), {"mean": NAN, "low": NAN, "count": 0})
    with pytest.raises(ValueError, match=r"paired_difference: b should be \(3,\) like a, got \(2,\)"):
        door(metrics.paired_difference)(np.zeros(3), np.zeros(2))
