"""The command line for one's own video, on real clips; what it writes, and what it refuses."""

import json
from functools import partial

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner

import corrlib
from corrlib import __main__, benchmarks, checkpoints, frames, provenance, runs
from corrlib.datasets import tapvid
from corrlib.encoder import PixelEncoder

DOG = runs.find_root() / "data" / "samples" / "dog.webm"


def call(*words):
    return CliRunner().invoke(__main__.main, [str(word) for word in words])


@pytest.mark.parametrize("command", sorted(__main__.main.commands))
def test_help_has_an_example_of_its_own_command(command):
    shown = call(command, "--help").output
    assert f"-m corrlib {command}" in shown.split("Example:")[1]


def test_track(tmp_path):
    out = tmp_path / "TAP-Vid"
    words = ("track", DOG, "--grid", 3, "--point", 1, 100.5, 80, "--out", out, "--max-frames", 3, "--tapvid")
    result = call(*words)
    assert result.exit_code == 0, result.output
    with np.load(out / "tracks.npz") as read:
        queries, tracks, visible = read["query_points"], read["tracks"], read["visible"]
    assert queries[0].tolist() == [1, 100.5, 80] and tracks.shape == (3, 1 + 15, 2)
    video = corrlib.read_video(DOG, 3)
    answer = corrlib.track_points(corrlib.load_pretrained(), video, torch.from_numpy(queries))
    assert np.array_equal(tracks, answer.tracks) and np.array_equal(visible, answer.visible)
    assert len(frames.read_video(out / "overlay.webm")) == 3 and (out / "tracks.csv").is_file()
    assert "16 points over 3 frames" in (out / "overlay.html").read_text()
    (out / "tracks.pkl").rename(out / "tapvid_davis.pkl")
    assert tapvid.read(tmp_path, "dog").video.shape == video.shape
    assert "exists and is left as it was" in call(*words).output


def test_masks(tmp_path):
    mask = np.zeros((256, 456), np.uint8)
    mask[100:160, 200:280] = 255
    cv2.imwrite(str(tmp_path / "first.png"), mask)
    words = ("masks", DOG, tmp_path / "first.png", "--out", tmp_path / "out", "--max-frames", 3)
    result = call(*words)
    assert result.exit_code == 0, result.output
    written = [cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in sorted((tmp_path / "out" / "masks").iterdir())]
    video = corrlib.read_video(DOG, 3)
    carried = corrlib.propagate_masks(corrlib.load_pretrained(), video, mask > 0)
    for t, image in enumerate(written):  # a palette's first colour is dark red
        assert np.array_equal(image[..., 2] > 0, carried[t].numpy() > 0)
    assert len(written) == len(frames.read_video(tmp_path / "out" / "overlay.webm")) == 3
    again = call(*words)
    assert again.exit_code == 1 and "exists and is left as it was" in again.output
    # A box in place of the file, over what is there, and told how far it is.
    boxed = ("masks", DOG, "--box", 200, 100, 279, 159, *words[3:5], "--max-frames", 2, "--overwrite")
    result = call(*boxed)
    assert result.exit_code == 0 and "carrying masks  2/2  100%" in result.stderr
    first, _ = sorted((tmp_path / "out" / "masks").iterdir())
    assert np.array_equal(cv2.imread(str(first), cv2.IMREAD_UNCHANGED), written[0])
    assert "either a file MASK or --box, got both or neither" in call("masks", DOG).output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("track", "gone.mp4"), "no file or folder gone.mp4"),
        (("track", DOG, "--point", 0, 900, 5, "--max-frames", 2), "outside the frame of 456 x 256"),
        (("track", DOG, "--grid", 999, "--max-frames", 2), "count should be 1 to 256"),
        (("track", DOG, "--checkpoint", "gone"), "expected one of base, small or a checkpoint file"),
        (("masks", DOG, "gone.png", "--max-frames", 2), "no file gone.png"),
    ],
)
def test_refusals(tmp_path, words, message):
    result = call(*words, "--out", tmp_path / "out")
    assert result.exit_code == 1 and "Error: " in result.output and message in result.output
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--preset", "paper"], "labels of kind teacher need a teacher, got none"),
        (["--preset", "paper", "--teacher", "gone.safetensors"], "no file gone.safetensors"),
        (
            ["--weight", "sharpness=1"],
            "unknown setting 'sharpness'; expected one of coarse, fine",
        ),
        (["--weight", "coarse=0", "--weight", "fine=0"], "weights should be at least 0 and not all 0"),
        (["--weight", "domain=1"], "need real video: real_videos should name a folder"),
        (["--weight", "domain=1", "--set", "real_videos=gone"], "real video: no folder gone"),
        (["--set", "drop_channels=perhaps"], "drop_channels should be of type bool, got 'perhaps'"),
    ],
)
def test_what_train_refuses(tmp_path, options, message):
    done = CliRunner().invoke(__main__.main, ["train", str(tmp_path / "out.safetensors"), *options])
    assert done.exit_code == 1 and message in done.output, done.output
    assert not list(tmp_path.iterdir())


