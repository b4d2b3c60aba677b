"""Shards: the same clips come back, whoever wrote and reads them; what is broken is named."""

import resource
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import corrlib
from corrlib import checkpoints, shards, training, training_data
from corrlib.__main__ import main
from corrlib.encoder import PaperEncoder, PixelEncoder
from corrlib.losses import LossWeights
from corrlib.training import ProceduralClips, TrainConfig
from corrlib.training_data import TaughtClips

TINY = TrainConfig(steps=7, clips=1, frames=2, size=32, points=8, textures=3)


@pytest.fixture(scope="module")
def drawn():
    return ProceduralClips(TINY)


def same(one, two):
    return one.name == two.name and all(torch.equal(getattr(one, n), getattr(two, n)) for n in shards.ARRAYS)


def test_clips_come_back_in_their_order(tmp_path, drawn):
    told = []
    paths = shards.write_shards(tmp_path, drawn, "tiny", per_shard=3, report=lambda done, all: told.append((done, all)))
    assert [p.name for p in paths] == ["clips-00000.tar", "clips-00001.tar", "clips-00002.tar"]
    assert told == [(1, 3), (2, 3), (3, 3)]
    found = list(shards.Shards(tmp_path))
    assert len(found) == len(shards.Shards(tmp_path)) == 7
    assert all(same(one, drawn[i]) for i, one in enumerate(found))
    batch = training_data.collate(found[:2])  # as in training
    assert batch.video.shape == (2, 2, 3, 32, 32) and batch.masks is None
    with_masks = ProceduralClips(TINY, masks=True)
    shards.write_shards(tmp_path / "masks", torch.utils.data.Subset(with_masks, [0, 1]), "tiny", per_shard=2)
    kept = training_data.collate(list(shards.Shards(tmp_path / "masks"))).masks
    assert torch.equal(kept[1], with_masks[1].masks) and kept.max() > 0


def test_processes_write_the_same_bytes(tmp_path, drawn):
    alone = shards.write_shards(tmp_path / "alone", drawn, per_shard=4)
    helped = shards.write_shards(tmp_path / "helped", drawn, per_shard=4, workers=2)
    assert [p.read_bytes() for p in alone] == [p.read_bytes() for p in helped]
    loader = torch.utils.data.DataLoader(
        shards.Shards(tmp_path / "alone"), batch_size=None, num_workers=2, multiprocessing_context="fork"
    )
    assert sorted(clip.name for clip in loader) == sorted(drawn[i].name for i in range(7))


def test_what_is_there_is_kept(tmp_path, drawn):
    paths = shards.write_shards(tmp_path, drawn, per_shard=3)
    before = [p.read_bytes() for p in paths]
    times = [p.stat().st_mtime_ns for p in paths]
    paths[1].unlink()
    with pytest.raises(FileNotFoundError, match=r"no .*clips-00001.tar; call write_shards again"):
        shards.Shards(tmp_path)
    shards.write_shards(tmp_path, drawn, per_shard=3)
    assert [p.read_bytes() for p in paths] == before
    assert [paths[i].stat().st_mtime_ns == times[i] for i in range(3)] == [True, False, True]
    with pytest.raises(ValueError, match=r"holds other clips: .*name another folder"):
        shards.write_shards(tmp_path, drawn, "others", per_shard=3)


def test_broken_shards_are_named_and_skipped_only_when_asked(tmp_path, drawn):
    paths = shards.write_shards(tmp_path, drawn, per_shard=3)
    whole = paths[0].read_bytes()
    paths[0].write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"read_shard: .*clips-00000.tar is broken after clip 000000000"):
        list(shards.Shards(tmp_path))
    with pytest.warns(UserWarning, match=r"skipped what is left of it: .*clips-00000.tar"):
        left = list(shards.Shards(tmp_path, skip_broken=True))
    assert [clip.name for clip in left][-4:] == [drawn[i].name for i in range(3, 7)]
    paths[0].write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match=r"clips-00000.tar is broken at its beginning"):
        list(shards.Shards(tmp_path))
    with tarfile.open(paths[0], "w"):
        pass  # a whole archive of nothing
    with pytest.raises(ValueError, match=r"clips-00000.tar should hold 3 clips, got 0"):
        list(shards.Shards(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"Shards: no .*shards.json"):
        shards.Shards(tmp_path / "gone")
    with pytest.raises(ValueError, match="at least 1, got 0 and 1"):
        shards.write_shards(tmp_path, drawn, per_shard=0)


FULL = """
import resource, sys
from corrlib import shards, training
config = training.TrainConfig(steps=4, clips=1, frames=2, size=32, points=8, textures=3)
resource.setrlimit(resource.RLIMIT_FSIZE, (16_000, resource.RLIM_INFINITY))
try:
    shards.write_shards(sys.argv[1], training.ProceduralClips(config), per_shard=4)
except OSError as error:
    print(error)
"""


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="no limit of the size of files here")
def test_a_full_disk_leaves_nothing_half_written(tmp_path):
    """A file that may not grow stands for a disk that is full: the same error on the same call."""
    root = str(Path(corrlib.__file__).parents[1])
    run = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, cwd=root, check=True
    )
    assert "write_shards: File too large" in run.stdout and "clips-00000.tar" in run.stdout
    assert [p.name for p in tmp_path.iterdir()] == ["shards.json"]
    shards.write_shards(tmp_path, ProceduralClips(TrainConfig(**vars(TINY) | {"steps": 4})), per_shard=4)
    assert len(list(shards.Shards(tmp_path))) == 4


