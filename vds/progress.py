"""How far the work is: a bar on a terminal or in a notebook, a line every 30 s elsewhere, nothing for work under 2 s.

Everything goes to stderr. No thread is started: what is shown is brought up to date by the calls that report progress.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

QUIET_S = 2.0
LINE_EVERY_S = 30.0
BAR_EVERY_S = 0.1
_UNITS = ("KiB", "MiB", "GiB", "TiB")


class Progress(Protocol):
    """What an operation tells while it works; every method may be called from any thread."""

    def stage(self, name: str, *, files: int | None = None, bytes: int | None = None) -> None:
        """Begin a stage, such as `hashing`; the totals are None while not known. Counts begin at 0 again."""
        ...

    def add(self, *, files: int = 0, bytes: int = 0) -> None:
        """Count work of this stage as done."""
        ...


class SilentProgress:
    """Shows nothing."""

    def stage(self, name: str, *, files: int | None = None, bytes: int | None = None) -> None:
        """Do nothing."""

    def add(self, *, files: int = 0, bytes: int = 0) -> None:
        """Do nothing."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How far one stage is; totals are None while not known."""

    name: str
    files: int = 0
    bytes: int = 0
    files_total: int | None = None
    bytes_total: int | None = None
    seconds: float = 0.0


class Display(Protocol):
    """Where a standing is shown."""

    first_after_s: float
    every_s: float

    def show(self, standing: Standing) -> None:
        """Show how far the work is."""
        ...

    def close(self, standing: Standing, was_shown: bool) -> None:
        """Show the end, or clean up."""
        ...


class LiveProgress:
    """Counts, and passes what it counted to a display now and then."""

    def __init__(self, display: Display, clock: Callable[[], float]) -> None:
        self._display = display
        self._clock = clock
        self._lock = threading.Lock()
        self._begun_s = self._stage_begun_s = clock()
        self._next_s = self._begun_s + display.first_after_s
        self._was_shown = False
        self._standing = Standing("")
        self._files = self._bytes = 0

    def stage(self, name: str, *, files: int | None = None, bytes: int | None = None) -> None:
        """Begin a stage."""
        with self._lock:
            self._stage_begun_s = self._clock()
            self._standing = Standing(name, files_total=files, bytes_total=bytes)
            self._files = self._bytes = 0
            self._show_if_due()

    def add(self, *, files: int = 0, bytes: int = 0) -> None:
        """Count work as done."""
        with self._lock:
            self._files += files
            self._bytes += bytes
            self._show_if_due()

    def close(self) -> None:
        """Show the end, unless the work was too short to speak of."""
        with self._lock:
            if self._was_shown or self._clock() - self._begun_s >= QUIET_S:
                self._display.close(self._timed(self._clock()), self._was_shown)

    def _show_if_due(self) -> None:
        now_s = self._clock()
        if now_s >= self._next_s:
            self._next_s = now_s + self._display.every_s
            self._was_shown = True
            self._display.show(self._timed(now_s))

    def _timed(self, now_s: float) -> Standing:
        return replace(self._standing, files=self._files, bytes=self._bytes, seconds=now_s - self._stage_begun_s)


class Lines:
    """One line every 30 s, for logs."""

    first_after_s = LINE_EVERY_S
    every_s = LINE_EVERY_S

    def __init__(self, title: str, stream: TextIO) -> None:
        self._title = title
        self._stream = stream

    def show(self, standing: Standing) -> None:
        """Write a line."""
        self._stream.write(f"{self._title}: {describe(standing)}\n")
        self._stream.flush()

    def close(self, standing: Standing, was_shown: bool) -> None:
        """Write the last line."""
        self.show(standing)


class Bar:
    """A bar of `rich`, which is imported when there is something to show."""

    first_after_s = QUIET_S
    every_s = BAR_EVERY_S

    def __init__(self, title: str, stream: TextIO | None) -> None:
        self._title = title
        self._stream = stream
        self._bar: RichProgress | None = None

    def show(self, standing: Standing) -> None:
        """Draw the bar."""
        if self._bar is None:
            self._bar = _start_bar(self._title, self._stream)
        by_bytes = bool(standing.bytes_total)
        self._bar.update(
            self._bar.task_ids[0],
            completed=standing.bytes if by_bytes else standing.files,
            total=standing.bytes_total if by_bytes else standing.files_total,
            text=describe(standing),
        )
        self._bar.refresh()

    def close(self, standing: Standing, was_shown: bool) -> None:
        """Draw the bar a last time and leave it there."""
        if self._bar is not None:
            self.show(standing)
            self._bar.stop()


def _start_bar(title: str, stream: TextIO | None) -> RichProgress:
    from rich.console import Console  # only here: importing it takes longer than most commands do
    from rich.progress import BarColumn, SpinnerColumn, TextColumn
    from rich.progress import Progress as RichProgress

    # A notebook's stderr is found by rich itself.
    console = Console(file=stream) if stream is not None else Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=24), TextColumn("{task.fields[text]}"))
    bar = RichProgress(*columns, console=console, auto_refresh=False)
    bar.add_task(title, total=None, text="")
    bar.start()
    return bar


@contextmanager
def open_progress(
    show: bool, title: str, *, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic
) -> Iterator[Progress]:
    """Lend a `Progress` for one operation.

    Args:
        show: False for silence.
        title: what is done, such as `upload to team/raw`.
        stream: where to; None for the stderr of the moment.
        clock: seconds that never go back.
    """
    if not show:
        yield SilentProgress()
        return
    progress = LiveProgress(_choose_display(title, stream if stream is not None else sys.stderr), clock)
    try:
        yield progress
    finally:
        progress.close()


def _choose_display(title: str, stream: TextIO) -> Display:
    if "ipykernel" in sys.modules:
        return Bar(title, None)
    return Bar(title, stream) if stream.isatty() else Lines(title, stream)


def describe(standing: Standing) -> str:
    """Return one line: stage, files, bytes, rate; what is not known or not counted is left out."""
    parts = [standing.name] if standing.name else []
    if standing.files or standing.files_total:
        total = f" of {standing.files_total:,}" if standing.files_total else ""
        parts.append(f"{standing.files:,}{total} files")
    if standing.bytes or standing.bytes_total:
        total = f" of {format_bytes(standing.bytes_total)}" if standing.bytes_total else ""
        parts.append(f"{format_bytes(standing.bytes)}{total}")
    if standing.bytes and standing.seconds > 0:
        parts.append(f"{format_bytes(standing.bytes / standing.seconds)}/s")
    return ", ".join(parts)


def format_bytes(size_bytes: float) -> str:
    """Return a size for people: `999 B`, `1.5 KiB`, `2.0 GiB`."""
    if size_bytes < 1024:
        return f"{size_bytes:.0f} B"
    power = 1
    while size_bytes >= 1024 ** (power + 1) and power < len(_UNITS):
        power += 1
    return f"{size_bytes / 1024**power:.1f} {_UNITS[power - 1]}"
