"""Scores out of files: what lies in a folder of `predictions` is scored, whoever wrote it.

Scoring never runs a model. The benchmark's own rules are the default, named as their authors do;
where the paper that this library follows counts otherwise, its number stands beside, `_paper`.
"""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from . import benchmarks, coords, metrics, occlusions, predictions, tracking
from .benchmarks import Task
from .samples import TrackClip

TRUTH = ("query_points", "tracks", "visible", "valid")
ALPHAS = (0.1, 0.2, 0.3, 0.4, 0.5)  # of PCK
PAPER_BADJA_HW = (320, 512)  # the frames that the paper measures animals in
MOST_JOINTS = 64
QUERY_MODES, PROTOCOLS = ("first", "strided"), ("official", "paper")
# The numbers that methods are compared in, clip by clip; the first is the main one.
COMPARED = dict.fromkeys(benchmarks.BENCHMARKS, ("delta_avg",)) | dict.fromkeys(benchmarks.FLOW, ("epe",))
COMPARED["procedural_long"] = ("delta_avg", "regained", "fading")
COMPARED |= {"davis2016": ("points_in_mask", "j_and_f"), "davis2017": ("j_and_f", "points_in_mask")}
# A mean over objects, over pixels, over points that came back; else over clips.
WEIGHTS = {"davis2017": "num_objects", "kitti": "count", "regained": "regained_count"}
MASKS = ("jaccard", "jaccard_recall", "jaccard_decay", "boundary_f", "boundary_f_recall", "boundary_f_decay", "j_and_f")
SHOWN = (
    *("delta_1", "delta_2", "delta_4", "delta_8", "delta_16", "delta_avg", "average_jaccard", "occlusion_accuracy"),
    *("hidden_share", "regained", "fading"),
    *("delta_avg_paper", "average_jaccard_paper", "occlusion_accuracy_paper"),
    *("pck_1", "pck_2", "pck_3", "pck_4", "pck_5", "pck_2_pips"),
    *("pck_1_paper", "pck_2_paper", "pck_3_paper", "pck_4_paper", "pck_5_paper"),
    *("points_in_mask", *MASKS, "epe", "px1", "fl_all"),
)
Scores = dict[str, dict[str, dict[str, Any]]]  # method -> clip -> metric -> value


def accuracy(model: nn.Module, clips: list[TrackClip]) -> dict[str, float]:
    """Mean scores of an encoder in our tracker on clips in memory, for `training.train` to call.

    Raises:
        ValueError: there are no clips.
    """
    if not clips:
        raise ValueError("accuracy: clips should be at least 1, got none.")
    scores = []
    for clip in clips:
        found = tracking.track_points(model, clip.video, clip.query_points)
        known = {"size_hw": clip.video.shape[-2:]} | {n: getattr(clip, n).numpy() for n in TRUTH}
        answer = {n: v.numpy(force=True) for n, v in found._asdict().items()}
        scores.append(score_clip("procedural", answer, known))
    return {name: float(np.nanmean([s[name] for s in scores])) for name in ("delta_avg", "occlusion_accuracy")}


def check_rules(query_mode: str, protocol: str) -> None:
    """Refuse rules that there are not, before hours of asking rather than after.

    Raises:
        ValueError: the mode is not first or strided, the protocol not official or paper.
    """
    for name, value, known in (("query_mode", query_mode, QUERY_MODES), ("protocol", protocol, PROTOCOLS)):
        if value not in known:
            raise ValueError(f"score: {name} should be {' or '.join(known)}, got {value!r}.")


