"""The paper's claims as an experiment: arms that differ in one thing, trained alike, and compared in pairs.

An arm is a kind of label, with or without reconstruction and adversary. Arms of one seed begin with
the same weights and see the same clips. `train_arm` writes `<arm>-<seed>.safetensors` and `.json`
into a folder, and goes on where it stopped; `ask` and `scores` put the networks to benchmarks.
"""

import hashlib
import json
import statistics
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from . import benchmarks, calibration, checkpoints, evaluation, labels, predictions, recipes, synthetic, training
from .losses import LossWeights
from .methods import of_encoder
from .recipes import TrainConfig
from .samples import TrackClip
from .training_data import ProceduralClips

ADDED = {
    "": LossWeights(),
    "_reconstruction": LossWeights(reconstruction=1.0),
    "_adversary": LossWeights(domain=1.0),
    "_both": LossWeights(reconstruction=1.0, domain=1.0),
}
ARMS = {
    **{kind: (kind, ADDED[""]) for kind in ("hard", "bilinear", "gaussian", "teacher")},
    **{kind + name: (kind, ADDED[name]) for kind in ("bilinear", "teacher") for name in ADDED if name},
}
TEACHER, TEACHER_SEED = "by_reconstruction", 1000
# Textures without photographs, so that synthetic and real video differ; a colour is dropped in all arms alike.
CONFIG = TrainConfig(
    steps=1200, clips=8, frames=2, size=128, points=128, appearance=0.7, photographs=False, drop_channels=True,
    real_videos="data/samples", domain_strength=10.0,
)  # fmt: skip
COMPARED = (
    *(("hard", kind) for kind in ("bilinear", "gaussian", "teacher")),
    *((kind, kind + name) for kind in ("bilinear", "teacher") for name in ADDED if name),
)
LAST = 50  # steps that the losses of a record are averaged over


