"""Weight files that were damaged or made to do harm: each loads, or is refused in a sentence; run by hand.

    python tests/fuzz_weights.py --cases 100000

Mutates a valid file under 64 KiB at random: bytes and bits changed, pieces cut out, doubled or moved,
the length of the header, and numbers, names and types in the header itself. All of it happens in one
process that may take 64 MiB more memory than it has after it loaded the file once (Linux), so that a
file that makes it take more ends in a MemoryError, and a crash ends the command. `test_checkpoints`
runs 2,000 of them.
"""

import collections
import contextlib
import json
import random
import re
import tempfile
import warnings
from pathlib import Path

import click
import torch

from corrlib import checkpoints
from corrlib.encoder import PixelEncoder

ROOM = 2**26  # bytes
ODD = ("0", "-1", "1e999", "18446744073709551615", "999999999", "null", "[]", "{}", '"x"', "true", "NaN", "[" * 2000)
WORDS = (b"F32", b"F16", b"BF16", b"I64", b"F8_E4M3", b"BOOL", b"PixelEncoder", b"PaperEncoder", b"stage4", b"\xff")


def mutated(data: bytes, g: random.Random) -> bytes:
    """A file with one to three things changed; half of them leave a header that can be read."""
    for _ in range(g.choice((1, 1, 2, 3))):
        data = g.choice((_bytes, _cut, _double, _length, _number, _word, *[_setting] * 6))(data, g)
    return data


def _end(data: bytes, g: random.Random) -> int:
    """How far changes reach: mostly the header, where most of what can go wrong is."""
    header = int.from_bytes(data[:8], "little") + 8
    return max(1, min(len(data), header)) if g.random() < 0.8 else max(1, len(data))


def _bytes(data: bytes, g: random.Random) -> bytes:
    out = bytearray(data or b"\0")
    for _ in range(g.choice((1, 1, 1, 4, 40))):
        out[g.randrange(min(len(out), _end(data, g)))] = g.randrange(256)
    return bytes(out)


def _cut(data: bytes, g: random.Random) -> bytes:
    start = g.randrange(_end(data, g))
    return data[:start] if g.random() < 0.5 else data[:start] + data[start + g.randint(1, 40) :]


def _double(data: bytes, g: random.Random) -> bytes:
    start, count = g.randrange(_end(data, g)), g.randint(1, 400)
    return data[:start] + data[start : start + count] + data[start:]


def _length(data: bytes, g: random.Random) -> bytes:
    length = g.choice((0, 1, 2, len(data), len(data) - 8, 10**8, 2**32, 2**63, 2**64 - 1, g.randrange(2**16)))
    return max(0, length).to_bytes(8, "little") + data[8:]


def _header(data: bytes, change) -> bytes:
    """A file with its header's text changed, its length made right again."""
    end = int.from_bytes(data[:8], "little") + 8
    text = change(data[8:end])
    return len(text).to_bytes(8, "little") + text + data[end:]


def _number(data: bytes, g: random.Random) -> bytes:
    def change(text: bytes) -> bytes:
        places = [m.span() for m in re.finditer(rb"\d+", text)]
        start, end = g.choice(places or [(0, 0)])
        return text[:start] + g.choice(ODD).encode() + text[end:]

    return _header(data, change)


def _word(data: bytes, g: random.Random) -> bytes:
    def change(text: bytes) -> bytes:
        places = [m.span() for m in re.finditer(rb"\w+", text)]
        start, end = g.choice(places or [(0, 0)])
        return text[:start] + g.choice(WORDS) + text[end:]

    return _header(data, change)


def _setting(data: bytes, g: random.Random) -> bytes:
    """The header is whole, and asks for another network, calibration or lattice."""

    def change(text: bytes) -> bytes:
        with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError, RecursionError):
            header = json.loads(text)
            about = header["__metadata__"]
            key = g.choice(sorted(about))
            about[key] = re.sub(r"-?[\d.]+", lambda m: g.choice((m[0], g.choice(ODD))), about[key])
            return json.dumps(header).encode()
        return text

    return _header(data, change)


def limit_memory(room: int) -> None:
    """This process may take so many bytes more than it has; only where the system tells how many that are."""
    with contextlib.suppress(ImportError, OSError):
        import resource

        now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + room, resource.RLIM_INFINITY))


@click.command()
@click.option("--cases", default=100_000, help="How many mutations.", show_default=True)
@click.option("--seed", default=0, help="Of the mutations.", show_default=True)
def main(cases: int, seed: int) -> None:
    """Load mutations of a valid weight file; count what came of them."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    warnings.simplefilter("error")  # a network of no channels would give one
    with tempfile.TemporaryDirectory() as folder:
        path = checkpoints.save(Path(folder, "a.safetensors"), PixelEncoder(width=2, fine_channels=4), {})
        data, came = path.read_bytes(), collections.Counter()
        if len(data) >= 2**16:
            raise click.ClickException(f"the file should be under 64 KiB, got {len(data)} bytes.")
        checkpoints.load(path)  # what torch loads at its first use is here then
        limit_memory(ROOM)
        for case in range(cases):
            changed = mutated(data, random.Random(f"{seed} {case}"))
            path.write_bytes(changed)
            try:
                checkpoints.load(path)
                came["loaded"] += 1
            except ValueError as error:
                came[re.sub(r"(?s)\(.*|/\S+|, got.*|:.*", "", str(error).removeprefix("load: ")).strip()] += 1
            except BaseException as error:
                raise click.ClickException(f"case {case} of seed {seed}: {type(error).__name__}: {error}") from error
    for what, count in came.most_common():
        click.echo(f"{count:7} {what}", err=True)
    click.echo(f"{cases} mutations of a file of {len(data)} bytes: each loaded ({came['loaded']}) or was refused.")


if __name__ == "__main__":
    main()
