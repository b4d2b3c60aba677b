"""Masks and joints carried through a video.

Labels of the first frame live as soft maps on a grid of cells. Each cell of a new frame asks a
memory, the first frame and the most recent ones, for the cells around its own place that look
like it, and takes the mean of what these hold. Frames are read one at a time; memory does not
grow with the video. Single points are `tracking`'s, the match of two frames is `dense`'s.
"""

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from . import coords, frames, softmasks
from .encoder import Features, device_of, encode

BLOCK = 8  # cells on a side of the blocks of queries that are multiplied at once
ROWS = 60  # of cells on the shorter side of a frame, where no stride is asked for
SAME = 1e-3  # where all masks in sight differ by less, nobody need be asked


@dataclass(frozen=True)
class PropagationConfig:
    """How labels are carried."""

    lines: int = 480  # frames whose shorter side has more pixels are reduced to so many there; 0 never
    magnify: float = 1.0  # times as large as that leaves them, they are looked at
    stride: int = 0  # of the grid of labels, in pixels of the reduced frame; 0 makes its shorter side 60 cells
    coarse: float = 0.5  # share of the coarse features in the similarity
    recent: int = 7  # frames remembered beside the first one
    radius: float = 16.0  # of the circle of cells looked at, in cells
    top_k: int = 20  # only so many cells of all memory count; 0 for all
    temperature: float = 0.12
    least: float = 0.3  # range of an object's soft mask below which it is not stretched to 1; 1 never does
    edge: int = 4  # radius of the filter that draws masks to edges of the image, in pixels; 0 for none
    sigma: float = 6.0  # of the Gaussian a joint is drawn as, in pixels of the reduced frame
    aligned: bool = True  # False decodes joints half a cell's pixels off, as released
    bfloat16: bool = True  # the encoder's products, where the processor has such instructions

    def __post_init__(self) -> None:
        """Refuse what cannot be carried."""
        for name, least in (("lines", 0), ("stride", 0), ("recent", 1), ("radius", 1), ("top_k", 0), ("edge", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"PropagationConfig: {name} should be at least {least}, got {getattr(self, name)}.")
        if not 0 <= self.coarse <= 1:
            raise ValueError(f"PropagationConfig: coarse should be in [0, 1], got {self.coarse}.")
        for name in ("temperature", "sigma", "least", "magnify"):
            if not getattr(self, name) > 0:
                raise ValueError(f"PropagationConfig: {name} should be above 0, got {getattr(self, name)}.")

    def grid(self, size_hw: tuple[int, int]) -> coords.Lattice:
        """The cells that hold the labels of a (reduced) frame of that size."""
        return coords.Lattice(self.stride or max(2, round(min(size_hw) / ROWS)))


# The paper's: fine features alone, at stride 2, first frame and five more, counted twice while they are the same.
PAPER = PropagationConfig(
    lines=256,
    stride=2,
    coarse=0.0,
    recent=5,
    radius=15.0,
    top_k=10,
    temperature=0.07,
    edge=0,
    least=1.0,
    bfloat16=False,
)


def propagate_masks(
    model: nn.Module,
    video: frames.Source,
    first_mask: Tensor | np.ndarray,
    config: PropagationConfig | None = None,
) -> Int[Tensor, "T H W"]:
    """Object masks of the first frame carried through a video.

    Args:
        model: an encoder (`load_pretrained()`).
        video: a path, or frames (T, 3, H, W) as a tensor or an array; files are read lazily.
        first_mask: (H, W) integers, 0 the background and 1 to K the objects, or booleans.
        config: how to carry; `PAPER` for the paper's way.

    Returns:
        (T, H, W) int64 on the CPU, with the ids given; frame 0 is the mask given.

    Raises:
        ValueError: the mask has another size or type, a negative id, no object, or not each of 1
            to K; the video's frames change their size.
        FileNotFoundError: there is no such video.

    Differs: the paper's release carries points alone; masks are as in Jabri, Owens and Efros,
    NeurIPS 2020, on a grid finer than theirs, with an edge-aware way back to pixels.
    """
    return torch.stack(list(iterate_masks(model, video, first_mask, config)))


def iterate_masks(
    model: nn.Module,
    video: frames.Source,
    first_mask: Tensor | np.ndarray,
    config: PropagationConfig | None = None,
) -> Iterator[Int[Tensor, "H W"]]:
    """`propagate_masks` one frame at a time, for long videos: all their masks take 8 bytes a pixel.

    Raises:
        FileNotFoundError, ValueError: as `propagate_masks`, when the first mask is asked for.
    """
    config, opened = config or PropagationConfig(), frames.open_video(video)
    mask = softmasks.check_mask("propagate_masks", first_mask, opened.size_hw)
    onehot = F.one_hot(mask).permute(2, 0, 1)[None].float()
    yield mask
    work_hw = coords.reduced_size(opened.size_hw, config.lines, config.magnify)
    grid = config.grid(work_hw)
    first = softmasks.to_grid(coords.resize_maps(onehot, work_hw), grid.stride)
    for frame, labels in _carried(model, opened, first, config, SAME):
        maps = coords.relattice(labels, grid, coords.PIXELS, work_hw)
        if config.edge:
            maps = softmasks.to_edges(maps, frame, config.edge)
        if config.least < 1:
            maps = softmasks.stretched(maps, config.least)
        yield softmasks.largest(coords.resize_maps(maps, opened.size_hw)[0]).cpu()


def propagate_joints(
    model: nn.Module, video: frames.Source, first_joints: Tensor, config: PropagationConfig | None = None
) -> Float[Tensor, "T J 2"]:
    """Joints of the first frame carried through a video as heat maps, by default the paper's way.

    Args:
        model, video: as for `propagate_masks`.
        first_joints: (J, 2) as (x, y), pixels inside the first frame.
        config: how to carry; `PAPER` if not given.

    Returns:
        (T, J, 2) on the CPU, the mean of the five highest pixels of each map weighted by their
        heights; (-1, -1) where nothing is left of one. Frame 0 has the joints given.

    Raises:
        ValueError: no joints, or one outside the frame or not a number; frames change their size.
        FileNotFoundError: there is no such video.

    Source: Li, Zhou and Liu, ICCV 2023, inference; `vanilla_tracker.py` of their release.
    Differs: theirs puts cell j at pixel 2 j + 0.5 on the way back, which moves every answer by
    half a pixel; `aligned=False` does the same. Frames keep their shape; theirs are 256 x 256.
    """
    config, opened = config or PAPER, frames.open_video(video)
    joints = torch.as_tensor(first_joints, dtype=torch.float32).cpu()
    if joints.ndim != 2 or joints.shape[1] != 2 or not len(joints):
        expected = "(J, 2) as (x, y), J at least 1"
        raise ValueError(f"propagate_joints: first_joints should be {expected}, got {tuple(joints.shape)}.")
    outside = ~coords.inside(joints, opened.size_hw)  # NaN is nowhere
    if outside.any():
        x, y = joints[outside][0].tolist()
        size = f"{opened.size_hw[1]} x {opened.size_hw[0]}"
        raise ValueError(f"propagate_joints: joint ({x:g}, {y:g}) should be inside the frame of {size} pixels.")
    work_hw = coords.reduced_size(opened.size_hw, config.lines, config.magnify)
    grid = config.grid(work_hw)
    at = coords.resize_points(joints, opened.size_hw, work_hw)
    cells = coords.to_pixels(coords.grid(coords.lattice_size(work_hw, grid)), grid)
    first = torch.exp(-(cells - at[:, None, None]).square().sum(-1) / (2 * config.sigma**2))[None]
    out = [joints]
    pixels = coords.grid(work_hw).flatten(0, 1)
    for _, labels in _carried(model, opened, first, config, 0.0):  # so that no joint hangs on another
        labels = labels.cpu()
        aligned = coords.relattice(labels, grid, coords.PIXELS, work_hw) if config.aligned else None
        maps = coords.resize_maps(labels, work_hw) if aligned is None else aligned
        height, where = maps[0].flatten(1).topk(min(5, len(pixels)), dim=1)
        total = height.sum(dim=1, keepdim=True)
        xy = (height[..., None] * pixels[where]).sum(dim=1) / total.clamp(min=1e-12)
        out.append(torch.where(total > 0, coords.resize_points(xy, work_hw, opened.size_hw), -1.0))
    return torch.stack(out)


def _carried(
    model: nn.Module, opened: frames.Video, first: Float[Tensor, "1 K h w"], config: PropagationConfig, same: float
) -> Iterator[tuple[Float[Tensor, "1 3 H W"], Float[Tensor, "1 K h w"]]]:
    """Each frame after the first, reduced, with its labels on the grid; memory is bounded."""
    device = device_of("propagate", model)
    lattices, work_hw = (
        (model.coarse_lattice, model.fine_lattice),
        coords.reduced_size(opened.size_hw, config.lines, config.magnify),
    )
    bias = _circle(config.radius, device)
    memory: deque[tuple[Tensor, Tensor]] = deque(maxlen=config.recent)
    start = None
    for frame in opened:
        with torch.inference_mode():
            frame = coords.resize_frames(frames.to_float(frame)[None].to(device), work_hw)
            found = encode(model, frame, config.bfloat16)
            found = side_by_side(found, lattices, config.grid(work_hw), work_hw, config.coarse)
            features = rearrange(found[0], "C h w -> h w C").contiguous()  # so that cells of a block lie together
            if start is None:
                start = features, first[0].to(device)
                memory.append(start)
                continue
            labels = _ask(features, [start, *memory], bias, config, same)
            memory.append((features, labels))
        yield frame, labels[None]


def side_by_side(
    features: Features, lattices: tuple, grid: coords.Lattice, size_hw: tuple[int, int], coarse: float = 0.5
) -> Float[Tensor, "B C h w"]:
    """Coarse and fine features at the cells of a grid, as vectors of unit length whose products weigh both.

    Args:
        features, lattices: of an encoder, coarse and fine.
        grid: where the vectors are wanted, in a frame of `size_hw` pixels.
        coarse: share of the coarse features in the products.
    """
    parts = []
    for values, lattice, share in zip(features, lattices, (coarse, 1 - coarse)):
        if share:
            parts.append(math.sqrt(share) * F.normalize(coords.relattice(values, lattice, grid, size_hw), dim=1))
    return torch.cat(parts, dim=1)


def _ask(
    query: Float[Tensor, "h w C"],
    memory: list[tuple[Float[Tensor, "h w C"], Float[Tensor, "K h w"]]],
    bias: Float[Tensor, "b b M M"],
    config: PropagationConfig,
    same: float,
) -> Float[Tensor, "K h w"]:
    """Labels of a frame, each cell's the mean of those it finds in memory.

    A block of queries is multiplied with all cells that any of them sees; `bias` takes out what
    one query does not see. Where all in sight agree to less than `same`, nothing is multiplied.
    """
    h, w = query.shape[:2]
    reach = (bias.shape[-1] - BLOCK) // 2
    out = torch.empty_like(memory[0][1])
    for y in range(0, h, BLOCK):
        for x in range(0, w, BLOCK):
            ends = min(y + BLOCK, h), min(x + BLOCK, w)
            rows, columns = (slice(max(0, a - reach), min(b + reach, n)) for a, b, n in zip((y, x), ends, (h, w)))
            known = torch.stack([labels[:, rows, columns] for _, labels in memory], dim=1).flatten(1)
            place = out[:, y : ends[0], x : ends[1]]
            low, high = known.amin(dim=1), known.amax(dim=1)
            if bool((high - low < same).all()):
                place.copy_(((low + high) / 2)[:, None, None].expand_as(place))
                continue
            i, j = place.shape[1:]
            n, m = rows.stop - rows.start, columns.stop - columns.start
            up, left = rows.start - y + reach, columns.start - x + reach
            seen = bias[:i, :j, up : up + n, left : left + m].flatten(2).flatten(0, 1)
            asked = query[y : ends[0], x : ends[1]].flatten(0, 1) / config.temperature
            keys = torch.stack([features[rows, columns] for features, _ in memory]).flatten(0, 2)
            logits = (asked @ keys.mT).unflatten(1, (len(memory), -1)).add_(seen[:, None]).flatten(1)
            if config.top_k:
                logits, best = logits.topk(min(config.top_k, logits.shape[1]), dim=1)
                labels = (known[:, best] * logits.softmax(dim=1)).sum(dim=-1)
            else:
                labels = known @ logits.softmax(dim=1).mT
            place.copy_(labels.unflatten(1, (i, j)))
    return out


def _circle(radius: float, device: torch.device) -> Float[Tensor, "b b M M"]:
    """0 where query (i, j) of a block sees a cell of the block's surroundings, nearer than the radius; else -inf."""
    reach = math.ceil(radius) - 1
    away = coords.grid((BLOCK + 2 * reach,) * 2, device) - reach - coords.grid((BLOCK, BLOCK), device)[:, :, None, None]
    return torch.zeros_like(away[..., 0]).masked_fill_(away.square().sum(-1) >= radius**2, -math.inf)
