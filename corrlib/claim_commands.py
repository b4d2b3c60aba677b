"""The commands of the paper's claims: train the arms, then put them to benchmarks. Part of `python -m corrlib`."""

from dataclasses import replace

import click

from . import benchmarks, claims
from .training_commands import read_settings

BENCHMARKS = "procedural,real_texture,badja,davis2016"


@click.command("train-claims", epilog="Example: python -m corrlib train-claims results/claims --videos data/samples")
@click.argument("folder", type=click.Path(file_okay=False))
@click.option("--arms", default=",".join(claims.ARMS), help="Some of them, with commas between.", show_default=True)
@click.option("--seeds", default="0,1,2", help="With commas between.", show_default=True)
@click.option("--videos", default="data/samples", help="Folder of real video.", show_default=True)
@click.option("--cache", default="data/cache", help="Where drawn clips are kept; none if empty.", show_default=True)
@click.option("--calibration-clips", default=4, help="That the tracker's confidence is fitted on.", show_default=True)
@click.option("--set", "changes", multiple=True, metavar="NAME=VALUE", help="A field of TrainConfig; repeatable.")
def train_claims(
    folder: str, arms: str, seeds: str, videos: str, cache: str, calibration_clips: int, changes: tuple[str, ...]
) -> None:
    """Train what the paper claims against what it is claimed to beat, into FOLDER; what is there is kept.

    Stopped at any time, it goes on where it stopped. Several may run at once on different seeds or arms
    of one FOLDER, once the teacher (by_reconstruction) is there.
    """
    try:
        config = replace(claims.CONFIG, real_videos=videos, **read_settings(changes))
        for seed in seeds.split(","):
            for arm in arms.split(","):

                def show(step: int, record: dict[str, float], arm: str = arm, seed: str = seed) -> None:
                    if step % 50 == 0 or step == config.steps - 1:
                        kept = ("coarse", "fine", "reconstruction", "domain", "domain_accuracy", "domain_gradient")
                        said = " ".join(f"{name} {record[name]:.3f}" for name in kept if name in record)
                        line = f"{arm}-{seed} {step}/{config.steps} {said}"
                        click.echo(f"{line} {record['seconds'] / 60:.1f} min", err=True)

                click.echo(claims.train_arm(arm, int(seed), folder, config, cache, show, calibration_clips))
    except (FileNotFoundError, ValueError) as error:
        raise click.ClickException(str(error)) from None


@click.command("score-claims", epilog="Example: python -m corrlib score-claims results/claims --data-root data/raw")
@click.argument("folder", type=click.Path(exists=True, file_okay=False))
@click.option("--benchmarks", "names", default=BENCHMARKS, help="With commas between.", show_default=True)
@click.option("--data-root", default="data/raw", help="Folder of the data sets.", show_default=True)
@click.option("--split", default="val", help="Of DAVIS.", show_default=True)
@click.option("--max-clips", default=12, help="Of each benchmark; 0 for all.", show_default=True)
def score_claims(folder: str, names: str, data_root: str, split: str, max_clips: int) -> None:
    """Ask all arms in FOLDER about benchmarks; write scores.json and metrics.json there."""
    try:
        tasks, missing = benchmarks.available(names.split(","), data_root, split, max_clips)
        for name, why in missing.items():
            click.echo(f"skipped {name}: {why}", err=True)
        every = [task for each in tasks.values() for task in each]
        claims.ask(folder, every, lambda done, note: click.echo(f"{done}/{len(every)} {note}", err=True))
        found = claims.write_scores(folder, tasks)
    except (FileNotFoundError, ValueError) as error:
        raise click.ClickException(str(error)) from None
    for name, entry in claims.table(found).items():
        click.echo(f"{name} {100 * entry['value']:.2f}")
