"""The first generator of this repository, flat layers only, out of the history, beside which today's is measured."""

import subprocess
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
