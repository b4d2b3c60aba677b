"""Flow: warping by hand, consistency from its formula, every file format byte by byte."""

import struct

import cv2
import numpy as np
import pytest
import torch

from corrlib import flow


def ramp(size_hw: tuple[int, int] = (37, 53)) -> torch.Tensor:
    """A map whose value at (x, y) is x + 100 y, (1, 1, H, W)."""
    H, W = size_hw
    return (torch.arange(W)[None, :] + 100.0 * torch.arange(H)[:, None])[None, None]


def constant(dx: float, dy: float, size_hw: tuple[int, int] = (37, 53)) -> torch.Tensor:
    """The flow that is (dx, dy) everywhere, (1, 2, H, W)."""
    return torch.tensor([float(dx), float(dy)]).reshape(1, 2, 1, 1).expand(1, 2, *size_hw).clone()


def any_flow(size_hw: tuple[int, int] = (5, 7)) -> torch.Tensor:
    """A flow in which no two numbers are equal, (2, H, W), in steps of 1/64."""
    return torch.arange(2 * size_hw[0] * size_hw[1]).reshape(2, *size_hw) / 64 - 0.5


def test_warp_fetches_where_the_flow_points():
    warped, inside = flow.warp(ramp(), constant(2.5, -1))
    assert torch.allclose(warped[0, 0, 10, 20], torch.tensor(22.5 + 900))
    assert torch.allclose(warped[0, 0, 1:, :50], ramp()[0, 0, :-1, :50] + 2.5, atol=1e-2)
    assert not inside[0, 0].any()  # one row up is outside
    assert inside[0, 1:, :50].all()
    assert not inside[0, :, 51:].any()


def test_warp_outside_is_border_or_zero():
    assert flow.warp(ramp(), constant(-100, 0))[0][0, 0, 3, 3] == pytest.approx(300)
    assert flow.warp(ramp(), constant(-100, 0), padding="zeros")[0][0, 0, 3, 3] == 0


def test_consistency_of_opposite_translations():
    visible = flow.visible_by_consistency(constant(4, -3), constant(-4, 3))
    expected = torch.zeros(1, 37, 53, dtype=torch.bool)
    expected[:, 3:, :49] = True
    assert torch.equal(visible, expected)


@pytest.mark.parametrize(("gap", "seen"), [(1.26, True), (1.27, False)])
def test_consistency_threshold_from_the_formula(gap, seen):
    """|gap|^2 < 0.01 (8^2 + (8 - gap)^2) + 0.5: equality at gap = 1.2625."""
    assert (gap**2 < 0.01 * (64 + (8 - gap) ** 2) + 0.5) == seen
    visible = flow.visible_by_consistency(constant(8, 0), constant(gap - 8, 0))
    assert bool(visible[0, 20, 20]) == seen


def test_consistency_reads_the_backward_flow_where_the_forward_flow_ends():
    """The backward flow agrees only from x = 20 on, so visibility starts 8 pixels before."""
    backward = constant(0, 0)
    backward[:, 0, :, 20:] = -8
    visible = flow.visible_by_consistency(constant(8, 0), backward)
    assert visible[0, 5].nonzero().flatten().tolist() == list(range(12, 45))
    # A gap of 1.5 is too much for flows of 8 and 6.5, whatever the backward flow is at the pixel itself.
    backward[:, 0, :, :20], backward[:, 0, :, 20:] = 100, -6.5
    assert not flow.visible_by_consistency(constant(8, 0), backward)[0, :, :45].any()


def test_consistency_alpha_and_beta():
    forward, backward = constant(8, 0), constant(-6, 0)
    assert not flow.visible_by_consistency(forward, backward)[0, 5, 5]
    assert flow.visible_by_consistency(forward, backward, beta=5.0)[0, 5, 5]
    assert flow.visible_by_consistency(forward, backward, alpha=0.05)[0, 5, 5]


