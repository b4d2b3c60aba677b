"""How fast clips are drawn, beside the first generator of this repository and beside learning; run by hand.

    python tests/compare_generators.py results/reported/generator.json --clips 40 --rounds 5

The first generator, flat layers only, is taken from the history, so that a whole clone is needed. All
take turns on one core in processes of their own; times are the processor's, without the textures, which
are drawn once for hundreds of clips.
"""

import json
import statistics
from pathlib import Path

import click
from first_generator import ROOT, first_generator, printed

from corrlib import environment

LAYERS = '{"solids": 0, "figures": 0}'
DRAW = """
import sys, time, torch
torch.set_num_threads(1)
from corrlib.training import ProceduralClips, TrainConfig
first, count, content = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
clips = ProceduralClips(TrainConfig(steps=10_000, clips=1, **({"content": content} if content else {})))
clips[0]
begun = time.process_time()
for i in range(first, first + count):
    clips[i]
print((time.process_time() - begun) / count)
"""
LEARN = """
import sys, time, torch
torch.set_num_threads(1)
from corrlib import training_costs
from corrlib.training import TrainConfig
from corrlib.training_data import batches
config = TrainConfig(steps=1)
batch = next(batches(config, 0, 0))
encoder = training_costs.network(config, naive=False).train()
optimizer = torch.optim.AdamW(encoder.parameters())
for step in range(3 + int(sys.argv[1])):
    if step == 3:
        begun = time.process_time()
    training_costs.learn(encoder, optimizer, batch, config)
print((time.process_time() - begun) / int(sys.argv[1]) / config.clips)
"""
MEMORY = """
import sys, psutil, torch
torch.set_num_threads(1)
from corrlib.training import ProceduralClips, TrainConfig
count, process, held = int(sys.argv[1]), psutil.Process(), []
clips = ProceduralClips(TrainConfig(steps=count, clips=1, size=64, frames=2, points=64))
for i in range(count):
    clips[i]
    if i % (count // 100) == 0:
        held.append(process.memory_info().rss / 2**20)
print(max(held[-10:]) - max(held[10:20]))
"""


@click.command()
@click.argument("out", type=click.Path(dir_okay=False))
@click.option("--clips", default=40, help="Drawn in each round.", show_default=True)
@click.option("--rounds", default=5, help="In each of which all have their turn.", show_default=True)
@click.option("--memory-clips", default=0, help="Of 64 x 64, over which memory is read; 0 for none.", show_default=True)
def main(out: str, clips: int, rounds: int, memory_clips: int) -> None:
    """Measure how fast clips are drawn, and what memory that takes, and write it to OUT."""
    took: dict[str, list[float]] = {"first": [], "whole": [], "layers": [], "learning": []}
    with first_generator() as folder:
        for turn in range(rounds):
            which = (str(1 + turn * clips), str(clips))
            took["first"] += printed(DRAW, folder, *which, "")
            took["whole"] += printed(DRAW, ROOT, *which, "{}")
            took["layers"] += printed(DRAW, ROOT, *which, LAYERS)
            took["learning"] += printed(LEARN, ROOT, "8")
            click.echo(", ".join(f"{name} {values[-1]:.4f} s a clip" for name, values in took.items()), err=True)
    entries = {}

    def add(name: str, value: float, unit: str) -> None:
        entries[f"generator.{name}"] = {"value": value, "unit": unit, "count": rounds}

    for name, values in took.items():
        add(f"{name}.seconds_a_clip", statistics.median(values), "s")
    for name in ("whole", "layers"):
        add(f"{name}.times_first", statistics.median(a / b for a, b in zip(took["first"], took[name])), "ratio")
    add("whole.of_learning", statistics.median(a / b for a, b in zip(took["whole"], took["learning"])), "ratio")
    call = f"python tests/compare_generators.py OUT --clips {clips} --rounds {rounds}"
    if memory_clips:
        (grown,) = printed(MEMORY, ROOT, str(memory_clips))  # the last tenth's most beside the second's
        entries["generator.memory.grown"] = {"value": grown, "unit": "MiB", "count": memory_clips}
        call += f" --memory-clips {memory_clips}"
    Path(out).write_text(json.dumps(entries, indent=2, sort_keys=True) + "\n")
    environment.write_beside(out, command=call)
    for key, entry in entries.items():
        click.echo(f"{key}: {entry['value']:.4g} {entry['unit']}")


if __name__ == "__main__":
    main()
