"""The numbers of a study as Markdown tables: how good each arm is, and what the differences come to."""

import math
from collections.abc import Iterable, Mapping

from . import report


def arms(entries: Mapping[str, dict], names: Iterable[str], link: str = "") -> str:
    """Arms as rows, benchmarks as columns: the mean over seeds, ± the standard deviation of one.

    Args:
        entries: a study's metrics.json, as `arm_scores.table` makes it.
        names: of the arms, in the order of rows; those of which nothing is known are left out.
        link: the file the numbers link to, if they should.

    Raises:
        ValueError: nothing is known of any of them.
    """
    names, columns = list(names), _columns(entries)
    rows = [(f"`{name}`", [f"{b}.{name}.{m}" for b, m in columns]) for name in names]
    said = _table(entries, "arm", columns, rows, {"_spread": " ± {}"}, link)
    if not said:
        raise ValueError(f"study: nothing is recorded of its arms {', '.join(names)}.")
    return said


def differences(entries: Mapping[str, dict], compared: Iterable[tuple[str, str]], link: str = "") -> str:
    """Pairs of arms as rows, the second less the first, and the 95 % interval where there is one.

    Args:
        entries: a study's metrics.json, as `arm_scores.table` makes it.
        compared: pairs, such as `Study.compared`; those of which nothing is known are left out.
        link: the file the numbers link to, if they should.

    Returns:
        the table; empty if nothing is known of any of them.
    """
    columns = _columns(entries)
    rows = [(f"`{b}` - `{a}`", [f"{test}.{b}.{metric}_minus_{a}" for test, metric in columns]) for a, b in compared]
    return _table(entries, "difference", columns, rows, {"_low": " ({}", "_high": " to {})"}, link)


def _columns(entries: Mapping[str, dict]) -> dict[tuple[str, str], str]:
    """Benchmark and metric of all means in the entries, with their unit."""
    means = [key for key in entries if f"{key}_spread" in entries and "_minus_" not in key]
    found = {tuple(key.split(".")[::2]): entries[key]["unit"] for key in means}
    return {column: found[column] for column in sorted(found, key=lambda it: (report.FIRST.index(it[1]), it[0]))}


def _table(
    entries: Mapping[str, dict],
    head: str,
    columns: Mapping[tuple[str, str], str],
    rows: Iterable[tuple[str, list[str]]],
    behind: Mapping[str, str],
    link: str,
) -> str:
    """Rows of a name, how many seeds, and the numbers of keys with what stands behind each; empty without rows."""

    def number(key: str, shape: str = "{}") -> str:
        known = key in entries and not math.isnan(entries[key]["value"])
        return shape.format(report.number(entries, key, link)) if known else ""

    body = []
    for name, keys in rows:
        seeds = [entries[key]["count"] for key in keys if key in entries]
        if seeds:
            endings = ("".join(number(key + end, shape) for end, shape in behind.items()) for key in keys)
            body.append([name, str(max(seeds)), *(number(key) + end for key, end in zip(keys, endings))])
    heads = [f"{test}, {metric}, {'%' if unit == 'fraction' else unit}" for (test, metric), unit in columns.items()]
    return report.align([[head, "seeds", *heads], *body]) if body else ""
