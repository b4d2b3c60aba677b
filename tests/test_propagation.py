"""Masks and joints carried through time: what stands still stays, what moves is followed."""

import cv2
import numpy as np
import pytest
import torch

from corrlib import baselines, checkpoints, coords, frames, propagation, textures
from corrlib.propagation import PAPER, PropagationConfig, propagate_joints, propagate_masks

SIZE = (75, 106)


@pytest.fixture(scope="module")
def model():
    return checkpoints.load_pretrained()


@pytest.fixture(scope="module")
def scene():
    """Two discs, each with its own texture, over a third, moving apart by (3, 1) and (-3, -1) px a frame."""
    pictures = [textures.leaves(160, torch.Generator().manual_seed(seed)) for seed in (3, 4, 5)]
    grid, video, masks = coords.grid(SIZE), [], []
    for t in range(4):
        mask, frame = torch.zeros(SIZE, dtype=torch.long), pictures[0][:, : SIZE[0], : SIZE[1]].clone()
        for k, (centre, step) in enumerate((((68.0, 44.0), (3, 1)), ((34.0, 30.0), (-3, -1)))):
            move = torch.tensor(step) * t
            on = (grid - torch.tensor(centre) - move).norm(dim=-1) < 18 + 3 * k
            mask[on] = k + 1
            shifted = coords.sample(pictures[k + 1][None], (grid + 20 - move)[None])[0][0]
            frame[:, on] = shifted[:, on]
        video.append(frame)
        masks.append(mask)
    return torch.stack(video), torch.stack(masks)


def overlap(masks, truth, k):
    return float(((masks == k) & (truth == k)).sum() / ((masks == k) | (truth == k)).sum())


def test_a_static_clip_keeps_its_masks(model, scene):
    video, masks = scene
    found = propagate_masks(model, video[:1].expand(6, -1, -1, -1), masks[0])
    assert found.dtype == torch.int64 and found.shape == (6, *SIZE)
    assert torch.equal(found[0], masks[0])
    assert min(overlap(found[t], masks[0], k) for t in (1, 5) for k in (1, 2)) > 0.95


@pytest.mark.parametrize("config", [PropagationConfig(), PropagationConfig(top_k=0, edge=0), PAPER])
def test_moved_objects_are_followed(model, scene, config):
    video, masks = scene
    found = propagate_masks(model, video, masks[0], config)
    moved = [overlap(found[-1], masks[-1], k) for k in (1, 2)]
    still = [overlap(masks[0], masks[-1], k) for k in (1, 2)]
    assert min(moved) > 0.7 > 0.6 > max(still)


def test_numbers_of_objects_are_names(model, scene):
    """Exchanged on the way in, they come out exchanged; one object alone is that object among others."""
    video, masks = scene
    found = propagate_masks(model, video[:3], masks[0])
    other = propagate_masks(model, video[:3], (3 - masks[0]) * (masks[0] > 0))
    assert torch.equal(other, (3 - found) * (found > 0))
    alone = propagate_masks(model, video[:3], masks[0] == 2)
    assert ((alone == 1) != (found == 2)).float().mean() < 0.01


def test_a_video_is_a_tensor_an_array_or_files(model, scene, tmp_path):
    video, masks = (scene[0][:3] * 255).round().to(torch.uint8), scene[1]
    for t, frame in enumerate(video):
        cv2.imwrite(str(tmp_path / f"{t:03d}.png"), np.ascontiguousarray(frame.numpy()[::-1].transpose(1, 2, 0)))
    found = propagate_masks(model, video, masks[0])
    assert torch.equal(propagate_masks(model, video.numpy(), masks[0].numpy()), found)
    assert torch.equal(propagate_masks(model, tmp_path, masks[0]), found)


def test_frames_are_read_one_at_a_time(model, scene, monkeypatch):
    """No frame is asked for before the labels of the one before it are there."""
    video, masks = scene
    order = []
    read, ask = frames.Video.__iter__, propagation._ask
    monkeypatch.setattr(frames.Video, "__iter__", lambda v: (order.append("read") or f for f in read(v)))
    monkeypatch.setattr(propagation, "_ask", lambda *a: order.append(len(a[1])) or ask(*a))
    propagate_masks(model, video, masks[0], PropagationConfig(recent=2, edge=0))
    assert order == ["read", "read", 2, "read", 3, "read", 3]


def test_labels_are_means_over_the_circle_in_sight():
    """Against a double loop over cells."""
    g = torch.Generator().manual_seed(0)
    config = PropagationConfig(radius=3.5, top_k=4, temperature=0.3)
    query, *keys = torch.nn.functional.normalize(torch.randn(3, 11, 13, 6, generator=g), dim=-1)
    labels = torch.rand(2, 3, 11, 13, generator=g)
    found = propagation._ask(
        query, list(zip(keys, labels)), propagation._circle(3.5, query.device), config, propagation.SAME
    )
    cells = coords.grid((11, 13))
    for y in range(11):
        for x in range(13):
            near = (cells - torch.tensor([x, y])).norm(dim=-1) < 3.5
            logits = torch.cat([key[near] @ query[y, x] for key in keys]) / 0.3
            known = torch.cat([values[:, near] for values in labels], dim=1)
            best, where = logits.topk(4)
            torch.testing.assert_close(found[:, y, x], known[:, where] @ best.softmax(0))


