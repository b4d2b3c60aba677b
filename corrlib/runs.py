"""One run of one notebook: its parameters, its seed, its folder, its numbers.

Knows nothing of vision. A run writes `results/<stage>.<run>/`: params.json (usable as
`papermill -f params.json`), environment.json, metrics.json and figures/. `metrics.json` is
flat and the same, byte for byte, for the same input; whatever differs from run to run
(seconds, memory, versions) is in environment.json and costs.json. Global seeding happens here only.
"""

import ast
import dataclasses
import difflib
import io
import json
import math
import os
import random
import re
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from . import environment
from .progress import Progress as Progress
from .progress import in_jupyter, mirrored
from .whole import new_folder, whole

PARAMETER_TYPES = {"int": int, "float": float, "str": str, "bool": bool, "list": list, "dict": dict}
LARGE = 150_000  # bytes of a .png
WAYS_OUT = {
    "str": "; from a shell, papermill -r keeps text as text",
    "list": "; from a shell, papermill -y",
    "float": "; YAML reads 1.0e-3 as a number, 1e-3 as text",
}


def find_root() -> Path:
    """The repository's root, from any folder inside it; else from where corrlib is installed.

    Raises:
        FileNotFoundError: neither lies in a repository.
    """
    here, package = Path.cwd(), Path(__file__).resolve()
    for folder in (here, *here.parents, *package.parents):
        if (folder / "corrlib" / "__init__.py").is_file() and (folder / "notebooks").is_dir():
            return folder
    raise FileNotFoundError(f"find_root: no folder with corrlib/ and notebooks/ at or above {here}.")


def seed_everything(seed: int) -> None:
    """Seed Python, numpy and torch; below the notebooks, randomness is an argument."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def read_parameters(notebook_name: str, namespace: Mapping[str, Any]) -> Any:
    """The parameters of a notebook, checked against the declaration in its `parameters` cell.

    Args:
        notebook_name: file name in notebooks/, without .ipynb.
        namespace: `globals()` of the notebook, after the cells that papermill injects.

    Returns:
        a frozen dataclass with one lower-case attribute a parameter: LEARNING_RATE becomes
        `params.learning_rate`.

    Raises:
        FileNotFoundError: there is no such notebook.
        ValueError: a parameter is missing, of the wrong type, or unknown: papermill injected
            it and the notebook does not declare it. Outside a kernel, where no cells tell
            what was injected, every UPPER_CASE name is taken for a parameter.
    """
    path = find_root() / "notebooks" / f"{notebook_name}.ipynb"
    if not path.is_file():
        raise FileNotFoundError(f"read_parameters: no notebook {path}.")
    from papermill import inspect_notebook  # slow to import, and needed by notebooks only

    declared = inspect_notebook(str(path))
    for name in _given_names(namespace):
        if name not in declared:
            near = difflib.get_close_matches(name.upper(), declared, n=1, cutoff=0.6)
            hint = f"did you mean {near[0]}?" if near else f"{notebook_name} has {', '.join(declared)}."
            raise ValueError(f"unknown parameter {name}; {hint}")
    values = {}
    for name, declaration in declared.items():
        if name not in namespace:
            raise ValueError(f"parameter {name} is declared in {notebook_name} but has no value.")
        values[name.lower()] = _typed(name, namespace[name], declaration["inferred_type_name"])
    return dataclasses.make_dataclass("Parameters", list(values), frozen=True)(**values)


def declared_parameters(notebook_name: str) -> dict[str, Any]:
    """The parameters of a notebook as it is stored, for those who ask its questions without running it.

    Raises:
        FileNotFoundError: there is no such notebook.
    """
    path = find_root() / "notebooks" / f"{notebook_name}.ipynb"
    if not path.is_file():
        raise FileNotFoundError(f"declared_parameters: no notebook {path}.")
    from papermill import inspect_notebook

    return {name: ast.literal_eval(about["default"]) for name, about in inspect_notebook(str(path)).items()}


def _given_names(namespace: Mapping[str, Any]) -> list[str]:
    """Names assigned by the cells that papermill injected, which begin with a comment of its own."""
    if "In" not in namespace:
        return [name for name in namespace if re.fullmatch(r"[A-Z][A-Z0-9_]+", name)]
    cells = [ast.parse(cell) for cell in namespace["In"] if cell.startswith("# Parameters\n")]
    return [target.id for cell in cells for line in cell.body for target in line.targets]


def _typed(name: str, value: Any, annotation: str) -> Any:
    """A parameter's value if it has the declared type; an int where a float is declared becomes one."""
    outer, _, inner = annotation.partition("[")
    if outer not in PARAMETER_TYPES:
        raise ValueError(f"parameter {name} should be declared int, float, str, bool, list or dict, got {outer}.")
    if outer == "float" and type(value) is int:
        return float(value)
    if type(value) is not PARAMETER_TYPES[outer]:  # a bool is no int here
        got, way_out = f"{type(value).__name__} {value!r}", WAYS_OUT.get(outer, "")
        raise ValueError(f"parameter {name} should be {annotation}, got {got}{way_out}.")
    if outer == "float" and not math.isfinite(value):
        raise ValueError(f"parameter {name} should be a finite number, got {value}.")
    if outer == "list" and inner:
        return [_typed(f"{name}[{i}]", element, inner[:-1]) for i, element in enumerate(value)]
    return value


