"""torchvision, also beside a build of torch for CPUs.

Its wheel's compiled part may be linked against CUDA; then the first import fails because the
operator `torchvision::nms` was never registered. Its models need none of its operators, so they
are declared here, without a body, and the import is tried again. Import it late, where it is
used: `import corrlib` does without.
"""

import importlib
import sys
from types import ModuleType

import torch

OPERATORS = {
    "nms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}


def load(name: str = "torchvision") -> ModuleType:
    """A module of torchvision by its full name.

    Raises:
        ModuleNotFoundError: torchvision is not installed.
    """
    try:
        return importlib.import_module(name)
    except RuntimeError as error:
        if "torchvision::nms does not exist" not in str(error):
            raise
    for half_imported in [m for m in sys.modules if m.partition(".")[0] == "torchvision"]:
        del sys.modules[half_imported]
    for operator, schema in OPERATORS.items():
        torch.library.define(f"torchvision::{operator}", schema)
    return importlib.import_module(name)
