"""How accuracy grows with one setting of a study: with steps, with textures, with the network's width."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt

from . import visualize
from .arm_scores import Scores
from .studies import Study

TIMES = 10  # how much more the prediction is for


def curves(study: Study, found: Scores) -> Iterator[tuple[str, str, np.ndarray, np.ndarray, np.ndarray]]:
    """Each setting that arms differ in, with each test: its values, rising, and the scores' means and spreads.

    An arm belongs to a setting if it changes nothing else. Scores of several seeds are averaged seed by seed;
    the spread is their standard deviation, NaN of one.
    """
    for setting in dict.fromkeys(name for arm in study.arms.values() for name in arm.changes):
        for test, of_arms in found.items():
            points = []
            for name, arm in study.arms.items():
                if name in of_arms and arm.changes.keys() <= {setting}:
                    means = [np.nanmean(values) for values in of_arms[name].values()]
                    spread = np.std(means, ddof=1) if len(means) > 1 else np.nan
                    points.append((getattr(replace(study.config, **arm.changes), setting), np.mean(means), spread))
            if len(points) > 1:
                yield setting, test, *(np.array(column) for column in zip(*sorted(points)))


def table(study: Study, found: Scores) -> dict[str, dict[str, float | str]]:
    """The curves as entries of a metrics.json, `<benchmark>.<setting>.<metric>` and one of these endings:

    `_per_doubling`, the slope of the straight line over the logarithm that fits best; `_last_doubling`, the
    slope between the last two points, smaller where the curve flattens; `_ten_times`, the score that the last
    point and this slope predict for ten times as much of the setting.
    """
    entries: dict[str, dict[str, float | str]] = {}
    for setting, test, x, mean, _ in curves(study, found):
        benchmark, metric = test.split(".")
        doublings = np.log2(x)
        slope = np.polyfit(doublings, mean, 1)[0]
        last = (mean[-1] - mean[-2]) / (doublings[-1] - doublings[-2])
        unit = "px" if metric == "epe" else "fraction"
        said = {"per_doubling": slope, "last_doubling": last, "ten_times": mean[-1] + last * np.log2(TIMES)}
        for ending, value in said.items():
            entries[f"{benchmark}.{setting}.{metric}_{ending}"] = {"value": float(value), "unit": unit}
    return entries


def write(study: Study, found: Scores, folder: str | Path) -> dict[str, dict[str, float | str]]:
    """The curves, kept in a folder: drawn as curves.png and, as `table`, in growth.json.

    Of the picture, a panel is a setting, a line a test, a bar one standard deviation to either side.

    Returns:
        the table.

    Raises:
        ValueError: of no setting are there two values that are scored; nothing is written.
    """
    drawn = list(curves(study, found))
    settings, tests = (list(dict.fromkeys(of_curve[i] for of_curve in drawn)) for i in (0, 1))
    if not drawn:
        raise ValueError(f"scaling: {folder} should hold scores of two arms that differ in one setting only.")
    fig, axes = plt.subplots(
        1, len(settings), figsize=(4 * len(settings), 3.6), sharey=True, layout="constrained", squeeze=False
    )
    for setting, test, x, mean, spread in drawn:
        ax, colour = axes[0, settings.index(setting)], visualize.PALETTE[tests.index(test)]
        ax.errorbar(x, mean, np.nan_to_num(spread), marker="o", capsize=3, color=colour, label=test)
        ax.set(xscale="log", xlabel=setting)
        ax.set_xticks(x, [f"{value:g}" for value in x])
        ax.minorticks_off()
        ax.grid(alpha=0.3)
    axes[0, 0].set_ylabel("share")
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=2, fontsize="small")
    fig.savefig(Path(folder, "curves.png"), dpi=100)
    plt.close(fig)
    entries = table(study, found)
    Path(folder, "growth.json").write_text(json.dumps(entries, indent=1, sort_keys=True) + "\n")
    return entries
