"""What every test runs under: shapes checked as they are annotated, one thread, no display.

The shape check is on here only, so public doors check what they are given themselves. A test
of what a door says to a wrong shape asks for the fixture `unchecked`, and meets it as users do.
"""

import os

import cv2
import jaxtyping
import numpy as np
import pytest
import torch

os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the kernels that run notebooks
os.environ.setdefault("MPLBACKEND", "Agg")
torch.set_num_threads(1)
jaxtyping.install_import_hook("corrlib", "shapes.check")


@pytest.fixture
def unchecked(monkeypatch):
    """Annotations are not checked, as everywhere but in these tests."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.fixture
def real_folder(tmp_path_factory):
    """A folder named real, with one video of three frames, which moves by two pixels a frame."""
    folder = tmp_path_factory.mktemp("videos") / "real"
    (folder / "a").mkdir(parents=True)
    picture = np.random.default_rng(0).integers(0, 256, (60, 70, 3), np.uint8)
    for t in range(3):
        cv2.imwrite(str(folder / "a" / f"{t}.png"), np.roll(picture, 2 * t, axis=1))
    return str(folder)
