"""Tracking: still scenes stay still, moved ones are followed, and no query knows of another."""

import pytest
import torch

from corrlib import baselines, checkpoints, coords, dense, matching, propagation, synthetic, textures, tracking
from corrlib.encoder import PixelEncoder
from corrlib.tracking import OnlineTracker, TrackerConfig, track_points


@pytest.fixture(scope="module")
def model():
    return checkpoints.load_pretrained()


@pytest.fixture(scope="module")
def picture():
    """One textured picture, larger than the frames cut from it."""
    return textures.leaves(160, torch.Generator().manual_seed(3))


def queries(size_hw, count, margin=12, t=0):
    H, W = size_hw
    xy = torch.rand(count, 2, generator=torch.Generator().manual_seed(0))
    xy = margin + xy * torch.tensor([W - 1.0 - 2 * margin, H - 1.0 - 2 * margin])
    return torch.cat([torch.full((count, 1), float(t)), xy], dim=1)


@pytest.mark.parametrize(
    ("size_hw", "magnify"), [((96, 128), 1.0), ((91, 117), 1.0), ((96, 128), 1.25), ((91, 117), 1.5), ((91, 117), 0.8)]
)
def test_a_static_scene_stays_put(model, picture, size_hw, magnify):
    video = picture[:, : size_hw[0], : size_hw[1]].expand(4, 3, *size_hw)
    points = queries(size_hw, 150)
    found = track_points(model, video, points, TrackerConfig(magnify=magnify))
    error = found.tracks[-1] - points[:, 1:]
    assert error.mean(dim=0).abs().max() < 0.05
    assert error.norm(dim=-1).mean() < 0.3
    assert found.visible.float().mean() > 0.9


def test_a_translation_is_followed(model):
    """By (3.25, -1.75) px a frame: bias below 0.08 px on each axis, mean error below 0.32 px, over twelve pictures."""
    grid, errors = coords.grid((96, 112)), []
    steps = torch.tensor([[0.0, 0.0], [3.25, -1.75], [6.5, -3.5]])
    points = queries((96, 112), 128, margin=20)
    leaves = [textures.leaves(160, torch.Generator().manual_seed(seed)) for seed in range(3, 9)]
    g = torch.Generator().manual_seed(0)
    photographs = [textures.crop(textures.photograph(name), 160, g) for name in textures.PHOTOGRAPHS["val"] * 2]
    for picture in [*leaves, *photographs]:
        frames = [coords.sample(picture[None], (grid + 30 - step)[None])[0][0] for step in steps]
        found = track_points(model, torch.stack(frames), points)
        errors.append(found.tracks - points[:, 1:] - steps[:, None])
    errors = torch.cat(errors, dim=1)[1:]
    assert errors.mean(dim=1).abs().max() < 0.08
    assert errors.norm(dim=-1).mean() < 0.32


