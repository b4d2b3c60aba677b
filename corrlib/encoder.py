"""The pixel encoders: frames in, unit-length features on two lattices out.

An encoder is called with (B, 3, H, W) float sRGB in [0, 1] and returns `Features`; it declares
`coarse_lattice` and `fine_lattice`, and `calibration`, what the tracker's evidence means for it
(`calibration.calibrate`), and perhaps `support`, how many landmarks around each point tell where it
is, and `magnify`, how many times as large frames are searched; that is all the tracker asks of it. It is
called under autocast where products are wanted in bfloat16 (`encode`).
Training also asks for `raw`, the same features before they are scaled to unit length, of frames that
may lack a channel of Lab.
"""

import contextlib
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from . import cielab, coords, matching


class Features(NamedTuple):
    """Features of the same frames at two strides, unit length along C unless they are said to be raw."""

    coarse: Float[Tensor, "B C h w"]
    fine: Float[Tensor, "B D h2 w2"]


class Residual(nn.Module):
    """Two 3 x 3 convolutions with batch norm around a shortcut (He et al., CVPR 2016)."""

    def __init__(self, channels_in: int, channels: int, stride: int = 1, dilation: int = 1):
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, dilation, dilation, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, dilation, dilation, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.shortcut = nn.Identity()
        if stride != 1 or channels != channels_in:
            self.shortcut = nn.Sequential(nn.Conv2d(channels_in, channels, 1, bias=False), nn.BatchNorm2d(channels))
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        out = torch.relu(self.norm1(self.conv1(x)))
        # No stride in the 1 x 1 convolution: for under 8 channels oneDNN's AVX2 kernel writes beyond its memory.
        seen = x[..., :: self.stride, :: self.stride]
        return torch.relu(self.norm2(self.conv2(out)) + self.shortcut(seen))


# Weights of the tracker's evidence for an encoder that has not been calibrated: likeness to the
# query in fine and coarse features counts for a point's being seen, an error on the way back against.
UNCALIBRATED = (6.0, 4.0, 0.0, 0.0, -2.0, 0.0, -4.3)
SUPPORT = 24  # landmarks around each point, unless an encoder asks for others


class PixelEncoder(nn.Module):
    """A small two-scale encoder for CPUs: coarse features at stride 8, fine ones at stride 2.

    Dilated blocks give the coarse features a wide view. The fine features add up what strides
    2, 4 and 8 know of a pixel, so that they know their surroundings too. With `width` 32 it has
    about 1 M parameters.

    Args:
        width: channels at stride 2; twice as many at stride 4, four times at stride 8.
        fine_channels: length of the fine feature vectors.

    Raises:
        ValueError: width or fine_channels is below 1; a frame is smaller than one coarse cell.

    Differs: the paper's ResNet-18 computes 256 channels at stride 2 for 45.5 GMAC a 256 x 256
    frame; this one takes about 1.6.
    """

    coarse_lattice = coords.Lattice(8, 0.0)
    fine_lattice = coords.Lattice(2, 0.0)

    def __init__(self, width: int = 32, fine_channels: int = 64):
        super().__init__()
        if min(width, fine_channels) < 1:
            raise ValueError(
                f"PixelEncoder: width and fine_channels should be above 0, got {width} and {fine_channels}."
            )
        self.config = {"width": width, "fine_channels": fine_channels}
        self.calibration: tuple[float, ...] = UNCALIBRATED
        self.support, self.magnify = SUPPORT, 1.0
        self.stem = nn.Sequential(
            nn.Conv2d(3, width, 7, 2, 3, bias=False), nn.BatchNorm2d(width), nn.ReLU(), Residual(width, width)
        )
        self.stride4 = nn.Sequential(Residual(width, 2 * width, 2))
        self.stride8 = nn.Sequential(
            Residual(2 * width, 4 * width, 2),
            Residual(4 * width, 4 * width, dilation=2),
            Residual(4 * width, 4 * width, dilation=4),
        )
        self.coarse = nn.Conv2d(4 * width, 4 * width, 1)
        self.from2 = nn.Conv2d(width, fine_channels, 1)
        self.from4 = nn.Conv2d(2 * width, fine_channels, 1)
        self.from8 = nn.Conv2d(4 * width, fine_channels, 1)
        self.fine = nn.Conv2d(fine_channels, fine_channels, 1)

    def forward(self, rgb: Float[Tensor, "B 3 H W"]) -> Features:
        return unit(self.raw(rgb))

    def raw(self, rgb: Float[Tensor, "B 3 H W"], drop: int | None = None) -> Features:
        """The features before they are scaled to unit length; `drop` is a channel of Lab that is not shown."""
        lab = _shown(rgb, drop)
        size_hw = tuple(lab.shape[-2:])
        at2 = self.stem(lab)
        at4 = self.stride4(at2)
        at8 = self.stride8(at4)
        # From 8 to 4 to 2 is, between cells, the same as from 8 to 2 at once, and less work.
        fine = self.from8(at8)
        for features, stride in ((self.from4(at4), 4), (self.from2(at2), 2)):
            fine = features + coords.relattice(fine, coords.Lattice(2 * stride), coords.Lattice(stride), size_hw)
        return Features(self.coarse(at8), self.fine(torch.relu(fine)))


