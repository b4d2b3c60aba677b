"""Trackers on benchmarks: predictions first, into files; scores second, out of files.

A method is any callable `tracker(video, query_points) -> PointTracks`; `methods` names the ones
compared here. Every benchmark is turned into clips with query points and what is known of the
truth. Scoring never runs a model: what lies in the prediction files is scored, whoever wrote it.
"""

import functools
import math
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Int
from torch import Tensor, nn

from . import baselines, coords, metrics, synthetic, textures, tracking
from .datasets import badja, davis, middlebury
from .samples import PointTracks, TrackClip

Tracker = Callable[[Tensor, Tensor], PointTracks]
VAL_SEED, VAL_CLIPS, VAL_SPEED = 9_000_000, 32, (0.7, 20.0)


@dataclass(frozen=True)
class Task:
    """One clip to be tracked; `read` makes it, so that a benchmark is never in memory as a whole.

    `masks` are given where the truth is an object's region: a point is right while it stays there.
    """

    benchmark: str
    name: str
    read: Callable[[], tuple[TrackClip, Int[Tensor, "T H W"] | None]]


def methods(**encoders: nn.Module) -> dict[str, Tracker]:
    """The trackers compared: the encoders given, by name, in our tracker, and the baselines."""
    found: dict[str, Tracker] = {
        name: functools.partial(tracking.track_points, model) for name, model in encoders.items()
    }
    sift = functools.partial(
        tracking.track_points, baselines.SiftEncoder().eval(), config=tracking.TrackerConfig(temperature=0.03)
    )
    return found | {
        "sift": sift,
        "dis_medium": baselines.track_dis,
        "lk": baselines.track_lk,
        "static": baselines.track_static,
    }


def procedural_val(
    num_clips: int = VAL_CLIPS, num_frames: int = 24, size: int = 256, num_points: int = 128
) -> list[Task]:
    """The held-out procedural benchmark: clip i has speed i of a log-uniform ladder from 0.7 to 20 px a frame.

    Textures and seeds are never trained on. With fewer clips the ladder has fewer rungs.
    """

    def read(index: int) -> tuple[TrackClip, None]:
        low, high = VAL_SPEED
        speed = low * (high / low) ** ((index + 0.5) / num_clips)
        bank = textures.bank("val", 96, synthetic.TEXTURE_SIZE, VAL_SEED)
        made = synthetic.scene(VAL_SEED + index, (size, size), bank, (speed, speed))
        return synthetic.track_clip(made, [float(t) for t in range(num_frames)], num_points), None

    return [Task("procedural", f"{i:03d}", functools.partial(read, i)) for i in range(num_clips)]


def badja_tasks(root: str | Path) -> list[Task]:
    """BADJA: joints of animals, asked in the first labelled frame, those visible there."""

    def read(name: str) -> tuple[TrackClip, None]:
        clip = badja.read(root, name)
        first = int(clip.valid.any(dim=1).nonzero()[0])
        joints = (clip.visible & clip.valid)[first]
        queries = torch.cat([torch.full((int(joints.sum()), 1), float(first)), clip.joints[first, joints]], dim=1)
        valid = (clip.visible & clip.valid)[:, joints]
        return TrackClip(clip.video, queries, clip.joints[:, joints], clip.visible[:, joints], valid, name), None

    return [Task("badja", name, functools.partial(read, name)) for name in badja.names(root)]


