"""What a command is given: its common options, the store, and the two streams it may write to.

stdout carries the answer only: text for people, the one thing a script needs with `-q`, one JSON document with `--json`.
Everything else (notes, progress, errors) goes to stderr.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

from vds.cli.errors import OutputClosedError
from vds.errors import NoSpaceError, NotFoundError, redact

if TYPE_CHECKING:
    from vds.store import Store

NOTHING_CHANGED = "nothing was changed"


@dataclass
class Shell:
    """The state of one run of the command line.

    Attributes:
        arguments: the command line as it was typed, without the program's name.
        interrupted: what is true when the user stops the command now; said on Ctrl-C.
        interrupted_hint: what the same command does then; empty where there is nothing to go on with.
    """

    store: str | None = None
    index: str | None = None
    json: bool = False
    quiet: bool = False
    verbose: bool = False
    arguments: Sequence[str] = ()
    interrupted: str = NOTHING_CHANGED
    interrupted_hint: str = ""

    @property
    def shows_progress(self) -> bool:
        """Whether the library may report progress on stderr."""
        return not self.quiet

    def connect(self, *, read_only: bool = False) -> Store:
        """Open the store that the options, the environment or a settings file name."""
        import vds  # here, and lazily inside: a command that only prints help opens no database

        return vds.connect(self.store, index=self.index, read_only=read_only)

    def connect_if_named(self, *, read_only: bool = False) -> Store | None:
        """Open the store as `connect` does, or return None when neither the options, the environment nor a file names one."""
        from vds.config import find_store_settings

        if self.store is None and "VDS_STORE" not in os.environ:
            try:
                find_store_settings(index=self.index)
            except NotFoundError:
                return None
        return self.connect(read_only=read_only)

    def note(self, text: str) -> None:
        """Say something beside the answer, on stderr, unless asked to be quiet."""
        if not self.quiet:
            print(printable(text), file=sys.stderr, flush=True)

    def answer(self, *, text: str | Iterable[str], quiet: str | Iterable[str] | None = None, document: Any) -> None:
        """Print the answer in the form that was asked for; `quiet` defaults to the text."""
        if self.json:
            self.write(json.dumps(document, indent=2) + "\n")
            return
        chosen = quiet if self.quiet and quiet is not None else text
        for line in [chosen] if isinstance(chosen, str) else chosen:
            self.write(printable(line) + "\n")

    def answer_list(
        self,
        head: dict[str, Any],
        key: str,
        rows: Iterable[Any],
        *,
        line: Callable[[Any], str],
        quiet: Callable[[Any], str],
        shape: Callable[[Any], dict[str, Any]],
    ) -> int:
        """Print rows as they come, without holding them; return how many. In JSON they are `key` beside what `head` has."""
        count = 0
        if self.json:
            fields = "".join(f"  {json.dumps(name)}: {json.dumps(value)},\n" for name, value in head.items())
            self.write(f"{{\n{fields}  {json.dumps(key)}: [")
        for count, row in enumerate(rows, 1):
            if self.json:
                self.write((",\n    " if count > 1 else "\n    ") + json.dumps(shape(row)))
            else:
                self.write(printable((quiet if self.quiet else line)(row)) + "\n")
        if self.json:
            self.write("\n  ]\n}\n" if count else "]\n}\n")
        return count

    def write(self, text: str) -> None:
        """Write text to stdout."""
        with _stdout_errors():
            sys.stdout.write(text)

    def write_bytes(self, blocks: Iterable[bytes]) -> None:
        """Write raw bytes to stdout."""
        stream: IO[bytes] = sys.stdout.buffer
        self.flush()
        for block in blocks:
            with _stdout_errors():  # around our own writing only: reading has errors of its own
                stream.write(block)
        self.flush()

    def flush(self) -> None:
        """Hand what was written to the reader, who may be gone."""
        with _stdout_errors():
            sys.stdout.flush()


@contextmanager
def _stdout_errors() -> Iterator[None]:
    try:
        yield
    except OSError as err:
        # Windows says "invalid argument" where the reader of a pipe is gone.
        if err.errno == errno.EPIPE or (sys.platform == "win32" and err.errno == errno.EINVAL):
            raise OutputClosedError from err
        if err.errno == errno.ENOSPC:
            raise NoSpaceError("there is no space left where the output goes") from err
        raise


def printable(text: str) -> str:
    """Return `text` with its control characters spelt out: names and messages come from other people, terminals obey them."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)


def has_colour(stream: IO[str]) -> bool:
    """Return whether `stream` may be coloured: a terminal, and no NO_COLOR (https://no-color.org) that is not empty."""
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb" and stream.isatty()


def prepare_streams() -> None:
    """Make stdout and stderr take any text: one odd file name must not end a listing."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")
    # Without any handler Python prints the warnings of azure-identity: a page about every credential it did not find.
    logging.getLogger("azure").addHandler(logging.NullHandler())
    warnings.showwarning = _show_warning  # type: ignore[assignment]  # it takes the same arguments, without naming them


def _show_warning(message: Warning | str, *_: object) -> None:
    # Where in the code it was raised is of no use to who types a command.
    print(f"warning: {printable(redact(str(message)))}", file=sys.stderr)


def log_to_stderr() -> None:
    """Show the library's log on stderr, secrets taken out."""

    class Redacting(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            return redact(super().format(record))

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Redacting("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.getLogger().addHandler(handler)
    logging.getLogger("vds").setLevel(logging.DEBUG)
