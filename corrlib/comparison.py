"""Several runs side by side: seeds as one column with their spread, published numbers in columns of their own.

Runs are read from their folders (`runs`), published numbers from data/published.json. Two runs
are the same but for the seed when all parameters agree that change what is computed; where one
evaluates a checkpoint, the parameters of the run that wrote it count in place of its path.
"""

import json
import math
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from matplotlib.axes import Axes

from . import report

# Of runs; the rest of the parameters decides what is computed.
ASIDE = {"SEED", "RUN_NAME", "OVERWRITE", "PREDICTIONS"}
# What is compared: the benchmarks' main numbers.
METRICS = ("delta_avg", "average_jaccard", "occlusion_accuracy", "pck_1", "pck_2", "j_and_f", "points_in_mask", "epe")
METRICS += tuple(f"{m}_paper" for m in ("delta_avg", "average_jaccard", "occlusion_accuracy", "pck_1", "pck_2"))
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")


class Recorded(NamedTuple):
    """A run that came to its end: its name, what it computed, its numbers, and where they come from."""

    name: str
    settings: dict
    metrics: dict[str, dict]
    environment: dict


class Published(NamedTuple):
    """A number that others have published of themselves, or the paper of them."""

    benchmark: str
    method: str
    metric: str
    value: float
    protocol: str
    source: str


def read_runs(results: Path, names: Iterable[str] = ()) -> list[Recorded]:
    """The finished runs of a folder that recorded numbers, by their names.

    Raises:
        FileNotFoundError: one of those named is not there.
        ValueError: one of those named did not come to its end, or a file in it is broken.
    """
    found = []
    for name in names:
        if not (results / name / "metrics.json").is_file():
            raise FileNotFoundError(f"read_runs: no file {results / name / 'metrics.json'}.")
    for path in sorted(results.glob("*/metrics.json")):
        folder = path.parent
        if (names and folder.name not in names) or not (folder / "params.json").is_file():
            continue
        environment = _read(folder / "environment.json")
        if not environment.get("finished"):
            if names:
                raise ValueError(f"read_runs: {folder} should be a run that came to its end, got one that did not.")
            continue
        metrics = report.read_metrics(path)
        if metrics:
            found.append(Recorded(folder.name, _settings(folder), metrics, environment))
    return found


def _read(path: Path) -> dict:
    """A JSON file, {} where there is none."""
    if not path.is_file():
        return {}
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"read_runs: {path} should be JSON, got {error}.") from None


def _settings(folder: Path) -> dict:
    """What a run computed: its stage and parameters, without names and seeds."""
    settings = {key: value for key, value in _read(folder / "params.json").items() if key not in ASIDE}
    if settings.get("CHECKPOINT"):
        # As it is written, from the root: results/03_training.name/checkpoint.safetensors.
        origin = folder.parent.parent / Path(settings["CHECKPOINT"]).parent
        settings["CHECKPOINT"] = _settings(origin) if (origin / "params.json").is_file() else settings["CHECKPOINT"]
    return settings | {"stage": folder.name.partition(".")[0]}


def group(runs: Iterable[Recorded]) -> dict[str, list[Recorded]]:
    """Runs that differ in their seeds alone, together, under the name of the first and how many there are."""
    groups: dict[str, list[Recorded]] = {}
    for run in runs:
        groups.setdefault(json.dumps(run.settings, sort_keys=True), []).append(run)
    return {f"{same[0].name}{f', {len(same)} seeds' * (len(same) > 1)}": same for same in groups.values()}


def spread(runs: Iterable[Recorded], key: str) -> tuple[float, float, int]:
    """Mean and standard deviation of a number over runs, and of how many; NaN where there is none."""
    values = [run.metrics[key]["value"] for run in runs if run.metrics.get(key, {}).get("value") is not None]
    mean = statistics.fmean(values) if values else math.nan
    return mean, statistics.stdev(values) if len(values) > 1 else math.nan, len(values)


def read_published(path: Path) -> list[Published]:
    """Published numbers, fractions or pixels, each with its protocol and source.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: an entry has other fields.
    """
    if not path.is_file():
        raise FileNotFoundError(f"read_published: no file {path}.")
    try:
        return [Published(**entry) for entry in json.loads(path.read_text())]
    except (TypeError, ValueError) as error:
        raise ValueError(f"read_published: {path} should be a list of {Published._fields}, got {error}.") from None


