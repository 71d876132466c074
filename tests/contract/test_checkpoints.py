"""Change lists and checkpoints in the index, on both databases: rows, their order, the length of a tail, who is first."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from sqlalchemy import text

from tests.contract.test_index_races import Races, races
from tests.support import SERVICES, Checker, list_keys, make_place
from tests.unit.index.ledger import Ledger, digest_of
from vds.engine import checkpoint as checkpoint_module
from vds.engine import commit as commit_module
from vds.engine.checkpoint import write_checkpoint
from vds.errors import ConflictError
from vds.index.commit import Committed
from vds.index.entries import At
from vds.index.manifests import (
    VERSION_ROWS,
    SentList,
    add_manifest,
    find_tail,
    finish_checkpoint,
    has_checkpoint,
    measure_tail,
    read_manifest_rows,
)
from vds.index.placements import add_pending_blob
from vds.index.staging import end_upload
from vds.index.stores import NamespaceRow, find_namespace
from vds.model.checkpoint import parse_checkpoint_key
from vds.model.manifest import decode_change_list
from vds.model.version import ChangeListRef

__all__ = ["races"]  # the fixture

ODD = ("a/b", "a b", "a.b", "a0", "Z", "\u00e9", "\u4e2d/\u6587", "\U0001f600", "~")
"""Names that a database with a language's own order would sort differently."""


def begin(ledger: Ledger, namespace: NamespaceRow, number: int) -> tuple[At, int, SentList]:
    """Act as a writer of a checkpoint whose bytes are in the container: what is left is `finish_checkpoint`."""
    upload = ledger.open(namespace).upload
    key = f"checkpoints/{upload.token}"
    blob_id = ledger.database.run(lambda c: add_pending_blob(c, ledger.store.id, key, upload.id))
    return ledger.at(namespace, number), upload.id, SentList(blob_id, digest_of(b"rows"), 3, 77, "etag")


def finish(ledger: Ledger, begun: tuple[At, int, SentList]) -> bool:
    return ledger.database.run(lambda c: finish_checkpoint(c, *begun))


def manifests(ledger: Ledger) -> list[tuple[int, str, int, bytes, int]]:
    with ledger.database.read() as connection:
        rows = connection.execute(
            text("SELECT number, kind, blob_id, digest, row_count FROM manifest WHERE store_id = :s ORDER BY number, kind"),
            {"s": ledger.store.id},
        )
        return [(row.number, row.kind, row.blob_id, bytes(row.digest), row.row_count) for row in rows]


def state_of(ledger: Ledger, table: str, row_id: int) -> str:
    with ledger.database.read() as connection:
        return str(connection.exec_driver_sql(f"SELECT state FROM {table} WHERE id = {int(row_id)}").scalar_one())


class TestRows:
    def test_they_come_by_the_bytes_of_their_paths(self, ledger: Ledger, namespace: NamespaceRow) -> None:
        ledger.write(namespace, dict.fromkeys(ODD, b"1"))
        ledger.write(namespace, {"a b": None, "Z": b"22"})
        with ledger.database.read() as connection:
            rows = list(read_manifest_rows(connection, ledger.at(namespace, 2)))
            before = list(read_manifest_rows(connection, ledger.at(namespace, 1)))
        assert [row.path for row in before] == sorted(ODD, key=str.encode)
        assert [row.path for row in rows] == sorted({*ODD} - {"a b"}, key=str.encode)
        assert {row.path: (row.digest, row.size_bytes) for row in rows}["Z"] == (digest_of(b"22"), 2)

    def test_a_version_of_no_files_has_none(self, ledger: Ledger, namespace: NamespaceRow) -> None:
        with ledger.database.read() as connection:
            assert list(read_manifest_rows(connection, ledger.at(namespace, 0))) == []


