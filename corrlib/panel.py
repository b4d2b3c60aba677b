"""The widgets of the explorer: a thin shell over `exploration`, and the canvas that is clicked on.

The canvas is an `anywidget`, its browser side in canvas.js beside this file. What cannot be done
is said in a line under the picture, and changes nothing. Needs the packages of the group
`notebooks`; imported when an explorer is opened, and not before.
"""

import html
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anywidget
import cv2
import ipywidgets
import numpy as np
import torch
import traitlets
from einops import rearrange
from torch import Tensor

from . import closeups, frames
from .exploration import OVERLAYS, Exploration
from .replay import Replay

CLOSEUP_LINES = 112
TALLEST = 560  # pixels of the screen that a picture may be high
LINES = 432  # of the pictures shown, which are widened by the browser
NEAR = 0.02  # of the frame's height: a click so near to a point chooses it


class Canvas(anywidget.AnyWidget):
    """Shows a JPEG; sends {"kind": "point" | "box" | "step", ...}, places in pixels of the frame."""

    _esm = Path(__file__).with_name("canvas.js")
    picture = traitlets.Bytes().tag(sync=True)  # JPEG
    size_hw = traitlets.List(traitlets.Int()).tag(sync=True)  # of the frame, whatever the size of the picture
    tool = traitlets.Unicode("point").tag(sync=True)  # what a press begins: "point" or "box"
    label = traitlets.Unicode().tag(sync=True)  # for who cannot see it


