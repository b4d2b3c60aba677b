"""What matching costs on the machine at hand: seconds, bytes, and the least they could be.

Times are medians of runs that take turns, so that whatever else the machine does hits all alike;
compare them within one call. With one thread they are the processor's time, which the time that
other programs take does not enter. Bytes are counted, not sampled, and equal on every run.
"""

import math
import statistics
import time
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from . import benchmarks, coarse_to_fine, coords, frames, matching, metrics, search
from .coarse_to_fine import CoarseToFine
from .encoder import Features

Call = Callable[[], object]
LATTICES = (coords.Lattice(8), coords.Lattice(2))
WANTED = {  # how many times faster than what they replace `ratios` should be
    "streamed_over_naive": 1.8,
    "windows_over_grid_sample": 5,
    "local_over_unfold": 10,
    "points_over_dense": 3,
    "field_over_dense": 8,
}
MOST_BYTES = 2**31  # a way that would lay out more is not tried


def seconds(calls: Mapping[str, Call], repeats: int = 5, long: float = math.inf) -> dict[str, float]:
    """The median time of each call, in rounds over all of them, without the first round.

    A call that takes longer than `long` seconds in the first round is left at that.
    """
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    took: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(repeats + 1):
        for name, call in calls.items():
            if turn == 0 or not took[name] or took[name][0] <= long:
                start = clock()
                call()
                took[name].append(clock() - start)
    return {name: statistics.median(times[1:] or times) for name, times in took.items()}


class _Live(TorchDispatchMode):
    """Counts the bytes of the tensors that operators return, while anything refers to them."""

    def __init__(self):
        super().__init__()
        self.now, self.peak, self.known = 0, 0, set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        given = {t.untyped_storage().data_ptr() for t in _tensors((args, kwargs or {}))}
        out = func(*args, **(kwargs or {}))
        for tensor in _tensors(out):
            storage = tensor.untyped_storage()
            where, size = storage.data_ptr(), storage.nbytes()
            if size and where not in given and where not in self.known:
                self.known.add(where)
                self.now += size
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self._gone, where, size)
        return out

    def _gone(self, where: int, size: int) -> None:
        self.known.discard(where)
        self.now -= size


def _tensors(tree: object) -> list[Tensor]:
    """The tensors among an operator's arguments or results."""
    return [leaf for leaf in torch.utils._pytree.tree_leaves(tree) if isinstance(leaf, Tensor)]


def peak_bytes(call: Call) -> int:
    """The most memory that a call's tensors take at one time beside those it was given.

    What it returns is counted too. Scratch memory inside an operator is not seen.
    """
    with _Live() as live:
        result = call()
        del result
    return live.peak


def matmul_rate(repeats: int = 9) -> float:
    """Operations a second of a float32 matrix product of the shape that search makes; two a multiplication."""
    a, b = torch.randn(search.TILE[0], 128), torch.randn(128, search.TILE[1])
    out = a @ b
    return 2 * out.numel() * 128 / seconds({"mm": lambda: torch.mm(a, b, out=out)}, repeats)["mm"]


def bandwidth(repeats: int = 9) -> float:
    """Bytes a second read from memory, by the sum of an array that no cache holds."""
    values = torch.ones(2**26)
    return values.numel() * 4 / seconds({"sum": values.sum}, repeats)["sum"]


@dataclass(frozen=True)
class Problem:
    """Random features of two frames on the lattices of the encoder, and points asked in the first."""

    key: Features
    query: Features  # (1, N, C) vectors at the points
    field: Features  # the first frame's whole maps
    xy: Float[Tensor, "N 2"]
    size_hw: tuple[int, int]


def problem(size_hw: tuple[int, int], num_queries: int, channels: int = 64, seed: int = 0) -> Problem:
    """A matching problem of a size: fine features of some channels, coarse ones of twice as many."""
    g = torch.Generator().manual_seed(seed)

    def features() -> Features:
        maps = []
        for width, lattice in zip((2 * channels, channels), LATTICES):
            h, w = coords.lattice_size(size_hw, lattice)
            rows = F.normalize(torch.randn(1, h, w, width, generator=g), dim=-1)
            maps.append(rearrange(rows, "B h w C -> B C h w"))  # channels last, as encoders give them
        return Features(*maps)

    field, key = features(), features()
    xy = torch.rand(num_queries, 2, generator=g) * torch.tensor([size_hw[1] - 1.0, size_hw[0] - 1.0])
    vectors = [matching.features_at(f, coords.to_cells(xy, lattice)[None]) for f, lattice in zip(field, LATTICES)]
    return Problem(key, Features(*vectors), field, xy, size_hw)