class TestChangeLists:
    def sent(self, ledger: Ledger, upload_id: int) -> SentList:
        key = f"changes/{upload_id}"
        blob_id = ledger.database.run(lambda c: add_pending_blob(c, ledger.store.id, key, upload_id))
        return SentList(blob_id, digest_of(b"list"), 5, 99, "etag")

    def commit(self, ledger: Ledger, namespace: NamespaceRow, sent: SentList | None, files: Mapping[str, bytes]) -> Committed:
        writer = ledger.open(namespace)
        ledger.stage(writer, files)
        planned = ledger.plan(writer)
        own = sent or self.sent(ledger, writer.upload.id)
        changes = ChangeListRef(own.digest, own.row_count, key="changes/of-this-test")
        outcome = ledger.commit(writer, type(planned)(planned.base, planned.counts, changes, sent=own))
        assert isinstance(outcome, Committed)
        return outcome

    def test_the_blob_of_a_list_is_noted_with_its_version(self, ledger: Ledger, namespace: NamespaceRow) -> None:
        ledger.write(namespace, {"a": b"1"})
        assert manifests(ledger) == []  # this one's list stands in its record
        upload_id = ledger.open(namespace).upload.id
        sent = self.sent(ledger, upload_id)
        assert self.commit(ledger, namespace, sent, {"b": b"1"}).number == 2
        assert manifests(ledger) == [(2, "changes", sent.blob_id, sent.digest, 5)]
        with ledger.database.read() as connection:
            row = connection.exec_driver_sql(f"SELECT state, size_bytes, etag FROM blob WHERE id = {sent.blob_id}").one()
        assert tuple(row) == ("live", 99, "etag")

    def test_a_commit_that_is_undone_notes_nothing(self, ledger: Ledger, namespace: NamespaceRow) -> None:
        upload_id = ledger.open(namespace).upload.id
        sent = self.sent(ledger, upload_id)
        ledger.set_blob_state(sent.blob_id, "deleting")
        with pytest.raises(ConflictError, match="collected meanwhile"):
            self.commit(ledger, namespace, sent, {"b": b"1"})
        assert manifests(ledger) == []


class TestFinish:
    def test_the_blob_is_live_and_noted(self, ledger: Ledger, namespace: NamespaceRow) -> None:
        ledger.write(namespace, {"a": b"1"})
        begun = begin(ledger, namespace, 1)
        at, upload_id, sent = begun
        with ledger.database.read() as connection:
            assert not has_checkpoint(connection, at)
        assert finish(ledger, begun)
        assert manifests(ledger) == [(1, "checkpoint", sent.blob_id, sent.digest, 3)]
        with ledger.database.read() as connection:
            assert has_checkpoint(connection, at)
            row = connection.exec_driver_sql(f"SELECT state, size_bytes, etag FROM blob WHERE id = {sent.blob_id}").one()
        assert tuple(row) == ("live", 77, "etag")
        assert state_of(ledger, "upload", upload_id) == "committed"

    def test_a_list_and_a_checkpoint_of_one_version_are_two(self, ledger: Ledger, namespace: NamespaceRow) -> None:
        ledger.write(namespace, {"a": b"1"})
        at, upload_id, sent = begin(ledger, namespace, 1)
        assert ledger.database.run(lambda c: add_manifest(c, at, "changes", sent))
        assert not ledger.database.run(lambda c: add_manifest(c, at, "changes", sent))
        assert finish(ledger, (at, upload_id, sent))
        assert [row[1] for row in manifests(ledger)] == ["changes", "checkpoint"]

    @pytest.mark.parametrize("state", ["live", "condemned", "deleting", "deleted"])
    def test_only_a_pending_blob_can_be_finished(self, ledger: Ledger, namespace: NamespaceRow, state: str) -> None:
        begun = begin(ledger, namespace, 1)
        ledger.set_blob_state(begun[2].blob_id, state)
        assert not finish(ledger, begun)
        assert manifests(ledger) == []
        assert ledger.blob_state(begun[2].blob_id) == state
        assert state_of(ledger, "upload", begun[1]) == "aborted"

    def test_anothers_blob_cannot_be_finished(self, ledger: Ledger, namespace: NamespaceRow) -> None:
        at, _, sent = begin(ledger, namespace, 1)
        other = ledger.open(namespace).upload.id
        assert not finish(ledger, (at, other, sent))
        assert ledger.blob_state(sent.blob_id) == "pending"

    def test_the_second_one_does_not_count(self, ledger: Ledger, namespace: NamespaceRow) -> None:
        first, second = begin(ledger, namespace, 1), begin(ledger, namespace, 1)
        assert finish(ledger, second)
        assert not finish(ledger, first)
        assert [row[2] for row in manifests(ledger)] == [second[2].blob_id]
        assert ledger.blob_state(first[2].blob_id) == "pending"
        assert (state_of(ledger, "upload", first[1]), state_of(ledger, "upload", second[1])) == ("aborted", "committed")


