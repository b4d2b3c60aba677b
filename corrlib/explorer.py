"""The door to the explorer: click a pixel in a notebook, and see where it goes.

What it knows is in `exploration`, its widgets are in `panel`, and both are imported when it is
opened: who only tracks needs neither figures nor widgets.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch import nn

from . import frames
from .progress import Progress
from .replay import FlowReplay, Replay
from .tracking import TrackerConfig

if TYPE_CHECKING:
    from .panel import Explorer


def explore(
    model: nn.Module,
    video: frames.Source,
    compare: "nn.Module | str" = "",
    max_frames: int = 96,
    config: TrackerConfig | None = None,
) -> "Explorer":
    """An explorer to look into in a notebook: points by clicking, masks by drawing a box.

    All frames are encoded first, with a progress line; then a click is answered at once.

    Args:
        model: an encoder (`load_pretrained()`).
        video: as in `open_video`.
        compare: a second encoder, or "dis" for dense inverse-search flow, to be shown beside it.
        max_frames: read so many from the video's start; each is held with its features, about
            8 MB for a frame of 256 lines.
        config: of the tracker; temperature, radius and candidates can be changed in the explorer.

    Returns:
        what a notebook shows as its cell's last value. `.exploration` holds the points, tracks and
        masks, and draws all that is shown as pictures and as static figures.

    Raises:
        ValueError: `compare` is something else, or the video has fewer than 2 frames.
        FileNotFoundError: there is no such video.

    Example:
        >>> import corrlib, torch
        >>> explorer = corrlib.explore(corrlib.load_pretrained(), torch.rand(3, 3, 64, 96))
        >>> explorer.exploration.add(0, 40.0, 30.0)
        0
        >>> explorer.exploration.tracks("model").tracks.shape
        torch.Size([3, 1, 2])
    """
    if isinstance(compare, str) and compare not in ("", "dis"):
        raise ValueError(f'explore: compare should be a model, "dis" or nothing, got {compare!r}.')
    from .exploration import Exploration
    from .panel import Explorer

    opened = frames.open_video(video)
    held = frames.read_video(opened, max_frames)

    def prepared(name: str, make: Callable[[Callable], Any]) -> Any:
        with Progress(f"{name}: looking at all frames", len(held)) as progress:
            return make(lambda done, total: progress.update(done))

    methods = {"model": prepared("model", lambda told: Replay(model, held, config, told))}
    if compare == "dis":
        methods["DIS"] = prepared("DIS", lambda told: FlowReplay(held, told))
    elif compare:
        methods["other model"] = prepared("other model", lambda told: Replay(compare, held, config, told))
    return Explorer(Exploration(held, methods), opened.fps)
