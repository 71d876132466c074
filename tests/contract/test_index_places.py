"""Where bytes lie and what their pieces are held against, as both databases keep it."""

from __future__ import annotations

from tests.unit.index.ledger import Ledger, digest_of, members
from vds.index.entries import At, read_page, read_placed_entries
from vds.index.placements import find_checks, find_keys, find_placements, finish_blob, put_checks
from vds.index.stores import NamespaceRow
from vds.model.checks import Checks


def test_checks_come_with_the_blob_and_are_kept_once(ledger: Ledger, namespace: NamespaceRow) -> None:
    upload = ledger.open(namespace).upload
    checks, other = Checks(262_144, bytes(range(24))), Checks(524_288, bytes(16))
    blob_id = ledger.pending(upload.id)
    done = ledger.database.run(
        lambda c: finish_blob(c, ledger.store.id, blob_id, upload.id, 9, "e", members(b"large"), checks=checks)
    )
    assert done
    ledger.database.run(lambda c: put_checks(c, ledger.store.id, digest_of(b"large"), other))  # a content has one table
    with ledger.database.read() as connection:
        found = find_checks(connection, ledger.store.id, [digest_of(b"large"), digest_of(b"small")])
    assert found == {digest_of(b"large"): checks}


def test_a_blob_that_is_not_ours_leaves_no_checks(ledger: Ledger, namespace: NamespaceRow) -> None:
    upload, other = ledger.open(namespace).upload, ledger.open(namespace).upload
    blob_id = ledger.pending(upload.id)
    checks = Checks(262_144, bytes(16))
    assert not ledger.database.run(
        lambda c: finish_blob(c, ledger.store.id, blob_id, other.id, 9, "e", members(b"x"), checks=checks)
    )
    with ledger.database.read() as connection:
        assert find_checks(connection, ledger.store.id, [digest_of(b"x")]) == {}


def test_entries_come_with_their_places(ledger: Ledger, namespace: NamespaceRow) -> None:
    ledger.write(namespace, {"a": b"one", "b/c": b"two", "b/é": b"one", "empty": b""})
    ledger.write(namespace, {"a": b"three", "b/c": None})
    at = At(ledger.store.id, namespace.id, 2)
    with ledger.database.read() as connection:
        rows = list(read_placed_entries(connection, at))
        placements = find_placements(connection, ledger.store.id, [row.entry.digest for row in rows])
        keys = find_keys(connection, sorted({row.blob for row in rows if row.blob is not None}))
        pages = [read_page(connection, at, after=after, limit=1) for after in ("", "a", "b/é", "empty")]
    assert [row.entry.path for row in rows] == ["a", "b/é", "empty"]
    assert [row.blob is None for row in rows] == [False, False, True]
    for row in rows[:2]:
        place = placements[row.entry.digest]
        assert row.blob is not None
        assert (keys[row.blob], row.offset_bytes) == (place.key, place.offset_bytes)
    assert [[row.path for row in page] for page in pages] == [["a"], ["b/é"], ["empty"], []]


def test_a_place_of_another_length_is_none(ledger: Ledger, namespace: NamespaceRow) -> None:
    ledger.write(namespace, {"a": b"one"})
    ledger.database.run(lambda c: c.exec_driver_sql(f"UPDATE object SET length_bytes = 7 WHERE store_id = {ledger.store.id}"))
    with ledger.database.read() as connection:
        [row] = read_placed_entries(connection, At(ledger.store.id, namespace.id, 1))
    assert (row.blob, row.offset_bytes) == (None, 0)
