"""What numbers may depend on though no parameter says so: code, versions, machine, memory."""

import contextlib
import ctypes
import json
import math
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

KEPT = 2**28
PACKAGES = ("corrlib", "torch", "accelerate", "numpy", "opencv-python", "matplotlib")


def describe(root: Path) -> dict:
    """The circumstances of a run of the repository at `root`, ready for JSON."""
    return {
        "commit": commit(root),
        "instructions": torch.backends.cpu.get_cpu_capability(),  # of the processor: they decide which kernels run
        "peak_memory_mib": peak_memory_mib(),
        "platform": platform.platform(),
        "threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES},
    }


def _version(name: str) -> str:
    """Of an installed package, "" of any other: opencv-python has siblings that serve as well."""
    with contextlib.suppress(metadata.PackageNotFoundError):
        return metadata.version(name)
    return ""


def beside(path: str | Path, ending: str) -> Path:
    """A path's neighbour: NAME + ending for NAME.json, NAME.safetensors and NAME itself, whatever dots are in it."""
    path = Path(path)
    return path.with_name((path.stem if path.suffix in (".json", ".safetensors") else path.name) + ending)


def write_beside(path: str | Path, **took: Any) -> None:
    """What the numbers in a file may depend on, as NAME.environment.json beside it: `describe`, command and device.

    Args:
        path: of that file, which the running command makes.
        took: more of it, such as its seconds.
    """
    about = describe(Path(__file__).parents[1]) | {"command": called(), "device": device_name()} | took
    beside(path, ".environment.json").write_text(json.dumps(about, indent=2, sort_keys=True) + "\n")


def write_measured(path: str | Path, entries: dict[str, dict]) -> None:
    """Numbers that a command has measured, as a metrics.json at `path`, with what they may depend on beside it."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(json.dumps(entries, indent=2, sort_keys=True) + "\n")
    write_beside(path)


def called() -> str:
    """The command of `python -m corrlib` that runs; absolute paths are of one machine only and become "PATH"."""
    return "python -m corrlib " + " ".join(_elsewhere(argument) for argument in sys.argv[1:])


def _elsewhere(argument: str) -> str:
    """An argument, or the value in NAME=VALUE, as it would be on another machine."""
    name, is_set, value = argument.rpartition("=")
    return f"{name}{is_set}PATH" if os.path.isabs(value) else argument


def commit(root: Path) -> str:
    """The commit the code is at, "+changes" when files differ from it, "" outside git."""
    call = [
        "git",
        "-C",
        str(root),
        "describe",
        "--always",
        "--abbrev=40",
        "--exclude=*",
        "--dirty=+changes",
    ]
    try:
        return subprocess.run(call, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def device_name() -> str:
    """The GPU that torch sees, else the processor."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):  # Linux tells which one it is
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), name)
    return f"cpu ({name}, {os.cpu_count()} cores)"


def peak_memory_mib() -> dict[str, float]:
    """Most memory held so far by this process, and by tensors on a GPU."""
    peak = {}
    if sys.platform != "win32":
        import resource  # not on Windows

        unit = 2**20 if sys.platform == "darwin" else 2**10  # bytes there, KiB on Linux
        peak["process"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit, 1)
    if torch.cuda.is_available():
        peak["gpu"] = round(torch.cuda.max_memory_allocated() / 2**20, 1)
    return peak


def keep_freed_memory() -> None:
    """Lets this process keep what it frees, up to KEPT bytes, for the tensors that follow.

    The GNU C library hands a large array back to the system at once; to be given it again, page by
    page, takes a fifth of the time that an encoder takes. Other libraries are left as they are, and so
    are settings in the environment (MALLOC_...).
    """
    if not any(name.startswith("MALLOC_") for name in os.environ):
        with contextlib.suppress(OSError, AttributeError):  # other systems have no mallopt
            library = ctypes.CDLL(None)
            library.mallopt(-3, 2**25)  # M_MMAP_THRESHOLD, the largest there is
            library.mallopt(-1, KEPT)  # M_TRIM_THRESHOLD


def measure(call: Callable[[], Any]) -> tuple[Any, float, float]:
    """What a call returns, the processor seconds it took, and the most bytes it held on top of those before.

    Seconds are of all threads together, whatever else the machine does. Bytes are those of the
    process, of Python, torch and OpenCV alike, and on a GPU those of its tensors too; NaN where
    the system does not tell, which Linux does.
    """
    before = _reset_peak()
    start = time.process_time()
    answer = call()
    seconds = time.process_time() - start
    held = _status("VmHWM") - before
    if torch.cuda.is_available():
        held += torch.cuda.max_memory_allocated() - torch.cuda.memory_allocated()
    return answer, seconds, held if math.isnan(held) else max(held, 0.0)


def _reset_peak() -> float:
    """Forget the most memory this process has held, give back what is free, and return the bytes it holds now."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with contextlib.suppress(OSError, AttributeError):  # other systems have neither
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
        return _status("VmRSS")
    return math.nan


def _status(field: str) -> float:
    """A field of this process's status, in bytes."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return 1024.0 * int(line.split()[1])
    return math.nan
