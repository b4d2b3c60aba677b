"""Gradient reversal, what the discriminator sees, and how it is judged."""

import math

import pytest
import torch

from corrlib import alignment, matching
from corrlib.alignment import Discriminator


def test_reversal_is_the_identity_forward_and_turns_the_gradient():
    values = torch.randn(2, 3, 5, requires_grad=True)
    out = alignment.reverse_gradient(values, 0.3)
    assert torch.equal(out, values)
    (3 * out).sum().backward()
    assert torch.allclose(values.grad, torch.full_like(values, -0.9))


def test_warm_up_goes_from_nothing_to_all():
    assert alignment.warm_up(0.0) == 0
    assert alignment.warm_up(0.1) == pytest.approx(2 / (1 + math.exp(-1)) - 1, abs=1e-6)
    assert 0.999 < alignment.warm_up(1.0) < 1


def test_the_discriminator_has_the_papers_size():
    wide = Discriminator(2401)
    assert [layer.out_features for layer in wide.layers if hasattr(layer, "out_features")] == [1200, 600, 1]
    assert sum(p.numel() for p in wide.parameters()) == 3_603_601  # 3.60 M
    narrow = Discriminator(256)
    assert [layer.out_features for layer in narrow.layers if hasattr(layer, "out_features")] == [128, 64, 1]
    with pytest.raises(ValueError, match="channels should be at least 4, got 1"):
        Discriminator(1)


def test_the_discriminator_descends_while_the_network_is_sent_uphill():
    """Along its own gradient the discriminator gets better; along the one it sends, it gets worse."""
    torch.manual_seed(0)
    judge, vectors = Discriminator(9), torch.randn(40, 9, requires_grad=True)
    real = torch.randn(40, 9) + 1
    loss, _ = alignment.domain_loss(judge(vectors, 2.0), judge(real))
    (sent,) = torch.autograd.grad(loss, vectors, retain_graph=True)
    assert judge.sent == pytest.approx(sent.norm().item(), rel=1e-5) and judge.sent > 0
    worse, _ = alignment.domain_loss(judge(vectors.detach() - 5 * sent), judge(real))
    assert worse > loss + 1e-4
    own = torch.autograd.grad(loss, list(judge.parameters()))
    with torch.no_grad():
        for parameter, grad in zip(judge.parameters(), own):
            parameter -= 0.1 * grad
    better, _ = alignment.domain_loss(judge(vectors), judge(real))
    assert better < loss
    judge(vectors, 0.0).sum().backward()
    assert judge.sent == 0 and not vectors.grad.any()


def test_domain_loss_by_hand():
    loss, accuracy = alignment.domain_loss(torch.zeros(5), torch.zeros(3))
    assert loss.item() == pytest.approx(math.log(2)) and accuracy == 0.5
    loss, accuracy = alignment.domain_loss(torch.full((5,), -20.0), torch.full((3,), 20.0))
    assert loss < 1e-6 and accuracy == 1
    _, accuracy = alignment.domain_loss(torch.tensor([-1.0, -1.0, 1.0, 1.0]), torch.tensor([1.0]))
    assert accuracy == 0.75  # each domain counts half
    logits, real = torch.randn(6), torch.randn(6)
    truth = torch.cat([torch.zeros(6), torch.ones(6)])
    expected = torch.nn.functional.binary_cross_entropy_with_logits(torch.cat([logits, real]), truth)
    assert alignment.domain_loss(logits, real)[0].item() == pytest.approx(expected.item(), abs=1e-6)


@pytest.mark.parametrize("kind", alignment.INPUTS)
def test_what_the_discriminator_sees(kind):
    """Of every cell the window of the key around it, in the order of windows; outside is 0, never infinite."""
    g = torch.Generator().manual_seed(1)
    query, key = torch.randn(2, 6, 5, 7, generator=g), torch.randn(2, 6, 5, 7, generator=g)
    if kind in ("normalised", "softmax"):
        query, key = matching.unit(query), matching.unit(key)
    seen = alignment.domain_vectors(query, key, alignment.some_cells((5, 7), 2, 0), 2, kind)
    products = matching.local_correlation(query, key, 2).flatten(1, 2)
    expected = {
        "features": query.flatten(2).mT,
        "softmax": (products / 0.07).softmax(dim=-1),
    }.get(kind, products.masked_fill(products.isneginf(), 0.0))
    assert torch.isfinite(seen).all()
    assert torch.allclose(seen, expected, atol=1e-5)


def test_some_cells_are_whole_inside_and_none_twice():
    torch.manual_seed(0)
    cells = alignment.some_cells((4, 6), 3, 20)
    assert cells.shape == (3, 20, 2)
    for one in cells.long():
        assert len({tuple(c.tolist()) for c in one}) == 20
        assert (one >= 0).all() and (one < torch.tensor([6, 4])).all()
    assert alignment.some_cells((4, 6), 1, 0).shape == alignment.some_cells((4, 6), 1, 99).shape == (1, 24, 2)


def test_messages():
    features = torch.rand(1, 3, 4, 5)
    with pytest.raises(ValueError, match="kind should be one of raw, normalised, softmax, features, got 'logits'"):
        alignment.domain_vectors(features, features, torch.zeros(1, 1, 2), 1, "logits")
    with pytest.raises(ValueError, match="radius should be 0 to 5, the longer side of the map, got 6"):
        alignment.domain_vectors(features, features, torch.zeros(1, 1, 2), 6)
