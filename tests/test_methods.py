"""Every method in the table: what it answers about one point hangs on no other point."""

import pytest
import torch

from corrlib import _torchvision, checkpoints, matching, methods, synthetic, textures, tracker_costs
from corrlib.encoder import PixelEncoder

WITH_MASKS = {"model", "trained", "shipped", "random", "resnet18", "sift", "patches", "raft_small"}
ASKED_FOR = ["as_paper", "as_released", "exhaustive", "no_redetection"]  # slow, or worse than they need be
WITH_MASKS |= {*ASKED_FOR, "dis_medium", "dis_fast", "farneback", "static"}


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """All there are, on weights drawn at random where the user would name a file."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    for name, module in (("resnet18", "torchvision.models"), ("raft_small", "torchvision.models.optical_flow")):
        torch.save(getattr(_torchvision.load(module), name)(weights=None).state_dict(), folder / f"{name}.pth")
    checkpoints.save(folder / "mine.safetensors", PixelEncoder(8), {})
    files = (str(folder / f"{name}") for name in ("mine.safetensors", "resnet18.pth", "raft_small.pth"))
    names = ["model", "trained", "shipped", "random", "resnet18", "sift", "patches", "raft_small"]
    slow = ASKED_FOR
    return methods.methods([*names, *slow, "dis_medium", "dis_fast", "farneback", "lk", "static"], *files)


@pytest.fixture(scope="module")
def clip():
    """Four frames whose shapes move, and points asked at their beginning, middle and end."""
    scene = synthetic.scene(5, (64, 80), textures.bank("val", 4, synthetic.TEXTURE_SIZE, 5), (4.0, 4.0))
    made = synthetic.track_clip(scene, [0.0, 1.0, 2.0, 3.0], 6)
    g = torch.Generator().manual_seed(0)
    xy = torch.rand(19, 2, generator=g) * torch.tensor([70.0, 54.0]) + 5
    when = torch.randint(0, 4, (19, 1), generator=g).float()  # more points than a vector has places
    return made.video, torch.cat([when, xy], dim=1)


@pytest.mark.parametrize("name", ["sift", "patches"])
def test_descriptors_are_made_in_float32(table, clip, name, monkeypatch):
    """Those that are compared with, wherever they run."""
    mask = torch.zeros(64, 80, dtype=torch.long)
    mask[10:40, 20:50] = 1
    found = []
    for has in (False, True):
        monkeypatch.setattr(matching, "multiplies_bfloat16", lambda frames, has=has: has)
        found.append([*table[name].points(*clip), table[name].masks(clip[0], mask)])
    for one, two in zip(*found):
        assert torch.equal(one, two)


NAMES = sorted(WITH_MASKS | {"lk"})


@pytest.mark.parametrize("name", NAMES)
def test_points_are_independent_of_each_other_and_of_their_order(table, clip, name):
    video, queries = clip
    ask = table[name].points
    together = ask(video, queries)
    assert together.tracks.shape == (4, 19, 2) and together.visible.dtype == torch.bool
    assert torch.allclose(together.tracks[queries[:, 0].long(), range(19)], queries[:, 1:], atol=1e-4)
    order = torch.randperm(19, generator=torch.Generator().manual_seed(1))
    for mixed, values in zip(ask(video, queries[order]), together):
        assert torch.equal(mixed, values[:, order])
    for n in (0, 9, 18):
        for alone, values in zip(ask(video, queries[n : n + 1]), together):
            assert torch.equal(alone, values[:, n : n + 1])


@pytest.mark.parametrize("name", sorted(WITH_MASKS))
def test_masks_start_with_the_one_given(table, clip, name):
    mask = torch.zeros(64, 80, dtype=torch.long)
    mask[10:30, 20:50], mask[40:60, 5:25] = 1, 2
    found = table[name].masks(clip[0], mask)
    assert found.shape == (4, 64, 80) and torch.equal(found[0], mask) and found.max() <= 2


def test_many_queries_are_asked_in_parts_that_give_the_whole(table, clip, monkeypatch):
    whole = table["shipped"].points(*clip)
    monkeypatch.setattr(methods, "AT_ONCE", 3)
    assert all(torch.equal(a, b) for a, b in zip(table["shipped"].points(*clip), whole))


def test_the_papers_way_of_carrying(clip):
    """All counts as seen, and it is half a pixel off as it was released."""
    video, queries = clip
    aligned, released = (method.points for method in methods.methods(["as_paper", "as_released"]).values())
    found = aligned(video, queries)
    assert found.visible.all() and found.confidence.eq(1).all()
    still, asked = video[:1].expand(3, -1, -1, -1), torch.tensor([[1.0, 40.0, 30.0], [1.0, 21.0, 17.0]])
    one, other = (ask(still, asked).tracks[[0, 2]] for ask in (aligned, released))
    assert (one - asked[:, 1:]).abs().max() < 1
    assert torch.allclose((other - one).mean(), torch.tensor(0.5), atol=0.2)


def test_without_redetection_a_point_is_not_found_far_from_its_last_place():
    """A picture that jumps by 48 pixels."""
    picture = next(tracker_costs.drifting((96, 160), 1))
    video, asked = torch.stack([picture, picture.roll(48, dims=-1)]), torch.tensor([[0.0, 60.0, 48.0]])
    ways = methods.methods(["model", "no_redetection"]).values()
    far, near = (way.points(video, asked).tracks[1, 0, 0] for way in ways)
    assert abs(far - 108) < 2 and near < 90


def test_coarse_to_fine_finds_what_the_whole_fine_map_holds():
    """Of a picture that moves by (2, 1) a frame: the same cells but for a few points of 200."""
    video = torch.stack(list(tracker_costs.drifting((96, 128), 4)))
    asked = torch.cat([torch.zeros(200, 1), 8 + tracker_costs.spread_points((80, 112), 200)], dim=1)
    near, all_of_it = (way.points(video, asked).tracks for way in methods.methods(["model", "exhaustive"]).values())
    assert ((near - all_of_it).norm(dim=-1) < 0.1).float().mean() > 0.95


def test_which_methods_there_are(table):
    assert set(table) == WITH_MASKS | {"lk"} and table["lk"].masks is None
    assert {name for name in table if table[name].masks} == WITH_MASKS
    plain = methods.methods()
    assert set(plain) == set(table) - {"trained", "shipped", *ASKED_FOR, "resnet18", "raft_small"}
    assert plain["model"].weights == table["shipped"].weights != table["trained"].weights == table["model"].weights


def test_weights_have_names():
    one, two, other = (methods.methods(["random"], seed=seed)["random"].weights for seed in (0, 0, 1))
    assert one == two != other and len(one) == 16
    assert methods.methods(["sift"])["sift"].weights == methods.methods(["lk"])["lk"].weights == ""


def test_who_is_less_sure_has_another_name():
    """Or answers kept from before a new calibration would be taken for its own."""
    model = checkpoints.load_pretrained()
    before = methods.fingerprint(model)
    model.calibration = (*model.calibration[:-1], model.calibration[-1] - 1)
    assert methods.fingerprint(model) != before == methods.fingerprint(checkpoints.load_pretrained())


def test_a_random_network_takes_no_random_numbers_from_others():
    before = torch.get_rng_state()
    methods.methods(["random"])
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("raft", "unknown method 'raft'; there are model, trained"),
        ("trained", "trained should have a checkpoint that training wrote, got none"),
        ("resnet18", "resnet18 should have resnet18_weights, torchvision's file, got none; nothing is downloaded"),
        ("raft_small", "raft_small should have raft_small_weights"),
    ],
)
def test_methods_error(name, message):
    with pytest.raises(ValueError, match=message):
        methods.methods([name])


def test_resnet18_is_calibrated_before_it_is_asked(table, monkeypatch):
    calls = []
    monkeypatch.setattr(methods.benchmarks, "procedural_calib", lambda n: [])
    monkeypatch.setattr(methods.calibration, "calibrate", lambda model, clips: calls.append(1) or (1.0,) * 7)
    table["resnet18"].prepare()
    table["resnet18"].prepare()
    assert calls == [1]
