"""What `fsck` writes to the index against those who write there at the same time, on PostgreSQL, in both orders."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest

from tests.contract.test_index_races import Races
from tests.unit.index.ledger import Writer, commit_or_raise, digest_of, members
from vds.index.commit import Committed
from vds.index.damage import DamageRow, find_damaged, forget_unused, put_damage
from vds.index.placements import find_placements, finish_blob

pytestmark = pytest.mark.services

BODY = b"a content"
DIGEST = digest_of(BODY)


@pytest.fixture
def races(database_url: str) -> Iterator[Races]:
    made = Races(database_url)
    yield made
    made.close()


def place(races: Races) -> tuple[Writer, int]:
    """Place a content in a blob, and return an upload that has staged it, and the blob."""
    ledger = races.ledger
    writer = ledger.open(ledger.namespace())
    ledger.stage(writer, {"a": BODY})
    with ledger.database.read() as connection:
        return writer, find_placements(connection, ledger.store.id, [DIGEST])[DIGEST].blob_id


def damage(races: Races, blob_id: int) -> None:
    races.ledger.database.run(partial(put_damage, store_id=races.ledger.store.id, found=[DamageRow(DIGEST, blob_id, "bad")]))


def state(races: Races) -> tuple[int | None, bool]:
    """Return where the content is, and whether it is known as damaged."""
    store_id = races.ledger.store.id
    with races.ledger.database.read() as connection:
        found = find_placements(connection, store_id, [DIGEST])
        return found[DIGEST].blob_id if found else None, DIGEST in find_damaged(connection, store_id, [DIGEST])


def test_damage_that_is_noted_while_it_is_healed(races: Races) -> None:
    writer, old = place(races)
    damage(races, old)
    new = races.ledger.pending(writer.upload.id)
    heal = partial(finish_blob, store_id=races.ledger.store.id, blob_id=new, upload_id=writer.upload.id, size_bytes=9)
    healer = races.paused(partial(heal, etag="e", members=members(BODY)))
    noter = races.blocked(partial(put_damage, store_id=races.ledger.store.id, found=[DamageRow(DIGEST, old, "bad")]))
    assert healer.let_go()
    noter.join()
    assert state(races) == (new, False)


def test_a_content_that_comes_while_its_damage_is_noted(races: Races) -> None:
    writer, old = place(races)
    new = races.ledger.pending(writer.upload.id)
    noter = races.paused(partial(put_damage, store_id=races.ledger.store.id, found=[DamageRow(DIGEST, old, "bad")]))
    finish = partial(finish_blob, store_id=races.ledger.store.id, blob_id=new, upload_id=writer.upload.id, size_bytes=9)
    assert races.ledger.database.run(partial(finish, etag="e", members=members(BODY)))
    noter.let_go()
    assert state(races) == (old, True)  # it knew nothing of the damage; whoever comes next heals it


def test_a_commit_waits_for_what_is_being_forgotten(races: Races) -> None:
    writer, old = place(races)
    damage(races, old)
    planned = races.ledger.plan_listed(writer)
    forget = partial(forget_unused, store_id=races.ledger.store.id, digest=DIGEST)
    assert not races.ledger.database.run(forget)  # an upload has staged it
    races.ledger.database.run(lambda c: c.exec_driver_sql("DELETE FROM staged"))
    forgetter = races.paused(forget)
    races.ledger.stage(writer, {"a": BODY}, place=False)
    committer = races.blocked(lambda c: commit_or_raise(c, writer, planned))
    assert forgetter.let_go() is True
    assert not isinstance(committer.join(), Committed)
    assert state(races) == (None, False)


def test_what_is_committed_meanwhile_is_not_forgotten(races: Races) -> None:
    writer, old = place(races)
    damage(races, old)
    planned = races.ledger.plan_listed(writer)

    def commit_and_sweep(connection):  # type: ignore[no-untyped-def]
        done = commit_or_raise(connection, writer, planned)
        connection.exec_driver_sql("DELETE FROM staged")
        return done

    committer = races.paused(commit_and_sweep)
    forgetter = races.blocked(partial(forget_unused, store_id=races.ledger.store.id, digest=DIGEST))
    assert isinstance(committer.let_go(), Committed)
    assert forgetter.join() is False
    assert state(races) == (old, True)
