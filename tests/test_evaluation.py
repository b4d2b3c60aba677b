"""Scores come out of files, whoever wrote them, by the rules of each benchmark."""

import numpy as np
import pytest
import torch
from test_datasets import ids, write_davis

from corrlib import baselines, benchmarks, evaluation, extremes, metrics, predictions
from corrlib.methods import Method
from corrlib.samples import PointTracks

STATIC = Method(baselines.track_static, baselines.propagate_masks_static)


@pytest.fixture(scope="module")
def tasks():
    return benchmarks.procedural_val(num_clips=2, num_frames=4, size=64, num_points=12)


def perfect(tasks):
    """A tracker that knows the truth of the clips, by their first frame."""
    clips = [task.read()[0] for task in tasks]

    def tracker(video, query_points):
        clip = next(c for c in clips if torch.equal(c.video, video))
        return PointTracks(clip.tracks, clip.visible, clip.visible.float())

    return Method(tracker)


def test_predict_then_score(tasks, tmp_path):
    predictions.predict({"truth_told": perfect(tasks), "static": STATIC}, tasks, tmp_path)
    scores = evaluation.score(tmp_path, "procedural")
    assert set(scores) == {"truth_told", "static"} and set(scores["static"]) == {"000", "001"}
    assert all(clip["delta_avg"] == clip["average_jaccard"] == 1 for clip in scores["truth_told"].values())
    assert all(clip["delta_avg"] < 1 for clip in scores["static"].values())
    assert evaluation.score(tmp_path, "procedural", clips=["001"])["static"].keys() == {"001"}


def test_anyone_s_predictions_can_be_scored(tasks, tmp_path):
    predictions.predict({"static": STATIC}, tasks, tmp_path)
    clip = tasks[0].read()[0]
    np.savez(tmp_path / "procedural" / "000.mine.npz", tracks=clip.tracks + 1.5, visible=clip.visible)
    mine = evaluation.score(tmp_path, "procedural")["mine"]["000"]
    # 1.5 px on each axis at 64 lines are 8.5 px at 256.
    assert mine["delta_8"] == 0 and mine["delta_16"] == 1
    path = tmp_path / "procedural" / "001.mine.npz"
    np.savez(path, tracks=np.zeros((3, 1, 2)), visible=np.ones((3, 1)))
    with pytest.raises(ValueError, match=r"001\.mine\.npz should hold tracks \(4, 12, 2\), got \(3, 1, 2\)"):
        evaluation.score(tmp_path, "procedural")
    np.savez(path, tracks=np.zeros((4, 12, 2)))
    with pytest.raises(ValueError, match=r"001\.mine\.npz should be an \.npz of arrays tracks, visible, got 'visible"):
        evaluation.score(tmp_path, "procedural")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"001\.mine\.npz should be an \.npz"):
        evaluation.score(tmp_path, "procedural")


def test_score_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match="no predictions in"):
        evaluation.score(tmp_path, "procedural")
    with pytest.raises(ValueError, match="protocol should be official or paper, got 'mine'"):
        evaluation.score(tmp_path, "procedural", protocol="mine")
    with pytest.raises(ValueError, match="query_mode should be first or strided, got 'last'"):
        evaluation.score(tmp_path, "procedural", query_mode="last")


def test_tapvid_thresholds_are_pixels_of_squashed_frames():
    """A frame of 128 x 512: 3 px to the right are 1.5 of 256 columns, 3 px down are 6 of 256 lines."""
    truth = {"tracks": np.zeros((2, 2, 2)), "visible": np.ones((2, 2), bool), "valid": np.ones((2, 2), bool)}
    truth |= {"query_points": np.zeros((2, 3)), "size_hw": np.array([128, 512])}
    found = {"tracks": np.array([[[0, 0], [0, 0]], [[3, 0], [0, 3]]], float), "visible": truth["visible"]}
    squashed = evaluation.score_clip("tapvid_davis", found, truth)
    assert [squashed[f"delta_{t}"] for t in (1, 2, 4, 8)] == [0, 0.5, 0.5, 1]
    lines = evaluation.score_clip("procedural", found, truth)
    assert [lines[f"delta_{t}"] for t in (1, 2, 4, 8)] == [0, 0, 0, 1]


