"""Correlation in windows, and the read-outs; `windows`, the products behind them, is tested through them."""

import math

import pytest
import torch

from corrlib import coords, costs, matching, windows

MAPS = [(1, 3, 1, 1), (2, 5, 7, 13), (1, 4, 37, 53), (1, 6, 5, 41)]  # B, C, h, w


def maps(shape, seed=0, dtype=torch.float64):
    """Two random maps of unit-length features."""
    g = torch.Generator().manual_seed(seed)
    return tuple(matching.unit(torch.randn(*shape, generator=g, dtype=dtype)) for _ in range(2))


def window_by_hand(query, key, centre, radius):
    """A loop over windows: every product of its own, -inf outside."""
    B, N, _ = query.shape
    h, w = key.shape[-2:]
    out = []
    for b in range(B):
        for n in range(N):
            x0, y0 = (int(c) for c in centre[b, n].round())
            for y in range(y0 - radius, y0 + radius + 1):
                for x in range(x0 - radius, x0 + radius + 1):
                    there = 0 <= x < w and 0 <= y < h
                    out.append((query[b, n] * key[b, :, y, x]).sum() if there else query.new_tensor(-math.inf))
    return torch.stack(out).reshape(B, N, -1)


def gradients(correlation, *inputs):
    """Of a weighted sum of what is finite, the weights of each entry its own."""
    weights = torch.linspace(0.5, 1.5, correlation.numel(), dtype=correlation.dtype).reshape(correlation.shape)
    return torch.autograd.grad((correlation.masked_fill(correlation.isinf(), 0) * weights).sum(), inputs)


def test_unit_and_features_at():
    features = maps((1, 5, 7, 9))[0] * 3
    assert torch.allclose(matching.unit(features).norm(dim=1), torch.ones(1, 7, 9, dtype=torch.float64))
    read = matching.features_at(features, torch.tensor([[[2.0, 3.0], [-4.0, 0.0]]], dtype=torch.float64))
    assert torch.allclose(read[0, 0], matching.unit(features)[0, :, 3, 2])
    assert torch.allclose(read[0, 1], matching.unit(features)[0, :, 0, 0])  # beyond the map its edge


def test_correlate_is_the_inner_product():
    query, key = maps((2, 4, 5, 8))
    out = matching.correlate(query.flatten(2).mT, key)
    assert torch.allclose(out[1, 2 * 8 + 3, 4, 1], (query[1, :, 2, 3] * key[1, :, 4, 1]).sum())


@pytest.mark.parametrize("shape", MAPS)
@pytest.mark.parametrize("tile", [1, 300, 2**21])
@pytest.mark.parametrize("shared", [0, 10**6])
def test_window_correlation_equals_a_loop(shape, tile, shared, monkeypatch):
    monkeypatch.setattr(windows, "TILE", tile)
    monkeypatch.setattr(windows, "SHARED", shared)
    radius = min(2, max(shape[2:]))
    _, key = maps(shape)
    g = torch.Generator().manual_seed(1)
    query = torch.randn(shape[0], 6, shape[1], generator=g, dtype=torch.float64).requires_grad_()
    centre = torch.rand(shape[0], 6, 2, generator=g, dtype=torch.float64)
    centre = centre * torch.tensor([shape[3] + 4, shape[2] + 4]) - 2  # some of them outside
    for layout in (key, key.contiguous(memory_format=torch.channels_last), key.mT.contiguous().mT):
        layout = layout.detach().requires_grad_()
        out, cells = matching.window_correlation(query, layout, centre, radius)
        expected = window_by_hand(query, layout, centre, radius)
        assert torch.equal(out.isinf(), expected.isinf())
        assert torch.allclose(out, expected)
        for ours, theirs in zip(gradients(out, query, layout), gradients(expected, query, layout)):
            assert torch.allclose(ours, theirs)
        assert torch.equal(cells, matching.window_cells(centre, radius))


def test_windows_are_listed_row_by_row():
    key = torch.arange(35.0).reshape(1, 1, 5, 7)
    out, cells = matching.window_correlation(torch.ones(1, 1, 1), key, torch.tensor([[[2.0, 1.0]]]), 1)
    assert out[0, 0].tolist() == [1, 2, 3, 8, 9, 10, 15, 16, 17]
    assert cells[0, 0, 1].tolist() == [2, 0] and cells[0, 0, 3].tolist() == [1, 1]
    local = matching.local_correlation(torch.ones_like(key), key, 1)
    assert local[0, 1, 2].tolist() == out[0, 0].tolist()