def naive_soft_argmax(query: Float[Tensor, "B N C"], key: Float[Tensor, "B C h w"], temperature: float) -> Tensor:
    """The expected cell by way of the whole matrix: what streaming is measured against."""
    logits = torch.einsum("bnc,bchw->bnhw", query, key).flatten(2) / temperature
    return logits.softmax(dim=-1) @ coords.grid(tuple(key.shape[-2:])).flatten(0, 1).to(key.dtype)


def naive_windows(query: Float[Tensor, "B N C"], key: Float[Tensor, "B C h w"], cells: Tensor, radius: int) -> Tensor:
    """Correlation in windows around sub-pixel points by grid_sample."""
    around = cells[:, :, None] + coords.window_offsets(radius)
    return torch.einsum("bnc,bcnk->bnk", query, coords.sample(key, around, "zeros")[0])


def naive_local(query: Float[Tensor, "B C h w"], key: Float[Tensor, "B C h w"], radius: int) -> Tensor:
    """Correlation in windows around every cell by unfold."""
    side = 2 * radius + 1
    windows = F.unfold(key, side, padding=radius).unflatten(1, (key.shape[1], side * side))
    return torch.einsum("bcn,bckn->bnk", query.flatten(2), windows)


def point_methods(made: Problem, how: CoarseToFine) -> dict[str, Call]:
    """Ways to find the points of a problem; the dense one only where its matrix is no larger than MOST_BYTES."""
    query, key = made.query.fine, made.key.fine
    calls: dict[str, Call] = {}
    if 8 * query.shape[1] * key[0, 0].numel() <= MOST_BYTES:  # logits and their softmax
        calls["dense"] = lambda: naive_soft_argmax(query, key, how.temperature)
    calls["streamed"] = lambda: search.global_soft_argmax(query, key, how.temperature)
    calls["coarse_to_fine"] = lambda: coarse_to_fine.match_points(made.query, made.key, LATTICES, how)
    return calls


def rivals(made: Problem) -> dict[str, Call]:
    """OpenCV on a pair of frames of the same size: LK for the points, DIS (medium) for the whole field."""
    rng = np.random.default_rng(0)
    frame = cv2.GaussianBlur(rng.integers(0, 256, made.size_hw, np.uint8), (0, 0), 2)
    other, xy = np.roll(frame, 3, axis=1), np.ascontiguousarray(made.xy.numpy())
    dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    return {
        "lk": lambda: cv2.calcOpticalFlowPyrLK(frame, other, xy, None, winSize=(21, 21), maxLevel=3),
        "dis": lambda: dis.calc(frame, other, None),
    }


def floor_seconds(made: Problem, how: CoarseToFine, rate: float, speed: float) -> dict[str, float]:
    """The least time for a problem's points: its products at the rate of a matrix product, or its maps at
    the speed of memory, whichever is longer."""
    N, C = made.query.fine.shape[1:]
    fine, coarse = made.key.fine[0, 0].numel(), made.key.coarse[0, 0].numel()
    windows = how.candidates * (2 * how.radius + 1) ** 2 + (2 * how.readout + 1) ** 2
    operations = {"streamed": 2 * N * fine * C, "coarse_to_fine": 2 * N * (coarse * 2 * C + windows * C)}
    values = {"streamed": fine * C, "coarse_to_fine": coarse * 2 * C + min(fine, N * windows) * C}
    return {name: max(operations[name] / rate, 4 * values[name] / speed) for name in operations}


def sweep(problems: list[Problem], how: CoarseToFine, repeats: int, rate: float, speed: float) -> list[dict]:
    """What the points of some problems cost, each in every way: {"seconds", "bytes", "floor"}, by the ways' names."""
    rows = []
    for made in problems:
        calls = point_methods(made, how)
        with torch.no_grad():
            took = seconds(calls | rivals(made), repeats, long=4.0)
            held = {name: peak_bytes(call) for name, call in calls.items()}
        rows.append({"seconds": took, "bytes": held, "floor": floor_seconds(made, how, rate, speed)})
    return rows


def growth(sizes: list[float], values: list[float]) -> float:
    """The exponent of a cost over a size: the slope of the line through their logarithms. 1 is linear."""
    x, y = (np.log(np.asarray(v)) for v in (sizes, values))
    return float(np.polyfit(x, y, 1)[0])


