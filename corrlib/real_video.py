"""Unlabelled real video to learn from: short clips, cut at random from the videos of any folder.

A folder of images is one video (Kinetics, YouTube-VOS, DAVIS and plain folders all are such trees);
of it only the frames asked for are read. A video file is decoded once, its first `WATCHED` frames
reduced in size, and kept for a while.
"""

import functools
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.utils.data import Dataset

from . import coords, frames, textures
from .datasets.files import read_frames

WATCHED = 240  # frames of a video file
LEAST_AREA = 0.6  # of the largest square of a frame


def sources(folder: str | Path, least: int = 2) -> tuple[Path, ...]:
    """The video files and the folders of images in a folder and below it, in the order of their names.

    Args:
        folder: where to look.
        least: frames that each should have.

    Raises:
        FileNotFoundError: there is no such folder, or no video in it.
        ValueError: a video has fewer frames, or cannot be read.
    """
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"real video: no folder {folder}.")
    files = [p for p in Path(folder).rglob("*") if p.is_file()]
    images = {p.parent for p in files if p.suffix.lower() in frames.IMAGE_SUFFIXES}
    found = sorted(images | {p for p in files if p.suffix.lower() in textures.VIDEO_SUFFIXES})
    if not found:
        raise FileNotFoundError(
            f"real video: {folder} should hold videos ({', '.join(textures.VIDEO_SUFFIXES)}) or folders of images."
        )
    for path in found:
        count = len(_images(path)) if path.is_dir() else frames.open_video(path).num_frames
        if 0 < count < least:
            raise ValueError(f"real video: {path} should have at least {least} frames, got {count}.")
    return tuple(found)


class RealClips(Dataset):
    """Random short clips of the videos of a folder; clip i of a seed is always the same.

    A clip is a square of at least 0.6 of the frame's largest one, the same in all its frames, reduced
    to (size, size), and turned left to right every other time. Neighbouring frames lie 1 to `max_gap` apart.

    Args:
        folder: as in `sources`.
        count: how many clips there are.
        size: of their sides, pixels.
        num_frames: of a clip, at least 2.
        max_gap: frames between neighbours, at most.
        seed: decides everything.

    Raises:
        FileNotFoundError, ValueError: as for `sources`; on reading, the images of a folder differ in size.

    Source: Li, Zhou and Liu, ICCV 2023, pairs of YouTube-VOS.
    Differs: their crop is 1.5 to 2 times as wide as high and made square.
    """

    def __init__(self, folder: str | Path, count: int, size: int, num_frames: int = 2, max_gap: int = 6, seed: int = 0):
        self.paths = sources(folder, num_frames)
        self.count, self.size, self.num_frames, self.max_gap, self.seed = count, size, num_frames, max_gap, seed

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> UInt8[Tensor, "T 3 S S"]:
        g = torch.Generator().manual_seed(self.seed * 100_000_007 + 60_000_000 + index)
        path = self.paths[_below(len(self.paths), g)]
        length = len(_images(path)) if path.is_dir() else len(_watched(path, 3 * self.size // 2))
        if length < self.num_frames:
            raise ValueError(f"real video: {path} should have at least {self.num_frames} frames, got {length}.")
        most = min(self.max_gap, (length - 1) // (self.num_frames - 1))
        gaps = torch.tensor([0] + [1 + _below(most, g) for _ in range(self.num_frames - 1)]).cumsum(0)
        times = (gaps + _below(length - int(gaps[-1]), g)).tolist()
        if path.is_dir():
            video = read_frames([_images(path)[t] for t in times])
        else:
            video = _watched(path, 3 * self.size // 2)[times]
        H, W = video.shape[-2:]
        share = LEAST_AREA + (1 - LEAST_AREA) * torch.rand((), generator=g).item()
        side = max(1, round(min(H, W) * share**0.5))
        y, x = _below(H - side + 1, g), _below(W - side + 1, g)
        crop = frames.to_float(video[..., y : y + side, x : x + side])
        crop = coords.resize_frames(crop, (self.size, self.size))
        if _below(2, g):
            crop = crop.flip(-1)
        return (crop * 255).round().to(torch.uint8)


def _below(count: int, generator: torch.Generator) -> int:
    """A random whole number from 0 to count - 1."""
    return int(torch.randint(count, (), generator=generator))


@functools.lru_cache(maxsize=4096)
def _images(folder: Path) -> list[Path]:
    """The images of a folder in the order of their names."""
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in frames.IMAGE_SUFFIXES)


@functools.lru_cache(maxsize=16)
def _watched(path: Path, lines: int) -> UInt8[Tensor, "T 3 H W"]:
    """The first frames of a video file, of so many lines at most."""
    found = []
    for frame in frames.open_video(path):
        size = coords.reduced_size(tuple(frame.shape[-2:]), lines)
        small = coords.resize_frames(frames.to_float(frame)[None], size)[0]
        found.append((small * 255).round().to(torch.uint8))
        if len(found) == WATCHED:
            break
    return torch.stack(found)
