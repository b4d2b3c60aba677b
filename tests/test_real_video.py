"""Clips of real video: found in any folder, the same for every index, and refused where there are none."""

import cv2
import numpy as np
import pytest
import torch

from corrlib import frames, real_video
from corrlib.real_video import RealClips


def write_folder(folder, count, size_hw=(40, 56)):
    """Images whose grey says which frame they are."""
    folder.mkdir(parents=True)
    for t in range(count):
        cv2.imwrite(str(folder / f"{t:05d}.png"), np.full((*size_hw, 3), 20 * t, np.uint8))


@pytest.fixture
def videos(tmp_path):
    write_folder(tmp_path / "some" / "a", 5)
    write_folder(tmp_path / "some" / "deep" / "b", 9)
    video = torch.stack([torch.full((3, 90, 80), 20 * t, dtype=torch.uint8) for t in range(7)])
    frames.write_video(tmp_path / "some" / "c.webm", video)
    (tmp_path / "some" / "notes.txt").write_text("not a video")
    return tmp_path / "some"


def test_every_video_is_found(videos):
    found = real_video.sources(videos)
    assert [p.relative_to(videos).as_posix() for p in found] == ["a", "c.webm", "deep/b"]


def test_clips_are_squares_of_frames_at_most_the_gap_apart(videos):
    clips = RealClips(videos, 60, 32, num_frames=3, max_gap=2)
    assert len(clips) == 60
    seen = set()
    for index in range(60):
        clip = clips[index]
        assert clip.shape == (3, 3, 32, 32) and clip.dtype == torch.uint8
        times = (clip.float().mean(dim=(1, 2, 3)) / 20).round().diff().tolist()
        seen |= set(times)
        assert all(1 <= step <= 2 for step in times)
    assert seen == {1.0, 2.0}


def test_a_clip_depends_on_its_seed_and_its_index_alone(videos):
    one, two, other = (RealClips(videos, 8, 32, seed=seed) for seed in (0, 0, 1))
    backwards = [two[i] for i in reversed(range(8))][::-1]
    assert all(torch.equal(one[i], backwards[i]) for i in range(8))
    assert not all(torch.equal(one[i], other[i]) for i in range(8))


def test_all_frames_of_a_clip_are_cut_alike(tmp_path):
    """A still video stays still, and what is cut is a part of it, upright or mirrored."""
    picture = (torch.rand(3, 48, 64, generator=torch.Generator().manual_seed(0)) * 255).to(torch.uint8)
    folder = tmp_path / "still" / "a"
    folder.mkdir(parents=True)
    for t in range(3):
        cv2.imwrite(str(folder / f"{t}.png"), np.ascontiguousarray(picture.flip(0).permute(1, 2, 0).numpy()))
    clips = RealClips(tmp_path / "still", 12, 48)
    assert all(torch.equal(clip[0], clip[1]) for clip in (clips[i] for i in range(12)))
    assert len({clips[i].float().mean().item() for i in range(12)}) > 6


def test_short_gaps_where_a_video_is_short(tmp_path):
    write_folder(tmp_path / "short" / "a", 2)
    clip = RealClips(tmp_path / "short", 1, 32, max_gap=50)[0]
    assert (clip.float().mean(dim=(1, 2, 3)) / 20).round().tolist() == [0, 1]


def test_messages(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"real video: no folder .*gone"):
        RealClips(tmp_path / "gone", 1, 32)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"empty should hold videos .*or folders of images"):
        RealClips(tmp_path / "empty", 1, 32)
    write_folder(tmp_path / "one" / "a", 1)
    with pytest.raises(ValueError, match=r"one/a should have at least 2 frames, got 1"):
        RealClips(tmp_path / "one", 1, 32)
    write_folder(tmp_path / "two" / "a", 2)
    with pytest.raises(ValueError, match="should have at least 3 frames, got 2"):
        RealClips(tmp_path / "two", 1, 32, num_frames=3)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.mp4").write_bytes(b"no video")
    with pytest.raises(ValueError, match="expected a video, got"):
        RealClips(tmp_path / "broken", 1, 32)


def test_images_of_two_sizes_are_refused(tmp_path):
    write_folder(tmp_path / "a", 2)
    cv2.imwrite(str(tmp_path / "a" / "00002.png"), np.zeros((30, 30, 3), np.uint8))
    with pytest.raises(ValueError, match=r"a/0000\d.png should be"):
        [RealClips(tmp_path, 20, 16)[index] for index in range(20)]
