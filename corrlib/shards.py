"""Clips in WebDataset shards: drawn once by many processes, read by many, resumed where it stopped.

A folder holds clips-00000.tar and so on, and shards.json, which says how many clips there are and
what they are. A shard appears under its name only when it is whole. Each clip is some .npy files and
its name, which any reader of WebDataset understands; nothing in them can run code. Clips of real
video are their frames alone.
"""

import io
import json
import tarfile
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from .samples import TrackClip
from .whole import whole

ARRAYS = ("video", "query_points", "tracks", "visible", "valid")  # of each labelled clip
TAUGHT = ("taught_coarse", "taught_fine")  # where a teacher has looked at it

Clip = TrackClip | Tensor  # a Tensor is the (T, 3, H, W) frames of an unlabelled one


def write_shards(
    folder: str | Path,
    clips: Dataset,
    what: str = "",
    per_shard: int = 100,
    workers: int = 1,
    report: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """Writes all clips into shards; those that are there are kept.

    Args:
        folder: where to; made if it is missing.
        clips: with a length, its items `TrackClip`s, such as `training.ProceduralClips`, or frames, such as
            `real_video.RealClips`; with several workers it must pickle.
        what: what the clips are, such as their configuration, to be kept beside them.
        per_shard: clips in a shard.
        workers: processes that make clips and write; they do not change what is written.
        report: called with the number of shards that are there, and of all.

    Raises:
        ValueError: the folder holds other clips, or per_shard or workers is below 1.
        OSError: the disk is full, or cannot be written to; what is whole is kept, and the same call goes on.
    """
    if per_shard < 1 or workers < 1:
        raise ValueError(f"write_shards: per_shard and workers should be at least 1, got {per_shard} and {workers}.")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    index = {"clips": len(clips), "per_shard": per_shard, "what": what}
    known = folder / "shards.json"
    if known.exists() and json.loads(known.read_text()) != index:
        raise ValueError(f"write_shards: {folder} holds other clips: {known.read_text().strip()}; name another folder.")
    _write_whole(known, json.dumps(index).encode())
    names = _names(folder, index)
    missing = [number for number, path in enumerate(names) if not path.exists()]
    done = len(names) - len(missing)
    ranges = {n: range(n * per_shard, min((n + 1) * per_shard, len(clips))) for n in missing}
    if workers == 1:
        for number in missing:
            _write_shard(names[number], clips, ranges[number])
            done += 1
            if report:
                report(done, len(names))
        return names
    with ProcessPoolExecutor(workers, get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)) as pool:
        jobs = [pool.submit(_write_shard, names[number], clips, ranges[number]) for number in missing]
        try:
            for job in as_completed(jobs):
                job.result()
                done += 1
                if report:
                    report(done, len(names))
        finally:
            pool.shutdown(cancel_futures=True)
    return names


class Shards(IterableDataset):
    """The clips of a folder of shards in their order, shared out among the workers of a DataLoader by shard.

    Raises:
        FileNotFoundError: there is no shards.json, or a shard is missing.
        ValueError: on reading, a shard or a clip in it is broken; with `skip_broken` it is named in a
            warning instead, and the rest of the shard is left out.
    """

    def __init__(self, folder: str | Path, skip_broken: bool = False):
        known = Path(folder) / "shards.json"
        if not known.is_file():
            raise FileNotFoundError(f"Shards: no {known}; write_shards makes it.")
        self.index, self.skip_broken = json.loads(known.read_text()), skip_broken
        self.paths = _names(Path(folder), self.index)
        for path in self.paths:
            if not path.is_file():
                raise FileNotFoundError(f"Shards: no {path}; call write_shards again to make what is missing.")

    def __len__(self) -> int:
        return self.index["clips"]

    def __iter__(self) -> Iterator[Clip]:
        worker = get_worker_info()
        first, step = (worker.id, worker.num_workers) if worker else (0, 1)
        for number in range(first, len(self.paths), step):
            try:
                yield from self.read(number)
            except ValueError as error:
                if not self.skip_broken:
                    raise
                warnings.warn(f"skipped what is left of it: {error}", stacklevel=2)

    def read(self, number: int) -> Iterator[Clip]:
        """The clips of one shard."""
        per_shard = self.index["per_shard"]
        return read_shard(self.paths[number], min(per_shard, len(self) - number * per_shard))


