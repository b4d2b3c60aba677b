"""What a training step is given: clips with known motion, and real video without.

Both are drawn or read while they are needed, item by item by its number, so that neither the
number of worker processes nor an interruption changes what is seen.
"""

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from . import augment, coords, frames, synthetic, textures
from .datasets import flyingchairs, flyingthings3d
from .processes import ALONE, Processes
from .real_video import RealClips
from .recipes import TrainConfig
from .samples import TrackClip
from .shards import ClipsOfShards

CLIPS_PER_BANK = 600  # clips until the textures at hand are drawn anew
FINE = coords.Lattice(2)  # where pairs with flow are asked cell by cell


@dataclass(frozen=True)
class Batch:
    """Clips of equal length and size, stacked."""

    video: Float[Tensor, "B T 3 H W"]
    tracks: Float[Tensor, "B T N 2"]
    visible: Bool[Tensor, "B T N"]
    masks: Int[Tensor, "B T H W"] | None = None
    taught: tuple[Float[Tensor, "B T C h w"], Float[Tensor, "B T D h2 w2"]] | None = None  # a teacher's features

    def to(self, device: torch.device) -> "Batch":
        """The same on a device."""
        masks = None if self.masks is None else self.masks.to(device)
        taught = None if self.taught is None else tuple(maps.to(device) for maps in self.taught)
        return Batch(self.video.to(device), self.tracks.to(device), self.visible.to(device), masks, taught)


class ProceduralClips(Dataset):
    """Short procedural clips with irregular gaps; clip i of a seed is always the same.

    Raises:
        ValueError: the content is no content, or a file among the textures is broken.
        FileNotFoundError: there is no such folder of textures, or nothing to use in it.
    """

    def __init__(self, config: TrainConfig, masks: bool = False):
        self.config, self.masks = config, masks
        self.contents = synthetic.read_contents(config.content)
        self.own = textures.sources(config.texture_folder) if config.texture_folder else ()

    def __len__(self) -> int:
        return self.config.steps * self.config.clips

    def __getitem__(self, index: int) -> TrackClip:
        config = self.config
        seed = config.seed * 100_000_007 + index
        g = torch.Generator().manual_seed(seed)
        gaps = torch.exp(torch.rand(config.frames - 1, generator=g) * math.log(config.max_gap))
        times = [0.0, *gaps.cumsum(0).tolist()]
        bank_seed = config.seed * 1_000_003 + index // CLIPS_PER_BANK
        which = (self.own, config.photographs, config.vivid)
        bank = textures.bank("train", config.textures, synthetic.TEXTURE_SIZE, bank_seed, *which)
        content = self.contents[index % len(self.contents)]
        made = synthetic.scene(seed, (config.size, config.size), bank, content=content)
        return synthetic.track_clip(made, times, config.points, query_frames=config.frames, masks=self.masks)


class FlowClips(Dataset):
    """Random crops of pairs with true flow, as clips of two frames; crop i of a seed is always the same.

    Points are asked in frame 0: random pixels of it, or each cell at stride 2. A point is visible in
    frame 1 where the data set says so, which FlyingThings3D does by forward-backward consistency, and
    where it stays inside of the crop.

    Raises:
        FileNotFoundError: the data set is not there.
        ValueError: on reading, a frame is smaller than the crop.

    Source: Li, Zhou and Liu, ICCV 2023: crops of FlyingThings3D at its own size, both directions.
    """

    READERS = {"flyingthings3d": flyingthings3d, "flyingchairs": flyingchairs}  # noqa: RUF012

    def __init__(self, config: TrainConfig):
        self.config, self.reader = config, self.READERS[config.labelled]
        self.how = {}
        if config.labelled == "flyingthings3d":
            plain = Path(config.data_root, "FlyingThings3D", "frames_cleanpass").is_dir()
            self.how["render"] = "frames_cleanpass" if plain else "frames_cleanpass_webp"
        self.names = self.reader.names(config.data_root, **self.how)
        if not self.names:
            raise FileNotFoundError(f"FlowClips: no pair of {config.labelled} under {config.data_root}.")
        if config.labelled == "flyingthings3d":
            self.how["legacy_consistency"] = config.legacy_consistency

    def __len__(self) -> int:
        return self.config.steps * self.config.clips

    def __getitem__(self, index: int) -> TrackClip:
        config, S = self.config, self.config.size
        g = torch.Generator().manual_seed(config.seed * 100_000_007 + index)
        epoch, place = divmod(index, len(self.names))
        order = torch.Generator().manual_seed(config.seed * 1_000_003 + epoch)
        name = self.names[torch.randperm(len(self.names), generator=order)[place]]
        pair = self.reader.read(config.data_root, name, **self.how)
        H, W = pair.valid.shape
        if min(H, W) < S:
            raise ValueError(f"FlowClips: size should be at most {min(H, W)}, the shorter side of {name}, got {S}.")
        y, x = (int(torch.randint(n - S + 1, (), generator=g)) for n in (H, W))
        box = (..., slice(y, y + S), slice(x, x + S))
        if config.points:
            xy = torch.randint(S, (config.points, 2), generator=g).float()
        else:
            xy = rearrange(coords.to_pixels(coords.grid(coords.lattice_size((S, S), FINE)), FINE), "h w c -> (h w) c")
        column, row = xy.long().unbind(-1)
        end = xy + pair.flow_0to1[box][:, row, column].T
        seen = pair.visible[box][row, column] & coords.inside(end, (S, S))
        known = pair.valid[box][row, column]
        video = (torch.stack([pair.frame0[box], pair.frame1[box]]) * 255).round().to(torch.uint8)
        tracks, visible = torch.stack([xy, end]), torch.stack([known, seen])
        return TrackClip(
            video, torch.cat([torch.zeros(len(xy), 1), xy], dim=1), tracks, visible, known.expand(2, -1), name
        )


