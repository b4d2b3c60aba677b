"""What training costs: both loops are what they are said to be, and numbers come out of real steps."""

import json

import pytest
import torch
from click.testing import CliRunner

from corrlib import __main__, training_costs
from corrlib.recipes import TrainConfig

TINY = TrainConfig(clips=1, frames=2, size=48, points=20, width=8, textures=3)


@pytest.mark.parametrize("naive", [True, False])
def test_how_maps_lie(naive):
    seen = []
    encoder = training_costs.network(TINY, naive)
    encoder.stride4.register_forward_hook(lambda module, given, out: seen.append(out))
    encoder.raw(torch.rand(2, 3, 48, 56))
    assert seen[0].is_contiguous() == naive
    assert seen[0].is_contiguous(memory_format=torch.channels_last) != naive


def test_both_loops_are_timed():
    found = training_costs.measure(TINY, steps=1, workers=0, rounds=2)
    assert all(entry["value"] > 0 and entry["count"] == 2 for entry in found.values())
    assert {key: entry["unit"] for key, entry in found.items()} == {
        "training.naive.seconds_per_step": "s",
        "training.ours.seconds_per_step": "s",
        "training.ours.times_naive": "ratio",
    }
    with pytest.raises(ValueError, match="steps and rounds should be at least 1, got 0 and 3"):
        training_costs.measure(TINY, steps=0)


def test_the_command_names_the_processor(tmp_path):
    out = tmp_path / "costs.json"
    small = [f"{name}={getattr(TINY, name)}" for name in ("clips", "frames", "size", "points", "width", "textures")]
    words = ["training-costs", str(out), "--steps", "1", "--rounds", "1", "--workers", "0"]
    done = CliRunner().invoke(__main__.main, words + [part for s in small for part in ("--set", s)])
    assert done.exit_code == 0, done.output
    assert json.loads(out.read_text())["training.ours.times_naive"]["value"] > 0
    about = json.loads((tmp_path / "costs.environment.json").read_text())
    assert about["device"] in done.output and about["threads"] == 1
