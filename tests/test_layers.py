"""Imports point downwards only; the table here is the house's."""

import ast
from pathlib import Path

import pytest

import corrlib

PACKAGE = Path(corrlib.__file__).parent
LAYERS = {
    5: "evaluation extremes predictions arms arm_scores scaling explorer panel exploration closeups costs "
    "tracker_costs training_costs use_costs export provenance hub",
    4: "training training_data training_step training_state processes looks landmarks following tracking calibration "
    "propagation dense benchmarks chains baselines torchvision_models methods replay",
    3: "encoder checkpoints alignment labels losses metrics occlusions augment synthetic textures collages datasets "
    "layouts shards recipes studies real_video",
    2: "frames flow queries matching search coarse_to_fine windows softmasks",
    1: "coords samples whole muon cielab",
}
LAYER_OF = {name: layer for layer, names in LAYERS.items() for name in names.split()}
# Beside the stack: what each may import, and the lowest layer that may import it.
BESIDE = {
    "visualize": ({"coords", "samples", "flow", "matching"}, 5),
    "fields": ({"visualize", "coords"}, 6),
    "charts": ({"visualize"}, 6),
    "overlays": ({"visualize", "frames"}, 5),
    "progress": (set(), 4),
    "report": (set(), 5),
    "logbook": (set(), 6),
    "comparison": ({"report"}, 6),
    "arm_tables": ({"report"}, 6),
    "runs": ({"progress", "environment", "whole"}, 6),
    "environment": (set(), 5),
    "pages": ({"whole"}, 6),
    "_torchvision": (set(), 4),
}
DOORS = {
    "__init__",
    "__main__",
    "video_commands",
    "study_commands",
    "training_commands",
}  # the package's own face imports what it likes
NEVER = {
    "losses": {"encoder", "alignment", "checkpoints"},  # never sees a model
    "encoder": {"labels", "losses"},  # never sees a label
    "metrics": {"frames", "datasets", "os", "pathlib", "json", "cv2.imread"},  # never sees a file
}
LONGEST = 320  # lines; a module past 300 is split along a seam that users would import, or made simpler
BANNED = {"utils", "helpers", "common", "misc", "core", "base", "engine", "v2"}
MODULES = sorted(PACKAGE.rglob("*.py"))


def module_of(path: Path) -> str:
    """The name in the table: the file's, or its package's for the files of a package."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """Modules that a file imports anywhere: corrlib's own by their name in the table, others in full."""
    depth = len(path.relative_to(PACKAGE).parts)  # dots that lead up to corrlib itself
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.removeprefix("corrlib.") for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            source = node.module or ""
            if node.level == 0 and source.split(".")[0] != "corrlib":
                found |= {source, source.split(".")[0]}
                continue
            if 0 < node.level < depth:
                continue  # another file of the same package
            inner = source.removeprefix("corrlib").removeprefix(".")
            found |= {inner.split(".")[0]} if inner else {alias.name for alias in node.names}
    return found


def own(path: Path) -> set[str]:
    """The modules of corrlib among them."""
    return imported(path) & (LAYER_OF.keys() | BESIDE.keys())


def test_the_reading_of_imports(tmp_path, monkeypatch):
    """The test below can fail: every form of an import is seen."""
    monkeypatch.setitem(globals(), "PACKAGE", tmp_path)
    (tmp_path / "datasets").mkdir()
    flat, nested = tmp_path / "labels.py", tmp_path / "datasets" / "davis.py"
    flat.write_text(
        "import os\nfrom . import coords, flow as f\nfrom .training import fit\nfrom corrlib import frames\n"
        "from corrlib.tracking import follow\nimport corrlib.runs\ndef g():\n    from .encoder import E\n"
    )
    nested.write_text("from ..samples import MaskClip\nfrom .. import augment\nfrom . import frames\n")
    assert imported(flat) == {"os", "coords", "flow", "training", "frames", "tracking", "runs", "encoder"}
    assert imported(nested) == {"samples", "augment"}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_downwards(path):
    name = module_of(path)
    if name in DOORS:
        return
    assert name in LAYER_OF or name in BESIDE, f"{path.name} has no place in the table of layers"
    others = own(path) - {name}
    if name in BESIDE:
        assert others <= BESIDE[name][0]
        return
    layer = LAYER_OF[name]
    upwards = {other for other in others if (LAYER_OF.get(other) or BESIDE[other][1]) > layer}
    assert not upwards, f"{name} (layer {layer}) imports {upwards} from above"
    assert not imported(path) & NEVER.get(name, set())


def test_no_circles():
    graph = {}
    for path in MODULES:
        graph.setdefault(module_of(path), set()).update(own(path) - {module_of(path)})
    remaining = dict(graph)
    while free := [name for name, needs in remaining.items() if not needs & remaining.keys()]:
        for name in free:
            del remaining[name]
    assert not remaining


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_below_training_knows_a_device(path):
    if LAYER_OF.get(module_of(path), 9) < 4:
        strings = {n.value for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Constant)}
        assert not strings & {"cuda", "mps", "cpu"}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_are_short_and_named_for_what_they_hold(path):
    assert path.stem not in BANNED
    assert len(path.read_text().splitlines()) <= LONGEST
