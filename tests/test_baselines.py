"""Baselines: known motion, both directions of time, and descriptors with known symmetries."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from corrlib import baselines, cielab, coords, frames

TRACKERS = [baselines.track_lk, baselines.track_dis, baselines.track_farneback]
ENCODERS = [baselines.SiftEncoder(), baselines.RawPatchEncoder()]


def texture(size_hw, seed=0):
    """Smooth coloured noise in [0, 1]."""
    H, W = size_hw
    noise = torch.rand(1, 3, H // 4 + 2, W // 4 + 2, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(noise, size=size_hw, mode="bicubic", align_corners=False).clamp(0, 1)[0]


def translating(T, step_xy, size_hw=(96, 132)):
    """A clip whose content moves by whole pixels a frame, cut from a larger texture."""
    (dx, dy), (H, W) = step_xy, size_hw
    large = texture((H + 2 * T * abs(dy), W + 2 * T * abs(dx)))
    y0, x0 = T * abs(dy), T * abs(dx)
    crops = [large[:, y0 - t * dy : y0 - t * dy + H, x0 - t * dx : x0 - t * dx + W] for t in range(T)]
    return (torch.stack(crops) * 255).round().to(torch.uint8)


def expected(queries, T, step_xy):
    """Where the points of a translating clip are, (T, N, 2)."""
    elapsed = torch.arange(T)[:, None] - queries[None, :, 0]
    return queries[None, :, 1:] + elapsed[..., None] * torch.tensor(step_xy)


QUERIES = torch.tensor([[0, 60.0, 40.0], [2, 70.5, 50.25], [5, 64.0, 44.0]])


def test_static_stays():
    out = baselines.track_static(translating(6, (2, 1)), QUERIES)
    assert torch.equal(out.tracks, QUERIES[:, 1:].expand(6, 3, 2))
    assert out.visible.all() and (out.confidence == 1).all()


def test_static_counts_the_frames_of_a_file(tmp_path):
    path = frames.write_video(tmp_path / "clip.webm", translating(4, (1, 0)))
    assert baselines.track_static(path, [[3, 5.0, 5.0]]).tracks.shape == (4, 1, 2)


@pytest.mark.parametrize("tracker", TRACKERS)
@pytest.mark.parametrize("step_xy", [(2, 1), (-3, 0)])
def test_points_follow_a_translation_in_both_directions_of_time(tracker, step_xy):
    out = tracker(translating(6, step_xy), QUERIES)
    assert out.tracks.shape == (6, 3, 2) and out.visible.shape == out.confidence.shape == (6, 3)
    assert (out.tracks - expected(QUERIES, 6, step_xy)).norm(dim=-1).max() < 0.5
    assert out.visible.all()
    assert (out.confidence > 0.3).all() and (out.confidence <= 1).all()
    for n, t in enumerate([0, 2, 5]):
        assert torch.equal(out.tracks[t, n], QUERIES[n, 1:])


@pytest.mark.parametrize("tracker", TRACKERS)
def test_points_stay_in_identical_frames(tracker):
    video = translating(1, (0, 0)).expand(3, 3, 96, 132)
    out = tracker(video, QUERIES[:2])
    assert (out.tracks - QUERIES[:2, 1:]).abs().max() < 0.05


@pytest.mark.parametrize("tracker", TRACKERS)
def test_a_point_that_leaves_is_no_longer_visible(tracker):
    out = tracker(translating(8, (-4, 0)), [[0, 14.0, 48.0], [0, 80.0, 48.0]])
    assert out.visible[:2].all()
    assert not out.visible[5:, 0].any()
    assert out.visible[:, 1].all()


@pytest.mark.parametrize("tracker", TRACKERS)
def test_a_point_that_is_covered_is_no_longer_visible(tracker):
    video = texture((96, 132)).expand(4, 3, 96, 132).clone()
    video[2:, :, 30:70, 40:90] = texture((40, 50), seed=7)
    out = tracker((video * 255).round().to(torch.uint8), [[0, 65.0, 50.0], [0, 15.0, 20.0]])
    assert out.visible[:2].all()
    assert not out.visible[2:, 0].any()
    assert (out.confidence[2:, 0] == 0).all()
    assert out.visible[:, 1].all()


def test_a_track_does_not_depend_on_the_other_points():
    video = translating(6, (2, 1))
    together = baselines.track_dis(video, QUERIES)
    alone = baselines.track_dis(video, QUERIES[1:2])
    assert torch.equal(together.tracks[:, 1:2], alone.tracks)


def test_a_small_pair_has_one_flow_however_often_it_is_asked():
    """OpenCV's object changes on frames as small as these."""
    a, b = baselines._greys(translating(2, (2, 1), (64, 80)))
    for preset in baselines.DIS_PRESETS:
        flow = baselines._dis("test", preset)
        assert np.array_equal(flow(a, b), flow(a, b))


