"""The name of bytes: BLAKE3-256, written `b3:<64 hex>`."""

from __future__ import annotations

import re

from blake3 import blake3

from vds.errors import CorruptionError

DIGEST_SIZE_BYTES = 32
_TEXT = re.compile(r"b3:[0-9a-f]{64}")


class Digest(str):
    """A BLAKE3-256 digest in its written form, `b3:<64 hex>`; equal to, and usable as, that string."""

    __slots__ = ()

    def __new__(cls, text: str) -> Digest:
        if not _TEXT.fullmatch(text):
            raise ValueError(f"not a digest: {text!r}, expected b3: and 64 lower-case hex digits")
        return super().__new__(cls, text)

    @classmethod
    def from_raw(cls, raw: bytes) -> Digest:
        """Return the digest whose 32 bytes are `raw`.

        Raises:
            CorruptionError: they are not 32, as may come out of a database that is damaged.
        """
        if len(raw) != DIGEST_SIZE_BYTES:
            raise CorruptionError(f"b3:{raw.hex()} is no digest: it has {len(raw)} bytes", hint="run: vds fsck")
        return str.__new__(cls, "b3:" + raw.hex())

    @classmethod
    def of(cls, data: bytes | bytearray | memoryview) -> Digest:
        """Return the digest of `data`."""
        return cls.from_raw(blake3(data).digest())

    @property
    def raw(self) -> bytes:
        """The 32 bytes."""
        return bytes.fromhex(self[3:])

    @property
    def hex(self) -> str:
        """The 64 hex digits, without the prefix."""
        return self[3:]


EMPTY_RAW = blake3(b"").digest()
"""The digest of no bytes: such an object has no blob."""
