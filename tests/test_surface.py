"""The public names are a decision, and importing them is without consequences."""

import doctest
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

import corrlib

NAMES = Path(__file__).with_name("public_names.txt")
PROBE = """
import json, random, sys, warnings
import numpy, torch, cv2

def state():
    return [
        torch.initial_seed(), str(torch.get_rng_state().sum()), str(random.getstate()), str(numpy.random.get_state()),
        torch.get_num_threads(), cv2.getNumThreads(), str(torch.get_default_dtype()), torch.is_grad_enabled(),
        torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark,
        torch.get_float32_matmul_precision(), numpy.geterr(), len(warnings.filters),
    ]

before = state()
import corrlib
print(json.dumps([before == state(), torch.cuda.is_initialized(), sorted(sys.modules)]))
"""


def test_public_names_are_the_committed_ones():
    """A name is added or taken away on purpose: change tests/public_names.txt in the same commit."""
    public = {n for n, v in vars(corrlib).items() if not n.startswith("_") and not isinstance(v, ModuleType)}
    assert sorted(public) == NAMES.read_text().split()


def test_import_is_quiet_and_changes_nothing(tmp_path):
    root = str(Path(corrlib.__file__).parents[1])
    run = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {root!r})\n{PROBE}"],
        capture_output=True, text=True, cwd=tmp_path, check=True,
    )  # fmt: skip
    assert run.stderr == "" and run.stdout.count("\n") == 1
    unchanged, uses_gpu, modules = json.loads(run.stdout)
    assert unchanged and not uses_gpu
    late = {"torchvision", "matplotlib.pyplot", "papermill", "IPython", "accelerate", "huggingface_hub"}
    assert not late & set(modules)
    assert not list(tmp_path.iterdir())


def test_a_plain_installation_can_be_imported():
    """None of the packages that pyproject.toml calls optional is needed, by the library or by its commands."""
    optional = tomllib.loads((Path(corrlib.__file__).parents[1] / "pyproject.toml").read_text())["project"]
    names = [re.match(r"[\w-]+", wish)[0] for wishes in optional["optional-dependencies"].values() for wish in wishes]
    assert {"webdataset", "papermill"} < set(names)
    blocked = f"import sys; sys.modules |= dict.fromkeys({names})\nimport corrlib, corrlib.__main__"
    subprocess.run([sys.executable, "-c", blocked], check=True)


@pytest.mark.parametrize("name", NAMES.read_text().split())
def test_every_public_name_says_what_it_is_and_its_examples_hold(name):
    found = getattr(corrlib, name)
    assert found.__doc__ and not found.__doc__.startswith(f"{name}("), "a docstring of its own"
    runner = doctest.DocTestRunner(verbose=False)
    for example in doctest.DocTestFinder(recurse=False).find(found, name):
        runner.run(example)
    assert runner.failures == 0
