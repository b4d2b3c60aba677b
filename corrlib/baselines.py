"""What a user would run instead of a learnt model, behind the same interfaces.

A tracker is called with a video and query points (N, 3) as (t, x, y), and returns
`PointTracks`: `track_static`, `track_lk`, `track_dis`, `track_farneback`. A propagator is called
with a video and the first frame's mask, and returns masks: `propagate_masks_static`,
`propagate_masks_dis`, `propagate_masks_farneback`. All but the static ones go from frame to
frame (`chains`), at the video's own resolution. An encoder is called with frames and returns
`Features`, to be used in the model's own tracker: `SiftEncoder`, `RawPatchEncoder`. Nothing here
learns; torchvision's networks are in `torchvision_models`.
"""

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Float, Int
from torch import Tensor, nn

from . import chains, cielab, coords, frames, softmasks
from .chains import Points
from .encoder import Features
from .samples import PointTracks

LK_WINDOW = 21  # pixels, on each of the pyramid's levels
LK_LEVELS = 4
DIS_PRESETS = {
    "ultrafast": cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST,
    "fast": cv2.DISOPTICAL_FLOW_PRESET_FAST,
    "medium": cv2.DISOPTICAL_FLOW_PRESET_MEDIUM,
}


def track_static(video: frames.Source, query_points: Points) -> PointTracks:
    """Points that stay where they were asked for: the floor of every benchmark.

    Args, Raises: as for `track_dis`.
    """
    opened = frames.open_video(video)
    num_frames = _count(opened)
    queries = chains.check_queries(query_points, num_frames, opened.size_hw)
    tracks = repeat(queries[:, 1:], "N xy -> T N xy", T=num_frames).clone()
    everywhere = torch.ones(tracks.shape[:2])
    return PointTracks(tracks, everywhere.bool(), everywhere)


def track_lk(video: frames.Source, query_points: Points) -> PointTracks:
    """Pyramidal Lucas-Kanade from frame to frame, visible while it returns to its start.

    Args, Raises: as for `track_dis`.

    Source: Lucas and Kanade, IJCAI 1981; Bouguet, 2000, as OpenCV has it.
    """
    greys = _greys(video)
    queries = chains.check_queries(query_points, len(greys), greys[0].shape)
    settings = {"winSize": (LK_WINDOW, LK_WINDOW), "maxLevel": LK_LEVELS - 1}

    def move(a: int, b: int, xy: Tensor) -> tuple[Tensor, Tensor]:
        start = np.ascontiguousarray(xy.numpy())
        there, found, _ = cv2.calcOpticalFlowPyrLK(greys[a], greys[b], start, None, **settings)
        home, returned, _ = cv2.calcOpticalFlowPyrLK(greys[b], greys[a], there, None, **settings)
        lost = torch.from_numpy((found[:, 0] == 0) | (returned[:, 0] == 0) | ~np.isfinite(there).all(1))
        there = torch.where(lost[:, None], xy, torch.from_numpy(there))
        return there, (torch.from_numpy(home) - xy).norm(dim=-1).masked_fill(lost, torch.inf)

    return chains.carry(len(greys), greys[0].shape, queries, move)


def track_dis(video: frames.Source, query_points: Points, preset: str = "medium") -> PointTracks:
    """Dense inverse-search optical flow, chained from frame to frame.

    Args:
        video: as in `frames.open_video`, T frames.
        query_points: (N, 3), (t, x, y) in pixels, t a whole number.
        preset: "ultrafast", "fast" or "medium".

    Returns:
        tracks (T, N, 2), before the query frame too; a point is visible in its query frame
        and on from there while it is inside and each step to it is consistent.

    Raises:
        ValueError: an unknown preset, no queries, or one outside the frame or the clip.

    Source: Kroeger et al., ECCV 2016, as OpenCV has it.
    """
    greys = _greys(video)
    return chains.track_flow(greys, greys[0].shape, query_points, _dis("track_dis", preset))


