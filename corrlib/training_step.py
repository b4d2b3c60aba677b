"""One training step: the method.

A step looks at short labelled clips, and if asked at real ones. In a labelled clip every frame asks
every other one where its points went; the answer is compared with the soft label of the exact track,
over the whole coarse map and over a window of the fine one. A frame of real video is rebuilt from
others in colour, and an adversary tells the two kinds of video apart.
"""

import contextlib
import math
from collections.abc import Iterator
from dataclasses import asdict

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from . import alignment, cielab, coords, labels, losses, matching, propagation, softmasks
from .encoder import Features, products
from .losses import LossWeights, soft_label_cross_entropy
from .processes import ALONE, Processes
from .recipes import TrainConfig
from .training_data import Batch

Found = dict[str, Tensor]


def train_step(
    encoder: nn.Module,
    discriminator: nn.Module | None,
    labelled: Batch | None,
    unlabelled: Float[Tensor, "B T 3 H W"] | None,
    config: TrainConfig,
    weights: LossWeights,
    teacher: nn.Module | None = None,
    progress: float = 1.0,
    together: Processes = ALONE,
) -> Found:
    """The losses of one batch of each kind; those whose weight is 0 are left out.

    Where processes share a batch, each returns its part of the losses: their sum is the whole batch's.

    Returns:
        "coarse" and "fine", the soft-label cross-entropies in nat; "masks", of what is carried, in nat;
        "reconstruction"; "domain" in nat, with "domain_accuracy"; and "total", their weighted sum.
    """
    found: Found = {}
    if labelled is not None:
        drop = _channel() if config.drop_channels else None
        with _still_statistics(encoder, config.real_statistics):
            synthetic = _encode(encoder, labelled.video, config, drop)
        seen_by_teacher = _taught(teacher, labelled, synthetic, config) if config.label in labels.OF_TEACHER else None
        found |= _soft_label_losses(encoder, synthetic, labelled, config, weights, seen_by_teacher, together)
        if weights.masks:
            found["masks"] = _mask_loss(encoder, synthetic, labelled.masks, config, together)
    if unlabelled is not None:
        dropped = bool(weights.reconstruction) or config.drop_channels
        drop = _channel() if dropped else None
        real = _encode(encoder, unlabelled, config, drop)
        if weights.reconstruction:
            found["reconstruction"] = _reconstruction_loss(encoder, real, unlabelled, drop, config) / together.count
        if weights.domain and dropped and not config.drop_channels:
            real = _encode(encoder, unlabelled, config, None)  # a colour missing on one side would give it away
    if weights.domain:
        strength = config.domain_strength * (alignment.warm_up(progress) if config.domain_warm_up else 1.0)
        vectors = [_domain_vectors(features, config, together) for features in (synthetic, real)]
        logits = discriminator(torch.cat(vectors), strength).split([len(v) for v in vectors])
        said = alignment.domain_loss(*logits)
        found |= {name: value / together.count for name, value in zip(("domain", "domain_accuracy"), said)}
    counted = asdict(weights)
    return {**found, "total": sum(counted[name] * loss for name, loss in found.items() if name in counted)}


