"""One training step, and the loop around it.

A step looks at a few short clips. In each, every frame asks every other one where its points
went; the answer is compared with the soft label of the exact track, over the whole coarse map
and over a window of the fine one.
"""

import itertools
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from . import augment, coords, frames, labels, matching, synthetic, textures
from .losses import LossWeights, soft_label_cross_entropy
from .samples import TrackClip

CLIPS_PER_BANK = 600  # clips until the textures at hand are drawn anew


@dataclass(frozen=True)
class TrainConfig:
    """All that decides what is learnt; equal configurations give equal weights on one machine."""

    steps: int = 2000
    clips: int = 4  # a step
    frames: int = 3  # a clip, all of them matched with each other
    size: int = 160  # pixels, square
    points: int = 192  # a clip, asked in all of its frames
    max_gap: float = 24.0  # frames between neighbouring frames of a clip, log-uniform from 1
    appearance: float = 1.0  # strength of augment.change_appearance
    textures: int = 96  # at hand at a time
    texture_folder: str = ""  # of images and videos that half of them are made of
    content: str = "{}"  # what differs from synthetic.Content, as JSON
    label: str = "bilinear"  # labels.KINDS
    temperature: float = 0.07
    radius: int = 6  # of the window on the fine map, in cells
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    width: int = 32  # of the encoder
    bfloat16: bool = True  # the encoder's products, where the processor has such instructions
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be trained, before the first step."""
        for name in ("steps", "clips", "points", "temperature", "learning_rate", "width"):
            if not getattr(self, name) > 0:
                raise ValueError(f"TrainConfig: {name} should be above 0, got {getattr(self, name)}.")
        labels.check_kind(self.label)
        if self.frames < 2 or self.size < 32 or self.max_gap < 1:
            raise ValueError(
                "TrainConfig: frames should be at least 2, size 32 and max_gap 1, "
                f"got {self.frames}, {self.size} and {self.max_gap}."
            )


@dataclass(frozen=True)
class Batch:
    """Clips of equal length and size, stacked."""

    video: Float[Tensor, "B T 3 H W"]
    tracks: Float[Tensor, "B T N 2"]
    visible: Bool[Tensor, "B T N"]


def train_step(encoder: nn.Module, batch: Batch, config: TrainConfig, weights: LossWeights) -> dict[str, Tensor]:
    """The losses of one batch: every frame asks every other where its points went.

    Returns:
        "coarse" and "fine", the soft-label cross-entropies in nat, and "total", their weighted sum.
    """
    B, T = batch.video.shape[:2]
    with torch.autocast(batch.video.device.type, torch.bfloat16, enabled=config.bfloat16):
        features = encoder(rearrange(batch.video, "B T c H W -> (B T) c H W"))
    coarse, fine = (rearrange(f.float(), "(B T) C h w -> T B C h w", B=B).unbind() for f in features)
    coarse_cells = coords.to_cells(batch.tracks, encoder.coarse_lattice)
    fine_cells = coords.to_cells(batch.tracks, encoder.fine_lattice)
    every_cell = rearrange(coords.grid(tuple(coarse[0].shape[-2:]), coarse[0].device), "h w c -> (h w) c")
    pairs = list(itertools.permutations(range(T), 2))
    totals = {"coarse": 0.0, "fine": 0.0}
    for i, j in pairs:
        seen = batch.visible[:, i] & batch.visible[:, j]
        query = matching.features_at(coarse[i], coarse_cells[:, i])
        logits = matching.correlate(query, coarse[j]).flatten(2) / config.temperature
        label, valid = labels.soft_label(coarse_cells[:, j], every_cell.expand(*logits.shape, 2), config.label)
        totals["coarse"] += soft_label_cross_entropy(logits, label, valid & seen) / len(pairs)

        query = matching.features_at(fine[i], fine_cells[:, i])
        # The window lies where a coarse search might put it: near the target, not on it.
        centre = fine_cells[:, j] + (config.radius - 1.5) * (2 * torch.rand_like(fine_cells[:, j]) - 1)
        logits, cells = matching.window_correlation(query, fine[j], centre, config.radius)
        label, valid = labels.soft_label(fine_cells[:, j], cells, config.label)
        valid = valid & seen & ~(torch.isneginf(logits) & (label > 0)).any(dim=-1)
        totals["fine"] += soft_label_cross_entropy(logits / config.temperature, label, valid) / len(pairs)
    return {**totals, "total": weights.coarse * totals["coarse"] + weights.fine * totals["fine"]}


class ProceduralClips(torch.utils.data.Dataset):
    """Short procedural clips with irregular gaps; clip i of a seed is always the same.

    Raises:
        ValueError: the content is no content, or a file among the textures is broken.
        FileNotFoundError: there is no such folder of textures, or nothing to use in it.
    """

    def __init__(self, config: TrainConfig, start: int = 0):
        self.config, self.start = config, start
        self.content = synthetic.read_content(config.content)
        self.own = textures.sources(config.texture_folder) if config.texture_folder else ()

    def __len__(self) -> int:
        return self.config.steps * self.config.clips - self.start

    def __getitem__(self, index: int) -> TrackClip:
        config, index = self.config, index + self.start
        seed = config.seed * 100_000_007 + index
        g = torch.Generator().manual_seed(seed)
        gaps = torch.exp(torch.rand(config.frames - 1, generator=g) * math.log(config.max_gap))
        times = [0.0, *gaps.cumsum(0).tolist()]
        bank_seed = config.seed * 1_000_003 + index // CLIPS_PER_BANK
        bank = textures.bank("train", config.textures, synthetic.TEXTURE_SIZE, bank_seed, self.own)
        made = synthetic.scene(seed, (config.size, config.size), bank, content=self.content)
        return synthetic.track_clip(made, times, config.points, query_frames=config.frames)


def collate(clips: list[TrackClip]) -> Batch:
    """Clips as one batch."""
    video = torch.stack([frames.to_float(clip.video) for clip in clips])
    return Batch(video, torch.stack([c.tracks for c in clips]), torch.stack([c.visible for c in clips]))


def batches(config: TrainConfig, start: int, workers: int) -> Iterator[Batch]:
    """Batches from step `start` on, the same for any number of worker processes."""
    loader = torch.utils.data.DataLoader(
        ProceduralClips(config, start * config.clips),
        batch_size=config.clips,
        num_workers=workers,
        collate_fn=collate,
        multiprocessing_context="spawn" if workers else None,
        prefetch_factor=4 if workers else None,
    )
    for step, batch in enumerate(loader, start):
        g = torch.Generator().manual_seed(config.seed * 100_000_007 + 50_000_000 + step)
        B = len(batch.video)
        changed = augment.change_appearance(rearrange(batch.video, "B T c H W -> (B T) c H W"), g, config.appearance)
        yield Batch(rearrange(changed, "(B T) c H W -> B T c H W", B=B), batch.tracks, batch.visible)


def train(
    encoder: nn.Module,
    config: TrainConfig,
    weights: LossWeights | None = None,
    state_path: str | Path = "",
    workers: int = 0,
    seconds: float = math.inf,
    report: Callable[[int, dict[str, float]], None] | None = None,
    evaluate: Callable[[nn.Module], dict[str, float]] | None = None,
    evaluate_every: int = 0,
) -> list[dict[str, float]]:
    """Trains an encoder in place on procedural video.

    Args:
        encoder: the network; left in evaluation mode.
        config: what to learn.
        weights: of the losses.
        state_path: where to keep a resumable state, each minute and at the end; a state of the
            same configuration found there is taken up.
        workers: processes that make clips; 0 makes them in this one. Does not change the result.
        seconds: a time budget; training stops cleanly when it is used up.
        report: called after each step with its number and losses.
        evaluate: called with the encoder every `evaluate_every` steps; what it returns is logged.

    Returns:
        one record a step: step, learning_rate, seconds, each loss, what `evaluate` said.

    Raises:
        ValueError: a loss is not finite, or the state found is of another configuration.
    """
    weights = weights or LossWeights()
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    warm_up = max(1, config.steps // 20)

    def pace(step: int) -> float:
        return min(1.0, (step + 1) / warm_up) * 0.5 * (1 + math.cos(math.pi * min(1.0, step / config.steps)))

    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, pace)
    history: list[dict[str, float]] = []
    if state_path and Path(state_path).exists():
        history = load_state(Path(state_path), encoder, optimizer, scheduler, config)
    begun = saved = time.monotonic()
    encoder.to(memory_format=torch.channels_last)
    for step, batch in enumerate(batches(config, len(history), workers), len(history)):
        torch.manual_seed(config.seed * 1_000_003 + step)  # of the windows' places, in train_step
        encoder.train()
        losses = train_step(encoder, batch, config, weights)
        if not torch.isfinite(losses["total"]):
            raise ValueError(f"train: the loss is {losses['total'].item()} at step {step}; try a lower learning_rate.")
        optimizer.zero_grad(set_to_none=True)
        losses["total"].backward()
        nn.utils.clip_grad_norm_(encoder.parameters(), 1.0)
        optimizer.step()
        record = {"step": step, "learning_rate": scheduler.get_last_lr()[0], "seconds": time.monotonic() - begun}
        record |= {name: value.item() for name, value in losses.items()}
        scheduler.step()
        if evaluate and evaluate_every and (step + 1) % evaluate_every == 0:
            record |= evaluate(encoder.eval())
        history.append(record)
        if report:
            report(step, record)
        if state_path and time.monotonic() - saved > 60:
            save_state(Path(state_path), encoder, optimizer, scheduler, config, history)
            saved = time.monotonic()
        if time.monotonic() - begun > seconds:
            break
    if state_path:
        save_state(Path(state_path), encoder, optimizer, scheduler, config, history)
    encoder.eval()
    return history


def save_state(path: Path, encoder: nn.Module, optimizer, scheduler, config: TrainConfig, history: list) -> None:
    """All that is needed to go on, written to a temporary name first so that a kill loses no file."""
    state = {
        "config": json.dumps(asdict(config)),
        "history": json.dumps(history),
        "encoder": encoder.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scheduler": {k: v for k, v in scheduler.state_dict().items() if k != "lr_lambdas"},
    }
    partial = path.with_name(path.name + ".partial")
    torch.save(state, partial)
    partial.replace(path)


def load_state(path: Path, encoder: nn.Module, optimizer, scheduler, config: TrainConfig) -> list[dict[str, float]]:
    """Takes up a saved state; returns its history."""
    state = torch.load(path, weights_only=True)
    if json.loads(state["config"]) != asdict(config):
        raise ValueError(f"train: {path} holds a training of another configuration; name another state_path.")
    encoder.load_state_dict(state["encoder"])
    optimizer.load_state_dict(state["optimizer"])
    scheduler.load_state_dict({**scheduler.state_dict(), **state["scheduler"]})
    return json.loads(state["history"])
