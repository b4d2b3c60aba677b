"""The coarse-to-fine search against the exact one, on features that know where they are."""

import dataclasses
import math

import pytest
import torch

from corrlib import coarse_to_fine, coords, matching
from corrlib.coarse_to_fine import CoarseToFine

FINE = coords.Lattice(2)
LATTICES = (coords.Lattice(8), FINE)
SIZE = (90, 138)  # pixels: 12 x 18 coarse cells, 45 x 69 fine ones, not a multiple of a coarse cell
FAR = CoarseToFine(temperature=0.02)


def scene(shift_xy=(0.0, 0.0), size_hw=SIZE, lattices=LATTICES, dtype=torch.float32):
    """Features that are smooth functions of the place, and of it alone, moved by some pixels."""
    g = torch.Generator().manual_seed(0)
    maps = []
    for wave, lattice in zip((40.0, 12.0), lattices):  # pixels, over which features stay alike
        cells = coords.grid(coords.lattice_size(size_hw, lattice)).to(dtype)
        xy = coords.to_pixels(cells, lattice) - torch.tensor(shift_xy, dtype=dtype)
        direction = torch.randn(2, 48, generator=g).to(dtype) * (2 / wave)
        maps.append(matching.unit((xy @ direction + 6.3 * torch.rand(48, generator=g)).sin().movedim(-1, 0)[None]))
    return tuple(maps)


def at(features, xy, lattices=LATTICES):
    """Coarse and fine vectors at pixel positions (N, 2)."""
    return tuple(matching.features_at(f, coords.to_cells(xy, p)[None]) for f, p in zip(features, lattices))


def points(count=40, margin=24):
    g = torch.Generator().manual_seed(1)
    return margin + torch.rand(count, 2, generator=g) * (torch.tensor([SIZE[1], SIZE[0]]) - 1 - 2 * margin)


@pytest.mark.parametrize("how", [FAR, dataclasses.replace(FAR, candidates=1, coarse_weight=0.0)])
@pytest.mark.parametrize("shift", [(0.0, 0.0), (8.0, -6.0), (-11.0, 7.0)])
def test_points_move_with_the_scene(how, shift):
    xy = points()
    cells, correlation = coarse_to_fine.match_points(at(scene(), xy), scene(shift), LATTICES, how)
    error = coords.to_pixels(cells[0], LATTICES[1]) - (xy + torch.tensor(shift))
    assert error.abs().max() < 0.5 and error.mean(0).abs().max() < 0.05
    assert (correlation > 0.9).all()


@pytest.mark.parametrize("lattices", [(coords.Lattice(8, 3.5), coords.Lattice(2, 0.5)), (coords.Lattice(4), FINE)])
def test_points_on_other_lattices(lattices):
    xy = points()
    query, key = at(scene(lattices=lattices), xy, lattices), scene((5.0, 3.0), lattices=lattices)
    cells, _ = coarse_to_fine.match_points(query, key, lattices, FAR)
    assert (coords.to_pixels(cells[0], lattices[1]) - xy - torch.tensor([5.0, 3.0])).abs().max() < 1


@pytest.mark.parametrize("shift", [(0.0, 0.0), (8.0, -6.0), (-10.0, 16.0)])
def test_a_field_moves_with_the_scene(shift):
    cells, correlation = coarse_to_fine.match_field(scene(), scene(shift), LATTICES, FAR)
    assert cells.shape == (1, 45, 69, 2) and correlation.shape == (1, 45, 69)
    moved = 2 * (cells[0] - coords.grid((45, 69)))
    inner = (moved - torch.tensor(shift))[12:-12, 12:-12]
    assert inner.abs().max() < 1 and inner.mean((0, 1)).abs().max() < 0.05


def test_a_static_field_stays_to_its_edges():
    cells, _ = coarse_to_fine.match_field(scene(), scene(), LATTICES, FAR)
    error = 2 * (cells[0] - coords.grid((45, 69)))
    assert error[3:-3, 3:-3].mean((0, 1)).abs().max() < 0.05 and error.abs().max() < 2  # windows end at the edge