def _write_json(path: Path, content: dict) -> None:
    """Sorted, indented, whole or not at all."""
    with whole(path) as partial:
        partial.write_text(json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n")


class Run:
    """The folder of one run and what is put into it. Made by `start_run`.

    `path` is where to write. With OVERWRITE it is a folder beside the earlier results until
    `finish` puts it in their place, so that a run that fails has cost nothing.
    """

    def __init__(self, path: Path, destination: Path, device: str):
        self.path, self._destination, self._device = path, destination, device
        self._numbers: dict[str, dict[str, dict]] = {"metrics.json": {}, "costs.json": {}}
        self._start = time.perf_counter()
        self._write_environment(finished=False)

    def figure(self, name: str, fig: Any, caption: str) -> None:
        """Save a matplotlib figure as figures/<name>.png, its caption inside, and show both.

        A large picture, which is one of photographs, is shown as a JPEG, so that executed notebooks stay small.
        """
        (self.path / "figures").mkdir(exist_ok=True)
        path = self.path / "figures" / f"{name}.png"
        fig.savefig(path, dpi=110, bbox_inches="tight", metadata={"Description": caption})
        if in_jupyter():
            from IPython.display import Image, Markdown, display
            from matplotlib import pyplot

            pyplot.close(fig)  # or the inline backend shows it a second time
            large = path.stat().st_size > LARGE
            display(Image(data=_as_jpeg(path) if large else path.read_bytes()), Markdown(f"*{caption}*"))

    def record(self, metrics: Mapping[str, Mapping[str, Any]], measured: bool = False) -> None:
        """Add numbers to metrics.json; a key recorded again is replaced.

        Args:
            metrics: `{"<benchmark>.<method>.<metric>": {"value": number, "unit": text,
                "count": int}}`; NaN is stored as null.
            measured: of this machine and moment, seconds and bytes: they go to costs.json, so that
                metrics.json stays the same for the same input.

        Raises:
            ValueError: a key without three parts, or an entry without these three fields.
        """
        file = "costs.json" if measured else "metrics.json"
        for key, entry in metrics.items():
            if not re.fullmatch(r"[\w-]+\.[\w-]+\.[\w-]+", key):
                raise ValueError(f"record: key should be <benchmark>.<method>.<metric>, got {key}.")
            if set(entry) != {"value", "unit", "count"}:
                raise ValueError(f"record: {key} should have value, unit and count, got {sorted(entry)}.")
            value = float(entry["value"])
            value = value if math.isfinite(value) else None
            self._numbers[file][key] = {"value": value, "unit": str(entry["unit"]), "count": int(entry["count"])}
        _write_json(self.path / file, self._numbers[file])

    def finish(self) -> Path:
        """Write what the run took, put its folder in place, and return it."""
        self.record({})  # a run without numbers has an empty metrics.json
        self._write_environment(finished=True)
        if self.path != self._destination:
            old = self._destination.with_name(f".{self._destination.name}.old")
            shutil.rmtree(old, ignore_errors=True)  # of a run that was killed just here
            os.replace(self._destination, old)
            os.replace(self.path, self._destination)
            shutil.rmtree(old)
            self.path = self._destination
        return self.path

    def _write_environment(self, finished: bool) -> None:
        """What the numbers may depend on but the parameters do not say."""
        name = self._destination.name
        stage = name.partition(".")[0]
        about = {
            "command": f"papermill notebooks/{stage}.ipynb results/{name}.ipynb -f results/{name}/params.json",
            "device": self._device,
            "finished": finished,
            "seconds": round(time.perf_counter() - self._start, 2),
        }
        _write_json(self.path / "environment.json", environment.describe(find_root()) | about)


def _as_jpeg(path: Path) -> bytes:
    """A picture as a JPEG."""
    from PIL import Image

    data = io.BytesIO()
    with Image.open(path) as image:
        image.convert("RGB").save(data, "JPEG", quality=90, subsampling=0)
    return data.getvalue()


def start_run(stage: str, params: Any) -> Run:
    """Seed, keep freed memory at hand, and make the folder `results/<stage>.<run>/`.

    Args:
        stage: the notebook's name.
        params: from `read_parameters`. Read here, where declared: `run_name` (empty: the
            next free number), `overwrite`, and `seed`.

    A folder of that name left by a run that did not come to its end is replaced.

    Raises:
        ValueError: the run exists and OVERWRITE is not set, another process is at it, or its name is not a plain one.
    """
    environment.keep_freed_memory()
    values = dataclasses.asdict(params)
    name, results = values.get("run_name", ""), find_root() / "results"
    if name and not re.fullmatch(r"\w[\w.-]*", name):
        raise ValueError(f"RUN_NAME should be letters, digits, '_', '-' and '.', got {name!r}.")
    results.mkdir(exist_ok=True)
    if not name:
        taken = [p.name.removeprefix(f"{stage}.") for p in results.glob(f"{stage}.*")]
        name = str(max((int(t) for t in taken if t.isdecimal()), default=0) + 1)
    destination = path = results / f"{stage}.{name}"
    if destination.exists() and _finished(destination):
        if not values.get("overwrite", False):
            raise ValueError(
                f"start_run: {destination} exists and is left as it was. Choose another RUN_NAME, leave it "
                "empty for the next free number, or set OVERWRITE."
            )
        path = destination.with_name(f".{destination.name}.new")
    new_folder(path)  # in place of what a run that failed has left
    _write_json(path / "params.json", {key.upper(): value for key, value in values.items()})
    seed_everything(values.get("seed", 0))
    return Run(path, destination, environment.device_name())


def _finished(folder: Path) -> bool:
    """Whether a run came to its end; true of any folder that does not say otherwise."""
    try:
        return json.loads((folder / "environment.json").read_text()).get("finished", True)
    except (OSError, ValueError):
        return True


def run_notebook(name: str, parameters: Mapping[str, Any]) -> Path:
    """Execute a notebook from the root, its progress on stderr, and return the executed copy.

    The copy is `results/<name>.<RUN_NAME>.ipynb`; it appears, or replaces an earlier one, only
    when every cell has run. Where one fails the notebook ends in `.failed.ipynb` instead.

    Raises:
        FileNotFoundError: there is no such notebook.
        papermill.PapermillExecutionError: a cell raised.
    """
    from papermill import execute_notebook

    root, run = find_root(), str(parameters.get("RUN_NAME") or "latest")
    source, output = root / "notebooks" / f"{name}.ipynb", root / "results" / f"{name}.{run}.ipynb"
    if not source.is_file():
        raise FileNotFoundError(f"run_notebook: no notebook {source}.")
    output.parent.mkdir(exist_ok=True)
    attempt = output.with_suffix(".failed.ipynb")
    with mirrored():
        quiet = {"progress_bar": False, "extra_arguments": ["--log-level=ERROR"]}  # the kernel's own log
        execute_notebook(str(source), str(attempt), dict(parameters), cwd=str(root), **quiet)
    os.replace(attempt, output)
    return output
