"""Find the files to upload, in the order of their entry paths.

Symlinks to files are read as content; symlinked directories are not followed, and are reported. Whatever cannot be an entry is a
failure with its reason, never silently left out. The directory `.vds` of the scanned root is vds's own and no content.
"""

from __future__ import annotations

import os
import stat
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from vds.errors import InvalidInputError
from vds.files.folders import is_junction
from vds.model.entry import MODE_EXECUTABLE, MODE_FILE
from vds.model.path import EntryPath, entry_path
from vds.model.patterns import PathFilter, Patterns, path_filter

OWN_DIRECTORY = ".vds"
Look = Callable[[str], os.stat_result]
_ANY_EXECUTE = stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH


class SourceFile(NamedTuple):
    """One regular file as it was found (a named tuple: a million are made, at a third of a frozen dataclass's cost).

    Attributes:
        path: relative to the scanned root, `/`-separated, in NFC.
        os_path: what to open; its name may have another Unicode form.
        size_bytes: when it was found.
        modified_ns: its mtime.
        changed_ns: its ctime (on Windows the time of its creation).
        inode: 0 where the file system has none.
        mode: MODE_FILE or MODE_EXECUTABLE.
    """

    path: EntryPath
    os_path: str
    size_bytes: int
    modified_ns: int
    changed_ns: int
    inode: int
    mode: int


@dataclass
class ScanReport:
    """What a scan met besides files; filled while it runs.

    Attributes:
        failures: path → why it cannot be uploaded. Bytes that are no text are shown as `\\xNN`.
        symlinked_directories: paths that were not followed.
        files: how many were found.
    """

    failures: dict[str, str] = field(default_factory=dict)
    symlinked_directories: list[str] = field(default_factory=list)
    files: int = 0


def scan_directory(
    root: str | os.PathLike[str],
    report: ScanReport,
    *,
    allow_patterns: Patterns = None,
    ignore_patterns: Patterns = None,
    follow_symlinks: bool = True,
) -> Iterator[SourceFile]:
    """Yield the regular files below `root`, sorted by the UTF-8 bytes of their entry paths.

    Lazy: one directory's names are held for each level. What is ignored by a pattern is not looked at, so it cannot fail.
    Without `follow_symlinks` every symlink is a failure, as other special files are.

    Raises:
        InvalidInputError: at once, when `root` is not a directory or a pattern is not one.
    """
    wanted = path_filter(allow_patterns, ignore_patterns)
    text = os.fspath(root)
    if not os.path.lexists(text):
        raise InvalidInputError(
            f"directory {text!r} does not exist", hint="check src_dir, and that the job ran that was to make it"
        )
    if not os.path.isdir(text):
        raise InvalidInputError(f"{text!r} is not a directory", hint=f"for single files use upload_files([{text!r}])")
    return _walk(text, report, wanted, os.stat if follow_symlinks else os.lstat)


def scan_files(
    files: Iterable[str | os.PathLike[str]], relative_root: str | os.PathLike[str] | None, report: ScanReport
) -> Iterator[SourceFile]:
    """Yield these files, sorted by their entry paths relative to `relative_root`; one named twice comes once.

    Args:
        files: paths; a missing one becomes a failure.
        relative_root: a directory above all of them; None for the deepest one.
        report: filled while the iterator runs.

    Raises:
        InvalidInputError: at once, when a file is outside `relative_root` or is a directory.
    """
    paths = sorted({os.path.abspath(os.fspath(path)) for path in files})
    for path in paths:
        if os.path.isdir(path):
            raise InvalidInputError(f"{path!r} is a directory", hint=f"use upload({path!r}) for a directory")
    if not paths:
        return iter(())
    root = scan_root(paths, relative_root)
    by_name: dict[str, list[str]] = {}
    for path in paths:
        name = _relative(path, root)
        by_name.setdefault(unicodedata.normalize("NFC", name), []).append(path)
    return _listed(by_name, report)


def scan_root(files: Iterable[str | os.PathLike[str]], relative_root: str | os.PathLike[str] | None) -> str:
    """Return the absolute directory that the entry paths of `scan_files` are relative to.

    Raises:
        InvalidInputError: the files have no directory in common.
    """
    paths = [os.path.abspath(os.fspath(path)) for path in files]
    if relative_root is not None or not paths:
        return os.path.abspath(os.fspath(relative_root or "."))
    return _common_directory(paths)


def _common_directory(paths: list[str]) -> str:
    try:
        return os.path.commonpath([os.path.dirname(path) for path in paths])
    except ValueError as err:  # different drives on Windows
        raise InvalidInputError(f"the files have no common directory: {err}", hint="upload them in one call a drive") from err


def _relative(path: str, root: str) -> str:
    try:
        is_inside = os.path.commonpath([path, root]) == root and path != root
    except ValueError:
        is_inside = False
    if not is_inside:
        raise InvalidInputError(f"file {path!r} is outside relative_root {root!r}", hint="give a directory above all files")
    return os.path.relpath(path, root).replace(os.sep, "/")


