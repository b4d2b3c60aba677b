"""Evaluation: predictions are files, scores come out of files, and a second start goes on."""

import numpy as np
import pytest
import torch

from corrlib import baselines, benchmarks, evaluation
from corrlib.samples import PointTracks


@pytest.fixture(scope="module")
def tasks():
    return benchmarks.procedural_val(num_clips=2, num_frames=4, size=64, num_points=12)


def perfect(tasks):
    """A tracker that knows the truth of the clips, by their first frame."""
    clips = [task.read()[0] for task in tasks]

    def tracker(video, query_points):
        clip = next(c for c in clips if torch.equal(c.video, video))
        return PointTracks(clip.tracks, clip.visible, clip.visible.float())

    return tracker


def test_predict_then_score(tasks, tmp_path):
    evaluation.predict({"truth_told": perfect(tasks), "static": baselines.track_static}, tasks, tmp_path)
    scores = evaluation.score(tmp_path, "procedural")
    assert set(scores) == {"truth_told", "static"} and set(scores["static"]) == {"000", "001"}
    assert all(clip["delta_avg"] == clip["average_jaccard"] == 1 for clip in scores["truth_told"].values())
    assert all(clip["delta_avg"] < 1 for clip in scores["static"].values())


def test_a_second_start_tracks_only_what_is_missing(tasks, tmp_path):
    called = []

    def tracker(video, query_points):
        called.append(1)
        return baselines.track_static(video, query_points)

    evaluation.predict({"a": tracker}, tasks, tmp_path)
    first = {p.name: p.read_bytes() for p in (tmp_path / "procedural").iterdir()}
    (tmp_path / "procedural" / "001.a.npz").unlink()
    evaluation.predict({"a": tracker}, tasks, tmp_path)
    assert len(called) == 3
    assert evaluation.score(tmp_path, "procedural")["a"].keys() == {"000", "001"}
    assert {p.name for p in (tmp_path / "procedural").iterdir()} == set(first)


def test_anyone_s_predictions_can_be_scored(tasks, tmp_path):
    evaluation.predict({"static": baselines.track_static}, tasks, tmp_path)
    clip = tasks[0].read()[0]
    np.savez(
        tmp_path / "procedural" / "000.mine.npz",
        query_points=clip.query_points,
        tracks=clip.tracks + 1.5,
        visible=clip.visible,
        confidence=clip.visible.float(),
    )
    mine = evaluation.score(tmp_path, "procedural")["mine"]["000"]
    # 1.5 px on each axis at 64 lines are 8.5 px at 256.
    assert mine["delta_8"] == 0 and mine["delta_16"] == 1
    np.savez(tmp_path / "procedural" / "001.mine.npz", tracks=np.zeros((3, 1, 2)), visible=np.ones((3, 1)))
    with pytest.raises(ValueError, match=r"001\.mine\.npz should hold tracks \(4, 12, 2\), got \(3, 1, 2\)"):
        evaluation.score(tmp_path, "procedural")


def test_no_predictions(tmp_path):
    with pytest.raises(FileNotFoundError, match="no predictions in"):
        evaluation.score(tmp_path, "procedural")


def test_summary_has_means_and_paired_differences():
    def clips(*values):
        return {f"{i}": {"delta_avg": v, "occlusion_accuracy": float("nan")} for i, v in enumerate(values)}

    scores = {"model": clips(0.8, 0.6), "dis_medium": clips(0.5, 0.5)}
    found = evaluation.summarise(scores, "procedural")
    assert found["procedural.model.delta_avg"] == {"value": pytest.approx(0.7), "unit": "fraction", "count": 2}
    difference = found["procedural.model.delta_avg_minus_dis_medium"]
    assert difference["value"] == pytest.approx(0.2)
    assert np.isnan(found["procedural.model.occlusion_accuracy"]["value"])
    assert "procedural.dis_medium.delta_avg_minus_dis_medium" not in found


def test_the_benchmark_is_the_same_every_time():
    one, two = (benchmarks.procedural_val(num_clips=1, num_frames=2, size=48, num_points=4)[0].read()[0] for _ in "ab")
    assert torch.equal(one.video, two.video) and torch.equal(one.tracks, two.tracks)


def test_points_in_their_mask():
    masks = np.zeros((3, 20, 30), int)
    masks[:2, 5:10, 5:10] = 1  # the object is gone in the last frame
    tracks = np.array([[[6.0, 6.0], [7.0, 7.0]], [[6.4, 9.4], [9.6, 7.0]], [[6.0, 6.0], [7.0, 7.0]]])
    scored = evaluation._score_regions({"tracks": tracks}, {"masks": masks})
    assert scored == {"points_in_mask": 0.5, "count": 2}


def test_joints_are_scored_after_the_frame_they_are_asked_in():
    """Two joints asked in frame 1; one is 3 px off afterwards, of a person 10 px long."""
    true = np.zeros((4, 2, 2))
    found = true.copy()
    found[2:, 0, 0] = 3.0
    seen = np.array([[False, False], [True, True], [True, True], [True, False]])
    truth = {"tracks": true, "visible": seen, "valid": seen, "scale": np.full(4, 10.0)}
    truth |= {"query_points": np.array([[1.0, 0, 0], [1.0, 0, 0]]), "size_hw": np.array([256, 256])}
    scored = evaluation.score_clip("badja", {"tracks": found, "visible": seen}, truth)
    assert scored["pck_2"] == pytest.approx(1 / 3) and scored["pck_4"] == 1
    assert scored["delta_2"] == pytest.approx(1 / 3) and scored["delta_4"] == 1


def test_flow_is_scored_by_its_end_points():
    true = np.array([[[5.0, 5.0], [8.0, 8.0]], [[9.0, 5.0], [8.0, 8.0]]])
    found = true.copy()
    found[1, 0, 1] += 4.0
    scored = evaluation.score_clip("kitti", {"tracks": found}, {"tracks": true})
    assert scored["epe"] == 2 and scored["px1"] == scored["fl_all"] == 0.5


def test_every_baseline_is_a_method_and_others_are_refused():
    assert set(evaluation.methods()) >= {"dis_medium", "dis_fast", "sift", "patches", "lk", "farneback", "static"}
    with pytest.raises(ValueError, match="unknown method 'raft'"):
        evaluation.methods(["raft"])
