"""Looks at a query's frame, turned and scaled: where they show what, and what they are for."""

import pytest
import torch

from corrlib import checkpoints, coords, following, looks, synthetic, textures, tracking
from corrlib.encoder import Features


@pytest.fixture(scope="module")
def model():
    return checkpoints.load_pretrained()


def painted(xy, size_hw):
    """A smooth picture, (1, 3, ...), read at points of an (H, W) frame."""
    x, y = (xy / torch.tensor([size_hw[1], size_hw[0]])).unbind(-1)
    return torch.stack([0.5 + 0.4 * torch.sin(5 * x + 2 * y), 0.5 + 0.4 * torch.cos(3 * x - 4 * y), x * y])[None]


class Pixels(torch.nn.Module):
    """An encoder whose features are the pixels."""

    def forward(self, frame):
        return Features(frame, frame)


@pytest.mark.parametrize("size_hw", [(64, 64), (61, 75), (75, 61), (48, 96)])
@pytest.mark.parametrize("look", [*looks.TURNED_AND_SCALED, (90.0, 1.0), (-137.0, 0.5), (10.0, 2.0)])
def test_a_look_shows_a_point_where_it_says(size_hw, look):
    """To a hundredth of the picture's range, at any size; half a pixel off is more than twice as wrong."""
    frame = painted(coords.grid(size_hw), size_hw)
    own, other = looks.looks(Pixels(), frame, Features(frame, frame), (look,), bfloat16=False)
    xy = 4 + torch.rand(400, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor(
        [size_hw[1] - 9, size_hw[0] - 9]
    )
    at, shown = looks.place(xy, size_hw, other)
    edge = torch.tensor([other.size_hw[1] - 2.0, other.size_hw[0] - 2.0])
    clear = shown & (at > 1).all(-1) & (at < edge).all(-1)
    assert clear.sum() > 100 and coords.inside(at, other.size_hw).all()
    seen = coords.sample(other.features.fine, at[None])[0][0].T[clear]
    error = (seen - painted(xy, size_hw)[0].T[clear]).abs()
    assert error.max() < 0.01
    off = coords.sample(other.features.fine, at[None] + 0.5)[0][0].T[clear]
    assert (off - painted(xy, size_hw)[0].T[clear]).abs().mean() > 2 * error.mean()
    at, shown = looks.place(xy, size_hw, own)
    assert shown.all() and torch.allclose(at, xy, atol=1e-4)


def test_a_turn_goes_from_x_towards_y_about_the_middle():
    corner = coords.turn_points(torch.tensor([[6.0, 0.0], [3.0, 2.0]]), 90.0, (5, 7))
    assert torch.allclose(corner, torch.tensor([[5.0, 5.0], [3.0, 2.0]]), atol=1e-5)
    square = torch.rand(1, 3, 9, 9)
    turned = coords.turn_frames(square, 90.0)
    assert torch.allclose(turned, square.rot90(-1, (2, 3)), atol=1e-5)  # y goes down: clockwise for the eye
    assert torch.allclose(coords.turn_frames(turned, -90.0), square, atol=1e-5)
    assert coords.turn_frames(square, 0.0) is square


def moved_about(degrees, scale, size_hw=(128, 160)):
    """Two frames of a picture, the second turned and scaled about its middle; points, and where they are then."""
    pixels = coords.grid(size_hw)
    middle = torch.tensor([(size_hw[1] - 1) / 2, (size_hw[0] - 1) / 2])
    picture = textures.bank("val", 2, 320, seed=3)[0] / 255
    back = coords.turn_points((pixels - middle) / scale + middle, -degrees, size_hw)
    frames = torch.stack([coords.sample(picture[None], (p + 80)[None])[0][0] for p in (pixels, back)])
    points = torch.cat([torch.zeros(60, 1), middle + 44 * (torch.rand(60, 2) - 0.5)], dim=1)
    return frames, points, (coords.turn_points(points[:, 1:], degrees, size_hw) - middle) * scale + middle


@pytest.mark.parametrize(("degrees", "scale"), [(30.0, 1.0), (-30.0, 1.0), (0.0, 0.7), (0.0, 1.4), (20.0, 0.75)])
def test_what_has_turned_or_come_nearer_is_found_more_precisely(model, degrees, scale):
    """The mean error falls by half at least, and no fewer are found."""
    torch.manual_seed(0)
    frames, points, truth = moved_about(degrees, scale)
    errors = []
    for wanted in ((), looks.TURNED_AND_SCALED):
        found = tracking.track_points(model, frames, points, tracking.TrackerConfig(looks=wanted))
        errors.append((found.tracks[1] - truth).norm(dim=-1))
    assert errors[1].clamp(max=4).mean() < 0.5 * errors[0].clamp(max=4).mean()
    assert (errors[1] < 2).sum() >= (errors[0] < 2).sum()


def test_the_look_that_is_believed_is_the_one_that_shows_the_motion(model):
    torch.manual_seed(0)
    for degrees, scale in ((25.0, 1.0), (-25.0, 1.0), (0.0, 0.71)):
        frames, points, _ = moved_about(degrees, scale)
        tracker = tracking.OnlineTracker(model)
        tracker.step(frames[0], points[:, 1:])
        tracker.step(frames[1])
        believed = tracker.state.alike.argmax(dim=1)
        right = 1 + tracker.config.looks.index((degrees, scale))
        assert (believed == right).float().mean() > 0.6, (degrees, scale, believed.bincount())


def test_a_still_point_is_seen_as_it_is(model):
    bank = textures.bank("val", 6, synthetic.TEXTURE_SIZE, seed=0)
    clip = synthetic.track_clip(synthetic.scene(21, (61, 75), bank), [0.0, 1.0], 50)
    tracker = tracking.OnlineTracker(model)
    tracker.step(clip.video[0], clip.query_points[:, 1:])
    tracker.step(clip.video[0])
    assert (tracker.state.alike.argmax(dim=1) == 0).all()


def test_a_look_that_does_not_show_a_point_is_not_believed(model):
    """In a corner, from where a turn takes it out of the frame."""
    frames, _, _ = moved_about(0.0, 1.0)
    tracker = tracking.OnlineTracker(model)
    tracker.step(frames[0], [[2.0, 2.0]])
    shown = tracker.queries.shown[0]
    assert shown[0] and not shown.all()
    for _ in range(2):
        assert torch.isneginf(tracker.state.alike[0, ~shown]).all() and tracker.state.alike[0].isfinite().any()
        answer = tracker.step(frames[0])
    assert (answer.xy - torch.tensor([[2.0, 2.0]])).norm() < 1.0


def test_small_frames_are_looked_at_too(model):
    frames = painted(coords.grid((8, 11)), (8, 11)).expand(3, -1, -1, -1)
    found = tracking.track_points(model, frames, torch.tensor([[0.0, 5.0, 4.0]]))
    assert found.tracks.isfinite().all()


@pytest.mark.parametrize("wanted", [((10.0, 0.0),), ((0.0, -1.0),)])
def test_looks_that_cannot_be_are_refused(wanted):
    with pytest.raises(ValueError, match="looks should be pairs"):
        following.TrackerConfig(looks=wanted)
