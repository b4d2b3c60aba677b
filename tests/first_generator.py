"""The first generator of this repository, flat layers only, out of the history, beside which today's is measured."""

import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

FIRST = "5fb1ee20ef13346ddec5b2b8a036cba5b0e7e760"
ROOT = Path(__file__).parents[1]


@contextmanager
def first_generator() -> Iterator[Path]:
    """A folder with corrlib as it was then; the history is needed, so a whole clone."""
    with tempfile.TemporaryDirectory() as folder:
        packed = subprocess.run(["git", "archive", FIRST, "corrlib"], cwd=ROOT, check=True, capture_output=True)
        with tarfile.open(fileobj=BytesIO(packed.stdout)) as tar:
            tar.extractall(folder, filter="data")
        yield Path(folder)


def printed(code: str, where: Path, *arguments: str) -> list[float]:
    """The numbers that a program prints which runs with the corrlib of a folder."""
    environ = {"PYTHONPATH": str(where), "OMP_NUM_THREADS": "1", "PATH": ""}
    ran = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=where, env=environ, check=True, capture_output=True, text=True
    )
    return [float(number) for number in ran.stdout.split()]