def score(
    folder: str | Path,
    benchmark: str,
    query_mode: str = "first",
    protocol: str = "official",
    clips: Iterable[str] = (),
) -> Scores:
    """Scores all answers to a benchmark: method -> clip -> metric -> value.

    Args:
        folder: where `predictions.predict` wrote, or anyone in its format.
        benchmark: one of `benchmarks.BENCHMARKS`.
        query_mode: of TAP-Vid, as the tasks were made.
        protocol: "official", or "paper" for the paper's way of counting beside it.
        clips: only these; all if empty.

    Raises:
        FileNotFoundError: there are no predictions.
        ValueError: an unknown mode or protocol; a file is no answer, or its shapes are not those
            of the clip's truth.
    """
    check_rules(query_mode, protocol)
    scores: Scores = {}
    root, only = Path(folder) / benchmark, set(clips)
    for path in sorted(root.rglob("*.truth.npz")):
        clip = path.relative_to(root).as_posix().removesuffix(".truth.npz")
        if only and clip not in only:
            continue
        truth = predictions.load(path)
        for method, found in _answers(root, clip, truth):
            scores.setdefault(method, {})[clip] = score_clip(benchmark, found, truth, query_mode, protocol)
    if not scores:
        raise FileNotFoundError(f"score: no predictions in {root}.")
    return scores


def _answers(root: Path, clip: str, truth: dict[str, np.ndarray]) -> Iterable[tuple[str, dict[str, np.ndarray]]]:
    """Each method that has answered about a clip, with its points, its masks, or both."""
    found: dict[str, dict[str, np.ndarray]] = {}
    place = root / clip
    for path in sorted(place.parent.glob(f"{place.name}.*.npz")):
        method = path.name.removeprefix(f"{place.name}.").removesuffix(".npz")
        if method == "truth" or "." in method:
            continue
        points = predictions.load(path, ("tracks", "visible"))
        for name, values in points.items():
            if values.shape != truth[name].shape:
                raise ValueError(f"score: {path} should hold {name} {truth[name].shape}, got {values.shape}.")
        found[method] = points
    if "masks" in truth:
        for path in sorted(p for p in root.glob(f"*/{clip}") if p.is_dir()):
            masks = predictions.read_masks(path, truth["masks"])
            found.setdefault(path.parent.name, {})["masks"] = masks
    return found.items()


def score_clip(
    benchmark: str, found: dict, truth: dict, query_mode: str = "first", protocol: str = "official"
) -> dict[str, Any]:
    """The scores of one clip from the arrays of its files, by the rules of its benchmark."""
    if benchmark in benchmarks.FLOW:
        return _score_flow(found, truth)
    scores = {}
    if "tracks" in found and "masks" in truth:
        scores |= _score_regions(found, truth)
    elif "tracks" in found:
        scores |= _score_points(benchmark, found, truth, query_mode, protocol)
        scores |= _score_joints(benchmark, found, truth, protocol) if "scale" in truth else {}
    if "masks" in found:
        scores |= metrics.j_and_f(found["masks"], truth["masks"])
    return scores


def _score_points(benchmark: str, found: dict, truth: dict, query_mode: str, protocol: str) -> dict[str, Any]:
    """TAP-Vid's numbers, and behind `:each` the main one of each joint.

    Its thresholds are pixels of frames squashed to 256 x 256, elsewhere of 256 lines.
    """
    H, W = (float(n) for n in truth["size_hw"])
    target = (256.0, 256.0 if benchmark in benchmarks.POINTS else W * 256 / H)
    mine, true = (coords.resize_points(torch.from_numpy(a["tracks"]).double(), (H, W), target) for a in (found, truth))
    given = (mine, found["visible"], true, truth["visible"], truth["query_points"], query_mode, truth["valid"])
    scores = metrics.tapvid_metrics(*given)
    scores["hidden_share"] = 1 - scores["count_visible"] / scores["count"] if scores["count"] else math.nan
    if "joints" in truth:
        *arrays, query, _, valid = given
        each = (
            metrics.tapvid_metrics(*(values[:, [n]] for values in arrays), query[[n]], query_mode, valid[:, [n]])
            for n in range(len(query))
        )
        scores["delta_avg:each"] = np.array([joint["delta_avg"] for joint in each])
    if benchmark == "procedural_long":
        scores |= occlusions.regained(mine, true, truth["visible"], truth["query_points"])
        scores |= occlusions.fading(mine, true, truth["visible"])
    if protocol == "paper":
        paper = metrics.tapvid_metrics(*given, averaging="paper")
        scores |= {f"{m}_paper": paper[m] for m in ("delta_avg", "average_jaccard", "occlusion_accuracy")}
    return scores


