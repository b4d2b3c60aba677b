"""What is written is what the readers of the official layouts read back."""

import pickle
from dataclasses import replace

import pytest
import torch

from corrlib import layouts, synthetic, textures
from corrlib.datasets import davis, flyingchairs, tapvid

TIMES = [0.0, 1.0, 2.0]


@pytest.fixture(scope="module")
def scenes():
    bank = textures.bank("val", 4, 64, seed=0)
    return [synthetic.scene(seed, (37, 53), bank, (3, 3)) for seed in (1, 2)]


def test_tapvid_comes_back(tmp_path, scenes):
    clips = [synthetic.track_clip(made, TIMES, 20) for made in scenes]
    layouts.write_tapvid(tmp_path, clips)
    assert tapvid.names(tmp_path) == ["procedural-1", "procedural-2"]
    found = tapvid.read(tmp_path, "procedural-1")
    assert torch.equal(found.video, clips[0].video)
    ever = clips[0].visible.any(0)  # TAP-Vid asks of those only
    assert torch.allclose(found.tracks, clips[0].tracks[:, ever], atol=1e-4)
    assert torch.equal(found.visible, clips[0].visible[:, ever])
    with open(tmp_path / "TAP-Vid/tapvid_davis/tapvid_davis.pkl", "rb") as file:
        raster = pickle.load(file)["procedural-1"]["points"]
    assert raster[0, 0].tolist() == pytest.approx(((clips[0].tracks[0, 0] + 0.5) / torch.tensor([53, 37])).tolist())


def test_davis_comes_back(tmp_path, scenes):
    clips = [synthetic.mask_clip(made, TIMES) for made in scenes]
    layouts.write_davis(tmp_path, clips)
    assert davis.names(tmp_path, "val") == davis.names(tmp_path, "val", year=2016) == ["procedural-1", "procedural-2"]
    for clip in clips:
        found = davis.read(tmp_path, clip.name)
        assert torch.equal(found.masks, clip.masks) and clip.masks.max() > 1
        assert (found.video.float() - clip.video.float()).abs().mean() < 5  # JPEG
        assert torch.equal(davis.read(tmp_path, clip.name, year=2016).masks, (clip.masks > 0).long())


def test_flyingchairs_comes_back(tmp_path, scenes):
    pairs = [synthetic.flow_pair(made, 0.0, 2.0) for made in scenes]
    layouts.write_flyingchairs(tmp_path, pairs)
    assert flyingchairs.names(tmp_path) == ["00001", "00002"]
    for name, pair in zip(flyingchairs.names(tmp_path), pairs):
        found = flyingchairs.read(tmp_path, name)
        assert torch.equal(found.flow_0to1, pair.flow_0to1)
        assert torch.allclose(found.frame0, pair.frame0, atol=1e-6) and torch.allclose(
            found.frame1, pair.frame1, atol=1e-6
        )


def test_what_goes_wrong_leaves_nothing_behind(tmp_path, scenes):
    clip = synthetic.mask_clip(scenes[0], TIMES)

    def broken():
        yield clip
        yield replace(clip, name="many", masks=clip.masks + 300)

    with pytest.raises(ValueError, match="many should have at most 254 objects"):
        layouts.write_davis(tmp_path, broken())
    assert list(tmp_path.iterdir()) == []
    layouts.write_davis(tmp_path, [clip])
    with pytest.raises(ValueError, match=r"layouts: .*DAVIS exists; name another root"):
        layouts.write_davis(tmp_path, [clip])
    track = synthetic.track_clip(scenes[0], TIMES, 4)
    with pytest.raises(ValueError, match="names should differ, got procedural-1 twice"):
        layouts.write_tapvid(tmp_path, [track, track])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["DAVIS"]
