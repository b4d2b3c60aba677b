"""What becomes of points that are hidden for long, and of all points after many frames: scores of long clips.

As in `metrics`: fractions, computed in float64, one call a clip; NaN, with a count of 0, of nothing.
"""

import math

import numpy as np
from jaxtyping import Bool, Num

from .metrics import THRESHOLDS, Array, Scores, as_array, check_shapes

HIDDEN, AFTER, WITHIN = 10, 5, 4.0  # frames, frames, pixels at 256 lines
SPAN = 24  # frames at the beginning and at the end of a clip


def regained(
    tracks: Num[Array, "T N 2"],
    true_tracks: Num[Array, "T N 2"],
    true_visible: Bool[Array, "T N"],
    query_points: Num[Array, "N 3"],
) -> Scores:
    """How often a point is found again that was hidden for HIDDEN frames or more.

    A point comes back with the first frame in which it can be seen again, and is found if it is
    closer than WITHIN to the truth AFTER frames later; where it is hidden then, it does not count.

    Args:
        tracks, true_tracks: (x, y) in pixels of a frame of 256 lines.
        true_visible: True where a point can be seen.
        query_points: (t, x, y), of which t is used; what was before does not count.

    Returns:
        regained, the share found, and regained_count, how many came back.

    Raises:
        ValueError: shapes differ.
    """
    tracks, true_tracks, true_visible = _arrays("regained", tracks, true_tracks, true_visible)
    T, found = len(true_visible), []
    for n, asked in enumerate(np.round(np.asarray(query_points)[:, 0]).astype(int)):
        gone = 0
        for t in range(asked, T - AFTER):
            if true_visible[t, n]:
                if gone >= HIDDEN and true_visible[t + AFTER, n]:
                    error = math.dist(tracks[t + AFTER, n], true_tracks[t + AFTER, n])
                    found.append(error < WITHIN)
                gone = 0
            else:
                gone += 1
    return {"regained": float(np.mean(found)) if found else math.nan, "regained_count": len(found)}


def fading(tracks: Num[Array, "T N 2"], true_tracks: Num[Array, "T N 2"], true_visible: Bool[Array, "T N"]) -> Scores:
    """How much less precise points are at the end of a clip than at its beginning, asked in frame 0.

    Args:
        tracks, true_tracks, true_visible: as for `regained`.

    Returns:
        fading, delta_avg over frames 1 to SPAN less that over the last SPAN; 0 is best.

    Raises:
        ValueError: shapes differ, or the clip has fewer than 2 SPAN + 1 frames.
    """
    tracks, true_tracks, true_visible = _arrays("fading", tracks, true_tracks, true_visible)
    if len(tracks) < 2 * SPAN + 1:
        raise ValueError(f"fading: clips should have at least {2 * SPAN + 1} frames, got {len(tracks)}.")
    error = np.linalg.norm(tracks - true_tracks, axis=-1)
    near = np.mean([error < threshold for threshold in THRESHOLDS], axis=0)
    parts = (slice(1, SPAN + 1), slice(-SPAN, None))
    first, last = (float(near[p][true_visible[p]].mean()) if true_visible[p].any() else math.nan for p in parts)
    return {"fading": first - last}


def _arrays(function: str, tracks: Array, true_tracks: Array, true_visible: Array) -> tuple[np.ndarray, ...]:
    """All three as arrays, refused where their shapes differ."""
    tracks, true_tracks, true_visible = as_array(tracks), as_array(true_tracks), as_array(true_visible, bool)
    check_shapes(function, "tracks", tracks.shape, true_tracks=true_tracks)
    check_shapes(function, "tracks", tracks.shape[:2], true_visible=true_visible)
    return tracks, true_tracks, true_visible
