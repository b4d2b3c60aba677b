"""Weights as the hub holds them: they come back from its cache without a network, and the card says what they are."""

import json

import huggingface_hub
import pytest
import torch
from click.testing import CliRunner
from huggingface_hub import constants

from corrlib import __main__, checkpoints, hub
from corrlib.encoder import PixelEncoder

ORIGIN = {
    "command": "python -m corrlib train x",
    "commit": "abc",
    "training": json.dumps({"steps": 9, "seed": 4, "learning_rate": 0.002}),
    "weights": json.dumps({"coarse": 1.0}),
    "data": json.dumps({"procedural": "3"}),
    "steps_done": "8",
}


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(0)
    return checkpoints.save(tmp_path / "a.safetensors", PixelEncoder(width=4, fine_channels=8), ORIGIN)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The hub's own cache in a folder, and no network."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "cache"


def test_what_is_published_is_loaded_by_its_name(weights, cache):
    version = "0123456789012345678901234567890123456789"
    there = cache / "models--me--mine"
    hub.save_pretrained(there / "snapshots" / version, weights, "me/mine")
    (there / "refs").mkdir()
    (there / "refs" / "main").write_text(version)
    expected = checkpoints.load(weights)
    for name in ("me/mine", f"me/mine@{version}"):
        found = checkpoints.load_pretrained(name)
        assert all(torch.equal(v, found.state_dict()[n]) for n, v in expected.state_dict().items())
    for name in ("me/other", "me/mine@gone"):
        with pytest.raises(ValueError, match=f"'{name}' is no checkpoint file, and cannot be had from"):
            checkpoints.load_pretrained(name)


def test_the_card_says_licence_data_recipe_and_metrics(tmp_path, weights):
    (tmp_path / "metrics.json").write_text(
        json.dumps({"procedural.mine.delta_avg": {"value": 0.5, "unit": "fraction", "count": 8}})
    )
    words = ["publish", str(weights), str(tmp_path / "out"), "me/mine", "--metrics", str(tmp_path / "metrics.json")]
    done = CliRunner().invoke(__main__.main, words)
    assert done.exit_code == 0, done.output
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["README.md", "model.safetensors"]
    text = (tmp_path / "out" / "README.md").read_text()
    card = huggingface_hub.ModelCard(text)
    assert card.data.license == "mit" and card.data.library_name == "corrlib"
    for part in ("procedural 3", "at commit abc, 8 steps, seed 4", '"learning_rate": 0.002', "| mine", "50.0"):
        assert part in text, part
    assert checkpoints.read_header(tmp_path / "out" / "model.safetensors")["command"] == ORIGIN["command"]
    words[1] = str(tmp_path / "gone.safetensors")
    assert "no file" in CliRunner().invoke(__main__.main, words).output


def test_pushing_sends_the_folder(tmp_path, weights, monkeypatch):
    sent = []
    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", lambda self, name, exist_ok: sent.append(name))
    monkeypatch.setattr(huggingface_hub.HfApi, "upload_folder", lambda self, **what: sent.append(what) or "there")
    folder = hub.save_pretrained(tmp_path / "out", weights, "me/mine")
    assert hub.push_to_hub(folder, "me/mine") == "there"
    assert sent[0] == "me/mine" and sent[1]["repo_id"] == "me/mine" and sent[1]["folder_path"] == folder


def test_what_the_hub_refuses_is_told(tmp_path, cache):
    with pytest.raises(ValueError, match="push_to_hub: me/mine could not be sent"):
        hub.push_to_hub(tmp_path, "me/mine")
