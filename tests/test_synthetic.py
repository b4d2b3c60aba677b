"""Procedural video: its truth is exact, and the same seed gives the same clip."""

from dataclasses import replace

import pytest
import torch
from einops import rearrange
from hypothesis import given, settings
from hypothesis import strategies as st

from corrlib import coords, synthetic, textures
from corrlib.synthetic import boxes, figures, scenes, solids
from corrlib.synthetic.dice import Dice
from corrlib.synthetic.motion import Swing, rotation
from corrlib.synthetic.sheets import Paint
from corrlib.synthetic.solids import FAR

SIZE = (37, 53)
TIMES = [0.0, 3.5, 24.0]
QUICK = {"blur": 0.0, "noise": 0.0}


@pytest.fixture(scope="module")
def bank():
    return textures.bank("val", 6, synthetic.TEXTURE_SIZE, seed=0)


def positions(count, seed, size=SIZE):
    g = torch.Generator().manual_seed(seed)
    return torch.rand(count, 2, generator=g) * torch.tensor([size[1], size[0]]) - 0.5


def test_truth_of_two_hundred_scenes(bank):
    """What is seen at a position is found there again, to a thousandth of a pixel, and is visible there."""
    kinds = set()
    for seed in range(200):
        made = synthetic.scene(seed, SIZE, bank, content=synthetic.HELD_OUT if seed % 2 else None)
        shot = made.at(TIMES)
        xy = positions(120, seed).reshape(3, 40, 2)
        points = shot.seen(xy)
        found, depth = shot.locate(points)
        free = shot.visible(points, found, depth)
        own = torch.arange(3)
        assert (rearrange(found, "T (S P) c -> T S P c", S=3)[own, own] - xy).abs().max() < 1e-3, seed
        # At a silhouette a float may fall to either side.
        assert rearrange(free, "T (S P) -> T S P", S=3)[own, own].float().mean() > 0.97, seed
        kinds |= {type(made.actors[a]).__name__ for a in points.actor.unique().tolist()}
    assert kinds == {"Sheet", "Body"}


def test_visible_points_keep_their_colour_in_a_hundred_scenes(bank):
    """Photometric consistency under the true motion, in even light and through a perfect camera."""
    moved, still, hidden = [], [], []
    for seed in range(100):
        made = synthetic.scene(seed, (64, 80), bank, speed=(2, 8)).still()
        video = made.render([0.0, 3.0]).video
        tracks, visible = made.follow(positions(200, seed, (64, 80)), 0.0, [0.0, 3.0])
        places = ((0, tracks[0]), (1, tracks[1]), (1, tracks[0]))
        here, there, stayed = (coords.sample(video[t : t + 1], xy[None])[0][0] for t, xy in places)
        seen = visible.all(0)
        moved.append((there - here).abs().mean(0)[seen].median())
        still.append((stayed - here).abs().mean(0)[seen].median())
        inside = coords.inside(tracks[1], (64, 80)) & ~seen
        hidden.append((there - here).abs().mean(0)[inside])
    moved, still = torch.stack(moved).nan_to_num(), torch.stack(still).nan_to_num()
    assert moved.median() < 0.02 and moved.max() < 0.12
    assert moved.mean() < 0.3 * still.mean()
    assert torch.cat(hidden).mean() > 4 * moved.mean()  # and what is hidden shows something else


def test_a_point_goes_there_and_back(bank):
    """What is followed from t to t' and, where seen, from t' to t comes back to where it was."""
    for seed in range(8):
        made = synthetic.scene(seed, (96, 128), bank, speed=(3, 3))
        xy = positions(200, seed, (96, 128))
        tracks, visible = made.follow(xy, 0.0, [9.0])
        back, visible_back = made.follow(tracks[0], 9.0, [0.0])
        seen = visible[0]
        assert seen.sum() > 20
        # At a silhouette the other side of an edge may be met.
        good = (back[0] - xy).norm(dim=1)[seen] < 1e-3
        assert good.float().mean() > 0.98 and visible_back[0][seen][good].float().mean() > 0.98


