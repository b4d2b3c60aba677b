"""Benchmarks as tasks: clips with query points and what is known of the truth.

Each data set is turned into the same form, a `TrackClip`, that any tracker can be asked. A task
reads its clip when asked to, so that a benchmark is never in memory as a whole. Nothing here
tracks or scores.
"""

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor

from . import collages, coords, synthetic, textures
from .datasets import badja, davis, flyingchairs, jhmdb, kitti, middlebury, sintel, tapvid
from .samples import FlowPair, PoseClip, TrackClip

FLOW = {"middlebury": middlebury, "sintel": sintel, "kitti": kitti, "flyingchairs": flyingchairs}
POINTS = {"tapvid_davis": "davis", "tapvid_kinetics": "kinetics", "tapvid_rgb_stacking": "rgb_stacking"}
POSE = {"badja": badja, "jhmdb": jhmdb}
BENCHMARKS = ("procedural", "real_texture", *POINTS, *POSE, "davis2016", *FLOW)
VAL_SEED, CALIB_SEED, VAL_CLIPS, VAL_SPEED = 9_000_000, 8_000_000, 32, (0.7, 20.0)
REAL_SEED, REAL_SPEED = 7_000_000, (1.0, 24.0)


@dataclass(frozen=True)
class Task:
    """One clip to be tracked; `read` makes it, so that a benchmark is never in memory as a whole.

    `read` also returns what else is known: `masks` (T, H, W), where the truth is an object's region
    and a point is right while it stays there; `scale` (T,), the length PCK is measured by.
    """

    benchmark: str
    name: str
    read: Callable[[], tuple[TrackClip, dict[str, Tensor]]]


def procedural_val(
    num_clips: int = VAL_CLIPS, num_frames: int = 24, size: int = 256, num_points: int = 128
) -> list[Task]:
    """The held-out procedural benchmark: clip i has speed i of a log-uniform ladder from 0.7 to 20 px a frame.

    Textures and seeds are never trained on. With fewer clips the ladder has fewer rungs.
    """
    return _procedural("procedural", "val", VAL_SEED, num_clips, num_frames, size, num_points)


def procedural_calib(num_clips: int = 16, num_frames: int = 24, size: int = 256, num_points: int = 64) -> list[Task]:
    """Its sibling for calibration: other seeds, and the textures of training."""
    return _procedural("procedural_calib", "train", CALIB_SEED, num_clips, num_frames, size, num_points)


def _procedural(
    name: str, split: str, seed: int, num_clips: int, num_frames: int, size: int, num_points: int
) -> list[Task]:
    """Procedural clips, the speeds of the scenes a ladder."""

    def read(index: int) -> tuple[TrackClip, dict[str, Tensor]]:
        low, high = VAL_SPEED
        speed = low * (high / low) ** ((index + 0.5) / num_clips)
        bank = textures.bank(split, 96, synthetic.TEXTURE_SIZE, seed)
        made = synthetic.scene(seed + index, (size, size), bank, (speed, speed))
        return synthetic.track_clip(made, [float(t) for t in range(num_frames)], num_points), {}

    return [Task(name, f"{i:03d}", functools.partial(read, i)) for i in range(num_clips)]


def real_texture(
    root: str | Path, split: str = "val", num_frames: int = 24, size: int = 256, num_points: int = 128, looks: int = 2
) -> list[Task]:
    """Objects of a DAVIS-style folder, cut out and moved over its frames: exact tracks on real texture.

    Each object is in front in `looks` clips, cut out at as many moments of its own; the speed of the
    clips is a log-uniform ladder from 1 to 24 px a frame at 256 lines.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: it has no such split; on reading, a clip has no object worth cutting out.
    """
    names = davis.names(root, split, year=2016)
    low, high = REAL_SPEED
    rungs = torch.randperm(len(names) * looks, generator=torch.Generator().manual_seed(REAL_SEED)).tolist()

    def read(index: int) -> tuple[TrackClip, dict[str, Tensor]]:
        share, speed = index // len(names) / looks, low * (high / low) ** ((rungs[index] + 0.5) / len(rungs))
        made = collages.scene(root, names, index % len(names), share, REAL_SEED + index, speed, size)
        return synthetic.track_clip(made, [float(t) for t in range(num_frames)], num_points), {}

    called = [f"{name}-{look}" for look in range(looks) for name in names]
    return [Task("real_texture", name, functools.partial(read, i)) for i, name in enumerate(called)]


def tapvid_tasks(benchmark: str, root: str | Path, query_mode: str = "first") -> list[Task]:
    """TAP-Vid: the official clips, at the size they have in the official files."""

    def read(name: str) -> tuple[TrackClip, dict[str, Tensor]]:
        return tapvid.read(root, name, POINTS[benchmark], query_mode), {}

    return [Task(benchmark, name, functools.partial(read, name)) for name in tapvid.names(root, POINTS[benchmark])]


