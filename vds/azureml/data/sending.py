"""Which local files an upload means, and the lines that the SDK prints about them: same texts, same order."""

from __future__ import annotations

import itertools
import os
import unicodedata
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from vds.azureml.exceptions import UserErrorException

PathText = str | os.PathLike[str]
OWN_DIRECTORY = ".vds"
"""vds's own directory in a working directory; no content."""


@dataclass(frozen=True)
class LocalFiles:
    """The files of an upload, in the SDK's order. Thousands are looked over, so each is no more than a text.

    Attributes:
        root: what their paths are relative to: an absolute path, or a piece of text that all of `shown` begin with.
        shown: their local paths, as the SDK prints them.
    """

    root: str
    shown: list[str]
    relative: list[str] | None = None

    @cached_property
    def paths(self) -> list[str]:
        """Their paths relative to the root, `/`-separated, in NFC."""
        start = len(self.root) + 1
        found = self.relative if self.relative is not None else [text[start:].replace(os.sep, "/") for text in self.shown]
        return [path if path.isascii() else unicodedata.normalize("NFC", path) for path in found]


def list_directory(src_dir: PathText) -> LocalFiles:
    """Return the files of a directory, in the order of os.walk.

    Raises:
        UserErrorException: it is no directory, or holds what is no file (a broken symlink, a socket).
    """
    root = os.fspath(src_dir).rstrip("/\\")
    if not os.path.isdir(root):
        raise UserErrorException(
            "src_path must be a directory.", hint=f"{os.fspath(src_dir)!r} is none; for single files: upload_files([…])"
        )
    found: list[str] = []
    pending = [root]
    while pending:
        directory = pending.pop()
        inner = _look_into(directory, found)
        if directory == root:
            inner = [path for path in inner if os.path.basename(path) != OWN_DIRECTORY]
        # A symlink to a directory is one to os.walk too, which does not enter it.
        pending += reversed([path for path in inner if not os.path.islink(path)])
    return LocalFiles(root, found)


def _look_into(directory: str, found: list[str]) -> list[str]:
    """Add a directory's files to `found`, and return its directories."""
    inner: list[str] = []
    try:
        entries = os.scandir(directory)
    except OSError:
        return []  # the upload itself meets it, and names it
    with entries:
        for entry in entries:
            if entry.is_file():
                found.append(entry.path)
            elif entry.is_dir():
                inner.append(entry.path)
            else:
                raise _no_file(entry.path)
    return inner


def list_files(files: Iterable[PathText], relative_root: PathText | None) -> LocalFiles:
    """Return files in their order, each once.

    Where the SDK keeps whole paths, because the files have nothing in common as they are written, these are relative to the
    working directory, or to the deepest directory above all of them where one is outside of it.

    Raises:
        UserErrorException: one is no file, or outside of `relative_root`.
    """
    shown = list(dict.fromkeys(os.fspath(file) for file in _as_list(files)))
    root = os.path.abspath(_find_root(shown, None if relative_root is None else os.fspath(relative_root)))
    found = []
    for file in shown:
        relative = _relative(os.path.abspath(file), root)
        if relative is None:
            raise UserErrorException(f"relative_root: '{relative_root}' is not part of the file_path: '{file}'.")
        if not os.path.isfile(file):
            raise _no_file(file)
        found.append(relative)
    return LocalFiles(root, shown, found)


def _as_list(files: Iterable[PathText]) -> Iterable[PathText]:
    if isinstance(files, str | bytes | os.PathLike):
        raise UserErrorException(f"files must be a list of paths, not {files!r}", hint=f"upload_files([{files!r}])")
    return files


def _find_root(shown: Sequence[str], relative_root: str | None) -> str:
    if relative_root and relative_root != "/":
        return relative_root
    if not shown:
        return "."
    if not relative_root:
        if len(shown) == 1:
            return os.path.dirname(shown[0]) or "."
        if common := _common_text(shown):
            return common
    # The SDK keeps whole paths from here on.
    above = os.path.commonpath([os.path.dirname(os.path.abspath(file)) for file in shown])
    if any(map(os.path.isabs, shown)):
        return "/" if all(map(os.path.isabs, shown)) else above
    here = os.getcwd()
    return here if _relative(above, here) is not None or above == here else above


def _common_text(shown: Sequence[str]) -> str:
    """Return what paths have in common as they are written, whole segments; empty when that is nothing."""
    split = [os.path.dirname(file).split(os.sep) for file in shown]
    shared = itertools.takewhile(lambda column: len(set(column)) == 1, zip(*split, strict=False))
    common = [column[0] for column in shared]
    if common == [""]:
        return "/" if os.path.isabs(shown[0]) else ""
    return os.sep.join(common)


def _relative(path: str, root: str) -> str | None:
    try:
        if os.path.commonpath([path, root]) != root or path == root:
            return None
    except ValueError:  # different drives on Windows
        return None
    return os.path.relpath(path, root).replace(os.sep, "/")


def _no_file(path: str) -> UserErrorException:
    return UserErrorException(
        f"'{path}' does not point to a file. Please upload the file to cloud first if running in a cloud notebook.",
        hint=f"it is a symlink to {os.readlink(path)!r}, which is not there" if os.path.islink(path) else "nothing was uploaded",
    )


def first_line(files: LocalFiles) -> str:
    """Return what the SDK prints before an upload."""
    return f"Uploading an estimated of {len(files.shown)} files"


def upload_lines(files: LocalFiles, target: str, skipped: Container[str]) -> list[str]:
    """Return what the SDK prints of an upload.

    Args:
        files: in their order.
        target: where they went.
        skipped: the paths (relative to what was uploaded) that were there already.
    """
    total = len(files.shown)
    if not skipped:
        sent = [
            f"Uploading {shown}\nUploaded {shown}, {count} files out of an estimated total of {total}"
            for count, shown in enumerate(files.shown, 1)
        ]
        return [*sent, f"Uploaded {total} files"]
    prefix = f"{target}/" if target else ""
    lines, totals = [], []
    for shown, path in zip(files.shown, files.paths, strict=True):
        if path in skipped:
            total -= 1
            lines.append(f"Target already exists. Skipping upload for {prefix}{path}")
        else:
            totals.append((shown, total))  # the total as it was when the SDK came to this file
    for count, (shown, of) in enumerate(totals, 1):
        lines.append(f"Uploading {shown}")
        lines.append(f"Uploaded {shown}, {count} files out of an estimated total of {of}")
    return [*lines, f"Uploaded {len(totals)} files"]