def _score_joints(benchmark: str, found: dict, truth: dict, protocol: str) -> dict[str, Any]:
    """PCK of the joints asked, and behind `:joints` the hits and the number of each joint, to be pooled over clips.

    Official is strict: a joint counts where it is seen, if it was seen when asked, and not in that
    frame, where the answer is given away. JHMDB's script has <=, BADJA's <. PIPs' also counts joints
    that were hidden when asked; the paper's that frame too, and measures animals in 320 x 512.
    """
    asked = int(truth["query_points"][:, 0].min())
    visible, labelled, scale = (truth[name][asked:] for name in ("visible", "labelled", "scale"))
    mine, true = (torch.from_numpy(a["tracks"][asked:]).double() for a in (found, truth))
    scores: dict[str, Any] = {}

    def add(ending: str, counting: str, alphas: Iterable[float], inclusive: bool = False) -> None:
        counted = metrics.counted_joints(visible, labelled, counting)
        for alpha in alphas:
            table = np.zeros((2, MOST_JOINTS))
            for n, joint in enumerate(truth["joints"]):
                one = metrics.pck(mine[:, [n]], true[:, [n]], counted[:, [n]], scale, alpha, inclusive)
                table[:, joint] = np.nan_to_num(one["pck"]) * one["count"], one["count"]
            hits, number = table.sum(axis=1)
            name = f"pck_{round(10 * alpha)}{ending}"
            scores[name] = float(hits / number) if number else math.nan
            scores[f"{name}:joints"] = table

    add("", "strict", ALPHAS, inclusive=benchmark == "jhmdb")
    if benchmark == "badja":
        add("_pips", "pips", (0.2,))
    if protocol == "paper":
        if benchmark == "badja":
            H, W = (float(n) for n in truth["size_hw"])
            mine, true = (coords.resize_points(xy, (H, W), PAPER_BADJA_HW) for xy in (mine, true))
            scale = scale * math.sqrt(math.prod(PAPER_BADJA_HW) / (H * W))
        add("_paper", "paper", ALPHAS)
    return scores


def _score_regions(found: dict, truth: dict) -> dict[str, float]:
    """The share of points that lie on the object they are asked on, over the frames after the first."""
    masks = truth["masks"]
    T, H, W = masks.shape
    xy = np.rint(np.nan_to_num(found["tracks"], nan=-1.0)).clip(-1, 1e6).astype(int)
    inside = (xy >= 0).all(-1) & (xy[..., 0] < W) & (xy[..., 1] < H)
    x, y = xy[..., 0].clip(0, W - 1), xy[..., 1].clip(0, H - 1)
    ask_x, ask_y = np.rint(truth["query_points"][:, 1:]).astype(int).T
    own = masks[0, ask_y, ask_x]
    # Points of an object that has left the frame, or in a frame without a mask, are neither right nor wrong.
    there = np.stack([np.isin(own, masks[t]) for t in range(T)])
    there[0] = False
    hit = inside & (masks[np.arange(T)[:, None], y, x] == own)
    count = int(there.sum())
    return {"points_in_mask": float(hit[there].mean()) if count else math.nan, "count": count}


def _score_flow(found: dict, truth: dict) -> dict[str, float]:
    """Flow in the second frame's own pixels."""
    mine, true = (torch.from_numpy(a["tracks"][1] - truth["tracks"][0]).T[:, None] for a in (found, truth))
    return metrics.flow_metrics(mine, true, torch.ones(mine.shape[1:], dtype=torch.bool))