@SERVICES
class TestRaces:
    def test_two_at_once(self, races: Races) -> None:
        ledger, namespace = races.ledger, races.ledger.namespace()
        first, second = begin(ledger, namespace, 1), begin(ledger, namespace, 1)
        winner = races.paused(lambda c: finish_checkpoint(c, *first))
        loser = races.blocked(lambda c: finish_checkpoint(c, *second))
        assert winner.let_go() is True
        assert loser.join() is False
        assert [row[2] for row in manifests(ledger)] == [first[2].blob_id]
        assert ledger.blob_state(second[2].blob_id) == "pending"

    def test_the_second_counts_when_the_first_is_undone(self, races: Races) -> None:
        ledger, namespace = races.ledger, races.ledger.namespace()
        first, second = begin(ledger, namespace, 1), begin(ledger, namespace, 1)

        def failing(connection: object) -> None:
            finish_checkpoint(connection, *first)  # type: ignore[arg-type]

        undone = races.paused(failing)
        waiting = races.blocked(lambda c: finish_checkpoint(c, *second))
        with ledger.database.read() as connection:
            connection.exec_driver_sql(f"SELECT pg_terminate_backend({undone.pid})")
        with pytest.raises(Exception, match=r"lost|terminat|closed"):
            undone.let_go()
        assert waiting.join() is True
        assert [row[2] for row in manifests(ledger)] == [second[2].blob_id]

    @pytest.mark.parametrize("reaper_first", [True, False])
    def test_a_reaper(self, races: Races, reaper_first: bool) -> None:
        ledger, namespace = races.ledger, races.ledger.namespace()
        begun = begin(ledger, namespace, 1)
        reap = text("UPDATE blob SET state = 'deleting' WHERE id = :id AND state = 'pending' AND upload_id = :u")
        binds = {"id": begun[2].blob_id, "u": begun[1]}
        works = [lambda c: c.execute(reap, binds).rowcount, lambda c: int(finish_checkpoint(c, *begun))]
        if not reaper_first:
            works.reverse()
        first = races.paused(works[0])
        second = races.blocked(works[1])
        assert first.let_go() == 1
        assert second.join() == 0
        assert ledger.blob_state(begun[2].blob_id) == ("deleting" if reaper_first else "live")
        assert len(manifests(ledger)) == int(not reaper_first)