def test_the_paper_s_averaging_stands_beside_the_official_one():
    """One point right in one scored frame, another wrong in three: pooled 1/4, by track 1/2."""
    seen = np.ones((4, 2), bool)
    truth = {"tracks": np.zeros((4, 2, 2)), "visible": seen, "valid": seen, "size_hw": np.array([256, 256])}
    truth["query_points"] = np.array([[2.0, 0, 0], [0, 0, 0]])
    found = {"tracks": np.zeros((4, 2, 2)), "visible": seen}
    found["tracks"][1:, 1] = 99
    scored = evaluation.score_clip("tapvid_davis", found, truth, protocol="paper")
    assert scored["delta_avg"] == 0.25 and scored["delta_avg_paper"] == 0.5
    assert "delta_avg_paper" not in evaluation.score_clip("tapvid_davis", found, truth)


def joints_truth(size_hw=(256, 256), **changes):
    """Two joints asked in frame 1, of a person 10 px long; the second is hidden in the last frame."""
    seen = np.array([[False, False], [True, True], [True, True], [True, False]])
    truth = {"tracks": np.zeros((4, 2, 2)), "visible": seen, "valid": seen, "labelled": seen}
    truth |= {"scale": np.full(4, 10.0), "joints": np.array([3, 7]), "size_hw": np.array(size_hw)}
    return truth | {"query_points": np.array([[1.0, 0, 0], [1.0, 0, 0]])} | changes


def test_joints_are_scored_after_the_frame_they_are_asked_in():
    """One is 3 px off afterwards."""
    truth = joints_truth()
    found = {"tracks": np.zeros((4, 2, 2)), "visible": truth["visible"]}
    found["tracks"][2:, 0, 0] = 3.0
    scored = evaluation.score_clip("badja", found, truth, protocol="paper")
    assert scored["pck_2"] == pytest.approx(1 / 3) and scored["pck_4"] == 1
    assert scored["delta_2"] == pytest.approx(1 / 3) and scored["delta_4"] == 1
    assert scored["pck_2_pips"] == pytest.approx(1 / 3)
    # The paper counts the frame of the query, and squashes to 320 x 512: 3 px wide become 6, 10 px long 15.8.
    assert scored["pck_2_paper"] == pytest.approx(3 / 5) and scored["pck_4_paper"] == 1
    assert scored["pck_3_paper"] == pytest.approx(3 / 5)


def test_joints_hidden_when_asked_count_for_pips_and_the_paper_alone():
    hidden = np.array([[False, False], [True, False], [True, True], [True, True]])
    fair = hidden & hidden[1]
    truth = joints_truth(visible=hidden, valid=fair, labelled=np.ones((4, 2), bool))
    found = {"tracks": np.zeros((4, 2, 2)), "visible": hidden}
    found["tracks"][2:, 1] = 99
    scored = evaluation.score_clip("badja", found, truth, protocol="paper")
    assert scored["pck_2"] == 1 and scored["pck_2_pips"] == 0.5 and scored["pck_2_paper"] == pytest.approx(3 / 5)


def test_jhmdb_s_limit_belongs_to_it_and_badja_s_does_not():
    found = {"tracks": np.zeros((4, 2, 2)), "visible": joints_truth()["visible"]}
    found["tracks"][2:, 0, 0] = 2.0
    assert evaluation.score_clip("jhmdb", found, joints_truth())["pck_2"] == 1
    assert evaluation.score_clip("badja", found, joints_truth())["pck_2"] == pytest.approx(1 / 3)


