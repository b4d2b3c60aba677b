"""The training loop: it goes on where it stopped, and refuses what cannot be trained before its first step."""

import copy
import itertools
import math
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from . import alignment, coords, labels, processes, training_state
from .encoder import PaperEncoder, PixelEncoder, widened
from .losses import LossWeights
from .muon import Muon
from .recipes import TrainConfig as TrainConfig
from .samples import TrackClip
from .training_data import ProceduralClips as ProceduralClips
from .training_data import batches, killed_workers_told, real_batches
from .training_step import train_step as train_step

Report = Callable[[int, dict[str, float]], None]
SAVE_EVERY = 60.0  # seconds from one resumable state to the next


@killed_workers_told()
def train(
    encoder: nn.Module,
    config: TrainConfig,
    weights: LossWeights | None = None,
    state_path: str | Path = "",
    workers: int = 0,
    seconds: float = math.inf,
    report: Report | None = None,
    evaluate: Callable[[nn.Module], dict[str, float]] | None = None,
    evaluate_every: int = 0,
    teacher: nn.Module | None = None,
    clips: Dataset | list[TrackClip] | None = None,
) -> list[dict[str, float]]:
    """Trains an encoder in place.

    Args:
        encoder: the network; left in evaluation mode, on the device where it was trained: a GPU if
            there is one. Started by torchrun, all processes train it together, and it is equal in all.
        config: what to learn; the number of processes does not change it, since they share a step's clips.
        weights: of the losses.
        state_path: where the first process keeps a resumable state, each minute and at the end; a state of the
            same configuration found there is taken up.
        workers: processes that make clips; 0 makes them in this one. Does not change the result.
        seconds: a time budget; training stops cleanly when it is used up.
        report: called after each step with its number and losses, in the first process.
        evaluate: called, in the first process, with the encoder every `evaluate_every` steps; what it
            returns is logged.
        teacher: whose features make the labels of the teacher kinds; with `teacher_momentum` it is
            where a running mean of the student begins, which without one begins as the student.
        clips: labelled clips in place of those that the configuration names, as many.

    Returns:
        one record a step: step, learning_rate, seconds since this call began, seconds waited for clips, each loss, what
        `evaluate` said; with the domain loss also the discriminator's accuracy and the norm of the gradient it sends.

    Raises:
        ValueError: as for `check`; a loss is not finite, or the state found is of another configuration.
        FileNotFoundError: data that the configuration names is not there, or no longer.
        OSError: the state cannot be written, or a worker was killed; the last state is as it was.
    """
    weights = weights or LossWeights()
    if config.teacher_momentum:
        teacher = copy.deepcopy(teacher or encoder)
    check(encoder, config, weights, teacher)
    together = processes.here()
    check_parts(config, together.count, weights, clips)
    encoder.to(together.device, memory_format=torch.channels_last)
    if together.count > 1 and together.device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(encoder)
    together.agree(encoder)
    teacher = None if teacher is None else teacher.to(together.device).eval()
    discriminator = new_discriminator(encoder, config).to(together.device) if weights.domain else None
    averaged = copy.deepcopy(encoder) if config.ema else None
    parts = {"encoder": encoder, "discriminator": discriminator}
    parameters = [p for part in parts.values() if part is not None for p in part.parameters()]
    optimizer = new_optimizer(parameters, config)
    warm_up = max(1, int(config.steps * config.warm_up + 1e-9))

    def pace(step: int) -> float:
        fallen = 0.5 * (1 + math.cos(math.pi * min(1.0, step / config.steps)))
        return min(1.0, (step + 1) / warm_up) * (config.last_rate + (1 - config.last_rate) * fallen)

    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, pace)
    parts |= {"optimizer": optimizer, "scheduler": scheduler, "averaged": averaged}
    parts |= {"teacher": teacher if config.teacher_momentum else None}
    history: training_state.History = []
    if state_path and Path(state_path).exists():
        history = training_state.load(Path(state_path), parts, config, weights)
    steps_known = together.total(torch.tensor(len(history), device=together.device)).item()
    if together.any(steps_known != together.count * len(history)):
        raise ValueError(f"train: {state_path} should be in a folder that all processes see.")

    def keep() -> None:
        if state_path and together.rank == 0:
            training_state.save(Path(state_path), parts, config, weights, history)

    begun = saved = time.monotonic()
    given = (config, len(history), workers)
    supervised, unsupervised = weights.coarse or weights.fine or weights.masks, weights.reconstruction or weights.domain
    labelled = batches(*given, clips, bool(weights.masks), together) if supervised else itertools.repeat(None)
    real = real_batches(*given, together) if unsupervised else itertools.repeat(None)
    for step in range(len(history), config.steps):
        asked = time.monotonic()
        shown = [[part if part is None else part.to(together.device) for part in (next(labelled), next(real))]
                 for _ in range(config.accumulate)]  # fmt: skip
        waited = time.monotonic() - asked
        torch.manual_seed(config.seed * 1_000_003 + step)  # of the windows' places, in train_step
        encoder.train()
        optimizer.zero_grad(set_to_none=True)
        models, how = (encoder, discriminator), (config, weights, teacher, step / config.steps, together)
        found = add_gradients(models, shown, *how)
        together.add_up([p.grad for p in parameters if p.grad is not None])
        together.add_up(list(found.values()))
        if not torch.isfinite(found["total"]):
            raise ValueError(f"train: the loss is {found['total'].item()} at step {step}; try a lower learning_rate.")
        for part in (encoder, discriminator):
            if part is not None and config.clip_gradient:
                nn.utils.clip_grad_norm_(part.parameters(), config.clip_gradient)
        optimizer.step()
        together.average([value for value in encoder.buffers() if value.is_floating_point()])  # batch statistics
        if config.teacher_momentum:
            follow(teacher, encoder, config.teacher_momentum)
        if averaged is not None:
            follow(averaged, encoder, min(config.ema, (step + 1) / (step + 10)))
        record = {"step": step, "learning_rate": scheduler.get_last_lr()[-1], "seconds": time.monotonic() - begun}
        record |= {"waited": waited} | {name: value.item() for name, value in found.items()}
        if discriminator is not None:
            record["domain_gradient"] = math.sqrt(record["domain_gradient"])
        scheduler.step()
        history.append(record)
        if together.rank == 0 and evaluate and evaluate_every and (step + 1) % evaluate_every == 0:
            record |= evaluate((encoder if averaged is None else averaged).eval())
        if together.rank == 0 and report:
            report(step, record)
        if time.monotonic() - saved > SAVE_EVERY:
            keep()
            saved = time.monotonic()
        if together.any(time.monotonic() - begun > seconds):
            break
    keep()
    if averaged is not None:
        encoder.load_state_dict(averaged.state_dict())
    encoder.eval()
    return history


