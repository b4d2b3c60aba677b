"""Points carried through time, one frame in, positions out.

Every query keeps the features it started with and those it had when last seen well. In each frame
the coarse map is searched as a whole, under a heavy-tailed prior around the predicted position, so
that a point lost is found again; its best candidates are then looked at in the fine map, and the
position is read out there below the size of a cell. Queries never see each other: they are worked
on in tiles of one fixed size, so that a track is the same, bit for bit, whoever else is asked.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from . import coords, frames, matching
from .encoder import Features
from .samples import PointTracks

TILE = 64


@dataclass(frozen=True)
class TrackerConfig:
    """How the tracker searches. Lengths are in coarse cells, so that they hold at any resolution."""

    lines: int = 256  # taller frames are reduced to so many lines first; 0 never
    temperature: float = 0.07
    recent: float = 0.5  # weight of the most recent template beside the query's own
    candidates: int = 3  # coarse peaks looked at in the fine map
    coarse_in_fine: float = 1.0  # weight of the coarse logits in the choice among fine cells
    prior: float = 2.0  # exponent of the heavy-tailed prior on displacement from the prediction
    spread: float = 1.5  # its width when the point is seen
    growth: float = 1.25  # of the width, each frame the point is not seen
    momentum: float = 0.5  # share of the last displacement expected to go on
    radius: int = 6  # of the fine windows
    readout: int = 2  # radius of the soft-argmax, in fine cells
    update: float = 0.5  # confidence from which the recent template is renewed
    visible: float = 0.5  # confidence from which a point counts as visible


class Tile(NamedTuple):
    """The state of TILE queries, everything with a leading dimension of TILE."""

    position: Float[Tensor, "n 2"]  # pixels
    velocity: Float[Tensor, "n 2"]
    spread: Float[Tensor, "n"]
    query_coarse: Float[Tensor, "n C"]
    query_fine: Float[Tensor, "n D"]
    recent_coarse: Float[Tensor, "n C"]
    recent_fine: Float[Tensor, "n D"]
    home_fine: Float[Tensor, "n K D"]  # features around the query, for the way back
    home_cells: Float[Tensor, "n K 2"]
    home: Float[Tensor, "n 2"]  # fine cells


def start(features: Features, lattices: tuple, xy: Float[Tensor, "n 2"], config: TrackerConfig) -> Tile:
    """The state of new queries at pixel positions of the frame the features are of."""
    coarse_lattice, fine_lattice = lattices
    coarse = matching.features_at(features.coarse, coords.to_cells(xy, coarse_lattice)[None])[0]
    home = coords.to_cells(xy, fine_lattice)
    fine = matching.features_at(features.fine, home[None])[0]
    rows, cells = matching.window_features(features.fine, home[None], config.radius)
    still = torch.zeros_like(xy)
    spread = torch.full_like(xy[:, 0], config.spread)
    return Tile(xy, still, spread, coarse, fine, coarse, fine, rows[0], cells[0], home)


def advance(features: Features, lattices: tuple, tile: Tile, config: TrackerConfig) -> tuple[Tile, Float[Tensor, "n"]]:
    """Finds the queries of a tile in the next frame; returns the new state and the confidence."""
    coarse_lattice, fine_lattice = lattices
    mix = 1 / (1 + config.recent)
    # Coarse: the whole map.
    query = mix * (tile.query_coarse + config.recent * tile.recent_coarse)
    cosine = matching.correlate(query[None], features.coarse)[0]
    predicted = tile.position + config.momentum * tile.velocity
    cells = coords.grid(tuple(cosine.shape[-2:]), cosine.device)
    away = (cells - coords.to_cells(predicted, coarse_lattice)[:, None, None]) / tile.spread[:, None, None, None]
    logits = cosine / config.temperature - config.prior * torch.log1p((away**2).sum(-1))
    peaks = matching.top_peaks(logits, config.candidates)
    # Fine: a window around each candidate, all of them one list of cells.
    start_px = coords.to_pixels(peaks, coarse_lattice)
    centre = coords.to_cells(start_px, fine_lattice)
    query = mix * (tile.query_fine + config.recent * tile.recent_fine)
    n, m = centre.shape[:2]
    fine, fine_cells = matching.window_correlation(
        query.repeat_interleave(m, dim=0)[None], features.fine, centre.reshape(1, n * m, 2), config.radius
    )
    fine = (fine / config.temperature).reshape(n, -1)
    fine_cells = fine_cells.reshape(n, -1, 2)
    at_coarse = coords.to_cells(coords.to_pixels(fine_cells, fine_lattice), coarse_lattice)
    support = coords.sample(logits[:, None], at_coarse)[0][:, 0]
    best = (fine + config.coarse_in_fine * support).argmax(dim=1)
    winner = fine_cells[torch.arange(n), best]
    # Sub-pixel: the expectation near the winner, from the fine features alone.
    local, local_cells = matching.window_correlation(query[None], features.fine, winner[None], config.readout)
    found = matching.soft_argmax(local[0] / config.temperature, local_cells[0])
    position = coords.to_pixels(found, fine_lattice)
    # The way back, and how sure all this is.
    now_fine = matching.features_at(features.fine, found[None])[0]
    now_coarse = matching.features_at(features.coarse, coords.to_cells(position, coarse_lattice)[None])[0]
    back = torch.einsum("nkd,nd->nk", tile.home_fine, now_fine) / config.temperature
    back = back.masked_fill((tile.home_fine == 0).all(-1), float("-inf"))
    returned = matching.soft_argmax(back, tile.home_cells)
    error = (returned - tile.home).norm(dim=-1)
    likeness = (now_fine * tile.query_fine).sum(-1)
    context = (now_coarse * tile.query_coarse).sum(-1)
    confidence = torch.sigmoid(6 * (likeness - 0.55) + 4 * (context - 0.5) + 1.0 - 0.8 * error)
    sure = confidence > config.update
    seen = confidence > config.visible
    moved = position - tile.position
    keep = sure[:, None]
    return (
        tile._replace(
            position=position,
            velocity=torch.where(seen[:, None], moved, config.momentum * tile.velocity),
            spread=torch.where(seen, config.spread, (tile.spread * config.growth).clamp(max=64.0)),
            recent_coarse=torch.where(keep, now_coarse, tile.recent_coarse),
            recent_fine=torch.where(keep, now_fine, tile.recent_fine),
        ),
        confidence,
    )


class Answer(NamedTuple):
    """Where the points of an `OnlineTracker` are in the frame just seen."""

    xy: Float[Tensor, "N 2"]
    visible: Bool[Tensor, "N"]
    confidence: Float[Tensor, "N"]


class OnlineTracker:
    """Follows points through a stream: one frame in, positions out, constant memory and time a frame.

    Args:
        model: an encoder (`load_pretrained()`); frames go to its device.
        config: how to search.

    Example:
        >>> import corrlib, torch
        >>> tracker = corrlib.OnlineTracker(corrlib.load_pretrained())
        >>> frame = torch.rand(3, 96, 128)
        >>> tracker.step(frame, new_points=torch.tensor([[40.0, 30.0]])).xy.shape
        torch.Size([1, 2])
    """

    def __init__(self, model: nn.Module, config: TrackerConfig | None = None):
        self.model, self.config = model, config or TrackerConfig()
        self.lattices = (model.coarse_lattice, model.fine_lattice)
        self.size_hw: tuple[int, int] | None = None
        self.state: Tile | None = None

    @torch.inference_mode()
    def step(self, frame: Tensor, new_points: Tensor | None = None) -> Answer:
        """Takes in the next frame.

        Args:
            frame: (3, H, W), uint8 or float in [0, 1], of the same size as those before.
            new_points: (M, 2), points of this frame to be followed from now on.

        Returns:
            the positions of all points, in pixels of the frame given, in the order they were
            added; of the new ones the position given.

        Raises:
            ValueError: the frame's shape or a new point is wrong; the tracker is as before.
        """
        if frame.ndim != 3 or frame.shape[0] != 3:
            raise ValueError(f"OnlineTracker.step: frame should be (3, H, W), got {tuple(frame.shape)}.")
        size_hw = tuple(frame.shape[1:])
        if self.size_hw not in (None, size_hw):
            raise ValueError(f"OnlineTracker.step: frame should be {self.size_hw} (H, W) as before, got {size_hw}.")
        if new_points is not None:
            new_points = torch.as_tensor(new_points, dtype=torch.float32)
            check_points("OnlineTracker.step", new_points, size_hw)
        device = next((t.device for t in [*self.model.parameters(), *self.model.buffers()]), torch.device("cpu"))
        lines = min(self.config.lines or size_hw[0], size_hw[0])
        work_hw = (lines, max(1, round(size_hw[1] * lines / size_hw[0])))
        features = self.model(coords.resize_frames(frames.to_float(frame)[None].to(device), work_hw))
        state, confidence = self.state, torch.ones(0, device=device)
        if state is not None and len(state.position):
            state, confidence = in_tiles(lambda tile: advance(features, self.lattices, tile, self.config), state)
        if new_points is not None:
            xy = coords.resize_points(new_points.to(device), size_hw, work_hw)
            fresh = start(features, self.lattices, xy, self.config)
            state = Tile(*(torch.cat(pair) for pair in zip(state, fresh))) if state is not None else fresh
            confidence = torch.cat([confidence, torch.ones(len(xy), device=device)])
        self.size_hw, self.state = size_hw, state
        position = state.position if state is not None else torch.zeros(0, 2, device=device)
        xy = coords.resize_points(position, work_hw, size_hw)
        return Answer(xy, (confidence > self.config.visible) & coords.inside(xy, size_hw), confidence)

    def drop(self, points: Sequence[int]) -> None:
        """Forgets points, by their place in the last answer; those behind them move up.

        Raises:
            ValueError: there is no such point.
        """
        count = 0 if self.state is None else len(self.state.position)
        if any(not 0 <= point < count for point in points):
            raise ValueError(f"OnlineTracker.drop: points should be in 0..{count - 1}, got {list(points)}.")
        keep = torch.ones(count, dtype=torch.bool)
        keep[list(points)] = False
        if count:
            self.state = Tile(*(values[keep.to(values.device)] for values in self.state))


def in_tiles(work: Callable[[Tile], tuple[Tile, Tensor]], state: Tile) -> tuple[Tile, Tensor]:
    """Works on queries TILE at a time, the last tile filled up, since matrix kernels depend on shape."""
    count = len(state.position)
    padded = torch.arange(-(-count // TILE) * TILE).clamp(max=count - 1)
    done = [work(Tile(*(values[part] for values in state))) for part in padded.split(TILE)]
    tiles, confidence = zip(*done)
    return Tile(*(torch.cat(values)[:count] for values in zip(*tiles))), torch.cat(confidence)[:count]


def check_points(name: str, xy: Tensor, size_hw: tuple[int, int]) -> None:
    """Refuse points that are not (N, 2), not numbers, or not inside the frame."""
    if xy.ndim != 2 or xy.shape[1] != 2:
        raise ValueError(f"{name}: points should be (N, 2) as (x, y), got {tuple(xy.shape)}.")
    if not torch.isfinite(xy).all():
        raise ValueError(f"{name}: points should be numbers, got NaN or infinity.")
    outside = ~coords.inside(xy, size_hw)
    if outside.any():
        x, y = xy[outside][0].tolist()
        raise ValueError(f"{name}: point ({x:g}, {y:g}) is outside the frame of {size_hw[1]} x {size_hw[0]} pixels.")


def track_points(
    model: nn.Module,
    video: frames.Source,
    query_points: Tensor,
    config: TrackerConfig | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> PointTracks:
    """Follows points through a video, forwards and, from queries in its middle, backwards.

    Args:
        model: an encoder (`load_pretrained()`).
        video: a path, (T, 3, H, W) frames, or (B, T, 3, H, W) frames with (B, N, 3) queries. Files
            are read lazily; only frames before the last query's are kept, for the way back.
        query_points: (N, 3) as (t, x, y), pixels.
        config: how to search.
        progress: called after each frame with the number done and the number there are (0: unknown).

    Returns:
        tracks (T, N, 2) in pixels, visible (T, N), confidence (T, N) in [0, 1]; with a leading B
        for batched frames. In its own frame a query has the position given and confidence 1.

    Raises:
        ValueError: no query, one outside the frame or the video, NaN, or a video of one frame.
        FileNotFoundError: there is no such video.
    """
    query_points = torch.as_tensor(query_points, dtype=torch.float32)
    if isinstance(video, Tensor) and video.ndim == 5:
        if query_points.ndim != 3 or len(query_points) != len(video):
            raise ValueError(
                f"track_points: query_points should be ({len(video)}, N, 3) for {len(video)} videos, "
                f"got {tuple(query_points.shape)}."
            )
        clips = [track_points(model, v, q, config, progress) for v, q in zip(video, query_points)]
        return PointTracks(*(torch.stack(parts) for parts in zip(*clips)))
    if query_points.ndim != 2 or query_points.shape[1] != 3 or not len(query_points):
        raise ValueError(
            "track_points: query_points should be (N, 3) as (t, x, y) with N at least 1, "
            f"got {tuple(query_points.shape)}."
        )
    opened = frames.open_video(video)
    check_points("track_points", query_points[:, 1:], opened.size_hw)
    when = query_points[:, 0]
    if (when != when.round()).any() or (when < 0).any():
        raise ValueError("track_points: the times t of query_points should be whole numbers from 0.")
    last_query = int(when.max())

    forward, earlier = OnlineTracker(model, config), []
    answers: list[Answer] = []
    order: list[int] = []  # of the queries, as the tracker knows them
    for t, frame in enumerate(opened):
        new = (when == t).nonzero()[:, 0]
        answers.append(
            _ordered(forward.step(frame, query_points[new, 1:] if len(new) else None), order + new.tolist(), len(when))
        )
        order += new.tolist()
        if t <= last_query and last_query > 0:
            earlier.append(frame)
        if progress:
            progress(t + 1, opened.num_frames)
    if len(answers) < 2:
        raise ValueError(f"track_points: the video should have at least 2 frames, got {len(answers)}.")
    if last_query >= len(answers):
        raise ValueError(
            f"track_points: a query asks in frame {last_query}, but the video ends with frame {len(answers) - 1}."
        )

    backward, order = OnlineTracker(model, config), []
    for t in range(last_query, -1, -1) if last_query else ():
        new = (when == t).nonzero()[:, 0]
        found = _ordered(
            backward.step(earlier[t], query_points[new, 1:] if len(new) else None), order + new.tolist(), len(when)
        )
        order += new.tolist()
        before = (when > t).to(found.xy.device)
        answers[t] = Answer(
            *(torch.where(before.reshape(-1, *[1] * (b.ndim - 1)), b, f) for b, f in zip(found, answers[t]))
        )
    return PointTracks(*(torch.stack(parts) for parts in zip(*answers)))


def _ordered(answer: Answer, order: list[int], count: int) -> Answer:
    """An answer put in the order of the queries, zeros for those not yet asked."""
    device = answer.xy.device
    xy, visible = torch.zeros(count, 2, device=device), torch.zeros(count, dtype=torch.bool, device=device)
    confidence = torch.zeros(count, device=device)
    xy[order], visible[order], confidence[order] = answer
    return Answer(xy, visible, confidence)
