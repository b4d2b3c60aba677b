"""Answers are files: whole or not there, the same however the work is shared, and read with care."""

import json
import os
import re
import weakref

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from test_datasets import ids, write_davis

from corrlib import __main__, baselines, benchmarks, coords, dense, predictions
from corrlib.benchmarks import Task
from corrlib.methods import Method
from corrlib.samples import PointTracks, TrackClip

STATIC = Method(baselines.track_static, baselines.propagate_masks_static)


@pytest.fixture(scope="module")
def tasks():
    return benchmarks.procedural_val(num_clips=3, num_frames=4, size=64, num_points=12)


@pytest.fixture
def davis(tmp_path):
    """One clip of two objects, one of them on the grid of points and one between its points."""
    first = ids(0)
    first[3:25, 5:30], first[30:32, 40:42] = 1, 2
    write_davis(tmp_path / "data", "clip", [first, np.roll(first, 2, axis=1), ids(0, 1, 2)])
    (tmp_path / "data/DAVIS/ImageSets/2017").mkdir(parents=True)
    (tmp_path / "data/DAVIS/ImageSets/2017/val.txt").write_text("clip\n")
    return benchmarks.tasks("davis2017", tmp_path / "data")


def contents(folder):
    """Every file but the costs, by its path, byte for byte."""
    paths = [p for p in sorted(folder.rglob("*")) if p.is_file() and not p.name.endswith(".cost.json")]
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in paths}


def test_what_is_written(tasks, tmp_path):
    predictions.predict({"static": STATIC}, tasks[:1], tmp_path)
    assert {p.name for p in (tmp_path / "procedural").iterdir()} == {
        "000.static.npz", "000.static.cost.json", "000.truth.npz",
    }  # fmt: skip
    clip = tasks[0].read()[0]
    found = predictions.read_points(tmp_path, tasks[0], "static")
    assert torch.equal(found.tracks, clip.query_points[:, 1:].expand(4, 12, 2)) and found.visible.all()
    truth = predictions.load(tmp_path / "procedural" / "000.truth.npz")
    assert set(truth) == {"query_points", "tracks", "visible", "valid", "size_hw"}
    assert np.array_equal(truth["tracks"], clip.tracks) and truth["size_hw"].tolist() == [64, 64]


@pytest.mark.parametrize("resolution", [None, (74, 106)])
def test_pairs_with_flow_are_asked_for_a_dense_match_where_there_is_one(tmp_path, resolution):
    """The field is read at the queries, in pixels of the pair's own size, and nothing is tracked."""
    xy = torch.tensor([[0.0, 0.0], [10.0, 20.0], [52.0, 36.0]])
    queries = torch.cat([torch.zeros(3, 1), xy], dim=1)
    known = torch.ones(2, 3, dtype=torch.bool)
    pair = TrackClip(torch.zeros(2, 3, 37, 53, dtype=torch.uint8), queries, torch.stack([xy, xy]), known, known)

    def flow(frame0, frame1):
        size_hw = frame0.shape[1:]
        field = (coords.grid(size_hw) * 0.1 + 0.05 * (size_hw[0] == 74)).permute(2, 0, 1)  # 0.1 x in any size
        return dense.Match(field, torch.full(size_hw, 0.5), coords.grid(size_hw)[..., 0] < size_hw[1] / 2)

    method = Method(points=None, flow=flow)
    task = Task("flyingchairs", "a", lambda: (pair, {}))
    predictions.predict({"a": method}, [task], tmp_path, resolution=resolution)
    found = predictions.read_points(tmp_path, task, "a")
    assert torch.allclose(found.tracks, torch.stack([xy, 1.1 * xy]), atol=1e-4 if resolution is None else 0.06)
    assert found.visible.tolist() == [[True] * 3, [True, True, False]]
    assert torch.allclose(found.confidence[1], torch.tensor(0.5))


def test_a_second_start_asks_only_what_is_missing(tasks, tmp_path):
    called = []

    def tracker(video, query_points):
        called.append(1)
        return baselines.track_static(video, query_points)

    predictions.predict({"a": Method(tracker)}, tasks, tmp_path)
    first = contents(tmp_path)
    (tmp_path / "procedural" / "001.a.npz").unlink()
    predictions.predict({"a": Method(tracker)}, tasks, tmp_path)
    assert len(called) == 4 and contents(tmp_path) == first


