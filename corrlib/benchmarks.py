"""Benchmarks as tasks: clips with query points and what is known of the truth.

Each data set is turned into the same form, a `TrackClip`, that any tracker can be asked. A task
reads its clip when asked to, so that a benchmark is never in memory as a whole. Nothing here
tracks or scores.
"""

import functools
import hashlib
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from . import collages, queries, synthetic, textures
from .datasets import badja, davis, flyingchairs, jhmdb, kitti, middlebury, sintel, tapvid
from .queries import Asked

FLOW_SETS = {"middlebury": middlebury, "sintel": sintel, "kitti": kitti, "flyingchairs": flyingchairs}
FLOW = ("real_motion", *FLOW_SETS)
POINTS = {"tapvid_davis": "davis", "tapvid_kinetics": "kinetics", "tapvid_rgb_stacking": "rgb_stacking"}
POSE = {"badja": badja, "jhmdb": jhmdb}
SINTEL_PASSES = ("clean", "final")
OBJECTS = {"davis2016": 2016, "davis2017": 2017}
BENCHMARKS = ("procedural", "procedural_long", "procedural_calib", "real_texture", *POINTS, *POSE, *OBJECTS, *FLOW)
VAL_SEED, LONG_SEED, CALIB_SEED, REAL_SEED = 9_000_000, 9_500_000, 8_000_000, 7_000_000
VAL_CLIPS, LONG_CLIPS, CALIB_CLIPS, LONG_FRAMES = 32, 12, 16, 96
VAL_SPEED, REAL_SPEED = (2.0, 10.0), (1.0, 24.0)  # pixels a frame at 256 lines, a ladder over the clips
FAR = 16.0  # pixels, which a motion of `real_motion` is longer than
BINS = {"slow": 3.5, "middle": 6.0, "fast": math.inf}  # below so many pixels a frame
TEXTURES = 96  # of each procedural benchmark


@dataclass(frozen=True)
class Task:
    """One clip to be tracked; `read` makes it, as `queries` says, so that a benchmark is never in memory as a whole.

    `asked` is how queries were chosen.
    """

    benchmark: str
    name: str
    read: Callable[[], Asked]
    asked: str = ""
    motion: str = ""  # one of BINS, where the motion is ours


def procedural_val(
    num_clips: int = VAL_CLIPS, num_frames: int = 24, size: int = 256, num_points: int = 128
) -> list[Task]:
    """The held-out procedural benchmark: clip i has speed i of a log-uniform ladder from 2 to 10 px a frame.

    Textures, seeds and families of scenes are never trained on. With fewer clips the ladder has fewer rungs.
    """
    return _procedural("procedural", "val", VAL_SEED, num_clips, num_frames, size, num_points)


def procedural_long(num_clips: int = LONG_CLIPS, size: int = 256, num_points: int = 128) -> list[Task]:
    """The same in 96 frames, in which many points are hidden for long and come back."""
    return _procedural("procedural_long", "val", LONG_SEED, num_clips, LONG_FRAMES, size, num_points)


def procedural_calib(
    num_clips: int = CALIB_CLIPS, num_frames: int = 24, size: int = 256, num_points: int = 64
) -> list[Task]:
    """Its sibling to fit confidence and to choose settings on: other seeds, the textures and families of training."""
    return _procedural("procedural_calib", "train", CALIB_SEED, num_clips, num_frames, size, num_points)


def _procedural(
    name: str, split: str, seed: int, num_clips: int, num_frames: int, size: int, num_points: int
) -> list[Task]:
    """Procedural clips, the speeds of the scenes a ladder."""

    def read(index: int) -> Asked:
        made = procedural_scene(index, num_clips, size, split, seed)
        return synthetic.track_clip(made, [float(t) for t in range(num_frames)], num_points), {}

    def task(index: int) -> Task:
        motion = _motion_bin(_rung(VAL_SPEED, index, num_clips))
        # Fewer clips are other clips, of other speeds.
        return Task(name, f"{index:03d}", functools.partial(read, index), f"of {num_clips}", motion)

    return [task(i) for i in range(num_clips)]


def procedural_scene(
    index: int, num_clips: int = VAL_CLIPS, size: int = 256, split: str = "val", seed: int = VAL_SEED
) -> synthetic.Scene:
    """The scene of a procedural clip, for whatever else one wants to know of it: masks, joints, flow."""
    speed = _rung(VAL_SPEED, index, num_clips)
    bank = textures.bank(split, TEXTURES, synthetic.TEXTURE_SIZE, seed)
    content = synthetic.HELD_OUT if split == "val" else synthetic.Content()
    return synthetic.scene(seed + index, (size, size), bank, (speed, speed), content)


def _rung(speed: tuple[float, float], index: int, count: int) -> float:
    """One of so many speeds between two, evenly spaced by their ratio."""
    low, high = speed
    return low * (high / low) ** ((index + 0.5) / count)


def _motion_bin(speed: float) -> str:
    """The bin of a speed."""
    return next(name for name, below in BINS.items() if speed < below)


def procedural_version() -> str:
    """What tells the procedural benchmarks of one state of the code from those of another: eight hex digits.

    It covers seeds, speeds, contents, textures and the version of the code that draws; pixels may
    still differ by a grey level between processors.
    """
    parts = (
        synthetic.VERSION, VAL_SEED, LONG_SEED, CALIB_SEED, VAL_CLIPS, LONG_CLIPS, LONG_FRAMES, VAL_SPEED, TEXTURES,
        synthetic.TEXTURE_SIZE, synthetic.HELD_OUT, synthetic.Content(), textures.PHOTOGRAPHS, textures.FAMILIES,
    )  # fmt: skip
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:8]


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

    def read(speed: float, make: Callable[[], synthetic.Scene]) -> Asked:
        return synthetic.track_clip(make(), [float(t) for t in range(num_frames)], num_points), {}

    scenes = _real_scenes(root, split, size, looks)
    return [
        Task("real_texture", name, functools.partial(read, *made), motion=_motion_bin(made[0]))
        for name, *made in scenes
    ]