def summarise(scores: Scores, benchmark: str, against: Iterable[str] = ("dis_medium", "sift")) -> dict[str, dict]:
    """Means, and paired differences with standard error and 95 % bootstrap interval, as entries for `Run.record`.

    The mean is that of the benchmark: over clips; for DAVIS-2017 over objects; for KITTI over
    pixels; for JHMDB of each joint over all clips, then over joints. The paper pools BADJA's joints.
    Sintel's passes also have a number each, `epe_clean` and `epe_final`, as its authors report them.

    Args:
        scores: from `score`.
        benchmark: its name, the first part of the keys.
        against: methods that every other one is compared with, clip by clip, in `COMPARED`; of one
            clip of a pose, joint by joint.
    """
    entries = {}

    def add(method: str, metric: str, value: float, count: int) -> None:
        unit = "px" if metric.startswith("epe") else "fraction"
        entries[f"{benchmark}.{method}.{metric}"] = {"value": value, "unit": unit, "count": count}

    for method, clips in scores.items():
        for metric in (m for m in SHOWN if any(m in clip for clip in clips.values())):
            add(method, metric, *_over_clips(benchmark, metric, list(clips.values())))
        for render in benchmarks.SINTEL_PASSES if benchmark == "sintel" else ():
            of_pass = [clip for name, clip in clips.items() if name.startswith(f"{render}/")]
            if of_pass:
                add(method, f"epe_{render}", *_over_clips(benchmark, "epe", of_pass))
        for metric in COMPARED[benchmark]:
            for other in against:
                if other == method or scores.get(other, {}).keys() != clips.keys():
                    continue
                found = metrics.paired_difference(*(_compared(scores[m], metric) for m in (method, other)))
                if not found["count"]:
                    continue
                for name, ending in (("mean", ""), ("standard_error", "_se"), ("low", "_low"), ("high", "_high")):
                    add(method, f"{metric}_minus_{other}{ending}", found[name], found["count"])
    return entries


def _compared(clips: dict[str, dict[str, Any]], metric: str) -> Float[np.ndarray, "N"]:
    """What is compared of a method: its clips, or the joints of the only one; nothing if that is one number."""
    known = [clip.get(metric, math.nan) for clip in clips.values()]
    return np.array(known) if len(known) > 1 else next(iter(clips.values())).get(f"{metric}:each", np.empty(0))


def _over_clips(benchmark: str, metric: str, clips: list[dict[str, Any]]) -> tuple[float, int]:
    """The benchmark's number from those of its clips, and of how many clips, or returning points, it is."""
    known = [clip for clip in clips if not math.isnan(clip.get(metric, math.nan))]
    if not known:
        return math.nan, 0
    pooled = benchmark == "jhmdb" or (benchmark == "badja" and metric.endswith("_paper"))
    if pooled and f"{metric}:joints" in known[0]:
        hits, number = sum(clip[f"{metric}:joints"] for clip in known)
        each = hits[number > 0] / number[number > 0]
        return float(each.mean() if benchmark == "jhmdb" else hits.sum() / number.sum()), len(known)
    weights = [clip.get(WEIGHTS.get(metric) or WEIGHTS.get(benchmark, ""), 1) for clip in known]
    count = sum(weights) if metric in WEIGHTS else len(known)
    return float(np.average([clip[metric] for clip in known], weights=weights)), count


def confidences(tasks: list[Task], folder: str | Path, method: str) -> tuple[Float[Tensor, "P"], Bool[Tensor, "P"]]:
    """How sure a method was of each point where the truth is known, and whether it is seen; not where it was asked."""
    sure, seen = [], []
    for task in tasks:
        clip, _ = task.read()
        asked = torch.arange(len(clip.valid))[:, None] == clip.query_points[:, 0]
        counted = clip.valid & ~asked
        sure.append(predictions.read_points(folder, task, method).confidence[counted])
        seen.append(clip.visible[counted])
    return torch.cat(sure), torch.cat(seen)
