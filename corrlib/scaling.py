"""How accuracy grows with one setting of a study: with steps, with textures, with the network's width."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib import pyplot as plt

from . import arm_scores, visualize
from .arm_scores import Scores
from .studies import Study


class Curve(NamedTuple):
    """The scores of one test over one setting."""

    setting: str
    test: str  # "benchmark.metric"
    unit: str
    values: tuple[float, ...]  # of the setting, rising
    means: tuple[float, ...]
    spreads: tuple[float, ...]  # standard deviations over seeds; NaN of one


def curves(study: Study, found: Scores) -> Iterator[Curve]:
    """Each setting that arms differ in, with each test. An arm belongs to a setting if it changes nothing else."""
    scored = arm_scores.table(found, ())
    for setting in dict.fromkeys(name for arm in study.arms.values() for name in arm.changes):
        for test, of_arms in found.items():
            benchmark, metric = test.split(".")
            points = []
            for name, arm in study.arms.items():
                if name in of_arms and arm.changes.keys() <= {setting}:
                    mean, spread = (scored[f"{benchmark}.{name}.{metric}{ending}"] for ending in ("", "_spread"))
                    value = getattr(replace(study.config, **arm.changes), setting)
                    points.append((value, mean["value"], spread["value"]))
            if len(points) > 1:
                yield Curve(setting, test, mean["unit"], *zip(*sorted(points)))


def table(drawn: Iterable[Curve]) -> dict[str, dict[str, float | str]]:
    """Curves as entries of a metrics.json, `<benchmark>.<setting>.<metric>` and one of these endings:

    `_per_doubling`, the slope of the straight line over the logarithm that fits best; `_last_doubling`, the
    slope between the last two points, smaller where the curve flattens; `_ten_times`, the score that the last
    point and this slope predict for ten times as much of the setting.
    """
    entries: dict[str, dict[str, float | str]] = {}
    for curve in drawn:
        benchmark, metric = curve.test.split(".")
        doublings = np.log2(curve.values)
        last = (curve.means[-1] - curve.means[-2]) / (doublings[-1] - doublings[-2])
        said = {
            "per_doubling": np.polyfit(doublings, curve.means, 1)[0],
            "last_doubling": last,
            "ten_times": curve.means[-1] + last * np.log2(10),
        }
        for ending, value in said.items():
            entries[f"{benchmark}.{curve.setting}.{metric}_{ending}"] = {"value": float(value), "unit": curve.unit}
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
    if not drawn:
        raise ValueError(f"scaling: {folder} should hold scores of two arms that differ in one setting only.")
    settings, tests = (list(dict.fromkeys(names)) for names in list(zip(*drawn))[:2])
    fig, axes = plt.subplots(
        1, len(settings), figsize=(4 * len(settings), 3.6), sharey=True, layout="constrained", squeeze=False
    )
    for curve in drawn:
        ax, colour = axes[0, settings.index(curve.setting)], visualize.PALETTE[tests.index(curve.test)]
        bars = np.nan_to_num(curve.spreads)
        ax.errorbar(curve.values, curve.means, bars, marker="o", capsize=3, color=colour, label=curve.test)
        ax.set(xscale="log", xlabel=curve.setting)
        ax.set_xticks(curve.values, [f"{value:g}" for value in curve.values])
        ax.minorticks_off()
        ax.grid(alpha=0.3)
    axes[0, 0].set_ylabel("share")
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=2, fontsize="small")
    fig.savefig(Path(folder, "curves.png"), dpi=100)
    plt.close(fig)
    entries = table(drawn)
    Path(folder, "growth.json").write_text(json.dumps(entries, indent=1, sort_keys=True) + "\n")
    return entries
