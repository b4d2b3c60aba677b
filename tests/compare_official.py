"""Our metrics against the official functions, on random cases and degenerate ones; run by hand.

    python tests/compare_official.py TAPNET DAVIS --cases 10000

TAPNET is `evaluation_datasets.py` of google-deepmind/tapnet, DAVIS the folder davis2017 of
davis2017-evaluation, with `metrics.py` and `utils.py`. They are not part of this repository.
Of each file only the functions are taken, so that what it imports (TensorFlow and more) need
not be there. It ends with the largest difference, and fails where one is above 1e-12.
"""

import ast
import math
import sys
import typing
import warnings
from collections.abc import Callable
from pathlib import Path

import click
import cv2
import numpy as np
import torch

from corrlib import metrics
from corrlib.datasets import tapvid

MOST = 1e-12


def functions(path: Path) -> dict[str, Callable]:
    """The functions of a file, without running anything else in it."""
    tree = ast.parse(path.read_text())
    tree.body = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    names = {"np": np, "cv2": cv2, "math": math, "warnings": warnings} | vars(typing)
    kept = []
    for node in tree.body:  # those whose signature names a type of a library that is not here are left out
        try:
            exec(compile(ast.Module([node], []), str(path), "exec"), names)
            kept.append(node.name)
        except NameError:
            continue
    return {name: names[name] for name in kept}


def difference(ours: float, theirs: float) -> float:
    """How far two numbers are apart; NaN is equal to NaN and far from everything else."""
    if math.isnan(ours) or math.isnan(theirs):
        return 0.0 if math.isnan(ours) and math.isnan(theirs) else math.inf
    return abs(ours - theirs)


def tracks_case(g: np.random.Generator, official: dict[str, Callable]) -> float:
    """One clip of tracks, some of them lost, hidden, out of the frame or hopeless, in one of the query modes."""
    T, N, mode = int(g.integers(1, 25)), int(g.integers(1, 9)), g.choice(["first", "strided"])
    true = g.uniform(0, 256, (T, N, 2))
    error = g.normal(0, g.choice([0, 0.5, 3, 30]), (T, N, 2))
    if g.random() < 0.2:
        error = np.round(error)  # on the thresholds, which are strict
    seen, claimed = (g.random((T, N)) < g.choice([0, 0.3, 0.8, 1]) for _ in range(2))
    queries = np.concatenate([g.integers(0, T, (N, 1)), g.uniform(0, 256, (N, 2))], axis=1).astype(float)
    largest = 0.0
    for averaging in ("official", "paper"):
        ours = metrics.tapvid_metrics(true + error, claimed, true, seen, queries, mode, averaging=averaging)
        layout = [np.moveaxis(a, 0, 1)[None] for a in (~seen, true, ~claimed, true + error)]
        with np.errstate(invalid="ignore", divide="ignore"):
            theirs = official["compute_tapvid_metrics"](queries[None], *layout, mode, averaging == "paper")
        names = {f"delta_{t}": f"pts_within_{t}" for t in metrics.THRESHOLDS} | {"occlusion_accuracy": ""}
        names |= {f"jaccard_{t}": "" for t in metrics.THRESHOLDS}
        if averaging == "official":
            names |= {"delta_avg": "average_pts_within_thresh", "average_jaccard": ""}
        for name, their_name in names.items():
            values = theirs[their_name or name][0]
            if averaging == "paper":  # the mean over tracks that have a number
                values = np.nanmean(values) if not np.isnan(values).all() else math.nan
            largest = max(largest, difference(ours[name], float(values)))
    return largest


