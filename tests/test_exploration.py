"""The explorer without a browser: state, pictures, figures; and its widgets by their values."""

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

import corrlib
from corrlib import baselines, checkpoints, explorer, overlays, propagation, replay, synthetic, textures, tracking
from corrlib.exploration import OVERLAYS, Exploration
from corrlib.panel import CLOSEUP_LINES

H, W, T = 61, 75, 5


@pytest.fixture(scope="module")
def model():
    return checkpoints.load_pretrained()


@pytest.fixture(scope="module")
def clip():
    bank = textures.bank("val", 6, synthetic.TEXTURE_SIZE, seed=0)
    return synthetic.track_clip(synthetic.scene(21, (H, W), bank, speed=(4, 4)), [float(t) for t in range(T)], 50)


@pytest.fixture(scope="module")
def methods(model, clip):
    return {"model": replay.Replay(model, clip.video), "DIS": replay.FlowReplay(clip.video)}


@pytest.fixture
def state(clip, methods):
    return Exploration(clip.video, methods)


@pytest.fixture
def panel(model, clip):
    return explorer.explore(model, clip.video, "dis")


@pytest.fixture(scope="module")
def query():
    return torch.tensor([2.0, 40.25, 30.5])


def test_a_point_is_followed_as_by_the_tracker(model, clip, methods, query):
    kept, exact = methods["model"].follow(query), tracking.track_points(model, clip.video, query[None])
    assert torch.allclose(kept.tracks, exact.tracks, atol=1e-3)
    assert torch.allclose(kept.confidence, exact.confidence, atol=1e-3) and torch.equal(kept.visible, exact.visible)
    config = tracking.TrackerConfig(support=8, magnify=1.25)
    kept = replay.Replay(model, clip.video, config).follow(query)
    exact = tracking.track_points(model, clip.video, query[None], config)
    assert torch.allclose(kept.tracks, exact.tracks, atol=1e-3)
    assert torch.allclose(kept.confidence, exact.confidence, atol=1e-3) and torch.equal(kept.visible, exact.visible)
    kept, exact = methods["DIS"].follow(query), baselines.track_dis(clip.video, query[None])
    assert all(torch.equal(a, b) for a, b in zip(kept, exact))


def test_masks_are_carried_as_by_the_propagator(model, clip, methods):
    mask = torch.zeros(H, W, dtype=torch.int64)
    mask[20:40, 30:50] = 1
    told = []
    both = methods["model"].carry(2, mask, lambda done, total: told.append((done, total)))
    assert torch.equal(both[2:], propagation.propagate_masks(model, clip.video[2:], mask))
    assert torch.equal(both[:3].flip(0), propagation.propagate_masks(model, clip.video[:3].flip(0), mask))
    assert told[-1] == (T + 1, T + 1) and len(told) == T + 1
    larger = replay.Replay(model, clip.video, tracking.TrackerConfig(magnify=1.25))
    config = propagation.PropagationConfig(magnify=1.25)
    assert torch.equal(larger.carry(0, mask), propagation.propagate_masks(model, clip.video, mask, config))
    assert torch.equal(methods["DIS"].carry(0, mask), baselines.propagate_masks_dis(clip.video, mask))


def test_points_come_and_go(state, query):
    assert state.tracks("model").tracks.shape == (T, 0, 2)
    t, x, y = query.tolist()
    assert [state.add(int(t), x, y), state.add(0, 20.0, 20.0)] == [0, 1]
    assert state.tracks("DIS").visible.shape == (T, 2)
    assert torch.equal(state.tracks("model").tracks[2, 0], query[1:])
    last = state.tracks("model").tracks[:, 1]
    state.remove(0)
    assert torch.equal(state.tracks("model").tracks[:, 0], last) and len(state.queries) == 1


def test_the_search_peaks_at_home_and_sums_to_one(state):
    number = state.add(1, 40.0, 32.0)
    search = state.search("model", number, 1)
    assert search.probability.sum() == pytest.approx(1, abs=1e-4)
    assert search.heights[0] == search.correlation.max() > 0.99
    assert (search.candidates[0] - torch.tensor([40.0, 32.0])).norm() < 1e-3  # a cell of the coarse map
    assert state.search("DIS", number, 1) is None


