"""Samples written in the layouts of official data sets, so that anyone's reader reads them.

Each writer makes one folder under a root, the one that the reader of that name in `datasets` looks
for. It appears under its name when it is whole, and one that exists is left alone.
"""

import pickle
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

from . import flow
from .samples import FlowPair, MaskClip, TrackClip

JPEG_QUALITY = 97


def write_tapvid(root: str | Path, clips: Iterable[TrackClip], subset: str = "davis") -> Path:
    """TAP-Vid/tapvid_<subset>/tapvid_<subset>.pkl, read by `datasets.tapvid`.

    TAP-Vid knows neither queries nor frames without labels: a reader samples queries of its own.

    Raises:
        ValueError: the folder exists, or two clips have one name.
    """
    found = {}
    for clip in clips:
        if clip.name in found:
            raise ValueError(f"write_tapvid: names should differ, got {clip.name} twice.")
        H, W = clip.video.shape[-2:]
        raster = (clip.tracks.double() + 0.5) / torch.tensor([W, H], dtype=torch.float64)
        found[clip.name] = {
            "video": np.ascontiguousarray(rearrange(clip.video.numpy(), "T C H W -> T H W C")),
            "points": np.ascontiguousarray(rearrange(raster.numpy(), "T N xy -> N T xy")),
            "occluded": np.ascontiguousarray(~clip.visible.numpy().T),
        }
    with _whole(Path(root) / "TAP-Vid" / f"tapvid_{subset}") as folder:
        (folder / f"tapvid_{subset}.pkl").write_bytes(pickle.dumps(found))
    return Path(root) / "TAP-Vid" / f"tapvid_{subset}"


def write_davis(root: str | Path, clips: Iterable[MaskClip], split: str = "val") -> Path:
    """DAVIS/, with JPEG frames, palette masks, and lists for 2016 and 2017; read by `datasets.davis`.

    Raises:
        ValueError: the folder exists, or a clip has more than 254 objects.
    """
    names = []
    with _whole(Path(root) / "DAVIS") as folder:
        for clip in clips:
            if clip.masks.max() > 254:
                raise ValueError(f"write_davis: {clip.name} should have at most 254 objects, got {clip.masks.max()}.")
            shown, masks = (folder / kind / "480p" / clip.name for kind in ("JPEGImages", "Annotations"))
            shown.mkdir(parents=True), masks.mkdir(parents=True)
            for t, (frame, mask) in enumerate(zip(clip.video, clip.masks)):
                _write_image(shown / f"{t:05d}.jpg", frame)
                image = Image.fromarray(mask.numpy().astype(np.uint8), mode="P")
                image.putpalette(_palette())
                image.save(masks / f"{t:05d}.png")
            names.append(clip.name)
        for year in ("2016", "2017"):
            (folder / "ImageSets" / year).mkdir(parents=True)
            (folder / "ImageSets" / year / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
    return Path(root) / "DAVIS"


def write_flyingchairs(root: str | Path, pairs: Iterable[FlowPair]) -> Path:
    """FlyingChairs/data/00001_img1.ppm, _img2.ppm and _flow.flo; read by `datasets.flyingchairs`.

    Raises:
        ValueError: the folder exists.
    """
    with _whole(Path(root) / "FlyingChairs") as folder:
        (folder / "data").mkdir()
        for number, pair in enumerate(pairs, 1):
            for frame, ending in ((pair.frame0, "img1"), (pair.frame1, "img2")):
                _write_image(folder / "data" / f"{number:05d}_{ending}.ppm", (frame * 255).round().to(torch.uint8))
            flow.write_flo(folder / "data" / f"{number:05d}_flow.flo", pair.flow_0to1)
    return Path(root) / "FlyingChairs"


@contextmanager
def _whole(final: Path) -> Iterator[Path]:
    """A folder to fill, which gets its name only if nothing goes wrong."""
    if final.exists():
        raise ValueError(f"layouts: {final} exists; name another root, or remove it.")
    partial = final.with_name(f".{final.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        partial.rename(final)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write_image(path: Path, frame: Tensor) -> None:
    """A (3, H, W) uint8 frame; an encoder that fails says nothing of itself."""
    image = np.ascontiguousarray(rearrange(frame.numpy()[::-1], "C H W -> H W C"))
    path.write_bytes(cv2.imencode(path.suffix, image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes())


def _palette() -> list[int]:
    """DAVIS's colours: the bits of an object's number, spread over red, green and blue."""
    colours = []
    for number in range(256):
        rgb = [0, 0, 0]
        for bit in range(8):
            for channel in range(3):
                rgb[channel] |= (number >> channel & 1) << 7 - bit
            number >>= 3
        colours += rgb
    return colours
