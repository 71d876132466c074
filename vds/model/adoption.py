"""Records of adopted blobs: `adopted/<ulid>-<b3 of the record>` says where some plain blobs lie, and what was read in them.

The n-th blob of a record has the key `adopted/<ulid>-<b3>/<n>`. No blob of the store's container ever has that key: it stands for
one that others wrote, and that vds never writes, copies over or deletes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from blake3 import blake3

from vds.errors import CorruptionError
from vds.model.digest import Digest
from vds.model.fields import HINT, Fields
from vds.model.ulid import is_ulid
from vds.model.version import RECORD_FORMAT, canonical_json, parse_record

ADOPTED_PREFIX = "adopted/"
ROWS_MAX = 256
"""How many blobs a record tells of: as little as possible is read to find one, and few requests are made to write all."""
ROWS_BYTES_MAX = 256 * 1024
NAME_BYTES_MAX = 4096
_ETAG_BYTES_MAX = 256
_URL_BYTES_MAX = 1024

_RECORD_NAME = re.compile(r"([0-9a-z]{26})-([0-9a-f]{64})")
_NUMBER = re.compile(r"0|[1-9][0-9]{0,2}")


@dataclass(frozen=True, slots=True)
class AdoptedBlob:
    """A plain blob as it was when it was adopted.

    Attributes:
        name: in its container.
        etag: what it is known by: another one, and it was changed.
        digest: of its bytes.
    """

    name: str
    etag: str
    size_bytes: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class AdoptionRecord:
    """Some adopted blobs of one container.

    Attributes:
        store: the store's id.
        container: the address of the container, without any secret; empty for the one that the store itself lies in.
    """

    store: str
    container: str
    blobs: Sequence[AdoptedBlob]

    def encode(self) -> bytes:
        """Return the record's bytes."""
        rows = [
            {"name": one.name, "etag": one.etag, "size": one.size_bytes, "digest": str(Digest.from_raw(one.digest))}
            for one in self.blobs
        ]
        return canonical_json({"format": RECORD_FORMAT, "store": self.store, "container": self.container, "blobs": rows})

    @classmethod
    def decode(cls, body: bytes, key: str) -> AdoptionRecord:
        """Parse the record under `key`.

        Raises:
            CorruptionError: the bytes are no such record, or not those that the key names.
            FormatError: a newer vds wrote it.
        """
        what = f"adoption record {key!r}"
        if not is_record_key(key) or blake3(body).hexdigest() != key[-64:]:
            raise CorruptionError(f"{what} is not what its key names", hint=HINT)
        fields = parse_record(body, what)
        rows = fields.raw.get("blobs")
        if not isinstance(rows, list) or not 0 < len(rows) <= ROWS_MAX or not all(isinstance(row, dict) for row in rows):
            raise fields.wrong("blobs", f"expected 1 to {ROWS_MAX} objects")
        blobs = [_decode_row(Fields(row, what, f"blobs[{number}].")) for number, row in enumerate(rows)]
        return cls(fields.word("store", is_ulid), fields.text("container", _URL_BYTES_MAX), blobs)


def _decode_row(fields: Fields) -> AdoptedBlob:
    return AdoptedBlob(
        fields.text("name", NAME_BYTES_MAX),
        fields.text("etag", _ETAG_BYTES_MAX),
        fields.number("size", 1),
        fields.digest("digest"),
    )


def record_key(ulid: str, body: bytes) -> str:
    """Return the key of a record; the ulid is fresh, so that a key is never used again."""
    return f"{ADOPTED_PREFIX}{ulid}-{blake3(body).hexdigest()}"


def is_record_key(key: str) -> bool:
    """Return whether a key is that of a record."""
    found = _RECORD_NAME.fullmatch(key.removeprefix(ADOPTED_PREFIX)) if key.startswith(ADOPTED_PREFIX) else None
    return found is not None and is_ulid(found[1])


def adopted_key(record: str, number: int) -> str:
    """Return what stands for the n-th blob of a record."""
    return f"{record}/{number}"


def split_key(key: str) -> tuple[str, int] | None:
    """Return the record's key and the number of what stands for an adopted blob, or None for any other key."""
    if not key.startswith(ADOPTED_PREFIX):
        return None
    record, _, number = key.rpartition("/")
    if not is_record_key(record) or not _NUMBER.fullmatch(number):
        return None
    return record, int(number)


def is_adopted(key: str) -> bool:
    """Return whether a key stands for an adopted blob."""
    return split_key(key) is not None


def mark_of(container: str, name: str, etag: str) -> str:
    """Return what a blob is known by again before it is read, in the index's column for fingerprints."""
    return "adopted:" + blake3("\0".join((container, name, etag)).encode("utf-8", "surrogatepass")).hexdigest(16)
