"""What an uploader asks of the index: what is there already, what can be continued, what a version holds; on both databases."""

from __future__ import annotations

import itertools

import pytest
from sqlalchemy import event

from tests.unit.index.ledger import HOUR_US, Ledger, Writer, digest_of, digests, members
from vds.errors import FormatError, UnavailableError
from vds.index.commit import Committed, PlanAgain
from vds.index.conflicts import find_touched_under
from vds.index.cursors import BATCH_ROWS, fetch_all, fetch_batches, look_up_by_key
from vds.index.database import LOCK_WAIT_S, Connection, Database
from vds.index.entries import _VIEW, ViewRow, find_view_row, read_view_page
from vds.index.needs import BlobsGone, Need, list_needs
from vds.index.placements import (
    LOOKUP_BATCH,
    add_pending_blobs,
    find_live,
    find_placements,
    finish_blob,
    revive_blobs,
)
from vds.index.plan import Area
from vds.index.resume import CANDIDATES_MAX, find_known_files, find_resumable, take_over_blob
from vds.index.schema import SMALL_BYTES_MAX
from vds.index.staging import NewUpload, UploadRow, add_upload, end_upload, heartbeat
from vds.index.stores import NamespaceRow
from vds.index.translate import translated
from vds.model.content import Member
from vds.model.entry import MODE_FILE

_numbers = itertools.count(1)


def upload_of(ledger: Ledger, namespace: NamespaceRow, process: str = "") -> UploadRow:
    token = f"uploader-{next(_numbers)}"
    new = NewUpload(token, namespace.id, 0, None, "ada", "", "{}", False, f"commit-{token}", HOUR_US, process)
    return ledger.database.run(lambda c: add_upload(c, ledger.store.id, new))


def pending(ledger: Ledger, upload: UploadRow, keys: list[str], fingerprint: str | None = None) -> list[int]:
    return ledger.database.run(lambda c: add_pending_blobs(c, ledger.store.id, keys, upload.id, fingerprint=fingerprint))


def live(ledger: Ledger, digests: list[bytes]) -> set[bytes]:
    with ledger.database.read() as connection:
        return find_live(connection, ledger.store.id, digests)


class TestFindLive:
    def test_only_objects_with_a_live_blob_are_live(self, ledger: Ledger, namespace: NamespaceRow) -> None:
        upload = upload_of(ledger, namespace)
        ledger.put_blob(upload.id, b"1", b"2")
        going = ledger.put_blob(upload.id, b"3")
        ledger.set_blob_state(going, "condemned")
        asked = [digest_of(body) for body in (b"1", b"2", b"3", b"4")]
        assert live(ledger, asked) == {digest_of(b"1"), digest_of(b"2")}
        assert live(ledger, []) == set()
        assert live(Ledger(ledger.database), asked) == set()

    @pytest.mark.parametrize("count", [1, LOOKUP_BATCH, LOOKUP_BATCH + 1])
    def test_any_number_may_be_asked_for(self, ledger: Ledger, namespace: NamespaceRow, count: int) -> None:
        bodies = [b"%d" % number for number in range(count)]
        ledger.put_blob(upload_of(ledger, namespace).id, *bodies)
        asked = [digest_of(body) for body in bodies]
        assert live(ledger, [*asked, digest_of(b"no such thing")]) == set(asked)


