"""Putting objects into blobs: keys, whole objects, records, and what to believe after a lost response.

A retried conditional put can fail against our own first write. "Already exists" with the same bytes is therefore success, and
anything unproven is `OutcomeUnknownError`: never a guessed conflict, never a guessed success. Objects of no bytes have no blob.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import xxhash
from blake3 import blake3

from vds.blobs.driver import BlobDriver, Buffer
from vds.errors import BlobExistsError, OutcomeUnknownError
from vds.model.content import check_sent
from vds.model.digest import Digest
from vds.model.ulid import RANDOM_BYTES, new_ulid
from vds.pipeline import TRANSFER_LIMITS, Limits, parallel_map

SINGLE_PUT_BYTES_MAX = 16 * 1024 * 1024
BLOCK_BYTES_MIN = 8 * 1024 * 1024  # 4 MiB lost a fifth of the rate, 16 MiB gained nothing, 32 MiB fall out of the L3 cache
BLOCKS_MAX = 50_000  # Azure's limit on the blocks of one blob
DIGEST_METADATA = "vds_digest"
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
    return f"objects/{text[:2]}/{text}.{generation}"


def stream_key(ulid: str) -> str:
    """Return the key of an object whose digest is known only at its end."""
    return f"objects/~~/{ulid}"


def pack_key(ulid: str) -> str:
    """Return the key of a pack; the directory spreads them evenly, as the ulids of one moment begin alike."""
    return f"packs/{blake3(ulid.encode()).hexdigest(1)}/{ulid}.pack"


def block_size_bytes(size_bytes: int) -> int:
    """Return into what pieces an object of this size must be cut for `put_object`: one piece when it is sent whole."""
    if size_bytes <= SINGLE_PUT_BYTES_MAX:
        return SINGLE_PUT_BYTES_MAX
    needed = -(-size_bytes // BLOCKS_MAX)
    return max(BLOCK_BYTES_MIN, -(-needed // _MIB) * _MIB)


def block_id(index: int, fingerprint: str) -> str:
    """Return the id of one block: its place and XXH3-128, so that a resumed upload knows which blocks it need not send."""
    return f"{index:06x}-{fingerprint}"


def put_object(
    driver: BlobDriver,
    key: str,
    blocks: Iterable[Buffer],
    *,
    size_bytes: int,
    digest_raw: bytes,
    limits: Limits = TRANSFER_LIMITS,
) -> str:
    """Store one object whole under a fresh key and return the blob's etag.

    What is stored is exactly what `digest_raw` names: the bytes are hashed on their way out, and the blob comes into being only
    after that. Blocks already staged under this key (an interrupted upload) are not sent again.

    Args:
        driver: where to.
        key: made for this placement; not used for any other bytes.
        blocks: the object's bytes in pieces of `block_size_bytes(size_bytes)`, none reused after it was yielded.
        size_bytes: of the object, more than 0.
        digest_raw: of the object.
        limits: workers and bytes in flight, for this one object.

    Raises:
        SourceChangedError: the bytes are not the ones that `digest_raw` names; no blob was made.
        OutcomeUnknownError: the key holds something else.
    """
    assert size_bytes > 0, "an object of no bytes has no blob"
    if size_bytes <= SINGLE_PUT_BYTES_MAX:
        pieces = list(blocks)
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        check_sent(key, expected_raw=digest_raw, sent_raw=blake3(body).digest(), expected_bytes=size_bytes, sent_bytes=len(body))
        return put_blob(driver, key, body)
    staging = _Staging(driver, key)
    heavy = parallel_map(
        staging.stage,
        staging.hashed(blocks),
        workers=limits.workers,
        in_flight_max=limits.workers * 2,
        weigh=lambda block: len(block[1]),
        in_flight_bytes_max=limits.in_flight_bytes_max,
    )
    block_ids = list(heavy)
    check_sent(
        key, expected_raw=digest_raw, sent_raw=staging.digest_raw, expected_bytes=size_bytes, sent_bytes=staging.size_bytes
    )
    return commit_blob(driver, key, block_ids, size_bytes=size_bytes, digest_raw=digest_raw)


class _Staging:
    """The blocks of one object on their way."""

    def __init__(self, driver: BlobDriver, key: str) -> None:
        self._driver = driver
        self._key = key
        self._staged = {(block.block_id, block.size_bytes) for block in driver.list_blocks(key)}
        self._hasher = blake3()
        self.size_bytes = 0

    @property
    def digest_raw(self) -> bytes:
        return self._hasher.digest()

    def hashed(self, blocks: Iterable[Buffer]) -> Iterator[tuple[int, Buffer]]:
        for index, block in enumerate(blocks):
            self._hasher.update(block)
            self.size_bytes += len(block)
            yield index, block

    def stage(self, numbered: tuple[int, Buffer]) -> str:
        index, block = numbered
        name = block_id(index, xxhash.xxh3_128_hexdigest(block))
        if (name, len(block)) not in self._staged:
            self._driver.stage_block(self._key, name, block)
        return name


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
