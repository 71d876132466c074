"""Putting objects into blobs: keys, whole objects, records, and what to believe after a lost response.

A retried conditional put can fail against our own first write. "Already exists" with the same bytes is therefore success, and
anything unproven is `OutcomeUnknownError`: never a guessed conflict, never a guessed success. Objects of no bytes have no blob.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass

from blake3 import blake3

from vds.blobs.driver import BlobDriver, Buffer
from vds.errors import BlobExistsError, CorruptionError, InvalidInputError, NotFoundError, OutcomeUnknownError
from vds.model.digest import Digest
from vds.model.ulid import RANDOM_BYTES, new_ulid
from vds.model.version import RECORD_BYTES_MAX

BLOCK_BYTES_MIN = 8 * 1024 * 1024  # 4 MiB lost a fifth of the rate, 16 MiB gained nothing, 32 MiB fall out of the L3 cache
BLOCK_BYTES_MAX = 4000 * 1024 * 1024  # Azure's limits: on one block, and on the blocks of one blob
BLOCKS_MAX = 50_000
SINGLE_PUT_BYTES_MAX = BLOCK_BYTES_MIN
"""Objects up to here go whole, in one request."""
SENDING_BYTES_MAX = 128 * 1024 * 1024
"""What the bodies under way may hold, of one upload or one stream: 100 ms of a line of 10 Gbit/s."""
DIGEST_METADATA = "vds_digest"
OBJECT_PREFIX, PACK_PREFIX = "objects/", "packs/"
STREAM_PREFIX = f"{OBJECT_PREFIX}~~/"
_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the bytes of one object stand."""

    key: str
    offset_bytes: int
    length_bytes: int


class RecordDivergedError(OutcomeUnknownError):
    """A record's key holds other bytes than ours: two histories claim one place. Nothing was overwritten."""

    kind = "record-diverged"


def fresh_ulid() -> str:
    """Return a new ulid of this moment."""
    return new_ulid(time.time_ns() // 1_000_000, os.urandom(RANDOM_BYTES))


def object_key(digest_raw: bytes, generation: str) -> str:
    """Return the key of a whole object; a new placement of the same object takes another generation."""
    text = digest_raw.hex()
    return f"{OBJECT_PREFIX}{text[:2]}/{text}.{generation}"


def stream_key(ulid: str) -> str:
    """Return the key of an object whose digest is known only at its end."""
    return f"{STREAM_PREFIX}{ulid}"


def is_stream_key(key: str) -> bool:
    """Return whether a key says nothing of the digest of what it holds."""
    return key.startswith(STREAM_PREFIX)


def pack_key(ulid: str) -> str:
    """Return the key of a pack; the directory spreads them evenly, as the ulids of one moment begin alike."""
    return f"{PACK_PREFIX}{blake3(ulid.encode()).hexdigest(1)}/{ulid}.pack"


def block_size_bytes(size_bytes: int) -> int:
    """Return into what pieces an object of this size is cut: 8 MiB, more only where 50 000 such blocks would not hold it.

    Raises:
        InvalidInputError: it is larger than the service's largest blob, about 190.7 TiB.
    """
    needed = -(-size_bytes // BLOCKS_MAX)
    block_bytes = max(BLOCK_BYTES_MIN, -(-needed // _MIB) * _MIB)
    if block_bytes > BLOCK_BYTES_MAX:
        raise InvalidInputError(
            f"{size_bytes} bytes are more than a blob can have ({BLOCKS_MAX * BLOCK_BYTES_MAX})", hint="split the file"
        )
    return block_bytes


def block_id(index: int, fingerprint: str) -> str:
    """Return the id of one block: its place and fingerprint, so that a resumed upload knows which blocks it need not send."""
    return f"{index:06x}-{fingerprint}"


def commit_blob(driver: BlobDriver, key: str, block_ids: list[str], *, size_bytes: int, digest_raw: bytes) -> str:
    """Make a blob of staged blocks, its digest in its metadata, and return its etag; again is harmless.

    Raises:
        OutcomeUnknownError: the key holds a blob of another size or digest.
    """
    digest = str(Digest.from_raw(digest_raw))
    try:
        return driver.commit_blocks(key, block_ids, {DIGEST_METADATA: digest})
    except BlobExistsError as err:
        # The digest in the metadata was written in the same step as the bytes, by whoever knew this key: ourselves.
        blob = driver.find_blob(key)
        if blob is not None and blob.size_bytes == size_bytes and blob.metadata.get(DIGEST_METADATA) == digest:
            return blob.etag
        raise OutcomeUnknownError(f"blob {key!r} exists and is not proven to hold {digest}", hint=_FSCK) from err


def put_blob(driver: BlobDriver, key: str, body: Buffer, metadata: Mapping[str, str] | None = None) -> str:
    """Store a whole blob under a fresh key and return its etag; again with the same bytes is success.

    Raises:
        OutcomeUnknownError: the key holds other bytes.
    """
    etag = _put_or_compare(driver, key, body, metadata)
    if etag is None:
        raise OutcomeUnknownError(f"blob {key!r} exists with other bytes than the {len(body)} that were sent", hint=_FSCK)
    return etag


def put_record(driver: BlobDriver, key: str, body: bytes) -> None:
    """Store a small immutable record; again with the same bytes is success.

    Raises:
        RecordDivergedError: the key holds other bytes.
    """
    if _put_or_compare(driver, key, body, None) is None:
        raise RecordDivergedError(f"record {key!r} exists with other bytes than ours", hint=_FSCK)


def read_record(driver: BlobDriver, key: str, size_bytes: int | None = None) -> bytes:
    """Return a record; nothing is read of a blob that is too large to be one.

    Args:
        driver: of the container.
        key: of the record.
        size_bytes: of the blob, as a listing has said; None to ask.

    Raises:
        NotFoundError: there is no such blob.
        CorruptionError: it is larger than records are.
    """
    if size_bytes is None:
        blob = driver.find_blob(key)
        if blob is None:
            raise NotFoundError(f"there is no record {key!r}", hint=_FSCK)
        size_bytes = blob.size_bytes
    if size_bytes > RECORD_BYTES_MAX:
        raise CorruptionError(f"record {key!r} has {size_bytes} bytes, the limit is {RECORD_BYTES_MAX}", hint=_FSCK)
    return driver.read_range(key, 0, size_bytes) if size_bytes else b""


def _put_or_compare(driver: BlobDriver, key: str, body: Buffer, metadata: Mapping[str, str] | None) -> str | None:
    """Return the etag of the blob that holds `body`, or None when the key holds something else."""
    try:
        return driver.put_if_absent(key, body, metadata)
    except BlobExistsError:
        blob = driver.find_blob(key)
        if blob is None or blob.size_bytes != len(body):
            return None
        return blob.etag if not len(body) or driver.read_range(key, 0, blob.size_bytes) == body else None


EMPTY_PLACEMENT = Placement("", 0, 0)
"""Stands for the object of no bytes, whose digest is `EMPTY_RAW`: reading it makes no request."""

_FSCK = "run: vds fsck"
