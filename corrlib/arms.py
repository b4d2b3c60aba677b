"""Arms of a study, trained alike: resumable, each trained once, its teacher first.

`train_arm` writes `<arm>-<seed>.safetensors` and `.json` into a folder, and goes on where it stopped;
`arm_scores` puts the networks to benchmarks.
"""

import hashlib
import json
import statistics
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from . import benchmarks, calibration, checkpoints, labels, provenance, recipes, synthetic, training
from .losses import LossWeights
from .recipes import TrainConfig
from .samples import TrackClip
from .studies import Arm, Study
from .training_data import ProceduralClips

TEACHER, TEACHER_SEED = "by_reconstruction", 1000
ONLY_COLOUR = Arm({}, LossWeights(coarse=0.0, fine=0.0, reconstruction=1.0))
LAST = 50  # steps that the losses of a record are averaged over
FOLDERS = ("real_videos", "texture_folder")  # whose places do not change what is learnt, only their names


class DrawnOnce(Dataset):
    """Procedural clips kept in a folder as they are drawn, for those who ask for the same ones again.

    Args:
        config: of the clips; what does not change them may differ.
        folder: where to keep them, about 100 KiB a clip of two frames of 128 x 128.
    """

    FIELDS = (
        "frames", "size", "points", "max_gap", "textures", "texture_folder", "photographs", "vivid", "content", "seed",
    )  # fmt: skip

    def __init__(self, config: TrainConfig, folder: str | Path):
        self.drawn = ProceduralClips(config)
        what = {name: getattr(config, name) for name in self.FIELDS} | {"version": synthetic.VERSION}
        name = hashlib.sha256(json.dumps(what).encode()).hexdigest()[:12]
        T, S, N, count = config.frames, config.size, config.points // config.frames * config.frames, len(self.drawn)
        place = Path(folder) / f"clips-{name}-{count}"
        place.mkdir(parents=True, exist_ok=True)
        (place / "what.json").write_text(json.dumps(what, indent=2))
        shapes = {
            "video": ((T, 3, S, S), np.uint8), "query_points": ((N, 3), np.float32), "tracks": ((T, N, 2), np.float32),
            "visible": ((T, N), np.bool_), "kept": ((), np.bool_),
        }  # fmt: skip
        self.arrays = {}
        for key, (shape, dtype) in shapes.items():
            path = place / f"{key}.npy"
            new = {} if path.exists() else {"dtype": dtype, "shape": (count, *shape)}
            self.arrays[key] = np.lib.format.open_memmap(path, "w+" if new else "r+", **new)

    def __len__(self) -> int:
        return len(self.drawn)

    def __getitem__(self, index: int) -> TrackClip:
        names = [name for name in self.arrays if name != "kept"]
        if not self.arrays["kept"][index]:
            clip = self.drawn[index]
            for name in names:
                self.arrays[name][index] = getattr(clip, name).numpy()
            self.arrays["kept"][index] = True
            return clip
        values = {name: torch.from_numpy(self.arrays[name][index].copy()) for name in names}
        return TrackClip(**values, valid=torch.ones_like(values["visible"]))


def train_arm(
    study: Study,
    arm: str,
    seed: int,
    folder: str | Path,
    settings: dict[str, Any] | None = None,
    cache: str | Path = "",
    report: Callable[[int, dict[str, float]], None] | None = None,
    calibration_clips: int = 4,
) -> Path:
    """Trains one arm with one seed, unless it is there; the teacher of an arm that has one first.

    Args:
        study: one of `studies.STUDIES`, or of your own.
        arm: one of its arms, or TEACHER, a network that learns by reconstruction alone.
        seed: of the clips, the weights and everything else.
        folder: where results and the resumable state are kept.
        settings: fields of TrainConfig, over the study's and the arm's.
        cache: where procedural clips are kept for the other arms; if empty they are drawn each time.
        report: as for `training.train`.
        calibration_clips: that the tracker's confidence is fitted on at the end; 0 fits none.

    Returns:
        the path of its record, a .json beside the weights.

    Raises:
        ValueError: there is no such arm, or the record found is of another configuration.
        FileNotFoundError: there is no real video.
    """
    if arm != TEACHER and arm not in study.arms:
        raise ValueError(f"train_arm: arm should be one of {', '.join((*study.arms, TEACHER))}, got {arm!r}.")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{arm}-{seed}.json"
    changes, weights = study.arms.get(arm, ONLY_COLOUR)
    config = replace(study.config, **changes | (settings or {}) | {"seed": seed})
    known = asdict(config) | {name: Path(getattr(config, name)).name for name in FOLDERS}
    if path.exists():
        if recipes.completed(json.loads(path.read_text())["config"]) != known:
            raise ValueError(f"train_arm: {path} is of another configuration; name another folder.")
        return path
    teacher = None
    if config.label in labels.OF_TEACHER and arm != TEACHER:
        train_arm(study, TEACHER, TEACHER_SEED, folder, settings, cache, report, 0)
        teacher = checkpoints.load(folder / f"{TEACHER}-{TEACHER_SEED}.safetensors")
    torch.manual_seed(seed)
    encoder, state = training.new_encoder(config), path.with_suffix(".state")
    clips = DrawnOnce(config, cache) if cache and weights.fine and not weights.masks else None
    history = training.train(encoder, config, weights, state, report=report, teacher=teacher, clips=clips)
    if calibration_clips:
        calibrated_on = [task.read()[0] for task in benchmarks.procedural_calib(calibration_clips)]
        encoder.calibration = calibration.calibrate(encoder, calibrated_on)
    last = [{k: v for k, v in record.items() if k not in ("step", "seconds", "waited")} for record in history[-LAST:]]
    seconds = np.diff([0.0, *(r["seconds"] for r in history)])
    found = {
        "arm": arm,
        "seed": seed,
        "config": known,
        "weights": asdict(weights),
        "steps": len(history),
        "seconds_per_step": statistics.median(seconds[seconds > 0].tolist()),
        "last": {name: statistics.mean(r[name] for r in last) for name in last[0]},
    }
    command = f"python -m corrlib study {study.name} FOLDER --arms {arm} --seeds {seed}"
    command += f" --calibration-clips {calibration_clips}"
    command += "".join(f" --set {name}={value}" for name, value in (settings or {}).items())
    origin = provenance.origin(command, config, weights, len(history), Path(__file__).parents[1])
    checkpoints.save(path.with_suffix(".safetensors"), encoder, origin)
    (folder / f"{arm}-{seed}.history.json").write_text(json.dumps(history[:: max(1, len(history) // 200)]))
    path.write_text(json.dumps(found, indent=2))
    state.unlink(missing_ok=True)
    return path
