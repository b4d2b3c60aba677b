"""The long experiments of this library, as frozen values: arms that are trained alike but for one thing.

Nothing here computes anything. `python -m corrlib study NAME FOLDER` trains the arms of a study, and
`score-study` puts them to benchmarks; `arms` and `arm_scores` do the work.
"""

import json
from typing import Any, NamedTuple

from .losses import LossWeights
from .recipes import TrainConfig


class Arm(NamedTuple):
    """What one arm changes of its study's settings, and the weights of its losses."""

    changes: dict[str, Any]
    weights: LossWeights = LossWeights()


class Study(NamedTuple):
    """Arms of one experiment. Those of one seed begin with the same weights and see the same clips, where they can."""

    name: str
    config: TrainConfig  # what all arms have in common
    arms: dict[str, Arm]
    compared: tuple[tuple[str, str], ...]  # pairs of arms: the second's numbers minus the first's
    benchmarks: tuple[str, ...]
    masks: bool = False  # whether masks are asked too, where there are any


POINTS = ("procedural", "real_texture", "badja", "davis2016")
ADDED = {
    "": LossWeights(),
    "_reconstruction": LossWeights(reconstruction=1.0),
    "_adversary": LossWeights(domain=1.0),
    "_both": LossWeights(reconstruction=1.0, domain=1.0),
}
# What the paper claims. Textures without photographs, so that synthetic and real video differ; a colour is dropped in
# all arms alike. At the paper's temperature our teacher's labels are broad; those of `teacher_sharp` are not. The
# adversary pushes with the paper's strength of 1, that of `bilinear_adversary_strong` ten times as hard.
CLAIMS = Study(
    "claims",
    TrainConfig(
        steps=1200, clips=8, frames=2, size=128, points=128, appearance=0.7, photographs=False, drop_channels=True,
        real_videos="data/samples", optimizer="adamw",
    ),
    {kind: Arm({"label": kind}) for kind in ("hard", "bilinear", "gaussian", "teacher")}
    | {"teacher_sharp": Arm({"label": "teacher", "label_temperature": 0.015})}
    | {kind + name: Arm({"label": kind}, ADDED[name]) for kind in ("bilinear", "teacher") for name in ADDED if name}
    | {"bilinear_adversary_strong": Arm({"label": "bilinear", "domain_strength": 10.0}, ADDED["_adversary"])},
    (
        *(("hard", kind) for kind in ("bilinear", "gaussian", "teacher", "teacher_sharp")),
        *((kind, kind + name) for kind in ("bilinear", "teacher") for name in ADDED if name),
        ("bilinear", "bilinear_adversary_strong"),
    ),
    POINTS,
)  # fmt: skip
# Where this library departs from the paper's release: three arms of the study above, which may lie in the same folder,
# and each with one thing done the other way: all colours shown or Muon for AdamW, as by default; the rest is the
# paper's.
RAW = {"label": "bilinear", "domain_input": "raw", "domain_warm_up": False}
DEPARTURES = CLAIMS._replace(
    name="departures",
    arms={name: CLAIMS.arms[name] for name in ("bilinear", "bilinear_adversary", "teacher")}
    | {
        "all_colours": Arm({"label": "bilinear", "drop_channels": False}),
        "own_place": Arm({"label": "bilinear", "window": "query", "radius": 24}),
        "outside_zero": Arm({"label": "bilinear", "outside_zero": True}),
        "adversary_raw": Arm(RAW, ADDED["_adversary"]),
        "height_norm": Arm({"label": "teacher", "legacy_label_norm": True}),
        "muon": Arm({"label": "bilinear", "optimizer": "muon"}),
    },
    compared=(
        *(("bilinear", name) for name in ("all_colours", "own_place", "outside_zero", "muon")),
        ("bilinear_adversary", "adversary_raw"),
        ("teacher", "height_norm"),
    ),
)
# What one hour of a processor core makes: 4,000 steps with the optimiser of old, with the loss on masks, and with Muon.
RECIPE = Study(
    "recipe",
    TrainConfig(steps=4000, appearance=0.7, optimizer="adamw"),
    {
        "labels_only": Arm({}),
        "masks_too": Arm({}, LossWeights(masks=1.0)),
        "muon": Arm({"optimizer": "muon"}),
    },
    (("labels_only", "masks_too"), ("labels_only", "muon")),
    (*POINTS, "davis2017", "middlebury", "flyingchairs", "sintel"),
    masks=True,
)
# Swift and easy to see, every second clip of flat layers alone.
EASY = dict.fromkeys(("distractor", "camouflage", "herd", "smooth"), 0) | {"speed": [0.7, 30]}
EASY |= dict.fromkeys(("motion_blur", "defocus", "shadow", "changing_light", "noise", "compression", "cast"), 0)
FLAT = {"solids": 0, "figures": 0}
MIXED = json.dumps([EASY, EASY | FLAT])
# The flat layers of these move as slowly as elsewhere, and all of them bend.
BENT = json.dumps([EASY, {name: 0 for name in EASY if name != "speed"} | FLAT | {"bent": 1}])
# What the drawn video is worth, part by part. An arm `first` in the folder is of the first generator, flat layers only.
SHORT = TrainConfig(steps=1200, clips=4, frames=3, size=128, points=128, appearance=0.7, optimizer="adamw")
VIDEO = Study(
    "video",
    SHORT,
    {
        "whole": Arm({}),
        "real_textures": Arm({"texture_folder": "data/samples"}),
        "near_frames": Arm({"max_gap": 2.0}),
        "no_solids": Arm({"content": '{"solids": 0}'}),
        "no_figures": Arm({"content": '{"figures": 0}'}),
        "no_blur": Arm({"content": '{"motion_blur": 0, "defocus": 0}'}),
        "no_distractors": Arm({"content": '{"distractor": 0, "camouflage": 0, "herd": 0}'}),
        "easy_vivid": Arm({"content": MIXED, "vivid": True}),
        "bent_vivid": Arm({"content": BENT, "vivid": True}),
    },
    (
        ("first", "whole"),
        *(("first", name) for name in ("easy_vivid", "bent_vivid")),
        *((less, "whole") for less in ("near_frames", "no_solids", "no_figures", "no_blur", "no_distractors")),
        ("whole", "real_textures"),
    ),
    (*POINTS, "middlebury", "flyingchairs"),
    masks=True,
)
# How accuracy grows with steps, with how many textures there are, and with the network's width.
SCALING = Study(
    "scaling",
    SHORT,
    {"all": Arm({})}
    | {f"steps_{n}": Arm({"steps": n}) for n in (150, 300, 600, 2400)}
    | {f"textures_{n}": Arm({"textures": n}) for n in (6, 24)}
    | {f"width_{n}": Arm({"width": n}) for n in (8, 16, 48)},
    (),
    POINTS,
)
STUDIES = {study.name: study for study in (CLAIMS, DEPARTURES, RECIPE, VIDEO, SCALING)}
