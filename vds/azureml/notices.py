"""What the SDK's names say to people: progress lines on stdout as the SDK prints them, all else on stderr.

A script's stdout stays what it was with the SDK; what vds has to add never goes there.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable

_lock = threading.Lock()
_said: set[str] = set()


def write_lines(lines: Iterable[str]) -> None:
    """Write lines to stdout, in one call; stdout as it is now, so that redirecting it works."""
    text = "\n".join(lines)
    if text:
        sys.stdout.write(text + "\n")


def say(text: str) -> None:
    """Say something on stderr."""
    sys.stderr.write(f"vds: {text}\n")


def say_once(text: str, about: str = "") -> None:
    """Say something on stderr, unless this process has said it (or something about the same) before."""
    with _lock:
        key = about or text
        if key in _said:
            return
        _said.add(key)
    say(text)


def ignore(call: str, why: str, **given: object) -> None:
    """Say once which of the arguments that were given have no effect here, and why."""
    names = [name for name, value in given.items() if value not in (None, False)]
    if names:
        say_once(f"{call}: {', '.join(names)} {'has' if len(names) == 1 else 'have'} no effect: {why}", f"{call} {names}")


def forget() -> None:
    """Say everything anew: for tests."""
    with _lock:
        _said.clear()
