"""The commands for a video of one's own: follow points, carry masks. They are part of `python -m corrlib`."""

from pathlib import Path

import click
import torch

from . import checkpoints, coords, export, frames, pages, propagation, runs, tracking
from .datasets import files

SHOWN_LINES = 480  # of overlays, the shorter side of the frame: what is larger takes long to write

VIDEO_OPTIONS = [
    click.option("--out", default="", help="Folder for the files; without it results/COMMAND.NAME."),
    click.option("--checkpoint", default="small", help="Weights: a .safetensors file, or those shipped."),
    click.option("--max-frames", default=0, help="Read so many frames from the start; 0 reads all."),
    click.option("--overwrite", is_flag=True, help="Replace the files of an earlier call."),
]


def _video_options(command):
    """The options that both commands have."""
    for option in reversed(VIDEO_OPTIONS):
        command = option(command)
    return command


@click.command(epilog="Example: python -m corrlib track data/samples/dog.webm --grid 16 --out results/dog")
@click.argument("video", type=click.Path())
@click.option("--grid", default=0, help="Follow a grid of points of the first frame, so many along its shorter side.")
@click.option("--point", "points", type=(int, float, float), multiple=True, metavar="T X Y", help="Follow this point.")
@click.option("--tapvid", is_flag=True, help="Write tracks.pkl too, the clip and its tracks as TAP-Vid has them.")
@_video_options
def track(
    video: str,
    grid: int,
    points: tuple[tuple[int, float, float], ...],
    tapvid: bool,
    out: str,
    checkpoint: str,
    max_frames: int,
    overwrite: bool,
) -> None:
    """Follow points through VIDEO, and write tracks.npz, tracks.csv, overlay.webm and overlay.html.

    VIDEO is a file or a folder of images. A point is its frame and its place in pixels, x to the
    right and y down from the centre of the top-left pixel. Without points a grid of 10 is followed.
    """
    names = ["tracks.npz", "tracks.csv", "overlay.webm", "overlay.html", *(["tracks.pkl"] if tapvid else [])]
    try:
        folder = _folder(out, "track", video, names, overwrite)
        model, opened = checkpoints.load_pretrained(checkpoint), frames.open_video(video, max_frames)
        asked = [] if points and not grid else [coords.query_grid(opened.size_hw, grid or 10)]
        queries = torch.cat([torch.tensor(points, dtype=torch.float32).reshape(-1, 3), *asked])
        with runs.Progress("following points", opened.num_frames) as progress:
            answer = tracking.track_points(model, opened, queries, progress=lambda done, total: progress.update(done))
        for name in names[:2]:
            export.write_tracks(folder / name, answer, queries)
        if tapvid:
            export.write_tapvid(folder / "tracks.pkl", Path(video).stem, frames.read_video(opened), answer)
        said = f"{len(queries)} points over {len(answer.tracks)} frames; rings are hidden or lost"
        _show(folder, opened, f"Points of {Path(video).name}", said, answer=answer)
    except (OSError, ValueError) as error:
        raise click.ClickException(str(error)) from None
    click.echo("\n".join(str(folder / name) for name in names))


@click.command(epilog="Example: python -m corrlib masks data/samples/dog.webm --box 150 80 300 220 --out results/dog")
@click.argument("video", type=click.Path())
@click.argument("mask", type=click.Path(), default="")
@click.option("--box", type=(float, float, float, float), metavar="X0 Y0 X1 Y1", help="A box in place of MASK, pixels.")
@_video_options
def masks(
    video: str,
    mask: str,
    box: tuple[float, float, float, float] | None,
    out: str,
    checkpoint: str,
    max_frames: int,
    overwrite: bool,
) -> None:
    """Carry the objects of MASK through VIDEO, and write masks/00000.png ..., overlay.webm and overlay.html.

    MASK is a palette or grey image of the first frame, 0 for the background and 1, 2, ... for the
    objects, or black and white. The masks written have the form of DAVIS.
    """
    names = ["masks", "overlay.webm", "overlay.html"]
    if bool(mask) == bool(box):
        raise click.UsageError("masks: expected either a file MASK or --box, got both or neither.")
    try:
        folder = _folder(out, "masks", video, names, overwrite)
        model, opened = checkpoints.load_pretrained(checkpoint), frames.open_video(video, max_frames)
        like = next(iter(opened))
        first = coords.box_mask(opened.size_hw, *box) if box else files.read_first_mask(Path(mask), like)
        carried = propagation.iterate_masks(model, opened, first)
        counted = runs.Progress("carrying masks", opened.num_frames).track(carried)
        carried = torch.stack([each.to(torch.uint8) for each in counted])
        export.write_masks(folder / "masks", carried, overwrite)
        said = f"{int(first.max())} objects over {len(carried)} frames"
        _show(folder, opened, f"Objects of {Path(video).name}", said, masks=carried)
    except (OSError, ValueError) as error:
        raise click.ClickException(str(error)) from None
    click.echo("\n".join(str(folder / name) for name in names))


def _folder(out: str, command: str, video: str, names: list[str], overwrite: bool) -> Path:
    """Where a command writes; refused, before anything is computed, where it would replace something."""
    folder = Path(out or Path("results") / f"{command}.{Path(video).stem}")
    there = [name for name in names if (folder / name).exists()]
    if there and not overwrite:
        raise ValueError(
            f"{command}: {folder / there[0]} exists and is left as it was; name another folder by --out, "
            "or replace it by --overwrite."
        )
    return folder


def _show(folder: Path, opened: frames.Video, title: str, said: str, **answers) -> None:
    """The overlay as a film, and as a page that holds it."""
    with runs.Progress("drawing", opened.num_frames) as progress:
        how = {"fps": opened.fps, "lines": SHOWN_LINES, "progress": lambda done, total: progress.update(done)}
        film = export.write_overlay(folder / "overlay.webm", opened, **answers, **how)
    pages.write_page(folder / "overlay.html", title, {film: f"{said}."})
