"""What must hold of a site whatever went wrong on it, told from its container and its index alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from blake3 import blake3

import vds
from tests.fault.every_flow import WRITTEN, Site
from tests.support import Checker, Entries
from vds.blobs.driver import BlobDriver

COLLECTED = ("packs/", "objects/", "changes/", "checkpoints/")
"""Below these are the blobs that collection takes care of."""


def look(site: Site) -> dict[str, Any]:
    """Open the store, as whoever comes next does, check what must hold then, and return what a user sees of it."""
    with site.place.connect() as store:
        seen, uid = describe(store), store.id
    check(site, uid)
    return seen


def describe(store: vds.Store) -> dict[str, Any]:
    """Return what a user sees of a store, without times and ids; what is in each version `check` holds against its record."""
    return {
        "versions": {
            info.name: [
                (version.number, version.operation, version.file_count, version.size_bytes)
                for version in store.namespace(info.name).log()
            ]
            for info in store.namespaces()
        },
        "events": {
            info.name: [(event.kind, event.tag, event.release) for event in store.dataset(info.name).history()]
            for info in store.datasets()
        },
    }


def check(site: Site, uid: str) -> None:
    """Check what must hold at any time of a store that was opened a moment ago.

    Nothing waits in the queue. Numbers are dense, records are chained, and what they add up to is what the index says of every
    version that is kept; intervals of a path do not overlap. What was acknowledged is there, and each commit once. What the
    index takes for live is in the container, as long and with the etag it knows; all entries are placed there and their bytes
    are what their digests name, unless they were erased. What collection has counted is what there is.
    """
    rows = Rows(site, uid)
    assert rows.query("SELECT line, number FROM journal_queue WHERE store_id = :s") == []
    assert rows.query("SELECT digest FROM damage WHERE store_id = :s") == []
    blobs = site.place.blobs()
    held = {blob.key: (blob.size_bytes, blob.etag) for blob in blobs.list_blobs()}
    live = rows.query("SELECT key, size_bytes, etag FROM blob WHERE store_id = :s AND state = 'live'")
    wrong = [(row, held.get(row[0])) for row in live if held.get(row[0]) != row[1:]]
    assert wrong == [], wrong
    _check_objects(rows, blobs)
    commits = [row[0] for row in rows.query("SELECT commit_id FROM version WHERE store_id = :s")]
    assert len(set(commits)) == len(commits)
    for name, namespace_id in rows.query("SELECT name, id FROM namespace WHERE store_id = :s"):
        _check_namespace(site, rows, name, namespace_id)
    _check_uses(rows)
    blobs.close()


@dataclass
class Rows:
    """The rows of one store in the index; a rebuild that was interrupted leaves others, which mean nothing."""

    site: Site
    uid: str

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        """Return the rows of a statement that says `:s` for the store."""
        return self.site.index.query(statement.replace(":s", f"(SELECT id FROM store WHERE uid = '{self.uid}')"))


def _check_namespace(site: Site, rows: Rows, name: str, namespace_id: int) -> None:
    checker = Checker(site.place, name)
    checker._read_journal()
    of = f"WHERE store_id = :s AND namespace_id = {namespace_id}"
    versions = rows.query(f"SELECT number, digest, file_count, expired_us IS NULL FROM version {of} ORDER BY number")
    entries = rows.query(f"SELECT path, first_version, end_version, digest FROM entry {of} ORDER BY path, first_version")
    assert [row[0] for row in versions] == list(range(1, len(checker.state)))
    ends = dict[str, int]()
    for path, first, end, _ in entries:
        assert ends.get(path, 0) <= first, path
        ends[path] = end
    for number, digest, file_count, is_kept in versions:
        assert bytes(digest) == checker.state[number][0], number
        if is_kept:
            found: Entries = {path: "b3:" + bytes(raw).hex() for path, first, end, raw in entries if first <= number < end}
            assert found == checker.state[number][1], number
            assert len(found) == file_count
    acknowledged = [number for namespace, number in site.acknowledged if namespace == name]
    assert max(acknowledged, default=0) < len(checker.state), "an acknowledged version is gone"


def _check_objects(rows: Rows, blobs: BlobDriver) -> None:
    placed = rows.query(
        "SELECT DISTINCT e.digest, e.size_bytes, b.key, o.offset_bytes, o.length_bytes, b.state, x.digest IS NOT NULL"
        " FROM entry e LEFT JOIN object o ON o.store_id = e.store_id AND o.digest = e.digest LEFT JOIN blob b ON b.id = o.blob_id"
        " LEFT JOIN erased x ON x.store_id = e.store_id AND x.digest = e.digest WHERE e.store_id = :s AND e.size_bytes > 0"
    )
    for digest, size_bytes, key, offset_bytes, length_bytes, state, is_erased in placed:
        what = (bytes(digest).hex(), key, state)
        assert is_erased == (key is None), what
        if not is_erased:
            assert state == "live", what
            assert length_bytes == size_bytes, what
            assert blake3(blobs.read_range(key, offset_bytes, length_bytes)).digest() == bytes(digest), what


def _check_uses(rows: Rows) -> None:
    uses = rows.query(
        "SELECT e.digest, COUNT(*) FROM entry e JOIN counted c ON c.store_id = e.store_id AND c.namespace_id = e.namespace_id"
        " WHERE e.store_id = :s AND e.first_version <= c.number GROUP BY e.digest ORDER BY e.digest"
    )
    assert rows.query("SELECT digest, uses FROM object_use WHERE store_id = :s ORDER BY digest") == uses


def check_garbage(site: Site) -> None:
    """Check that two collections leave nothing that nobody needs, once all uploads that failed are taken for dead."""
    site.index.execute("UPDATE upload SET heartbeat_us = 0, expires_us = 0 WHERE state = 'open'")
    with site.place.connect() as store:
        rows = Rows(site, store.id)
        for _ in range(2):
            report = store.gc(dry_run=False, grace_hours=0, max_share=1, show_progress=False)
    assert not report.left
    blobs = site.place.blobs()
    held = {blob.key for blob in blobs.list_blobs() if blob.key.startswith(COLLECTED)}
    if rows.query("SELECT digest FROM erased WHERE store_id = :s"):
        assert [key for key in held if WRITTEN in blobs.read_range(key)] == []
    blobs.close()
    live = {row[0] for row in rows.query("SELECT key FROM blob WHERE store_id = :s AND state = 'live'")}
    # A put may arrive after its key was deleted: nobody needs it, nobody waits for it, and only `fsck` tells of it.
    assert live <= held <= live | site.service.late_keys, sorted(held ^ live)
    check(site, rows.uid)
