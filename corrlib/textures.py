"""Pictures to paint procedural objects with: photographs, procedural families, and images or videos of yours.

Every texture is a (3, S, S) float32 tensor in [0, 1]. The photographs are scikit-image's. Some of
them and some of the procedural families are held out for validation, so that a score there is not
a score on pictures seen before.
"""

import functools
import itertools
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
FAMILIES = {
    "train": ["fractal", "checks", "stripes", "patches", "fur", "skin", "text"],
    "val": ["fractal", "leaves", "cloth"],
}
COLOURFUL = ("fractal", "checks", "stripes", "patches")  # the families that vivid textures are of
VIVID = 0.35  # how far the hues of a palette differ at most; in vivid textures always
LINES = 384  # that a photograph, or a frame of a video, is reduced to
STILLS = 6  # frames of a video, spread over its first
WATCHED = 240  # frames
VIDEO_SUFFIXES = (".avi", ".mkv", ".mov", ".mp4", ".mpg", ".webm")


@functools.lru_cache(maxsize=32)
def photograph(name: str) -> Float[Tensor, "3 H W"]:
    """One of scikit-image's photographs, the shorter side reduced to 384 pixels."""
    return reduced(frames.read_frame(Path(skimage.__file__).parent / "data" / name)).float() / 255


def reduced(picture: UInt8[Tensor, "3 H W"]) -> UInt8[Tensor, "3 H2 W2"]:
    """A picture whose shorter side is 384 pixels at most."""
    ratio = LINES / min(picture.shape[-2:])
    if ratio >= 1:
        return picture
    size = tuple(max(1, round(n * ratio)) for n in picture.shape[-2:])
    return (coords.resize_frames(frames.to_float(picture)[None], size)[0] * 255).round().to(torch.uint8)


def sources(folder: str | Path) -> tuple[Path, ...]:
    """The images and videos in a folder and in those below it, in the order of their names.

    Raises:
        FileNotFoundError: there is no such folder, or nothing to use in it.
    """
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"textures: no folder {folder}.")
    known = frames.IMAGE_SUFFIXES + VIDEO_SUFFIXES
    found = tuple(sorted(p for p in Path(folder).rglob("*") if p.suffix.lower() in known and p.is_file()))
    if not found:
        raise FileNotFoundError(f"textures: nothing in {folder} ends in {', '.join(known)}.")
    return found