class _Encoded:
    """Features of clips, frame by frame in float: of unit length, and raw where they are asked for."""

    def __init__(self, raw: Features, normalised: Features, clips: int):
        self._raw, self._clips = raw, clips
        self.coarse, self.fine = (self._by_frame(features) for features in normalised)

    def raw(self) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Coarse and fine."""
        return tuple(self._by_frame(features) for features in self._raw)

    def _by_frame(self, features: Tensor) -> tuple[Tensor, ...]:
        """Each (B, C, h, w)."""
        return rearrange(features.float(), "(T B) C h w -> T B C h w", B=self._clips).unbind()


def _encode(encoder: nn.Module, video: Tensor, config: TrainConfig, drop: int | None) -> _Encoded:
    """All frames of a batch at once."""
    with products(video, config.bfloat16):
        raw = encoder.raw(rearrange(video, "B T c H W -> (T B) c H W"), drop)
        # In the precision that they have: `unit`, which makes float32 of them, takes a tenth of this work more.
        return _Encoded(raw, Features(*(F.normalize(each, dim=1) for each in raw)), len(video))


@torch.no_grad()
def _taught(
    teacher: nn.Module | None, batch: Batch, student: _Encoded, config: TrainConfig
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """A teacher's features, frame by frame: what it says of them now, in all colours, or without one those kept."""
    if teacher is None and batch.taught is None:
        raise ValueError(f"train: labels of kind {config.label} need a teacher, or shards that keep what one saw.")
    if teacher is None:
        for maps, own in zip(batch.taught, (student.coarse[0], student.fine[0])):
            if maps.shape[-2:] != own.shape[-2:]:
                expected, got = (tuple(m.shape[-2:]) for m in (own, maps))
                raise ValueError(f"train: what a teacher saw of the clips should be maps of {expected}, got {got}.")
        return tuple(maps.transpose(0, 1).unbind() for maps in batch.taught)
    shown = rearrange(batch.video, "B T c H W -> (T B) c H W")
    with products(shown, config.bfloat16):
        found = teacher.raw(shown) if config.legacy_label_norm else teacher(shown)
    return tuple(rearrange(f.float(), "(T B) C h w -> T B C h w", B=len(batch.video)).unbind() for f in found)


def _soft_label_losses(
    encoder: nn.Module,
    student: _Encoded,
    batch: Batch,
    config: TrainConfig,
    weights: LossWeights,
    teacher: tuple[tuple[Tensor, ...], tuple[Tensor, ...]] | None,
    together: Processes,
) -> Found:
    """Cross-entropies with soft labels: every frame is asked where the points of all others went."""
    frames_asked = range(batch.video.shape[1])
    # Whom each frame is asked by; pairs with flow know the way from frame 0 alone.
    askers = {j: [i for i in frames_asked if i != j] for j in frames_asked} if config.points else {1: [0]}
    size_hw = tuple(student.coarse[0].shape[-2:])
    every_cell = rearrange(coords.grid(size_hw, batch.video.device), "h w c -> (h w) c")
    scales = {
        "coarse": (student.coarse, encoder.coarse_lattice, teacher and teacher[0]),
        "fine": (student.fine, encoder.fine_lattice, teacher and teacher[1]),
    }
    found: Found = {}
    for name, (features, lattice, taught) in scales.items():
        if not getattr(weights, name):
            continue
        at = coords.to_cells(batch.tracks, lattice)
        vectors = {i: matching.features_at(features[i], at[:, i]) for i in sorted(set().union(*askers.values()))}
        total = 0.0
        for j, others in askers.items():
            query = torch.cat([vectors[i] for i in others], dim=1)
            seen = (batch.visible[:, others] & batch.visible[:, j, None]).flatten(1)
            target = at[:, j].repeat(1, len(others), 1)
            if name == "coarse":
                logits = matching.correlate(query, features[j]).flatten(2)
                cells = every_cell.expand(*logits.shape, 2)
            else:
                centre = _centres(target, at[:, others].flatten(1, 2), config, together)
                logits, cells = matching.window_correlation(query, features[j], centre, config.radius)
            known = None if taught is None else taught[j]
            total = total + _label_entropy(logits, target, cells, seen, known, config, together)
        found[name] = total / len(askers)
    return found


def _centres(target: Tensor, own: Tensor, config: TrainConfig, together: Processes) -> Tensor:
    """Where fine windows lie: at a query's own cell, or where a coarse search might put them, near the target."""
    if config.window == "query":
        return own
    B, N, _ = target.shape
    drawn = torch.rand(B * together.count, N, 2)[together.mine(B)].to(target.device)
    return target + (config.radius - 1.5) * (2 * drawn - 1)


