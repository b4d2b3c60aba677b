"""Pictures to paint procedural objects with: scikit-image's photographs and procedural families.

Every texture is a (3, S, S) float32 tensor in [0, 1]. Some photographs and one procedural family
are held out for validation, so that a score there is not a score on pictures seen before.
"""

import functools
import math
from pathlib import Path

import skimage
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from . import coords, frames

# Only files that lie inside scikit-image's wheel; their sources and licences: data/README.md.
PHOTOGRAPHS = {
    "train": ["astronaut.png", "brick.png", "camera.png", "coffee.png", "coins.png", "grass.png",
              "hubble_deep_field.jpg", "ihc.png", "moon.png", "page.png", "retina.jpg", "rocket.jpg",
              "text.png", "cell.png"],
    "val": ["chelsea.png", "gravel.png", "motorcycle_left.png"],
}  # fmt: skip
FAMILIES = {"train": ["fractal", "checks", "stripes", "patches"], "val": ["fractal", "leaves"]}


@functools.lru_cache(maxsize=32)
def photograph(name: str) -> Float[Tensor, "3 H W"]:
    """One of scikit-image's photographs, the shorter side reduced to 384 pixels."""
    picture = frames.to_float(frames.read_frame(Path(skimage.__file__).parent / "data" / name))
    ratio = 384 / min(picture.shape[-2:])
    if ratio < 1:
        size = tuple(max(1, round(n * ratio)) for n in picture.shape[-2:])
        picture = coords.resize_frames(picture[None], size)[0]
    return picture


def uniform(low: float, high: float, generator: torch.Generator) -> float:
    """One draw from a uniform distribution."""
    return low + (high - low) * torch.rand((), generator=generator).item()


def palette(count: int, generator: torch.Generator) -> Float[Tensor, "count 3"]:
    """A few colours that differ in lightness as well as in hue."""
    return (torch.linspace(0.05, 0.95, count)[:, None] + 0.35 * torch.randn(count, 3, generator=generator)).clamp(0, 1)


def noise(size: int, slope: float, channels: int, generator: torch.Generator) -> Float[Tensor, "channels S S"]:
    """Gaussian noise with amplitude spectrum 1 / f ** slope, zero mean and unit variance."""
    spectrum = torch.fft.rfft2(torch.randn(channels, size, size, generator=generator))
    fy, fx = torch.fft.fftfreq(size)[:, None], torch.fft.rfftfreq(size)[None]
    field = torch.fft.irfft2(spectrum / (fx**2 + fy**2).sqrt().clamp(min=1 / size) ** slope, s=(size, size))
    field = field - field.mean(dim=(1, 2), keepdim=True)
    return field / field.std(dim=(1, 2), keepdim=True)


def fractal(size: int, generator: torch.Generator) -> Float[Tensor, "3 S S"]:
    """Coloured 1 / f noise, from cloudy to grainy."""
    field = noise(size, uniform(0.7, 1.6, generator), 3, generator)
    mix = torch.eye(3) * 0.5 + torch.rand(3, 3, generator=generator) - 0.5
    return (0.5 + 0.22 * torch.einsum("ij,jhw->ihw", mix, field) * uniform(0.7, 1.6, generator)).clamp(0, 1)


def periodic(size: int, generator: torch.Generator, both_axes: bool) -> Float[Tensor, "3 S S"]:
    """Stripes, or checks, of random width and angle, edges bent by noise, over a shaded ground."""
    angle, period = uniform(0, math.pi, generator), uniform(10, 48, generator)
    xy = coords.grid((size, size)) + 3 * noise(size, 1.6, 2, generator).permute(1, 2, 0)
    along = xy @ torch.tensor([math.cos(angle), math.sin(angle)])
    wave = torch.sin(2 * math.pi * along / period)
    if both_axes:
        across = xy @ torch.tensor([-math.sin(angle), math.cos(angle)])
        wave = wave * torch.sin(2 * math.pi * across / period)
    weight = torch.sigmoid(wave * 8)
    a, b = palette(2, generator)
    picture = a[:, None, None] * weight + b[:, None, None] * (1 - weight)
    return (picture + 0.12 * noise(size, 1.1, 3, generator)).clamp(0, 1)