def test_masks_are_what_is_seen(bank):
    for seed in range(20):
        made = synthetic.scene(seed, SIZE, bank)
        found = made.render([2.0])
        xy = rearrange(coords.grid(SIZE), "H W c -> 1 (H W) c")
        points = made.at([2.0]).seen(xy)
        expected, number = torch.zeros(len(points.actor), dtype=torch.long), 1
        for a, actor in enumerate(made.actors[1:], 1):
            member = getattr(actor, "member", torch.zeros(1, dtype=torch.long))
            own = points.actor == a
            expected[own] = number + member[points.part[own]]
            number += int(member.max()) + 1
        # On an edge single and double precision may differ.
        assert (found.masks.flatten() == expected).float().mean() > 0.995


def ball(half, eye=400.0, swing=0.0):
    """A body of one ellipsoid that turns about its upright axis, on a plane that stands still."""
    root = torch.zeros(7, 3)
    root[2, 1], root[4] = swing, 0.1
    limbs = [figures.Limb("centre", -1, (0, 0, 0), 0, 0, half)]
    made = figures.body(limbs, 1.0, 0.0, root[None], Paint(torch.rand(3, 32, 32)), eye, Dice(0))
    still = replace(made.breath, wave=made.breath.wave * 0)
    return replace(made, breath=still)


def test_a_ball_by_hand():
    """Depth, silhouette and normal of a sphere of radius 40 seen from 400 away."""
    body = ball((40.0, 40.0, 40.0))
    pose = body.at(torch.zeros(1), torch.ones(1))
    u = torch.tensor([[0.0, 20.0, 40.1, 41.0]])
    hits = pose.cast(body, u, torch.zeros(1, 4))
    assert hits.depth[0, 0].item() == pytest.approx(0.9, abs=1e-5)  # 400 - 40 of 400
    tangent = 40 / (1 - 0.01) ** 0.5  # perspective shows a little more than the radius
    assert 40.1 < tangent < 41
    assert hits.covered().tolist() == [[True, True, True, False]]
    assert torch.allclose(hits.point[:, 0], torch.tensor([0.0, 0.0, -1.0]), atol=1e-5)
    place = hits.point[:, 1] * 40
    assert place.norm().item() == pytest.approx(40, abs=1e-3)
    x, y, depth = pose.place(hits.part, hits.point.T)
    assert torch.allclose(x[0], u[0, :3], atol=1e-3) and y.abs().max() < 1e-4
    assert torch.allclose(depth[0], hits.depth[0, :3], atol=1e-6)


def test_a_box_and_a_tube_by_hand():
    for kind, corner in ((1, True), (2, False)):
        body = replace(ball((30.0, 30.0, 30.0)), kind=(kind,))
        pose = body.at(torch.zeros(1), torch.ones(1))
        near = 400 / (400 - 30)  # the front is nearer than the plane
        u, v = torch.tensor([[0.0, 29.0, 31.0]]) * near, torch.tensor([[0.0, 29.0, 0.0]]) * near
        hits = pose.cast(body, u, v)
        # Seen along the axis a tube is round, so that the corner is not its own.
        assert (hits.depth < FAR).tolist() == [[True, corner, False]]
        assert hits.depth[0, 0].item() == pytest.approx(370 / 400, abs=1e-5)


def test_what_turns_away_is_hidden():
    """A point in the middle of a ball that turns is seen until it is on the far side, and then again."""
    body = ball((40.0, 40.0, 40.0), swing=3.0)
    nothing = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    made = synthetic.scene(0, (96, 96), nothing, content=replace(synthetic.LAYERS, actors=(1, 1)))
    still = Swing(*(0 * v for v in vars(made.motion.pose).values()))
    still = replace(still, mean=torch.tensor([[47.5, 47.5, 0, 0, 0, 0, 0, 0]] * 2))
    bends = replace(made.motion.bends, direction=made.motion.bends.direction * 0)
    camera = replace(made.motion.camera, wave=made.motion.camera.wave * 0)
    motion = replace(made.motion, pose=still, bends=bends, camera=camera)
    made = replace(made, actors=(made.actors[0], body), motion=motion)
    times = [0.0, 5.0, 15.0, 28.0, 31.4]
    tracks, visible = made.follow(torch.tensor([[47.5, 47.5]]), 0.0, times)
    angle = 3.0 * torch.tensor(times).mul(0.1).sin()
    expected = 47.5 - 400 * 40 * angle.sin() / (400 - 40 * angle.cos())
    assert torch.allclose(tracks[:, 0, 0], expected, atol=1e-2)
    assert visible[:, 0].tolist() == (angle.cos() > 0.1).tolist() == [True, True, False, True, True]


