"""The streamed search against the whole matrix in float64."""

import math

import pytest
import torch

from corrlib import coords, costs, labels, matching, search
from corrlib.losses import soft_label_cross_entropy

SHAPES = [(2, 11, 5, 7, 13), (1, 1, 3, 1, 1), (1, 8, 4, 37, 53), (2, 3, 2, 1, 9), (1, 1, 6, 5, 41)]  # B, N, C, h, w
TILES = [(1, 29), (3, 64), (7, 100000), search.TILE]
TEMPERATURES = [0.07, 0.01]  # within the bound of unit lengths, and beyond it

each_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)
each_tile = pytest.mark.parametrize("tile", TILES, ids=str)


def problem(shape, dtype=torch.float64, masked=False, seed=0):
    """Random unit-length queries and key, and cells that may be found."""
    B, N, C, h, w = shape
    g = torch.Generator().manual_seed(seed)
    query = torch.nn.functional.normalize(torch.randn(B, N, C, generator=g, dtype=dtype), dim=-1)
    key = matching.unit(torch.randn(B, C, h, w, generator=g, dtype=dtype))
    valid = torch.rand(B, h, w, generator=g) < 0.6
    valid[:, -1, -1] = True
    return query.requires_grad_(), key.requires_grad_(), valid if masked else None


def whole(query, key, temperature, valid=None):
    """Logits, expected cell and log-sum-exp by way of the matrix."""
    logits = torch.einsum("bnc,bchw->bnhw", query, key).flatten(2) / temperature
    if valid is not None:
        logits = logits.masked_fill(~valid.flatten(1)[:, None], -math.inf)
    return logits, logits.softmax(-1) @ coords.grid(key.shape[-2:]).to(key.dtype).flatten(0, 1), logits.logsumexp(-1)


@each_shape
@each_tile
@pytest.mark.parametrize("masked", [False, True])
def test_softmax_equals_the_matrix(shape, tile, masked):
    query, key, valid = problem(shape, masked=masked)
    for temperature in TEMPERATURES:
        _, expected_xy, expected_lse = whole(query, key, temperature, valid)
        xy = search.global_soft_argmax(query, key, temperature, valid, tile)
        lse = search.log_sum_exp(query, key, temperature, valid, tile)
        assert torch.allclose(xy, expected_xy, rtol=1e-10, atol=1e-10)
        assert torch.allclose(lse, expected_lse, rtol=1e-10, atol=1e-10)
        ours = torch.autograd.grad((xy * xy).sum() + (lse * lse).sum(), (query, key))
        theirs = torch.autograd.grad((expected_xy**2).sum() + (expected_lse**2).sum(), (query, key))
        for a, b in zip(ours, theirs):
            assert torch.allclose(a, b, rtol=1e-8, atol=1e-8)


@each_tile
@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_float32_is_within_a_hundred_thousandth(tile, temperature):
    query, key, _ = problem((1, 8, 64, 37, 53), torch.float32)
    # The reference has the very same features: what is compared is the search.
    exact = [x.detach().double().requires_grad_() for x in (query, key)]
    xy = search.global_soft_argmax(query, key, temperature, tile=tile)
    lse = search.log_sum_exp(query, key, temperature, tile=tile)
    _, expected_xy, expected_lse = whole(*exact, temperature)
    assert (xy - expected_xy).abs().max() < 1e-5 * 53
    assert ((lse - expected_lse) / expected_lse).abs().max() < 1e-5
    for ours, theirs, inputs in ((xy, expected_xy, "position"), (lse, expected_lse, "lse")):
        a = torch.autograd.grad(ours.sum(), (query, key), retain_graph=True)
        b = torch.autograd.grad(theirs.sum(), exact, retain_graph=True)
        for one, other in zip(a, b):
            assert ((one - other).norm() / other.norm()) < 1e-5, inputs


