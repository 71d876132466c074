"""Put files into a directory of the user's.

Guarantees:
- nothing outside the directory is touched: no symlink below the root is followed, at any level;
- each file appears whole or not at all, its bytes on the disk before its name (a crash leaves at most a file in `.vds/partial`);
- a directory is never replaced by a file, nor a file or symlink by a directory;
- the process's umask holds: nothing becomes readable to more people than the user's own files are.
"""

from __future__ import annotations

import os
import shutil
import stat
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType

from vds.errors import ConflictError, InvalidInputError, NoSpaceError
from vds.files.clone import clone, copy_checked, open_source
from vds.files.folders import Folders
from vds.files.placer import CREATE, READ, Buffer, Placer, Stamp, explained, refuse_other_kinds
from vds.files.read import hash_descriptor
from vds.files.scan import OWN_DIRECTORY
from vds.files.workdir import WorkDirectory, remove_empty
from vds.model.entry import MODE_EXECUTABLE, MODE_FILE
from vds.model.path import entry_path, find_unholdable, is_under


@dataclass(frozen=True, slots=True)
class FileState:
    """What stands at a path; `mode` is None where the system keeps none.

    Only `is_file` means something when it is not a regular file.
    """

    is_file: bool
    size_bytes: int
    modified_ns: int
    mode: int | None


