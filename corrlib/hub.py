"""Weights for others: a folder with a model card, as the Hugging Face hub holds them, and its way there.

The folder is what `checkpoints.load_pretrained("owner/name")` reads from the hub. Weights keep their own
header, with lattices, calibration and origin, which the hub's mixin for networks would not write.
"""

import json
import os
from pathlib import Path

from . import checkpoints
from .encoder import PaperEncoder, PixelEncoder

CARD = """---
license: {licence}
library_name: corrlib
tags: [video-correspondence, point-tracking, {kind}]
---

# {name}

Weights of a `{kind}` ({parameters:.2f} M parameters) for pixel-wise video correspondence with
corrlib: which pixel of one frame is which of another.

```python
import corrlib
model = corrlib.load_pretrained("{name}")
tracks, visible, confidence = corrlib.track_points(model, corrlib.read_video("clip.mp4"), [[0, 120.5, 64.0]])
```

- **Licence**: {licence}
- **Data**: {data}
- **Made by**: `{command}`, at commit {commit}, {steps} steps, seed {seed}

## Recipe

```json
{recipe}
```

## Metrics

{metrics}
"""


def model_card(
    name: str, encoder: PixelEncoder | PaperEncoder, origin: dict[str, str], metrics: str, licence: str
) -> str:
    """What the hub shows: licence, data, recipe and metrics, in Markdown."""
    training, data = (json.loads(origin.get(key, "{}")) for key in ("training", "data"))
    return CARD.format(
        name=name, kind=type(encoder).__name__, licence=licence, metrics=metrics or "Not measured.",
        parameters=sum(p.numel() for p in encoder.parameters()) / 1e6,
        data=", ".join(f"{key} {value[:12]}" for key, value in data.items()) or "not said",
        command=origin.get("command", "not said"), commit=origin.get("commit") or "not said",
        steps=origin.get("steps_done", training.get("steps", "?")), seed=origin.get("seed", training.get("seed", "?")),
        recipe=json.dumps({"training": training, "weights": json.loads(origin.get("weights", "{}"))}, indent=1),
    )  # fmt: skip


def save_pretrained(
    folder: str | os.PathLike, weights: str | os.PathLike, name: str, metrics: str = "", licence: str = "mit"
) -> Path:
    """Writes weights and their model card into a folder, as the hub holds them.

    Args:
        folder: made if it is missing.
        weights: a file of `checkpoints.save`; its header says how they were made.
        name: owner/name on the hub.
        metrics: tables in Markdown, such as `report.table` makes.
        licence: of the weights, an identifier that the hub knows.

    Raises:
        FileNotFoundError, ValueError: as for `checkpoints.load`.
        OSError: it cannot be written.
    """
    encoder, origin = checkpoints.load(weights), checkpoints.read_origin(weights)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    checkpoints.save(folder / checkpoints.ON_HUB, encoder, origin)
    (folder / "README.md").write_text(model_card(name, encoder, origin, metrics, licence))
    return folder


def push_to_hub(folder: str | os.PathLike, name: str) -> str:
    """Sends a folder of `save_pretrained` to the hub, under owner/name; who you are is known to `hf auth login`.

    Returns:
        where it is.

    Raises:
        ValueError: the hub refused, or cannot be reached.
    """
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError

    try:
        api = huggingface_hub.HfApi()
        api.create_repo(name, exist_ok=True)
        return str(
            api.upload_folder(repo_id=name, folder_path=folder, allow_patterns=[checkpoints.ON_HUB, "README.md"])
        )
    except (OSError, HfHubHTTPError, ValueError) as error:
        raise ValueError(f"push_to_hub: {name} could not be sent ({str(error).splitlines()[0]}).") from None
