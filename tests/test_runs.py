"""Parameters, run folders and headless notebooks, in a repository made for the test."""

import json
from pathlib import Path

import matplotlib
import nbformat
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

import corrlib
from corrlib import progress, runs

matplotlib.use("Agg")

DECLARATION = """\
RUN_NAME: str = ""  # name of the run
OVERWRITE: bool = False  # replace a run of this name
SEED: int = 3  # of everything random
LEARNING_RATE: float = 1e-3  # a step
POINTS: list[float] = [0.5, 1]  # x, y
"""


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A repository with one notebook, which is the current folder."""
    tmp_path = tmp_path.resolve()
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "corrlib").symlink_to(Path(corrlib.__file__).parent)
    cells = [
        nbformat.v4.new_code_cell(DECLARATION, metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell(
            "from corrlib.runs import Progress, read_parameters, start_run\n"
            'params = read_parameters("09_trial", globals())\n'
            'run = start_run("09_trial", params)'
        ),
        nbformat.v4.new_code_cell(
            'list(Progress("counting", 3).track(range(3)))\n'
            'run.record({"a.b.c": {"value": params.learning_rate, "unit": "1", "count": 1}})\n'
            "assert params.seed != 13\nrun.finish()"
        ),
    ]
    notebook = nbformat.v4.new_notebook(cells=cells)
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, tmp_path / "notebooks" / "09_trial.ipynb")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def given(**changes):
    """A notebook's namespace after its parameters cell."""
    names = {"RUN_NAME": "", "OVERWRITE": False, "SEED": 3, "LEARNING_RATE": 1e-3, "POINTS": [0.5, 1]}
    return names | {"np": np} | changes


def start(**changes):
    """A run of the notebook above."""
    return runs.start_run("09_trial", runs.read_parameters("09_trial", given(**changes)))


def test_find_root_from_the_root_and_from_the_notebooks(root, monkeypatch):
    assert runs.find_root() == root
    monkeypatch.chdir(root / "notebooks")
    assert runs.find_root() == root


def test_find_root_elsewhere_is_where_corrlib_lies(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert runs.find_root() == Path(corrlib.__file__).resolve().parents[1]


def test_find_root_error(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runs, "__file__", str(tmp_path / "site-packages" / "runs.py"))
    with pytest.raises(FileNotFoundError, match="no folder with corrlib/ and notebooks/ at or above"):
        runs.find_root()


def test_seed_everything_repeats():
    runs.seed_everything(5)
    first = (torch.rand(1).item(), np.random.rand())
    runs.seed_everything(5)
    assert (torch.rand(1).item(), np.random.rand()) == first


def test_read_parameters_gives_lower_case_frozen_values(root):
    params = runs.read_parameters("09_trial", given(LEARNING_RATE=2))
    assert (params.run_name, params.overwrite, params.seed, params.points) == ("", False, 3, [0.5, 1])
    assert type(params.learning_rate) is float
    with pytest.raises(AttributeError):
        params.seed = 4


def test_other_constants_of_a_notebook_are_no_parameters(root):
    cells = ["", DECLARATION, "# Parameters\nSEED = 4\n", "%time\nfrom math import *\nTHRESHOLDS = [1]"]
    assert runs.read_parameters("09_trial", given(SEED=4, THRESHOLDS=[1], In=cells)).seed == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"LERNING_RATE": 1.0}, r"^unknown parameter LERNING_RATE; did you mean LEARNING_RATE\?$"),
        ({"In": ["", DECLARATION, "# Parameters\nlearning_rate = 1\n"]}, "learning_rate; did you mean LEARN"),
        ({"WOMBAT": 1}, r"unknown parameter WOMBAT; 09_trial has RUN_NAME, OVERWRITE, SEED,"),
        ({"SEED": 1.0}, r"parameter SEED should be int, got float 1\.0\.$"),
        ({"SEED": True}, "parameter SEED should be int, got bool True"),
        ({"RUN_NAME": 7}, "parameter RUN_NAME should be str, got int 7; from a shell, papermill -r"),
        ({"POINTS": "1,2"}, r"POINTS should be list\[float\], got str '1,2'; from a shell, papermill -y"),
        ({"POINTS": [1, "x"]}, r"parameter POINTS\[1\] should be float, got str 'x'"),
        ({"POINTS": [1.0, float("nan")]}, r"parameter POINTS\[1\] should be a finite number, got nan"),
        ({"LEARNING_RATE": None}, "LEARNING_RATE should be float, got NoneType None"),
        ({"LEARNING_RATE": "1e-3"}, "LEARNING_RATE should be float, got str '1e-3'; YAML reads 1.0e-3"),
    ],
)
def test_read_parameters_refuses(root, changes, message):
    with pytest.raises(ValueError, match=message):
        runs.read_parameters("09_trial", given(**changes))