def test_joints_are_pooled_as_the_official_functions_do_on_all_clips_at_once():
    """Against metrics.pck on the concatenation; the clips have other lengths and other joints missing."""
    g = np.random.default_rng(0)
    clips, everything = {}, []
    for name, T in (("a", 5), ("b", 9)):
        true, mine = g.uniform(0, 50, (2, T, 4, 2))
        mine = true + (mine - 25) / 10
        visible = g.random((T, 4)) < 0.8
        visible[0] = [True, True, name == "a", True]
        truth = joints_truth(tracks=true, visible=visible, valid=visible, labelled=np.ones((T, 4), bool))
        truth |= {"scale": g.uniform(5, 20, T), "joints": np.arange(4), "query_points": np.zeros((4, 3))}
        clips[name] = evaluation.score_clip("jhmdb", {"tracks": mine, "visible": visible}, truth, protocol="paper")
        everything.append((mine, true, visible, truth["scale"]))
    for protocol, key, inclusive in (("strict", "pck_2", True), ("paper", "pck_2_paper", False)):
        counted = np.concatenate([metrics.counted_joints(v, np.ones_like(v), protocol) for _, _, v, _ in everything])
        mine, true, _, scale = (np.concatenate(parts) for parts in zip(*everything))
        expected = metrics.pck(mine, true, counted, scale, 0.2, inclusive)
        found = evaluation.summarise({"m": clips}, "jhmdb")[f"jhmdb.m.{key}"]["value"]
        assert found == pytest.approx(expected["pck_joint_mean"], abs=1e-12)
        assert found != pytest.approx(np.mean([clip[key] for clip in clips.values()]), abs=1e-3)
        if protocol == "paper":
            assert evaluation._over_clips("badja", key, list(clips.values()))[0] == pytest.approx(expected["pck"])


def test_points_on_the_object_they_are_asked_on():
    """The first object leaves in the last frame, the second's mask is not given in frame 1."""
    masks = np.zeros((3, 20, 30), int)
    masks[:2, 5:10, 5:10], masks[[0, 2], 12:18, 20:28] = 1, 2
    tracks = np.array([[[6, 6], [7, 7], [22, 14]], [[6.4, 9.4], [9.6, 7], [np.nan, 0]], [[22, 14], [7, 7], [27, 17]]])
    truth = {"masks": masks, "query_points": np.array([[0, 6, 6], [0, 7, 7], [0, 22, 14]])}
    scored = evaluation._score_regions({"tracks": tracks}, truth)
    assert scored == {"points_in_mask": pytest.approx(2 / 3), "count": 3}
    masks[1:] = 0
    gone = evaluation._score_regions({"tracks": tracks}, truth)
    assert np.isnan(gone["points_in_mask"]) and gone["count"] == 0


def test_flow_is_scored_by_its_end_points():
    true = np.array([[[5.0, 5.0], [8.0, 8.0]], [[9.0, 5.0], [8.0, 8.0]]])
    found = true.copy()
    found[1, 0, 1] += 4.0
    scored = evaluation.score_clip("kitti", {"tracks": found}, {"tracks": true})
    assert scored["epe"] == 2 and scored["px1"] == scored["fl_all"] == 0.5


@pytest.fixture
def davis(tmp_path):
    """Two clips of one and of two objects that stay, and predictions of them, static and with one frame empty."""
    write_davis(tmp_path / "data", "one", [ids(0, 1)] * 6)
    write_davis(tmp_path / "data", "two", [ids(0, 1, 2)] * 6)
    (tmp_path / "data/DAVIS/ImageSets/2017").mkdir(parents=True)
    (tmp_path / "data/DAVIS/ImageSets/2017/val.txt").write_text("one\ntwo\n")

    def forgetful(video, mask):
        masks = baselines.propagate_masks_static(video, mask)
        masks[2] = 0
        return masks

    tasks = benchmarks.tasks("davis2017", tmp_path / "data")
    methods = {"static": STATIC, "forgetful": STATIC._replace(masks=forgetful), "lk": Method(baselines.track_static)}
    predictions.predict(methods, tasks, tmp_path / "out")
    return tmp_path / "out", tasks


