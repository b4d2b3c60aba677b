"""How things move: smooth functions of time, and the maps from the plane of an actor to the frame.

A point u of an actor's plane, in pixels about its centre, is seen at time t at

    x = H_t(v),  where  u = v + d_t(v)

with H_t a homography (the actor's own pose, then the camera's pan, roll, zoom and shake, weaker
for what is far) and d_t a few slow waves. From frame to plane this is closed form, which is all
that rendering needs; from plane to frame `Planes.to_frame` solves it by iteration.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

RESOLUTION = 1e-7
POSE = ("x", "y", "log scale", "turn", "log aspect", "shear", "perspective x", "perspective y")
CAMERA = ("pan x", "pan y", "log zoom", "roll", "shake x", "shake y")


@dataclass(frozen=True)
class Swing:
    """Numbers that move: a mean, and two sinusoids in time."""

    mean: Float[Tensor, "*shape"]
    wave: Float[Tensor, "*shape 2"]  # amplitudes
    rate: Float[Tensor, "*shape 2"]  # radians a frame
    phase: Float[Tensor, "*shape 2"]

    def at(self, times: Float[Tensor, "T"]) -> Float[Tensor, "T *shape"]:
        """The numbers at some times, in frames; they need not be whole."""
        times = times.reshape(-1, *[1] * self.wave.ndim)
        return self.mean + (self.wave * (self.rate * times + self.phase).sin()).sum(-1)


@dataclass(frozen=True)
class Bend:
    """The waves that bend the planes of A actors, K each."""

    direction: Float[Tensor, "A K 2"]  # pixels of the plane
    frequency: Float[Tensor, "A K 2"]  # radians a pixel
    phase: Float[Tensor, "A K 2"]  # in space, in time
    rate: Float[Tensor, "A K"]  # radians a frame


@dataclass(frozen=True)
class Planes:
    """The planes of A actors at T times.

    Points are x and y apart, (T, A, P): P on the plane of each actor, or on those of the actors that
    `select` leaves.
    """

    forward: Float[Tensor, "T A 3 3"]
    backward: Float[Tensor, "T A 3 3"]
    strength: Float[Tensor, "T A K"]  # of the waves, in [-1, 1]
    bends: Bend

    def select(self, which: Int[Tensor, "P"]) -> "Planes":
        """The planes of some actors, in their order, an actor as often as it is named."""
        bends = Bend(*(getattr(self.bends, name)[which] for name in ("direction", "frequency", "phase", "rate")))
        return Planes(self.forward[:, which], self.backward[:, which], self.strength[:, which], bends)

    @cached_property
    def waves(self) -> list[tuple[Tensor, ...]]:
        """Strength, direction, frequency and phase of each wave, to be broadcast over points."""
        bends, parts = self.bends, []
        for k in range(bends.rate.shape[1]):
            numbers = (*bends.direction[:, k].unbind(-1), *bends.frequency[:, k].unbind(-1), bends.phase[:, k, 0])
            parts.append((self.strength[:, :, k, None], *(v[:, None] for v in numbers)))
        return parts

    def bend(self, x: Tensor, y: Tensor, light: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor | float]:
        """d_t at points of the planes, and how light from a direction (T, 3) falls on the slopes of the waves."""
        dx, dy, shade = torch.zeros_like(x), torch.zeros_like(y), 0.0
        for strength, to_x, to_y, along_x, along_y, phase in self.waves:
            angle = torch.addcmul(torch.addcmul(phase, along_x, x), along_y, y)
            if light is not None:
                slope = along_x * light[:, None, :1] + along_y * light[:, None, 1:2]
                shade = shade + (to_x * to_x + to_y * to_y).sqrt() * slope * strength * angle.cos()
            wave = angle.sin_().mul_(strength)
            dx.addcmul_(to_x, wave), dy.addcmul_(to_y, wave)
        return dx, dy, shade

    def from_frame(self, x: Tensor, y: Tensor, light: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor | float]:
        """Points of the planes seen at pixel positions, and the shading of the waves there.

        All pixels of a box, row by row, are seen at x (T, 1, 1, w) and y (T, 1, h, 1).
        """
        v, w = (part.flatten(2) for part in project(self.backward, x, y))
        if not self.bent:
            return v, w, 0.0
        dx, dy, shade = self.bend(v, w, light)
        return v + dx, w + dy, shade

    def to_frame(self, x: Float[Tensor, "T A P"], y: Float[Tensor, "T A P"]) -> tuple[Tensor, Tensor]:
        """Where points of the planes are seen, in pixels."""
        v, w = x, y
        for _ in range(self.iterations):
            dx, dy, _ = self.bend(v, w)
            v, w = x - dx, y - dy
        return project(self.forward, v, w)

    @cached_property
    def iterations(self) -> int:
        """Steps until what is left of them is below float32's resolution: d_t is a contraction, 3 * 0.12 at most."""
        contraction = float((self.bends.direction.norm(dim=-1) * self.bends.frequency.norm(dim=-1)).sum(-1).max())
        return math.ceil(math.log(RESOLUTION) / math.log(min(max(contraction, 1e-7), 0.5)))

    @cached_property
    def bent(self) -> bool:
        """Whether any of the planes bends."""
        return bool(self.bends.direction.any())

    def double(self) -> "Planes":
        """The same in double precision."""
        return changed(self, Tensor.double)

    def scale(self) -> Float[Tensor, "T A"]:
        """Frame pixels a pixel of the plane, at its centre."""
        h = self.forward
        return (h[..., 0, 0] * h[..., 1, 1] - h[..., 0, 1] * h[..., 1, 0]).abs().sqrt()

    def hull(self, x: Float[Tensor, "T n"], y: Float[Tensor, "T n"]) -> Float[Tensor, "T n 2"]:
        """Corners of the first actor's plane in the frame, without its bending and never behind the viewer."""
        X, Y, Z = (self.forward[:, 0] @ torch.stack([x, y, torch.ones_like(x)], dim=1)).unbind(1)
        return torch.stack([X, Y], dim=-1) / Z.clamp(min=0.05)[..., None]

    def bending(self) -> float:
        """A bound on how far the first actor's waves carry any point, pixels of the plane."""
        return float(self.bends.direction[0].norm(dim=-1).sum())


