"""The encoder: its lattices are where it says, and its features are of unit length."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from corrlib import checkpoints, cielab, coords, matching, tracking
from corrlib.encoder import PaperEncoder, PixelEncoder, encode, unit, widened


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


@pytest.mark.parametrize("has", [True, False])
@torch.no_grad()
def test_products_in_bfloat16_change_little_where_there_are_such(encoder, has, monkeypatch):
    monkeypatch.setattr(matching, "multiplies_bfloat16", lambda frames: has)
    frames = torch.rand(1, 3, 64, 80, generator=torch.Generator().manual_seed(0))
    exact = encoder(frames)
    for one, rounded, unrounded in zip(exact, encode(encoder, frames, True), encode(encoder, frames, False)):
        assert rounded.dtype == torch.float32 and torch.equal(unrounded, one)
        assert torch.equal(rounded, one) != has
        assert (rounded.norm(dim=1) - 1).abs().max() < 1e-5 and (rounded * one).sum(dim=1).min() > 0.999


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


def test_a_wider_encoder_begins_with_what_it_was_made_from():
    """And what is new can be learnt: the new channels, what they hear, and what hears them."""
    torch.manual_seed(2)
    narrow = PixelEncoder(8, 16).eval()
    narrow.calibration = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0)
    for norm in (m for m in narrow.modules() if isinstance(m, torch.nn.BatchNorm2d)):
        norm.running_mean.normal_(std=0.1)
        norm.running_var.uniform_(0.5, 2.0)
    wide, frames = widened(narrow, 12), torch.rand(2, 3, 40, 56)
    before, after = narrow.raw(frames), wide.raw(frames)
    assert wide.config == {"width": 12, "fine_channels": 16} and wide.calibration == narrow.calibration
    assert torch.allclose(after.fine, before.fine, atol=1e-5)
    assert torch.allclose(after.coarse[:, :32], before.coarse, atol=1e-5)
    assert 0 < after.coarse[:, 32:].norm() < 0.3 * before.coarse.norm()
    sum((features[0] * features[1]).sum() for features in unit(after)).backward()
    old = {name: value.shape for name, value in narrow.state_dict().items()}
    for name, weight in wide.named_parameters():
        for dim, (now, then) in enumerate(zip(weight.shape, old[name])):
            assert now == then or weight.grad.narrow(dim, then, now - then).any(), (name, dim)
    with pytest.raises(ValueError, match="width should be at least 12, got 8"):
        widened(wide, 8)


def test_message(encoder):
    with pytest.raises(ValueError, match="at least 8 x 8 pixels, got 7 x 40"):
        encoder(torch.rand(1, 3, 7, 40))


@pytest.fixture(scope="module")
def paper():
    torch.manual_seed(0)
    return PaperEncoder().eval()


def test_the_papers_encoder_has_the_papers_size(paper):
    """2.78 M parameters, 45.5 GMAC a frame of 256 x 256, and 150 MiB of correlations a pair."""
    assert sum(p.numel() for p in paper.parameters()) == 2_782_784
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        fine = PaperEncoder().eval().raw(torch.zeros(1, 3, 256, 256)).fine
    convolutions = counter.get_flop_counts()["Global"][torch.ops.aten.convolution]
    assert convolutions / 2 == pytest.approx(45.5e9, rel=0.005)
    assert fine.shape == (1, 256, 128, 128)
    volume = (2 * 24 + 1) ** 2 * fine.shape[2] * fine.shape[3] * 4
    assert volume / 2**20 == pytest.approx(150, abs=0.1)


@pytest.mark.parametrize("stage4", [False, True])
@pytest.mark.parametrize("size_hw", [(37, 53), (8, 9), (41, 40)])
def test_the_papers_lattices(stage4, size_hw):
    model = PaperEncoder(stage4).eval()
    coarse, fine = model.raw(torch.rand(1, 3, *size_hw))
    assert coarse.shape == (1, 512 if stage4 else 256, *coords.lattice_size(size_hw, model.coarse_lattice))
    assert fine.shape == (1, 256, *coords.lattice_size(size_hw, model.fine_lattice))
    if not stage4:  # every fourth cell lies where the coarse lattice says
        assert torch.equal(coarse, fine[..., ::4, ::4])


@pytest.mark.parametrize(("which", "stride"), [("coarse", 8), ("fine", 2)])
def test_the_papers_lattices_by_back_propagation(which, stride, monkeypatch):
    """As above for the small encoder: positive weights and input, batch norm the identity."""
    model = PaperEncoder(stage4=True).eval()
    for name, parameter in model.named_parameters():
        parameter.data.fill_(1e-3 if parameter.ndim == 4 else (1.0 if name.endswith("weight") else 0.0))
    lab = torch.rand(1, 3, 121, 137, requires_grad=True)
    monkeypatch.setattr(cielab, "rgb_to_lab", lambda rgb: lab)
    out = getattr(model.raw(torch.zeros(1, 3, 121, 137)), which)
    row, column = out.shape[2] // 2, out.shape[3] // 2
    (gradient,) = torch.autograd.grad(out[0, :, row, column].sum(), lab)
    mass = gradient[0].abs().sum(dim=0)
    centre = (coords.grid((121, 137)) * mass[..., None]).sum(dim=(0, 1)) / mass.sum()
    declared = coords.to_pixels(torch.tensor([float(column), float(row)]), coords.Lattice(stride))
    assert torch.allclose(centre, declared, atol=0.05), (centre, declared)


def test_blocks_begin_as_their_shortcuts(paper):
    block = paper.stage1[0]
    values = torch.rand(1, 64, 5, 6)
    assert torch.allclose(block(values), values)


@pytest.mark.parametrize("kind", [PixelEncoder, PaperEncoder])
def test_raw_features_point_the_same_way(kind):
    model = kind().eval()
    shown = torch.rand(1, 3, 24, 32)
    for raw, normalised, other in zip(model.raw(shown), model(shown), unit(model.raw(shown))):
        assert torch.equal(normalised, other)
        assert not torch.allclose(raw.norm(dim=1), torch.ones(()), atol=0.01)


@pytest.mark.parametrize("kind", [PixelEncoder, PaperEncoder])
@pytest.mark.parametrize("channel", [1, 2])
def test_a_dropped_channel_never_reaches_the_encoder(kind, channel, monkeypatch):
    """Whatever the channel holds, the features are the same; of the other channels they are not."""
    torch.manual_seed(0)
    model, shown = kind().eval(), torch.rand(1, 3, 24, 32)
    plain = cielab.rgb_to_lab(shown)
    found = {}
    for changed in (None, 1, 2):
        lab = plain.clone()
        if changed:
            lab[:, changed] = torch.rand(24, 32)
        monkeypatch.setattr(cielab, "rgb_to_lab", lambda rgb, lab=lab: lab)
        found[changed] = model.raw(shown, drop=channel).fine
    assert torch.equal(found[None], found[channel])
    assert not torch.allclose(found[None], found[3 - channel], atol=1e-3)


def test_the_papers_encoder_is_saved_and_tracks(tmp_path, paper):
    path = checkpoints.save(tmp_path / "paper.safetensors", paper, {})
    again = checkpoints.load(path)
    assert isinstance(again, PaperEncoder) and again.config == {"stage4": False}
    video = (torch.rand(2, 3, 40, 56) * 255).to(torch.uint8)
    assert torch.equal(paper(video.float() / 255).fine, again(video.float() / 255).fine)
    still = tracking.track_points(again, video[:1].expand(3, -1, -1, -1), torch.tensor([[0.0, 25.0, 18.0]]))
    assert (still.tracks - torch.tensor([25.0, 18.0])).abs().max() < 0.5