def test_masks_are_scored_from_images_without_a_model(davis):
    scores = evaluation.score(davis[0], "davis2017")
    assert scores["static"]["two"]["j_and_f"] == 1 == scores["static"]["two"]["points_in_mask"]
    # Of four scored frames one is empty.
    assert scores["forgetful"]["one"]["jaccard"] == scores["forgetful"]["one"]["jaccard_recall"] == 0.75
    assert "j_and_f" not in scores["lk"]["one"] and scores["lk"]["one"]["points_in_mask"] == 1


def test_anyone_s_masks_can_be_scored(davis, tmp_path):
    """A folder of results as DAVIS's own evaluation takes it, of the colours of another palette or grey."""
    import cv2

    for clip, mask in (("one", ids(0, 1)), ("two", ids(0, 1, 1))):
        folder = davis[0] / "davis2017" / "theirs" / clip
        folder.mkdir(parents=True)
        for t in range(6):
            cv2.imwrite(str(folder / f"{t:05d}.png"), mask.astype(np.uint8))
    scores = evaluation.score(davis[0], "davis2017")["theirs"]
    assert scores["one"]["jaccard"] == 1 and scores["two"]["jaccard"] == pytest.approx(18 / 35 / 2)
    (folder / "00003.png").unlink()
    with pytest.raises(ValueError, match=r"theirs/two should hold 6 images like the truth, got 5"):
        evaluation.score(davis[0], "davis2017")


def test_davis_2017_is_a_mean_over_objects(davis):
    def clip(value, objects):
        return {"j_and_f": value, "num_objects": objects}

    found = evaluation.summarise({"m": {"one": clip(1.0, 1), "two": clip(0.4, 2)}}, "davis2017")
    assert found["davis2017.m.j_and_f"] == {"value": pytest.approx(0.6), "unit": "fraction", "count": 2}
    summary = evaluation.summarise(evaluation.score(davis[0], "davis2017"), "davis2017", against=["static"])
    assert summary["davis2017.forgetful.j_and_f_minus_static"]["value"] < 0
    assert "davis2017.lk.j_and_f" not in summary and "davis2017.lk.j_and_f_minus_static" not in summary
    assert summary["davis2017.lk.points_in_mask_minus_static"]["value"] == 0


def test_summary_has_means_and_paired_differences():
    def clips(*values):
        return {f"{i}": {"delta_avg": v, "occlusion_accuracy": float("nan")} for i, v in enumerate(values)}

    scores = {"model": clips(0.8, 0.6), "dis_medium": clips(0.5, 0.5)}
    found = evaluation.summarise(scores, "procedural")
    assert found["procedural.model.delta_avg"] == {"value": pytest.approx(0.7), "unit": "fraction", "count": 2}
    start = "procedural.model.delta_avg_minus_dis_medium"
    value, error, low, high = (found[start + end]["value"] for end in ("", "_se", "_low", "_high"))
    assert value == pytest.approx(0.2) and error == pytest.approx(0.1) and (low, high) == pytest.approx((0.1, 0.3))
    assert np.isnan(found["procedural.model.occlusion_accuracy"]["value"])
    assert "procedural.dis_medium.delta_avg_minus_dis_medium" not in found