class PaperEncoder(nn.Module):
    """The paper's encoder: a ResNet-18 without max-pool whose first three stages stay at stride 2.

    Fine features are the 256 channels of the third stage, 2.78 M parameters and 45.5 GMAC a frame of
    256 x 256. Coarse ones are the 512 channels of the fourth stage, at stride 8, which can be trained
    by labels of their own scale.

    Args:
        stage4: has the fourth stage, of 8.4 M parameters more. Without it coarse features are every
            fourth of the fine ones.

    Raises:
        ValueError: a frame is smaller than one coarse cell.

    Source: Li, Zhou and Liu, ICCV 2023; He et al., CVPR 2016.
    Differs: their release runs the fourth stage and uses nothing of it.
    """

    coarse_lattice = coords.Lattice(8, 0.0)
    fine_lattice = coords.Lattice(2, 0.0)

    def __init__(self, stage4: bool = False):
        super().__init__()
        self.config = {"stage4": stage4}
        self.calibration: tuple[float, ...] = UNCALIBRATED
        self.support, self.magnify = SUPPORT, 1.0
        self.stem = nn.Sequential(nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU())
        self.stage1 = nn.Sequential(Residual(64, 64), Residual(64, 64))
        self.stage2 = nn.Sequential(Residual(64, 128), Residual(128, 128))
        self.stage3 = nn.Sequential(Residual(128, 256), Residual(256, 256))
        self.stage4 = nn.Sequential(Residual(256, 512, 4), Residual(512, 512)) if stage4 else None
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if isinstance(module, Residual):
                nn.init.zeros_(module.norm2.weight)  # each block begins as its shortcut

    def forward(self, rgb: Float[Tensor, "B 3 H W"]) -> Features:
        return unit(self.raw(rgb))

    def raw(self, rgb: Float[Tensor, "B 3 H W"], drop: int | None = None) -> Features:
        """The features before they are scaled to unit length; `drop` is a channel of Lab that is not shown."""
        fine = self.stage3(self.stage2(self.stage1(self.stem(_shown(rgb, drop)))))
        return Features(fine[..., ::4, ::4] if self.stage4 is None else self.stage4(fine), fine)


FAINT = 0.1  # how strong new coarse features begin: at 0 they would stay there, as products of theirs do


def widened(encoder: PixelEncoder, width: int) -> PixelEncoder:
    """A wider encoder that knows what a narrower one does, to be trained on.

    What was there hears nothing of the new channels, which begin at random: the fine features stay as they
    were, and to the coarse ones faint new ones are added.

    Args:
        encoder: stays as it is.
        width: of the new one; its evidence for being seen is the old one's.

    Raises:
        ValueError: width is below the encoder's.

    Source: after Chen, Goodfellow and Shlens, Net2Net, ICLR 2016.
    Differs: they copy channels and halve what leaves them; here new ones are random, and nothing hears them.
    """
    if width < encoder.config["width"]:
        raise ValueError(f"widened: width should be at least {encoder.config['width']}, got {width}.")
    wide = PixelEncoder(width, encoder.config["fine_channels"])
    weights = wide.state_dict()
    for name, old in encoder.state_dict().items():
        new = weights[name]
        if old.ndim == 4:
            new[: len(old), old.shape[1] :] = 0
        if name.startswith("coarse."):
            new[len(old) :] *= FAINT if old.ndim == 4 else 0
        new[tuple(map(slice, old.shape))] = old
    wide.calibration, wide.support, wide.magnify = encoder.calibration, encoder.support, encoder.magnify
    return wide.train(encoder.training)


def unit(features: Features) -> Features:
    """Both maps scaled to unit length along C."""
    return Features(*map(matching.unit, features))


def products(frames: Tensor, bfloat16: bool) -> contextlib.AbstractContextManager:
    """A context in which an encoder's products are in bfloat16, if they are wanted so and the processor has them."""
    if not (bfloat16 and matching.multiplies_bfloat16(frames)):
        return contextlib.nullcontext()
    # Kept, what a weight was rounded to would outlive a change of the weight within a caller's own autocast.
    return torch.autocast(frames.device.type, torch.bfloat16, cache_enabled=False)


def encode(model: nn.Module, frames: Float[Tensor, "B 3 H W"], bfloat16: bool) -> Features:
    """What a model says of frames, in float32, with `products` as they are wanted."""
    with products(frames, bfloat16):
        return Features(*(features.float() for features in model(frames)))


def device_of(name: str, model: nn.Module) -> torch.device:
    """Where a model's frames should be. One in training mode is refused, as by `name`: looking would change it."""
    if model.training:
        raise ValueError(f"{name}: model should be in evaluation mode; call model.eval() first.")
    return next((t.device for t in [*model.parameters(), *model.buffers()]), torch.empty(0).device)


def _unrounded(device: torch.device) -> contextlib.AbstractContextManager:
    """A context in which no product is rounded, whoever has asked for that."""
    if not torch.amp.is_autocast_available(device.type):
        return contextlib.nullcontext()
    return torch.autocast(device.type, enabled=False)


def _shown(rgb: Float[Tensor, "B 3 H W"], drop: int | None) -> Float[Tensor, "B 3 H W"]:
    """What an encoder's first layer is given: Lab, with all or all but one of its channels."""
    if min(rgb.shape[-2:]) < 8:
        raise ValueError(f"encoder: frames should be at least 8 x 8 pixels, got {rgb.shape[-2]} x {rgb.shape[-1]}.")
    with _unrounded(rgb.device):  # colours in bfloat16 would be off by more than all that follows
        lab = cielab.rgb_to_lab(rgb)
    if drop is not None:
        lab = cielab.drop_channel(lab, drop)
    return lab.contiguous(memory_format=torch.channels_last)
