"""Studies: equal clips for all arms, runs that go on, and honest comparisons."""

import functools
import json
import math
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from corrlib import __main__, arm_scores, arms, benchmarks, checkpoints, losses, recipes, synthetic
from corrlib.arms import DrawnOnce
from corrlib.studies import CLAIMS, DEPARTURES, STUDIES
from corrlib.training_data import ProceduralClips

TINY = replace(
    CLAIMS.config, steps=2, clips=1, size=32, points=20, width=8, textures=3, own_radius=3, real_videos="", real_clips=1
)
STUDY = CLAIMS._replace(config=TINY)


def test_there_are_the_ten_arms_a_sharper_teacher_and_a_stronger_adversary():
    assert len(CLAIMS.arms) == 12 and CLAIMS.config.domain_strength == 1
    assert CLAIMS.arms["bilinear_adversary_strong"].changes == {"label": "bilinear", "domain_strength": 10}
    assert CLAIMS.arms["teacher_sharp"].changes == {"label": "teacher", "label_temperature": 0.015}
    for kind in ("bilinear", "teacher"):
        parts = {name: (w.reconstruction, w.domain) for name, (c, w) in CLAIMS.arms.items() if c == {"label": kind}}
        assert sorted(parts.values()) == [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_the_papers_preset_has_the_papers_numbers():
    """Those of its release, two slips of which are left out; 30 epochs of 40,302 pairs, windows of 49 x 49."""
    config, weights = recipes.PRESETS["paper"]
    assert config.steps * config.clips == 30 * 40_302
    assert (2 * config.radius + 1) ** 2 == (2 * config.own_radius + 1) ** 2 == 2401
    assert weights == losses.LossWeights(coarse=0.0, fine=1.0, reconstruction=1.0, domain=1.0, masks=0.0)
    assert losses.COLOUR_SCALE == 20
    numbers = {
        "steps": 302_265, "clips": 4, "real_clips": 4, "frames": 2, "size": 256, "points": 0, "accumulate": 1,
        "label_temperature": 0.07, "teacher_momentum": 0.0, "temperature": 0.07, "radius": 24, "own_radius": 24,
        "references": 1, "real_gap": 1, "domain_strength": 1.0, "domain_cells": 0, "appearance": 0.0, "ema": 0.0,
        "learning_rate": 1e-3, "last_rate": 1e-3, "weight_decay": 0.0, "warm_up": 0.0, "clip_gradient": 0.0,
    }  # fmt: skip
    kinds = {
        "encoder": "paper", "optimizer": "adamw", "label": "teacher", "window": "query", "domain_input": "raw",
        "labelled": "flyingthings3d",
    }  # fmt: skip
    on = dict.fromkeys(("outside_zero", "drop_channels"), True)
    off = dict.fromkeys(("domain_warm_up", "coarse_reconstruction", "stage4", "real_statistics", "bfloat16"), False)
    off |= dict.fromkeys(("legacy_label_norm", "legacy_consistency"), False)
    expected = numbers | kinds | on | off
    assert {name: getattr(config, name) for name in expected} == expected


def test_departures_change_one_thing_from_an_arm_that_the_claims_have():
    ours = DEPARTURES.config
    theirs = asdict(recipes.PAPER.config) | {"legacy_label_norm": True}  # a slip that the preset mends
    for base, name in DEPARTURES.compared:
        (before, weights), (after, same) = CLAIMS.arms[base], DEPARTURES.arms[name]
        assert DEPARTURES.arms[base] == CLAIMS.arms[base] and weights == same and DEPARTURES.config == CLAIMS.config
        changed = {key for key, value in after.items() if before.get(key, getattr(ours, key)) != value}
        assert changed
        if name not in ("all_colours", "muon"):
            assert all(after[key] == theirs[key] for key in changed)


@pytest.mark.parametrize("study", STUDIES.values(), ids=STUDIES)
def test_every_arm_can_be_trained_and_differs_from_the_others(study):
    every = []
    for changes, weights in study.arms.values():
        config = replace(study.config, **changes)  # refuses what cannot be trained
        synthetic.read_contents(config.content)
        every.append((config, weights))
    assert len(set(every)) == len(every)
    known = study.arms.keys() | ({"first"} if study.name == "video" else set())
    assert {arm for pair in study.compared for arm in pair} <= known
    assert set(study.benchmarks) <= set(benchmarks.BENCHMARKS)


def test_clips_drawn_once_are_those_drawn_anew(tmp_path):
    drawn, kept = ProceduralClips(TINY), DrawnOnce(TINY, tmp_path)
    first = [kept[i] for i in (1, 0)][::-1]
    again = DrawnOnce(replace(TINY, label="hard", learning_rate=1e-3), tmp_path)  # which change no clip
    again.drawn = None  # cannot draw
    for i in range(2):
        for clip in (first[i], again[i]):
            assert torch.equal(clip.video, drawn[i].video) and torch.equal(clip.tracks, drawn[i].tracks)
            assert torch.equal(clip.visible, drawn[i].visible)
    other = DrawnOnce(replace(TINY, seed=1), tmp_path)
    assert not torch.equal(other[0].video, first[0].video)


def test_an_arm_is_trained_once_and_its_teacher_first(tmp_path, real_folder):
    study, steps = STUDY._replace(config=replace(TINY, real_videos=real_folder)), []
    how = {"report": lambda step, record: steps.append(step), "calibration_clips": 0}
    path = arms.train_arm(study, "teacher_both", 3, tmp_path, {"own_radius": 3}, **how)
    assert steps == [0, 1, 0, 1]  # the teacher's, its own
    found = json.loads(path.read_text())
    assert found["arm"] == "teacher_both" and found["steps"] == 2 and found["config"]["real_videos"] == "real"
    assert {"coarse", "fine", "reconstruction", "domain", "domain_accuracy", "domain_gradient"} <= found["last"].keys()
    command = checkpoints.read_header(path.with_suffix(".safetensors"))["command"]
    assert command.endswith("--arms teacher_both --seeds 3 --calibration-clips 0 --set own_radius=3")
    names = {p.name for p in tmp_path.iterdir() if p.is_file()}
    expected = {f"{arm}{end}" for arm in ("teacher_both-3", "by_reconstruction-1000")
                for end in (".json", ".history.json", ".safetensors")}  # fmt: skip
    assert names == expected
    before = path.read_bytes()
    arms.train_arm(study, "teacher_both", 3, tmp_path, **how)
    assert len(steps) == 4 and path.read_bytes() == before
    # A record of a version without a setting counts as one with its default.
    assert found["config"].pop("stage4") is False
    path.write_text(json.dumps(found))
    arms.train_arm(study, "teacher_both", 3, tmp_path, **how)
    with pytest.raises(ValueError, match="is of another configuration"):
        arms.train_arm(study, "teacher_both", 3, tmp_path, {"stage4": True}, **how)
    assert len(steps) == 4
    with pytest.raises(ValueError, match=r"teacher_both-3\.json is of another configuration; name another folder"):
        arms.train_arm(study, "teacher_both", 3, tmp_path, {"learning_rate": 1.0})
    with pytest.raises(ValueError, match=r"arm should be one of hard, bilinear, .* got 'soft'"):
        arms.train_arm(study, "soft", 0, tmp_path)


def test_arms_of_one_seed_begin_alike_and_end_apart(tmp_path):
    weights = {}
    for arm in ("hard", "bilinear"):
        arms.train_arm(STUDY, arm, 0, tmp_path, {"steps": 1}, tmp_path / "cache", calibration_clips=0)
        weights[arm] = checkpoints.load(tmp_path / f"{arm}-0.safetensors").stem[0].weight
    assert torch.allclose(weights["hard"], weights["bilinear"], atol=0.01)
    assert not torch.equal(weights["hard"], weights["bilinear"])


def test_comparison_by_hand():
    one = {"0": [0.1, 0.2, 0.3], "1": [0.2, 0.2, 0.2], "7": [9.0, 9.0, 9.0]}
    other = {"0": [0.2, 0.3, 0.4], "1": [0.5, 0.5, 0.5]}
    found = arm_scores.compare(one, other)
    assert found["mean"] == pytest.approx(0.2) and found["seeds"] == 2 and found["clips"] == 3
    assert found["spread"] == pytest.approx(np.std([0.1, 0.3], ddof=1))
    assert found["low"] == pytest.approx(0.1) and found["high"] == pytest.approx(0.3)  # clips agree, seeds do not
    same = arm_scores.compare(one, one)
    assert same["mean"] == same["low"] == same["high"] == 0
    gap = arm_scores.compare({"0": [0.1, math.nan]}, {"0": [0.3, 0.5]})
    assert gap["mean"] == pytest.approx(0.2) and gap["clips"] == 1 and math.isnan(gap["spread"])
    alone = arm_scores.compare(
        {"0": [0.1]}, {"0": [0.3]}
    )  # nothing to draw again: no interval, and not one of no width
    assert alone["mean"] == pytest.approx(0.2) and math.isnan(alone["low"]) and math.isnan(alone["high"])
    with pytest.raises(ValueError, match="a seed in common"):
        arm_scores.compare({"0": [1.0]}, {"1": [1.0]})


def test_table_names_what_is_compared():
    hard, bilinear = {"0": [0.1, 0.3], "1": [0.2, 0.4]}, {"0": [0.2, 0.4], "1": [0.4, 0.6]}
    found = {
        "badja.delta_avg": {"hard": hard, "bilinear": bilinear},
        "middlebury.epe": {"hard": {"0": [2.0], "1": [1.0]}, "bilinear": {"0": [3.0], "1": [2.0]}},
    }
    entries = arm_scores.table(found, CLAIMS.compared)
    assert entries["badja.hard.delta_avg"] == {"value": pytest.approx(0.25), "unit": "fraction", "count": 2}
    assert entries["badja.bilinear.delta_avg_minus_hard"]["value"] == pytest.approx(0.15)
    assert entries["badja.bilinear.delta_avg_minus_hard_spread"]["value"] == pytest.approx(np.std([0.1, 0.2], ddof=1))
    assert entries["middlebury.bilinear.epe_minus_hard"] == {"value": pytest.approx(1.0), "unit": "px", "count": 2}
    # In units of the pooled spread of the seeds, and positive where it is better: more of a share, less of an error.
    pooled = np.sqrt((np.var([0.2, 0.3], ddof=1) + np.var([0.3, 0.5], ddof=1)) / 2)
    assert entries["badja.bilinear.delta_avg_minus_hard_effect"]["value"] == pytest.approx(0.15 / pooled)
    assert entries["middlebury.bilinear.epe_minus_hard_effect"]["value"] == pytest.approx(-1.0 / np.sqrt(0.5))
    mean = entries["all.bilinear.effect_minus_hard"]
    assert mean["value"] == pytest.approx((0.15 / pooled - np.sqrt(2)) / 2) and mean["count"] == 2
    assert not any("teacher" in name for name in entries)


def test_the_commands_train_and_score(tmp_path, monkeypatch):
    monkeypatch.setattr(benchmarks, "TEXTURES", 3)
    shorter = functools.partial(benchmarks.procedural_val, num_frames=4, size=64, num_points=8)
    monkeypatch.setattr(benchmarks, "procedural_val", shorter)
    folder = str(tmp_path / "claims")
    small = [f"{name}={getattr(TINY, name)}" for name in ("steps", "clips", "size", "points", "width", "textures")]
    call = ["study", "claims", folder, "--arms", "hard,bilinear", "--seeds", "0", "--cache", str(tmp_path / "cache")]
    call += ["--calibration-clips", "0"]
    call += [part for setting in small for part in ("--set", setting)]
    done = CliRunner().invoke(__main__.main, call)
    assert done.exit_code == 0, done.output
    call = [
        "score-study",
        "claims",
        folder,
        "--benchmarks",
        "procedural,badja",
        "--max-clips",
        "1",
        "--data-root",
        str(tmp_path),
    ]
    done = CliRunner().invoke(__main__.main, call)
    assert done.exit_code == 0, done.output
    assert "skipped badja" in done.output
    entries = json.loads((tmp_path / "claims" / "metrics.json").read_text())
    assert 0 <= entries["procedural.bilinear.delta_avg"]["value"] <= 1
    assert "procedural.bilinear.delta_avg_minus_hard_low" in entries
    assert "commit" in json.loads((tmp_path / "claims" / "metrics.environment.json").read_text())
    done = CliRunner().invoke(__main__.main, ["study", "claims", folder, "--arms", "soft"])
    assert done.exit_code == 1 and "arm should be one of" in done.output
    done = CliRunner().invoke(__main__.main, ["study", "claims", folder, "--set", "bfloat16=perhaps"])
    assert "bfloat16 should be of type bool, got 'perhaps'" in done.output


def test_scores_of_another_machine_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(
        arm_scores, "scores", lambda folder, names: {"procedural.delta_avg": {"soft": {"0": [0.5, 0.7]}}}
    )
    there = {"procedural.delta_avg": {"hard": {"0": [0.4, 0.6]}, "soft": {"1": [0.5, 0.5]}}}
    (tmp_path / "scores.json").write_text(json.dumps(there))
    entries = arm_scores.write(tmp_path, ["procedural"], [("hard", "soft")])
    assert entries["procedural.soft.delta_avg_minus_hard"]["value"] == pytest.approx(0.1)
    assert arm_scores.read(tmp_path)["procedural.delta_avg"] == {
        "hard": {"0": [0.4, 0.6]}, "soft": {"0": [0.5, 0.7], "1": [0.5, 0.5]},
    }  # fmt: skip
    there["procedural.delta_avg"]["hard"]["0"] = [0.4, 0.6, 0.8]
    (tmp_path / "scores.json").write_text(json.dumps(there))
    with pytest.raises(ValueError, match=r"should be of as many clips for all, got \[2, 3\]"):
        arm_scores.write(tmp_path, ["procedural"], [])
    assert arm_scores.read(tmp_path) == there


def test_masks_can_be_left_out(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(arm_scores, "ask", lambda folder, tasks, masks, progress: asked.append(masks))
    monkeypatch.setattr(arm_scores, "write", lambda *given: {})
    for study, option in (("video", "--masks"), ("video", "--no-masks"), ("claims", "--masks")):
        call = ["score-study", study, str(tmp_path), "--benchmarks", "procedural", "--max-clips", "1", option]
        done = CliRunner().invoke(__main__.main, call)
        assert done.exit_code == 0, done.output
    assert asked == [True, False, False]


def test_nothing_trained_is_nothing_to_ask(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no trained arm \(.safetensors\) in"):
        arm_scores.ask(tmp_path, benchmarks.procedural_val(1))
