"""Answers of methods to benchmarks, as files: asked once, kept, and read by whoever scores them.

In a folder, for each clip of a benchmark (clip names may have slashes):
  <benchmark>/<clip>.<method>.npz    tracks (T, N, 2) in pixels of the clip, visible (T, N),
                                     confidence (T, N), query_points (N, 3) as (t, x, y)
  <benchmark>/<method>/<clip>/00000.png ...   masks, one palette or grey image of object numbers a
                                     frame, as DAVIS has its results
  <benchmark>/<clip>.truth.npz       the same for the truth: query_points, tracks, visible, valid,
                                     size_hw, and masks, scale, joints where the benchmark has them
  <benchmark>/<clip>.<method>.cost.json   what answering took on the machine that did
A file that is there is an answer that need not be asked for again. Any tracker's answers may be
put beside them. All but the costs are the same, byte for byte, however the work is shared: each
process works on one thread, since sums depend on how many there are; more processes use more cores.
"""

import json
import math
import zipfile
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int
from PIL import Image
from torch import Tensor

from . import coords, environment, frames, layouts
from .benchmarks import FLOW, OBJECTS, Task
from .datasets import files
from .methods import Method
from .samples import PointTracks
from .whole import whole

Size = tuple[int, int]


def predict(
    methods: Mapping[str, Method],
    tasks: Iterable[Task],
    folder: str | Path,
    resolution: Size | None = None,
    share: tuple[int, int] = (0, 1),
    progress: Callable[[int, str], None] | None = None,
) -> None:
    """Asks every method about every clip, and writes what is not there yet.

    Args:
        methods: by name, a plain word.
        tasks: the clips, of any benchmarks.
        folder: where answers are kept.
        resolution: (H, W) that frames are resized to before they are shown; answers are in the
            clip's own pixels all the same.
        share: (rank, of how many): every so-manieth clip. Those who share one list of tasks and
            one folder write together what one alone would.
        progress: called before each answer with how many clips are done, and what is asked now.

    Raises:
        ValueError: a method's name has other characters than letters, digits, - and _; an answer
            that is there was given to other queries, at another resolution or with other weights;
            and what reading a clip or asking a method raises.
    """
    for name in methods:
        if not name.replace("_", "").replace("-", "").isalnum() or name == "truth":
            raise ValueError(f"predict: a method's name should be letters, digits, - and _, got {name!r}.")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        _predict(methods, tasks, Path(folder), resolution, share, progress)
    finally:
        torch.set_num_threads(threads)


def _predict(
    methods: Mapping[str, Method],
    tasks: Iterable[Task],
    folder: Path,
    resolution: Size | None,
    share: tuple[int, int],
    progress: Callable[[int, str], None] | None,
) -> None:
    """The loop of `predict`."""
    rank, ranks = share
    for done, task in enumerate(islice(tasks, rank, None, ranks)):
        about = {name: _about(task, method, resolution) for name, method in methods.items()}
        wanted = [
            (name, kind)
            for name, method in methods.items()
            for kind in ("points", "masks")
            if not _is_answered(folder, task, name, kind, method, about[name])
        ]
        truth = _path(folder, task, "truth")
        if not wanted and truth.exists():
            continue
        clip, known = task.read()
        size_hw = tuple(clip.video.shape[-2:])
        video = clip.video if resolution is None else _resized(clip.video, resolution)
        for name, kind in wanted:
            if progress:
                progress(done, f"{task.benchmark} {task.name}: {name}{' masks' * (kind == 'masks')}")
            method = methods[name]
            dense = _flow if task.benchmark in FLOW and method.flow else _points
            ask = dense if kind == "points" else _masks
            given = clip.query_points if kind == "points" else known["masks"][0].long()
            method.prepare()
            answer, seconds, held = environment.measure(lambda: ask(method, video, given, size_hw))  # noqa: B023
            _keep_cost(folder, task, name, kind, {"frames": len(video), "seconds": seconds, "bytes": held})
            if kind == "points":
                _save(_path(folder, task, name), about[name], query_points=clip.query_points, **answer._asdict())
            else:
                with whole(masks_path(folder, task.benchmark, task.name, name)) as partial:
                    layouts.write_mask_images(partial, answer, about[name])
        if not truth.exists():
            held = {"tracks": clip.tracks, "visible": clip.visible, "valid": clip.valid, **known}
            _save(truth, "", query_points=clip.query_points, size_hw=torch.tensor(size_hw), **held)
        del clip, known, video  # or two clips are in memory while the next is read


