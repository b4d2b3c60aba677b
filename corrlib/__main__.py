"""The command line: `python -m corrlib COMMAND --help`."""

import os
import tempfile
from pathlib import Path

import click
import cv2
import torch

from . import (
    benchmarks,
    checkpoints,
    environment,
    export,
    frames,
    pages,
    predictions,
    report,
    runs,
    study_commands,
    synthetic,
    tracker_costs,
    training_commands,
    video_commands,
)
from . import methods as answering


@click.group()
def main() -> None:
    """Pixel-wise video correspondence."""
    environment.keep_freed_memory()


main.add_command(video_commands.track)
main.add_command(video_commands.masks)
main.add_command(study_commands.train_study)
main.add_command(study_commands.score_study)
main.add_command(study_commands.study_table)
main.add_command(training_commands.train)
main.add_command(training_commands.calibrate)
main.add_command(training_commands.write_shards)
main.add_command(training_commands.publish)
main.add_command(training_commands.measure_costs)


@main.command("export-procedural", epilog="Example: python -m corrlib export-procedural data/raw/procedural --clips 8")
@click.argument("root", type=click.Path(file_okay=False))
@click.option("--clips", default=benchmarks.VAL_CLIPS, help="How many; fewer spread over all speeds.")
def export_procedural(root: str, clips: int) -> None:
    """Write the held-out procedural benchmark as TAP-Vid, DAVIS and FlyingChairs folders under ROOT."""
    from . import layouts

    scenes = [benchmarks.procedural_scene(index, clips) for index in range(clips)]
    times = [float(t) for t in range(24)]
    try:
        click.echo(layouts.write_tapvid(root, (task.read()[0] for task in benchmarks.procedural_val(clips))))
        click.echo(layouts.write_davis(root, (synthetic.mask_clip(made, times) for made in scenes)))
        click.echo(layouts.write_flyingchairs(root, (synthetic.flow_pair(made, 0.0, 1.0) for made in scenes)))
    except ValueError as error:
        raise click.ClickException(str(error)) from None


@main.command("run-notebook", epilog="Example: python -m corrlib run-notebook 00_quickstart -p VIDEO clip.mp4")
@click.argument("name")
@click.option("-f", "files", multiple=True, type=click.Path(exists=True), help="YAML or JSON of parameters.")
@click.option("-p", "pairs", nargs=2, multiple=True, metavar="NAME VALUE", help="A parameter, in YAML.")
def run_notebook(name: str, files: tuple[str, ...], pairs: tuple[tuple[str, str], ...]) -> None:
    """Execute a notebook with live progress, as papermill does; the copy appears when it succeeds."""
    from papermill import PapermillExecutionError

    try:
        click.echo(runs.run_notebook(name, _parameters(files, pairs)))
    except PapermillExecutionError as error:
        raise click.ClickException(f"{name} stopped at {error.ename}: {error.evalue}") from None
    except FileNotFoundError as error:
        raise click.ClickException(str(error)) from None


@main.command(epilog="Example: python -m corrlib site results/site")
@click.argument("folder", type=click.Path(file_okay=False))
@click.argument("executed", nargs=-1, type=click.Path())
def site(folder: str, executed: tuple[str, ...]) -> None:
    """Publish EXECUTED notebooks as web pages in FOLDER; without names, of each the newest in results/.

    The pages need no network and no other file; open index.html.
    """
    try:
        found = [Path(name) for name in executed] or pages.newest(runs.find_root() / "results")
        click.echo(pages.write_site(folder, found))
    except (OSError, ValueError) as error:
        raise click.ClickException(str(error)) from None


@main.command(epilog="Example: python -m corrlib onnx results/small.onnx")
@click.argument("out", type=click.Path(dir_okay=False))
@click.option("--checkpoint", default="small", help="Weights: a .safetensors file, or those shipped.")
def onnx(out: str, checkpoint: str) -> None:
    """Write the encoder as ONNX, for frames of any size, to OUT. Needs the packages of the group `onnx`."""
    try:
        click.echo(export.write_onnx(out, checkpoints.load_pretrained(checkpoint)))
    except (OSError, ValueError, ImportError) as error:
        raise click.ClickException(str(error)) from None