def propagate_masks_dis(
    video: frames.Source, first_mask: Tensor | np.ndarray, preset: str = "medium"
) -> Int[Tensor, "T H W"]:
    """Masks fetched from the first frame along chained dense inverse-search flow.

    Args:
        video, preset: as for `track_dis`.
        first_mask: (H, W), as for `propagation.propagate_masks`.

    Raises:
        ValueError: an unknown preset, or a mask that `propagation.propagate_masks` refuses.

    Source: Kroeger et al., ECCV 2016, as OpenCV has it.
    """
    return _masks(video, first_mask, _dis("propagate_masks_dis", preset))


def track_farneback(video: frames.Source, query_points: Points) -> PointTracks:
    """Dense optical flow by polynomial expansion, chained from frame to frame.

    Args, Raises: as for `track_dis`.

    Source: Farnebäck, SCIA 2003, as OpenCV has it.
    """
    greys = _greys(video)
    return chains.track_flow(greys, greys[0].shape, query_points, _farneback)


def propagate_masks_farneback(video: frames.Source, first_mask: Tensor | np.ndarray) -> Int[Tensor, "T H W"]:
    """Masks fetched from the first frame along chained flow by polynomial expansion.

    Args, Raises: as for `propagate_masks_dis`.
    """
    return _masks(video, first_mask, _farneback)


def propagate_masks_static(video: frames.Source, first_mask: Tensor | np.ndarray) -> Int[Tensor, "T H W"]:
    """The first frame's mask in every frame: the floor.

    Args, Raises: as for `propagate_masks_dis`.
    """
    opened = frames.open_video(video)
    mask = softmasks.check_mask("propagate_masks", first_mask, opened.size_hw)
    return repeat(mask, "H W -> T H W", T=_count(opened)).clone()


def _dis(name: str, preset: str) -> chains.Flow:
    """The flow of a preset."""
    if preset not in DIS_PRESETS:
        raise ValueError(f"{name}: preset should be one of {', '.join(DIS_PRESETS)}, got {preset}.")
    # One object a pair: on small frames OpenCV's changes its own settings, and answers the second time otherwise.
    return lambda a, b: cv2.DISOpticalFlow_create(DIS_PRESETS[preset]).calc(a, b, None)


def _farneback(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Farnebäck's flow, for frames of some hundred lines."""
    settings = {"pyr_scale": 0.5, "levels": 5, "winsize": 15, "iterations": 3, "poly_n": 7, "poly_sigma": 1.5}
    return cv2.calcOpticalFlowFarneback(a, b, None, **settings, flags=0)


def _masks(video: frames.Source, first_mask: Tensor | np.ndarray, flow: chains.Flow) -> Int[Tensor, "T H W"]:
    """Masks along a flow of grey frames."""
    opened = frames.open_video(video)
    return chains.propagate_masks_flow(_greys(opened), opened.size_hw, first_mask, flow)


def _count(opened: frames.Video) -> int:
    """How many frames there are; of a file only reading tells."""
    return opened.num_frames if isinstance(opened.source, Tensor | list) else sum(1 for _ in opened)


def _greys(video: frames.Source) -> list[np.ndarray]:
    """The frames of a video as OpenCV's flows want them: (H, W) uint8."""
    return [
        cv2.cvtColor(np.ascontiguousarray(rearrange(frame, "C H W -> H W C").numpy()), cv2.COLOR_RGB2GRAY)
        for frame in frames.open_video(video)
    ]


class SiftEncoder(nn.Module):
    """Dense upright SIFT at two scales: 4 x 4 bins of 8 orientations around each cell's pixel.

    Bins are 8 px wide for the coarse features and 3 px for the fine ones; a gradient is
    shared linearly among the two nearest orientations and the four nearest bins. Histograms
    get unit length, are clipped at 0.2, and get unit length again.

    Source: Lowe, IJCV 2004; dense and upright as in Liu et al., SIFT flow, TPAMI 2011.
    Differs: no Gaussian weight over the window, no search for scale or rotation.
    """

    coarse_lattice = coords.Lattice(8, 0.0)
    fine_lattice = coords.Lattice(2, 0.0)
    # calibration.calibrate(SiftEncoder(), [task.read()[0] for task in benchmarks.procedural_calib()], methods.SIFT[0]),
    # when landmarks were taken at their word: before they were weighed and what leaps had to be more alike
    calibration = (0.3007, 2.7519, 2.0565, -1.2982, -0.6255, 0.0581, -1.2757)

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Features:
        grey = torch.einsum("bchw,c->bhw", images, images.new_tensor([0.299, 0.587, 0.114]))[:, None]
        gradients = _orientations(grey)
        return Features(
            _histograms(gradients, self.coarse_lattice.stride, bin_px=8),
            _histograms(gradients, self.fine_lattice.stride, bin_px=3),
        )


def _orientations(grey: Float[Tensor, "B 1 H W"]) -> Float[Tensor, "B 8 H W"]:
    """Gradient magnitude of each pixel, shared between the two nearest of 8 directions."""
    padded = F.pad(grey, (1, 1, 1, 1), mode="replicate")
    dx = (padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]) / 2
    dy = (padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]) / 2
    turn = torch.atan2(dy, dx) * (4 / torch.pi)  # in eighths of a turn
    bins = torch.arange(8, device=grey.device)[:, None, None]
    distance = (turn - bins + 4) % 8 - 4  # around the circle, in [-4, 4)
    return (1 - distance.abs()).clamp(min=0) * torch.hypot(dx, dy)


