"""How far a long computation is: one line, in a notebook and in a terminal.

Knows nothing of what is computed. In a notebook that another process runs, the line is
also kept in the file that CORRLIB_PROGRESS names, for that process to show.
"""

import math
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

PROGRESS_FILE = "CORRLIB_PROGRESS"


def in_jupyter() -> bool:
    """Whether a Jupyter kernel runs this code."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and getattr(ipython.get_ipython(), "kernel", None) is not None


class Progress:
    """One line that tells how far, how long and how much longer; use it in a `with`.

    In Jupyter one output that is updated in place, which leaves a single line in the saved
    notebook; elsewhere a line on stderr. Redrawn at most every `interval` seconds.
    """

    def __init__(self, title: str, total: int, interval: float = 0.5):
        self._title, self._total, self._interval = title, total, interval
        self._start, self._drawn = time.monotonic(), -math.inf
        self._handle, self._done, self._note = None, 0, ""

    def __enter__(self) -> "Progress":
        self._draw(final=False)
        return self

    def __exit__(self, *error: object) -> None:
        self._draw(final=True)

    def update(self, done: int, note: str = "") -> None:
        """So much of the total is done; the note is shown behind the time."""
        self._done, self._note = done, note
        if time.monotonic() - self._drawn >= self._interval:
            self._draw(final=False)

    def track(self, items: Iterable) -> Iterator:
        """The items, counted as they are finished; opens and closes the line itself."""
        with self:
            for count, item in enumerate(items, start=1):
                try:
                    yield item
                finally:  # who leaves the loop at this item is done with it too
                    self.update(count, self._note)

    def line(self, seconds: float) -> str:
        """The text after so many seconds."""
        share = self._done / max(self._total, 1)
        clock = f"{_clock(seconds)} elapsed"
        if 0 < self._done < self._total:
            clock += f", about {_clock(seconds / share - seconds)} left"
        return "  ".join(filter(None, [self._title, f"{self._done}/{self._total}", f"{share:.0%}", clock, self._note]))

    def _draw(self, final: bool) -> None:
        """Show the line where there is someone to see it."""
        self._drawn = time.monotonic()
        text = self.line(self._drawn - self._start)
        if os.environ.get(PROGRESS_FILE):
            Path(os.environ[PROGRESS_FILE]).write_text(text)
        if in_jupyter():
            from IPython.display import display

            if self._handle is None:
                self._handle = display({"text/plain": text}, raw=True, display_id=True)
            else:
                self._handle.update({"text/plain": text}, raw=True)
        elif final or sys.stderr.isatty():
            _print(text, final)


@contextmanager
def mirrored() -> Iterator[None]:
    """Meanwhile, show on stderr the progress of notebooks that this process runs in others."""
    with tempfile.TemporaryDirectory() as folder:
        path, stop = Path(folder) / "progress", threading.Event()
        os.environ[PROGRESS_FILE] = str(path)
        thread = threading.Thread(target=_follow, args=(path, stop), daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
            del os.environ[PROGRESS_FILE]


def _follow(path: Path, stop: threading.Event) -> None:
    """Print a file's one line when it changes: often on a terminal, seldom into a log."""
    shown, pause = "", 0.5 if sys.stderr.isatty() else 15
    while not stop.wait(pause):
        text = path.read_text() if path.is_file() else ""
        if text and text != shown:
            shown = text
            _print(text, final=False)
    if shown and sys.stderr.isatty():
        print(file=sys.stderr)


def _print(text: str, final: bool) -> None:
    """A line on stderr; on a terminal it is written over until it is final."""
    terminal = sys.stderr.isatty()
    start, end = ("\r\x1b[2K", "\n" if final else "") if terminal else ("", "\n")
    print(f"{start}{text}", end=end, file=sys.stderr, flush=True)


def _clock(seconds: float) -> str:
    """Seconds as m:ss, or h:mm:ss."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
