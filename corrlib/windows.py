"""Products of queries with windows of a map, in tiles, with backward passes by hand.

What `matching` is made of. Autograd through a gather, or through a loop over shifts, keeps a copy
of the features for each cell of a window; here nothing but the inputs is kept, and working arrays
hold about TILE numbers whatever the problem. Inputs are not checked.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

TILE = 2**21  # numbers in a working array: 8 MiB in float32
SHARED = 16  # maps of up to so many times the cells of a window are cheaper to multiply than to gather from


class WindowCorrelation(torch.autograd.Function):
    """Inner products of query n with the cells `index[n]` of the (flattened) map.

    Two ways with the same numbers. Rows of features are gathered a window; where the windows
    share cells many times over, all products and a look-up are cheaper, in backward above all.
    """

    @staticmethod
    def forward(ctx, query: Tensor, key: Tensor, index: Int[Tensor, "B N K"]) -> Float[Tensor, "B N K"]:
        if index[0].numel() > key[0, 0].numel():  # then rows are worth lying together; a copy for channels-first maps
            key = key.contiguous(memory_format=torch.channels_last)
        ctx.save_for_backward(query, key, index)
        out, room = query.new_empty(index.shape), query.new_empty(0)
        for b, start, stop, shared in _window_tiles(key, index):
            q, at = query[b, start:stop], index[b, start:stop]
            if shared:
                out[b, start:stop] = (q @ key[b].flatten(1)).gather(1, at)
            else:
                # A row times a matrix: the same product the other way round takes twice as long.
                out[b, start:stop] = (q[:, None] @ rows(key[b], at, room).mT)[:, 0]
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Float[Tensor, "B N K"]) -> tuple[Tensor, Tensor, None]:
        query, key, index = ctx.saved_tensors
        grad_query = torch.empty_like(query)
        grad_key = torch.zeros_like(key, memory_format=torch.channels_last)  # which can be flattened without a copy
        room = query.new_empty(0)
        for b, start, stop, shared in _window_tiles(key, index):
            q, at, g = query[b, start:stop], index[b, start:stop], grad[b, start:stop]
            flat, grad_flat = key[b].flatten(1), grad_key[b].flatten(1)
            if shared:
                spread = g.new_zeros(len(at), flat.shape[1]).scatter_add_(1, at, g)
                grad_query[b, start:stop] = spread @ flat.mT
                grad_flat += q.mT @ spread
            else:
                grad_query[b, start:stop] = F.embedding_bag(at, flat.mT, mode="sum", per_sample_weights=g)
                spread = torch.mul(g[..., None], q[:, None], out=room.resize_(*g.shape, q.shape[1]))
                grad_flat.mT.index_add_(0, at.flatten(), spread.flatten(0, 1))
        return grad_query, grad_key, None


def _window_tiles(key: Tensor, index: Tensor) -> Iterator[tuple[int, int, int, bool]]:
    """Batch number, first and last query of each tile, and whether its windows share cells many times."""
    B, N, K = index.shape
    C, cells = key.shape[1], key.shape[2] * key.shape[3]
    shared = cells < min(SHARED * K, N * K)
    step = max(1, TILE // (cells if shared else K * C))
    for b in range(B):
        for start in range(0, N, step):
            yield b, start, min(start + step, N), shared


def rows(key: Float[Tensor, "C h w"], index: Int[Tensor, "N K"], room: Tensor | None = None) -> Float[Tensor, "N K C"]:
    """The feature vectors of numbered cells, in memory at hand if there is some: to ask for it anew takes longer."""
    flat = key.flatten(1).mT
    room = (key.new_empty(0) if room is None else room).resize_(index.numel(), len(key))
    return torch.index_select(flat, 0, index.flatten(), out=room).unflatten(0, index.shape)


def square(
    key: Float[Tensor, "C h w"], query: Float[Tensor, "N C"], centre: Float[Tensor, "N 2"], radius: int
) -> tuple[Float[Tensor, "N K"], Float[Tensor, "N K 2"]]:
    """Inner products of queries with the cells of square windows, moved into the map where they would leave it.

    Rows of such windows are runs in memory, gathered whole: quicker than cell by cell. There is no backward pass.

    Returns:
        the products, row by row, and their cells; K = (2 radius + 1) ** 2, or less of a smaller map.
    """
    C, h, w = key.shape
    height, columns = min(2 * radius + 1, h), min(2 * radius + 1, w)
    last = centre.new_tensor([w - columns, h - height])
    corner = torch.minimum((centre.round() - radius).clamp(min=0), last)
    flat = key.flatten(1).mT.contiguous()
    runs = flat.as_strided((h * w - columns + 1, columns * C), (C, 1))
    down = torch.arange(height, device=key.device)
    x, y = corner.long().unbind(-1)
    first = (y[:, None] + down) * w + x[:, None]
    out, room = query.new_empty(len(query), height * columns), query.new_empty(0)
    step = max(1, TILE // (2 * height * columns * C))  # of which a processor's own memory holds a good part
    for start in range(0, len(query), step):
        at = first[start : start + step]
        room = torch.index_select(runs, 0, at.flatten(), out=room.resize_(at.numel(), columns * C))
        seen = room.view(len(at), height * columns, C)
        out[start : start + step] = (query[start : start + step, None] @ seen.mT)[:, 0]
    offsets = torch.cartesian_prod(down, torch.arange(columns, device=key.device)).flip(1)
    return out, corner[:, None] + offsets


class LocalCorrelation(torch.autograd.Function):
    """Correlation in windows by matrix products.

    A block of b x b queries is multiplied with all (b + 2 r) x (b + 2 r) keys that any of them
    sees. Of the products, those of query (i, j) with key (i + dy, j + dx) are wanted: a strided
    view picks them, and copies nothing else. Backward writes through the same view.
    """

    @staticmethod
    def forward(ctx, query: Tensor, key: Tensor, radius: int) -> Float[Tensor, "B h w K"]:
        ctx.save_for_backward(query, key)
        ctx.radius = radius
        B, _, h, w = query.shape
        side = 2 * radius + 1
        out = query.new_empty(B, h, w, side * side)
        for queries, n, keys, outside in _blocks(key, radius):
            q = rearrange(query[queries], "B C i (n j) -> B n (i j) C", n=n)
            products = q @ keys
            if outside is not None:
                products.masked_fill_(outside, float("-inf"))
            place = out.permute(0, 3, 1, 2)[queries]  # (B, K, i, n j)
            picked = diagonals(products, q.shape[2] * n // place.shape[3], side)
            rearrange(place, "B (dy dx) i (n j) -> B n i j dy dx", n=n, dy=side).copy_(picked)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Float[Tensor, "B h w K"]) -> tuple[Tensor, Tensor, None]:
        query, key = ctx.saved_tensors
        radius, side = ctx.radius, 2 * ctx.radius + 1
        grad_query = torch.empty_like(query)
        grad_key = F.pad(torch.zeros_like(key), (radius,) * 4)
        for queries, n, keys, outside in _blocks(key, radius):
            q = rearrange(query[queries], "B C i (n j) -> B n (i j) C", n=n)
            place = grad.permute(0, 3, 1, 2)[queries]
            i, j = place.shape[2], place.shape[3] // n
            spread = grad.new_zeros(*q.shape[:3], keys.shape[3])
            diagonals(spread, i, side).copy_(rearrange(place, "B (dy dx) i (n j) -> B n i j dy dx", n=n, dy=side))
            if outside is not None:
                spread.masked_fill_(outside, 0)
            grad_query[queries] = rearrange(spread @ keys.mT, "B n (i j) C -> B C i (n j)", i=i)
            back = (q.mT @ spread).unflatten(3, (i + 2 * radius, j + 2 * radius))
            y, x = queries[2].start, queries[3].start
            for block in range(n):  # their windows overlap
                at = x + block * j
                grad_key[:, :, y : y + i + 2 * radius, at : at + j + 2 * radius] += back[:, block]
        h, w = key.shape[-2:]
        return grad_query, grad_key[:, :, radius : radius + h, radius : radius + w], None


def _blocks(
    key: Float[Tensor, "B C h w"], radius: int
) -> Iterator[tuple[tuple, int, Float[Tensor, "B n C M"], Bool[Tensor, "n 1 M"] | None]]:
    """Runs of n blocks side by side: where their queries are, n, the keys each sees, which of these are outside."""
    h, w = key.shape[-2:]
    size = 16 if radius > 8 else 8
    padded = F.pad(key, (radius,) * 4)
    beyond = F.pad(torch.zeros(h, w, dtype=torch.bool, device=key.device), (radius,) * 4, value=True)
    most = max(1, TILE // (len(key) * size**2 * (size + 2 * radius) ** 2))
    for y in range(0, h, size):
        down = slice(y, min(y + size, h) + 2 * radius)
        x = 0
        while x < w:
            j = min(size, w - x)
            n = min(most, (w - x) // j)
            across = slice(x, x + n * j + 2 * radius)
            keys = padded[:, :, down, across].unfold(3, j + 2 * radius, j)
            outside = rearrange(beyond[down, across].unfold(1, j + 2 * radius, j), "i n j -> n 1 (i j)")
            queries = (slice(None), slice(None), slice(y, min(y + size, h)), slice(x, x + n * j))
            yield queries, n, rearrange(keys, "B C i n j -> B n C (i j)"), outside if outside.any() else None
            x += n * j


def diagonals(
    products: Float[Tensor, "B n Q M"], height: int, side: int
) -> Float[Tensor, "B n height width side side"]:
    """A view of the products of height x width queries with the (height + side - 1) x (width + side - 1)
    keys around them: [..., i, j, a, b] is query (i, j) with key (i + a, j + b)."""
    B, n, Q, M = products.shape
    width = Q // height
    line = width + side - 1
    strides = (n * Q * M, Q * M, width * M + line, M + 1, line, 1)
    return products.as_strided((B, n, height, width, side, side), strides)
