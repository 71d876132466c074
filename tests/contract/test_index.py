"""What the index promises, the same on SQLite and on PostgreSQL: commits, parts, placements, visibility, datasets.

Each test has a store of its own; the tests of a module share one database, as stores do.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import pytest
import sqlalchemy as sa
from sqlalchemy import event, text

from tests.unit.index.ledger import HOUR_US, NO_LIST, Ledger, Writer, digest_of, digests, members, staged_row
from vds.errors import ConflictError, InvalidInputError, NotFoundError
from vds.index import commit as commit_module
from vds.index import sweep
from vds.index.commit import LOOKED_AT_MAX, Committed, PlanAgain, Planned, find_commit_place
from vds.index.conflicts import OnTouched, find_touched
from vds.index.database import Connection, Database
from vds.index.datasets import (
    DatasetRow,
    NewRelease,
    add_release,
    find_dataset,
    find_release,
    find_same_release,
    find_tag,
    list_datasets,
    list_events,
    list_releases,
    list_tags,
    lock_dataset,
    move_tag,
    tags_showing,
)
from vds.index.edits import copy_own_paths, put_row, remove_paths
from vds.index.entries import find_entries, is_anything_at, measure, read_page
from vds.index.head import lock_head
from vds.index.manifests import SentList
from vds.index.placements import find_placements, finish_blob, revive_blobs
from vds.index.plan import SourceView, count_changes, find_clashes, find_left, mark_changed, read_changes, stage_copy
from vds.index.queue import find_lowest, list_records, remove_record
from vds.index.schema import OPEN, staged
from vds.index.staging import (
    NewUpload,
    PartRow,
    add_part,
    add_upload,
    drop_part,
    end_upload,
    finish_part,
    get_open_upload,
    get_upload,
    heartbeat,
    list_open_uploads,
    list_parts,
    main_part,
    merge_parts,
    move_rows,
)
from vds.index.stores import (
    NamespaceRow,
    find_namespace,
    find_store,
    list_namespaces,
    put_store,
    read_namespace,
)
from vds.index.sweep import count_rows, sweep_rows
from vds.index.versions import find_point, get_version, list_versions
from vds.model.ref import Point, parse_point
from vds.model.version import EVENT_CONTEXT, NO_PARENT, VERSION_CONTEXT, VersionRecord, record_digest

BULK_ROWS = 50_000


class TestStores:
    def test_a_store_is_put_once_and_keeps_its_incarnation(self, database: Database, ledger: Ledger) -> None:
        again = database.run(lambda c: put_store(c, ledger.store.uid, "another"))
        assert again == ledger.store
        with database.read() as connection:
            assert find_store(connection, "no-such-store") is None

    def test_stores_of_one_database_do_not_see_each_other(self, database: Database, ledger: Ledger) -> None:
        other = Ledger(database)
        mine, theirs = ledger.namespace("team/raw"), other.namespace("team/raw")
        ledger.write(mine, {"a": b"1"})
        with database.read() as connection:
            assert [row.id for row in list_namespaces(connection, other.store.id)] == [theirs.id]
            assert find_placements(connection, other.store.id, [digest_of(b"1")]) == {}
        assert other.now(theirs).head == 0


class TestNamespaces:
    def test_names_are_unique_blind_to_case(self, database: Database, ledger: Ledger) -> None:
        made = ledger.namespace("Team/Raw")
        with pytest.raises(ConflictError, match="a namespace of this name exists already"):
            ledger.namespace("team/RAW")
        with database.read() as connection:
            found = find_namespace(connection, ledger.store.id, "TEAM/raw")
            assert found is not None
            assert (found.id, found.name) == (made.id, "Team/Raw")
            assert find_namespace(connection, ledger.store.id, "team") is None

    def test_a_prefix_is_whole_segments(self, database: Database, ledger: Ledger) -> None:
        for name in ["team", "team/a", "team/b/c", "teams", "team-x", "other"]:
            ledger.namespace(name)
        with database.read() as connection:
            assert [row.name for row in list_namespaces(connection, ledger.store.id, "team")] == ["team", "team/a", "team/b/c"]
            everything = [row.name for row in list_namespaces(connection, ledger.store.id)]
        assert everything == sorted(["team", "team/a", "team/b/c", "teams", "team-x", "other"])

    def test_a_new_namespace_is_at_its_empty_version(self, database: Database, ledger: Ledger, namespace: NamespaceRow) -> None:
        with database.read() as connection:
            found = get_version(connection, read_namespace(connection, namespace.id), 0)
        assert (found.number, found.digest, found.file_count) == (0, NO_PARENT, 0)
        assert (namespace.head, namespace.visible, namespace.head_digest) == (0, 0, NO_PARENT)


def upload_of(ledger: Ledger, namespace: NamespaceRow, *, ttl_us: int = HOUR_US) -> Any:
    token = f"upload-{next(_numbers)}"
    new = NewUpload(token, namespace.id, 0, None, "ada", "why", "{}", False, f"commit-{token}", ttl_us)
    return ledger.database.run(lambda c: add_upload(c, ledger.store.id, new))


_numbers = itertools.count(1)


def fill_part(ledger: Ledger, writer: Writer, name: str, files: dict[str, bytes | None], *, finish: bool = True) -> int:
    """Write one part of a transaction and finish it."""

    def work(connection: Connection) -> int:
        part_id = add_part(connection, ledger.store.id, writer.upload.id, name)
        rows = [staged_row(writer.area, path, body, part_id=part_id) for path, body in files.items()]
        ledger.database.insert_rows(connection, staged, rows)
        if finish:
            finish_part(connection, ledger.store.id, writer.upload, part_id, name)
        return part_id

    return ledger.database.run(work)


def rows_of(ledger: Ledger, part_id: int) -> dict[str, tuple[int, bytes | None, int]]:
    with ledger.database.read() as connection:
        rows = connection.execute(
            text("SELECT path, kind, digest, was_read FROM staged WHERE store_id = :s AND part_id = :p ORDER BY path"),
            {"s": ledger.store.id, "p": part_id},
        )
        return {row.path: (row.kind, None if row.digest is None else bytes(row.digest), row.was_read) for row in rows}


class TestUploads:
    def test_an_unknown_token_is_not_found(self, database: Database, ledger: Ledger) -> None:
        with database.read() as connection, pytest.raises(NotFoundError, match="no transaction 'x'"):
            get_upload(connection, ledger.store.id, "x")

    def test_an_ended_upload_is_not_open(self, database: Database, ledger: Ledger, namespace: NamespaceRow) -> None:
        upload = upload_of(ledger, namespace)
        assert database.run(lambda c: end_upload(c, ledger.store.id, upload.id, "aborted")) is True
        assert database.run(lambda c: end_upload(c, ledger.store.id, upload.id, "committed")) is False
        with pytest.raises(ConflictError, match="was aborted already"):
            database.run(lambda c: get_open_upload(c, ledger.store.id, upload.token))

    def test_an_expired_upload_is_not_open(self, database: Database, ledger: Ledger, namespace: NamespaceRow) -> None:
        upload = upload_of(ledger, namespace, ttl_us=-1)
        with pytest.raises(ConflictError, match="has expired") as caught:
            database.run(lambda c: get_open_upload(c, ledger.store.id, upload.token))
        assert "ttl_hours" in caught.value.hint

    def test_open_ones_are_listed_with_their_finished_parts(
        self, database: Database, ledger: Ledger, namespace: NamespaceRow
    ) -> None:
        writer, ended = ledger.open(namespace), ledger.open(namespace)
        upload_of(ledger, namespace, ttl_us=-1)
        database.run(lambda c: end_upload(c, ledger.store.id, ended.upload.id, "aborted"))
        fill_part(ledger, writer, "one", {"a": b"1"})
        fill_part(ledger, writer, "two", {"b": b"1"}, finish=False)
        with database.read() as connection:
            found = list(list_open_uploads(connection, ledger.store.id))
        assert [(row.token, name, parts) for row, name, parts in found] == [(writer.upload.token, "team/raw", 1)]

    def test_its_end_forgets_its_rows_and_its_parts(self, database: Database, ledger: Ledger, namespace: NamespaceRow) -> None:
        writer, other = ledger.open(namespace), ledger.open(namespace)
        ledger.stage(writer, {"a": b"1"})
        ledger.stage(other, {"a": b"1"})
        named = fill_part(ledger, writer, "one", {"b": b"1"})
        database.run(lambda c: end_upload(c, ledger.store.id, writer.upload.id, "aborted"))
        assert (rows_of(ledger, writer.area.part_id), rows_of(ledger, named)) == ({}, {})
        assert list(rows_of(ledger, other.area.part_id)) == ["a"]

    def test_a_heartbeat_moves_on(self, database: Database, ledger: Ledger, namespace: NamespaceRow) -> None:
        upload = upload_of(ledger, namespace)
        database.run(lambda c: c.execute(text("UPDATE upload SET heartbeat_us = 1 WHERE id = :id"), {"id": upload.id}))
        database.run(lambda c: heartbeat(c, upload.id))
        with database.read() as connection:
            found = connection.execute(text("SELECT heartbeat_us FROM upload WHERE id = :id"), {"id": upload.id}).scalar_one()
        assert found >= upload.created_us


class TestParts:
    def test_a_part_counts_once_it_is_finished(self, database: Database, ledger: Ledger, namespace: NamespaceRow) -> None:
        writer = ledger.open(namespace)
        fill_part(ledger, writer, "done", {"a": b"123", "b": None})
        fill_part(ledger, writer, "open", {"c": b"1"}, finish=False)
        with database.read() as connection:
            found = list_parts(connection, ledger.store.id, writer.upload.id)
            assert main_part(connection, ledger.store.id, writer.upload.id) == writer.area.part_id
        assert [(part.name, part.file_count, part.size_bytes) for part in found] == [("done", 1, 3)]

    def test_the_same_name_again_replaces_it(self, database: Database, ledger: Ledger, namespace: NamespaceRow) -> None:
        writer = ledger.open(namespace)
        earlier = fill_part(ledger, writer, "one", {"a": b"1"})
        later = fill_part(ledger, writer, "one", {"b": b"2"})
        with database.read() as connection:
            assert [part.id for part in list_parts(connection, ledger.store.id, writer.upload.id)] == [later]
        assert rows_of(ledger, earlier) == {}

    def test_dropping_one_is_idempotent(self, database: Database, ledger: Ledger, namespace: NamespaceRow) -> None:
        writer = ledger.open(namespace)
        part_id = fill_part(ledger, writer, "one", {"a": b"1"})
        for _ in range(2):
            database.run(lambda c: drop_part(c, ledger.store.id, part_id))
        with database.read() as connection:
            assert list_parts(connection, ledger.store.id, writer.upload.id) == []

    def merge(self, ledger: Ledger, writer: Writer) -> dict[str, tuple[int, bytes | None, int]]:
        def work(connection: Connection) -> int:
            own = PartRow(writer.area.part_id, "", 0, 0, 0)
            target = add_part(connection, ledger.store.id, writer.upload.id, ".scratch")
            parts = list_parts(connection, ledger.store.id, writer.upload.id)
            merge_parts(connection, ledger.store.id, [own, *parts], target)
            return target

        return rows_of(ledger, ledger.database.run(work))

    def test_equal_contents_merge_and_reads_are_kept(self, ledger: Ledger, namespace: NamespaceRow) -> None:
        writer = ledger.open(namespace)
        ledger.stage(writer, {"own": b"o", "both": b"1"})
        fill_part(ledger, writer, "one", {"both": b"1", "x": b"x"})
        part_id = fill_part(ledger, writer, "two", {"both": b"1", "gone": None})
        ledger.database.run(
            lambda c: c.execute(text("UPDATE staged SET was_read = 1 WHERE part_id = :p AND path = 'both'"), {"p": part_id})
        )
        assert self.merge(ledger, writer) == {
            "both": (1, digest_of(b"1"), 1),
            "gone": (2, None, 0),
            "own": (1, digest_of(b"o"), 0),
            "x": (1, digest_of(b"x"), 0),
        }

    @pytest.mark.parametrize("other", [b"2", None])
    def test_one_path_with_two_contents_names_both_parts(
        self, ledger: Ledger, namespace: NamespaceRow, other: bytes | None
    ) -> None:
        writer = ledger.open(namespace)
        fill_part(ledger, writer, "shard-01", {"a": b"1", "z": b"z"})
        fill_part(ledger, writer, "shard-02", {"a": other})
        with pytest.raises(ConflictError, match="parts 'shard-01' and 'shard-02' both write 'a'") as caught:
            self.merge(ledger, writer)
        assert caught.value.paths == ("a",)

    def test_the_transaction_itself_is_named_too(self, ledger: Ledger, namespace: NamespaceRow) -> None:
        writer = ledger.open(namespace)
        ledger.stage(writer, {"a": b"1"})
        fill_part(ledger, writer, "shard-01", {"a": b"2"})
        with pytest.raises(ConflictError, match=r"parts '\(the transaction itself\)' and 'shard-01'"):
            self.merge(ledger, writer)

    def test_a_moved_row_stands_but_what_was_read_stays_read(self, ledger: Ledger, namespace: NamespaceRow) -> None:
        writer = ledger.open(namespace)
        ledger.stage(writer, {"a": None, "b": b"1", "c": b"c"}, read=["a"])
        scratch = fill_part(ledger, writer, ".scratch", {"a": b"2", "b": b"2"}, finish=False)
        ledger.database.run(lambda c: move_rows(c, ledger.store.id, scratch, writer.area.part_id))
        assert rows_of(ledger, writer.area.part_id) == {
            "a": (1, digest_of(b"2"), 1),
            "b": (1, digest_of(b"2"), 0),
            "c": (1, digest_of(b"c"), 0),
        }


class TestEdits:
    def test_a_path_is_written_in_place_of_what_was_staged(self, ledger: Ledger, namespace: NamespaceRow) -> None:
        writer = ledger.open(namespace)
        ledger.stage(writer, {"a": b"1"}, read=["a"])
        ledger.database.run(lambda c: put_row(c, staged_row(writer.area, "a", b"2")))
        assert rows_of(ledger, writer.area.part_id) == {"a": (1, digest_of(b"2"), 1)}

    def test_removal_counts_what_the_transaction_sees(self, ledger: Ledger, namespace: NamespaceRow) -> None:
        ledger.write(namespace, {"d/base": b"1", "d/both": b"1", "dx": b"1"})
        writer = ledger.open(namespace)
        ledger.stage(writer, {"d/both": b"2", "d/staged": b"3", "e": b"4"})
        count = ledger.database.run(lambda c: remove_paths(c, writer.area, 1, "d"))
        assert count == 3
        assert rows_of(ledger, writer.area.part_id) == {
            "d/base": (2, None, 0),
            "d/both": (2, None, 0),
            "e": (1, digest_of(b"4"), 0),
        }
        assert ledger.database.run(lambda c: remove_paths(c, writer.area, 1, "d")) == 0

    def test_removing_what_was_read_keeps_it_read(self, ledger: Ledger, namespace: NamespaceRow) -> None:
        ledger.write(namespace, {"a": b"1"})
        writer = ledger.open(namespace)
        ledger.database.run(lambda c: remove_paths(c, writer.area, 1, "a", was_read=True))
        ledger.database.run(lambda c: put_row(c, staged_row(writer.area, "a", b"2")))
        ledger.database.run(lambda c: remove_paths(c, writer.area, 1, "a"))
        assert rows_of(ledger, writer.area.part_id) == {"a": (2, None, 1)}

    def test_own_paths_are_copied_as_the_transaction_sees_them(self, ledger: Ledger, namespace: NamespaceRow) -> None:
        ledger.write(namespace, {"d/é": b"1", "d/gone": b"2", "d/new": b"3", "dd": b"4"})
        writer = ledger.open(namespace)
        ledger.stage(writer, {"d/gone": None, "d/new": b"5", "d/staged": b"6"})
        target = fill_part(ledger, writer, ".scratch", {}, finish=False)
        count = ledger.database.run(lambda c: copy_own_paths(c, writer.area, 1, "d", "to/ü", target))
        assert count == 3
        assert {path: row[1] for path, row in rows_of(ledger, target).items()} == digests(
            {"to/ü/é": b"1", "to/ü/new": b"5", "to/ü/staged": b"6"}
        )


class TestPlacements:
    def test_only_its_upload_finishes_a_pending_blob_and_only_once(self, ledger: Ledger, namespace: NamespaceRow) -> None:
        mine, other = ledger.open(namespace).upload.id, ledger.open(namespace).upload.id
        blob_id = ledger.pending(mine)

        def finish(upload_id: int) -> bool:
            return ledger.database.run(lambda c: finish_blob(c, ledger.store.id, blob_id, upload_id, 1, "e", members(b"1")))

        assert finish(other) is False
        assert self.places(ledger, b"1") == {}
        assert finish(mine) is True
        assert finish(mine) is False

    @pytest.mark.parametrize("state", ["live", "condemned", "deleting", "deleted"])
    def test_a_blob_that_is_not_pending_is_left_alone(self, ledger: Ledger, namespace: NamespaceRow, state: str) -> None:
        upload_id = ledger.open(namespace).upload.id
        blob_id = ledger.pending(upload_id)
        ledger.set_blob_state(blob_id, state)
        done = ledger.database.run(lambda c: finish_blob(c, ledger.store.id, blob_id, upload_id, 1, "e", members(b"1")))
        assert (done, ledger.blob_state(blob_id)) == (False, state)
        assert self.places(ledger, b"1") == {}

    def test_of_two_that_hold_one_object_the_second_is_condemned(self, ledger: Ledger, namespace: NamespaceRow) -> None:
        upload_id = ledger.open(namespace).upload.id
        first, second = ledger.put_blob(upload_id, b"1", b"22"), ledger.put_blob(upload_id, b"1", b"22")
        assert (ledger.blob_state(first), ledger.blob_state(second)) == ("live", "condemned")
        place = self.places(ledger, b"22")[digest_of(b"22")]
        assert (place.blob_id, place.offset_bytes, place.length_bytes, place.state) == (first, 1, 2, "live")

    @pytest.mark.parametrize("state", ["condemned", "deleting", "deleted"])
    def test_a_stale_placement_is_replaced(self, ledger: Ledger, namespace: NamespaceRow, state: str) -> None:
        upload_id = ledger.open(namespace).upload.id
        first = ledger.put_blob(upload_id, b"1")
        ledger.set_blob_state(first, state)
        second = ledger.put_blob(upload_id, b"1")
        assert (ledger.blob_state(first), ledger.blob_state(second)) == (state, "live")
        assert self.places(ledger, b"1")[digest_of(b"1")].blob_id == second

    def test_only_condemned_blobs_are_revived(self, ledger: Ledger, namespace: NamespaceRow) -> None:
        upload_id = ledger.open(namespace).upload.id
        blobs = {state: ledger.pending(upload_id) for state in ["condemned", "deleting", "deleted", "live", "pending"]}
        for state, blob_id in blobs.items():
            ledger.set_blob_state(blob_id, state)
        assert ledger.database.run(lambda c: revive_blobs(c, list(blobs.values()))) == 1
        assert {state: ledger.blob_state(blob_id) for state, blob_id in blobs.items()} == {
            **{state: state for state in blobs},
            "condemned": "live",
        }

    def places(self, ledger: Ledger, *bodies: bytes) -> dict[bytes, Any]:
        with ledger.database.read() as connection:
            return dict(find_placements(connection, ledger.store.id, map(digest_of, bodies)))


class TestConflictTable:
    """Each operation against someone who got in first: the base is version 1, theirs is version 2, ours comes third."""

    @pytest.fixture(autouse=True, params=[LOOKED_AT_MAX, -1], ids=["told with the head", "judged"])
    def looks(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
        """Few changes are looked at with the head, many only after it: the outcome is the same."""
        monkeypatch.setattr(commit_module, "LOOKED_AT_MAX", request.param)

    BASE: ClassVar[dict[str, bytes]] = {"a": b"1", "d/x": b"1", "keep": b"k"}

    def meet(
        self,
        ledger: Ledger,
        namespace: NamespaceRow,
        ours: dict[str, bytes | None],
        theirs: dict[str, bytes | None],
        on_touched: OnTouched,
        *,
        read: tuple[str, ...] = (),
        **terms: object,
    ) -> tuple[Writer, Planned]:
        ledger.write(namespace, self.BASE)
        writer = ledger.open(namespace, on_touched, **terms)
        ledger.stage(writer, ours, read=read)
        planned = ledger.plan(writer, keep_existing=on_touched == "skip")
        ledger.write(namespace, theirs)
        return writer, planned

    def test_upload_wins_where_both_wrote(self, ledger: Ledger, namespace: NamespaceRow) -> None:
        writer, planned = self.meet(ledger, namespace, {"a": b"o", "n": b"n"}, {"a": b"t", "m": b"m"}, "win")
        outcome = ledger.commit(writer, planned)
        assert isinstance(outcome, Committed)
        assert (outcome.number, outcome.counts.added, outcome.counts.modified) == (3, 1, 1)
        assert ledger.files(namespace, 2)["a"] == digest_of(b"t")
        assert ledger.files(namespace, 3) == digests({**self.BASE, "a": b"o", "n": b"n", "m": b"m"})

    def test_upload_counts_against_what_it_lands_on(self, ledger: Ledger, namespace: NamespaceRow) -> None:
        writer, planned = self.meet(ledger, namespace, {"a": b"o", "n": b"same"}, {"a": None, "n": b"same"}, "win")
        outcome = ledger.commit(writer, planned)
        assert isinstance(outcome, Committed)
        assert (outcome.counts.added, outcome.counts.modified) == (1, 0)
        ledger.flush(namespace)
        version = self.version(ledger, namespace, 3)
        assert (version.file_count, version.size_bytes) == (4, 1 + 4 + 1 + 1)

    def test_upload_that_equalled_the_base_still_wins(self, ledger: Ledger, namespace: NamespaceRow) -> None:
        writer, planned = self.meet(ledger, namespace, {"a": b"1", "n": b"n"}, {"a": b"t"}, "win")
        assert isinstance(ledger.commit(writer, planned), PlanAgain)
        assert isinstance(ledger.commit(writer, ledger.plan(writer)), Committed)
        assert ledger.files(namespace, 3)["a"] == digest_of(b"1")

    def test_upload_that_keeps_existing_files_leaves_theirs(self, ledger: Ledger, namespace: NamespaceRow) -> None:
        writer, planned = self.meet(ledger, namespace, {"n": b"ours", "m": b"m"}, {"n": b"theirs"}, "skip")
        assert isinstance(ledger.commit(writer, planned), PlanAgain)
        again = ledger.plan(writer, keep_existing=True)
        with ledger.database.read() as connection:
            left = find_left(connection, writer.area, 2, differing=True)
        assert (left.skipped, left.differing) == (1, ("n",))
        assert isinstance(ledger.commit(writer, again), Committed)
        assert ledger.files(namespace, 3) == digests({**self.BASE, "n": b"theirs", "m": b"m"})

    @pytest.mark.parametrize("theirs", [{"new": b"t"}, {"a": b"t"}, {"d/x": None}])
    def test_mirror_is_made_again_until_it_is_exact(
        self, ledger: Ledger, namespace: NamespaceRow, theirs: dict[str, bytes | None]
    ) -> None:
        ledger.write(namespace, self.BASE)
        writer = ledger.open(namespace, "exact", prefix="")
        ledger.stage(writer, {"a": b"1", "n": b"n"})
        planned = ledger.plan(writer, mirror="")
        ledger.write(namespace, theirs)
        assert isinstance(ledger.commit(writer, planned), PlanAgain)
        assert isinstance(ledger.commit(writer, ledger.plan(writer, mirror="")), Committed)
        assert ledger.files(namespace, 3) == digests({"a": b"1", "n": b"n"})

    def test_mirror_minds_only_what_is_under_its_prefix(self, ledger: Ledger, namespace: NamespaceRow) -> None:
        ledger.write(namespace, self.BASE)
        writer = ledger.open(namespace, "exact", prefix="d")
        ledger.stage(writer, {"d/y": b"y"})
        planned = ledger.plan(writer, mirror="d")
        ledger.write(namespace, {"a": b"t", "dd": b"d", "d0": b"0"})
        assert isinstance(ledger.commit(writer, planned), Committed)
        assert ledger.files(namespace, 3) == digests({"a": b"t", "keep": b"k", "dd": b"d", "d0": b"0", "d/y": b"y"})

    def test_rollback_equals_its_target_whatever_came_between(self, ledger: Ledger, namespace: NamespaceRow) -> None:
        ledger.write(namespace, self.BASE)
        ledger.write(namespace, {"a": b"bad", "d/x": None, "bad": b"bad"})
        writer = ledger.open(namespace, "exact", prefix="")
        planned = ledger.plan_restore(writer, 1)
        ledger.write(namespace, {"later": b"l"})
        assert isinstance(ledger.commit(writer, planned), PlanAgain)
        again = ledger.plan_restore(writer, 1)
        assert (again.counts.added, again.counts.modified, again.counts.removed) == (1, 1, 2)
        assert isinstance(ledger.commit(writer, again), Committed)
        assert ledger.files(namespace, 4) == ledger.files(namespace, 1)

    def test_rollback_of_a_path_leaves_the_rest(self, ledger: Ledger, namespace: NamespaceRow) -> None:
        ledger.write(namespace, self.BASE)
        ledger.write(namespace, {"a": b"2", "d/x": b"2", "d/y": b"2"})
        writer = ledger.open(namespace, "exact", prefix="d")
        assert isinstance(ledger.commit(writer, ledger.plan_restore(writer, 1, prefix="d")), Committed)
        assert ledger.files(namespace, 3) == digests({"a": b"2", "d/x": b"1", "keep": b"k"})

    def test_revert_of_what_others_changed_again_is_a_conflict(self, ledger: Ledger, namespace: NamespaceRow) -> None:
        writer, planned = self.meet(ledger, namespace, {"a": b"o", "keep": b"o"}, {"a": b"t"}, "conflict")
        with pytest.raises(ConflictError, match="'a' was changed again") as caught:
            ledger.commit(writer, planned)
        assert (caught.value.paths, caught.value.versions) == (("a",), (2,))
        assert ledger.now(namespace).head == 2

    def test_revert_keeps_what_others_added(self, ledger: Ledger, namespace: NamespaceRow) -> None:
        writer, planned = self.meet(ledger, namespace, {"a": b"o"}, {"m": b"m"}, "conflict")
        assert isinstance(ledger.commit(writer, planned), Committed)
        assert ledger.files(namespace, 3) == digests({**self.BASE, "a": b"o", "m": b"m"})

    def test_a_transaction_that_read_what_others_changed_is_a_conflict(self, ledger: Ledger, namespace: NamespaceRow) -> None:
        writer, planned = self.meet(ledger, namespace, {"a": None, "b": b"1"}, {"a": b"t"}, "win", read=("a",))
        with pytest.raises(ConflictError, match="after this transaction read it") as caught:
            ledger.commit(writer, planned)
        assert caught.value.paths == ("a",)

    def test_a_transaction_that_read_what_nobody_changed_commits(self, ledger: Ledger, namespace: NamespaceRow) -> None:
        writer, planned = self.meet(ledger, namespace, {"a": None, "b": b"1"}, {"keep": b"t"}, "win", read=("a",))
        assert isinstance(ledger.commit(writer, planned), Committed)
        assert ledger.files(namespace, 3) == digests({"b": b"1", "d/x": b"1", "keep": b"t"})

    def test_a_transaction_wins_over_a_change_of_what_it_removes(self, ledger: Ledger, namespace: NamespaceRow) -> None:
        writer, planned = self.meet(ledger, namespace, {"a": None, "n": b"n"}, {"a": b"t"}, "win")
        assert isinstance(ledger.commit(writer, planned), Committed)
        assert ledger.files(namespace, 3) == digests({"d/x": b"1", "keep": b"k", "n": b"n"})

    @pytest.mark.parametrize(
        ("ours", "theirs", "named"),
        [
            ({"n": b"1"}, {"n/x": b"2"}, "n"),
            ({"n/x": b"1"}, {"n": b"2"}, "n"),
            ({"n/x/y": b"1"}, {"n": b"2"}, "n"),
            ({"n": b"1"}, {"n/x/y": b"2"}, "n"),
        ],
    )
    @pytest.mark.parametrize("on_touched", ["win", "skip", "conflict"])
    def test_file_and_directory_of_one_name_clash(
        self,
        ledger: Ledger,
        namespace: NamespaceRow,
        ours: dict[str, bytes | None],
        theirs: dict[str, bytes | None],
        named: str,
        on_touched: OnTouched,
    ) -> None:
        writer, planned = self.meet(ledger, namespace, ours, theirs, on_touched)
        with pytest.raises(ConflictError, match="file on one side and a directory on the other") as caught:
            ledger.commit(writer, planned)
        assert caught.value.paths == (named,)

    @pytest.mark.parametrize(
        ("ours", "theirs"),
        [
            ({"a": None, "a/b": b"o"}, {"a": b"t"}),  # a file becomes a directory, others changed the file
            ({"d/x": None, "d": b"o"}, {"d/x": b"t"}),  # a directory becomes a file, others changed a file in it
        ],
    )
    def test_no_clash_with_what_ours_removes(
        self, ledger: Ledger, namespace: NamespaceRow, ours: dict[str, bytes | None], theirs: dict[str, bytes | None]
    ) -> None:
        writer, planned = self.meet(ledger, namespace, ours, theirs, "win")
        assert isinstance(ledger.commit(writer, planned), Committed)
        removed, written = ours
        assert removed not in ledger.files(namespace, 3)
        assert ledger.files(namespace, 3)[written] == digest_of(b"o")

    def test_neighbours_in_byte_order_do_not_clash(self, ledger: Ledger, namespace: NamespaceRow) -> None:
        theirs: dict[str, bytes | None] = {"n-x": b"2", "n0": b"2", "n.d/x": b"2"}
        writer, planned = self.meet(ledger, namespace, {"n/x": b"1"}, theirs, "win")
        assert isinstance(ledger.commit(writer, planned), Committed)

    def test_clashes_with_the_base_are_found_while_planning(self, ledger: Ledger, namespace: NamespaceRow) -> None:
        ledger.write(namespace, self.BASE)
        writer = ledger.open(namespace)
        ledger.stage(writer, {"a/b": b"1", "d": b"1", "p": b"1", "p/q": b"1", "fine/x": b"1", "keep": None, "keep/x": b"1"})
        ledger.plan(writer)
        with ledger.database.read() as connection:
            assert find_clashes(connection, writer.area, 1) == ["a", "d", "p"]

    def test_an_expected_parent_refuses_any_later_version(self, ledger: Ledger, namespace: NamespaceRow) -> None:
        writer, planned = self.meet(ledger, namespace, {"n": b"n"}, {"m": b"m"}, "win", expected_parent=1)
        with pytest.raises(ConflictError, match="is at version 2, expected 1") as caught:
            ledger.commit(writer, planned)
        assert caught.value.versions == (2,)

    def test_an_expected_parent_that_is_the_head_commits(self, ledger: Ledger, namespace: NamespaceRow) -> None:
        ledger.write(namespace, self.BASE)
        assert ledger.write(namespace, {"n": b"n"}, expected_parent=1) == 2

    def test_touched_paths_are_named_with_their_versions(self, ledger: Ledger, namespace: NamespaceRow) -> None:
        writer, _ = self.meet(ledger, namespace, {"a": b"o", "d/x": b"o", "n": b"o"}, {"a": b"t"}, "win")
        ledger.write(namespace, {"d/x": None})
        with ledger.database.read() as connection:
            found = find_touched(connection, writer.area, 1, 3)
            none = find_touched(connection, writer.area, 3, 3)
        assert (found.paths, found.versions) == (["a", "d/x"], [2, 3])
        assert (none.paths, none.versions) == ([], [])

    def version(self, ledger: Ledger, namespace: NamespaceRow, number: int) -> Any:
        with ledger.database.read() as connection:
            return get_version(connection, ledger.now(namespace), number)


class TestUntouched:
    def test_what_others_did_elsewhere_is_told_with_the_head(
        self, ledger: Ledger, namespace: NamespaceRow, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        writer, other = ledger.open(namespace), ledger.open(namespace)
        ledger.stage(writer, {"a/mine": b"1"})
        planned = ledger.plan(writer)
        ledger.stage(other, {"a/theirs": b"1", "a-": b"2", "c/mine": b"3"})
        ledger.commit(other, ledger.plan(other))
        monkeypatch.setattr(commit_module, "judge_touched", None)
        made = ledger.commit(writer, planned)
        assert isinstance(made, Committed)
        assert (made.number, made.created) == (2, True)
        ledger.flush(namespace)
        assert set(ledger.files(namespace, 2)) == {"a/mine", "a/theirs", "a-", "c/mine"}

    @pytest.mark.parametrize("theirs", [{"a": b"1"}, {"a/b/c/d": b"1"}, {"a/b/c": b"2"}])
    def test_what_touches_it_is_judged(
        self, ledger: Ledger, namespace: NamespaceRow, theirs: dict[str, bytes | None], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        writer, other = ledger.open(namespace), ledger.open(namespace)
        ledger.stage(writer, {"a/b/c": b"1"})
        planned = ledger.plan(writer)
        ledger.stage(other, theirs)
        ledger.commit(other, ledger.plan(other))
        judged: list[int] = []

        def judge(*given: Any) -> str:
            judged.append(1)
            return "again"

        monkeypatch.setattr(commit_module, "judge_touched", judge)
        assert ledger.commit(writer, planned) == PlanAgain()
        assert judged == [1]


class TestShrink:
    @pytest.mark.parametrize(
        ("files", "removed", "allowed"),
        [(100, 100, True), (101, 101, False), (202, 101, True), (201, 101, False), (300, 150, True), (300, 151, False)],
    )
    def test_more_than_half_and_more_than_a_hundred_needs_a_word(
        self, ledger: Ledger, namespace: NamespaceRow, files: int, removed: int, allowed: bool
    ) -> None:
        names = [f"f{number:04d}" for number in range(files)]
        ledger.write(namespace, dict.fromkeys(names, b"1"))
        goes: dict[str, bytes | None] = dict.fromkeys(names[:removed])
        if allowed:
            assert ledger.write(namespace, goes) == 2
            return
        with pytest.raises(InvalidInputError, match=f"would remove {removed} of the {files} files") as caught:
            ledger.write(namespace, goes)
        assert "allow_shrink" in caught.value.hint
        assert ledger.now(namespace).head == 1
        assert ledger.write(namespace, goes, allow_shrink=True) == 2


class TestCommit:
    def test_the_same_commit_again_returns_its_version(self, ledger: Ledger, namespace: NamespaceRow) -> None:
        writer = ledger.open(namespace)
        ledger.stage(writer, {"a": b"1"})
        planned = ledger.plan(writer)
        first = ledger.commit(writer, planned)
        ledger.write(namespace, {"b": b"2"})
        again = ledger.commit(writer, planned)
        assert again == Committed(1, True, planned.counts)
        assert isinstance(first, Committed)
        assert replace(first, row=None, record=None) == again
        assert ledger.now(namespace).head == 2
        with ledger.database.read() as connection:
            place = find_commit_place(connection, ledger.store.id, writer.terms.commit_id)
            assert find_commit_place(connection, ledger.store.id, "another") is None
        assert place is not None
        assert (place.namespace_id, place.number) == (namespace.id, 1)

    def test_nothing_changed_makes_no_version(self, ledger: Ledger, namespace: NamespaceRow) -> None:
        ledger.write(namespace, {"a": b"1"})
        writer = ledger.open(namespace)
        ledger.stage(writer, {"a": b"1", "never": None})
        planned = ledger.plan(writer)
        for _ in range(2):
            outcome = ledger.commit(writer, planned)
            assert isinstance(outcome, Committed)
            assert (outcome.number, outcome.created) == (1, False)
        assert ledger.now(namespace).head == 1

    def test_an_executable_bit_is_a_change_and_a_time_is_none(self, ledger: Ledger, namespace: NamespaceRow) -> None:
        ledger.write(namespace, {"a": b"1", "b": b"1"})
        writer = ledger.open(namespace)
        row_a, row_b = staged_row(writer.area, "a", b"1"), staged_row(writer.area, "b", b"1")
        rows = [(*row_a[:8], 0o755, 0), (*row_b[:9], 99)]
        ledger.database.run(lambda c: ledger.database.insert_rows(c, staged, rows))
        planned = ledger.plan(writer)
        assert (planned.counts.added, planned.counts.modified) == (0, 1)
        with ledger.database.read() as connection:
            assert [row.path for row in read_changes(connection, writer.area)] == ["a"]

    def test_an_aborted_upload_does_not_commit(self, ledger: Ledger, namespace: NamespaceRow) -> None:
        writer = ledger.open(namespace)
        ledger.stage(writer, {"a": b"1"})
        planned = ledger.plan(writer)
        ledger.database.run(lambda c: end_upload(c, ledger.store.id, writer.upload.id, "aborted"))
        with pytest.raises(ConflictError, match="aborted meanwhile"):
            ledger.commit(writer, planned)

    def test_an_object_nobody_stored_stops_the_commit(self, ledger: Ledger, namespace: NamespaceRow) -> None:
        writer = ledger.open(namespace)
        ledger.stage(writer, {"a": b"never sent", "empty": b""}, place=False)
        outcome = ledger.commit(writer, ledger.plan(writer))
        assert not isinstance(outcome, Committed)
        assert getattr(outcome, "missing", None) == (digest_of(b"never sent"),)
        assert ledger.now(namespace).head == 0

    def test_a_file_of_no_bytes_needs_no_blob(self, ledger: Ledger, namespace: NamespaceRow) -> None:
        assert ledger.write(namespace, {"empty": b""}) == 1
        assert ledger.files(namespace, 1) == digests({"empty": b""})

    def test_versions_are_chained_by_the_digests_of_their_records(self, ledger: Ledger, namespace: NamespaceRow) -> None:
        for number in range(3):
            writer = ledger.open(namespace, message=f"nr {number}", labels={"k": str(number)})
            ledger.stage(writer, {"a": str(number).encode()})
            ledger.commit(writer, ledger.plan(writer))
        with ledger.database.read() as connection:
            records = list_records(connection, ledger.store.id, "version", namespace.id)
        parent = NO_PARENT
        for number, record in enumerate(records, start=1):
            decoded = VersionRecord.decode(record.body)
            assert (decoded.number, decoded.parent, decoded.file_count) == (number, parent, 1)
            assert decoded.encode() == record.body
            assert record.key == f"journal/{namespace.uid}/{number:016d}"
            parent = record_digest(VERSION_CONTEXT, record.body)
        assert ledger.now(namespace).head_digest == parent

    def test_created_at_grows_although_the_clock_goes_back(
        self, ledger: Ledger, namespace: NamespaceRow, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        clock = iter(range(2_000_000, 0, -1))
        monkeypatch.setattr(
            commit_module, "lock_head", lambda *given, **more: replace(lock_head(*given, **more), stamp_us=next(clock))
        )
        for number in range(4):
            ledger.write(namespace, {"a": str(number).encode()})
        with ledger.database.read() as connection:
            times = [row.created_us for row in list_versions(connection, ledger.now(namespace))]
        assert times == [2_000_003, 2_000_002, 2_000_001, 2_000_000]

    def test_what_a_commit_staged_is_swept_up_after_it(
        self, ledger: Ledger, namespace: NamespaceRow, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sweep, "SWEEP_ROWS_MAX", 2)
        writer, other = ledger.open(namespace), ledger.open(namespace)
        ledger.stage(writer, dict.fromkeys("abcde", b"1"))
        ledger.stage(other, dict.fromkeys("abcde", b"1"))
        fill_part(ledger, writer, "left by a worker that came too late", {"z": b"1"}, finish=False)
        ledger.commit(writer, ledger.plan(writer))
        assert len(rows_of(ledger, writer.area.part_id)) == 5
        rounds = 0
        while ledger.database.run(lambda c: sweep_rows(c, ledger.store.id)):
            rounds += 1
        assert rounds == (3 if ledger.database.is_sqlite else 1)  # by twos; the last one finds the late part alone
        assert rows_of(ledger, writer.area.part_id) == {}
        assert len(rows_of(ledger, other.area.part_id)) == 5
        with ledger.database.read() as connection:
            parts = connection.exec_driver_sql(f"SELECT id FROM part WHERE store_id = {ledger.store.id}").scalars().all()
        assert parts == [other.area.part_id]
        ledger.database.run(count_rows)
        with ledger.database.read() as connection:
            assert get_upload(connection, ledger.store.id, writer.upload.token).state == "committed"


class TestReading:
    @pytest.fixture
    def filled(self, ledger: Ledger, namespace: NamespaceRow) -> NamespaceRow:
        ledger.write(namespace, {"a": b"1", "d/x": b"22", "d/y/z": b"333", "d-": b"4", "d0": b"5"})
        ledger.write(namespace, {"a": b"changed", "d/x": None})
        return namespace

    def test_a_path_is_a_file_or_a_directory_never_a_prefix_of_text(self, ledger: Ledger, filled: NamespaceRow) -> None:
        assert list(ledger.files(filled, 1, "d")) == ["d/x", "d/y/z"]
        assert list(ledger.files(filled, 1, "d/x")) == ["d/x"]
        assert list(ledger.files(filled, 1, "d/")) == []
        assert list(ledger.files(filled, 2, "d")) == ["d/y/z"]
        with ledger.database.read() as connection:
            at = ledger.at(filled, 1)
            assert measure(connection, at, "d") == (2, 5)
            assert measure(connection, at) == (5, 8)
            assert [is_anything_at(connection, at, path) for path in ["d", "d/x", "d/y", "e", "d/"]] == [True] * 3 + [False] * 2
            assert set(find_entries(connection, at, ["a", "d", "nothing"])) == {"a"}

    def test_order_is_that_of_the_utf8_bytes(self, ledger: Ledger, namespace: NamespaceRow) -> None:
        names = ["B", "a", "a b", "a-b", "a/b", "a0", "aa", "Ä", "é", "ﬀ", "😀", "z"]
        ledger.write(namespace, dict.fromkeys(names, b"1"))
        assert list(ledger.files(namespace, 1)) == sorted(names, key=str.encode)

    def test_pages_fit_together(self, ledger: Ledger, filled: NamespaceRow) -> None:
        with ledger.database.read() as connection:
            page = read_page(connection, ledger.at(filled, 1), "", "d-")
        assert [row.path for row in page] == ["d/x", "d/y/z", "d0"]

    def test_the_log_of_a_path_names_the_versions_that_changed_it(self, ledger: Ledger, filled: NamespaceRow) -> None:
        ledger.write(filled, {"d/x": b"again"})
        now = ledger.now(filled)
        with ledger.database.read() as connection:
            logs = {
                path: [row.number for row in list_versions(connection, now, path=path)]
                for path in ["", "a", "d", "d/x", "d/y", "d0", "nothing"]
            }
            limited = [row.number for row in list_versions(connection, now, limit=2)]
        assert logs == {
            "": [3, 2, 1],
            "a": [2, 1],
            "d": [3, 2, 1],
            "d/x": [3, 2, 1],
            "d/y": [1],
            "d0": [1],
            "nothing": [],
        }
        assert limited == [3, 2]

    def test_points(self, ledger: Ledger, filled: NamespaceRow) -> None:
        now = ledger.now(filled)
        with ledger.database.read() as connection:
            second = get_version(connection, now, 2)

            def number(point: Point) -> int:
                return find_point(connection, now, point).number

            assert number(Point()) == 2
            assert number(parse_point("latest~2")) == 0
            assert number(parse_point("b3:" + second.digest.hex()[:12])) == 2
            assert number(Point(moment=second.created_at)) == 2
            assert number(Point(moment=get_version(connection, now, 1).created_at)) == 1
            for point in ["3", "latest~3", "b3:" + "0" * 8, "2001-01-01T00:00Z"]:
                with pytest.raises(NotFoundError):
                    number(parse_point(point))

    def test_a_digest_prefix_that_fits_several_is_refused(self, ledger: Ledger, filled: NamespaceRow) -> None:
        ledger.database.run(
            lambda c: c.execute(
                text("UPDATE version SET digest = :d WHERE namespace_id = :n AND number = :v"),
                [{"d": b"\xab" * 31 + bytes([v]), "n": filled.id, "v": v} for v in (1, 2)],
            )
        )
        with ledger.database.read() as connection, pytest.raises(InvalidInputError, match="fits several versions"):
            find_point(connection, ledger.now(filled), parse_point("b3:" + "ab" * 8))

    def test_a_copy_is_staged_as_seen_from_its_path(self, ledger: Ledger, filled: NamespaceRow) -> None:
        target = ledger.namespace("target")
        staged_at: dict[tuple[str, str], list[str]] = {}
        for path, place in [("", ""), ("", "in/ü"), ("d", ""), ("d", "to"), ("d/x", ""), ("d/x", "to"), ("d/y", "é")]:
            writer = ledger.open(target)
            view = SourceView(filled.id, 1, path)
            ledger.database.run(partial(stage_copy, area=writer.area, source=view, target=place))
            staged_at[path, place] = list(rows_of(ledger, writer.area.part_id))
        assert staged_at[("", "")] == ["a", "d-", "d/x", "d/y/z", "d0"]
        assert staged_at[("", "in/ü")] == ["in/ü/a", "in/ü/d-", "in/ü/d/x", "in/ü/d/y/z", "in/ü/d0"]
        assert staged_at[("d", "")] == ["x", "y/z"]
        assert staged_at[("d", "to")] == ["to/x", "to/y/z"]
        assert staged_at[("d/x", "")] == ["x"]
        assert staged_at[("d/x", "to")] == ["to/x"]
        assert staged_at[("d/y", "é")] == ["é/z"]


class TestVisibility:
    def test_a_version_shows_once_its_record_and_all_before_are_written(self, ledger: Ledger, namespace: NamespaceRow) -> None:
        for number in range(3):
            writer = ledger.open(namespace)
            ledger.stage(writer, {"a": str(number).encode()})
            assert isinstance(ledger.commit(writer, ledger.plan(writer)), Committed)
        seen = [ledger.now(namespace).visible]
        for number in [2, 3, 1]:
            ledger.flush_one(namespace, number)
            seen.append(ledger.now(namespace).visible)
        assert seen == [0, 0, 0, 3]

    def test_what_is_not_visible_is_not_found(self, ledger: Ledger, namespace: NamespaceRow) -> None:
        ledger.write(namespace, {"a": b"0"})
        writer = ledger.open(namespace)
        ledger.stage(writer, {"a": b"1"})
        ledger.commit(writer, ledger.plan(writer))
        now = ledger.now(namespace)
        assert (now.head, now.visible) == (2, 1)
        with ledger.database.read() as connection:
            hidden = connection.execute(text("SELECT digest FROM version WHERE namespace_id = :n AND number = 2"), {"n": now.id})
            prefix = bytes(hidden.scalar_one()).hex()[:16]
            assert find_point(connection, now, Point()).number == 1
            assert [row.number for row in list_versions(connection, now)] == [1]
            for point in ["2", f"b3:{prefix}"]:
                with pytest.raises(NotFoundError):
                    find_point(connection, now, parse_point(point))
            assert find_lowest(connection, ledger.store.id, "version", namespace.id) == 2

    def test_records_leave_the_queue_once(self, ledger: Ledger, namespace: NamespaceRow) -> None:
        writer = ledger.open(namespace)
        ledger.stage(writer, {"a": b"1"})
        ledger.commit(writer, ledger.plan(writer))
        with ledger.database.read() as connection:
            (record,) = list_records(connection, ledger.store.id)
        for _ in range(2):
            ledger.database.run(lambda c: remove_record(c, ledger.store.id, record))
        with ledger.database.read() as connection:
            assert list_records(connection, ledger.store.id) == []
            assert find_lowest(connection, ledger.store.id, "version", namespace.id) is None


class TestDatasets:
    def release(self, ledger: Ledger, namespace: NamespaceRow, version: int, path: str = "", name: str = "customers") -> int:
        new = self.new(ledger, namespace, version, path)

        def work(connection: Connection) -> int:
            dataset = lock_dataset(connection, ledger.store.id, name)
            release = find_same_release(connection, dataset, new)
            if release is None:
                dataset = add_release(connection, dataset, ledger.store.uid, new, "ada")
                release = find_same_release(connection, dataset, new)
            assert release is not None
            return release.number

        return ledger.database.run(work)

    def new(self, ledger: Ledger, namespace: NamespaceRow, version: int, path: str = "") -> NewRelease:
        return NewRelease(namespace.id, namespace.uid, namespace.name, version, NO_PARENT, path, "about", {"k": "v"})

    def tag(self, ledger: Ledger, tag: str, release: int | None, expected: Any = None, name: str = "customers") -> DatasetRow:
        def work(connection: Connection) -> DatasetRow:
            dataset = lock_dataset(connection, ledger.store.id, name)
            return move_tag(
                connection, dataset, ledger.store.uid, tag, release, author="ada", reason="because", expected=expected
            )

        return ledger.database.run(work)

    def flushed(self, ledger: Ledger, name: str = "customers") -> DatasetRow:
        with ledger.database.read() as connection:
            records = list_records(connection, ledger.store.id, "event")
        for record in records:
            ledger.database.run(partial(remove_record, store_id=ledger.store.id, record=record))
        with ledger.database.read() as connection:
            found = find_dataset(connection, ledger.store.id, name)
        assert found is not None
        return found

    def test_releases_are_dense_and_the_same_source_is_the_same_release(self, ledger: Ledger, namespace: NamespaceRow) -> None:
        wanted = [(1, ""), (2, ""), (1, ""), (2, "d"), (2, "d"), (3, "")]
        assert [self.release(ledger, namespace, version, path) for version, path in wanted] == [1, 2, 1, 3, 3, 4]
        dataset = self.flushed(ledger)
        with ledger.database.read() as connection:
            rows = list_releases(connection, dataset)
            assert [(row.number, row.version, row.path, row.labels) for row in rows] == [
                (4, 3, "", {"k": "v"}),
                (3, 2, "d", {"k": "v"}),
                (2, 2, "", {"k": "v"}),
                (1, 1, "", {"k": "v"}),
            ]
            assert [(row.name, count) for row, count in list_datasets(connection, ledger.store.id)] == [("customers", 4)]

    def test_names_are_unique_blind_to_case(self, ledger: Ledger) -> None:
        first = ledger.database.run(lambda c: lock_dataset(c, ledger.store.id, "Customers"))
        second = ledger.database.run(lambda c: lock_dataset(c, ledger.store.id, "customers"))
        assert (second.id, second.name) == (first.id, "Customers")

    def test_a_tag_moves_by_compare_and_swap(self, ledger: Ledger, namespace: NamespaceRow) -> None:
        for version in (1, 2):
            self.release(ledger, namespace, version)
        self.tag(ledger, "prod", 1, expected="absent")
        with pytest.raises(ConflictError, match="shows release 1, expected nothing"):
            self.tag(ledger, "prod", 2, expected="absent")
        with pytest.raises(ConflictError, match="shows release 1, expected release 2"):
            self.tag(ledger, "prod", 2, expected=2)
        self.tag(ledger, "prod", 2, expected=1)
        with pytest.raises(ConflictError, match="shows nothing, expected release 1"):
            self.tag(ledger, "test", 1, expected=1)
        dataset = self.flushed(ledger)
        with ledger.database.read() as connection:
            assert list_tags(connection, dataset) == {"prod": 2}
            assert find_tag(connection, dataset, "prod", up_to=3) == 1

    def test_a_tag_that_stays_records_nothing(self, ledger: Ledger, namespace: NamespaceRow) -> None:
        self.release(ledger, namespace, 1)
        first = self.tag(ledger, "prod", 1)
        assert self.tag(ledger, "prod", 1).head == first.head
        assert self.tag(ledger, "never", None).head == first.head

    def test_a_tag_taken_away_shows_nothing_and_keeps_its_history(self, ledger: Ledger, namespace: NamespaceRow) -> None:
        self.release(ledger, namespace, 1)
        self.tag(ledger, "prod", 1)
        self.tag(ledger, "prod", None)
        dataset = self.flushed(ledger)
        with ledger.database.read() as connection:
            assert list_tags(connection, dataset) == {}
            events = list_events(connection, dataset, "prod")
        assert [(row.kind, row.release, row.previous) for row in events] == [("untag", None, 1), ("tag", 1, None)]

    def test_the_history_is_a_hash_chain_of_its_records(self, ledger: Ledger, namespace: NamespaceRow) -> None:
        self.release(ledger, namespace, 1)
        self.tag(ledger, "prod", 1)
        self.release(ledger, namespace, 2)
        self.tag(ledger, "prod", 2)
        with ledger.database.read() as connection:
            records = list_records(connection, ledger.store.id, "event")
        dataset = self.flushed(ledger)
        with ledger.database.read() as connection:
            events = list_events(connection, dataset)[::-1]
        parent = NO_PARENT
        for number, (row, record) in enumerate(zip(events, records, strict=True), start=1):
            assert (row.number, row.parent) == (number, parent)
            assert row.digest == record_digest(EVENT_CONTEXT, record.body)
            assert b'"parent":"b3:' + parent.hex().encode() in record.body
            parent = row.digest
        assert dataset.head_digest == parent
        times = [row.created_us for row in events]
        assert times == sorted(set(times))

    def test_events_show_in_order_once_they_are_written(self, ledger: Ledger, namespace: NamespaceRow) -> None:
        self.release(ledger, namespace, 1)
        self.tag(ledger, "prod", 1)
        with ledger.database.read() as connection:
            first, second = list_records(connection, ledger.store.id, "event")
            dataset = find_dataset(connection, ledger.store.id, "customers")
        assert dataset is not None
        assert (dataset.head, dataset.visible) == (2, 0)
        ledger.database.run(lambda c: remove_record(c, ledger.store.id, second))
        with ledger.database.read() as connection:
            hidden = find_dataset(connection, ledger.store.id, "customers")
            assert hidden is not None
            assert list_releases(connection, hidden) == []
            assert list_tags(connection, hidden) == {}
            assert find_release(connection, hidden, 1, up_to=hidden.visible) is None
        ledger.database.run(lambda c: remove_record(c, ledger.store.id, first))
        shown = self.flushed(ledger)
        with ledger.database.read() as connection:
            assert list_tags(connection, shown) == {"prod": 1}

    def test_tags_that_show_a_range_of_versions_are_found(self, ledger: Ledger, namespace: NamespaceRow) -> None:
        other = ledger.namespace("other")
        for version in (1, 2, 3):
            self.release(ledger, namespace, version)
        self.release(ledger, other, 2)
        for tag, release in {"one": 1, "two": 2, "three": 3, "other": 4}.items():
            self.tag(ledger, tag, release)
        self.flushed(ledger)
        with ledger.database.read() as connection:
            found = tags_showing(connection, ledger.store.id, namespace.id, 2, 4)
        assert [(dataset, tag, release.number) for dataset, tag, release in found] == [
            ("customers", "three", 3),
            ("customers", "two", 2),
        ]


class Statements:
    """Counts the statements that one engine sends."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def __enter__(self) -> Statements:
        event.listen(sa.Engine, "before_cursor_execute", self._hear)
        return self

    def __exit__(self, *raised: object) -> None:
        event.remove(sa.Engine, "before_cursor_execute", self._hear)

    def _hear(self, connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        self.texts.append(statement)


class TestBulk:
    def test_rows_go_in_without_a_round_trip_each(self, ledger: Ledger, namespace: NamespaceRow) -> None:
        writer = ledger.open(namespace)
        rows = (staged_row(writer.area, f"d{number % 7}/{number:06d}", b"") for number in range(BULK_ROWS))
        with Statements() as seen:
            count = ledger.database.run(lambda c: ledger.database.insert_rows(c, staged, rows))
        assert count == BULK_ROWS
        assert len(seen.texts) <= 1 + BULK_ROWS // 5000  # BEGIN; COPY is one call, and does not pass here
        with ledger.database.read() as connection:
            found = connection.execute(
                text("SELECT COUNT(*) FROM staged WHERE part_id = :p"), {"p": writer.area.part_id}
            ).scalar_one()
        assert found == BULK_ROWS

    def test_a_commit_takes_as_many_statements_for_many_files_as_for_few(self, ledger: Ledger) -> None:
        counts = []
        for files in (10, 2000):
            namespace = ledger.namespace(f"bulk-{files}")
            ledger.write(namespace, {"first": b"1"})
            writer = ledger.open(namespace)
            ledger.stage(writer, {f"f{number}": b"1" for number in range(files)})
            with Statements() as seen:
                outcome = ledger.commit(writer, ledger.plan(writer))
            assert isinstance(outcome, Committed)
            assert outcome.counts.added == files
            counts.append(len(seen.texts))
        assert counts[0] == counts[1]
        assert counts[0] < 40

    def test_a_plan_names_each_change_once(self, ledger: Ledger, namespace: NamespaceRow) -> None:
        ledger.write(namespace, {f"f{number}": b"1" for number in range(20)})
        writer = ledger.open(namespace)
        ledger.stage(writer, {**{f"f{number}": b"2" for number in range(5)}, "f19": None, "f18": b"1", "n": b"new"})
        ledger.database.run(lambda c: mark_changed(c, writer.area, 1))
        with ledger.database.read() as connection:
            counts = count_changes(connection, writer.area, 1)
            changes = {row.path: row.digest for row in read_changes(connection, writer.area)}
        assert (counts.added, counts.modified, counts.removed, counts.size_delta_bytes) == (1, 5, 1, 2)
        assert changes == {**digests({f"f{n}": b"2" for n in range(5)} | {"n": b"new"}), "f19": None}


def test_one_live_interval_a_path(ledger: Ledger, namespace: NamespaceRow) -> None:
    ledger.write(namespace, {"a": b"1"})
    again = text(
        "INSERT INTO entry (store_id, namespace_id, path, first_version, end_version, digest, size_bytes, mode, modified_ns)"
        f" SELECT store_id, namespace_id, path, 9, {OPEN}, digest, size_bytes, mode, modified_ns FROM entry"
        " WHERE namespace_id = :n"
    )
    with pytest.raises(ConflictError, match="two live entries of one path"):
        ledger.database.run(lambda c: c.execute(again, {"n": namespace.id}))


def test_a_change_list_that_was_collected_stops_the_commit(ledger: Ledger, namespace: NamespaceRow) -> None:
    writer = ledger.open(namespace)
    ledger.stage(writer, {"a": b"1"})
    planned = ledger.plan(writer)
    changes = type(NO_LIST)(NO_LIST.digest, 1, key="changes/00/never")
    gone = Planned(planned.base, planned.counts, changes, sent=SentList(2**31 - 1, changes.digest, 1, 1, "etag"))
    with pytest.raises(ConflictError, match="change list of this commit was collected"):
        ledger.commit(writer, gone)
    assert ledger.now(namespace).head == 0
