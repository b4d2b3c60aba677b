"""Scores of tracks, joints, masks and flow against the truth: pure functions, no files.

Numbers are fractions or pixels, computed in float64; x 100 happens where one is printed.
Where the official code divides zero by zero the answer is NaN, without a warning, and the
count beside it is 0. Inputs are tensors or arrays. One call scores one clip.
"""

import math

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Integer, Num
from torch import Tensor

Array = Tensor | np.ndarray
Scores = dict[str, float | int]
THRESHOLDS = (1, 2, 4, 8, 16)  # pixels at 256 x 256


def as_array(values: Array, dtype: type = np.float64) -> np.ndarray:
    """A tensor of any device, or an array, as an array of the given type."""
    return np.asarray(values.detach().cpu().numpy() if isinstance(values, Tensor) else values, dtype=dtype)


def check_shapes(function: str, like: str, shape: tuple[int, ...], **arrays: np.ndarray) -> None:
    """Arguments that should have a shape which the argument `like` has fixed."""
    for name, array in arrays.items():
        if array.shape != shape:
            raise ValueError(f"{function}: {name} should be {shape} like {like}, got {array.shape}.")


def _share(part: np.ndarray | np.generic, whole: np.ndarray | np.generic) -> np.ndarray:
    """part / whole, NaN where whole is 0."""
    part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    return np.divide(part, whole, out=np.full(part.shape, math.nan), where=whole > 0)


def _mean(values: np.ndarray) -> float:
    """The mean of what is not NaN; NaN of nothing."""
    values = values[~np.isnan(values)]
    return float(values.mean()) if values.size else math.nan


def tapvid_metrics(
    tracks: Num[Array, "T N 2"],
    visible: Bool[Array, "T N"],
    true_tracks: Num[Array, "T N 2"],
    true_visible: Bool[Array, "T N"],
    query_points: Num[Array, "N 3"],
    query_mode: str = "first",
    valid: Bool[Array, "T N"] | None = None,
    averaging: str = "official",
) -> Scores:
    """TAP-Vid's scores of one clip; the benchmark's number is their plain mean over clips.

    Args:
        tracks, true_tracks: (x, y) in pixels of the frame scaled to 256 x 256.
        visible, true_visible: True where a point can be seen.
        query_points: (t, x, y), of which only t is used.
        query_mode: frames that count, "first" those after the query, "strided" all but the query's.
        valid: where the truth is known (annotated frames); everywhere if not given.
        averaging: "official" pools a clip's points and frames; "paper" averages its tracks' scores.

    Returns:
        delta_1 ... delta_16, share of visible points closer than so many pixels (strict <);
        jaccard_1 ... jaccard_16, true positives / (visible points + false positives);
        delta_avg and average_jaccard, their means; occlusion_accuracy, share of right
        visible-or-not decisions; count and count_visible, points x frames scored, and those
        truly visible. With count_visible 0 the deltas are NaN, and the Jaccards too unless a
        point is predicted visible (then 0); with count 0 all is. Such tracks the paper leaves out.

    Raises:
        ValueError: shapes differ, a query is outside the clip, or a mode is unknown.

    Source: TAP-Vid's `compute_tapvid_metrics`; the "paper" is Li, Zhou and Liu, ICCV 2023.
    Differs: theirs takes (t, y, x) queries, (N, T) order and `occluded`; `valid` is ours.
    """
    tracks, true_tracks, query_points = as_array(tracks), as_array(true_tracks), as_array(query_points)
    visible, true_visible = as_array(visible, bool), as_array(true_visible, bool)
    T, N = tracks.shape[:2]
    valid = np.ones((T, N), bool) if valid is None else as_array(valid, bool)
    check_shapes("tapvid_metrics", "tracks", (T, N, 2), tracks=tracks, true_tracks=true_tracks)
    check_shapes("tapvid_metrics", "tracks", (T, N), visible=visible, true_visible=true_visible, valid=valid)
    check_shapes("tapvid_metrics", "tracks", (N, 3), query_points=query_points)
    if query_mode not in ("first", "strided"):
        raise ValueError(f"tapvid_metrics: query_mode should be first or strided, got {query_mode}.")
    if averaging not in ("official", "paper"):
        raise ValueError(f"tapvid_metrics: averaging should be official or paper, got {averaging}.")
    query_t = np.round(query_points[:, 0])
    if not ((query_t >= 0) & (query_t < T)).all():
        raise ValueError(f"tapvid_metrics: queries should be at 0 <= t < T={T}, got {query_t.tolist()}.")
    after = np.arange(T)[:, None] - query_t
    scored = valid & (after > 0 if query_mode == "first" else after != 0)

    def total(mask: np.ndarray) -> np.ndarray:
        """How many scored entries a mask has: of the clip, or of each track."""
        return np.atleast_1d((mask & scored).sum(axis=0 if averaging == "paper" else None))

    squared = np.square(tracks - true_tracks).sum(axis=-1)
    scores = {"occlusion_accuracy": _mean(_share(total(visible == true_visible), total(scored)))}
    for threshold in THRESHOLDS:
        hits = (squared < threshold**2) & true_visible
        scores[f"delta_{threshold}"] = _mean(_share(total(hits), total(true_visible)))
        union = total(true_visible) + total(visible & ~hits)
        scores[f"jaccard_{threshold}"] = _mean(_share(total(hits & visible), union))
    scores["delta_avg"] = sum(scores[f"delta_{t}"] for t in THRESHOLDS) / len(THRESHOLDS)
    scores["average_jaccard"] = sum(scores[f"jaccard_{t}"] for t in THRESHOLDS) / len(THRESHOLDS)
    return scores | {"count": int(scored.sum()), "count_visible": int((scored & true_visible).sum())}


