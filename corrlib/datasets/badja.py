"""BADJA: joints of animals, labelled every few frames of DAVIS clips.

BADJA/joint_annotations/<name>.json; frames and masks are those of `davis`, at any resolution.
"""

import json
from pathlib import Path

import numpy as np
import torch

from corrlib import coords
from corrlib.datasets.files import existing, read_frames, read_mask
from corrlib.samples import PoseClip

ROW = "BADJA"
RESOLUTIONS = ("480p", "Full-Resolution")
LABELLED_HW = (1080, 1920)  # the frames that were labelled
# The 20 of its 37 joints that are labelled: legs, neck, tail, jaw, nose, ears.
JOINTS = (8, 9, 10, 12, 13, 14, 15, 18, 19, 20, 22, 23, 24, 25, 28, 31, 32, 33, 35, 36)


def names(root: str | Path) -> list[str]:
    """The clips whose frames are DAVIS's, of which there are frames: the benchmark leaves out the videos BADJA adds.

    Raises:
        FileNotFoundError: there are no labels, or frames of none of their clips.
    """
    paths = sorted(existing(Path(root) / "BADJA/joint_annotations", ROW).glob("*.json"))
    folders = {p.stem: Path(_labels(p)[0]["image_path"]).parent for p in paths}
    clips = {name: folder.name for name, folder in folders.items() if folder.parts[0] == "DAVIS"}
    there = [name for name, clip in clips.items() if _frames(root, clip).exists()]
    if clips and not there:
        existing(_frames(root, next(iter(clips.values()))), "DAVIS")
    return there


def read(root: str | Path, name: str, resolution: str = "") -> PoseClip:
    """One clip, from its first labelled frame to its last.

    Args:
        resolution: "480p" or "Full-Resolution", a folder of DAVIS/JPEGImages; empty takes the
            first of them that has the clip.

    Returns:
        joints (T, 20, 2) in pixels of the frames read; valid where one has a position, which
        hidden ones may have too; scale, the square root of the mask's area, NaN without a mask.

    Raises:
        FileNotFoundError: the labels or frames are not there.
        ValueError: the labels are not 37 joints a frame.
    """
    labels = _labels(existing(Path(root) / f"BADJA/joint_annotations/{name}.json", ROW))
    times = [int(Path(label["image_path"]).stem) for label in labels]
    clip = Path(labels[0]["image_path"]).parent.name
    folder = existing(_frames(root, clip, resolution), "DAVIS")
    steps = range(min(times), max(times) + 1)
    video = read_frames([existing(folder / f"{t:05d}.jpg", "DAVIS") for t in steps])
    joints = torch.zeros(len(video), len(JOINTS), 2)
    visible, valid = torch.zeros(2, len(video), len(JOINTS), dtype=torch.bool)
    for t, label in zip(times, labels):
        yx = torch.tensor(label["joints"], dtype=torch.float32)[list(JOINTS)]
        joints[t - steps[0]] = coords.resize_points(yx.flip(-1), LABELLED_HW, tuple(video.shape[2:]))
        visible[t - steps[0]] = torch.tensor(label["visibility"])[list(JOINTS)]
        valid[t - steps[0]] = (yx != 0).any(dim=1)  # (0, 0) stands for no position
    scale = torch.full((len(video),), torch.nan)
    for i, t in enumerate(steps):
        path = Path(root) / "DAVIS/Annotations" / folder.parent.name / clip / f"{t:05d}.png"
        if path.exists():
            area = (read_mask(path, video[i]) > 0).sum()
            scale[i] = area.sqrt() if area else torch.nan
    return PoseClip(video, joints, visible & valid, valid, scale, name)


def _frames(root: str | Path, clip: str, resolution: str = "") -> Path:
    """The folder of a clip's frames, at the resolution asked for or the first there is."""
    places = [Path(root) / "DAVIS/JPEGImages" / r / clip for r in ([resolution] if resolution else RESOLUTIONS)]
    return next((place for place in places if place.exists()), places[0])


def _labels(path: Path) -> list[dict]:
    """The labelled frames of a clip, checked."""
    try:
        labels = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"read BADJA: {path} should be JSON, got {error}.") from error
    if not labels:
        raise ValueError(f"read BADJA: {path} should have labelled frames, got none.")
    for label in labels:
        if np.shape(label["joints"]) != (37, 2) or np.shape(label["visibility"]) != (37,):
            raise ValueError(
                f"read BADJA: {path} should have 37 joints (y, x) a frame, got {np.shape(label['joints'])} "
                f"and visibility {np.shape(label['visibility'])} in {label['image_path']}."
            )
    return labels
