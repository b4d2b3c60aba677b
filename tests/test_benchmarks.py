"""Benchmarks by name: what is there is used, what is missing is said."""

import pytest

from corrlib import benchmarks


def test_tasks_of_the_procedural_benchmark():
    assert len(benchmarks.tasks("procedural", "nowhere")) == 32
    assert [t.name for t in benchmarks.tasks("procedural", "nowhere", max_clips=2)] == ["000", "001"]
    assert len(benchmarks.tasks("procedural", "nowhere", max_clips=99)) == 32  # there are no more


def test_fewer_clips_spread_over_all_speeds():
    def step(task):
        clip, _ = task.read()
        return (clip.tracks[1:] - clip.tracks[:-1]).norm(dim=-1).median()

    slow, fast = benchmarks.procedural_val(2, num_frames=3, size=64, num_points=16)
    assert step(fast) > 2 * step(slow)


def test_tasks_error():
    with pytest.raises(ValueError, match="should be one of procedural, badja, davis2016, middlebury, got 'davis'"):
        benchmarks.tasks("davis", "nowhere")


def test_available_names_what_is_missing(tmp_path):
    found, missing = benchmarks.available(["procedural", "badja", "middlebury"], tmp_path, max_clips=1)
    assert list(found) == ["procedural"] and list(missing) == ["badja", "middlebury"]
    assert str(tmp_path) in missing["badja"] and "data/README.md" in missing["badja"]


def test_available_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match="read BADJA: no .*read Middlebury: no "):
        benchmarks.available(["badja", "middlebury"], tmp_path)
    with pytest.raises(ValueError, match="should be some of procedural, .*, got none"):
        benchmarks.available([], tmp_path)
