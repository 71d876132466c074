"""What must hold before bytes are deleted: that index and container tell the same story, and that nothing is known to be missing.

Each refusal says what it found. Nothing here looks at everything: heads of lines, what is recorded as damaged, and a sample.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import closing

from vds.engine.doors import Doors
from vds.engine.journal import check_namespace_fresh, check_store_fresh, flush_line, stale_index
from vds.errors import CorruptionError, FormatError, NotFoundError
from vds.index.collect import BlobUse, measure_store
from vds.index.gaps import check_no_gap
from vds.index.guards import LineEnd, count_damage, is_live, list_line_ends, sample_live
from vds.index.stores import find_store, read_namespace
from vds.model.format import FORMAT, FORMAT_PREFIX, FormatRecord
from vds.model.storelog import store_key
from vds.model.version import EVENT_CONTEXT, STORE_CONTEXT, VERSION_CONTEXT, journal_key, name_digest, record_digest
from vds.pipeline import parallel_map

SAMPLE_SHARE = 0.01
SAMPLE_BLOBS_MIN = 100


def check_collectable(doors: Doors, *, dry_run: bool) -> None:
    """Check that collection may run; what a crash left in the queue is written first.

    Raises:
        FormatError, AccessDeniedError: as `check_same_story`.
        CorruptionError: as there; or an object is damaged, or a blob is gone or changed.
    """
    check_same_story(doors, dry_run=dry_run)
    _check_damage(doors)
    _check_sample(doors)


def check_same_story(doors: Doors, *, dry_run: bool) -> None:
    """Check that this index serves the store, and says what the container's records say.

    Raises:
        FormatError: the index is older than its store, was replaced, or needs another vds to collect.
        CorruptionError: the journal says something else than the index.
        AccessDeniedError: the store was opened for reading.
    """
    if not dry_run:
        doors.check_writable()
        flush_line(doors)
    _check_format(doors)
    check_store_fresh(doors)
    _check_lines(doors)


def _check_format(doors: Doors) -> None:
    keys = [blob.key for blob in doors.blobs.list_blobs(FORMAT_PREFIX)]
    if not keys:
        raise CorruptionError("the container has no format record", hint="run: vds fsck")
    record = FormatRecord.decode(doors.blobs.read_range(keys[-1]), keys[-1], read_only=False)
    with doors.index.read() as connection:
        row = find_store(connection, doors.store.uid)
    own = None if row is None else row.incarnation
    if record.store != doors.store.uid or record.incarnation != own:
        raise stale_index(f"its incarnation is {own}, the store's is {record.incarnation}")
    if record.min_collector > FORMAT:
        raise FormatError(
            f"collection in this store needs a vds of format {record.min_collector}, this one has {FORMAT}",
            hint="pip install --upgrade vds",
        )


def _check_lines(doors: Doors) -> None:
    """Hold the last visible record of every line against what the index says of it, and look for records it does not know."""
    with doors.index.read() as connection:
        ends = list_line_ends(connection, doors.store.id)
    with closing(parallel_map(lambda end: _check_line(doors, end), ends, ordered=False)) as checks:
        for _ in checks:
            pass


_CONTEXTS = {"version": VERSION_CONTEXT, "event": EVENT_CONTEXT, "store": STORE_CONTEXT}


def _check_line(doors: Doors, end: LineEnd) -> None:
    key = _key_of(end, end.visible)
    if end.visible:
        try:
            body = doors.blobs.read_range(key)
        except NotFoundError as err:
            raise CorruptionError(f"the journal disagrees with the index: there is no {key!r}", hint="run: vds fsck") from err
        if record_digest(_CONTEXTS[end.line], body) != end.digest:
            raise CorruptionError(
                f"the journal disagrees with the index: {key!r} is not the record the index knows", hint="run: vds fsck"
            )
    if end.line == "version":
        with doors.index.read() as connection:
            namespace = read_namespace(connection, end.owner_id)
        check_namespace_fresh(doors, namespace)
    elif end.line == "event" and doors.blobs.find_blob(_key_of(end, end.head + 1)) is not None:
        with doors.index.read() as connection:
            now = [
                one for one in list_line_ends(connection, doors.store.id) if one.line == "event" and one.owner_id == end.owner_id
            ]
        if not now or now[0].head == end.head:
            raise stale_index(f"the container holds event {end.head + 1} of dataset {end.name!r}")


def _key_of(end: LineEnd, number: int) -> str:
    if end.line == "version":
        return journal_key(end.name, number)
    if end.line == "store":
        return store_key(number)
    return f"datasets/{name_digest(end.name)}/{number:016d}"


def _check_damage(doors: Doors) -> None:
    with doors.index.read() as connection:
        check_no_gap(connection, doors.store.id)
        count, example = count_damage(connection, doors.store.id)
    if count:
        raise CorruptionError(
            f"{count} damaged objects are known, {example} is one: what is left of their contents must not be collected",
            hint="vds fsck --repair-from DIR, or vds fsck --full once they are whole",
        )


def _check_sample(doors: Doors) -> None:
    """Look whether some of the blobs that are in use are there as they were written, other ones each time."""
    with doors.index.read() as connection:
        size = max(SAMPLE_BLOBS_MIN, int(measure_store(connection, doors.store.id).blobs * SAMPLE_SHARE))
        chosen = sample_live(connection, doors.store.id, size, random.SystemRandom().random)
    check_blobs_there(doors, chosen)


def check_blobs_there(doors: Doors, blobs: Sequence[BlobUse]) -> None:
    """Check that blobs are there with the size and the etag they were written with.

    Raises:
        CorruptionError: one is not.
    """
    with closing(parallel_map(lambda one: _check_blob(doors, one), blobs, ordered=False)) as checks:
        for _ in checks:
            pass


def _check_blob(doors: Doors, known: BlobUse) -> None:
    found = doors.blobs.find_blob(known.key)
    if found is not None and found.size_bytes == known.size_bytes and known.etag in (None, found.etag):
        return
    with doors.index.read() as connection:
        if not is_live(connection, known.blob_id):
            return  # collected meanwhile by somebody else
    what = "is gone" if found is None else f"has {found.size_bytes} bytes and etag {found.etag}, which are not what was written"
    raise CorruptionError(f"blob {known.key!r} {what}: nothing is collected while that is so", hint="run: vds fsck")