@dataclass(frozen=True)
class Motion:
    """The planes of A actors and the camera, in time."""

    pose: Swing  # (A, 8), POSE
    camera: Swing  # (6,), CAMERA
    bends: Bend
    depth: Float[Tensor, "A"]  # 1 moves with the camera in full, 2 half as much
    centre: Float[Tensor, "2"]  # of the frame: what roll and zoom leave in place

    def at(self, times: Float[Tensor, "T"]) -> Planes:
        """The planes of all actors at some times."""
        forward = self.homographies(times)
        # A body or a sheet never degenerates, so that the inverse is safe.
        backward = torch.linalg.inv(forward.double()).to(forward.dtype)
        strength = (self.bends.rate * times[:, None, None] + self.bends.phase[..., 1]).sin()
        return Planes(forward, backward, strength, self.bends)

    def homographies(self, times: Float[Tensor, "T"]) -> Float[Tensor, "T A 3 3"]:
        """From each plane to the frame."""
        x, y, scale, turn, aspect, shear, px, py = self.pose.at(times).unbind(-1)
        cos, sin, sx, sy = turn.cos(), turn.sin(), (scale + aspect).exp(), (scale - aspect).exp()
        rows = [cos * sx, (shear * cos - sin) * sy, x, sin * sx, (shear * sin + cos) * sy, y, px, py]
        own = rearrange(torch.stack([*rows, torch.ones_like(x)], dim=-1), "T A (i j) -> T A i j", i=3)

        pan_x, pan_y, zoom, roll, shake_x, shake_y = (c[:, None] for c in self.camera.at(times).unbind(-1))
        a, b = zoom.exp() * roll.cos(), zoom.exp() * roll.sin()
        cx, cy = self.centre
        tx = cx - a * cx + b * cy + pan_x / self.depth + shake_x
        ty = cy - b * cx - a * cy + pan_y / self.depth + shake_y
        a, b = a.expand_as(tx), b.expand_as(tx)
        rows = [a, -b, tx, b, a, ty, 0 * a, 0 * a, 0 * a + 1]
        return rearrange(torch.stack(rows, dim=-1), "T A (i j) -> T A i j", i=3) @ own


def homogeneous(h: Float[Tensor, "T A 3 3"], x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Points (T, A, P), or x and y of grids, through homographies, before the division."""
    rows = (row.unbind(2) for row in h[(..., *[None] * (x.ndim - 2))].unbind(2))
    return tuple(torch.addcmul(torch.addcmul(c, a, x), b, y) for a, b, c in rows)


def project(h: Float[Tensor, "T A 3 3"], x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The same after it."""
    X, Y, Z = homogeneous(h, x, y)
    return X.div_(Z), Y.div_(Z)


def rotation(vector: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n 3 3"]:
    """The rotations around axes by angles, the vectors' lengths."""
    angle = vector.norm(dim=-1, keepdim=True).clamp(min=1e-9)
    x, y, z = (vector / angle).unbind(-1)
    o = torch.zeros_like(x)
    cross = rearrange(torch.stack([o, -z, y, z, o, -x, -y, x, o], dim=-1), "... (i j) -> ... i j", i=3)
    sin, cos = angle.sin()[..., None], angle.cos()[..., None]
    return torch.eye(3, dtype=vector.dtype, device=vector.device) + sin * cross + (1 - cos) * cross @ cross


def changed(thing, change: Callable[[Tensor], Tensor]):
    """A dataclass, or a tuple, in which all tensors, at any depth, are changed."""
    if isinstance(thing, Tensor):
        return change(thing)
    if isinstance(thing, tuple):
        return tuple(changed(part, change) for part in thing)
    if hasattr(thing, "__dataclass_fields__"):
        return replace(thing, **{name: changed(getattr(thing, name), change) for name in thing.__dataclass_fields__})
    return thing