def joint_box_scale(joints: Num[Array, "T J 2"], valid: Bool[Array, "T J"]) -> Float[np.ndarray, "T"]:
    """JHMDB's scale of PCK: 0.6 x the diagonal of the box around a frame's valid joints; NaN without any."""
    joints, valid = as_array(joints), as_array(valid, bool)[..., None]
    low = np.where(valid, joints, np.inf).min(axis=1, initial=np.inf)
    high = np.where(valid, joints, -np.inf).max(axis=1, initial=-np.inf)
    diagonal = np.sqrt(np.square(high - low).sum(axis=-1))
    return 0.6 * np.where(valid.any(axis=(1, 2)), diagonal, math.nan)


def mask_scale(masks: Integer[Array, "T H W"]) -> Float[np.ndarray, "T"]:
    """BADJA's scale of PCK: the square root of a frame's foreground area; NaN without foreground or mask."""
    area = (as_array(masks, np.int64) > 0).sum(axis=(1, 2))
    return np.sqrt(np.where(area > 0, area, math.nan))


def counted_joints(
    visible: Bool[Array, "T J"], valid: Bool[Array, "T J"], protocol: str = "strict"
) -> Bool[np.ndarray, "T J"]:
    """Which joints of a clip PCK counts, the queries being the joints of frame 0.

    They are visible and valid, and: "strict", after frame 0 and visible in it too (others have
    no query); "pips", after frame 0; "paper", any, though frame 0's answers are given away.
    """
    if protocol not in ("strict", "pips", "paper"):
        raise ValueError(f"counted_joints: protocol should be strict, pips or paper, got {protocol}.")
    counted = as_array(visible, bool) & as_array(valid, bool)
    later = np.arange(len(counted))[:, None] > 0
    if protocol == "strict":
        return counted & later & counted[:1]
    return counted & later if protocol == "pips" else counted


