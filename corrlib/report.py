"""Recorded numbers as text: metrics.json in, Markdown tables out.

Files hold fractions, tables show per cent. A number in the README is a link to the file that
holds it, with its key as the link's title, so that a test can compare the two:
`[72.4](results/reported/04_evaluation.json "procedural.shipped.delta_avg")`.
"""

import json
import math
import os
import re
import statistics
from collections.abc import Mapping
from pathlib import Path

# Single thresholds, whose means or likes stand beside them; errors and intervals, which stand behind their number;
# what is the same for all methods, or asked of one alone.
DETAIL = re.compile(r"(delta|jaccard)_\d+$|pck_[345](_paper)?$|_(se|low|high)$|^(hidden_share|calibration_error)$")
FIRST = ("delta_avg", "j_and_f", "points_in_mask", "epe")  # the columns that tables begin with, and are sorted by
MEASURED = re.compile(r"(seconds_per_frame|peak_memory)$")  # of one machine and moment: the last columns


def read_metrics(path: str | os.PathLike) -> dict[str, dict]:
    """The entries of a metrics.json, `{"<benchmark>.<method>.<metric>": {"value", "unit", "count"}}`.

    Where a costs.json lies beside it, what the run measured of time and memory, its entries are there too.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no such file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"read_metrics: no file {path}.")
    try:
        metrics = json.loads(path.read_text())
        whole = all(len(k.split(".")) == 3 and {"value", "unit"} <= set(e) for k, e in metrics.items())
    except (json.JSONDecodeError, AttributeError, TypeError, UnicodeDecodeError):
        whole = False
    if not whole:
        raise ValueError(f"read_metrics: {path} should map <benchmark>.<method>.<metric> to value and unit.")
    costs = path.with_name("costs.json")
    return metrics | read_metrics(costs) if path.name == "metrics.json" and costs.is_file() else metrics


def keep(run: str | os.PathLike, folder: str | os.PathLike, name: str = "") -> Path:
    """Copies what a run recorded to where reported numbers are kept, with how to make them again beside it.

    `<name>.json` (without a name, the notebook's) holds the numbers, `<name>.how.json` the notebook,
    its parameters, the commit, the versions and the time it took. Absolute paths are of one machine
    only and become "PATH".

    Raises:
        FileNotFoundError: the run has no metrics.json.
    """
    run, folder = Path(run), Path(folder)
    metrics = read_metrics(run / "metrics.json")
    stage = run.name.split(".")[0]
    parameters = json.loads((run / "params.json").read_text())
    parameters = {k: "PATH" if isinstance(v, str) and os.path.isabs(v) else v for k, v in parameters.items()}
    how = json.loads((run / "environment.json").read_text())
    how |= {"parameters": parameters, "command": f"python -m corrlib run-notebook {stage} with these parameters"}
    folder.mkdir(parents=True, exist_ok=True)
    name = name or stage
    for file, content in ((f"{name}.json", metrics), (f"{name}.how.json", how)):
        (folder / file).write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
    return folder / f"{name}.json"


def show(entry: dict) -> str:
    """A recorded number as it is printed: per cent with one decimal, pixels with two, else three digits or more."""
    value, unit = entry["value"], entry["unit"]
    if value is None or math.isnan(value):
        return "–"
    if unit == "fraction":
        return f"{100 * value:.1f}"
    return f"{value:.2f}" if unit == "px" else f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def number(metrics: Mapping[str, dict], key: str, link: str = "") -> str:
    """A recorded number as it is printed, in Markdown a link to the file it comes from, if there is one."""
    text = show(metrics[key])
    return f'[{text}]({link} "{key}")' if link else text


def table(metrics: dict[str, dict], benchmark: str, link: str = "") -> str:
    """One benchmark as a Markdown table, methods as rows, the best first.

    Args:
        metrics: from `read_metrics`.
        benchmark: the first part of the keys to show.
        link: the file the numbers link to, if they should.

    Raises:
        ValueError: nothing is recorded for the benchmark.
    """
    rows: dict[str, dict[str, str]] = {}
    for key in metrics:
        bench, method, metric = key.split(".")
        if bench == benchmark and not DETAIL.search(metric):
            rows.setdefault(method, {})[metric] = key
    if not rows:
        known = ", ".join(sorted({key.split(".")[0] for key in metrics}))
        raise ValueError(f"table: no benchmark {benchmark}; recorded are {known or 'none'}.")
    columns = sorted({c for row in rows.values() for c in row}, key=_place)
    units = {key.split(".")[2]: entry["unit"] for key, entry in metrics.items()}
    heads = [c.removeprefix(f"{columns[0]}_") if "_minus_" in c else c for c in columns]
    heads = [f"{head}, {'%' if units[c] == 'fraction' else units[c]}" for head, c in zip(heads, columns)]

    def rank(method: str) -> tuple:
        key = rows[method].get(columns[0])
        value = metrics[key]["value"] if key else None
        lower_is_better = units[columns[0]] != "fraction"
        return (value is None, (value or 0) * (1 if lower_is_better else -1), method)

    order = sorted(rows, key=rank)
    body = [[method, *(_cell(metrics, rows[method].get(c, ""), link) for c in columns)] for method in order]
    return align([[benchmark, *heads], *body])


def overview(metrics: dict[str, dict], link: str = "") -> str:
    """All benchmarks as one Markdown table: their main numbers as rows, methods as columns, the best one first.

    Behind them stands how far that one is from each that it was compared with clip by clip, ± one standard error.

    Args:
        metrics: from `read_metrics`.
        link: the file the numbers link to, if they should.

    Raises:
        ValueError: no main number is recorded.
    """
    rows: dict[tuple[str, str], dict[str, float]] = {}
    for key, entry in metrics.items():
        benchmark, method, metric = key.split(".")
        if metric in FIRST and entry["value"] is not None:
            worth = entry["value"] * (1 if entry["unit"] == "fraction" else -1)
            rows.setdefault((benchmark, metric), {})[method] = worth
    if not rows:
        raise ValueError(f"overview: none of {', '.join(FIRST)} is recorded.")
    places: dict[str, list[float]] = {}
    for worths in rows.values():
        for method, worth in worths.items():
            places.setdefault(method, []).append(sum(other > worth for other in worths.values()) / len(worths))
    methods = sorted(places, key=lambda method: (statistics.mean(places[method]), method))
    others = sorted({key.partition("_minus_")[2] for key in metrics} & set(methods))
    body = []
    for benchmark, metric in sorted(rows, key=lambda row: (FIRST.index(row[1]), row[0])):
        keys = [f"{benchmark}.{method}.{metric}" for method in methods]
        unit = next(metrics[key]["unit"] for key in keys if key in metrics)
        keys += [f"{keys[0]}_minus_{other}" for other in others]
        name = f"{benchmark}, {metric}, {'%' if unit == 'fraction' else unit}"
        body.append([name, *(_cell(metrics, key, link) for key in keys)])
    return align([["", *methods, *(f"{methods[0]} - {other}" for other in others)], *body])


def align(lines: list[list[str]]) -> str:
    """Cells as a Markdown table whose columns also line up in plain text; the first line is its head."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]

    def row(cells: list[str]) -> str:
        padded = [
            cells[0].ljust(widths[0]),
            *(c.rjust(w) for c, w in zip(cells[1:], widths[1:], strict=True)),
        ]
        return f"| {' | '.join(padded)} |"

    rule = ["-" * widths[0], *("-" * (w - 1) + ":" for w in widths[1:])]
    return "\n".join([row(lines[0]), row(rule), *(row(line) for line in lines[1:])])


def _cell(metrics: dict[str, dict], key: str, link: str) -> str:
    """A number with its standard error, if it has one; empty where there is none."""
    if key not in metrics:
        return ""
    text = number(metrics, key, link)
    return f"{text} ± {_cell(metrics, f'{key}_se', link)}" if f"{key}_se" in metrics else text


def _place(column: str) -> tuple:
    """Where a column stands: main numbers, the others, differences, what was measured."""
    first = FIRST.index(column) if column in FIRST else len(FIRST)
    return bool(MEASURED.search(column)), "_minus_" in column, first, column


def differences(metrics: dict[str, dict], benchmark: str, *methods: str) -> str:
    """In words, how far methods are from each they were compared with clip by clip, and how sure that is."""
    said = []
    for key, entry in metrics.items():
        bench, method, column = key.split(".")
        metric, minus, other = column.partition("_minus_")
        if bench != benchmark or method not in methods or not minus or DETAIL.search(key):
            continue
        value, error = (e["value"] if e["value"] is not None else math.nan for e in (entry, metrics[f"{key}_se"]))
        scale, digits, unit = (100, 1, "points") if entry["unit"] == "fraction" else (1, 2, entry["unit"])
        size = f"{scale * abs(value):.{digits}f} ± {scale * error:.{digits}f} {unit}"
        side = "above" if value >= 0 else "below"
        ends = [metrics.get(f"{key}_{end}", {}).get("value") for end in ("low", "high")]
        interval = "" if None in ends else f"; 95 % bootstrap interval {scale * ends[0]:.{digits}f} to "
        interval += f"{scale * ends[1]:.{digits}f}" if interval else ""
        alone = metrics[key.partition("_minus_")[0]]["count"] == 1 < entry["count"]  # the joints of the only clip
        count = f"{entry['count']} {'joints' if alone else 'clips'}, paired, ± one standard error{interval}"
        said.append(f"{method} is {size} {side} {other} in {metric} ({count}).")
    return "\n\n".join(said)
