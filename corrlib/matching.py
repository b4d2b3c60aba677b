"""Correlation between feature maps in the neighbourhood of a place, and what is read out of it.

Pure tensor operations, in cells; pixels come in only through `coords`. Features have unit length,
so that a correlation is a cosine, and logits are cosines divided by a temperature. Whole maps are
searched in `search`.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from . import coords, windows


def unit(features: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
    """Features scaled to unit length along C, in float32 if they are in less."""
    return F.normalize(features.to(torch.promote_types(features.dtype, torch.float32)), dim=1)


def features_at(features: Float[Tensor, "B C h w"], cells: Float[Tensor, "B N 2"]) -> Float[Tensor, "B N C"]:
    """Unit-length feature vectors read bilinearly at fractional cells; beyond the map its edge."""
    values, _ = coords.sample(features, cells)
    return F.normalize(values, dim=1).mT


def correlate(query: Float[Tensor, "B N C"], key: Float[Tensor, "B C h w"]) -> Float[Tensor, "B N h w"]:
    """Inner products of each query vector with every cell of a map.

    Raises:
        ValueError: batches, channel counts or devices differ, the map is empty, or a feature is not finite.
    """
    check_features("correlate", query, key)
    correlation = torch.matmul(query, key.flatten(2)).unflatten(2, key.shape[2:])
    check_finite("correlate", correlation, query=query, key=key)
    return correlation


def window_correlation(
    query: Float[Tensor, "B N C"], key: Float[Tensor, "B C h w"], centre: Float[Tensor, "B N 2"], radius: int
) -> tuple[Float[Tensor, "B N K"], Float[Tensor, "B N K 2"]]:
    """Inner products of each query vector with the cells of a window of its own.

    Args:
        query: one vector a query.
        key: the map searched.
        centre: the cell in the middle of each window; fractions are rounded.
        radius: half-width of the windows in cells.

    Returns:
        the correlations in the order of `coords.window_offsets`, -inf outside the map, and the
        cells they belong to; K = (2 * radius + 1) ** 2.

    Raises:
        ValueError: as for `correlate`, or the radius is negative or larger than the map.
    """
    _check_radius("window_correlation", radius, key)
    cells = window_cells(centre, radius)
    return cell_correlation(query, key, cells, "window_correlation"), cells


def cell_correlation(
    query: Float[Tensor, "B N C"], key: Float[Tensor, "B C h w"], cells: Float[Tensor, "B N K 2"], name: str = ""
) -> Float[Tensor, "B N K"]:
    """Inner products of each query vector with cells of its own, -inf for those outside the map.

    Raises:
        ValueError: as for `correlate`, in the name of the function that asks.
    """
    name = name or "cell_correlation"
    check_features(name, query, key)
    index, inside = cell_numbers(cells, tuple(key.shape[-2:]))
    correlation = windows.WindowCorrelation.apply(query, key, index)
    check_finite(name, correlation, query=query, key=key)
    return correlation.masked_fill(~inside, float("-inf"))


def square_correlation(
    query: Float[Tensor, "N C"], key: Float[Tensor, "1 C h w"], centre: Float[Tensor, "N 2"], radius: int
) -> tuple[Float[Tensor, "N K"], Float[Tensor, "N K 2"]]:
    """As `window_correlation`, of windows moved into the map where they would leave it; quicker, without gradients.

    Raises:
        ValueError: the radius is negative or larger than the map.
    """
    _check_radius("square_correlation", radius, key)
    return windows.square(key[0], query, centre, radius)


def window_features(
    features: Float[Tensor, "B C h w"], centre: Float[Tensor, "B N 2"], radius: int
) -> tuple[Float[Tensor, "B N K C"], Float[Tensor, "B N K 2"]]:
    """The feature vectors of the windows of `window_correlation`, zero outside the map, and their cells."""
    cells = window_cells(centre, radius)
    index, inside = cell_numbers(cells, tuple(features.shape[-2:]))
    rows = [windows.rows(one, at) for one, at in zip(features, index)]
    return torch.stack(rows) * inside[..., None], cells


def window_cells(centre: Float[Tensor, "B N 2"], radius: int) -> Float[Tensor, "B N K 2"]:
    """The cells of square windows around (rounded) centres, in the order of `coords.window_offsets`."""
    return centre.round()[..., None, :] + coords.window_offsets(radius, centre.device)


def cell_numbers(
    cells: Float[Tensor, "*shape 2"], size_hw: tuple[int, int]
) -> tuple[Int[Tensor, "*shape"], Bool[Tensor, "*shape"]]:
    """The numbers of cells in a flattened map, those beyond its edge replaced by the nearest; who is inside."""
    h, w = size_hw
    x, y = cells.long().unbind(-1)
    inside = (x >= 0) & (x < w) & (y >= 0) & (y < h)
    return y.clamp(0, h - 1) * w + x.clamp(0, w - 1), inside


def local_correlation(
    query: Float[Tensor, "B C h w"], key: Float[Tensor, "B C h w"], radius: int
) -> Float[Tensor, "B h w K"]:
    """Inner products between each query cell and the key cells around the same place.

    Args:
        query: features of the frame that asks.
        key: features of the frame searched, on the same lattice.
        radius: half-width of the window, in cells, at least 0.

    Returns:
        K = (2 * radius + 1) ** 2 values a cell, in the order of `coords.window_offsets`; -inf
        where the key cell is outside the frame.

    Raises:
        ValueError: shapes or devices differ, the map is empty, a feature is not finite, or the
            radius is negative or larger than the map.
    """
    if query.shape != key.shape:
        raise ValueError(f"local_correlation: key should be {tuple(query.shape)} like query, got {tuple(key.shape)}.")
    check_features("local_correlation", query.flatten(2).mT, key)
    _check_radius("local_correlation", radius, key)
    out = windows.LocalCorrelation.apply(query, key, radius)
    # Each feature vector is in one of the products without displacement.
    check_finite("local_correlation", out[..., out.shape[-1] // 2], query=query, key=key)
    return out


def soft_argmax(logits: Float[Tensor, "*shape K"], cells: Float[Tensor, "*shape K 2"]) -> Float[Tensor, "*shape 2"]:
    """The expected cell under the softmax of the logits."""
    return (logits.softmax(dim=-1)[..., None] * cells).sum(dim=-2)


def peak(logits: Float[Tensor, "*shape h w"]) -> Float[Tensor, "*shape 2"]:
    """The (x, y) cell of the largest value of each map."""
    best = logits.flatten(-2).argmax(dim=-1)
    w = logits.shape[-1]
    return torch.stack([best % w, best // w], dim=-1).to(logits.dtype)


def top_peaks(logits: Float[Tensor, "N h w"], count: int) -> Float[Tensor, "N M 2"]:
    """The cells (x, y) of the `count` largest local maxima of each map, best first; of smaller maps all cells.

    A cell is a local maximum if none of its eight neighbours is larger. Where there are fewer
    than `count` of them, lesser cells follow.
    """
    around = _widen(_widen(logits, 1), 2)  # ten times faster than max_pool2d
    best = (logits - 1e4 * (logits < around)).flatten(1).topk(min(count, logits[0].numel()), dim=1).indices
    w = logits.shape[-1]
    return torch.stack([best % w, best // w], dim=-1).to(logits.dtype)


def _widen(values: Float[Tensor, "N h w"], dim: int) -> Float[Tensor, "N h w"]:
    """The largest of each value and its two neighbours along one axis."""
    n = values.shape[dim]
    out = values.clone()
    for step in (-1, 1):
        to, source = out.narrow(dim, max(0, -step), n - 1), values.narrow(dim, max(0, step), n - 1)
        torch.maximum(to, source, out=to)
    return out


def check_features(name: str, query: Float[Tensor, "B N C"], key: Float[Tensor, "B C h w"]) -> None:
    """Refuse features that cannot be multiplied: of other batches, channels or devices, or of an empty map."""
    expected = ("channels", query.shape[-1], key.shape[1]), ("batch size", len(query), len(key))
    for what, ours, theirs in (*expected, ("device", query.device, key.device)):
        if ours != theirs:
            raise ValueError(f"{name}: key should have {what} {ours} like query, got {theirs}.")
    if 0 in key.shape:
        raise ValueError(f"{name}: key should have at least one cell and channel, got {tuple(key.shape)}.")


def check_finite(name: str, result: Tensor, **features: Tensor) -> None:
    """Refuse NaN and infinity, by the name of the argument they came in with, where a result shows any."""
    if bool(torch.isfinite(result.detach().sum())):  # a sum is fifteen times faster than a look at each
        return
    for argument, values in features.items():
        bad = values[~torch.isfinite(values)]
        if bad.numel():
            raise ValueError(f"{name}: {argument} should be finite, got {bad[0].item()} in {bad.numel()} places.")


def multiplies_bfloat16(values: Tensor) -> bool:
    """Whether they lie where such products are quick; other processors take up to two hundred times longer."""
    if values.is_cuda:
        return torch.cuda.is_bf16_supported(including_emulation=False)
    kernels = torch.backends.cpu.get_cpu_capability().startswith("AVX512")  # which torch may be told not to use
    return values.is_cpu and kernels and bool(torch.cpu.get_capabilities().get("avx512_bf16"))


def _check_radius(name: str, radius: int, key: Tensor) -> None:
    """Refuse windows that are none, or that no cell of the map can fill."""
    longest = max(key.shape[-2:])
    if not 0 <= radius <= longest:
        raise ValueError(f"{name}: radius should be 0 to {longest}, the longer side of the map, got {radius}.")
