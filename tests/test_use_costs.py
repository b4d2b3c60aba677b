"""What use costs is measured on the real parts; the values are never asserted."""

import torch
from click.testing import CliRunner

from corrlib import baselines, methods, use_costs
from corrlib.__main__ import main


def test_clicks_and_steps_are_answered_and_timed():
    torch.manual_seed(0)
    took = use_costs.click_seconds(baselines.RawPatchEncoder().eval(), "dis", 3, (48, 64), clicks=2)
    assert set(took) == {"click", "step"} and all(value > 0 for pair in took.values() for value in pair)


def test_memory_is_read_once_a_clip():
    told = []
    held = use_costs.evaluation_memory(methods.methods(["static"]), 3, 2, (48, 64), told.append)
    assert told == [0, 1, 2] and len(held) == 3 and min(held) > 2**20


def test_the_import_is_timed_in_a_process_of_its_own():
    assert 0 < use_costs.import_seconds(repeats=1) < 60


def test_the_command_says_what_it_needs():
    shown = CliRunner().invoke(main, ["use-costs", "--help"])
    assert shown.exit_code == 0 and "Example" in shown.output
