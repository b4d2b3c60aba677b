"""FlyingChairs: synthetic pairs, chairs flying over photographs.

FlyingChairs/ or FlyingChairs/data/, with 00001_img1.ppm, 00001_img2.ppm, 00001_flow.flo (the
release), or 0000000-img0.ppm, 0000000-img1.ppm, 0000000-gt.flo.
"""

from pathlib import Path

from corrlib.datasets.files import existing, read_flow_pair
from corrlib.samples import FlowPair

ROW = "FlyingChairs"
ENDINGS = (("_flow.flo", "_img1.ppm", "_img2.ppm"), ("-gt.flo", "-img0.ppm", "-img1.ppm"))


def names(root: str | Path) -> list[str]:
    """The pairs that have a flow."""
    folder = _folder(root)
    return sorted(p.name.removesuffix(end) for end, *_ in ENDINGS for p in folder.glob(f"*{end}"))


def read(root: str | Path, name: str) -> FlowPair:
    """One pair; its flow is known everywhere, and what is hidden is not told.

    Raises:
        FileNotFoundError, ValueError: a file is missing, unreadable or of another size.
    """
    folder = _folder(root)
    endings = next((e for e in ENDINGS if (folder / f"{name}{e[0]}").exists()), ENDINGS[0])
    flow_path, frame0, frame1 = (existing(folder / f"{name}{end}", ROW) for end in endings)
    return read_flow_pair(frame0, frame1, flow_path, name)


def _folder(root: str | Path) -> Path:
    """Where the files are."""
    folder = existing(Path(root) / "FlyingChairs", ROW)
    return folder / "data" if (folder / "data").is_dir() else folder
