"""What a user would run instead of a learnt model, behind the same interfaces.

A tracker is called with a video and query points (N, 3) as (t, x, y), and returns
`PointTracks`: `track_static`, `track_lk`, `track_dis`, `track_farneback`. All but the first
carry points from frame to frame, forwards and backwards in time, at the video's own
resolution; `propagate_masks_dis` does so with masks. An encoder is called with frames and
returns `Features`, to be used in the model's own tracker: `SiftEncoder`, `RawPatchEncoder`.
Nothing here learns.
"""

import itertools
from collections.abc import Callable, Sequence

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Float, Int
from torch import Tensor, nn

from . import coords, frames, propagation
from .encoder import Features
from .samples import PointTracks

ALPHA, BETA = 0.01, 0.5  # of forward-backward consistency, as for the model
LK_WINDOW = 21  # pixels, on each of the pyramid's levels
LK_LEVELS = 4
DIS_PRESETS = {
    "ultrafast": cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST,
    "fast": cv2.DISOPTICAL_FLOW_PRESET_FAST,
    "medium": cv2.DISOPTICAL_FLOW_PRESET_MEDIUM,
}

Points = Tensor | np.ndarray | Sequence  # (N, 3)

# Moves points (n, 2) from frame a to frame b, and tells how far from home they come back.
Move = Callable[[int, int, Tensor], tuple[Tensor, Tensor]]


def track_static(video: frames.Source, query_points: Points) -> PointTracks:
    """Points that stay where they were asked for: the floor of every benchmark.

    Args, Raises: as for `track_dis`.
    """
    opened = frames.open_video(video)
    num_frames = opened.num_frames if isinstance(opened.source, Tensor | list) else sum(1 for _ in opened)
    queries = _check_queries(query_points, num_frames, opened.size_hw)
    tracks = repeat(queries[:, 1:], "N xy -> T N xy", T=num_frames).clone()
    everywhere = torch.ones(tracks.shape[:2])
    return PointTracks(tracks, everywhere.bool(), everywhere)


def track_lk(video: frames.Source, query_points: Points) -> PointTracks:
    """Pyramidal Lucas-Kanade from frame to frame, visible while it returns to its start.

    Args, Raises: as for `track_dis`.

    Source: Lucas and Kanade, IJCAI 1981; Bouguet, 2000, as OpenCV has it.
    """
    greys = _greys(video)
    queries = _check_queries(query_points, len(greys), greys[0].shape)
    settings = {"winSize": (LK_WINDOW, LK_WINDOW), "maxLevel": LK_LEVELS - 1}

    def move(a: int, b: int, xy: Tensor) -> tuple[Tensor, Tensor]:
        start = np.ascontiguousarray(xy.numpy())
        there, found, _ = cv2.calcOpticalFlowPyrLK(greys[a], greys[b], start, None, **settings)
        home, returned, _ = cv2.calcOpticalFlowPyrLK(greys[b], greys[a], there, None, **settings)
        lost = torch.from_numpy((found[:, 0] == 0) | (returned[:, 0] == 0) | ~np.isfinite(there).all(1))
        there = torch.where(lost[:, None], xy, torch.from_numpy(there))
        return there, (torch.from_numpy(home) - xy).norm(dim=-1).masked_fill(lost, torch.inf)

    return _carry(greys, queries, move)


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
    if preset not in DIS_PRESETS:
        raise ValueError(f"track_dis: preset should be one of {', '.join(DIS_PRESETS)}, got {preset}.")
    dis = cv2.DISOpticalFlow_create(DIS_PRESETS[preset])
    return _track_dense(video, query_points, lambda a, b: dis.calc(a, b, None))


def propagate_masks_dis(
    video: frames.Source, first_mask: Tensor | np.ndarray, preset: str = "medium"
) -> Int[Tensor, "T H W"]:
    """Masks fetched from the first frame along chained flow, at the video's own resolution.

    Each pixel follows the flow back, one frame at a time, and takes the label it ends at.

    Args:
        video, preset: as for `track_dis`.
        first_mask: (H, W), as for `propagation.propagate_masks`.

    Raises:
        ValueError: an unknown preset, or a mask that `propagation.propagate_masks` refuses.

    Source: Kroeger et al., ECCV 2016, as OpenCV has it.
    """
    if preset not in DIS_PRESETS:
        raise ValueError(f"propagate_masks_dis: preset should be one of {', '.join(DIS_PRESETS)}, got {preset}.")
    opened = frames.open_video(video)
    mask = propagation.check_mask("propagate_masks_dis", first_mask, opened.size_hw)
    dis = cv2.DISOpticalFlow_create(DIS_PRESETS[preset])
    pixels = coords.grid(opened.size_hw)
    home, greys, out = rearrange(pixels, "H W xy -> 1 xy H W"), _greys(opened), [mask]
    last = torch.tensor(opened.size_hw[::-1]) - 1
    for before, now in itertools.pairwise(greys):
        there = pixels + torch.from_numpy(dis.calc(now, before, None))
        home = coords.sample(home, there[None])[0]
        x, y = torch.minimum(rearrange(home[0], "xy H W -> H W xy").round().long().clamp(min=0), last).unbind(-1)
        out.append(mask[y, x])
    return torch.stack(out)


def track_farneback(video: frames.Source, query_points: Points) -> PointTracks:
    """Dense optical flow by polynomial expansion, chained from frame to frame.

    Args, Raises: as for `track_dis`.

    Source: Farnebäck, SCIA 2003, as OpenCV has it.
    """
    settings = {"pyr_scale": 0.5, "levels": 5, "winsize": 15, "iterations": 3, "poly_n": 7, "poly_sigma": 1.5}
    return _track_dense(video, query_points, lambda a, b: cv2.calcOpticalFlowFarneback(a, b, None, **settings, flags=0))