class Target:
    """A directory that files are placed into; it is made when the first one is. Thread-safe; close it, or use it as a context."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self._folders = Folders(os.fspath(root))
        self._work: WorkDirectory | None = None
        self._placer: Placer | None = None
        self._lock = threading.Lock()

    @property
    def root(self) -> str:
        """The directory's absolute path."""
        return self._folders.root

    def is_empty(self) -> bool:
        """Return whether there is nothing in the directory, or no directory."""
        try:
            with os.scandir(self.root) as found:
                return next(found, None) is None
        except (FileNotFoundError, NotADirectoryError):
            return True
        except OSError:
            return False  # whoever reads or writes it finds out why

    def open(self) -> None:
        """Make the directory and check that it can be written; done by the first `place` otherwise.

        Raises:
            ConflictError: something that is not a directory stands there.
            InvalidInputError: it cannot be written.
        """
        self._open_work()

    @property
    def placer(self) -> Placer:
        """What writes files here; made with the directory, as `open` does."""
        self._open_work()
        assert self._placer is not None
        return self._placer

    @property
    def work_path(self) -> str:
        """The directory of temporary files, relative to the root; made as `open` does."""
        return self._open_work().path

    def place(self, path: str, chunks: Iterable[Buffer], *, mode: int, modified_ns: int) -> Stamp:
        """Write a file and put it at `path`, in place of the regular file that may stand there.

        Returns:
            By what it is known again.

        Raises:
            ConflictError: something that is not a regular file stands there, or on the way.
            NoSpaceError: the disk is full.
            OSError: the system refused; as with all errors, what stood at `path` is still there.
        """
        return self.placer.place(path, chunks, mode=mode, modified_ns=modified_ns)

    def place_file(
        self,
        path: str,
        source: str | os.PathLike[str],
        *,
        size_bytes: int,
        digest_raw: bytes,
        mode: int,
        modified_ns: int,
        is_linked: bool = False,
    ) -> Stamp:
        """Put a file with the content of `source` at `path`: sharing its bytes where the disk can, else a copy, as `place` does.

        Bytes that are shared are not read, but for the length of the file; those that are copied are checked.

        Args:
            path: where to.
            source: a regular file of this content, which nobody writes to.
            size_bytes: its size.
            digest_raw: its digest.
            mode: of the new file.
            modified_ns: its mtime.
            is_linked: where bytes cannot be shared make it a second name of `source`, with the mode (read-only) and mtime of that
                one; an executable file, which it would not be then, is copied.

        Raises:
            CorruptionError: `source` has another size, or turned out to have another content.
            FileNotFoundError: `source` is not there.
            ConflictError, NoSpaceError, OSError: as `place`.
        """
        placer = self.placer
        placer.check_place(path)
        descriptor = open_source(source, size_bytes)
        try:
            with explained(path), placer.begin(mode) as temporary:
                if not clone(descriptor, temporary.descriptor):
                    if is_linked and mode == MODE_FILE and placer.link(temporary, source):
                        return placer.finish(temporary, path, None)
                    copy_checked(descriptor, temporary.descriptor, digest_raw)
                return placer.finish(temporary, path, modified_ns)
        finally:
            os.close(descriptor)

    def remove(self, path: str) -> bool:
        """Remove a regular file and the directories that are empty then; False when it was not there.

        Raises:
            ConflictError: what stands there is not a regular file.
        """
        directory, name = _split(path)
        try:
            with self._folders.open(directory) as folder:
                refuse_other_kinds(folder, name, path)
                os.unlink(folder.at(name), dir_fd=folder.descriptor)
        except FileNotFoundError:
            return False
        remove_empty(self._folders, directory)
        return True

    def find_state(self, path: str) -> FileState | None:
        """Return what stands at `path`, or None when nothing does (or something else stands on the way)."""
        directory, name = _split(path)
        try:
            with self._folders.open(directory) as folder:
                found = os.stat(folder.at(name), dir_fd=folder.descriptor, follow_symlinks=False)
        except (FileNotFoundError, PermissionError, ConflictError):
            return None
        mode = None if os.name == "nt" else MODE_EXECUTABLE if found.st_mode & 0o111 else MODE_FILE
        return FileState(stat.S_ISREG(found.st_mode), found.st_size, found.st_mtime_ns, mode)

    def find_digest(self, path: str) -> bytes | None:
        """Return the raw digest of the regular file at `path`, or None when there is none or it cannot be read."""
        try:
            descriptor = self.find_file(path)
        except OSError:
            return None
        if descriptor is None:
            return None
        try:
            return hash_descriptor(descriptor)
        except OSError:
            return None
        finally:
            os.close(descriptor)

    def find_file(self, path: str) -> int | None:
        """Open the regular file at `path` for reading and return its descriptor, or None when there is none."""
        directory, name = _split(path)
        try:
            with self._folders.open(directory) as folder:
                if not stat.S_ISREG(os.stat(folder.at(name), dir_fd=folder.descriptor, follow_symlinks=False).st_mode):
                    return None
                descriptor = os.open(folder.at(name), READ, dir_fd=folder.descriptor)
        except (FileNotFoundError, ConflictError):
            return None
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            return descriptor
        os.close(descriptor)
        return None

    def round_up(self, sizes_bytes: Iterable[int]) -> int:
        """Return how much room files of these sizes take up: whole blocks of the file system."""
        block_bytes = self._room()[1]
        return sum([-(-size_bytes // block_bytes) for size_bytes in sizes_bytes]) * block_bytes

    def check_space(self, needed_bytes: int, *, files: int = 0, replaced_bytes: int = 0) -> None:
        """Check that the disk has room.

        Args:
            needed_bytes: for everything that is to be placed.
            files: how many those are.
            replaced_bytes: of files that are replaced, to be named in the error: each is freed only once the new one is there.

        Raises:
            NoSpaceError: it has not.
        """
        free_bytes, _, free_files = self._room()
        reasons = []
        if needed_bytes > free_bytes:
            later = f" (and {replaced_bytes} in files that are freed only as they are replaced)" if replaced_bytes else ""
            reasons.append(f"{needed_bytes} bytes and has {free_bytes} free{later}")
        if free_files is not None and files > free_files:
            reasons.append(f"{files} files and has room for {free_files}")
        if reasons:
            raise NoSpaceError(
                f"{self.root!r} needs {' and '.join(reasons)}",
                needed_bytes=needed_bytes,
                free_bytes=free_bytes,
                hint="free some space, or choose another disk",
            )

    def _room(self) -> tuple[int, int, int | None]:
        """Return the free bytes, the size of a block, and how many files can be made, where that has a limit."""
        existing = self.root
        while not os.path.exists(existing):
            existing = os.path.dirname(existing)
        if not hasattr(os, "statvfs"):
            return shutil.disk_usage(existing).free, 1, None
        found = os.statvfs(existing)
        block_bytes = found.f_frsize or 1
        return found.f_bavail * block_bytes, block_bytes, found.f_favail if found.f_files else None

    def find_unholdable(self, paths: Iterable[str]) -> dict[str, str]:
        """Return the paths that cannot be placed here, each with the reason; `paths` come sorted.

        Whether the disk is blind to case is found out by making a file, but only in a directory that is there.
        """
        case_blind = os.path.isdir(self.root) and self._is_case_blind()
        kept = list(paths)
        faults = find_unholdable(kept, windows=os.name == "nt", case_blind=case_blind)
        for path in kept:
            if is_under(path.casefold() if case_blind else path, OWN_DIRECTORY):
                faults[path] = f"{OWN_DIRECTORY!r} is where vds keeps its own records in a directory"
        return faults

    def close(self) -> None:
        """Remove what was temporary; idempotent."""
        if self._work is not None:
            self._work.close()
            self._work = self._placer = None
        self._folders.close()

    def __enter__(self) -> Target:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _open_work(self) -> WorkDirectory:
        if self._work is not None:
            return self._work
        with self._lock:
            if self._work is None:
                try:
                    work = WorkDirectory(self._folders)
                except OSError as err:
                    raise InvalidInputError(
                        f"{self.root!r} cannot be written: {err.strerror or err}", hint="choose a directory that you may write"
                    ) from err
                self._placer = Placer(self._folders, work.folder)
                self._work = work
            return self._work

    def _is_case_blind(self) -> bool:
        folder = self._open_work().folder
        os.close(os.open(folder.at("case-probe"), CREATE, 0o600, dir_fd=folder.descriptor))
        try:
            os.stat(folder.at("CASE-PROBE"), dir_fd=folder.descriptor)
        except FileNotFoundError:
            return False
        finally:
            os.unlink(folder.at("case-probe"), dir_fd=folder.descriptor)
        return True


def _split(path: str) -> tuple[str, str]:
    # Parsed again although every caller has parsed it: a path from a damaged or hostile store must not climb out of the root.
    directory, _, name = entry_path(path).rpartition("/")
    return directory, name