def test_rotations_are_those_of_their_vectors():
    turned = rotation(torch.tensor([[0.0, 0.0, torch.pi / 2], [0.0, 0.0, 0.0]])) @ torch.tensor([1.0, 0.0, 0.0])
    assert torch.allclose(turned, torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]), atol=1e-6)


@pytest.mark.parametrize("family", sorted(figures.FAMILIES))
def test_limbs_stay_on_their_joints(family):
    """At any time the parts of a body hang together, and its boxes hold all that is seen of it."""
    dice = Dice(3)
    limbs = figures.FAMILIES[family](dice)
    root = torch.zeros(7, 3)
    root[2], root[4] = 1.0, 0.1
    body = figures.body(limbs, 60.0, 0.3, root[None], Paint(torch.rand(3, 32, 32)), 500.0, dice)
    pose = body.at(torch.tensor([0.0, 7.0]), torch.ones(2))
    for n, parent in enumerate(body.parent):
        if parent >= 0:
            tip = pose.axes[:, n, :, 2] * pose.half[:, n, 2:]
            assert torch.allclose(pose.centre[:, n] - tip, pose.joint[:, n], atol=1e-3)
            local = (pose.axes[:, parent].mT @ (pose.joint[:, n] - pose.centre[:, parent])[..., None])[..., 0]
            assert torch.allclose(local / pose.half[:, parent], body.anchor[n].expand(2, 3), atol=1e-3)
    assert len(set(body.joint_names)) == len(body.parent)
    xy = coords.grid((60, 60)) * 8 - 240
    u, v = xy.reshape(1, -1, 2).expand(2, -1, 2).unbind(-1)
    each = torch.meshgrid(torch.arange(2), torch.arange(len(body.kind)), torch.arange(3600), indexing="ij")
    every = tuple(i.flatten() for i in each)
    assert torch.equal(pose.cast(body, u, v).depth, pose.cast(body, u, v, every).depth)


@settings(deadline=None)
@given(top=st.integers(-40, 60), left=st.integers(-40, 90), h=st.integers(1, 30), w=st.integers(1, 30))
def test_windows_are_what_box_and_frame_share(top, left, h, w):
    """Written through the windows, a box marks the pixels that are in it and no others, wherever it lies."""
    where = boxes.Box(torch.tensor([top]), torch.tensor([left]), h, w, torch.zeros(1, 1, 2), torch.zeros(1, 1, 2))
    frames = torch.zeros(1, *SIZE, dtype=torch.long)
    boxes.write(frames, where, torch.ones(1, h, w, dtype=torch.bool), torch.arange(h * w).reshape(1, h, w) + 1)
    expected = torch.zeros(SIZE, dtype=torch.long)
    for i in range(h):
        for j in range(w):
            if 0 <= top + i < SIZE[0] and 0 <= left + j < SIZE[1]:
                expected[top + i, left + j] = i * w + j + 1
    assert torch.equal(frames[0], expected)


def test_pairs_of_boxes_are_their_pixels():
    low, high = torch.tensor([[[1, 0], [2, 2]]]), torch.tensor([[[3, 2], [2, 5]]])
    t, part, pixel = solids.grid_pairs(low, high, width=5)
    assert t.tolist() == [0] * 4 and part.tolist() == [0] * 4 and pixel.tolist() == [1, 2, 6, 7]