def pose_tasks(benchmark: str, root: str | Path) -> list[Task]:
    """Joints of animals or people, asked in the first labelled frame, those visible there."""

    def read(name: str) -> tuple[TrackClip, dict[str, Tensor]]:
        clip: PoseClip = POSE[benchmark].read(root, name)
        known = clip.visible & clip.valid
        first = int(known.any(dim=1).nonzero()[0])
        joints = known[first]
        queries = torch.cat([torch.full((int(joints.sum()), 1), float(first)), clip.joints[first, joints]], dim=1)
        tracks = TrackClip(clip.video, queries, clip.joints[:, joints], clip.visible[:, joints], known[:, joints], name)
        return tracks, {"scale": clip.scale}

    return [Task(benchmark, name, functools.partial(read, name)) for name in POSE[benchmark].names(root)]


def davis_tasks(root: str | Path, split: str, spacing: int = 12) -> list[Task]:
    """DAVIS-2016: a grid of points on the object of the first frame, which should stay on it."""

    def read(name: str) -> tuple[TrackClip, dict[str, Tensor]]:
        clip = davis.read(root, name, year=2016)
        H, W = clip.masks.shape[1:]
        grid = rearrange(coords.grid((H, W))[spacing // 2 :: spacing, spacing // 2 :: spacing], "h w c -> (h w) c")
        grid = grid[clip.masks[0][grid[:, 1].long(), grid[:, 0].long()] > 0]
        queries = torch.cat([torch.zeros(len(grid), 1), grid], dim=1)
        T, N = len(clip.video), len(grid)
        unknown = torch.zeros(T, N, dtype=torch.bool)
        tracks = TrackClip(clip.video, queries, grid.expand(T, N, 2).clone(), unknown, unknown, name)
        return tracks, {"masks": clip.masks.to(torch.int16)}

    return [Task("davis2016", name, functools.partial(read, name)) for name in davis.names(root, split, year=2016)]


def flow_tasks(benchmark: str, root: str | Path, spacing: int = 4) -> list[Task]:
    """Pairs of frames with true flow, asked on a grid of the pixels whose flow is known."""

    def read(name: str) -> tuple[TrackClip, dict[str, Tensor]]:
        pair: FlowPair = FLOW[benchmark].read(root, name)
        grid = rearrange(coords.grid(tuple(pair.valid.shape))[::spacing, ::spacing], "h w c -> (h w) c")
        x, y = grid.long().unbind(-1)
        grid, x, y = (v[pair.valid[y, x]] for v in (grid, x, y))
        tracks = torch.stack([grid, grid + pair.flow_0to1[:, y, x].T])
        video = (torch.stack([pair.frame0, pair.frame1]) * 255).round().to(torch.uint8)
        queries = torch.cat([torch.zeros(len(grid), 1), grid], dim=1)
        known = torch.ones(2, len(grid), dtype=torch.bool)
        return TrackClip(video, queries, tracks, known, known, name), {}

    return [Task(benchmark, name, functools.partial(read, name)) for name in FLOW[benchmark].names(root)]


def tasks(
    benchmark: str, root: str | Path, split: str = "val", max_clips: int = 0, query_mode: str = "first"
) -> list[Task]:
    """The clips of a benchmark, by its name.

    Args:
        benchmark: one of BENCHMARKS.
        root: the folder of the data sets; the procedural benchmark needs none.
        split: of DAVIS, which also gives real_texture its objects.
        max_clips: at most so many; 0 takes all. Fewer procedural clips spread over all speeds.
        query_mode: of TAP-Vid, "first" or "strided".

    Raises:
        ValueError: there is no such benchmark, or no such split.
        FileNotFoundError: its data is not there.
    """
    if benchmark not in BENCHMARKS:
        raise ValueError(f"tasks: benchmark should be one of {', '.join(BENCHMARKS)}, got {benchmark!r}.")
    if benchmark == "procedural":
        return procedural_val(min(max_clips, VAL_CLIPS) or VAL_CLIPS)
    if benchmark == "real_texture":
        found = real_texture(root, split)
    elif benchmark in POINTS:
        found = tapvid_tasks(benchmark, root, query_mode)
    elif benchmark in POSE:
        found = pose_tasks(benchmark, root)
    elif benchmark in FLOW:
        found = flow_tasks(benchmark, root)
    else:
        found = davis_tasks(root, split)
    return found[: max_clips or None]


def available(
    benchmarks: Iterable[str],
    root: str | Path,
    split: str = "val",
    max_clips: int = 0,
    query_mode: str = "first",
) -> tuple[dict[str, list[Task]], dict[str, str]]:
    """The clips of each benchmark whose data is there, and of the others what was looked for.

    Raises:
        ValueError: as for `tasks`; also when no benchmark is asked for.
        FileNotFoundError: none of them has its data.
    """
    found, missing = {}, {}
    for name in benchmarks:
        try:
            found[name] = tasks(name, root, split, max_clips, query_mode)
        except FileNotFoundError as error:
            missing[name] = str(error)
    if missing and not found:
        raise FileNotFoundError(" ".join(missing.values()))
    if not found:
        raise ValueError(f"available: benchmarks should be some of {', '.join(BENCHMARKS)}, got none.")
    return found, missing
