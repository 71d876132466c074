"""The paths that scripts write: cleaned of what leads them, and the globs among them (`*`, `?`, `[ab]`, `**`)."""

from __future__ import annotations

import posixpath
import re
from functools import lru_cache

from vds.azureml.exceptions import UserErrorException
from vds.errors import InvalidInputError
from vds.model.path import EntryPath, directory_path

_LEADING = re.compile(r"^(\.*[/\\])*")
_MAGIC = re.compile(r"[*?[]")


def clean_path(path: str | None, what: str = "path") -> EntryPath:
    """Return a place in a datastore as entries are named: `/`-separated, nothing before it, no `.` and no `..` in it.

    What leads it (`/`, `./`, `../`) is dropped, as the SDK does; a `..` further in is resolved, where the SDK makes blobs that
    are called so.

    Raises:
        UserErrorException: it climbs out of the datastore, or cannot be a path there.
    """
    if path is None:
        return EntryPath("")
    if not isinstance(path, str):
        raise UserErrorException(f"{what} must be text, not {path!r}", hint='for example "raw/2024"')
    rest = _LEADING.sub("", path, count=1).replace("\\", "/")
    normal = posixpath.normpath(rest) if rest else ""
    if normal == ".." or normal.startswith("../"):
        raise UserErrorException(f"{what} {path!r} climbs out of the datastore")
    try:
        return directory_path("" if normal == "." else normal)
    except InvalidInputError as err:
        raise UserErrorException(err.message, hint=err.hint) from err


def has_magic(path: str) -> bool:
    """Return whether a path may be meant as a glob."""
    return _MAGIC.search(path) is not None


def fixed_part(path: str) -> str:
    """Return the directory above the first segment that is a glob: `a/b/*.csv` → `a/b`."""
    fixed: list[str] = []
    for segment in path.split("/")[:-1]:
        if has_magic(segment):
            break
        fixed.append(segment)
    return "/".join(fixed)


@lru_cache(maxsize=256)
def glob_regex(pattern: str) -> re.Pattern[str]:
    """Return what a glob matches: `*` and `?` within one segment, `**` as a segment for any number of them."""
    out: list[str] = []
    segments = pattern.split("/")
    for number, segment in enumerate(segments):
        is_last = number == len(segments) - 1
        if segment == "**":
            out.append(r".+" if is_last else r"(?:[^/]+/)*")
            continue
        out.append(_segment_regex(segment) + ("" if is_last else "/"))
    return re.compile("".join(out) + r"\Z", re.DOTALL)


def _segment_regex(segment: str) -> str:
    out: list[str] = []
    position = 0
    while position < len(segment):
        character = segment[position]
        end = segment.find("]", position + 2) if character == "[" else -1
        if character == "*":
            out.append("[^/]*")
        elif character == "?":
            out.append("[^/]")
        elif end > 0:
            out.append(_set_regex(segment[position + 1 : end]))
            position = end
        else:
            out.append(re.escape(character))
        position += 1
    return "".join(out)


def _set_regex(inner: str) -> str:
    safe = inner.replace("\\", "\\\\").replace("[", "\\[").replace("^", "\\^")
    return f"[^{safe[1:]}]" if safe.startswith("!") else f"[{safe}]"
