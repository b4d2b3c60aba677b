"""What every test runs under: shapes checked as they are annotated, one thread, no display.

The shape check is on here only, so public doors check what they are given themselves. A test
of what a door says to a wrong shape asks for the fixture `unchecked`, and meets it as users do.
"""

import os

import jaxtyping
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
