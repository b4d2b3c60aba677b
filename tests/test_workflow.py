"""The tests that run elsewhere: the workflow can be read, and names what this project says it runs on."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

import corrlib

ROOT = Path(corrlib.__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def job():
    return yaml.safe_load((ROOT / ".github" / "workflows" / "tests.yml").read_text())["jobs"]["tests"]


def test_three_systems_and_three_pythons_from_the_oldest_that_is_promised(job):
    matrix = job["strategy"]["matrix"]
    assert {name.partition("-")[0] for name in matrix["system"]} == {"ubuntu", "macos", "windows"}
    pythons = [tuple(map(int, version.split("."))) for version in matrix["python"]]  # text: 3.10 would be 3.1
    oldest = re.search(r'requires-python = ">=(\d+)\.(\d+)"', (ROOT / "pyproject.toml").read_text()).groups()
    assert pythons == [(int(oldest[0]), int(oldest[1]) + i) for i in range(3)]


def test_it_installs_what_the_readme_installs_and_runs_all_tests(job):
    runs = [step["run"] for step in job["steps"] if "run" in step]
    assert "python -m pip install -r requirements.txt" in runs and runs[-1] == "python -m pytest"
    assert not [line for line in runs if re.search(r"\bmake\b|[|&;<>]", line)]  # for Windows too
    used = " ".join(map(str, [job["runs-on"], *(step.get("with", {}) for step in job["steps"])]))
    assert set(re.findall(r"\$\{\{ matrix\.(\w+) \}\}", used)) == set(job["strategy"]["matrix"])


@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
def test_the_script_of_this_repository_can_be_read():
    assert subprocess.run(["bash", "-n", str(ROOT / ".ci" / "run")]).returncode == 0