def size_of(resolution: list[int]) -> Size | None:
    """A parameter [H, W] as a size; none if empty.

    Raises:
        ValueError: it is neither.
    """
    if resolution and (len(resolution) != 2 or min(resolution) < 8):
        raise ValueError(f"RESOLUTION should be [H, W], at least 8 each, or empty, got {resolution}.")
    return tuple(resolution) if resolution else None


def masks_path(folder: str | Path, benchmark: str, clip: str, method: str) -> Path:
    """The folder of a method's masks of a clip."""
    return Path(folder) / benchmark / method / clip


def read_points(folder: str | Path, task: Task, method: str) -> PointTracks:
    """What a method answered about the points of a clip.

    Raises:
        FileNotFoundError: it has not been asked.
        ValueError: the file is no answer.
    """
    path = _path(folder, task, method)
    if not path.is_file():
        raise FileNotFoundError(f"read_points: no file {path}.")
    return PointTracks(*(torch.from_numpy(a) for a in load(path, PointTracks._fields).values()))


def load(path: Path, names: Iterable[str] = ()) -> dict[str, np.ndarray]:
    """The arrays of an .npz: those named, or all.

    Raises:
        ValueError: the file is none, is truncated, holds objects, or lacks one of them.
    """
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in (tuple(names) or arrays.files)}
    except (EOFError, KeyError, OSError, TypeError, ValueError, zipfile.BadZipFile) as error:
        expected = f"arrays {', '.join(names)}" if tuple(names) else "arrays"
        raise ValueError(f"predictions: {path} should be an .npz of {expected}, got {error}.") from None


def read_masks(folder: Path, like: Int[np.ndarray, "T H W"]) -> Int[np.ndarray, "T H W"]:
    """The masks of a folder of images, one a frame, of the size of the true ones.

    Raises:
        FileNotFoundError: there is no such folder, or no image in it.
        ValueError: their number or size is another, or one is no image of numbers.
    """
    paths = files.images(folder, "DAVIS")
    if len(paths) != len(like):
        raise ValueError(f"read_masks: {folder} should hold {len(like)} images like the truth, got {len(paths)}.")
    size = torch.empty(like.shape[1:])
    return np.stack([files.read_mask(path, size).numpy() for path in paths])


def costs(folder: str | Path, benchmark: str) -> dict[str, dict]:
    """What answering took, as entries for a report: processor seconds a frame, and the most memory held.

    Keys are `<benchmark>.<method>.seconds_per_frame` and `.peak_memory`, of points, and of masks
    with `masks_` before it. The memory is what came on top of the process and the clip.
    """
    found: dict[tuple[str, str], list[dict]] = {}
    for path in sorted((Path(folder) / benchmark).rglob("*.cost.json")):
        method = path.name.removesuffix(".cost.json").rpartition(".")[2]
        for kind, cost in json.loads(path.read_text()).items():
            found.setdefault((method, kind), []).append(cost)
    entries = {}
    for (method, kind), rows in found.items():
        prefix = f"{benchmark}.{method}.{'masks_' if kind == 'masks' else ''}"
        seconds = sum(row["seconds"] for row in rows) / sum(row["frames"] for row in rows)
        held = [row["bytes"] for row in rows if row["bytes"] is not None]
        peak = max(held) / 2**20 if held else math.nan
        entries[f"{prefix}seconds_per_frame"] = {"value": seconds, "unit": "s", "count": len(rows)}
        entries[f"{prefix}peak_memory"] = {"value": peak, "unit": "MiB", "count": len(held)}
    return entries


