"""The commands for a video of one's own: follow points, carry masks. They are part of `python -m corrlib`."""

from pathlib import Path

import click
import torch

from . import checkpoints, coords, export, frames, propagation, runs, tracking
from .datasets import files
from .encoder import PixelEncoder


@click.command(epilog="Example: python -m corrlib track data/samples/dog.webm --grid 16 --out results/dog")
@click.argument("video", type=click.Path())
@click.option("--grid", default=0, help="Follow a grid of points of the first frame, so many along its shorter side.")
@click.option("--point", "points", type=(int, float, float), multiple=True, metavar="T X Y", help="Follow this point.")
@click.option("--out", default="", help="Folder for the files; without it results/track.NAME.")
@click.option("--checkpoint", default="small", help="Weights: a .safetensors file, or those shipped.")
@click.option("--max-frames", default=0, help="Read so many frames from the start; 0 reads all.")
@click.option("--tapvid", is_flag=True, help="Write tracks.pkl too, the clip and its tracks as TAP-Vid has them.")
@click.option("--overwrite", is_flag=True, help="Replace the files of an earlier call.")
def track(
    video: str,
    grid: int,
    points: tuple[tuple[int, float, float], ...],
    out: str,
    checkpoint: str,
    max_frames: int,
    tapvid: bool,
    overwrite: bool,
) -> None:
    """Follow points through VIDEO, and write tracks.npz, tracks.csv and overlay.webm.

    VIDEO is a file or a folder of images. A point is its frame and its place in pixels, x to the
    right and y down from the centre of the top-left pixel. Without points a grid of 10 is followed.
    """
    names = ["tracks.npz", "tracks.csv", "overlay.webm", *(["tracks.pkl"] if tapvid else [])]
    try:
        folder = _folder(out, "track", video, names, overwrite)
        held, fps, model = _opened(video, max_frames, checkpoint)
        asked = [] if points and not grid else [coords.query_grid(tuple(held.shape[2:]), grid or 10)]
        queries = torch.cat([torch.tensor(points, dtype=torch.float32).reshape(-1, 3), *asked])
        with runs.Progress("frames", len(held)) as progress:
            answer = tracking.track_points(model, held, queries, progress=lambda done, total: progress.update(done))
        for name in names[:2]:
            export.write_tracks(folder / name, answer, queries)
        export.write_overlay(folder / "overlay.webm", held, answer, fps=fps)
        if tapvid:
            export.write_tapvid(folder / "tracks.pkl", Path(video).stem, held, answer)
    except (OSError, ValueError) as error:
        raise click.ClickException(str(error)) from None
    click.echo("\n".join(str(folder / name) for name in names))


@click.command(epilog="Example: python -m corrlib masks clip.mp4 first.png --out results/clip")
@click.argument("video", type=click.Path())
@click.argument("mask", type=click.Path())
@click.option("--out", default="", help="Folder for the files; without it results/masks.NAME.")
@click.option("--checkpoint", default="small", help="Weights: a .safetensors file, or those shipped.")
@click.option("--max-frames", default=0, help="Read so many frames from the start; 0 reads all.")
def masks(video: str, mask: str, out: str, checkpoint: str, max_frames: int) -> None:
    """Carry the objects of MASK through VIDEO, and write masks/00000.png ... and overlay.webm.

    MASK is a palette or grey image of the first frame, 0 for the background and 1, 2, ... for the
    objects, or black and white. The masks written have the form of DAVIS.
    """
    try:
        folder = _folder(out, "masks", video, ["masks", "overlay.webm"], False)
        held, fps, model = _opened(video, max_frames, checkpoint)
        first = files.read_first_mask(Path(mask), held[0])
        carried = propagation.propagate_masks(model, held, first)
        export.write_masks(folder / "masks", carried)
        export.write_overlay(folder / "overlay.webm", held, masks=carried, fps=fps)
    except (OSError, ValueError) as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"{folder / 'masks'}\n{folder / 'overlay.webm'}")


def _folder(out: str, command: str, video: str, names: list[str], overwrite: bool) -> Path:
    """Where a command writes; refused, before anything is computed, where it would replace something."""
    folder = Path(out or Path("results") / f"{command}.{Path(video).stem}")
    there = [name for name in names if (folder / name).exists()]
    if there and not overwrite:
        raise ValueError(f"{command}: {folder / there[0]} exists and is left as it was; name another folder by --out.")
    return folder


def _opened(video: str, max_frames: int, checkpoint: str) -> tuple[torch.Tensor, float, PixelEncoder]:
    """The frames of a video, its rate, and the model."""
    model = checkpoints.load_pretrained(checkpoint)
    opened = frames.open_video(video)
    return frames.read_video(opened, max_frames), opened.fps, model