class TestFindKnownFiles:
    def test_a_file_is_known_by_its_fingerprint_or_else_by_its_size(self, ledger: Ledger, namespace: NamespaceRow) -> None:
        upload = upload_of(ledger, namespace)
        marked, unmarked, small = SMALL_BYTES_MAX + 1, SMALL_BYTES_MAX + 2, SMALL_BYTES_MAX
        for size_bytes, mark in ((marked, "mark"), (unmarked, None), (small, None)):
            with ledger.database.read() as connection:
                found = find_known_files(connection, ledger.store.id, [(size_bytes, mark or "other")])
            assert found == set(), "nothing is there yet"
            (blob_id,) = ledger.database.run(
                lambda c, size_bytes=size_bytes, mark=mark: add_pending_blobs(  # type: ignore[misc]
                    c, ledger.store.id, [f"objects/{size_bytes}"], upload.id, fingerprint=mark
                )
            )
            placed = [Member(digest_of(b"%d" % size_bytes), 0, size_bytes)]
            assert ledger.database.run(
                lambda c, blob_id=blob_id, placed=placed: finish_blob(c, ledger.store.id, blob_id, upload.id, 1, "e", placed)  # type: ignore[misc]
            )
        asked = [(marked, "mark"), (marked, "not this"), (unmarked, "any"), (small, "too small to be looked for")]
        with ledger.database.read() as connection:
            assert find_known_files(connection, ledger.store.id, asked) == {"mark", "any"}
            assert find_known_files(connection, ledger.store.id, asked * 200) == {"mark", "any"}
            assert find_known_files(connection, ledger.store.id, []) == set()
            assert find_known_files(connection, ledger.store.id + 1000, asked) == set()

    def test_the_index_over_large_objects_serves_it(self, database: Database, ledger: Ledger) -> None:
        if not database.is_sqlite:
            pytest.skip("a planner with statistics may well read an empty table whole")
        question = f"SELECT 1 FROM object WHERE store_id = 1 AND length_bytes > {SMALL_BYTES_MAX} AND length_bytes IN (9, 10)"
        with database.read() as connection:
            plan = connection.exec_driver_sql("EXPLAIN QUERY PLAN " + question).all()
        assert "ix_object_length" in str(plan)


class TestPendingBlobs:
    def test_ids_come_in_the_order_of_the_keys(self, ledger: Ledger, namespace: NamespaceRow) -> None:
        upload = upload_of(ledger, namespace)
        keys = [f"packs/{name}" for name in ("c", "a", "b", "e", "d")]
        ids = pending(ledger, upload, keys)
        with ledger.database.read() as connection:
            rows = connection.exec_driver_sql(
                f"SELECT id, key, state, upload_id FROM blob WHERE store_id = {ledger.store.id}"
            ).all()
        assert {row.id: (row.key, row.state, row.upload_id) for row in rows} == {
            blob_id: (key, "pending", upload.id) for blob_id, key in zip(ids, keys, strict=True)
        }

    def test_no_keys_are_no_blobs(self, ledger: Ledger, namespace: NamespaceRow) -> None:
        assert pending(ledger, upload_of(ledger, namespace), []) == []


class TestFinishBlob:
    def test_a_pack_of_new_objects_is_placed_without_reading_any_back(self, ledger: Ledger, namespace: NamespaceRow) -> None:
        upload = upload_of(ledger, namespace)
        (blob_id,) = pending(ledger, upload, ["packs/new"])
        bodies = [b"new %d" % number for number in range(2000)]
        statements: list[str] = []

        def work(connection: Connection) -> bool:
            event.listen(connection, "before_cursor_execute", lambda *args: statements.append(args[2]))
            return finish_blob(connection, ledger.store.id, blob_id, upload.id, 9, "e", members(*bodies))

        assert ledger.database.run(work)
        assert not [statement for statement in statements if "object o JOIN" in statement]
        with ledger.database.read() as connection:
            found = find_placements(connection, ledger.store.id, map(digest_of, bodies))
        expected = {member.digest: (blob_id, member.offset_bytes, member.length_bytes) for member in members(*bodies)}
        assert {digest: (row.blob_id, row.offset_bytes, row.length_bytes) for digest, row in found.items()} == expected

    def test_one_object_twice_in_a_pack_is_placed_once(self, ledger: Ledger, namespace: NamespaceRow) -> None:
        upload = upload_of(ledger, namespace)
        (blob_id,) = pending(ledger, upload, ["packs/twice"])
        twice = members(b"x", b"y", b"x")
        assert ledger.database.run(lambda c: finish_blob(c, ledger.store.id, blob_id, upload.id, 3, "e", twice))
        assert live(ledger, [digest_of(b"x"), digest_of(b"y")]) == {digest_of(b"x"), digest_of(b"y")}
        assert ledger.blob_state(blob_id) == "live"


def needs_of(ledger: Ledger, writer: Writer) -> tuple[Need, ...] | None:
    with ledger.database.read() as connection:
        return list_needs(connection, writer.area)