def test_static_masks_stay():
    mask = torch.eye(96, 132, dtype=torch.long)
    found = baselines.propagate_masks_static(translating(3, (2, 1)), mask)
    assert torch.equal(found, mask.expand(3, 96, 132))


def test_farneback_carries_masks():
    video, mask = translating(3, (2, 1)), torch.zeros(96, 132, dtype=torch.long)
    mask[30:60, 40:80] = 1
    found = baselines.propagate_masks_farneback(video, mask)[2]
    moved = mask.roll((2, 4), (0, 1))
    assert ((found & moved).sum() / (found | moved).sum()) > 0.95


@pytest.mark.parametrize("tracker", TRACKERS)
@pytest.mark.parametrize("kind", ["array", "float", "list of lists"])
def test_other_kinds_of_input(tracker, kind):
    video = translating(3, (1, 0))
    queries = [[0, 60.0, 40.0]]
    reference = tracker(video, torch.tensor(queries))
    video = {"array": video.numpy(), "float": video / 255, "list of lists": video}[kind]
    assert torch.equal(tracker(video, queries).tracks, reference.tracks)


@pytest.mark.parametrize("tracker", [baselines.track_static, *TRACKERS])
def test_one_frame(tracker):
    out = tracker(translating(1, (0, 0)), [[0, 60.0, 40.0]])
    assert out.tracks.tolist() == [[[60.0, 40.0]]] and out.visible.all()


@pytest.mark.parametrize("tracker", [baselines.track_static, *TRACKERS])
@pytest.mark.parametrize(
    ("queries", "message"),
    [
        (torch.zeros(0, 3), r"should be \(N, 3\) as \(t, x, y\), N at least 1, got \(0, 3\)"),
        ([[60.0, 40.0]], r"should be \(N, 3\) .* got \(1, 2\)"),
        ([[0, 5, 5], [3, 5, 5]], r"point 1 should be .* t in 0 \.\. 2 .* got \(3, 5, 5\)"),
        ([[0.5, 5, 5]], r"point 0 should .* got \(0\.5, 5, 5\)"),
        ([[0, 131.6, 5]], r"point 0 should .* inside the 132 x 96 frame, got \(0, 131\.6, 5\)"),
        ([[0, float("nan"), 5]], r"point 0 should .* got \(0, nan, 5\)"),
    ],
)
def test_query_errors(tracker, queries, message):
    with pytest.raises(ValueError, match=message):
        tracker(translating(3, (1, 0)), queries)


def test_preset_error():
    with pytest.raises(ValueError, match="preset should be one of ultrafast, fast, medium, got slow"):
        baselines.track_dis(translating(2, (1, 0)), QUERIES[:1], preset="slow")


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("size_hw", [(32, 48), (37, 53), (9, 8)])
def test_encoder_lattices_and_length(encoder, size_hw):
    features = encoder(torch.stack([texture(size_hw), torch.zeros(3, *size_hw)]))
    for values, lattice in ((features.coarse, encoder.coarse_lattice), (features.fine, encoder.fine_lattice)):
        assert values.shape[0] == 2 and values.shape[2:] == coords.lattice_size(size_hw, lattice)
        assert torch.allclose(values.norm(dim=1), torch.ones(()), atol=1e-5)  # the black frame too