def test_interrupted_and_started_again_it_is_the_same(tasks, davis, tmp_path):
    """Stopped in the middle of a clip, after some answers and before others."""
    everything = [*tasks, *davis]
    predictions.predict({"a": STATIC, "b": STATIC}, everything, tmp_path / "whole")
    for stop_at in (2, 4, 8):
        folder, left = tmp_path / f"stopped{stop_at}", iter(range(stop_at))

        def tracker(video, query_points, left=left):
            if next(left, None) is None:
                raise KeyboardInterrupt
            return baselines.track_static(video, query_points)

        def propagator(video, mask, left=left):
            if next(left, None) is None:
                raise KeyboardInterrupt
            return baselines.propagate_masks_static(video, mask)

        stopping = Method(tracker, propagator)
        with pytest.raises(KeyboardInterrupt):
            predictions.predict({"a": stopping, "b": stopping}, everything, folder)
        assert not list(folder.rglob("*.partial"))
        predictions.predict({"a": STATIC, "b": STATIC}, everything, folder)
        assert contents(folder) == contents(tmp_path / "whole")


def test_shared_among_processes_it_is_the_same(tasks, davis, tmp_path):
    methods = {"static": STATIC, "lk": Method(baselines.track_lk)}
    everything = [*tasks, *davis]
    predictions.predict(methods, everything, tmp_path / "one")
    for rank in (2, 0, 1):
        predictions.predict(methods, everything, tmp_path / "three", share=(rank, 3))
        names = {p.name.split(".")[0] for p in (tmp_path / "three").rglob("*.truth.npz")}
        assert names >= {("000", "001", "002")[rank]}
    assert contents(tmp_path / "three") == contents(tmp_path / "one")


def test_the_number_of_threads_is_one_while_asking_and_afterwards_what_it_was(tasks, tmp_path):
    seen = []

    def tracker(video, query_points):
        seen.append(torch.get_num_threads())
        return baselines.track_static(video, query_points)

    torch.set_num_threads(2)
    try:
        predictions.predict({"a": Method(tracker)}, tasks[:1], tmp_path)
        assert seen == [1] and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


def test_one_clip_is_in_memory_at_a_time(tmp_path):
    """Twenty clips: when one is read, none of those before it is alive."""
    alive, most = [], []

    def read():
        most.append(sum(video() is not None for video in alive))
        video = torch.zeros(3, 3, 16, 16, dtype=torch.uint8)
        alive.append(weakref.ref(video))
        known = torch.ones(3, 1, dtype=torch.bool)
        return TrackClip(video, torch.tensor([[0.0, 5.0, 5.0]]), torch.zeros(3, 1, 2), known, known), {}

    predictions.predict({"static": STATIC}, [Task("procedural", f"{i}", read) for i in range(20)], tmp_path)
    assert len(most) == 20 and max(most) == 0


def test_names_of_clips_may_have_slashes(tmp_path):
    known = torch.ones(2, 1, dtype=torch.bool)
    clip = TrackClip(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.zeros(1, 3), torch.zeros(2, 1, 2), known, known)
    task = Task("sintel", "alley/frame_0001", lambda: (clip, {}))
    predictions.predict({"static": STATIC}, [task], tmp_path)
    assert predictions.read_points(tmp_path, task, "static").tracks.shape == (2, 1, 2)


def test_masks_are_palette_images_as_davis_has_its_results(davis, tmp_path):
    predictions.predict({"static": STATIC, "lk": Method(baselines.track_lk)}, davis, tmp_path / "out")
    folder = predictions.masks_path(tmp_path / "out", "davis2017", "clip", "static")
    truth = davis[0].read()[1]["masks"].numpy()
    assert sorted(p.name for p in folder.iterdir()) == ["00000.png", "00001.png", "00002.png"]
    with Image.open(folder / "00002.png") as image:
        assert image.mode == "P" and np.array_equal(np.array(image), truth[0])
        assert image.getpalette()[:9] == [0, 0, 0, 128, 0, 0, 0, 128, 0]  # DAVIS's black, red and green
    assert np.array_equal(predictions.read_masks(folder, truth)[1], truth[0])
    assert not (tmp_path / "out/davis2017/lk").exists()


def test_masks_of_another_number_or_size_are_refused(davis, tmp_path):
    predictions.predict({"static": STATIC}, davis, tmp_path / "out")
    folder = predictions.masks_path(tmp_path / "out", "davis2017", "clip", "static")
    with pytest.raises(ValueError, match=r"static/clip should hold 4 images like the truth, got 3"):
        predictions.read_masks(folder, np.zeros((4, 37, 53), int))
    with pytest.raises(ValueError, match=r"00000\.png should be \(37, 50\) .* got \(37, 53\)"):
        predictions.read_masks(folder, np.zeros((3, 37, 50), int))
    (folder / "00001.png").write_bytes(b"none")
    with pytest.raises(ValueError, match=r"00001\.png should be an image"):
        predictions.read_masks(folder, np.zeros((3, 37, 53), int))