@functools.lru_cache(maxsize=32)
def stills(path: Path) -> list[UInt8[Tensor, "3 H W"]]:
    """A picture, or some frames of a video.

    Raises:
        ValueError: the file is not what its name says.
    """
    if path.suffix.lower() in frames.IMAGE_SUFFIXES:
        return [reduced(frames.read_frame(path))]
    video = frames.open_video(path)
    step = max(1, min(video.num_frames or WATCHED, WATCHED) // STILLS)
    return [reduced(frame) for frame in itertools.islice(video, 0, step * STILLS, step)]


def uniform(low: float, high: float, generator: torch.Generator) -> float:
    """One draw from a uniform distribution."""
    return low + (high - low) * torch.rand((), generator=generator).item()


def palette(count: int, generator: torch.Generator, vivid: bool = False) -> Float[Tensor, "count 3"]:
    """A few colours that differ in lightness and, in vivid palettes more than in others, in hue."""
    hue = (VIVID if vivid else uniform(0.05, VIVID, generator)) * torch.randn(count, 3, generator=generator)
    tone = 0.0 if vivid else uniform(0.0, 0.15, generator) * torch.randn(3, generator=generator)
    return (torch.linspace(0.05, 0.95, count)[:, None] + tone + hue).clamp(0, 1)


def noise(size: int, slope: float, channels: int, generator: torch.Generator) -> Float[Tensor, "channels S S"]:
    """Gaussian noise with amplitude spectrum 1 / f ** slope, zero mean and unit variance."""
    spectrum = torch.fft.rfft2(torch.randn(channels, size, size, generator=generator))
    fy, fx = torch.fft.fftfreq(size)[:, None], torch.fft.rfftfreq(size)[None]
    field = torch.fft.irfft2(spectrum / (fx**2 + fy**2).sqrt().clamp(min=1 / size) ** slope, s=(size, size))
    field = field - field.mean(dim=(1, 2), keepdim=True)
    return field / field.std(dim=(1, 2), keepdim=True)


def fractal(size: int, generator: torch.Generator, vivid: bool = False) -> Float[Tensor, "3 S S"]:
    """Coloured 1 / f noise, from cloudy to grainy."""
    field = noise(size, uniform(0.7, 1.6, generator), 3, generator)
    if vivid:
        mix = torch.eye(3) * 0.5 + torch.rand(3, 3, generator=generator) - 0.5
    else:
        mix = torch.tensor([1.0, 0, 0]) + uniform(0.1, 0.6, generator) * torch.randn(3, 3, generator=generator)
    return (0.5 + 0.22 * torch.einsum("ij,jhw->ihw", mix, field) * uniform(0.7, 1.6, generator)).clamp(0, 1)


def periodic(size: int, generator: torch.Generator, both_axes: bool, vivid: bool = False) -> Float[Tensor, "3 S S"]:
    """Stripes, or checks, of random width and angle, edges bent by noise, over a shaded ground."""
    angle, period = uniform(0, math.pi, generator), uniform(10, 48, generator)
    xy = coords.grid((size, size)) + 3 * noise(size, 1.6, 2, generator).permute(1, 2, 0)
    along = xy @ torch.tensor([math.cos(angle), math.sin(angle)])
    wave = torch.sin(2 * math.pi * along / period)
    if both_axes:
        across = xy @ torch.tensor([-math.sin(angle), math.cos(angle)])
        wave = wave * torch.sin(2 * math.pi * across / period)
    weight = torch.sigmoid(wave * 8)
    a, b = palette(2, generator, vivid)
    picture = a[:, None, None] * weight + b[:, None, None] * (1 - weight)
    return (picture + 0.12 * noise(size, 1.1, 3, generator)).clamp(0, 1)


def patches(size: int, generator: torch.Generator, vivid: bool = False) -> Float[Tensor, "3 S S"]:
    """A mosaic of the cells nearest to random seeds, each of its own colour and grain."""
    count = int(uniform(30, 160, generator))
    seeds = torch.rand(count, 2, generator=generator) * size
    bent = coords.grid((size, size)) + 4 * noise(size, 1.6, 2, generator).permute(1, 2, 0)
    nearest = torch.cdist(bent.reshape(-1, 2), seeds).argmin(dim=1).reshape(size, size)
    picture = palette(count, generator, vivid)[torch.randperm(count, generator=generator)][nearest].permute(2, 0, 1)
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


def streaks(size: int, angle: float, length: float, generator: torch.Generator) -> Float[Tensor, "S S"]:
    """Noise drawn out along a direction, zero mean and unit variance."""
    spectrum = torch.fft.rfft2(torch.randn(size, size, generator=generator))
    fy, fx = torch.fft.fftfreq(size)[:, None], torch.fft.rfftfreq(size)[None]
    along, across = fx * math.cos(angle) + fy * math.sin(angle), fy * math.cos(angle) - fx * math.sin(angle)
    pass_band = torch.exp(-((along * length) ** 2) * 8) * across.abs() ** 0.5 * torch.exp(-((across * 2.2) ** 2) * 4)
    field = torch.fft.irfft2(spectrum * pass_band, s=(size, size))
    return (field - field.mean()) / field.std()


def fur(size: int, generator: torch.Generator) -> Float[Tensor, "3 S S"]:
    """Fur or grass: fine streaks whose direction changes over the picture, in two or three tones."""
    angle, length = uniform(0, math.pi, generator), uniform(6, 20, generator)
    where = noise(size, 1.7, 1, generator)[0]
    fields = [streaks(size, angle + turn, length, generator) for turn in (-0.6, 0.0, 0.6)]
    weights = torch.softmax(3 * torch.stack([-where, 0 * where, where]), dim=0)
    strands = (weights * torch.stack(fields)).sum(0)
    dark, light = palette(3, generator)[torch.randperm(3, generator=generator)[:2]]
    share = torch.sigmoid(0.9 * noise(size, 1.4, 1, generator)[0])[None]
    ground = dark[:, None, None] * share + light[:, None, None] * (1 - share)
    return (ground + uniform(0.04, 0.16, generator) * strands).clamp(0, 1)


def skin(size: int, generator: torch.Generator) -> Float[Tensor, "3 S S"]:
    """Skin, leather or paint: one colour, soft blotches, faint grain and a few spots."""
    colour = (uniform(0.2, 0.8, generator) + 0.15 * torch.randn(3, generator=generator))[:, None, None]
    tint = torch.randn(3, 1, 1, generator=generator) * 0.5 + 1
    picture = colour + 0.04 * tint * noise(size, 1.5, 1, generator) + 0.02 * noise(size, 0.6, 1, generator)
    xy = coords.grid((size, size))
    for _ in range(int(uniform(3, 25, generator))):
        centre, radius = torch.rand(2, generator=generator) * size, uniform(1.0, 4.5, generator)
        picture = picture - uniform(0.05, 0.3, generator) * torch.exp(-((xy - centre) ** 2).sum(-1) / radius**2)
    return picture.clamp(0, 1)


def cloth(size: int, generator: torch.Generator) -> Float[Tensor, "3 S S"]:
    """A weave of two threads in bands of colour, a little bent, with soft folds."""
    angle, period = uniform(0, math.pi, generator), uniform(3.5, 7, generator)
    xy = coords.grid((size, size)) + 2 * noise(size, 1.8, 2, generator).permute(1, 2, 0)
    along = xy @ torch.tensor([math.cos(angle), math.sin(angle)])
    across = xy @ torch.tensor([-math.sin(angle), math.cos(angle)])
    weave = torch.sin(2 * math.pi * along / period) * torch.sin(2 * math.pi * across / period)
    colours, band = palette(4, generator), uniform(15, 60, generator)
    warp, weft = (colours[((v / band).floor().long() % 4)].permute(2, 0, 1) for v in (along, across))
    over = torch.sigmoid(5 * weave)
    folds = 0.12 * noise(size, 1.8, 1, generator) + 0.03 * noise(size, 0.5, 1, generator)
    return (warp * over + weft * (1 - over) + folds).clamp(0, 1)


def text(size: int, generator: torch.Generator) -> Float[Tensor, "3 S S"]:
    """Lines of made-up letters on paper."""
    cell = int(uniform(2, 5, generator))  # pixels of a dot; a letter has 5 rows of 3, and a gap
    rows, columns = size // (8 * cell) + 1, size // (4 * cell) + 1
    dots = torch.zeros(rows, 8, columns, 4)
    dots[:, 1:6, :, :3] = (torch.rand(rows, 5, columns, 3, generator=generator) < 0.55).float()
    dots *= torch.rand(rows, 1, columns, 1, generator=generator) < 0.85  # between words
    ink = dots.reshape(rows * 8, columns * 4).repeat_interleave(cell, 0).repeat_interleave(cell, 1)[:size, :size]
    ink = torch.nn.functional.avg_pool2d(ink[None], 3, stride=1, padding=1)
    paper, colour = palette(2, generator)[torch.randperm(2, generator=generator)][..., None, None]
    picture = paper * (1 - ink) + colour * ink
    return (picture + 0.04 * noise(size, 1.3, 1, generator) + 0.02 * noise(size, 0.4, 1, generator)).clamp(0, 1)


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


def texture(
    split: str,
    size: int,
    generator: torch.Generator,
    own: tuple[Path, ...] = (),
    photographs: bool = True,
    vivid: bool = False,
) -> Float[Tensor, "3 S S"]:
    """A random texture of the "train" or "val" split: six in ten a photograph, or a picture of one's own."""
    if own and uniform(0, 1, generator) < 0.5:
        pictures = stills(own[int(uniform(0, len(own), generator))])
        return crop(pictures[int(uniform(0, len(pictures), generator))].float() / 255, size, generator)
    if photographs and uniform(0, 1, generator) < 0.6:
        names = PHOTOGRAPHS[split]
        return crop(photograph(names[int(uniform(0, len(names), generator))]), size, generator)
    families = [name for name in FAMILIES[split] if not vivid or name in COLOURFUL]
    family = families[int(uniform(0, len(families), generator))]
    if family in ("checks", "stripes"):
        return periodic(size, generator, family == "checks", vivid)
    if vivid:
        return {"fractal": fractal, "patches": patches}[family](size, generator, vivid)
    made = {"fractal": fractal, "patches": patches, "leaves": leaves, "fur": fur, "skin": skin, "cloth": cloth}
    return {**made, "text": text}[family](size, generator)


@functools.lru_cache(maxsize=2)
def bank(
    split: str,
    count: int,
    size: int,
    seed: int,
    own: tuple[Path, ...] = (),
    photographs: bool = True,
    vivid: bool = False,
) -> UInt8[Tensor, "count 3 S S"]:
    """A fixed set of textures, drawn once and shared by many scenes.

    Args:
        split: "train" or "val".
        count: how many.
        size: of their sides, pixels.
        seed: the same seed gives the same textures.
        own: images and videos of which half of them are made (`sources`).
        photographs: without, all others come from the procedural families.
        vivid: these are of four families only, in strong colours.

    Raises:
        ValueError: one of those files is broken.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = (texture(split, size, generator, own, photographs, vivid) for _ in range(count))
    return torch.stack([(picture * 255).round().to(torch.uint8) for picture in drawn])