@pytest.mark.parametrize("stride", [2, 4, 8])
def test_the_readout_alone_is_unbiased(stride):
    """A Gaussian similarity of 6 px around a sub-pixel point, read out by soft-argmax."""
    from corrlib import matching

    g = torch.Generator().manual_seed(0)
    lattice = coords.Lattice(stride)
    truth = 60 + 40 * torch.rand(300, 2, generator=g)
    cells = coords.grid(coords.lattice_size((161, 161), lattice))
    distance = (coords.to_pixels(cells, lattice) - truth[:, None, None]).norm(dim=-1)
    logits = -(distance**2) / (2 * 6.0**2)
    window = matching.window_cells(matching.peak(logits)[None], 16 // stride + 2)[0]
    values, _ = coords.sample(logits[:, None], window)
    found = coords.to_pixels(matching.soft_argmax(values[:, 0], window), lattice)
    error = found - truth
    assert error.mean(dim=0).abs().max() < 0.05 and error.norm(dim=-1).mean() < 0.4


@pytest.fixture(scope="module")
def moving():
    bank = textures.bank("val", 6, synthetic.TEXTURE_SIZE, seed=0)
    made = synthetic.scene(21, (61, 75), bank, speed=(4, 4))
    return synthetic.track_clip(made, [float(t) for t in range(5)], 500)


@pytest.mark.parametrize(
    ("count", "support"), [*((n, 0) for n in (1, 2, 63, 64, 65, 500)), (7, 16), (65, 16), (150, 16), (256, 16)]
)
def test_a_track_does_not_depend_on_the_other_queries(model, moving, count, support):
    """Bit for bit, whatever else is asked and in whatever order."""
    points, config = moving.query_points, TrackerConfig(support=support)
    alone = track_points(model, moving.video, points[:1], config)
    some = track_points(model, moving.video, points[:count].flip(0), config)
    for one, many in zip(alone, some):
        assert torch.equal(one[:, 0], many[:, -1])


def test_products_are_in_bfloat16_where_that_is_wanted(model, moving, monkeypatch):
    """Of all that is encoded: the frame asked in, looks at it, those after it, and those that masks are carried to."""
    asked = []
    monkeypatch.setattr(matching, "multiplies_bfloat16", lambda frames: asked.append(frames) or True)
    points, mask = moving.query_points[:64], torch.zeros(61, 75, dtype=torch.long)
    mask[10:50, 10:60] = 1
    exact, rounded = (track_points(model, moving.video, points, TrackerConfig(bfloat16=b)) for b in (False, True))
    assert len(asked) == 1 + len(TrackerConfig().looks) + 4
    away = (rounded.tracks - exact.tracks).norm(dim=-1)
    assert 0 < away.median() < 0.1
    kept, carried = (
        propagation.propagate_masks(model, moving.video, mask, propagation.PropagationConfig(bfloat16=b))
        for b in (False, True)
    )
    assert len(asked) == 1 + len(TrackerConfig().looks) + 4 + 5 and (kept != carried).float().mean() < 0.02


@pytest.mark.parametrize("support", [0, 16])
def test_online_is_offline(model, moving, support):
    points, config = moving.query_points[:70].clone(), TrackerConfig(support=support)
    points[40:, 0] = 2
    offline = track_points(model, moving.video, points, config)
    tracker = OnlineTracker(model, config)
    for t, frame in enumerate(moving.video):
        new = points[points[:, 0] == t, 1:]
        answer = tracker.step(frame, new if len(new) else None)
        count = len(answer.xy)
        assert torch.equal(answer.xy, offline.tracks[t, :count])
        assert torch.equal(answer.visible, offline.visible[t, :count])
        asked = points[:count, 0] == t
        assert torch.equal(answer.xy[asked], points[:count][asked, 1:]) and (answer.confidence[asked] == 1).all()


@pytest.mark.parametrize("support", [0, 16])
def test_points_can_be_dropped(model, moving, support):
    points, config = moving.query_points[:10, 1:], TrackerConfig(support=support)
    tracker, other = OnlineTracker(model, config), OnlineTracker(model, config)
    tracker.step(moving.video[0], points)
    tracker.drop([0, 3])
    other.step(moving.video[0], points[[1, 2, 4, 5, 6, 7, 8, 9]])
    assert torch.equal(tracker.step(moving.video[1]).xy, other.step(moving.video[1]).xy)


def test_frames_are_searched_larger_or_smaller_as_asked():
    """Reduced frames are taken straight from their own pixels: never reduced and enlarged again."""
    assert TrackerConfig().size((480, 854)) == (256, 455) and TrackerConfig(magnify=1.25).size((480, 854)) == (320, 569)
    assert TrackerConfig(magnify=1.25).size((96, 121)) == (120, 151) and TrackerConfig().size((96, 121)) == (96, 121)
    assert TrackerConfig(lines=0, magnify=0.5).size((480, 854)) == (240, 427)


def test_with_landmarks_points_are_found_more_precisely(model):
    """On a translation in pictures that are hard to tell apart, the mean error falls by a tenth."""
    grid, errors = coords.grid((96, 112)), []
    points, step = queries((96, 112), 128, margin=20), torch.tensor([3.25, -1.75])
    for support in (0, 16):
        each = []
        for seed in (3, 4, 5):
            picture = textures.leaves(160, torch.Generator().manual_seed(seed))
            frames = [coords.sample(picture[None], (grid + 30 - s)[None])[0][0] for s in (0 * step, step)]
            found = track_points(model, torch.stack(frames), points, TrackerConfig(support=support))
            each.append((found.tracks[1] - points[:, 1:] - step).norm(dim=-1).mean())
        errors.append(sum(each) / 3)
    assert errors[1] < 0.9 * errors[0]


def test_backwards_in_time_is_the_reversed_video_forwards(model, moving):
    last = track_points(model, moving.video.flip(0), moving.query_points[:20] * torch.tensor([0.0, 1.0, 1.0]))
    asked = moving.query_points[:20].clone()
    asked[:, 0] = len(moving.video) - 1
    assert torch.equal(track_points(model, moving.video, asked).tracks, last.tracks.flip(0))


def test_batches_arrays_and_paths(model, moving, tmp_path):
    from corrlib import frames

    points = moving.query_points[:5]
    one = track_points(model, moving.video, points)
    two = track_points(model, torch.stack([moving.video, moving.video]), torch.stack([points, points.flip(0)]))
    assert torch.equal(two.tracks[0], one.tracks) and torch.equal(two.tracks[1].flip(1), one.tracks)
    assert torch.equal(track_points(model, moving.video.numpy(), points).tracks, one.tracks)
    path = frames.write_video(tmp_path / "clip.webm", moving.video)
    assert track_points(model, path, points).tracks.shape == one.tracks.shape


def test_evidence_of_a_still_scene(model, picture):
    """In the order that calibrations count on: four cosines, error of the way back, the winner's log-probability."""
    tracker = OnlineTracker(model)
    tracker.step(picture, queries(tuple(picture.shape[1:]), 40)[:, 1:])
    tracker.step(picture)
    cosines, error, chance = tracker.state.evidence.split([4, 1, 1], dim=1)
    assert (cosines > 0.9).all() and (error >= 0).all() and error.mean() < 0.3 and (chance <= 0).all()


def behind_a_board(model, picture):
    """Which points a grey board hides in frames 2 to 4, where all are, and how the answer is wrong at the end."""
    frame = picture[:, :96, :128]
    hidden = frame.clone()
    hidden[:, :, :64] = 0.5
    video = torch.stack([frame, frame, hidden, hidden, hidden, frame, frame])
    points = queries((96, 128), 60, margin=16)
    found = track_points(model, video, points)
    return points[:, 1] < 48, points[:, 1] > 80, found, (found.tracks[-1] - points[:, 1:]).norm(dim=-1)


def test_a_hidden_point_is_not_visible_and_found_again(model, picture):
    left, right, found, error = behind_a_board(model, picture)
    assert found.visible[3][left].float().mean() < 0.25 and found.visible[3][right].float().mean() > 0.8
    assert (error[left] < 4).float().mean() > 0.9 and found.visible[-1][left].float().mean() > 0.8


def test_most_points_behind_a_board_are_not_visible(model):
    """In ten pictures full of look-alikes, to which hidden points leap; the test above has an easy one."""
    seen = []
    for seed in range(3, 13):
        left, _, found, _ = behind_a_board(model, textures.leaves(160, torch.Generator().manual_seed(seed)))
        seen.append(found.visible[3][left])
    assert torch.cat(seen).float().mean() < 0.35


@pytest.mark.parametrize("seed", [4, 5, 6])
def test_what_hides_a_point_is_not_learnt(model, seed):
    """Templates that are renewed too readily learn the board: a third of the first picture's points would stay away."""
    left, _, found, error = behind_a_board(model, textures.leaves(160, torch.Generator().manual_seed(seed)))
    assert (error[left] < 4).float().mean() > 0.9 and found.visible[-1][left].float().mean() > 0.8


def test_trained_features_beat_random_ones(model):
    from corrlib.encoder import PixelEncoder

    torch.manual_seed(0)
    bank = textures.bank("val", 6, synthetic.TEXTURE_SIZE, seed=0)
    made = synthetic.scene(35, (96, 128), bank, (5, 5), synthetic.LAYERS)
    clip = synthetic.track_clip(made, [0.0, 1.0, 2.0, 3.0, 4.0], 100)

    def right(encoder):
        found = track_points(encoder, clip.video, clip.query_points)
        return ((found.tracks - clip.tracks).norm(dim=-1) < 4)[clip.visible].float().mean().item()

    assert right(model) > 0.8 > 0.7 > right(PixelEncoder().eval())
    assert right(model) > right(baselines.RawPatchEncoder().eval())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v, q: (v, q[:0]), "with N at least 1"),
        (lambda v, q: (v, q[:, :2]), r"should be \(N, 3\) as \(t, x, y\)"),
        (lambda v, q: (v, q + torch.tensor([0.0, 99.0, 0.0])), "outside the frame of 75 x 61 pixels"),
        (lambda v, q: (v, q * float("nan")), "NaN or infinity"),
        (lambda v, q: (v, q + torch.tensor([0.5, 0.0, 0.0])), "whole numbers"),
        (lambda v, q: (v, q + torch.tensor([9.0, 0.0, 0.0])), "the video ends with frame 4"),
        (lambda v, q: (v[:1], q), "at least 2 frames, got 1"),
        (lambda v, q: (v[:, :1], q), "frames should be"),
        (lambda v, q: (v[None], q), r"should be \(1, N, 3\) for 1 videos"),
    ],
)
def test_messages(model, moving, unchecked, change, message):
    video, points = change(moving.video, moving.query_points[:3])
    with pytest.raises(ValueError, match=message):
        track_points(model, video, points)


