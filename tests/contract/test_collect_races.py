"""Commits, registrations and collectors at one moment, on PostgreSQL: connections of their own, in both orders.

Each is stopped inside its transaction, before COMMIT, while the other one waits for its locks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import text

from tests.contract.test_index_races import Races, committing
from tests.unit.index.ledger import Ledger, Writer, digest_of
from vds.index.collect import BlobUse, Copied, begin_deleting, condemn, switch_members
from vds.index.commit import Committed, PlanAgain, Planned
from vds.index.database import Connection
from vds.index.datasets import NewRelease, add_release, lock_dataset
from vds.index.expiry import hold_kept, list_released, lock_kept, mark_expired
from vds.index.needs import BlobsGone
from vds.index.placements import revive_blobs
from vds.index.stores import NamespaceRow
from vds.index.uses import Gap, count_uses, put_back, set_aside

pytestmark = pytest.mark.services

Collector = Callable[[Connection, int, list[int]], tuple[list[BlobUse], list[BlobUse]]]


@pytest.fixture
def races(database_url: str) -> Iterator[Races]:
    made = Races(database_url)
    yield made
    made.close()


@pytest.fixture
def ledger(races: Races) -> Ledger:
    return races.ledger


def ready_to_commit(ledger: Ledger, *, listed: bool = True) -> tuple[int, Writer, Planned]:
    """Return a live blob that no version uses yet, and a commit that will."""
    namespace = ledger.namespace()
    writer = ledger.open(namespace)
    blob_id = ledger.put_blob(writer.upload.id, b"wanted")
    ledger.stage(writer, {"a": b"wanted"}, place=False)
    return blob_id, writer, ledger.plan_listed(writer) if listed else ledger.plan(writer)


def merged(connection: Connection, store_id: int, blob_ids: list[int]) -> tuple[list[BlobUse], list[BlobUse]]:
    """The collector's two statements as one: what it must not be."""
    gone = connection.execute(
        text(
            "UPDATE blob SET state = 'condemned' WHERE id = ANY(:ids) AND state = 'live' AND NOT EXISTS (SELECT 1 FROM object o"
            " JOIN entry e ON e.store_id = o.store_id AND e.digest = o.digest WHERE o.blob_id = blob.id) RETURNING id, key"
        ),
        {"ids": blob_ids},
    )
    return [BlobUse(row.id, row.key, 0, 0) for row in gone], []


class TestCommitAgainstCondemn:
    def commit_comes_first(self, races: Races, ledger: Ledger, collector: Collector) -> None:
        blob_id, writer, planned = ready_to_commit(ledger)
        committer = races.paused(committing(writer, planned))
        collecting = races.blocked(lambda c: collector(c, ledger.store.id, [blob_id]))
        assert isinstance(committer.let_go(), Committed)
        dead, _ = collecting.join()
        assert dead == [], "a blob that a version refers to was condemned"
        assert ledger.blob_state(blob_id) == "live"

    def test_the_commit_comes_first(self, races: Races, ledger: Ledger) -> None:
        self.commit_comes_first(races, ledger, condemn)

    def test_one_statement_instead_of_two_would_lose_it(self, races: Races, ledger: Ledger) -> None:
        with pytest.raises(AssertionError, match="a blob that a version refers to was condemned"):
            self.commit_comes_first(races, ledger, merged)

    @pytest.mark.parametrize("listed", [True, False])
    def test_the_collector_comes_first(self, races: Races, ledger: Ledger, listed: bool) -> None:
        blob_id, writer, planned = ready_to_commit(ledger, listed=listed)
        collecting = races.paused(lambda c: condemn(c, ledger.store.id, [blob_id]))
        committer = races.blocked(committing(writer, planned))
        dead, _ = collecting.let_go()
        assert [use.blob_id for use in dead] == [blob_id]
        assert isinstance(committer.join(), PlanAgain | BlobsGone)
        assert ledger.blob_state(blob_id) == "condemned"
        assert ledger.now_of(writer).head == 0

    def test_what_was_counted_is_not_condemned_when_it_is_used(self, ledger: Ledger) -> None:
        blob_id, writer, planned = ready_to_commit(ledger)
        assert isinstance(ledger.commit(writer, planned), Committed)
        ledger.database.run(lambda c: count_uses(c, ledger.store.id, writer.area.namespace_id, 1))
        dead, kept = ledger.database.run(lambda c: condemn(c, ledger.store.id, [blob_id]))
        assert (dead, [use.blob_id for use in kept]) == ([], [blob_id])


