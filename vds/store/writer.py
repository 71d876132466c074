"""What a transaction and a part have in common: files staged somewhere, in one call or in a single pass."""

from __future__ import annotations

import io
import os
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType

from vds.blobs.driver import Buffer
from vds.engine.doors import Doors
from vds.engine.outbox import OutgoingStream
from vds.engine.send import Sender
from vds.engine.session import Session
from vds.errors import InvalidInputError
from vds.index.plan import SourceView
from vds.model.path import EntryPath, directory_path, entry_path
from vds.model.patterns import Patterns
from vds.ops import transaction as ops
from vds.ops.upload import Source, directory_source, files_source, stage
from vds.progress import SilentProgress, open_progress
from vds.store.handle import Handle
from vds.store.source import find_source
from vds.store.version import Version


class Writer:
    """Stages files in one part of a session; thread-safe."""

    def __init__(self, handle: Handle, opened: Session) -> None:
        self._handle = handle
        self._opened = opened
        self._lock = threading.RLock()
        self._sender: Sender | None = None
        self._result = UploadTotals()
        self._open_paths: list[str] = []

    def upload(
        self,
        src_dir: str | os.PathLike[str],
        target_path: str | None = None,
        *,
        allow_patterns: Patterns = None,
        ignore_patterns: Patterns = None,
        show_progress: bool = True,
    ) -> None:
        """Stage a directory's files below `target_path`; all of them, or none.

        Raises:
            UploadError: some files could not be read; each is named, and this call staged nothing.
        """
        target = directory_path(target_path)
        source = directory_source(src_dir, target, allow_patterns=allow_patterns, ignore_patterns=ignore_patterns)
        self._stage(source, show_progress=show_progress)

    def upload_files(
        self,
        files: Iterable[str | os.PathLike[str]],
        relative_root: str | os.PathLike[str] | None = None,
        target_path: str | None = None,
        *,
        show_progress: bool = True,
    ) -> None:
        """Stage these files below `target_path`, each at its path relative to `relative_root`.

        Raises:
            UploadError: some files could not be read; each is named, and this call staged nothing.
        """
        self._stage(files_source(files, relative_root, directory_path(target_path)), show_progress=show_progress)

    def write_bytes(self, path: str, data: Buffer) -> None:
        """Stage one file with this content."""
        place = entry_path(path)
        with self._lock:
            ops.write_bytes(self._doors, self._opened, self._bytes_sender(), place, data, time.time_ns())
            self._settle()

    def write_text(self, path: str, text: str, encoding: str = "utf-8") -> None:
        """Stage one file with this text."""
        self.write_bytes(path, text.encode(encoding))

    def copy(self, source: Version | str, path: str = "") -> None:
        """Stage the entries of a version (or of a ref with a path) below `path`; no byte moves."""
        target = directory_path(path)
        version = find_source(self._handle, source)
        view = SourceView(version._resolved.namespace.id, version.number, version.path)
        with self._lock:
            ops.copy(self._doors, self._opened, view, target)

    def open(self, path: str, mode: str = "wb") -> IncomingFile:
        """Open one file for writing in a single pass; it is staged when it is closed without an error."""
        if mode != "wb":
            raise InvalidInputError(f"mode {mode!r} is not 'wb'", hint="for text: io.TextIOWrapper(tx.open(path))")
        place = entry_path(path)
        with self._lock:
            self._open_paths.append(place)
            return IncomingFile(self, place, self._bytes_sender().open_stream())

    @property
    def _doors(self) -> Doors:
        return self._handle.doors

    def _stage(self, source: Source, *, show_progress: bool) -> None:
        doors = self._doors
        title = f"upload to {self._opened.namespace.name}"
        with self._lock, open_progress(show_progress, title) as shown, Sender(doors, self._opened, shown) as sender:
            shown.upload()

            def fill(scratch: int) -> None:
                stage(doors, sender, scratch, source, progress=shown)
                sender.finish()

            ops.apply_scratch(doors, self._opened, fill)
            self._result.add(sender)

    def _bytes_sender(self) -> Sender:
        """Return the sender of single files: it lives as long as the transaction, so that they share packs."""
        if self._sender is None:
            self._sender = Sender(self._doors, self._opened, SilentProgress())
        return self._sender

    def _settle(self) -> None:
        """Called after each single file; a part or a joined transaction makes its bytes durable at once."""

    def _finish_bytes(self) -> None:
        if self._open_paths:
            raise InvalidInputError(f"{self._open_paths[0]!r} is still open for writing", hint="close it before the commit")
        if self._sender is not None:
            self._sender.finish()

    def _close_sender(self) -> None:
        if self._sender is not None:
            self._result.add(self._sender)
            self._sender.close()
            self._sender = None


@dataclass
class UploadTotals:
    """What the senders of one transaction did in all."""

    bytes_read: int = 0
    bytes_sent: int = 0
    bytes_new: int = 0
    bytes_saved: int = 0
    objects_new: int = 0

    def add(self, sender: Sender) -> None:
        """Take in what one sender did."""
        self.bytes_read += sender.tally.bytes_read
        self.bytes_sent += sender.tally.bytes_sent
        self.bytes_new += sender.tally.bytes_new
        self.bytes_saved += sender.tally.bytes_saved
        self.objects_new += sender.tally.objects_new


class IncomingFile(io.RawIOBase):
    """A file being written into a transaction; closing it stages it, an exception inside its `with` drops it."""

    def __init__(self, writer: Writer, path: EntryPath, stream: OutgoingStream) -> None:
        super().__init__()
        self._writer = writer
        self._path = path
        self._stream = stream
        self._failed = False

    def writable(self) -> bool:
        """True."""
        return True

    def write(self, data: Buffer) -> int:  # type: ignore[override]  # RawIOBase says "any buffer", which has no name before 3.12
        """Take in `data`, all of it."""
        if self.closed:
            raise ValueError("write to a closed file")
        return self._stream.write(data)

    def close(self) -> None:
        """Stage the file; again is harmless."""
        if self.closed:
            return
        try:
            writer = self._writer
            with writer._lock:
                writer._open_paths.remove(self._path)
                if not self._failed:
                    digest, size_bytes = self._stream.finish()
                    ops.put_digest(writer._doors, writer._opened, self._path, digest, size_bytes, time.time_ns())
        finally:
            self._stream.drop()
            super().close()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._failed = self._failed or kind is not None
        self.close()

    def __del__(self) -> None:
        self._failed = True  # never closed: what was written must not appear by accident
        super().__del__()
