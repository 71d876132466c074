"""What is known of bytes before they are sent, and what is said when they turn out to be others."""

from __future__ import annotations

from typing import NamedTuple

from vds.errors import InvalidInputError


class Member(NamedTuple):
    """One object inside a blob or a buffer (a named tuple: a million are made, and sorted by their digests)."""

    digest: bytes
    offset_bytes: int
    length_bytes: int


class SourceChangedError(InvalidInputError):
    """A file changed while it was being read. Nothing of it was stored."""

    kind = "source-changed"


CHANGED_HINT = "upload again once nothing writes to it"