class TestNeeds:
    def test_the_blobs_of_changed_files_are_listed_by_id(self, ledger: Ledger, namespace: NamespaceRow) -> None:
        ledger.write(namespace, {"same": b"0"})
        writer = ledger.open(namespace)
        first, second = ledger.put_blob(writer.upload.id, b"1", b"2"), ledger.put_blob(writer.upload.id, b"3")
        files = {"a": b"3", "b": b"1", "c": b"2", "empty": b"", "same": b"0", "gone": None}
        ledger.stage(writer, files, place=False)
        ledger.plan(writer)
        assert needs_of(ledger, writer) == (Need(first, 0), Need(second, 0))
        outcome = ledger.commit(writer, ledger.plan_listed(writer))
        assert isinstance(outcome, Committed)
        assert ledger.files(namespace, 2) == digests({path: body for path, body in files.items() if body is not None})

    @pytest.mark.parametrize("state", ["pending", "condemned", "deleting", "deleted"])
    def test_a_blob_that_is_not_live_leaves_them_unlisted(self, ledger: Ledger, namespace: NamespaceRow, state: str) -> None:
        writer = ledger.open(namespace)
        ledger.stage(writer, {"a": b"1"})
        going = ledger.put_blob(writer.upload.id, b"2")
        ledger.stage(writer, {"b": b"2"}, place=False)
        ledger.set_blob_state(going, state)
        assert needs_of(ledger, writer) is None

    def test_an_object_nobody_placed_leaves_them_unlisted(self, ledger: Ledger, namespace: NamespaceRow) -> None:
        writer = ledger.open(namespace)
        ledger.stage(writer, {"a": b"nowhere"}, place=False)
        assert needs_of(ledger, writer) is None
        outcome = ledger.commit(writer, ledger.plan_listed(writer))
        assert outcome == BlobsGone((), (digest_of(b"nowhere"),))

    def test_one_emptied_and_revived_meanwhile_does_not_pass_for_the_same(self, ledger: Ledger, namespace: NamespaceRow) -> None:
        writer, other = ledger.open(namespace), ledger.open(namespace)
        old = ledger.put_blob(writer.upload.id, b"1")
        ledger.stage(writer, {"a": b"1"}, place=False)
        planned = ledger.plan_listed(writer)
        ledger.set_blob_state(old, "condemned")
        new = ledger.put_blob(other.upload.id, b"1")
        assert ledger.database.run(lambda c: revive_blobs(c, [old])) == 1
        assert ledger.commit(writer, planned) == PlanAgain()
        assert ledger.plan_listed(writer).needs == (Need(new, 0),)
        assert needs_of(ledger, writer) != planned.needs

    def test_one_condemned_and_revived_meanwhile_holds_what_it_held(self, ledger: Ledger, namespace: NamespaceRow) -> None:
        writer = ledger.open(namespace)
        blob_id = ledger.put_blob(writer.upload.id, b"1")
        ledger.stage(writer, {"a": b"1"}, place=False)
        planned = ledger.plan_listed(writer)
        ledger.set_blob_state(blob_id, "condemned")
        assert ledger.commit(writer, planned) == PlanAgain()
        assert ledger.database.run(lambda c: revive_blobs(c, [blob_id])) == 1
        assert isinstance(ledger.commit(writer, planned), Committed)

    def test_rows_that_came_after_the_plan_have_it_made_again(self, ledger: Ledger, namespace: NamespaceRow) -> None:
        ledger.write(namespace, {"a": b"1", "b": b"1"})
        for late in ({"c": b""}, {"a": None}):
            writer = ledger.open(namespace)
            ledger.stage(writer, {"b": b""})
            planned = ledger.plan_listed(writer)
            ledger.stage(writer, late)
            assert ledger.commit(writer, planned) == PlanAgain()
        assert ledger.now(namespace).head == 1


