"""FlyingThings3D: rendered sequences with flow into the future and into the past.

FlyingThings3D/<render>/<split>/<A|B|C>/<sequence>/<camera>/0006.png (or .webp), and
FlyingThings3D/optical_flow/<split>/<A|B|C>/<sequence>/into_future/<camera>/
OpticalFlowIntoFuture_0006_L.pfm, into_past likewise.
"""

from pathlib import Path

from corrlib import flow
from corrlib.datasets.files import existing, read_flow_pair
from corrlib.samples import FlowPair

ROW = "FlyingThings3D"
DIRECTIONS = {"into_future": 1, "into_past": -1}  # which frame the flow ends in, from its own


def names(root: str | Path, split: str = "TRAIN", render: str = "frames_cleanpass", camera: str = "left") -> list[str]:
    """Pairs "<split>/A/0000/into_future/left/0006" that have a flow and both frames; both directions."""
    folder = existing(Path(root) / "FlyingThings3D", ROW)
    existing(folder / render / split, ROW)
    found = []
    for flows in sorted(existing(folder / "optical_flow" / split, ROW).glob(f"*/*/into_*/{camera}")):
        sequence, direction = flows.parent.parent.relative_to(folder / "optical_flow"), flows.parent.name
        have = {p.stem for p in (folder / render / sequence / camera).glob("*.*")}
        for t in sorted(int(p.stem.split("_")[1]) for p in flows.glob("*.pfm")):
            if {f"{t:04d}", f"{t + DIRECTIONS[direction]:04d}"} <= have:
                found.append(f"{sequence}/{direction}/{camera}/{t:04d}")
    return found


def read(root: str | Path, name: str, render: str = "frames_cleanpass", legacy_consistency: bool = False) -> FlowPair:
    """One pair; visible by forward-backward consistency where the opposite flow is there.

    Args:
        render: the folder of the frames, such as frames_cleanpass or frames_cleanpass_webp.
        legacy_consistency: the `legacy` of `flow.visible_by_consistency`.

    Raises:
        FileNotFoundError, ValueError: a file is missing, unreadable or of another size.
    """
    folder = Path(root) / "FlyingThings3D"
    sequence, direction, camera, number = name.rsplit("/", 3)
    t = int(number)
    end = t + DIRECTIONS[direction]
    opposite = next(other for other in DIRECTIONS if other != direction)
    flow_0to1 = existing(_flow(folder, sequence, direction, camera, t), ROW)
    frame0, frame1 = (_frame(folder / render / sequence / camera, i) for i in (t, end))
    pair = read_flow_pair(frame0, frame1, flow_0to1, name)
    flow_1to0 = _flow(folder, sequence, opposite, camera, end)
    if not flow_1to0.exists():
        return pair
    returned = flow.read_flow(flow_1to0)[0]
    consistent = flow.visible_by_consistency(pair.flow_0to1[None], returned[None], legacy=legacy_consistency)[0]
    visible = pair.valid & consistent
    return FlowPair(pair.frame0, pair.frame1, pair.flow_0to1, pair.valid, visible, name)


def _flow(folder: Path, sequence: str, direction: str, camera: str, t: int) -> Path:
    """The flow file of a frame."""
    kind = {"into_future": "IntoFuture", "into_past": "IntoPast"}[direction]
    file = f"OpticalFlow{kind}_{t:04d}_{camera[0].upper()}.pfm"
    return folder / "optical_flow" / sequence / direction / camera / file


def _frame(folder: Path, t: int) -> Path:
    """The image of a frame, .png as released or .webp."""
    webp = folder / f"{t:04d}.webp"
    return webp if webp.exists() else existing(folder / f"{t:04d}.png", ROW)
