"""Landmarks: a local motion is found, what goes its own way is not believed, and a hidden point is carried."""

import math

import pytest
import torch

from corrlib import coords, landmarks, matching, textures
from corrlib.checkpoints import load_pretrained
from corrlib.tracking import OnlineTracker, TrackerConfig, track_points

LATTICE = coords.Lattice(2)
SIZE = (128, 160)


def field(xy):
    """Features of a surface, unit length, that tell places a few pixels apart from all others."""
    g = torch.Generator().manual_seed(0)
    waves, phases = torch.randn(2, 64, generator=g) / 4, 2 * math.pi * torch.rand(64, generator=g)
    return torch.nn.functional.normalize((xy @ waves + phases).cos(), dim=-1)


def shown(motion, shift, middle):
    """The fine features of a frame in which the surface has moved about a place."""
    grid = coords.to_pixels(coords.grid(coords.lattice_size(SIZE, LATTICE)), LATTICE)
    before = (grid - middle - shift) @ torch.linalg.inv(motion).mT + middle
    return field(before).permute(2, 0, 1)[None]


def followed(fine, xy, centre, beside, motion=None, known=None, most=landmarks.MOST, doubt=None):
    known = field(xy[:, None] + beside) if known is None else known
    trust, still = torch.ones(known.shape[:2]), torch.eye(2).expand(len(xy), 2, 2)
    around = known, torch.ones(known.shape[:2], dtype=torch.bool), beside
    most = torch.full((len(xy),), most)
    doubt = landmarks.HIDDEN * torch.eye(2) if doubt is None else doubt
    motion = still if motion is None else motion
    return landmarks.follow(fine, LATTICE, *around, centre, doubt.expand(len(xy), 2, 2), most, trust, motion, 1.0)


@pytest.mark.parametrize("scale", [1.0, 1.25])
def test_landmarks_spread_from_near_to_far(scale):
    beside = landmarks.spiral(24, scale, torch.device("cpu"))
    lengths = beside.norm(dim=1) / scale
    assert torch.allclose(lengths[[0, -1]], torch.tensor([landmarks.NEAREST, landmarks.FARTHEST]))
    assert (lengths.diff() > 0).all() and torch.cdist(beside, beside).fill_diagonal_(99).min() > 2
    assert landmarks.spiral(0, 1.0, beside.device).shape == (0, 2) and len(landmarks.spiral(1, 1.0, beside.device)) == 1


def test_the_motion_around_a_point_is_found():
    """Turned by 6 degrees, grown by a twentieth and moved: what is found foretells where landmarks are."""
    xy, beside = torch.tensor([[80.0, 64.0]]), landmarks.spiral(16, 1.0, torch.device("cpu"))
    cos, sin = 1.05 * math.cos(math.radians(6)), 1.05 * math.sin(math.radians(6))
    motion, shift = torch.tensor([[cos, -sin], [sin, cos]]), torch.tensor([2.5, -1.5])
    fine = shown(motion, shift, xy[0])
    place, trust, found, told = followed(fine, xy, xy, beside)
    assert told.all() and (place - xy - shift).norm() < 0.3 and (trust > 0.8).all()
    place, _, found, told = followed(fine, xy, place, beside, found)
    assert told.all() and (place - xy - shift).norm() < 0.2 and (found[0] - motion).abs().max() < 0.02


def test_what_goes_its_own_way_is_not_believed():
    """A third of the landmarks has moved elsewhere: the others tell the place, and those are trusted less and less."""
    xy, beside = torch.tensor([[80.0, 64.0]]), landmarks.spiral(18, 1.0, torch.device("cpu"))
    other = torch.arange(18) % 3 == 0
    known = field(xy[:, None] + beside - torch.tensor([4.0, 3.0]) * other[:, None])
    place, trust, _, told = followed(shown(torch.eye(2), torch.zeros(2), xy[0]), xy, xy + 1.0, beside, known=known)
    assert told.all() and (place - xy).norm() < 0.3
    assert trust[0, other].mean() < trust[0, ~other].mean() - 0.05


def test_a_place_is_corrected_by_so_much_at_most():
    xy, beside = torch.tensor([[80.0, 64.0]]), landmarks.spiral(16, 1.0, torch.device("cpu"))
    still = shown(torch.eye(2), torch.zeros(2), xy[0])
    for off, corrected in ((1.0, True), (3.0, False)):
        centre = xy + torch.tensor([off, 0.0])
        place, _, _, told = followed(still, xy, centre, beside, most=1.5)
        assert told.item() == corrected and torch.allclose(place, xy if corrected else centre, atol=0.3)
        assert followed(still, xy, centre, beside)[3].all()


