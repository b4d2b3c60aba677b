"""Who answers the benchmarks: our tracker with some features, and what you would run instead.

A method answers with points, and with masks if it can. Anything that can be called like
`tracking.track_points` without its model is one: `Method(yours)`.
"""

import functools
import hashlib
import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from . import baselines, benchmarks, calibration, dense, propagation, tracking
from .checkpoints import load_pretrained
from .encoder import SUPPORT, UNCALIBRATED, PixelEncoder
from .looks import TURNED_AND_SCALED
from .propagation import PAPER, PropagationConfig
from .samples import PointTracks
from .torchvision_models import RaftSmall, ResNet18Encoder

OURS = ("model", "trained", "shipped", "random")  # networks of ours, the one that matters first
NEARBY = tracking.TrackerConfig(prior=20.0, growth=1.0, anywhere=math.inf)  # nothing beats so many nat a coarse cell
# What coarse-to-fine spares: every fine cell looked at for a point, and masks carried on the fine grid.
EXHAUSTIVE = (tracking.TrackerConfig(candidates=0), PropagationConfig(lines=256, stride=2))
# Descriptors are made in float32, and answer best as they do here: what renews templates more rarely, what carries
# masks on taller frames, and what carries them more softly, is worse for them. Landmarks help them as they help us,
# sought around what was found where that is more alike, and correct it by as much as a guess; the query's frame
# turned and scaled helps SIFT, and misleads patches.
PATCHES = (
    tracking.TrackerConfig(
        radius=6, update=0.5, steady=0.0, anywhere=math.inf, known=0.8, correct=8.0, looks=(), bfloat16=False
    ),
    PropagationConfig(bfloat16=False),
)
SIFT = (
    replace(PATCHES[0], temperature=0.03, readout_temperature=0.03, known=0.87, looks=TURNED_AND_SCALED),
    PropagationConfig(lines=256, top_k=10, temperature=0.05, bfloat16=False),
)
AT_ONCE = 2048  # queries; a dense flow asks some ten thousand, each with a window of features


class Method(NamedTuple):
    """How to ask one method.

    `points` is called with a video (T, 3, H, W) and query points (N, 3); `masks` with a video and
    the first frame's mask (H, W), for masks (T, H, W); `flow`, where there is one, with two frames,
    for a `dense.Match`, and then pairs with flow are asked that way. `weights` names what it has learnt, so that
    answers of other weights are not mistaken for its own. `prepare` is called before it is asked,
    each time, and not counted to what it costs.
    """

    points: Callable[[Tensor, Tensor], PointTracks]
    masks: Callable[[Tensor, Tensor], Tensor] | None = None
    flow: Callable[[Tensor, Tensor], dense.Match] | None = None
    weights: str = ""
    prepare: Callable[[], None] = lambda: None


def of_encoder(
    model: nn.Module,
    config: tracking.TrackerConfig | None = None,
    masks: PropagationConfig | None = None,
) -> Method:
    """An encoder in our tracker, in our propagation of masks and in our dense match of two frames."""

    def points(video: Tensor, query_points: Tensor) -> PointTracks:
        # Queries do not see each other, so that parts give what the whole would.
        parts = [tracking.track_points(model, video, q, config) for q in torch.as_tensor(query_points).split(AT_ONCE)]
        return PointTracks(*(torch.cat(values, dim=1) for values in zip(*parts)))

    carried = functools.partial(propagation.propagate_masks, model, config=masks)
    return Method(points, carried, functools.partial(dense.match_frames, model), fingerprint(model))


def as_the_paper(model: nn.Module, aligned: bool = True) -> Method:
    """An encoder's features carried the paper's way: heat maps and masks, at stride 2, from frame to frame.

    Points that are asked in one frame are carried together, forwards and backwards from it; what is
    left of a point counts as visible, since that way knows no other answer. `aligned` as in `PropagationConfig`.
    """
    config = replace(PAPER, aligned=aligned)

    def points(video: Tensor, query_points: Tensor) -> PointTracks:
        query_points = torch.as_tensor(query_points)
        tracks = torch.empty(len(video), len(query_points), 2)
        for t in query_points[:, 0].long().unique().tolist():
            asked = query_points[:, 0].long() == t
            later, earlier = (
                propagation.propagate_joints(model, part, query_points[asked, 1:], config)
                for part in (video[t:], video[: t + 1].flip(0))
            )
            tracks[:, asked] = torch.cat([earlier[1:].flip(0), later])
        seen = (tracks != -1).any(dim=-1)  # where nothing is left of a map
        return PointTracks(tracks, seen, seen.float())

    carried = functools.partial(propagation.propagate_masks, model, config=config)
    return Method(points, carried, weights=fingerprint(model))


