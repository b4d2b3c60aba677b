"""`make data-NAME` without a network: from a file of this machine, cut off, broken, and out of reach."""

import pickle
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

import corrlib
from corrlib.datasets import tapvid

ROOT = Path(corrlib.__file__).resolve().parents[1]
pytestmark = pytest.mark.skipif(not (shutil.which("make") and shutil.which("curl")), reason="needs make and curl")


@pytest.fixture
def archive(tmp_path):
    """TAP-Vid-DAVIS as it is packed, of one small clip."""
    clip = {"video": np.zeros((2, 8, 10, 3), np.uint8), "points": np.full((1, 2, 2), 0.5), "occluded": np.zeros((1, 2))}
    path = tmp_path / "served" / "tapvid_davis.zip"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("tapvid_davis/tapvid_davis.pkl", pickle.dumps({"bear": clip}))
        file.writestr("tapvid_davis/README.md", np.random.default_rng(0).bytes(5000))
    return path


def make(data, url, name="tapvid-davis"):
    """The command, with its file in another place."""
    words = ["make", "-C", str(ROOT), f"data-{name}", f"DATA={data}", f"PYTHON={sys.executable}"]
    return subprocess.run([*words, f"URL_tapvid-davis={url}"], capture_output=True, text=True)


def test_it_ends_where_the_reader_looks(archive, tmp_path):
    done = make(tmp_path / "data", archive.as_uri())
    assert done.returncode == 0, done.stderr
    assert tapvid.names(tmp_path / "data") == ["bear"]
    assert sorted(p.name for p in (tmp_path / "data/TAP-Vid").iterdir()) == ["tapvid_davis", "tapvid_davis.zip"]
    archive.unlink()
    assert make(tmp_path / "data", archive.as_uri()).returncode == 0  # what is there is not fetched again


def test_a_download_that_was_cut_off_goes_on(archive, tmp_path):
    partial = tmp_path / "data/TAP-Vid/tapvid_davis.zip.partial"
    partial.parent.mkdir(parents=True)
    partial.write_bytes(archive.read_bytes()[:3000])
    marked = bytearray(archive.read_bytes())
    marked[:4] = b"gone"  # what is there already is not asked for again
    archive.write_bytes(marked)
    assert make(tmp_path / "data", archive.as_uri()).returncode == 0
    assert tapvid.names(tmp_path / "data") == ["bear"]


def test_without_a_network_it_says_what_to_do(tmp_path):
    done = make(tmp_path / "data", "http://127.0.0.1:9/tapvid_davis.zip")
    assert done.returncode != 0
    assert "could not be fetched. Without a network" in done.stdout
    assert f"put it at {tmp_path}/data/TAP-Vid/tapvid_davis.zip" in " ".join(done.stdout.split())


def test_a_broken_archive_leaves_nothing(archive, tmp_path):
    content = bytearray(archive.read_bytes())
    content[len(content) // 2] ^= 255
    for broken in (bytes(content), content[:2000], b"<html>"):
        archive.write_bytes(broken)
        shutil.rmtree(tmp_path / "data", ignore_errors=True)
        done = make(tmp_path / "data", archive.as_uri())
        assert done.returncode != 0 and "should be a whole .zip archive" in done.stdout
        assert [p.name for p in (tmp_path / "data/TAP-Vid").iterdir()] == ["tapvid_davis.zip"]


def test_other_names_are_told_which_there_are(tmp_path):
    done = make(tmp_path / "data", "", "kitti")
    assert done.returncode != 0 and "data-tapvid-davis" in done.stdout and "data/README.md" in done.stdout
