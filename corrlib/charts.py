"""Curves of what is measured: accuracy over thresholds, confidence against truth, costs over sizes."""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator
from torch import Tensor

from . import visualize

WAYS = {"dense": "#d55e00", "streamed": "#0072b2", "coarse_to_fine": "#009e73", "lk": "#cc79a7", "dis": "#e69f00"}
MARKERS = "os^Dv<>P*X"


def show_thresholds(ax: Axes, shares: Mapping[str, Sequence[float]], thresholds: Sequence[float]) -> None:
    """The share of visible points within each threshold, a curve for each method.

    Args:
        ax: where to.
        shares: in [0, 1], by method, one for each threshold.
        thresholds: in pixels, rising.
    """
    styles = zip(itertools.cycle(visualize.PALETTE), itertools.cycle(MARKERS))
    for (method, values), (colour, marker) in zip(shares.items(), styles):
        ax.plot(thresholds, values, marker=marker, color=colour, label=method)
    ax.set(xlabel="threshold, pixels", ylabel="share of visible points", ylim=(0, 1))
    ax.set_xscale("log", base=2)
    ax.set_xticks(thresholds, [f"{threshold:g}" for threshold in thresholds])


def calibration_curve(
    confidence: Float[Tensor, "P"], visible: Bool[Tensor, "P"], bins: int = 15
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How often points can be seen, by how sure one is of it.

    Args:
        confidence: in [0, 1].
        visible: the truth.
        bins: of equally many points each, from the least sure to the surest; one more or less in some.

    Returns:
        of each bin with points in it the mean confidence, the share that can be seen, and the number of points.

    Raises:
        ValueError: there are no points, or no bins.
    """
    if not len(confidence) or bins < 1:
        raise ValueError(f"calibration_curve: expected points and bins, got {len(confidence)} and {bins}.")
    order = confidence.argsort(stable=True)
    parts = [part for part in order.tensor_split(bins) if len(part)]
    sure, seen = (np.array([float(v[p].double().mean()) for p in parts]) for v in (confidence, visible))
    return sure, seen, np.array([len(part) for part in parts])


def show_calibration(ax: Axes, confidence: Float[Tensor, "P"], visible: Bool[Tensor, "P"], bins: int = 15) -> float:
    """The calibration curve, a disc for equally many points, beside the line of who is right to be as sure.

    Returns:
        the expected calibration error: the distance from that line, averaged over points.

    Raises:
        ValueError: as `calibration_curve`.
    """
    sure, seen, count = calibration_curve(confidence, visible, bins)
    ax.plot([0, 1], [0, 1], color="0.6", linestyle="--", linewidth=1)
    ax.plot(sure, seen, color=visualize.PALETTE[6], linewidth=1.5)
    ax.scatter(sure, seen, s=60, color=visualize.PALETTE[0], edgecolors="black", zorder=3)
    ax.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), xlabel="confidence", ylabel="share that can be seen")
    return float((np.abs(sure - seen) * count).sum() / count.sum())


def show_costs(ax: Axes, sizes: list[float], rows: list[dict], what: str, labels: list | None = None) -> None:
    """One cost, "seconds" or "bytes", of a sweep over sizes; axes logarithmic, the floors of times dotted."""
    for name, colour in WAYS.items():
        for kind, style in ((what, "o-"), ("floor", ":")) if what == "seconds" else ((what, "o-"),):
            known = [(size, row[kind][name]) for size, row in zip(sizes, rows) if name in row[kind]]
            if known:
                label = name.replace("_", "-") + (", floor" if kind == "floor" else "")
                ax.plot(*zip(*known), style, color=colour, markersize=4, label=label)
    ax.set(xscale="log", yscale="log", ylabel="seconds" if what == "seconds" else "peak memory, MiB")
    if what == "bytes":
        ax.yaxis.set_major_formatter(lambda value, _: f"{value / 2**20:g}")
        ax.yaxis.set_major_locator(FixedLocator([4.0**i for i in range(8, 18)]))
    ax.set_xticks(sizes, labels or [f"{size:,}" for size in sizes])
    ax.minorticks_off()
    ax.grid(alpha=0.3)
