"""How a point is found in the next frame.

A query keeps the features it started with, as it is and as it would look turned and scaled (`looks`),
and those it had when last seen well, or little changed. The coarse map is searched as a whole, under a
heavy-tailed prior around the predicted position, so that a point lost is found again; its best candidates are
then looked at in the fine map, and the position is read out there below the size of a cell. What lies around the
point (`landmarks`) then corrects it, or tells where it is where nothing looks like it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from . import coords, landmarks, looks, matching
from .encoder import SUPPORT, Features
from .looks import Look

EVIDENCE = 6  # numbers that tell whether a point is seen


@dataclass(frozen=True)
class TrackerConfig:
    """How the tracker searches."""

    lines: int = 256  # frames whose shorter side has more pixels are reduced to so many there; 0 never
    magnify: float | None = None  # times as large as that leaves them, they are searched; None takes the model's own
    temperature: float = 0.05
    recent: float = 1.0  # weight of the most recent template beside the query's own
    past: float = 1.0  # weight of the mean of those before it, the share of each halved in `half_life` frames
    half_life: float = 8.0
    candidates: int = 2  # coarse peaks looked at in the fine map; 0 looks at all of it
    coarse_in_fine: float = 1.0  # weight of the coarse logits in that choice
    prior: float = 2.0  # exponent of the heavy-tailed prior on displacement from the prediction
    spread: float = 1.5  # its width in coarse cells when the point is seen
    growth: float = 1.25  # of the width, each frame the point is not seen
    anywhere: float = 7.0  # nat, all that the prior counts against any place: what looks so much more alike is believed
    momentum: float = 0.5  # share of the last displacement expected to go on
    radius: int = 3  # of the fine windows
    readout: int = 2  # radius of the soft-argmax, in fine cells
    readout_temperature: float = 0.06  # between that of the search and that of training: least bias and error
    update: float = 0.85  # confidence from which templates are renewed; sooner, they drift to what hides the point
    steady: float = 0.6  # or from which they are where the point did not leap and its look changed little:
    like_own: float = 0.4  # cosine with the query's features above which it did
    like_recent: float = 0.6  # and with those of the last template
    unbias: float = 0.5  # share taken off of the read-out's error at the query itself
    visible: float = 0.5  # confidence from which a point counts as visible
    looks: tuple[tuple[float, float], ...] = looks.TURNED_AND_SCALED  # also at the query's frame: (degrees, scale)
    look_memory: float = 0.6  # share of what told one look from another that counts a frame later
    support: int | None = None  # landmarks around each point that tell where it is; None takes the model's own
    known: float = 0.55  # cosine (more after a leap) from which what was found is the point; landmarks are sought there
    correct: float = 2.0  # pixels from it beyond which they are not believed: they may lie on something else
    calibration: tuple[float, ...] = ()  # of the confidence; empty takes the model's own
    bfloat16: bool = True  # the encoder's products, where the processor has such instructions

    def __post_init__(self) -> None:
        """Refuse what cannot search."""
        least = dict.fromkeys(("lines", "candidates", "radius", "support", "correct"), 0) | {"readout": 1}
        for name, value in least.items():
            if not (getattr(self, name) or 0) >= value:
                raise ValueError(f"TrackerConfig: {name} should be at least {value}, got {getattr(self, name)}.")
        for name in ("magnify", "temperature", "readout_temperature", "spread", "growth", "half_life"):
            if (name, getattr(self, name)) != ("magnify", None) and not getattr(self, name) > 0:
                raise ValueError(f"TrackerConfig: {name} should be above 0, got {getattr(self, name)}.")
        if not all(len(look) == 2 and look[1] > 0 for look in self.looks):
            raise ValueError(f"TrackerConfig: looks should be pairs (degrees, scale above 0), got {self.looks}.")
        if len(self.calibration) not in (0, EVIDENCE + 1):
            expected = f"{EVIDENCE} weights and a constant"
            raise ValueError(f"TrackerConfig: calibration should be {expected}, got {len(self.calibration)} numbers.")

    def of(self, model: nn.Module) -> "TrackerConfig":
        """With what is left to a model."""
        support = getattr(model, "support", SUPPORT) if self.support is None else self.support
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
    landmarks: Float[Tensor, "n L S D"]  # fine features of what lies around
    landmarks_shown: Bool[Tensor, "n L S"]


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
    trust: Float[Tensor, "n S"]  # in landmarks
    motion: Float[Tensor, "n 2 2"]  # what has become of the surroundings since the query
    evidence: Float[Tensor, "n 6"]  # of the last frame


def parted(fields: Sequence[Tensor]) -> tuple[Query, State]:
    """The fields of a query and of its state, from one list."""
    return Query(*fields[: len(Query._fields)]), State(*fields[len(Query._fields) :])


def start(seen: Sequence[Look], lattices: tuple, xy: Float[Tensor, "n 2"], config: TrackerConfig) -> tuple[Tensor, ...]:
    """The fields of the query and of the first state of points at pixel positions of a frame.

    Args:
        seen: the frame as it is, and the other looks at it (`looks.looks`).
    """
    coarse_lattice, fine_lattice = lattices
    features, size_hw, _ = seen[0]
    coarse, fine, bias, shown, around_it = [], [], [], [], []
    beside = landmarks.spiral(config.support, config.magnify, xy.device)
    for look in seen:
        at, inside = looks.place(xy, size_hw, look)
        home = coords.to_cells(at, fine_lattice)
        coarse.append(matching.features_at(look.features.coarse, coords.to_cells(at, coarse_lattice)[None])[0])
        fine.append(matching.features_at(look.features.fine, home[None])[0])
        # What surrounds a point draws its read-out to one side, there where the answer is known already.
        bias.append(read_out(fine[-1], look.features, home.round(), config)[0] - home)
        shown.append(inside)
        around_it.append(landmarks.start(xy, size_hw, look, fine_lattice, beside))
    home = coords.to_cells(xy, fine_lattice)
    around, _ = matching.window_features(features.fine, home[None], config.radius)
    inside = (around[0] != 0).any(-1)  # beyond the frame there are no features
    query = Query(*(torch.stack(each, dim=1) for each in (coarse, fine)), home, around[0], inside,
                  *(torch.stack(each, dim=1) for each in (bias, shown, *zip(*around_it))))  # fmt: skip
    alike = torch.full_like(query.bias[..., 0], -1.0).masked_fill(~query.shown, float("-inf"))
    alike[:, 0] = 0.0
    still, spread = torch.zeros_like(xy), torch.full_like(xy[:, 0], config.spread)
    own = query.coarse[:, 0], query.fine[:, 0]
    trust, unmoved = torch.ones_like(query.landmarks[:, 0, :, 0]), torch.eye(2, device=xy.device).repeat(len(xy), 1, 1)
    return *query, *State(xy, still, spread, alike, *own, *own, trust, unmoved, xy.new_zeros(len(xy), EVIDENCE))


def read_out(
    query: Float[Tensor, "n D"], features: Features, winner: Float[Tensor, "n 2"], config: TrackerConfig
) -> tuple[Float[Tensor, "n 2"], Float[Tensor, "n 2 2"]]:
    """The expected fine cell near a winner, and the covariance around it."""
    values, cells = matching.square_correlation(query, features.fine, winner, config.readout)
    chance = (values / config.readout_temperature).softmax(dim=-1)[..., None]
    found = (chance * cells).sum(dim=-2)
    off = cells - found[:, None]
    return found, (chance * off).mT @ off


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
        fine, fine_cells = matching.square_correlation(
            sought.repeat_interleave(m, dim=0), features.fine, centre.flatten(0, 1), config.radius
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
    found, doubt = read_out(query.fine[look], features, winner, config)
    position = coords.to_pixels(found - config.unbias * query.bias[look], fine_lattice)
    position, trust, motion, told = by_landmarks(features, fine_lattice, query, look, state, position, doubt, config)
    found = coords.to_cells(position, fine_lattice)
    now_fine = matching.features_at(features.fine, found[None])[0]
    now_coarse = matching.features_at(features.coarse, coords.to_cells(position, coarse_lattice)[None])[0]
    chance = support[every, best] - logits.flatten(1).logsumexp(dim=1)
    facts = evidence(query, look, state, now_fine, now_coarse, chance, config)
    weights = facts.new_tensor(config.calibration)
    confidence = torch.sigmoid((facts * weights[:-1]).sum(-1) + weights[-1])
    leapt = (position - state.position - state.velocity).norm(dim=-1) > landmarks.FAR * config.magnify
    own, _, recent, *_ = facts.unbind(dim=-1)
    steady = (own > config.like_own) & (recent > config.like_recent) & ~leapt
    keep = ((confidence > config.update) | (steady & (confidence > config.steady)))[:, None]
    seen = confidence > config.visible
    fade = 0.5 ** (1 / config.half_life)
    moved = State(
        position,
        torch.where((seen | told)[:, None], position - state.position, config.momentum * state.velocity),
        torch.where(seen, config.spread, (state.spread * config.growth).clamp(max=64.0)),
        torch.where(seen[:, None], alike, state.alike),
        torch.where(keep, now_coarse, state.recent_coarse),
        torch.where(keep, now_fine, state.recent_fine),
        torch.where(keep, torch.lerp(now_coarse, state.past_coarse, fade), state.past_coarse),
        torch.where(keep, torch.lerp(now_fine, state.past_fine, fade), state.past_fine),
        trust,
        motion,
        facts,
    )
    return *moved, confidence


def by_landmarks(
    features: Features,
    lattice: coords.Lattice,
    query: Query,
    look: tuple[Tensor, Tensor],
    state: State,
    found: Float[Tensor, "n 2"],
    doubt: Float[Tensor, "n 2 2"],
    config: TrackerConfig,
) -> tuple[Float[Tensor, "n 2"], Float[Tensor, "n S"], Float[Tensor, "n 2 2"], Bool[Tensor, "n"]]:
    """What `landmarks.follow` tells of where a point was found, if that is like it, or else would have gone."""
    if not config.support:
        return found, state.trust, state.motion, torch.zeros_like(look[1], dtype=torch.bool)
    alike = (matching.features_at(features.fine, coords.to_cells(found, lattice)[None])[0] * query.fine[look]).sum(-1)
    far = (found - state.position - state.velocity).norm(dim=-1) > landmarks.FAR * config.magnify
    looks_right = alike > config.known + (1 - config.known) / 4 * far  # what leaps has to be more alike
    centre = torch.where(looks_right[:, None], found, state.position + state.velocity)
    beside = landmarks.spiral(config.support, config.magnify, found.device)
    around = query.landmarks[look], query.landmarks_shown[look], beside
    doubt = lattice.stride**2 * doubt + landmarks.HIDDEN * (~looks_right)[:, None, None] * torch.eye(2).to(doubt)
    most = torch.where(looks_right, config.correct, landmarks.MOST)
    place, trust, motion, told = landmarks.follow(
        features.fine, lattice, *around, centre, doubt, most, state.trust, state.motion, config.magnify
    )
    return torch.where(told[:, None], place, found), trust, motion, told


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
    way back to the query, in fine cells, as log(1 + error); and the log-probability of the winner among all coarse
    cells. A hidden point leaps to its like elsewhere: that differs in the coarse features, which know what is around.
    """
    back = (query.around @ now_fine[:, :, None])[..., 0] / config.temperature
    back = back.masked_fill(~query.inside, float("-inf"))
    cells = matching.window_cells(query.home[None], config.radius)[0]
    error = (matching.soft_argmax(back, cells) - query.home).norm(dim=-1)
    to_query = (now_fine * query.fine[look]).sum(-1), (now_coarse * query.coarse[look]).sum(-1)
    to_recent = (now_fine * state.recent_fine).sum(-1), (now_coarse * state.recent_coarse).sum(-1)
    return torch.stack([*to_query, *to_recent, error.log1p(), chance], dim=-1)