def test_read_parameters_missing_value_or_notebook(root):
    names = given()
    del names["SEED"]
    with pytest.raises(ValueError, match="SEED is declared in 09_trial but has no value"):
        runs.read_parameters("09_trial", names)
    with pytest.raises(FileNotFoundError, match=r"no notebook .*08_gone\.ipynb"):
        runs.read_parameters("08_gone", given())


def test_read_parameters_refuses_an_odd_declaration(root):
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [nbformat.v4.new_code_cell("SIZE: tuple = (1, 2)", metadata={"tags": ["parameters"]})]
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, root / "notebooks" / "10_odd.ipynb")
    with pytest.raises(ValueError, match=r"SIZE should be declared int, .* or dict, got tuple"):
        runs.read_parameters("10_odd", {"SIZE": (1, 2)})


def test_start_run_makes_the_folder_and_takes_the_next_number(root):
    torch.manual_seed(0)
    first = start()
    drawn = torch.rand(1)
    second = start()
    assert torch.equal(drawn, torch.rand(1))  # both were seeded with SEED
    assert [r.path.name for r in (first, second)] == ["09_trial.1", "09_trial.2"]
    assert first.path.parent == root / "results"
    stored = json.loads((first.path / "params.json").read_text())
    assert stored == {k: v for k, v in given().items() if k.isupper()}
    environment = json.loads((first.path / "environment.json").read_text())
    assert environment["finished"] is False and environment["versions"]["torch"] == torch.__version__
    papermill = "papermill notebooks/09_trial.ipynb results/09_trial.1.ipynb -f results/09_trial.1/params.json"
    assert environment["command"] == papermill


def test_an_existing_run_is_refused_and_left_as_it_was(root):
    path = start(RUN_NAME="mine").finish()
    (path / "metrics.json").write_text("earlier")
    with pytest.raises(ValueError, match=r"09_trial\.mine exists and is left as it was\. Choose another"):
        start(RUN_NAME="mine", SEED=4)
    assert (path / "metrics.json").read_text() == "earlier"
    assert json.loads((path / "params.json").read_text())["SEED"] == 3


def test_what_a_failed_run_left_does_not_stand_in_the_way(root):
    start(RUN_NAME="mine")
    again = start(RUN_NAME="mine", SEED=4)
    assert json.loads((again.finish() / "params.json").read_text())["SEED"] == 4


def test_overwrite_replaces_only_when_it_finishes(root):
    path = start(RUN_NAME="mine").finish()
    for _ in range(2):  # the first of these fails half-way
        again = start(RUN_NAME="mine", SEED=4, OVERWRITE=True)
        assert again.path != path
        assert json.loads((path / "params.json").read_text())["SEED"] == 3
    assert again.finish() == again.path == path
    assert json.loads((path / "params.json").read_text())["SEED"] == 4
    assert [p.name for p in (root / "results").iterdir()] == ["09_trial.mine"]


@pytest.mark.parametrize("name", ["../other", ".hidden", "a b"])
def test_start_run_refuses_odd_names(root, name):
    with pytest.raises(ValueError, match="RUN_NAME should be letters, digits"):
        start(RUN_NAME=name)
    assert not list((root / "results").glob("*") if (root / "results").exists() else [])


def test_record_is_flat_sorted_and_the_same_for_the_same_input(root):
    entries = {
        "b.model.epe": {"value": torch.tensor(1.5), "unit": "px", "count": np.int64(2)},
        "a.model.delta_avg": {"value": float("nan"), "unit": "fraction", "count": 0},
    }
    written = []
    for order in (list(entries), list(entries)[::-1]):
        run = start()
        for key in order:
            run.record({key: entries[key]})
        written.append((run.finish() / "metrics.json").read_bytes())
    assert written[0] == written[1]
    assert json.loads(written[0]) == {
        "a.model.delta_avg": {"value": None, "unit": "fraction", "count": 0},
        "b.model.epe": {"value": 1.5, "unit": "px", "count": 2},
    }


