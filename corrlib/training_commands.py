"""The commands that make weights: train an encoder, and fit its confidence. Part of `python -m corrlib`."""

import json
import math
import time
from dataclasses import asdict, replace
from pathlib import Path

import click
import torch

from . import (
    benchmarks,
    calibration,
    checkpoints,
    environment,
    hub,
    processes,
    provenance,
    recipes,
    report,
    shards,
    synthetic,
    training,
    training_costs,
    training_data,
)
from . import methods as answering
from .logbook import Logbook
from .losses import LossWeights
from .torchvision_models import ResNet18Encoder


def read_settings(items: tuple[str, ...], of: type = recipes.TrainConfig) -> dict[str, int | float | str | bool]:
    """NAME=VALUE items as fields of a dataclass, each value of the type that is declared there."""
    types = {name: field.type for name, field in of.__dataclass_fields__.items()}
    truths = {"true": True, "1": True, "false": False, "0": False}
    found = {}
    for item in items:
        name, _, value = item.partition("=")
        if name not in types:
            raise click.ClickException(f"train: unknown setting {name!r}; expected one of {', '.join(types)}.")
        try:
            found[name] = truths[value.lower()] if types[name] is bool else types[name](value)
        except (KeyError, ValueError):
            expected = types[name].__name__
            raise click.ClickException(f"train: {name} should be of type {expected}, got {value!r}.") from None
    return found


@click.command(epilog="Example: python -m corrlib train results/mine.safetensors --set steps=500 --workers 1")
@click.argument("out", type=click.Path(dir_okay=False))
@click.option("--preset", default="default", type=click.Choice(list(recipes.PRESETS)), help="Settings to begin from.")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="A field of TrainConfig; repeatable.")
@click.option("--weight", "weights", multiple=True, metavar="LOSS=NUMBER", help="A field of LossWeights; repeatable.")
@click.option("--teacher", default="", help="Weights of a teacher, ours (.safetensors) or torchvision's ResNet-18.")
@click.option("--state", default="", help="File of the resumable state; training goes on from it if it exists.")
@click.option("--start", default="", help="Weights to go on from, a .safetensors file, made wider if width is set.")
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
        begin = checkpoints.load(start) if start else None
        known = training.shape_of(begin) if begin else {}
        config = replace(recipe.config, **known | read_settings(settings))
        counts = replace(recipe.weights, **read_settings(weights, LossWeights))
        torch.manual_seed(config.seed)
        encoder = training.new_encoder(config, begin)
        before = checkpoints.read_origin(start) if start else {}
        taught_by = _teacher(teacher) if teacher else None
        Path(out).parent.mkdir(parents=True, exist_ok=True)
        log = Logbook(environment.beside(out, ".history.jsonl"))
        how = {"state_path": state, "workers": workers, "seconds": minutes * 60, "teacher": taught_by}
        history = training.train(encoder, config, counts, report=_report(config, counts, log), **how)
        if processes.here().rank:
            return  # the first process writes
        origin = provenance.origin(environment.called(), config, counts, len(history), Path(__file__).parents[1])
        if before:  # what they were made by first
            origin["started_from"] = json.dumps(provenance.lineage(before))
        checkpoints.save(out, encoder, origin)  # what was learnt is safe, whatever happens to the rest
        encoder.calibration = _confidence(encoder)
        click.echo(checkpoints.save(out, encoder, origin))
        environment.write_beside(out, seconds=round(time.perf_counter() - begun, 2))
    except (OSError, ValueError) as error:
        raise click.ClickException(str(error)) from None


