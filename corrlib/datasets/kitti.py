"""KITTI 2015 flow, the training pairs: driving, with sparse truth from a laser scanner.

KITTI/training/image_2/000000_10.png and 000000_11.png, flow_occ/000000_10.png with every known
pixel, flow_noc/000000_10.png with those that stay in view.
"""

from pathlib import Path

from corrlib import flow
from corrlib.datasets.files import existing, read_flow_pair
from corrlib.samples import FlowPair

ROW = "KITTI"


def names(root: str | Path) -> list[str]:
    """The pairs that have a flow."""
    folder = existing(Path(root) / "KITTI/training/flow_occ", ROW)
    return sorted(p.name.removesuffix("_10.png") for p in folder.glob("*_10.png"))


def read(root: str | Path, name: str) -> FlowPair:
    """One pair; visible where flow_noc, if it is there, knows the flow too.

    Raises:
        FileNotFoundError, ValueError: a file is missing, unreadable or of another size.
    """
    folder = Path(root) / "KITTI/training"
    frame0, frame1 = (existing(folder / f"image_2/{name}_{t}.png", ROW) for t in (10, 11))
    flow_path = existing(folder / f"flow_occ/{name}_10.png", ROW)
    seen = folder / f"flow_noc/{name}_10.png"
    visible = flow.read_flow(seen)[1] if seen.exists() else None
    return read_flow_pair(frame0, frame1, flow_path, name, visible)