class DrawnOnce(Dataset):
    """Procedural clips kept in a folder as they are drawn, for those who ask for the same ones again.

    Args:
        config: of the clips; what does not change them may differ.
        folder: where to keep them, about 100 KiB a clip of two frames of 128 x 128.
    """

    FIELDS = ("frames", "size", "points", "max_gap", "textures", "texture_folder", "photographs", "content", "seed")

    def __init__(self, config: TrainConfig, folder: str | Path):
        self.drawn = ProceduralClips(config)
        what = {name: getattr(config, name) for name in self.FIELDS} | {"version": synthetic.VERSION}
        name = hashlib.sha256(json.dumps(what).encode()).hexdigest()[:12]
        T, S, N, count = config.frames, config.size, config.points // config.frames * config.frames, len(self.drawn)
        place = Path(folder) / f"claims-{name}-{count}"
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
    arm: str,
    seed: int,
    folder: str | Path,
    config: TrainConfig = CONFIG,
    cache: str | Path = "",
    report: Callable[[int, dict[str, float]], None] | None = None,
    calibration_clips: int = 4,
) -> Path:
    """Trains one arm with one seed, unless it is there; the teacher of the teacher arms first.

    Args:
        arm: one of ARMS, or TEACHER, a network that learns by reconstruction alone.
        seed: of the clips, the weights and everything else.
        folder: where results and the resumable state are kept.
        config: what all arms have in common.
        cache: where procedural clips are kept for the other arms; if empty they are drawn each time.
        report: as for `training.train`.
        calibration_clips: that the tracker's confidence is fitted on at the end; 0 fits none.

    Returns:
        the path of its record, a .json beside the weights.

    Raises:
        ValueError: there is no such arm, or the record found is of another configuration.
        FileNotFoundError: there is no real video.
    """
    if arm != TEACHER and arm not in ARMS:
        raise ValueError(f"train_arm: arm should be one of {', '.join((*ARMS, TEACHER))}, got {arm!r}.")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    path, named = folder / f"{arm}-{seed}.json", {"real_videos": Path(config.real_videos).name}  # wherever it is
    only_colour = LossWeights(coarse=0.0, fine=0.0, reconstruction=1.0)
    label, weights = ARMS.get(arm, (config.label, only_colour))
    config = replace(config, seed=seed, label=label)
    if path.exists():
        if recipes.completed(json.loads(path.read_text())["config"]) != asdict(config) | named:
            raise ValueError(f"train_arm: {path} is of another configuration; name another folder.")
        return path
    teacher = None
    if label in labels.OF_TEACHER and arm != TEACHER:
        train_arm(TEACHER, TEACHER_SEED, folder, config, cache, report, 0)
        teacher = checkpoints.load(folder / f"{TEACHER}-{TEACHER_SEED}.safetensors")
    torch.manual_seed(seed)
    encoder, state = training.new_encoder(config), path.with_suffix(".state")
    clips = DrawnOnce(config, cache) if cache and weights.fine else None
    history = training.train(encoder, config, weights, state, report=report, teacher=teacher, clips=clips)
    if calibration_clips:
        calibrated_on = [task.read()[0] for task in benchmarks.procedural_calib(calibration_clips)]
        encoder.calibration = calibration.calibrate(encoder, calibrated_on)
    last = [{k: v for k, v in record.items() if k not in ("step", "seconds", "waited")} for record in history[-LAST:]]
    seconds = np.diff([0.0, *(r["seconds"] for r in history)])
    found = {
        "arm": arm,
        "seed": seed,
        "config": asdict(config) | named,
        "weights": asdict(weights),
        "steps": len(history),
        "seconds_per_step": statistics.median(seconds[seconds > 0].tolist()),
        "last": {name: statistics.mean(r[name] for r in last) for name in last[0]},
    }
    origin = {"command": f"corrlib.claims.train_arm({arm!r}, {seed})", "training": json.dumps(found["config"])}
    checkpoints.save(path.with_suffix(".safetensors"), encoder, origin)
    (folder / f"{arm}-{seed}.history.json").write_text(json.dumps(history[:: max(1, len(history) // 200)]))
    path.write_text(json.dumps(found, indent=2))
    state.unlink(missing_ok=True)
    return path


def ask(
    folder: str | Path, tasks: Iterable[benchmarks.Task], progress: Callable[[int, str], None] | None = None
) -> None:
    """Asks every network in a folder about clips; answers, in `predictions` within it, are kept."""
    found = sorted(p for p in Path(folder).glob("*.safetensors") if not p.stem.startswith(TEACHER))
    if not found:
        raise FileNotFoundError(f"claims: no trained arm (.safetensors) in {folder}.")
    # Points only: what masks would take is asked where it is the question.
    methods = {path.stem: of_encoder(checkpoints.load(path))._replace(masks=None) for path in found}
    predictions.predict(methods, tasks, Path(folder) / "predictions", progress=progress)


def write_scores(folder: str | Path, names: Iterable[str]) -> dict:
    """The answers of `ask` to benchmarks, scored; kept in the folder as scores.json and, as `table`, metrics.json."""
    found = scores(folder, names)
    for name, values in (("scores", found), ("metrics", table(found))):
        Path(folder, f"{name}.json").write_text(json.dumps(values, indent=1, sort_keys=True) + "\n")
    return found


def read_scores(folder: str | Path) -> dict:
    """The scores in a folder, as `scores` returns them.

    Raises:
        FileNotFoundError: nothing has been scored there.
    """
    path = Path(folder, "scores.json")
    if not path.is_file():
        raise FileNotFoundError(f"claims: no file {path}; train-claims and score-claims make one.")
    return json.loads(path.read_text())


def scores(folder: str | Path, names: Iterable[str]) -> dict[str, dict[str, dict[str, list[float]]]]:
    """The main number of each benchmark: benchmark -> arm -> seed -> a value for each clip, in the order of clips."""
    found: dict = {}
    for benchmark in names:
        metric = evaluation.COMPARED[benchmark][0]
        for method, clips in evaluation.score(Path(folder) / "predictions", benchmark).items():
            arm, _, seed = method.rpartition("-")
            found.setdefault(benchmark, {}).setdefault(arm, {})[seed] = [clips[n][metric] for n in sorted(clips)]
    return found


def compare(one: dict[str, list[float]], other: dict[str, list[float]], draws: int = 2000) -> dict[str, float]:
    """How much better the other arm is than the one, over the seeds that both have, clip by clip.

    Returns:
        mean of the differences; low and high of its 95 % interval, of which both seeds and clips are
        drawn again; `seeds`, how many, and `spread`, the standard deviation of their means.

    Raises:
        ValueError: there is no seed that both have.
    """
    seeds = sorted(one.keys() & other.keys())
    if not seeds:
        raise ValueError(f"compare: both arms should have a seed in common, got {sorted(one)} and {sorted(other)}.")
    differences = np.array([other[s] for s in seeds]) - np.array([one[s] for s in seeds])
    differences = differences[:, ~np.isnan(differences).any(axis=0)]
    S, C = differences.shape
    random = np.random.default_rng(0)
    rows, columns = random.integers(S, size=(draws, S, 1)), random.integers(C, size=(draws, 1, C))
    low, high = np.quantile(differences[rows, columns].mean(axis=(1, 2)), [0.025, 0.975])
    each = differences.mean(axis=1)
    spread = float(each.std(ddof=1)) if S > 1 else float("nan")
    found = {"mean": float(each.mean()), "low": float(low), "high": float(high), "spread": spread}
    return found | {"seeds": S, "clips": C}


def table(found: dict[str, dict[str, dict[str, list[float]]]]) -> dict[str, dict[str, float | str | int]]:
    """The claims as entries of a metrics.json: means and spread of each arm, and the differences of COMPARED."""
    entries: dict = {}
    for benchmark, arms in found.items():
        metric = evaluation.COMPARED[benchmark][0]
        for arm, seeds in arms.items():
            means = [float(np.nanmean(values)) for values in seeds.values()]
            spread = statistics.stdev(means) if len(means) > 1 else float("nan")
            for ending, value in (("", statistics.mean(means)), ("_spread", spread)):
                name = f"{benchmark}.{arm}.{metric}{ending}"
                entries[name] = {"value": value, "unit": "fraction", "count": len(means)}
        for one, other in COMPARED:
            if not arms.get(one, {}).keys() & arms.get(other, {}).keys():
                continue
            difference = compare(arms[one], arms[other])
            for ending, key in (("", "mean"), ("_low", "low"), ("_high", "high"), ("_spread", "spread")):
                name = f"{benchmark}.{other}.{metric}_minus_{one}{ending}"
                entries[name] = {"value": difference[key], "unit": "fraction", "count": difference["seeds"]}
    return entries