def test_joints_move_and_are_seen_only_when_nothing_covers_them(bank):
    content = synthetic.Content(sheets=0, solids=0, actors=(2, 2), herd=0.0)
    names, xy, visible = synthetic.joints(synthetic.scene(2, (96, 128), bank, (4, 4), content), [0.0, 6.0])
    assert len(set(names)) == len(names) > 10 and xy.shape == (2, len(names), 2)
    assert any("knee" in n for n in names) and {n.split()[0] for n in names} == {"1", "2"}
    assert 0 < visible.float().mean() < 1 and (xy[1] - xy[0]).norm(dim=-1).max() > 4
    nobody = synthetic.joints(synthetic.scene(2, SIZE, bank, content=synthetic.LAYERS), [0.0])
    assert nobody[0] == [] and nobody[1].shape == (1, 0, 2)


def test_depth_is_smaller_in_front(bank):
    for seed in range(10):
        found = synthetic.scene(seed, SIZE, bank).render([0.0])
        ground = found.depth[found.masks == 0]
        assert (ground == ground[:1]).all() and (found.depth[found.masks > 0] < 1.5 * ground.mean()).all()


def test_clip_queries_are_in_their_frames(bank):
    clip = synthetic.track_clip(synthetic.scene(2, SIZE, bank), [0.0, 2.5, 20.0], 30, query_frames=3)
    assert clip.video.shape == (3, 3, *SIZE) and clip.video.dtype == torch.uint8
    assert clip.tracks.shape == (3, 30, 2)
    t = clip.query_points[:, 0].long()
    assert t.bincount().tolist() == [10, 10, 10]
    assert torch.allclose(clip.tracks[t, torch.arange(30)], clip.query_points[:, 1:], atol=1e-3)
    assert clip.visible[t, torch.arange(30)].float().mean() > 0.95


def test_the_same_seed_gives_the_same_bytes_whatever_else_is_asked(bank):
    def make(seed, times):
        content = synthetic.Content(compression=0.0)  # it would spread a last bit over its block
        return synthetic.track_clip(synthetic.scene(seed, SIZE, bank, content=content), times, 16)

    one, same, other = make(4, [0.0, 5.0]), make(4, [0.0, 5.0]), make(5, [0.0, 5.0])
    assert torch.equal(one.video, same.video) and torch.equal(one.tracks, same.tracks)
    assert not torch.equal(one.video, other.video)
    longer = make(4, [0.0, 5.0, *range(6, 18)])  # more than one shot
    assert (longer.video[:2].int() - one.video.int()).abs().max() <= 1
    assert torch.allclose(longer.tracks[:2], one.tracks, atol=1e-4)


def test_a_frame_does_not_depend_on_the_others(bank):
    """Neither in what is blurred, shadowed or cut off by the border."""
    content, off = synthetic.Content(compression=0.0, motion_blur=1.0, defocus=0.7, shadow=1.0), []
    for seed in range(8):
        made = synthetic.scene(seed, (48, 72), bank, (8, 8), content)
        together = made.render([0.0, 5.0, 11.0]).video
        alone = torch.cat([made.render([t]).video for t in (0.0, 5.0, 11.0)])
        off.append(((together - alone).abs() * 255).max().item())
    assert max(off) < 1.5


def test_speed_is_what_was_asked(bank):
    """Over many scenes the typical speed of objects follows the pace, scaled by the frame's lines."""

    def typical(pace):
        speeds = []
        for seed in range(25):
            shot = synthetic.scene(seed, (128, 128), bank, (pace, pace), synthetic.LAYERS).at([0.0, 1.0])
            _, points = synthetic.seen_points(shot, 40, torch.Generator().manual_seed(seed))
            tracks, _ = shot.locate(points)
            speeds.append((tracks[1] - tracks[0]).norm(dim=-1).mean())
        return torch.stack(speeds).mean().item() * 256 / 128

    slow, fast = typical(1.0), typical(8.0)
    assert 0.4 < slow < 2 and 5 < fast / slow < 11


