"""What each method computes of a video once, kept so that a question about it is answered at once.

`Replay` keeps a model's features, `FlowReplay` the flow between neighbouring frames; both follow
points and carry masks with what they keep. Everything is held in memory: features take about
8 MB a frame of 256 x 456 pixels, flow 2 MB.
"""

import itertools
from collections.abc import Callable, Iterator

import cv2
import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from . import baselines, chains, coords, following, frames, looks, propagation
from .encoder import Features, device_of, encode
from .following import TrackerConfig
from .looks import Look
from .samples import PointTracks
from .tracking import check_points

Progress = Callable[[int, int], None]  # called with the number done and the number there are


class Replay(nn.Module):
    """A model's features of a video: an encoder that does not look at frames, but knows which comes next.

    Args:
        model: an encoder.
        video: (T, 3, H, W), uint8, all of it held in memory.
        config: of the tracker; its `lines` say at what size frames are encoded.
        progress: called after each frame.
    """

    def __init__(
        self,
        model: nn.Module,
        video: UInt8[Tensor, "T 3 H W"],
        config: TrackerConfig | None = None,
        progress: Progress | None = None,
    ):
        super().__init__()
        self.eval()
        self.config = (config or TrackerConfig()).of(model)
        self.coarse_lattice, self.fine_lattice = model.coarse_lattice, model.fine_lattice
        self.video, self.size_hw = video, tuple(video.shape[2:])
        self.work_hw = self.config.size(self.size_hw)
        device = device_of("Replay", model)
        self.register_buffer("place", torch.empty(0, device=device))  # who asks an encoder for its device finds it
        self.model, self.features = model, []
        self.looked: tuple[int, tuple, list[Look]] = (-1, (), [])  # frame, looks asked for, and what they show
        self.order: Iterator[int] = iter(())
        for t in range(len(video)):
            with torch.inference_mode():
                self.features.append(encode(model, self._small(t), self.config.bfloat16))
            if progress:
                progress(t + 1, len(video))

    def forward(self, rgb: Float[Tensor, "1 3 H W"]) -> Features:
        return self.features[next(self.order)]

    def _small(self, t: int) -> Float[Tensor, "1 3 h w"]:
        """A frame as it is encoded."""
        return coords.resize_frames(frames.to_float(self.video[t])[None].to(self.place.device), self.work_hw)

    def _looks(self, t: int) -> list[Look]:
        """All looks at a frame; those at the one asked about last are kept."""
        wanted = self.config.looks
        if self.looked[:2] != (t, wanted):
            seen = looks.looks(self.model, self._small(t), self.features[t], wanted, self.config.bfloat16)
            self.looked = (t, wanted, seen)
        return self.looked[2]

    @torch.inference_mode()
    def follow(self, query: Float[Tensor, "3"]) -> PointTracks:
        """One point (t, x, y) through all frames, in both directions: `track_points` without encoding them again.

        Positions may differ from those of `track_points` by the last bits, since a point is here
        worked on alone and there in whole tiles of 64.

        Raises:
            ValueError: the point is outside the frame or the video.
        """
        t0, xy = _check_query(query, len(self.features), self.size_hw)
        lattices, device = (self.coarse_lattice, self.fine_lattice), self.place.device
        start = coords.resize_points(xy.to(device), self.size_hw, self.work_hw)
        asked, first = following.parted(following.start(self._looks(t0), lattices, start, self.config))
        position, confidence = [start] * len(self.features), [torch.ones(1, device=device)] * len(self.features)
        for order in (range(t0 + 1, len(self.features)), range(t0 - 1, -1, -1)):
            state = first
            for t in order:
                *moved, confidence[t] = following.advance(self.features[t], lattices, asked, state, self.config)
                state = following.State(*moved)
                position[t] = state.position
        tracks = coords.resize_points(torch.stack(position), self.work_hw, self.size_hw)
        tracks[t0], confidence = xy, torch.stack(confidence).cpu()
        visible = (confidence > self.config.visible) & coords.inside(tracks, self.size_hw).cpu()
        return PointTracks(tracks.cpu(), visible, confidence)

    def carry(self, t: int, mask: Tensor, progress: Progress | None = None) -> Int[Tensor, "T H W"]:
        """Masks of frame t carried to all frames, in both directions.

        Raises:
            ValueError: the mask is none that `propagate_masks` takes.
        """
        encoded = {name: getattr(self.config, name) for name in ("lines", "magnify", "bfloat16")}
        config = propagation.PropagationConfig(**encoded)

        def carried(order: list[int], counted: Iterator[int]) -> Tensor:
            self.order = counted
            return propagation.propagate_masks(self, self.video[order], mask, config)

        return _both_ways(carried, t, len(self.features), progress)


