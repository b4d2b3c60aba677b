"""Optical flow: warp with it, judge it, resize it, read and write it.

A flow is (2, H, W) or (B, 2, H, W), channel 0 = dx, channel 1 = dy, in pixels of the frame
it starts from: x1 = x0 + flow_0to1(x0). Files hold one flow; where a file does not know the
flow, `read_flow` says so in a mask and returns 0 there, never NaN or a sentinel.
"""

import math
import os
import re
from pathlib import Path

import cv2
import numpy as np
import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor

from corrlib import coords

FLO_MAGIC = 202021.25  # the bytes "PIEH"
FLO_UNKNOWN = 1e9  # Middlebury writes larger values where the flow is unknown


def warp(
    frames: Float[Tensor, "B C H W"], flow: Float[Tensor, "B 2 H W"], padding: str = "border"
) -> tuple[Float[Tensor, "B C H W"], Bool[Tensor, "B H W"]]:
    """Frame 1 as seen from frame 0: each pixel of frame 0 fetches its colour where its flow points.

    Args:
        frames: frame 1, or any map on its pixels.
        flow: flow_0to1, in pixels.
        padding: what lies outside frame 1, "border" (its edge repeated) or "zeros".

    Returns:
        the fetched values, and whether each flow ends inside the frame.
    """
    return coords.sample(frames, destinations(flow), padding)


def destinations(flow: Float[Tensor, "B 2 H W"]) -> Float[Tensor, "B H W 2"]:
    """Where the flow of each pixel ends, (x, y) in pixels of the other frame."""
    return coords.grid(tuple(flow.shape[-2:]), flow.device) + rearrange(flow, "B d H W -> B H W d")


def visible_by_consistency(
    flow_0to1: Float[Tensor, "B 2 H W"],
    flow_1to0: Float[Tensor, "B 2 H W"],
    alpha: float = 0.01,
    beta: float = 0.5,
    legacy: bool = False,
) -> Bool[Tensor, "B H W"]:
    """Pixels of frame 0 that come back: forward-backward consistency, with |.| in pixels.

    |f01(x) + f10(x + f01(x))|^2 < alpha * (|f01(x)|^2 + |f10(x + f01(x))|^2) + beta, and the
    flow ends inside frame 1. `alpha` has no unit, `beta` is in pixels squared. With `legacy` the
    threshold is that of the paper's released code, which doubles f01 where it should square it.

    Source: Meister, Hur and Roth, UnFlow, AAAI 2018, equation 1.
    Differs: theirs does not look at the frame's border.
    """
    returned, inside = warp(flow_1to0, flow_0to1)
    gap = (flow_0to1 + returned).square().sum(dim=1)
    size = (2 * flow_0to1 if legacy else flow_0to1.square()).sum(dim=1) + returned.square().sum(dim=1)
    return (gap < alpha * size + beta) & inside


def resize_flow(flow: Float[Tensor, "B 2 H W"], new_size_hw: tuple[int, int]) -> Float[Tensor, "B 2 H2 W2"]:
    """A flow of the same frames at another resolution: its map resized, and its values with it."""
    (H, W), (new_H, new_W) = flow.shape[-2:], new_size_hw
    ratio = torch.tensor([new_W / W, new_H / H], dtype=flow.dtype, device=flow.device)
    return coords.resize_maps(flow, new_size_hw) * ratio[:, None, None]


def read_flow(path: str | os.PathLike) -> tuple[Float[Tensor, "2 H W"], Bool[Tensor, "H W"]]:
    """The flow of a file, and where it is known.

    Args:
        path: .flo (Middlebury, Sintel, FlyingChairs), .pfm (FlyingThings3D, either byte
            order, rows stored bottom-up) or .png (KITTI, 16 bit).

    Returns:
        flow in pixels, 0 where it is unknown, and the mask of where it is known.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the suffix, a header or the length of the file is not what its format says.
    """
    path = Path(path)
    readers = {".flo": _read_flo, ".pfm": _read_pfm, ".png": _read_kitti_png}
    if path.suffix not in readers:
        raise ValueError(f"read_flow: expected a file ending in .flo, .pfm or .png, got {path}.")
    if not path.is_file():
        raise FileNotFoundError(f"read_flow: no file {path}.")
    flow, valid = readers[path.suffix](path)
    flow = np.where(valid[None], flow, 0).astype(np.float32)
    return torch.from_numpy(flow), torch.from_numpy(valid)


