"""What scenes are made of, as data, and the drawing of a scene from it.

The distribution of motion: the pace of a scene is drawn log-uniformly from `Content.speed`, pixels a
frame at 256 lines; each actor goes at 0.5 to 1.4 of it (sinusoids in position, scale, turn, shape and
perspective), the background at 0.2 to 0.8, and the camera adds its own pan, roll, zoom and shake.
"""

import json
import math
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import UInt8
from torch import Tensor

from . import figures, sheets
from .dice import Dice
from .exposure import Lens
from .figures import ARTICULATED, RIGID
from .motion import Bend, Motion, Swing, changed
from .scenes import Scene
from .sheets import Paint, Sheet
from .solids import Body

WAVES = 3  # components of the bending of each actor
SWIFTEST = 0.6  # radians a frame: faster sinusoids would look like shaking
OUTLINES = ("blob", "polygon", "star", "ring")


@dataclass(frozen=True)
class Content:
    """What is in scenes, and how often: weights of the kinds of actors, and shares of scenes or actors, 0 to 1.

    An ablation is another Content: `replace(Content(), solids=0.0, figures=0.0)` has no 3-D.
    """

    # kinds of actors in front of the background, by weight
    sheets: float = 1.0
    solids: float = 1.0
    figures: float = 1.0
    actors: tuple[int, int] = (3, 7)  # how many, inclusive
    rigid: tuple[str, ...] = ("ball", "crate", "can", "pile")  # families of solids
    articulated: tuple[str, ...] = ("quadruped", "biped", "insect")  # families of figures
    outlines: tuple[str, ...] = OUTLINES[:3]  # of sheets
    speed: tuple[float, float] = (0.3, 30.0)
    # share of actors
    herd: float = 0.25  # of bodies: two or three of a kind, each in its own step
    distractor: float = 0.25  # that look like another actor
    camouflage: float = 0.12  # painted like the background
    smooth: float = 0.2  # of faint texture
    bent: float = 0.7  # whose plane bends
    relief: float = 0.35  # of sheets: light falls on their waves
    # share of scenes
    camera: float = 0.8  # moves
    shadow: float = 0.5
    changing_light: float = 0.8
    motion_blur: float = 0.5
    defocus: float = 0.3
    noise: float = 0.8
    compression: float = 0.4
    cast: float = 0.5
    # pixels; not in the repr, of which the hash of a benchmark is made
    softness: float = field(default=1.0, repr=False)  # sigma of the most that a scene is blurred by everywhere

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn."""
        if not 0 < self.speed[0] <= self.speed[1]:
            raise ValueError(f"scene: speed should be two positive numbers in order, got {self.speed}.")
        if min(self.sheets, self.solids, self.figures) < 0 or self.sheets + self.solids + self.figures <= 0:
            raise ValueError(
                "scene: sheets, solids and figures should be weights, at least 0 and not all 0, "
                f"got {self.sheets}, {self.solids} and {self.figures}."
            )
        named = {"rigid": RIGID, "articulated": ARTICULATED, "outlines": OUTLINES}
        for name, known in named.items():
            if not getattr(self, name) or not set(getattr(self, name)) <= set(known):
                raise ValueError(f"scene: {name} should be some of {', '.join(known)}, got {getattr(self, name)}.")
        if self.softness < 0:
            raise ValueError(f"scene: softness should be at least 0, got {self.softness}.")
        if not 0 <= self.actors[0] <= self.actors[1]:
            raise ValueError(f"scene: actors should be two counts in order, got {self.actors}.")


def read_contents(text: str) -> tuple[Content, ...]:
    """Contents from the fields, as JSON, in which they differ from the default.

    Args:
        text: of one, `{"solids": 0, "speed": [1, 9]}`, or a list of those, which clips take in turn.

    Raises:
        ValueError: it is neither a JSON object nor a list of some, or names no field of Content.
    """
    try:
        read = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"read_contents: expected a JSON object, got {text!r}: {error}.") from error
    every, known = read if isinstance(read, list) else [read], Content.__dataclass_fields__
    if not every or not all(isinstance(fields, dict) and fields.keys() <= known.keys() for fields in every):
        raise ValueError(f"read_contents: expected a JSON object of {', '.join(known)}, or a list of some, got {text}.")
    return tuple(
        Content(**{name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()})
        for fields in every
    )


LAYERS = Content(solids=0.0, figures=0.0)  # flat layers only
HELD_OUT = Content(rigid=("can", "pile", "table"), articulated=("worm", "quadruped"), outlines=("ring", "star"))


def scene(
    seed: int,
    size_hw: tuple[int, int],
    bank: UInt8[Tensor, "N 3 S S"],
    speed: tuple[float, float] | None = None,
    content: Content | None = None,
) -> Scene:
    """A random scene, on the device of the textures.

    Args:
        seed: the same seed gives the same scene.
        size_hw: frame size, at least 16 x 16.
        bank: textures to choose from (`textures.bank`).
        speed: in place of the content's.
        content: what it is made of; everything by default.

    Raises:
        ValueError: a side is below 16 pixels, or the speed range is not positive and ordered.
    """
    H, W = size_hw
    if min(size_hw) < 16:
        raise ValueError(f"scene: size_hw should be at least (16, 16), got {tuple(size_hw)}.")
    content = content or Content()
    content = replace(content, speed=speed) if speed else content
    dice = Dice(seed)
    unit = min(H, W) / 256  # all lengths are meant at 256 lines
    pace = dice.log(*content.speed) * unit
    count = int(dice(content.actors[0], content.actors[1] + 1))
    depth = torch.cat([torch.tensor([dice(1.5, 6.0)]), dice.many(count, low=0.6, high=1.5)]).sort(descending=True)[0]

    motion = _motion(dice, depth, pace, unit, (H, W), content)
    actors: list[Sheet | Body] = [_background(dice, bank, content)]
    for a in range(1, 1 + count):
        if a > 1 and dice.chance(content.distractor):
            actors.append(_like(actors[int(dice(1, a))], dice))
        else:
            actors.append(_actor(dice, bank, content, actors[0], pace / unit))
    made = Scene((H, W), motion, tuple(actors), _lens(dice, unit, pace, seed, content), seed)
    return made if bank.device == depth.device else changed(made, lambda tensor: tensor.to(bank.device))


def _motion(dice: Dice, depth: Tensor, pace: float, unit: float, size_hw: tuple[int, int], content: Content) -> Motion:
    """The motion of the planes and of the camera."""
    H, W = size_hw
    A = len(depth)
    share = dice.many(A, low=0.5, high=1.4)
    share[0] = dice(0.2, 0.8)  # the background is calmer than the objects
    # A sinusoid of amplitude a and rate w moves at a w / sqrt(2) on average.
    reach = dice.many(A, 1, low=25, high=85) * unit
    reach = torch.maximum(reach, pace * share[:, None] * 1.41 / SWIFTEST)
    rate = pace * share[:, None] * 1.41 / reach
    aim = dice.many(A, 1, high=2 * math.pi)
    reach = reach * torch.cat([0.5 + aim.cos().abs(), 0.5 + aim.sin().abs()], dim=1) / 1.3
    vigour = min(1.0, 0.25 + pace / unit / 8)  # how much of the full swing in scale, turn and shape

    mean, wave = torch.zeros(A, 8), torch.zeros(A, 8, 2)
    mean[:, :2] = dice.many(A, 2, low=0.12, high=0.88) * torch.tensor([W, H])
    mean[:, 2] = dice.many(A, low=-0.4, high=0.4) + math.log(unit)
    upright = 0.5 if dice.chance(0.6) else 2 * math.pi  # most videos have an up and a down
    mean[:, 3] = dice.many(A, low=-upright, high=upright)
    mean[:, 4:6] = dice.many(A, 2, low=-0.15, high=0.15)
    mean[0, 2] = dice(0.15, 0.5) + math.log(unit)
    wave[:, :2, 0], wave[:, :2, 1] = reach * 0.85, reach * 0.3
    wave[:, 2, 0] = dice.many(A, high=0.5) * vigour
    wave[:, 3, 0] = dice.many(A, high=0.9) * vigour
    wave[:, 4:6, 0] = dice.many(A, 2, high=0.15) * vigour
    wave[:, 6:, 0] = dice.many(A, 2, high=0.0012) * vigour / unit
    wave[0, 2:] *= 0.5
    rates = rate[:, :, None] * dice.many(A, 8, 2, low=0.5, high=1.3)
    rates[:, :2] = rate[:, :, None] * torch.tensor([1.0, 1.7]) * dice.many(A, 2, 2, low=0.8, high=1.2)
    pose = Swing(mean, wave, rates, dice.many(A, 8, 2, high=2 * math.pi))

    angle, length = dice.many(A, WAVES, high=2 * math.pi), dice.many(A, WAVES, low=40, high=160)
    frequency = torch.stack([angle.cos(), angle.sin()], -1) * (2 * math.pi / length)[..., None]
    angle = dice.many(A, WAVES, high=2 * math.pi)
    bent = (dice.many(A, 1) < content.bent) * dice.many(A, 1)
    strength = dice.many(A, WAVES, high=0.12) * bent * length / (2 * math.pi)  # contraction 0.12 a wave at most
    direction = torch.stack([angle.cos(), angle.sin()], -1) * strength[..., None]
    bends = Bend(
        direction, frequency, dice.many(A, WAVES, 2, high=2 * math.pi), rate * dice.many(A, WAVES, low=0.3, high=1.5)
    )

    swings = torch.tensor([70 * unit, 70 * unit, 0.2, 0.1, 0.0, 0.0])
    camera = dice.many(6, 2, low=-1, high=1) * swings[:, None] * vigour * torch.tensor([1.0, 0.4])
    camera[4:, :] = dice.many(2, 2, high=1.2 * unit) * dice.chance(0.5) * vigour  # the hand that holds it
    rates = torch.full((6, 2), min(0.3, pace / unit * 0.02)) * dice.many(6, 2, low=0.4, high=1.2)
    rates[4:] = dice.many(2, 2, low=0.4, high=2.2)
    still = torch.zeros(6)
    camera = Swing(still, camera * dice.chance(content.camera), rates, dice.many(6, 2, high=2 * math.pi))
    return Motion(pose, camera, bends, depth, torch.tensor([(W - 1) / 2, (H - 1) / 2]))


def _paint(dice: Dice, bank: Tensor, smooth: float) -> Paint:
    """A texture, sometimes almost of one colour."""
    picture = bank[int(dice(0, len(bank)))].cpu().float().div_(255)
    if dice.chance(smooth):
        mean = picture.mean(dim=(1, 2), keepdim=True)
        picture = mean + dice(0.12, 0.5) * (picture - mean)
    return Paint(picture)


def _background(dice: Dice, bank: Tensor, content: Content) -> Sheet:
    """A picture without an end."""
    relief = dice(0.5, 2.5) if dice.chance(content.relief) else 0.0
    return Sheet(_paint(dice, bank, content.smooth / 2), None, 1e9, 1.0, relief)


def _actor(dice: Dice, bank: Tensor, content: Content, background: Sheet, pace: float) -> Sheet | Body:
    """A sheet or a body."""
    paint = background.paint if dice.chance(content.camouflage) else _paint(dice, bank, content.smooth)
    throw = dice(0, content.sheets + content.solids + content.figures)
    if throw < content.sheets:
        reach = dice.log(28, 120)
        outline = sheets.outline(dice.pick(*content.outlines), 48, reach, dice.generator)
        relief = dice(0.5, 3.0) if dice.chance(content.relief) else 0.0
        return Sheet(paint, outline, reach, dice(1.0, 3.5), relief)
    articulated = throw >= content.sheets + content.solids
    family = dice.pick(*(content.articulated if articulated else content.rigid))
    limbs = figures.FAMILIES[family](dice)
    size = dice.log(45, 120) if articulated else dice.log(35, 110)
    herd = int(dice(2, 3.99)) if dice.chance(content.herd) else 1
    size = size / (1 + 0.25 * (herd - 1))
    upright = family in ("quadruped", "biped") and dice.chance(0.8)
    # Turning by about a radian moves what is a size away from the middle about as fast as the body goes.
    rate = min(SWIFTEST, dice(0.5, 1.5) * pace / size)
    roots = torch.stack([_root(dice, upright, size, herd, k, rate) for k in range(herd)])
    return figures.body(limbs, size, min(SWIFTEST, rate * dice(1.0, 3.0)), roots, paint, dice.log(350, 1200), dice)


def _root(dice: Dice, upright: bool, size: float, herd: int, k: int, rate: float) -> Tensor:
    """Where a body stands and how it turns, as `figures.body` wants it."""
    place = [(k - (herd - 1) / 2) * size * dice(0.8, 1.5), size * dice(-0.3, 0.3), size * dice(-0.6, 0.6)]
    root = torch.zeros(7, 3)
    root[0] = torch.tensor(place if herd > 1 else [0.0, 0.0, 0.0])
    if upright:  # the long axis to the side (four legs) or up (two), seen from anywhere around
        root[1] = torch.tensor([0.0, dice(0, 2 * math.pi), 0.0])
        root[2] = torch.tensor([dice(-0.2, 0.2), dice(0.3, 2.0), dice(-0.15, 0.15)])
        root[3] = root[2].flip(0) * 0.1
    else:
        root[1] = dice.many(3, low=-2.5, high=2.5)
        root[2], root[3] = dice.many(3, low=-1.6, high=1.6), dice.many(3, low=-0.3, high=0.3)
    root[4] = rate * dice.many(3, low=0.5, high=1.2)
    root[5], root[6] = dice.many(3, high=6.3), dice.many(3, high=6.3)
    return root


def _like(actor: Sheet | Body, dice: Dice) -> Sheet | Body:
    """Another actor with the same looks; a body of it in another step."""
    if isinstance(actor, Sheet):
        return actor
    late = dice(0.5, 5.0)
    return replace(actor, hinge=replace(actor.hinge, phase=actor.hinge.phase + late))


def _lens(dice: Dice, unit: float, pace: float, seed: int, content: Content) -> Lens:
    """The light and the camera of a scene."""

    def sometimes(share: float, low: float, high: float) -> float:
        """A number, or 0 in the other scenes."""
        return dice(low, high) * dice.chance(share)

    turning, light = content.changing_light, torch.tensor([0.2, 0.06, 0.15, 0.15])
    side = torch.tensor([dice(-1.2, 1.2), dice(-1.4, 0.2), -1.0])
    swing = torch.zeros(3, 2)
    swing[:, 0] = dice.many(3, low=-0.7, high=0.7) * dice.chance(turning)
    drift = dice.many(2, 4) * torch.tensor([28, 28, 0.25, 6.3]) - torch.tensor([14, 14, 0.0, 0.0])
    amount = torch.zeros(4, 2)
    amount[:, 0] = dice.many(4) * light * dice.chance(turning)
    cast = dice.chance(content.cast)
    return Lens(
        direction=Swing(side, swing, dice.many(3, 2, high=0.15), dice.many(3, 2, high=6.3)),
        light=Swing(torch.zeros(4), amount, dice.many(4, 2, high=0.25), dice.many(4, 2, high=6.3)),
        ripple=sometimes(turning * 0.4, 0.05, 0.35),
        ripple_wave=drift,
        cast=1 + 0.18 * cast * dice.many(3, low=-1, high=1),
        gamma=dice.log(0.75, 1.35) ** cast,
        saturation=dice(0.2, 1.3) ** cast,
        shadow=sometimes(content.shadow, 0.2, 0.6),
        fall=(dice(-22, 22) * unit, dice(4, 24) * unit),
        shutter=sometimes(content.motion_blur, 0.15, 0.6),
        aperture=sometimes(content.defocus, 0.8, 3.0) * unit,
        focus=Swing(torch.tensor(dice(0.9, 2.5)), *(dice.many(2, high=high) for high in (0.4, 0.2, 6.3))),
        blur=dice(0.0, content.softness),
        noise=sometimes(content.noise, 0.002, 0.03),
        quality=int(dice(25, 90)) * dice.chance(content.compression),
        seed=seed,
    )  # fmt: skip