@main.command(epilog="Example: torchrun --nproc-per-node 2 -m corrlib predict results/predictions -p MAX_CLIPS 4")
@click.argument("folder", type=click.Path(file_okay=False))
@click.option("-f", "files", multiple=True, type=click.Path(exists=True), help="YAML or JSON of parameters.")
@click.option(
    "-p", "pairs", nargs=2, multiple=True, metavar="NAME VALUE", help="A parameter of 04_evaluation, in YAML."
)
def predict(folder: str, files: tuple[str, ...], pairs: tuple[tuple[str, str], ...]) -> None:
    """Ask what 04_evaluation asks, and keep the answers in FOLDER, which is its parameter PREDICTIONS.

    Started several times, by torchrun or with RANK and WORLD_SIZE set, on one machine or on several
    that share FOLDER, each process takes its part of the clips.
    """
    share = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    try:
        given = runs.declared_parameters("04_evaluation") | _parameters(files, pairs)
        params = runs.read_parameters("04_evaluation", given)
        size = predictions.size_of(params.resolution)
        root = params.data_root or runs.find_root() / "data" / "raw"
        asked = (root, params.split, params.max_clips, params.query_mode)
        tasks, missing = benchmarks.available(params.benchmarks, *asked)
        named = (params.checkpoint, params.resnet18_weights, params.raft_small_weights, params.seed)
        methods = answering.methods(params.methods, *named)
        for name, why in missing.items():
            click.echo(f"skipped {name}: {why}", err=True)
        clips = [task for each in tasks.values() for task in each]
        predictions.predict(methods, clips, folder, size, share, lambda _, note: click.echo(note, err=True))
    except (FileNotFoundError, ValueError) as error:
        raise click.ClickException(str(error)) from None
    click.echo(folder)


@main.command(epilog="Example: python -m corrlib table results/04_evaluation.1/metrics.json")
@click.argument("path", type=click.Path())
@click.option("--benchmark", default="", help="Only this one.")
@click.option("--overview", is_flag=True, help="One table of all benchmarks' main numbers.")
@click.option("--link", is_flag=True, help="Make each number a link to the file, as the README has them.")
def table(path: str, benchmark: str, overview: bool, link: bool) -> None:
    """Print the numbers of a metrics.json as Markdown tables, one a benchmark, or one of them all."""
    try:
        metrics = report.read_metrics(path)
        if overview:
            click.echo(report.overview(metrics, path if link else ""))
            return
        names = [benchmark] if benchmark else sorted({key.split(".")[0] for key in metrics})
        click.echo("\n\n".join(report.table(metrics, name, path if link else "") for name in names))
    except (FileNotFoundError, ValueError) as error:
        raise click.ClickException(str(error)) from None


@main.command(epilog="Example: python -m corrlib keep results/04_evaluation.full")
@click.argument("run", type=click.Path())
@click.option("--folder", default="results/reported", help="Where reported numbers are kept.")
@click.option("--name", default="", help="Of the file there; without it the notebook's.")
def keep(run: str, folder: str, name: str) -> None:
    """Copy the numbers of a run, and how they were made, to the reported ones."""
    try:
        click.echo(report.keep(run, folder, name))
    except (FileNotFoundError, ValueError) as error:
        raise click.ClickException(str(error)) from None


def _parameters(files: tuple[str, ...], pairs: tuple[tuple[str, str], ...]) -> dict:
    """Parameters of a notebook from files and, over them, from the command line."""
    import yaml

    parameters = {}
    for path in files:
        parameters |= yaml.safe_load(Path(path).read_text()) or {}
    return parameters | {key: yaml.safe_load(value) for key, value in pairs}


@main.command("tracking-costs", epilog="Example: python -m corrlib tracking-costs results/tracking.json --frames 3000")
@click.argument("out", type=click.Path(dir_okay=False))
@click.option("--weights", default="small", help="A .safetensors file, or a name of bundled weights.")
@click.option("--frames", "num_frames", default=0, help="Length of a 640 x 480 video to read memory over; 0 for none.")
@click.option("--small-frames", default=0, help="Length of a 64 x 64 stream to read memory over; 0 for none.")
def tracking_costs(out: str, weights: str, num_frames: int, small_frames: int) -> None:
    """Measure what following 256 points costs, on one thread and on all, and write it to OUT as a metrics.json."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        stream = Path(folder, "stream.webm") if num_frames else None
        if stream:
            frames.write_video(stream, tracker_costs.drifting((480, 640), num_frames))
        entries = tracker_costs.measure(checkpoints.load_pretrained(weights), stream, small_frames)
    environment.write_measured(out, entries)
    for key, entry in entries.items():
        click.echo(f"{key}: {entry['value']:.4g} {entry['unit']}")


@main.command("use-costs", epilog="Example: python -m corrlib use-costs results/use.json")
@click.argument("out", type=click.Path(dir_okay=False))
@click.option("--weights", default="small", help="A .safetensors file, or a name of bundled weights.")
def measure_use(out: str, weights: str) -> None:
    """Measure a click in the explorer, memory over the evaluation of 20 clips, and the import, into OUT."""
    from . import use_costs  # which needs the packages of notebooks

    def told(clip: int) -> None:
        click.echo(f"clip {clip}", err=True)

    entries = use_costs.measure(checkpoints.load_pretrained(weights), told)
    environment.write_measured(out, entries)
    for key, entry in entries.items():
        click.echo(f"{key}: {entry['value']:.4g} {entry['unit']}")


if __name__ == "__main__":
    main()
