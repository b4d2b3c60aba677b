"""DAVIS-2016 and DAVIS-2017: short videos with object masks.

DAVIS/JPEGImages/<resolution>/<name>/00000.jpg, DAVIS/Annotations/<resolution>/<name>/00000.png,
DAVIS/ImageSets/<year>/<split>.txt. The first release's lists, of paths in ImageSets/480p, are read too.
"""

from pathlib import Path

import torch

from corrlib.datasets.files import existing, images, read_frames, read_mask
from corrlib.samples import MaskClip

ROW = "DAVIS"
VOID = 255  # in 2017 a pixel that belongs to nobody; in 2016 the object


def names(root: str | Path, split: str = "val", year: int = 2017) -> list[str]:
    """The clips of a list in ImageSets.

    Raises:
        FileNotFoundError: there are no lists of that year.
        ValueError: none of them is called `split`.
    """
    lists = Path(root) / "DAVIS/ImageSets"
    folder = lists / "480p" if year == 2016 and not (lists / "2016").exists() else lists / str(year)
    existing(folder, ROW)
    if not (folder / f"{split}.txt").is_file():
        known = ", ".join(sorted(p.stem for p in folder.glob("*.txt")))
        raise ValueError(f"read DAVIS: split should be one of {known} (in {folder}), got {split}.")
    lines = (folder / f"{split}.txt").read_text().splitlines()
    first = [Path(line.split()[0]) for line in lines if line.strip()]
    return sorted({p.parent.name or p.name for p in first})


def read(root: str | Path, name: str, year: int = 2017, resolution: str = "480p") -> MaskClip:
    """One clip with its masks: object ids in 2017, 0 and 1 (any object) in 2016.

    Args:
        resolution: "480p" or "Full-Resolution", a folder of JPEGImages and Annotations.

    Raises:
        FileNotFoundError: the frames or the masks are not there.
        ValueError: frames and masks do not match. As in the official sets, there is either a
            mask a frame, or one for frame 0 alone (test-dev); the other frames are then -1.
    """
    frame_paths = images(Path(root) / "DAVIS/JPEGImages" / resolution / name, ROW)
    mask_paths = images(Path(root) / "DAVIS/Annotations" / resolution / name, ROW)
    stems = [p.stem for p in frame_paths]
    if [p.stem for p in mask_paths] not in (stems, stems[:1]):
        raise ValueError(
            f"read DAVIS: {mask_paths[0].parent} should have a mask for each of {len(stems)} frames or for "
            f"{stems[0]} alone, got {len(mask_paths)}: {mask_paths[0].stem} to {mask_paths[-1].stem}."
        )
    video = read_frames(frame_paths)
    masks = torch.full((len(video), *video.shape[2:]), -1)
    for t, path in enumerate(mask_paths):
        masks[t] = read_mask(path, video[t])
    if year == 2016:
        return MaskClip(video, torch.where(masks > 0, 1, masks), name)
    if masks[0].unique().tolist() in ([VOID], [0, VOID]):
        raise ValueError(
            f"read DAVIS: {mask_paths[0]} should hold object ids, got only 0 and {VOID}: "
            "a mask of DAVIS-2016, to be read with year=2016."
        )
    return MaskClip(video, masks.masked_fill(masks == VOID, 0), name)