def pck(
    joints: Num[Array, "T J 2"],
    true_joints: Num[Array, "T J 2"],
    counted: Bool[Array, "T J"],
    scale: Num[Array, "T"],
    alpha: float = 0.2,
    inclusive: bool = False,
) -> Scores:
    """Share of the counted joints within alpha x scale of the truth; alpha is 0.2 in BADJA.

    Args:
        joints, true_joints: (x, y) in pixels; several clips concatenated give the pooled number.
        counted: which joints are scored, from `counted_joints`.
        scale: pixels, `joint_box_scale` or `mask_scale` of the truth; frames with NaN are left out.
        inclusive: <= in place of <, as CRW's script for JHMDB has it.

    Returns:
        pck, over all joints and frames; pck_joint_mean, the mean over joints of each joint's
        share (JHMDB's number); count, joints x frames scored. NaN where count is 0.
    """
    joints, true_joints = as_array(joints), as_array(true_joints)
    counted, scale = as_array(counted, bool), as_array(scale)
    T, J = joints.shape[:2]
    check_shapes("pck", "joints", (T, J, 2), true_joints=true_joints)
    check_shapes("pck", "joints", (T, J), counted=counted)
    check_shapes("pck", "joints", (T,), scale=scale)
    counted = counted & ~np.isnan(scale)[:, None]
    distance, limit = np.sqrt(np.square(joints - true_joints).sum(axis=-1)), alpha * scale[:, None]
    near = counted & (distance <= limit if inclusive else distance < limit)
    return {
        "pck": float(_share(near.sum(), counted.sum())),
        "pck_joint_mean": _mean(_share(near.sum(axis=0), counted.sum(axis=0))),
        "count": int(counted.sum()),
    }


def jaccard(mask: Bool[Array, "*N H W"], true_mask: Bool[Array, "*N H W"]) -> Float[np.ndarray, "*N"]:
    """Intersection over union of two masks, one number a frame; 1 where both are empty."""
    mask, true_mask = as_array(mask, bool), as_array(true_mask, bool)
    check_shapes("jaccard", "mask", mask.shape, true_mask=true_mask)
    overlap, union = (mask & true_mask).sum(axis=(-2, -1)), (mask | true_mask).sum(axis=(-2, -1))
    return np.where(union > 0, overlap / np.maximum(union, 1), 1.0)


def _boundary(mask: np.ndarray) -> np.ndarray:
    """Pixels that differ from their right, lower or lower-right neighbour; the frame's edge is none."""
    padded = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    return (mask ^ padded[:-1, 1:]) | (mask ^ padded[1:, :-1]) | (mask ^ padded[1:, 1:])


def boundary_f(mask: Bool[Array, "H W"], true_mask: Bool[Array, "H W"]) -> float:
    """F-measure of two masks' one-pixel boundaries, matched within 0.8 % of the image's diagonal.

    A boundary pixel is matched when the other boundary, dilated by a disk of
    ceil(0.008 x diagonal) pixels, covers it. Two empty boundaries score 1, one empty scores 0.

    Source: davis2017-evaluation, `db_eval_boundary`, which approximates the bipartite
    matching of Perazzi et al., CVPR 2016.
    """
    mask, true_mask = as_array(mask, bool), as_array(true_mask, bool)
    check_shapes("boundary_f", "mask", mask.shape, true_mask=true_mask)
    edges, true_edges = _boundary(mask), _boundary(true_mask)
    if not (edges.any() and true_edges.any()):
        return float(edges.any() == true_edges.any())
    radius = math.ceil(0.008 * math.hypot(*mask.shape))
    y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    disk = (x * x + y * y <= radius * radius).astype(np.uint8)
    precision = cv2.dilate(true_edges.astype(np.uint8), disk)[edges].mean()
    recall = cv2.dilate(edges.astype(np.uint8), disk)[true_edges].mean()
    return float(2 * precision * recall / (precision + recall)) if precision + recall else 0.0


def _decay(values: np.ndarray) -> float:
    """How much a clip's score falls: its first quarter's mean minus its last's; quarters share ends."""
    if not len(values):
        return math.nan
    ends = np.round(np.linspace(1, len(values), 5) + 1e-10).astype(int) - 1
    return float(values[ends[0] : ends[1] + 1].mean() - values[ends[3] : ends[4] + 1].mean())