def add_gradients(
    models: tuple[nn.Module, alignment.Discriminator | None],
    shown: list,
    config: TrainConfig,
    weights: LossWeights,
    teacher: nn.Module | None,
    progress: float,
    together: processes.Processes,
) -> dict[str, Tensor]:
    """Takes this process's part of a step as far as its gradients, and returns the part of its losses.

    With an adversary also "domain_gradient", the squared norm of what it sends.
    """
    found: dict[str, Tensor] = {}
    encoder, discriminator = models
    for labelled, unlabelled in shown:
        losses = train_step(encoder, discriminator, labelled, unlabelled, config, weights, teacher, progress, together)
        (losses["total"] / len(shown)).backward()
        values = {name: value.detach() / len(shown) for name, value in losses.items()}
        if discriminator is not None:
            values["domain_gradient"] = torch.tensor(discriminator.sent**2, device=together.device)
        found = {name: found.get(name, 0.0) + value for name, value in values.items()}
    return found


@torch.no_grad()
def follow(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """Moves a teacher's weights towards the student's; its batch statistics are the student's."""
    for mine, other in zip(teacher.parameters(), student.parameters()):
        mine.lerp_(other, 1 - momentum)
    for mine, other in zip(teacher.buffers(), student.buffers()):
        mine.copy_(other)


def new_encoder(config: TrainConfig, start: PixelEncoder | PaperEncoder | None = None) -> nn.Module:
    """An untrained encoder of the kind that a configuration names; or `start`, made wider if it should be.

    Raises:
        ValueError: `start` is of another kind, or wider.
    """
    if start is None:
        return PixelEncoder(config.width) if config.encoder == "small" else PaperEncoder(config.stage4)
    found = shape_of(start)
    wanted = {name: getattr(config, name) for name in found}
    if found == wanted:
        return start
    if found | {"width": config.width} != wanted:
        raise ValueError(f"train: the weights to go on from should be of {wanted}, got {found}.")
    return widened(start, config.width)


def shape_of(encoder: PixelEncoder | PaperEncoder) -> dict[str, str | int | bool]:
    """The fields of TrainConfig that an encoder's weights decide."""
    if isinstance(encoder, PixelEncoder):
        return {"encoder": "small", "width": encoder.config["width"]}
    return {"encoder": "paper", "stage4": encoder.config["stage4"]}


def new_optimizer(parameters: list[nn.Parameter], config: TrainConfig) -> torch.optim.Optimizer:
    """What moves parameters as a configuration says."""
    moves = Muon if config.optimizer == "muon" else torch.optim.AdamW
    return moves(parameters, lr=config.learning_rate, weight_decay=config.weight_decay)


def new_discriminator(encoder: nn.Module, config: TrainConfig) -> alignment.Discriminator:
    """An untrained discriminator for what a configuration shows it."""
    channels = (2 * config.own_radius + 1) ** 2
    if config.domain_input == "features":
        with torch.no_grad():
            frame = torch.zeros(1, 3, 32, 32, device=next(encoder.parameters()).device)
            channels = copy.deepcopy(encoder).eval().raw(frame).fine.shape[1]
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        return alignment.Discriminator(channels)


def check_parts(config: TrainConfig, count: int, weights: LossWeights, clips: Dataset | list[TrackClip] | None) -> None:
    """Refuse clips that are too few, or cannot be shared out among so many processes and parts of a step."""
    if clips is not None and len(clips) < config.steps * config.clips:
        raise ValueError(f"train: there should be {config.steps * config.clips} clips, got {len(clips)}.")
    used = {
        "clips": weights.coarse or weights.fine or weights.masks,
        "real_clips": weights.reconstruction or weights.domain,
    }
    for name, needed in used.items():
        if needed and getattr(config, name) % (count * config.accumulate):
            raise ValueError(
                f"train: {name} should be a multiple of {count * config.accumulate}, "
                f"{count} processes times accumulate {config.accumulate}, got {getattr(config, name)}."
            )


def check(encoder: nn.Module, config: TrainConfig, weights: LossWeights, teacher: nn.Module | None) -> None:
    """Refuse, before the first step, what cannot be trained.

    Raises:
        ValueError: real video, masks or a teacher are needed and missing, the teacher's lattices are not the
            encoder's, or a window is larger than the fine map.
    """
    if (weights.reconstruction or weights.domain) and not config.real_videos:
        raise ValueError(
            "train: the losses reconstruction and domain need real video: real_videos should name a folder, got ''."
        )
    if weights.domain and not (weights.coarse or weights.fine):
        raise ValueError("train: the domain loss needs labelled clips too: coarse or fine should be above 0.")
    if weights.masks and config.labelled not in ("procedural", "shards"):
        raise ValueError(
            f"train: the masks loss needs labelled clips with masks, procedural ones, got {config.labelled}."
        )
    longest = max(coords.lattice_size((config.size, config.size), encoder.fine_lattice))
    own = weights.reconstruction or (weights.domain and config.domain_input != "features")
    for name, used in (("radius", weights.fine), ("own_radius", own)):
        if used and not getattr(config, name) <= longest:
            raise ValueError(
                f"train: {name} should be at most {longest}, the side of the fine map, got {getattr(config, name)}."
            )
    if config.label in labels.OF_TEACHER and (weights.coarse or weights.fine):
        if teacher is None and config.labelled == "shards":
            return  # which may hold what a teacher saw
        if teacher is None:
            raise ValueError(f"train: labels of kind {config.label} need a teacher, got none.")
        ours, theirs = ((m.coarse_lattice, m.fine_lattice) for m in (encoder, teacher))
        if ours != theirs:
            raise ValueError(f"train: the teacher should have the encoder's lattices {ours}, got {theirs}.")
        if config.legacy_label_norm and not hasattr(teacher, "raw"):
            raise ValueError("train: legacy_label_norm needs a teacher with raw features, such as one of ours.")
