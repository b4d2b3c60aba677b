"""Procedural video: its truth is exact, and the same seed gives the same clip."""

import pytest
import torch
from einops import rearrange

from corrlib import coords, synthetic, textures

SIZE = (37, 53)


@pytest.fixture(scope="module")
def bank():
    return textures.bank("val", 6, synthetic.TEXTURE_SIZE, seed=0)


@pytest.mark.parametrize("seed", range(40))
def test_round_trip_is_below_a_thousandth_of_a_pixel(bank, seed):
    made = synthetic.scene(seed, SIZE, bank)
    g = torch.Generator().manual_seed(seed)
    xy = torch.rand(60, 2, generator=g) * torch.tensor([53.0, 37.0]) - 0.5
    for time in (0.0, 3.5, 24.0):
        layer = made.top_layer(xy, time)
        again = made.to_frame(made.to_layer(xy, layer, time), layer, time)
        assert (again - xy).abs().max() < 1e-3


def test_a_point_goes_there_and_back(bank):
    """What is followed from t to t' and, where seen, from t' to t comes back to where it was."""
    made = synthetic.scene(11, (96, 128), bank, speed=(6, 6))
    xy = torch.rand(200, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([127.0, 95.0])
    tracks, visible = made.follow(xy, 0.0, [9.0])
    back, visible_back = made.follow(tracks[0], 9.0, [0.0])
    seen = visible[0]
    assert 20 < seen.sum() < 200
    assert (back[0] - xy)[seen].abs().max() < 1e-3 and visible_back[0][seen].all()


def test_the_layer_seen_is_what_is_rendered(bank):
    made = synthetic.scene(3, SIZE, bank)
    _, top = made.render(2.0)
    xy = rearrange(coords.grid(SIZE), "H W c -> (H W) c")
    assert torch.equal(rearrange(made.top_layer(xy, 2.0), "(H W) -> H W", H=SIZE[0]), top)
    assert len(top.unique()) > 1


def test_visible_pixels_keep_their_colour(bank):
    """Photometric consistency under the true flow, with light, noise and blur taken out."""
    from dataclasses import replace

    made = synthetic.scene(5, (96, 128), bank, speed=(3, 3))
    made = replace(made, light=made.light * 0, noise=0.0, blur=0.0)
    pair = synthetic.flow_pair(made, 0.0, 4.0)
    there = rearrange(coords.grid((96, 128)), "H W c -> 1 H W c") + rearrange(pair.flow_0to1, "c H W -> 1 H W c")
    seen, _ = coords.sample(pair.frame1[None], there)
    error = (seen[0] - pair.frame0).abs().mean(dim=0)
    assert pair.visible.float().mean() > 0.5
    assert error[pair.visible].median() < 0.02
    moved = (pair.frame1 - pair.frame0).abs().mean(dim=0)
    assert error[pair.visible].mean() < 0.4 * moved[pair.visible].mean()


def test_hidden_means_covered_or_outside(bank):
    made = synthetic.scene(8, (96, 128), bank, speed=(10, 10))
    xy = synthetic.seen_points(made, 0.0, 300, torch.Generator().manual_seed(0))
    layer = made.top_layer(xy, 0.0)
    tracks, visible = made.follow(xy, 0.0, [12.0])
    inside = coords.inside(tracks[0], (96, 128))
    covered = made.top_layer(tracks[0], 12.0) > layer
    assert not visible[0][~inside].any() and not visible[0][covered].any()
    assert (covered & inside).any() and (~inside).any() and visible[0].any()


def test_clip_queries_are_in_their_frames(bank):
    clip = synthetic.track_clip(synthetic.scene(2, SIZE, bank), [0.0, 2.5, 20.0], 30, query_frames=3)
    assert clip.video.shape == (3, 3, *SIZE) and clip.video.dtype == torch.uint8
    assert clip.tracks.shape == (3, 30, 2)
    t = clip.query_points[:, 0].long()
    assert t.bincount().tolist() == [10, 10, 10]
    assert torch.allclose(clip.tracks[t, torch.arange(30)], clip.query_points[:, 1:], atol=1e-3)
    assert clip.visible[t, torch.arange(30)].all()


def test_the_same_seed_gives_the_same_bytes(bank):
    def make(seed):
        return synthetic.track_clip(synthetic.scene(seed, SIZE, bank), [0.0, 5.0], 16)

    one, same, other = make(4), make(4), make(5)
    assert torch.equal(one.video, same.video) and torch.equal(one.tracks, same.tracks)
    assert not torch.equal(one.video, other.video)


def test_speed_is_what_was_asked(bank):
    """Over many scenes the typical object speed follows the pace, scaled by the frame's lines."""

    def typical(pace):
        speeds = []
        for seed in range(25):
            made = synthetic.scene(seed, (128, 128), bank, speed=(pace, pace))
            xy = synthetic.seen_points(made, 0.0, 40, torch.Generator().manual_seed(seed))
            tracks, _ = made.follow(xy, 0.0, [0.0, 1.0])
            speeds.append((tracks[1] - tracks[0]).norm(dim=-1).mean())
        return torch.stack(speeds).mean().item() * 256 / 128

    slow, fast = typical(1.0), typical(8.0)
    assert 0.4 < slow < 2 and 5 < fast / slow < 11


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda bank: synthetic.scene(0, (15, 40), bank), r"size_hw should be at least \(16, 16\), got \(15, 40\)"),
        (lambda bank: synthetic.scene(0, SIZE, bank, speed=(2.0, 1.0)), "two positive numbers in order"),
        (lambda bank: synthetic.track_clip(synthetic.scene(0, SIZE, bank), [0.0], 4), "times should be at least 2"),
        (
            lambda bank: synthetic.track_clip(synthetic.scene(0, SIZE, bank), [0.0, 1.0], 4, query_frames=3),
            "query_frames should be 1 to 2, got 3",
        ),
    ],
)
def test_messages(bank, call, message):
    with pytest.raises(ValueError, match=message):
        call(bank)