def test_the_joints_of_a_single_clip_are_compared_one_by_one():
    truth = joints_truth()
    right = {"tracks": truth["tracks"], "visible": truth["visible"]}
    off = {"tracks": truth["tracks"].copy(), "visible": truth["visible"]}
    off["tracks"][:, 0] += 100.0
    scores = {"right": {"bear": evaluation.score_clip("badja", right, truth)}, "static": {}}
    scores["static"]["bear"] = evaluation.score_clip("badja", off, truth)
    found = evaluation.summarise(scores, "badja", against=["static"])
    joints = truth["tracks"].shape[1]
    start = "badja.right.delta_avg_minus_static"
    assert found[start] == {"value": pytest.approx(1 / joints), "unit": "fraction", "count": joints}
    assert found[f"{start}_se"]["value"] == pytest.approx(1 / joints)  # of a one among zeros
    assert found["badja.right.delta_avg"]["value"] == 1 and found["badja.right.delta_avg"]["count"] == 1
    alone = {"right": {"one": {"delta_avg": 1.0}}, "static": {"one": {"delta_avg": 0.0}}}
    assert f"{start}_se" not in evaluation.summarise(alone, "badja", against=["static"])


def test_kitti_is_a_mean_over_pixels():
    scores = {"m": {"a": {"epe": 1.0, "fl_all": 0.0, "count": 30}, "b": {"epe": 5.0, "fl_all": 1.0, "count": 10}}}
    found = evaluation.summarise(scores, "kitti")
    assert found["kitti.m.epe"]["value"] == 2 and found["kitti.m.fl_all"]["value"] == 0.25


def test_sintel_has_a_number_a_pass():
    scores = {"m": {"clean/a/frame_0001": {"epe": 1.0}, "final/a/frame_0001": {"epe": 5.0}}}
    found = {k.split(".")[2]: entry["value"] for k, entry in evaluation.summarise(scores, "sintel").items()}
    assert found == {"epe": 3, "epe_clean": 1, "epe_final": 5}
    del scores["m"]["clean/a/frame_0001"]
    assert "sintel.m.epe_clean" not in evaluation.summarise(scores, "sintel")


def test_extremes_draw_the_best_and_the_worst(davis, tasks, tmp_path):
    folder, clips = davis
    scores = evaluation.score(folder, "davis2017")
    scores["static"]["one"]["j_and_f"] = 0.25
    fig, said = extremes.best_and_worst(clips, scores, folder, "static")
    assert [ax.get_title() for ax in fig.axes] == ["two, frame 5: 1", "one, frame 5: 0.25"]
    assert said == "davis2017: of 2 clips, static is best on two (1), worst on one (0.25) in j_and_f."
    scores["static"]["one"]["j_and_f"] = float("nan")
    assert len(extremes.best_and_worst(clips, scores, folder, "static")[0].axes) == 1
    predictions.predict({"static": STATIC}, tasks, tmp_path / "points")
    scores = evaluation.score(tmp_path / "points", "procedural")
    fig, _ = extremes.best_and_worst(tasks, scores, tmp_path / "points", "static")
    assert len(fig.axes) == 2 and fig.axes[0].lines


def test_confidences_leave_out_where_a_point_is_asked(tasks, tmp_path):
    predictions.predict({"static": STATIC}, tasks, tmp_path)
    sure, seen = evaluation.confidences(tasks, tmp_path, "static")
    clips = [task.read()[0] for task in tasks]
    counted = [clip.valid.sum() - len(clip.query_points) for clip in clips]
    assert len(sure) == len(seen) == sum(counted)
    assert seen.sum() == sum((clip.visible & clip.valid).sum() - len(clip.query_points) for clip in clips)
    answers = torch.cat([predictions.read_points(tmp_path, task, "static").confidence.flatten() for task in tasks])
    assert sure.sum() == pytest.approx(float(answers.sum()) - sum(len(clip.query_points) for clip in clips))


def test_points_found_again_are_pooled_over_clips():
    clips = {"one": {"regained": 1.0, "regained_count": 1}, "two": {"regained": 0.0, "regained_count": 3}}
    clips["none"] = {"regained": float("nan"), "regained_count": 0}
    found = evaluation.summarise({"m": clips}, "procedural_long")["procedural_long.m.regained"]
    assert found["value"] == 0.25 and found["count"] == 4
