"""Samples written in the layouts of official data sets, so that anyone's reader reads them.

Each writer makes one folder under a root, the one that the reader of that name in `datasets` looks
for. It appears under its name when it is whole, and one that exists is left alone.
"""

import pickle
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import torch
from einops import rearrange
from jaxtyping import Bool, Float, Integer, UInt8
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from . import flow
from .samples import FlowPair, MaskClip, TrackClip
from .whole import whole

JPEG_QUALITY = 97


def write_tapvid(root: str | Path, clips: Iterable[TrackClip], subset: str = "davis") -> Path:
    """TAP-Vid/tapvid_<subset>/tapvid_<subset>.pkl, read by `datasets.tapvid`.

    TAP-Vid knows neither queries nor frames without labels: a reader samples queries of its own.

    Raises:
        ValueError: the folder exists, or two clips have one name.
    """
    found, final = {}, Path(root) / "TAP-Vid" / f"tapvid_{subset}"
    _refuse(final)
    for clip in clips:
        if clip.name in found:
            raise ValueError(f"write_tapvid: names should differ, got {clip.name} twice.")
        found[clip.name] = tapvid_clip(clip.video, clip.tracks, clip.visible)
    with _new_folder(final) as folder:
        (folder / f"tapvid_{subset}.pkl").write_bytes(pickle.dumps(found))
    return final


def write_davis(root: str | Path, clips: Iterable[MaskClip], split: str = "val") -> Path:
    """DAVIS/, with JPEG frames, palette masks, and lists for 2016 and 2017; read by `datasets.davis`.

    Raises:
        ValueError: the folder exists, or a clip has more than 254 objects.
    """
    names = []
    with _new_folder(Path(root) / "DAVIS") as folder:
        for clip in clips:
            if clip.masks.max() > 254:
                raise ValueError(f"write_davis: {clip.name} should have at most 254 objects, got {clip.masks.max()}.")
            shown, masks = (folder / kind / "480p" / clip.name for kind in ("JPEGImages", "Annotations"))
            shown.mkdir(parents=True)
            for t, frame in enumerate(clip.video):
                _write_image(shown / f"{t:05d}.jpg", frame)
            write_mask_images(masks, clip.masks)
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
    with _new_folder(Path(root) / "FlyingChairs") as folder:
        (folder / "data").mkdir()
        for number, pair in enumerate(pairs, 1):
            for frame, ending in ((pair.frame0, "img1"), (pair.frame1, "img2")):
                _write_image(folder / "data" / f"{number:05d}_{ending}.ppm", (frame * 255).round().to(torch.uint8))
            flow.write_flo(folder / "data" / f"{number:05d}_flow.flo", pair.flow_0to1)
    return Path(root) / "FlyingChairs"


def tapvid_clip(
    video: UInt8[Tensor, "T 3 H W"], tracks: Float[Tensor, "T N 2"], visible: Bool[Tensor, "T N"]
) -> dict[str, np.ndarray]:
    """A clip as TAP-Vid's pickles hold it; tracks are in pixels, and 0 and 1 there are the edges of the frame."""
    H, W = video.shape[-2:]
    raster = (tracks.cpu().double() + 0.5) / torch.tensor([W, H], dtype=torch.float64)
    return {
        "video": np.ascontiguousarray(rearrange(video.numpy(force=True), "T C H W -> T H W C")),
        "points": np.ascontiguousarray(rearrange(raster.numpy(), "T N xy -> N T xy")),
        "occluded": np.ascontiguousarray(~visible.numpy(force=True).T),
    }


def write_mask_images(folder: Path, masks: Integer[Tensor, "T H W"], about: str = "") -> None:
    """folder/00000.png and so on: object numbers up to 255, with DAVIS's palette.

    Args:
        folder: made, with those above it.
        masks: object numbers, 0 the background.
        about: kept in each image as its text of that name; none if empty.
    """
    # The bits of a number, dealt out to red, green and blue.
    number = np.arange(256)[:, None]
    palette = sum((((number >> (3 * i + np.arange(3))) & 1) << (7 - i)) for i in range(8)).astype(np.uint8)
    text = PngInfo()
    if about:
        text.add_text("about", about)
    folder.mkdir(parents=True)
    for t, mask in enumerate(masks.numpy(force=True).astype(np.uint8)):
        image = Image.fromarray(mask)
        image.putpalette(palette.tobytes())
        image.save(folder / f"{t:05d}.png", pnginfo=text)


@contextmanager
def _new_folder(final: Path) -> Iterator[Path]:
    """A folder to fill, which gets its name only if nothing goes wrong."""
    _refuse(final)
    with whole(final) as partial:
        partial.mkdir()
        yield partial


def _refuse(final: Path) -> None:
    """A folder that exists is never written into."""
    if final.exists():
        raise ValueError(f"layouts: {final} exists; name another root, or remove it.")


def _write_image(path: Path, frame: Tensor) -> None:
    """A (3, H, W) uint8 frame; an encoder that fails says nothing of itself."""
    image = np.ascontiguousarray(rearrange(frame.numpy()[::-1], "C H W -> H W C"))
    path.write_bytes(cv2.imencode(path.suffix, image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes())