def test_resolution_is_what_methods_see_and_answers_are_in_the_clip_s_pixels(davis, tmp_path):
    seen = []

    def tracker(video, query_points):
        seen.append((tuple(video.shape), video.dtype, query_points))
        return baselines.track_static(video, query_points)

    def propagator(video, mask):
        seen.append(tuple(mask.shape))
        return baselines.propagate_masks_static(video, mask)

    predictions.predict({"a": Method(tracker, propagator)}, davis, tmp_path / "out", resolution=(74, 106))
    (shape, dtype, shown), mask_shape = seen
    assert shape == (3, 3, 74, 106) and dtype == torch.uint8 and mask_shape == (74, 106)
    clip, known = davis[0].read()
    torch.testing.assert_close(shown[:, 1:], (clip.query_points[:, 1:] + 0.5) * 2 - 0.5)
    found = predictions.read_points(tmp_path / "out", davis[0], "a")
    torch.testing.assert_close(found.tracks, clip.query_points[:, 1:].expand(3, -1, 2))
    truth = known["masks"].numpy()
    masks = predictions.read_masks(predictions.masks_path(tmp_path / "out", "davis2017", "clip", "a"), truth)
    assert np.array_equal(masks[2], truth[0])


def test_size_of():
    assert predictions.size_of([]) is None and predictions.size_of([256, 320]) == (256, 320)
    for wrong in ([256], [256, 0], [1, 2, 3]):
        with pytest.raises(ValueError, match=rf"RESOLUTION should be \[H, W\], .* got {re.escape(str(wrong))}"):
            predictions.size_of(wrong)


def test_answers_to_something_else_are_not_mistaken_for_these(tasks, davis, tmp_path):
    """Other weights, another resolution, other queries: refused; what someone else wrote does not say."""
    predictions.predict({"a": STATIC._replace(weights="one")}, tasks[:1], tmp_path)
    before = contents(tmp_path)
    with pytest.raises(ValueError, match=r'000\.a\.npz should be an answer to .*"two".*, got one to .*"one"'):
        predictions.predict({"a": STATIC._replace(weights="two")}, tasks[:1], tmp_path)
    with pytest.raises(ValueError, match=r"should be an answer to .*\[32, 48\]"):
        predictions.predict({"a": STATIC._replace(weights="one")}, tasks[:1], tmp_path, resolution=(32, 48))
    strided = Task("procedural", "000", tasks[0].read, "strided")
    with pytest.raises(ValueError, match=r'should be an answer to .*"strided"'):
        predictions.predict({"a": STATIC._replace(weights="one")}, [strided], tmp_path)
    assert contents(tmp_path) == before
    predictions.predict({"a": STATIC._replace(weights="one")}, davis, tmp_path)
    (tmp_path / "davis2017/clip.a.npz").unlink()
    with pytest.raises(ValueError, match=r'davis2017/a/clip should be an answer to .*"two".*, got one to .*"one"'):
        predictions.predict({"a": STATIC._replace(weights="two")}, davis, tmp_path)
    clip = tasks[0].read()[0]
    np.savez(tmp_path / "procedural/000.b.npz", tracks=clip.tracks, visible=clip.visible)
    predictions.predict({"b": STATIC}, tasks[:1], tmp_path)
    with pytest.raises(ValueError, match=r"000\.b\.npz should be an \.npz of arrays tracks, visible, confidence, got"):
        predictions.read_points(tmp_path, tasks[0], "b")


def test_what_cannot_be_read_leaves_nothing_half_written(davis, tmp_path):
    """A frame that is no image stops the run where it is; what was answered before stays."""
    whole = benchmarks.procedural_val(num_clips=1, num_frames=3, size=48, num_points=4)
    image = tmp_path / "data/DAVIS/JPEGImages/480p/clip/00001.jpg"
    image.write_bytes(image.read_bytes()[:30])
    with pytest.raises(ValueError, match=r"expected an image, got .*clip/00001\.jpg"):
        predictions.predict({"static": STATIC}, [*whole, *davis], tmp_path / "out")
    assert set(contents(tmp_path / "out")) == {"procedural/000.static.npz", "procedural/000.truth.npz"}


@pytest.mark.parametrize("content", [b"", b"PK", b"no file of arrays"])
def test_files_that_are_no_answers(tasks, tmp_path, content):
    with pytest.raises(FileNotFoundError, match=r"read_points: no file .*000\.none\.npz"):
        predictions.read_points(tmp_path, tasks[0], "none")
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.npz should be an \.npz of arrays tracks, got"):
        predictions.load(tmp_path / "a.npz", ("tracks",))
    np.savez(tmp_path / "a.npz", tracks=np.array([None]))
    with pytest.raises(ValueError, match=r"a\.npz should be an \.npz of arrays tracks, got Object arrays"):
        predictions.load(tmp_path / "a.npz", ("tracks",))


