"""Trackers on benchmarks: predictions first, into files; scores second, out of files.

A method is any callable `tracker(video, query_points) -> PointTracks`; `methods` names the ones
compared here. What they are asked comes from `benchmarks`. Scoring never runs a model: what lies
in the prediction files is scored, whoever wrote it.
"""

import functools
import math
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from . import baselines, benchmarks, coords, metrics, tracking
from .benchmarks import Task
from .samples import PointTracks, TrackClip

Tracker = Callable[[Tensor, Tensor], PointTracks]
TRUTH = ("query_points", "tracks", "visible", "valid")


def methods(only: Iterable[str] = (), **encoders: nn.Module) -> dict[str, Tracker]:
    """The trackers compared: the encoders given, by name, in our tracker, and the baselines.

    Raises:
        ValueError: one of those that `only` asks for is none of them.
    """
    found: dict[str, Tracker] = {
        name: functools.partial(tracking.track_points, model) for name, model in encoders.items()
    }
    sift = functools.partial(
        tracking.track_points,
        baselines.SiftEncoder().eval(),
        config=tracking.TrackerConfig(temperature=0.03, readout_temperature=0.03),
    )
    patches = functools.partial(tracking.track_points, baselines.RawPatchEncoder().eval())
    found |= {
        "dis_medium": baselines.track_dis,
        "dis_fast": functools.partial(baselines.track_dis, preset="fast"),
        "sift": sift,
        "patches": patches,
        "lk": baselines.track_lk,
        "farneback": baselines.track_farneback,
        "static": baselines.track_static,
    }
    for name in only:
        if name not in found:
            raise ValueError(f"methods: unknown method {name!r}; there are {', '.join(found)}.")
    return {name: tracker for name, tracker in found.items() if not only or name in only}


def accuracy(model: nn.Module, clips: list[TrackClip]) -> dict[str, float]:
    """Mean scores of an encoder in our tracker on clips in memory, for `training.train` to call.

    Raises:
        ValueError: there are no clips.
    """
    if not clips:
        raise ValueError("accuracy: clips should be at least 1, got none.")
    scores = []
    for clip in clips:
        found = tracking.track_points(model, clip.video, clip.query_points)
        known = {"size_hw": clip.video.shape[-2:]} | {n: getattr(clip, n).numpy() for n in TRUTH}
        scores.append(_score_points({n: v.numpy(force=True) for n, v in found._asdict().items()}, known))
    return {name: float(np.nanmean([s[name] for s in scores])) for name in ("delta_avg", "occlusion_accuracy")}


def predict(
    trackers: dict[str, Tracker],
    tasks: Iterable[Task],
    folder: str | Path,
    progress: Callable[[str], None] | None = None,
) -> None:
    """Writes `<folder>/<benchmark>/<clip>.<method>.npz` for every clip and method; those there are kept.

    Each file holds query_points (N, 3), tracks (T, N, 2), visible (T, N) and confidence (T, N).
    The clip's truth lies beside it as `<clip>.truth.npz`.
    """
    for task in tasks:
        where = Path(folder) / task.benchmark
        where.mkdir(parents=True, exist_ok=True)
        wanted = {name: where / f"{task.name}.{name}.npz" for name in [*trackers, "truth"]}
        if all(path.exists() for path in wanted.values()):
            continue
        clip, known = task.read()
        for name, tracker in trackers.items():
            if wanted[name].exists():
                continue
            if progress:
                progress(f"{task.benchmark} {task.name}: {name}")
            found = tracker(clip.video, clip.query_points)
            _save(wanted[name], query_points=clip.query_points, **found._asdict())
        truth = {"tracks": clip.tracks, "visible": clip.visible, "valid": clip.valid}
        size = torch.tensor(clip.video.shape[-2:])
        _save(wanted["truth"], query_points=clip.query_points, size_hw=size, **truth, **known)


def _save(path: Path, **tensors: Tensor) -> None:
    """An .npz that appears only when it is whole."""
    partial = path.with_name(path.name + ".partial")
    with open(partial, "wb") as file:
        np.savez_compressed(file, **{name: value.cpu().numpy() for name, value in tensors.items()})
    os.replace(partial, path)


def read_prediction(folder: str | Path, task: Task, method: str) -> PointTracks:
    """What a method answered on a clip, as `predict` wrote it.

    Raises:
        FileNotFoundError: it has not been asked.
    """
    path = Path(folder) / task.benchmark / f"{task.name}.{method}.npz"
    if not path.is_file():
        raise FileNotFoundError(f"read_prediction: no file {path}.")
    with np.load(path) as arrays:
        return PointTracks(*(torch.from_numpy(arrays[name]) for name in PointTracks._fields))


def score(folder: str | Path, benchmark: str, query_mode: str = "first") -> dict[str, dict[str, dict[str, float]]]:
    """Scores all prediction files of a benchmark: method -> clip -> metric -> value.

    Args:
        folder: where `predict` wrote, or anyone in its format.
        benchmark: one of `benchmarks.BENCHMARKS`.
        query_mode: of TAP-Vid, as the tasks were made.

    Raises:
        FileNotFoundError: there are no predictions.
        ValueError: a file's shapes are not those of the clip's truth.
    """
    scores: dict[str, dict[str, dict[str, float]]] = {}
    for path in sorted((Path(folder) / benchmark).glob("*.npz")):
        clip, method = path.name.removesuffix(".npz").rsplit(".", 1)
        if method == "truth":
            continue
        with np.load(path) as found, np.load(path.with_name(f"{clip}.truth.npz")) as truth:
            if found["tracks"].shape != truth["tracks"].shape:
                raise ValueError(
                    f"score: {path} should hold tracks {truth['tracks'].shape}, got {found['tracks'].shape}."
                )
            scores.setdefault(method, {})[clip] = score_clip(benchmark, dict(found), dict(truth), query_mode)
    if not scores:
        raise FileNotFoundError(f"score: no predictions in {Path(folder) / benchmark}.")
    return scores


