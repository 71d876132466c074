"""Names of files inside a version.

An entry path is relative, `/`-separated, in Unicode NFC, and can be written on any POSIX file system. What a target (Windows, a
disk blind to case) cannot hold is legal in a version and is found by `find_unholdable` before the first byte is written there.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import NewType

from vds.errors import InvalidInputError

EntryPath = NewType("EntryPath", str)

PATH_BYTES_MAX = 1024  # Azure's own limit for a blob name, in characters; bytes are stricter
SEGMENT_BYTES_MAX = 255  # NAME_MAX of ext4, xfs, APFS and NTFS

_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._ +=@-]*(?:/[A-Za-z0-9_][A-Za-z0-9._ +=@-]*)*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_WINDOWS_DEVICE = re.compile(r"(?i)(?:con|prn|aux|nul|conin\$|conout\$|com[0-9¹²³]|lpt[0-9¹²³])(?:\..*)?")
_WINDOWS_FORBIDDEN = re.compile(r'[<>:"|?*]')


def entry_path(text: str) -> EntryPath:
    """Parse the name of one file inside a version.

    Raises:
        InvalidInputError: `text` is empty, absolute, climbs (`..`), holds a backslash or a control character, is not valid
            Unicode, or is longer than 1 024 bytes (255 a segment).
    """
    path = _parse(text)
    if not path:
        raise InvalidInputError("a path inside a version must not be empty", hint="name a file, for example data/part-0.csv")
    return path


def directory_path(text: str | None) -> EntryPath:
    """Parse a place inside a version: a file, a directory, or the root (None, "", "." or "./").

    Raises:
        InvalidInputError: as `entry_path`.
    """
    if text is None:
        return EntryPath("")
    while text.startswith("./"):
        text = text[2:]
    return _parse("" if text == "." else text.rstrip("/") if text.strip("/") else text)


def _parse(text: str) -> EntryPath:
    if len(text) <= SEGMENT_BYTES_MAX and _PLAIN.fullmatch(text):
        return EntryPath(text)  # the usual case, at a tenth of the cost
    reason = _find_fault(text)
    if reason:
        raise InvalidInputError(f"path {text!r} {reason}", hint="paths inside a version are relative, like train/0001.png")
    return EntryPath(unicodedata.normalize("NFC", text))


def _find_fault(text: str) -> str | None:
    if not text:
        return None
    if "\\" in text:
        return "holds a backslash; directories are separated by /"
    if text.startswith("/"):
        return "is absolute"
    if control := _CONTROL.search(text):
        return f"holds the control character {control.group()!r}"
    try:
        normal = unicodedata.normalize("NFC", text)
        encoded = normal.encode()
    except UnicodeEncodeError:
        return "is not valid Unicode (the file's name is not UTF-8)"
    if len(encoded) > PATH_BYTES_MAX:
        return f"is {len(encoded)} bytes long, the limit is {PATH_BYTES_MAX}"
    for segment in normal.split("/"):
        if segment in ("", ".", ".."):
            return f"has the segment {segment!r}"
        if len(segment.encode()) > SEGMENT_BYTES_MAX:
            return f"has a segment of {len(segment.encode())} bytes, the limit is {SEGMENT_BYTES_MAX}"
    return None


def join(directory: str, path: str) -> EntryPath:
    """Return `path` under `directory`; both are parsed already, and either may be the root."""
    return EntryPath(f"{directory}/{path}" if directory and path else directory or path)


def is_under(path: str, directory: str) -> bool:
    """Return whether `path` is `directory` or lies below it; the root holds everything."""
    return not directory or path == directory or path.startswith(directory + "/")


def relative_to(path: str, directory: str) -> EntryPath:
    """Return `path` as seen from `directory`; a file seen from itself keeps its last segment."""
    assert is_under(path, directory), (path, directory)
    if not directory:
        return EntryPath(path)
    return EntryPath(path[len(directory) + 1 :] if path != directory else path.rpartition("/")[2])


def ancestors(path: str) -> list[str]:
    """Return the directories above `path`, nearest last: `a/b/c` → `a`, `a/b`."""
    parts = path.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]


def range_below(directory: str) -> tuple[str, str]:
    """Return (first, end) such that the paths strictly below `directory` are `first <= path < end` in byte order.

    "0" is the character after "/", so `a/…` lies in [`a/`, `a0`): a range that an ordered index serves, unlike LIKE.
    """
    return (f"{directory}/", f"{directory}0") if directory else ("", "\U0010ffff")


def find_unholdable(paths: Iterable[str], *, windows: bool, case_blind: bool) -> dict[str, str]:
    """Return the paths that a target cannot hold, each with the reason.

    Args:
        paths: entry paths in sorted order.
        windows: refuse device names, `:` and its kin, and names that end in a dot or a space.
        case_blind: refuse names that differ only in case from an earlier one, directories included.
    """
    faults: dict[str, str] = {}
    seen: dict[str, str] = {}
    for path in paths:
        if windows and (reason := _find_windows_fault(path)):
            faults[path] = reason
        if case_blind:
            for name in (*ancestors(path), path):
                other = seen.setdefault(name.casefold(), name)
                if other != name:
                    faults[path] = f"differs only in case from {other!r}"
                    break
    return faults


def _find_windows_fault(path: str) -> str | None:
    for segment in path.split("/"):
        if _WINDOWS_DEVICE.fullmatch(segment.rstrip(" .")):
            return f"{segment!r} is a device name on Windows"
        if forbidden := _WINDOWS_FORBIDDEN.search(segment):
            return f"{forbidden.group()!r} cannot be part of a file name on Windows"
        if segment[-1] in " .":
            return f"{segment!r} ends in a dot or a space, which Windows drops"
    return None
