"""What using the library costs on the machine at hand: clicks in the explorer, evaluations, the import.

A click is counted from the message of the browser to the new state of the widgets. Resident memory is the
process's own, read from the system after each clip; neither is the same on every run.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import torch
from torch import nn

from . import benchmarks, coords, layouts, methods, predictions, tracker_costs
from .explorer import explore
from .samples import MaskClip

IMPORT = "import time, torch; begun = time.perf_counter(); import corrlib; print(time.perf_counter() - begun)"


def click_seconds(
    model: nn.Module, compare: str = "", num_frames: int = 48, size_hw: tuple[int, int] = (256, 456), clicks: int = 15
) -> dict[str, tuple[float, float]]:
    """Seconds that an answer of the explorer takes, medians: of the clock, and of the processor.

    Args:
        model, compare: as for `explore`.
        num_frames, size_hw: of the clip.
        clicks: counted, each on a new place; a step of the slider follows each.

    Returns:
        "click", a new point followed through the clip and drawn; "step", the slider moved on by a frame.
    """
    explorer = explore(model, torch.stack(list(tracker_costs.drifting(size_hw, num_frames))), compare)
    took: dict[str, list[tuple[float, float]]] = {"click": [], "step": []}

    def count(name: str, message: dict) -> None:
        clock, processor = time.perf_counter(), time.process_time()
        explorer.hear(message)
        took[name].append((time.perf_counter() - clock, time.process_time() - processor))

    for x, y in tracker_costs.spread_points(size_hw, clicks).tolist():
        count("click", {"kind": "point", "xy": [x, y]})
        if len(explorer.exploration.queries) != 1:  # what went wrong is said there, and is no answer
            raise RuntimeError(explorer.line.value)
        count("step", {"kind": "step", "by": 1})
        explorer.forget.click()
    return {name: tuple(map(statistics.median, zip(*values))) for name, values in took.items()}


def evaluation_memory(
    asked: dict[str, methods.Method],
    num_clips: int = 20,
    num_frames: int = 8,
    size_hw: tuple[int, int] = (480, 854),
    told: Callable[[int], None] | None = None,
) -> list[int]:
    """Bytes resident in this process as each of some clips of DAVIS's size begins, points and masks asked.

    Args:
        asked: methods by name.
        num_clips, num_frames, size_hw: of the clips, which drift.
        told: called with the number of each clip as it begins.
    """
    process, readings = psutil.Process(), []

    def note(done: int, text: str) -> None:
        if done == len(readings):
            readings.append(process.memory_info().rss)
            if told:
                told(done)

    H, W = size_hw
    first = coords.box_mask(size_hw, W / 4, H / 4, W / 2, H / 2)
    masks = torch.stack([first.roll((t, 2 * t), dims=(0, 1)) for t in range(num_frames)])
    clips = (
        MaskClip(torch.stack(list(tracker_costs.drifting(size_hw, num_frames, n))), masks, f"clip{n:02d}")
        for n in range(num_clips)
    )
    with tempfile.TemporaryDirectory() as folder:
        layouts.write_davis(folder, clips)
        predictions.predict(asked, benchmarks.tasks("davis2016", folder), Path(folder, "out"), progress=note)
    return readings


def import_seconds(repeats: int = 5) -> float:
    """Seconds that `import corrlib` takes in a new process that has torch already; the median."""
    found = [subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, check=True) for _ in range(repeats)]
    return statistics.median(float(each.stdout) for each in found)


def measure(model: nn.Module, told: Callable[[int], None] | None = None) -> dict[str, dict]:
    """All of it, as entries of a metrics.json; `told` as for `evaluation_memory`."""
    entries = {}

    def add(name: str, value: float, unit: str, count: int) -> None:
        entries[f"use.{name}"] = {"value": value, "unit": unit, "count": count}

    # First, since explorers leave the system less to give back.
    asked = methods.methods(["dis_fast", "static"]) | {"model": methods.of_encoder(model)}
    held = np.array(evaluation_memory(asked, told=told)) / 2**20
    half = len(held) // 2
    add("evaluation.resident_most", float(held.max()), "MiB", len(held))
    # The first clip brings in what stays; after it, later clips should hold what earlier ones held.
    add("evaluation.resident_later_half_more", float(np.median(held[half:]) - np.median(held[1:half])), "MiB", half)
    add("import.seconds", import_seconds(), "s", 5)
    for beside, compare in (("alone", ""), ("with_dis", "dis")):
        for what, (clock, processor) in click_seconds(model, compare).items():
            add(f"{what}_{beside}.seconds", clock, "s", 15)
            add(f"{what}_{beside}.processor_seconds", processor, "s", 15)
    return entries
