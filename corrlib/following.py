"""How a point is found in the next frame.

A query keeps the features it started with and those it had when last seen well. The coarse map is
searched as a whole, under a heavy-tailed prior around the predicted position, so that a point lost
is found again; its best candidates are then looked at in the fine map, and the position is read
out there below the size of a cell.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from . import coords, matching
from .encoder import Features


@dataclass(frozen=True)
class TrackerConfig:
    """How the tracker searches."""

    lines: int = 256  # frames whose shorter side has more pixels are reduced to so many there; 0 never
    temperature: float = 0.05
    recent: float = 1.0  # weight of the most recent template beside the query's own
    past: float = 1.0  # weight of the mean of those before it, the share of each halved in `half_life` frames
    half_life: float = 8.0
    candidates: int = 3  # coarse peaks looked at in the fine map
    coarse_in_fine: float = 1.0  # weight of the coarse logits in that choice
    prior: float = 2.0  # exponent of the heavy-tailed prior on displacement from the prediction
    spread: float = 1.5  # its width in coarse cells when the point is seen
    growth: float = 1.25  # of the width, each frame the point is not seen
    momentum: float = 0.5  # share of the last displacement expected to go on
    radius: int = 6  # of the fine windows
    readout: int = 2  # radius of the soft-argmax, in fine cells
    readout_temperature: float = 0.06  # between that of the search and that of training: least bias and error
    update: float = 0.5  # confidence from which the recent template is renewed
    unbias: float = 0.5  # share taken off of the read-out's error at the query itself
    visible: float = 0.5  # confidence from which a point counts as visible
    calibration: tuple[float, ...] = ()  # of the confidence; empty takes the model's own


class Tile(NamedTuple):
    """The state of some queries, everything with a leading dimension of their number n."""

    position: Float[Tensor, "n 2"]  # pixels
    velocity: Float[Tensor, "n 2"]
    spread: Float[Tensor, "n"]
    query_coarse: Float[Tensor, "n C"]
    query_fine: Float[Tensor, "n D"]
    recent_coarse: Float[Tensor, "n C"]
    recent_fine: Float[Tensor, "n D"]
    past_coarse: Float[Tensor, "n C"]
    past_fine: Float[Tensor, "n D"]
    home_fine: Float[Tensor, "n K D"]  # features around the query, for the way back
    home_cells: Float[Tensor, "n K 2"]
    home_inside: Bool[Tensor, "n K"]
    home: Float[Tensor, "n 2"]  # fine cells
    bias: Float[Tensor, "n 2"]  # of the read-out, in fine cells
    evidence: Float[Tensor, "n 6"]  # of the last frame


def start(features: Features, lattices: tuple, xy: Float[Tensor, "n 2"], config: TrackerConfig) -> Tile:
    """The state of new queries at pixel positions of the frame the features are of."""
    coarse_lattice, fine_lattice = lattices
    coarse = matching.features_at(features.coarse, coords.to_cells(xy, coarse_lattice)[None])[0]
    home = coords.to_cells(xy, fine_lattice)
    fine = matching.features_at(features.fine, home[None])[0]
    rows, cells = matching.window_features(features.fine, home[None], config.radius)
    still, spread = torch.zeros_like(xy), torch.full_like(xy[:, 0], config.spread)
    # What surrounds a point draws its read-out to one side, there where the answer is known already.
    bias = read_out(fine, features, home.round(), config) - home
    home_inside = (rows[0] != 0).any(-1)  # beyond the frame there are no features
    none = xy.new_zeros(len(xy), 6)
    return Tile(
        xy, still, spread, coarse, fine, coarse, fine, coarse, fine, rows[0], cells[0], home_inside, home, bias, none
    )


def read_out(
    query: Float[Tensor, "n D"], features: Features, winner: Float[Tensor, "n 2"], config: TrackerConfig
) -> Float[Tensor, "n 2"]:
    """The expected fine cell near a winner."""
    values, cells = matching.window_correlation(query[None], features.fine, winner[None], config.readout)
    return matching.soft_argmax(values[0] / config.readout_temperature, cells[0])


def advance(features: Features, lattices: tuple, tile: Tile, config: TrackerConfig) -> tuple[Tensor, ...]:
    """Finds the queries of a tile in the next frame; returns the fields of the new state, then the confidence."""
    coarse_lattice, fine_lattice = lattices
    mix = 1 / (1 + config.recent + config.past)
    fade = 0.5 ** (1 / config.half_life)
    # Coarse: the whole map.
    query = mix * (tile.query_coarse + config.recent * tile.recent_coarse + config.past * tile.past_coarse)
    cosine = matching.correlate(query[None], features.coarse)[0]
    predicted = tile.position + config.momentum * tile.velocity
    cells = coords.grid(tuple(cosine.shape[-2:]), cosine.device)
    away = (cells - coords.to_cells(predicted, coarse_lattice)[:, None, None]) / tile.spread[:, None, None, None]
    logits = cosine / config.temperature - config.prior * torch.log1p((away**2).sum(-1))
    peaks = matching.top_peaks(logits, config.candidates)
    # Fine: a window around each candidate, all of them one list of cells.
    centre = coords.to_cells(coords.to_pixels(peaks, coarse_lattice), fine_lattice)
    query = mix * (tile.query_fine + config.recent * tile.recent_fine + config.past * tile.past_fine)
    n, m = centre.shape[:2]
    places = centre.reshape(1, n * m, 2)
    fine, fine_cells = matching.window_correlation(
        query.repeat_interleave(m, dim=0)[None], features.fine, places, config.radius
    )
    fine, fine_cells = (fine / config.temperature).reshape(n, -1), fine_cells.reshape(n, -1, 2)
    at_coarse = coords.to_cells(coords.to_pixels(fine_cells, fine_lattice), coarse_lattice)
    support = coords.sample(logits[:, None], at_coarse)[0][:, 0]
    best = (fine + config.coarse_in_fine * support).argmax(dim=1)
    winner = fine_cells[torch.arange(n), best]
    # Sub-pixel: by the query's own features, since those gathered on the way drift with the errors.
    found = read_out(tile.query_fine, features, winner, config) - config.unbias * tile.bias
    position = coords.to_pixels(found, fine_lattice)
    now_fine = matching.features_at(features.fine, found[None])[0]
    now_coarse = matching.features_at(features.coarse, coords.to_cells(position, coarse_lattice)[None])[0]
    facts = evidence(tile, position, now_fine, now_coarse, logits, at_coarse[torch.arange(n), best], config)
    weights = facts.new_tensor(config.calibration)
    confidence = torch.sigmoid((facts * weights[:-1]).sum(-1) + weights[-1])
    seen, keep = confidence > config.visible, (confidence > config.update)[:, None]
    state = tile._replace(
        position=position,
        velocity=torch.where(seen[:, None], position - tile.position, config.momentum * tile.velocity),
        spread=torch.where(seen, config.spread, (tile.spread * config.growth).clamp(max=64.0)),
        recent_coarse=torch.where(keep, now_coarse, tile.recent_coarse),
        recent_fine=torch.where(keep, now_fine, tile.recent_fine),
        past_coarse=torch.where(keep, torch.lerp(now_coarse, tile.past_coarse, fade), tile.past_coarse),
        past_fine=torch.where(keep, torch.lerp(now_fine, tile.past_fine, fade), tile.past_fine),
        evidence=facts,
    )
    return *state, confidence


def evidence(
    tile: Tile,
    position: Float[Tensor, "n 2"],
    now_fine: Float[Tensor, "n D"],
    now_coarse: Float[Tensor, "n C"],
    logits: Float[Tensor, "n h w"],
    winner: Float[Tensor, "n 2"],
    config: TrackerConfig,
) -> Float[Tensor, "n 6"]:
    """What speaks for a point having been found and being seen.

    Cosines with the query's fine and coarse features and with the recent fine ones; the error of
    the way back to the query, in fine cells, as log(1 + error); the log-probability of the
    winner among all coarse cells; and the displacement from the last frame, as log(1 + cells).
    """
    back = (tile.home_fine @ now_fine[:, :, None])[..., 0] / config.temperature
    back = back.masked_fill(~tile.home_inside, float("-inf"))
    error = (matching.soft_argmax(back, tile.home_cells) - tile.home).norm(dim=-1)
    chance = coords.sample(logits[:, None], winner[:, None])[0][:, 0, 0] - logits.flatten(1).logsumexp(dim=1)
    return torch.stack(
        [
            (now_fine * tile.query_fine).sum(-1),
            (now_coarse * tile.query_coarse).sum(-1),
            (now_fine * tile.recent_fine).sum(-1),
            error.log1p(),
            chance,
            ((position - tile.position).norm(dim=-1) / 8).log1p(),
        ],
        dim=-1,
    )
