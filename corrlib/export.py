"""Answers as files that others read: tracks, masks, flow and overlays.

Tracks as .npz, .csv or TAP-Vid's pickle, masks as DAVIS's palette PNGs, flow as .flo or KITTI's
.png, overlays as .webm, encoders as .onnx. What is written appears under its name only when it is whole.
"""

import copy
import csv
import importlib.util
import json
import os
import pickle
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Integer, UInt8
from torch import Tensor, nn

from . import coords, frames, layouts, overlays, visualize
from . import flow as flows
from .samples import PointTracks
from .whole import whole

COLUMNS = ("point", "frame", "x", "y", "visible", "confidence")


def write_tracks(path: str | os.PathLike, answer: PointTracks, query_points: Tensor | np.ndarray | Sequence) -> Path:
    """Tracks with what was asked: .npz with arrays of those names, or .csv with a line a point and frame.

    Args:
        path: where to; its folder is made if it is missing.
        answer: of `track_points`, pixels of the video.
        query_points: (N, 3), (t, x, y) as they were asked.

    Raises:
        ValueError: another suffix, or not a query for each track.
    """
    path, query_points = Path(path), torch.as_tensor(query_points)
    if path.suffix not in (".npz", ".csv"):
        raise ValueError(f"write_tracks: path should end in .npz or .csv, got {path}.")
    if len(query_points) != answer.tracks.shape[1]:
        raise ValueError(
            f"write_tracks: query_points should be ({answer.tracks.shape[1]}, 3), one a track, "
            f"got {tuple(query_points.shape)}."
        )
    with whole(path) as partial:
        if path.suffix == ".npz":
            arrays = {name: values.numpy(force=True) for name, values in answer._asdict().items()}
            with partial.open("wb") as file:  # numpy would add a suffix to a name
                np.savez_compressed(file, query_points=query_points.numpy(force=True), **arrays)
        else:
            with partial.open("w", newline="") as file:
                csv.writer(file).writerows([COLUMNS, *_lines(answer)])
    return path


def write_tapvid(path: str | os.PathLike, name: str, video: UInt8[Tensor, "T 3 H W"], answer: PointTracks) -> Path:
    """A clip with its tracks as TAP-Vid stores them, for `datasets.tapvid` and for other people's readers.

    Raises:
        ValueError: the path does not end in .pkl, or video and tracks differ in their frames.
    """
    path, T = Path(path), len(video)
    if path.suffix != ".pkl":
        raise ValueError(f"write_tapvid: path should end in .pkl, got {path}.")
    if len(answer.tracks) != T:
        raise ValueError(f"write_tapvid: tracks should have {T} frames like the video, got {len(answer.tracks)}.")
    clip = layouts.tapvid_clip(video, answer.tracks, answer.visible)
    with whole(path) as partial:
        partial.write_bytes(pickle.dumps({name: clip}, protocol=4))
    return path


def write_masks(folder: str | os.PathLike, masks: Integer[Tensor, "T H W"], overwrite: bool = False) -> Path:
    """Masks as DAVIS stores them: folder/00000.png and so on, object numbers with DAVIS's palette.

    Args:
        folder: where to; its own folder is made if it is missing.
        masks: object numbers, 0 the background.
        overwrite: whether a folder that exists is replaced, with all that is in it.

    Raises:
        ValueError: a number that a byte does not hold, or a folder that exists and is not to be replaced.
    """
    folder = Path(folder)
    if masks.min() < 0 or masks.max() > 255:
        raise ValueError(f"write_masks: masks should hold 0 to 255, got {int(masks.min())} to {int(masks.max())}.")
    if folder.exists() and not overwrite:
        raise ValueError(f"write_masks: {folder} exists and is left as it was; name another folder, or remove it.")
    with whole(folder) as partial:
        layouts.write_mask_images(partial, masks)
    return folder


def write_flow(path: str | os.PathLike, flow: Float[Tensor, "2 H W"], valid: Bool[Tensor, "H W"] | None = None) -> Path:
    """A flow as .flo, or as KITTI's .png in steps of 1/64 pixel; unknown where `valid` is False.

    Raises:
        ValueError: another suffix, or a flow that the format cannot hold.
    """
    path, writers = Path(path), {".flo": flows.write_flo, ".png": flows.write_kitti_png}
    if path.suffix not in writers:
        raise ValueError(f"write_flow: path should end in .flo or .png, got {path}.")
    with whole(path) as partial:
        writers[path.suffix](partial, flow, valid)
    return path


