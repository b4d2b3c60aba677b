"""Files and folders that appear under their name only when all of them is there, and folders of one process."""

import glob
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_ours: dict[Path, int] = {}  # folders that `new_folder` made, each with a descriptor that holds its lock


@contextmanager
def whole(path: str | os.PathLike) -> Iterator[Path]:
    """Where to write what shall be under `path`: a name beside it, which takes its place if all goes well.

    A file is on the disk by then, whatever happens to the machine. What was there stays until then; after
    an error it is as it was, and nothing of the new one is left. The folder of `path` is made if it is missing.
    Several processes may write the same file: the last one stays.

    Raises:
        IsADirectoryError: what was written is a file, and `path` is a folder, which is left as it is.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.partial"):  # by processes that were killed
        if left == partial or _is_gone(left.name.split(".")[-2]):
            _remove(left)
    try:
        yield partial
        if partial.is_file():
            if path.is_dir():
                raise IsADirectoryError(f"{path} is a folder; a file should be given another name.")
            with partial.open("rb+") as file:
                os.fsync(file.fileno())
        if path.is_dir():  # which no move replaces
            old = partial.with_suffix(".old")
            os.replace(path, old)
            os.replace(partial, path)
            shutil.rmtree(old)
        else:
            os.replace(partial, path)
    finally:
        _remove(partial)


def new_folder(path: Path) -> None:
    """Makes a folder anew, empty: this process's until it ends, or makes it once more.

    Raises:
        ValueError: another process has made it, and goes on.
    """
    if path.exists() and not _lock(path):
        raise ValueError(f"another process is writing {path}; wait until it ends, or choose another name.")
    _remove(path)
    path.mkdir()
    _lock(path)


def _lock(folder: Path) -> bool:
    """Whether no other process holds the lock of a folder; then this one does. Always, where there are no locks."""
    try:
        import fcntl  # not on Windows
    except ImportError:
        return True
    if folder in _ours:
        os.close(_ours.pop(folder))
    held = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(held)
        return not isinstance(error, BlockingIOError)  # some file systems know no locks
    _ours[folder] = held
    return True


def _is_gone(process: str) -> bool:
    """Whether no process has this number; not of what is no number."""
    import psutil  # takes a while, and is rarely needed

    return process.isdecimal() and not psutil.pid_exists(int(process))


def _remove(path: Path) -> None:
    """Whatever is there, a file or a folder."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