class TestReviveAgainstDelete:
    def condemned(self, ledger: Ledger) -> int:
        blob_id, _, _ = ready_to_commit(ledger)
        ledger.database.run(lambda c: condemn(c, ledger.store.id, [blob_id]))
        assert ledger.blob_state(blob_id) == "condemned"
        return blob_id

    def test_the_writer_revives_first(self, races: Races, ledger: Ledger) -> None:
        blob_id = self.condemned(ledger)
        reviving = races.paused(lambda c: revive_blobs(c, [blob_id]))
        deleting = races.blocked(lambda c: begin_deleting(c, ledger.store.id, [blob_id]))
        assert reviving.let_go() == 1
        assert deleting.join() == []
        assert ledger.blob_state(blob_id) == "live"

    def test_the_collector_deletes_first(self, races: Races, ledger: Ledger) -> None:
        blob_id = self.condemned(ledger)
        deleting = races.paused(lambda c: begin_deleting(c, ledger.store.id, [blob_id]))
        reviving = races.blocked(lambda c: revive_blobs(c, [blob_id]))
        assert [use.blob_id for use in deleting.let_go()] == [blob_id]
        assert reviving.join() == 0
        assert ledger.blob_state(blob_id) == "deleting"


class TestCommitAgainstRepack:
    def repacking(self, ledger: Ledger, old_id: int, copied: list[bytes]) -> tuple[Callable[[Connection], list[int]], int]:
        """Return the step that moves what was copied out of a pack into a new one, and the new one's id."""
        upload = ledger.open(ledger.namespace("other")).upload
        new_id = ledger.pending(upload.id)
        rows = [Copied(digest_of(body), old_id, place) for place, body in enumerate(copied)]
        return lambda c: switch_members(c, ledger.store.id, (new_id, upload.id), 9, "etag", rows), new_id

    def packed(self, ledger: Ledger) -> tuple[int, Writer, Planned]:
        """Return a pack of which one member is used, and a commit that is about to use the other."""
        namespace = ledger.namespace()
        first = ledger.open(namespace)
        blob_id = ledger.put_blob(first.upload.id, b"used", b"wanted")
        ledger.stage(first, {"a": b"used"}, place=False)
        assert isinstance(ledger.commit(first, ledger.plan_listed(first)), Committed)
        writer = ledger.open(namespace)
        ledger.stage(writer, {"b": b"wanted"}, place=False)
        return blob_id, writer, ledger.plan_listed(writer)

    def test_a_member_taken_into_use_meanwhile_keeps_the_old_pack(self, races: Races, ledger: Ledger) -> None:
        old_id, writer, planned = self.packed(ledger)
        step, new_id = self.repacking(ledger, old_id, [b"used"])
        committer = races.paused(committing(writer, planned))
        repacker = races.blocked(step)
        assert isinstance(committer.let_go(), Committed)
        assert repacker.join() == []
        assert (ledger.blob_state(old_id), ledger.blob_state(new_id)) == ("live", "condemned")

    def test_the_commit_sees_that_something_moved(self, races: Races, ledger: Ledger) -> None:
        old_id, writer, planned = self.packed(ledger)
        step, new_id = self.repacking(ledger, old_id, [b"used"])
        repacker = races.paused(step)
        committer = races.blocked(committing(writer, planned))
        assert repacker.let_go() == [old_id]
        assert isinstance(committer.join(), PlanAgain)
        assert (ledger.blob_state(old_id), ledger.blob_state(new_id)) == ("condemned", "live")