class TestTail:
    def test_its_length(self, ledger: Ledger, namespace: NamespaceRow) -> None:
        ledger.write(namespace, {"a": b"1", "b": b"1", "c": b"1"})
        ledger.write(namespace, {"a": b"2"})
        ledger.write(namespace, {"a": None, "b": b"2", "d": b"1"})
        self.check(ledger, namespace, {1: (0, 3, 0), 2: (0, 3, 1 + VERSION_ROWS), 3: (0, 3, 4 + 2 * VERSION_ROWS)})
        finish(ledger, begin(ledger, namespace, 2))
        self.check(ledger, namespace, {1: (0, 3, 0), 2: (2, 3, 0), 3: (2, 3, 3 + VERSION_ROWS)})
        finish(ledger, begin(ledger, namespace, 1))
        at, _, sent = begin(ledger, namespace, 3)
        assert ledger.database.run(lambda c: add_manifest(c, at, "changes", sent))  # which is no checkpoint
        self.check(ledger, namespace, {1: (1, 3, 0), 2: (2, 3, 0), 3: (2, 3, 3 + VERSION_ROWS)})

    def test_a_version_that_changed_everything_begins_it(self, ledger: Ledger, namespace: NamespaceRow) -> None:
        ledger.write(namespace, {"a": b"1", "b": b"1"})
        ledger.write(namespace, {"a": b"2"})
        ledger.write(namespace, {"a": b"3", "b": b"3", "c": b"3"})
        ledger.write(namespace, {"c": b"4"})
        ledger.write(namespace, {"a": None, "b": None, "c": None})
        ledger.write(namespace, {"z": b"6"})
        tails = {1: (0, 2, 0), 2: (0, 2, 1 + VERSION_ROWS), 3: (0, 3, 0), 4: (0, 3, 1 + VERSION_ROWS), 5: (0, 0, 0), 6: (0, 1, 0)}
        self.check(ledger, namespace, tails)

    def test_other_namespaces_do_not_count(self, ledger: Ledger, namespace: NamespaceRow) -> None:
        other = ledger.namespace("other")
        for turn in range(3):
            ledger.write(namespace, {"a": b"1", "b": b"%d" % turn})
            ledger.write(other, {"a": b"1", "b": b"%d" % turn})
        finish(ledger, begin(ledger, other, 3))
        self.check(ledger, namespace, {3: (0, 2, 2 + 2 * VERSION_ROWS)})
        self.check(ledger, other, {3: (3, 2, 0)})

    def check(self, ledger: Ledger, namespace: NamespaceRow, tails: dict[int, tuple[int, int, int]]) -> None:
        for number, (checkpoint, file_count, rows) in tails.items():
            at = ledger.at(namespace, number)
            with ledger.database.read() as connection:
                found = find_tail(connection, at)
                assert (found.checkpoint, found.file_count) == (checkpoint, file_count), number
                assert measure_tail(connection, at, found.checkpoint) == rows, number


@pytest.mark.parametrize(
    "kind",
    ["directory+sqlite", pytest.param("memory+postgresql", marks=SERVICES), pytest.param("azurite+postgresql", marks=SERVICES)],
)
def test_the_checkpoints_of_a_store(kind: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands in the container is what its journal adds up to, and lists and checkpoints are blobs the index knows."""
    monkeypatch.setattr(checkpoint_module, "LOOK_EVERY", 1)
    monkeypatch.setattr(checkpoint_module, "TAIL_ROWS_MIN", 2 * VERSION_ROWS)
    monkeypatch.setattr(commit_module, "INLINE_CHANGES_BYTES_MAX", 300)
    place = make_place(kind, request)
    with place.connect(create=True) as store:
        for turn in range(6):
            with store.namespace("team/raw").transaction() as tx:
                for path in ODD if turn == 0 else [f"{turn}/{path}" for path in ODD[:turn]]:
                    tx.write_bytes(path, path.encode() * (turn + 1))
        doors = store._handle.doors
        checker = Checker(place, "team/raw")
        checker.check(store)
        keys = [parse_checkpoint_key(key) for key in list_keys(doors.blobs, "checkpoints/")]
        assert [key.number for key in keys if key is not None] == [3, 5]
        for key in keys:
            assert key is not None
            rows = decode_change_list(doors.blobs.read_range(str(key)), key.digest)
            held = {row.path: "b3:" + row.digest.hex() for row in rows if row.digest is not None}
            assert held == checker.state[key.number][1]
        with doors.index.read() as connection:
            noted = connection.exec_driver_sql(
                "SELECT b.key FROM manifest m JOIN blob b ON b.id = m.blob_id WHERE b.state = 'live' ORDER BY b.key"
            ).scalars()
            assert list(noted) == [*list_keys(doors.blobs, "changes/"), *map(str, keys)]
            namespace = find_namespace(connection, doors.store.id, "team/raw")
        assert len(list_keys(doors.blobs, "changes/")) >= 1
        assert namespace is not None
        assert [write_checkpoint(doors, namespace, number) for number in (1, 3, 6)] == [True, False, True]


def test_an_upload_that_ended_is_not_ended_again(ledger: Ledger, namespace: NamespaceRow) -> None:
    begun = begin(ledger, namespace, 1)
    assert finish(ledger, begun)
    assert not ledger.database.run(lambda c: end_upload(c, ledger.store.id, begun[1], "aborted"))
    assert state_of(ledger, "upload", begun[1]) == "committed"
