"""What benchmarks say of the arms of a study: answers, scores clip by clip, and comparisons with their intervals."""

import json
import statistics
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from . import arms, benchmarks, checkpoints, evaluation, predictions
from .methods import of_encoder

Scores = dict[str, dict[str, dict[str, list[float]]]]  # "benchmark.metric" -> arm -> seed -> a value for each clip


def ask(
    folder: str | Path,
    tasks: Iterable[benchmarks.Task],
    masks: bool = False,
    progress: Callable[[int, str], None] | None = None,
) -> None:
    """Asks every network in a folder about clips, and about masks if wanted; answers are kept in it, in `predictions`.

    Raises:
        FileNotFoundError: there is no network.
    """
    found = sorted(p for p in Path(folder).glob("*.safetensors") if not p.stem.startswith(arms.TEACHER))
    if not found:
        raise FileNotFoundError(f"study: no trained arm (.safetensors) in {folder}.")
    methods = {path.stem: of_encoder(checkpoints.load(path)) for path in found}
    if not masks:
        methods = {name: method._replace(masks=None) for name, method in methods.items()}
    predictions.predict(methods, tasks, Path(folder) / "predictions", progress=progress)


def write(
    folder: str | Path, names: Iterable[str], compared: Iterable[tuple[str, str]]
) -> dict[str, dict[str, float | str | int]]:
    """The answers of `ask` to benchmarks, scored; kept in the folder as scores.json and, as `table`, metrics.json.

    Scores that a scores.json there has of other arms and seeds stay: they may be of another machine.

    Returns:
        the table.

    Raises:
        ValueError: they are of another number of clips; nothing is written.
    """
    found = read(folder) if Path(folder, "scores.json").is_file() else {}
    for test, of_arms in scores(folder, names).items():
        for arm, seeds in of_arms.items():
            found.setdefault(test, {}).setdefault(arm, {}).update(seeds)
        counts = {len(values) for seeds in found[test].values() for values in seeds.values()}
        if len(counts) > 1:
            raise ValueError(
                f"score-study: {test} in {folder} should be of as many clips for all, got {sorted(counts)}."
            )
    entries = table(found, compared)
    for name, values in (("scores", found), ("metrics", entries)):
        Path(folder, f"{name}.json").write_text(json.dumps(values, indent=1, sort_keys=True) + "\n")
    return entries


def read(folder: str | Path) -> Scores:
    """The scores in a folder, as `scores` returns them.

    Raises:
        FileNotFoundError: nothing has been scored there.
    """
    path = Path(folder, "scores.json")
    if not path.is_file():
        raise FileNotFoundError(f"study: no file {path}; study and score-study make one.")
    return json.loads(path.read_text())


def scores(folder: str | Path, names: Iterable[str]) -> Scores:
    """The numbers that methods are compared in, in the order of clips; what no arm was asked about is not there."""
    found: Scores = {}
    for benchmark in names:
        for method, clips in evaluation.score(Path(folder) / "predictions", benchmark).items():
            arm, _, seed = method.rpartition("-")
            for metric in evaluation.COMPARED[benchmark]:
                values = [clips[name].get(metric, float("nan")) for name in sorted(clips)]
                if not np.isnan(values).all():
                    found.setdefault(f"{benchmark}.{metric}", {}).setdefault(arm, {})[seed] = values
    return found


def compare(one: dict[str, list[float]], other: dict[str, list[float]], draws: int = 2000) -> dict[str, float]:
    """The other arm's numbers minus the one's, over the seeds that both have, clip by clip.

    Returns:
        mean of the differences; low and high of its 95 % interval, of which both seeds and clips are
        drawn again, NaN of one clip and one seed; `seeds`, how many, and `spread`, the standard
        deviation of their means.

    Raises:
        ValueError: there is no seed that both have.
    """
    seeds = sorted(one.keys() & other.keys())
    if not seeds:
        raise ValueError(f"compare: both arms should have a seed in common, got {sorted(one)} and {sorted(other)}.")
    differences = np.array([other[s] for s in seeds]) - np.array([one[s] for s in seeds])
    differences = differences[:, ~np.isnan(differences).any(axis=0)]
    S, C = differences.shape
    random = np.random.default_rng(0)
    rows, columns = random.integers(S, size=(draws, S, 1)), random.integers(C, size=(draws, 1, C))
    low, high = np.quantile(differences[rows, columns].mean(axis=(1, 2)), [0.025, 0.975])
    if S * C == 1:
        low = high = float("nan")
    each = differences.mean(axis=1)
    spread = float(each.std(ddof=1)) if S > 1 else float("nan")
    found = {"mean": float(each.mean()), "low": float(low), "high": float(high), "spread": spread}
    return found | {"seeds": S, "clips": C}


def table(found: Scores, compared: Iterable[tuple[str, str]]) -> dict[str, dict[str, float | str | int]]:
    """A study as entries of a metrics.json: mean and spread of each arm, and differences of pairs of arms.

    `<benchmark>.<other>.<metric>_minus_<one>` is a difference, with `_low`, `_high` and `_spread` as in
    `compare`; `_effect` is it in units of the seeds' pooled standard deviation, positive where the
    other is better; and `all.<other>.effect_minus_<one>` the mean of these over everything measured.
    """
    entries: dict = {}
    effects: dict[tuple[str, str], list[float]] = {}

    def add(name: str, value: float, unit: str, count: int) -> None:
        entries[name] = {"value": value, "unit": unit, "count": count}

    for test, of_arms in found.items():
        benchmark, metric = test.split(".")
        unit, better = ("px", -1) if metric == "epe" else ("fraction", 1)
        spreads = {}
        for arm, seeds in of_arms.items():
            means = [float(np.nanmean(values)) for values in seeds.values()]
            spreads[arm] = statistics.stdev(means) if len(means) > 1 else float("nan")
            for ending, value in (("", statistics.mean(means)), ("_spread", spreads[arm])):
                add(f"{benchmark}.{arm}.{metric}{ending}", value, unit, len(means))
        for one, other in compared:
            if not of_arms.get(one, {}).keys() & of_arms.get(other, {}).keys():
                continue
            difference = compare(of_arms[one], of_arms[other])
            name = f"{benchmark}.{other}.{metric}_minus_{one}"
            for ending, key in (("", "mean"), ("_low", "low"), ("_high", "high"), ("_spread", "spread")):
                add(f"{name}{ending}", difference[key], unit, difference["seeds"])
            pooled = ((spreads[one] ** 2 + spreads[other] ** 2) / 2) ** 0.5
            if pooled > 0:  # not where there is one seed
                effect = better * difference["mean"] / pooled
                add(f"{name}_effect", effect, "standard deviations", difference["seeds"])
                effects.setdefault((one, other), []).append(effect)
    for (one, other), values in effects.items():
        add(f"all.{other}.effect_minus_{one}", statistics.mean(values), "standard deviations", len(values))
    return entries