def ratios(
    size_hw: tuple[int, int], how: CoarseToFine, repeats: int, field_repeats: int
) -> dict[str, dict[str, float]]:
    """Seconds of ours and of what it replaces, pair by pair, in turns: {pair: {"ours", "theirs"}}."""
    wide, made = problem(size_hw, 256, channels=128), problem(size_hw, 256)
    cells = coords.to_cells(made.xy, LATTICES[1])[None]
    first = wide.key.fine.contiguous()  # channels first, as most encoders give them
    pairs = {
        "streamed_over_naive": (
            lambda: search.global_soft_argmax(wide.query.fine, first, how.temperature),
            lambda: naive_soft_argmax(wide.query.fine, first, how.temperature),
        ),
        "windows_over_grid_sample": (
            lambda: matching.window_correlation(wide.query.fine, wide.key.fine, cells, 4),
            lambda: naive_windows(wide.query.fine, first, cells, 4),
        ),
        "local_over_unfold": (
            lambda: matching.local_correlation(made.field.fine, made.key.fine, 5),
            lambda: naive_local(made.field.fine, made.key.fine, 5),
        ),
        "points_over_dense": (
            lambda: coarse_to_fine.match_points(made.query, made.key, LATTICES, how),
            lambda: coarse_to_fine.match_exactly(made.query.fine, made.key.fine, how),
        ),
        "field_over_dense": (
            lambda: coarse_to_fine.match_field(made.field, made.key, LATTICES, how),
            lambda: coarse_to_fine.match_exactly(search.as_queries(made.field.fine), made.key.fine, how),
        ),
    }
    took = {}
    with torch.no_grad():
        for name, (ours, theirs) in pairs.items():
            often = field_repeats if name.startswith("field") else repeats
            took[name] = seconds({"ours": ours, "theirs": theirs}, often)
    return took


def field_memory(size_hw: tuple[int, int], temperature: float) -> dict[str, int]:
    """Peak bytes of the streamed softmax of a whole map with a whole map, forward, and with its backward.

    Inputs are not counted; gradients of them, which backward returns, are taken off.
    """
    made = problem(size_hw, 1)
    query, key = search.as_queries(made.field.fine).contiguous(), made.key.fine
    with torch.no_grad():
        forward = peak_bytes(lambda: search.global_soft_argmax(query, key, temperature))
    query, key = query.requires_grad_(), key.requires_grad_()
    both = peak_bytes(
        lambda: torch.autograd.grad(search.global_soft_argmax(query, key, temperature).sum(), (query, key))
    )
    return {"forward": forward, "forward_backward": both - 4 * (query.numel() + key.numel())}


def pair_accuracy(
    model: nn.Module, num_clips: int, gaps: list[int], hows: Mapping[str, CoarseToFine]
) -> dict[str, dict[str, float]]:
    """Scores of single pairs of frames, frame 0 and some later ones, of the held-out procedural benchmark.

    Returns:
        delta_avg and delta_1 of visible points, means over clips, for "dense" (the exact search at the
        fine stride), each setting of `match_points`, and "field", `match_field` with its defaults.
    """
    lattices, scores = (model.coarse_lattice, model.fine_lattice), {name: [] for name in ("dense", "field", *hows)}
    for task in benchmarks.procedural_val(num_clips, num_frames=max(gaps) + 1):
        clip, times = task.read()[0], [0, *gaps]
        xy = clip.query_points[None, :, 1:]
        with torch.no_grad():
            coarse, fine = model(frames.to_float(clip.video[times]))
        field, points = (coarse[:1], fine[:1]), [coords.to_cells(xy, lattice) for lattice in lattices]
        query = tuple(matching.features_at(f, at) for f, at in zip(field, points))
        for name in scores:
            tracks = [clip.tracks[0]]
            for t in range(1, len(times)):
                key = coarse[t : t + 1], fine[t : t + 1]
                if name == "dense":
                    found = coarse_to_fine.match_exactly(query[1], key[1])[0]
                elif name == "field":
                    moved = coarse_to_fine.match_field(field, key, lattices)[0] - coords.grid(tuple(fine.shape[-2:]))
                    moved = coords.sample(rearrange(moved, "B h w c -> B c h w"), points[1].round())[0].mT
                    found = points[1] + moved
                else:
                    found = coarse_to_fine.match_points(query, key, lattices, hows[name])[0]
                tracks.append(coords.to_pixels(found[0], lattices[1]))
            truth = clip.tracks[times], clip.visible[times]
            scores[name].append(metrics.tapvid_metrics(torch.stack(tracks), truth[1], *truth, clip.query_points))
    return {
        name: {m: math.fsum(row[m] for row in rows) / len(rows) for m in ("delta_avg", "delta_1")}
        for name, rows in scores.items()
    }
