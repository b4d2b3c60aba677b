"""Colours as networks of the paper's kind see them: normalised CIE Lab, and that without one of its channels."""

import torch
from jaxtyping import Float
from torch import Tensor

# sRGB primaries and the D65 white point as OpenCV writes them, so that values agree with its float Lab.
_RGB_TO_XYZ = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))
_WHITE = (0.950456, 1.0, 1.088754)


def rgb_to_lab(frames: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
    """CIE Lab of sRGB frames in [0, 1], normalised: (L - 50) / 50, a / 127, b / 127.

    Values agree with OpenCV's float Lab, which interpolates in a table; all channels are
    about in [-1, 1]. It runs, and differentiates, where the frames are.
    """
    linear = torch.where(frames <= 0.04045, frames / 12.92, ((frames.clamp(min=0) + 0.055) / 1.055) ** 2.4)
    weights = frames.new_tensor(_RGB_TO_XYZ) / frames.new_tensor(_WHITE)[:, None]
    xyz = torch.einsum("dc,bchw->bdhw", weights, linear)
    # The clamp keeps the unused branch's gradient finite at black.
    f = torch.where(xyz > 0.008856, xyz.clamp(min=0.008856) ** (1 / 3), 7.787 * xyz + 16 / 116)
    x, y, z = f.unbind(1)
    return torch.stack([(116 * y - 66) / 50, 500 * (x - y) / 127, 200 * (y - z) / 127], dim=1)


def drop_channel(lab: Float[Tensor, "B 3 H W"], channel: int) -> Float[Tensor, "B 3 H W"]:
    """Normalised Lab without one of its channels: that one 0, the others times 3/2.

    Raises:
        ValueError: the channel is none of 0, 1 and 2.

    Source: Lai, Lu and Xie, MAST, CVPR 2020; Li, Zhou and Liu, ICCV 2023, drop a (1) or b (2).
    """
    if channel not in (0, 1, 2):
        raise ValueError(f"drop_channel: channel should be 0, 1 or 2, got {channel}.")
    kept = lab.new_full((3, 1, 1), 1.5)
    kept[channel] = 0
    return lab * kept