def queries_case(g: np.random.Generator, official: dict[str, Callable]) -> float:
    """How the queries of a clip are chosen."""
    T, N, mode = int(g.integers(1, 25)), int(g.integers(1, 9)), g.choice(["first", "strided"])
    points, occluded = g.uniform(0, 1, (N, T, 2)), g.random((N, T)) < g.choice([0, 0.3, 0.8])
    if mode == "first" and occluded.all():
        return 0.0  # theirs fails, ours returns none
    theirs = official[f"sample_queries_{mode}"](occluded, points, np.zeros((T, 1, 1, 3)))
    tracks, visible = torch.from_numpy(points).movedim(0, 1), torch.from_numpy(~occluded).T
    queries, which = tapvid.sample_queries(tracks, visible, mode)
    expected = theirs["query_points"][0][:, [0, 2, 1]]  # theirs are (t, y, x)
    if queries.shape != expected.shape or not np.array_equal(points[which.numpy()], theirs["target_points"][0]):
        return math.inf
    return float(np.abs(queries.numpy() - expected).max(initial=0))


def masks_case(g: np.random.Generator, official: dict[str, Callable]) -> float:
    """One clip of object masks: ellipses that move, vanish, fill the frame, and answers that are off by some pixels."""
    T, K = int(g.integers(1, 13)), int(g.integers(1, 4))
    H, W = (int(n) for n in g.integers(5, 140 if g.random() < 0.1 else 60, 2))
    y, x = np.mgrid[:H, :W]

    def clip(centres: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        masks = np.zeros((T, H, W), np.int64)
        for t in range(T):
            for k in range(K):
                away = ((x - centres[t, k, 0]) / sizes[t, k]) ** 2 + ((y - centres[t, k, 1]) / sizes[t, k]) ** 2
                masks[t][away < 1] = k + 1
        return masks

    centres, sizes = g.uniform(0, [W, H], (T, K, 2)), g.uniform(0.01, g.choice([3, 20, 100]), (T, K))
    true = clip(centres, sizes)
    answer = clip(centres + g.normal(0, g.choice([0, 1, 5, 50]), (T, K, 2)), sizes * (g.random((T, K)) < 0.9) + 0.01)
    true[0, :1, :K] = np.arange(1, min(K, W) + 1)  # all objects are in the first frame
    ours = metrics.j_and_f(answer, true)
    rows = {"jaccard": [], "boundary_f": []}
    for k in range(1, K + 1):
        pair = true[1:-1] == k, answer[1:-1] == k
        with np.errstate(invalid="ignore", divide="ignore"):
            found = official["db_eval_iou"](*pair), official["db_eval_boundary"](*pair)
        for name, values in zip(rows, found):
            rows[name].append(official["db_statistics"](np.asarray(values, float)))
    largest = 0.0
    for name, statistics in rows.items():
        for ending, values in zip(("", "_recall", "_decay"), zip(*statistics)):
            largest = max(largest, difference(ours[name + ending], float(np.mean(values))))
    return largest


@click.command()
@click.argument("tapnet", type=click.Path(exists=True, dir_okay=False))
@click.argument("davis", type=click.Path(exists=True, file_okay=False))
@click.option("--cases", default=10_000, help="How many in all.")
@click.option("--seed", default=0)
def main(tapnet: str, davis: str, cases: int, seed: int) -> None:
    """Compare our metrics with the official functions in TAPNET and DAVIS."""
    official = functions(Path(tapnet))
    for name in ("metrics.py", "utils.py"):
        official |= functions(Path(davis) / name)
    g, kinds = np.random.default_rng(seed), (tracks_case, queries_case, masks_case)
    warnings.simplefilter("ignore", category=RuntimeWarning)  # theirs, of means of nothing
    largest = dict.fromkeys((kind.__name__ for kind in kinds), 0.0)
    for i in range(cases):
        kind = kinds[i % len(kinds)]
        found = kind(g, official)
        if found > largest[kind.__name__]:
            largest[kind.__name__] = found
            if found > MOST:
                click.echo(f"case {i} ({kind.__name__}) differs by {found}", err=True)
    for name, value in largest.items():
        click.echo(f"{name}: largest difference {value:.2g} in {-(-cases // len(kinds))} cases")
    sys.exit(max(largest.values()) > MOST)


if __name__ == "__main__":
    main()
