"""Soft labels: closed forms, sums, means, and what is no longer valid."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from corrlib import labels, matching


def window(target, radius=3, centre=(10.0, 7.0)):
    cells = matching.window_cells(torch.tensor([[centre]]), radius)
    return torch.tensor([[target]]), cells


def test_bilinear_by_hand():
    target, cells = window((10.25, 7.0))
    label, valid = labels.soft_label(target, cells)
    assert valid.all()
    middle = 24  # of the 49 offsets of radius 3
    assert label[0, 0, middle] == pytest.approx(0.75) and label[0, 0, middle + 1] == pytest.approx(0.25)
    assert label.count_nonzero() == 2


def test_integer_displacement_is_at_its_offset():
    """x moves by one slot, y by a whole row of the window: dy is the slow index."""
    for kind in ("bilinear", "hard"):
        target, cells = window((12.0, 6.0))
        label, _ = labels.soft_label(target, cells, kind)
        assert label[0, 0].argmax() == 24 + 2 - 7 and label[0, 0].max() == 1


@given(st.floats(7.01, 12.99), st.floats(4.01, 9.99))
def test_bilinear_sums_to_one_and_has_the_target_as_its_mean(x, y):
    target, cells = window((x, y))
    label, valid = labels.soft_label(target, cells)
    assert valid.all() and label.sum().item() == pytest.approx(1, abs=1e-5)
    mean = (label[..., None] * cells).sum(dim=2)
    assert torch.allclose(mean, target, atol=1e-4)


@given(st.floats(7.6, 12.4), st.floats(4.6, 9.4))
def test_hard_is_the_nearest_cell(x, y):
    target, cells = window((x, y))
    label, valid = labels.soft_label(target, cells, "hard")
    assert valid.all() and label.sum() == 1
    nearest = (label[..., None] * cells).sum(dim=2)
    assert (nearest - target).abs().max() <= 0.5 + 1e-5


def test_a_target_beyond_the_window_is_no_label():
    for x in (13.2, 20.0, float("nan")):
        label, valid = labels.soft_label(*window((x, 7.0)))
        assert not valid.any()
        assert not (label > 0).any()


def papers_window(flow_xy, kind, features, at=(40.0, 33.0)):
    """The label in the paper's window of 49 x 49 at a cell's own place, and whether it is valid."""
    own = torch.tensor([[at]])
    target = own + torch.tensor(flow_xy) / 2  # stride 2
    cells = matching.window_cells(own, 24)
    similarity = labels.self_similarity(features, target, cells) if kind in labels.OF_TEACHER else None
    label, valid = labels.soft_label(target, cells, kind, similarity=similarity)
    return label[0, 0], bool(valid)


@pytest.fixture(scope="module")
def texture():
    return torch.randn(1, 16, 70, 81, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kind", labels.KINDS)
def test_zero_flow_has_its_peak_at_the_centre_slot(kind, texture):
    label, valid = papers_window((0.0, 0.0), kind, texture)
    assert valid and label.argmax() == 1200
    assert label.sum().item() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("kind", labels.KINDS)
@pytest.mark.parametrize(("a", "b"), [(3, -7), (24, 24), (-24, 5)])
def test_integer_flow_has_its_peak_at_its_slot(kind, a, b, texture):
    """A flow of (2a, 2b) pixels at stride 2: row 24 + b, column 24 + a, of 49."""
    label, valid = papers_window((2.0 * a, 2.0 * b), kind, texture)
    row, column = divmod(label.argmax().item(), 49)
    assert valid and (row, column) == (24 + b, 24 + a)


@pytest.mark.parametrize("kind", labels.KINDS)
def test_a_flow_beyond_the_window_is_no_label(kind, texture):
    label, valid = papers_window((49.0, 0.0), kind, texture)
    assert not valid and not label.any()


def test_gaussian_by_hand():
    target, cells = window((10.5, 7.0))
    label, valid = labels.soft_label(target, cells, "gaussian", sigma=0.8)
    weight = torch.exp(-(cells - target[:, :, None]).square().sum(-1) / (2 * 0.64))
    assert valid.all() and torch.allclose(label, weight / weight.sum(), atol=1e-6)
    inside = cells[..., 0] <= 11
    label, valid = labels.soft_label(target, cells, "gaussian", outside=~inside)
    assert valid.all() and label.sum().item() == pytest.approx(1, abs=1e-5) and not label[~inside].any()


def test_a_target_between_inside_and_outside_is_no_label():
    target, cells = window((10.5, 7.0))
    for kind in labels.OF_MOTION:
        _, valid = labels.soft_label(target, cells, kind, outside=cells[..., 0] > 10)
        assert not valid.any()


def entropy(label):
    return -torch.special.xlogy(label, label).sum().item()


def test_teacher_labels_broaden_on_flat_texture(texture):
    """Where everything looks alike the teacher cannot tell; elsewhere it is sure."""
    flat = torch.ones_like(texture) + 0.05 * texture
    sharp, broad = (papers_window((0.0, 0.0), "teacher", f)[0] for f in (texture, flat))
    assert entropy(broad) > 7.5 > 3 > entropy(sharp)  # of log 2401 = 7.78
    both = papers_window((0.0, 0.0), "teacher_gaussian", flat)[0]
    alone = papers_window((0.0, 0.0), "gaussian", flat)[0]
    assert torch.allclose(both, alone, atol=0.01)  # of a teacher that knows nothing the Gaussian is left


def test_teacher_label_is_the_softmax_of_similarities_at_the_target(texture):
    """Against a loop: unit features read bilinearly at the target, times those of each cell, over 0.07."""
    target, cells = torch.tensor([[[10.25, 7.5]]]), matching.window_cells(torch.tensor([[[11.0, 6.0]]]), 3)
    unit = torch.nn.functional.normalize(texture, dim=1)[0]
    at = 0.5 * (0.75 * (unit[:, 7, 10] + unit[:, 8, 10]) + 0.25 * (unit[:, 7, 11] + unit[:, 8, 11]))
    expected = torch.tensor([at @ unit[:, int(y), int(x)] / 0.07 for x, y in cells[0, 0]])
    found = labels.self_similarity(texture, target, cells)
    assert torch.allclose(found[0, 0], expected, atol=1e-4)
    label, _ = labels.soft_label(target, cells, "teacher", similarity=found)
    assert torch.allclose(label[0, 0], expected.softmax(0), atol=1e-5)


def test_the_teacher_knows_no_cell_outside_the_map(texture):
    target, cells = torch.tensor([[[1.0, 2.0]]]), matching.window_cells(torch.tensor([[[0.0, 2.0]]]), 3)
    similarity = labels.self_similarity(texture, target, cells)
    outside = cells[..., 0].lt(0) | cells[..., 1].lt(0)
    assert torch.equal(similarity.isneginf(), outside)
    label, valid = labels.soft_label(target, cells, "teacher", similarity=similarity, outside=outside)
    assert valid.all() and not label[outside].any() and label.sum().item() == pytest.approx(1, abs=1e-5)


def test_the_released_norm_is_sharper(texture):
    """Normalised along 70 rows in place of 16 channels, products of positive features exceed 1."""
    positive, cells = texture.relu(), matching.window_cells(torch.tensor([[[40.0, 33.0]]]), 24)
    sharp, usual = (
        labels.self_similarity(positive, torch.tensor([[[40.0, 33.0]]]), cells, 1.0, legacy) for legacy in (True, False)
    )
    assert usual.max().item() == pytest.approx(1, abs=1e-4)
    per_row = positive / positive.norm(dim=2, keepdim=True)
    assert sharp[0, 0, 1200].item() == pytest.approx(per_row[0, :, 33, 40].square().sum().item(), rel=1e-4)


def test_message():
    with pytest.raises(
        ValueError, match="label should be one of bilinear, hard, gaussian, teacher, teacher_gaussian, got 'soft'"
    ):
        labels.soft_label(*window((10.0, 7.0)), "soft")
    with pytest.raises(ValueError, match="sigma should be above 0, got 0"):
        labels.soft_label(*window((10.0, 7.0)), "gaussian", 0.0)
    with pytest.raises(ValueError, match="labels of kind teacher should have a similarity from a teacher, got none"):
        labels.soft_label(*window((10.0, 7.0)), "teacher")
    with pytest.raises(ValueError, match="temperature should be above 0, got 0"):
        labels.self_similarity(torch.rand(1, 2, 20, 20), *window((10.0, 7.0)), temperature=0.0)