JOINTS = torch.tensor([[66.3, 44.6], [36.25, 28.0], [96.7, 8.4]])


def test_joints_of_a_static_clip_stay_below_a_tenth_of_a_pixel(model, scene):
    class Itself(torch.nn.Module):
        """Each cell is like itself alone, so that only the way to cells and back can move a joint."""

        coarse_lattice, fine_lattice = coords.Lattice(8), coords.Lattice(2)

        def forward(self, images):
            h, w = coords.lattice_size(tuple(images.shape[-2:]), self.fine_lattice)
            features = torch.eye(h * w).reshape(1, h * w, h, w)
            return propagation.Features(features[:, :, ::4, ::4], features)

    # Top-10 of equal features holds others' labels: look at one cell only.
    nearest = PropagationConfig(**{**PAPER.__dict__, "top_k": 1})
    video = torch.zeros(2, 3, 48, 56)
    joints = 20 + 8 * torch.rand(200, 2, generator=torch.Generator().manual_seed(0))
    error = propagate_joints(Itself().eval(), video, joints, nearest)[1] - joints
    assert error.mean(dim=0).abs().max() < 0.05
    released = PropagationConfig(**{**nearest.__dict__, "aligned": False})
    bias = (propagate_joints(Itself().eval(), video, joints, released)[1] - joints).mean(dim=0)
    assert ((bias - 0.5).abs() < 0.1).all()


def test_moved_joints_are_followed(model, scene):
    video, _ = scene
    found = propagate_joints(model, video, JOINTS)
    moved = JOINTS + torch.tensor([[9.0, 3.0], [-9.0, -3.0], [0.0, 0.0]])
    assert torch.equal(found[0], JOINTS) and found.shape == (4, 3, 2)
    assert (found[-1] - moved).norm(dim=-1).max() < 3


def test_a_joint_nobody_holds_is_nowhere(model, scene, monkeypatch):
    monkeypatch.setattr(propagation, "_ask", lambda query, memory, *_: torch.zeros_like(memory[0][1]))
    assert (propagate_joints(model, scene[0][:2], JOINTS)[1] == -1).all()


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda m: m[:-1], r"first_mask should be \(75, 106\) \(H, W\) as frames, got \(74, 106\)"),
        (lambda m: m.float(), "should be integers or booleans, got torch.float32"),
        (lambda m: m - 1, "should hold ids from 0, got -1"),
        (lambda m: m * 0, "at least one object, got background only"),
        (lambda m: m * 2, "each object from 1 to 4; number them without gaps, got no pixel of object 1"),
    ],
)
def test_masks_that_are_refused(model, scene, change, message, unchecked):
    video, masks = scene
    for propagate in (lambda m: propagate_masks(model, video, m), lambda m: baselines.propagate_masks_dis(video, m)):
        with pytest.raises(ValueError, match=message):
            propagate(change(masks[0]))


@pytest.mark.parametrize(
    "joints, message",
    [
        (torch.zeros(0, 2), r"should be \(J, 2\) as \(x, y\), J at least 1, got \(0, 2\)"),
        (torch.tensor([[10.0, 75.0]]), r"joint \(10, 75\) should be inside the frame of 106 x 75"),
        (torch.tensor([[float("nan"), 5.0]]), r"joint \(nan, 5\) should be inside"),
    ],
)
def test_joints_that_are_refused(model, scene, joints, message):
    with pytest.raises(ValueError, match=message):
        propagate_joints(model, scene[0], joints)


def test_a_frame_that_changes_size_is_refused(model, scene, tmp_path):
    for t, size in enumerate((SIZE, SIZE, (60, 90))):
        cv2.imwrite(str(tmp_path / f"{t}.png"), np.zeros((*size, 3), np.uint8))
    with pytest.raises(ValueError, match=r"2\.png.*\(75, 106\)"):
        propagate_masks(model, tmp_path, scene[1][0])


@pytest.mark.parametrize(
    "setting, message",
    [
        ({"recent": 0}, "recent should be at least 1, got 0"),
        ({"coarse": 1.5}, r"coarse should be in \[0, 1\], got 1.5"),
        ({"temperature": 0.0}, "temperature should be above 0, got 0.0"),
    ],
)
def test_settings_that_are_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        PropagationConfig(**setting)


def test_dis_carries_masks_too(scene):
    video, masks = scene
    found = baselines.propagate_masks_dis(video, masks[0])
    assert min(overlap(found[-1], masks[-1], k) for k in (1, 2)) > 0.7
    still = baselines.propagate_masks_dis(video[:1].expand(3, -1, -1, -1), masks[0])
    assert torch.equal(still, masks[:1].expand(3, -1, -1))
    with pytest.raises(ValueError, match="preset should be one of ultrafast, fast, medium, got slow"):
        baselines.propagate_masks_dis(video, masks[0], preset="slow")