def test_with_everything_looked_at_it_is_the_exact_search():
    """All coarse cells are candidates, the coarse logits do not count: the fine arg-max of the whole map."""
    g = torch.Generator().manual_seed(2)
    key = tuple(matching.unit(torch.randn(1, 8, h, w, generator=g)) for h, w in ((5, 7), (20, 27)))
    query = tuple(torch.nn.functional.normalize(torch.randn(1, 30, 8, generator=g), dim=-1) for _ in range(2))
    how = CoarseToFine(candidates=35, radius=3, coarse_weight=0.0, readout=0)
    cells, correlation = coarse_to_fine.match_points(query, key, LATTICES, how)
    every = matching.correlate(query[1], key[1])
    assert torch.equal(cells, matching.peak(every)) and torch.allclose(correlation, every.flatten(2).amax(-1))
    field = tuple(matching.unit(torch.randn(1, 8, *k.shape[2:], generator=g)) for k in key)
    cells, _ = coarse_to_fine.match_field(field, key, LATTICES, how)
    every = matching.correlate(field[1].flatten(2).mT, key[1])
    found = every[0].flatten(1).gather(1, (cells[0, ..., 0] + 27 * cells[0, ..., 1]).long().flatten()[:, None])[:, 0]
    # Windows of single cells are displaced with their block, so that some cells at the edge are not looked at.
    assert (found == every[0].flatten(1).amax(1)).float().mean() > 0.8


def test_the_exact_search_of_the_fine_map():
    xy = points()
    cells, correlation = coarse_to_fine.match_exactly(at(scene(), xy)[1], scene((8.0, -6.0))[1], FAR)
    error = coords.to_pixels(cells[0], FINE) - (xy + torch.tensor([8.0, -6.0]))
    assert error.abs().max() < 0.5 and (correlation > 0.9).all()


def test_joint_logits_by_hand():
    """Of two fine peaks alike the one under the better coarse cell is taken, unless coarse logits do not count."""
    coarse, fine = torch.zeros(1, 2, 3, 6), torch.zeros(1, 2, 12, 24)
    coarse[0, :, 1, 1], coarse[0, :, 1, 4] = torch.tensor([0.8, 0.6]), torch.tensor([1.0, 0.0])
    fine[0, 0, 4, 4], fine[0, 0, 4, 16] = 1.0, 0.95
    query = torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[1.0, 0.0]]])
    for weight, x in ((0.0, 4.0), (1.0, 16.0)):
        how = CoarseToFine(candidates=2, radius=2, readout=0, coarse_weight=weight)
        assert coarse_to_fine.match_points(query, (coarse, fine), LATTICES, how)[0][0, 0].tolist() == [x, 4.0]


def test_candidates_are_apart():
    logits = torch.zeros(1, 5, 9)
    logits[0, 2, 2], logits[0, 2, 3], logits[0, 1, 7] = 3.0, 2.5, 1.0
    assert coarse_to_fine._candidates(logits, CoarseToFine(candidates=2))[0].tolist() == [[2, 2], [7, 1]]
    assert logits[0, 2, 2] == 3  # what was given is left alone
    few = coarse_to_fine._candidates(torch.arange(4.0).reshape(1, 2, 2), CoarseToFine(candidates=3))
    assert few[0].tolist() == [[1, 1], [0, 1], [1, 0]]


def test_bfloat16_finds_the_same_places():
    xy = points()
    key = scene((8.0, -6.0))
    exact, _ = coarse_to_fine.match_points(at(scene(), xy), key, LATTICES, FAR)
    rounded, _ = coarse_to_fine.match_points(at(scene(), xy), key, LATTICES, dataclasses.replace(FAR, bfloat16=True))
    assert torch.equal(exact, rounded)  # only the choice of windows is rounded