class TestResumption:
    def test_pending_blobs_of_a_fingerprint_come_newest_first(self, ledger: Ledger, namespace: NamespaceRow) -> None:
        first, second = upload_of(ledger, namespace, "host/boot/7/99"), upload_of(ledger, namespace)
        ((old,), (new,)) = pending(ledger, first, ["a"], "9:f00"), pending(ledger, second, ["b"], "9:f00")
        pending(ledger, first, ["c"], "9:other")
        pending(ledger, first, ["d"])
        (finished,) = pending(ledger, first, ["e"], "9:f00")
        ledger.database.run(lambda c: finish_blob(c, ledger.store.id, finished, first.id, 9, "e", members(b"body")))
        ledger.database.run(lambda c: end_upload(c, ledger.store.id, second.id, "aborted"))
        ledger.database.run(lambda c: heartbeat(c, first.id))
        with ledger.database.read() as connection:
            found = find_resumable(connection, ledger.store.id, "9:f00")
            assert find_resumable(connection, ledger.store.id, "9:unknown") == []
        assert [(row.blob_id, row.key, row.upload_id, row.upload_state, row.process) for row in found] == [
            (new, "b", second.id, "aborted", ""),
            (old, "a", first.id, "open", "host/boot/7/99"),
        ]
        assert all(0 < row.heartbeat_us <= row.now_us for row in found)

    def test_there_is_a_limit_on_them(self, ledger: Ledger, namespace: NamespaceRow) -> None:
        ids = pending(ledger, upload_of(ledger, namespace), [f"many/{n}" for n in range(CANDIDATES_MAX + 1)], "9:many")
        with ledger.database.read() as connection:
            found = find_resumable(connection, ledger.store.id, "9:many")
        assert [row.blob_id for row in found] == ids[:0:-1]

    def test_a_pending_blob_has_one_taker(self, ledger: Ledger, namespace: NamespaceRow) -> None:
        mine, theirs, third = (upload_of(ledger, namespace) for _ in range(3))
        (blob_id,) = pending(ledger, mine, ["taken"], "9:f01")

        def take(old: UploadRow, new: UploadRow) -> bool:
            return ledger.database.run(lambda c: take_over_blob(c, blob_id, old.id, new.id))

        def finish(upload: UploadRow) -> bool:
            return ledger.database.run(lambda c: finish_blob(c, ledger.store.id, blob_id, upload.id, 1, "e", members(b"t")))

        assert take(mine, theirs)
        assert not take(mine, third)
        assert not finish(mine)
        assert finish(theirs)
        assert not take(theirs, third)


class TestTouchedUnder:
    @pytest.mark.parametrize(
        ("prefix", "low", "high", "touched"),
        [
            ("a", 0, 1, True),
            ("a", 1, 2, False),
            ("a/b", 2, 3, True),  # a removal
            ("a", 2, 2, False),
            ("b", 1, 2, True),
            ("b/c", 1, 3, False),
            ("", 1, 2, True),
            ("", 3, 3, False),
        ],
    )
    def test_changes_at_or_below_a_prefix_count(
        self, ledger: Ledger, namespace: NamespaceRow, prefix: str, low: int, high: int, touched: bool
    ) -> None:
        ledger.write(namespace, {"a/b": b"1", "ab": b"1"})
        ledger.write(namespace, {"b": b"1", "a-b": b"1"})
        ledger.write(namespace, {"a/b": None})
        with ledger.database.read() as connection:
            assert find_touched_under(connection, Area(ledger.store.id, namespace.id, 0), low, high, prefix) is touched


def view(ledger: Ledger, namespace: NamespaceRow, version: int, prefix: str = "") -> list[list[ViewRow]]:
    """Return the pages of a version below a prefix, each read on a connection of its own."""
    area, after = Area(ledger.store.id, namespace.id, 0), ""
    pages: list[list[ViewRow]] = []
    while True:
        with ledger.database.read() as connection:
            rows = read_view_page(connection, area, version, prefix, after)
        if not rows:
            return pages
        pages.append(rows)
        after = rows[-1][0]


class TestViews:
    def test_a_view_holds_what_a_version_holds(self, ledger: Ledger, namespace: NamespaceRow) -> None:
        ledger.write(namespace, {"d/b": b"1", "d/a": b"22", "d-e": b"3", "d0": b"5", "z": b"4"})
        ledger.write(namespace, {"d/b": b"5", "z": None})
        first = [("d-e", b"3"), ("d/a", b"22"), ("d/b", b"1"), ("d0", b"5"), ("z", b"4")]
        assert view(ledger, namespace, 1) == [[(path, digest_of(body), len(body), MODE_FILE) for path, body in first]]
        assert [[row[:2] for row in rows] for rows in view(ledger, namespace, 2, "d")] == [
            [("d/a", digest_of(b"22")), ("d/b", digest_of(b"5"))]
        ]
        assert view(ledger, namespace, 2, "d-e") == []  # a file has nothing below it
        assert view(ledger, namespace, 0) == []

    def test_a_view_comes_in_pages(self, ledger: Ledger, namespace: NamespaceRow) -> None:
        ledger.write(namespace, {f"p/{number:05}": b"" for number in range(BATCH_ROWS + 1)})
        for prefix in ("", "p"):
            assert [len(rows) for rows in view(ledger, namespace, 1, prefix)] == [BATCH_ROWS, 1]

    def test_one_path_of_a_version_is_found(self, ledger: Ledger, namespace: NamespaceRow) -> None:
        ledger.write(namespace, {"d/a": b"22", "z": b"4"})
        ledger.write(namespace, {"z": None})
        area = Area(ledger.store.id, namespace.id, 0)
        with ledger.database.read() as connection:
            assert find_view_row(connection, area, 1, "z") == ("z", digest_of(b"4"), 1, MODE_FILE)
            assert find_view_row(connection, area, 2, "z") is None
            assert find_view_row(connection, area, 1, "d") is None

    def test_no_page_is_sorted(self, database: Database, ledger: Ledger, namespace: NamespaceRow) -> None:
        if not database.is_sqlite:
            pytest.skip("a planner with statistics may well sort what is small")
        binds = {"s": 1, "n": 1, "v": 1, "after": "", "end": "~"}
        question = f"{_VIEW} AND e.path > :after AND e.path < :end ORDER BY e.path LIMIT 9"
        with database.read() as connection:
            plan = str(fetch_all(connection, "EXPLAIN QUERY PLAN " + question, binds))
        assert "PRIMARY KEY" in plan
        assert "TEMP B-TREE" not in plan