def j_and_f(masks: Integer[Array, "T H W"], true_masks: Integer[Array, "T H W"]) -> Scores:
    """Region and boundary scores of one clip of object masks, of which frame 0 is given.

    The first and last frame are dropped, and frames without a true mask (-1). Objects are
    the ids 1 to the largest of frame 0; each has a mean, a recall (share of frames above
    0.5) and a decay; what is returned are means over objects.

    Returns:
        jaccard, boundary_f, each also with _recall and _decay, and j_and_f, the mean of the two;
        num_objects, num_frames. NaN if a count is 0. DAVIS's number is the mean over the
        *objects* of a set: over clips weighted by num_objects.

    Raises:
        ValueError: shapes differ, or a mask has an id that frame 0 has not.

    Source: davis2017-evaluation, semi-supervised task.
    Differs: its decay counts frames in 8 bits, and is wrong beyond 256 of them.
    """
    masks, true_masks = as_array(masks, np.int64), as_array(true_masks, np.int64)
    check_shapes("j_and_f", "masks", masks.shape, true_masks=true_masks)
    num_objects = int(true_masks[:1].max(initial=0))
    if masks.max(initial=0) > num_objects:
        raise ValueError(f"j_and_f: ids should be at most {num_objects} as in frame 0, got {masks.max()}.")
    frames = [t for t in range(1, len(masks) - 1) if (true_masks[t] >= 0).all()]
    table = np.full((2, num_objects, len(frames)), math.nan)
    for k in range(num_objects):
        for i, t in enumerate(frames):
            mask, true_mask = masks[t] == k + 1, true_masks[t] == k + 1
            table[:, k, i] = jaccard(mask, true_mask), boundary_f(mask, true_mask)
    scores = {}
    for name, rows in zip(("jaccard", "boundary_f"), table):
        scores[name] = _mean(rows)  # the mean over objects too: all have the same frames
        scores[f"{name}_recall"] = _mean((rows > 0.5).astype(np.float64))
        scores[f"{name}_decay"] = _mean(np.array([_decay(row) for row in rows]))
    scores["j_and_f"] = (scores["jaccard"] + scores["boundary_f"]) / 2
    return scores | {"num_objects": num_objects, "num_frames": len(frames)}


def flow_metrics(flow: Num[Array, "2 H W"], true_flow: Num[Array, "2 H W"], valid: Bool[Array, "H W"]) -> Scores:
    """Errors of a flow where the truth is known, NaN if it is nowhere.

    epe is the mean end-point error in pixels, px1 the share of errors under 1 px, fl_all the
    share above both 3 px and 5 % of the true length (KITTI's outliers, which it pools over
    images: weight by count), count the number of known pixels.
    """
    flow, true_flow, valid = as_array(flow), as_array(true_flow), as_array(valid, bool)
    check_shapes("flow_metrics", "flow", flow.shape, true_flow=true_flow)
    check_shapes("flow_metrics", "flow", flow.shape[1:], valid=valid)
    error, length = (np.sqrt(np.square(v).sum(axis=0))[valid] for v in (flow - true_flow, true_flow))
    shares = {"epe": error, "px1": error < 1, "fl_all": (error > 3) & (error > 0.05 * length)}
    return {k: float(_share(v.sum(), valid.sum())) for k, v in shares.items()} | {"count": int(valid.sum())}


def paired_difference(
    a: Num[Array, "N"], b: Num[Array, "N"], draws: int = 2000, generator: torch.Generator | None = None
) -> Scores:
    """How much higher a is than b on the same N clips, and how sure that is.

    Clips where either is NaN are left out. Returns mean of a - b, standard_error (NaN under two
    clips), low and high of the 95 % percentile bootstrap interval of the mean, and count. The
    clips are drawn again `draws` times from `generator`, by default one with a fixed seed.
    """
    a, b = as_array(a), as_array(b)
    check_shapes("paired_difference", "a", a.shape, b=b)
    difference = (a - b)[~np.isnan(a - b)]
    N = len(difference)
    if N == 0:
        return dict.fromkeys(("mean", "standard_error", "low", "high"), math.nan) | {"count": 0}
    generator = generator or torch.Generator().manual_seed(0)
    means = difference[torch.randint(N, (draws, N), generator=generator).numpy()].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975]).tolist()
    error = float(difference.std(ddof=1)) / math.sqrt(N) if N > 1 else math.nan
    return {"mean": float(difference.mean()), "standard_error": error, "low": low, "high": high, "count": N}