class Explorer:
    """Widgets around an `Exploration`. Made by `explore`.

    `widget` is all of it. What the widgets do can be done by their values, without a browser:
    `explorer.time.value = 7` shows frame 7.
    """

    def __init__(self, exploration: Exploration, fps: float = frames.DEFAULT_FPS):
        self.exploration, self.chosen = exploration, -1
        size_hw, last = list(exploration.size_hw), len(exploration.video) - 1
        self.canvases = {name: Canvas(size_hw=size_hw) for name in exploration.methods}
        hidden = {"display": "none", "align_items": "center", "margin": "6px 0 0 0", "flex_flow": "row wrap"}
        self.closeups = {}
        for name in exploration.methods:
            parts = [ipywidgets.Image(), ipywidgets.HTML(layout={"flex": "1 1 180px"})]
            self.closeups[name] = ipywidgets.HBox(parts, layout=hidden)
        self.time = ipywidgets.IntSlider(description="frame", max=last, layout={"flex": "1 1 auto"})
        play = ipywidgets.Play(max=last, interval=max(40, round(1000 / fps)), show_repeat=False)
        self.tool = ipywidgets.ToggleButtons(options=["point", "box"], style={"button_width": "60px"})
        self.overlay = ipywidgets.Dropdown(description="map", options=OVERLAYS, layout={"width": "220px"})
        first = next(m for m in exploration.methods.values() if isinstance(m, Replay)).config
        slow = {
            "continuous_update": False,
            "layout": {"width": "300px"},
            "style": {"description_width": "initial"},
        }  # all points are followed again
        self.temperature = ipywidgets.FloatLogSlider(
            first.temperature, min=-2, max=-0.5, step=0.05, readout_format=".3f", description="temperature", **slow
        )
        self.radius = ipywidgets.IntSlider(first.radius, min=1, max=12, description="radius", **slow)
        self.candidates = ipywidgets.IntSlider(first.candidates, min=1, max=8, description="candidates", **slow)
        self.mask_file = ipywidgets.Text(placeholder="mask of this frame: a .png", continuous_update=False)
        self.forget = ipywidgets.Button(description="forget point", layout={"width": "110px"})
        self.no_masks = ipywidgets.Button(description="no masks", layout={"width": "90px"})
        self.progress = ipywidgets.IntProgress(layout={"visibility": "hidden", "width": "120px"})
        self.line = ipywidgets.HTML()

        widest = max(360, min(780, round(TALLEST * size_hw[1] / size_hw[0])))
        pictures = [
            ipywidgets.VBox(
                [ipywidgets.Label(name), canvas, self.closeups[name]],
                layout={"flex": "1 1 0", "min_width": "0", "max_width": f"{widest}px", "margin": "0 8px 0 0"},
            )
            for name, canvas in self.canvases.items()
        ]
        width = "1240px" if len(pictures) > 1 else "780px"
        row = {"flex_flow": "row wrap", "align_items": "center"}
        self.widget = ipywidgets.VBox(
            [
                ipywidgets.HBox([self.tool, self.overlay, self.forget, self.no_masks, self.mask_file], layout=row),
                ipywidgets.HBox(pictures),
                ipywidgets.HBox([play, self.time, self.progress]),
                self.line,
                ipywidgets.HBox([self.temperature, self.radius, self.candidates], layout=row),
            ],
            layout={"width": "100%", "max_width": width},
        )
        ipywidgets.jslink((play, "value"), (self.time, "value"))
        for canvas in self.canvases.values():
            canvas.on_msg(lambda _, content, buffers: self.hear(content))
        self.tool.observe(self._take, "value")
        for control in (self.time, self.overlay):
            control.observe(lambda change: self._do(lambda: None), "value")
        for name in ("temperature", "radius", "candidates"):
            getattr(self, name).observe(
                lambda change, name=name: self._do(lambda: exploration.configure(**{name: change.new})), "value"
            )
        self.mask_file.observe(lambda change: change.new and self._do(self._carry_file, long=True), "value")
        self.forget.on_click(lambda _: self._do(self._forget))
        self.no_masks.on_click(lambda _: self._do(exploration.masks.clear))
        self.show()
        self.say("Click on something, and drag the slider to see where it goes.")

    def _repr_mimebundle_(self, **options: Any) -> Any:
        return self.widget._repr_mimebundle_(**options)

    def _take(self, change: Any) -> None:
        """Hands each canvas the tool chosen."""
        for canvas in self.canvases.values():
            canvas.tool = change.new

    def hear(self, message: dict) -> None:
        """Does what a canvas reports: a click, a box, a step in time."""
        kind = message.get("kind")
        if kind == "step":
            self.time.value = min(max(self.time.value + message["by"], 0), self.time.max)
        elif kind == "point":
            self._do(lambda: self._click(*message["xy"]))
        elif kind == "box":
            self._do(lambda: self._carry(self.exploration.box(*message["xy"])), long=True)

    def choose(self, number: int) -> None:
        """Gives a point the cross-hair, the map and the line of text; -1 takes them away."""
        self.chosen = number
        self._do(lambda: None)

    def show(self) -> None:
        """Draws the frame of the slider into each canvas."""
        for name, canvas in self.canvases.items():
            frame = self.exploration.picture(name, self.time.value, self.chosen, self.overlay.value, LINES)
            canvas.picture = _encoded(frame, ".jpg")
            canvas.label = f"{name}, frame {self.time.value}, {len(self.exploration.queries)} points"
            closeup = self.exploration.closeup(name, self.chosen, self.time.value) if self.chosen >= 0 else None
            self.closeups[name].layout.display = "flex" if closeup else "none"
            if closeup:
                image, words = self.closeups[name].children
                image.value = _encoded(closeups.draw(closeup, CLOSEUP_LINES), ".png")
                words.value = (
                    f'<div style="line-height: 1.4; margin-left: 8px">{closeup.width_px:.0f} pixels around the place: '
                    "the frame, the soft label of the place, the network's own answer. "
                    f"Its entropy is {closeup.entropy:.2f} nat, its mean {closeup.off:.2f} px off.</div>"
                )

    def say(self, *lines: str, wrong: bool = False) -> None:
        """Puts lines of text under the picture."""
        text = "<br>".join(html.escape(line) for line in lines)
        self.line.value = f'<span style="line-height: 1.5">{"⚠ " if wrong else ""}{text}</span>'

    def _do(self, act: Callable[[], object], long: bool = False) -> None:
        """Acts, shows, and tells; the one place where an error becomes a line of text."""
        start = time.perf_counter()
        try:
            with _threads(torch.get_num_threads() if long else 1):
                act()
            with _threads(1):
                self.show()
                told = self.exploration.describe(self.time.value, self.chosen) if self.chosen >= 0 else [""]
            self.say(*told, f"answered in {1000 * (time.perf_counter() - start):.0f} ms")
        except Exception as error:  # whatever it is: a traceback would end up in the log, where nobody looks
            expected = isinstance(error, ValueError | OSError)
            self.say(str(error) if expected else f"{type(error).__name__}: {error}", wrong=True)

    def _click(self, x: float, y: float) -> None:
        """Chooses the point at a place, or asks there for a new one."""
        t = self.time.value
        for name in self.exploration.methods:
            away = (self.exploration.tracks(name).tracks[t] - np.array([x, y], np.float32)).norm(dim=-1)
            if len(away) and away.min() <= NEAR * self.exploration.size_hw[0]:
                self.chosen = int(away.argmin())
                return
        self.chosen = self.exploration.add(t, x, y)

    def _forget(self) -> None:
        """Takes the chosen point away; the one before it is chosen."""
        if self.chosen < 0:
            raise ValueError("There is no point to forget: click on one first.")
        self.exploration.remove(self.chosen)
        self.chosen = min(self.chosen, len(self.exploration.queries) - 1)

    def _carry(self, mask: Tensor) -> None:
        """Carries a mask of the frame shown, with a bar that fills."""

        def told(done: int, total: int) -> None:
            self.progress.max, self.progress.value = total, done

        self.progress.layout.visibility = "visible"
        try:
            self.exploration.carry(self.time.value, mask, told)
        finally:
            self.progress.layout.visibility = "hidden"

    def _carry_file(self) -> None:
        """Carries the mask of the file named."""
        path, self.mask_file.value = self.mask_file.value.strip(), ""
        self._carry(self.exploration.read_mask(path))


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """So many of torch's threads meanwhile: in the many small steps of an answer they only wait for one another."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _encoded(picture: Tensor, suffix: str) -> bytes:
    """A (3, H, W) picture as the bytes of a file."""
    bgr = np.ascontiguousarray(rearrange(picture.flip(0), "C H W -> H W C").numpy())
    return cv2.imencode(suffix, bgr, [cv2.IMWRITE_JPEG_QUALITY, 90] if suffix == ".jpg" else [])[1].tobytes()
