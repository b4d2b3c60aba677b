"""Middlebury optical flow, the training pairs with public truth.

Middlebury/other-data/<name>/frame10.png and frame11.png, other-gt-flow/<name>/flow10.flo.
"""

from pathlib import Path

from corrlib.datasets.files import existing, read_flow_pair
from corrlib.samples import FlowPair

ROW = "Middlebury"


def names(root: str | Path) -> list[str]:
    """The scenes that have a flow."""
    folder = existing(Path(root) / "Middlebury/other-gt-flow", ROW)
    return sorted(p.parent.name for p in folder.glob("*/flow10.flo"))


def read(root: str | Path, name: str) -> FlowPair:
    """Frames 10 and 11 of a scene; where the flow is unknown, often because it is hidden, valid is False.

    Raises:
        FileNotFoundError, ValueError: a file is missing, unreadable or of another size.
    """
    folder = Path(root) / "Middlebury"
    frame0, frame1 = (existing(folder / "other-data" / name / f"frame{t}.png", ROW) for t in (10, 11))
    flow_path = existing(folder / "other-gt-flow" / name / "flow10.flo", ROW)
    return read_flow_pair(frame0, frame1, flow_path, name)
