"""The fine window: the label of the place, the answer of the network, and the pixels that both are about."""

import pytest
import torch
from matplotlib.figure import Figure

from corrlib import checkpoints, closeups, replay, synthetic, textures, tracking

H, W, T = 61, 75, 4


@pytest.fixture(scope="module")
def kept():
    bank = textures.bank("val", 6, synthetic.TEXTURE_SIZE, seed=0)
    clip = synthetic.track_clip(synthetic.scene(21, (H, W), bank, speed=(4, 4)), [float(t) for t in range(T)], 5)
    return replay.Replay(checkpoints.load_pretrained(), clip.video, tracking.TrackerConfig(radius=6))


@pytest.fixture
def query():
    return torch.tensor([1.0, 40.5, 32.0])


def test_at_home_label_and_answer_agree(kept, query):
    closeup = closeups.look(kept, query, 1, query[1:])
    assert closeup.radius == kept.config.radius and closeup.width_px == 26 and len(closeup.label) == 13**2
    assert closeup.label.sum() == pytest.approx(1) and closeup.answer.sum() == pytest.approx(1, abs=1e-5)
    middle = 13 * 6 + 6  # the pixel 40.5 is the cell 20.25
    assert closeup.label[middle] == pytest.approx(0.75) and closeup.label[middle + 1] == pytest.approx(0.25)
    assert closeup.answer.argmax() == middle and closeup.off < 2 and 0 < closeup.entropy < 4


def test_widths_are_in_pixels_of_the_video(kept, query):
    large = replay.Replay(checkpoints.load_pretrained(), kept.video[:2], tracking.TrackerConfig(lines=20, radius=6))
    closeup = closeups.look(large, query, 1, query[1:])
    assert closeup.width_px == pytest.approx(26 * 61 / 20) and closeup.patch.shape == (3, 26, 26)


def test_the_label_follows_the_place_and_the_answer_the_pixels(kept, query):
    """Looked at from 4 pixels to the right, what was in the middle is 2 cells to the left."""
    home, aside = (closeups.look(kept, query, 1, query[1:] + torch.tensor([dx, 0.0])) for dx in (0.0, 4.0))
    assert torch.equal(home.label, aside.label)
    inner = torch.zeros(13, 13, dtype=torch.bool)
    inner[:, 2:] = True
    moved, still = aside.answer[(inner.roll(-2, 1)).flatten()], home.answer[inner.flatten()]
    assert torch.corrcoef(torch.stack([moved, still]))[0, 1] > 0.99 and aside.off > home.off + 2


def test_the_patch_holds_the_pixels_of_the_cells(kept, query):
    patch = closeups.look(kept, query, 2, torch.tensor([40.0, 32.0])).patch.float()
    frame = kept.video[2].float()
    assert patch.shape == (3, 26, 26)
    # A cell's two pixels are read half a pixel off its own: 28 is the first cell's place, and its edge 27.
    assert (patch[:, 0, 0] - frame[:, 19:21, 27:29].mean((1, 2))).abs().max() <= 0.51
    corner = closeups.look(kept, query, 2, torch.tensor([0.0, 0.0]))
    assert corner.patch[:, :11].max() == 0 and corner.patch[:, 14:, 14:].float().mean() > 5
    assert corner.answer.reshape(13, 13)[:6].max() == 0  # no candidates outside


def test_outside_there_is_no_window(kept, query):
    assert closeups.look(kept, query, 2, torch.tensor([-3.0, 20.0])) is None


def test_pictures(kept, query):
    closeup = closeups.look(kept, query, 1, query[1:])
    drawn = closeups.draw(closeup, 130)
    assert drawn.shape == (3, 130, 3 * 130 + 2 * closeups.GAP) and (drawn[:, :, 130:136] == 255).all()
    label = drawn[:, :, 136:266]
    assert label[:, 65, 65].min() > 150 and label[:, 5, 5].max() < 10  # the brightest cell and a dark one
    fig = Figure()
    closeups.show(list(fig.subplots(1, 3)), closeup, "model")
    assert [ax.get_title() for ax in fig.axes[:3]][1] == "label of the place found"
    assert f"{closeup.entropy:.2f} nat" in fig.axes[2].get_title() and fig.axes[0].get_ylabel() == "model"