def test_batches_and_tiles(monkeypatch):
    shifts = [(0.0, 0.0), (8.0, -6.0)]
    key = tuple(torch.cat(maps) for maps in zip(*(scene(s) for s in shifts)))
    query = tuple(q.expand(2, -1, -1) for q in at(scene(), points()))
    cells, _ = coarse_to_fine.match_points(query, key, LATTICES, FAR)
    field, _ = coarse_to_fine.match_field(tuple(f.expand(2, -1, -1, -1) for f in scene()), key, LATTICES, FAR)
    monkeypatch.setattr(coarse_to_fine, "ROWS", 7)
    for b, shift in enumerate(shifts):
        alone, _ = coarse_to_fine.match_points(at(scene(), points()), scene(shift), LATTICES, FAR)
        assert torch.allclose(alone[0], cells[b], atol=1e-4)
        alone, _ = coarse_to_fine.match_field(scene(), scene(shift), LATTICES, FAR)
        assert torch.allclose(alone[0], field[b], atol=1e-4)


def test_the_position_carries_a_gradient():
    query = tuple(q.double().requires_grad_() for q in at(scene(), points(2)))
    key = tuple(k.double().requires_grad_() for k in scene((4.0, 2.0)))

    def found(fine_query, fine):
        return coarse_to_fine.match_points((query[0], fine_query), (key[0], fine), LATTICES)[0]

    assert torch.autograd.gradcheck(found, (query[1], key[1]), fast_mode=True)


def test_no_queries():
    assert coarse_to_fine.match_points(at(scene(), points(0)), scene(), LATTICES)[0].shape == (1, 0, 2)


def bad(features, which, value=math.nan):
    """Features with a number that is none in one of the two maps."""
    maps = [f.clone() for f in features]
    maps[which][0, 0] = value
    return tuple(maps)


def test_bad_input(unchecked):
    key, query = scene(), at(scene(), points())
    for q, k, how, says in [
        ((query[0][..., :3], query[1]), key, None, r"match_points \(coarse\): key should have channels 3 like query"),
        (query, (key[0], key[1][:, :3]), None, r"match_points \(fine\): key should have channels 48 like query, got 3"),
        (query, (key[0][:, :, :0], key[1]), None, "key should have at least one cell"),
        (query, (key[0].to("meta"), key[1]), None, "key should have device cpu like query, got meta"),
        (bad(query, 0), key, None, "coarse search: query should be finite, got nan"),
        (bad(query, 1), key, None, "window_correlation: query should be finite, got nan"),
        (query, bad(key, 0), None, "coarse search: key should be finite, got nan"),
        (query, bad(key, 1, math.inf), None, "window_correlation: key should be finite, got inf"),
        (query, key, CoarseToFine(candidates=217), "candidates should be 1 to 216, one a coarse cell, got 217"),
        (query, key, CoarseToFine(radius=70), "radius should be 0 to 69, the longer side of the map, got 70"),
        (query, key, CoarseToFine(readout=70), "radius should be 0 to 69, the longer side of the map, got 70"),
    ]:
        with pytest.raises(ValueError, match=says):
            coarse_to_fine.match_points(q, k, LATTICES, how)
    for q, says in [
        (bad(key, 1), "match_field: query should be finite, got nan"),
        ((key[0][..., :5], key[1]), "cover the 45 x 69 fine cells by whole blocks, got 12 x 5 at strides 8 and 2"),
    ]:
        with pytest.raises(ValueError, match=says):
            coarse_to_fine.match_field(q, key, LATTICES)
    with pytest.raises(ValueError, match="whole blocks, got 12 x 18 at strides 8 and 3"):
        coarse_to_fine.match_field(key, key, (LATTICES[0], coords.Lattice(3)))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"candidates": 0}, "candidates should be at least 1, got 0"),
        ({"radius": -1}, "radius should be at least 0, got -1"),
        ({"readout": -1}, "readout should be at least 0, got -1"),
        ({"temperature": 0.0}, "temperature should be above 0"),
    ],
)
def test_bad_settings(settings, says):
    with pytest.raises(ValueError, match=f"CoarseToFine: {says}"):
        CoarseToFine(**settings)