def test_training_from_shards_is_training_from_the_clips_themselves(tmp_path):
    """Drawn and real clips, and what a teacher saw of them, kept once: the same losses but for half precision."""
    config = TrainConfig(
        steps=3, clips=2, frames=2, size=32, points=8, textures=3, radius=2, label="teacher", appearance=0.0,
        real_videos="data/samples", real_clips=2, bfloat16=False,
    )  # fmt: skip
    weights = LossWeights(reconstruction=1.0)
    torch.manual_seed(1)
    teacher = PixelEncoder(8).eval()
    shards.write_shards(tmp_path / "drawn", TaughtClips(ProceduralClips(config), teacher), per_shard=4)
    shards.write_shards(tmp_path / "real", training_data.real_clips(config), per_shard=4)

    def losses(config, **how):
        torch.manual_seed(0)
        history = training.train(PixelEncoder(8), config, weights, **how)
        return [[record[name] for name in ("coarse", "fine", "reconstruction")] for record in history]

    kept = {"labelled": "shards", "data_root": str(tmp_path / "drawn"), "real_videos": str(tmp_path / "real")}
    for workers in (0, 2):
        found = losses(replace(config, **kept), workers=workers)
        assert np.allclose(found, losses(config, teacher=teacher), rtol=1e-3)


def test_clips_of_shards_come_again_and_must_fit(tmp_path, drawn):
    shards.write_shards(tmp_path, drawn, per_shard=3)
    clips = shards.ClipsOfShards(tmp_path, 16, 2, 32)
    assert len(clips) == 16 and all(same(clips[i], drawn[i % 7]) for i in (0, 5, 6, 7, 15, 2))
    with pytest.raises(ValueError, match=r"clips of .* should be \(2, 3, 64, 64\), got \(2, 3, 32, 32\)"):
        shards.ClipsOfShards(tmp_path, 1, 2, 64)[0]
    with pytest.raises(ValueError, match="should hold real ones, got labelled clips"):
        shards.ClipsOfShards(tmp_path, 1, 2, 32, labelled=False)[0]
    real = replace(TINY, real_videos="data/samples", real_clips=1, steps=1)
    shards.write_shards(tmp_path / "real", training_data.real_clips(real))
    with pytest.raises(ValueError, match="should hold labelled clips, got real ones"):
        training.train(PixelEncoder(8), replace(real, labelled="shards", data_root=str(tmp_path / "real"), radius=2))


def test_what_a_teacher_saw_must_be_there_and_fit(tmp_path, drawn):
    config = TrainConfig(
        **vars(TINY) | {"steps": 2, "label": "teacher", "labelled": "shards", "data_root": str(tmp_path), "radius": 2}
    )
    shards.write_shards(tmp_path, drawn)
    with pytest.raises(ValueError, match="need a teacher, or shards that keep what one saw"):
        training.train(PixelEncoder(8), config)
    other = tmp_path / "other"
    shards.write_shards(other, TaughtClips(drawn, PaperEncoder().eval()), per_shard=7)
    assert len(training.train(PixelEncoder(8), replace(config, data_root=str(other)))) == 2  # of other channels
    clip = next(iter(shards.Shards(other)))
    coarse, fine = clip.taught
    teacher = PaperEncoder().eval()  # one that is given is asked, whatever was kept
    with_teacher, without = (training.train(PixelEncoder(8), replace(config, steps=1, data_root=str(other)), teacher=t)
                             for t in (teacher, None))  # fmt: skip
    assert with_teacher[0]["fine"] != without[0]["fine"]
    wrong = replace(clip, taught=(coarse[..., :-1], fine))
    with pytest.raises(ValueError, match=r"should be maps of \(4, 4\), got \(4, 3\)"):
        training.train(PixelEncoder(8), replace(config, data_root=str(other)), clips=[wrong] * 2)


def test_the_command_keeps_what_a_teacher_saw_and_real_clips(tmp_path):
    checkpoints.save(tmp_path / "teacher.safetensors", PixelEncoder(8), {})
    tiny = [f"--set={name}={value}" for name, value in {"frames": 2, "size": 32, "points": 8, "textures": 3}.items()]
    call = ["write-shards", str(tmp_path / "drawn"), "--clips", "3", *tiny]
    run = CliRunner().invoke(main, [*call, "--teacher", str(tmp_path / "teacher.safetensors")])
    assert run.exit_code == 0, run.output
    assert {clip.taught[1].shape for clip in shards.Shards(tmp_path / "drawn")} == {(2, 64, 16, 16)}
    assert CliRunner().invoke(main, call).exit_code == 1  # without a teacher they are others
    for more in ([], ["--set=real_videos=data/samples", "--teacher", str(tmp_path / "teacher.safetensors")]):
        refused = CliRunner().invoke(main, ["write-shards", str(tmp_path / "no"), *tiny, "--real", *more])
        assert "real clips should have real_videos set to a folder, and no teacher" in refused.output
    assert not (tmp_path / "no").exists()
    call = ["write-shards", str(tmp_path / "real"), "--clips", "2", *tiny, "--real", "--set=real_videos=data/samples"]
    assert CliRunner().invoke(main, call).exit_code == 0
    assert [tuple(clip.shape) for clip in shards.Shards(tmp_path / "real")] == [(2, 3, 32, 32)] * 2
