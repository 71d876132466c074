"""Where the contents of a version lie, found in the container alone: keys of whole objects, footers of packs, adoptions.

It asks for no more than it needs: large objects are looked up by their digests; of packs the footers are read, those first that
were made just before the version, until nothing is missing. Blobs that the store's log calls deleted come last: one of them may
be the only one left that has an object, if its collector died.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from datetime import datetime
from operator import itemgetter

from vds.blobs.driver import Blob, BlobDriver
from vds.blobs.objects import DIGEST_METADATA, OBJECT_PREFIX, PACK_PREFIX, STREAM_PREFIX, is_stream_key, object_key
from vds.blobs.outside import list_adoptions, placed_blobs
from vds.blobs.packs import MEMBER_BYTES_END, read_footer
from vds.blobs.records import Gap
from vds.errors import CorruptionError, NotFoundError
from vds.files.replay import Replay
from vds.model.content import Member
from vds.model.digest import Digest
from vds.model.moment import micros_of
from vds.model.ulid import is_ulid, ulid_ms
from vds.pipeline import TRANSFER_WORKERS, parallel_map

LOOKED_UP_MAX = 1000
"""Up to so many objects are looked up one by one, each with a listing of its own; for more, all objects are listed."""

CLOCKS_APART_MS = 3_600_000
"""How far the clocks of the machines that name packs may be apart, before order costs more requests. Nothing else hangs on it."""

_log = logging.getLogger(__name__)


def find_places(driver: BlobDriver, replay: Replay, committed_at: datetime) -> int:
    """Find where the wanted contents lie, and return how many were not found.

    What a pack's damaged footer hides is found elsewhere, or not at all: reading such a file says so.

    Raises:
        UnavailableError: the container does not answer.
    """
    for is_avoided in (False, True) if replay.avoids_any else (False,):
        _find_large(driver, replay, is_avoided)
        if replay.count_missing(0, MEMBER_BYTES_END):
            _find_in_packs(driver, replay, is_avoided, micros_of(committed_at) // 1000)
        if replay.count_missing():
            _take(replay, driver.list_blobs(STREAM_PREFIX), is_avoided)
        if replay.count_missing():
            _find_adopted(driver, replay, is_avoided)
    return replay.count_missing()


def _find_large(driver: BlobDriver, replay: Replay, is_avoided: bool) -> None:
    count = replay.count_missing(MEMBER_BYTES_END)
    if count > LOOKED_UP_MAX:
        _take(replay, driver.list_blobs(OBJECT_PREFIX), is_avoided)
    elif count:
        digests = replay.list_missing(MEMBER_BYTES_END)
        with closing(parallel_map(lambda digest: list(driver.list_blobs(object_key(digest, ""))), digests)) as found:
            for blobs in found:
                _take(replay, blobs, is_avoided)


def _take(replay: Replay, blobs: Iterable[Blob], is_avoided: bool) -> None:
    """Take what is missing from blobs that hold one object each."""
    for blob in blobs:
        digest = _digest_of(blob)
        if digest is not None and replay.is_avoided(blob.key) is is_avoided:
            replay.place(blob.key, [Member(digest, 0, blob.size_bytes)])


def _find_adopted(driver: BlobDriver, replay: Replay, is_avoided: bool) -> None:
    with closing(list_adoptions(driver)) as records:
        for item in records:
            if isinstance(item, Gap):
                _log.warning("record %s is left out: %s", item.key, item.detail)
                continue
            for blob in placed_blobs(*item):
                if replay.is_avoided(blob.key) is is_avoided:
                    replay.place(blob.key, blob.members)


def _digest_of(blob: Blob) -> bytes | None:
    """Return which object a blob says it is; what its bytes are is looked at when they are read."""
    is_stream = is_stream_key(blob.key)
    text = blob.metadata.get(DIGEST_METADATA, "") if is_stream else f"b3:{blob.key.rpartition('/')[2].partition('.')[0]}"
    try:
        return Digest(text).raw
    except ValueError:
        return None


def _find_in_packs(driver: BlobDriver, replay: Replay, is_avoided: bool, committed_ms: int) -> None:
    packs = [blob for blob in driver.list_blobs(PACK_PREFIX) if replay.is_avoided(blob.key) is is_avoided]

    def read(blob: Blob) -> tuple[str, Sequence[Member]]:
        try:
            rows = read_footer(driver, blob.key, blob.size_bytes)
        except (CorruptionError, NotFoundError) as err:
            _log.warning("pack %s is left out: %s", blob.key, err)
            return blob.key, ()
        return blob.key, [Member(row.digest_raw, row.offset_bytes, row.length_bytes) for row in rows]

    missing = replay.count_missing(0, MEMBER_BYTES_END)
    # No more of them ahead than are being read: the members of one are a megabyte of objects here.
    footers_ahead = parallel_map(read, _nearest(packs, committed_ms), in_flight_max=TRANSFER_WORKERS, ordered=False)
    with closing(footers_ahead) as footers:
        for key, members in footers:
            missing -= replay.place(key, members)
            if missing <= 0:
                return


def _nearest(packs: Iterable[Blob], committed_ms: int) -> Iterator[Blob]:
    """Yield packs in the order in which they are likely to hold what was committed at a moment.

    Those made before it come first, the newest of them first; then those made later, to which a collector may have moved it.
    """
    dated = sorted(((_made_ms(blob.key), blob) for blob in packs), key=itemgetter(0), reverse=True)
    end_ms = committed_ms + CLOCKS_APART_MS
    yield from (blob for made_ms, blob in dated if made_ms <= end_ms)
    yield from (blob for made_ms, blob in reversed(dated) if made_ms > end_ms)


def _made_ms(key: str) -> int:
    name = key.rpartition("/")[2].removesuffix(".pack")
    return ulid_ms(name) if is_ulid(name) else 0