def _read_flo(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Middlebury: magic, width, height, then (dx, dy) row by row, all little-endian."""
    data = path.read_bytes()
    if len(data) < 12 or np.frombuffer(data, "<f4", count=1)[0] != np.float32(FLO_MAGIC):
        raise ValueError(
            f"read_flow: {path} should start with the number {FLO_MAGIC} (bytes PIEH), width and height, "
            f"got {data[:12]!r}."
        )
    W, H = (int(v) for v in np.frombuffer(data, "<i4", count=2, offset=4))
    flow = _floats(path, data, 12, (H, W, 2), "<f4")
    with np.errstate(invalid="ignore"):
        valid = (np.abs(flow) < FLO_UNKNOWN).all(axis=-1)  # False for NaN too
    return rearrange(flow, "H W d -> d H W"), valid


def _read_pfm(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """FlyingThings3D: three channels, the third unused; the sign of the scale is the byte order."""
    data = path.read_bytes()
    header = re.match(rb"PF\s+(\d+)\s+(\d+)\s+([-+]?\d+\.?\d*)(?:\r\n|\s)", data[:128])
    if header is None:
        raise ValueError(
            f"read_flow: {path} should start with PF, width, height and scale (a .pfm of three channels), "
            f"got {data[:16]!r}."
        )
    W, H, scale = int(header[1]), int(header[2]), float(header[3])
    if abs(scale) != 1:
        raise ValueError(f"read_flow: {path} should have scale 1 or -1, got {scale}.")
    flow = _floats(path, data, header.end(), (H, W, 3), "<f4" if scale < 0 else ">f4")
    flow = rearrange(flow[::-1, :, :2], "H W d -> d H W")
    return flow, np.isfinite(flow).all(axis=0)


def _floats(path: Path, data: bytes, start: int, shape: tuple[int, int, int], dtype: str) -> np.ndarray:
    """The numbers after a header, if there are exactly as many as it announces."""
    expected = 4 * math.prod(shape)
    if min(shape) < 1 or len(data) - start != expected:
        raise ValueError(
            f"read_flow: {path} announces {shape[1]} x {shape[0]} pixels, which should be {expected} bytes "
            f"after its header, got {len(data) - start}."
        )
    return np.frombuffer(data, dtype, offset=start).reshape(shape)


def _read_kitti_png(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """KITTI: red and green are dx and dy as 64 * value + 2 ** 15, blue is whether they are known."""
    data = np.fromfile(path, dtype=np.uint8)
    encoded = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if data.size else None
    found = "no image" if encoded is None else f"{encoded.dtype} {encoded.shape}"
    if encoded is None or encoded.dtype != np.uint16 or encoded.shape[2:] != (3,):
        raise ValueError(f"read_flow: {path} should be a PNG of three 16-bit channels, got {found}.")
    blue, green, red = rearrange(encoded.astype(np.float32), "H W c -> c H W")
    return (np.stack([red, green]) - 2**15) / 64, blue > 0


def write_flo(path: str | os.PathLike, flow: Float[Tensor, "2 H W"], valid: Bool[Tensor, "H W"] | None = None) -> None:
    """A .flo file; where `valid` is False, the value that the format reads as unknown.

    Raises:
        ValueError: the flow is not (2, H, W).
    """
    _check_flow("write_flo", flow)
    values = flow.detach().cpu().numpy()
    if valid is not None:
        values = np.where(valid.cpu().numpy(), values, 10 * FLO_UNKNOWN)
    H, W = values.shape[1:]
    header = np.float32(FLO_MAGIC).astype("<f4").tobytes() + np.array([W, H], "<i4").tobytes()
    Path(path).write_bytes(header + rearrange(values, "d H W -> H W d").astype("<f4").tobytes())


def write_kitti_png(
    path: str | os.PathLike, flow: Float[Tensor, "2 H W"], valid: Bool[Tensor, "H W"] | None = None
) -> None:
    """A KITTI flow file, in steps of 1/64 pixel; unknown pixels are written as zeros.

    Raises:
        ValueError: the flow is not (2, H, W), or a known value is outside [-512, 512).
    """
    _check_flow("write_kitti_png", flow)
    known = np.ones(flow.shape[1:], bool) if valid is None else valid.cpu().numpy()
    values = np.where(known, flow.detach().cpu().numpy(), 0)
    encoded = np.round(values * 64) + 2**15
    if not ((encoded >= 0) & (encoded < 2**16)).all():
        raise ValueError(
            f"write_kitti_png: flow should be in [-512, 512) pixels to be stored, got {values.min():.1f} to "
            f"{values.max():.1f}."
        )
    red, green = np.where(known, encoded, 0).astype(np.uint16)
    ok, png = cv2.imencode(".png", np.stack([known.astype(np.uint16), green, red], axis=-1))
    if not ok:
        raise ValueError(f"write_kitti_png: OpenCV cannot encode {path}.")
    Path(path).write_bytes(png.tobytes())


def _check_flow(name: str, flow: Tensor) -> None:
    """One flow, channels first."""
    if flow.ndim != 3 or flow.shape[0] != 2:
        raise ValueError(f"{name}: flow should be (2, H, W), got {tuple(flow.shape)}.")
