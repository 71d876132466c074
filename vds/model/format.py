"""The format record: what a container says of itself, so that no program misreads it.

`format/<n>` is written once for each n; the highest counts. It names the store, the versions of vds that may read, write and
collect, and the one index that serves the store (its address, never a secret).
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from vds.errors import CorruptionError, FormatError
from vds.model.version import canonical_json

FORMAT = 1
"""The format this program writes, and the newest it understands."""

FORMAT_PREFIX = "format/"


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
                "digest": "blake3-256",
                "index": {"incarnation": self.incarnation, "address": self.index, "host": self.host},
                "created_at": self.created_at,
            }
        )

    @classmethod
    def decode(cls, body: bytes, key: str, *, read_only: bool) -> FormatRecord:
        """Parse a format record.

        Raises:
            FormatError: the store needs a newer vds.
            CorruptionError: the bytes are no format record.
        """
        try:
            raw = json.loads(body)
            needed = max(int(raw["min_reader"]), 0 if read_only else int(raw["min_writer"]))
            if needed > FORMAT or raw["digest"] != "blake3-256":
                raise FormatError(
                    f"the store has format {raw['format']} and needs a vds of format {needed}, this one has {FORMAT}",
                    hint="pip install --upgrade vds",
                )
            index = raw["index"]
            return cls(
                store=raw["store"],
                format=raw["format"],
                min_reader=raw["min_reader"],
                min_writer=raw["min_writer"],
                min_collector=raw["min_collector"],
                incarnation=index["incarnation"],
                index=index["address"],
                host=index["host"],
                created_at=raw["created_at"],
            )
        except (KeyError, TypeError, ValueError, AttributeError) as err:
            if isinstance(err, FormatError):
                raise
            raise CorruptionError(f"{key!r} is not a format record: {type(err).__name__}: {err}") from err


def format_key(number: int) -> str:
    """Return the key of the n-th format record."""
    return f"{FORMAT_PREFIX}{number:016d}"