def test_a_bad_frame_leaves_the_tracker_as_it_was(model, moving, unchecked):
    points = moving.query_points[:3, 1:]
    tracker, other = OnlineTracker(model), OnlineTracker(model)
    tracker.step(moving.video[0], points), other.step(moving.video[0], points)
    for frame, new, message in (
        (moving.video[1][:, :40], None, r"should be \(61, 75\) \(H, W\) as before, got \(40, 75\)"),
        (moving.video[1][0], None, r"should be \(3, H, W\)"),
        (moving.video[1], torch.tensor([[99.0, 1.0]]), "outside the frame"),
    ):
        with pytest.raises(ValueError, match=message):
            tracker.step(frame, new)
    with pytest.raises(ValueError, match=r"points should be in 0\.\.2, got \[3\]"):
        tracker.drop([3])
    assert torch.equal(tracker.step(moving.video[1]).xy, other.step(moving.video[1]).xy)


def test_progress_is_told(model, moving):
    told = []
    track_points(model, moving.video, moving.query_points[:2], progress=lambda done, total: told.append((done, total)))
    assert told == [(t, 5) for t in range(1, 6)]


def test_in_tiles_pads_and_cuts():
    rows, sizes = torch.arange(390.0), []

    def work(values, twice):
        sizes.append(len(values))
        return values + twice, values

    added, same = tracking.in_tiles(work, rows, 2 * rows)
    assert sizes == [256, 192]
    assert torch.equal(added, 3 * rows) and torch.equal(same, rows)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temperature": 0.0}, "temperature should be above 0, got 0.0"),
        ({"half_life": 0.0}, "half_life should be above 0"),
        ({"candidates": -1}, "candidates should be at least 0, got -1"),
        ({"readout": 0}, "readout should be at least 1, got 0"),
        ({"lines": -5}, "lines should be at least 0"),
        ({"magnify": 0.0}, "magnify should be above 0, got 0.0"),
        ({"calibration": (1.0, 0.0)}, "calibration should be 6 weights and a constant, got 2 numbers"),
    ],
)
def test_what_cannot_search_is_refused(changes, message):
    with pytest.raises(ValueError, match=f"TrackerConfig: {message}"):
        TrackerConfig(**changes)


