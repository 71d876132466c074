"""Which local files an upload means, and the lines that the SDK prints about them: same texts, same order."""

from __future__ import annotations

import itertools
import os
import unicodedata
from collections.abc import Container, Iterable, Iterator, Sequence
from typing import NamedTuple

from vds.azureml.exceptions import UserErrorException

PathText = str | os.PathLike[str]
OWN_DIRECTORY = ".vds"
"""vds's own directory in a working directory; no content."""


class LocalFile(NamedTuple):
    """A file to upload.

    Attributes:
        shown: its local path, as the SDK prints it.
        path: relative to what is uploaded, `/`-separated, in NFC.
    """

    shown: str
    path: str


def list_directory(src_dir: PathText) -> tuple[str, list[LocalFile]]:
    """Return a directory as the SDK understands it, and its files in the order of os.walk.

    Raises:
        UserErrorException: it is no directory, or holds what is no file (a broken symlink, a socket).
    """
    root = os.fspath(src_dir).rstrip("/\\")
    if not os.path.isdir(root):
        raise UserErrorException(
            "src_path must be a directory.", hint=f"{os.fspath(src_dir)!r} is none; for single files: upload_files([…])"
        )
    found: list[LocalFile] = []
    pending = [(root, "")]
    while pending:
        directory, prefix = pending.pop()
        # A symlink to a directory is one to os.walk too, which does not enter it.
        pending += reversed([pair for pair in _look_into(directory, prefix, found) if not os.path.islink(pair[0])])
    return root, found


def _look_into(directory: str, prefix: str, found: list[LocalFile]) -> list[tuple[str, str]]:
    """Add a directory's files to `found`, and return its directories."""
    inner: list[tuple[str, str]] = []
    stem = os.path.join(directory, "")
    try:
        entries = os.scandir(directory)
    except OSError:
        return []  # the upload itself meets it, and names it
    with entries:
        for entry in entries:
            name = entry.name
            if entry.is_dir():
                if name != OWN_DIRECTORY or prefix:
                    inner.append((stem + name, f"{prefix}{name}/"))
                continue
            if not entry.is_file():
                raise _no_file(stem + name)
            path = prefix + name
            found.append(LocalFile(stem + name, path if path.isascii() else unicodedata.normalize("NFC", path)))
    return inner


def list_files(files: Iterable[PathText], relative_root: PathText | None) -> tuple[str, list[LocalFile]]:
    """Return the directory that paths are relative to, and the files in their order, each once.

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
        found.append(LocalFile(file, unicodedata.normalize("NFC", relative)))
    return root, found


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


def first_line(files: Sequence[LocalFile]) -> str:
    """Return what the SDK prints before an upload."""
    return f"Uploading an estimated of {len(files)} files"


def upload_lines(files: Sequence[LocalFile], target: str, skipped: Container[str]) -> Iterator[str]:
    """Yield what the SDK prints of an upload.

    Args:
        files: in their order.
        target: where they went.
        skipped: the paths (relative to what was uploaded) that were there already.
    """
    prefix = f"{target}/" if target else ""
    total, sent = len(files), []
    for file in files:
        if skipped and file.path in skipped:
            total -= 1
            yield f"Target already exists. Skipping upload for {prefix}{file.path}"
        else:
            sent.append((file.shown, total))  # the total as it was when the SDK came to this file
    for count, (shown, of) in enumerate(sent, 1):
        yield f"Uploading {shown}"
        yield f"Uploaded {shown}, {count} files out of an estimated total of {of}"
    yield f"Uploaded {len(sent)} files"
