"""Encoders in and out of safetensors files, the bundled one among them.

The header carries the format, the constructor's arguments, the lattices and where the weights
come from. What does not fit exactly is refused.
"""

import json
import os
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from .encoder import UNCALIBRATED, PaperEncoder, PixelEncoder

FORMAT = "corrlib-encoder-1"
OWN = ("format", "encoder", "config", "lattices", "calibration")  # of a header; the rest says how the weights were made
BUNDLED = Path(__file__).parent / "weights"
ENCODERS = {"PixelEncoder": PixelEncoder, "PaperEncoder": PaperEncoder}


def save(path: str | os.PathLike, encoder: PixelEncoder | PaperEncoder, origin: dict[str, str]) -> Path:
    """Writes an encoder's weights; the file appears under its name only when it is whole.

    Args:
        path: where to; usually named *.safetensors.
        encoder: what to save.
        origin: how the weights were made: command, configuration, seed, data; all text.
    """
    path = Path(path)
    header = {
        "format": FORMAT,
        "encoder": type(encoder).__name__,
        "config": json.dumps(encoder.config),
        "lattices": json.dumps([encoder.coarse_lattice, encoder.fine_lattice]),
        "calibration": json.dumps(encoder.calibration),
        **origin,
    }
    partial = path.with_name(path.name + ".partial")
    save_file({name: value.contiguous() for name, value in encoder.state_dict().items()}, partial, header)
    partial.chmod(0o644)  # safetensors makes files that only their owner can read
    partial.replace(path)
    return path


def read_header(path: str | os.PathLike) -> dict[str, str]:
    """What a checkpoint says of itself."""
    return _read(Path(path))[0]


def load(path: str | os.PathLike) -> PixelEncoder | PaperEncoder:
    """The encoder of a checkpoint, in evaluation mode.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no safetensors file, not one of corrlib's, or its weights do not fit.
    """
    header, tensors = _read(Path(path))
    if header.get("format") != FORMAT:
        raise ValueError(f"load: {path} should be of format {FORMAT}, got {header.get('format', 'none')!r}.")
    kind = header.get("encoder", "PixelEncoder")  # which the first files did not say
    try:
        encoder = ENCODERS[kind](**json.loads(header["config"]))
        encoder.calibration = tuple(float(weight) for weight in json.loads(header["calibration"]))
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"load: the header of {path} does not describe a {kind} ({error}).") from None
    lattices = json.dumps([encoder.coarse_lattice, encoder.fine_lattice])
    if header.get("lattices") != lattices:
        raise ValueError(f"load: {path} should have lattices {lattices}, got {header.get('lattices', 'none')}.")
    expected = {name: tuple(value.shape) for name, value in encoder.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in tensors.items()}
    if expected != found:
        odd = sorted(set(expected.items()) ^ set(found.items()))[0]
        raise ValueError(f"load: {path} does not hold this encoder's weights; first difference: {odd[0]} {odd[1]}.")
    if len(encoder.calibration) != len(UNCALIBRATED):
        raise ValueError(f"load: {path} should have {len(UNCALIBRATED)} weights of calibration.")
    encoder.load_state_dict(tensors)
    return encoder.eval()


def load_pretrained(name_or_path: str | os.PathLike = "small") -> PixelEncoder | PaperEncoder:
    """The bundled encoder of a name, or the encoder of a checkpoint file.

    Raises:
        ValueError: the name is neither bundled nor a file.
    """
    names = sorted(path.stem for path in BUNDLED.glob("*.safetensors"))
    if str(name_or_path) in names:
        return load(BUNDLED / f"{name_or_path}.safetensors")
    if not Path(name_or_path).is_file():
        raise ValueError(
            f"load_pretrained: expected one of {', '.join(names)} or a checkpoint file, got {str(name_or_path)!r}."
        )
    return load(name_or_path)


def _read(path: Path) -> tuple[dict[str, str], dict]:
    """Header and tensors of any safetensors file."""
    if not path.is_file():
        raise FileNotFoundError(f"load: no file {path}.")
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"load: {path} should be a safetensors file, but it cannot be read ({error}).") from None
