"""Solid actors: ellipsoids, boxes and tubes, hung on joints that move, seen by casting rays.

A body stands in the plane of its actor: a point (X, Y, Z) of it, Z away from the viewer, is seen
where the plane meets the line to it from the eye at (0, 0, -D). Its parts hang on one another,
each with its own frame, the long axis z; the first of a tree hangs on the root, which turns.
A material point is a part and a point in units of that part's half sizes.
"""

from dataclasses import dataclass

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
        turn = rotation(self.hinge.at(times))
        half = self.half * self.breath.at(times).exp()[..., None]
        axes, joints, centres = [], [], []
        for n, parent in enumerate(self.parent):
            if parent < 0:
                axes.append(turn[:, n] @ self.rest[n])
                joints.append(self.anchor[n].expand(len(times), 3))
                centres.append(joints[n])
            else:
                axes.append(axes[parent] @ self.rest[n] @ turn[:, n])
                reach = (axes[parent] * (self.anchor[n] * half[:, parent])[:, None]).sum(-1)
                joints.append(centres[parent] + reach)
                centres.append(joints[n] + axes[n][..., 2] * half[:, n, 2:])
        eye = (self.eye / scale).clamp(min=1.5 * self.extent())
        axes, joint = torch.stack(axes, 1), torch.stack(joints, 1)
        sides = (axes * half[..., None, :]).abs()
        round_ = (QUADRIC[list(self.kind)] > 0).to(half.device)[:, None]
        # Along round axes a part reaches as far as the root of the sum of their squares.
        reach = (sides * ~round_).sum(-1) + (sides * round_).square().sum(-1).sqrt()
        return Pose(torch.stack(centres, 1), axes, half, reach, joint, eye)

    def extent(self) -> float:
        """A bound on how far any part reaches from the origin, in pixels of the plane."""
        reach = []
        for n, parent in enumerate(self.parent):
            before = reach[parent] if parent >= 0 else float(self.anchor[n].norm())
            reach.append(before + 2 * float(self.half[n].max()))
        return max(reach)


@dataclass(frozen=True)
class Hits:
    """What rays meet: K of T x P of them, those that meet anything."""

    ray: Int[Tensor, "K"]  # number in T x P
    part: Int[Tensor, "K"]
    point: Float[Tensor, "K 3"]  # in half sizes of the part
    normal: Float[Tensor, "K 3"]  # of the surface, outwards, in the frame of the body
    face: Int[Tensor, "K"]  # 0 to 2, the axis nearest to the normal in the frame of the part
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
        enter, leave = _quadric(o, d, rows[12:15])
        which = torch.zeros_like(flat)
        if set(body.kind) != {0}:
            inverse_d = 1 / torch.where(d.abs() < 1e-9, 1e-9, d)
            cut, wide, flat_side = -o * inverse_d, inverse_d.abs(), rows[15:] > 0
            leave = torch.minimum(leave, torch.where(flat_side, cut + wide, FAR).amin(0))
            enters = torch.where(flat_side, cut - wide, -FAR)
            enter, which = torch.cat([enter[None], enters]).max(dim=0)
        depth = torch.where((enter < leave) & (enter + start > 0.05), enter + start, FAR)
        nearest = torch.full((T * P,), FAR, dtype=u.dtype, device=u.device)
        nearest = nearest.scatter_reduce(0, flat, depth, "amin")
        won = ((depth < FAR) & (depth == nearest[flat])).nonzero()[:, 0]
        ray, part, which, t = flat[won], part[won], which[won], t[won]
        point = (o[:, won] + enter[won] * d[:, won]).T
        local = rows[12:15, won].T * point
        if set(body.kind) != {0}:
            cut = torch.nn.functional.one_hot((which - 1).clamp(min=0), 3) * point.sign()
            local = torch.where((which > 0)[:, None], cut, local)
        local = local / self.half[t, part]
        normal = (self.axes[t, part] * local[:, None]).sum(-1)
        normal = normal / normal.norm(dim=-1, keepdim=True).clamp(min=1e-9)
        return Hits(ray, part, point, normal, local.abs().argmax(-1), nearest.reshape(T, P))

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
    t = hits.ray // hits.depth.shape[1]
    place = hits.point * pose.half[t, hits.part]
    u = torch.where(hits.face == 0, place[:, 1], place[:, 0])
    v = torch.where(hits.face == 2, place[:, 1], place[:, 2])
    # Each side shows another piece of the picture.
    side = hits.face * 2 + (hits.point.gather(1, hits.face[:, None])[:, 0] > 0)
    u, v = u + body.shift[hits.part, 0] + 83 * side, v + body.shift[hits.part, 1] - 61 * side
    colour = body.paint.sample_each(u, v, scale[t])[:3] * body.tint[hits.part].T
    lit = light / light.norm(dim=-1, keepdim=True)
    towards = (hits.normal * lit[t]).sum(-1)
    view = torch.tensor([0.0, 0.0, -1.0], dtype=light.dtype, device=light.device)
    halfway = lit + view
    spot = (hits.normal * (halfway / halfway.norm(dim=-1, keepdim=True))[t]).sum(-1).clamp(min=0)
    # Wrapped, so that the dark side keeps some of its texture.
    diffuse = body.ambient + (1.25 - body.ambient) * ((towards + 0.3) / 1.3).clamp(min=0)
    return colour * diffuse + body.shine * spot**body.hardness


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
    o: Float[Tensor, "3 K"], d: Float[Tensor, "3 K"], round_axes: Float[Tensor, "3 K"]
) -> tuple[Tensor, Tensor]:
    """Where rays enter and leave the unit sphere or cylinder; boxes, with no round axis, are everywhere."""
    weighted = round_axes * d
    a, b, c = (weighted * d).sum(0), (weighted * o).sum(0), (round_axes * o * o).sum(0) - 1
    root = b * b - a * c
    none = a == 0
    width, middle = root.clamp(min=0).sqrt() / a, -b / a
    missed = root < 0
    enter = torch.where(none, -FAR, torch.where(missed, FAR, middle - width))
    leave = torch.where(none, FAR, torch.where(missed, -FAR, middle + width))
    return enter, leave
