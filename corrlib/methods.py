"""Who answers the benchmarks: our tracker with some features, and what you would run instead.

A method answers with points, and with masks if it can. Anything that can be called like
`tracking.track_points` without its model is one: `Method(yours)`.
"""

import functools
import hashlib
from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from . import baselines, propagation, tracking
from .samples import PointTracks
from .torchvision_models import RaftSmall, ResNet18Encoder


class Method(NamedTuple):
    """How to ask one method.

    `points` is called with a video (T, 3, H, W) and query points (N, 3); `masks` with a video and
    the first frame's mask (H, W), for masks (T, H, W). `weights` names what it has learnt, so that
    answers of other weights are not mistaken for its own.
    """

    points: Callable[[Tensor, Tensor], PointTracks]
    masks: Callable[[Tensor, Tensor], Tensor] | None = None
    weights: str = ""


AT_ONCE = 2048  # queries; a dense flow asks some ten thousand, each with a window of features


def of_encoder(model: nn.Module, config: tracking.TrackerConfig | None = None) -> Method:
    """An encoder in our tracker and in our propagation of masks."""

    def points(video: Tensor, query_points: Tensor) -> PointTracks:
        # Queries do not see each other, so that parts give what the whole would.
        parts = [tracking.track_points(model, video, q, config) for q in torch.as_tensor(query_points).split(AT_ONCE)]
        return PointTracks(*(torch.cat(values, dim=1) for values in zip(*parts)))

    return Method(points, functools.partial(propagation.propagate_masks, model), fingerprint(model))


def fingerprint(model: nn.Module) -> str:
    """A short name of a network's weights, the same wherever they are; "" of one that has none."""
    state = model.state_dict()
    digest = hashlib.sha256()
    for name, value in sorted(state.items()):
        digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16] if state else ""


def methods(
    only: Iterable[str] = (), resnet18_weights: str = "", raft_small_weights: str = "", **encoders: nn.Module
) -> dict[str, Method]:
    """The methods compared, by name: encoders given in our tracker, and the baselines.

    Args:
        only: some of them; all if empty.
        resnet18_weights, raft_small_weights: torchvision's files; without one the method is left
            out, or refused if asked for.
        encoders: by the name they shall have.

    Raises:
        ValueError: one of those that `only` asks for is none of them, or has no weights; a file
            holds other weights.
        FileNotFoundError: a file of weights is not there.
    """
    sift = tracking.TrackerConfig(temperature=0.03, readout_temperature=0.03)
    dis_fast = {"preset": "fast"}
    found = {
        **{name: functools.partial(of_encoder, model) for name, model in encoders.items()},
        "resnet18": lambda: of_encoder(ResNet18Encoder(resnet18_weights)),
        "sift": lambda: of_encoder(baselines.SiftEncoder().eval(), sift),
        "patches": lambda: of_encoder(baselines.RawPatchEncoder().eval()),
        "raft_small": lambda: _of_raft(raft_small_weights),
        "dis_medium": lambda: Method(baselines.track_dis, baselines.propagate_masks_dis),
        "dis_fast": lambda: Method(
            functools.partial(baselines.track_dis, **dis_fast),
            functools.partial(baselines.propagate_masks_dis, **dis_fast),
        ),
        "farneback": lambda: Method(baselines.track_farneback, baselines.propagate_masks_farneback),
        "lk": lambda: Method(baselines.track_lk),
        "static": lambda: Method(baselines.track_static, baselines.propagate_masks_static),
    }
    given = {"resnet18": resnet18_weights, "raft_small": raft_small_weights}
    only = list(only)
    for name in only:
        if name not in found:
            raise ValueError(f"methods: unknown method {name!r}; there are {', '.join(found)}.")
        if not given.get(name, "weights"):
            raise ValueError(
                f"methods: {name} should have {name}_weights, a file that torchvision offers, got none; nothing "
                "is downloaded, and a network of random weights is the method random."
            )
    chosen = only or [name for name in found if given.get(name, "weights")]
    return {name: make() for name, make in found.items() if name in chosen}


def _of_raft(weights: str) -> Method:
    """RAFT-small, chained."""
    raft = RaftSmall(weights)
    return Method(raft.track_points, raft.propagate_masks, fingerprint(raft.net))
