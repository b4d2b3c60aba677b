"""Benchmarks by name: what is there is used, what is missing is said."""

import pickle
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from test_datasets import ids, write_davis

from corrlib import benchmarks, coords, flow
from corrlib.samples import PoseClip


def test_tasks_of_the_procedural_benchmark():
    assert len(benchmarks.tasks("procedural", "nowhere")) == 32
    assert [t.name for t in benchmarks.tasks("procedural", "nowhere", max_clips=2)] == ["000", "001"]
    assert len(benchmarks.tasks("procedural", "nowhere", max_clips=99)) == 32  # there are no more
    with pytest.raises(ValueError, match="max_clips should be at least 0, got -1"):
        benchmarks.tasks("procedural", "nowhere", max_clips=-1)


SAMPLES = Path(__file__).with_name("procedural_samples.npz")


def samples():
    """A few frames of the procedural benchmarks, small."""
    small = {"num_frames": 2, "size": 96, "num_points": 4}
    found = [task.read()[0].video[1] for task in benchmarks.procedural_val(3, **small)]
    return torch.stack([*found, benchmarks.procedural_calib(1, **small)[0].read()[0].video[1]])


def test_the_benchmark_is_the_one_of_its_version():
    """Its pixels are the stored ones, to one grey level; if not, it is another benchmark and says so."""
    with np.load(SAMPLES) as stored:
        assert stored["version"] == benchmarks.procedural_version(), (
            "the procedural benchmarks have changed: store their samples by `python tests/test_benchmarks.py`"
        )
        off = (samples().int() - torch.from_numpy(stored["frames"]).int()).abs()
    # Compression may spread the last bit of a float over a block.
    assert (off <= 1).float().mean() > 0.998, "what is drawn has changed: raise synthetic.VERSION"


def test_the_version_knows_what_is_drawn(monkeypatch):
    before = benchmarks.procedural_version()
    assert len(before) == 8 and benchmarks.procedural_version() == before
    monkeypatch.setattr(benchmarks.synthetic, "VERSION", -1)
    assert benchmarks.procedural_version() != before


def test_held_out_is_held_out():
    """Neither photographs, nor procedural textures but one, nor most families of bodies are trained on."""
    from corrlib import synthetic, textures

    held_out, trained = synthetic.HELD_OUT, synthetic.Content()
    assert not set(textures.PHOTOGRAPHS["val"]) & set(textures.PHOTOGRAPHS["train"])
    assert set(textures.FAMILIES["val"]) & set(textures.FAMILIES["train"]) == {"fractal"}
    assert {"worm", "table"} <= {*held_out.articulated, *held_out.rigid} - {*trained.articulated, *trained.rigid}
    assert "ring" in set(held_out.outlines) - set(trained.outlines)


def test_motion_bins_follow_the_ladder():
    motions = [task.motion for task in benchmarks.procedural_val()]
    assert set(motions) == set(benchmarks.BINS) and motions == sorted(motions, key=list(benchmarks.BINS).index)


def test_points_of_long_clips_are_hidden_for_long_and_come_back():
    assert len(benchmarks.tasks("procedural_long", "nowhere")) == 12
    task = benchmarks.procedural_long(size=96)[6]
    clip, _ = task.read()
    assert len(clip.video) == 96
    returned = 0
    for visible in clip.visible.T:
        seen = visible.nonzero()[:, 0]
        returned += bool((seen.diff() > 10).any())
    assert returned >= 17  # of 128, so that there are at least 200 in the twelve clips


def test_fewer_clips_spread_over_all_speeds():
    def step(task):
        clip, _ = task.read()
        return (clip.tracks[1:] - clip.tracks[:-1]).norm(dim=-1).median()

    slow, fast = benchmarks.procedural_val(2, num_frames=3, size=64, num_points=16)
    assert step(fast) > 2 * step(slow)


def test_settings_are_chosen_on_clips_of_their_own():
    few, every = (benchmarks.tasks("procedural_calib", "nowhere", max_clips=most) for most in (3, 0))
    assert (len(few), len(every)) == (3, 16) and {task.benchmark for task in every} == {"procedural_calib"}


def test_tasks_error():
    with pytest.raises(
        ValueError,
        match=r"should be one of procedural, .*, real_motion, .*, flyingchairs, got 'davis'",
    ):
        benchmarks.tasks("davis", "nowhere")


def test_available_names_what_is_missing(tmp_path):
    found, missing = benchmarks.available(["procedural", "badja", "middlebury"], tmp_path, max_clips=1)
    assert list(found) == ["procedural"] and list(missing) == ["badja", "middlebury"]
    assert str(tmp_path) in missing["badja"] and "data/README.md" in missing["badja"]


def test_available_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"read BADJA: no .*read Middlebury: no "):
        benchmarks.available(["badja", "middlebury"], tmp_path)
    with pytest.raises(ValueError, match=r"should be some of procedural, .*, got none"):
        benchmarks.available([], tmp_path)


def test_flow_pairs_are_asked_where_their_flow_is_known(tmp_path):
    folder = tmp_path / "FlyingChairs" / "data"
    folder.mkdir(parents=True)
    picture = np.zeros((21, 30, 3), np.uint8)
    for name in ("img1", "img2"):
        cv2.imwrite(str(folder / f"00001_{name}.ppm"), picture)
    moved = torch.zeros(2, 21, 30)
    moved[0], moved[1] = 2.5, -1.0
    flow.write_flo(folder / "00001_flow.flo", moved)
    (task,) = benchmarks.tasks("flyingchairs", tmp_path)
    clip, known = task.read()
    assert known == {} and clip.video.shape == (2, 3, 21, 30)
    assert torch.equal(clip.tracks[1] - clip.tracks[0], torch.tensor([2.5, -1.0]).expand(48, 2))
    assert torch.equal(clip.tracks[0], clip.query_points[:, 1:])


