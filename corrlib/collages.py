"""Real objects cut out of their videos and moved by known maps over real frames.

The pictures are real and the motion is exact: what a tracker trained on drawn video is worth on
real texture. The folder is laid out as DAVIS is; nothing is read from it but single frames.
"""

import math
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from . import coords, frames, synthetic
from .datasets import davis, files
from .synthetic.motion import Swing
from .synthetic.sheets import Paint, Sheet, outline

LEAST_AREA = 0.004  # of the frame, for an object to be worth cutting out
SIDE = 384  # of the pictures that scenes are painted with, pixels


def scene(
    root: str | Path, names: list[str], index: int, share: float, seed: int, speed: float, size: int
) -> synthetic.Scene:
    """A scene of two real objects that move over a frame of a third clip, where there are three.

    Args:
        root: the folder that holds DAVIS/.
        names: of the clips to cut from.
        index: which of them the nearest object is from; the others come from those that follow.
        share: how far into the clips to look, in [0, 1].
        seed: of the motion.
        speed: of the objects, pixels a frame at 256 lines.
        size: height and width of the frames, pixels.

    Raises:
        FileNotFoundError: frames or masks are not there.
        ValueError: a clip has no object worth cutting out.
    """
    near, ground, far = (names[(index + k) % len(names)] for k in range(3))
    none = torch.zeros(1, 3, 2, 2, dtype=torch.uint8)
    plain = synthetic.scene(seed, (size, size), none, (speed, speed), replace(synthetic.LAYERS, actors=(2, 2)))
    g = torch.Generator().manual_seed(seed)
    unit, pose = size / 256, plain.motion.pose
    mean, wave, rate, phase = (v.clone() for v in (pose.mean, pose.wave, pose.rate, pose.phase))
    mean[1:, :2] = size * (0.5 + 0.5 * (mean[1:, :2] / size - 0.5))  # objects of which most is in the frame
    mean[1:, 2] = math.log(unit) + 0.1 * torch.randn(2, generator=g)
    mean[:, 3] = 0.3 * (2 * torch.rand(3, generator=g) - 1)  # upright, as filmed
    # Over 24 frames each object passes once from its smallest to its largest or back, a factor of up to 2.4.
    wave[1:, 2, 0], rate[1:, 2, 0] = 0.2 + 0.24 * torch.rand(2, generator=g), math.pi / 24
    phase[1:, 2, 0] = math.pi * (torch.rand(2, generator=g) < 0.5) - math.pi / 2
    uncut = outline("square", 48, SIDE / 2, g)  # the picture itself has the outline
    sheets = [Sheet(Paint(background(root, ground, share)), None, 1e9, 1.0, 0.0)]
    sheets += [Sheet(Paint(cut_out(root, name, share)), uncut, SIDE / 2, 1.0, 0.0) for name in (far, near)]
    lens = replace(plain.lens, blur=plain.lens.blur / 2, noise=plain.lens.noise / 2, aperture=0.0)
    motion = replace(plain.motion, pose=Swing(mean, wave, rate, phase))
    return replace(plain, motion=motion, actors=tuple(sheets), lens=lens)


def cut_out(root: str | Path, name: str, share: float) -> Float[Tensor, "4 S S"]:
    """The object of a clip in the middle of a transparent square, its longer side 44 % of the square's."""
    frame, mask = look(root, name, share)
    y, x = mask.nonzero(as_tuple=True)
    margin = 4
    y0, x0 = max(int(y.min()) - margin, 0), max(int(x.min()) - margin, 0)
    y1, x1 = int(y.max()) + 1 + margin, int(x.max()) + 1 + margin
    # A pixel at the border of a mask is half ground: it is left out.
    core = -F.max_pool2d(-mask[None, None].float(), 3, stride=1, padding=1)[0]
    piece = torch.cat([frame, core])[:, y0:y1, x0:x1]
    h, w = piece.shape[1:]
    ratio = 0.44 * SIDE / max(h, w)
    h, w = max(round(h * ratio), 2), max(round(w * ratio), 2)
    piece = coords.resize_frames(piece[None], (h, w))[0]
    out = torch.zeros(4, SIDE, SIDE)
    top, left = (SIDE - h) // 2, (SIDE - w) // 2
    out[:, top : top + h, left : left + w] = piece
    return out


def background(root: str | Path, name: str, share: float) -> Float[Tensor, "4 S S"]:
    """The middle of a frame of a clip, its object painted over from its surroundings."""
    frame, mask = look(root, name, share)
    H, W = mask.shape
    side = min(H, W)
    top, left = (H - side) // 2, (W - side) // 2
    around = np.ascontiguousarray(rearrange((frame * 255).to(torch.uint8).numpy(), "C H W -> H W C"))
    hole = cv2.dilate(mask.numpy().astype(np.uint8), np.ones((9, 9), np.uint8))
    clean = torch.from_numpy(rearrange(cv2.inpaint(around, hole, 3, cv2.INPAINT_TELEA), "H W C -> C H W").copy())
    piece = coords.resize_frames(clean[None, :, top : top + side, left : left + side] / 255, (SIDE, SIDE))[0]
    return torch.cat([piece, torch.ones(1, SIDE, SIDE)])


def look(root: str | Path, name: str, share: float) -> tuple[Float[Tensor, "3 H W"], Int[Tensor, "H W"]]:
    """The first frame, from a share of a clip on and around, whose object is large enough, with its mask."""
    base = Path(root) / "DAVIS"
    shown = files.images(base / "JPEGImages/480p" / name, davis.ROW)
    start = int(share * len(shown))
    for path in [*shown[start:], *shown[:start]]:
        frame = frames.read_frame(path)
        mask = (files.read_mask(base / "Annotations/480p" / name / f"{path.stem}.png", frame) > 0).long()
        if mask.float().mean() >= LEAST_AREA:
            return frames.to_float(frame), mask
    raise ValueError(
        f"collages: {base / 'Annotations/480p' / name} should hold an object of at least {LEAST_AREA:.1%} of the "
        "frame, got none; take the clip out of the list in DAVIS/ImageSets."
    )
