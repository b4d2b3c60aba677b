"""What actors are painted with, and the flat ones among them: sheets cut out along an outline."""

import functools
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .. import coords
from .motion import Planes

COARSEST = 4  # levels of a picture, each half as large as the one before


@dataclass(frozen=True)
class Paint:
    """A square picture that is continued beyond its edges as in a mirror, its middle at (0, 0)."""

    picture: Float[Tensor, "C S S"]

    def sample(self, u: Float[Tensor, "T P"], v: Float[Tensor, "T P"], zoom: Float[Tensor, "T"]) -> Tensor:
        """(T, C, P) bilinear samples, of a smaller copy where `zoom`, frame pixels a picture's pixel, is small."""
        levels = level(zoom).tolist()
        if len(set(levels)) == 1:
            return self._level(u[None], v[None], levels[0])[0].movedim(0, 1)
        return torch.stack([self._level(a[None, None], b[None, None], k)[0, :, 0] for a, b, k in zip(u, v, levels)])

    def sample_each(
        self, u: Float[Tensor, "K"], v: Float[Tensor, "K"], zoom: Float[Tensor, "K"]
    ) -> Float[Tensor, "C K"]:
        """The same of points of which each has its own zoom."""
        levels = level(zoom)
        first, last = (int(k) for k in torch.aminmax(levels)) if len(u) else (0, 0)
        if first == last:
            return self._level(u[None, None], v[None, None], first)[0, :, 0]
        out = torch.empty(len(self.picture), len(u), device=u.device)
        for k in range(first, last + 1):
            which = (levels == k).nonzero()[:, 0]
            out[:, which] = self._level(u[None, None, which], v[None, None, which], k)[0, :, 0]
        return out

    def _level(self, u: Float[Tensor, "1 T P"], v: Float[Tensor, "1 T P"], k: int) -> Float[Tensor, "1 C T P"]:
        """Samples of one of the copies."""
        while len(self._copies) <= k:  # faster than a pooling
            values = self._copies[-1]
            values = values[..., ::2] + values[..., 1::2]
            self._copies.append((values[..., ::2, :] + values[..., 1::2, :]) / 4)
        half = self.picture.shape[-1] / 2
        return coords.read(self._copies[k], *((w + half).div_(2**k).sub_(0.5) for w in (u, v)), padding="reflection")

    @functools.cached_property
    def _copies(self) -> list[Float[Tensor, "1 C s s"]]:
        """The picture and, as far as they were asked for, its smaller copies."""
        return [self.picture[None]]


def level(zoom: Float[Tensor, "*n"]) -> Int[Tensor, "*n"]:
    """Which copy of a picture is about as fine as the frame; a little too fine rather than too coarse."""
    return (-zoom.log2() + 0.2).round().clamp(0, COARSEST).long()


@dataclass(frozen=True)
class Sheet:
    """A flat actor: a picture within an outline. `outline` None is a background, which has none."""

    paint: Paint  # of four channels where the picture itself has holes
    outline: Float[Tensor, "N N"] | None  # distance to the edge over [-reach, reach], positive inside
    reach: float  # pixels of the plane
    softness: float  # width of the edge, pixels of the plane
    relief: float  # how strongly light falls on the slopes of its waves

    def opacity(self, u: Float[Tensor, "T P"], v: Float[Tensor, "T P"]) -> Float[Tensor, "T P"]:
        """Of points of its plane, in [0, 1]; it is seen where it is above a half."""
        if self.outline is None:
            return torch.ones_like(u)
        step = (len(self.outline) - 1) / (2 * self.reach)
        x, y = ((w[None] * step).add_((len(self.outline) - 1) / 2) for w in (u, v))
        edge = coords.read(self.outline[None, None], x, y)[0, 0].to(u.dtype)
        opacity = (edge / self.softness).add_(0.5).clamp_(0, 1)
        if len(self.paint.picture) == 4:
            opacity = opacity * self.paint.sample(u, v, torch.ones(len(u)))[:, 3]
        return opacity

    @functools.cached_property
    def bounds(self) -> tuple[Float[Tensor, "4"], Float[Tensor, "4"]]:
        """x and y of the corners of a rectangle of the plane that holds all of it, its soft edge included."""
        step = 2 * self.reach / (len(self.outline) - 1)
        inside = (self.outline > -self.softness / 2).nonzero()
        (y0, x0), (y1, x1) = (v * step - self.reach for v in (inside.amin(0) - 1, inside.amax(0) + 1))
        return torch.stack([x0, x1, x0, x1]), torch.stack([y0, y0, y1, y1])

    def boxes(self, planes: Planes) -> tuple[Float[Tensor, "T 1 2"], Float[Tensor, "T 1 2"]]:
        """The corners of a box of the frame that holds all of it, on the first of the planes."""
        x, y = self.bounds
        bent, T = planes.bending(), len(planes.forward)
        x, y = x + bent * x.new_tensor([-1, 1, -1, 1]), y + bent * y.new_tensor([-1, -1, 1, 1])
        hull = planes.hull(x.expand(T, 4), y.expand(T, 4))
        return hull.amin(1, keepdim=True), hull.amax(1, keepdim=True)


@functools.cache
def _polar(size: int) -> tuple[Tensor, ...]:
    """x and y of a map over [-1, 1], and radius and angle."""
    x, y = (2 * coords.grid((size, size)) / (size - 1) - 1).unbind(-1)
    return x.contiguous(), y.contiguous(), (x * x + y * y).sqrt(), torch.atan2(y, x)


def outline(kind: str, size: int, reach: float, generator: torch.Generator) -> Float[Tensor, "N N"]:
    """A random outline within a circle: "blob", "polygon", "star" or "ring", or "square", as `Sheet.outline`."""

    def draw(*shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        return low + (high - low) * torch.rand(shape, generator=generator)

    x, y, radius, angle = _polar(size)
    turn = 2 * torch.pi * draw(1)
    if kind == "square":
        edges = torch.ones_like(x)
    elif kind == "polygon":
        n = int(draw(1, low=3, high=7))
        corner = turn + (torch.arange(n) + draw(n, low=-0.25, high=0.25)) * (2 * torch.pi / n)
        far = draw(n, low=0.45, high=0.75)
        edges = (far[:, None, None] - corner.cos()[:, None, None] * x - corner.sin()[:, None, None] * y).amin(0)
        edges = torch.minimum(edges, 0.96 - radius)
    else:
        wobble = torch.zeros_like(radius)
        for k in range(1, 6):
            high = draw(1, low=-0.34, high=0.34) / k
            wobble += (k * angle).add_(2 * torch.pi * draw(1)).cos_().mul_(high)
        if kind == "star":
            wobble = wobble + draw(1, low=0.15, high=0.3) * (int(draw(1, low=3, high=8)) * (angle + turn)).cos()
        edges = (0.62 + wobble).clamp(0.2, 0.95) - radius
        if kind == "ring":
            edges = torch.minimum(edges, radius - draw(1, low=0.2, high=0.4))
    # Beyond the map its border is repeated, which must therefore lie outside.
    return reach * torch.minimum(edges, 0.98 - torch.maximum(x.abs(), y.abs()))