class TestBatches:
    def test_two_can_be_open_on_one_connection(self, ledger: Ledger, namespace: NamespaceRow) -> None:
        ledger.write(namespace, {f"{number:05}": b"" for number in range(BATCH_ROWS + 1)})
        question = "SELECT path FROM entry WHERE store_id = :s ORDER BY path"
        with ledger.database.read() as connection:
            one, other = (fetch_batches(connection, question, {"s": ledger.store.id}) for _ in range(2))
            sizes = [(len(left), left == right) for left, right in zip(one, other, strict=True)]
        assert sizes == [(BATCH_ROWS, True), (1, True)]


class TestConnections:
    def test_every_one_waits_longer_than_the_longest_step(self, database: Database) -> None:
        limits = {"sqlite": ["PRAGMA busy_timeout"], "postgresql": ["SHOW lock_timeout", "SHOW statement_timeout"]}
        expected = {"sqlite": [LOCK_WAIT_S * 1000], "postgresql": [f"{LOCK_WAIT_S // 60}min", "0"]}
        with database.read() as one, database.read() as other:
            for connection in (one, other):
                name = connection.dialect.name
                assert [connection.exec_driver_sql(limit).scalar_one() for limit in limits[name]] == expected[name]

    def test_one_that_only_reads_waits_too(self, database: Database) -> None:
        if not database.is_sqlite:
            pytest.skip("PostgreSQL has one way to connect")
        reader = Database(database.path, read_only=True)
        with reader.read() as connection:
            assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar_one() == LOCK_WAIT_S * 1000
        reader.close()

    def test_a_write_is_as_durable_as_ever(self, database: Database) -> None:
        if not database.is_sqlite:
            pytest.skip("PostgreSQL's durability is its server's")
        with database.read() as connection:
            assert connection.exec_driver_sql("PRAGMA journal_mode").scalar_one() == "wal"
            assert connection.exec_driver_sql("PRAGMA synchronous").scalar_one() == 2  # FULL


class TestLookUpByKey:
    def test_it_lasts_for_one_transaction(self, database: Database) -> None:
        if database.is_sqlite:
            pytest.skip("SQLite joins by looking up alone")
        with database.read() as connection:
            connection.execution_options(stream_results=True)
            look_up_by_key(connection)
            connection.execution_options(stream_results=False)
            assert connection.exec_driver_sql("SHOW enable_hashjoin").scalar_one() == "off"
        with database.read() as connection:
            assert connection.exec_driver_sql("SHOW enable_hashjoin").scalar_one() == "on"


class TestErrorsOfTheDriver:
    def test_they_are_translated_as_any_other(self, database: Database) -> None:
        with pytest.raises(FormatError), database.read() as connection:
            fetch_all(connection, "SELECT x FROM no_such_table WHERE y = :y", {"y": 1})
        with pytest.raises(FormatError), database.read() as connection:
            list(fetch_batches(connection, "SELECT x FROM no_such_table WHERE y = :y", {"y": 1}))

    def test_a_lost_connection_is_seen_as_one(self, database: Database) -> None:
        if database.is_sqlite:
            pytest.skip("a file has no connection to lose")
        end = "SELECT pg_terminate_backend(pg_backend_pid())"
        with pytest.raises(UnavailableError), translated(database.address), database.read() as connection:
            fetch_all(connection, end, {})