@pytest.mark.parametrize("encoder", ENCODERS)
@settings(max_examples=5, deadline=None)
@given(cells_xy=st.tuples(st.integers(0, 2), st.integers(0, 2)))
def test_shifting_by_a_stride_shifts_by_a_cell(encoder, cells_xy):
    large, (cx, cy) = texture((120, 136)), cells_xy
    for name, stride in (("coarse", 8), ("fine", 2)):
        dx, dy = cx * stride, cy * stride
        still = getattr(encoder(large[None, :, :96, :112]), name)
        moved = getattr(encoder(large[None, :, dy : dy + 96, dx : dx + 112]), name)
        margin = 24 // stride + 1
        inner = moved[..., margin : -margin - 2, margin : -margin - 2]
        rows, columns = inner.shape[-2:]
        there = still[..., margin + cy : margin + cy + rows, margin + cx : margin + cx + columns]
        assert torch.allclose(inner, there, atol=1e-5)


def test_descriptors_are_centred_on_their_pixels():
    """Mirroring a frame about a cell's pixel mirrors that cell's bins and directions, and nothing else."""
    image = texture((65, 81))  # odd: pixel (40, 32) is the middle, and cell (5, 4) and (20, 16)
    for name, (row, column) in (("coarse", (4, 5)), ("fine", (16, 20))):
        plain, mirrored, upside_down = (
            getattr(ENCODERS[0](image.flip(axes)[None]), name)[0, :, row, column].reshape(8, 4, 4)
            for axes in ((), (2,), (1,))
        )  # direction, x, y
        directions = torch.arange(8)
        assert torch.allclose(mirrored, plain[(4 - directions) % 8].flip(1), atol=1e-5)
        assert torch.allclose(upside_down, plain[-directions % 8].flip(2), atol=1e-5)
        assert not torch.allclose(mirrored, plain, atol=1e-2)


def test_sift_of_a_ramp():
    """A ramp to the right has one direction, and the same in every bin of the middle."""
    ramp = torch.linspace(0, 1, 81).expand(1, 3, 65, 81)
    descriptor = ENCODERS[0](ramp).fine[0, :, 16, 20].reshape(8, 16)
    assert torch.allclose(descriptor[0], torch.full((16,), 0.25), atol=1e-3)
    assert descriptor[1:].abs().max() < 1e-3


def test_sift_orientation_is_shared_linearly():
    """A gradient at 22.5 degrees lies half in the first direction and half in the second."""
    angle = torch.tensor(torch.pi / 8)
    x, y = coords.grid((37, 53)).unbind(-1)
    ramp = (x * angle.cos() + y * angle.sin()) / 100
    shares = baselines._orientations(ramp[None, None])[0, :, 18, 26]
    assert torch.allclose(shares, torch.tensor([0.005, 0.005, 0, 0, 0, 0, 0, 0]), atol=1e-6)


@pytest.mark.parametrize("bin_px", [3, 8])
def test_histograms_equal_a_double_loop(bin_px):
    gradients = torch.rand(1, 8, 37, 53, generator=torch.Generator().manual_seed(0)) ** 8
    fast = baselines._histograms(gradients, 2, bin_px)[0, :, 9, 13]  # at pixel (26, 18)
    slow = torch.zeros(8, 4, 4)
    for i in range(4):
        for j in range(4):
            for y in range(37):
                for x in range(53):
                    near_x = 1 - abs(x - 26 - (i - 1.5) * bin_px) / bin_px
                    near_y = 1 - abs(y - 18 - (j - 1.5) * bin_px) / bin_px
                    slow[:, i, j] += gradients[0, :, y, x] * max(near_x, 0) * max(near_y, 0)
    slow = F.normalize(F.normalize(slow.flatten(), dim=0).clamp(max=0.2), dim=0)
    assert torch.allclose(fast, slow, atol=1e-5)


def test_sift_ignores_contrast_and_brightness():
    image = texture((37, 53))
    plain, changed = ENCODERS[0](image[None]), ENCODERS[0](image[None] * 0.5 + 0.2)
    assert torch.allclose(plain.coarse, changed.coarse, atol=1e-3)
    assert torch.allclose(plain.fine, changed.fine, atol=1e-3)


def test_raw_patch_is_the_patch_around_the_pixel():
    image = texture((37, 53))
    lab = cielab.rgb_to_lab(image[None])[0, :, 16:21, 24:29]  # around (26, 18)
    patch = (lab - lab.mean(dim=(1, 2), keepdim=True)).flatten()
    got = ENCODERS[1](image[None]).fine[0, :, 9, 13]
    assert torch.allclose(got[:75], F.normalize(patch, dim=0), atol=1e-4) and not got[75:].any()
