"""Benchmarks by name: what is there is used, what is missing is said."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from corrlib import benchmarks
from corrlib.samples import PoseClip


def test_tasks_of_the_procedural_benchmark():
    assert len(benchmarks.tasks("procedural", "nowhere")) == 32
    assert [t.name for t in benchmarks.tasks("procedural", "nowhere", max_clips=2)] == ["000", "001"]
    assert len(benchmarks.tasks("procedural", "nowhere", max_clips=99)) == 32  # there are no more


def test_fewer_clips_spread_over_all_speeds():
    def step(task):
        clip, _ = task.read()
        return (clip.tracks[1:] - clip.tracks[:-1]).norm(dim=-1).median()

    slow, fast = benchmarks.procedural_val(2, num_frames=3, size=64, num_points=16)
    assert step(fast) > 2 * step(slow)


def test_tasks_error():
    with pytest.raises(
        ValueError, match=r"should be one of procedural, real_texture, tapvid_davis, .*, flyingchairs, got 'davis'"
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
    from corrlib import flow

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
    assert torch.equal(known["scale"], torch.ones(3))
