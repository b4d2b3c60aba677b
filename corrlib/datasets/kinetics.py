"""Kinetics, or any other folder of unlabelled video files, in sub-folders or not.

Kinetics/<class>/<clip>.mp4.
"""

from itertools import islice
from pathlib import Path

from corrlib import frames
from corrlib.datasets.files import existing
from corrlib.samples import FramePair

ROW = "Kinetics"
SUFFIXES = (".avi", ".mkv", ".mov", ".mp4", ".mpg", ".webm")


def names(root: str | Path) -> list[str]:
    """The video files, as paths within the folder."""
    folder = existing(Path(root) / "Kinetics", ROW)
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)


def read(root: str | Path, name: str, first: int = 0, gap: int = 1) -> FramePair:
    """Two frames of one video, the `first` and the one `gap` > 0 after it; what comes later is not decoded.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no video, or shorter, or `first` or `gap` is too small.
    """
    if first < 0 or gap < 1:
        raise ValueError(f"read Kinetics: expected first >= 0 and gap >= 1, got {first} and {gap}.")
    path = existing(Path(root) / "Kinetics" / name, ROW)
    pair = list(islice(frames.open_video(path), first, first + gap + 1, gap))
    if len(pair) < 2:
        raise ValueError(f"read Kinetics: {path} should have at least {first + gap + 1} frames, got fewer.")
    frame0, frame1 = (frames.to_float(frame) for frame in pair)
    return FramePair(frame0, frame1, name)
