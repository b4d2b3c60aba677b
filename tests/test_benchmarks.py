"""Benchmarks by name: what is there is used, what is missing is said."""

from pathlib import Path
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


def test_tasks_error():
    with pytest.raises(
        ValueError, match=r"should be one of procedural, procedural_long, .*, flyingchairs, got 'davis'"
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


if __name__ == "__main__":
    np.savez_compressed(SAMPLES, version=benchmarks.procedural_version(), frames=samples().numpy())