def score_clip(benchmark: str, found: dict, truth: dict, query_mode: str = "first") -> dict[str, float]:
    """The scores of one clip from the arrays of its two files, by the rules of its benchmark."""
    if benchmark in benchmarks.FLOW:
        return _score_flow(found, truth)
    if "masks" in truth:
        return _score_regions(found, truth)
    scores = _score_points(found, truth, query_mode)
    return scores | (_score_joints(found, truth) if "scale" in truth else {})


def _score_points(found: dict, truth: dict, query_mode: str = "first") -> dict[str, float]:
    """TAP-Vid's numbers; thresholds are pixels of the frame resized to 256 lines."""
    H, W = (float(n) for n in truth["size_hw"])
    target = (256.0, W * 256 / H)
    mine, true = (coords.resize_points(torch.from_numpy(a["tracks"]).double(), (H, W), target) for a in (found, truth))
    queries, known = truth["query_points"], {"query_mode": query_mode, "valid": truth["valid"]}
    return metrics.tapvid_metrics(mine, found["visible"], true, truth["visible"], queries, **known)


def _score_joints(found: dict, truth: dict) -> dict[str, float]:
    """PCK of the joints asked, strict: labelled, visible, not in the frame of the query."""
    asked = int(truth["query_points"][:, 0].min())
    mine, true, visible, valid, scale = (
        a[asked:] for a in (found["tracks"], truth["tracks"], truth["visible"], truth["valid"], truth["scale"])
    )
    counted, alphas = metrics.counted_joints(visible, valid, "strict"), (0.1, 0.2, 0.3, 0.4, 0.5)
    pck = [metrics.pck(mine, true, counted, scale, alpha)["pck"] for alpha in alphas]
    return {f"pck_{round(10 * alpha)}": value for alpha, value in zip(alphas, pck)}


def _score_regions(found: dict, truth: dict) -> dict[str, float]:
    """The share of the object's points that lie on it, over the frames after the first."""
    masks = truth["masks"]
    T, H, W = masks.shape
    xy = np.rint(found["tracks"]).astype(int)
    inside = (xy >= 0).all(-1) & (xy[..., 0] < W) & (xy[..., 1] < H)
    x, y = xy[..., 0].clip(0, W - 1), xy[..., 1].clip(0, H - 1)
    # Points of an object that has left the frame are neither right nor wrong.
    there = [t for t in range(1, T) if (masks[t] > 0).any()]
    hit = inside & (masks[np.arange(T)[:, None], y, x] > 0)
    return {"points_in_mask": float(hit[there].mean()), "count": len(there) * xy.shape[1]}


def _score_flow(found: dict, truth: dict) -> dict[str, float]:
    """Flow in the second frame's own pixels."""
    mine, true = (torch.from_numpy(a["tracks"][1] - truth["tracks"][0]).T[:, None] for a in (found, truth))
    return metrics.flow_metrics(mine, true, torch.ones(mine.shape[1:], dtype=torch.bool))


MAIN = dict.fromkeys(benchmarks.BENCHMARKS, "delta_avg") | dict.fromkeys(benchmarks.FLOW, "epe")
MAIN["davis2016"] = "points_in_mask"
SHOWN = ("delta_1", "delta_2", "delta_4", "delta_8", "delta_16", "delta_avg", "average_jaccard", "occlusion_accuracy")
SHOWN += ("pck_1", "pck_2", "pck_3", "pck_4", "pck_5", "points_in_mask", "epe", "px1", "fl_all")


def summarise(
    scores: dict[str, dict[str, dict[str, float]]], benchmark: str, against: Iterable[str] = ("dis_medium", "sift")
) -> dict[str, dict]:
    """Means over clips, and paired differences with their standard error, as entries for `Run.record`.

    Args:
        scores: from `score`.
        benchmark: its name, the first part of the keys.
        against: methods that every other one is compared with, clip by clip, in the main metric.
    """
    entries = {}

    def add(method: str, metric: str, value: float, count: int) -> None:
        unit = "px" if metric.startswith("epe") else "fraction"
        entries[f"{benchmark}.{method}.{metric}"] = {"value": value, "unit": unit, "count": count}

    main = MAIN[benchmark]
    for method, clips in scores.items():
        for metric in (m for m in SHOWN if m in next(iter(clips.values()))):
            values = np.array([clip[metric] for clip in clips.values()])
            known = values[~np.isnan(values)]
            add(method, metric, float(known.mean()) if len(known) else math.nan, len(known))
        for other in against:
            if other == method or scores.get(other, {}).keys() != clips.keys() or len(clips) < 2:
                continue
            pairs = [[c[main] for c in scores[m].values()] for m in (method, other)]
            difference = metrics.paired_difference(*(np.array(p) for p in pairs))
            add(method, f"{main}_minus_{other}", difference["mean"], difference["count"])
            add(method, f"{main}_minus_{other}_se", difference["standard_error"], difference["count"])
    return entries
