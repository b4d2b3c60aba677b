import pytest
import torch
from click.testing import CliRunner

from corrlib import baselines, frames, tracker_costs
from corrlib.__main__ import main


@pytest.fixture(scope="module")
def model():
    return baselines.RawPatchEncoder().eval()


def test_the_picture_drifts_by_two_pixels_and_comes_round():
    first, second, *_, last = tracker_costs.drifting((32, 48), 97)
    assert first.shape == (3, 32, 48) and first.dtype == torch.uint8
    assert torch.equal(second[:, 1:, 2:], first[:, :-1, :-2]) and torch.equal(last, first)


def test_each_part_of_a_frame_is_timed(model):
    took = tracker_costs.frame_seconds(model, (40, 56), 3, repeats=1)
    assert set(took) == {"tracker", "asked", "encoder", "dis", "dis_visible"}
    assert all(value > 0 for value in took.values())


def test_memory_is_read_at_intervals_from_files_and_from_streams(model, tmp_path):
    path = frames.write_video(tmp_path / "drift.webm", tracker_costs.drifting((32, 48), 7))
    assert len(tracker_costs.stream_memory(model, path, 2, every=3)) == 2
    assert len(tracker_costs.stream_memory(model, tracker_costs.drifting((32, 48), 7), 2, every=7)) == 1


def test_the_command_says_what_it_needs():
    shown = CliRunner().invoke(main, ["tracking-costs", "--help"])
    assert shown.exit_code == 0 and "Example" in shown.output


def test_what_following_costs_is_recorded_with_its_memory_over_a_small_stream(model):
    threads = torch.get_num_threads()
    found = tracker_costs.measure(model, None, 200, num_points=2, repeats=1)
    assert found["follow_256x256.tracker.frames_a_second_all_cores"]["value"] > 0 and torch.get_num_threads() == threads
    assert found["stream_64.tracker.frames"]["value"] == 200 and "stream.tracker.frames" not in found
    ratio = found["follow_256x256.tracker.seconds"]["value"] / found["follow_256x256.dis.seconds"]["value"]
    assert found["follow_256x256.dis.tracker_over"]["value"] == pytest.approx(ratio)