@click.command(
    "write-shards", epilog="Example: python -m corrlib write-shards data/cache/drawn --clips 10000 --workers 2"
)
@click.argument("folder", type=click.Path(file_okay=False))
@click.option("--clips", default=1000, type=click.IntRange(1), help="How many.")
@click.option("--per-shard", default=100, type=click.IntRange(1), help="Clips in a file.")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="A field of TrainConfig; repeatable.")
@click.option("--teacher", default="", help="Weights of a teacher, whose features of the clips are kept with them.")
@click.option("--real", is_flag=True, help="Cut clips from the videos of the setting real_videos instead.")
@click.option("--workers", default=1, help="Processes that draw. Does not change the result.")
def write_shards(
    folder: str, clips: int, per_shard: int, settings: tuple[str, ...], teacher: str, real: bool, workers: int
) -> None:
    """Draw the first clips of a training into WebDataset shards in FOLDER; what is there is kept.

    Training learns from them by `--set labelled=shards --set data_root=FOLDER`, and from those of --real by
    `--set real_videos=FOLDER`; the number of frames and their size should be the same.
    """
    try:
        config = recipes.TrainConfig(**{"clips": 1, "real_clips": 1, "steps": clips, **read_settings(settings)})
        what = asdict(config) | {"drawn": synthetic.VERSION, "real": real}
        if real and (teacher or not config.real_videos):
            raise ValueError("write-shards: real clips should have real_videos set to a folder, and no teacher.")
        drawn = training_data.real_clips(config) if real else training_data.labelled_clips(config)
        if teacher:
            seeing = _teacher(teacher)
            drawn = training_data.TaughtClips(drawn, seeing)
            what["teacher"] = answering.fingerprint(seeing)
        with click.progressbar(length=-(-clips // per_shard), label="shards", show_pos=True) as bar:
            told = lambda done, all: bar.update(done - bar.pos)  # noqa: E731
            shards.write_shards(folder, drawn, json.dumps(what), per_shard, workers, told)
    except (OSError, ValueError) as error:
        raise click.ClickException(str(error)) from None
    click.echo(folder)


@click.command(epilog="Example: python -m corrlib calibrate results/mine.safetensors")
@click.argument("path", type=click.Path(dir_okay=False))
def calibrate(path: str) -> None:
    """Fit how sure the tracker may be with the encoder in PATH, and write it into the file."""
    try:
        encoder, origin = checkpoints.load(path), checkpoints.read_origin(path)
    except (FileNotFoundError, ValueError) as error:
        raise click.ClickException(str(error)) from None
    encoder.calibration = _confidence(encoder)
    click.echo(checkpoints.save(path, encoder, origin))


@click.command(epilog="Example: python -m corrlib publish results/mine.safetensors results/hub me/mine --push")
@click.argument("weights", type=click.Path(dir_okay=False))
@click.argument("folder", type=click.Path(file_okay=False))
@click.argument("name")
@click.option("--metrics", default="", help="A metrics.json whose numbers the card shows.")
@click.option("--licence", default="mit", help="Of the weights.", show_default=True)
@click.option("--push", is_flag=True, help="Send it to the Hugging Face hub too.")
def publish(weights: str, folder: str, name: str, metrics: str, licence: str, push: bool) -> None:
    """Write WEIGHTS with a model card into FOLDER, to be NAME (owner/name) on the Hugging Face hub."""
    try:
        found = report.read_metrics(metrics) if metrics else {}
        tables = [report.table(found, benchmark) for benchmark in sorted({key.split(".")[0] for key in found})]
        click.echo(hub.save_pretrained(folder, weights, name, "\n\n".join(tables), licence))
        if push:
            click.echo(hub.push_to_hub(folder, name))
    except (OSError, ValueError) as error:
        raise click.ClickException(str(error)) from None


@click.command("training-costs", epilog="Example: python -m corrlib training-costs results/training.json --workers 1")
@click.argument("out", type=click.Path(dir_okay=False))
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="A field of TrainConfig; repeatable.")
@click.option("--steps", default=20, help="Counted in each round.", show_default=True)
@click.option("--rounds", default=3, help="In each of which both loops run once.", show_default=True)
@click.option("--workers", default=1, help="Processes that draw clips for our loop.", show_default=True)
def measure_costs(out: str, settings: tuple[str, ...], steps: int, rounds: int, workers: int) -> None:
    """Measure training steps against a naive loop's, and write them to OUT as a metrics.json.

    Naive is float32, channel by channel, with clips drawn in between. The machine should do nothing else.
    """
    try:
        entries = training_costs.measure(recipes.TrainConfig(**read_settings(settings)), steps, workers, rounds)
        environment.write_measured(out, entries)
    except (OSError, ValueError) as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"{environment.device_name()}, {torch.get_num_threads()} threads")
    for key, entry in entries.items():
        click.echo(f"{key}: {entry['value']:.4g} {entry['unit']}")


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


def _confidence(encoder: torch.nn.Module) -> tuple[float, ...]:
    """An encoder's calibration, fitted on the clips that are kept for it."""
    return calibration.calibrate(encoder, [task.read()[0] for task in benchmarks.procedural_calib()])


def _teacher(path: str) -> torch.nn.Module:
    """The encoder of a file: one of ours, or torchvision's ResNet-18."""
    ours = path.endswith(".safetensors") and "format" in checkpoints.read_header(path)
    return checkpoints.load(path) if ours else ResNet18Encoder(path)
