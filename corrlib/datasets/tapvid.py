"""TAP-Vid: real and rendered videos with point tracks, in the official pickles.

TAP-Vid/tapvid_davis/tapvid_davis.pkl, TAP-Vid/tapvid_rgb_stacking/tapvid_rgb_stacking.pkl (both
also directly in TAP-Vid), and TAP-Vid/tapvid_kinetics/0000_of_0010.pkl and so on, as the official
script writes them. A pickle can run code when it is loaded: here it may hold numpy arrays,
bytes, and lists and dictionaries of them, and nothing else.
"""

import pickle
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from corrlib.datasets.files import existing
from corrlib.samples import TrackClip

ROW = "TAP-Vid"
QUERY_STRIDE = 5  # frames between the queries of one point in strided mode
# What unpickling raises, by its documentation and ours, when a file is truncated, damaged or hostile.
BROKEN = (AttributeError, EOFError, ImportError, LookupError, TypeError, ValueError, pickle.UnpicklingError)


def names(root: str | Path, subset: str = "davis") -> list[str]:
    """The clips of a subset: its own names, or four-digit numbers where it has none.

    Args:
        subset: "davis", "rgb_stacking" or "kinetics"; the last has "<file>/" before each name.

    Every file of the subset is read to know them, one at a time.
    """
    files = _files(root, subset)
    prefix = {path: f"{path.stem}/" if subset == "kinetics" else "" for path in files}
    return sorted(f"{prefix[path]}{key}" for path in files for key in _clips(path, path.stat().st_mtime_ns))


def read(root: str | Path, name: str, subset: str = "davis", query_mode: str = "first") -> TrackClip:
    """One clip at the resolution it is stored in, one track for each query.

    The file it is in stays in memory until a clip of another file is read.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the clip is not in it, it holds anything but arrays and bytes, or they have
            other shapes than TAP-Vid's.
    """
    files = _files(root, subset)
    path = next((p for p in files if subset != "kinetics" or name.startswith(f"{p.stem}/")), files[0])
    clips = _clips(path, path.stat().st_mtime_ns)
    key = name.removeprefix(f"{path.stem}/") if subset == "kinetics" else name
    if key not in clips:
        raise ValueError(f"read TAP-Vid: name should be one of the {len(clips)} clips of {path}, got {name}.")
    clip = clips[key]
    return track_clip(clip["video"], clip["points"], clip["occluded"], query_mode, name, path)


def track_clip(
    video: np.ndarray | list | tuple,
    points: np.ndarray,
    occluded: np.ndarray,
    query_mode: str,
    name: str,
    path: Path,
) -> TrackClip:
    """A clip as TAP-Vid stores it, with the queries of a mode.

    Args:
        video: (T, H, W, 3) uint8, or T encoded images.
        points: (N, T, 2), (x, y) as fractions of width and height ("raster": 0 and 1 are the edges).
        occluded: (N, T).
    """
    if len(video) and isinstance(video[0], bytes):
        video = [_decode(image, path) for image in video]
    video, points, occluded = np.asarray(video), np.asarray(points), np.asarray(occluded)
    T, N = len(video), len(points)
    if video.ndim != 4 or video.shape[3] != 3 or points.shape != (N, T, 2) or occluded.shape != (N, T):
        raise ValueError(
            f"read TAP-Vid: {name} of {path} should have a video (T, H, W, 3), points (N, T, 2) and occluded "
            f"(N, T), got {video.shape}, {points.shape} and {occluded.shape}."
        )
    H, W = video.shape[1:3]
    pixels = torch.from_numpy(points * np.array([W, H]) - 0.5).float()  # raster to pixel centres
    tracks = rearrange(pixels, "N T xy -> T N xy")
    visible = torch.from_numpy(~occluded.astype(bool).T)
    query_points, which = sample_queries(tracks, visible, query_mode)
    return TrackClip(
        video=torch.from_numpy(np.ascontiguousarray(rearrange(video, "T H W C -> T C H W"))),
        query_points=query_points,
        tracks=tracks[:, which],
        visible=visible[:, which],
        valid=torch.ones(T, len(which), dtype=torch.bool),
        name=name,
    )


def sample_queries(
    tracks: Float[Tensor, "T N 2"], visible: Bool[Tensor, "T N"], query_mode: str
) -> tuple[Float[Tensor, "M 3"], Int[Tensor, "M"]]:
    """Query points (t, x, y) on visible points of tracks, and the track that each is on.

    "first": once a track, where it is first visible (never visible: left out). "strided":
    every fifth frame, all that are visible in it, so that a track has several queries.

    Source: TAP-Vid's `sample_queries_first` and `sample_queries_strided`, in their order.
    """
    if query_mode == "first":
        which = visible.any(dim=0).nonzero()[:, 0]
        t = visible[:, which].int().argmax(dim=0)
    elif query_mode == "strided":
        step, which = visible[::QUERY_STRIDE].nonzero(as_tuple=True)
        t = step * QUERY_STRIDE
    else:
        raise ValueError(f"sample_queries: query_mode should be first or strided, got {query_mode}.")
    return torch.cat([t[:, None].to(tracks.dtype), tracks[t, which]], dim=1), which


def _files(root: str | Path, subset: str) -> list[Path]:
    """The pickles of a subset."""
    folder = existing(Path(root) / "TAP-Vid", ROW)
    found = sorted((folder / f"tapvid_{subset}").glob("*.pkl")) or sorted(folder.glob(f"tapvid_{subset}.pkl"))
    return found or [existing(folder / f"tapvid_{subset}" / f"tapvid_{subset}.pkl", ROW)]


@lru_cache(maxsize=1)  # clips are read one by one, files of gigabytes only whole
def _clips(path: Path, changed: int) -> dict[str, dict]:
    """The clips of one pickle by name; `changed` makes a rewritten file be read again."""
    try:
        with path.open("rb") as file:
            clips = _Unpickler(file).load()
    except BROKEN as error:
        raise ValueError(
            f"read TAP-Vid: {path} should be a whole pickle of numpy arrays and bytes only, got: {error}."
        ) from error
    if isinstance(clips, list):
        clips = {f"{i:04d}": clip for i, clip in enumerate(clips)}
    wanted = {"video", "points", "occluded"}
    if not isinstance(clips, dict) or not all(isinstance(c, dict) and wanted <= set(c) for c in clips.values()):
        raise ValueError(f"read TAP-Vid: {path} should hold clips with video, points and occluded.")
    return clips


class _Unpickler(pickle.Unpickler):
    """Loads numpy arrays and bytes; anything else that a pickle can name is refused."""

    def find_class(self, module: str, name: str) -> object:
        """What a name in a pickle stands for; numpy 1 and 2 call their modules differently."""
        if (module, name) == ("_codecs", "encode"):  # how protocols 0 to 2 spell bytes
            return lambda text, encoding: text.encode("latin1")
        module = module.replace("numpy.core", "numpy._core")
        allowed = {("numpy", "ndarray"), ("numpy", "dtype"), ("numpy._core.numeric", "_frombuffer")}
        if (module, name) in allowed | {("numpy._core.multiarray", "_reconstruct")}:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name}, refused because it could run code")


def _decode(image: bytes, path: Path) -> np.ndarray:
    """An encoded image as (H, W, 3) RGB."""
    bgr = cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_COLOR) if image else None
    if bgr is None:
        raise ValueError(f"read TAP-Vid: {path} should hold JPEG frames, got {len(image)} bytes of something else.")
    return bgr[..., ::-1]
