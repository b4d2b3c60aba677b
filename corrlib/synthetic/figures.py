"""The bodies there are: rigid things and articulated figures, each a table of parts.

A part is a `Limb`: where it hangs, how it is turned at rest, its half sizes and how its joint moves,
all in units of the body's own size. The frame of a part has its long axis z away from the joint; at
rest it is turned about the z of its parent by `around`, after being tilted away from it by `tilt`
(about x, so that a tilt of -90 degrees turns z into the parent's y).
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from .motion import Swing
from .sheets import Paint
from .solids import KINDS, Body

Draw = Callable[[float, float], float]  # a number between two
SIDES = ((-1, "left"), (1, "right"))


class Limb(NamedTuple):
    """One part of a body at rest."""

    joint: str  # name of the joint it hangs on
    parent: int
    anchor: tuple[float, float, float]  # in half sizes of the parent
    around: float
    tilt: float
    half: tuple[float, float, float]
    swing: float = 0.0  # radians, about its x
    sway: float = 0.0  # radians, about its y
    phase: float = 0.0
    kind: str = "ellipsoid"


def quadruped(draw: Draw) -> list[Limb]:
    """A body on four legs with a neck, a head, ears and a tail."""
    length, thick = draw(0.55, 0.75), draw(0.22, 0.34)
    leg, thin = draw(0.22, 0.38), draw(0.045, 0.085)
    neck = draw(0.16, 0.4)
    limbs = [
        Limb("centre", -1, (0, 0, 0), 0, 0, (thick * 0.8, thick, length), 0.06, 0.1),
        Limb("neck", 0, (0, -0.5, 0.8), 0, draw(0.4, 1.1), (thick * 0.4, thick * 0.45, neck), 0.3, 0.3, 1.0),
        Limb("head", 1, (0, 0, 0.9), 0, -draw(0.6, 1.3), (0.09, 0.11, draw(0.14, 0.22)), 0.3, 0.3, 2.0),
        Limb("tail", 0, (0, -0.4, -0.9), 0, math.pi - draw(0.2, 0.9), (0.03, 0.03, draw(0.1, 0.3)), 0.3, 0.6, 0.5),
    ]
    for side, name in SIDES:
        limbs.append(Limb(f"ear {name}", 2, (side * 0.7, -0.6, -0.4), 0, 1.3, (0.03, 0.02, 0.07)))
    for where, z in (("fore", 0.72), ("hind", -0.72)):
        for side, name in SIDES:
            n, phase, knee = len(limbs), math.pi * (side > 0) + 1.2 * (z < 0), 0.35 if z > 0 else -0.4
            down, upper, lower = -math.pi / 2 - knee / 2, (thin * 1.6, thin * 2, leg), (thin, thin, leg)
            limbs.append(Limb(f"{where} {name} hip", 0, (side * 0.6, 0.5, z), 0, down, upper, 0.55, 0.1, phase))
            limbs.append(Limb(f"{where} {name} knee", n, (0, 0, 0.9), 0, knee, lower, 0.5, 0.0, phase + 1.1))
    return limbs


def biped(draw: Draw) -> list[Limb]:
    """A body on two legs with arms and a head."""
    wide, thin = draw(0.16, 0.24), draw(0.05, 0.085)
    leg, arm = draw(0.2, 0.27), draw(0.16, 0.22)
    limbs = [
        Limb("centre", -1, (0, 0, 0), 0, 0, (wide, wide * 0.6, draw(0.3, 0.4)), 0.15, 0.2),
        Limb("neck", 0, (0, 0, 0.85), 0, 0.0, (0.1, 0.11, 0.13), 0.25, 0.25, 1.0),
    ]
    for side, name in SIDES:
        out, beat, top = 0.3 * side, math.pi * (side < 0), (thin * 1.1, thin * 1.1, arm)
        n, low = len(limbs), (thin * 0.85, thin * 0.85, arm)
        limbs.append(Limb(f"{name} shoulder", 0, (side * 1.0, 0, 0.7), out, math.pi - 0.1, top, 0.8, 0.25, beat))
        limbs.append(Limb(f"{name} elbow", n, (0, 0, 0.9), 0, 0.7, low, 0.6, 0.1, beat + 1))
        limbs.append(Limb(f"{name} wrist", n + 1, (0, 0, 0.95), 0, -0.2, (0.05, 0.03, 0.06), 0.3))
        out, beat, top = 0.05 * side, math.pi * (side > 0), (thin * 1.6, thin * 1.6, leg)
        n, low = len(limbs), (thin * 1.25, thin * 1.25, leg)
        limbs.append(Limb(f"{name} hip", 0, (side * 0.5, 0, -0.85), out, math.pi - 0.1, top, 0.8, 0.25, beat))
        limbs.append(Limb(f"{name} knee", n, (0, 0, 0.9), 0, -0.5, low, 0.6, 0.1, beat + 1))
        limbs.append(Limb(f"{name} ankle", n + 1, (0, 0, 0.95), 0, 1.3, (0.05, 0.045, 0.09), 0.3))
    return limbs


def insect(draw: Draw) -> list[Limb]:
    """A round body with many thin legs around it."""
    count, leg, thin = 2 * int(draw(2, 4.99)), draw(0.2, 0.32), draw(0.025, 0.05)
    limbs = [
        Limb("centre", -1, (0, 0, 0), 0, 0, (draw(0.25, 0.4), draw(0.25, 0.4), draw(0.18, 0.3)), 0.2, 0.2),
        Limb("neck", 0, (0, -0.9, 0.2), 0, math.pi / 2, (0.14, 0.14, 0.16), 0.3, 0.3),
    ]
    for k in range(count):
        angle, n = 2 * math.pi * (k + 0.5) / count, len(limbs)
        anchor = (0.85 * math.sin(angle), -0.85 * math.cos(angle), -0.2)
        phase = math.pi * (k % 2)
        limbs.append(Limb(f"hip {k}", 0, anchor, angle, 1.1, (thin, thin, leg), 0.5, 0.4, phase))
        limbs.append(Limb(f"knee {k}", n, (0, 0, 0.95), 0, 0.9, (thin * 0.8, thin * 0.8, leg), 0.5, 0.0, phase + 1))
    return limbs


def worm(draw: Draw) -> list[Limb]:
    """A chain of parts that wind."""
    count, thick, length = int(draw(5, 9.99)), draw(0.08, 0.16), draw(0.12, 0.2)
    parts = [Limb("joint 0", -1, (0, 0, 0), 0, 0, (thick, thick, length), 0.3, 0.3)]
    for k in range(1, count):
        size = thick * (1 - 0.6 * k / count)
        parts.append(Limb(f"joint {k}", k - 1, (0, 0, 0.8), 0, 0.0, (size, size, length), 0.5, 0.5, 1.1 * k))
    return parts


def ball(draw: Draw) -> list[Limb]:
    """One ellipsoid."""
    return [Limb("centre", -1, (0, 0, 0), 0, 0, tuple(draw(0.35, 0.75) for _ in range(3)))]


def crate(draw: Draw) -> list[Limb]:
    """One box."""
    return [Limb("centre", -1, (0, 0, 0), 0, 0, tuple(draw(0.25, 0.65) for _ in range(3)), kind="box")]


def can(draw: Draw) -> list[Limb]:
    """One tube, closed at its ends."""
    width = draw(0.2, 0.5)
    return [Limb("centre", -1, (0, 0, 0), 0, 0, (width, width * draw(0.8, 1.2), draw(0.3, 0.75)), kind="tube")]


def pile(draw: Draw) -> list[Limb]:
    """A few boxes, tubes and ellipsoids that grow out of one another and move as one."""
    kinds = KINDS * 2
    parts = [Limb("centre", -1, (0, 0, 0), 0, 0, (0.35, 0.3, 0.4), kind=kinds[int(draw(0, 3))])]
    for k in range(int(draw(2, 5.99))):
        half = (draw(0.1, 0.28), draw(0.1, 0.28), draw(0.15, 0.35))
        anchor = tuple(draw(-0.8, 0.8) for _ in range(3))
        parts.append(Limb(f"part {k}", 0, anchor, draw(0, 6.3), draw(0, 3.1), half, kind=kinds[int(draw(0, 3))]))
    return parts


def table(draw: Draw) -> list[Limb]:
    """A board on four legs."""
    wide, long, leg = draw(0.4, 0.6), draw(0.4, 0.7), draw(0.2, 0.35)
    parts = [Limb("centre", -1, (0, 0, 0), 0, 0, (wide, long, 0.05), kind="box")]
    for k, (x, y) in enumerate(((-1, -1), (-1, 1), (1, -1), (1, 1))):
        parts.append(Limb(f"leg {k}", 0, (0.85 * x, 0.85 * y, 1), 0, 0, (0.05, 0.05, leg), kind="tube"))
    return parts


RIGID = {"ball": ball, "crate": crate, "can": can, "pile": pile, "table": table}
ARTICULATED = {"quadruped": quadruped, "biped": biped, "insect": insect, "worm": worm}
FAMILIES = {**RIGID, **ARTICULATED}


def body(
    limbs: list[Limb], size: float, pace: float, roots: list[Tensor], paint: Paint, eye: float, draw: Draw
) -> Body:
    """A body of some limbs, once for each root: several make a herd, all alike and each in its own step.

    Args:
        limbs: as the families make them.
        size: of the body, pixels of the plane.
        pace: of the joints, radians a frame.
        roots: (7, 3) each: position in pixels, two rows of amplitudes, rates and phases of the turning,
            so that row 0 is the position, 1 the middle rotation vector, 2 and 3 amplitudes, 4 rates, 5, 6 phases.
        paint: of all parts.
        eye: distance of the eye, pixels of the plane.
        draw: numbers between two.
    """
    rows, N = [], len(limbs)
    for m, root in enumerate(roots):
        beat = pace * draw(0.8, 1.2)
        late = draw(0, 6.3)
        for limb in limbs:
            first = limb.parent < 0
            hinge = torch.zeros(3, 7)  # mean, two amplitudes, two rates, two phases
            hinge[:, 3:5] = beat
            hinge[0, 1], hinge[1, 1] = limb.swing * draw(0.6, 1.2), limb.sway * draw(0.6, 1.2)
            hinge[:, 5] = limb.phase + late
            if first:
                hinge = torch.stack([root[1], root[2], root[3], root[4], 1.7 * root[4], root[5], root[6]], dim=-1)
            rows.append((limb, limb.parent + m * N if not first else -1, m, root[0] if first else None, hinge))
    hinges = torch.stack([row[4] for row in rows])
    count = len(rows)
    tilt = torch.tensor([[limb.tilt, limb.around] for limb, *_ in rows])
    (sin_b, sin_a), (cos_b, cos_a) = tilt.sin().T, tilt.cos().T
    zero, one = torch.zeros(count), torch.ones(count)
    about_x = torch.stack([one, zero, zero, zero, cos_b, -sin_b, zero, sin_b, cos_b], -1).reshape(-1, 3, 3)
    about_z = torch.stack([cos_a, -sin_a, zero, sin_a, cos_a, zero, zero, zero, one], -1).reshape(-1, 3, 3)
    breath = torch.zeros(count, 2)
    breath[:, 0] = draw(0.0, 0.09) if N > 1 else draw(0.0, 0.05)
    patchy = draw(0, 1) < 0.4 and N > 1  # parts of a colour of their own
    tints = torch.tensor([[draw(0.65, 1.25) for _ in range(3)] for _ in limbs]) if patchy else torch.ones(N, 3)
    shifts = torch.tensor([[draw(-150, 150), draw(-150, 150)] for _ in limbs])
    return Body(
        paint=paint,
        kind=tuple(KINDS.index(limb.kind) for limb, *_ in rows),
        parent=tuple(row[1] for row in rows),
        member=torch.tensor([row[2] for row in rows]),
        anchor=torch.stack([torch.tensor(limb.anchor) if at is None else at for limb, _, _, at, _ in rows]),
        rest=about_z @ about_x,
        half=torch.tensor([limb.half for limb, *_ in rows]) * size,
        hinge=Swing(hinges[..., 0], hinges[..., 1:3], hinges[..., 3:5], hinges[..., 5:7]),
        breath=Swing(torch.zeros(count), breath, torch.full((count, 2), pace), torch.rand(count, 2) * 0 + draw(0, 6.3)),
        tint=tints.repeat(len(roots), 1),
        shift=shifts.repeat(len(roots), 1),
        joint_names=tuple(f"{limb.joint}" for limb, *_ in rows),
        shine=draw(0.1, 0.6) if draw(0, 1) < 0.4 else 0.0,
        hardness=draw(8, 60),
        ambient=draw(0.35, 0.8),
        eye=eye,
    )  # fmt: skip