def test_landmarks_tell_what_a_point_does_not_know_itself():
    """Found on an edge from corner to corner: along it the point's own place is open, across it is not."""
    xy, beside = torch.tensor([[80.0, 64.0]]), landmarks.spiral(16, 1.0, torch.device("cpu"))
    along = torch.tensor([1.0, 1.0]) / math.sqrt(2)
    doubt = 1e3 * along[:, None] * along + 1e-3 * torch.eye(2)
    centre = xy + torch.tensor([1.0, 0.0])
    still = shown(torch.eye(2), torch.zeros(2), xy[0])
    place, trust, _, told = followed(still, xy, centre, beside, doubt=doubt)
    left = (place - xy)[0]
    assert told.all() and abs(left @ along) < 0.2
    assert (left - (left @ along) * along).norm() == pytest.approx(math.sqrt(0.5), abs=0.05)
    sure, distrust, _, _ = followed(still, xy, centre, beside, doubt=torch.zeros(2, 2))
    assert torch.equal(sure, centre) and distrust.mean() < trust.mean() - 0.01  # they went another way than it


def test_landmarks_that_are_nowhere_tell_nothing():
    xy, beside = torch.tensor([[80.0, 64.0]]), landmarks.spiral(16, 1.0, torch.device("cpu"))
    known, centre = field(xy[:, None] + beside + 1000.0), xy + 3.0
    place, trust, motion, told = followed(shown(torch.eye(2), torch.zeros(2), xy[0]), xy, centre, beside, known=known)
    assert not told.any() and torch.equal(place, centre)
    assert torch.equal(motion[0], torch.eye(2)) and (trust == 1).all()


def test_windows_are_moved_into_the_map():
    """Inside they hold what `window_correlation` does; at the edge the cells nearest to it, and of a small map all."""
    g = torch.Generator().manual_seed(1)
    key, query = torch.randn(1, 8, 20, 30, generator=g), torch.randn(4, 8, generator=g)
    centre = torch.tensor([[3.0, 3.0], [26.0, 16.0], [12.4, 9.6], [0.0, 19.0]])
    values, cells = matching.square_correlation(query, key, centre, 3)
    expected, at = matching.window_correlation(query[None], key, centre[None], 3)
    assert torch.allclose(values[:3], expected[0, :3], atol=1e-5) and torch.equal(cells[:3], at[0, :3])
    assert torch.equal(cells[3, [0, -1]], torch.tensor([[0.0, 13.0], [6.0, 19.0]]))
    x, y = cells[3].long().unbind(-1)
    assert torch.allclose(values[3], query[3] @ key[0, :, y, x], atol=1e-5)
    whole, cells = matching.square_correlation(query, key[..., :4, :5], centre, 3)
    assert torch.allclose(whole, query @ key[0, :, :4, :5].flatten(1), atol=1e-5) and cells.shape == (4, 20, 2)


@pytest.fixture(scope="module")
def model():
    return load_pretrained()


def test_a_hidden_point_is_carried_by_what_is_seen_around_it(model):
    """A disc of 12 pixels hides each point from the second frame on: most places are known all the same."""
    grid, step, right, visible = coords.grid((112, 112)), torch.tensor([3.0, -2.0]), [], []
    points = torch.tensor([[0.0, x, y] for x in (36.0, 66.0) for y in (46.0, 76.0)])
    for seed in (4, 5, 6):
        picture, frames = textures.leaves(200, torch.Generator().manual_seed(seed)), []
        for t in range(5):
            frame = coords.sample(picture[None], (grid + 40 - t * step)[None])[0][0].clone()
            for xy in (points[:, 1:] + t * step) if t else ():
                frame[:, (grid - xy).norm(dim=-1) < 12] = 0.5
            frames.append(frame)
        found = [track_points(model, torch.stack(frames), points, TrackerConfig(support=n)) for n in (0, 24)]
        right.append([(f.tracks[-1] - points[:, 1:] - 4 * step).norm(dim=-1) < 2 for f in found])
        visible.append(found[1].visible[-1])
    alone, carried = map(torch.cat, zip(*right))
    assert alone.sum() <= 2 and carried.sum() >= 9
    assert torch.cat(visible)[carried].float().mean() < 0.25


def test_what_may_not_be_corrected_stays_where_it_was_found(model):
    picture = textures.leaves(160, torch.Generator().manual_seed(6))
    frames = torch.stack([picture[:, t : t + 96, 2 * t : 2 * t + 112] for t in range(3)])
    points = torch.tensor([[0.0, 20.0 + 9 * i, 30.0 + 5 * i] for i in range(8)])
    alone, uncorrected, corrected = (
        track_points(model, frames, points, config).tracks
        for config in (TrackerConfig(support=0), TrackerConfig(known=-1.0, correct=0.0), TrackerConfig(known=-1.0))
    )
    assert torch.equal(uncorrected, alone) and not torch.equal(corrected, alone)


def test_frames_smaller_than_the_spiral_are_tracked(model):
    picture = textures.leaves(40, torch.Generator().manual_seed(5))
    tracker = OnlineTracker(model)
    for _ in range(3):
        answer = tracker.step(picture[:, :17, :23], None if tracker.state is not None else [[0.0, 0.0], [22.0, 16.0]])
    assert (answer.xy - torch.tensor([[0.0, 0.0], [22.0, 16.0]])).norm(dim=1).max() < 1
