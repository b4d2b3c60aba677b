"""Encoders in and out of safetensors files, the bundled one among them.

The header carries the format, the constructor's arguments, the lattices and where the weights
come from. What does not fit exactly is refused.
"""

import contextlib
import json
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from .encoder import SUPPORT, UNCALIBRATED, PaperEncoder, PixelEncoder
from .whole import whole

FORMAT = "corrlib-encoder-2"
EARLIER = "corrlib-encoder-1"  # the same but for its calibration, which was of other evidence
# Of a header; the rest says how the weights were made.
OWN = ("format", "encoder", "config", "lattices", "calibration", "support", "magnify")
ON_HUB = "model.safetensors"  # the file in a folder of the Hugging Face hub
BUNDLED = Path(__file__).parent / "weights"
# The same weights; how many landmarks a tracker gives each point, and how many times as large it searches frames.
PRETRAINED = {"small": (SUPPORT, 1.0), "base": (40, 1.25)}
MOST_SUPPORT, MOST_MAGNIFY = 64, 4.0  # that a file may ask for
DTYPES = {torch.float32: "F32", torch.int64: "I64"}  # of an encoder's weights and counters
ENCODERS = {"PixelEncoder": PixelEncoder, "PaperEncoder": PaperEncoder}


def save(path: str | os.PathLike, encoder: PixelEncoder | PaperEncoder, origin: dict[str, str]) -> Path:
    """Writes an encoder's weights; the file appears under its name only when it is whole.

    Args:
        path: where to; usually named *.safetensors.
        encoder: what to save.
        origin: how the weights were made: command, configuration, seed, data; all text.

    Raises:
        OSError: it cannot be written; what was there is as it was.
    """
    path = Path(path)
    header = {
        "format": FORMAT,
        "encoder": type(encoder).__name__,
        "config": json.dumps(encoder.config),
        "lattices": json.dumps([encoder.coarse_lattice, encoder.fine_lattice]),
        "calibration": json.dumps(encoder.calibration),
        "support": json.dumps(encoder.support),
        "magnify": json.dumps(encoder.magnify),
        **origin,
    }
    with whole_file(path) as partial:
        save_file({name: value.contiguous() for name, value in encoder.state_dict().items()}, partial, header)
        partial.chmod(0o644)  # safetensors makes files that only their owner can read
    return path


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Where to write what shall be under `path` only when all of it is on the disk; what is there stays until then.

    Raises:
        OSError: it could not be written.
    """
    try:
        with whole(path) as partial:
            yield partial
    except (OSError, RuntimeError, SafetensorError) as error:
        raise OSError(f"{path} could not be written, and is as it was ({error}).") from None


def read_header(path: str | os.PathLike) -> dict[str, str]:
    """What a checkpoint says of itself.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no safetensors file.
    """
    with _opened(Path(path)) as file:
        return file.metadata() or {}


def read_origin(path: str | os.PathLike) -> dict[str, str]:
    """How the weights of a checkpoint were made, as `save` was told.

    Raises:
        FileNotFoundError, ValueError: as for `read_header`.
    """
    return {name: value for name, value in read_header(path).items() if name not in OWN}


def load(path: str | os.PathLike) -> PixelEncoder | PaperEncoder:
    """The encoder of a checkpoint, in evaluation mode.

    One of format 1 comes uncalibrated, since its calibration was of other evidence: `python -m corrlib calibrate FILE`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no safetensors file, not one of corrlib's, or its weights do not fit.
    """
    with _opened(Path(path)) as file:
        header = file.metadata() or {}
        if header.get("format") not in (FORMAT, EARLIER):
            raise ValueError(f"load: {path} should be of format {FORMAT}, got {header.get('format', 'none')!r}.")
        kind = header.get("encoder", "PixelEncoder")  # which the first files did not say
        try:
            config, calibration = json.loads(header["config"]), json.loads(header["calibration"])
            with torch.device("meta"):  # whatever a hostile header asks for takes no memory
                shape = ENCODERS[kind](**config)
            calibration = tuple(float(weight) for weight in calibration)
            support, magnify = int(header.get("support", 0)), float(header.get("magnify", 1.0))
        except (KeyError, TypeError, ValueError, RuntimeError, OverflowError) as error:
            raise ValueError(f"load: the header of {path} does not describe a {kind} ({error}).") from None
        lattices = json.dumps([shape.coarse_lattice, shape.fine_lattice])
        if header.get("lattices") != lattices:
            raise ValueError(f"load: {path} should have lattices {lattices}, got {header.get('lattices', 'none')}.")
        expected = {(name, str(tuple(v.shape)), DTYPES[v.dtype]) for name, v in shape.state_dict().items()}
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        found = {(name, str(tuple(s.get_shape())), s.get_dtype()) for name, s in slices.items()}
        if expected != found:
            odd = " ".join(sorted(expected ^ found)[0])
            raise ValueError(f"load: {path} does not hold this encoder's weights; first difference: {odd}.")
        if len(calibration) != len(UNCALIBRATED) or not all(map(math.isfinite, calibration)):
            raise ValueError(f"load: {path} should have {len(UNCALIBRATED)} weights of calibration.")
        if not 0 <= support <= MOST_SUPPORT:
            raise ValueError(f"load: {path} should have support from 0 to {MOST_SUPPORT}, got {support}.")
        if not 1 / MOST_MAGNIFY <= magnify <= MOST_MAGNIFY:
            limits = f"{1 / MOST_MAGNIFY:g} to {MOST_MAGNIFY:g}"
            raise ValueError(f"load: {path} should have magnify from {limits}, got {magnify}.")
        encoder = ENCODERS[kind](**config)
        encoder.load_state_dict({name: file.get_tensor(name) for name in slices})
    encoder.calibration = calibration if header["format"] == FORMAT else UNCALIBRATED
    encoder.support, encoder.magnify = support, magnify
    return encoder.eval()


def load_pretrained(name_or_path: str | os.PathLike = "small") -> PixelEncoder | PaperEncoder:
    """The bundled encoder of a name, the encoder of a checkpoint file, or that of owner/name on the Hugging Face hub.

    Of the hub, what was loaded once is loaded again without a network; owner/name@revision names a version.

    Raises:
        ValueError: the name is neither bundled nor a file nor on the hub.
    """
    if str(name_or_path) in PRETRAINED:
        encoder = load(BUNDLED / "small.safetensors")
        encoder.support, encoder.magnify = PRETRAINED[str(name_or_path)]
        return encoder
    if not Path(name_or_path).is_file() and re.fullmatch(r"[\w.-]+/[\w.-]+(@[\w./-]+)?", str(name_or_path)):
        return load(_from_hub(str(name_or_path)))
    if not Path(name_or_path).is_file():
        known = ", ".join(sorted(PRETRAINED))
        raise ValueError(f"load_pretrained: expected one of {known} or a checkpoint file, got {str(name_or_path)!r}.")
    return load(name_or_path)


def _from_hub(name: str) -> str:
    """Where the weights of owner/name, or owner/name@revision, were put."""
    import huggingface_hub

    repository, _, revision = name.partition("@")
    try:
        return huggingface_hub.hf_hub_download(repository, ON_HUB, revision=revision or None)
    except (OSError, ValueError) as error:  # the hub's own errors are of these kinds
        raise ValueError(
            f"load_pretrained: {name!r} is no checkpoint file, and cannot be had from the Hugging Face hub "
            f"({str(error).splitlines()[0]})."
        ) from None


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[safe_open]:
    """Any safetensors file, of which nothing but the header has been read."""
    if not path.is_file():
        raise FileNotFoundError(f"load: no file {path}.")
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except SafetensorError as error:
        raise ValueError(f"load: {path} should be a safetensors file, but it cannot be read ({error}).") from None
