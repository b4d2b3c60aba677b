"""torchvision's networks as rivals: the lattices they claim, the weights they insist on."""

import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from corrlib import _torchvision, coords, losses, training, training_step
from corrlib.encoder import PixelEncoder
from corrlib.torchvision_models import RaftSmall, ResNet18Encoder


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """torchvision's files, of weights drawn at random."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    for name, module in (("resnet18", "torchvision.models"), ("raft_small", "torchvision.models.optical_flow")):
        net = getattr(_torchvision.load(module), name)(weights=None)
        torch.save(net.state_dict(), folder / f"{name}.pth")
    return folder


def test_torchvision_loads_beside_any_torch():
    """In a process of its own, where nothing has mended the import yet."""
    code = "from corrlib import _torchvision as t; print(t.load('torchvision.models').resnet18, t.load().__version__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "resnet18" in done.stdout
    with pytest.raises(ModuleNotFoundError):
        _torchvision.load("torchvision.nothing")


@pytest.mark.parametrize("size_hw", [(32, 48), (37, 53)])
def test_resnet18_has_the_lattices_it_declares(weights, size_hw):
    encoder = ResNet18Encoder(weights / "resnet18.pth")
    with torch.no_grad():
        features = encoder(torch.rand(1, 3, *size_hw))
    for values, lattice in zip(features, (encoder.coarse_lattice, encoder.fine_lattice)):
        assert tuple(values.shape[2:]) == coords.lattice_size(size_hw, lattice)
        torch.testing.assert_close(values.norm(dim=1), torch.ones_like(values[:, 0]))


def test_resnet18_cells_sit_where_they_look(weights):
    """With weights above 0 nothing is cut off by a ReLU, and what a cell sees is centred on its pixel."""
    encoder = ResNet18Encoder(weights / "resnet18.pth").requires_grad_(False)
    for parameter in encoder.parameters():
        parameter.fill_(0.01)
    image = torch.full((1, 3, 161, 177), 2.0, requires_grad=True)
    for values, lattice in zip(encoder(image), (encoder.coarse_lattice, encoder.fine_lattice)):
        y, x = (n // 4 * 2 for n in values.shape[2:])
        (gradient,) = torch.autograd.grad(values[0, :, y, x].square().sum(), image, retain_graph=True)
        seen = gradient[0].abs().sum(0) > 0
        middle = torch.stack([seen.any(dim).nonzero().float().mean() for dim in (0, 1)])
        torch.testing.assert_close(middle, coords.to_pixels(torch.tensor([float(x), float(y)]), lattice))


def test_raft_small_takes_any_size_and_gives_pixels(weights):
    raft = RaftSmall(weights / "raft_small.pth", updates=2)
    frames = (torch.rand(2, 3, 37, 53) * 255).to(torch.uint8)
    flow = raft.flow(frames[0], frames[1])
    assert flow.shape == (37, 53, 2) and flow.dtype.name == "float32"
    masks = raft.propagate_masks(frames, torch.eye(37, 53, dtype=torch.long))
    assert masks.shape == (2, 37, 53)


def test_weights_are_insisted_on(weights, tmp_path):
    for network, other in ((ResNet18Encoder, "raft_small"), (RaftSmall, "resnet18")):
        with pytest.raises(FileNotFoundError, match=rf"{network.__name__}: no file .*gone\.pth; weights are never"):
            network(tmp_path / "gone.pth")
        with pytest.raises(ValueError, match=rf"{other}\.pth should hold torchvision's weights .* got other tensors"):
            network(weights / f"{other}.pth")
        for name in ("bad.pth", "bad.safetensors"):
            (tmp_path / name).write_bytes(b"nothing")
            with pytest.raises(ValueError, match=rf"{name} should hold .* got no file of tensors"):
                network(tmp_path / name)


def test_safetensors_are_the_same(weights, tmp_path):
    state = torch.load(weights / "resnet18.pth", weights_only=True)
    save_file(state, tmp_path / "resnet18.safetensors")
    image = torch.rand(1, 3, 32, 48)
    one, two = (ResNet18Encoder(p) for p in (weights / "resnet18.pth", tmp_path / "resnet18.safetensors"))
    assert torch.equal(one(image).fine, two(image).fine)


def test_resnet18_teaches_our_encoder(weights, monkeypatch):
    """Its lattices are ours: a step by its labels, each of which sums to 1, and it stays as it was."""
    teacher, student = ResNet18Encoder(weights / "resnet18.pth"), PixelEncoder(width=8, fine_channels=16)
    asked, sums = [], []
    teacher.register_forward_hook(lambda *given: asked.append(given))

    def watched(logits, label, valid, count):
        sums.append(label.sum(dim=-1)[valid])
        assert label.max() < 0.999  # soft
        return losses.soft_label_cross_entropy(logits, label, valid, count)

    monkeypatch.setattr(training_step, "soft_label_cross_entropy", watched)
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    config = training.TrainConfig(steps=1, clips=1, frames=2, size=48, points=40, textures=4, label="teacher")
    (record,) = training.train(student, config, teacher=teacher)
    assert 0 < record["coarse"] < 10 and 0 < record["fine"] < 10
    assert len(asked) == 1 and len(sums) == 4 and all(len(each) > 5 for each in sums)  # two scales, either way
    torch.testing.assert_close(torch.cat(sums), torch.ones_like(torch.cat(sums)))
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    legacy = replace(config, legacy_label_norm=True)
    with pytest.raises(ValueError, match="legacy_label_norm needs a teacher with raw features"):
        training.train(student, legacy, teacher=teacher)
    teacher.fine_lattice = coords.Lattice(4)
    with pytest.raises(ValueError, match="the teacher should have the encoder's lattices"):
        training.train(student, config, teacher=teacher)