@pytest.mark.parametrize(
    ("forward", "backward", "seen", "seen_by_release"),
    [
        ((8, 0), (-6, 0), False, False),  # |gap|^2 is 4, which should be under 1.5; the release asks for 1.02
        ((8, 0), (-6.9, 0), True, False),  # 1.21 < 1.62, not < 1.14
        ((8, 0), (-7, 0), True, True),  # 1 < 1.63 and < 1.15
        ((-8, 0), (7, 0), True, False),  # the same motion to the left: not < 0.83
        ((0, -8), (0, 7), True, False),
        ((1, 1), (-0.27, -1), False, True),  # 0.533 < 0.551, not < 0.531
        ((40, 0), (-36.3, 0), True, True),  # 13.7 < 29.7 and < 14.5
        ((-40, 0), (36.3, 0), True, False),  # not < 12.9
        ((40, 0), (-36, 0), True, False),  # 16 < 29.5, not < 14.3
    ],
)
def test_the_released_threshold_doubles_where_it_should_square(forward, backward, seen, seen_by_release):
    """0.01 (|f|^2 + |b|^2) + 0.5 against 0.01 (2 (f_x + f_y) + |b|^2) + 0.5, for flows everywhere the same."""
    flows = constant(*forward, (37, 101)), constant(*backward, (37, 101))
    found = [flow.visible_by_consistency(*flows, legacy=legacy)[0, 18, 50] for legacy in (False, True)]
    assert found == [seen, seen_by_release]


def test_resize_flow_scales_each_axis():
    resized = flow.resize_flow(constant(4, 3, (30, 50)), (60, 25))
    assert resized.shape == (1, 2, 60, 25)
    assert torch.allclose(resized, constant(2, 6, (60, 25)))
    assert torch.equal(flow.resize_flow(constant(4, 3), (37, 53)), constant(4, 3))


def test_flo_round_trip(tmp_path):
    values, valid = any_flow(), torch.ones(5, 7, dtype=torch.bool)
    valid[2, 3] = False
    flow.write_flo(tmp_path / "a.flo", values, valid)
    read, known = flow.read_flow(tmp_path / "a.flo")
    assert torch.equal(known, valid)
    assert torch.equal(read, torch.where(valid, values, 0))


def test_flo_bytes(tmp_path):
    """Width before height, (dx, dy) side by side; nan and values of 1e9 or more are unknown."""
    numbers = [1, 2, 3, float("nan"), 5, 2e9]
    (tmp_path / "a.flo").write_bytes(b"PIEH" + struct.pack("<ii6f", 3, 1, *numbers))
    read, known = flow.read_flow(tmp_path / "a.flo")
    assert read.tolist() == [[[1, 0, 0]], [[2, 0, 0]]]
    assert known.tolist() == [[True, False, False]]
    flow.write_flo(tmp_path / "b.flo", torch.tensor([[[1.0, 3.0]], [[2.0, 4.0]]]))
    assert (tmp_path / "b.flo").read_bytes() == b"PIEH" + struct.pack("<ii4f", 2, 1, 1, 2, 3, 4)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"bad\.flo should start with the number 202021\.25"),
        (b"PIEH", r"should start with the number 202021\.25 .*got b'PIEH'"),
        (b"HEIP" + struct.pack("<ii2f", 1, 1, 0, 0), r"should start with the number 202021\.25"),
        (b"PIEH" + struct.pack("<ii5f", 3, 1, *range(5)), r"3 x 1 pixels, .* 24 bytes .*got 20"),
        (b"PIEH" + struct.pack("<ii8f", 3, 1, *range(8)), r"3 x 1 pixels, .* 24 bytes .*got 32"),
        (b"PIEH" + struct.pack("<ii", -3, 1), r"-3 x 1 pixels"),
    ],
)
def test_flo_errors(tmp_path, content, message):
    (tmp_path / "bad.flo").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        flow.read_flow(tmp_path / "bad.flo")


@pytest.mark.parametrize(("scale", "order"), [("-1.0", "<"), ("1", ">"), ("-1", "<"), ("1.000000", ">")])
def test_pfm_rows_are_bottom_up_in_either_byte_order(tmp_path, scale, order):
    values = any_flow()
    stored = np.concatenate([values.numpy(), np.full((1, 5, 7), 9.0)])[:, ::-1].transpose(1, 2, 0)
    header = f"PF\n7 5\n{scale}\n".encode()
    (tmp_path / "a.pfm").write_bytes(header + stored.astype(f"{order}f4").tobytes())
    read, known = flow.read_flow(tmp_path / "a.pfm")
    assert torch.equal(read, values)
    assert known.all()


