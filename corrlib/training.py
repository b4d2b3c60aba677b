"""The training loop: it goes on where it stopped, and refuses what cannot be trained before its first step."""

import copy
import itertools
import math
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import Dataset

from . import alignment, coords, labels, training_state
from .encoder import PaperEncoder, PixelEncoder
from .losses import LossWeights
from .recipes import TrainConfig as TrainConfig
from .samples import TrackClip
from .training_data import ProceduralClips as ProceduralClips
from .training_data import batches, real_batches
from .training_step import train_step as train_step

SAVE_EVERY = 60.0  # seconds from one resumable state to the next


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
    teacher: nn.Module | None = None,
    clips: Dataset | list[TrackClip] | None = None,
) -> list[dict[str, float]]:
    """Trains an encoder in place.

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
        teacher: whose features make the labels of the teacher kinds; with `teacher_momentum` it is
            where a running mean of the student begins, which without one begins as the student.
        clips: labelled clips in place of those that the configuration names, as many.

    Returns:
        one record a step: step, learning_rate, seconds, each loss, what `evaluate` said; with the
        domain loss also the discriminator's accuracy and the norm of the gradient it sends.

    Raises:
        ValueError: as for `check`; a loss is not finite, or the state found is of another configuration.
        FileNotFoundError: data that the configuration names is not there.
    """
    weights = weights or LossWeights()
    if config.teacher_momentum:
        teacher = copy.deepcopy(teacher or encoder)
    check(encoder, config, weights, teacher)
    teacher = None if teacher is None else teacher.eval()
    discriminator = new_discriminator(encoder, config) if weights.domain else None
    parts = {"encoder": encoder, "discriminator": discriminator}
    parameters = [p for part in parts.values() if part is not None for p in part.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=config.weight_decay)
    warm_up = max(1, int(config.steps * config.warm_up + 1e-9))

    def pace(step: int) -> float:
        return min(1.0, (step + 1) / warm_up) * 0.5 * (1 + math.cos(math.pi * min(1.0, step / config.steps)))

    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, pace)
    parts |= {"optimizer": optimizer, "scheduler": scheduler}
    parts |= {"teacher": teacher if config.teacher_momentum else None}
    history: training_state.History = []
    if state_path and Path(state_path).exists():
        history = training_state.load(Path(state_path), parts, config, weights)
    begun = saved = time.monotonic()
    encoder.to(memory_format=torch.channels_last)
    nothing = itertools.repeat(None)
    labelled = batches(config, len(history), workers, clips) if weights.coarse or weights.fine else nothing
    real = real_batches(config, len(history), workers) if weights.reconstruction or weights.domain else nothing
    for step, batch, unlabelled in zip(range(len(history), config.steps), labelled, real):
        torch.manual_seed(config.seed * 1_000_003 + step)  # of the windows' places, in train_step
        encoder.train()
        given = (encoder, discriminator, batch, unlabelled, config, weights, teacher)
        found = train_step(*given, progress=step / config.steps)
        if not torch.isfinite(found["total"]):
            raise ValueError(f"train: the loss is {found['total'].item()} at step {step}; try a lower learning_rate.")
        optimizer.zero_grad(set_to_none=True)
        found["total"].backward()
        for part in (encoder, discriminator):
            if part is not None and config.clip_gradient:
                nn.utils.clip_grad_norm_(part.parameters(), config.clip_gradient)
        optimizer.step()
        if config.teacher_momentum:
            follow(teacher, encoder, config.teacher_momentum)
        record = {"step": step, "learning_rate": scheduler.get_last_lr()[0], "seconds": time.monotonic() - begun}
        record |= {name: value.item() for name, value in found.items()}
        record |= {"domain_gradient": discriminator.sent} if discriminator else {}
        scheduler.step()
        if evaluate and evaluate_every and (step + 1) % evaluate_every == 0:
            record |= evaluate(encoder.eval())
        history.append(record)
        if report:
            report(step, record)
        if state_path and time.monotonic() - saved > SAVE_EVERY:
            training_state.save(Path(state_path), parts, config, weights, history)
            saved = time.monotonic()
        if time.monotonic() - begun > seconds:
            break
    if state_path:
        training_state.save(Path(state_path), parts, config, weights, history)
    encoder.eval()
    return history


@torch.no_grad()
def follow(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """Moves a teacher's weights towards the student's; its batch statistics are the student's."""
    for mine, other in zip(teacher.parameters(), student.parameters()):
        mine.lerp_(other, 1 - momentum)
    for mine, other in zip(teacher.buffers(), student.buffers()):
        mine.copy_(other)


def new_encoder(config: TrainConfig) -> nn.Module:
    """An untrained encoder of the kind that a configuration names."""
    return PixelEncoder(config.width) if config.encoder == "small" else PaperEncoder(config.stage4)


def new_discriminator(encoder: nn.Module, config: TrainConfig) -> alignment.Discriminator:
    """An untrained discriminator for what a configuration shows it."""
    channels = (2 * config.own_radius + 1) ** 2
    if config.domain_input == "features":
        with torch.no_grad():
            channels = copy.deepcopy(encoder).eval().raw(torch.zeros(1, 3, 32, 32)).fine.shape[1]
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        return alignment.Discriminator(channels)


def check(encoder: nn.Module, config: TrainConfig, weights: LossWeights, teacher: nn.Module | None) -> None:
    """Refuse, before the first step, what cannot be trained.

    Raises:
        ValueError: real video or a teacher is needed and missing, the teacher's lattices are not the
            encoder's, or a window is larger than the fine map.
    """
    if (weights.reconstruction or weights.domain) and not config.real_videos:
        raise ValueError(
            "train: the losses reconstruction and domain need real video: real_videos should name a folder, got ''."
        )
    if weights.domain and not (weights.coarse or weights.fine):
        raise ValueError("train: the domain loss needs labelled clips too: coarse or fine should be above 0.")
    longest = max(coords.lattice_size((config.size, config.size), encoder.fine_lattice))
    own = weights.reconstruction or (weights.domain and config.domain_input != "features")
    for name, used in (("radius", weights.fine), ("own_radius", own)):
        if used and not getattr(config, name) <= longest:
            raise ValueError(
                f"train: {name} should be at most {longest}, the side of the fine map, got {getattr(config, name)}."
            )
    if config.label in labels.OF_TEACHER and (weights.coarse or weights.fine):
        if teacher is None:
            raise ValueError(f"train: labels of kind {config.label} need a teacher, got none.")
        ours, theirs = ((m.coarse_lattice, m.fine_lattice) for m in (encoder, teacher))
        if ours != theirs:
            raise ValueError(f"train: the teacher should have the encoder's lattices {ours}, got {theirs}.")
        if config.legacy_label_norm and not hasattr(teacher, "raw"):
            raise ValueError("train: legacy_label_norm needs a teacher with raw features, such as one of ours.")