@pytest.mark.parametrize(
    ("step", "changes", "renewed"),
    [
        (2, {}, True),
        (2, {"steady": 0.8}, False),
        (2, {"like_own": 1.1}, False),
        (2, {"like_recent": 1.1}, False),
        (12, {}, False),
        (5, {"magnify": 1.25}, True),
        (7, {"magnify": 1.25}, False),
        (12, {"update": 0.7}, True),
    ],
)
def test_templates_are_renewed_where_the_look_changed_little_unless_a_point_leapt(
    model, picture, step, changes, renewed
):
    """While the tracker is neither sure nor unsure: by a calibration that believes 73 % of everything."""
    config = TrackerConfig(calibration=(0.0,) * 6 + (1.0,), support=0, **changes)
    tracker = OnlineTracker(model, config)
    tracker.step(picture[:, 20:84, 20:100], torch.tensor([[40.0, 30.0]]))
    before = tracker.state
    answer = tracker.step(picture[:, 20:84, 20 + step : 100 + step])
    assert (answer.xy - torch.tensor([40.0 - step, 30.0])).norm() < 1.5 and answer.visible
    for name in ("recent_fine", "recent_coarse", "past_fine", "past_coarse"):
        assert torch.equal(getattr(tracker.state, name), getattr(before, name)) != renewed


