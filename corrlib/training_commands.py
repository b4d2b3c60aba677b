"""The commands that make weights: train an encoder, and fit its confidence. Part of `python -m corrlib`."""

import json
import math
import os
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import click
import torch

from . import benchmarks, calibration, checkpoints, environment, provenance, recipes, training
from .claim_commands import settings as read_settings
from .logbook import Logbook
from .losses import LossWeights
from .torchvision_models import ResNet18Encoder


@click.command(epilog="Example: python -m corrlib train results/mine.safetensors --set steps=500 --workers 1")
@click.argument("out", type=click.Path(dir_okay=False))
@click.option("--preset", default="default", type=click.Choice(list(recipes.PRESETS)), help="Settings to begin from.")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="A field of TrainConfig; repeatable.")
@click.option("--weight", "weights", multiple=True, metavar="LOSS=NUMBER", help="A field of LossWeights; repeatable.")
@click.option("--teacher", default="", help="Weights of a teacher, ours (.safetensors) or torchvision's ResNet-18.")
@click.option("--state", default="", help="File of the resumable state; training goes on from it if it exists.")
@click.option("--start", default="", help="Weights to go on from, a .safetensors file; none begins anew.")
@click.option("--workers", default=0, help="Processes that make clips. Does not change the result.")
@click.option("--minutes", default=math.inf, help="Stop after this long, at the latest.")
def train(
    out: str,
    preset: str,
    settings: tuple[str, ...],
    weights: tuple[str, ...],
    teacher: str,
    state: str,
    start: str,
    workers: int,
    minutes: float,
) -> None:
    """Train an encoder, by default on procedural video alone, and write its weights to OUT.

    Beside them go the record of each step (.history.jsonl; for TensorBoard too, where that is installed)
    and what the training took (.environment.json). Several processes train together, and share the clips
    of each step, if they are started by torchrun: torchrun --nproc-per-node 2 -m corrlib train OUT
    """
    recipe, begun = recipes.PRESETS[preset], time.perf_counter()
    try:
        config = replace(recipe.config, **read_settings(settings))
        counts = replace(recipe.weights, **read_settings(weights, LossWeights))
        torch.manual_seed(config.seed)
        encoder = checkpoints.load(start) if start else training.new_encoder(config)
        before = checkpoints.read_header(start) if start else {}
        taught_by = _teacher(teacher) if teacher else None
        Path(out).parent.mkdir(parents=True, exist_ok=True)
        log = Logbook(Path(out).with_suffix(".history.jsonl"))
        how = {"state_path": state, "workers": workers, "seconds": minutes * 60, "teacher": taught_by}
        history = training.train(encoder, config, counts, report=_report(config, counts, log), **how)
        if int(os.environ.get("RANK", 0)):
            return  # the first process writes
        encoder.calibration = calibration.calibrate(encoder, [t.read()[0] for t in benchmarks.procedural_calib()])
        root, command = Path(__file__).parents[1], "python -m corrlib " + " ".join(sys.argv[1:])
        origin = provenance.origin(command, config, counts, len(history), root)
        if before:  # what they were made by first
            origin["started_from"] = json.dumps({k: v for k, v in before.items() if k not in checkpoints.OWN})
        seconds = round(time.perf_counter() - begun, 2)
        took = {"command": command, "device": environment.device_name(), "seconds": seconds}
        about = json.dumps(environment.describe(root) | took, indent=2, sort_keys=True)
        Path(out).with_suffix(".environment.json").write_text(about + "\n")
        click.echo(checkpoints.save(out, encoder, origin))
    except (OSError, ValueError) as error:
        raise click.ClickException(str(error)) from None


@click.command(epilog="Example: python -m corrlib calibrate results/mine.safetensors")
@click.argument("path", type=click.Path(dir_okay=False))
def calibrate(path: str) -> None:
    """Fit how sure the tracker may be with the encoder in PATH, and write it into the file."""
    try:
        encoder, header = checkpoints.load(path), checkpoints.read_header(path)
    except (FileNotFoundError, ValueError) as error:
        raise click.ClickException(str(error)) from None
    encoder.calibration = calibration.calibrate(encoder, [t.read()[0] for t in benchmarks.procedural_calib()])
    click.echo(checkpoints.save(path, encoder, {k: v for k, v in header.items() if k not in checkpoints.OWN}))


def _report(config: recipes.TrainConfig, weights: LossWeights, log: Logbook) -> training.Report:
    """What is called after each step: it keeps the record, and tells how far it is."""
    waited: list[float] = []

    def show(step: int, record: dict[str, float]) -> None:
        log(step, record)
        waited.append(record["waited"])
        if step % 20 == 0:
            left = record["seconds"] / len(waited) * (config.steps - step) / 60
            said = " ".join(f"{name} {record[name]:.3f}" for name in asdict(weights) if name in record)
            share = sum(waited) / max(record["seconds"], 1e-9)
            line = f"step {step}/{config.steps} {said} about {left:.0f} min left, {share:.0%} of it waiting for clips"
            click.echo(line, err=True)

    return show


def _teacher(path: str) -> torch.nn.Module:
    """The encoder of a file: one of ours, or torchvision's ResNet-18."""
    ours = path.endswith(".safetensors") and "format" in checkpoints.read_header(path)
    return checkpoints.load(path) if ours else ResNet18Encoder(path)
