"""How weights were made, for their header: so that whoever has the file can make them again."""

import hashlib
import json
import platform
from dataclasses import asdict
from pathlib import Path

import torch

from . import environment, synthetic
from .losses import LossWeights
from .recipes import TrainConfig

BEGINNING = 2**12  # bytes of each file that a checksum looks at
FOLDERS = {"flyingthings3d": "FlyingThings3D", "flyingchairs": "FlyingChairs", "shards": ""}


def origin(command: str, config: TrainConfig, weights: LossWeights, steps_done: int, root: Path) -> dict[str, str]:
    """What the header of trained weights says, all of it text.

    Args:
        command: that makes them.
        config, weights: of the training.
        steps_done: of `config.steps`; fewer where the time was up.
        root: of the repository, whose commit is named.
    """
    return {
        "command": command,
        "commit": environment.commit(root),
        "training": json.dumps(asdict(config)),
        "weights": json.dumps(asdict(weights)),
        "seed": str(config.seed),
        "steps_done": str(steps_done),
        "data": json.dumps(data(config, weights)),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def lineage(origin: dict[str, str]) -> list[dict[str, str]]:
    """The trainings that made weights of an origin, the first of them first, as one list.

    Args:
        origin: whose "started_from" is such a list of those before it, or, as was written once, the origin before it.
    """
    before = json.loads(origin.get("started_from", "[]"))
    own = {name: value for name, value in origin.items() if name != "started_from"}
    return [*(lineage(before) if isinstance(before, dict) else before), own]


def data(config: TrainConfig, weights: LossWeights) -> dict[str, str]:
    """Which data a training sees: the version of the drawn video, and checksums of folders, or "gone"."""
    found: dict[str, str] = {}
    folders: dict[str, str | Path] = {}
    if weights.coarse or weights.fine or weights.masks:
        if config.labelled == "procedural":
            found["procedural"] = str(synthetic.VERSION)
            if config.texture_folder:
                folders["texture_folder"] = config.texture_folder
        else:
            folders[config.labelled] = Path(config.data_root, FOLDERS[config.labelled])
    if weights.reconstruction or weights.domain:
        folders["real_videos"] = config.real_videos
    return found | {name: checksum(folder) if Path(folder).is_dir() else "gone" for name, folder in folders.items()}


def checksum(folder: str | Path) -> str:
    """One for a folder wherever it lies: of the names and sizes of all files in it and of the first 4 KiB of each.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"checksum: no folder {folder}.")
    total = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        with path.open("rb") as file:
            beginning = hashlib.sha256(file.read(BEGINNING)).hexdigest()
        total.update(f"{path.relative_to(folder).as_posix()} {path.stat().st_size} {beginning}\n".encode())
    return total.hexdigest()