@pytest.mark.parametrize("name", ["truth", "a.b", "a/b", ""])
def test_names_of_methods(tasks, tmp_path, name):
    with pytest.raises(ValueError, match="name should be letters, digits, - and _"):
        predictions.predict({name: STATIC}, tasks, tmp_path)


def test_costs(davis, tmp_path):
    def tracker(video, query_points):
        held = torch.ones(30_000_000 // 4)  # 30 MB, touched
        sum(i * i for i in range(200_000))
        return baselines.track_static(video, query_points)._replace(confidence=held[:1].expand(3, len(query_points)))

    predictions.predict({"a": STATIC._replace(points=tracker)}, davis, tmp_path)
    found = predictions.costs(tmp_path, "davis2017")
    assert set(found) == {
        f"davis2017.a.{kind}{name}" for kind in ("", "masks_") for name in ("seconds_per_frame", "peak_memory")
    }
    assert (
        0.001 < found["davis2017.a.seconds_per_frame"]["value"] < 1 and found["davis2017.a.peak_memory"]["count"] == 1
    )
    points, masks = (found[f"davis2017.a.{kind}peak_memory"]["value"] for kind in ("", "masks_"))
    assert np.isnan(points) or (25 < points < 60 and masks < 20)  # not every system tells
    cost = tmp_path / "davis2017/clip.a.cost.json"
    cost.write_text(json.dumps({"points": {"frames": 4, "seconds": 2.0, "bytes": None}}))
    found = predictions.costs(tmp_path, "davis2017")
    assert found["davis2017.a.seconds_per_frame"]["value"] == 0.5
    assert np.isnan(found["davis2017.a.peak_memory"]["value"])


def test_methods_are_prepared_before_they_are_measured(tasks, tmp_path):
    order = []

    def tracker(video, query_points):
        order.append("asked")
        return PointTracks(*baselines.track_static(video, query_points))

    method = Method(tracker, prepare=lambda: order.append("prepared"))
    predictions.predict({"a": method}, tasks[:2], tmp_path, progress=lambda done, note: order.append(f"{done} {note}"))
    assert order == ["0 procedural 000: a", "prepared", "asked", "1 procedural 001: a", "prepared", "asked"]


def test_the_command_takes_its_part_of_the_clips(tmp_path, monkeypatch):
    """Two processes, as torchrun starts them, write what one would."""
    given = ["-p", "MAX_CLIPS", "2", "-p", "METHODS", "[static]"]
    for rank in ("0", "1"):
        monkeypatch.setitem(os.environ, "RANK", rank)
        monkeypatch.setitem(os.environ, "WORLD_SIZE", "2")
        done = CliRunner().invoke(__main__.main, ["predict", str(tmp_path / "two"), *given])
        assert done.exit_code == 0, done.output
        assert len(list((tmp_path / "two").rglob("*.static.npz"))) == int(rank) + 1
    monkeypatch.delenv("WORLD_SIZE")
    monkeypatch.delenv("RANK")
    assert CliRunner().invoke(__main__.main, ["predict", str(tmp_path / "one"), *given]).exit_code == 0
    assert contents(tmp_path / "one") == contents(tmp_path / "two") != {}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["-p", "METHOD", "[static]"], "unknown parameter METHOD; did you mean METHODS?"),
        (["-p", "METHODS", "[statik]"], "unknown method 'statik'"),
        (["-p", "BENCHMARKS", "[badja]", "-p", "DATA_ROOT", "nowhere"], "read BADJA: no nowhere"),
        (["-p", "BENCHMARKS", "[davis]"], "benchmark should be one of procedural"),
        (["-p", "RESOLUTION", "[256]"], "RESOLUTION should be [H, W]"),
    ],
)
def test_the_command_says_what_is_wrong(tmp_path, given, message):
    done = CliRunner().invoke(__main__.main, ["predict", str(tmp_path / "out"), *given])
    assert done.exit_code == 1 and message in done.output and not (tmp_path / "out").exists()


def test_fewer_procedural_clips_are_other_clips(tmp_path):
    """Of other speeds, under the same names: an answer to one of them is none to the other."""
    few, more = (benchmarks.procedural_val(n, num_frames=2, size=64, num_points=4)[:1] for n in (1, 2))
    predictions.predict({"static": STATIC}, few, tmp_path)
    with pytest.raises(ValueError, match=r"should be an answer to .*of 2.* got one to .*of 1"):
        predictions.predict({"static": STATIC}, more, tmp_path)