def test_what_is_measured_is_kept_apart(root):
    run = start()
    run.record({"a.b.c": {"value": 1, "unit": "px", "count": 1}})
    run.record({"a.b.seconds": {"value": 2, "unit": "s", "count": 1}}, measured=True)
    folder = run.finish()
    assert list(json.loads((folder / "metrics.json").read_text())) == ["a.b.c"]
    assert list(json.loads((folder / "costs.json").read_text())) == ["a.b.seconds"]


def test_declared_parameters(root):
    assert runs.declared_parameters("09_trial") == {k: v for k, v in given().items() if k.isupper()}
    with pytest.raises(FileNotFoundError, match=r"declared_parameters: no notebook .*gone\.ipynb"):
        runs.declared_parameters("gone")


def test_record_errors(root):
    entry = {"value": 1, "unit": "px", "count": 1}
    with pytest.raises(ValueError, match=r"should be <benchmark>\.<method>\.<metric>, got model\.epe"):
        start().record({"model.epe": entry})
    with pytest.raises(ValueError, match=r"a\.b\.c should have value, unit and count, got \['value'\]"):
        start().record({"a.b.c": {"value": 1}})


def test_figure_saves_the_picture_with_its_caption(root):
    run = start()
    fig = Figure(figsize=(2, 1))
    fig.subplots().plot([0, 1])
    run.figure("line", fig, "A line to 1; slope 1 ± 0.")
    with Image.open(run.path / "figures" / "line.png") as image:
        assert image.text["Description"] == "A line to 1; slope 1 ± 0."


def test_run_notebook_under_papermill(root):
    output = runs.run_notebook("09_trial", {"RUN_NAME": "mill", "LEARNING_RATE": 0.5})
    assert output == root / "results" / "09_trial.mill.ipynb"
    metrics = json.loads((root / "results" / "09_trial.mill" / "metrics.json").read_text())
    assert metrics["a.b.c"]["value"] == 0.5
    displayed = [o for cell in nbformat.read(output, 4).cells for o in cell.get("outputs", []) if "data" in o]
    assert [o.data["text/plain"][:21] for o in displayed if "counting" in o.data["text/plain"]] == [
        "counting  3/3  100%  "  # one output, updated in place
    ]


def test_run_notebook_that_fails_leaves_earlier_results(root):
    from papermill import PapermillExecutionError

    output = root / "results" / "09_trial.mill.ipynb"
    output.parent.mkdir()
    output.write_text("earlier")
    with pytest.raises(PapermillExecutionError, match=r"unknown parameter sede; did you mean SEED\?"):
        runs.run_notebook("09_trial", {"RUN_NAME": "mill", "sede": 1})
    assert output.read_text() == "earlier"
    assert sorted(p.name for p in output.parent.iterdir()) == ["09_trial.mill.failed.ipynb", output.name]
    with pytest.raises(FileNotFoundError, match=r"run_notebook: no notebook .*08_gone"):
        runs.run_notebook("08_gone", {})


def test_progress_line_estimates_the_rest():
    line = progress.Progress("training", 200)
    line._done, line._note = 50, "loss 2.1"
    assert line.line(30) == "training  50/200  25%  0:30 elapsed, about 1:30 left  loss 2.1"
    line._done, line._note = 200, ""
    assert line.line(3725) == "training  200/200  100%  1:02:05 elapsed"
    assert progress.Progress("nothing", 0).line(0) == "nothing  0/0  0%  0:00 elapsed"


def test_progress_is_one_plain_line_on_stderr(capsys):
    assert list(progress.Progress("reading", 3).track("abc")) == ["a", "b", "c"]
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err == "reading  3/3  100%  0:00 elapsed\n"


def test_progress_counts_the_item_at_which_a_loop_ends(capsys):
    for item in progress.Progress("reading", 3).track("abc"):
        if item == "b":
            break
    assert capsys.readouterr().err == "reading  2/3  67%  0:00 elapsed, about 0:00 left\n"


def test_progress_is_throttled(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(progress.PROGRESS_FILE, str(tmp_path / "line"))
    with progress.Progress("slow", 1000, interval=1e6) as line:
        line.update(999)
        assert (tmp_path / "line").read_text().startswith("slow  0/1000")
    assert (tmp_path / "line").read_text().startswith("slow  999/1000")