def test_settings_change_answers_and_back(state, query):
    t, x, y = query.tolist()
    state.add(int(t), x, y)
    before = state.tracks("model").confidence
    state.configure(temperature=0.2)
    assert not torch.equal(state.tracks("model").confidence, before)
    state.configure(temperature=0.05)
    assert torch.equal(state.tracks("model").confidence, before)


def test_box(state):
    mask = state.box(30.4, 10, 20.6, 15)
    assert mask.sum() == 10 * 6 and mask[10, 21] == mask[15, 30] == 1 and mask[10, 20] == 0


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pictures(state, overlay):
    number = state.add(0, 40.0, 32.0)
    plain = state.picture("model", 0, -1, overlay, lines=2 * H)
    assert plain.shape == (3, 2 * H, 2 * W) and plain.dtype == torch.uint8
    chosen = state.picture("model", 0, number, overlay, lines=2 * H)
    assert not torch.equal(chosen, plain)
    if overlay != "nothing":
        assert not torch.equal(chosen, state.picture("model", 0, number, "nothing", lines=2 * H))
        assert torch.equal(state.picture("DIS", 0, number, overlay), state.picture("DIS", 0, number))


def test_masks_are_in_the_picture(state):
    before = state.picture("DIS", 3)
    state.carry(0, state.box(10, 10, 40, 40))
    assert not torch.equal(state.picture("DIS", 3), before)
    assert set(state.masks) == {"model", "DIS"} and state.masks["model"].shape == (T, H, W)


def test_figure_and_words(state):
    number = state.add(0, 40.0, 32.0)
    axes = state.figure(4, number).axes
    assert [ax.get_title() for ax in axes[:3]] == ["asked: frame 0", "correlation with frame 4", "answered: frame 4"]
    assert len([ax for ax in axes if ax.get_xlabel() == "frame"]) == 2
    first, second = state.describe(0, number)
    assert first.startswith("model: point 1 in frame 0 at (40.0, 32.0), seen, sure 100%; most alike (40, 32)")
    assert second == "DIS: point 1 in frame 0 at (40.0, 32.0), seen, sure 100%"


def test_closeups_are_of_methods_with_features(state):
    number = state.add(0, 40.0, 32.0)
    assert state.closeup("model", number, 0).label.argmax() == 7 * 3 + 3 and state.closeup("DIS", number, 0) is None
    assert [ax.get_ylabel() for ax in state.closeup_figure(3, number).axes[:1]] == ["model"]
    state.configure(radius=4)
    assert len(state.closeup("model", number, 0).answer) == 9**2
    state.configure(radius=6)
    gone = state.answers["model"][number]
    state.answers["model"][number] = gone._replace(tracks=gone.tracks - 99)
    with pytest.raises(ValueError, match="point 1 should be inside frame 2"):
        state.closeup_figure(2, number)


def test_refusals_change_nothing(state, methods, clip, unchecked):
    state.add(0, 40.0, 32.0)
    for act, message in (
        (lambda: Exploration(clip.video[:1], methods), "at least 2 frames, got 1"),
        (lambda: Exploration(clip.video, {}), "methods should be at least 1"),
        (lambda: state.add(0, 99.0, 5.0), "outside the frame of 75 x 61"),
        (lambda: state.add(9, 9.0, 5.0), r"whole number in 0 \.\. 4, got 9"),
        (lambda: state.remove(3), "there are 1 points, and none with number 3"),
        (lambda: state.configure(wombat=1), "field of TrackerConfig, got wombat"),
        (lambda: state.configure(temperature=0), "temperature should be above 0"),
        (lambda: state.configure(radius=99), "radius should be 0 to 38"),
        (lambda: state.box(1, 1, 2, 9), r"at least 3 x 3 pixels inside the frame, got 2 x 9"),
        (lambda: state.picture("model", 7), r"frame should be in 0 \.\. 4, got 7"),
        (lambda: state.picture("model", 0, overlay="x"), "one of nothing, correlation, probability"),
        (lambda: state.carry(0, torch.zeros(H, W).long()), "background only"),
        (lambda: explorer.explore(None, clip.video, "raft"), 'a model, "dis" or nothing'),
    ):
        with pytest.raises(ValueError, match=message):
            act()
    assert len(state.queries) == 1 and not state.masks and state.methods["model"].config.temperature == 0.05
    state.add(0, 40.0, 32.0)


