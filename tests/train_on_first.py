"""Train on clips of the first generator of this repository, by today's steps, beside `study video`; run by hand.

    python tests/train_on_first.py results/video --seeds 0,1,2

Its clips are drawn by the code of that time, from the history, in a process of its own; all else is as for the arm
`whole` of the study. The networks are the arm `first` of the folder, which `score-study video` compares with it.
"""

import json
import subprocess
import sys
import tempfile
from dataclasses import asdict, replace
from pathlib import Path

import click
from first_generator import first_generator

from corrlib import arms
from corrlib.studies import VIDEO, Arm

DRAW = """
import json, sys
from pathlib import Path
import numpy as np, torch
torch.set_num_threads(1)
from corrlib.training import ProceduralClips, TrainConfig
place, settings = sys.argv[1:]
clips = ProceduralClips(TrainConfig(**json.loads(settings)))
arrays = {path.stem: np.lib.format.open_memmap(path, "r+") for path in Path(place).glob("*.npy")}
for i in range(len(clips)):
    clip = clips[i]
    for name, values in arrays.items():
        values[i] = True if name == "kept" else getattr(clip, name).numpy()
"""
SETTINGS = ("steps", "clips", "frames", "size", "points", "max_gap", "textures", "seed")  # that both know


@click.command()
@click.argument("folder", type=click.Path(file_okay=False))
@click.option("--seeds", default="0,1,2", help="With commas between.", show_default=True)
@click.option("--steps", default=VIDEO.config.steps, help="As `--set steps=` of the study.", show_default=True)
def main(folder: str, seeds: str, steps: int) -> None:
    """Train the arm `first`, each seed of it, into FOLDER; what is there is kept."""
    study = VIDEO._replace(arms={"first": Arm({})}, config=replace(VIDEO.config, steps=steps))
    for seed in map(int, seeds.split(",")):
        config = replace(study.config, seed=seed)
        with first_generator() as then, tempfile.TemporaryDirectory() as cache:
            if not Path(folder, f"first-{seed}.json").exists():
                arms.DrawnOnce(config, cache)
                place, settings = next(Path(cache).iterdir()), {name: asdict(config)[name] for name in SETTINGS}
                environ = {"PYTHONPATH": str(then), "OMP_NUM_THREADS": "1", "PATH": ""}
                call = [sys.executable, "-c", DRAW, str(place), json.dumps(settings)]
                subprocess.run(call, cwd=then, env=environ, check=True)
            click.echo(arms.train_arm(study, "first", seed, folder, cache=cache))


if __name__ == "__main__":
    main()
