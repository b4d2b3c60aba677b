"""Points carried through time: through a stream, frame by frame, or through a whole video.

How one point is found in one frame is in `following`. Queries never see each other: they are
worked on in whole tiles, so that on a CPU a track is the same, bit for bit, whoever else is asked.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from . import coords, frames, looks
from .encoder import device_of, encode
from .following import Query, State, TrackerConfig, advance, parted, start
from .samples import PointTracks

TILE = 64  # queries; the kernels that work on other numbers than its multiples may differ in the last bit
TILES = 4  # worked on at once at most: more take more memory, and are hardly quicker


class Answer(NamedTuple):
    """Where the points of an `OnlineTracker` are in the frame just seen."""

    xy: Float[Tensor, "N 2"]
    visible: Bool[Tensor, "N"]
    confidence: Float[Tensor, "N"]


class OnlineTracker:
    """Follows points through a stream: one frame in, positions out, constant memory and time a frame.

    Args:
        model: an encoder (`load_pretrained()`) in evaluation mode; frames go to its device.
        config: how to search.

    Example:
        >>> import corrlib, torch
        >>> tracker = corrlib.OnlineTracker(corrlib.load_pretrained())
        >>> frame = torch.rand(3, 96, 128)
        >>> tracker.step(frame, new_points=torch.tensor([[40.0, 30.0]])).xy.shape
        torch.Size([1, 2])
    """

    def __init__(self, model: nn.Module, config: TrackerConfig | None = None):
        self.model, self.config = model, (config or TrackerConfig()).of(model)
        self.lattices = (model.coarse_lattice, model.fine_lattice)
        self.size_hw: tuple[int, int] | None = None
        self.queries: Query | None = None
        self.state: State | None = None

    @torch.no_grad()  # in inference mode, what is answered could not weigh a loss
    def step(self, frame: Tensor | np.ndarray, new_points: Tensor | np.ndarray | Sequence | None = None) -> Answer:
        """Takes in the next frame.

        Args:
            frame: (3, H, W) tensor or array, uint8 or float in [0, 1], of the same size as those before.
            new_points: (M, 2), points of this frame to be followed from now on; a frame that has any is looked at
                turned and scaled too (`config.looks`), the work of five frames more.

        Returns:
            the positions of all points, in pixels of the frame given, in the order they were
            added; of the new ones the position given.

        Raises:
            ValueError: the frame's shape or a new point is wrong, or the model is in training mode; the
                tracker is as before.
        """
        frame = torch.as_tensor(frame)
        if frame.ndim != 3 or frame.shape[0] != 3:
            raise ValueError(f"OnlineTracker.step: frame should be (3, H, W), got {tuple(frame.shape)}.")
        size_hw = tuple(frame.shape[1:])
        if self.size_hw not in (None, size_hw):
            raise ValueError(f"OnlineTracker.step: frame should be {self.size_hw} (H, W) as before, got {size_hw}.")
        if new_points is not None:
            new_points = torch.as_tensor(new_points, dtype=torch.float32)
            check_points("OnlineTracker.step", new_points, size_hw)
        device = device_of("OnlineTracker.step", self.model)
        work_hw = self.config.size(size_hw)
        frame = frames.to_float(frame).contiguous().to(device)  # a sum's last bit depends on how memory is laid out
        small = coords.resize_frames(frame[None], work_hw)
        features = encode(self.model, small, self.config.bfloat16)
        queries, state = self.queries, self.state
        xy, confidence = torch.zeros(0, 2, device=device), torch.ones(0, device=device)
        if state is not None and len(state.position):
            *moved, sure = in_tiles(
                lambda *tile: advance(features, self.lattices, *parted(tile), self.config), *queries, *state
            )
            state, confidence = State(*moved), sure
            xy = state.position
        if new_points is not None and len(new_points):
            asked = coords.resize_points(new_points.to(device), size_hw, work_hw)
            seen = looks.looks(self.model, small, features, self.config.looks, self.config.bfloat16)
            fresh = in_tiles(lambda points: start(seen, self.lattices, points, self.config), asked)
            if state is not None:
                fresh = [torch.cat(pair) for pair in zip((*queries, *state), fresh)]
            queries, state = parted(fresh)
            xy, confidence = torch.cat([xy, asked]), torch.cat([confidence, torch.ones(len(asked), device=device)])
        self.size_hw, self.queries, self.state = size_hw, queries, state
        xy = coords.resize_points(xy, work_hw, size_hw)
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
            keep = keep.to(self.state.position.device)
            self.queries, self.state = (type(kept)(*(v[keep] for v in kept)) for kept in (self.queries, self.state))


def in_tiles(work: Callable[..., Sequence[Tensor]], *given: Tensor) -> list[Tensor]:
    """Works on the rows of some tensors, TILES * TILE at a time, filled up to a whole tile with copies of the last."""
    count, done = len(given[0]), []
    for at in range(0, count, TILES * TILE):
        rows = [values[at : at + TILES * TILE] for values in given]
        missing = -len(rows[0]) % TILE
        if missing:
            rows = [torch.cat([values, *[values[-1:]] * missing]) for values in rows]
        done.append(work(*rows))
    return [torch.cat(parts)[:count] for parts in zip(*done)]


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
    query_points: Tensor | np.ndarray | Sequence,
    config: TrackerConfig | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> PointTracks:
    """Follows points through a video, forwards and, from queries in its middle, backwards.

    Args:
        model: an encoder (`load_pretrained()`), in evaluation mode.
        video: a path, (T, 3, H, W) frames, or (B, T, 3, H, W) frames with (B, N, 3) queries. Files
            are read lazily; only frames before the last query's are kept, for the way back.
        query_points: (N, 3) as (t, x, y), pixels.
        config: how to search.
        progress: called after each frame with the number done and the number there are (0: unknown).

    Returns:
        tracks (T, N, 2) in pixels, visible (T, N), confidence (T, N) in [0, 1]; with a leading B
        for batched frames. In its own frame a query has the position given and confidence 1.

    Raises:
        ValueError: no query, one outside the frame or the video, NaN, a video of one frame, or a model
            in training mode.
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
    if not ((when == when.round()) & (when >= 0) & when.isfinite()).all():
        raise ValueError("track_points: the times t of query_points should be whole numbers from 0.")
    last_query = int(when.max())
    if not isinstance(opened.source, Path):  # of a file it is known at its end alone
        _check_last(last_query, opened.num_frames)

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
    _check_last(last_query, len(answers))

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


def _check_last(frame: int, num_frames: int) -> None:
    """Refuse a query in a frame that there is not."""
    if frame >= num_frames:
        raise ValueError(
            f"track_points: a query asks in frame {frame}, but the video ends with frame {num_frames - 1}."
        )


def _ordered(answer: Answer, order: list[int], count: int) -> Answer:
    """An answer put in the order of the queries, zeros for those not yet asked."""
    device = answer.xy.device
    xy, visible = torch.zeros(count, 2, device=device), torch.zeros(count, dtype=torch.bool, device=device)
    confidence = torch.zeros(count, device=device)
    xy[order], visible[order], confidence[order] = answer
    return Answer(xy, visible, confidence)