def _track_dense(
    video: frames.Source, query_points: Points, flow_between: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> PointTracks:
    """Points carried by a dense flow, which is computed once for each pair and direction."""
    greys = _greys(video)
    queries = _check_queries(query_points, len(greys), greys[0].shape)
    last_query = queries[:, 0].amax()
    flows: dict[tuple[int, int], Tensor] = {}

    def flow(a: int, b: int, xy: Tensor) -> Tensor:
        if (a, b) not in flows:
            flows[a, b] = rearrange(torch.from_numpy(flow_between(greys[a], greys[b])), "H W xy -> 1 xy H W")
        return coords.sample(flows[a, b], xy[None])[0][0].T

    def move(a: int, b: int, xy: Tensor) -> tuple[Tensor, Tensor]:
        there = xy + flow(a, b, xy)
        home = there + flow(b, a, there)
        if min(a, b) >= last_query:  # no point comes back through here, so let the memory go
            del flows[a, b], flows[b, a]
        return there, (home - xy).norm(dim=-1)

    return _carry(greys, queries, move)


def _carry(greys: list[np.ndarray], queries: Float[Tensor, "N 3"], move: Move) -> PointTracks:
    """Points moved one frame at a time, away from their query frame in both directions."""
    size_hw, start = greys[0].shape, queries[:, 0].long()
    tracks = repeat(queries[:, 1:], "N xy -> T N xy", T=len(greys)).clone()
    visible = torch.ones(tracks.shape[:2], dtype=torch.bool)
    confidence = torch.ones(tracks.shape[:2])
    for step in (1, -1):
        for a in range(len(greys) - 1) if step == 1 else range(len(greys) - 1, 0, -1):
            b, on = a + step, (a - start) * step >= 0
            if not on.any():
                continue
            tracks[b, on], error = move(a, b, tracks[a, on])
            squares = 2 * (tracks[b, on] - tracks[a, on]).square().sum(-1)
            good = (error.square() < ALPHA * squares + BETA) & coords.inside(tracks[b, on], size_hw)
            visible[b, on] = good & visible[a, on]  # a chain that lost its point follows another one
            confidence[b, on] = torch.exp(-error) * confidence[a, on] * good
    return PointTracks(tracks, visible, confidence)


def _greys(video: frames.Source) -> list[np.ndarray]:
    """The frames of a video as OpenCV's flows want them: (H, W) uint8."""
    return [
        cv2.cvtColor(np.ascontiguousarray(rearrange(frame, "C H W -> H W C").numpy()), cv2.COLOR_RGB2GRAY)
        for frame in frames.open_video(video)
    ]


def _check_queries(query_points: Points, num_frames: int, size_hw: tuple[int, int]) -> Float[Tensor, "N 3"]:
    """Query points as float32, refused where they are not points of the clip."""
    queries = torch.as_tensor(query_points, dtype=torch.float32)
    if queries.ndim != 2 or queries.shape[1] != 3 or not len(queries):
        raise ValueError(f"query_points should be (N, 3) as (t, x, y), N at least 1, got {tuple(queries.shape)}.")
    t, xy = queries[:, 0], queries[:, 1:]
    good = (t == t.round()) & (t >= 0) & (t < num_frames) & coords.inside(xy, size_hw)  # NaN is nowhere
    if not good.all():
        n = int((~good).nonzero()[0])
        got = ", ".join(f"{v:g}" for v in queries[n].tolist())
        raise ValueError(
            f"query_points: point {n} should be (t, x, y) with t in 0 .. {num_frames - 1} and (x, y) inside "
            f"the {size_hw[1]} x {size_hw[0]} frame, got ({got})."
        )
    return queries


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
    # Of calibration.calibrate with temperature 0.03, on the clips of benchmarks.procedural_calib.
    calibration = (3.8507, 1.9082, 1.0085, -0.4662, 0.053, -0.3167, -4.2409)

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
    neighbouring pixels for the fine ones.
    """

    coarse_lattice = coords.Lattice(8, 0.0)
    fine_lattice = coords.Lattice(2, 0.0)
    calibration = (1.0512, 2.1178, -1.0943, -0.411, -0.0841, -0.9292, 0.5387)  # likewise, temperature 0.05

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Features:
        lab = frames.rgb_to_lab(images)
        blurred = F.avg_pool2d(F.pad(lab, (2, 2, 2, 2), mode="replicate"), 5, stride=1)
        return Features(
            _patches(blurred, self.coarse_lattice, images.shape[-2:], spacing=4),
            _patches(lab, self.fine_lattice, images.shape[-2:], spacing=1),
        )


def _patches(
    lab: Float[Tensor, "B 3 H W"], lattice: coords.Lattice, size_hw: tuple[int, int], spacing: int
) -> Float[Tensor, "B 75 h w"]:
    """Unit-length 5 x 5 patches of samples some pixels apart, centred on a lattice's cells."""
    padded = F.pad(lab, (2 * spacing,) * 4, mode="replicate")
    patches = F.unfold(padded, kernel_size=5, dilation=spacing, stride=lattice.stride)
    h, w = coords.lattice_size(tuple(size_hw), lattice)
    patches = rearrange(patches, "B (C k) (h w) -> B C k h w", C=3, h=h, w=w)
    patches = patches - patches.mean(dim=2, keepdim=True)  # without brightness and tint
    return F.normalize(rearrange(patches, "B C k h w -> B (C k) h w") + 1e-6, dim=1)
