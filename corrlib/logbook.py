"""A training's numbers while it runs: JSON lines always, and TensorBoard where that is installed."""

import importlib.util
import json
from pathlib import Path


class Logbook:
    """Called after each step with its number and its record, as `training.train` calls `report`.

    A training that goes on where it stopped goes on in its file: lines from its first step on, which
    a kill had left there, are written anew.

    Args:
        path: of the JSON lines, a record each, usually named *.history.jsonl; for TensorBoard the
            same numbers are in a folder beside it, .tensorboard in place of .jsonl.
    """

    def __init__(self, path: str | Path):
        self.path, self.begun = Path(path), False
        self.tensorboard = None

    def __call__(self, step: int, record: dict[str, float]) -> None:
        if not self.begun:
            self._begin(step)
        with self.path.open("a") as file:
            file.write(json.dumps(record) + "\n")
        if self.tensorboard is not None:
            for name, value in record.items():
                if name != "step":
                    self.tensorboard.add_scalar(name, value, step)

    def _begin(self, step: int) -> None:
        """Keep what was before this step."""
        self.begun = True
        kept = [record for record in read_history(self.path) if record["step"] < step]
        self.path.write_text("".join(json.dumps(record) + "\n" for record in kept))
        if importlib.util.find_spec("tensorboard"):
            from torch.utils.tensorboard import SummaryWriter

            self.tensorboard = SummaryWriter(self.path.with_suffix(".tensorboard"), purge_step=step)


def read_history(path: str | Path) -> list[dict[str, float]]:
    """The records of a file of JSON lines, without a last one that was cut off; none if there is no file."""
    lines = Path(path).read_text().split("\n")[:-1] if Path(path).is_file() else []
    return [json.loads(line) for line in lines]
