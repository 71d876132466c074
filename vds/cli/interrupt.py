"""Ctrl-C: the first ends the command in good order, the second ends it at once.

In good order means that requests under way are waited for, which takes as long as the network does.
"""

from __future__ import annotations

import os
import shlex
import signal
import sys
from contextlib import suppress
from types import FrameType

from vds.cli.errors import EXIT_INTERRUPTED, document, document_line, error_lines
from vds.cli.shell import NOTHING_CHANGED, Shell, printable
from vds.errors import redact

COMMAND_CHARS_MAX = 400
_STDERR = 2
_SHOW_CURSOR = "\x1b[?25h"  # progress hides it while it is drawn


def prepare_interrupts(shell: Shell) -> None:
    """Take over Ctrl-C for the rest of this process, unless it is ignored, as in a background job."""
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        return

    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, end)
        if shell.interrupted != NOTHING_CHANGED and not shell.quiet:
            say("\nstopping; Ctrl-C again ends at once\n")
        raise KeyboardInterrupt

    def end(number: int, frame: FrameType | None) -> None:
        message, hint = describe_interrupt(shell)
        shape = document("interrupted", message, hint, EXIT_INTERRUPTED)
        lines = [document_line(shape)] if shell.json else error_lines(message, hint)
        cursor = _SHOW_CURSOR if os.isatty(_STDERR) else ""
        say(cursor + "\n" + "".join(f"{printable(line)}\n" for line in lines))
        # No clean-up and no traceback: threads that wait for the network would hold up the interpreter's own end.
        os._exit(EXIT_INTERRUPTED)

    signal.signal(signal.SIGINT, stop)


def describe_interrupt(shell: Shell) -> tuple[str, str]:
    """Return what state the command leaves when it is stopped now, and the command that goes on, its secrets taken out."""
    message = f"interrupted: {shell.interrupted}"
    if not shell.interrupted_hint:
        return message, ""
    typed = _quoted(["vds", *shell.arguments])
    if len(typed) > COMMAND_CHARS_MAX:  # thousands of files, say
        typed = "the same command"
    return message, redact(f"{shell.interrupted_hint}: {typed}")


def _quoted(arguments: list[str]) -> str:
    if sys.platform != "win32":
        return shlex.join(arguments)
    import subprocess  # here: it is slow to load, and only Windows quotes as it does

    return subprocess.list2cmdline(arguments)


def say(text: str) -> None:
    """Write to stderr from a signal's handler, which may have come in the middle of another write of Python's own stream."""
    with suppress(OSError):
        os.write(_STDERR, text.encode(errors="backslashreplace"))
