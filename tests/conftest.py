"""What every test runs under: shapes checked as they are annotated, one thread, no display.

The shape check is on here only, so public doors check what they are given themselves. A test
of what a door says to a wrong shape asks for the fixture `unchecked`, and meets it as users do.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch; for the kernels of notebooks too
os.environ.setdefault("MPLBACKEND", "Agg")

import jaxtyping

jaxtyping.install_import_hook("corrlib", "shapes.check")

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture
def unchecked(monkeypatch):
    """Annotations are not checked, as everywhere but in these tests."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
