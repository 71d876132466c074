"""What is known of bytes before they are sent, and what is said when they turn out to be others."""

from __future__ import annotations

from typing import NamedTuple

from vds.errors import InvalidInputError
from vds.model.digest import Digest


class Member(NamedTuple):
    """One object inside a blob or a buffer (a named tuple: a million are made, and sorted by their digests)."""

    digest: bytes
    offset_bytes: int
    length_bytes: int


class SourceChangedError(InvalidInputError):
    """A file changed while it was being read. Nothing of it was stored."""

    kind = "source-changed"


def check_sent(name: str, *, expected_raw: bytes, sent_raw: bytes, expected_bytes: int, sent_bytes: int) -> None:
    """Check that the bytes that left are the bytes that were meant.

    Raises:
        SourceChangedError: they are others, or not as many.
    """
    if sent_bytes != expected_bytes:
        raise SourceChangedError(
            f"{name} changed while it was being read: expected {expected_bytes} bytes, read {sent_bytes}", hint=CHANGED_HINT
        )
    if sent_raw != expected_raw:
        raise SourceChangedError(
            f"{name} changed while it was being read: expected {Digest.from_raw(expected_raw)}, read {Digest.from_raw(sent_raw)}",
            hint=CHANGED_HINT,
        )


CHANGED_HINT = "upload again once nothing writes to it"
