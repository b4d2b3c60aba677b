"""What following points costs on the machine at hand: seconds a frame beside optical flow, memory over a long stream.

Times are taken as in `costs`; those on all cores by the clock. Resident memory is the process's own,
read from the system while a video is read from its file, frame by frame; it is not the same on every run.
"""

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import psutil
import torch
from einops import rearrange
from jaxtyping import UInt8
from torch import Tensor, nn

from . import baselines, coords, costs, frames, tracking
from .encoder import encode

STILL = 32  # pixels of the random picture that a smooth one is made from


def drifting(size_hw: tuple[int, int], num_frames: int, seed: int = 0) -> Iterator[UInt8[Tensor, "3 H W"]]:
    """Frames of a smooth random picture that drifts by (2, 1) pixels a frame and comes round again."""
    generator = torch.Generator().manual_seed(seed)
    picture = coords.resize_maps(torch.rand(1, 3, STILL, STILL, generator=generator), size_hw)[0]
    picture = (picture * 255).round().to(torch.uint8)
    for t in range(num_frames):
        yield picture.roll((t, 2 * t), dims=(1, 2))


def spread_points(size_hw: tuple[int, int], count: int, seed: int = 0) -> Tensor:
    """Random points of a frame, (count, 2) as (x, y)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 2, generator=generator) * torch.tensor([size_hw[1] - 1.0, size_hw[0] - 1.0])


def frame_seconds(model: nn.Module, size_hw: tuple[int, int], num_points: int, repeats: int = 5) -> dict[str, float]:
    """Seconds a frame takes: our tracker, visibility included, and DIS MEDIUM, once and with the way back.

    Returns:
        "tracker", all of `OnlineTracker.step`; "asked", that of the frame in which the points are asked;
        "encoder", the share of a frame's features in it; "dis", one flow; "dis_visible", two flows, which the
        chained baseline needs to know what is visible.
    """
    first, second = drifting(size_hw, 2)
    tracker, points = tracking.OnlineTracker(model), spread_points(size_hw, num_points)
    tracker.step(first, points)
    turns = itertools.cycle((second, first))
    small = coords.resize_frames(frames.to_float(first)[None], tracker.config.size(size_hw))
    greys = [
        cv2.cvtColor(np.ascontiguousarray(rearrange(f, "C H W -> H W C")), cv2.COLOR_RGB2GRAY) for f in (first, second)
    ]
    dis = cv2.DISOpticalFlow_create(baselines.DIS_PRESETS["medium"])

    def seen() -> None:
        with torch.inference_mode():
            encode(model, small, tracker.config.bfloat16)

    return costs.seconds(
        {
            "tracker": lambda: tracker.step(next(turns)),
            "asked": lambda: tracking.OnlineTracker(model).step(first, points),
            "encoder": seen,
            "dis": lambda: dis.calc(*greys, None),
            "dis_visible": lambda: (dis.calc(*greys, None), dis.calc(*greys[::-1], None)),
        },
        repeats,
    )


def stream_memory(
    model: nn.Module, source: frames.Source | Iterator[Tensor], num_points: int, every: int = 100
) -> list[int]:
    """Bytes resident in this process while points are followed through a video, beside those before it.

    Args:
        model: an encoder.
        source: a video file, read lazily, or frames as they come.
        num_points: followed from the first frame on.
        every: frames between two readings.
    """
    process, tracker, readings = psutil.Process(), tracking.OnlineTracker(model), []
    before = process.memory_info().rss
    stream = frames.open_video(source) if isinstance(source, str | Path) else source
    for t, frame in enumerate(stream):
        tracker.step(frame, spread_points(tuple(frame.shape[1:]), num_points) if t == 0 else None)
        if t % every == every - 1:
            readings.append(process.memory_info().rss - before)
    return readings


def measure(
    model: nn.Module, stream: Path | None = None, small_frames: int = 0, num_points: int = 256, repeats: int = 9
) -> dict[str, dict]:
    """What following points costs, as entries of a metrics.json.

    Args:
        model: an encoder.
        stream: a video over which memory is read each 100 frames; none reads none.
        small_frames: length of a stream of 64 x 64 pixels, drawn frame by frame, over which it is read too.
        num_points: followed from the first frame on.
        repeats: of timed frames.
    """
    entries = {}

    def add(group: str, method: str, metric: str, value: float, unit: str, count: int) -> None:
        entries[f"{group}.{method}.{metric}"] = {"value": value, "unit": unit, "count": count}

    for H, W in ((256, 256), (480, 854)):
        took, group = frame_seconds(model, (H, W), num_points, repeats), f"follow_{H}x{W}"
        for method, value in took.items():
            add(group, method, "seconds", value, "s", repeats)
        for method in ("dis", "dis_visible"):
            add(group, method, "tracker_over", took["tracker"] / took[method], "times", repeats)
        add(group, "tracker", "frames_a_second", 1 / took["tracker"], "1/s", repeats)
        one = torch.get_num_threads()
        torch.set_num_threads(os.cpu_count() or one)
        together = frame_seconds(model, (H, W), num_points, repeats)["tracker"]
        torch.set_num_threads(one)
        add(group, "tracker", "frames_a_second_all_cores", 1 / together, "1/s", repeats)
    streams = {"stream": stream, "stream_64": drifting((64, 64), small_frames) if small_frames else None}
    for group, source in streams.items():
        if source is None:
            continue
        readings = stream_memory(model, source, num_points)
        add(group, "tracker", "frames", 100 * len(readings), "frames", 1)
        add(group, "tracker", "resident", max(readings) / 2**20, "MiB", len(readings))
        last = readings[-11:]
        add(group, "tracker", "last_1000_frames", (last[-1] - last[0]) / 2**20, "MiB", len(last))
    return entries
