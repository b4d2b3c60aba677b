"""Rendered clips with point tracks, one .npz each, as exported from Kubric's point tracking data.

Kubric/<split>/<name>.npz with video (T, H, W, 3) uint8; target_points (N, T, 2), (x, y) in raster
pixels (0 is the left edge, pixel centres are at halves); occluded (N, T) bool. A point that is
outside the frame is occluded.
"""

import zipfile
from pathlib import Path

import numpy as np

from corrlib.datasets.files import existing
from corrlib.datasets.tapvid import track_clip
from corrlib.samples import TrackClip

ROW = "Kubric"


def names(root: str | Path, split: str = "train") -> list[str]:
    """The clips of a split."""
    return [p.stem for p in sorted(existing(Path(root) / "Kubric" / split, ROW).glob("*.npz"))]


def read(root: str | Path, name: str, split: str = "train", query_mode: str = "first") -> TrackClip:
    """One clip, with the queries of TAP-Vid's mode.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no .npz, has objects inside, lacks an array, or has other shapes.
    """
    path = existing(Path(root) / "Kubric" / split / f"{name}.npz", ROW)
    try:
        with np.load(path, allow_pickle=False) as file:
            video, points, occluded = (file[key] for key in ("video", "target_points", "occluded"))
    except (KeyError, OSError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"read Kubric: {path} should hold arrays video, target_points and occluded, got {error}."
        ) from error
    return track_clip(video, points / np.array(video.shape[2:0:-1]), occluded, query_mode, name, path)