def davis_tasks(root: str | Path, split: str, spacing: int = 12) -> list[Task]:
    """DAVIS-2016: a grid of points on the object of the first frame, which should stay on it."""

    def read(name: str) -> tuple[TrackClip, Int[Tensor, "T H W"]]:
        clip = davis.read(root, name, year=2016)
        H, W = clip.masks.shape[1:]
        grid = rearrange(coords.grid((H, W))[spacing // 2 :: spacing, spacing // 2 :: spacing], "h w c -> (h w) c")
        grid = grid[clip.masks[0][grid[:, 1].long(), grid[:, 0].long()] > 0]
        queries = torch.cat([torch.zeros(len(grid), 1), grid], dim=1)
        T, N = len(clip.video), len(grid)
        unknown = torch.zeros(T, N, dtype=torch.bool)
        return TrackClip(clip.video, queries, grid.expand(T, N, 2).clone(), unknown, unknown, name), clip.masks

    return [Task("davis2016", name, functools.partial(read, name)) for name in davis.names(root, split, year=2016)]


def middlebury_tasks(root: str | Path, spacing: int = 4) -> list[Task]:
    """Middlebury: pairs of frames, asked on a grid of the pixels whose flow is known."""

    def read(name: str) -> tuple[TrackClip, None]:
        pair = middlebury.read(root, name)
        grid = rearrange(coords.grid(tuple(pair.valid.shape))[::spacing, ::spacing], "h w c -> (h w) c")
        x, y = grid.long().unbind(-1)
        grid, x, y = (v[pair.valid[y, x]] for v in (grid, x, y))
        tracks = torch.stack([grid, grid + pair.flow_0to1[:, y, x].T])
        video = (torch.stack([pair.frame0, pair.frame1]) * 255).round().to(torch.uint8)
        queries = torch.cat([torch.zeros(len(grid), 1), grid], dim=1)
        known = torch.ones(2, len(grid), dtype=torch.bool)
        return TrackClip(video, queries, tracks, known, known, name), None

    return [Task("middlebury", name, functools.partial(read, name)) for name in middlebury.names(root)]


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
        clip, masks = task.read()
        for name, tracker in trackers.items():
            if wanted[name].exists():
                continue
            if progress:
                progress(f"{task.benchmark} {task.name}: {name}")
            found = tracker(clip.video, clip.query_points)
            _save(wanted[name], query_points=clip.query_points, **found._asdict())
        truth = {"tracks": clip.tracks, "visible": clip.visible, "valid": clip.valid}
        size = torch.tensor(clip.video.shape[-2:])
        extra = {} if masks is None else {"masks": masks.to(torch.int16)}
        _save(wanted["truth"], query_points=clip.query_points, size_hw=size, **truth, **extra)


def _save(path: Path, **tensors: Tensor) -> None:
    """An .npz that appears only when it is whole."""
    partial = path.with_name(path.name + ".partial")
    with open(partial, "wb") as file:
        np.savez_compressed(file, **{name: value.cpu().numpy() for name, value in tensors.items()})
    os.replace(partial, path)


def score(folder: str | Path, benchmark: str) -> dict[str, dict[str, dict[str, float]]]:
    """Scores all prediction files of a benchmark: method -> clip -> metric -> value.

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
            scores.setdefault(method, {})[clip] = SCORES[benchmark](dict(found), dict(truth))
    if not scores:
        raise FileNotFoundError(f"score: no predictions in {Path(folder) / benchmark}.")
    return scores


def _score_points(found: dict, truth: dict, lines: int | None = 256) -> dict[str, float]:
    """TAP-Vid's numbers; thresholds are pixels of the frame reduced to `lines` lines, or to 256 x 256."""
    H, W = truth["size_hw"]
    target = (lines, W * lines / H)
    arrays = [coords.resize_points(torch.from_numpy(a["tracks"]).double(), (H, W), target) for a in (found, truth)]
    return metrics.tapvid_metrics(
        arrays[0], found["visible"], arrays[1], truth["visible"], truth["query_points"], valid=truth["valid"]
    )


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
    """Mean end-point error of the second frame, in its own pixels."""
    error = np.linalg.norm(found["tracks"][1] - truth["tracks"][1], axis=-1)
    return {"epe": float(error.mean()), "count": error.size}


SCORES = {
    "procedural": _score_points,
    "badja": _score_points,
    "davis2016": _score_regions,
    "middlebury": _score_flow,
}
MAIN = {"procedural": "delta_avg", "badja": "delta_avg", "davis2016": "points_in_mask", "middlebury": "epe"}
SHOWN = ("delta_1", "delta_2", "delta_4", "delta_8", "delta_16", "delta_avg", "average_jaccard", "occlusion_accuracy")


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
        for metric in (m for m in (*SHOWN, "points_in_mask", "epe") if m in next(iter(clips.values()))):
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