def real_motion(root: str | Path, split: str = "val") -> list[Task]:
    """Pairs of frames of `real_texture`, far apart: what moves by more than 16 pixels and is seen in both, as flow.

    Frames are so far apart that an object moves some 32 pixels, but 23 at most.

    Raises:
        FileNotFoundError, ValueError: as for `real_texture`.
    """

    def read(speed: float, make: Callable[[], synthetic.Scene]) -> Asked:
        pair = synthetic.flow_pair(make(), 0.0, min(2 * FAR / speed, 23.0))
        far = pair.flow_0to1.norm(dim=0) > FAR
        return queries.of_pair(replace(pair, valid=pair.visible & far))

    return [Task("real_motion", name, functools.partial(read, *made)) for name, *made in _real_scenes(root, split)]


def _real_scenes(
    root: str | Path, split: str, size: int = 256, looks: int = 2
) -> list[tuple[str, float, Callable[[], synthetic.Scene]]]:
    """The name of each scene of real objects, their speed, and what makes it."""
    names = davis.names(root, split, year=2016)
    called = [f"{name}-{look}" for look in range(looks) for name in names]
    rungs = torch.randperm(len(called), generator=torch.Generator().manual_seed(REAL_SEED)).tolist()
    found = []
    for i, rung in enumerate(rungs):
        speed = _rung(REAL_SPEED, rung, len(rungs))
        how = (root, names, i % len(names), i // len(names) / looks, REAL_SEED + i, speed, size)
        found.append((called[i], speed, functools.partial(collages.scene, *how)))
    return found


def tapvid_tasks(benchmark: str, root: str | Path, query_mode: str = "first") -> list[Task]:
    """TAP-Vid: the official clips, at the size they have in the official files."""

    def read(name: str) -> Asked:
        return queries.of_tracks(tapvid.read(root, name, POINTS[benchmark], query_mode))

    names = tapvid.names(root, POINTS[benchmark])
    return [Task(benchmark, name, functools.partial(read, name), query_mode) for name in names]


def pose_tasks(benchmark: str, root: str | Path) -> list[Task]:
    """Joints of animals or people."""

    def read(name: str) -> Asked:
        return queries.of_joints(POSE[benchmark].read(root, name), benchmark)

    return [Task(benchmark, name, functools.partial(read, name)) for name in POSE[benchmark].names(root)]


def object_tasks(benchmark: str, root: str | Path, split: str) -> list[Task]:
    """DAVIS: objects to be followed as masks, and points on each."""
    year = OBJECTS[benchmark]

    def read(name: str) -> Asked:
        return queries.of_objects(davis.read(root, name, year))

    return [Task(benchmark, name, functools.partial(read, name)) for name in davis.names(root, split, year)]


def flow_tasks(benchmark: str, root: str | Path) -> list[Task]:
    """Pairs of frames with true flow. Sintel's names begin with their pass, "clean" or "final"; one that is
    missing has none."""

    def read(name: str) -> Asked:
        render, _, scene = name.partition("/") if benchmark == "sintel" else ("", "", name)
        return queries.of_pair(FLOW_SETS[benchmark].read(root, scene, *([render] if render else [])))

    if benchmark == "sintel":
        names = [f"{render}/{name}" for render in SINTEL_PASSES for name in sintel.names(root, render)]
    else:
        names = FLOW_SETS[benchmark].names(root)
    return [Task(benchmark, name, functools.partial(read, name)) for name in names]


def tasks(
    benchmark: str, root: str | Path, split: str = "val", max_clips: int = 0, query_mode: str = "first"
) -> list[Task]:
    """The clips of a benchmark, by its name.

    Args:
        benchmark: one of BENCHMARKS.
        root: the folder of the data sets; the procedural benchmark needs none.
        split: of DAVIS, which also gives real_texture and real_motion their objects.
        max_clips: at most so many; 0 takes all. Fewer procedural clips spread over all speeds.
        query_mode: of TAP-Vid, "first" or "strided".

    Raises:
        ValueError: there is no such benchmark, no such split, or max_clips is negative.
        FileNotFoundError: its data is not there.
    """
    if benchmark not in BENCHMARKS:
        raise ValueError(f"tasks: benchmark should be one of {', '.join(BENCHMARKS)}, got {benchmark!r}.")
    if max_clips < 0:
        raise ValueError(f"tasks: max_clips should be at least 0, got {max_clips}.")
    drawn = {
        "procedural": (procedural_val, VAL_CLIPS),
        "procedural_long": (procedural_long, LONG_CLIPS),
        "procedural_calib": (procedural_calib, CALIB_CLIPS),
    }
    cut_out = {"real_texture": real_texture, "real_motion": real_motion}
    if benchmark in drawn:
        ask, most = drawn[benchmark]
        return ask(min(max_clips, most) or most)
    if benchmark in cut_out:
        found = cut_out[benchmark](root, split)
    elif benchmark in POINTS:
        found = tapvid_tasks(benchmark, root, query_mode)
    elif benchmark in POSE:
        found = pose_tasks(benchmark, root)
    elif benchmark in FLOW:
        found = flow_tasks(benchmark, root)
    else:
        found = object_tasks(benchmark, root, split)
    if not found:
        raise FileNotFoundError(f"tasks: no clip of {benchmark} under {root}, though its folder is there.")
    return found[: max_clips or None]


def available(
    benchmarks: Iterable[str], root: str | Path, split: str = "val", max_clips: int = 0, query_mode: str = "first"
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
