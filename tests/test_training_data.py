"""What a step is given: pairs with flow as the paper crops them, in trees laid out like the official ones."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from corrlib import coords, synthetic, textures, training, training_data
from corrlib.recipes import PAPER, TrainConfig
from corrlib.training_data import FlowClips
from corrlib.training_step import train_step

SIZE = (60, 76)


def save_frame(path, frame):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.ascontiguousarray((frame.flip(0) * 255).round().byte().permute(1, 2, 0).numpy()))


def save_pfm(path, flow):
    """FlyingThings3D's format: three channels, rows from the bottom up."""
    path.parent.mkdir(parents=True, exist_ok=True)
    three = np.zeros((*flow.shape[1:], 3), "<f4")
    three[..., :2] = flow.permute(1, 2, 0).numpy()
    path.write_bytes(f"PF\n{flow.shape[2]} {flow.shape[1]}\n-1.0\n".encode() + three[::-1].tobytes())


def write_things(root, frames0to1, flows, sequence="TRAIN/A/0000"):
    """One pair in both directions."""
    folder = root / "FlyingThings3D"
    for t, frame in zip((6, 7), frames0to1):
        save_frame(folder / "frames_cleanpass" / sequence / f"left/{t:04d}.png", frame)
    for t, kind, name, flow in zip((6, 7), ("into_future", "into_past"), ("Future", "Past"), flows):
        save_pfm(folder / "optical_flow" / sequence / kind / f"left/OpticalFlowInto{name}_{t:04d}_L.pfm", flow)


def draw_sets(root, size):
    """FlyingThings3D and YouTube-VOS, each one short scene."""
    bank = textures.bank("train", 4, synthetic.TEXTURE_SIZE, 0)
    made = synthetic.scene(3, size, bank, (1.5, 1.5))
    there, back = synthetic.flow_pair(made, 0.0, 1.0), synthetic.flow_pair(made, 1.0, 0.0)
    write_things(root, (there.frame0, there.frame1), (there.flow_0to1, back.flow_0to1))
    for t in range(3):
        save_frame(root / f"YouTube-VOS/train/JPEGImages/0a/{5 * t:05d}.jpg", made.render([float(t)]).video[0])


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    root = tmp_path_factory.mktemp("raw")
    draw_sets(root, SIZE)
    return root


def settings(root, **changes):
    base = {"labelled": "flyingthings3d", "data_root": str(root), "steps": 2, "clips": 2, "size": 48, "points": 0}
    return TrainConfig(**{**base, "appearance": 0.0, **changes})


def translated(root, dx, dy):
    """A pair whose second frame is the first one moved by whole pixels; true flow everywhere."""
    wide = torch.rand(3, SIZE[0] + 20, SIZE[1] + 20, generator=torch.Generator().manual_seed(0))
    pair = [wide[:, 10 - k * dy : 10 - k * dy + SIZE[0], 10 - k * dx : 10 - k * dx + SIZE[1]] for k in (0, 1)]
    flow = torch.tensor([dx, dy]).float()[:, None, None].expand(2, *SIZE)
    write_things(root, pair, (flow, -flow))


def test_every_cell_is_asked_where_it_goes(tmp_path):
    """The mask on a translation in a crop: what leaves the crop is not visible, all else is."""
    translated(tmp_path, 6, -4)
    clip = FlowClips(settings(tmp_path))[0]
    name_says = 1 if "into_future" in clip.name else -1
    h, w = coords.lattice_size((48, 48), training_data.FINE)
    grid = coords.grid((h, w)).flatten(0, 1) * 2
    assert clip.tracks.shape == (2, h * w, 2) and torch.equal(clip.tracks[0], grid)
    assert torch.allclose(clip.tracks[1], grid + name_says * torch.tensor([6.0, -4.0]))
    assert clip.visible[0].all()
    assert torch.equal(clip.visible[1], coords.inside(clip.tracks[1], (48, 48)))
    x, y = clip.tracks[1][clip.visible[1]].long().unbind(-1)
    before, after = clip.tracks[0][clip.visible[1]].long(), clip.video[1][:, y, x]
    assert torch.equal(clip.video[0][:, before[:, 1], before[:, 0]], after)


def test_inconsistent_flow_is_not_visible(tmp_path):
    translated(tmp_path, 6, -4)
    for path in (tmp_path / "FlyingThings3D/optical_flow").rglob("*Past*"):
        save_pfm(path, torch.full((2, *SIZE), 3.0))
    clip = FlowClips(settings(tmp_path))[0]
    assert not clip.visible[1].any()


def test_the_released_consistency_is_used_where_asked_for(tmp_path):
    """A way back of 6.9 pixels for 8 is seen, but not by the release, whose threshold is lower there."""
    translated(tmp_path, 8, 0)
    for path in (tmp_path / "FlyingThings3D/optical_flow").rglob("*Past*"):
        save_pfm(path, torch.tensor([-6.9, 0.0])[:, None, None].expand(2, *SIZE))
    seen = [FlowClips(settings(tmp_path, legacy_consistency=legacy))[0].visible[1] for legacy in (False, True)]
    assert seen[0].float().mean() > 0.7 and not seen[1].any()


def test_points_can_be_random_pixels(drawn):
    clip = FlowClips(settings(drawn, points=30))[1]
    assert clip.tracks.shape == (2, 30, 2) and clip.query_points[:, 0].eq(0).all()


def test_crops_depend_on_their_index_alone_and_all_pairs_are_used(drawn):
    one, two = FlowClips(settings(drawn)), FlowClips(settings(drawn))
    first = [one[i] for i in range(4)]
    again = [two[i] for i in reversed(range(4))][::-1]
    assert all(torch.equal(a.video, b.video) and torch.equal(a.tracks, b.tracks) for a, b in zip(first, again))
    assert {clip.name.split("/")[3] for clip in first[:2]} == {"into_future", "into_past"}


def test_the_papers_recipe_trains_on_the_official_layouts(drawn):
    """Both data sets, all three losses, every quirk on: finite, with gradients in every layer."""
    torch.manual_seed(0)
    changes = {"legacy_label_norm": True, "legacy_consistency": True, "steps": 2, "clips": 1, "real_clips": 1}
    real = str(drawn / "YouTube-VOS/train/JPEGImages")
    config = replace(PAPER.config, **changes, data_root=str(drawn), real_videos=real, size=48)
    encoder, teacher = training.new_encoder(config), training.new_encoder(config).eval()
    training.check(encoder, config, PAPER.weights, teacher)
    judge = training.new_discriminator(encoder, config)
    assert judge.layers[0].in_features == 2401
    labelled = next(training_data.batches(config, 0, 0))
    unlabelled = next(training_data.real_batches(config, 0, 0))
    found = train_step(encoder, judge, labelled, unlabelled, config, PAPER.weights, teacher)
    assert set(found) == {"fine", "reconstruction", "domain", "domain_accuracy", "total"}
    assert found["total"].item() == pytest.approx(sum(found[n].item() for n in ("fine", "reconstruction", "domain")))
    found["total"].backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in encoder.parameters())
    assert any(p.grad.any() for p in encoder.stem.parameters()) and judge.sent > 0


def test_messages(tmp_path, drawn):
    with pytest.raises(FileNotFoundError, match="FlyingThings3D"):
        FlowClips(settings(tmp_path))
    with pytest.raises(ValueError, match=r"size should be at most 60, the shorter side of .*, got 64"):
        FlowClips(settings(drawn, size=64))[0]