def test_window_features():
    _, key = maps((2, 3, 5, 7))
    centre = torch.tensor([[[0.0, 0.0]], [[3.4, 2.0]]], dtype=torch.float64)
    rows, cells = matching.window_features(key, centre, 1)
    assert (rows[0, 0, :4] == 0).all() and torch.equal(rows[0, 0, 4], key[0, :, 0, 0])
    assert torch.equal(rows[1, 0, 5], key[1, :, 2, 4]) and cells[1, 0, 5].tolist() == [4, 2]


@pytest.mark.parametrize("shape", MAPS)
@pytest.mark.parametrize("radius", [0, 1, 5, 9, 24])
@pytest.mark.parametrize("tile", [1, 2**21])
def test_local_correlation_equals_windows_around_every_cell(shape, radius, tile, monkeypatch):
    monkeypatch.setattr(windows, "TILE", tile)
    radius = min(radius, max(shape[2:]))
    query, key = (m.requires_grad_() for m in maps(shape))
    out = matching.local_correlation(query, key, radius)
    centre = coords.grid(shape[2:]).double().flatten(0, 1).expand(shape[0], -1, 2)
    expected, _ = matching.window_correlation(query.flatten(2).mT, key, centre, radius)
    expected = expected.unflatten(1, shape[2:])
    assert out.is_contiguous() and torch.equal(out.isinf(), expected.isinf())
    assert torch.allclose(out, expected)
    for ours, theirs in zip(gradients(out, query, key), gradients(expected, query, key)):
        assert torch.allclose(ours, theirs)


def test_float32_agrees_with_float64():
    query, key = maps((1, 64, 37, 53), dtype=torch.float32)
    ours = matching.local_correlation(query, key, 7)
    exact = matching.local_correlation(query.double(), key.double(), 7)
    inside = ~exact.isinf()
    assert (ours[inside] - exact[inside]).abs().max() < 1e-6


def test_gradcheck():
    query, key = (m.requires_grad_() for m in maps((2, 3, 4, 5)))

    def local(q, k):
        out = matching.local_correlation(q, k, 2)
        return out.masked_fill(out.isinf(), 0)

    assert torch.autograd.gradcheck(local, (query, key))
    centre = torch.tensor([[[0.2, 0.7], [4.0, 3.0]]] * 2, dtype=torch.float64)

    def window(q, k):
        out, _ = matching.window_correlation(q.flatten(2).mT[:, :2], k, centre, 1)
        return out.masked_fill(out.isinf(), 0)

    assert torch.autograd.gradcheck(window, (query, key))


def test_what_a_softmax_sends_back_outside_the_map_is_ignored():
    """Its gradient at -inf is 0 times infinity in some losses: it must not spoil what is inside."""
    query, key = (m.requires_grad_() for m in maps((1, 3, 4, 5)))
    out = matching.local_correlation(query, key, 2)
    out.backward(torch.ones_like(out).masked_fill(out.isinf(), math.nan))
    assert query.grad.isfinite().all() and key.grad.isfinite().all()


def test_a_query_does_not_feel_the_others():
    query, key = maps((1, 8, 20, 31), dtype=torch.float32)
    vectors, centre = query.flatten(2).mT, coords.grid((20, 31)).flatten(0, 1)[None]
    alone, _ = matching.window_correlation(vectors[:, 100:101], key, centre[:, 100:101], 3)
    together, _ = matching.window_correlation(vectors, key, centre, 3)
    assert torch.allclose(alone[0, 0], together[0, 100], atol=1e-6)
    changed = vectors.clone()
    changed[:, :100] = -changed[:, :100]
    assert torch.equal(matching.window_correlation(changed, key, centre, 3)[0][0, 100], together[0, 100])


