"""Every notebook: stored bare, built alike, parameters that papermill can give, and a run of it.

A notebook is found by its place in notebooks/. Its smoke profile, NAME.smoke.yaml, makes it run
in seconds; they run in the order of their names in a repository of their own, so that one may
read what an earlier one wrote to results/<stage>.smoke/.
"""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import torch
import yaml

import corrlib
from corrlib import checkpoints, runs

ROOT = Path(corrlib.__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PROFILES = sorted((ROOT / "notebooks" / "params").glob("*"))
LINE = re.compile(r"([A-Z][A-Z0-9_]+): (int|float|str|bool|list|dict)(\[.+\])? = ([^=]+?)  # \S.+")
MOST_LINES, MOST_CELL_LINES, MOST_FIGURE_LINES, MOST_DEF_LINES, LEAST_WORDS = 120, 15, 20, 5, 300

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def cells(path, kind):
    """Cells of a kind in their order."""
    return [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == kind]


def code_lines(source):
    """Lines that are neither empty nor only a comment."""
    return [line for line in source.splitlines() if line.strip() and not line.strip().startswith("#")]


def declared(path):
    """The parameters cell as {name: (type, default)}, or the line that is no declaration."""
    found = {}
    for line in cells(path, "code")[0].source.splitlines():
        match = LINE.fullmatch(line)
        assert match, f"{path.stem}: should be `NAME: type = literal  # meaning, unit`, got {line}"
        name, outer, inner, value = match.groups()
        found[name] = (outer + (inner or ""), ast.literal_eval(value))
    return found


def complaints(path):
    """What the anatomy and the limits say against a notebook, one sentence each."""
    found, code, prose = [], cells(path, "code"), cells(path, "markdown")
    everything = "\n".join(cell.source for cell in code)
    if any(cell.outputs or cell.execution_count for cell in code):
        found.append("is stored with outputs: jupyter nbconvert --clear-output --inplace")
    first = prose[0].source.splitlines()[0] if prose else ""
    if nbformat.read(path, 4).cells[0].cell_type != "markdown" or not re.fullmatch(r"# .+\?", first):
        found.append("should begin with a title that is a question")
    if "parameters" not in code[0].metadata.get("tags", []):
        found.append("should have its parameters in the first code cell, tagged so")
    for call in ("read_parameters", "start_run"):
        if not re.search(rf'{call}\("{path.stem}", ', code[1].source):
            found.append(f'should call {call}("{path.stem}", ...) in its second code cell')
    if "run.record(" not in code[-1].source or "run.finish()" not in code[-1].source:
        found.append("should end with run.record(...) and run.finish()")
    for cell in code[1:]:
        most = MOST_FIGURE_LINES if "run.figure(" in cell.source else MOST_CELL_LINES
        if len(code_lines(cell.source)) > most:
            found.append(f"has a cell of more than {most} lines: {cell.source.splitlines()[0]}")
    if len(code_lines("\n".join(cell.source for cell in code[1:]))) > MOST_LINES:
        found.append(f"has more than {MOST_LINES} lines of code")
    if len(re.findall(r"\w+", " ".join(cell.source for cell in prose))) < LEAST_WORDS:
        found.append(f"should have at least {LEAST_WORDS} words of prose")
    if re.search(r"^\s*[!%]|\bpip\b", everything, re.MULTILINE):
        found.append("calls a shell, a magic or pip")
    if re.search(r"""["'](/|~|[A-Za-z]:\\)\w""", everything):
        found.append("has an absolute path")
    for node in ast.walk(ast.parse(re.sub(r"^\s*[!%].*", "", everything, flags=re.MULTILINE))):
        if isinstance(node, ast.ClassDef):
            found.append(f"defines the class {node.name}")
        if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno + 1 > MOST_DEF_LINES:
            found.append(f"defines {node.name} in more than {MOST_DEF_LINES} lines")
    return found


def test_the_complaints(tmp_path):
    """Each rule can fail: a notebook that breaks them all."""
    path = tmp_path / "09_bad.ipynb"
    output = nbformat.v4.new_output("stream", text="1")
    new = nbformat.v4.new_code_cell
    bad = nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_markdown_cell("# A statement\nShort."),
            new("A = 1"),
            new("!pip install x\n" + "x = 1\n" * 16, outputs=[output]),
            new("class B:\n    pass\ndef f():\n" + "    y = '/home/me'\n" * 111),
        ]
    )
    nbformat.write(bad, path)
    assert len(complaints(path)) == 14
    with pytest.raises(AssertionError, match="should be `NAME: type = literal"):
        declared(path)
    assert LINE.fullmatch('VIDEO: str = ""  # a file that OpenCV reads')
    assert not LINE.fullmatch("STEPS: int = N // 10") and not LINE.fullmatch("A = B = 1  # two")