def write_overlay(
    path: str | os.PathLike,
    video: frames.Source,
    answer: PointTracks | None = None,
    masks: Integer[Tensor, "T H W"] | None = None,
    fps: float = frames.DEFAULT_FPS,
    lines: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """The video with masks tinted and points drawn, as a .webm that browsers play.

    Args:
        path: where to, ending in .webm.
        video: as in `frames.open_video`; files are read lazily.
        answer: of `track_points`.
        masks: of `propagate_masks`.
        fps: frames a second.
        lines: frames whose shorter side has more pixels are reduced to so many there, which is faster; 0 never.
        progress: called after each frame with the number done and the number there are (0: unknown).

    Raises:
        ValueError: masks or tracks have other frames than the video, or `frames.write_video` refuses.
    """
    opened = frames.open_video(video)
    shown_hw = coords.reduced_size(opened.size_hw, lines)
    counts = {name: len(v) for name, v in (("tracks", answer and answer.tracks), ("masks", masks)) if v is not None}
    tracks = coords.resize_points(answer.tracks, opened.size_hw, shown_hw) if answer else None

    def drawn() -> Iterator[Tensor]:
        t = -1
        for t, frame in enumerate(opened):
            _check_count(counts, t + 1, at_end=False)
            frame = coords.resize_frames(frames.to_float(frame)[None], shown_hw)[0]
            if masks is not None:
                frame = overlays.draw_masks(frame, coords.resize_masks(masks[t, None], shown_hw)[0])
            yield frame if tracks is None else visualize.draw_points(frame, tracks, answer.visible, t)
            if progress:
                progress(t + 1, opened.num_frames)
        _check_count(counts, t + 1, at_end=True)

    return frames.write_video(path, drawn(), fps)


def write_onnx(path: str | os.PathLike, model: nn.Module) -> Path:
    """An encoder as ONNX, for any number of frames of any size from 8 x 8 pixels on.

    Its input is `frames`, (B, 3, H, W) float32 sRGB in [0, 1]; its outputs are `coarse` and `fine`,
    as `Features` has them. How cells lie on pixels is in the file's metadata: `coarse_lattice` and
    `fine_lattice`, stride and offset.

    Raises:
        ValueError: the path does not end in .onnx.
        ModuleNotFoundError: the packages of the group `onnx` are not installed.
    """
    path = Path(path)
    if path.suffix != ".onnx":
        raise ValueError(f"write_onnx: path should end in .onnx, got {path}.")
    missing = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if missing:
        raise ModuleNotFoundError(f"write_onnx: needs {' and '.join(missing)}: pip install onnx onnxscript.")
    some = torch.zeros(2, 3, 96, 160)  # no two alike, so that none is taken for another
    sizes = {0: torch.export.Dim("B"), 2: torch.export.Dim("H", min=8), 3: torch.export.Dim("W", min=8)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what torch's exporter does within itself
        program = torch.onnx.export(
            copy.deepcopy(model).cpu().eval(),
            (some,),
            input_names=["frames"],
            output_names=["coarse", "fine"],
            dynamic_shapes=(sizes,),
            dynamo=True,
            verbose=False,
        )
    for name in ("coarse_lattice", "fine_lattice"):
        program.model.metadata_props[name] = json.dumps(getattr(model, name))
    with whole(path) as partial:
        program.save(partial, external_data=False)
    return path


def _check_count(counts: dict[str, int], frame_count: int, at_end: bool) -> None:
    """Refuse what has other frames than the video: too few as soon as it shows, too many at the end."""
    for name, count in counts.items():
        if count < frame_count or (at_end and count > frame_count):
            more = "" if at_end else " or more"
            raise ValueError(
                f"write_overlay: {name} should have {frame_count}{more} frames like the video, got {count}."
            )


def _lines(answer: PointTracks) -> Iterator[tuple]:
    """The lines of a table, point by point."""
    tracks, visible, confidence = (values.tolist() for values in answer)
    for n in range(answer.tracks.shape[1]):
        for t in range(len(tracks)):
            x, y = tracks[t][n]
            yield n, t, f"{x:.3f}", f"{y:.3f}", int(visible[t][n]), f"{confidence[t][n]:.4f}"
