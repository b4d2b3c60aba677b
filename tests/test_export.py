"""What is written is what our own readers read back."""

import csv

import numpy as np
import pytest
import torch
from PIL import Image

from corrlib import checkpoints, export, flow, frames, samples
from corrlib.datasets import davis, tapvid

H, W, T, N = 37, 53, 3, 4


@pytest.fixture
def video():
    return torch.randint(0, 256, (T, 3, H, W), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def answer():
    g = torch.Generator().manual_seed(1)
    tracks = torch.rand(T, N, 2, generator=g) * torch.tensor([W - 1.0, H - 1.0])
    visible = torch.rand(T, N, generator=g) > 0.4
    visible[0] = True
    return samples.PointTracks(tracks, visible, torch.rand(T, N, generator=g))


@pytest.fixture
def queries(answer):
    return torch.cat([torch.zeros(N, 1), answer.tracks[0]], dim=1)


def test_tracks_as_arrays(tmp_path, answer, queries):
    path = export.write_tracks(tmp_path / "new" / "tracks.npz", answer, queries)
    with np.load(path) as read:
        assert np.array_equal(read["query_points"], queries)
        for name, values in answer._asdict().items():
            assert np.array_equal(read[name], values)
    assert [p.name for p in path.parent.iterdir()] == ["tracks.npz"]


def test_queries_may_be_a_list(tmp_path, answer, queries):
    with np.load(export.write_tracks(tmp_path / "tracks.npz", answer, queries.tolist())) as read:
        assert np.array_equal(read["query_points"], queries)


def test_tracks_as_a_table(tmp_path, answer, queries):
    with export.write_tracks(tmp_path / "tracks.csv", answer, queries).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == T * N
    for row in rows:
        n, t = int(row["point"]), int(row["frame"])
        assert float(row["x"]) == pytest.approx(float(answer.tracks[t, n, 0]), abs=6e-4)
        assert float(row["y"]) == pytest.approx(float(answer.tracks[t, n, 1]), abs=6e-4)
        assert bool(int(row["visible"])) == bool(answer.visible[t, n])


def test_tapvid(tmp_path, video, answer):
    export.write_tapvid(tmp_path / "TAP-Vid" / "tapvid_davis.pkl", "mine", video, answer)
    assert tapvid.names(tmp_path) == ["mine"]
    clip = tapvid.read(tmp_path, "mine")
    assert torch.equal(clip.video, video) and torch.equal(clip.visible, answer.visible)
    assert torch.allclose(clip.tracks, answer.tracks, atol=1e-4)  # half a pixel there and back


def test_masks(tmp_path, video):
    masks = torch.randint(0, 4, (T, H, W), generator=torch.Generator().manual_seed(2))
    export.write_masks(tmp_path / "DAVIS/Annotations/480p/mine", masks)
    pictures = tmp_path / "DAVIS/JPEGImages/480p/mine"
    pictures.mkdir(parents=True)
    from PIL import Image

    for t, frame in enumerate(video):
        Image.fromarray(frame.permute(1, 2, 0).numpy()).save(pictures / f"{t:05d}.jpg")
    assert torch.equal(davis.read(tmp_path, "mine").masks, masks)


@pytest.mark.parametrize("suffix", [".flo", ".png"])
def test_flow(tmp_path, suffix):
    values = torch.arange(2 * H * W).reshape(2, H, W).float() / 64 - 20
    valid = torch.ones(H, W, dtype=torch.bool)
    valid[3] = False
    path = export.write_flow(tmp_path / f"flow{suffix}", values, valid)
    read, known = flow.read_flow(path)
    assert torch.equal(known, valid) and torch.equal(read, values * valid)


def test_overlay(tmp_path, video, answer):
    masks = torch.zeros(T, H, W, dtype=torch.int64)
    masks[:, 10:20, 10:30] = 1
    grey = torch.full_like(video, 90)
    path = export.write_overlay(tmp_path / "overlay.webm", grey, answer, masks)
    read = frames.read_video(path)
    assert len(read) == T
    inside, outside = read[:, 2, 12:18, 12:28].float().mean(), read[:, 2, 30:, 40:].float().mean()
    assert inside > outside + 15  # the first object is blue


def test_overlay_of_a_file_reduced(tmp_path, video, answer):
    frames.write_video(tmp_path / "clip.webm", video)
    told = []
    path = tmp_path / "overlay.webm"
    export.write_overlay(path, tmp_path / "clip.webm", answer, lines=20, progress=lambda *how_far: told.append(how_far))
    assert frames.open_video(path).size_hw == (20, 28) and [done for done, _ in told] == [1, 2, 3]
    longer = samples.PointTracks(*(torch.cat([values, values]) for values in answer))
    for wrong, message in ((longer, "3 frames like the video, got 6"), (answer, "3 or more frames .* got 2")):
        short = samples.PointTracks(*(values[: 6 if wrong is longer else 2] for values in wrong))
        with pytest.raises(ValueError, match=f"tracks should have {message}"):
            export.write_overlay(path, tmp_path / "clip.webm", short)


def test_masks_replace_a_folder_when_asked(tmp_path):
    export.write_masks(tmp_path / "m", torch.zeros(3, 4, 5).long())
    export.write_masks(tmp_path / "m", torch.ones(2, 4, 5).long(), overwrite=True)
    assert [path.name for path in sorted((tmp_path / "m").iterdir())] == ["00000.png", "00001.png"]
    assert np.array(Image.open(tmp_path / "m" / "00001.png")).min() == 1


@pytest.mark.parametrize("name", ["small", "base"])
def test_onnx_answers_as_the_encoder_at_any_size(name, tmp_path, unchecked):
    """The check of shapes is off: the exporter hands in tensors of its own."""
    for needed in ("onnx", "onnxscript"):
        pytest.importorskip(needed)
    runtime = pytest.importorskip("onnxruntime")
    model = checkpoints.load_pretrained(name)
    session = runtime.InferenceSession(str(export.write_onnx(tmp_path / "a" / "small.onnx", model)))
    assert session.get_modelmeta().custom_metadata_map["fine_lattice"] == "[2, 0.0]"
    for size in ((1, 3, 61, 75), (2, 3, 128, 200), (1, 3, 8, 9)):
        rgb = torch.rand(size, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            expected = model(rgb)
        for ours, theirs in zip(expected, session.run(None, {"frames": rgb.numpy()})):
            assert ours.shape == theirs.shape and np.abs(ours.numpy() - theirs).max() < 1e-5
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["small.onnx"]


def test_onnx_says_what_it_needs(tmp_path, monkeypatch):
    monkeypatch.setattr(export.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="needs onnx and onnxscript: pip install onnx onnxscript"):
        export.write_onnx(tmp_path / "a.onnx", checkpoints.load_pretrained())
    with pytest.raises(ValueError, match=r"should end in \.onnx"):
        export.write_onnx(tmp_path / "a.npz", checkpoints.load_pretrained())


def test_refusals_write_nothing(tmp_path, video, answer, queries):
    for act, message in (
        (lambda: export.write_tracks(tmp_path / "a.txt", answer, queries), r"should end in \.npz or \.csv"),
        (lambda: export.write_tracks(tmp_path / "a.npz", answer, queries[:1]), r"should be \(4, 3\), one a track"),
        (lambda: export.write_tapvid(tmp_path / "a.npz", "x", video, answer), r"should end in \.pkl"),
        (lambda: export.write_tapvid(tmp_path / "a.pkl", "x", video[:2], answer), "should have 2 frames"),
        (lambda: export.write_masks(tmp_path / "m", torch.full((1, 4, 4), 256)), "should hold 0 to 255"),
        (lambda: export.write_masks(tmp_path, torch.zeros(1, 4, 4).long()), "exists and is left as it was"),
        (lambda: export.write_flow(tmp_path / "a.pfm", torch.zeros(2, 4, 4)), r"should end in \.flo or \.png"),
        (lambda: export.write_flow(tmp_path / "a.png", torch.full((2, 4, 4), 600.0)), "should be in"),
        (lambda: export.write_overlay(tmp_path / "a.webm", video[:2], answer), "tracks should have 2 frames"),
    ):
        with pytest.raises(ValueError, match=message):
            act()
    assert not list(tmp_path.iterdir())
