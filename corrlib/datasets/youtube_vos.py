"""YouTube-VOS 2018: many short videos, every fifth frame, with object masks on some of them.

YouTube-VOS/<split>/JPEGImages/<name>/00000.jpg, Annotations/<name>/00000.png, <split> being train
or valid; the folder 2018 between the two is accepted.
"""

from pathlib import Path

import torch

from corrlib import frames
from corrlib.datasets.files import existing, images, read_frames, read_mask
from corrlib.samples import FramePair, MaskClip

ROW = "YouTube-VOS"


def names(root: str | Path, split: str = "train") -> list[str]:
    """The videos of a split."""
    return sorted(p.name for p in existing(_folder(root, split) / "JPEGImages", ROW).iterdir() if p.is_dir())


def read(root: str | Path, name: str, split: str = "train") -> MaskClip:
    """One video with its masks, -1 in frames without one.

    Raises:
        FileNotFoundError, ValueError: a file is missing, unreadable or of another size.
    """
    folder = _folder(root, split)
    paths = images(folder / "JPEGImages" / name, ROW)
    video = read_frames(paths)
    masks = torch.full((len(video), *video.shape[2:]), -1)
    times = {path.stem: t for t, path in enumerate(paths)}
    for mask_path in sorted((folder / "Annotations" / name).glob("*.png")):
        if mask_path.stem not in times:
            raise ValueError(f"read YouTube-VOS: {mask_path} should have a frame in {paths[0].parent}, got none.")
        masks[times[mask_path.stem]] = read_mask(mask_path, video[times[mask_path.stem]])
    return MaskClip(video, masks, name)


def read_pair(root: str | Path, name: str, first: int = 0, gap: int = 1, split: str = "train") -> FramePair:
    """Two frames of one video, the `first` and the one `gap` after it, counted as they are stored.

    Raises:
        ValueError: the video is shorter.
    """
    paths = images(_folder(root, split) / "JPEGImages" / name, ROW)
    if not (0 <= first < len(paths) and 0 <= first + gap < len(paths)):
        raise ValueError(
            f"read YouTube-VOS: frames {first} and {first + gap} should be in 0 to {len(paths) - 1} of {name}."
        )
    frame0, frame1 = frames.to_float(read_frames([paths[first], paths[first + gap]]))
    return FramePair(frame0, frame1, name)


def _folder(root: str | Path, split: str) -> Path:
    """Where a split is."""
    folder = existing(Path(root) / "YouTube-VOS", ROW)
    return folder / "2018" / split if (folder / "2018").is_dir() else folder / split