def asked(groups: dict[str, list[Recorded]], published: list[Published]) -> dict[str, list[str]]:
    """The benchmarks of which there are numbers, those of runs first; of each the metrics, first what all have."""
    ours: dict[str, set[str]] = {}
    for run in (run for same in groups.values() for run in same):
        for key, entry in run.metrics.items():
            if entry["value"] is not None:
                ours.setdefault(key.split(".")[0], set()).add(key.split(".")[2])
    theirs: dict[str, set[str]] = {}
    for number in published:
        theirs.setdefault(number.benchmark, set()).add(number.metric)
    found = {}
    for name in dict.fromkeys([*ours, *theirs]):
        here, there = ours.get(name, set()), theirs.get(name, set())
        found[name] = sorted((m for m in METRICS if m in here | there), key=lambda m: m not in here & there)
    return {name: metrics for name, metrics in found.items() if metrics}


def table(groups: dict[str, list[Recorded]], published: list[Published], benchmark: str, metric: str) -> str:
    """One number of a benchmark as a Markdown table: methods as rows, a column a group of runs, then what others say.

    A cell of several seeds is their mean ± one standard deviation.
    """
    of_others = [n for n in published if (n.benchmark, n.metric) == (benchmark, metric)]
    named = {label: same for label, same in groups.items() if _methods([same], benchmark, metric)}
    unit = "px" if metric.startswith("epe") else "fraction"

    def show(value: float) -> str:
        return "" if math.isnan(value) else report.show({"value": value, "unit": unit})

    heads = [f"{benchmark}: {metric}{', px' if unit == 'px' else ', %'}", *named]
    rows = []
    for method in _methods(named.values(), benchmark, metric):
        cells = [spread(same, f"{benchmark}.{method}.{metric}") for same in named.values()]
        rows.append([method, *(f"{show(mean)}{f' ± {show(sd)}' * (sd == sd)}" for mean, sd, _ in cells)])
    if of_others:
        heads += ["published", "its protocol"]
        rows = [[*row, "", ""] for row in rows]
        rows += [[n.method, *[""] * len(named), show(n.value), n.protocol] for n in of_others]
    lines = [heads, ["---", *["---:"] * len(named), *["---:", "---"] * bool(of_others)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def draw(ax: Axes, groups: dict[str, list[Recorded]], published: list[Published], benchmark: str, metric: str) -> None:
    """The same as dots: filled ones are runs, with bars of one standard deviation; hollow diamonds are published."""
    methods = _methods(groups.values(), benchmark, metric)
    of_others = [n for n in published if (n.benchmark, n.metric) == (benchmark, metric)]
    rows = [*methods, *dict.fromkeys(n.method for n in of_others)][::-1]
    scale = 1 if metric.startswith("epe") else 100
    for k, (label, same) in enumerate(groups.items()):
        found = {m: spread(same, f"{benchmark}.{m}.{metric}") for m in methods}
        known = {m: (mean, sd) for m, (mean, sd, _) in found.items() if not math.isnan(mean)}
        at = [rows.index(m) + 0.5 * (k + 0.5) / len(groups) - 0.25 for m in known]
        means, bars = ([scale * value for value in values] for values in zip(*known.values())) if known else ([], [])
        ax.errorbar(
            means, at, xerr=bars, fmt="o", color=COLOURS[k % len(COLOURS)], capsize=2, label=label if known else None
        )
    at = [rows.index(n.method) for n in of_others]
    ax.plot(
        [scale * n.value for n in of_others],
        at,
        "D",
        color="black",
        markerfacecolor="none",
        label="published" if at else None,
    )
    ax.set_yticks(range(len(rows)), rows)
    ax.set(title=benchmark, xlabel=f"{metric}, {'px' if scale == 1 else '%'}")


def _methods(groups: Iterable[list[Recorded]], benchmark: str, metric: str) -> list[str]:
    """The methods that have a number in some run, the best first."""
    best: dict[str, float] = {}
    for run in (run for same in groups for run in same):
        for key, entry in run.metrics.items():
            bench, method, name = key.split(".")
            if (bench, name) == (benchmark, metric) and entry["value"] is not None:
                best.setdefault(method, entry["value"])
    return sorted(best, key=lambda m: (best[m] if metric.startswith("epe") else -best[m], m))