def _histograms(gradients: Float[Tensor, "B 8 H W"], stride: int, bin_px: int) -> Float[Tensor, "B 128 h w"]:
    """Gradients gathered in 4 x 4 triangular bins, by one convolution along each axis."""
    reach = (5 * bin_px - 1) // 2  # the outermost pixel with a weight above 0
    offsets = torch.arange(-reach, reach + 1, dtype=torch.float32, device=gradients.device)
    centres = (torch.arange(4, device=gradients.device) - 1.5) * bin_px
    taps = (1 - (offsets - centres[:, None]).abs() / bin_px).clamp(min=0)
    across = repeat(taps, "x k -> (o x) 1 1 k", o=8)
    down = repeat(taps, "y k -> (ox y) 1 k 1", ox=32)
    rows = F.conv2d(gradients, across, stride=(1, stride), padding=(0, reach), groups=8)
    histograms = F.conv2d(rows, down, stride=(stride, 1), padding=(reach, 0), groups=32)
    unit = F.normalize(histograms + 1e-6, dim=1)  # a flat patch has the even histogram, not none
    return F.normalize(unit.clamp(max=0.2), dim=1)


class RawPatchEncoder(nn.Module):
    """Colour patches themselves: 5 x 5 Lab samples around each cell's pixel, less their mean.

    Samples are 4 px apart, each the mean of 5 x 5 pixels, for the coarse features, and
    neighbouring pixels for the fine ones. Five channels of zeros fill the 75 up to 80: sums over rows
    whose length is no multiple of a vector's depend, in their last bit, on where a row lies.
    """

    coarse_lattice = coords.Lattice(8, 0.0)
    fine_lattice = coords.Lattice(2, 0.0)
    calibration = (-0.0319, 1.1417, 0.1742, 0.4109, -0.1864, -0.0495, -0.0467)  # likewise, by methods.PATCHES[0]

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Features:
        lab = cielab.rgb_to_lab(images)
        blurred = F.avg_pool2d(F.pad(lab, (2, 2, 2, 2), mode="replicate"), 5, stride=1)
        return Features(
            _patches(blurred, self.coarse_lattice, images.shape[-2:], spacing=4),
            _patches(lab, self.fine_lattice, images.shape[-2:], spacing=1),
        )


def _patches(
    lab: Float[Tensor, "B 3 H W"], lattice: coords.Lattice, size_hw: tuple[int, int], spacing: int
) -> Float[Tensor, "B 80 h w"]:
    """Unit-length 5 x 5 patches of samples some pixels apart, centred on a lattice's cells."""
    padded = F.pad(lab, (2 * spacing,) * 4, mode="replicate")
    patches = F.unfold(padded, kernel_size=5, dilation=spacing, stride=lattice.stride)
    h, w = coords.lattice_size(tuple(size_hw), lattice)
    patches = rearrange(patches, "B (C k) (h w) -> B C k h w", C=3, h=h, w=w)
    patches = patches - patches.mean(dim=2, keepdim=True)  # without brightness and tint
    unit = F.normalize(rearrange(patches, "B C k h w -> B (C k) h w") + 1e-6, dim=1)
    return F.pad(unit, (0, 0, 0, 0, 0, 5))
