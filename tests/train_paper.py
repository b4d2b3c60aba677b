"""The preset `paper`, whole, for a few steps on tiny sets laid out like its own; run by hand.

    python tests/train_paper.py results/reported/paper_steps.json

Its teacher, window, losses, discriminator and optimiser are all there; crops are of 112 x 112, and of each domain
there is one pair a step.
"""

import itertools
import json
import math
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path

import click
import torch
from test_training_data import draw_sets

from corrlib import environment, training
from corrlib.recipes import PAPER

LOSSES = ("fine", "reconstruction", "domain", "total")


@click.command()
@click.argument("out", type=click.Path(dir_okay=False))
@click.option("--steps", default=20, show_default=True)
@click.option("--size", default=112, show_default=True)
def main(out: str, steps: int, size: int) -> None:
    """Train so many steps; write what the losses did, and what a step cost, to OUT as a metrics.json."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        draw_sets(Path(folder), (size + 8, size + 40))
        real = f"{folder}/YouTube-VOS/train/JPEGImages"
        changes = {"steps": steps, "size": size, "clips": 1, "real_clips": 1}
        config = replace(PAPER.config, **changes, data_root=folder, real_videos=real)
        encoder, teacher = training.new_encoder(config), training.new_encoder(config).eval()
        history = training.train(encoder, config, PAPER.weights, teacher=teacher)
    finite = [all(math.isfinite(record[name]) for name in LOSSES) for record in history]
    seconds = [after["seconds"] - before["seconds"] for before, after in itertools.pairwise(history)]
    few = max(1, steps // 4)
    found = {
        "finite_steps": (sum(finite), "steps"),
        "parameters": (sum(p.numel() for p in encoder.parameters()) / 1e6, "millions"),
        "seconds_per_step": (statistics.median(seconds), "s"),
        "peak_memory": (environment.peak_memory_mib()["process"], "MiB"),
    }
    for name in LOSSES:
        found[f"{name}_first"] = (statistics.mean(record[name] for record in history[:few]), "nat")
        found[f"{name}_last"] = (statistics.mean(record[name] for record in history[-few:]), "nat")
    entries = {f"train.paper.{name}": {"value": v, "unit": unit, "count": steps} for name, (v, unit) in found.items()}
    Path(out).write_text(json.dumps(entries, indent=2, sort_keys=True) + "\n")
    environment.write_beside(out, command=f"python tests/train_paper.py OUT --steps {steps} --size {size}")
    click.echo("\n".join(f"{key}: {entry['value']:.4g} {entry['unit']}" for key, entry in entries.items()))


if __name__ == "__main__":
    main()
