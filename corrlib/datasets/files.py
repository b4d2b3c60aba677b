"""Paths, masks and pairs: what the readers of several data sets share.

What is missing is named with the path looked at and the row of data/README.md that helps.
"""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Int, UInt8
from PIL import Image
from torch import Tensor

from corrlib import flow, frames
from corrlib.samples import FlowPair


def existing(path: Path, row: str) -> Path:
    """The path, if there is something there."""
    if not path.exists():
        raise FileNotFoundError(f'read {row}: no {path}. See data/README.md, row "{row}".')
    return path


def images(folder: Path, row: str) -> list[Path]:
    """The images of a folder in the order of their names, at least one."""
    found = sorted(p for p in existing(folder, row).iterdir() if p.suffix.lower() in frames.IMAGE_SUFFIXES)
    if not found:
        raise FileNotFoundError(f'read {row}: no images in {folder}. See data/README.md, row "{row}".')
    return found


def read_frames(paths: list[Path]) -> UInt8[Tensor, "T 3 H W"]:
    """Image files of one size as a video."""
    video = [frames.read_frame(path) for path in paths]
    for path, frame in zip(paths, video):
        _same_size(path, frame, video[0], paths[0])
    return torch.stack(video)


def read_mask(path: Path, like: Tensor) -> Int[Tensor, "H W"]:
    """The numbers of a palette or grey PNG (OpenCV would give a palette's colours).

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no such image, or its size is not that of the frame `like`.
    """
    if not path.is_file():
        raise FileNotFoundError(f"read_mask: no file {path}.")
    try:
        with Image.open(path) as image:
            mode, values = image.mode, np.array(image)
    except (OSError, SyntaxError) as error:  # Pillow reports a broken PNG header as a SyntaxError
        raise ValueError(f"read_mask: {path} should be an image, got {error}.") from error
    if mode not in ("P", "L", "1"):
        raise ValueError(f"read_mask: {path} should be a palette or grey image, got mode {mode}.")
    mask = torch.from_numpy(values.astype(np.int64))
    _same_size(path, mask, like, "its frame")
    return mask


def read_first_mask(path: Path, like: Tensor) -> Int[Tensor, "H W"]:
    """A mask to be carried: the numbers of objects, or black and white.

    255 is the object where nothing else is drawn, and nobody's beside other numbers, as in DAVIS.

    Raises:
        FileNotFoundError, ValueError: as `read_mask`.
    """
    mask = read_mask(path, like)
    if set(mask.unique().tolist()) <= {0, 255}:
        return (mask > 0).long()
    return mask.masked_fill(mask == 255, 0)


def read_flow_pair(
    frame0: Path, frame1: Path, flow_0to1: Path, name: str, visible: Bool[Tensor, "H W"] | None = None
) -> FlowPair:
    """Two images and the flow between them; visible wherever the flow is known unless told otherwise."""
    values, valid = flow.read_flow(flow_0to1)
    pair = [frames.to_float(frames.read_frame(path)) for path in (frame0, frame1)]
    for path, map_ in ((frame1, pair[1]), (flow_0to1, values)):
        _same_size(path, map_, pair[0], frame0)
    return FlowPair(*pair, values, valid, valid if visible is None else valid & visible, name)


def _same_size(path: Path, found: Tensor, expected: Tensor, like: Path | str) -> None:
    """Height and width of two maps agree."""
    if found.shape[-2:] != expected.shape[-2:]:
        raise ValueError(
            f"read: {path} should be {tuple(expected.shape[-2:])} (H, W) like {like}, got {tuple(found.shape[-2:])}."
        )
