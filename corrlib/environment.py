"""What numbers may depend on though no parameter says so: code, versions, machine, memory."""

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import torch

PACKAGES = ("corrlib", "torch", "numpy", "opencv-python", "matplotlib")


def describe(root: Path) -> dict:
    """The circumstances of a run of the repository at `root`, ready for JSON."""
    return {
        "commit": commit(root),
        "peak_memory_mib": peak_memory_mib(),
        "platform": platform.platform(),
        "threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version()} | {name: metadata.version(name) for name in PACKAGES},
    }


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
    return f"cpu ({platform.processor() or platform.machine()}, {os.cpu_count()} cores)"


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
