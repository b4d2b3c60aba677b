"""Reading and writing: round trips, OpenCV as the oracle, one test an error."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
import torch

from corrlib import frames


def clip(T: int = 12, size_hw: tuple[int, int] = (48, 64)) -> torch.Tensor:
    """A bright square that walks one pixel a frame to the right over a smooth ramp."""
    H, W = size_hw
    x, y = torch.meshgrid(torch.arange(W), torch.arange(H), indexing="xy")
    video = torch.stack([x * 2, y * 2, 100 + 0 * x]).to(torch.uint8).repeat(T, 1, 1, 1)
    for t in range(T):
        video[t, :, 10:26, 10 + t : 26 + t] = torch.tensor([230, 40, 40], dtype=torch.uint8)[:, None, None]
    return video


def write_folder(path, video, suffix=".png"):
    """Frames as images with names that sort in order."""
    path.mkdir(exist_ok=True)
    for t, frame in enumerate(video):
        cv2.imwrite(str(path / f"{t:05d}{suffix}"), frame.permute(1, 2, 0).numpy()[..., ::-1])
    return path


def test_read_frame_is_rgb_channels_first(tmp_path):
    video = clip(1, (37, 53))
    folder = write_folder(tmp_path / "clip", video)
    assert torch.equal(frames.read_frame(folder / "00000.png"), video[0])


def test_read_frame_repeats_grey(tmp_path):
    grey = np.arange(37 * 53, dtype=np.uint8).reshape(37, 53)
    cv2.imwrite(str(tmp_path / "grey.png"), grey)
    frame = frames.read_frame(tmp_path / "grey.png")
    assert frame.shape == (3, 37, 53)
    assert (frame == torch.from_numpy(grey)).all()


def test_read_frame_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"read_frame: no file .*gone\.png"):
        frames.read_frame(tmp_path / "gone.png")
    for content in (b"", b"no image at all"):
        (tmp_path / "bad.png").write_bytes(content)
        with pytest.raises(ValueError, match=r"expected an image, got .*bad\.png"):
            frames.read_frame(tmp_path / "bad.png")


def test_folder_is_read_in_the_order_of_names(tmp_path):
    video = clip(11, (37, 53))
    folder = write_folder(tmp_path / "clip", video)
    (folder / "notes.txt").write_text("not a frame")
    assert torch.equal(frames.read_video(folder), video)
    assert torch.equal(frames.read_video(str(folder), max_frames=3), video[:3])


def test_an_image_is_a_video_of_one_frame(tmp_path):
    video = clip(1, (37, 53))
    folder = write_folder(tmp_path / "clip", video)
    assert torch.equal(frames.read_video(folder / "00000.png"), video)


def test_open_video_is_lazy_and_iterates_twice(tmp_path):
    video = clip(6)
    path = frames.write_video(tmp_path / "clip.webm", video, fps=12)
    opened = frames.open_video(path)
    assert (opened.size_hw, opened.num_frames, opened.fps) == ((48, 64), 6, 12.0)
    first, second = list(opened), list(opened)
    assert len(first) == len(second) == 6
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert frames.open_video(opened) is opened


@pytest.mark.parametrize("kind", ["tensor", "array", "float"])
def test_open_video_takes_tensors_and_arrays(kind):
    video = clip(3, (37, 53))
    source = {"tensor": video, "array": video.numpy(), "float": video.float() / 255}[kind]
    opened = frames.open_video(source)
    assert (opened.size_hw, opened.num_frames) == ((37, 53), 3)
    assert torch.equal(torch.stack(list(opened)), video)


def test_video_round_trip_keeps_colour_and_position(tmp_path):
    video = clip()
    back = frames.read_video(frames.write_video(tmp_path / "new" / "clip.webm", video, fps=24))
    assert back.shape == video.shape
    assert (back.float() - video.float()).abs().mean() < 6
    assert back[5, :, 18, 20].tolist() == pytest.approx([230, 40, 40], abs=30)  # red stays red
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["clip.webm"]


def test_write_video_is_quiet_and_leaves_stderr_alone(tmp_path, capfd):
    frames.write_video(tmp_path / "clip.webm", clip(2), fps=24)
    os.write(2, b"still here")
    assert capfd.readouterr() == ("", "still here")


def test_write_video_pads_odd_sizes(tmp_path):
    back = frames.read_video(frames.write_video(tmp_path / "odd.webm", clip(3, (37, 53)), fps=24))
    assert back.shape == (3, 3, 38, 54)


def test_a_failed_write_leaves_the_old_video(tmp_path):
    path = frames.write_video(tmp_path / "clip.webm", clip(3), fps=24)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"frame 1 should be \(3, 48, 64\) like frame 0, got \(3, 37, 53\)"):
        frames.write_video(path, [clip(1)[0], clip(1, (37, 53))[0]], fps=24)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["clip.webm"]


def test_write_video_errors(tmp_path):
    with pytest.raises(ValueError, match=r"should end in \.webm, got .*clip\.mp4"):
        frames.write_video(tmp_path / "clip.mp4", clip(1))
    with pytest.raises(ValueError, match="fps should be above 0, got 0"):
        frames.write_video(tmp_path / "clip.webm", clip(1), fps=0)
    with pytest.raises(ValueError, match="expected at least one frame"):
        frames.write_video(tmp_path / "clip.webm", [])
    with pytest.raises(ValueError, match=r"frame 0 should be \(3, H, W\), got \(48, 64, 3\)"):
        frames.write_video(tmp_path / "clip.webm", clip(1).permute(0, 2, 3, 1))
    assert not list(tmp_path.iterdir())


def test_open_video_path_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"open_video: no file or folder .*gone\.mp4"):
        frames.open_video(tmp_path / "gone.mp4")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no images in the folder .*empty"):
        frames.open_video(tmp_path / "empty")
    (tmp_path / "notes.mp4").write_text("this is no video " * 100)
    with pytest.raises(ValueError, match=r"expected a video, got .*notes\.mp4"):
        frames.open_video(tmp_path / "notes.mp4")


def test_open_video_array_errors():
    with pytest.raises(ValueError, match=r"should be \(T, 3, H, W\), none of them 0, got \(3, 37, 53, 3\)"):
        frames.open_video(np.zeros((3, 37, 53, 3), np.uint8))
    with pytest.raises(ValueError, match=r"got \(0, 3, 37, 53\)"):
        frames.open_video(torch.zeros(0, 3, 37, 53))
    with pytest.raises(ValueError, match=r"uint8, or float in \[0, 1\], got torch.int64"):
        frames.open_video(torch.zeros(2, 3, 37, 53, dtype=torch.int64))
    with pytest.raises(ValueError, match="got NaN"):
        frames.open_video(np.full((2, 3, 37, 53), np.nan, np.float32))


def test_frames_of_different_sizes_name_the_file(tmp_path):
    folder = write_folder(tmp_path / "clip", clip(3, (37, 53)))
    cv2.imwrite(str(folder / "00001.png"), np.zeros((37, 51, 3), np.uint8))
    with pytest.raises(ValueError, match=r"00001\.png should be \(37, 53\) \(H, W\) like 00000\.png"):
        frames.read_video(folder)


def test_truncated_video_says_so_and_how_to_use_the_rest(tmp_path):
    noise = torch.randint(0, 256, (30, 3, 96, 128), generator=torch.Generator().manual_seed(0))
    path = frames.write_video(tmp_path / "clip.webm", noise.to(torch.uint8), fps=24)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=r"clip\.webm announces 30 frames, only \d+ decode") as error:
        frames.read_video(path)
    usable = int(str(error.value).split("only ")[1].split()[0])
    assert 0 < usable < 28
    assert len(frames.read_video(path, max_frames=usable)) == usable


def test_a_sparse_video_that_reaches_its_end_is_whole(tmp_path):
    path = frames.write_video(tmp_path / "clip.webm", clip(12), fps=24)
    # As of a file that announces 24 ticks a second and holds every fourth frame only.
    sparse = frames.Video((48, 64), num_frames=45, fps=24 * 4.0, source=path)
    assert len(list(sparse)) == 12
    with pytest.raises(ValueError, match="announces 60 frames, only 12 decode"):
        list(frames.Video((48, 64), num_frames=60, fps=24 * 4.0, source=path))


def test_a_video_cut_to_its_header_is_no_video(tmp_path):
    path = frames.write_video(tmp_path / "clip.webm", clip(), fps=24)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match="decodes no frame"):
        frames.read_video(path)


def test_open_video_of_the_first_frames(tmp_path):
    video = clip(6)
    folder = write_folder(tmp_path / "clip", video)
    frames.write_video(tmp_path / "clip.webm", video)
    for source in (video, folder, tmp_path / "clip.webm"):
        opened = frames.open_video(source, 4)
        assert opened.num_frames == len(list(opened)) == len(list(opened)) == 4
        assert frames.open_video(opened, 5).num_frames == 4 and len(list(frames.open_video(opened, 3))) == 3
    assert frames.open_video(video, 9).num_frames == len(list(frames.open_video(video, 9))) == 6


def test_read_video_refuses_negative_max_frames():
    with pytest.raises(ValueError, match="max_frames should be at least 0, got -1"):
        frames.read_video(clip(2), max_frames=-1)


def test_to_float():
    video = torch.tensor([0, 51, 255], dtype=torch.uint8)
    assert torch.equal(frames.to_float(video), torch.tensor([0.0, 0.2, 1.0]))
    assert frames.to_float(torch.ones(2, dtype=torch.float64)).dtype == torch.float32
    with pytest.raises(ValueError, match=r"to_float: float frames should be in \[0, 1\], got \[0, 255\]"):
        frames.to_float(torch.tensor([0.0, 255.0]))
    with pytest.raises(ValueError, match=r"to_float: .* got NaN"):
        frames.to_float(torch.tensor([0.0, float("nan")]))
    with pytest.raises(ValueError, match=r"got torch\.int32"):
        frames.to_float(torch.zeros(3, dtype=torch.int32))


@pytest.mark.skipif(sys.platform == "win32", reason="no limits to a file's size there")
def test_a_film_that_is_cut_off_by_a_full_disk_is_told(tmp_path):
    """In a process of its own, whose files may be a quarter as large."""
    noise = torch.randint(256, (20, 3, 64, 80), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    path = frames.write_video(tmp_path / "clip.webm", noise)
    before = path.read_bytes()
    torch.save(noise, tmp_path / "noise.pt")
    code = """if True:
        import resource, signal, sys, torch
        from corrlib import frames
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        noise = torch.load(sys.argv[2])
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), -1))
        frames.write_video(sys.argv[1], noise)
    """
    call = [sys.executable, "-c", code, path, tmp_path / "noise.pt", str(len(before) // 4)]
    done = subprocess.run(call, capture_output=True, text=True)
    assert "OSError: write_video" in done.stderr and "could not be written whole" in done.stderr
    assert path.read_bytes() == before and sorted(p.name for p in tmp_path.iterdir()) == ["clip.webm", "noise.pt"]


def test_images_read_by_many_threads_leave_stderr_as_it_was(tmp_path, capfd):
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((64, 64, 3), np.uint8))
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(frames.read_frame, [tmp_path / "a.png"] * 200))
    os.write(2, b"heard")
    assert capfd.readouterr().err == "heard"
