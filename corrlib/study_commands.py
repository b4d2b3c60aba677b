"""The commands of studies: train arms, put them to benchmarks, print their tables. Part of `python -m corrlib`."""

import itertools
from pathlib import Path

import click

from . import arm_scores, arm_tables, arms, benchmarks, environment, report, scaling
from .studies import STUDIES
from .training_commands import read_settings


@click.command("study", epilog="Example: python -m corrlib study claims results/claims --cache data/cache")
@click.argument("name", type=click.Choice(list(STUDIES)))
@click.argument("folder", type=click.Path(file_okay=False))
@click.option("--arms", "wanted", default="", help="Some of them, with commas between; all if empty.")
@click.option("--seeds", default="0,1,2", help="With commas between.", show_default=True)
@click.option("--set", "changes", multiple=True, metavar="NAME=VALUE", help="A field of TrainConfig; repeatable.")
@click.option("--cache", default="", help="Where drawn clips are kept for other arms that see the same ones.")
@click.option("--calibration-clips", default=4, help="That the tracker's confidence is fitted on.", show_default=True)
def train_study(
    name: str, folder: str, wanted: str, seeds: str, changes: tuple[str, ...], cache: str, calibration_clips: int
) -> None:
    """Train the arms of the study NAME, each seed of each, into FOLDER; what is there is kept.

    \b
    claims      the four kinds of label, with reconstruction, adversary or both
    departures  what the paper's way of one thing changes, where the default is another
    recipe      4,000 steps, an hour of a processor core: by AdamW, with the loss on masks too, by Muon
    video       what the drawn video is worth, part by part
    scaling     more steps, more textures, a wider network

    Stopped at any time, it goes on where it stopped. Several may run at once on different seeds or arms
    of one FOLDER, once the teacher (by_reconstruction) is there, if there is one.
    """
    study = STUDIES[name]
    try:
        settings = read_settings(changes)
        for seed in seeds.split(","):
            for arm in wanted.split(",") if wanted else study.arms:

                def show(step: int, record: dict[str, float], arm: str = arm, seed: str = seed) -> None:
                    if step % 50 == 0:
                        kept = ("coarse", "fine", "masks", "reconstruction", "domain", "domain_accuracy")
                        said = " ".join(f"{key} {record[key]:.3f}" for key in kept if key in record)
                        click.echo(f"{arm}-{seed} step {step} {said} {record['seconds'] / 60:.1f} min", err=True)

                click.echo(arms.train_arm(study, arm, int(seed), folder, settings, cache, show, calibration_clips))
    except (OSError, ValueError) as error:
        raise click.ClickException(str(error)) from None


@click.command("score-study", epilog="Example: python -m corrlib score-study claims results/claims")
@click.argument("name", type=click.Choice(list(STUDIES)))
@click.argument("folder", type=click.Path(exists=True, file_okay=False))
@click.option("--benchmarks", "names", default="", help="With commas between; the study's own if empty.")
@click.option("--data-root", default="data/raw", help="Folder of the data sets.", show_default=True)
@click.option("--split", default="val", help="Of DAVIS.", show_default=True)
@click.option("--max-clips", default=12, help="Of each benchmark; 0 for all.", show_default=True)
@click.option("--masks/--no-masks", default=True, help="Whether masks are asked too, where the study does.")
def score_study(name: str, folder: str, names: str, data_root: str, split: str, max_clips: int, masks: bool) -> None:
    """Ask all arms in FOLDER about the benchmarks of the study NAME; write scores.json and metrics.json there.

    What the numbers depend on is in metrics.environment.json. Of the study scaling there are curves.png and
    growth.json too.
    """
    study = STUDIES[name]
    try:
        wanted = names.split(",") if names else study.benchmarks
        tasks, missing = benchmarks.available(wanted, data_root, split, max_clips)
        for skipped, why in missing.items():
            click.echo(f"skipped {skipped}: {why}", err=True)
        every = [task for each in tasks.values() for task in each]
        arm_scores.ask(
            folder, every, masks and study.masks, lambda done, note: click.echo(f"{done}/{len(every)} {note}", err=True)
        )
        entries = arm_scores.write(folder, tasks, study.compared)
        environment.write_beside(Path(folder, "metrics.json"))
        if name == "scaling":
            entries |= scaling.write(study, arm_scores.read(folder), folder)
    except (OSError, ValueError) as error:
        raise click.ClickException(str(error)) from None
    for key, entry in entries.items():
        click.echo(f"{key} {entry['value']:.4f}")


@click.command("study-table", epilog="Example: python -m corrlib study-table claims results/reported/claims")
@click.argument("name", type=click.Choice(list(STUDIES)))
@click.argument("folder", type=click.Path(exists=True, file_okay=False))
@click.option("--link", is_flag=True, help="Make each number a link to metrics.json, as the reported pages have.")
def study_table(name: str, folder: str, link: bool) -> None:
    """Print what score-study has found in FOLDER as two Markdown tables: the arms of the study NAME, and differences.

    Means over seeds ± their standard deviation; differences seed by seed and clip by clip, with 95 % intervals.
    """
    study, path = STUDIES[name], Path(folder, "metrics.json")
    try:
        entries = report.read_metrics(path)
        names = dict.fromkeys([*study.arms, *itertools.chain.from_iterable(study.compared)])
        link_to = path.name if link else ""
        said = arm_tables.arms(entries, names, link_to), arm_tables.differences(entries, study.compared, link_to)
    except (OSError, ValueError) as error:
        raise click.ClickException(str(error)) from None
    click.echo("\n\n".join(filter(None, said)))