@each_shape
@each_tile
@pytest.mark.parametrize("masked", [False, True])
def test_top_k_equals_the_matrix(shape, tile, masked):
    query, key, valid = problem(shape, masked=masked)
    most = shape[3] * shape[4] if valid is None else int(valid.flatten(1).sum(1).min())
    for count in {1, min(4, most), min(60, most)}:
        value, cells = search.top_k(query, key, count, valid, tile)
        expected, number = whole(query, key, 1.0, valid)[0].topk(count, dim=-1)
        assert torch.allclose(value, expected) and not value.requires_grad
        assert torch.equal(cells[..., 0] + shape[4] * cells[..., 1], number.to(cells.dtype))


def test_a_map_finds_itself():
    key = problem((1, 1, 16, 37, 53))[1]
    value, cells = search.top_k(search.as_queries(key), key, 1)
    assert torch.equal(cells[0, :, 0], coords.grid((37, 53)).double().flatten(0, 1))
    assert torch.allclose(value, torch.ones_like(value))


@pytest.mark.parametrize("scale", [1e-3, 30.0, 1e4])
def test_features_of_any_length(scale):
    """Beyond the bound a running maximum keeps exp() from overflowing."""
    query, key, _ = problem((1, 9, 5, 7, 13))
    _, expected_xy, expected_lse = whole(query * scale, key, 0.07)
    for dtype, close in ((torch.float64, 1e-8), (torch.float32, 1e-3)):
        xy = search.global_soft_argmax((query * scale).to(dtype), key.to(dtype), 0.07, tile=(2, 10))
        lse = search.log_sum_exp((query * scale).to(dtype), key.to(dtype), 0.07, tile=(2, 10))
        assert torch.allclose(xy.double(), expected_xy, atol=close, rtol=close)
        assert torch.allclose(lse.double(), expected_lse, rtol=close)


def test_nothing_valid_in_the_first_tiles():
    query, key, _ = problem((1, 9, 5, 7, 13))
    valid = torch.zeros(1, 7, 13, dtype=torch.bool)
    valid[0, 6, 3:5] = True
    for temperature in TEMPERATURES:
        _, expected_xy, expected_lse = whole(query, key, temperature, valid)
        assert torch.allclose(search.global_soft_argmax(query, key, temperature, valid, (4, 6)), expected_xy)
        assert torch.allclose(search.log_sum_exp(query, key, temperature, valid, (4, 6)), expected_lse)
    _, cells = search.top_k(query, key, 2, valid, (4, 6))
    assert (cells[..., 1] == 6).all() and set(cells[..., 0].flatten().tolist()) == {3, 4}


@pytest.mark.parametrize("temperature", [0.5, 0.01])
def test_gradcheck(temperature):
    query, key, valid = problem((2, 3, 4, 3, 5), masked=True)
    for function in (search.global_soft_argmax, search.log_sum_exp):
        assert torch.autograd.gradcheck(lambda q, k, f=function: f(q, k, temperature, valid, (2, 4)), (query, key))


def test_soft_cross_entropy_is_that_of_bilinear_labels():
    query, key, _ = problem((2, 6, 5, 7, 13))
    target = torch.rand(2, 6, 2, dtype=torch.float64) * torch.tensor([12.0, 6.0])
    ours = search.soft_cross_entropy(query, key, target, 0.07, tile=(4, 10))
    cells = coords.grid((7, 13)).double().flatten(0, 1).expand(2, 6, -1, 2)
    label, valid = labels.soft_label(target, cells)
    theirs = soft_label_cross_entropy(whole(query, key, 0.07)[0], label, valid)
    assert valid.all() and torch.allclose(ours.mean(), theirs)
    for a, b in zip(torch.autograd.grad(ours.mean(), (query, key)), torch.autograd.grad(theirs, (query, key))):
        assert torch.allclose(a, b)


def test_fused_attention_agrees():
    """Taken on CUDA only; its coordinates and padding are the same here."""
    for shape in SHAPES:
        query, key, _ = problem(shape)
        assert torch.allclose(search._attend(query, key, 0.07), whole(query, key, 0.07)[1])


