"""How points move and how crisp frames are in clips of the first generator and of today's; run by hand.

    python tests/compare_clips.py results/reported/video/clips.json

Clips are those of the study `video`: 3 frames of 128 x 128, up to 24 frames between neighbours.
"""

import json
from pathlib import Path

import click
from first_generator import ROOT, first_generator, printed

from corrlib import environment

SWIFT = '{"speed": [0.7, 30]}'
LOOK = """
import sys, torch
torch.set_num_threads(1)
from corrlib.training import ProceduralClips, TrainConfig
content = {"content": sys.argv[2]} if sys.argv[2:] else {}
clips = ProceduralClips(TrainConfig(steps=10_000, clips=1, frames=3, size=128, points=128, seed=5, **content))
moved, apart, seen, steps = [], [], [], []
for i in range(int(sys.argv[1])):
    clip = clips[i]
    for a, b in ((0, 1), (0, 2), (1, 2)):
        both = clip.visible[a] & clip.visible[b]
        way = (clip.tracks[b] - clip.tracks[a])[both]
        moved.append(way.norm(dim=-1))
        seen.append(both.float().mean())
        if len(way):
            apart.append((way - way.median(dim=0).values).norm(dim=-1))
    steps.append(clip.video.float().mean(1).diff(dim=-1).abs().mean())
print(*torch.cat(moved).quantile(torch.tensor([0.5, 0.75])).tolist(), torch.cat(apart).median().item())
print(torch.stack(seen).mean().item(), torch.stack(steps).mean().item())
"""


@click.command()
@click.argument("out", type=click.Path(dir_okay=False))
@click.option("--clips", default=150, help="Of each kind.", show_default=True)
def main(out: str, clips: int) -> None:
    """Write to OUT, of each kind, how far points seen in two frames of a clip move, also from where most of them go,
    how many are seen in both, and how neighbouring pixels differ."""
    with first_generator() as folder:
        found = {
            "first": printed(LOOK, folder, str(clips)),
            "whole": printed(LOOK, ROOT, str(clips)),
            "swift": printed(LOOK, ROOT, str(clips), SWIFT),
        }
    units = {"moved": "px", "moved_upper_quartile": "px", "apart": "px", "seen": "fraction", "step": "grey levels"}
    entries = {
        f"clips.{kind}.{name}": {"value": value, "unit": unit, "count": clips}
        for kind, values in found.items()
        for (name, unit), value in zip(units.items(), values)
    }
    Path(out).write_text(json.dumps(entries, indent=2, sort_keys=True) + "\n")
    environment.write_beside(out, command=f"python tests/compare_clips.py OUT --clips {clips}")
    for key, entry in entries.items():
        click.echo(f"{key}: {entry['value']:.4g} {entry['unit']}")


if __name__ == "__main__":
    main()
