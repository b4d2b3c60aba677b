"""The search of a whole map, streamed and exact.

The matrix of all queries with all cells is never held: it passes by in tiles, and again in the
backward pass. Positions are (x, y) in cells of the map searched. Logits are correlations over the
temperature. What lies around a known place is `matching`'s; `coarse_to_fine` searches less.
"""

import contextlib
import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.attention import SDPBackend, sdpa_kernel

from . import coords, matching

TILE = (256, 2048)  # queries and cells at a time
SAFE = 60.0  # exp() of logits within +-SAFE neither overflows nor vanishes, summed over any map


def as_queries(features: Float[Tensor, "B C h w"]) -> Float[Tensor, "B N C"]:
    """A whole map as queries, row by row: N = h * w. A view."""
    return features.flatten(2).mT


def top_k(
    query: Float[Tensor, "B N C"],
    key: Float[Tensor, "B C h w"],
    count: int,
    valid: Bool[Tensor, "B h w"] | None = None,
    tile: tuple[int, int] = TILE,
) -> tuple[Float[Tensor, "B N count"], Float[Tensor, "B N count 2"]]:
    """The cells most like each query, exactly, best first; their order among equals is not defined.

    Args:
        query: one vector a query; `as_queries` makes them of a map.
        key: the map searched.
        count: how many cells, at least 1; 1 gives the arg-max.
        valid: the cells that may be found; all if not given.
        tile: queries and cells at a time. Memory goes with it, results do not.

    Returns:
        correlations and cells. Neither carries a gradient.

    Raises:
        ValueError: batches, channel counts or devices differ; the map, or what is valid of it, is
            empty; a feature is not finite; the count is not from 1 to the number of valid cells.
    """
    _check("top_k", query, key, valid)
    matching.check_finite("top_k", query, query=query)
    matching.check_finite("top_k", key, key=key)
    least = key[0, 0].numel() if valid is None else int(valid.flatten(1).sum(1).min())
    if not 1 <= count <= least:
        raise ValueError(f"top_k: count should be 1 to {least}, the number of candidates, got {count}.")
    B, N, _ = query.shape
    w = key.shape[-1]
    with torch.no_grad():
        best = query.new_full((B, N, count), -math.inf)
        found = torch.zeros(B, N, count, dtype=torch.long, device=key.device)
        for b, rows, columns, products in _tiles(query, key, valid, 1.0, tile):
            # A glance at the largest value is ten times cheaper than a search, and mostly enough.
            better = (products.amax(1) > best[b, rows, -1]).nonzero()[:, 0]
            if len(better):
                value, at = products[better].topk(min(count, products.shape[1]), dim=1)
                value = torch.cat([best[b, rows][better], value], dim=1)
                at = torch.cat([found[b, rows][better], at + columns.start], dim=1)
                value, kept = value.topk(count, dim=1)
                best[b, rows][better], found[b, rows][better] = value, at.gather(1, kept)
    return best, torch.stack([found % w, found // w], dim=-1).to(query.dtype)


def global_soft_argmax(
    query: Float[Tensor, "B N C"],
    key: Float[Tensor, "B C h w"],
    temperature: float,
    valid: Bool[Tensor, "B h w"] | None = None,
    tile: tuple[int, int] = TILE,
) -> Float[Tensor, "B N 2"]:
    """The expected cell under the softmax over the whole map; differentiable in query and key.

    Args, Raises: as for `top_k`; the temperature should be above 0.
    """
    bounded = _bounded("global_soft_argmax", query, key, valid, temperature)
    if valid is None and query.is_cuda and query.dtype == torch.float32:
        with contextlib.suppress(RuntimeError):  # no fused kernel takes this shape on this machine
            return _attend(query, key, temperature)
    return _Softmax.apply(query, key, valid, temperature, tile, bounded)[0]


def log_sum_exp(
    query: Float[Tensor, "B N C"],
    key: Float[Tensor, "B C h w"],
    temperature: float,
    valid: Bool[Tensor, "B h w"] | None = None,
    tile: tuple[int, int] = TILE,
) -> Float[Tensor, "B N"]:
    """The logarithm of the sum of exp(logit) over the map; differentiable in query and key.

    Args, Raises: as for `global_soft_argmax`.
    """
    bounded = _bounded("log_sum_exp", query, key, valid, temperature)
    return _Softmax.apply(query, key, valid, temperature, tile, bounded)[1]


def soft_cross_entropy(
    query: Float[Tensor, "B N C"],
    key: Float[Tensor, "B C h w"],
    target: Float[Tensor, "B N 2"],
    temperature: float,
    valid: Bool[Tensor, "B h w"] | None = None,
    tile: tuple[int, int] = TILE,
) -> Float[Tensor, "B N"]:
    """Cross-entropy of the softmax over the map with the bilinear soft label of a target, in nat.

    The label's mean logit is the logit of the map read bilinearly at the target, so that neither
    labels nor logits are ever laid out. Targets beyond the map count as on its edge.

    Args, Raises: as for `global_soft_argmax`; target is in (fractional) cells of the key.
    """
    at_target = coords.sample(key, target)[0].mT
    return log_sum_exp(query, key, temperature, valid, tile) - (query * at_target).sum(-1) / temperature


class _Softmax(torch.autograd.Function):
    """Expected cell (B, N, 2) and log-sum-exp (B, N) of the logits of all cells.

    Of a tile of exp(logit) only its products with [x, y, 1] are kept. Logits of unit-length
    features are bounded by 1 / temperature; where the bound is under SAFE nothing is subtracted
    before exp, and no maximum is sought. Backward goes through the same tiles again: with
    softmax p, d logit = p (d lse + d xy . (cell - xy)), an outer product of three columns.
    """

    @staticmethod
    def forward(ctx, query, key, valid, temperature, tile, bounded) -> tuple[Tensor, Tensor]:
        basis, centre = _basis(key)
        total = query.new_zeros(*query.shape[:2], 3)
        peak = query.new_full((*query.shape[:2], 1), 0.0 if bounded else -math.inf)
        for b, rows, columns, logits in _tiles(query, key, valid, 1 / temperature, tile):
            if not bounded:
                old = peak[b, rows].clone()
                new = torch.maximum(old, logits.amax(1, keepdim=True))
                peak[b, rows] = new
                new = new.clamp(min=-torch.finfo(new.dtype).max)  # while all cells seen are masked
                total[b, rows] *= (old - new).exp()
                logits.sub_(new)
            # The long way round: a product with three columns is four times slower.
            total[b, rows] += (basis[:, columns] @ logits.exp_().mT).mT
        xy = total[..., :2] / total[..., 2:]
        lse = (peak + total[..., 2:].log())[..., 0]
        ctx.save_for_backward(query, key, valid, xy, lse)
        ctx.temperature, ctx.tile = temperature, tile
        return xy + centre, lse

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_xy, grad_lse) -> tuple[Tensor | None, ...]:
        query, key, valid, xy, lse = ctx.saved_tensors
        basis, _ = _basis(key)
        grad_query = torch.zeros_like(query)
        grad_key = torch.zeros_like(key, memory_format=torch.channels_last)
        weights = torch.cat([grad_xy, (grad_lse - (grad_xy * xy).sum(-1))[..., None]], dim=-1) / ctx.temperature
        for b, rows, columns, logits in _tiles(query, key, valid, 1 / ctx.temperature, ctx.tile):
            grad = logits.sub_(lse[b, rows, None]).exp_().mul_(weights[b, rows] @ basis[:, columns])
            grad_query[b, rows] += grad @ key[b].flatten(1)[:, columns].mT
            grad_key[b].flatten(1)[:, columns] += query[b, rows].mT @ grad
        return grad_query, grad_key, None, None, None, None


def _tiles(
    query: Tensor, key: Tensor, valid: Tensor | None, scale: float, tile: tuple[int, int]
) -> Iterator[tuple[int, slice, slice, Float[Tensor, "n m"]]]:
    """Batch number, queries, cells, and their scaled products, in an array that the next tile overwrites."""
    N, cells = query.shape[1], key.shape[2] * key.shape[3]
    store = query.new_empty(min(tile[0], N) * min(tile[1], cells))
    for b in range(len(query)):
        flat = key[b].flatten(1)
        for row in range(0, N, tile[0]):
            rows = slice(row, min(row + tile[0], N))
            q = query[b, rows]
            for column in range(0, cells, tile[1]):
                columns = slice(column, min(column + tile[1], cells))
                shape = len(q), columns.stop - columns.start
                products = store[: math.prod(shape)].view(shape)
                torch.addmm(products, q, flat[:, columns], beta=0, alpha=scale, out=products)
                if valid is not None:
                    products.masked_fill_(~valid[b].flatten()[columns], -math.inf)
                yield b, rows, columns, products


def _basis(key: Float[Tensor, "B C h w"]) -> tuple[Float[Tensor, "3 M"], Float[Tensor, "2"]]:
    """Rows x, y and 1 of all cells, measured from the middle of the map for precision, and the middle."""
    cells = coords.grid(tuple(key.shape[-2:]), key.device).flatten(0, 1).to(key.dtype)
    centre = cells[-1] / 2
    return torch.cat([(cells - centre).mT, torch.ones_like(cells[:1, :1]).expand(1, len(cells))]), centre


def _check(name: str, query: Tensor, key: Tensor, valid: Tensor | None) -> None:
    """Refuse what cannot be searched."""
    matching.check_features(name, query, key)
    if valid is None:
        return
    if valid.shape != key[:, 0].shape:
        raise ValueError(f"{name}: valid should be {tuple(key[:, 0].shape)} like key, got {tuple(valid.shape)}.")
    if not valid.flatten(1).any(1).all():
        raise ValueError(f"{name}: valid should hold at least one cell of each map, got none.")


def _bounded(name: str, query: Tensor, key: Tensor, valid: Tensor | None, temperature: float) -> bool:
    """Whether all logits are within +-SAFE; refuses what has no softmax."""
    _check(name, query, key, valid)
    if not temperature > 0:
        raise ValueError(f"{name}: temperature should be above 0, got {temperature}.")
    with torch.no_grad():
        largest = _longest(query.mT) * _longest(key.flatten(2)) / temperature
    matching.check_finite(name, largest, query=query, key=key)  # a length shows NaN and infinity too
    return bool(largest < SAFE)


def _longest(vectors: Float[Tensor, "B C N"]) -> Float[Tensor, ""]:
    """The length of the longest of some vectors, 0 of none; in pieces, since their squares would be a copy."""
    lengths = [(v * v).sum(1).amax() for v in vectors.split(TILE[1], dim=2) if v.numel()]
    return torch.stack([vectors.new_zeros(()), *lengths]).amax().sqrt()


def _attend(query: Tensor, key: Tensor, temperature: float) -> Float[Tensor, "B N 2"]:
    """`global_soft_argmax` by PyTorch's fused attention, with coordinates as values.

    They are padded to the length of the queries, and the map's vectors laid out in rows: attention
    would else take its way through the whole matrix.
    """
    basis, centre = _basis(key)
    C = query.shape[-1]
    width = max(4, -(-C // 4) * 4)  # fused kernels want multiples of 16 bytes
    q, k = (F.pad(x, (0, width - C)).contiguous()[:, None] for x in (query, as_queries(key)))
    value = F.pad(basis[:2].mT, (0, width - 2)).expand_as(k)
    with sdpa_kernel([SDPBackend.EFFICIENT_ATTENTION, SDPBackend.FLASH_ATTENTION]):  # never the quadratic one
        return F.scaled_dot_product_attention(q, k, value, scale=1 / temperature)[:, 0, :, :2] + centre