class TestExpireAgainstRegister:
    def versioned(self, ledger: Ledger) -> NamespaceRow:
        namespace = ledger.namespace()
        for number in (1, 2):
            writer = ledger.open(namespace)
            ledger.stage(writer, {"a": f"{number}".encode()})
            assert isinstance(ledger.commit(writer, ledger.plan_listed(writer)), Committed)
        return ledger.now(namespace)

    def expiring(self, namespace: NamespaceRow) -> Callable[[Connection], list[int]]:
        def work(connection: Connection) -> list[int]:
            numbers = lock_kept(connection, namespace, [1])
            numbers = [number for number in numbers if number not in list_released(connection, namespace)]
            mark_expired(connection, namespace, numbers, 1)
            return numbers

        return work

    def registering(self, ledger: Ledger, namespace: NamespaceRow) -> Callable[[Connection], None]:
        def work(connection: Connection) -> None:
            dataset = lock_dataset(connection, ledger.store.id, "customers")
            hold_kept(connection, ledger.store.id, namespace.id, 1)
            new = NewRelease(namespace.id, namespace.uid, namespace.name, 1, bytes(32), "", "", {})
            add_release(connection, dataset, ledger.store.uid, new, "ada")

        return work

    def test_a_version_registered_first_does_not_expire(self, races: Races, ledger: Ledger) -> None:
        namespace = self.versioned(ledger)
        registering = races.paused(self.registering(ledger, namespace))
        expiring = races.blocked(self.expiring(namespace))
        registering.let_go()
        assert expiring.join() == []

    def test_a_version_that_expired_first_is_not_registered(self, races: Races, ledger: Ledger) -> None:
        namespace = self.versioned(ledger)
        expiring = races.paused(self.expiring(namespace))
        registering = races.blocked(self.registering(ledger, namespace))
        assert expiring.let_go() == [1]
        with pytest.raises(LookupError, match="was expired"):
            registering.join()


class TestTwoCollectors:
    def test_the_second_finds_everything_counted(self, races: Races, ledger: Ledger) -> None:
        _, writer, planned = ready_to_commit(ledger)
        ledger.commit(writer, planned)
        namespace_id = writer.area.namespace_id
        first = races.paused(lambda c: count_uses(c, ledger.store.id, namespace_id, 1))
        second = races.blocked(lambda c: count_uses(c, ledger.store.id, namespace_id, 1))
        first.let_go()
        second.join()
        with ledger.database.read() as connection:
            uses = connection.exec_driver_sql("SELECT uses FROM object_use").scalars().all()
        assert uses == [1]

    def test_one_counts_a_use_while_another_sets_the_only_other_one_aside(self, races: Races, ledger: Ledger) -> None:
        """Or the content would be taken for unused, and its bytes deleted under a version that was acknowledged."""
        store_id = ledger.store.id
        old = TestExpireAgainstRegister().versioned(ledger)  # its first version holds b"1", and no other of it
        ledger.database.run(lambda c: count_uses(c, store_id, old.id, 2))
        ledger.database.run(lambda c: mark_expired(c, old, [1], 1))
        new = ledger.namespace("other")
        writer = ledger.open(new)
        ledger.stage(writer, {"copy": b"1"}, place=False)
        assert isinstance(ledger.commit(writer, ledger.plan_listed(writer)), Committed)
        counting = races.paused(lambda c: count_uses(c, store_id, new.id, 1))
        setting = races.blocked(lambda c: set_aside(c, store_id, [Gap(old.id, 0, 2)], [1]))
        counting.let_go()
        assert setting.join() == 1
        assert counted(ledger) == {digest_of(b"1"): 1, digest_of(b"2"): 1}

    def test_setting_aside_and_putting_back_keep_the_count(self, ledger: Ledger) -> None:
        namespace = TestExpireAgainstRegister().versioned(ledger)
        store_id = ledger.store.id
        ledger.database.run(lambda c: count_uses(c, store_id, namespace.id, 2))
        ledger.database.run(lambda c: mark_expired(c, namespace, [1], 1))
        before = counted(ledger)
        assert ledger.database.run(lambda c: set_aside(c, store_id, [Gap(namespace.id, 0, 2)], [1])) == 1
        assert counted(ledger) == {digest_of(b"2"): 1}
        assert ledger.database.run(lambda c: put_back(c, store_id, namespace.id)) == 1
        assert counted(ledger) == before


def counted(ledger: Ledger) -> dict[bytes, int]:
    with ledger.database.read() as connection:
        rows = connection.exec_driver_sql("SELECT digest, uses FROM object_use").all()
    return {bytes(row[0]): row[1] for row in rows}
