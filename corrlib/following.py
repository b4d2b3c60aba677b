"""How a point is found in the next frame.

A query keeps the features it started with, as it is and as it would look turned and scaled (`looks`),
and those it had when last seen well. The coarse map is searched as a whole, under a heavy-tailed prior
around the predicted position, so that a point lost is found again; its best candidates are then looked
at in the fine map, and the position is read out there below the size of a cell.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from . import coords, looks, matching
from .encoder import Features
from .looks import Look

EVIDENCE = 6  # numbers that tell whether a point is seen
AGREE = 4.0  # pixels from the median within which points around agree


@dataclass(frozen=True)
class TrackerConfig:
    """How the tracker searches."""

    lines: int = 256  # frames whose shorter side has more pixels are reduced to so many there; 0 never
    magnify: float | None = None  # times as large as that leaves them, they are searched; None takes the model's own
    temperature: float = 0.05
    recent: float = 1.0  # weight of the most recent template beside the query's own
    past: float = 1.0  # weight of the mean of those before it, the share of each halved in `half_life` frames
    half_life: float = 8.0
    candidates: int = 3  # coarse peaks looked at in the fine map; 0 looks at all of it
    coarse_in_fine: float = 1.0  # weight of the coarse logits in that choice
    prior: float = 2.0  # exponent of the heavy-tailed prior on displacement from the prediction
    spread: float = 1.5  # its width in coarse cells when the point is seen
    growth: float = 1.25  # of the width, each frame the point is not seen
    anywhere: float = 7.0  # nat, all that the prior counts against any place: what looks so much more alike is believed
    momentum: float = 0.5  # share of the last displacement expected to go on
    radius: int = 3  # of the fine windows
    readout: int = 2  # radius of the soft-argmax, in fine cells
    readout_temperature: float = 0.06  # between that of the search and that of training: least bias and error
    update: float = 0.75  # confidence from which templates are renewed; sooner, they drift to what hides the point
    unbias: float = 0.5  # share taken off of the read-out's error at the query itself
    visible: float = 0.5  # confidence from which a point counts as visible
    looks: tuple[tuple[float, float], ...] = looks.TURNED_AND_SCALED  # also at the query's frame: (degrees, scale)
    look_memory: float = 0.6  # share of what told one look from another that counts a frame later
    support: int | None = None  # points around each, on a circle, asked where it is too; None takes the model's own
    support_radius: float = 4.0  # of that circle, pixels of the frame as it is searched
    calibration: tuple[float, ...] = ()  # of the confidence; empty takes the model's own

    def __post_init__(self) -> None:
        """Refuse what cannot search."""
        if self.magnify is not None and not self.magnify > 0:
            raise ValueError(f"TrackerConfig: magnify should be above 0, got {self.magnify}.")
        least = dict.fromkeys(("lines", "candidates", "radius", "support", "support_radius"), 0) | {"readout": 1}
        for name, value in least.items():
            if not (getattr(self, name) or 0) >= value:
                raise ValueError(f"TrackerConfig: {name} should be at least {value}, got {getattr(self, name)}.")
        for name in ("temperature", "readout_temperature", "spread", "growth", "half_life"):
            if not getattr(self, name) > 0:
                raise ValueError(f"TrackerConfig: {name} should be above 0, got {getattr(self, name)}.")
        if not all(len(look) == 2 and look[1] > 0 for look in self.looks):
            raise ValueError(f"TrackerConfig: looks should be pairs (degrees, scale above 0), got {self.looks}.")
        if len(self.calibration) not in (0, EVIDENCE + 1):
            expected = f"{EVIDENCE} weights and a constant"
            raise ValueError(f"TrackerConfig: calibration should be {expected}, got {len(self.calibration)} numbers.")

    def of(self, model: nn.Module) -> "TrackerConfig":
        """With what is left to a model."""
        support = getattr(model, "support", 0) if self.support is None else self.support
        magnify = getattr(model, "magnify", 1.0) if self.magnify is None else self.magnify
        return replace(self, calibration=self.calibration or model.calibration, support=support, magnify=magnify)

    def size(self, size_hw: tuple[int, int]) -> tuple[int, int]:
        """(H, W) at which frames of a size are searched."""
        return coords.reduced_size(size_hw, self.lines, self.magnify or 1.0)


class Query(NamedTuple):
    """What is kept of some queries from their own frame, everything with a leading dimension of their number n."""

    coarse: Float[Tensor, "n L C"]  # of each look, the frame as it is first
    fine: Float[Tensor, "n L D"]
    home: Float[Tensor, "n 2"]  # fine cells
    around: Float[Tensor, "n K D"]  # fine features of the window there, for the way back
    inside: Bool[Tensor, "n K"]
    bias: Float[Tensor, "n L 2"]  # of the read-out, in fine cells
    shown: Bool[Tensor, "n L"]  # whether a look shows the point


class State(NamedTuple):
    """What changes from frame to frame, of the same queries."""

    position: Float[Tensor, "n 2"]  # pixels
    velocity: Float[Tensor, "n 2"]
    spread: Float[Tensor, "n"]
    alike: Float[Tensor, "n L"]  # log-chance that the point now looks like this
    recent_coarse: Float[Tensor, "n C"]
    recent_fine: Float[Tensor, "n D"]
    past_coarse: Float[Tensor, "n C"]
    past_fine: Float[Tensor, "n D"]
    evidence: Float[Tensor, "n 6"]  # of the last frame


def parted(fields: Sequence[Tensor]) -> tuple[Query, State]:
    """The fields of a query and of its state, from one list."""
    kept = len(Query._fields)
    return Query(*fields[:kept]), State(*fields[kept:])


def start(seen: Sequence[Look], lattices: tuple, xy: Float[Tensor, "n 2"], config: TrackerConfig) -> tuple[Tensor, ...]:
    """The fields of the query and of the first state of points at pixel positions of a frame.

    Args:
        seen: the frame as it is, and the other looks at it (`looks.looks`).
    """
    coarse_lattice, fine_lattice = lattices
    features, size_hw, _ = seen[0]
    coarse, fine, bias, shown = [], [], [], []
    for look in seen:
        at, inside = looks.place(xy, size_hw, look)
        home = coords.to_cells(at, fine_lattice)
        coarse.append(matching.features_at(look.features.coarse, coords.to_cells(at, coarse_lattice)[None])[0])
        fine.append(matching.features_at(look.features.fine, home[None])[0])
        # What surrounds a point draws its read-out to one side, there where the answer is known already.
        bias.append(read_out(fine[-1], look.features, home.round(), config) - home)
        shown.append(inside)
    home = coords.to_cells(xy, fine_lattice)
    around, _ = matching.window_features(features.fine, home[None], config.radius)
    inside = (around[0] != 0).any(-1)  # beyond the frame there are no features
    query = Query(*(torch.stack(each, dim=1) for each in (coarse, fine)), home, around[0], inside,
                  *(torch.stack(each, dim=1) for each in (bias, shown)))  # fmt: skip
    alike = torch.full_like(query.bias[..., 0], -1.0).masked_fill(~query.shown, float("-inf"))
    alike[:, 0] = 0.0
    still, spread = torch.zeros_like(xy), torch.full_like(xy[:, 0], config.spread)
    own = query.coarse[:, 0], query.fine[:, 0]
    return *query, *State(xy, still, spread, alike, *own, *own, xy.new_zeros(len(xy), EVIDENCE))


def supported(xy: Float[Tensor, "n 2"], size_hw: tuple[int, int], config: TrackerConfig) -> Float[Tensor, "r 2"]:
    """Points of a frame, each followed by those around it that support it, as far as they are in the frame.

    Each of them is a query of its own; what they say together is `consensus`.
    """
    turns = torch.arange(config.support, device=xy.device) * (2 * math.pi / max(1, config.support))
    circle = config.support_radius * torch.stack([turns.cos(), turns.sin()], dim=-1)
    around = xy[:, None] + torch.cat([xy.new_zeros(1, 2), circle])
    last = xy.new_tensor([size_hw[1] - 1, size_hw[0] - 1])
    around[:, 1:] = torch.minimum(around[:, 1:].clamp(min=0), last)
    return around.flatten(0, 1)


def consensus(
    query: Query, position: Float[Tensor, "r 2"], confidence: Float[Tensor, "r"], lattice: coords.Lattice, support: int
) -> tuple[Float[Tensor, "n 2"], Float[Tensor, "n"]]:
    """Where points are and how sure that is, by themselves and all that support them.

    Each says where the point is, as far from itself as in the query's frame. Those within `AGREE` of the
    median of all are averaged; around a circle, what a turn or a change of scale moves cancels. Where
    less than a third agrees, the point alone is believed. Confidences are averaged as log-odds.
    """
    if not support:
        return position, confidence
    count = 1 + support
    home = coords.to_pixels(query.home, lattice).reshape(-1, count, 2)
    said = position.reshape(-1, count, 2) - (home - home[:, :1])
    agree = (said - said.median(dim=1, keepdim=True).values).norm(dim=-1) < AGREE
    mean = (said * agree[..., None]).sum(dim=1) / agree.sum(dim=1).clamp(min=1)[:, None]
    enough = 3 * agree.sum(dim=1) >= count
    sure = confidence.reshape(-1, count).logit(eps=1e-6).mean(dim=1).sigmoid()
    return torch.where(enough[:, None], mean, said[:, 0]), sure


def read_out(
    query: Float[Tensor, "n D"], features: Features, winner: Float[Tensor, "n 2"], config: TrackerConfig
) -> Float[Tensor, "n 2"]:
    """The expected fine cell near a winner."""
    values, cells = matching.window_correlation(query[None], features.fine, winner[None], config.readout)
    return matching.soft_argmax(values[0] / config.readout_temperature, cells[0])


def advance(
    features: Features, lattices: tuple, query: Query, state: State, config: TrackerConfig
) -> tuple[Tensor, ...]:
    """Finds queries in the next frame; returns the fields of the new state, then the confidence."""
    coarse_lattice, fine_lattice = lattices
    mix = 1 / (1 + config.recent + config.past)
    every = torch.arange(len(state.alike), device=state.alike.device)
    known = [each[every, state.alike.argmax(dim=1)] for each in (query.coarse, query.fine)]  # as it looked last
    # Coarse: the whole map.
    sought = mix * (known[0] + config.recent * state.recent_coarse + config.past * state.past_coarse)
    cosine = matching.correlate(sought[None], features.coarse)[0]
    predicted = coords.to_cells(state.position + config.momentum * state.velocity, coarse_lattice)
    columns, rows = (
        ((torch.arange(side, device=cosine.device) - at[:, None]) / state.spread[:, None]) ** 2
        for side, at in zip(cosine.shape[:0:-1], predicted.unbind(dim=1))
    )
    away = columns[:, None, :] + rows[:, :, None]
    logits = cosine / config.temperature - (config.prior * torch.log1p(away)).clamp(max=config.anywhere)
    # Fine: a window around each candidate, all of them one list of cells.
    sought = mix * (known[1] + config.recent * state.recent_fine + config.past * state.past_fine)
    n, m = len(sought), min(config.candidates, logits[0].numel())
    if m:
        peaks = matching.top_peaks(logits, m)
        centre = coords.to_cells(coords.to_pixels(peaks, coarse_lattice), fine_lattice)
        fine, fine_cells = matching.window_correlation(
            sought.repeat_interleave(m, dim=0)[None], features.fine, centre.reshape(1, n * m, 2), config.radius
        )
    else:
        fine = matching.correlate(sought[None], features.fine)
        fine_cells = coords.grid(tuple(fine.shape[-2:]), fine.device).expand(n, -1, -1, -1)
    fine, fine_cells = (fine / config.temperature).reshape(n, -1), fine_cells.reshape(n, -1, 2)
    at_coarse = coords.to_cells(coords.to_pixels(fine_cells, fine_lattice), coarse_lattice)
    support = coords.sample(logits[:, None], at_coarse)[0][:, 0]
    best = (fine + config.coarse_in_fine * support).argmax(dim=1)
    winner = fine_cells[every, best]
    alike = likeness(query, state, features, lattices, winner, config)
    look = every, alike.argmax(dim=1)
    # Sub-pixel: by the query's own features, since those gathered on the way drift with the errors.
    found = read_out(query.fine[look], features, winner, config) - config.unbias * query.bias[look]
    position = coords.to_pixels(found, fine_lattice)
    now_fine = matching.features_at(features.fine, found[None])[0]
    now_coarse = matching.features_at(features.coarse, coords.to_cells(position, coarse_lattice)[None])[0]
    chance = support[every, best] - logits.flatten(1).logsumexp(dim=1)
    facts = evidence(query, look, state, now_fine, now_coarse, chance, config)
    weights = facts.new_tensor(config.calibration)
    confidence = torch.sigmoid((facts * weights[:-1]).sum(-1) + weights[-1])
    seen, keep = confidence > config.visible, (confidence > config.update)[:, None]
    fade = 0.5 ** (1 / config.half_life)
    moved = State(
        position,
        torch.where(seen[:, None], position - state.position, config.momentum * state.velocity),
        torch.where(seen, config.spread, (state.spread * config.growth).clamp(max=64.0)),
        torch.where(seen[:, None], alike, state.alike),
        torch.where(keep, now_coarse, state.recent_coarse),
        torch.where(keep, now_fine, state.recent_fine),
        torch.where(keep, torch.lerp(now_coarse, state.past_coarse, fade), state.past_coarse),
        torch.where(keep, torch.lerp(now_fine, state.past_fine, fade), state.past_fine),
        facts,
    )
    return *moved, confidence


def likeness(
    query: Query,
    state: State,
    features: Features,
    lattices: tuple,
    winner: Float[Tensor, "n 2"],
    config: TrackerConfig,
) -> Float[Tensor, "n L"]:
    """The log-chance of each look: how like it a fine cell is, and what was so before."""
    coarse_lattice, fine_lattice = lattices
    fine = matching.features_at(features.fine, winner[None])[0]
    at_coarse = coords.to_cells(coords.to_pixels(winner, fine_lattice), coarse_lattice)
    coarse = matching.features_at(features.coarse, at_coarse[None])[0]
    alike = (fine[:, None] * query.fine).sum(-1) + (coarse[:, None] * query.coarse).sum(-1)
    alike = config.look_memory * state.alike + alike / config.temperature
    return alike.masked_fill(~query.shown, float("-inf")).log_softmax(dim=-1)


def evidence(
    query: Query,
    look: tuple[Tensor, Tensor],
    state: State,
    now_fine: Float[Tensor, "n D"],
    now_coarse: Float[Tensor, "n C"],
    chance: Float[Tensor, "n"],
    config: TrackerConfig,
) -> Float[Tensor, "n 6"]:
    """What speaks for a point having been found and being seen.

    Cosines with the query's fine and coarse features, as a look has them, and with the recent ones; the error of the
    way back to the query, in fine cells, as log(1 + error); and the log-probability of the winner
    among all coarse cells. A hidden point leaps to its like elsewhere: that differs from what the
    point looked like last in the coarse features, which know its surroundings.
    """
    back = (query.around @ now_fine[:, :, None])[..., 0] / config.temperature
    back = back.masked_fill(~query.inside, float("-inf"))
    cells = matching.window_cells(query.home[None], config.radius)[0]
    error = (matching.soft_argmax(back, cells) - query.home).norm(dim=-1)
    return torch.stack(
        [
            (now_fine * query.fine[look]).sum(-1),
            (now_coarse * query.coarse[look]).sum(-1),
            (now_fine * state.recent_fine).sum(-1),
            (now_coarse * state.recent_coarse).sum(-1),
            error.log1p(),
            chance,
        ],
        dim=-1,
    )
