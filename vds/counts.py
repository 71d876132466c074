"""What is counted of an operation, and how it reads: pure, the time comes with each call."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

WINDOW_S = 10.0
"""A rate is that of the last ten seconds: since the beginning, a network that came to a halt would not show for minutes."""
SAMPLE_EVERY_S = 0.25
_UNITS = ("KiB", "MiB", "GiB", "TiB")


@dataclass(frozen=True, slots=True)
class Row:
    """How far one stage is, as it is shown.

    Attributes:
        stage: its name.
        share: how much of it is done, from 0 to 1; None while not known.
        text: counts, rate and time left; what is not known is left out.
    """

    stage: str
    share: float | None = None
    text: str = ""


class Window:
    """The rate of one growing count over the last ten seconds."""

    def __init__(self, now_s: float) -> None:
        self._samples: deque[tuple[float, int]] = deque([(now_s, 0)])

    def note(self, now_s: float, count: int) -> None:
        """Take in how high the count is now."""
        if now_s - self._samples[-1][0] >= SAMPLE_EVERY_S:
            self._samples.append((now_s, count))
        while len(self._samples) > 1 and self._samples[1][0] <= now_s - WINDOW_S:
            self._samples.popleft()

    def rate(self, now_s: float, count: int) -> float:
        """Return how much a second was added; 0 when that cannot be said."""
        self.note(now_s, count)  # a count that has come to a halt is not noted by anyone else
        begun_s, before = self._samples[0]
        return (count - before) / (now_s - begun_s) if now_s > begun_s else 0.0


class StageCounts:
    """How far a stage is that runs by itself."""

    def __init__(self, name: str, now_s: float, files_total: int | None, bytes_total: int | None) -> None:
        self.name = name
        self.files = self.bytes = 0
        self.files_total = files_total
        self.bytes_total = bytes_total
        self._window = Window(now_s)

    def add(self, now_s: float, files: int, bytes: int) -> None:
        """Count work as done."""
        self.files += files
        self.bytes += bytes
        self._window.note(now_s, self.bytes)

    def row(self, now_s: float) -> Row:
        """Return what to show; without a total of bytes, the files say how much is done."""
        parts = []
        if self.files or self.files_total:
            parts.append(f"{self.files:,} of {self.files_total:,} files" if self.files_total else _count_files(self.files))
        if self.bytes or self.bytes_total:
            parts.append(format_bytes(self.bytes) + (f" of {format_bytes(self.bytes_total)}" if self.bytes_total else ""))
        parts += _rate_part(self._window.rate(now_s, self.bytes))
        done, total = (self.bytes, self.bytes_total) if self.bytes_total else (self.files, self.files_total)
        return Row(self.name, _share(done, total) if total else None, ", ".join(parts))

    def facts(self) -> list[str]:
        """Return what was done, for the last line."""
        return [_count_files(self.files)] * bool(self.files) + [format_bytes(self.bytes)] * bool(self.bytes)


class UploadCounts:
    """How far the stages of an upload are that run at the same time."""

    def __init__(self, now_s: float, *, is_dry: bool) -> None:
        self.is_dry = is_dry
        self.is_scanned = False
        self.files_found = self.bytes_found = 0
        self.files = self.bytes_hashed = 0
        self.bytes_saved = self.bytes_sent = 0
        self._hashing = Window(now_s)
        self._sending = Window(now_s)

    def hashed(self, now_s: float, files: int, bytes: int, saved_bytes: int) -> None:
        """Count files as hashed."""
        self.files += files
        self.bytes_hashed += bytes
        self.bytes_saved += saved_bytes
        self._note(now_s)

    def sent(self, now_s: float, bytes: int, saved_bytes: int) -> None:
        """Count bytes as sent."""
        self.bytes_sent += bytes
        self.bytes_saved += saved_bytes
        self._note(now_s)

    def _note(self, now_s: float) -> None:
        self._hashing.note(now_s, self.bytes_hashed)
        self._sending.note(now_s, self.bytes_sent)

    @property
    def bytes_to_send(self) -> int:
        """What is known to have to be sent, all in all; a large file may be sent while it is being hashed."""
        return max(self.bytes_hashed - self.bytes_saved, self.bytes_sent)

    @property
    def is_hashed(self) -> bool:
        """Whether no file is left to hash."""
        return self.is_scanned and self.files >= self.files_found

    def rows(self, now_s: float) -> list[Row]:
        """Return what to show: hashing and uploading; `+` marks a total that may still grow."""
        more = "" if self.is_scanned else "+"
        files = f"{self.files:,} of {self.files_found:,}{more} files"
        parts = [files, f"{format_bytes(self.bytes_hashed)} of {format_bytes(self.bytes_found)}{more}"]
        if not self.is_hashed:
            parts += _rate_part(self._hashing.rate(now_s, self.bytes_hashed))
        share = _share(self.bytes_hashed, self.bytes_found) if self.is_scanned else None
        hashing = Row("hashing", share, ", ".join(parts))

        more = "" if self.is_hashed else "+"
        parts = [f"{format_bytes(self.bytes_to_send)}{more}"]
        if not self.is_dry:
            parts = [f"{format_bytes(self.bytes_sent)} of {parts[0]}"]
            if not (self.is_hashed and self.bytes_sent >= self.bytes_to_send):
                parts += _rate_part(self._sending.rate(now_s, self.bytes_sent))
            share = _share(self.bytes_sent, self.bytes_sent + self._bytes_unsent()) if self.is_scanned else None
        if self.bytes_saved:
            parts.append(f"saved {format_bytes(self.bytes_saved)}")
        left_s = self.left_s(now_s)
        if left_s is not None:
            parts.append(f"{format_duration(left_s)} left")
        return [hashing, Row("to send" if self.is_dry else "uploading", share, ", ".join(parts))]

    def left_s(self, now_s: float) -> float | None:
        """Return how long it will take yet: the slower stage decides. None while not known, and when nothing is left."""
        if not self.is_scanned:
            return None
        left_s = 0.0
        stages: list[tuple[float, float]] = [(self._bytes_unhashed(), self._hashing.rate(now_s, self.bytes_hashed))]
        if not self.is_dry:
            stages.append((self._bytes_unsent(), self._sending.rate(now_s, self.bytes_sent)))
        for rest_bytes, rate in stages:
            if rest_bytes and not rate:
                return None
            left_s = max(left_s, rest_bytes / rate if rest_bytes else 0.0)
        return left_s or None

    def _bytes_unhashed(self) -> int:
        return max(0, self.bytes_found - self.bytes_hashed)

    def _bytes_unsent(self) -> float:
        # Of what is not hashed yet as large a share is taken to be new as of what is: were all of it taken to be, a second upload
        # of 100 GiB with 1 % changed would promise hours and end in a minute.
        new_share = self.bytes_to_send / self.bytes_hashed if self.bytes_hashed else 1.0
        foreseen_bytes = self.bytes_to_send - self.bytes_sent + self._bytes_unhashed() * min(1.0, new_share)
        return min(foreseen_bytes, max(0, self.bytes_found - self.bytes_saved - self.bytes_sent))

    def facts(self, *, is_done: bool) -> list[str]:
        """Return what was done, for the last line."""
        files = _count_files(self.files) + ("" if is_done else " hashed")
        sent = f"{format_bytes(self.bytes_to_send)} would be sent" if self.is_dry else f"{format_bytes(self.bytes_sent)} sent"
        return [files, sent, *([f"{format_bytes(self.bytes_saved)} saved"] if self.bytes_saved else [])]


def _rate_part(rate: float) -> list[str]:
    return [f"{format_bytes(rate)}/s"] if rate else []


def _count_files(count: int) -> str:
    return f"{count:,} file{'' if count == 1 else 's'}"


def _share(done: float, total: float) -> float:
    return min(1.0, done / total) if total else 1.0


def format_duration(seconds: float) -> str:
    """Return a span for people, to the second: `0:07`, `2:31`, `1:02:03`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def format_bytes(size_bytes: float) -> str:
    """Return a size for people: `999 B`, `1.5 KiB`, `2.0 GiB`."""
    if size_bytes < 1024:
        return f"{size_bytes:.0f} B"
    power = 1
    while size_bytes >= 1024 ** (power + 1) and power < len(_UNITS):
        power += 1
    return f"{size_bytes / 1024**power:.1f} {_UNITS[power - 1]}"