def test_a_query_does_not_feel_the_others():
    query, key, _ = problem((1, 30, 16, 37, 53), torch.float32)
    changed = query.detach().clone()
    changed[:, 8:] = -changed[:, 8:]
    for function in (search.global_soft_argmax, search.log_sum_exp):
        assert torch.equal(function(query, key, 0.07)[:, :8], function(changed, key, 0.07)[:, :8])
        alone = function(query[:, :1], key, 0.07)
        assert torch.allclose(alone, function(query, key, 0.07)[:, :1], rtol=1e-5, atol=1e-4)
    assert torch.equal(search.top_k(query, key, 5)[1][:, :1], search.top_k(query[:, :1], key, 5)[1])


def test_memory_of_a_whole_field_is_a_few_tiles():
    """240 lines, stride 2, 64 channels: the matrix would be 2.5 GiB; every 16th query keeps the test short."""
    made = costs.problem((240, 427), 1)
    key = made.key.fine
    query = search.as_queries(made.field.fine)[:, ::16].contiguous()
    tile = 4 * search.TILE[0] * search.TILE[1]
    own = 4 * (3 * key[0, 0].numel() + 8 * query.shape[1])  # coordinates; what is found
    with torch.no_grad():
        assert costs.peak_bytes(lambda: search.global_soft_argmax(query, key, 0.07)) < 2 * tile + own
        assert costs.peak_bytes(lambda: search.top_k(query, key, 1)) < 2 * tile + own
    query, key = query.requires_grad_(), key.requires_grad_()
    gradients = 4 * (query.numel() + key.numel())

    def both():
        return torch.autograd.grad(search.log_sum_exp(query, key, 0.07).sum(), (query, key))

    assert costs.peak_bytes(both) < gradients + 4 * tile + own


FUNCTIONS = [
    lambda q, k, v=None: search.top_k(q, k, 1, v),
    lambda q, k, v=None: search.global_soft_argmax(q, k, 0.07, v),
    lambda q, k, v=None: search.log_sum_exp(q, k, 0.07, v),
]


def bad(like, value=math.nan):
    """A copy with one number that is none."""
    out = like.detach().clone()
    out.view(-1)[1] = value
    return out


@pytest.mark.parametrize("function", FUNCTIONS, ids=["top_k", "soft_argmax", "log_sum_exp"])
def test_bad_features(function, unchecked):
    query, key, _ = problem((2, 3, 4, 5, 7))
    for q, k, says in [
        (query, key[:, :3], "key should have channels 4 like query, got 3"),
        (query, key[:1], "key should have batch size 2 like query, got 1"),
        (query, torch.ones(2, 4, 5, 7, device="meta"), "key should have device cpu like query, got meta"),
        (query, key[..., :0], r"key should have at least one cell and channel, got \(2, 4, 5, 0\)"),
        (bad(query), key, "query should be finite, got nan in 1 places"),
        (query, bad(key, -math.inf), "key should be finite, got -inf in 1 places"),
    ]:
        with pytest.raises(ValueError, match=says):
            function(q, k)
    with pytest.raises(ValueError, match=r"valid should be \(2, 5, 7\) like key, got \(2, 5, 6\)"):
        function(query, key, torch.ones(2, 5, 6, dtype=torch.bool))
    valid = torch.ones(2, 5, 7, dtype=torch.bool)
    valid[1] = False
    with pytest.raises(ValueError, match="valid should hold at least one cell of each map, got none"):
        function(query, key, valid)


def test_bad_counts_and_temperatures():
    query, key, valid = problem((2, 3, 4, 5, 7), masked=True)
    for count in (0, 36):
        with pytest.raises(ValueError, match=f"count should be 1 to 35, the number of candidates, got {count}"):
            search.top_k(query, key, count)
    least = int(valid.flatten(1).sum(1).min())
    with pytest.raises(ValueError, match=f"count should be 1 to {least}, "):
        search.top_k(query, key, least + 1, valid)
    with pytest.raises(ValueError, match=r"temperature should be above 0, got 0\.0"):
        search.log_sum_exp(query, key, 0.0)


def test_no_queries():
    query, key, _ = problem((2, 3, 4, 5, 7))
    assert search.global_soft_argmax(query[:, :0], key, 0.07).shape == (2, 0, 2)
    assert search.top_k(query[:, :0], key, 3)[1].shape == (2, 0, 3, 2)
