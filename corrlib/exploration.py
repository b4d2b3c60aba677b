"""What an explorer knows and shows, in plain Python: points asked, tracks, maps, masks, pictures.

`explorer` puts it on a screen; everything it can do there can be done here without a browser.
"""

from dataclasses import dataclass, fields, replace
from pathlib import Path

import torch
from jaxtyping import Float, Int, UInt8
from matplotlib.figure import Figure
from torch import Tensor

from . import closeups, coords, frames, matching, overlays, visualize
from .closeups import Closeup
from .datasets import files
from .replay import FlowReplay, Progress, Replay
from .samples import PointTracks

OVERLAYS = ("nothing", "correlation", "probability")
COLOURS = {"correlation": "viridis", "probability": "magma"}


@dataclass(frozen=True)
class Search:
    """Where one point is looked for in one frame, by its own features on the coarse map."""

    correlation: Float[Tensor, "h w"]  # cosine
    probability: Float[Tensor, "h w"]  # softmax over the map, at the temperature
    lattice: coords.Lattice  # of both, in pixels of the size that frames are encoded at
    candidates: Float[Tensor, "M 2"]  # local maxima, best first, in pixels of the video
    heights: Float[Tensor, "M"]  # the correlation there


class Exploration:
    """Points and masks asked of a video, and what each of some methods answers.

    Args:
        video: (T, 3, H, W) uint8.
        methods: what answers, by name: `Replay`s and `FlowReplay`s of this video.

    Raises:
        ValueError: the video has fewer than 2 frames, or there are no methods.
    """

    def __init__(self, video: UInt8[Tensor, "T 3 H W"], methods: dict[str, Replay | FlowReplay]):
        if len(video) < 2:
            raise ValueError(f"explore: the video should have at least 2 frames, got {len(video)}.")
        if not methods:
            raise ValueError("explore: methods should be at least 1, got none.")
        self.video, self.size_hw, self.methods = video, tuple(video.shape[2:]), methods
        self.queries = torch.zeros(0, 3)
        self.answers: dict[str, list[PointTracks]] = {name: [] for name in methods}
        self.masks: dict[str, Int[Tensor, "T H W"]] = {}

    def add(self, t: int, x: float, y: float) -> int:
        """Follows one more point, asked in frame t at (x, y); returns its number.

        Raises:
            ValueError: the point is outside the frame or the video; nothing has changed then.
        """
        query = torch.tensor([t, x, y], dtype=torch.float32)
        answers = {name: method.follow(query) for name, method in self.methods.items()}
        for name, answer in answers.items():
            self.answers[name].append(answer)
        self.queries = torch.cat([self.queries, query[None]])
        return len(self.queries) - 1

    def remove(self, number: int) -> None:
        """Forgets a point; those behind it move up.

        Raises:
            ValueError: there is no such point.
        """
        self._check(number)
        for answers in self.answers.values():
            del answers[number]
        self.queries = torch.cat([self.queries[:number], self.queries[number + 1 :]])

    def configure(self, **changes: float) -> None:
        """Other settings of the tracker, for all models; all points are followed again.

        Raises:
            ValueError: there is no such setting, or its value cannot be; nothing has changed then.
        """
        models = {name: method for name, method in self.methods.items() if isinstance(method, Replay)}
        for setting, value in changes.items():
            known = [field.name for method in models.values() for field in fields(method.config)]
            if setting not in known:
                raise ValueError(f"configure: expected a field of TrackerConfig, got {setting}.")
            if not value > 0:
                raise ValueError(f"configure: {setting} should be above 0, got {value}.")
        before, found = {name: method.config for name, method in models.items()}, {}
        try:
            for name, method in models.items():
                method.config = replace(method.config, **changes)
                found[name] = [method.follow(query) for query in self.queries]
        except BaseException:  # they are as they were
            for name, method in models.items():
                method.config = before[name]
            raise
        self.answers |= found

    def tracks(self, name: str) -> PointTracks:
        """What a method answers for all points: tracks (T, N, 2), visible and confidence (T, N)."""
        answers = self.answers[name]
        if not answers:
            return PointTracks(torch.zeros(len(self.video), 0, 2), *self._none(torch.bool, torch.float32))
        return PointTracks(*(torch.cat(parts, dim=1) for parts in zip(*answers)))

    def search(self, name: str, number: int, t: int, count: int = 3) -> Search | None:
        """Where a point's own features are looked for in frame t; None for a method without features.

        Raises:
            ValueError: there is no such point.
        """
        self._check(number)
        method, query = self.methods[name], self.queries[number]
        if not isinstance(method, Replay):
            return None
        lattice, device = method.coarse_lattice, method.place.device
        xy = coords.resize_points(query[None, 1:], self.size_hw, method.work_hw).to(device)
        with torch.inference_mode():
            vector = matching.features_at(method.features[int(query[0])].coarse, coords.to_cells(xy, lattice)[None])
            correlation = matching.correlate(vector, method.features[t].coarse)[0, 0].cpu()
        probability = (correlation / method.config.temperature).flatten().softmax(0).view_as(correlation)
        peaks = matching.top_peaks(correlation[None], count)[0]
        at = coords.resize_points(coords.to_pixels(peaks, lattice), method.work_hw, self.size_hw)
        x, y = peaks.long().unbind(-1)
        return Search(correlation, probability, lattice, at, correlation[y, x])

    def closeup(self, name: str, number: int, t: int) -> Closeup | None:
        """The fine window around a point's place in frame t; None without features, and outside the frame.

        Raises:
            ValueError: there is no such frame or point.
        """
        self._check(number)
        self._check_frame(t)
        method = self.methods[name]
        if not isinstance(method, Replay):
            return None
        return closeups.look(method, self.queries[number], t, self.answers[name][number].tracks[t, 0])

    def carry(self, t: int, mask: Tensor, progress: Progress | None = None) -> None:
        """Carries a mask of frame t to all frames, by each method.

        Raises:
            ValueError: the mask is none that `propagate_masks` takes; earlier masks are kept.
        """
        self.masks = {name: method.carry(t, mask, progress) for name, method in self.methods.items()}

    def box(self, x0: float, y0: float, x1: float, y1: float) -> Int[Tensor, "H W"]:
        """The mask of the pixels whose centres are in a box, given by two of its corners.

        Raises:
            ValueError: less than 3 pixels of a side of it are inside the frame.
        """
        return coords.box_mask(self.size_hw, x0, y0, x1, y1)

    def read_mask(self, path: str | Path) -> Int[Tensor, "H W"]:
        """A mask of this video from an image file, as `datasets.files.read_first_mask`."""
        return files.read_first_mask(Path(path), self.video[0])

    def picture(
        self, name: str, t: int, chosen: int = -1, overlay: str = "nothing", lines: int = 0
    ) -> UInt8[Tensor, "3 H2 W2"]:
        """Frame t with all that a method knows of it.

        Args:
            name: of the method.
            t: the frame.
            chosen: the point that has the cross-hair, the map and the candidates; -1 for none.
            overlay: "nothing", "correlation" or "probability".
            lines: height of the picture; 0 for that of the video.

        Raises:
            ValueError: there is no such frame, point or overlay.
        """
        self._check_frame(t)
        if overlay not in OVERLAYS:
            raise ValueError(f"picture: overlay should be one of {', '.join(OVERLAYS)}, got {overlay}.")
        H, W = self.size_hw
        size_hw = (lines, max(1, round(W * lines / H))) if lines else (H, W)
        shown = coords.resize_frames(frames.to_float(self.video[t])[None], size_hw)[0]
        search = self.search(name, chosen, t) if chosen >= 0 and overlay != "nothing" else None
        if search:
            values = getattr(search, overlay)[None, None]
            values = coords.relattice(values, search.lattice, coords.PIXELS, self.methods[name].work_hw)
            shown = overlays.draw_map(shown, coords.resize_maps(values, size_hw)[0, 0], COLOURS[overlay])
        if name in self.masks:
            shown = overlays.draw_masks(shown, coords.resize_masks(self.masks[name][t, None], size_hw)[0])
        found = self.tracks(name)
        tracks = coords.resize_points(found.tracks, self.size_hw, size_hw)
        shown = visualize.draw_points(shown, tracks, found.visible, t)
        if chosen >= 0:
            marks = search.candidates if search else torch.zeros(0, 2)
            marks = coords.resize_points(marks, self.size_hw, size_hw)
            shown = overlays.draw_marks(shown, tracks[t, chosen], marks)
        return shown

    def describe(self, t: int, chosen: int) -> list[str]:
        """What each method says of a point in frame t, a line each."""
        self._check(chosen)
        self._check_frame(t)
        lines = []
        for name in self.methods:
            tracks, visible, confidence = self.answers[name][chosen]
            (x, y), seen = tracks[t, 0].tolist(), "seen" if visible[t, 0] else "hidden or lost"
            line = f"{name}: point {chosen + 1} in frame {t} at ({x:.1f}, {y:.1f}), {seen}, sure {confidence[t, 0]:.0%}"
            if search := self.search(name, chosen, t):
                best = zip(search.candidates.tolist(), search.heights.tolist())
                line += "; most alike " + ", ".join(f"({a:.0f}, {b:.0f}) {height:.2f}" for (a, b), height in best)
            lines.append(line)
        return lines

    def figure(self, t: int, chosen: int) -> Figure:
        """What the explorer shows of a point in frame t, as a static figure: a row for each method.

        The frame it was asked in, its correlation with frame t, frame t, and how sure the method is
        in each frame, filled where the point is seen.

        Raises:
            ValueError: there is no such frame or point.
        """
        self._check(chosen)
        self._check_frame(t)
        H, W = self.size_hw
        rows = len(self.methods)
        tall = min(3.4 * H / W, 4.2)
        fig = Figure(figsize=(min(15, 3 * (tall * W / H + 1) + 4), rows * (tall + 0.6)), layout="constrained")
        for axes, name in zip(fig.subplots(rows, 4, squeeze=False), self.methods):
            found, asked = self.tracks(name), int(self.queries[chosen, 0])
            for ax, when, what in ((axes[0], asked, "asked"), (axes[2], t, "answered")):
                visualize.show_tracks(ax, self.video[when], found.tracks, found.visible, when, f"{what}: frame {when}")
                visualize.show_query(ax, found.tracks[when, chosen])
            axes[0].set_ylabel(name)
            self._show_search(axes[1], name, t, chosen)
            _show_confidence(axes[3], found, chosen, t)
        return fig

    def closeup_figure(self, t: int, chosen: int) -> Figure:
        """The fine windows of a point in frame t, as a static figure: a row for each method that has features.

        The frame, the soft label of the place found, and the network's own distribution.

        Raises:
            ValueError: there is no such frame or point, or it is nowhere inside the frame.
        """
        found = {name: self.closeup(name, chosen, t) for name in self.methods}
        found = {name: closeup for name, closeup in found.items() if closeup}
        if not found:
            raise ValueError(f"closeup_figure: point {chosen + 1} should be inside frame {t}, got it outside.")
        fig = Figure(figsize=(11, 3.1 * len(found)), layout="constrained")
        for axes, (name, closeup) in zip(fig.subplots(len(found), 3, squeeze=False), found.items()):
            closeups.show(list(axes), closeup, name)
        return fig

    def _show_search(self, ax, name: str, t: int, chosen: int) -> None:
        """A point's correlation with a frame, on axes; nothing for a method without features."""
        search = self.search(name, chosen, t)
        if search is None:
            ax.axis("off")
            ax.set_title("no correlation: a chain of flow", fontsize=10)
            return
        work_hw = self.methods[name].work_hw
        small = coords.resize_frames(frames.to_float(self.video[t])[None], work_hw)[0]
        there = coords.resize_points(self.answers[name][chosen].tracks[t, 0], self.size_hw, work_hw)
        visualize.show_correlation(ax, small, search.correlation, search.lattice, there)
        ax.set_title(f"correlation with frame {t}", fontsize=10)

    def _none(self, *dtypes: torch.dtype) -> list[Tensor]:
        return [torch.zeros(len(self.video), 0, dtype=dtype) for dtype in dtypes]

    def _check(self, number: int) -> None:
        if not 0 <= number < len(self.queries):
            raise ValueError(f"explore: there are {len(self.queries)} points, and none with number {number}.")

    def _check_frame(self, t: int) -> None:
        if not 0 <= t < len(self.video):
            raise ValueError(f"explore: frame should be in 0 .. {len(self.video) - 1}, got {t}.")


def _show_confidence(ax, found: PointTracks, chosen: int, t: int) -> None:
    """How sure a method is of a point in each frame, filled where it is seen, with a line at frame t."""
    confidence, seen = found.confidence[:, chosen].numpy(), found.visible[:, chosen].numpy()
    colour, time = visualize.colours(found.tracks.shape[1])[chosen], torch.arange(len(confidence)).numpy()
    ax.plot(time, confidence, color="0.6", linewidth=1)
    ax.scatter(time[seen], confidence[seen], s=16, color=[colour], edgecolors="black", linewidths=0.5, zorder=3)
    ax.scatter(time[~seen], confidence[~seen], s=16, facecolors="none", edgecolors="0.3", zorder=3)
    ax.axvline(t, color=visualize.ACCENT, linewidth=1)
    ax.set(ylim=(-0.05, 1.05), xlabel="frame", ylabel="confidence")
    ax.set_title("filled: seen; hollow: hidden or lost", fontsize=10)
    ax.tick_params(labelsize=8, length=2)
