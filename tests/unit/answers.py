"""What the helpers of the tests answer with."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any


def echo(request: Any) -> Any:
    """Return the request."""
    return request


def describe(request: Any) -> Any:
    """Return what the helper is: its process, its group, and where it found a module of the standard library and vds."""
    import colorsys

    import vds

    return os.getpid(), os.getpgid(0), colorsys.__file__, vds.__file__


def shout(request: Any) -> Any:
    """Print where a careless library would, then return the request."""
    print("to standard output")
    os.write(1, b"and below it\n")
    print("to standard error", file=sys.stderr)
    return request


def write_to(request: tuple[int, bytes]) -> int:
    """Write to the shared file."""
    descriptor, data = request
    return os.pwrite(descriptor, data, 0)


def die(request: int) -> Any:
    """End as the number says: 0 by an error, else by that signal."""
    if request:
        os.kill(os.getpid(), signal.Signals(request))
    raise OSError("an error of the helper's")
