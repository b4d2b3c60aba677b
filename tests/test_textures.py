"""Textures: in range, reproducible, and the held-out ones never among those trained on."""

import pytest
import torch

from corrlib import textures


@pytest.mark.parametrize("family", ["fractal", "patches", "leaves"])
def test_families_fill_the_range(family):
    picture = getattr(textures, family)(65, torch.Generator().manual_seed(1))
    assert picture.shape == (3, 65, 65)
    assert 0 <= picture.min() < 0.35 and 0.65 < picture.max() <= 1
    assert picture.std() > 0.05


@pytest.mark.parametrize("both_axes", [False, True])
def test_periodic_has_two_colours_and_repeats(both_axes):
    picture = textures.periodic(65, torch.Generator().manual_seed(2), both_axes)
    assert picture.shape == (3, 65, 65) and picture.std() > 0.05


def test_photographs_of_both_splits_exist_and_differ():
    names = [name for split in textures.PHOTOGRAPHS.values() for name in split]
    assert len(names) == len(set(names)) >= 15
    for name in names:
        picture = textures.photograph(name)
        assert picture.shape[0] == 3 and min(picture.shape[1:]) <= 384


def test_bank_is_the_same_for_the_same_seed_only():
    one = textures.bank("val", 3, 40, seed=5)
    textures.bank.cache_clear()
    assert torch.equal(one, textures.bank("val", 3, 40, seed=5))
    assert not torch.equal(one, textures.bank("val", 3, 40, seed=6))
    assert one.dtype == torch.uint8


def test_noise_slope_is_the_spectrum():
    """White noise has equal power at all frequencies, 1 / f noise much less in the high ones."""
    g = torch.Generator().manual_seed(0)
    high = {s: (textures.noise(64, s, 1, g).diff(dim=-1) ** 2).mean().item() for s in (0.0, 1.0, 2.0)}
    assert high[0.0] == pytest.approx(2, abs=0.3) and high[0.0] > 2 * high[1.0] > 4 * high[2.0]
