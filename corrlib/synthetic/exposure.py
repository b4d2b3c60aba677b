"""What light and the camera do to what is there: shadows, blur, noise, casts and compression.

Nothing here moves a point: blur spreads evenly about where a point is in the middle of the exposure.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from .. import coords
from .motion import Swing

MOST_COPIES = 13  # of an actor that are averaged into its motion blur


@dataclass(frozen=True)
class Lens:
    """The light of a scene and its camera; lengths in pixels of the frame."""

    direction: Swing  # (3,), towards the light: x right, y down, z away from the viewer
    light: Swing  # (4,), gain, offset, and a gradient of gain along x and y
    ripple: float  # strength of a pattern of light and shade that drifts over everything
    ripple_wave: Float[Tensor, "2 4"]  # two waves: frequencies along x and y, rate, phase
    cast: Float[Tensor, "3"]  # gain of each channel
    gamma: float
    saturation: float
    shadow: float  # darkness of shadows, 0 to 1
    fall: tuple[float, float]  # from an actor to its shadow
    shutter: float  # open for this share of a frame's time
    aperture: float  # blur (Gaussian sigma) of what is twice as far as the focus, or half
    focus: Swing  # (), depth that is sharp
    blur: float  # of everything, sigma
    noise: float
    quality: int  # of JPEG compression; 0 for none
    seed: int

    def expose(self, frames: Float[Tensor, "T 3 H W"], times: Float[Tensor, "T"]) -> Float[Tensor, "T 3 H W"]:
        """Frames as the camera stores them, 8 bits a channel, in [0, 1]."""
        size_hw = tuple(frames.shape[-2:])
        gain, offset, slope_x, slope_y = self.light.at(times)[..., None, None].unbind(1)
        x, y = (2 * coords.grid(size_hw, frames.device) / max(size_hw) - 1).unbind(-1)
        gain = 1 + gain + slope_x * x + slope_y * y
        if self.ripple:
            waves = [(fx * x + fy * y + w * times[:, None, None] + p).sin() for fx, fy, w, p in self.ripple_wave]
            gain = gain * (1 + self.ripple * waves[0] * waves[1])
        frames = (frames * (gain[:, None] * self.cast[:, None, None])).add_(offset[:, None])
        if self.saturation != 1:
            grey = frames.mean(dim=1, keepdim=True)
            frames = torch.lerp(grey, frames, self.saturation)
        if self.gamma != 1:
            frames = frames.clamp_(min=1e-4).pow_(self.gamma)
        if self.blur > 0.3:
            frames = blur(frames, torch.full((len(frames),), self.blur))
        if self.noise:
            frames = frames + self.noise * self._grain(frames, times)
        frames = frames.clamp_(0, 1).mul_(255).round_()
        return (compress(frames, self.quality) if self.quality else frames).contiguous() / 255

    def _grain(self, frames: Tensor, times: Float[Tensor, "T"]) -> Tensor:
        """Sensor noise, the same at the same time whatever else is asked."""
        generator, grains = torch.Generator(), []
        for time in times.tolist():
            generator.manual_seed(self.seed * 1009 + round(time * 16))
            grains.append(torch.randn(frames.shape[1:], generator=generator))
        return torch.stack(grains).to(frames.device)

    def defocus(self, depth: float, times: Float[Tensor, "T"]) -> Float[Tensor, "T"]:
        """Sigma of the blur at a depth."""
        return self.aperture * (math.log2(depth) - self.focus.at(times).log2()).abs().clamp(max=1.5)


def compress(frames: Float[Tensor, "T 3 H W"], quality: int) -> Float[Tensor, "T 3 H W"]:
    """Frames in [0, 255] after JPEG, which OpenCV does."""
    packed = []
    for frame in frames.to(torch.uint8).numpy(force=True):
        image = np.ascontiguousarray(rearrange(frame, "c H W -> H W c"))
        code = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        packed.append(rearrange(cv2.imdecode(code, cv2.IMREAD_COLOR), "H W c -> c H W"))
    return torch.from_numpy(np.stack(packed)).to(frames)


def blur(frames: Float[Tensor, "T C H W"], sigma: Float[Tensor, "T"]) -> Float[Tensor, "T C H W"]:
    """Each frame under a Gaussian of its own width; edges are repeated."""
    sigma = sigma.to(frames.device)[:, None].clamp(min=0.05)
    reach = max(1, math.ceil(2.2 * float(sigma.max())))
    steps = torch.arange(reach + 1.0, device=frames.device)
    weights = torch.exp(-(steps**2) / (2 * sigma**2)) * (steps <= (2.2 * sigma).ceil())
    weights = (weights / (2 * weights.sum(dim=1, keepdim=True) - 1))[..., None, None, None].unbind(1)
    for axis in (2, 3):
        pad = (reach, reach, 0, 0) if axis == 3 else (0, 0, reach, reach)
        padded, n = F.pad(frames, pad, mode="replicate"), frames.shape[axis]
        frames = padded.narrow(axis, reach, n) * weights[0]
        for k in range(1, reach + 1):  # faster than a convolution
            both = padded.narrow(axis, reach - k, n) + padded.narrow(axis, reach + k, n)
            frames.addcmul_(both, weights[k])
    return frames


def smear(painted: Float[Tensor, "T C H W"], way: Float[Tensor, "T 2"]) -> Float[Tensor, "T C H W"]:
    """The mean of copies along the way that each frame's actor goes while the shutter is open."""
    lengths = way.abs().amax(1).tolist()
    reach = math.ceil(max(lengths) / 2) + 1
    padded = F.pad(painted, (reach,) * 4, mode="replicate")
    H, W = painted.shape[-2:]
    out = torch.zeros_like(painted)
    for t, length in enumerate(lengths):
        copies = min(MOST_COPIES, 2 * math.ceil(length / 2.5) + 1)
        steps = torch.linspace(-0.5, 0.5, copies)[:, None]
        for x, y in (reach - way[t].cpu() * steps).round().int().tolist():
            out[t].add_(padded[t, :, y : y + H, x : x + W], alpha=1 / copies)
    return out