def test_pfm_not_finite_is_unknown(tmp_path):
    numbers = struct.pack("<6f", 1, 2, 0, float("inf"), 4, 0)
    (tmp_path / "a.pfm").write_bytes(b"PF\n2 1\n-1\n" + numbers)
    read, known = flow.read_flow(tmp_path / "a.pfm")
    assert known.tolist() == [[True, False]]
    assert read.tolist() == [[[1, 0]], [[2, 0]]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"Pf\n2 1\n-1\n" + bytes(24), r"bad\.pfm should start with PF, .* three channels.* got b'Pf"),
        (b"P6\n2 1\n-1\n" + bytes(24), "should start with PF"),
        (b"PF\n2 one\n-1\n" + bytes(24), "should start with PF"),
        (b"PF\n2 1\n-2.5\n" + bytes(24), r"should have scale 1 or -1, got -2\.5"),
        (b"PF\n2 1\n0\n" + bytes(24), r"should have scale 1 or -1, got 0\.0"),
        (b"PF\n2 1\n-1\n" + bytes(20), r"2 x 1 pixels, .* 24 bytes .*got 20"),
        (b"PF\n0 1\n-1\n", "0 x 1 pixels"),
    ],
)
def test_pfm_errors(tmp_path, content, message):
    (tmp_path / "bad.pfm").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        flow.read_flow(tmp_path / "bad.pfm")


def test_kitti_png_round_trip(tmp_path):
    values, valid = any_flow() * 64, torch.ones(5, 7, dtype=torch.bool)
    valid[1, 2] = valid[4, 6] = False
    flow.write_kitti_png(tmp_path / "a.png", values, valid)
    read, known = flow.read_flow(tmp_path / "a.png")
    assert torch.equal(known, valid)
    assert torch.equal(read, torch.where(valid, values, 0))
    flow.write_kitti_png(tmp_path / "b.png", torch.full((2, 3, 5), 0.3))
    assert flow.read_flow(tmp_path / "b.png")[0].unique().tolist() == [19 / 64]


def test_kitti_png_channels(tmp_path):
    """Red is dx, green dy, blue whether they are known."""
    red, green, blue = 2**15 + 64, 2**15 - 128, 1
    cv2.imwrite(str(tmp_path / "a.png"), np.full((3, 5, 3), (blue, green, red), np.uint16))
    read, known = flow.read_flow(tmp_path / "a.png")
    assert read[:, 2, 4].tolist() == [1, -2]
    assert known.all()


@pytest.mark.parametrize("image", [np.zeros((3, 5, 3), np.uint8), np.zeros((3, 5), np.uint16)])
def test_kitti_png_of_another_kind(tmp_path, image):
    cv2.imwrite(str(tmp_path / "bad.png"), image)
    with pytest.raises(ValueError, match=r"bad\.png should be a PNG of three 16-bit channels, got uint"):
        flow.read_flow(tmp_path / "bad.png")


def test_png_that_is_none(tmp_path):
    for content in (b"", b"not an image"):
        (tmp_path / "bad.png").write_bytes(content)
        with pytest.raises(ValueError, match=r"bad\.png should be a PNG .*got no image"):
            flow.read_flow(tmp_path / "bad.png")


def test_kitti_png_range(tmp_path):
    wide = torch.full((2, 3, 5), 512.0)
    with pytest.raises(ValueError, match=r"flow should be in \[-512, 512\) pixels to be stored, got 512"):
        flow.write_kitti_png(tmp_path / "a.png", wide)
    assert not (tmp_path / "a.png").exists()
    flow.write_kitti_png(tmp_path / "a.png", -wide)
    assert flow.read_flow(tmp_path / "a.png")[0].unique().tolist() == [-512]
    unknown = torch.zeros(3, 5, dtype=torch.bool)
    flow.write_kitti_png(tmp_path / "b.png", torch.full((2, 3, 5), float("nan")), unknown)
    assert not flow.read_flow(tmp_path / "b.png")[1].any()


def test_read_flow_names_what_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"read_flow: no file .*gone\.flo"):
        flow.read_flow(tmp_path / "gone.flo")
    with pytest.raises(ValueError, match=r"ending in \.flo, \.pfm or \.png, got .*a\.npy"):
        flow.read_flow(tmp_path / "a.npy")
