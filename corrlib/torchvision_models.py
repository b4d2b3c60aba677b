"""Two networks that torchvision has, as rivals: ResNet-18's features in our tracker, and RAFT-small.

Their weights are files that you name: torchvision's own (.pth), or the same tensors as
.safetensors. Nothing is downloaded, and nothing runs on weights drawn at random: what a random
network is worth, the method `random` says.
"""

import os
from pathlib import Path
from pickle import UnpicklingError

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int, UInt8
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from . import _torchvision, chains, coords, frames, matching
from .encoder import UNCALIBRATED, Features
from .samples import PointTracks


class ResNet18Encoder(nn.Module):
    """torchvision's ResNet-18 without its max-pool: `layer1` at stride 2, `layer2` at 4, `layer3` at 8.

    Coarse features are those of `layer3`; fine ones those of `layer1` and, read between their
    cells, of `layer2`, both of unit length.

    Args:
        weights: file of a classifier's weights, such as `resnet18-f37072fd.pth` (ImageNet).

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it does not hold the weights of a ResNet-18.

    Source: He et al., CVPR 2016, as torchvision has it.
    Differs: the paper's network of this name has all three at stride 2, for seven times the work.
    """

    coarse_lattice = coords.Lattice(8, 0.0)
    fine_lattice = coords.Lattice(2, 0.0)
    calibration = UNCALIBRATED  # `calibration.calibrate` fits it to the weights given

    def __init__(self, weights: str | os.PathLike):
        super().__init__()
        net = _torchvision.load("torchvision.models").resnet18(weights=None)
        _load("ResNet18Encoder", net, weights)
        self.stem = nn.Sequential(net.conv1, net.bn1, net.relu)
        self.layer1, self.layer2, self.layer3 = net.layer1, net.layer2, net.layer3
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406])[:, None, None])
        self.register_buffer("deviation", torch.tensor([0.229, 0.224, 0.225])[:, None, None])
        self.eval()

    def forward(self, rgb: Float[Tensor, "B 3 H W"]) -> Features:
        size_hw = tuple(rgb.shape[-2:])
        at2 = self.layer1(self.stem((rgb - self.mean) / self.deviation))
        at4 = self.layer2(at2)
        wide = coords.relattice(at4, coords.Lattice(4), self.fine_lattice, size_hw)
        fine = torch.cat([matching.unit(at2), matching.unit(wide)], dim=1)
        return Features(matching.unit(self.layer3(at4)), matching.unit(fine))


class RaftSmall:
    """torchvision's RAFT-small between neighbouring frames, chained through a video.

    Args:
        weights: its file, such as `raft_small_C_T_V2-01064c6d.pth`.
        updates: of the flow, for each pair.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it does not hold the weights of RAFT-small.

    Source: Teed and Deng, ECCV 2020, as torchvision has it.
    """

    LEAST = 128  # pixels on a side, below which its pyramid has no level left

    def __init__(self, weights: str | os.PathLike, updates: int = 12):
        net = _torchvision.load("torchvision.models.optical_flow").raft_small(weights=None)
        _load("RaftSmall", net, weights)
        self.net, self.updates = net.eval(), updates

    def track_points(self, video: frames.Source, query_points: chains.Points) -> PointTracks:
        """Points carried by its flow.

        Args, Returns, Raises: as for `chains.track_flow`; video as in `frames.open_video`.
        """
        opened = frames.open_video(video)
        return chains.track_flow(list(opened), opened.size_hw, query_points, self.flow)

    def propagate_masks(self, video: frames.Source, first_mask: Tensor | np.ndarray) -> Int[Tensor, "T H W"]:
        """Masks fetched along its flow.

        Args, Raises: as for `chains.propagate_masks_flow`; video as in `frames.open_video`.
        """
        opened = frames.open_video(video)
        return chains.propagate_masks_flow(opened, opened.size_hw, first_mask, self.flow)

    @torch.inference_mode()
    def flow(self, frame0: UInt8[Tensor, "3 H W"], frame1: UInt8[Tensor, "3 H W"]) -> Float[np.ndarray, "H W 2"]:
        """The motion from one frame to another, both continued at their edges to what the network takes."""
        H, W = frame0.shape[-2:]
        right, below = (max(self.LEAST, -(-n // 8) * 8) - n for n in (W, H))
        pair = torch.stack([frames.to_float(frame0), frames.to_float(frame1)]) * 2 - 1
        image0, image1 = F.pad(pair, (0, right, 0, below), mode="replicate").split(1)
        flow = self.net(image0, image1, num_flow_updates=self.updates)[-1]
        return rearrange(flow[0, :, :H, :W], "xy H W -> H W xy").numpy(force=True).copy()


def _load(name: str, net: nn.Module, path: str | os.PathLike) -> None:
    """Weights of a file into a network, all of them or none."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{name}: no file {path}; weights are never downloaded, name torchvision's own file.")
    try:
        safe = path.suffix == ".safetensors"
        net.load_state_dict(load_file(path) if safe else torch.load(path, map_location="cpu", weights_only=True))
    except (AttributeError, EOFError, OSError, RuntimeError, SafetensorError, TypeError, UnpicklingError) as error:
        got = "other tensors" if isinstance(error, RuntimeError) else f"no file of tensors ({type(error).__name__})"
        raise ValueError(f"{name}: {path} should hold torchvision's weights of this network, got {got}.") from None
