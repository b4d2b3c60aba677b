"""JHMDB: people in short videos with 15 joints on every frame.

JHMDB/Rename_Images/<action>/<video>/00001.png, joint_positions/<action>/<video>/joint_positions.mat,
splits/<action>_test_split1.txt.
"""

import zlib
from pathlib import Path

import scipy.io
import torch
from einops import rearrange
from scipy.io.matlab import MatReadError

from corrlib import coords
from corrlib.datasets.files import existing, images, read_frames
from corrlib.metrics import joint_box_scale
from corrlib.samples import PoseClip

ROW = "JHMDB"
PARTS = {"train": "1", "test": "2"}


def names(root: str | Path, part: str = "test", split: int = 1) -> list[str]:
    """The videos "<action>/<video>" of one part of an official split, those of which there are frames.

    Raises:
        FileNotFoundError: there are no lists of that split, or frames of none of its videos.
        ValueError: the part is neither train nor test.
    """
    if part not in PARTS:
        raise ValueError(f"read JHMDB: part should be train or test, got {part}.")
    ending = f"_test_split{split}.txt"
    lists = sorted(existing(Path(root) / "JHMDB/splits", ROW).glob(f"*{ending}"))
    if not lists:
        existing(Path(root) / "JHMDB/splits" / f"<action>{ending}", ROW)
    found = []
    for path in lists:
        for line in path.read_text().splitlines():
            video, number = line.split() if line.strip() else ("", "")
            if number == PARTS[part]:
                found.append(f"{path.name.removesuffix(ending)}/{Path(video).stem}")
    folder = Path(root) / "JHMDB/Rename_Images"
    there = [name for name in sorted(found) if (folder / name).exists()]
    if found and not there:
        existing(folder / min(found), ROW)
    return there


def read(root: str | Path, name: str) -> PoseClip:
    """One video, as long as its joints are; all joints are valid, those in the frame visible.

    `scale` is 0.6 x the diagonal of the joints' box, a frame each.

    Raises:
        FileNotFoundError: the frames or the joints are not there.
        ValueError: the file of joints cannot be read or is not (2, 15, T), or frames are missing.
    """
    path = existing(Path(root) / "JHMDB/joint_positions" / name / "joint_positions.mat", ROW)
    try:
        positions = scipy.io.loadmat(path, variable_names=["pos_img"])["pos_img"]
    except (KeyError, MatReadError, OSError, TypeError, ValueError, zlib.error) as error:
        raise ValueError(f"read JHMDB: {path} should hold the array pos_img, got {error}.") from error
    if positions.ndim != 3 or positions.shape[:2] != (2, 15):
        raise ValueError(f"read JHMDB: {path} should hold pos_img (2, 15, T), got {positions.shape}.")
    joints = rearrange(torch.from_numpy(positions).float(), "xy J T -> T J xy") - 1  # Matlab counts from 1
    paths = images(Path(root) / "JHMDB/Rename_Images" / name, ROW)
    if len(paths) < len(joints):
        raise ValueError(
            f"read JHMDB: {paths[0].parent} should have {len(joints)} frames like its joints, got {len(paths)}."
        )
    video = read_frames(paths[: len(joints)])
    valid = torch.ones(joints.shape[:2], dtype=torch.bool)
    scale = torch.from_numpy(joint_box_scale(joints, valid)).float()
    return PoseClip(video, joints, coords.inside(joints, tuple(video.shape[2:])), valid, scale, name)