class ClipsOfShards(Dataset):
    """The clips of a folder of shards by their numbers, over and over up to `count`, to train from.

    The shard that was read last stays in memory: batches ask for clips in their order.

    Args:
        folder: where `write_shards` wrote.
        count: of items.
        num_frames, size: that each clip should have, and its frames' sides.
        labelled: whether the clips should have tracks, or be real video alone.

    Raises:
        FileNotFoundError: as for `Shards`.
        ValueError: on reading, a shard is broken, or a clip is of the other kind, or of another length or size.
    """

    def __init__(self, folder: str | Path, count: int, num_frames: int, size: int, labelled: bool = True):
        self.shards, self.count, self.labelled = Shards(folder), count, labelled
        self.shape = (num_frames, 3, size, size)
        self.number, self.clips = -1, []

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Clip:
        number, place = divmod(index % len(self.shards), self.shards.index["per_shard"])
        if number != self.number:
            self.number, self.clips = number, list(self.shards.read(number))
        clip, folder = self.clips[place], self.shards.paths[number].parent
        if isinstance(clip, TrackClip) != self.labelled:
            kinds = ("labelled clips", "real ones")
            expected, got = kinds if self.labelled else kinds[::-1]
            raise ValueError(f"shards: {folder} should hold {expected}, got {got}.")
        found = tuple((clip.video if self.labelled else clip).shape)
        if found != self.shape:
            raise ValueError(f"shards: clips of {folder} should be {self.shape}, got {found}.")
        return clip


def read_shard(path: str | Path, expected: int) -> Iterator[Clip]:
    """The clips of one shard, which should hold so many.

    Raises:
        ValueError: the file is no whole tar archive, holds fewer clips, or a clip that cannot be read.
    """
    import webdataset  # an optional package

    count, key = 0, ""
    try:
        with open(path, "rb") as stream:
            files = webdataset.tariterators.tar_file_expander([{"stream": stream, "url": str(path)}])
            for sample in webdataset.tariterators.group_by_keys(files):
                key = sample["__key__"]
                yield _read_clip(sample)
                count += 1
    except (tarfile.TarError, EOFError, KeyError, OSError, ValueError) as error:
        after = f"after clip {key}" if key else "at its beginning"
        raise ValueError(f"read_shard: {path} is broken {after}: {type(error).__name__}: {error}.") from error
    if count != expected:
        raise ValueError(f"read_shard: {path} should hold {expected} clips, got {count}: it is cut off.")


def _names(folder: Path, index: dict) -> list[Path]:
    """The files of all shards."""
    return [folder / f"clips-{number:05d}.tar" for number in range(-(-index["clips"] // index["per_shard"]))]


def _write_shard(path: Path, clips: Dataset, numbers: range) -> None:
    """One shard."""
    import webdataset

    packed = io.BytesIO()
    with webdataset.TarWriter(packed, mtime=0) as tar:
        for number in numbers:
            clip = clips[number]
            sample = {f"{name}.npy": _packed(values.numpy(force=True)) for name, values in _arrays(clip).items()}
            name = f"real-{number}" if isinstance(clip, Tensor) else clip.name
            tar.write({"__key__": f"{number:09d}", **sample, "name.txt": name.encode()})
    _write_whole(path, packed.getvalue())


def _arrays(clip: Clip) -> dict[str, Tensor]:
    """What is kept of a clip."""
    if isinstance(clip, Tensor):
        return {"video": clip}
    found = {name: getattr(clip, name) for name in ARRAYS}
    found |= {} if clip.masks is None else {"masks": clip.masks}
    return found | ({} if clip.taught is None else dict(zip(TAUGHT, clip.taught)))


def _read_clip(sample: dict) -> Clip:
    """What `_arrays` kept."""
    known = [name for name in (*ARRAYS, "masks", *TAUGHT) if f"{name}.npy" in sample]
    arrays = {n: torch.from_numpy(np.load(io.BytesIO(sample[f"{n}.npy"]), allow_pickle=False)) for n in known}
    if known == ["video"]:
        return arrays["video"]
    taught = tuple(arrays[name] for name in TAUGHT) if TAUGHT[0] in arrays else None
    masks, required = arrays.get("masks"), {name: arrays[name] for name in ARRAYS}
    return TrackClip(**required, name=sample["name.txt"].decode(), masks=masks, taught=taught)


def _packed(array: np.ndarray) -> bytes:
    """An array as the bytes of an .npy file."""
    out = io.BytesIO()
    np.save(out, array, allow_pickle=False)
    return out.getvalue()


def _write_whole(path: Path, data: bytes) -> None:
    """A file that appears only when it is whole; what is left of one that is not is removed."""
    try:
        with whole(path) as partial:
            partial.write_bytes(data)
    except OSError as error:
        raise OSError(error.errno, f"write_shards: {error.strerror}", str(path)) from error
