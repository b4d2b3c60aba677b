"""Answers as files that others read: tracks, masks, flow and overlays.

Tracks as .npz, .csv or TAP-Vid's pickle, masks as DAVIS's palette PNGs, flow as .flo or KITTI's
.png, overlays as .webm. What is written appears under its name only when it is whole.
"""

import csv
import os
import pickle
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Bool, Float, Integer, UInt8
from PIL import Image
from torch import Tensor

from . import flow as flows
from . import frames, overlays, visualize
from .samples import PointTracks

COLUMNS = ("point", "frame", "x", "y", "visible", "confidence")


def write_tracks(path: str | os.PathLike, answer: PointTracks, query_points: Float[Tensor, "N 3"]) -> Path:
    """Tracks with what was asked: .npz with arrays of those names, or .csv with a line a point and frame.

    Args:
        path: where to; its folder is made if it is missing.
        answer: of `track_points`, pixels of the video.
        query_points: (t, x, y), as they were asked.

    Raises:
        ValueError: another suffix, or not a query for each track.
    """
    path = Path(path)
    if path.suffix not in (".npz", ".csv"):
        raise ValueError(f"write_tracks: path should end in .npz or .csv, got {path}.")
    if len(query_points) != answer.tracks.shape[1]:
        raise ValueError(
            f"write_tracks: query_points should be ({answer.tracks.shape[1]}, 3), one a track, "
            f"got {tuple(query_points.shape)}."
        )
    with _whole(path) as partial:
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
    path, (T, _, H, W) = Path(path), video.shape
    if path.suffix != ".pkl":
        raise ValueError(f"write_tapvid: path should end in .pkl, got {path}.")
    if len(answer.tracks) != T:
        raise ValueError(f"write_tapvid: tracks should have {T} frames like the video, got {len(answer.tracks)}.")
    raster = (answer.tracks.cpu() + 0.5) / torch.tensor([W, H])  # 0 and 1 are the edges of the frame
    clip = {
        "video": np.ascontiguousarray(rearrange(video.numpy(force=True), "T C H W -> T H W C")),
        "points": np.ascontiguousarray(rearrange(raster, "T N xy -> N T xy").numpy()),
        "occluded": np.ascontiguousarray(~answer.visible.T.numpy(force=True)),
    }
    with _whole(path) as partial:
        partial.write_bytes(pickle.dumps({name: clip}, protocol=4))
    return path


def write_masks(folder: str | os.PathLike, masks: Integer[Tensor, "T H W"]) -> Path:
    """Masks as DAVIS stores them: folder/00000.png and so on, object numbers with DAVIS's palette.

    Raises:
        ValueError: a number that a byte does not hold, or a folder that exists already.
    """
    folder = Path(folder)
    if masks.min() < 0 or masks.max() > 255:
        raise ValueError(f"write_masks: masks should hold 0 to 255, got {int(masks.min())} to {int(masks.max())}.")
    if folder.exists():
        raise ValueError(f"write_masks: {folder} exists and is left as it was; name another folder, or remove it.")
    # The bits of a number, dealt out to red, green and blue.
    number = np.arange(256)[:, None]
    palette = sum((((number >> (3 * i + np.arange(3))) & 1) << (7 - i)) for i in range(8)).astype(np.uint8)
    with _whole(folder) as partial:
        partial.mkdir()
        for t, mask in enumerate(masks.numpy(force=True).astype(np.uint8)):
            image = Image.fromarray(mask)
            image.putpalette(palette.tobytes())
            image.save(partial / f"{t:05d}.png")
    return folder


def write_flow(path: str | os.PathLike, flow: Float[Tensor, "2 H W"], valid: Bool[Tensor, "H W"] | None = None) -> Path:
    """A flow as .flo, or as KITTI's .png in steps of 1/64 pixel; unknown where `valid` is False.

    Raises:
        ValueError: another suffix, or a flow that the format cannot hold.
    """
    path, writers = Path(path), {".flo": flows.write_flo, ".png": flows.write_kitti_png}
    if path.suffix not in writers:
        raise ValueError(f"write_flow: path should end in .flo or .png, got {path}.")
    with _whole(path) as partial:
        writers[path.suffix](partial, flow, valid)
    return path


def write_overlay(
    path: str | os.PathLike,
    video: UInt8[Tensor, "T 3 H W"],
    answer: PointTracks | None = None,
    masks: Integer[Tensor, "T H W"] | None = None,
    fps: float = frames.DEFAULT_FPS,
) -> Path:
    """The video with masks tinted and points drawn, as a .webm that browsers play.

    Raises:
        ValueError: masks or tracks have other frames than the video, or `frames.write_video` refuses.
    """
    for name, values in (("tracks", answer and answer.tracks), ("masks", masks)):
        if values is not None and len(values) != len(video):
            raise ValueError(
                f"write_overlay: {name} should have {len(video)} frames like the video, got {len(values)}."
            )

    def drawn() -> Iterator[Tensor]:
        for t, frame in enumerate(video):
            if masks is not None:
                frame = overlays.draw_masks(frame, masks[t])
            yield frame if answer is None else visualize.draw_points(frame, answer.tracks, answer.visible, t)

    return frames.write_video(path, drawn(), fps)


def _lines(answer: PointTracks) -> Iterator[tuple]:
    """The lines of a table, point by point."""
    tracks, visible, confidence = (values.tolist() for values in answer)
    for n in range(answer.tracks.shape[1]):
        for t in range(len(tracks)):
            x, y = tracks[t][n]
            yield n, t, f"{x:.3f}", f"{y:.3f}", int(visible[t][n]), f"{confidence[t][n]:.4f}"


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """A name beside a path, whose content takes the path's place if all goes well, and vanishes if not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    _remove(partial)
    try:
        yield partial
        os.replace(partial, path)
    finally:
        _remove(partial)


def _remove(path: Path) -> None:
    """Whatever is there, a file or a folder."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
