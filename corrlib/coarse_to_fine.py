"""Coarse-to-fine search: the whole map at the coarse stride, windows at the fine one, then sub-pixel.

`match_points` is for queries anywhere, `match_field` for each cell of a map. Features come as
(coarse, fine), of unit length, as encoders give them; answers are (x, y) on the fine lattice.
The choice of cells carries no gradient, the position read out around it does.

Source: Li, Zhou and Liu, ICCV 2023, coarse-to-fine matching.
Differs: theirs keeps one coarse candidate, looks at 25 x 25 fine cells around it and answers on
the coarse lattice; ours keeps several, whose coarse logits count in the choice among fine cells
(the joint variant), and answers on the fine lattice, below the size of a cell.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from . import coords, matching, search, windows

ROWS = 256  # queries, or coarse cells, at a time


@dataclass(frozen=True)
class CoarseToFine:
    """How to search. Radii are in fine cells."""

    candidates: int = 3  # coarse cells whose surroundings are looked at
    radius: int = 4  # of the windows around them
    coarse_weight: float = 1.0  # of the coarse logits, read bilinearly, beside the fine ones; 0 for none
    readout: int = 2  # radius of the soft-argmax around the best fine cell
    temperature: float = 0.07
    bfloat16: bool = False  # coarse products in bfloat16; what is fine stays float32

    def __post_init__(self) -> None:
        """Refuse what cannot be searched."""
        for name, least in (("candidates", 1), ("radius", 0), ("readout", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"CoarseToFine: {name} should be at least {least}, got {getattr(self, name)}.")
        if not self.temperature > 0:
            raise ValueError(f"CoarseToFine: temperature should be above 0, got {self.temperature}.")


def match_points(
    query: tuple[Float[Tensor, "B N C"], Float[Tensor, "B N D"]],
    key: tuple[Float[Tensor, "B C h w"], Float[Tensor, "B D h2 w2"]],
    lattices: tuple[coords.Lattice, coords.Lattice],
    how: CoarseToFine | None = None,
) -> tuple[Float[Tensor, "B N 2"], Float[Tensor, "B N"]]:
    """Where single queries went.

    Args:
        query: coarse and fine vectors, from `matching.features_at`.
        key: coarse and fine features of the frame searched.
        lattices: of the coarse and of the fine features.
        how: the settings; the defaults if not given.

    Returns:
        positions on the fine lattice, and the fine correlation at the cells they were read around.

    Raises:
        ValueError: batches, channel counts or devices differ, a map is empty, a feature is not
            finite, there are fewer coarse cells than candidates, or a radius is larger than the map.
    """
    how = how or CoarseToFine()
    _check("match_points", query, key, how)
    (coarse_query, fine_query), (coarse, fine) = query, key
    size_hw, offsets = tuple(fine.shape[-2:]), coords.window_offsets(how.radius, fine.device)
    winner = torch.zeros_like(fine_query[..., :2])
    with torch.no_grad():
        for b, at, logits, peaks in _coarse(coarse_query, coarse, how):
            centre = coords.to_cells(coords.to_pixels(peaks, lattices[0]), lattices[1]).round()
            centre = torch.minimum(centre.clamp(min=0), centre.new_tensor([size_hw[1] - 1, size_hw[0] - 1]))
            vectors = fine_query[b, at].repeat_interleave(how.candidates, dim=0)[None]
            around = rearrange(centre, "n m c -> 1 (n m) c")
            score = matching.window_correlation(vectors, fine[b : b + 1], around, how.radius)[0] / how.temperature
            score = rearrange(score, "1 (n m) K -> n m K", m=how.candidates)
            cells = centre[:, :, None] + offsets
            if how.coarse_weight:
                where = coords.to_cells(coords.to_pixels(cells, lattices[1]), lattices[0])
                score = score + how.coarse_weight * coords.sample(logits[:, None], where)[0][:, 0]
            best = score.flatten(1).argmax(dim=1)
            winner[b, at] = cells.flatten(1, 2)[torch.arange(len(best), device=best.device), best]
    return read_out(fine_query, fine, winner, how.readout, how.temperature)


def match_field(
    query: tuple[Float[Tensor, "B C h w"], Float[Tensor, "B D h2 w2"]],
    key: tuple[Float[Tensor, "B C h3 w3"], Float[Tensor, "B D h4 w4"]],
    lattices: tuple[coords.Lattice, coords.Lattice],
    how: CoarseToFine | None = None,
) -> tuple[Float[Tensor, "B h2 w2 2"], Float[Tensor, "B h2 w2"]]:
    """Where each fine cell of a map went: a dense field.

    The fine cells over one coarse cell share its candidates, each displaced as the coarse cell
    would be, so that their windows overlap and are multiplied as one block.

    Args, Returns, Raises: as for `match_points`, with a map in place of N; also if the coarse
        stride is no multiple of the fine one, or the coarse map does not cover the fine one.
    """
    how = how or CoarseToFine()
    (coarse_query, fine_query), (coarse, fine) = query, key
    _check("match_field", (search.as_queries(coarse_query), search.as_queries(fine_query)), key, how)
    s, rest = divmod(lattices[0].stride, lattices[1].stride)
    (h, w), (h2, w2), m = coarse_query.shape[-2:], fine_query.shape[-2:], how.candidates
    if rest or not (s * h >= h2 and s * w >= w2):
        expected = f"match_field: coarse features should cover the {h2} x {w2} fine cells by whole blocks"
        raise ValueError(f"{expected}, got {h} x {w} at strides {lattices[0].stride} and {lattices[1].stride}.")
    for argument, values in ("query", fine_query), ("key", fine):
        matching.check_finite("match_field", values, **{argument: values})
    side, device = 2 * how.radius + 1, fine.device
    block = coords.grid((s, s), device)
    window = coords.grid((s + side - 1, s + side - 1), device) - how.radius
    offsets = coords.window_offsets(how.radius, device)
    found = torch.zeros(len(fine), h * w, s, s, 2, device=device, dtype=fine.dtype)
    with torch.no_grad():
        for b, at, logits, peaks in _coarse(search.as_queries(coarse_query), coarse, how):
            number = torch.arange(at.start, at.stop, device=device)
            mine = s * torch.stack([number % w, number // w], dim=-1)[:, None, None] + block
            index, _ = matching.cell_numbers(mine.flatten(1, 2), (h2, w2))
            vectors = windows.rows(fine_query[b], index)[:, None]
            n = len(vectors)
            sought = (s * peaks[:, :, None, None] + window).reshape(n * m, -1, 2)
            index, inside = matching.cell_numbers(sought, tuple(fine.shape[-2:]))
            products = vectors @ rearrange(windows.rows(fine[b], index), "(n m) M D -> n m D M", m=m)
            products.masked_fill_(~rearrange(inside, "(n m) M -> n m 1 M", m=m), -math.inf)
            score = rearrange(windows.diagonals(products, s, side), "n m i j y x -> n i j m (y x)") / how.temperature
            if how.coarse_weight:
                support = coords.sample(logits[:, None], peaks[:, :, None] + offsets / s)[0]
                score += how.coarse_weight * rearrange(support, "n 1 m K -> n 1 1 m K")
            best = score.flatten(3).argmax(dim=-1)  # (n, s, s), a number among candidates and offsets
            to = peaks[torch.arange(n, device=device)[:, None, None], best // len(offsets)]
            found[b, at] = s * to + block + offsets[best % len(offsets)]
    found = rearrange(found, "B (h w) i j c -> B (h i) (w j) c", h=h)[:, :h2, :w2].flatten(1, 2)
    xy, correlation = read_out(search.as_queries(fine_query), fine, found, how.readout, how.temperature)
    return xy.unflatten(1, (h2, w2)), correlation.unflatten(1, (h2, w2))


def match_exactly(
    query: Float[Tensor, "B N C"], key: Float[Tensor, "B C h w"], how: CoarseToFine | None = None
) -> tuple[Float[Tensor, "B N 2"], Float[Tensor, "B N"]]:
    """Where single queries went by the exact search of one map, with the same read-out: what the coarse map saves.

    Args, Returns, Raises: as for `match_points`, with one map and its vectors; of the settings only
        the read-out and the temperature count.
    """
    how = how or CoarseToFine()
    best = search.top_k(query, key, 1)[1][:, :, 0]
    return read_out(query, key, best, how.readout, how.temperature)


def read_out(
    query: Float[Tensor, "B N C"],
    key: Float[Tensor, "B C h w"],
    cells: Float[Tensor, "B N 2"],
    radius: int,
    temperature: float,
) -> tuple[Float[Tensor, "B N 2"], Float[Tensor, "B N"]]:
    """Positions below the size of a cell, by a soft-argmax around given cells, and the correlations at these.

    Raises:
        ValueError: as for `matching.window_correlation`.
    """  # fmt: skip
    xy, correlation = [], []
    for at in range(0, max(1, query.shape[1]), 4096):  # what a window takes is not kept for all queries
        part = slice(at, at + 4096)
        local, around = matching.window_correlation(query[:, part], key, cells[:, part], radius)
        xy.append(matching.soft_argmax(local / temperature, around))
        correlation.append(local[..., local.shape[-1] // 2])
    return torch.cat(xy, dim=1), torch.cat(correlation, dim=1)


def _coarse(
    query: Float[Tensor, "B N C"], key: Float[Tensor, "B C h w"], how: CoarseToFine
) -> Iterator[tuple[int, slice, Float[Tensor, "n h w"], Float[Tensor, "n m 2"]]]:
    """Batch number, queries, coarse logits and candidates, a few queries at a time."""
    emulated = not matching.multiplies_bfloat16(key)
    query, flat = query / how.temperature, key.flatten(2)
    if how.bfloat16:
        query, flat = query.bfloat16(), flat.bfloat16()
        if emulated:  # only rounded to it
            query, flat = query.float(), flat.float()
    for b in range(len(query)):
        for start in range(0, query.shape[1], ROWS):
            at = slice(start, min(start + ROWS, query.shape[1]))
            products = query[b, at] @ flat[b]
            if how.bfloat16 and emulated:
                products = products.bfloat16()
            logits = products.to(key.dtype).unflatten(1, key.shape[2:])
            matching.check_finite("coarse search", logits, query=query, key=key)
            yield b, at, logits, _candidates(logits, how)


def _candidates(logits: Float[Tensor, "n h w"], how: CoarseToFine) -> Float[Tensor, "n m 2"]:
    """The best cells, none of them a neighbour of a better one while there are others."""
    n, h, w = logits.shape
    number = torch.arange(n, device=logits.device)
    neighbours = coords.window_offsets(1, logits.device)
    left, peaks = logits, []
    largest = left.amax(dim=2)  # of each row; to look along a row then is ten times faster than over all cells
    for m in range(how.candidates):
        if m:
            left = left.clone() if m == 1 else left
            x, y = (peaks[-1][:, None] + neighbours).long().unbind(-1)
            near = number[:, None], y.clamp(0, h - 1), x.clamp(0, w - 1)
            left[near] = torch.minimum(left[near], logits[near] - 1e4)  # after all others, yet in order
            left[number, y[:, 4], x[:, 4]] = -math.inf
            changed = number[:, None], near[1][:, ::3]
            largest[changed] = left[changed].amax(dim=2)
        y = largest.argmax(dim=1)
        peaks.append(torch.stack([left[number, y].argmax(dim=1), y], dim=-1).to(logits.dtype))
    return torch.stack(peaks, dim=1)


def _check(name: str, query: tuple[Tensor, Tensor], key: tuple[Tensor, Tensor], how: CoarseToFine) -> None:
    """Refuse what cannot be searched."""
    for kind, q, k in zip(("coarse", "fine"), query, key):
        matching.check_features(f"{name} ({kind})", q, k)
    cells, longest, radius = key[0][0, 0].numel(), max(key[1].shape[-2:]), max(how.radius, how.readout)
    if how.candidates > cells:
        raise ValueError(f"{name}: candidates should be 1 to {cells}, one a coarse cell, got {how.candidates}.")
    if radius > longest:
        raise ValueError(f"{name}: radius should be 0 to {longest}, the longer side of the map, got {radius}.")
