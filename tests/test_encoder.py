"""The encoder: its lattices are where it says, and its features are of unit length."""

import pytest
import torch

from corrlib import coords
from corrlib.encoder import PixelEncoder


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return PixelEncoder(width=8, fine_channels=16).eval()


@pytest.mark.parametrize("size_hw", [(32, 48), (37, 53), (8, 9), (41, 40)])
def test_shapes_follow_the_lattices(encoder, size_hw):
    coarse, fine = encoder(torch.rand(2, 3, *size_hw))
    assert coarse.shape == (2, 32, *coords.lattice_size(size_hw, encoder.coarse_lattice))
    assert fine.shape == (2, 16, *coords.lattice_size(size_hw, encoder.fine_lattice))
    for features in (coarse, fine):
        assert torch.allclose(features.norm(dim=1), torch.ones(()), atol=1e-4)


@pytest.mark.parametrize("which", ["coarse", "fine"])
def test_declared_lattice_by_back_propagation(which):
    """With all weights equal, what a cell looks at is centred on the pixel it is declared to sit at.

    Batch norm is made the identity and the input replaced by positive values, so that every
    path counts; the centre of mass of the gradient is then the centre of the receptive field.
    """
    encoder = PixelEncoder(width=4, fine_channels=4).eval().double()
    for name, parameter in encoder.named_parameters():
        weight = "conv" in name or parameter.ndim == 4
        parameter.data.fill_(1e-2 if weight else (1.0 if name.endswith("weight") else 0.0))
    lattice = getattr(encoder, f"{which}_lattice")
    lab = torch.rand(1, 3, 321, 353, dtype=torch.float64, requires_grad=True)
    at2 = encoder.stem(lab)
    at4 = encoder.stride4(at2)
    at8 = encoder.stride8(at4)
    if which == "coarse":
        out = encoder.coarse(at8)
    else:
        out = encoder.from2(at2)
        for part, stride in ((encoder.from4(at4), 4), (encoder.from8(at8), 8)):
            out = out + coords.relattice(part, coords.Lattice(stride), lattice, (321, 353))
    row, column = out.shape[2] // 2, out.shape[3] // 2
    (gradient,) = torch.autograd.grad(out[0, :, row, column].sum(), lab)
    mass = gradient[0].abs().sum(dim=0)
    y, x = torch.meshgrid(torch.arange(321.0), torch.arange(353.0), indexing="ij")
    centre = torch.stack([(mass * x).sum(), (mass * y).sum()]) / mass.sum()
    declared = coords.to_pixels(torch.tensor([float(column), float(row)]), lattice)
    assert torch.allclose(centre, declared.double(), atol=0.05), (centre, declared)


def test_a_shift_by_one_coarse_cell_shifts_the_features(encoder):
    torch.manual_seed(1)
    wide = torch.rand(1, 3, 120, 256)
    one, two = encoder(wide[..., :-8]), encoder(wide[..., 8:])
    for features, shifted, step in ((one.coarse, two.coarse, 1), (one.fine, two.fine, 4)):
        h, w = features.shape[-2:]
        # Away from the borders, whose padding the dilated blocks carry far inside.
        inner = (slice(None), slice(None), slice(h // 3, h - h // 3), slice(w // 3 + step, w - w // 3))
        moved = (slice(None), slice(None), slice(h // 3, h - h // 3), slice(w // 3, w - w // 3 - step))
        assert torch.allclose(features[inner], shifted[moved], atol=0.05)


def test_size_is_about_a_million():
    count = sum(p.numel() for p in PixelEncoder().parameters())
    assert 0.8e6 < count < 1.2e6


def test_message(encoder):
    with pytest.raises(ValueError, match="at least 8 x 8 pixels, got 7 x 40"):
        encoder(torch.rand(1, 3, 7, 40))