def _label_entropy(
    logits: Tensor,
    target: Tensor,
    cells: Tensor,
    seen: Tensor,
    taught: Tensor | None,
    config: TrainConfig,
    together: Processes,
) -> Tensor:
    """The cross-entropy of what one frame answered with the soft labels, a mean over points that are seen in both."""
    outside = torch.isneginf(logits)
    similarity = None
    if taught is not None:
        how = (config.label_temperature, config.legacy_label_norm)
        similarity = labels.self_similarity(taught, target, cells, *how)
    if config.outside_zero:
        logits = logits.masked_fill(outside, 0.0)
        similarity = None if similarity is None else similarity.masked_fill(outside, 0.0)
    # A cell that does not exist may answer, but only a teacher's label may lie there: no motion ends in it.
    hidden = None if config.outside_zero and similarity is not None else outside
    label, valid = labels.soft_label(target, cells, config.label, config.sigma, similarity, hidden)
    counted = valid & seen
    count = together.total(counted.sum())
    return soft_label_cross_entropy(logits / config.temperature, label, counted, count)


def _mask_loss(
    encoder: nn.Module, student: _Encoded, masks: Tensor | None, config: TrainConfig, together: Processes
) -> Tensor:
    """Each frame's masks told by all others', as `propagation` tells them: coarse and fine features side by side."""
    if masks is None:
        raise ValueError("train: the masks loss needs labelled clips with masks, got none.")
    size_hw, grid = tuple(masks.shape[-2:]), encoder.coarse_lattice
    shown = F.one_hot(masks).permute(1, 0, 4, 2, 3).float()
    soft = [softmasks.to_grid(frame, grid.stride).flatten(2) for frame in shown]
    lattices, features = (encoder.coarse_lattice, encoder.fine_lattice), map(Features, student.coarse, student.fine)
    places = [propagation.side_by_side(each, lattices, grid, size_hw).flatten(2) for each in features]
    total = 0.0
    for t in range(len(places)):
        keys, known = (torch.cat(values[:t] + values[t + 1 :], dim=2) for values in (places, soft))
        how = (config.temperature, together.total)
        total = total + losses.carried_label_loss(places[t], keys, known, soft[t], *how) / len(places)
    return total


def _reconstruction_loss(
    encoder: nn.Module, real: _Encoded, video: Tensor, channel: int, config: TrainConfig
) -> Tensor:
    """The dropped colour of the last frame, rebuilt from the others; on the coarse map too if so configured."""
    lab = cielab.rgb_to_lab(rearrange(video, "B T c H W -> (B T) c H W"))[:, channel, None]
    colour = rearrange(lab, "(B T) 1 H W -> T B 1 H W", B=len(video))
    coarse, fine = real.raw()
    scales = [(fine, encoder.fine_lattice, config.own_radius)]
    if config.coarse_reconstruction:
        ratio = encoder.coarse_lattice.stride / encoder.fine_lattice.stride
        scales.append((coarse, encoder.coarse_lattice, math.ceil(config.own_radius / ratio)))
    total = 0.0
    for features, lattice, radius in scales:
        carried = [coords.relattice(c, coords.PIXELS, lattice, tuple(c.shape[-2:])) for c in colour[:-1]]
        rebuilt = losses.reconstruct(features[-1], list(features[:-1]), carried, radius, config.outside_zero)
        total = total + losses.reconstruction_loss(rebuilt, colour[-1], lattice) / len(scales)
    return total


def _domain_vectors(features: _Encoded, config: TrainConfig, together: Processes) -> Float[Tensor, "N V"]:
    """What the discriminator sees of one domain: the last frame's cells, in the first frame."""
    fine = features.fine if config.domain_input in ("normalised", "softmax") else features.raw()[1]
    B, size_hw = len(fine[0]), tuple(fine[0].shape[-2:])
    cells = alignment.some_cells(size_hw, B * together.count, config.domain_cells)[together.mine(B)].to(fine[0].device)
    how = (config.own_radius, config.domain_input, config.temperature)
    return alignment.domain_vectors(fine[-1], fine[0], cells, *how).flatten(0, 1)


def _channel() -> int:
    """The channel of Lab that is dropped: a or b."""
    return int(torch.randint(1, 3, ()))


@contextlib.contextmanager
def _still_statistics(encoder: nn.Module, still: bool) -> Iterator[None]:
    """Batch norms keep their running statistics as they are, if so wished."""
    norms = [m for m in encoder.modules() if still and isinstance(m, nn.modules.batchnorm._BatchNorm)]
    kept = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, kept):
            norm.momentum = momentum