@each_notebook
def test_anatomy_and_limits(path):
    assert complaints(path) == []


@each_notebook
def test_parameters_are_typed_literals(path):
    for name, (annotation, default) in declared(path).items():
        assert default is not None, f"{name}: not given is an empty string or list"
        assert runs._typed(name, default, annotation) == default


@each_notebook
def test_the_kernel_is_the_plain_one(path):
    assert json.loads(path.read_text())["metadata"]["kernelspec"]["name"] == "python3"


@pytest.mark.parametrize("profile", PROFILES, ids=lambda path: path.name)
def test_profiles_declare_what_they_set(profile):
    notebook, _, kind = profile.name.removesuffix(".yaml").rpartition(".")
    assert profile.suffix == ".yaml" and kind in ("smoke", "cpu", "gpu")
    parameters = declared(ROOT / "notebooks" / f"{notebook}.ipynb")
    for name, value in (yaml.safe_load(profile.read_text()) or {}).items():
        assert name in parameters
        runs._typed(name, value, parameters[name][0])


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A repository with the library, the notebooks and the sample data, and no results yet."""
    root = tmp_path_factory.mktemp("clone")
    for name in ("corrlib", "notebooks"):
        (root / name).symlink_to(ROOT / name)
    (root / "data").mkdir()
    for path in (ROOT / "data").iterdir():
        if path.name not in ("raw", "cache"):
            (root / "data" / path.name).symlink_to(path)
    return root


@each_notebook
def test_smoke_run(path, root, monkeypatch):
    monkeypatch.chdir(root)
    profile = yaml.safe_load((ROOT / "notebooks" / "params" / f"{path.stem}.smoke.yaml").read_text()) or {}
    executed = runs.run_notebook(path.stem, profile | {"RUN_NAME": "smoke"})
    folder = root / "results" / f"{path.stem}.smoke"
    assert executed.stat().st_size < 2 * 2**20
    assert json.loads((folder / "environment.json").read_text())["finished"]
    assert json.loads((folder / "metrics.json").read_text())
    assert list((folder / "figures").glob("*.png"))
    complaints = [
        output.text
        for cell in nbformat.read(executed, 4).cells
        for output in cell.get("outputs", [])
        if output.output_type == "stream" and output.name == "stderr"
    ]
    assert complaints == []


@pytest.mark.parametrize("count", [1, 2])
def test_the_notebook_the_command_and_torchrun_train_alike(count, root, monkeypatch):
    """The same losses, and the same weights to the last bit, by one process and by two."""
    monkeypatch.chdir(root)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # sums of another number of threads are rounded in another order
    settings = {"STEPS": 3, "CLIPS": 2, "SIZE": 48, "WIDTH": 4, "WORKERS": 0, "EVALUATE_EVERY": 9, "HELD_OUT": 1}
    name = f"together_{count}"
    runs.run_notebook("03_training", settings | {"CALIBRATION_CLIPS": 0, "PROCESSES": count, "RUN_NAME": name})
    out = root / "results" / f"{name}.safetensors"
    command = ["train", str(out)]
    command += [
        part for key in ("STEPS", "CLIPS", "SIZE", "WIDTH") for part in ("--set", f"{key.lower()}={settings[key]}")
    ]
    how = (
        ["-m"] if count == 1 else ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count), "-m"]
    )
    environ = os.environ | {"PYTHONPATH": str(root)}
    ran = subprocess.run([sys.executable, *how, "corrlib", *command], env=environ, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    mine = root / "results" / f"03_training.{name}"
    histories = [p.read_text().splitlines() for p in (mine / "history.jsonl", out.with_suffix(".history.jsonl"))]
    one, other = ([json.loads(line) for line in lines] for lines in histories)
    assert [r["total"] for r in one] == [r["total"] for r in other] and len(one) == 3
    weights = [checkpoints.load(path).state_dict() for path in (mine / "checkpoint.safetensors", out)]
    assert all(torch.equal(value, weights[1][key]) for key, value in weights[0].items())
