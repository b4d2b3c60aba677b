"""Changes of appearance that the features must survive: light, colour, focus and noise.

Each frame of a pair is changed by its own draw, since a tracker compares a query frame with
frames long after it. Positions are never touched here.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from . import coords


def change_appearance(
    frames: Float[Tensor, "B 3 H W"],
    generator: torch.Generator,
    strength: float = 1.0,
    part: tuple[int, int] = (0, 1),
) -> Float[Tensor, "B 3 H W"]:
    """Frames in another light, through another camera; each by its own draw.

    Args:
        frames: sRGB in [0, 1].
        generator: the source of all randomness.
        strength: 0 changes nothing, 1 is strong: contrast and gamma within a factor of 1.6,
            saturation from grey to vivid, a gradient of light across the frame, blur up to
            1.2 px, noise up to 0.04, and a dark or bright smooth patch.
        part: which part these are of a larger batch, from 0, and of how many equal ones; they are
            changed as they would be in it.

    Returns:
        frames of the same shape, in [0, 1].

    Raises:
        ValueError: strength is negative.
    """
    if strength < 0:
        raise ValueError(f"change_appearance: strength should be at least 0, got {strength}.")
    if strength == 0:
        return frames
    B, _, H, W = frames.shape
    every, mine = B * part[1], slice(B * part[0], B * (part[0] + 1))

    def draw(channels: int, reach: float) -> Tensor:
        return strength * reach * (2 * torch.rand(every, channels, 1, 1, generator=generator)[mine] - 1)

    def sometimes(values: Tensor, share: float) -> Tensor:
        return values * (torch.rand(every, 1, 1, 1, generator=generator)[mine] < share)

    out = frames.clamp(1e-4, 1) ** torch.exp(draw(1, 0.45))
    grey = out.mean(dim=1, keepdim=True)
    out = grey + (out - grey) * (1 + sometimes(draw(1, 1.0), 0.5)).clamp(min=0)
    mean = out.mean(dim=(1, 2, 3), keepdim=True)
    out = (out - mean) * torch.exp(draw(1, 0.45)) + mean
    out = out * torch.exp(draw(3, 0.12)) + draw(1, 0.15) + draw(3, 0.03)
    xy = (2 * coords.grid((H, W)) / max(H, W) - 1).permute(2, 0, 1)
    out = out + sometimes((draw(2, 0.25) * xy).sum(dim=1, keepdim=True), 0.5)
    patch = torch.exp(-((xy - draw(2, 1.0) / max(strength, 1e-3)) ** 2).sum(dim=1, keepdim=True) / 0.12)
    out = out + sometimes(draw(1, 0.4) * patch, 0.3)
    out = blur(out, sometimes(draw(1, 1.2).abs(), 0.5).flatten())
    noise = torch.randn(every, *out.shape[1:], generator=generator)[mine]
    return (out + sometimes(draw(1, 0.04), 0.6) * noise).clamp(0, 1)


def blur(frames: Float[Tensor, "B C H W"], sigma: Float[Tensor, "B"]) -> Float[Tensor, "B C H W"]:
    """Each frame under a Gaussian of its own width in pixels, cut at 3 pixels; edges repeated."""
    B, C, H, W = frames.shape
    kernel = torch.exp(-(torch.arange(-3.0, 4.0) ** 2) / (2 * sigma[:, None].clamp(min=1e-2) ** 2))
    kernel = (kernel / kernel.sum(dim=1, keepdim=True)).repeat_interleave(C, dim=0)[:, None, None]
    padded = F.pad(frames, (3, 3, 3, 3), mode="replicate").reshape(1, B * C, H + 6, W + 6)
    return F.conv2d(F.conv2d(padded, kernel, groups=B * C), kernel.mT, groups=B * C).reshape(B, C, H, W)
