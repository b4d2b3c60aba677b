"""Pixel centres, axis order, lattices and sampling: the only file that knows them.

The rules, for the whole library:

1. Points are (x, y), x to the right, y down; with time (t, x, y). Sizes are (H, W).
2. The centre of the top-left pixel is (0, 0), that of the bottom-right one (W - 1, H - 1).
   TAP-Vid's "raster" coordinates are these plus 0.5.
3. A point is inside a frame when -0.5 <= x < W - 0.5, and likewise for y.
4. Resizing by r = W' / W moves x to (x + 0.5) * r - 0.5.
5. Cell i of a feature map sits at pixel offset + stride * i: its lattice.
6. A window of radius r lists its offsets row by row, dy slowest, from -r to r, in cells.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Integer
from torch import Tensor


class Lattice(NamedTuple):
    """Where the cells of a feature map sit: cell i at pixel offset + stride * i, both axes."""

    stride: int
    offset: float = 0.0


PIXELS = Lattice(1, 0.0)


def lattice_size(size_hw: tuple[int, int], lattice: Lattice) -> tuple[int, int]:
    """Number of cell rows and columns whose centres lie on the pixels of a frame."""
    return tuple((n - 1 - math.ceil(lattice.offset)) // lattice.stride + 1 for n in size_hw)


def to_cells(xy: Float[Tensor, "*shape 2"], lattice: Lattice) -> Float[Tensor, "*shape 2"]:
    """Pixel coordinates as (fractional) cell coordinates of a lattice."""
    return (xy - lattice.offset) / lattice.stride


def to_pixels(cells: Float[Tensor, "*shape 2"], lattice: Lattice) -> Float[Tensor, "*shape 2"]:
    """Cell coordinates of a lattice as pixel coordinates."""
    return cells * lattice.stride + lattice.offset


def grid(size_hw: tuple[int, int], device: torch.device | str | None = None) -> Float[Tensor, "H W 2"]:
    """The (x, y) of every position of an (H, W) map; position [y, x] holds (x, y)."""
    H, W = size_hw
    y, x = torch.meshgrid(
        torch.arange(H, dtype=torch.float32, device=device),
        torch.arange(W, dtype=torch.float32, device=device),
        indexing="ij",
    )
    return torch.stack([x, y], dim=-1)


def query_grid(size_hw: tuple[int, int], count: int) -> Float[Tensor, "N 3"]:
    """Query points (0, x, y) spread evenly over the first frame, `count` along its shorter side.

    Raises:
        ValueError: the count is not from 1 to the length of that side.
    """
    if not 1 <= count <= min(size_hw):
        raise ValueError(f"query_grid: count should be 1 to {min(size_hw)}, the shorter side in pixels, got {count}.")
    step = min(size_hw) / count
    ys, xs = (torch.arange(int(length / step + 1e-6)) * step + (step - 1) / 2 for length in size_hw)
    return torch.cartesian_prod(torch.zeros(1), xs, ys)


def window_offsets(radius: int, device: torch.device | str | None = None) -> Float[Tensor, "K 2"]:
    """Offsets (dx, dy) of a square window, in cells, dy slowest; K = (2 * radius + 1) ** 2.

    Raises:
        ValueError: radius is negative.
    """
    if radius < 0:
        raise ValueError(f"window_offsets: radius should be at least 0, got {radius}.")
    side = 2 * radius + 1
    return grid((side, side), device).reshape(side * side, 2) - radius


def inside(xy: Float[Tensor, "*shape 2"], size_hw: tuple[int, int]) -> Bool[Tensor, "*shape"]:
    """Whether points lie in a frame: -0.5 <= x < W - 0.5 and -0.5 <= y < H - 0.5."""
    H, W = size_hw
    x, y = xy.unbind(-1)
    return (x >= -0.5) & (x < W - 0.5) & (y >= -0.5) & (y < H - 0.5)


def box_mask(size_hw: tuple[int, int], x0: float, y0: float, x1: float, y1: float) -> Int[Tensor, "H W"]:
    """1 at the pixels of a frame whose centres are in a box, given by two of its corners, and 0 elsewhere.

    Raises:
        ValueError: less than 3 pixels of a side of it are inside the frame.
    """
    pixels, low, high = grid(size_hw), [min(x0, x1), min(y0, y1)], [max(x0, x1), max(y0, y1)]
    within = ((pixels >= torch.tensor(low)) & (pixels <= torch.tensor(high))).all(dim=-1)
    rows, columns = int(within.any(dim=1).sum()), int(within.any(dim=0).sum())
    if min(rows, columns) < 3:
        raise ValueError(f"box: should have at least 3 x 3 pixels inside the frame, got {columns} x {rows}.")
    return within.long()


def sample(
    values: Float[Tensor, "B C H W"], xy: Float[Tensor, "B *shape 2"], padding: str = "border"
) -> tuple[Float[Tensor, "B C *shape"], Bool[Tensor, "B *shape"]]:
    """Bilinear samples of a map at fractional positions.

    Args:
        values: the map; position [y, x] of it has coordinates (x, y).
        xy: where to read, in the map's own positions.
        padding: what lies outside the map, "border" (its edge repeated) or "zeros".

    Returns:
        the samples, and whether each position is inside the map (rule 3).
    """
    return read(values, *xy.unbind(-1), padding), inside(xy, tuple(values.shape[-2:]))


def read(
    values: Float[Tensor, "B C H W"],
    x: Float[Tensor, "B *shape"],
    y: Float[Tensor, "B *shape"],
    padding: str = "border",
) -> Float[Tensor, "B C *shape"]:
    """The samples of `sample` alone, positions apart; padding may be "reflection" too, about the border's centres."""
    H, W = values.shape[-2:]
    B, shape = x.shape[0], x.shape[1:]
    # A map one cell wide has its only centre at 0 for grid_sample.
    normalised = [(v * (2.0 / max(n - 1, 1))).sub_(float(n > 1)) for v, n in ((x, W), (y, H))]
    together = torch.view_as_real(torch.complex(*normalised))  # many times faster than a stack
    where = together.reshape(B, 1, -1, 2).to(values.dtype)
    out = F.grid_sample(values, where, mode="bilinear", padding_mode=padding, align_corners=True)
    return out.reshape(B, values.shape[1], *shape)


