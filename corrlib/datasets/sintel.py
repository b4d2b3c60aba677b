"""MPI Sintel, the training pairs: rendered frames, flow, what is hidden and what is not to be scored.

Sintel/training/{clean,final}/<scene>/frame_0001.png, flow/<scene>/frame_0001.flo, and
occlusions/, invalid/ with white where a pixel of the first frame is hidden in the second, or invalid.
"""

from pathlib import Path

import torch
from jaxtyping import Bool
from torch import Tensor

from corrlib.datasets.files import existing, read_flow_pair, read_mask
from corrlib.samples import FlowPair

ROW = "Sintel"


def names(root: str | Path, render: str = "clean") -> list[str]:
    """Pairs "<scene>/frame_0001" that have a flow and both frames in a pass; none if the pass is not there.

    Args:
        render: the pass, "clean" or "final".
    """
    folder = Path(root) / "Sintel/training"
    flows = sorted(existing(folder / "flow", ROW).glob("*/frame_*.flo"))
    found = [f"{p.parent.name}/{p.stem}" for p in flows]
    return [name for name in found if all(p.exists() for p in _frames(folder / render, name))]


def read(root: str | Path, name: str, render: str = "clean") -> FlowPair:
    """One pair; valid and visible without the maps of invalid and hidden pixels where there are none.

    Raises:
        FileNotFoundError, ValueError: a file is missing, unreadable or of another size.
    """
    folder = Path(root) / "Sintel/training"
    frame0, frame1 = (existing(path, ROW) for path in _frames(folder / render, name))
    pair = read_flow_pair(frame0, frame1, existing(folder / "flow" / f"{name}.flo", ROW), name)
    valid = pair.valid & ~_white(folder / "invalid" / f"{name}.png", pair.valid)
    visible = valid & ~_white(folder / "occlusions" / f"{name}.png", pair.valid)
    return FlowPair(pair.frame0, pair.frame1, pair.flow_0to1, valid, visible, name)


def _frames(folder: Path, name: str) -> tuple[Path, Path]:
    """The images of a pair: frames t and t + 1."""
    scene, frame = name.split("/")
    return folder / scene / f"{frame}.png", folder / scene / f"frame_{int(frame[-4:]) + 1:04d}.png"


def _white(path: Path, like: Bool[Tensor, "H W"]) -> Bool[Tensor, "H W"]:
    """Where a map is not black; nowhere if there is no such map."""
    return read_mask(path, like) > 0 if path.exists() else torch.zeros_like(like)
