"""A container with one version of many files, written without an index or an upload: seconds instead of minutes."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from blake3 import blake3

import vds
from vds.blobs.driver import BlobDriver
from vds.blobs.objects import fresh_ulid, pack_key, put_blob, put_record
from vds.blobs.open import open_driver
from vds.blobs.packs import PACK_MEMBERS_MAX, PackBuilder
from vds.blobs.streams import put_stream
from vds.model.claim import NamespaceClaim
from vds.model.entry import MODE_FILE
from vds.model.manifest import ChangeListEncoder, ChangeRow, changes_key
from vds.model.version import NO_PARENT, ChangeListRef, VersionRecord, journal_key

NAME = "team/raw"
_BODY_BYTES = 8


def body_of(number: int) -> bytes:
    """Return the content of a file: no two are alike."""
    return number.to_bytes(_BODY_BYTES, "little")


def craft(root: Path, count: int) -> None:
    """Make a directory store with so many files of 8 bytes in one version."""
    with vds.connect(root, create=True) as store:
        store_uid = store.id
    driver = open_driver(str(root))
    claim = NamespaceClaim(fresh_ulid(), NAME)
    put_record(driver, claim.key, claim.encode())
    encoder = ChangeListEncoder()
    temporary = f"changes/00/{fresh_ulid()}"  # its own name needs the digest
    put_stream(driver, temporary, encoder.frames(_rows(driver, count)))
    key = changes_key(encoder.digest, fresh_ulid())
    driver.copy_blob(temporary, key)
    driver.delete_blob(temporary)
    record = VersionRecord(
        store=store_uid,
        namespace=claim.namespace,
        namespace_name=NAME,
        number=1,
        parent=NO_PARENT,
        commit_id=fresh_ulid(),
        created_at=datetime.now(UTC),
        operation="upload",
        author="ada",
        message="",
        labels={},
        provenance={},
        changes=ChangeListRef(encoder.digest, encoder.count, key=key),
        added=count,
        modified=0,
        removed=0,
        file_count=count,
        size_bytes=count * _BODY_BYTES,
    )
    put_record(driver, journal_key(claim.namespace, 1), record.encode())
    driver.close()


def _rows(driver: BlobDriver, count: int) -> Iterator[ChangeRow]:
    for start in range(0, count, PACK_MEMBERS_MAX):
        numbers = range(start, min(count, start + PACK_MEMBERS_MAX))
        pack = PackBuilder()
        for number in numbers:
            body = body_of(number)
            digest = blake3(body).digest()
            pack.append(digest, body)
            yield ChangeRow(f"images/{number // 1000:05d}/{number:09d}.png", digest, _BODY_BYTES, MODE_FILE, number)
        put_blob(driver, pack_key(fresh_ulid()), pack.finish())