def test_a_missing_pass_of_sintel_is_no_error(tmp_path):
    for render, scene in (("final", "b"),):
        for t in (1, 2):
            folder = tmp_path / "Sintel/training" / render / scene
            folder.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(folder / f"frame_{t:04d}.png"), np.full((21, 30, 3), t, np.uint8))
    with pytest.raises(FileNotFoundError, match=r"no .*Sintel/training/flow"):
        benchmarks.tasks("sintel", tmp_path)
    (tmp_path / "Sintel/training/flow/b").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=r"no clip of sintel under .*, though its folder is there"):
        benchmarks.tasks("sintel", tmp_path)
    flow.write_flo(tmp_path / "Sintel/training/flow/b/frame_0001.flo", torch.ones(2, 21, 30))
    (task,) = benchmarks.tasks("sintel", tmp_path)
    clip, _ = task.read()
    assert task.name == "final/b/frame_0001" and clip.video[1].unique().tolist() == [2]


def test_joints_are_asked_where_they_are_first_labelled(monkeypatch):
    visible = torch.tensor([[False, False, False], [True, False, True], [True, True, False]])
    joints = torch.arange(18.0).reshape(3, 3, 2)
    pose = PoseClip(torch.zeros(3, 3, 16, 20, dtype=torch.uint8), joints, visible, visible, torch.ones(3), "a")
    fake = SimpleNamespace(names=lambda root: ["a"], read=lambda root, name: pose)
    monkeypatch.setitem(benchmarks.POSE, "badja", fake)
    (task,) = benchmarks.tasks("badja", "nowhere")
    clip, known = task.read()
    assert clip.query_points.tolist() == [[1.0, 6.0, 7.0], [1.0, 10.0, 11.0]]
    assert torch.equal(clip.tracks, joints[:, [0, 2]]) and clip.valid.tolist() == visible[:, [0, 2]].tolist()
    assert torch.equal(known["scale"], torch.ones(3)) and known["joints"].tolist() == [0, 2]


def test_joints_that_are_hidden_are_asked_but_not_scored_as_points(monkeypatch):
    """Joint 1 has a position in frame 0 but is hidden; joint 2 lies outside of the frame."""
    visible = torch.tensor([[True, False, False], [True, True, True]])
    joints = torch.tensor([[3.0, 4.0], [5.0, 6.0], [99.0, 2.0]]).expand(2, 3, 2)
    pose = PoseClip(torch.zeros(2, 3, 16, 20, dtype=torch.uint8), joints, visible, visible | True, torch.ones(2), "a")
    fake = SimpleNamespace(names=lambda root: ["a"], read=lambda root, name: pose)
    monkeypatch.setitem(benchmarks.POSE, "jhmdb", fake)
    clip, known = benchmarks.tasks("jhmdb", "nowhere")[0].read()
    assert clip.query_points.tolist() == [[0, 3, 4], [0, 5, 6]] and known["joints"].tolist() == [0, 1]
    assert clip.valid.tolist() == [[True, False], [True, False]] and known["labelled"].all()
    assert clip.visible.tolist() == [[True, False], [True, True]]
    hidden = replace(pose, visible=torch.zeros(2, 3, dtype=torch.bool))
    monkeypatch.setattr(fake, "read", lambda root, name: hidden)
    with pytest.raises(ValueError, match="jhmdb a should have a joint that can be seen, got none"):
        benchmarks.tasks("jhmdb", "nowhere")[0].read()


@pytest.mark.parametrize("year", [2016, 2017])
def test_objects_have_points_each_on_its_own_mask(tmp_path, year):
    """A band each; the last object is too thin for the grid and has one point. 2016 knows one object."""
    first = ids(0)
    first[:, 2:10], first[:, 16:30], first[30:33, 40:42] = 1, 2, 3
    write_davis(tmp_path, "clip", [first, first])
    (tmp_path / f"DAVIS/ImageSets/{year}").mkdir(parents=True)
    (tmp_path / f"DAVIS/ImageSets/{year}/dev.txt").write_text("clip\n")
    (task,) = benchmarks.tasks(f"davis{year}", tmp_path, "dev")
    clip, known = task.read()
    t, x, y = clip.query_points.long().T
    on = known["masks"][0, y, x].tolist()
    assert t.tolist() == [0] * len(on) and known["masks"].max() == (1 if year == 2016 else 3)
    assert on == ([1] * 6 if year == 2016 else [1] * 3 + [2] * 3 + [3])
    with pytest.raises(ValueError, match=r"split should be one of dev \(in .*\), got val"):
        benchmarks.tasks(f"davis{year}", tmp_path)


def test_tapvid_queries_on_the_frame_s_edge_are_inside(tmp_path):
    """A raster position of 1 is half a pixel beyond the last one's centre."""
    clip = {"video": np.zeros((3, 8, 10, 3), np.uint8), "occluded": np.zeros((2, 3), bool)}
    clip["points"] = np.broadcast_to(np.array([[[1.0, 1.0]], [[0.0, 0.5]]]), (2, 3, 2))
    (tmp_path / "TAP-Vid").mkdir()
    (tmp_path / "TAP-Vid/tapvid_davis.pkl").write_bytes(pickle.dumps({"bear": clip}))
    (task,) = benchmarks.tasks("tapvid_davis", tmp_path, query_mode="strided")
    found, _ = task.read()
    assert task.asked == "strided" and coords.inside(found.query_points[:, 1:], (8, 10)).all()
    assert (found.query_points[:, 1:] - found.tracks[0]).abs().max() < 0.01


if __name__ == "__main__":
    np.savez_compressed(SAMPLES, version=benchmarks.procedural_version(), frames=samples().numpy())
