"""Curves over one setting: which arms are on them, and the slopes and predictions by hand."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from corrlib import __main__, arm_scores, benchmarks, scaling
from corrlib.studies import SCALING

# Two points more a doubling of the steps up to 1,200, one from there on; no more with more textures.
STEPS = {150: 0.40, 300: 0.42, 600: 0.44, 1200: 0.46, 2400: 0.47}
FOUND = {
    "badja.delta_avg": {
        **{f"steps_{n}": {"0": [value - 0.1, value + 0.1]} for n, value in STEPS.items() if n != 1200},
        "all": {"0": [0.45, 0.45, np.nan], "1": [0.47, 0.47, np.nan]},
        "textures_6": {"0": [0.46]},
        "textures_24": {"0": [0.46]},
        "unknown": {"0": [0.9]},
    }
}


def test_curves_hold_the_arms_of_one_setting():
    found = {curve.setting: curve for curve in scaling.curves(SCALING, FOUND)}
    assert list(found) == ["steps", "textures"]  # of the widths there is one only
    steps = found["steps"]
    assert steps.test == "badja.delta_avg" and steps.values == tuple(STEPS)
    assert steps.means == pytest.approx(tuple(STEPS.values()))
    assert steps.spreads[3] == pytest.approx(0.02 / np.sqrt(2)) and np.isnan(steps.spreads).sum() == 4
    assert found["textures"].values == (6, 24, 96)


def test_slopes_and_predictions():
    entries = scaling.table(scaling.curves(SCALING, FOUND))
    assert entries["badja.steps.delta_avg_last_doubling"] == {"value": pytest.approx(0.01), "unit": "fraction"}
    assert 0.01 < entries["badja.steps.delta_avg_per_doubling"]["value"] < 0.02
    assert entries["badja.steps.delta_avg_ten_times"]["value"] == pytest.approx(0.47 + 0.01 * np.log2(10))
    assert entries["badja.textures.delta_avg_ten_times"]["value"] == pytest.approx(0.46)
    straight = {"badja.delta_avg": {name: {"0": [0.1 * i]} for i, name in enumerate(("textures_6", "textures_24"))}}
    entries = scaling.table(scaling.curves(SCALING, straight))
    assert entries["badja.textures.delta_avg_per_doubling"]["value"] == pytest.approx(0.05)


def test_the_command_draws_the_curves(tmp_path, monkeypatch):
    monkeypatch.setattr(benchmarks, "available", lambda *asked: ({}, {}))
    monkeypatch.setattr(arm_scores, "ask", lambda *asked: None)
    (tmp_path / "scores.json").write_text(json.dumps(FOUND))
    done = CliRunner().invoke(__main__.main, ["score-study", "scaling", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert json.loads((tmp_path / "growth.json").read_text()) == scaling.table(scaling.curves(SCALING, FOUND))
    assert (tmp_path / "curves.png").stat().st_size > 5000
    with pytest.raises(ValueError, match="of two arms that differ in one setting only"):
        scaling.write(SCALING, {"badja.delta_avg": {"all": {"0": [0.5]}}}, tmp_path)
