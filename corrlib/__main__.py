"""The command line: `python -m corrlib COMMAND --help`."""

import dataclasses
import json
import math
import sys

import click
import torch

from . import checkpoints, training
from .encoder import PixelEncoder


@click.group()
def main() -> None:
    """Pixel-wise video correspondence."""


@main.command(epilog="Example: python -m corrlib train results/mine.safetensors --set steps=500 --workers 1")
@click.argument("out", type=click.Path(dir_okay=False))
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="A field of TrainConfig; repeatable.")
@click.option("--state", default="", help="File of the resumable state; training goes on from it if it exists.")
@click.option("--workers", default=0, help="Processes that make clips. Does not change the result.")
@click.option("--minutes", default=math.inf, help="Stop after this long, at the latest.")
def train(out: str, settings: tuple[str, ...], state: str, workers: int, minutes: float) -> None:
    """Train an encoder on procedural video and write its weights to OUT."""
    config = training.TrainConfig(**dict(_setting(item) for item in settings))
    torch.manual_seed(config.seed)
    encoder = PixelEncoder(config.width)

    def report(step: int, record: dict[str, float]) -> None:
        if step % 20 == 0:
            left = record["seconds"] / (step + 1) * (config.steps - step) / 60
            line = f"step {step}/{config.steps} coarse {record['coarse']:.3f} fine {record['fine']:.3f}"
            click.echo(f"{line} about {left:.0f} min left", err=True)

    try:
        training.train(encoder, config, state_path=state, workers=workers, seconds=minutes * 60, report=report)
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    origin = {
        "command": "python -m corrlib " + " ".join(sys.argv[1:]),
        "training": json.dumps(dataclasses.asdict(config)),
        "torch": torch.__version__,
    }
    click.echo(checkpoints.save(out, encoder, origin))


def _setting(item: str) -> tuple[str, int | float | str]:
    """One NAME=VALUE, the value of the type that TrainConfig declares."""
    name, _, value = item.partition("=")
    types = {field.name: field.type for field in dataclasses.fields(training.TrainConfig)}
    if name not in types:
        raise click.ClickException(f"train: unknown setting {name!r}; expected one of {', '.join(types)}.")
    try:
        return name, types[name](value)
    except ValueError:
        raise click.ClickException(f"train: {name} should be of type {types[name].__name__}, got {value!r}.") from None


if __name__ == "__main__":
    main()
