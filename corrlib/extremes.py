"""The best and the worst clip of a method, drawn: averages hide both."""

import math
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from . import evaluation, predictions, visualize
from .benchmarks import Task


def best_and_worst(tasks: list[Task], scores: evaluation.Scores, folder: str | Path, method: str) -> tuple[Figure, str]:
    """The clip that a method does best on and the one it does worst on, in its main number, drawn and in words.

    Each is shown in its last frame with known truth. A white line leads from an answer to the
    truth; of objects the true outlines are white and those of the masks answered coloured.
    """
    metric = evaluation.COMPARED[tasks[0].benchmark][0]
    values = {name: clip.get(metric, math.nan) for name, clip in scores[method].items()}
    known = {name: value for name, value in values.items() if not math.isnan(value)} or values
    order = sorted(known, key=known.get, reverse=metric != "epe")
    drawn = list(dict.fromkeys((order[0], order[-1])))
    fig = Figure(figsize=(5 * len(drawn), 3.7), layout="constrained")
    for ax, name in zip(np.atleast_1d(fig.subplots(1, len(drawn))), drawn):
        task = next(task for task in tasks if task.name == name)
        clip, truth = task.read()
        tracks, visible, _ = predictions.read_points(folder, task, method)
        t = int(clip.valid.any(dim=1).nonzero().max()) if clip.valid.any() else len(tracks) - 1
        some = torch.randperm(tracks.shape[1], generator=torch.Generator().manual_seed(0))[:60]
        title = f"{name}, frame {t}: {known[name]:.3g}"
        visualize.show_tracks(ax, clip.video[t], tracks[:, some], visible[:, some], t, title)
        seen = some[clip.visible[t, some] & clip.valid[t, some]]
        ax.plot(*torch.stack([tracks[t, seen], clip.tracks[t, seen]]).movedim(-1, 0), color="white", linewidth=1.2)
        if "masks" in truth:
            path = predictions.masks_path(folder, task.benchmark, name, method)
            answer = predictions.read_masks(path, truth["masks"].numpy())[t] if path.is_dir() else None
            for masks, colour in ((answer, visualize.ACCENT), (truth["masks"][t].numpy(), "white")):
                for number in range(1, 0 if masks is None else int(truth["masks"][0].max()) + 1):
                    ax.contour(masks == number, levels=[0.5], colors=colour, linewidths=1.5)
    said = f"best on {order[0]} ({known[order[0]]:.3g}), worst on {order[-1]} ({known[order[-1]]:.3g})"
    return fig, f"{tasks[0].benchmark}: of {len(values)} clips, {method} is {said} in {metric}."