def fingerprint(model: nn.Module) -> str:
    """A short name of a network's weights, how it is followed and how sure; the same anywhere, "" without weights."""
    state = model.state_dict()
    followed = getattr(model, "support", SUPPORT), getattr(model, "magnify", 1.0), getattr(model, "calibration", ())
    digest = hashlib.sha256(" ".join(map(str, followed)).encode())
    for name, value in sorted(state.items()):
        digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16] if state else ""


def methods(
    only: Iterable[str] = (),
    checkpoint: str = "",
    resnet18_weights: str = "",
    raft_small_weights: str = "",
    seed: int = 0,
) -> dict[str, Method]:
    """The methods compared, by name.

    `model` is the network of the checkpoint, or without one the shipped network; `trained` and
    `shipped` are these two by their own names, `random` is a network that has learnt nothing.
    `base` is the shipped network with more landmarks around each point, in larger frames;
    `as_paper` and `as_released` carry the model's features the paper's way, slowly, `exhaustive` spares
    nothing by searching coarse-to-fine, and `no_redetection` looks for a point near its last place only:
    all of these only where asked for.

    Args:
        only: some of them; if empty all, none twice.
        checkpoint: a .safetensors file of ours.
        resnet18_weights, raft_small_weights: torchvision's files; without one the method is left
            out, or refused if asked for.
        seed: of the random network.

    Raises:
        ValueError: one of those that `only` asks for is none of them, or has no weights; a file
            holds other weights.
        FileNotFoundError: a file of weights is not there.
    """
    dis_fast = [functools.partial(f, preset="fast") for f in (baselines.track_dis, baselines.propagate_masks_dis)]
    found = {
        "model": lambda: of_encoder(load_pretrained(checkpoint or "small")),
        "trained": lambda: of_encoder(load_pretrained(checkpoint)),
        "shipped": lambda: of_encoder(load_pretrained()),
        "base": lambda: of_encoder(load_pretrained("base")),
        "as_paper": lambda: as_the_paper(load_pretrained(checkpoint or "small")),
        "as_released": lambda: as_the_paper(load_pretrained(checkpoint or "small"), aligned=False),
        "exhaustive": lambda: of_encoder(load_pretrained(checkpoint or "small"), *EXHAUSTIVE),
        "no_redetection": lambda: of_encoder(load_pretrained(checkpoint or "small"), NEARBY),
        "random": lambda: of_encoder(_random(seed)),
        "resnet18": lambda: _of_resnet18(resnet18_weights),
        "sift": lambda: of_encoder(baselines.SiftEncoder().eval(), *SIFT),
        "patches": lambda: of_encoder(baselines.RawPatchEncoder().eval(), *PATCHES),
        "raft_small": lambda: _of_raft(raft_small_weights),
        "dis_medium": lambda: Method(baselines.track_dis, baselines.propagate_masks_dis),
        "dis_fast": lambda: Method(*dis_fast),
        "farneback": lambda: Method(baselines.track_farneback, baselines.propagate_masks_farneback),
        "lk": lambda: Method(baselines.track_lk),
        "static": lambda: Method(baselines.track_static, baselines.propagate_masks_static),
    }
    needed = {"trained": checkpoint, "resnet18": resnet18_weights, "raft_small": raft_small_weights}
    only = list(only)
    for name in only:
        if name not in found:
            raise ValueError(f"methods: unknown method {name!r}; there are {', '.join(found)}.")
        if not needed.get(name, "none"):
            what = "a checkpoint that training wrote" if name == "trained" else f"{name}_weights, torchvision's file"
            raise ValueError(
                f"methods: {name} should have {what}, got none; nothing is downloaded, and a network of random "
                "weights is called random."
            )
    left_out = {"base", "as_paper", "as_released", "exhaustive", "no_redetection", "trained"}
    left_out |= set() if checkpoint else {"shipped"}  # the same as model
    chosen = only or [name for name in found if needed.get(name, "none") and name not in left_out]
    return {name: make() for name, make in found.items() if name in chosen}


def _random(seed: int) -> PixelEncoder:
    """An encoder as it is before training."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return PixelEncoder().eval()


def _of_resnet18(weights: str) -> Method:
    """ResNet-18's features, calibrated, as the other encoders are, before they are first asked; a minute."""
    encoder = ResNet18Encoder(weights)

    def prepare() -> None:
        if encoder.calibration == UNCALIBRATED:
            clips = [task.read()[0] for task in benchmarks.procedural_calib(4)]
            encoder.calibration = calibration.calibrate(encoder, clips)

    return of_encoder(encoder)._replace(prepare=prepare)


def _of_raft(weights: str) -> Method:
    """RAFT-small, chained."""
    raft = RaftSmall(weights)
    return Method(raft.track_points, raft.propagate_masks, weights=fingerprint(raft.net))
