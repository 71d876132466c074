"""`vds.lock`: which version each ref meant when it was locked. Kept with the code, so it reads and merges well as text.

    format = 1

    [refs."customers:prod"]
    store = "01JZ…"
    …

One table a ref, sorted; no times, nothing of the machine, no secret: the same refs and versions give the same bytes.
"""

from __future__ import annotations

import json
import re
import reprlib
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from vds.errors import FormatError, InvalidInputError
from vds.model.digest import Digest
from vds.model.fields import INT64_MAX
from vds.model.path import EntryPath, directory_path
from vds.model.ref import Ref, parse_name, parse_ref

T = TypeVar("T")

LOCK_NAME = "vds.lock"
FORMAT = 1
TEXT_CHARS_MAX = 8 * 1024 * 1024
"""Some ten thousand refs."""
_HEAD = f"# Written by `vds lock`: keep it with your code. `vds lock --check` says what has moved since.\nformat = {FORMAT}\n"
_ORDER = ("store", "url", "name", "release", "namespace", "version", "path", "digest", "content_digest", "files", "bytes")
_CONTROL = re.compile("[\x7f-\x9f]")


@dataclass(frozen=True, slots=True)
class LockedRow:
    """What one ref meant when it was locked.

    Attributes:
        ref: as it was asked for.
        store: the store's id.
        url: where the store was, without any secret.
        name: of the dataset, or of the namespace.
        release: of the dataset; None for a ref to a namespace.
        path: the directory of the version that was released; empty for all of it.
        digest: of the version's history.
        content_digest: of what it holds at `path`, as are the next two.
    """

    ref: str
    store: str
    url: str
    name: str
    release: int | None
    namespace: str
    version: int
    path: EntryPath
    digest: Digest
    content_digest: Digest
    files: int
    bytes: int

    @property
    def label(self) -> str:
        """The number that people know it by: of the release, or of the namespace's version."""
        return str(self.version if self.release is None else self.release)


def format_lock(rows: Iterable[LockedRow]) -> str:
    """Return the text of a lock file."""
    return "\n".join([_HEAD, *(_table(row) for row in sorted(rows, key=lambda row: row.ref))])


def _table(row: LockedRow) -> str:
    lines = [f"[refs.{_quoted(row.ref)}]"]
    for key in _ORDER:
        value = getattr(row, key)
        if value is not None:
            lines.append(f"{key} = {value if isinstance(value, int) else _quoted(str(value))}")
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    # A JSON string is a TOML basic string, but for the control characters that JSON lets stand.
    return _CONTROL.sub(lambda match: f"\\u{ord(match.group()):04x}", json.dumps(text, ensure_ascii=False))


def parse_lock(text: str, where: str) -> dict[Ref, LockedRow]:
    """Return the rows of a lock file by what their refs mean; `where` names the file in errors.

    Raises:
        FormatError: a newer vds wrote it.
        InvalidInputError: it was damaged; the line or key is named.
    """
    if len(text) > TEXT_CHARS_MAX:
        raise _damaged(f"{where} has {len(text)} characters, the limit is {TEXT_CHARS_MAX}")
    try:
        raw = tomllib.loads(text)
    except (ValueError, RecursionError) as err:  # a number of too many digits is a ValueError, but no TOMLDecodeError
        raise _damaged(f"{where} is not TOML: {err}") from err
    found = raw.pop("format", None)
    if isinstance(found, bool) or not isinstance(found, int) or found < 1:
        raise _damaged(f"{where}: 'format' is {reprlib.repr(found)}, expected {FORMAT}")
    refs = raw.pop("refs", {})
    if found > FORMAT or raw:
        what = f"format {found}" if found > FORMAT else f"the key {next(iter(raw))!r}"
        raise FormatError(f"{where} has {what}, which this vds does not know", hint="pip install --upgrade vds")
    if not isinstance(refs, dict):
        raise _damaged(f"{where}: 'refs' must hold tables")
    rows: dict[Ref, LockedRow] = {}
    for ref, table in refs.items():
        row, parsed = _row(ref, table, f"{where}: refs.{_quoted(ref)}")
        if parsed in rows:
            raise _damaged(f"{where}: {rows[parsed].ref!r} and {ref!r} mean the same")
        rows[parsed] = row
    return rows


def _row(ref: str, table: object, where: str) -> tuple[LockedRow, Ref]:
    if not isinstance(table, dict):
        raise _damaged(f"{where} must be a table")
    for key in table:
        if key not in _ORDER:
            raise FormatError(f"{where} has the key {key!r}, which this vds does not know", hint="pip install --upgrade vds")
    try:
        parsed = parse_ref(ref)
    except InvalidInputError as err:
        raise _damaged(f"{where}: {err}") from err
    row = LockedRow(
        ref=ref,
        store=_text(table, "store", where),
        url=_text(table, "url", where),
        name=_parsed(parse_name, table, "name", where),
        release=_number(table, "release", where) if "release" in table else None,
        namespace=_parsed(parse_name, table, "namespace", where),
        version=_number(table, "version", where),
        path=_parsed(directory_path, table, "path", where),
        digest=_parsed(Digest, table, "digest", where),
        content_digest=_parsed(Digest, table, "content_digest", where),
        files=_number(table, "files", where),
        bytes=_number(table, "bytes", where),
    )
    return row, parsed


def _parsed(parse: Callable[[str], T], table: Mapping[str, object], key: str, where: str) -> T:
    text = _text(table, key, where)
    try:
        return parse(text)
    except ValueError as err:  # InvalidInputError is one
        raise _damaged(f"{where}: {key!r}: {err}") from err


def _text(table: Mapping[str, object], key: str, where: str) -> str:
    value = table.get(key)
    if not isinstance(value, str):
        raise _damaged(f"{where}: {key!r} is {reprlib.repr(value)}, expected a text")
    return value


def _number(table: Mapping[str, object], key: str, where: str) -> int:
    value = table.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= INT64_MAX:
        raise _damaged(f"{where}: {key!r} is {reprlib.repr(value)}, expected a whole number")
    return value


def _damaged(message: str) -> InvalidInputError:
    return InvalidInputError(message, hint="undo the edit, or lock these refs anew: vds lock REF...")