def test_tables_of_recorded_numbers(tmp_path):
    entry = {"value": 0.5, "unit": "fraction", "count": 3}
    path = tmp_path / "metrics.json"
    path.write_text(json.dumps({"a.m.delta_avg": entry, "b.m.pck_2": entry}))
    assert call("table", path).output.count("50.0") == 2 and "| b " in call("table", path).output
    assert "50.0" in call("table", path, "--benchmark", "a").output
    overview = call("table", path, "--overview", "--link").output
    assert "| a, delta_avg, % |" in overview and f'[50.0]({path} "a.m.delta_avg")' in overview and "pck" not in overview
    assert "Error: read_metrics: no file" in call("table", tmp_path / "gone.json").output


def test_what_was_learnt_is_kept_whatever_happens_to_its_confidence(tmp_path, monkeypatch):
    def fail():
        raise RuntimeError("no clips")

    monkeypatch.setattr(benchmarks, "procedural_calib", fail)
    tiny = {"steps": 1, "clips": 1, "frames": 2, "size": 32, "points": 8, "width": 4, "textures": 3}
    words = [word for name, value in tiny.items() for word in ("--set", f"{name}={value}")]
    assert call("train", tmp_path / "a.1.safetensors", *words).exit_code == 1
    assert checkpoints.load(tmp_path / "a.1.safetensors").config["width"] == 4
    assert (tmp_path / "a.1.history.jsonl").read_text().count("\n") == 1


def test_training_goes_on_from_weights_as_they_are_or_wider(tmp_path, monkeypatch):
    """What is not set is theirs, and is what the record says; what is against them is refused."""
    monkeypatch.setattr(benchmarks, "procedural_calib", partial(benchmarks.procedural_calib, 1))
    start, out = tmp_path / "start.safetensors", tmp_path / "out.safetensors"
    checkpoints.save(start, PixelEncoder(4), {})
    tiny = {"steps": 1, "clips": 1, "frames": 2, "size": 32, "points": 8, "textures": 3}
    words = [word for name, value in tiny.items() for word in ("--set", f"{name}={value}")]
    words += ["--minutes", "0", "--start", start]  # no step is taken
    for more, width in ((), 4), (("--set", "width=6"), 6):
        assert call("train", out, *words, *more).exit_code == 0
        assert json.loads(checkpoints.read_origin(out)["training"])["width"] == width
        assert checkpoints.load(out).config["width"] == width
    for done in (1, 2):  # the trainings before are a list, however many there were
        assert call("train", out, *words[:-1], out).exit_code == 0
        origin = checkpoints.read_origin(out)
        before = json.loads(origin["started_from"])
        assert len(before) == done and provenance.lineage(origin)[:-1] == before
        assert all("started_from" not in each and json.loads(each["training"])["width"] == 6 for each in before)
    for setting in ("width=3", "encoder=paper"):
        refused = call("train", out, *words, "--set", setting)
        assert refused.exit_code == 1 and "Error:" in refused.output and "got" in refused.output, refused.output
