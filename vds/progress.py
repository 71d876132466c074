"""How far the work is: a line a stage on a terminal or in a notebook, a line every 30 s elsewhere, nothing for work under 2 s.

Guarantees:
- everything goes to stderr, and an stderr that is closed, full or gone never stops the work: it is shown no longer, that is all;
- no thread is started: what is shown is brought up to date by the calls that report progress;
- a slow terminal holds up the one call that draws; counting goes on in all others.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Protocol, TextIO

from vds.counts import Row, StageCounts, UploadCounts, format_duration

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

QUIET_S = 2.0
LINE_EVERY_S = 30.0
DRAW_EVERY_S = 0.1
CLOSE_WAIT_S = 1.0
BAR_COLUMNS_MAX = 24


class Progress(Protocol):
    """What an operation tells while it works.

    Every method may be called from any thread, and costs a microsecond or two: call it once for a group of files.
    Work of one stage at a time uses `stage` and `add`. An upload hashes and sends at the same time: it begins with `upload`,
    tells of both with the four methods after it, and ends with the stage `committing`, which leaves its counts on show.
    """

    def stage(self, name: str, *, files: int | None = None, bytes: int | None = None) -> None:
        """Begin a stage, such as `downloading`; the totals are None while not known. Its counts begin at 0."""
        ...

    def add(self, *, files: int = 0, bytes: int = 0) -> None:
        """Count work of this stage as done."""
        ...

    def upload(self, *, is_dry: bool = False) -> None:
        """Begin an upload, or begin it again: the counts of the methods below are 0.

        Args:
            is_dry: nothing will be sent, so what would be is shown.
        """
        ...

    def found(self, files: int, bytes: int) -> None:
        """The scan has met these."""
        ...

    def scanned(self) -> None:
        """The scan is over: what was found is all there is."""
        ...

    def hashed(self, files: int, bytes: int, *, saved_bytes: int = 0) -> None:
        """These are hashed, or known without it.

        Args:
            files: those that are done with; 0 for a piece of a large one.
            bytes: theirs, or the piece's.
            saved_bytes: of them, what need not be sent: the store has it, or another file of this upload brings it.
        """
        ...

    def sent(self, bytes: int, *, saved_bytes: int = 0) -> None:
        """These bytes of files have arrived.

        Args:
            bytes: that were sent now.
            saved_bytes: that had arrived before, from an upload that was interrupted; not part of `bytes`.
        """
        ...


class SilentProgress:
    """Shows nothing."""

    def stage(self, name: str, *, files: int | None = None, bytes: int | None = None) -> None:
        """Do nothing."""

    def add(self, *, files: int = 0, bytes: int = 0) -> None:
        """Do nothing."""

    def upload(self, *, is_dry: bool = False) -> None:
        """Do nothing."""

    def found(self, files: int, bytes: int) -> None:
        """Do nothing."""

    def scanned(self) -> None:
        """Do nothing."""

    def hashed(self, files: int, bytes: int, *, saved_bytes: int = 0) -> None:
        """Do nothing."""

    def sent(self, bytes: int, *, saved_bytes: int = 0) -> None:
        """Do nothing."""


class Display(Protocol):
    """Where progress is shown; used by one thread at a time."""

    first_after_s: float
    every_s: float

    def show(self, rows: Sequence[Row]) -> None:
        """Show how far the work is.

        Raises:
            OSError, ValueError: there is no one to show it to any more.
        """
        ...

    def close(self, line: str) -> None:
        """Clean up, and leave this line, which may be empty for none. Raises what `show` does."""
        ...


class LiveProgress:
    """Counts, and passes what it counted to a display now and then."""

    def __init__(self, title: str, display: Display, clock: Callable[[], float]) -> None:
        self._title = title
        self._display: Display | None = display
        self._clock = clock
        self._counting = threading.Lock()  # held for a microsecond
        self._drawing = threading.Lock()  # held as long as the terminal takes; never waited for while work is reported
        self._begun_s = clock()
        self._every_s = display.every_s
        self._next_s = self._begun_s + display.first_after_s
        self._was_shown = False
        self._stage: StageCounts | None = None
        self._upload: UploadCounts | None = None

    def stage(self, name: str, *, files: int | None = None, bytes: int | None = None) -> None:
        """Begin a stage."""

        def begin(now_s: float) -> None:
            self._stage = StageCounts(name, now_s, files, bytes)

        self._count(begin)

    def add(self, *, files: int = 0, bytes: int = 0) -> None:
        """Count work as done."""

        def add(now_s: float) -> None:
            if self._stage is None:
                self._stage = StageCounts("", now_s, None, None)
            self._stage.add(now_s, files, bytes)

        self._count(add)

    def upload(self, *, is_dry: bool = False) -> None:
        """Begin an upload."""

        def begin(now_s: float) -> None:
            self._upload, self._stage = UploadCounts(now_s, is_dry=is_dry), None

        self._count(begin)

    def found(self, files: int, bytes: int) -> None:
        """Count files as met."""

        def add(now_s: float) -> None:
            self._running.files_found += files
            self._running.bytes_found += bytes

        self._count(add)

    def scanned(self) -> None:
        """Take what was found for all there is."""

        def end(now_s: float) -> None:
            self._running.is_scanned = True

        self._count(end)

    def hashed(self, files: int, bytes: int, *, saved_bytes: int = 0) -> None:
        """Count files as hashed."""
        self._count(lambda now_s: self._running.hashed(now_s, files, bytes, saved_bytes))

    def sent(self, bytes: int, *, saved_bytes: int = 0) -> None:
        """Count bytes as sent."""
        self._count(lambda now_s: self._running.sent(now_s, bytes, saved_bytes))

    def close(self, *, is_done: bool) -> None:
        """Leave one line about what was done, unless the work was too short to speak of."""
        # Not for ever: a terminal may be stopped, and Ctrl-C may have come between taking the lock and the way to let it go.
        if not self._drawing.acquire(timeout=CLOSE_WAIT_S):
            return
        try:
            now_s = self._clock()
            if self._display is not None and (self._was_shown or now_s - self._begun_s >= QUIET_S):
                with suppress(OSError, ValueError):
                    self._display.close(f"{self._title}: {self._end(now_s, is_done)}")
            self._display = None
        finally:
            self._drawing.release()

    @property
    def _running(self) -> UploadCounts:
        assert self._upload is not None, "upload() begins it"
        return self._upload

    def _count(self, change: Callable[[float], None]) -> None:
        with self._counting:
            now_s = self._clock()
            change(now_s)
            if now_s < self._next_s:
                return
            self._next_s = now_s + self._every_s
            rows = self._rows(now_s)
        if self._drawing.acquire(blocking=False):
            try:
                self._draw(rows)
            finally:
                self._drawing.release()

    def _draw(self, rows: list[Row]) -> None:
        if self._display is None:
            return
        self._was_shown = True
        try:
            self._display.show(rows)
        except (OSError, ValueError):  # stderr is gone; the work goes on
            with suppress(OSError, ValueError):
                self._display.close("")
            self._display = None

    def _rows(self, now_s: float) -> list[Row]:
        rows = self._upload.rows(now_s) if self._upload is not None else []
        return [*rows, self._stage.row(now_s)] if self._stage is not None else rows

    def _end(self, now_s: float, is_done: bool) -> str:
        verb = "done in" if is_done else "stopped after"
        facts: list[str] = []
        if self._upload is not None:
            facts = self._upload.facts(is_done=is_done)
        elif self._stage is not None:
            facts = self._stage.facts()
        return ", ".join([f"{verb} {format_duration(now_s - self._begun_s)}", *facts])


class Lines:
    """One line every 30 s, for logs."""

    first_after_s = LINE_EVERY_S
    every_s = LINE_EVERY_S

    def __init__(self, title: str, stream: TextIO) -> None:
        self._title = title
        self._stream = stream

    def show(self, rows: Sequence[Row]) -> None:
        """Write one line of all stages."""
        self._write(f"{self._title}: " + "; ".join(" ".join(filter(None, (row.stage, row.text))) for row in rows))

    def close(self, line: str) -> None:
        """Write the last line."""
        if line:
            self._write(line)

    def _write(self, line: str) -> None:
        self._stream.write(line + "\n")
        self._stream.flush()


class Bars:
    """A bar and a line of text for each stage, drawn with `rich`, which is imported when there is something to show."""

    first_after_s = QUIET_S
    every_s = DRAW_EVERY_S

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self._bars: RichProgress | None = None
        self._tasks: dict[str, TaskID] = {}

    def show(self, rows: Sequence[Row]) -> None:
        """Draw all stages."""
        bars = self._bars = self._bars or _start_bars(_console(self._stream))
        for gone in self._tasks.keys() - {row.stage for row in rows}:
            bars.remove_task(self._tasks.pop(gone))
        for row in rows:
            total, done = (None, 0.0) if row.share is None else (1.0, row.share)
            if row.stage in self._tasks:
                bars.update(self._tasks[row.stage], total=total, completed=done, text=row.text)
            else:
                self._tasks[row.stage] = bars.add_task(row.stage, total=total, completed=0, text=row.text)
                bars.update(self._tasks[row.stage], completed=done)  # `add_task` takes whole numbers only
        bars.refresh()

    def close(self, line: str) -> None:
        """Take the bars away, which leaves nothing but the line."""
        if self._bars is not None:
            self._bars.stop()
        if line:
            _console(self._stream).out(line, highlight=False)


def _console(stream: TextIO | None) -> Console:
    from rich.console import Console  # only here: importing it takes longer than most commands do

    # A notebook's stderr is found by rich itself. Elsewhere the stream is known to be a terminal.
    return Console(file=stream, force_terminal=True) if stream is not None else Console(stderr=True)


def _start_bars(console: Console) -> RichProgress:
    from rich.progress import BarColumn, TextColumn  # only here, as above
    from rich.progress import Progress as RichProgress

    # On a narrow terminal the bar gives way: it is the only column that may.
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=BAR_COLUMNS_MAX),
        TextColumn("{task.fields[text]}", markup=False),
    )
    bars = RichProgress(*columns, console=console, auto_refresh=False, transient=True)
    bars.start()
    return bars


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
    display = _choose_display(title, stream if stream is not None else sys.stderr) if show else None
    if display is None:
        yield SilentProgress()
        return
    progress = LiveProgress(title, display, clock)
    is_done = False
    try:
        yield progress
        is_done = True
    finally:
        progress.close(is_done=is_done)


def _choose_display(title: str, stream: TextIO | None) -> Display | None:
    if stream is None or stream.closed:  # a program without a console, or one that closed its stderr
        return None
    if "ipykernel" in sys.modules:
        return Bars(None)
    return Bars(stream) if stream.isatty() and os.environ.get("TERM") != "dumb" else Lines(title, stream)