def test_content_is_what_is_drawn(bank):
    def kinds(content):
        made = [synthetic.scene(seed, SIZE, bank, content=content) for seed in range(15)]
        return made, {type(a).__name__ for scene in made for a in scene.actors[1:]}

    assert kinds(synthetic.LAYERS)[1] == {"Sheet"}
    assert kinds(synthetic.Content(sheets=0.0))[1] == {"Body"}
    bare = replace(synthetic.Content(), motion_blur=0.0, compression=0.0, camera=0.0, shadow=0.0, herd=0.0)
    made, found = kinds(bare)
    assert found == {"Sheet", "Body"}
    assert all(s.lens.shutter == s.lens.quality == s.lens.shadow == 0 and not s.motion.camera.wave.any() for s in made)
    assert {int(a.member.max()) for s in made for a in s.actors if hasattr(a, "member")} == {0}
    assert any(s.lens.shutter and s.lens.quality for s in kinds(replace(bare, motion_blur=1.0, compression=1.0))[0])
    soft = [s.lens.blur for s in made]
    assert max(soft) > 0.8 and [s.lens.blur for s in kinds(replace(bare, softness=0.3))[0]] == pytest.approx(
        [0.3 * sigma for sigma in soft]
    )


def test_content_is_read_from_json():
    (made,) = synthetic.read_contents('{"solids": 0, "articulated": ["worm"], "speed": [1, 9]}')
    assert made == replace(synthetic.Content(), solids=0, articulated=("worm",), speed=(1, 9))
    assert synthetic.read_contents('[{}, {"solids": 0}]') == (synthetic.Content(), synthetic.Content(solids=0))


def test_blur_spreads_evenly_about_the_middle():
    """Motion blur and defocus leave the centre of what they blur where it was."""
    spot = torch.zeros(2, 4, 41, 61)
    spot[:, :, 20, 30] = 1.0
    way = torch.tensor([[14.0, -6.0], [3.0, 9.0]])
    for blurred in (scenes.exposure.smear(spot, way), scenes.exposure.blur(spot, torch.tensor([1.0, 2.0]))):
        weight = blurred[:, 0]
        assert torch.allclose(weight.sum((1, 2)), torch.ones(2), atol=1e-4)
        centre = (coords.grid((41, 61)) * weight[..., None]).sum((1, 2))
        assert torch.allclose(centre, torch.tensor([30.0, 20.0]).expand(2, 2), atol=0.01)
        assert (weight.amax((1, 2)) < 0.5).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda bank: synthetic.scene(0, (15, 40), bank), r"size_hw should be at least \(16, 16\), got \(15, 40\)"),
        (lambda bank: synthetic.scene(0, SIZE, bank, speed=(2.0, 1.0)), "two positive numbers in order"),
        (lambda bank: synthetic.Content(sheets=0.0, solids=0.0, figures=0.0), "weights, at least 0 and not all 0"),
        (lambda bank: synthetic.read_contents("solids=0"), "expected a JSON object, got 'solids=0'"),
        (lambda bank: synthetic.read_contents('{"solid": 0}'), 'object of sheets, solids, .*, got {"solid": 0}'),
        (lambda bank: synthetic.read_contents('[{}, {"solid": 0}]'), 'or a list of some, got .{}, {"solid": 0}.'),
        (lambda bank: synthetic.read_contents("[]"), "or a list of some, got"),
        (lambda bank: synthetic.Content(softness=-1.0), "softness should be at least 0, got -1.0"),
        (lambda bank: synthetic.Content(articulated=("horse",)), r"some of quadruped, .*, got \('horse',\)"),
        (lambda bank: synthetic.Content(actors=(4, 3)), r"two counts in order, got \(4, 3\)"),
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


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_a_gpu_draws_the_same(bank):
    for seed in range(6):
        content = synthetic.Content(compression=0.0)
        one, two = (
            synthetic.track_clip(synthetic.scene(seed, SIZE, textures_, content=content), [0.0, 4.0], 20)
            for textures_ in (bank, bank.cuda())
        )
        assert ((one.video.int() - two.video.cpu().int()).abs() <= 1).float().mean() > 0.99
        assert torch.allclose(one.tracks, two.tracks.cpu(), atol=1e-2)