class FlowReplay:
    """Dense inverse-search flow between neighbouring frames of a video, for what a user would run instead."""

    def __init__(self, video: UInt8[Tensor, "T 3 H W"], progress: Progress | None = None):
        self.size_hw, self.num_frames = tuple(video.shape[2:]), len(video)
        images = [np.ascontiguousarray(rearrange(frame, "C H W -> H W C").numpy()) for frame in video]
        greys = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in images]
        self.flows: dict[tuple[int, int], Float[np.ndarray, "H W 2"]] = {}
        for a in range(len(greys) - 1):
            for pair in ((a, a + 1), (a + 1, a)):
                flow = cv2.DISOpticalFlow_create(baselines.DIS_PRESETS["medium"])
                self.flows[pair] = flow.calc(greys[pair[0]], greys[pair[1]], None)
            if progress:
                progress(a + 2, len(greys))

    def _flow(self, a: int, b: int) -> Float[np.ndarray, "H W 2"]:
        return self.flows[a, b]

    def follow(self, query: Float[Tensor, "3"]) -> PointTracks:
        """One point (t, x, y) through all frames, as `baselines.track_dis`.

        Raises:
            ValueError: the point is outside the frame or the video.
        """
        _check_query(query, self.num_frames, self.size_hw)
        return chains.track_flow(range(self.num_frames), self.size_hw, query[None], self._flow)

    def carry(self, t: int, mask: Tensor, progress: Progress | None = None) -> Int[Tensor, "T H W"]:
        """Masks of frame t carried to all frames, as `baselines.propagate_masks_dis` in both directions.

        Raises:
            ValueError: the mask is none that `propagate_masks` takes.
        """

        def carried(order: list[int], counted: Iterator[int]) -> Tensor:
            return chains.propagate_masks_flow(counted, self.size_hw, mask, self._flow)

        return _both_ways(carried, t, self.num_frames, progress)


def _both_ways(
    carried: Callable[[list[int], Iterator[int]], Tensor], t: int, num_frames: int, progress: Progress | None
) -> Int[Tensor, "T H W"]:
    """What is carried from frame t to the end and to the start, given a list of frames and the same, counted."""
    done = itertools.count(1)

    def counted(order: list[int]) -> Iterator[int]:
        for frame in order:
            if progress:
                progress(next(done), num_frames + bool(t))
            yield frame

    later, earlier = list(range(t, num_frames)), list(range(t, -1, -1))
    after = carried(later, counted(later))
    return torch.cat([carried(earlier, counted(earlier)).flip(0)[:-1], after]) if t else after


def _check_query(
    query: Float[Tensor, "3"], num_frames: int, size_hw: tuple[int, int]
) -> tuple[int, Float[Tensor, "1 2"]]:
    """The frame and the place of a query, if they are in the video."""
    t, xy = query[0].item(), query[None, 1:]
    if t not in range(num_frames):
        raise ValueError(f"follow: t should be a whole number in 0 .. {num_frames - 1}, got {t:g}.")
    check_points("follow", xy, size_hw)
    return int(t), xy