@pytest.mark.parametrize("size_hw", [(8, 8), (8, 16), (9, 11)])
def test_frames_with_fewer_cells_than_candidates_are_tracked(model, picture, size_hw):
    video = picture[:, 20 : 20 + size_hw[0], 20 : 20 + size_hw[1]].expand(3, 3, *size_hw)
    found = track_points(model, video, [[0, 4, 3]]).tracks
    assert torch.allclose(found, found[:1], atol=0.5)


def test_a_query_after_the_end_is_refused_before_the_first_frame():
    class Unasked(PixelEncoder):
        def forward(self, rgb):
            raise AssertionError("asked")

    for t in (3, 1e30, torch.inf, torch.nan):
        with pytest.raises(ValueError, match="track_points"):
            track_points(Unasked(4, 8).eval(), torch.zeros(3, 3, 16, 16), [[t, 4, 3]])


def test_a_stream_takes_arrays_and_no_new_points_and_its_answers_can_weigh_a_loss(model, picture):
    tracker, frame = OnlineTracker(model), picture[:, :32, :40].numpy()
    assert tracker.step(frame, torch.zeros(0, 2)).xy.shape == (0, 2)
    tracker.step(frame, [[10, 12.5]])
    answer = tracker.step(frame, torch.zeros(0, 2))
    weight = torch.ones(1, requires_grad=True)
    (weight * answer.confidence).sum().backward()
    assert weight.grad == answer.confidence and torch.allclose(answer.xy, torch.tensor([[10, 12.5]]), atol=0.5)


def test_a_model_in_training_mode_is_refused_and_left_as_it_was():
    learning, video = PixelEncoder(4, 8), torch.zeros(2, 3, 16, 16)
    before = {name: value.clone() for name, value in learning.state_dict().items()}
    calls = (
        lambda: track_points(learning, video, [[0, 4, 3]]),
        lambda: dense.match_frames(learning, *video),
        lambda: propagation.propagate_masks(learning, video, torch.ones(16, 16, dtype=torch.long)),
    )
    for call in calls:
        with pytest.raises(ValueError, match=r"evaluation mode; call model.eval\(\)"):
            call()
    assert all(torch.equal(value, before[name]) for name, value in learning.state_dict().items())
