"""Checkpoints: what is saved comes back, what does not fit is refused in one sentence."""

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from corrlib import checkpoints, methods, tracking
from corrlib.encoder import UNCALIBRATED, PixelEncoder


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return PixelEncoder(width=4, fine_channels=8).eval()


def test_round_trip(tmp_path, encoder):
    encoder.calibration = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0)
    path = checkpoints.save(tmp_path / "a.safetensors", encoder, {"command": "make it"})
    again = checkpoints.load(path)
    assert again.calibration == encoder.calibration
    frame = torch.rand(1, 3, 32, 48)
    assert all(torch.equal(a, b) for a, b in zip(encoder(frame), again(frame)))
    assert not again.training
    assert checkpoints.read_header(path)["command"] == "make it"
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]


def test_a_calibration_of_other_evidence_is_left_out(tmp_path, encoder):
    encoder.calibration = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0)
    save_file(encoder.state_dict(), tmp_path / "a.safetensors", header(encoder, format=checkpoints.EARLIER))
    earlier = checkpoints.load(tmp_path / "a.safetensors")
    assert earlier.calibration == UNCALIBRATED
    frame = torch.rand(1, 3, 32, 48)
    assert all(torch.equal(a, b) for a, b in zip(encoder(frame), earlier(frame)))


def header(encoder, **changes):
    plain = {
        "format": checkpoints.FORMAT,
        "config": json.dumps(encoder.config),
        "lattices": json.dumps([encoder.coarse_lattice, encoder.fine_lattice]),
        "calibration": json.dumps(encoder.calibration),
    }
    return plain | changes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "other"}, "format corrlib-encoder-2, got 'other'"),
        ({"config": "{]"}, "does not describe a PixelEncoder"),
        ({"config": '{"depth": 3}'}, "does not describe a PixelEncoder"),
        ({"config": '{"width": -1}'}, "does not describe a PixelEncoder"),
        ({"calibration": "[1.0]"}, "should have 7 weights of calibration"),
        ({"calibration": "[1, 2, 3, 4, 5, 6, NaN]"}, "should have 7 weights of calibration"),
        ({"calibration": f"[{'9' * 400}]"}, "does not describe a PixelEncoder"),
        ({"config": '{"width": 0}'}, "width and fine_channels should be above 0, got 0 and 64"),
        ({"config": '{"width": 1000000, "fine_channels": 8}'}, "does not hold this encoder's weights"),  # of 300 TB
        ({"calibration": "null"}, "does not describe a PixelEncoder"),
        ({"config": "[]"}, "does not describe a PixelEncoder"),
        ({"lattices": "[[4, 0.0], [2, 0.0]]"}, "should have lattices"),
        ({"config": '{"width": 8, "fine_channels": 8}'}, "does not hold this encoder's weights; first difference"),
    ],
)
def test_foreign_headers(tmp_path, encoder, changes, message):
    save_file(encoder.state_dict(), tmp_path / "b.safetensors", header(encoder, **changes))
    with pytest.raises(ValueError, match=message):
        checkpoints.load(tmp_path / "b.safetensors")


def test_a_missing_tensor_is_no_match(tmp_path, encoder):
    tensors = {k: v for k, v in encoder.state_dict().items() if k != "coarse.bias"}
    save_file(tensors, tmp_path / "c.safetensors", header(encoder))
    with pytest.raises(ValueError, match=r"first difference: coarse\.bias"):
        checkpoints.load(tmp_path / "c.safetensors")


def test_numbers_of_another_type_are_no_match(tmp_path, encoder):
    """Read as whole numbers, the same bytes would be other weights."""
    tensors = encoder.state_dict()
    tensors["coarse.bias"] = tensors["coarse.bias"].view(torch.int32)
    save_file(tensors, tmp_path / "t.safetensors", header(encoder))
    with pytest.raises(ValueError, match=r"first difference: coarse\.bias \(16,\) F32"):
        checkpoints.load(tmp_path / "t.safetensors")


def test_mutated_files_load_or_are_refused():
    """2,000 of them, in a process that may take 64 MiB."""
    command = [sys.executable, str(Path(__file__).with_name("fuzz_weights.py")), "--cases", "2000"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert done.returncode == 0, done.stderr
    loaded = int(done.stdout.split("loaded (")[1].split(")")[0])
    assert done.stdout.startswith("2000 mutations") and 10 < loaded < 500
    assert len(done.stderr.splitlines()) >= 6  # of each kind of refusal some


def test_a_full_disk_leaves_what_was_there(tmp_path, encoder):
    path = checkpoints.save(tmp_path / "a.safetensors", encoder, {})
    before, limits = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))
    try:
        with pytest.raises(OSError, match=r"a\.safetensors could not be written, and is as it was"):
            checkpoints.save(path, PixelEncoder(width=4, fine_channels=8), {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]


@pytest.mark.parametrize("damage", ["truncated", "text", "empty"])
def test_damaged_files(tmp_path, encoder, damage):
    path = checkpoints.save(tmp_path / "d.safetensors", encoder, {})
    data = {"truncated": path.read_bytes()[:-100], "text": b"hello" * 50, "empty": b""}[damage]
    path.write_bytes(data)
    with pytest.raises(ValueError, match="should be a safetensors file, but it cannot be read"):
        checkpoints.load(path)


def test_missing_file_and_unknown_name(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file .*nowhere\.safetensors"):
        checkpoints.load(tmp_path / "nowhere.safetensors")
    with pytest.raises(ValueError, match=r"expected one of base, small or a checkpoint file, got 'nowhere'"):
        checkpoints.load_pretrained("nowhere")


def test_the_bundled_weights_say_how_they_were_made():
    encoder = checkpoints.load_pretrained()
    found = checkpoints.read_header(checkpoints.BUNDLED / "small.safetensors")
    assert found["command"].startswith("python -m corrlib train ")
    assert json.loads(found["training"])["steps"] > 1000
    assert sum(p.numel() for p in encoder.parameters()) < 1.2e6


def test_base_is_small_with_more_landmarks_and_larger_frames(tmp_path):
    small, base = map(checkpoints.load_pretrained, ("small", "base"))
    assert (small.support, base.support) == (24, 40) and small.calibration == base.calibration
    assert all(torch.equal(a, b) for a, b in zip(small.state_dict().values(), base.state_dict().values(), strict=True))
    assert methods.fingerprint(base) != methods.fingerprint(small)  # their answers are not each other's
    assert (small.magnify, base.magnify) == (1.0, 1.25)
    kept = checkpoints.load(checkpoints.save(tmp_path / "base.safetensors", base, {}))
    assert (kept.support, kept.magnify) == (40, 1.25)
    trackers = [tracking.OnlineTracker(base, tracking.TrackerConfig(support=n)).config.support for n in (None, 0, 3)]
    assert trackers == [40, 0, 3]


@pytest.mark.parametrize(
    "asked", [("support", n) for n in ("-1", "65", "many")] + [("magnify", x) for x in ("0.2", "5", "nan", "much")]
)
def test_a_file_may_not_ask_for_any_number_of_landmarks_nor_for_frames_of_any_size(tmp_path, asked):
    header = checkpoints.read_header(checkpoints.save(tmp_path / "a.safetensors", PixelEncoder(4, 8), {}))
    state = PixelEncoder(4, 8).state_dict()
    save_file(state, tmp_path / "b.safetensors", header | dict([asked]))
    with pytest.raises(
        ValueError, match=r"support from 0 to 64|magnify from 0.25 to 4|does not describe a PixelEncoder"
    ):
        checkpoints.load(tmp_path / "b.safetensors")
