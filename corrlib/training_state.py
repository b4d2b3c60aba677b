"""The resumable state of a training: on the disk whole or not at all, and taken up only by its own training."""

import json
import pickle
from dataclasses import asdict
from pathlib import Path

import torch

from . import checkpoints, recipes
from .losses import LossWeights
from .recipes import TrainConfig

History = list[dict[str, float]]


def save(path: Path, parts: dict, config: TrainConfig, weights: LossWeights, history: History) -> None:
    """All that is needed to go on; a kill or a full disk leaves the last state as it was.

    Raises:
        OSError: it cannot be written.
    """
    states = {name: part.state_dict() for name, part in parts.items() if part is not None}
    states["scheduler"] = {k: v for k, v in states["scheduler"].items() if k != "lr_lambdas"}
    what = json.dumps([asdict(config), asdict(weights)])
    with checkpoints.whole_file(path) as partial:
        torch.save({"config": what, "history": json.dumps(history), **states}, partial)


def load(path: Path, parts: dict, config: TrainConfig, weights: LossWeights) -> History:
    """Takes up a saved state; returns its history.

    Raises:
        ValueError: the file is no state, or of another configuration. Settings that it does not
            know, since it is from an earlier version, count as their defaults.
    """
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
        settings, counts = json.loads(state["config"])
    except (RuntimeError, EOFError, KeyError, TypeError, ValueError, pickle.UnpicklingError):
        raise ValueError(
            f"train: {path} should be the state of a training, and is not; remove it or name another."
        ) from None
    found = recipes.completed(settings), recipes.completed(counts, LossWeights)
    if found != (asdict(config), asdict(weights)):
        raise ValueError(f"train: {path} holds a training of another configuration; name another state_path.")
    for name, part in parts.items():
        if part is not None:
            own = part.state_dict() if name == "scheduler" else {}
            part.load_state_dict({**own, **state[name]})
    return json.loads(state["history"])