def relattice(
    values: Float[Tensor, "B C h w"], source: Lattice, target: Lattice, size_hw: tuple[int, int]
) -> Float[Tensor, "B C H W"]:
    """A feature or label map read (bilinearly) at the cells of another lattice.

    Args:
        values: a map on the lattice `source`.
        source, target: the lattices of the input and of the output; PIXELS for full resolution.
        size_hw: size of the frame in pixels; the output has `lattice_size(size_hw, target)` cells.
    """
    if source == target:
        return values
    ratio, rest = divmod(source.stride, target.stride)
    H, W = lattice_size(size_hw, target)
    if rest == 0 and source.offset == target.offset:
        # Cells of the target lie at whole fractions of those of the source: many times faster than single samples.
        return _between(_between(values, ratio, -1), ratio, -2)[..., :H, :W]
    where = to_cells(to_pixels(grid((H, W), values.device), target), source)
    return sample(values, where.expand(values.shape[0], *where.shape))[0]


def _between(values: Float[Tensor, "B C h w"], ratio: int, dim: int) -> Float[Tensor, "B C h2 w2"]:
    """A map with ratio - 1 values put between each two neighbours along an axis, and the last one repeated as often.

    Its channels lie together, where F.interpolate's way back would be slow.
    """
    lying = values.movedim(1, -1)
    axis, n = dim - 1, values.shape[dim]
    after = torch.cat([lying.narrow(axis, 1, n - 1), lying.narrow(axis, n - 1, 1)], axis)
    steps = [lying, *(torch.lerp(lying, after, step / ratio) for step in range(1, ratio))]
    return torch.stack(steps, axis).flatten(axis - 1, axis).movedim(-1, 1)


def reduced_size(size_hw: tuple[int, int], lines: int, magnify: float = 1.0) -> tuple[int, int]:
    """The size of a frame whose shorter side has more than so many pixels, reduced to them in proportion.

    So a portrait is not seen with fewer pixels than the same landscape. 0 lines leaves all as they are.
    All are made `magnify` times as large then, a frame with enough pixels straight from its own.
    """
    share = magnify * (min(1.0, lines / min(size_hw)) if lines else 1.0)
    return tuple(max(1, round(n * share)) for n in size_hw)


def resize_points(
    xy: Float[Tensor, "*shape 2"], size_hw: tuple[float, float], new_size_hw: tuple[float, float]
) -> Float[Tensor, "*shape 2"]:
    """Points of an (H, W) frame, in the pixels of the same frame resized (rule 4)."""
    (H, W), (new_H, new_W) = size_hw, new_size_hw
    ratio = torch.tensor([new_W / W, new_H / H], dtype=xy.dtype, device=xy.device)
    return (xy + 0.5) * ratio - 0.5


def resize_maps(maps: Float[Tensor, "N C H W"], new_size_hw: tuple[int, int]) -> Float[Tensor, "N C H2 W2"]:
    """Maps over a frame at another resolution, bilinear, antialiased when made smaller (rule 4)."""
    if tuple(maps.shape[-2:]) == tuple(new_size_hw):
        return maps
    return F.interpolate(maps, size=tuple(new_size_hw), mode="bilinear", align_corners=False, antialias=True)


def resize_masks(masks: Integer[Tensor, "N H W"], new_size_hw: tuple[int, int]) -> Integer[Tensor, "N H2 W2"]:
    """Masks over a frame at another resolution, each pixel with the number of the one it lies in (rule 4)."""
    same = tuple(masks.shape[-2:]) == tuple(new_size_hw)
    # As floats: integers are not offered by torch, and numbers of objects are exact.
    return masks if same else F.interpolate(masks[None].float(), tuple(new_size_hw), mode="nearest-exact")[0].long()


def resize_frames(frames: Float[Tensor, "N C H W"], new_size_hw: tuple[int, int]) -> Float[Tensor, "N C H2 W2"]:
    """Frames in [0, 1] at another resolution, as `resize_maps`; rounding does not step over the range."""
    same = tuple(frames.shape[-2:]) == tuple(new_size_hw)
    return frames if same else resize_maps(frames, new_size_hw).clamp(0, 1)


def turn_points(xy: Float[Tensor, "*shape 2"], degrees: float, size_hw: tuple[int, int]) -> Float[Tensor, "*shape 2"]:
    """Points of an (H, W) frame that is turned about its middle, from x towards y, and keeps its size."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    middle = xy.new_tensor([(size_hw[1] - 1) / 2, (size_hw[0] - 1) / 2])
    return (xy - middle) @ xy.new_tensor([[cos, sin], [-sin, cos]]) + middle


def turn_frames(frames: Float[Tensor, "N C H W"], degrees: float) -> Float[Tensor, "N C H W"]:
    """Frames turned as `turn_points` turns their points; what turns in from beyond an edge is its mirror image."""
    if not degrees:
        return frames
    size_hw = tuple(frames.shape[-2:])
    seen = turn_points(grid(size_hw, frames.device), -degrees, size_hw).expand(len(frames), -1, -1, -1)
    return read(frames, *seen.unbind(-1), padding="reflection")