def patches(size: int, generator: torch.Generator) -> Float[Tensor, "3 S S"]:
    """A mosaic of the cells nearest to random seeds, each of its own colour and grain."""
    count = int(uniform(30, 160, generator))
    seeds = torch.rand(count, 2, generator=generator) * size
    bent = coords.grid((size, size)) + 4 * noise(size, 1.6, 2, generator).permute(1, 2, 0)
    nearest = torch.cdist(bent.reshape(-1, 2), seeds).argmin(dim=1).reshape(size, size)
    picture = palette(count, generator)[torch.randperm(count, generator=generator)][nearest].permute(2, 0, 1)
    return (picture + 0.1 * noise(size, 0.9, 3, generator)).clamp(0, 1)


def leaves(size: int, generator: torch.Generator) -> Float[Tensor, "3 S S"]:
    """Dead leaves: opaque discs of 1 / r ** 3 distributed radii falling on each other."""
    count = 250
    radius = 5 / (1 - torch.rand(count, generator=generator) * (1 - (5 / 70) ** 2)).sqrt()
    centre = torch.rand(count, 2, generator=generator) * size
    colours = torch.rand(count, 3, generator=generator)
    picture = torch.full((size, size, 3), 0.5)
    xy = coords.grid((size, size))
    for r, c, colour in zip(radius, centre, colours):
        x0, y0 = (c - r - 1).clamp(min=0).int().tolist()
        x1, y1 = (c + r + 2).clamp(max=size).int().tolist()
        disc = (xy[y0:y1, x0:x1] - c).norm(dim=-1) < r
        picture[y0:y1, x0:x1][disc] = colour
    return (picture.permute(2, 0, 1) + 0.06 * noise(size, 0.9, 3, generator)).clamp(0, 1)


def crop(picture: Float[Tensor, "3 H W"], size: int, generator: torch.Generator) -> Float[Tensor, "3 S S"]:
    """A random square of a picture, flipped, recoloured and resized to (size, size)."""
    H, W = picture.shape[-2:]
    side = int(min(H, W) * uniform(0.45, 1.0, generator))
    y, x = int(uniform(0, H - side + 1, generator)), int(uniform(0, W - side + 1, generator))
    piece = coords.resize_frames(picture[None, :, y : y + side, x : x + side], (size, size))[0]
    if uniform(0, 1, generator) < 0.5:
        piece = piece.flip(-1)
    if uniform(0, 1, generator) < 0.5:
        piece = piece.transpose(-1, -2)
    if uniform(0, 1, generator) < 0.5:
        piece = piece[torch.randperm(3, generator=generator)]
    gain = 0.75 + 0.5 * torch.rand(3, 1, 1, generator=generator)
    return ((piece - piece.mean()) * gain * uniform(0.8, 1.4, generator) + uniform(0.3, 0.7, generator)).clamp(0, 1)


def texture(split: str, size: int, generator: torch.Generator) -> Float[Tensor, "3 S S"]:
    """A random texture of the "train" or "val" split: six in ten a photograph."""
    if uniform(0, 1, generator) < 0.6:
        names = PHOTOGRAPHS[split]
        return crop(photograph(names[int(uniform(0, len(names), generator))]), size, generator)
    families = FAMILIES[split]
    family = families[int(uniform(0, len(families), generator))]
    if family in ("checks", "stripes"):
        return periodic(size, generator, both_axes=family == "checks")
    return {"fractal": fractal, "patches": patches, "leaves": leaves}[family](size, generator)


@functools.lru_cache(maxsize=1)
def bank(split: str, count: int, size: int, seed: int) -> UInt8[Tensor, "count 3 S S"]:
    """A fixed set of textures, drawn once and shared by many scenes."""
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([(texture(split, size, generator) * 255).round().to(torch.uint8) for _ in range(count)])
