"""Textures: in range, reproducible, and the held-out ones never among those trained on."""

import cv2
import numpy as np
import pytest
import torch

from corrlib import frames, textures


@pytest.mark.parametrize("family", ["fractal", "patches", "leaves", "fur", "cloth", "text"])
def test_families_have_contrast(family):
    pictures = [getattr(textures, family)(65, torch.Generator().manual_seed(seed)) for seed in range(4)]
    assert all(picture.shape == (3, 65, 65) and picture.min() >= 0 and picture.max() <= 1 for picture in pictures)
    assert min(picture.std() for picture in pictures) > 0.05
    assert not torch.equal(pictures[0], pictures[1])


def test_skin_is_faint_but_not_empty():
    spread = [textures.skin(97, torch.Generator().manual_seed(seed)).std(dim=(1, 2)).mean() for seed in range(6)]
    assert min(spread) > 0.01 and max(spread) < 0.12


def test_streaks_run_along_their_direction():
    """Drawn along x, neighbours in x are alike and neighbours in y are not."""
    field = textures.streaks(64, 0.0, 12.0, torch.Generator().manual_seed(0))
    assert (field.diff(dim=1) ** 2).mean() < 0.2 * (field.diff(dim=0) ** 2).mean()


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


def test_pictures_and_videos_of_ones_own(tmp_path):
    (tmp_path / "below").mkdir()
    red = np.full((40, 50, 3), (20, 20, 220), np.uint8)
    cv2.imwrite(str(tmp_path / "below" / "b.png"), red)
    video = torch.zeros(9, 3, 34, 52, dtype=torch.uint8)
    video[:, 1] = 200
    frames.write_video(tmp_path / "a.webm", video)
    (tmp_path / "notes.txt").write_text("no picture")
    own = textures.sources(tmp_path)
    assert [p.name for p in own] == ["a.webm", "b.png"]
    green = textures.stills(own[0])
    assert len(green) == textures.STILLS and green[0].shape == (3, 34, 52) and green[0][1].float().mean() > 150
    assert textures.stills(own[1])[0][0].float().mean() > 200
    plain, mixed = textures.bank("train", 12, 24, seed=0), textures.bank("train", 12, 24, seed=0, own=own)
    flat = [bank.float().std(dim=(2, 3)).amax(1) < 3 for bank in (plain, mixed)]  # of one colour
    assert flat[1].sum() >= flat[0].sum() + 3 and not flat[1].all()


def test_what_is_wrong_with_a_folder_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"textures: no folder .*gone"):
        textures.sources(tmp_path / "gone")
    with pytest.raises(FileNotFoundError, match=r"textures: nothing in .* ends in \.bmp"):
        textures.sources(tmp_path)
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"expected an image, got .*broken.jpg"):
        textures.bank("train", 8, 16, seed=0, own=textures.sources(tmp_path))


def test_bank_is_the_same_for_the_same_seed_only():
    one = textures.bank("val", 3, 40, seed=5)
    textures.bank.cache_clear()
    assert torch.equal(one, textures.bank("val", 3, 40, seed=5))
    assert not torch.equal(one, textures.bank("val", 3, 40, seed=6))
    assert one.dtype == torch.uint8


def test_vivid_textures_are_of_four_families_in_strong_colours(monkeypatch):
    def hue(vivid):
        pictures = textures.bank("train", 30, 32, seed=0, photographs=False, vivid=vivid).float()
        return (pictures.amax(1) - pictures.amin(1)).mean()

    assert hue(True) > 1.3 * hue(False)
    for name in ("fur", "skin", "text"):
        monkeypatch.delattr(textures, name)
    textures.bank("train", 40, 16, seed=1, photographs=False, vivid=True)
    with pytest.raises(NameError):
        textures.bank("train", 40, 16, seed=1, photographs=False)


def test_noise_slope_is_the_spectrum():
    """White noise has equal power at all frequencies, 1 / f noise much less in the high ones."""
    g = torch.Generator().manual_seed(0)
    high = {s: (textures.noise(64, s, 1, g).diff(dim=-1) ** 2).mean().item() for s in (0.0, 1.0, 2.0)}
    assert high[0.0] == pytest.approx(2, abs=0.3) and high[0.0] > 2 * high[1.0] > 4 * high[2.0]
