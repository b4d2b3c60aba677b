"""The dense match of two frames: a known motion, what is hidden, and what is refused."""

import pytest
import torch

from corrlib import checkpoints, coords, dense, textures
from corrlib.dense import match_frames

SIZE = (90, 122)


@pytest.fixture(scope="module")
def model():
    return checkpoints.load_pretrained()


@pytest.fixture(scope="module")
def picture():
    return textures.leaves(200, torch.Generator().manual_seed(3))


def test_a_translation_is_found_at_every_pixel(model, picture):
    """By (9.25, -5.5) px: mean error below 0.3 px where the frames show the same."""
    grid, step = coords.grid(SIZE), torch.tensor([9.25, -5.5])
    frames = [coords.sample(picture[None], (grid + 30 - s)[None])[0][0] for s in (torch.zeros(2), step)]
    found = match_frames(model, *frames)
    shared = coords.inside(grid + step, SIZE)
    error = (found.flow_0to1 - step[:, None, None]).norm(dim=0)
    assert error[shared].mean() < 0.3
    assert found.visible_0to1[shared].float().mean() > 0.93
    assert found.visible_0to1[~shared].float().mean() < 0.1
    assert found.confidence.min() >= 0 and found.confidence.max() <= 1
    assert found.confidence[shared].mean() > found.confidence[~shared].mean() + 0.3
    plain = match_frames(model, *frames, refine=False)  # features alone: coarser, and all else the same
    plain_error = (plain.flow_0to1 - step[:, None, None]).norm(dim=0)
    assert error[shared].mean() < plain_error[shared].mean() < 0.6
    assert torch.equal(plain.confidence, found.confidence)


def test_a_still_picture_does_not_move(model, picture):
    frame = (picture[:, : SIZE[0], : SIZE[1]] * 255).to(torch.uint8)
    found = match_frames(model, frame, frame)
    assert found.flow_0to1.norm(dim=0).mean() < 0.05 and found.visible_0to1.float().mean() > 0.99


def test_bad_cells_take_their_nearest_good_ones():
    field = torch.zeros(2, 12, 15)
    field[0, :, 8:] = 4.0
    good = torch.ones(12, 15, dtype=torch.bool)
    broken = field.clone()
    broken[:, 3:6, 2:5], good[3:6, 2:5] = 99.0, False
    assert torch.equal(dense._fill(broken, good), field)
    assert torch.equal(dense._fill(field, torch.zeros_like(good)), field)  # nothing to take


def test_small_islands_are_not_trusted():
    field, good = torch.zeros(2, 30, 40), torch.ones(30, 40, dtype=torch.bool)
    field[0] += 0.5 * torch.arange(40)  # a slope is one object
    field[1, 3:8, 4:9] = 9.0
    field[1, 10:28, 10:30] = -9.0
    good[0] = False
    kept = dense._in_company(field, good)
    assert torch.equal(kept, good & (field[1] != 9))


def test_frames_that_are_refused(model, unchecked):
    frame = torch.zeros(3, 40, 56)
    with pytest.raises(ValueError, match=r"frame1 should be \(3, H, W\), got \(1, 40, 56\)"):
        match_frames(model, frame, frame[:1])
    with pytest.raises(ValueError, match=r"frame1 should be \(3, 40, 56\) like frame0, got \(3, 40, 48\)"):
        match_frames(model, frame, frame[:, :, :48])


def test_a_match_can_weigh_a_loss_and_small_frames_are_matched(model, picture):
    frame = picture[:, 20:28, 20:32]
    match = match_frames(model, frame, frame.numpy(), refine=False)
    weight = torch.ones_like(match.confidence, requires_grad=True)
    (weight * match.confidence + match.flow_0to1.norm(dim=0)).sum().backward()
    assert torch.equal(weight.grad, match.confidence) and match.flow_0to1.abs().max() < 1