def _about(task: Task, method: Method, resolution: Size | None) -> str:
    """What an answer depends on, beside the clip and the code."""
    return json.dumps({"asked": task.asked, "resolution": resolution, "weights": method.weights}, sort_keys=True)


def _is_answered(folder: str | Path, task: Task, name: str, kind: str, method: Method, about: str) -> bool:
    """Whether there is an answer, or none to be had; one to another question is refused."""
    if kind == "masks" and (task.benchmark not in OBJECTS or method.masks is None):
        return True
    path = masks_path(folder, task.benchmark, task.name, name) if kind == "masks" else _path(folder, task, name)
    if not path.exists():
        return False
    if kind == "masks":
        with Image.open(files.images(path, "DAVIS")[0]) as image:
            found = image.info.get("about", about)
    else:
        found = str(load(path).get("about", about))  # anyone else's answers do not say
    if found != about:
        raise ValueError(
            f"predict: {path} should be an answer to {about}, got one to {found}. Choose another folder, or remove it."
        )
    return True


def _points(method: Method, video: Tensor, queries: Tensor, size_hw: Size) -> PointTracks:
    """A method's tracks, in pixels of frames of `size_hw`."""
    shown = tuple(video.shape[-2:])
    asked = torch.cat([queries[:, :1], coords.resize_points(queries[:, 1:], size_hw, shown)], dim=1)
    found = method.points(video, asked if shown != size_hw else queries)
    return found if shown == size_hw else found._replace(tracks=coords.resize_points(found.tracks, shown, size_hw))


def _flow(method: Method, video: Tensor, queries: Tensor, size_hw: Size) -> PointTracks:
    """A method's dense match of two frames, read at the queries, which are all of the first."""
    shown = tuple(video.shape[-2:])
    xy = coords.resize_points(queries[:, 1:], size_hw, shown)
    found = method.flow(video[0], video[1])
    maps = torch.cat([found.flow_0to1, found.confidence[None], found.visible_0to1[None].float()])
    moved, confidence, visible = coords.sample(maps[None].cpu(), xy[None])[0][0].split([2, 1, 1])
    tracks = coords.resize_points(torch.stack([xy, xy + moved.T]), shown, size_hw)
    here = torch.ones(1, len(xy))
    return PointTracks(tracks, torch.cat([here, visible]) > 0.5, torch.cat([here, confidence]))


def _masks(method: Method, video: Tensor, first_mask: Tensor, size_hw: Size) -> Tensor:
    """A method's masks, in frames of `size_hw`."""
    shown = tuple(video.shape[-2:])
    return coords.resize_masks(method.masks(video, coords.resize_masks(first_mask[None], shown)[0]), size_hw)


def _resized(video: Tensor, size_hw: Size) -> Tensor:
    """A video at another resolution, frame by frame."""
    shown = [coords.resize_frames(frames.to_float(frame)[None], size_hw) for frame in video]
    return (torch.cat(shown) * 255).round().to(torch.uint8)


def _path(folder: str | Path, task: Task, method: str) -> Path:
    """The file of a method's tracks of a clip."""
    return Path(folder) / task.benchmark / f"{task.name}.{method}.npz"


def _save(path: Path, about: str, **tensors: Tensor) -> None:
    """An .npz that appears only when it is whole."""
    arrays = {name: value.cpu().numpy() for name, value in tensors.items()}
    with whole(path) as partial, partial.open("wb") as file:
        np.savez_compressed(file, **arrays, **({"about": np.array(about)} if about else {}))


def _keep_cost(folder: str | Path, task: Task, name: str, kind: str, cost: dict[str, float]) -> None:
    """Add what an answer took to the method's file for the clip."""
    path = _path(folder, task, name).with_suffix(".cost.json")
    known = json.loads(path.read_text()) if path.exists() else {}
    cost = {key: None if math.isnan(value) else value for key, value in cost.items()}
    with whole(path) as partial:
        partial.write_text(json.dumps(known | {kind: cost}))