def test_memory_is_the_result_and_some_tiles():
    """240 lines at stride 2: nothing grows with cells x window x channels (83 MiB for the first of these)."""
    query, key = (m.contiguous(memory_format=torch.channels_last) for m in maps((1, 32, 120, 214), dtype=torch.float32))
    tile = 4 * windows.TILE
    result = 4 * 120 * 214 * 25
    assert costs.peak_bytes(lambda: matching.local_correlation(query, key, 2)) < result + 2 * tile
    query, key = query.requires_grad_(), key.requires_grad_()
    features = 4 * query.numel()

    def both():
        out = matching.local_correlation(query, key, 2)
        return torch.autograd.grad(out, (query, key), torch.ones_like(out))

    assert costs.peak_bytes(both) < 2 * result + 4 * features + 2 * tile
    vectors, centre = query.flatten(2).mT[:, ::50], torch.full((1, 514, 2), 60.0)

    def windows_of_points():
        out, _ = matching.window_correlation(vectors, key, centre, 12)
        return torch.autograd.grad(out, (query, key), torch.ones_like(out))

    gathered = 4 * 514 * 625 * 32  # what autograd through a gather would keep: 39 MiB
    assert costs.peak_bytes(windows_of_points) < gathered + 2 * features


def test_soft_argmax_and_peak():
    cells = coords.window_offsets(1)
    logits = torch.full((9,), -math.inf)
    logits[2], logits[5] = 0.0, math.log(3.0)
    assert matching.soft_argmax(logits, cells).tolist() == pytest.approx([1, -0.25])
    values = torch.zeros(2, 5, 7)
    values[0, 3, 6], values[1, 0, 2] = 1, 2
    assert matching.peak(values).tolist() == [[6, 3], [2, 0]]


def test_top_peaks():
    values = torch.zeros(1, 6, 9)
    values[0, 1, 1], values[0, 1, 2], values[0, 4, 7] = 3, 2.5, 1
    assert matching.top_peaks(values, 2)[0].tolist() == [[1, 1], [7, 4]]  # (2, 1) is on the slope of the first
    around = torch.nn.functional.max_pool2d(values[:, None], 3, 1, 1)[:, 0]
    assert torch.equal(matching._widen(matching._widen(values, 1), 2), around)
    assert matching.top_peaks(torch.ones(2, 1, 1), 3).shape == (2, 1, 2)


def bad(at=(0, 0, 1, 1), value=math.nan):
    """Features with one number that is none."""
    features = maps((1, 4, 5, 7), dtype=torch.float32)[0].clone()
    features[at] = value
    return features


@pytest.mark.parametrize(
    ("key", "says"),
    [
        (torch.ones(1, 3, 5, 7), r"key should have channels 4 like query, got 3"),
        (torch.ones(2, 4, 5, 7), r"key should have batch size 1 like query, got 2"),
        (torch.ones(1, 4, 5, 7, device="meta"), "key should have device cpu like query, got meta"),
        (torch.ones(1, 4, 0, 7), r"key should have at least one cell and channel, got \(1, 4, 0, 7\)"),
        (bad(), r"key should be finite, got nan in 1 places"),
        (bad(value=-math.inf), r"key should be finite, got -inf in 1 places"),
    ],
)
def test_bad_keys(key, says, unchecked):
    query = maps((1, 4, 5, 7), dtype=torch.float32)[0]
    centre = torch.tensor([[[1.0, 1.0]]])
    with pytest.raises(ValueError, match=f"correlate: {says}"):
        matching.correlate(query.flatten(2).mT, key)
    with pytest.raises(ValueError, match=f"window_correlation: {says}"):
        matching.window_correlation(query.flatten(2).mT[:, :1], key, centre, 1)
    if key.shape == query.shape:
        with pytest.raises(ValueError, match=f"local_correlation: {says}"):
            matching.local_correlation(query, key, 1)


def test_bad_queries_and_radii(unchecked):
    query, key = maps((1, 4, 5, 7), dtype=torch.float32)
    with pytest.raises(ValueError, match="query should be finite, got nan in 1 places"):
        matching.local_correlation(bad(), key, 1)
    with pytest.raises(ValueError, match=r"key should be \(1, 4, 5, 7\) like query, got \(1, 4, 5, 6\)"):
        matching.local_correlation(query, key[..., :6], 1)
    for radius in (-1, 8):
        with pytest.raises(ValueError, match=f"radius should be 0 to 7, the longer side of the map, got {radius}"):
            matching.local_correlation(query, key, radius)
        with pytest.raises(ValueError, match=f"radius should be 0 to 7, the longer side of the map, got {radius}"):
            matching.window_correlation(query.flatten(2).mT, key, torch.zeros(1, 35, 2), radius)
