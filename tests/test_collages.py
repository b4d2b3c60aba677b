"""Real objects on real frames: what was cut out is what is seen, and its motion is exact."""

import cv2
import numpy as np
import pytest
import torch

from corrlib import benchmarks, collages, coords, synthetic

SIZE = (60, 85)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A DAVIS-style folder of two clips: a red and a green ellipse, finely spotted, over grey noise."""
    root, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    base = root / "DAVIS"
    for name, colour in (("green", (40, 200, 40)), ("red", (40, 40, 200))):
        for kind in ("JPEGImages", "Annotations"):
            (base / kind / "480p" / name).mkdir(parents=True)
        for t in range(4):
            mask = np.zeros(SIZE, np.uint8)
            if t != 1:  # in frame 1 the object is gone
                cv2.ellipse(mask, (30 + 6 * t, 30), (18, 12), 20, 0, 360, 255, -1)
            ground = rng.integers(60, 140, SIZE)[..., None].repeat(3, axis=2)
            spots = rng.uniform(0.5, 1, SIZE)[..., None] * np.array(colour)
            frame = np.where(mask[..., None] > 0, spots, ground).astype(np.uint8)
            cv2.imwrite(str(base / "JPEGImages/480p" / name / f"{t:05d}.jpg"), frame, [cv2.IMWRITE_JPEG_QUALITY, 98])
            cv2.imwrite(str(base / "Annotations/480p" / name / f"{t:05d}.png"), mask)
    (base / "ImageSets/2016").mkdir(parents=True)
    (base / "ImageSets/2016/val.txt").write_text("green\nred\n")
    return root


def test_the_cut_out_is_the_object_and_nothing_else(root):
    picture = collages.cut_out(root, "red", 0.0)
    inside = picture[3] > 0.9
    assert 0.05 < inside.float().mean() < 0.2  # an ellipse in 44 % of the side
    red, green, _ = picture[:3, inside]
    assert (red > green + 0.2).float().mean() > 0.97
    assert not picture[3, :, :80].any() and not picture[3, :80].any()


def test_a_frame_without_the_object_is_passed_over(root):
    _, mask = collages.look(root, "red", 0.25)  # frame 1, whose mask is empty
    later = collages.look(root, "red", 0.5)[1]
    assert mask.any() and torch.equal(mask, later)


def test_the_ground_holds_no_object(root):
    red, green, blue = collages.background(root, "green", 0.0)[:3]
    assert ((green - red).abs() < 0.2).all() and ((green - blue).abs() < 0.2).all()


def test_tracks_follow_the_real_texture(root):
    """Pixels under the true tracks keep their colour, those under the start do not."""
    tasks = benchmarks.real_texture(root, "val", num_frames=6, size=96, num_points=200)
    assert [t.name for t in tasks] == ["green-0", "red-0", "green-1", "red-1"]
    followed, stayed = [], []
    for task in tasks:
        clip, known = task.read()
        assert known == {} and clip.video.shape == (6, 3, 96, 96) and clip.tracks.shape == (6, 200, 2)
        seen = clip.visible[3]
        video = clip.video.float() / 255
        start, end, still = (
            coords.sample(video[t : t + 1], xy[None, seen])[0]
            for t, xy in ((0, clip.tracks[0]), (3, clip.tracks[3]), (3, clip.tracks[0]))
        )
        followed.append((end - start).abs().mean())
        stayed.append((still - start).abs().mean())
        assert clip.visible[0].all() and 0 < seen.float().mean() <= 1
    assert sum(followed) < 0.7 * sum(stayed)


def test_pairs_far_apart_are_asked_where_they_move_far_and_are_seen(root):
    """The same colour lies at both ends of a flow; a slow scene is given time, 23 frames at most."""
    tasks = benchmarks.real_motion(root, "val")
    assert [t.name for t in tasks] == ["green-0", "red-0", "green-1", "red-1"] and tasks[0].benchmark == "real_motion"
    changes, hidden = [], 0
    for task in tasks:
        clip, known = task.read()
        start, end = clip.tracks
        assert known == {} and clip.video.shape == (2, 3, 256, 256)
        speed, make = task.read.args
        pair = synthetic.flow_pair(make(), 0.0, min(32.0 / speed, 23.0))
        x, y = start.long().T
        assert pair.visible[y, x].all() and torch.equal(pair.flow_0to1[:, y, x].T, end - start)
        far = (pair.flow_0to1.norm(dim=0) > 16)[::4, ::4]
        seen = (far & pair.visible[::4, ::4]).sum()
        assert len(start) == seen
        hidden += far.sum() - seen
        assert len(start) > 50 and (start % 4 == 0).all() and torch.equal(start, clip.query_points[:, 1:])
        assert (end - start).norm(dim=-1).min() > benchmarks.FAR and coords.inside(end, (256, 256)).all()
        video = clip.video.float() / 255
        colour, followed, stayed = (
            coords.sample(video[t : t + 1], xy[None])[0] for t, xy in ((0, start), (1, end), (1, start))
        )
        changes.append([(found - colour).abs().mean() for found in (followed, stayed)])
    followed, stayed = torch.tensor(changes).sum(dim=0)
    assert followed < 0.7 * stayed and hidden > 50


def test_the_same_clip_is_the_same_bytes(root):
    one, two = (benchmarks.tasks("real_texture", root, "val", max_clips=1)[0].read()[0] for _ in range(2))
    assert torch.equal(one.video, two.video) and torch.equal(one.tracks, two.tracks)
    assert one.video.shape == (24, 3, 256, 256)


def test_objects_grow_or_shrink_to_the_double(root):
    made = collages.scene(root, ["green", "red"], 0, 0.0, 7_000_000, 4.0, 96)
    sizes = made.at([float(t) for t in range(24)]).planes.scale()[:, 1:]
    ratio = sizes.amax(0) / sizes.amin(0)
    assert (ratio > 1.4).all() and (ratio < 4).all()


def test_errors_name_what_is_missing(root, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"read DAVIS: no .*ImageSets"):
        benchmarks.tasks("real_texture", tmp_path)
    with pytest.raises(ValueError, match="split should be one of val"):
        benchmarks.tasks("real_texture", root, "train")
    folder = tmp_path / "DAVIS"
    for kind in ("JPEGImages", "Annotations"):
        (folder / kind / "480p/bare").mkdir(parents=True)
    cv2.imwrite(str(folder / "JPEGImages/480p/bare/00000.jpg"), np.zeros((*SIZE, 3), np.uint8))
    cv2.imwrite(str(folder / "Annotations/480p/bare/00000.png"), np.zeros(SIZE, np.uint8))
    with pytest.raises(ValueError, match=r"should hold an object of at least 0.4% of the frame, got none"):
        collages.look(tmp_path, "bare", 0.0)
