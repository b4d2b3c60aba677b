"""Frames and videos: files in and out, sRGB as float.

Everything read is RGB, uint8, (3, H, W); nothing here resizes. A *source* is a video file,
an image, a folder of images taken in the order of their names, or a (T, 3, H, W) tensor or
array. Longer videos are opened lazily (`open_video`) and held by nobody.
"""

import itertools
import os
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from einops import rearrange
from jaxtyping import UInt8
from torch import Tensor

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
DEFAULT_FPS = 24.0  # of folders and tensors, which have none
_stderr = threading.Lock()  # two threads that divert it at once would leave it diverted


def _to_frame(bgr: np.ndarray) -> Tensor:
    """OpenCV's (H, W, 3) BGR as a (3, H, W) RGB tensor of its own memory."""
    return torch.from_numpy(np.ascontiguousarray(rearrange(bgr[..., ::-1], "H W C -> C H W")))


def read_frame(path: str | os.PathLike) -> UInt8[Tensor, "3 H W"]:
    """One image file as RGB; grey is repeated, transparency dropped, EXIF rotation applied.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no image that OpenCV reads.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"read_frame: no file {path}.")
    data = np.fromfile(path, dtype=np.uint8)  # imread itself would print a warning of its own
    with _quiet_stderr():  # libpng complains about colour profiles that OpenCV does not use
        bgr = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    if bgr is None:
        raise ValueError(f"read_frame: expected an image, got {path}, which OpenCV cannot decode.")
    return _to_frame(bgr)


@dataclass(frozen=True)
class Video:
    """A video that can be iterated any number of times, (3, H, W) uint8 frames, none of them held.

    `num_frames` is what the container announces, 0 if it does not tell. It can be wrong:
    by one or two where it is derived from a duration, by more where repeated frames are
    left out. Made by `open_video`.
    """

    size_hw: tuple[int, int]
    num_frames: int
    fps: float
    source: "Path | list[Path] | Tensor"
    max_frames: int = 0  # iterated, from the start; 0 for all

    def __iter__(self) -> Iterator[UInt8[Tensor, "3 H W"]]:
        if isinstance(self.source, Tensor):
            found = (_as_uint8(frame) for frame in self.source)
        else:
            found = self._images() if isinstance(self.source, list) else self._decode()
        return itertools.islice(found, self.max_frames or None)

    def _images(self) -> Iterator[Tensor]:
        """Frames of a folder; the first of another size is named."""
        for path in self.source:
            frame = read_frame(path)
            if tuple(frame.shape[1:]) != self.size_hw:
                raise ValueError(
                    f"read_video: {path} should be {self.size_hw} (H, W) like {self.source[0].name}, "
                    f"got {tuple(frame.shape[1:])}."
                )
            yield frame

    def _decode(self) -> Iterator[Tensor]:
        """Frames of a file; one that ends well before its announced length is an error at its end."""
        capture, count, reached = cv2.VideoCapture(str(self.source)), 0, 0
        try:
            while True:
                good, bgr = capture.read()
                if not good:
                    break
                count += 1
                # Some files announce ticks and leave out frames that repeat: then the time tells.
                ticks = round(capture.get(cv2.CAP_PROP_POS_MSEC) * self.fps / 1000) + 1
                reached = max(reached, count, ticks)
                yield _to_frame(bgr)
        finally:
            capture.release()
        slack = max(2, self.num_frames // 20)  # announced counts may be rounded durations
        if reached < self.num_frames - slack:
            raise ValueError(
                f"read_video: {self.source} announces {self.num_frames} frames, only {count} decode: the "
                f"file is truncated. Ask for at most {count} frames to use what is there."
            )


Source = str | os.PathLike | Tensor | np.ndarray | Video


def _as_uint8(frames: Tensor) -> Tensor:
    """Float frames in [0, 1] rounded to bytes; bytes as they are."""
    return frames if frames.dtype == torch.uint8 else (frames * 255).round().to(torch.uint8)


def _check_range(name: str, frames: Tensor) -> None:
    """Refuse what is neither uint8 nor float in [0, 1], NaN included."""
    if frames.dtype == torch.uint8:
        return
    if not frames.is_floating_point():
        raise ValueError(f"{name}: frames should be uint8, or float in [0, 1], got {frames.dtype}.")
    if frames.numel():
        low, high = (float(v) for v in torch.aminmax(frames))  # NaN anywhere makes both NaN
        if low != low:
            raise ValueError(f"{name}: frames should be numbers in [0, 1], got NaN.")
        if low < 0 or high > 1:
            raise ValueError(f"{name}: float frames should be in [0, 1], got [{low:.4g}, {high:.4g}].")


def open_video(source: Source, max_frames: int = 0) -> Video:
    """A video to iterate, from a file, a folder of images, a tensor or an array; a `Video` is passed on.

    Args:
        source: path of a file that OpenCV reads or of a folder of images (ordered by name),
            or frames (T, 3, H, W), uint8 or float in [0, 1].
        max_frames: only so many from the start; 0 for all.

    Raises:
        FileNotFoundError: there is no such path, or the folder has no images.
        ValueError: the file is no video, the frames have another shape, type or range, or
            `max_frames` is negative.
    """
    if max_frames < 0:
        raise ValueError(f"open_video: max_frames should be at least 0, got {max_frames}.")
    if max_frames:
        opened = open_video(source)
        most = min(max_frames, opened.max_frames or max_frames)
        return replace(opened, num_frames=min(opened.num_frames, most), max_frames=most)
    if isinstance(source, Video):
        return source
    if isinstance(source, np.ndarray):
        source = torch.from_numpy(np.ascontiguousarray(source))
    if isinstance(source, Tensor):
        if source.ndim != 4 or source.shape[1] != 3 or 0 in source.shape:
            raise ValueError(f"open_video: frames should be (T, 3, H, W), none of them 0, got {tuple(source.shape)}.")
        _check_range("open_video", source)
        return Video(tuple(source.shape[2:]), len(source), DEFAULT_FPS, source)
    path = Path(source)
    if path.is_dir():
        images = sorted(p for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
        if not images:
            raise FileNotFoundError(
                f"open_video: no images in the folder {path}; expected files ending in {', '.join(IMAGE_SUFFIXES)}."
            )
        return Video(tuple(read_frame(images[0]).shape[1:]), len(images), DEFAULT_FPS, images)
    if not path.is_file():
        raise FileNotFoundError(f"open_video: no file or folder {path}.")
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return Video(tuple(read_frame(path).shape[1:]), 1, DEFAULT_FPS, [path])
    capture = cv2.VideoCapture(str(path))
    good, bgr = capture.read() if capture.isOpened() else (False, None)
    count, fps = capture.get(cv2.CAP_PROP_FRAME_COUNT), capture.get(cv2.CAP_PROP_FPS)
    capture.release()
    if not good:
        raise ValueError(
            f"open_video: expected a video, got {path}, of which OpenCV decodes no frame: "
            "no video at all, a codec it lacks, or a truncated file."
        )
    # Broken headers announce absurd counts (OpenCV then returns a large negative number) and rates.
    count = int(count) if 0 < count < 1e9 else 0
    return Video(tuple(bgr.shape[:2]), count, fps if 0 < fps <= 1000 else DEFAULT_FPS, path)


def read_video(source: Source, max_frames: int = 0) -> UInt8[Tensor, "T 3 H W"]:
    """A whole video in memory.

    Args:
        source: as in `open_video`.
        max_frames: stop after so many; 0 reads all.

    Raises:
        FileNotFoundError, ValueError: as in `open_video`; also frames of different sizes, and a
            file that ends clearly before its announced length (unless `max_frames` is reached
            before its end).
    """
    return torch.stack(list(open_video(source, max_frames)))


def write_video(path: str | os.PathLike, frames: Iterable[Tensor], fps: float = DEFAULT_FPS) -> Path:
    """A .webm (VP8) that browsers play; it appears under its name only when it is complete.

    Args:
        path: where to, ending in .webm; its folder is made if it is missing.
        frames: (3, H, W) RGB frames, or (T, 3, H, W), uint8 or float in [0, 1]. An odd
            height or width gets its last row or column twice: VP8's colour is half size.
        fps: frames a second.

    Raises:
        ValueError: another suffix, a rate that is not positive, no frames, frames of
            different sizes, or an OpenCV without VP8.
        OSError: not all of it could be written.
    """
    path = Path(path)
    if path.suffix != ".webm":
        raise ValueError(f"write_video: path should end in .webm, got {path}.")
    if not fps > 0:
        raise ValueError(f"write_video: fps should be above 0, got {fps}.")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.partial.webm")
    writer, shape, t = None, None, -1
    try:
        for t, frame in enumerate(frames):
            frame = torch.as_tensor(frame)
            if frame.ndim != 3 or frame.shape[0] != 3 or (shape and frame.shape != shape):
                expected = f"{tuple(shape)} like frame 0" if shape else "(3, H, W)"
                raise ValueError(f"write_video: frame {t} should be {expected}, got {tuple(frame.shape)}.")
            _check_range("write_video", frame)
            shape = frame.shape
            bgr = rearrange(_as_uint8(frame).numpy(force=True)[::-1], "C H W -> H W C")
            bgr = np.pad(bgr, ((0, shape[1] % 2), (0, shape[2] % 2), (0, 0)), mode="edge")
            if writer is None:
                code = cv2.VideoWriter_fourcc(*"VP80")  # VP9 takes four times as long
                with _quiet_stderr():
                    writer = cv2.VideoWriter(str(temporary), code, float(fps), bgr.shape[1::-1])
                if not writer.isOpened():
                    raise ValueError(f"write_video: this OpenCV cannot encode VP8 into {path}.")
            writer.write(np.ascontiguousarray(bgr))
        if writer is None:
            raise ValueError("write_video: expected at least one frame, got none.")
        writer.release()
        if not _holds(temporary, t):  # OpenCV says nothing of a full disk
            raise OSError(f"write_video: {path} could not be written whole, and is as it was; is the disk full?")
        os.replace(temporary, path)
    finally:
        if writer is not None:
            writer.release()
        temporary.unlink(missing_ok=True)
    return path


def _holds(path: Path, t: int) -> bool:
    """Whether frame t of a video file can be read."""
    capture = cv2.VideoCapture(str(path))
    try:
        capture.set(cv2.CAP_PROP_POS_FRAMES, t)
        return capture.read()[0]
    finally:
        capture.release()


@contextmanager
def _quiet_stderr() -> Iterator[None]:
    """OpenCV's C code complains of what it does without fault: the tag of every .webm, an unused colour profile."""
    with _stderr:
        sys.stderr.flush()
        kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, 2)
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept), os.close(nowhere)


def to_float(frames: Tensor) -> Tensor:
    """Frames of any shape as float32 sRGB in [0, 1]; floats are checked and passed on.

    Raises:
        ValueError: integers other than uint8, floats outside [0, 1], or NaN.
    """
    _check_range("to_float", frames)
    return frames.float() / 255 if frames.dtype == torch.uint8 else frames.float()