def test_overlays_draw_where_they_should():
    black = torch.zeros(3, H, W)
    values = torch.zeros(H, W)
    values[10, 20] = 1
    drawn = overlays.draw_map(black, values).float()
    assert drawn[1, 10, 20] > drawn[1, 0, 0] + 80 and black.max() == 0
    mask = torch.zeros(H, W, dtype=torch.int64)
    mask[10:30, 10:30] = 1
    drawn = overlays.draw_masks(black, mask)
    assert drawn[:, 20, 20].max() > 60 and drawn[:, 40, 40].max() == 0
    assert drawn[2, 10, 20] > drawn[2, 20, 20] + 60  # the boundary
    right = overlays.draw_marks(black, None, torch.tensor([[W - 8.0, 30.0]]))
    assert right[:, 20:40, W - 30 : W - 16].max() > 180  # the number stands to the left of a mark at the right border
    drawn = overlays.draw_marks(black, torch.tensor([40.0, 30.0]), torch.zeros(0, 2))
    assert drawn[:, 30, 40].max() == 0 and drawn[0, 30, 48] > 180


def test_clicks_time_and_errors_by_the_widgets(panel, tmp_path):
    shown = panel.canvases["model"].picture
    panel.hear({"kind": "point", "xy": [40.0, 32.0]})
    assert panel.chosen == 0 and "model: point 1 in frame 0" in panel.line.value and "answered in" in panel.line.value
    assert panel.canvases["model"].picture != shown
    image, words = panel.closeups["model"].children
    assert panel.closeups["model"].layout.display == "flex" and panel.closeups["DIS"].layout.display == "none"
    assert cv2.imdecode(np.frombuffer(image.value, np.uint8), cv2.IMREAD_COLOR).shape[0] == CLOSEUP_LINES
    assert "14 pixels around the place" in words.value
    panel.hear({"kind": "point", "xy": [20.0, 20.0]})
    assert panel.chosen == 1
    panel.hear({"kind": "point", "xy": [40.4, 32.4]})  # near the first: chosen, not asked again
    assert panel.chosen == 0 and len(panel.exploration.queries) == 2
    panel.hear({"kind": "step", "by": 1})
    assert panel.time.value == 1 and "in frame 1" in panel.line.value
    panel.hear({"kind": "step", "by": -9})
    assert panel.time.value == 0
    panel.temperature.value = 0.1
    assert panel.exploration.methods["model"].config.temperature == pytest.approx(0.1)
    panel.tool.value = "box"
    assert {canvas.tool for canvas in panel.canvases.values()} == {"box"}
    panel.hear({"kind": "box", "xy": [1.0, 1.0, 2.0, 2.0]})
    assert "⚠ box: should have at least 3 x 3 pixels" in panel.line.value and not panel.exploration.masks
    panel.hear({"kind": "point", "xy": [400.0, 32.0]})
    assert "⚠ follow: point (400, 32) is outside" in panel.line.value
    panel.hear({"kind": "point", "xy": ["a", None]})
    assert "⚠" in panel.line.value
    panel.mask_file.value = str(tmp_path / "none.png")
    assert "no file" in panel.line.value and panel.mask_file.value == ""
    mask = np.zeros((H, W), np.uint8)
    mask[20:40, 20:40] = 255  # black and white
    Image.fromarray(mask).save(tmp_path / "mask.png")
    panel.mask_file.value = str(tmp_path / "mask.png")
    assert panel.exploration.masks["model"][0].sum() == 400
    panel.no_masks.click()
    assert not panel.exploration.masks
    for _ in range(3):
        panel.forget.click()
    assert panel.closeups["model"].layout.display == "none"
    assert panel.chosen == -1 and "no point to forget" in panel.line.value


def test_answers_take_one_thread_and_give_the_others_back(panel, monkeypatch):
    asked = []
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    panel.hear({"kind": "point", "xy": [40.0, 32.0]})
    assert asked == [1, 3, 1, 3]
    panel.hear({"kind": "box", "xy": [10.0, 10.0, 11.0, 11.0]})  # too small: refused before it is carried
    assert asked[4:] == [3, 3] and "⚠ box" in panel.line.value


def test_two_models(model, clip):
    panel = corrlib.explore(model, clip.video, baselines.RawPatchEncoder().eval(), max_frames=3)
    panel.hear({"kind": "point", "xy": [40.0, 32.0]})
    one, two = (panel.exploration.tracks(name).confidence for name in ("model", "other model"))
    assert len(panel.exploration.video) == 3 and not torch.equal(one, two)
