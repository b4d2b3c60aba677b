"""What decides a training, as frozen values: the settings, and the two recipes that this library has.

`DEFAULT` is the best known, by which the shipped weights were trained on; `PAPER` is the paper's, as
released. Nothing here computes anything.
"""

from dataclasses import dataclass, fields
from typing import NamedTuple

from . import alignment, labels
from .losses import LossWeights

ENCODERS = ("small", "paper")
LABELLED = ("procedural", "flyingthings3d", "flyingchairs", "shards")
WINDOWS = ("target", "query")
OPTIMIZERS = ("muon", "adamw")
EARLIER = {"optimizer": "adamw"}  # what was used before there was a choice


@dataclass(frozen=True)
class TrainConfig:
    """All that decides what is learnt, but for the weights of the losses and a teacher's; equal ones give
    equal weights on one machine."""

    steps: int = 2000
    clips: int = 4  # a step, shared out among processes that train together
    frames: int = 3  # a clip, all of them matched with each other
    size: int = 160  # pixels, square
    points: int = 192  # a clip, shared evenly by its frames; 0 asks each fine cell of frame 0, of pairs with flow
    max_gap: float = 24.0  # frames between neighbouring frames of a clip, log-uniform from 1
    appearance: float = 1.0  # strength of augment.change_appearance
    textures: int = 96  # at hand at a time
    texture_folder: str = ""  # of images and videos that half of them are made of
    photographs: bool = True  # among the textures; without, all of them are procedural
    vivid: bool = False  # procedural textures of four families only, in strong colours
    content: str = "{}"  # what differs from synthetic.Content, as JSON; clips take those of a list in turn
    labelled: str = "procedural"  # LABELLED: where the clips with known motion come from
    data_root: str = ""  # the folder of that data set, or of shards that write-shards wrote
    # labels
    label: str = "bilinear"  # labels.KINDS
    sigma: float = 1.0  # of Gaussian labels, in cells
    label_temperature: float = 0.07  # of a teacher's similarities
    teacher_momentum: float = 0.0  # above 0, the teacher is this running mean of the student
    legacy_label_norm: bool = False  # the released code's: the teacher's features normalised along the height
    legacy_consistency: bool = False  # the released code's test of visibility, for pairs with flow
    window: str = "target"  # WINDOWS: where the fine windows lie, near the target or at the query's own cell
    radius: int = 6  # of the window on the fine map, in cells
    temperature: float = 0.07
    outside_zero: bool = False  # cells outside the frame count, with a correlation of 0
    drop_channels: bool = False  # of Lab, one of a and b, from labelled frames too
    # real video, for the weights `reconstruction` and `domain`
    real_videos: str = ""  # a folder of videos, of folders of images, or of shards
    real_clips: int = 4  # a step
    real_gap: int = 6  # frames between neighbouring frames of a clip, at most
    references: int = 1  # frames that another one is rebuilt from
    coarse_reconstruction: bool = True  # on the coarse map too, which else learns nothing from it
    own_radius: int = 8  # of the windows of the reconstruction and the adversary, at a cell's own place
    domain_input: str = "normalised"  # alignment.INPUTS: what the discriminator sees
    domain_cells: int = 128  # of each pair, that it is shown; 0 for all
    domain_strength: float = 1.0  # of the reversed gradient; 0 lets the discriminator watch only
    domain_warm_up: bool = True  # from 0 to that strength
    real_statistics: bool = False  # the running statistics of batch norm are those of real video alone
    # optimiser
    optimizer: str = "muon"  # OPTIMIZERS: what moves the kernels of convolutions
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    warm_up: float = 0.05  # share of the steps
    last_rate: float = 0.0  # of a cosine's end, as a share of learning_rate
    clip_gradient: float = 1.0  # its largest norm; 0 for any
    accumulate: int = 1  # parts of a step's clips, one after the other, for less memory; each is averaged by itself
    ema: float = 0.0  # above 0, the weights kept and evaluated are this running mean, a shorter one at first
    encoder: str = "small"  # ENCODERS
    width: int = 32  # of the small encoder
    stage4: bool = False  # of the paper's, to be trained at its own scale with the weight `coarse`
    bfloat16: bool = True  # the encoder's products, where the processor has such instructions
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be trained, before the first step."""
        positive = ("steps", "clips", "temperature", "learning_rate", "width", "sigma", "label_temperature")
        for name in (*positive, "real_clips", "real_gap", "references", "own_radius", "accumulate"):
            if not getattr(self, name) > 0:
                raise ValueError(f"TrainConfig: {name} should be above 0, got {getattr(self, name)}.")
        labels.check_kind(self.label)
        known = {"encoder": ENCODERS, "labelled": LABELLED, "window": WINDOWS, "optimizer": OPTIMIZERS}
        known |= {"domain_input": alignment.INPUTS}
        for name, values in known.items():
            if getattr(self, name) not in values:
                raise ValueError(
                    f"TrainConfig: {name} should be one of {', '.join(values)}, got {getattr(self, name)!r}."
                )
        if self.frames < 2 or self.size < 32 or self.max_gap < 1:
            raise ValueError(
                "TrainConfig: frames should be at least 2, size 32 and max_gap 1, "
                f"got {self.frames}, {self.size} and {self.max_gap}."
            )
        least = self.frames if self.labelled == "procedural" else 0  # one asked in each frame
        if self.points < least or self.domain_cells < 0:
            raise ValueError(
                f"TrainConfig: points should be at least {least} and domain_cells 0, "
                f"got {self.points} and {self.domain_cells}."
            )
        if self.labelled != "procedural" and not self.data_root:
            raise ValueError(f"TrainConfig: data_root should be the folder of {self.labelled}, got {self.data_root!r}.")
        if self.domain_strength < 0:
            raise ValueError(f"TrainConfig: domain_strength should be at least 0, got {self.domain_strength}.")
        for name in ("teacher_momentum", "ema", "last_rate"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"TrainConfig: {name} should be in [0, 1), got {getattr(self, name)}.")


def completed(record: dict, of: type = TrainConfig) -> dict:
    """A record of settings, such as an earlier version wrote, with the defaults of fields that it does not know."""
    known = {field.name: field.default for field in fields(of)}
    return known | {name: value for name, value in EARLIER.items() if name in known} | record


class Recipe(NamedTuple):
    """Settings and the weights of the losses."""

    config: TrainConfig
    weights: LossWeights


DEFAULT = Recipe(TrainConfig(), LossWeights())
PAPER = Recipe(
    TrainConfig(
        steps=302_265,  # 30 epochs of 40,302 pairs, 4 a step
        clips=4,
        frames=2,
        size=256,
        points=0,
        appearance=0.0,
        labelled="flyingthings3d",
        data_root="data/raw",
        label="teacher",
        window="query",
        radius=24,
        outside_zero=True,
        drop_channels=True,
        real_videos="data/raw/YouTube-VOS/train/JPEGImages",
        real_clips=4,
        real_gap=1,
        coarse_reconstruction=False,
        own_radius=24,
        domain_input="raw",
        domain_cells=0,
        domain_warm_up=False,
        optimizer="adamw",
        learning_rate=1e-3,
        weight_decay=0.0,
        warm_up=0.0,
        last_rate=1e-3,
        clip_gradient=0.0,
        encoder="paper",
        bfloat16=False,
    ),
    LossWeights(coarse=0.0, fine=1.0, reconstruction=1.0, domain=1.0),
)
PRESETS = {"default": DEFAULT, "paper": PAPER}