def soften(colour: Float[Tensor, "T 3 H W"], mask: Float[Tensor, "T 1 H W"]) -> tuple[Tensor, Tensor]:
    """The colours and the opacity of a hard-edged shape whose edge is made as wide as a pixel."""
    wide = F.pad(torch.cat([colour * mask, mask], dim=1), (1, 1, 1, 1))
    wide = (wide[..., :-2] + wide[..., 2:]) + 2 * wide[..., 1:-1]
    wide = (wide[..., :-2, :] + wide[..., 2:, :]) + 2 * wide[..., 1:-1, :]
    # Inside, its own colour; outside, that of its neighbours: only the edge is softened.
    return torch.where(mask > 0, colour, wide[:, :3] / wide[:, 3:].clamp(min=1)), wide[:, 3:] / 16


def shade(opacity: Float[Tensor, "T 1 H W"]) -> Float[Tensor, "T 1 H W"]:
    """How dark the soft shadow of a shape is."""
    H, W = opacity.shape[-2:]
    small = F.avg_pool2d(opacity, 4, ceil_mode=True, count_include_pad=False)
    for _ in range(2):
        small = F.avg_pool2d(small, 3, stride=1, padding=1)
    # A shadow is smooth: half a cell more or less is no matter, so that the plain resize will do.
    return F.interpolate(small, scale_factor=4, mode="bilinear", align_corners=False)[..., :H, :W]


def darken(
    canvas: Float[Tensor, "3 H W"], dark: Float[Tensor, "1 h w"], top: int, left: int, fall: tuple[float, float]
) -> None:
    """Lets the shadow of a shape in a box fall on what is drawn already."""
    H, W = canvas.shape[1:]
    h, w = dark.shape[1:]
    left, top = left + round(fall[0]), top + round(fall[1])
    i0, j0, i1, j1 = max(top, 0), max(left, 0), min(top + h, H), min(left + w, W)
    if i1 > i0 and j1 > j0:
        canvas[:, i0:i1, j0:j1] *= 1 - dark[:, i0 - top : i1 - top, j0 - left : j1 - left]
