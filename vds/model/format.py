"""The format record: what a container says of itself, so that no program misreads it.

`format/<n>` is written once for each n; the highest counts. It names the store, the versions of vds that may read, write and
collect, and the one index that serves the store (its address, never a secret).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from vds.errors import FormatError
from vds.model.fields import parse_fields
from vds.model.ulid import is_ulid
from vds.model.version import RECORD_BYTES_MAX, canonical_json

FORMAT = 1
"""The format this program writes, and the newest it understands."""

FORMAT_PREFIX = "format/"
DIGEST_NAME = "blake3-256"
HOST_BYTES_MAX = 1024
_WORD = re.compile(r"[0-9A-Za-z]{1,64}")


@dataclass(frozen=True, slots=True)
class FormatRecord:
    """What `format/<n>` holds.

    Attributes:
        incarnation: of the index that serves the store; a rebuild makes a new one.
        index: its address, or `embedded`.
        host: for an embedded index, the machine that holds it.
    """

    store: str
    format: int
    min_reader: int
    min_writer: int
    min_collector: int
    incarnation: str
    index: str
    host: str
    created_at: str

    def encode(self) -> bytes:
        """Return the record's bytes."""
        return canonical_json(
            {
                "store": self.store,
                "format": self.format,
                "min_reader": self.min_reader,
                "min_writer": self.min_writer,
                "min_collector": self.min_collector,
                "digest": DIGEST_NAME,
                "index": {"incarnation": self.incarnation, "address": self.index, "host": self.host},
                "created_at": self.created_at,
            }
        )

    @classmethod
    def decode(cls, body: bytes, key: str, *, read_only: bool) -> FormatRecord:
        """Parse a format record. It need not be canonical: nothing is chained to it.

        Raises:
            FormatError: the store needs a newer vds.
            CorruptionError: the bytes are no format record.
        """
        fields = parse_fields(body, f"format record {key!r}", bytes_max=RECORD_BYTES_MAX)
        needed = max(fields.number("min_reader"), 0 if read_only else fields.number("min_writer"))
        # Looked at first: of what a newer vds wrote, the rest need not be as we know it.
        if needed > FORMAT or fields.text("digest") != DIGEST_NAME:
            raise FormatError(
                f"the store has format {fields.number('format')} and needs a vds of format {needed}, this one has {FORMAT}",
                hint="pip install --upgrade vds",
            )
        index = fields.inner("index")
        return cls(
            store=fields.word("store", is_ulid),
            format=fields.number("format", 1),
            min_reader=fields.number("min_reader"),
            min_writer=fields.number("min_writer"),
            min_collector=fields.number("min_collector"),
            incarnation=index.word("incarnation", _WORD.fullmatch),
            index=index.text("address"),
            host=index.text("host", HOST_BYTES_MAX),
            created_at=fields.text("created_at", HOST_BYTES_MAX),
        )


def format_key(number: int) -> str:
    """Return the key of the n-th format record."""
    return f"{FORMAT_PREFIX}{number:016d}"
