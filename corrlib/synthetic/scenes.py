"""A scene, what is seen of it at some times, and where each of its points is.

Actors are drawn one over the other, farther ones first; actor 0 is the background. A `Shot` is a
scene at T times: it renders them, and it answers exactly, at any sub-pixel position, which
material point is seen there, where a material point is, and whether something hides it.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from .. import coords
from . import boxes, exposure, solids
from .boxes import Box
from .exposure import Lens
from .motion import Motion, Planes, changed
from .sheets import Sheet
from .solids import FAR, Body, Hits, Pose

SURFACE = 2e-3  # of the distance to the eye over the size of a body: nearer things are the same surface

TOGETHER = 8  # times


class Points(NamedTuple):
    """Material points: of an actor; of a sheet at (u, v, 0), of a body at a point of a part."""

    actor: Int[Tensor, "P"]
    part: Int[Tensor, "P"]
    point: Float[Tensor, "P 3"]


class Frames(NamedTuple):
    """What is seen at T times."""

    video: Float[Tensor, "T 3 H W"]  # of 8 bits, in [0, 1]
    masks: Int[Tensor, "T H W"]  # 0 background, then each thing its own number: every body of a herd
    depth: Float[Tensor, "T H W"]  # in units of the camera's distance to what moves with it in full


@dataclass(frozen=True)
class Scene:
    """All that is needed to render a procedural clip."""

    size_hw: tuple[int, int]
    motion: Motion
    actors: tuple[Sheet | Body, ...]
    lens: Lens
    seed: int

    def at(self, times: list[float]) -> "Shot":
        """The scene at some times, in frames; they need not be whole."""
        return Shot(self, torch.tensor(times, dtype=torch.float32, device=self.motion.depth.device))

    def shots(self, times: list[float]) -> Iterator["Shot"]:
        """The same a few times at once, so that long clips take no more memory than short ones."""
        return (self.at(times[i : i + TOGETHER]) for i in range(0, len(times), TOGETHER))

    def render(self, times: list[float]) -> Frames:
        """What is seen at some times."""
        return Frames(*(torch.cat(values) for values in zip(*(shot.render() for shot in self.shots(times)))))

    def follow(
        self, xy: Float[Tensor, "P 2"], time: float, times: list[float]
    ) -> tuple[Float[Tensor, "T P 2"], Bool[Tensor, "T P"]]:
        """The exact tracks, with visibility, of whatever is seen at pixel positions at one time."""
        tracks, visible, _ = self.at(times).track(self.at([time]).seen(xy[None]))
        return tracks, visible

    def still(self) -> "Scene":
        """The same scene under a light that does not change, through a perfect camera."""
        lens = self.lens
        even = replace(lens.light, mean=0 * lens.light.mean, wave=0 * lens.light.wave)
        plain = replace(
            lens, light=even, ripple=0.0, cast=0 * lens.cast + 1, gamma=1.0, saturation=1.0, shadow=0.0,
            shutter=0.0, aperture=0.0, blur=0.0, noise=0.0, quality=0,
        )  # fmt: skip
        actors = (
            replace(a, relief=0.0) if isinstance(a, Sheet) else replace(a, shine=0.0, ambient=1.25) for a in self.actors
        )
        return replace(self, lens=plain, actors=tuple(actors))


@dataclass(frozen=True)
class Shot:
    """A scene at T times."""

    scene: Scene
    times: Float[Tensor, "T"]

    @cached_property
    def planes(self) -> Planes:
        """Of the actors."""
        return self.scene.motion.at(self.times)

    @cached_property
    def alone(self) -> list[Planes]:
        """Of each actor."""
        return [self.planes.select(torch.tensor([a], device=self.times.device)) for a in range(len(self.scene.actors))]

    @cached_property
    def poses(self) -> list[Pose | None]:
        """Of the actors that are bodies."""
        pairs = zip(self.scene.actors, self.planes.scale().unbind(1))
        return [it.at(self.times, scale) if isinstance(it, Body) else None for it, scale in pairs]

    @cached_property
    def exact(self) -> tuple[Planes, list[Pose | None]]:
        """Planes and poses in double precision, for truth."""
        return self.planes.double(), [pose and changed(pose, Tensor.double) for pose in self.poses]

    @cached_property
    def light(self) -> Float[Tensor, "T 3"]:
        """Towards the light."""
        return self.scene.lens.direction.at(self.times)

    @cached_property
    def way(self) -> Float[Tensor, "T A 2"]:
        """How far the middle of each actor goes while the shutter is open."""
        half = self.scene.lens.shutter / 2
        ends = [self.scene.motion.homographies(self.times + s)[..., :2, 2] for s in (-half, half)]
        return ends[1] - ends[0]

    def seen(self, xy: Float[Tensor, "T P 2"]) -> Points:
        """The material points seen at pixel positions, P at each time; T * P of them."""
        T, P = xy.shape[:2]
        x, y = xy.double().unbind(-1)
        planes, poses = self.exact
        us, vs, _ = planes.from_frame(x[:, None], y[:, None])
        actor = torch.zeros(T, P, dtype=torch.long, device=xy.device)
        part, points = torch.zeros_like(actor), torch.zeros(3, T, P, dtype=x.dtype, device=xy.device)
        for a, (it, pose) in enumerate(zip(self.scene.actors, poses)):
            u, v = us[:, a], vs[:, a]
            if pose is None:
                here = it.opacity(u, v) > 0.5
                points = torch.where(here, torch.stack([u, v, torch.zeros_like(u)]), points)
                part = torch.where(here, 0, part)
            else:
                hits = pose.cast(it, u, v)
                here = hits.covered()
                part.view(-1)[hits.ray] = hits.part
                points.view(3, -1)[:, hits.ray] = hits.point
            actor = torch.where(here, a, actor)
        return Points(actor.flatten(), part.flatten(), points.flatten(1).T)

    def locate(self, points: Points) -> tuple[Float[Tensor, "T P 2"], Float[Tensor, "T P"]]:
        """Where material points are, in pixels, and the distance of those of bodies as in `Hits`."""
        T, (planes, poses) = len(self.times), self.exact
        u, v, _ = points.point.T[:, None].repeat(1, T, 1)
        depth = torch.ones_like(u)
        for a, pose in enumerate(poses):
            if pose is not None:
                own = (points.actor == a).nonzero()[:, 0]
                u[:, own], v[:, own], depth[:, own] = pose.place(points.part[own], points.point[own])
        found = planes.select(points.actor).to_frame(u[..., None], v[..., None])
        return torch.cat(found, dim=-1), depth

    def track(self, points: Points) -> tuple[Float[Tensor, "T P 2"], Bool[Tensor, "T P"], Float[Tensor, "T P"]]:
        """Where material points are, whether they are seen, and their depth as in `Frames`."""
        xy, depth = self.locate(points)
        far = self.scene.motion.depth[points.actor] * depth
        return xy.float(), self.visible(points, xy, depth), far.float()

    def visible(self, points: Points, xy: Float[Tensor, "T P 2"], depth: Float[Tensor, "T P"]) -> Bool[Tensor, "T P"]:
        """Whether material points, located before, are in the frame and nothing is in front of them."""
        free = coords.inside(xy, self.scene.size_hw)
        x, y = xy.unbind(-1)
        planes, poses = self.exact
        us, vs, _ = planes.from_frame(x[:, None], y[:, None])
        for a, (it, pose) in enumerate(zip(self.scene.actors, poses)):
            if a == 0:
                continue
            u, v = us[:, a], vs[:, a]
            if pose is None:
                covers = (it.opacity(u, v) > 0.5) & (points.actor < a)
            else:
                near = SURFACE * pose.half.amax((1, 2)) / pose.eye
                first = pose.cast(it, u, v).depth
                covers = (first < FAR) & (points.actor < a)
                covers |= (points.actor == a) & (first < depth - near[:, None])
            free &= ~covers
        return free

    def render(self, truth: bool = True) -> Frames:
        """What the camera stores; without the truth, masks and depth are left as those of the background."""
        H, W = self.scene.size_hw
        T, lens, device = len(self.times), self.scene.lens, self.times.device
        canvas = torch.zeros(T, 3, H, W, device=device)
        masks = torch.zeros(T, H, W, dtype=torch.long, device=device)
        depths = self.scene.motion.depth[0].expand(T, H, W).clone()
        number = 1
        for a, actor in enumerate(self.scene.actors):
            members = int(actor.member.max()) + 1 if isinstance(actor, Body) else 1
            depth = float(self.scene.motion.depth[a])
            sigma = lens.defocus(depth, self.times) if lens.aperture else torch.zeros(T)
            way = self.way[:, a] if lens.shutter else torch.zeros(T, 2)
            # What is hardly blurred is not blurred at all, at each time alone.
            sigma, way = sigma * (sigma > 0.4), way * (way.abs().amax(1, keepdim=True) > 1.2)
            spread = math.ceil(2.2 * float(sigma.max()) + float(way.abs().max()) / 2) + 2
            spread += 12 * (lens.shadow > 0)
            box = self._box(a, spread)
            if box is None:
                number += members * (a > 0)
                continue
            top, left, h, w = box.top, box.left, box.h, box.w
            rows, columns = torch.arange(h, device=device), torch.arange(w, device=device)
            y, x = (top[:, None] + rows).float()[:, None, :, None], (left[:, None] + columns).float()[:, None, None]
            colour, opacity, hits = self._paint(a, box, x, y)
            colour, opacity = (v.unflatten(-1, (h, w)) for v in (colour, opacity))
            if truth and a:
                here, numbers, far = opacity[:, 0] > 0.5, torch.full_like(masks[:, :1, :1], number), depth
                if hits is not None:
                    numbers = numbers.repeat(1, h, w)
                    numbers.view(-1)[hits.ray] += actor.member[hits.part]
                    far = depth * hits.depth.reshape(here.shape)
                boxes.write(masks, box, here, numbers)
                boxes.write(depths, box, here, far)
            if isinstance(actor, Body):
                colour, opacity = exposure.soften(colour, opacity)
            if sigma.any() or way.any():
                painted = torch.cat([colour.mul_(opacity), opacity], dim=1)
                painted = exposure.blur(painted, sigma) if sigma.any() else painted
                painted = exposure.smear(painted, way) if way.any() else painted
                opacity = painted[:, 3:]
                colour = painted[:, :3].div_(opacity.clamp(min=1e-4))
            dark = exposure.shade(opacity) * lens.shadow if lens.shadow and a else None
            for t, (within, own) in enumerate(boxes.windows(box, (H, W))):
                if dark is not None:
                    exposure.darken(canvas[t], dark[t], int(top[t]), int(left[t]), lens.fall)
                canvas[t][:, *within].lerp_(colour[t][:, *own], opacity[t][:, *own])
            number += members * (a > 0)
        return Frames(lens.expose(canvas, self.times), masks, depths)

    def _paint(
        self, a: int, box: Box, x: Float[Tensor, "T 1 1 w"], y: Float[Tensor, "T 1 h 1"]
    ) -> tuple[Tensor, Tensor, Hits | None]:
        """Colours (T, 3, h w) and opacity (T, 1, h w) of an actor; of a body, also what rays meet."""
        actor, planes, pose, scale = self.scene.actors[a], self.alone[a], self.poses[a], self.planes.scale()[:, a]
        u, v, slope = planes.from_frame(x, y, self.light if getattr(actor, "relief", 0) else None)
        u, v = u[:, 0], v[:, 0]
        if pose is None:
            colour = actor.paint.sample(u, v, scale)[:, :3]
            colour = colour.mul_((slope * actor.relief).add_(1)) if actor.relief and planes.bent else colour
            return colour, actor.opacity(u, v)[:, None], None
        first = torch.stack([box.left, box.top], dim=-1)[:, None]
        limit = torch.tensor([box.w, box.h], device=x.device)
        low, high = ((v.long() - first).clamp(min=0).minimum(limit) for v in (box.low.floor(), box.high.ceil() + 1))
        hits = pose.cast(actor, u, v, solids.grid_pairs(low, high, box.w))
        colour = torch.zeros(3, u.numel(), device=x.device)
        colour[:, hits.ray] = solids.paint(actor, pose, hits, scale, self.light)
        return rearrange(colour, "c (T P) -> T c P", T=len(x)), hits.covered()[:, None].to(x.dtype), hits

    def _box(self, a: int, spread: int) -> Box | None:
        """Where in the frame all that is seen of an actor is; None if it is outside at all times."""
        actor, size_hw = self.scene.actors[a], self.scene.size_hw
        if isinstance(actor, Sheet) and actor.outline is None:
            return boxes.whole(size_hw, self.times)
        return boxes.around(*(self.poses[a] or actor).boxes(self.alone[a]), spread, size_hw)