def _listed(by_name: dict[str, list[str]], report: ScanReport) -> Iterator[SourceFile]:
    for name in sorted(by_name):
        if len(by_name[name]) > 1:
            report.failures[shown(name)] = _clash(by_name[name])
        elif (file := _examine(name, by_name[name][0], report, os.stat)) is not None:
            yield file


def _walk(root: str, report: ScanReport, wanted: PathFilter, look: Look) -> Iterator[SourceFile]:
    # A stack instead of recursion: trees may be deeper than Python's own stack, and each level of `yield from` costs.
    levels = [_Level(root, "", report)]
    while levels:
        level = levels[-1]
        for name in level.names:
            path = level.prefix + name
            if name[-1] != "/":
                if (wanted.takes_all or wanted.takes(path)) and (file := _examine(path, level.os_path(name), report, look)):
                    yield file
            elif _is_entered(path[:-1], report, wanted):
                levels.append(_Level(level.os_path(name), path, report))
                break
        else:
            levels.pop()


def _is_entered(path: str, report: ScanReport, wanted: PathFilter) -> bool:
    if path == OWN_DIRECTORY or wanted.prunes(path):
        return False
    try:
        entry_path(path)
    except InvalidInputError as err:
        report.failures[shown(path)] = err.message
        return False
    return True


class _Level:
    """One open directory of a walk: the names still to come, directories ending in `/` so that they sort as their files do."""

    def __init__(self, directory: str, prefix: str, report: ScanReport) -> None:
        self.prefix = prefix
        self._directory = os.path.join(directory, "")
        self._raw: dict[str, str] = {}  # NFC form → the name on disk, where they may differ
        self.names = iter(sorted(self._list(report)))

    def os_path(self, name: str) -> str:
        """Return the path to open for a name of this level."""
        plain = name[:-1] if name[-1] == "/" else name
        return self._directory + self._raw.get(plain, plain)

    def _list(self, report: ScanReport) -> list[str]:
        names: list[str] = []
        try:
            with os.scandir(self._directory) as entries:
                for entry in entries:
                    name = entry.name
                    if not name.isascii():
                        name = self._normalise(name)
                    names.append(f"{name}/" if _is_directory(entry) else name)
        except OSError as err:
            report.failures[shown(self.prefix.rstrip("/") or ".")] = f"cannot be listed: {err.strerror or err}"
            return []
        return self._without_clashes(names, report)

    def _normalise(self, raw: str) -> str:
        name = unicodedata.normalize("NFC", raw)
        if name in self._raw:
            self._raw[name] += f"\0{raw}"  # a name cannot hold NUL: marks a clash without a second table
        else:
            self._raw[name] = raw
        return name

    def _without_clashes(self, names: list[str], report: ScanReport) -> list[str]:
        clashes = {name: raw.split("\0") for name, raw in self._raw.items() if "\0" in raw}
        for name, raws in clashes.items():
            report.failures[shown(self.prefix + name)] = _clash(raws)
        return [name for name in names if name.rstrip("/") not in clashes] if clashes else names


def _is_directory(entry: os.DirEntry[str]) -> bool:
    if not entry.is_dir(follow_symlinks=False):
        return False
    return os.name != "nt" or not is_junction(entry.stat(follow_symlinks=False))


def _examine(path: str, os_path: str, report: ScanReport, look: Look) -> SourceFile | None:
    try:
        parsed = entry_path(path)
        found = look(os_path)
    except InvalidInputError as err:
        report.failures[shown(path)] = err.message
        return None
    except OSError as err:
        report.failures[shown(path)] = _broken(os_path, err)
        return None
    mode = found.st_mode
    if not stat.S_ISREG(mode):
        if stat.S_ISDIR(mode):
            report.symlinked_directories.append(path)
        else:
            report.failures[shown(path)] = f"is {_kind(mode)}, not a regular file"
        return None
    report.files += 1
    return SourceFile(
        parsed,
        os_path,
        found.st_size,
        found.st_mtime_ns,
        found.st_ctime_ns,
        found.st_ino,
        # Windows reports execute bits by the ending of the name, which says nothing about the file.
        MODE_EXECUTABLE if mode & _ANY_EXECUTE and os.name != "nt" else MODE_FILE,
    )


def _broken(os_path: str, err: OSError) -> str:
    if os.path.islink(os_path):
        return f"is a broken symlink to {os.readlink(os_path)!r}"
    return f"cannot be read: {err.strerror or err}"


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFLNK: "a symlink",
        stat.S_IFSOCK: "a socket",
        stat.S_IFIFO: "a named pipe",
        stat.S_IFBLK: "a block device",
        stat.S_IFCHR: "a device",
    }
    return kinds.get(stat.S_IFMT(mode), "a special file")


def _clash(names: list[str]) -> str:
    listed = " and ".join(ascii(name) for name in sorted(names))
    return f"{listed} are the same name in Unicode NFC: rename one"


def shown(path: str) -> str:
    """Return a path that any terminal, file or pickle can hold: bytes that are not UTF-8 become `\\xNN`."""
    return path if path.isascii() else path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