class TaughtClips(Dataset):
    """Clips together with a teacher's features of their frames, as they are drawn, to be kept in shards.

    Training then asks no teacher: its labels are as good as made. Features are kept in half precision, and before they
    are scaled to unit length where the teacher has them, which any way of making labels of them can begin from.

    Args:
        clips: labelled ones.
        teacher: an encoder on the lattices of the one that will learn.
    """

    def __init__(self, clips: Dataset, teacher: nn.Module):
        self.clips, self.teacher = clips, teacher.eval()

    def __len__(self) -> int:
        return len(self.clips)

    @torch.no_grad()
    def __getitem__(self, index: int) -> TrackClip:
        clip, ask = self.clips[index], getattr(self.teacher, "raw", self.teacher)
        return replace(clip, taught=tuple(maps.half() for maps in ask(frames.to_float(clip.video))))


def labelled_clips(config: TrainConfig, masks: bool = False) -> Dataset:
    """The clips with known motion that a configuration names; with masks where these are drawn."""
    if config.labelled == "shards":
        return ClipsOfShards(config.data_root, config.steps * config.clips, config.frames, config.size)
    return ProceduralClips(config, masks) if config.labelled == "procedural" else FlowClips(config)


def collate(clips: list[TrackClip]) -> Batch:
    """Clips as one batch."""
    video = torch.stack([frames.to_float(clip.video) for clip in clips])
    masks = None if clips[0].masks is None else torch.stack([c.masks for c in clips])
    kept = zip(*(c.taught for c in clips)) if clips[0].taught is not None else ()
    taught = tuple(torch.stack(maps).float() for maps in kept) or None
    return Batch(video, torch.stack([c.tracks for c in clips]), torch.stack([c.visible for c in clips]), masks, taught)


def batches(
    config: TrainConfig,
    start: int,
    workers: int,
    clips: Dataset | list[TrackClip] | None = None,
    masks: bool = False,
    together: Processes = ALONE,
) -> Iterator[Batch]:
    """Labelled batches from step `start` on, the same for any number of worker processes.

    Of each step as many as `config.accumulate`, and of each the part of this process.

    Args:
        config: the training.
        start: the first step.
        workers: processes that make clips.
        clips: in place of those that the configuration names.
        masks: whether they have masks.
        together: the processes that share the clips of each batch.
    """
    each, first = config.clips // config.accumulate, start * config.accumulate
    given = labelled_clips(config, masks) if clips is None else clips
    made = _loader(given, each, first, workers, collate, together)
    for number, batch in enumerate(made, first):
        g = torch.Generator().manual_seed(config.seed * 100_000_007 + 50_000_000 + number)
        B, shown = len(batch.video), rearrange(batch.video, "B T c H W -> (B T) c H W")
        changed = augment.change_appearance(shown, g, config.appearance, (together.rank, together.count))
        yield replace(batch, video=rearrange(changed, "(B T) c H W -> B T c H W", B=B))


def real_batches(
    config: TrainConfig, start: int, workers: int, together: Processes = ALONE
) -> Iterator[Float[Tensor, "B T 3 H W"]]:
    """Batches of real video from step `start` on, as `batches`."""
    each, first = config.real_clips // config.accumulate, start * config.accumulate
    for video in _loader(real_clips(config), each, first, workers, torch.stack, together):
        yield frames.to_float(video)


def real_clips(config: TrainConfig) -> Dataset:
    """The clips of real video that a configuration names, cut anew or from shards."""
    count, length = config.steps * config.real_clips, config.references + 1
    if Path(config.real_videos, "shards.json").is_file():
        return ClipsOfShards(config.real_videos, count, length, config.size, labelled=False)
    return RealClips(config.real_videos, count, config.size, length, config.real_gap, config.seed)


def _loader(
    clips: Dataset | list[TrackClip], each: int, first: int, workers: int, collate_fn: Callable, together: Processes
) -> Iterator:
    """Batches of so many in order, from number `first` on; of each the part of this process."""
    mine = range(each)[together.mine(each // together.count)]
    loader = DataLoader(
        clips,
        batch_sampler=([batch * each + i for i in mine] for batch in range(first, len(clips) // each)),
        num_workers=workers,
        collate_fn=collate_fn,
        multiprocessing_context="spawn" if workers else None,
        prefetch_factor=4 if workers else None,
    )
    try:
        yield from loader
    except (EOFError, OSError, ValueError) as error:
        if "\n" in str(error):  # of a worker, with where it was raised
            raise type(error)(str(error).splitlines()[-1].removeprefix(f"{type(error).__name__}: ")) from None
        if workers and not (isinstance(error, ValueError) or getattr(error, "filename", None)):
            raise _killed(error) from None  # while something was being read from it
        raise


@contextlib.contextmanager
def killed_workers_told() -> Iterator[None]:
    """A clear error where a process that makes clips is gone, which torch says by a RuntimeError at any moment."""
    try:
        yield
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker (pid"):
            raise
        raise _killed(error) from None


def _killed(error: Exception) -> ChildProcessError:
    """What it was, for those who started a training."""
    return ChildProcessError(
        f"train: a process that makes clips was killed ({error}); with a state, the same command goes on."
    )
