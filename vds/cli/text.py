"""Sizes, counts, times and columns as people read them."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from datetime import datetime


def size_text(size_bytes: int) -> str:
    """Return a size with its unit, in powers of 1 024: 12 B, 3.4 KiB, 56 MiB."""
    size = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if size < 1023.5:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 9.95 else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} PiB"


def count_text(count: int, noun: str = "file") -> str:
    """Return a count with its noun: 1 file, 12 000 files."""
    return f"{count:,}".replace(",", " ") + f" {noun}" + ("" if count == 1 else "s")


def moment_text(moment: datetime) -> str:
    """Return a moment in UTC to the second."""
    return moment.strftime("%Y-%m-%d %H:%M:%SZ")


def first_line(message: str, width_max: int = 80) -> str:
    """Return the first line of a message, cut."""
    line = message.partition("\n")[0]
    return line if len(line) <= width_max else line[: width_max - 1] + "…"


def columns(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> list[str]:
    """Return rows as aligned lines; the columns numbered in `right` end flush."""
    widths = [max(_width(row[index]) for row in rows) for index in range(len(rows[0]))] if rows else []
    lines = []
    for row in rows:
        cells = []
        for index, cell in enumerate(row):
            padding = " " * (widths[index] - _width(cell))
            cells.append(padding + cell if index in right else cell + padding)
        lines.append("  ".join(cells).rstrip())
    return lines


def _width(text: str) -> int:
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)
