"""Solid actors: ellipsoids, boxes and tubes, hung on joints that move, seen by casting rays.

A body stands in the plane of its actor: a point (X, Y, Z) of it, Z away from the viewer, is seen
where the plane meets the line to it from the eye at (0, 0, -D). Its parts hang on one another,
each with its own frame, the long axis z; the first of a tree hangs on the root, which turns.
A material point is a part and a point in units of that part's half sizes.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from .motion import Planes, Swing, rotation
from .sheets import Paint

KINDS = ("ellipsoid", "box", "tube")
QUADRIC = torch.tensor([[1.0, 1, 1], [0, 0, 0], [1, 1, 0]])  # which axes are round
SLABS = torch.tensor([[0.0, 0, 0], [1, 1, 1], [0, 0, 1]])  # which axes are cut off flat
FAR = 1e9


@dataclass(frozen=True)
class Body:
    """A tree, or several, of N parts."""

    paint: Paint
    kind: tuple[int, ...]  # numbers of KINDS
    parent: tuple[int, ...]  # -1 hangs on the root of its own tree
    member: Int[Tensor, "N"]  # number of the tree each part belongs to
    anchor: Float[Tensor, "N 3"]  # of the joint, in the half sizes of the parent; of a first part, in pixels
    rest: Float[Tensor, "N 3 3"]  # turns the frame of the parent into its own
    half: Float[Tensor, "N 3"]  # sizes, pixels of the plane
    hinge: Swing  # (N, 3), rotation vectors of the joints; of a first part, of the whole tree
    breath: Swing  # (N,), log of what the half sizes are multiplied with
    tint: Float[Tensor, "N 3"]
    shift: Float[Tensor, "N 2"]  # of the picture, pixels
    joint_names: tuple[str, ...]  # one a part, of the joint that it hangs on
    shine: float  # of the specular spot
    hardness: float  # how small the spot is
    ambient: float  # light that comes from everywhere
    eye: float  # D at a scale of 1, pixels of the plane

    def at(self, times: Float[Tensor, "T"], scale: Float[Tensor, "T"]) -> "Pose":
        """Where its parts are at some times, at which its plane has a scale."""
        T, N = len(times), len(self.kind)
        half = self.half * self.breath.at(times).exp()[..., None]
        axes = self.rest @ rotation(self.hinge.at(times))
        joint = self.anchor.expand(T, N, 3).clone()
        centre = joint.clone()
        for own, above in self.generations:
            upper = axes[:, above]
            axes[:, own] = upper @ axes[:, own]
            joint[:, own] = centre[:, above] + (upper * (self.anchor[own] * half[:, above])[:, :, None]).sum(-1)
            centre[:, own] = joint[:, own] + axes[:, own][..., 2] * half[:, own, 2:]
        eye = (self.eye / scale).clamp(min=1.5 * self.extent())
        sides = (axes * half[..., None, :]).abs()
        round_ = (QUADRIC[list(self.kind)] > 0).to(half.device)[:, None]
        # Along round axes a part reaches as far as the root of the sum of their squares.
        reach = (sides * ~round_).sum(-1) + (sides * round_).square().sum(-1).sqrt()
        return Pose(centre, axes, half, reach, joint, eye)

    @cached_property
    def generations(self) -> list[tuple[Tensor, Tensor]]:
        """The parts that hang on others, and those others, in an order in which each follows its own."""
        depth = []
        for parent in self.parent:
            depth.append(depth[parent] + 1 if parent >= 0 else 0)
        levels = [[n for n, d in enumerate(depth) if d == level] for level in range(1, max(depth) + 1)]
        device = self.half.device
        return [
            (torch.tensor(own, device=device), torch.tensor([self.parent[n] for n in own], device=device))
            for own in levels
        ]

    def extent(self) -> float:
        """A bound on how far any part reaches from the origin, in pixels of the plane."""
        reach, own = [], (2 * self.half.amax(1)).tolist()
        start = self.anchor.norm(dim=1).tolist()
        for n, parent in enumerate(self.parent):
            reach.append(own[n] + (reach[parent] if parent >= 0 else start[n]))
        return max(reach)


@dataclass(frozen=True)
class Hits:
    """What rays meet: K of T x P of them, those that meet anything."""

    ray: Int[Tensor, "K"]  # number in T x P
    part: Int[Tensor, "K"]
    point: Float[Tensor, "3 K"]  # in half sizes of the part
    face: Int[Tensor, "K"]  # 0 on a round side, else 1 + the axis that is cut off flat
    depth: Float[Tensor, "T P"]  # distance from the eye in units of D, FAR where nothing is met

    def covered(self) -> Bool[Tensor, "T P"]:
        """Whether each ray meets the body."""
        return self.depth < FAR


@dataclass(frozen=True)
class Pose:
    """Where the parts of a body are at T times, in its own frame."""

    centre: Float[Tensor, "T N 3"]
    axes: Float[Tensor, "T N 3 3"]  # columns
    half: Float[Tensor, "T N 3"]
    reach: Float[Tensor, "T N 3"]  # of each part from its centre along the axes of the body
    joint: Float[Tensor, "T N 3"]
    eye: Float[Tensor, "T"]  # D

    def bounds(self) -> tuple[Float[Tensor, "T N 2"], Float[Tensor, "T N 2"]]:
        """Corners of boxes of the plane that hold what is seen of each part."""
        ends = torch.stack([-self.reach[..., 2], self.reach[..., 2]], -1)
        deep = 1 + (self.centre[..., 2:] + ends) / self.eye[:, None, None]
        sides = torch.stack([self.centre - self.reach, self.centre + self.reach], dim=-1)[..., :2, :]
        seen = (sides[..., None] / deep.clamp(min=0.05)[..., None, None, :]).flatten(-2)  # both sides, near and far
        return seen.amin(-1), seen.amax(-1)

    def boxes(self, planes: Planes) -> tuple[Float[Tensor, "T N 2"], Float[Tensor, "T N 2"]]:
        """The corners of boxes of the frame that hold each part, on the first of the planes."""
        low, high = self.bounds()
        (x0, y0), (x1, y1) = ((v + s).unbind(-1) for v, s in ((low, -planes.bending()), (high, planes.bending())))
        x, y = torch.stack([x0, x1, x0, x1], dim=-1), torch.stack([y0, y0, y1, y1], dim=-1)
        hull = planes.hull(x.flatten(1), y.flatten(1)).unflatten(1, (-1, 4))
        return hull.amin(2), hull.amax(2)

    def near(self, u: Float[Tensor, "T P"], v: Float[Tensor, "T P"]) -> tuple[Tensor, Tensor, Tensor]:
        """Which rays may meet which parts: time, part and ray."""
        low, high = self.bounds()
        within = (u[:, None] >= low[..., :1]) & (u[:, None] <= high[..., :1])
        return (within & (v[:, None] >= low[..., 1:]) & (v[:, None] <= high[..., 1:])).nonzero().unbind(-1)

    def cast(
        self,
        body: Body,
        u: Float[Tensor, "T P"],
        v: Float[Tensor, "T P"],
        near: tuple[Tensor, Tensor, Tensor] | None = None,
    ) -> Hits:
        """The first surfaces on the rays from the eye through points of the plane; `near` if it is known."""
        T, P = u.shape
        N = len(body.kind)
        t, part, p = near or self.near(u, v)
        # Everything in units of the part's half sizes, in which all parts are of unit size, and from
        # where the ray is as deep as the part's middle: no large numbers cancel.
        inverse = self.axes.mT / self.half[..., None]  # (T, N, 3, 3)
        middle = torch.cat([self.centre[..., :2], 1 + self.centre[..., 2:] / self.eye[:, None, None]], -1)
        shape = torch.cat([QUADRIC, SLABS], dim=1)[list(body.kind)].to(middle).expand(T, N, 6)
        table = [inverse[..., 0], inverse[..., 1], inverse[..., 2] * self.eye[:, None, None], middle, shape]
        rows = torch.cat(table, -1).flatten(0, 1).T.contiguous().index_select(1, t * N + part).to(u.dtype)
        flat = t * P + p
        a, b = u.reshape(-1)[flat], v.reshape(-1)[flat]
        start = rows[11]
        o = torch.addcmul(rows[:3] * (start * a - rows[9]), rows[3:6], start * b - rows[10])
        d = torch.addcmul(torch.addcmul(rows[6:9], rows[:3], a), rows[3:6], b)
        round_, flat_side = rows[12:15], rows[15:] > 0
        enter, leave = _quadric(o, d, round_, some_flat := set(body.kind) != {0})
        face = torch.zeros_like(flat)
        if some_flat:
            inverse_d = 1 / torch.where(d.abs() < 1e-9, 1e-9, d)
            cut, wide = -o * inverse_d, inverse_d.abs()
            leave = torch.minimum(leave, torch.where(flat_side, cut + wide, FAR).amin(0))
            enters = torch.where(flat_side, cut - wide, -FAR)
            enter, face = torch.cat([enter[None], enters]).max(dim=0)
        depth = torch.where((enter < leave) & (enter + start > 0.05), enter + start, FAR)
        nearest = torch.full((T * P,), FAR, dtype=u.dtype, device=u.device)
        nearest = nearest.scatter_reduce(0, flat, depth, "amin")
        won = ((depth < FAR) & (depth == nearest[flat])).nonzero()[:, 0]
        point = torch.addcmul(o.index_select(1, won), enter[won], d.index_select(1, won))
        return Hits(flat[won], part[won], point, face[won], nearest.reshape(T, P))

    def place(self, part: Int[Tensor, "P"], point: Float[Tensor, "P 3"]) -> tuple[Tensor, Tensor, Tensor]:
        """Where material points are in the plane, x and y, and their depth as in `Hits`, each (T, P)."""
        inside = point * self.half[:, part]
        return self.see(self.centre[:, part] + (self.axes[:, part] * inside[..., None, :]).sum(-1))

    def see(self, xyz: Float[Tensor, "T P 3"]) -> tuple[Tensor, Tensor, Tensor]:
        """The same for points in the frame of the body."""
        depth = 1 + xyz[..., 2] / self.eye[:, None]
        return xyz[..., 0] / depth, xyz[..., 1] / depth, depth


def paint(
    body: Body, pose: Pose, hits: Hits, scale: Float[Tensor, "T"], light: Float[Tensor, "T 3"]
) -> Float[Tensor, "3 K"]:
    """The colours of what rays meet, lit from a direction that does not turn with the body."""
    T, N = pose.half.shape[:2]
    t = torch.div(hits.ray, hits.depth.shape[1], rounding_mode="floor")
    looks = torch.cat([QUADRIC[list(body.kind)].to(body.tint), body.tint, body.shift], dim=1).expand(T, N, 8)
    table = torch.cat([pose.axes.flatten(-2), pose.half, looks], dim=-1).flatten(0, 1).T.contiguous()
    rows = table.index_select(1, t * N + hits.part)
    axes, half, round_, tint, shift = rows.split([9, 3, 3, 3, 2])
    # The normal in the frame of the part, not of unit length, and the axis that it is nearest to.
    normal = round_ * hits.point / half
    if set(body.kind) != {0}:
        for i in range(3):
            normal[i] = torch.where(hits.face > 0, (hits.face == i + 1) * hits.point[i].sign(), normal[i])
    a, b, c = normal.abs()
    along_x, along_z = (a >= b) & (a >= c), (c > a) & (c > b)
    x, y, z = hits.point * half
    u, v = torch.where(along_x, y, x), torch.where(along_z, y, z)
    # Each side shows another piece of the picture.
    side = (
        torch.where(along_x, normal[0], torch.where(along_z, normal[2], normal[1])).sign()
        + 2.0 * along_x
        - 3.0 * along_z
    )
    colour = body.paint.sample_each(u + shift[0] + 83 * side, v + shift[1] - 61 * side, scale[t])[:3] * tint

    axes = axes.unflatten(0, (3, 3))
    normal = sum(axes[:, i] * normal[i] for i in range(3))
    normal = normal / (normal * normal).sum(0).sqrt().clamp(min=1e-9)
    lit = light / light.norm(dim=-1, keepdim=True)
    halfway = lit - lit.new_tensor([0.0, 0.0, 1.0])  # between the light and the viewer
    halfway = halfway / halfway.norm(dim=-1, keepdim=True)
    towards = (normal * lit.T.index_select(1, t)).sum(0)
    # Wrapped, so that the dark side keeps some of its texture.
    colour = colour * (body.ambient + (1.25 - body.ambient) * ((towards + 0.3) / 1.3).clamp(min=0))
    if body.shine:
        colour = colour + body.shine * (normal * halfway.T.index_select(1, t)).sum(0).clamp(min=0) ** body.hardness
    return colour


def grid_pairs(low: Int[Tensor, "T N 2"], high: Int[Tensor, "T N 2"], width: int) -> tuple[Tensor, Tensor, Tensor]:
    """All pixels of the boxes of all parts, of a grid of a width: time, part and pixel, as `Pose.near` has them."""
    N = low.shape[1]
    w, h = (high - low).clamp(min=0).flatten(0, 1).unbind(-1)
    count = w * h
    which = torch.repeat_interleave(count)
    local = torch.arange(len(which), device=low.device) - (count.cumsum(0) - count)[which]
    row = torch.div(local, w[which], rounding_mode="floor")
    first = low.flatten(0, 1)
    pixel = (first[:, 1] * width + first[:, 0])[which] + local + row * (width - w[which])
    return torch.div(which, N, rounding_mode="floor"), which % N, pixel


def _quadric(
    o: Float[Tensor, "3 K"], d: Float[Tensor, "3 K"], round_axes: Float[Tensor, "3 K"], some_flat: bool
) -> tuple[Tensor, Tensor]:
    """Where rays enter and leave the unit sphere or cylinder; boxes, with no round axis, are everywhere."""
    weighted, scaled = (round_axes * d, round_axes * o) if some_flat else (d, o)
    a, b, c = (weighted * d).sum(0), (weighted * o).sum(0), (scaled * o).sum(0) - 1
    root = torch.addcmul(b * b, a, c, value=-1)
    width, middle = root.clamp(min=0).sqrt() / a, -b / a
    enter, leave = torch.where(root < 0, FAR, middle - width), middle + width  # a ray that misses enters never
    if some_flat:
        everywhere = a == 0
        enter, leave = torch.where(everywhere, -FAR, enter), torch.where(everywhere, FAR, leave)
    return enter, leave
